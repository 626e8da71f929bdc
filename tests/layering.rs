//! Who may know whom: reads every `crate::…` path in `src` and holds it against
//! the table of the house, and checks that single-room packages and `unsafe`
//! stay in their rooms.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module, and what it may use beside `limits` and itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("clock", &[]),
    ("sys", &[]),
    ("metrics", &[]),
    ("engine", &[]),
    ("http", &["clock"]),
    ("exposure", &["engine"]),
    ("status", &["exposure", "metrics", "clock"]),
    // exposure: spans lie in rings of the same kind, written by the same encoder;
    // metrics: the stopwatch that the loop keeps going anyway.
    ("trace", &["exposure", "metrics", "clock"]),
    // config: explain reads the experiments file that travels in the plan.
    ("endpoint", &["http", "engine", "exposure", "metrics", "clock", "config", "status", "trace"]),
    ("config", &["engine"]),
    ("worker", &["endpoint", "http", "engine", "exposure", "metrics", "sys", "clock", "trace"]),
    // trace: what a record of spans is.
    ("logger", &["exposure", "metrics", "sys", "clock", "trace"]),
    ("loader", &["config", "engine", "sys", "clock"]),
    (
        "master",
        &[
            "config", "endpoint", "http", "exposure", "loader", "logger", "metrics", "sys", "worker",
            "clock", "trace",
        ],
    ),
    ("cli", &["config", "engine", "exposure", "logger", "master", "metrics", "status", "sys", "clock"]),
];

/// A crate's name in code, and the only places that may name it.
const ROOMS_OF_CRATES: &[(&str, &[&str])] = &[
    ("mio", &["worker/epoll.rs"]),
    ("io_uring", &["worker/uring.rs", "sys/uring"]),
    ("rdkafka", &["logger/sink/kafka"]),
    ("libc", &["sys/"]),
    ("httparse", &["http/"]),
    ("core_affinity", &["worker/"]),
    ("crossbeam_channel", &["logger/"]),
    ("prost", &["exposure/", "cli/events.rs", "logger/"]),
    ("sd_notify", &["master/"]),
    ("ratatui", &["cli/top/"]),
    ("ureq", &["logger/traces.rs"]),
];

fn sources() -> BTreeMap<PathBuf, String> {
    fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path, text);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 30, "src was found");
    found
}

/// The path below `src`, with slashes.
fn inner(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()
}

/// Tests may reach further.
fn is_test(inner: &str) -> bool {
    inner.ends_with("/tests.rs") || inner.contains("/tests/")
}

/// The code alone: no comments (so no doc links either), and nothing that is
/// `#[cfg(test)]`. Modules of tests come last.
fn code(text: &str) -> String {
    let mut lines = text.lines().map(|line| line.split("//").next().unwrap_or("").trim_end());
    let mut code = Vec::new();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            code.push(line);
            continue;
        }
        // The item behind it, to the end of its line or of its braces.
        let mut depth = 0;
        for line in lines.by_ref() {
            if line.contains("mod ") && line.ends_with('{') {
                return code.join("\n");
            }
            depth += line.matches(['{', '(', '[']).count();
            depth -= line.matches(['}', ')', ']']).count().min(depth);
            if depth == 0 && line.ends_with([';', '}']) {
                break;
            }
        }
    }
    code.join("\n")
}

/// First segments of all `crate::…` paths, groups in braces included.
fn used(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(group) => top_level_names(group),
            None => vec![rest],
        };
        for name in names {
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            found.insert(name[..end].to_owned());
        }
    }
    found.remove("");
    found
}

/// `a::b, c::{d, e}, f}` → `a::b`, `c::{d, e}`, `f`
fn top_level_names(group: &str) -> Vec<&str> {
    let (mut depth, mut from, mut names) = (0, 0, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(group[from..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(group[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn every_module_uses_only_what_the_house_allows() {
    let modules: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let inner = inner(&path);
        let module = inner.split(['/', '.']).next().unwrap();
        if module == "lib" || module == "main" || is_test(&inner) {
            continue;
        }
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            faults.push(format!("{inner}: module `{module}` has no row in the table"));
            continue;
        };
        for other in used(&code(&text)) {
            let known = modules.contains(other.as_str());
            if known && other != module && other != "limits" && !allowed.contains(&other.as_str()) {
                faults.push(format!("{inner}: `{module}` must not know `{other}`"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn packages_of_one_room_are_named_nowhere_else() {
    let mut faults = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(&inner(path))) {
        let inner = inner(&path);
        let code = code(&text);
        for (package, rooms) in ROOMS_OF_CRATES {
            let named = code
                .match_indices(&format!("{package}::"))
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
            if named && !rooms.iter().any(|room| inner.starts_with(room)) {
                faults.push(format!("{inner}: names `{package}`, which belongs to {rooms:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn unsafe_stays_in_sys() {
    for (path, text) in sources() {
        let inner = inner(&path);
        let code = code(&text);
        let named = ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code"];
        if let Some(found) = named.iter().find(|word| code.contains(**word)) {
            assert!(inner.starts_with("sys/"), "{inner}: `{found}` outside sys");
        }
    }
}

#[test]
fn the_check_itself_sees_groups_and_ignores_comments_and_tests() {
    let text = "\
use crate::{http::{a, b}, sys};
// crate::master
#[cfg(test)]
mod tests;
#[cfg(test)]
fn listen() {
    crate::worker::listen();
}
fn f() { crate::clock::now(); }
#[cfg(test)]
mod more_tests {
    use crate::loader;
}";
    let names: Vec<String> = used(&code(text)).into_iter().collect();
    assert_eq!(names, ["clock", "http", "sys"]);
}
