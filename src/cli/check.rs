//! `splitd check FILE…`: every fault of experiments files and settings, each with
//! its place. Exit code 1 where there is one.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Exit, Failure, counted, read_file};
use crate::config::check::{Fault, SCHEMA, load};
use crate::config::settings::check_settings;
use crate::engine::catalog::State;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Experiments files (JSON) and settings (TOML); - is standard input
    #[arg(required_unless_present = "schema")]
    files: Vec<PathBuf>,
    /// Print one JSON object a file
    #[arg(long)]
    json: bool,
    /// Print the JSON Schema of the experiments file instead, for editors
    #[arg(long, conflicts_with_all = ["files", "json"])]
    schema: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit, Failure> {
    if arguments.schema {
        out.write_all(SCHEMA.as_bytes())?;
        return Ok(Exit::Done);
    }
    let (mut exit, mut unread) = (Exit::Done, None);
    for path in &arguments.files {
        // A file that can't be read keeps no other from being checked.
        let source = match read_file(path) {
            Ok(source) => source,
            Err(failure) => {
                if let Some(earlier) = unread.replace(failure) {
                    eprintln!("splitd: {earlier}");
                }
                continue;
            }
        };
        let kind = kind_of(path, &source);
        let checked = match kind {
            FileKind::Experiments => check_experiments(&source),
            FileKind::Settings => check_settings_file(&source),
        };
        if checked.is_err() {
            exit = Exit::Fault;
        }
        if arguments.json {
            write_json(out, path, kind, &checked)?;
        } else {
            write_text(out, path, &checked)?;
        }
    }
    match unread {
        Some(failure) => {
            out.flush()?;
            Err(failure)
        }
        None => Ok(exit),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileKind {
    Experiments,
    Settings,
}

/// By the name's ending; else what begins like JSON is experiments.
fn kind_of(path: &Path, source: &[u8]) -> FileKind {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => FileKind::Experiments,
        Some("toml") => FileKind::Settings,
        // `[` begins a table of TOML and no experiments file; a `{` no settings.
        _ if source.trim_ascii_start().starts_with(b"{") => FileKind::Experiments,
        _ => FileKind::Settings,
    }
}

/// What a file holds, in a line, or its faults.
type Checked = Result<String, Vec<Fault>>;

fn check_experiments(source: &[u8]) -> Checked {
    let (catalog, plan) = load(source)?;
    let running = catalog.experiments.iter().filter(|experiment| experiment.state == State::Running).count();
    Ok(format!(
        "version {}: {} ({running} running) in {}, {}, {}; a plan of {}",
        catalog.version,
        counted(catalog.experiments.len(), "experiment"),
        counted(catalog.layers.len(), "layer"),
        counted(catalog.segments.len(), "named segment"),
        counted(catalog.attributes.len(), "attribute"),
        counted(plan.bytes().len(), "byte"),
    ))
}

fn check_settings_file(source: &[u8]) -> Checked {
    let text = std::str::from_utf8(source).map_err(|fault| {
        let message = format!("not UTF-8 at offset {}; UTF-8 is wanted", fault.valid_up_to());
        vec![Fault { pointer: String::new(), message }]
    })?;
    match check_settings(text) {
        Ok(_) => Ok("settings".to_owned()),
        Err(faults) => {
            let faults = faults.into_iter();
            Err(faults.map(|fault| Fault { pointer: fault.pointer, message: fault.message }).collect())
        }
    }
}

fn write_text(out: &mut dyn Write, path: &Path, checked: &Checked) -> std::io::Result<()> {
    let path = path.display();
    match checked {
        Ok(held) => writeln!(out, "{path}: in order; {held}"),
        Err(faults) => {
            for fault in faults {
                writeln!(out, "{path}: {fault}")?;
            }
            writeln!(out, "{path}: {}", counted(faults.len(), "fault"))
        }
    }
}

fn write_json(out: &mut dyn Write, path: &Path, kind: FileKind, checked: &Checked) -> std::io::Result<()> {
    let faults: Vec<_> = checked
        .as_ref()
        .err()
        .into_iter()
        .flatten()
        .map(|fault| json!({"pointer": fault.pointer, "message": fault.message}))
        .collect();
    let kind = match kind {
        FileKind::Experiments => "experiments",
        FileKind::Settings => "settings",
    };
    let object = json!({
        "file": path.to_string_lossy(),
        "kind": kind,
        "ok": checked.is_ok(),
        "holds": checked.as_ref().ok(),
        "faults": faults,
    });
    writeln!(out, "{object}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_kind_is_told_by_its_ending_and_else_by_its_beginning() {
        let table = [
            ("a.json", "x = 1", FileKind::Experiments),
            ("a.toml", "{}", FileKind::Settings),
            ("-", " \n{}", FileKind::Experiments),
            ("-", "[[pool]]", FileKind::Settings),
            ("experiments", "{", FileKind::Experiments),
            ("splitd.conf", "state_dir = \"/x\"", FileKind::Settings),
        ];
        for (path, source, kind) in table {
            assert_eq!(kind_of(Path::new(path), source.as_bytes()), kind, "{path}");
        }
    }
}
