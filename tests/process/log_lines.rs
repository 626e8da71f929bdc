//! How a line of a daemon's log reads.

/// Whether a line of the log is what it should be: its time and level, and from there
/// on pairs `key=value` only, the second an event's name; a value that is more than
/// one word is quoted.
pub fn is_event(line: &str) -> bool {
    let mut parts = line.splitn(3, ' ');
    let (time, level) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let prefixed = time.len() == "2026-11-22T08:30:00.123Z".len()
        && time.ends_with('Z')
        && ["debug", "info", "warn", "error"].contains(&level);
    let keys = parts.next().and_then(keys_of);
    prefixed && keys.is_some_and(|keys| keys.starts_with(&["pid", "event"]))
}

/// The keys of a text that is pairs.
fn keys_of(text: &str) -> Option<Vec<&str>> {
    let mut keys = Vec::new();
    let mut rest = text;
    loop {
        let (key, behind) = rest.split_once('=')?;
        let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let value_size = match behind.strip_prefix('"') {
            Some(quoted) => {
                let mut escaped = false;
                let end = quoted.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                end? + 2
            }
            None => behind.find(' ').unwrap_or(behind.len()),
        };
        let (value, after) = behind.split_at(value_size);
        let is_value = value.starts_with('"') || (!value.is_empty() && !value.contains(['"', '=']));
        if !is_key || !is_value {
            return None;
        }
        keys.push(key);
        match after.strip_prefix(' ') {
            Some(next) => rest = next,
            None => return after.is_empty().then_some(keys),
        }
    }
}

#[test]
fn what_is_no_pair_is_found_in_a_line_of_the_log() {
    let line = |text: &str| format!("2026-11-22T08:30:00.123Z warn pid=7 {text}");
    for sound in ["event=ready", r#"event=x file="/a b" reason="a \"word\" \\" n=-1.5 at=127.0.0.1:80"#] {
        assert!(is_event(&line(sound)), "{sound}");
    }
    let free = [
        "ready",
        "event=x free words",
        r#"event=x reason="a "word"""#,
        "event=x reason=a=b",
        "event=",
        "event=x ",
    ];
    for free in free.into_iter().chain([r#"event=x reason="open"#, "n=1 event=x", r#"event=x y="1"2"#]) {
        assert!(!is_event(&line(free)), "{free}");
    }
    assert!(!is_event("warn pid=7 event=x"));
}
