//! The README says what the program says: its tables of settings and metrics
//! are the program's own.

use std::path::Path;

use splitd::config::settings;
use splitd::metrics::FAMILIES;

fn readme() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

/// The lines that are missing, to be pasted.
fn missing(lines: Vec<String>) -> String {
    let readme = readme();
    lines.into_iter().filter(|line| !readme.lines().any(|known| known == line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_setting_stands_in_the_readme_as_it_is() {
    let row = |setting: settings::Described| {
        let dot = if setting.section.is_empty() { "" } else { "." };
        format!(
            "| `{}{dot}{}` | {} | {} |",
            setting.section,
            setting.name,
            code(setting.default),
            setting.doc
        )
    };
    let missing = missing(settings::described().map(row).collect());
    assert!(missing.is_empty(), "the README lacks\n{missing}");
}

#[test]
fn every_metric_stands_in_the_readme_as_it_is() {
    let row = |family: &splitd::metrics::Row| {
        let labels: Vec<String> = family.labels.iter().map(|(name, _)| format!("`{name}`")).collect();
        format!("| `{}` | {} | {} |", family.name, labels.join(", "), family.help)
    };
    let missing = missing(FAMILIES.iter().map(row).collect());
    assert!(missing.is_empty(), "the README lacks\n{missing}");
}

/// All Rust files below a directory.
fn sources(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|end| end == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_a_table_of_losses_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    ["src", "tests"].into_iter().for_each(|part| sources(&root.join(part), &mut code));
    let readme = readme();
    let mut count = 0;
    for table in readme.split("\n\n").filter(|part| part.starts_with("| what happens |")) {
        for row in table.lines().skip(2) {
            let shown_by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            let names: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
            assert!(!names.is_empty(), "no test shows: {row}");
            for name in names {
                // A test is a function, or a name that is given to `for_each_backend`.
                let is_there =
                    [format!("fn {name}("), format!(" {name}(io)")].iter().any(|text| code.contains(text));
                assert!(is_there, "there is no test `{name}`");
                count += 1;
            }
        }
    }
    assert!(count > 20, "both tables are found: {count}");
}

/// Every `splitd_…` name in a text, histograms' suffixes off.
fn names_in(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = text.match_indices("splitd_").map(|(at, _)| at);
    let names = starts.map(|at| &text[at..at + text[at..].find(|c| !is_part(c)).unwrap_or(text.len() - at)]);
    let whole = |name: &'static str| move |text: &&str| text.strip_suffix(name).is_some();
    names
        .map(|name| {
            let histogram = ["_bucket", "_sum", "_count"].into_iter().find(|suffix| whole(suffix)(&name));
            histogram.map_or(name, |suffix| name.strip_suffix(suffix).unwrap_or(name))
        })
        .collect()
}

#[test]
fn alert_rules_and_dashboard_use_names_that_are_exported() {
    for file in
        ["scripts/prometheus/alerts.yml", "scripts/prometheus/alerts.test.yml", "scripts/grafana.json"]
    {
        let text = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let names = names_in(&text);
        assert!(names.len() > 10, "{file}: the names are found");
        for name in names {
            assert!(FAMILIES.iter().any(|row| row.name == name), "{file}: nothing exports `{name}`");
        }
    }
    let dashboard = std::fs::read(format!("{}/scripts/grafana.json", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let dashboard: serde_json::Value = serde_json::from_slice(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.iter().all(|panel| !panel["targets"].as_array().unwrap().is_empty()));
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}
