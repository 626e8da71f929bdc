//! The README says what the program says: its tables of settings and metrics
//! are the program's own.

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

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}
