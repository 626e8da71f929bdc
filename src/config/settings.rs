//! The settings of an instance: `splitd.toml`, the environment and the command
//! line, with a default for everything, so that none of the three is needed.
//!
//! Promises
//! - The command line (`--set pool.assign.io=epoll`) beats the environment
//!   (`SPLITD_POOL_ASSIGN_IO`), which beats the file, which beats the default.
//! - Whatever is wrong is reported in one run: unknown names with the nearest
//!   known one, values with what would be right, in whichever source they stand.
//! - Nothing here looks at the machine; what depends on it (directories, CPUs) is
//!   asked for with what is known of it.
//!
//! A section is a file: what it sets, and a [row](mod@row) for each setting. [`sources`]
//! takes them from where they stand; [`whole`] is what is checked of all together,
//! [`machine`] what depends on where it runs.

mod agent_check;
mod logger;
mod machine;
mod pool;
mod row;
mod sink;
mod sources;
mod tracing;
mod value;
mod whole;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use agent_check::AgentCheckSettings;
pub use logger::{Layout, LoggerSettings, SpoolFull};
pub use machine::{Directories, Surroundings};
pub use pool::{Io, Pool, Ports, Route};
use row::{HOUR, Row, fixed, last, live, ms, row, take_defaults};
pub use sink::{Sasl, SinkKind, SinkSettings};
pub use tracing::TracingSettings;
use value::Value;
pub use value::{Cpus, Listen};

pub use super::check::Fault;

/// All settings of an instance.
#[derive(Debug, Clone, PartialEq, Default)]
#[allow(missing_docs, reason = "the rows say what each means")]
pub struct Settings {
    pub experiments: Option<PathBuf>,
    pub state_dir: Option<PathBuf>,
    pub runtime_dir: Option<PathBuf>,
    pub drain_timeout: Duration,
    pub drain_idle: Duration,
    pub orphan_timeout: Duration,
    pub watchdog: Duration,
    pub pools: Vec<Pool>,
    pub logger: LoggerSettings,
    pub sink: SinkSettings,
    pub agent_check: AgentCheckSettings,
    pub tracing: TracingSettings,
}

/// The settings that stand at the top of the file.
const TOP: &[Row<Settings>] = &[
    live!(experiments, "", "The experiments file.", path()),
    fixed!(
        state_dir,
        "",
        "What outlives a reboot: exposure files, the spool. Unset: systemd's STATE_DIRECTORY, /var/lib/splitd for root, ./splitd-data.",
        path()
    ),
    fixed!(
        runtime_dir,
        "",
        "Rings and metrics; one instance a directory. Unset: systemd's RUNTIME_DIRECTORY, /run/splitd for root, \
         $XDG_RUNTIME_DIR/splitd, ./splitd-data/run.",
        path()
    ),
    live!(
        drain_timeout,
        "30s",
        "How long a stop lets requests and connections finish.",
        duration(ms(0, HOUR))
    ),
    live!(
        drain_idle,
        "1s",
        "How much longer idle connections are kept in a drain, for the proxy to react.",
        duration(ms(0, HOUR))
    ),
    live!(
        orphan_timeout,
        "30s",
        "How long workers serve on when the master is gone and none comes.",
        duration(ms(0, HOUR))
    ),
    live!(
        watchdog,
        "5s",
        "A worker that stands still for so long, and is not starved of CPU, is ended and replaced; `0s` watches nobody.",
        |value| {
            let watchdog = value.duration(ms(0, HOUR))?;
            if watchdog > Duration::ZERO && watchdog < Duration::from_secs(1) {
                return Err(format!(
                    "`{}` is less than two of a worker's turns; `1s` or more, or `0s`, would be right",
                    value.text()?
                ));
            }
            watchdog
        }
    ),
];

/// The sections there are besides pools.
const SECTIONS: &[(&str, &[Row<Settings>])] = &[
    ("logger", logger::ROWS),
    ("sink", sink::ROWS),
    ("agent_check", agent_check::ROWS),
    ("tracing", tracing::ROWS),
];

fn defaults() -> Settings {
    let mut settings = Settings { pools: pool::default_pools(), ..Settings::default() };
    let rows = SECTIONS.iter().flat_map(|(_, rows)| *rows);
    take_defaults(&mut settings, TOP.iter().chain(rows));
    settings
}

/// Where settings are looked for, besides the defaults.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sources<'a> {
    /// The text of `splitd.toml`.
    pub file: Option<&'a str>,
    /// Environment variables; those that don't begin with `SPLITD_` are passed over.
    pub environment: &'a [(String, String)],
    /// `--set`: a setting's name and its value.
    pub command_line: &'a [(String, String)],
}

/// Checks the text of a settings file alone.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check_settings(text: &str) -> Result<Settings, Vec<Fault>> {
    load(&Sources { file: Some(text), ..Sources::default() })
}

/// Puts the settings together from all sources.
///
/// # Errors
/// Everything that is wrong with any of them.
pub fn load(sources: &Sources<'_>) -> Result<Settings, Vec<Fault>> {
    let mut settings = defaults();
    let mut faults = Vec::new();
    if let Some(text) = sources.file {
        match text.parse::<toml::Table>() {
            Ok(file) => sources::take_file(&mut settings, &file, &mut faults),
            // Without the file's pools, faults elsewhere would mislead.
            Err(error) => return Err(vec![sources::syntax_fault(text, &error)]),
        }
    }
    for (name, value) in sources.environment {
        sources::take_variable(&mut settings, name, value, &mut faults);
    }
    for (name, value) in sources.command_line {
        let pointer = format!("--set {name}");
        let value = Value::One(value.clone());
        if let Err(message) = sources::take_dotted(&mut settings, name, &value) {
            faults.push(Fault { pointer, message });
        }
    }
    whole::check_whole(&settings, &mut faults);
    if faults.is_empty() { Ok(settings) } else { Err(faults) }
}

/// Where an instance's settings come from, kept to load them again.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The settings file.
    pub path: Option<PathBuf>,
    /// Its text, as it was last read.
    pub text: Option<String>,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// `--set`, in order.
    pub command_line: Vec<(String, String)>,
}

impl Origin {
    /// Puts the settings together from the text that was read.
    ///
    /// # Errors
    /// Everything that is wrong with any of the sources, a line each, with its place.
    pub fn load(&self) -> Result<Settings, Vec<String>> {
        let sources = Sources {
            file: self.text.as_deref(),
            environment: &self.environment,
            command_line: &self.command_line,
        };
        load(&sources).map_err(|faults| {
            let place = self.path.as_deref().unwrap_or(Path::new("settings")).display();
            let show = |fault: &Fault| {
                let has_place = fault.pointer.starts_with("--set ") || fault.pointer.starts_with("SPLITD_");
                if has_place { fault.to_string() } else { format!("{place}: {fault}") }
            };
            faults.iter().map(show).collect()
        })
    }
}

/// What a running instance can't change from `old` to `new`; all else it can.
#[must_use]
pub fn fixed_changes(old: &Settings, new: &Settings) -> Vec<Fault> {
    fn changes<T>(place: &str, rows: &[Row<T>], old: &T, new: &T) -> Vec<Fault> {
        let differing = rows.iter().filter(|row| row.differs.is_some_and(|differs| differs(old, new)));
        let message = || "can't change in a running instance; it takes a restart".to_owned();
        differing.map(|row| Fault { pointer: format!("{place}{}", row.name), message: message() }).collect()
    }
    let names = |settings: &Settings| -> Vec<String> {
        settings.pools.iter().map(|pool| pool.name.clone()).collect()
    };
    let mut faults = changes("", TOP, old, new);
    for (section, rows) in SECTIONS {
        faults.extend(changes(&format!("{section}."), rows, old, new));
    }
    if names(old) == names(new) {
        for (old, new) in old.pools.iter().zip(&new.pools) {
            faults.extend(changes(&format!("pool.{}.", old.name), pool::ROWS, old, new));
        }
    } else {
        let (old, new) = (names(old).join(", "), names(new).join(", "));
        let message = format!("there are {old}, and not {new}; other pools take a restart");
        faults.push(Fault { pointer: "pool".to_owned(), message });
    }
    faults
}

/// What a setting is, for lists that people read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    /// Where it stands: nothing (the top), `pool`, `logger`, `sink`, `agent_check`, `tracing`.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// Its default, as one would write it.
    pub default: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// Every setting there is.
pub fn described() -> impl Iterator<Item = Described> {
    fn rows<T>(section: &'static str, rows: &'static [Row<T>]) -> impl Iterator<Item = Described> {
        rows.iter().map(move |row| Described { section, name: row.name, default: row.default, doc: row.doc })
    }
    rows("", TOP)
        .chain(rows("pool", pool::ROWS))
        .chain(SECTIONS.iter().flat_map(|(section, section_rows)| rows(section, section_rows)))
}

#[cfg(test)]
mod tests;
