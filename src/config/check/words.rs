//! Words that messages share.

/// A text short enough for a message.
pub(super) fn short(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((cut, _)) => format!("{}…", &text[..cut]),
    }
}

/// Why a name that stands in the file may yet not be declared.
pub(super) fn note_hint(name: &str) -> &'static str {
    if super::keys::NOTES.contains(&name) {
        "; `description` and `meta` are notes wherever they stand and declare nothing"
    } else {
        ""
    }
}

/// "`a`, `b` and `c`"
pub(super) fn listed<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        None => "none".into(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}
