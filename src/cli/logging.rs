//! The log: one line for one event of an instance's life, `key=value`, to
//! standard error.
//!
//! ```text
//! in a terminal or a file:   2026-11-22T08:30:00.123Z info pid=812 event=ready workers=4 start_ms=38
//! in systemd's journal:      <6>event=ready workers=4 start_ms=38
//! ```
//! The journal knows the time and the process by itself; the prefix tells it the
//! level. A line is written by one system call, so lines of several processes
//! never mix, and a line break in a message is shown as `\n`: one event, one line.
//! An instance keeps its last lines in shared memory, too ([`board`]).

use std::io::Write;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::clock;
use crate::metrics::board;

struct Lines {
    journal: bool,
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let (now, message) = (clock::now().unix_us, record.args().to_string());
            board::note(now, level_name(record.level()), &message);
            let line = line(self.journal, record.level(), now, &message);
            // Nobody is left to be told that the log can't be written.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// Sends the program's log to standard error from here on. A second call
/// changes nothing.
pub fn start() {
    static LINES: OnceLock<Lines> = OnceLock::new();
    let lines = LINES.get_or_init(|| Lines { journal: std::env::var_os("JOURNAL_STREAM").is_some() });
    if log::set_logger(lines).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

fn line(journal: bool, level: Level, unix_us: i64, message: &str) -> String {
    let message = message.replace('\n', "\\n").replace('\r', "\\r");
    if journal {
        let priority = match level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        };
        return format!("<{priority}>{message}\n");
    }
    let pid = std::process::id();
    format!("{} {} pid={pid} {message}\n", rfc3339(unix_us), level_name(level))
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    }
}

/// `2026-11-22T08:30:00.123Z`.
pub(super) fn rfc3339(unix_us: i64) -> String {
    let (seconds, micros) = (unix_us.div_euclid(1_000_000), unix_us.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date of the Gregorian calendar, counted from 0000-03-01 so that
    // the leap day is a year's last: 146,097 days are 400 years, 153 days 5 months.
    let from_march = days + 719_468;
    let (era, day) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (era * 400 + year, month + 3),
        _ => (era * 400 + year + 1, month - 9),
    };
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60,
        micros / 1_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (1_735_689_600, "2025-01-01T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1_000_000), text);
        }
        assert_eq!(rfc3339(1_234), "1970-01-01T00:00:00.001Z");
    }

    #[test]
    fn one_event_is_one_line_whatever_its_message() {
        let line = line(false, Level::Warn, 0, "event=ended last_words=a\nb\r");
        let pid = std::process::id();
        assert_eq!(
            line,
            format!("1970-01-01T00:00:00.000Z warn pid={pid} event=ended last_words=a\\nb\\r\n")
        );
    }

    #[test]
    fn the_journal_gets_the_level_as_its_prefix() {
        assert_eq!(line(true, Level::Info, 0, "event=ready"), "<6>event=ready\n");
        assert_eq!(line(true, Level::Error, 0, "event=exit"), "<3>event=exit\n");
    }
}
