//! What a setting is: a row gives its name, its default (as one would write it),
//! what it means, how its value is taken, and whether a running instance can change
//! it. To add a setting: a field and a row in the file of its section; the file, the
//! environment, the command line, `check`, the suggestions and the printed list follow.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::value::Value;

/// One row, of a setting somewhere in a `T`.
pub(super) struct Row<T> {
    pub(super) name: &'static str,
    pub(super) default: &'static str,
    pub(super) doc: &'static str,
    pub(super) take: fn(&mut T, &Value) -> Result<(), String>,
    /// Of what a running instance can't change, because it is in sockets, files or
    /// memory that outlive every process: whether two differ in it.
    pub(super) differs: Option<fn(&T, &T) -> bool>,
}

/// A setting that changes in a running instance.
pub(super) const fn row<T>(
    name: &'static str,
    default: &'static str,
    doc: &'static str,
    take: fn(&mut T, &Value) -> Result<(), String>,
) -> Row<T> {
    Row { name, default, doc, take, differs: None }
}

/// The same where the setting has its field's name. How its value is taken: a method
/// of [`Value`], or more of it.
macro_rules! live {
    ($($path:ident).+, $default:literal, $doc:literal, |$value:ident| $taken:expr) => {
        row(last(stringify!($($path).+)), $default, $doc, |to, $value| {
            to.$($path).+ = $taken;
            Ok(())
        })
    };
    ($($path:ident).+, $default:literal, $doc:literal, $method:ident($($of:expr),*)) => {
        live!($($path).+, $default, $doc, |value| value.$method($($of),*)?)
    };
}

/// The same for a setting whose change takes a restart.
macro_rules! fixed {
    ($($path:ident).+, $($row:tt)+) => {
        Row {
            differs: Some(|old, new| old.$($path).+ != new.$($path).+),
            ..live!($($path).+, $($row)+)
        }
    };
}

pub(super) use {fixed, live};

/// The name of a field behind its section's.
pub(super) const fn last(path: &str) -> &str {
    let mut at = path.len();
    while at > 0 && (path.as_bytes()[at - 1] == b'_' || path.as_bytes()[at - 1].is_ascii_alphanumeric()) {
        at -= 1;
    }
    path.split_at(at).1
}

/// Takes what the rows say where nobody says anything else.
pub(super) fn take_defaults<'a, T: 'a>(to: &mut T, rows: impl IntoIterator<Item = &'a Row<T>>) {
    for row in rows {
        let taken = (row.take)(to, &Value::One(row.default.to_owned()));
        assert_eq!(taken, Ok(()), "the default of `{}` is a value of its own", row.name);
    }
}

/// Takes a value by the row of this name.
pub(super) fn take<T>(to: &mut T, rows: &[Row<T>], name: &str, value: &Value) -> Result<(), String> {
    match rows.iter().find(|row| row.name == name) {
        Some(row) => (row.take)(to, value),
        None => Err(unknown("setting", name, rows.iter().map(|row| row.name))),
    }
}

/// `no setting `nise`; the nearest is `nice``.
pub(super) fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut nearest: Vec<(usize, &str)> =
        known.map(|known| (strsim::damerau_levenshtein(name, known), known)).collect();
    nearest.sort_unstable();
    match nearest.first() {
        Some((distance, known)) if *distance <= name.len().max(known.len()) / 2 => {
            format!("no {what} `{name}`; the nearest is `{known}`")
        }
        Some(_) => {
            nearest.sort_unstable_by_key(|(_, known)| *known);
            let names: Vec<&str> = nearest.iter().map(|(_, known)| *known).collect();
            format!("no {what} `{name}`; there are {}", names.join(", "))
        }
        None => format!("no {what} `{name}`"),
    }
}

/// Durations from so many milliseconds to so many.
pub(super) const fn ms(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(from)..=Duration::from_millis(to)
}

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const TIB: u64 = 1 << 40;
pub(super) const MINUTE: u64 = 60_000;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;
