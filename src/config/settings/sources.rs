//! Settings out of the file, the environment and the command line: each name is
//! looked up in the rows, and what is not known is answered with the nearest that is.

use super::pool::{self, Pool, default_pool};
use super::row::{Row, take, unknown};
use super::value::Value;
use super::{Fault, SECTIONS, Settings, TOP, described};

pub(super) fn syntax_fault(text: &str, error: &toml::de::Error) -> Fault {
    let pointer = match error.span() {
        Some(span) => {
            let before = &text.as_bytes()[..span.start.min(text.len())];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
            format!("line {line}, column {column}")
        }
        None => "the file".to_owned(),
    };
    Fault { pointer, message: error.message().to_owned() }
}

fn take_table<T>(to: &mut T, rows: &[Row<T>], place: &str, table: &toml::Table, faults: &mut Vec<Fault>) {
    for (name, value) in table {
        let taken = Value::from_toml(value).and_then(|value| take(to, rows, name, &value));
        // A name that is not known is the first thing to say about it.
        let taken = match rows.iter().any(|row| row.name == name) {
            true => taken,
            false => Err(unknown("setting", name, rows.iter().map(|row| row.name))),
        };
        if let Err(message) = taken {
            faults.push(Fault { pointer: format!("{place}{name}"), message });
        }
    }
}

fn rows_of(section: &str) -> Option<&'static [Row<Settings>]> {
    SECTIONS.iter().find(|(known, _)| *known == section).map(|(_, rows)| *rows)
}

pub(super) fn take_file(settings: &mut Settings, file: &toml::Table, faults: &mut Vec<Fault>) {
    let mut top = toml::Table::new();
    for (name, value) in file {
        let misplaced = |right: &str| Fault {
            pointer: name.clone(),
            message: format!("a {}; {right} would be right", value.type_str()),
        };
        match (name.as_str(), value) {
            ("pool", toml::Value::Array(pools)) if pools.iter().all(toml::Value::is_table) => {
                settings.pools = take_pools(pools.iter().filter_map(toml::Value::as_table), faults);
            }
            ("pool", _) => faults.push(misplaced("`[[pool]]` with a name in it")),
            (section, value) => match (rows_of(section), value) {
                (Some(rows), toml::Value::Table(table)) => {
                    take_table(settings, rows, &format!("{section}."), table, faults);
                }
                (Some(_), _) => faults.push(misplaced(&format!("`[{section}]`"))),
                (None, toml::Value::Table(_) | toml::Value::Array(_)) => {
                    let sections = ["pool"].into_iter().chain(SECTIONS.iter().map(|(section, _)| *section));
                    faults.push(Fault { pointer: name.clone(), message: unknown("section", name, sections) });
                }
                (None, _) => {
                    top.insert(name.clone(), value.clone());
                }
            },
        }
    }
    take_table(settings, TOP, "", &top, faults);
}

fn take_pools<'a>(tables: impl Iterator<Item = &'a toml::Table>, faults: &mut Vec<Fault>) -> Vec<Pool> {
    let mut pools: Vec<Pool> = Vec::new();
    for (index, table) in tables.enumerate() {
        let name = table.get("name").and_then(toml::Value::as_str).unwrap_or_default();
        let mut pool = default_pool(name);
        let place = if name.is_empty() {
            faults.push(Fault {
                pointer: format!("pool[{index}]"),
                message: "has no name; `name = \"assign\"` would be right".to_owned(),
            });
            format!("pool[{index}].")
        } else {
            format!("pool.{name}.")
        };
        let mut rest = table.clone();
        if name.is_empty() {
            rest.remove("name");
        }
        take_table(&mut pool, pool::ROWS, &place, &rest, faults);
        if !name.is_empty() && pools.iter().any(|other| other.name == name) {
            faults.push(Fault {
                pointer: format!("pool[{index}].name"),
                message: format!("`{name}` is an earlier pool's name; each needs its own"),
            });
        }
        pools.push(pool);
    }
    pools
}

/// `pool.assign.io`, `logger.nice`, `drain_timeout`.
pub(super) fn take_dotted(settings: &mut Settings, name: &str, value: &Value) -> Result<(), String> {
    let unknown_of_all = |settings: &Settings| {
        let all = dotted_names(settings);
        unknown("setting", name, all.iter().map(String::as_str))
    };
    match *name.split('.').collect::<Vec<_>>() {
        [name] => take(settings, TOP, name, value).map_err(|message| {
            // `--set nice=1`: known, but elsewhere.
            let elsewhere = dotted_names(settings);
            let elsewhere: Vec<String> = (elsewhere.iter())
                .filter(|known| known.rsplit_once('.').is_some_and(|(_, last)| last == name))
                .map(|known| format!("`{known}`"))
                .collect();
            match elsewhere.is_empty() || TOP.iter().any(|row| row.name == name) {
                true => message,
                false => format!("no setting `{name}`; there are {}", elsewhere.join(", ")),
            }
        }),
        ["pool", pool, name] => match settings.pools.iter().position(|known| known.name == pool) {
            Some(_) if name == "name" => Err("a pool gets its name in the file".to_owned()),
            Some(index) => take(&mut settings.pools[index], pool::ROWS, name, value),
            None => Err(unknown("pool", pool, settings.pools.iter().map(|pool| pool.name.as_str()))),
        },
        [section, setting] => match rows_of(section) {
            Some(rows) => take(settings, rows, setting, value),
            None => Err(unknown_of_all(settings)),
        },
        _ => Err(unknown_of_all(settings)),
    }
}

pub(super) fn dotted_names(settings: &Settings) -> Vec<String> {
    let mut names = Vec::new();
    for described in described() {
        match described.section {
            "" => names.push(described.name.to_owned()),
            "pool" if described.name == "name" => {}
            "pool" => {
                let of_pool = |pool: &Pool| format!("pool.{}.{}", pool.name, described.name);
                names.extend(settings.pools.iter().map(of_pool));
            }
            section => names.push(format!("{section}.{}", described.name)),
        }
    }
    names
}

pub(super) fn variable_name(dotted: &str) -> String {
    format!("SPLITD_{}", dotted.to_ascii_uppercase().replace(['.', '-'], "_"))
}

pub(super) fn take_variable(settings: &mut Settings, variable: &str, value: &str, faults: &mut Vec<Fault>) {
    if !variable.starts_with("SPLITD_") {
        return;
    }
    let names = dotted_names(settings);
    let taken = match names.iter().find(|name| variable_name(name) == variable) {
        Some(name) => take_dotted(settings, name, &Value::One(value.to_owned())),
        None => {
            let variables: Vec<String> = names.iter().map(|name| variable_name(name)).collect();
            Err(unknown("setting", variable, variables.iter().map(String::as_str)))
        }
    };
    if let Err(message) = taken {
        faults.push(Fault { pointer: variable.to_owned(), message });
    }
}
