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
//! [`table`] is where a setting is added; [`whole`] is what is checked of all
//! together, [`machine`] what depends on where it runs.

mod machine;
mod table;
mod value;
mod whole;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use machine::{Directories, Surroundings};
use table::Row;
use value::Value;
pub use value::{Cpus, Listen};
use whole::check_whole;

pub use super::check::Fault;

/// How a pool's sockets are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Io {
    /// The best that there is.
    #[default]
    Auto,
    /// Completion, by io_uring; refused where the kernel has it not.
    IoUring,
    /// Readiness, by mio.
    Epoll,
}

/// A group of endpoints that a pool answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `/v1/assign` and `/v1/assign/{experiment}`.
    Assign,
    /// `/v1/batch`.
    Batch,
    /// `/v1/explain`.
    Explain,
    /// `/livez` and `/readyz`.
    Health,
    /// `/metrics`.
    Metrics,
    /// `/v1/status`.
    Status,
}

/// Which TCP ports a pool's workers listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ports {
    /// All on the same; the kernel spreads connections over them by a hash.
    #[default]
    Shared,
    /// Each on its own, counted up from the address's; the proxy spreads.
    PerWorker,
}

/// What is delivered for one exposure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// One message a request.
    #[default]
    Request,
    /// One message an assignment.
    Assignment,
}

/// Where exposures go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SinkKind {
    /// Rotated files.
    #[default]
    File,
    /// A Kafka topic.
    Kafka,
    /// Nowhere: counted and dropped.
    None,
}

/// What happens when the spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpoolFull {
    /// The oldest goes.
    #[default]
    Oldest,
    /// The newest is refused.
    Newest,
}

/// How a client says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sasl {
    /// It does not.
    #[default]
    None,
    /// By a password, sent as it is.
    Plain,
    /// By a password that is not sent, with SHA-256.
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

/// One `[[pool]]`. Each field is a row of the table, which says what it means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the table of settings says what each means")]
pub struct Pool {
    pub name: String,
    pub listen: Vec<Listen>,
    pub ports: Ports,
    pub cpus: Cpus,
    pub workers: Option<usize>,
    pub io: Io,
    pub nice: i32,
    pub routes: Vec<Route>,
    pub validation_strict: bool,
    pub connection_count_max: usize,
    pub head_size_max: usize,
    pub body_size_max: usize,
    pub batch_body_size_max: usize,
    pub idle_timeout: Duration,
    pub head_timeout: Duration,
    pub body_timeout: Duration,
    pub write_timeout: Duration,
    pub linger_timeout: Duration,
    pub backlog: i32,
    pub keepalive_idle: Duration,
    pub keepalive_interval: Duration,
    pub keepalive_count: u32,
    pub user_timeout: Duration,
    pub socket_mode: u32,
    pub record_empty: bool,
    pub record_context: bool,
    pub shed_after: Option<Duration>,
    pub shed_empty: bool,
}

impl Pool {
    /// The CPU of each of the pool's workers, given those that this process may
    /// run on; as many entries as workers.
    ///
    /// # Errors
    /// A CPU of the list that is not among them.
    pub fn worker_cpus(&self, available: &[usize]) -> Result<Vec<Option<usize>>, Fault> {
        let cpus: &[usize] = match &self.cpus {
            Cpus::Unpinned => return Ok(vec![None; self.workers.unwrap_or(1)]),
            Cpus::All => available,
            Cpus::List(list) => list,
        };
        if let Some(missing) = cpus.iter().find(|cpu| !available.contains(cpu)) {
            return Err(Fault {
                pointer: format!("pool.{}.cpus", self.name),
                message: format!("CPU {missing} is none of those this process may run on ({available:?})"),
            });
        }
        if cpus.is_empty() {
            return Ok(vec![None; self.workers.unwrap_or(1)]);
        }
        let count = self.workers.unwrap_or(cpus.len());
        Ok(cpus.iter().copied().cycle().take(count).map(Some).collect())
    }

    /// Where the worker with this number listens, of one of the pool's addresses.
    /// Port 0 stays 0: the kernel chooses.
    ///
    /// # Errors
    /// Beyond port 65535 there is none.
    pub fn worker_listen(&self, listen: &Listen, index: usize) -> Result<Listen, Fault> {
        match listen {
            Listen::Unix(path) => Ok(Listen::Unix(Listen::unix_path(path, index))),
            Listen::Tcp(address) if self.ports == Ports::Shared || address.port() == 0 => {
                Ok(Listen::Tcp(*address))
            }
            Listen::Tcp(address) => {
                let port = usize::from(address.port()) + index;
                let port = u16::try_from(port).map_err(|_| Fault {
                    pointer: format!("pool.{}.listen", self.name),
                    message: format!(
                        "`{address}` and a port for each worker: worker {index} would have {port}, and 65535 is the last"
                    ),
                })?;
                Ok(Listen::Tcp(SocketAddr::new(address.ip(), port)))
            }
        }
    }
}

/// `[logger]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the table of settings says what each means")]
pub struct LoggerSettings {
    pub nice: i32,
    pub ring_size: usize,
    pub layout: Layout,
    pub layout_context: bool,
    pub spool_sync: Duration,
    pub spool_size_max: u64,
    pub spool_free_min: u64,
    pub spool_age_max: Duration,
    pub spool_full: SpoolFull,
    pub spool_replay_rate: u64,
}

/// `[sink]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the table of settings says what each means")]
pub struct SinkSettings {
    pub kind: SinkKind,
    pub directory: Option<PathBuf>,
    pub size_max: u64,
    pub age_max: Duration,
    pub file_size_max: u64,
    pub file_age_max: Duration,
    pub brokers: Vec<String>,
    pub topic: String,
    pub batch: bool,
    pub message_size: usize,
    pub tls: bool,
    pub tls_ca: Option<PathBuf>,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub sasl: Sasl,
    pub sasl_username: String,
    pub sasl_password_file: Option<PathBuf>,
    pub properties: Vec<(String, String)>,
}

/// `[agent_check]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the table of settings says what each means")]
pub struct AgentCheckSettings {
    pub listen: Option<SocketAddr>,
}

/// `[tracing]`.
#[derive(Debug, Clone, PartialEq, Default)]
#[allow(missing_docs, reason = "the table of settings says what each means")]
pub struct TracingSettings {
    pub endpoint: Option<String>,
    pub rate: f64,
    pub header: bool,
    pub slowest: Option<Duration>,
    pub interval: Duration,
    pub ring_size: usize,
}

/// All settings of an instance.
#[derive(Debug, Clone, PartialEq, Default)]
#[allow(missing_docs, reason = "the table of settings says what each means")]
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

/// The pools there are where the file names none, and what a pool of one of these
/// names has where the file doesn't say.
const POOLS: &[(&str, &[(&str, &str)])] = &[
    ("assign", &[("listen", "127.0.0.1:8080"), ("cpus", "all"), ("nice", "-5"), ("routes", "assign,health")]),
    (
        "bulk",
        &[("listen", "127.0.0.1:8081"), ("workers", "1"), ("nice", "10"), ("routes", "batch,explain,health")],
    ),
    (
        "admin",
        &[
            ("listen", "127.0.0.1:9080"),
            ("workers", "1"),
            ("nice", "10"),
            ("routes", "metrics,status,health"),
        ],
    ),
];

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
            Ok(file) => take_file(&mut settings, &file, &mut faults),
            // Without the file's pools, faults elsewhere would mislead.
            Err(error) => return Err(vec![syntax_fault(text, &error)]),
        }
    }
    for (name, value) in sources.environment {
        take_variable(&mut settings, name, value, &mut faults);
    }
    for (name, value) in sources.command_line {
        let pointer = format!("--set {name}");
        let value = Value::One(value.clone());
        if let Err(message) = take_dotted(&mut settings, name, &value) {
            faults.push(Fault { pointer, message });
        }
    }
    check_whole(&settings, &mut faults);
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
    fn changes<T>(place: &str, fixed: &[table::Fixed<T>], old: &T, new: &T) -> Vec<Fault> {
        let differing = fixed.iter().filter(|(_, differs)| differs(old, new));
        let message = || "can't change in a running instance; it takes a restart".to_owned();
        differing.map(|(name, _)| Fault { pointer: format!("{place}{name}"), message: message() }).collect()
    }
    let names = |settings: &Settings| -> Vec<String> {
        settings.pools.iter().map(|pool| pool.name.clone()).collect()
    };
    let mut faults = changes("", table::FIXED_TOP, old, new);
    faults.extend(changes("logger.", table::FIXED_LOGGER, &old.logger, &new.logger));
    if names(old) == names(new) {
        for (old, new) in old.pools.iter().zip(&new.pools) {
            faults.extend(changes(&format!("pool.{}.", old.name), table::FIXED_POOL, old, new));
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
    rows("", table::TOP)
        .chain(rows("pool", table::POOL))
        .chain(rows("logger", table::LOGGER))
        .chain(rows("sink", table::SINK))
        .chain(rows("agent_check", table::AGENT_CHECK))
        .chain(rows("tracing", table::TRACING))
}

// ── Defaults ───────────────────────────────────────────────────────────────

fn take_default<T>(to: &mut T, rows: &[Row<T>]) {
    for row in rows {
        // A pool's name is the one setting without a default.
        if row.name != "name" {
            let taken = (row.take)(to, &Value::One(row.default.to_owned()));
            assert_eq!(taken, Ok(()), "the default of `{}` is a value of its own", row.name);
        }
    }
}

fn default_pool(name: &str) -> Pool {
    let mut pool = Pool::default();
    take_default(&mut pool, table::POOL);
    name.clone_into(&mut pool.name);
    if let Some((_, own)) = POOLS.iter().find(|(known, _)| *known == name) {
        for (setting, value) in *own {
            let taken = take(&mut pool, table::POOL, setting, &Value::One((*value).to_owned()));
            assert_eq!(taken, Ok(()), "the own default of `{name}.{setting}` is a value of its own");
        }
    }
    pool
}

fn defaults() -> Settings {
    let mut settings = Settings::default();
    take_default(&mut settings, table::TOP);
    take_default(&mut settings.logger, table::LOGGER);
    take_default(&mut settings.sink, table::SINK);
    take_default(&mut settings.agent_check, table::AGENT_CHECK);
    take_default(&mut settings.tracing, table::TRACING);
    settings.pools = POOLS.iter().map(|(name, _)| default_pool(name)).collect();
    settings
}

// ── Sources ────────────────────────────────────────────────────────────────

fn take<T>(to: &mut T, rows: &[Row<T>], name: &str, value: &Value) -> Result<(), String> {
    match rows.iter().find(|row| row.name == name) {
        Some(row) => (row.take)(to, value),
        None => Err(unknown("setting", name, rows.iter().map(|row| row.name))),
    }
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
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

fn syntax_fault(text: &str, error: &toml::de::Error) -> Fault {
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

fn take_file(settings: &mut Settings, file: &toml::Table, faults: &mut Vec<Fault>) {
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
            ("logger", toml::Value::Table(table)) => {
                take_table(&mut settings.logger, table::LOGGER, "logger.", table, faults);
            }
            ("sink", toml::Value::Table(table)) => {
                take_table(&mut settings.sink, table::SINK, "sink.", table, faults);
            }
            ("agent_check", toml::Value::Table(table)) => {
                take_table(&mut settings.agent_check, table::AGENT_CHECK, "agent_check.", table, faults);
            }
            ("tracing", toml::Value::Table(table)) => {
                take_table(&mut settings.tracing, table::TRACING, "tracing.", table, faults);
            }
            ("logger" | "sink" | "agent_check" | "tracing", _) => {
                faults.push(misplaced(&format!("`[{name}]`")))
            }
            (_, toml::Value::Table(_) | toml::Value::Array(_)) => {
                let sections = ["pool", "logger", "sink", "agent_check", "tracing"];
                faults.push(Fault {
                    pointer: name.clone(),
                    message: unknown("section", name, sections.into_iter()),
                });
            }
            _ => {
                top.insert(name.clone(), value.clone());
            }
        }
    }
    take_table(settings, table::TOP, "", &top, faults);
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
        take_table(&mut pool, table::POOL, &place, &rest, faults);
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
fn take_dotted(settings: &mut Settings, name: &str, value: &Value) -> Result<(), String> {
    match *name.split('.').collect::<Vec<_>>() {
        [name] => take(settings, table::TOP, name, value).map_err(|message| {
            // `--set nice=1`: known, but elsewhere.
            let elsewhere = dotted_names(settings);
            let elsewhere: Vec<String> = (elsewhere.iter())
                .filter(|known| known.rsplit_once('.').is_some_and(|(_, last)| last == name))
                .map(|known| format!("`{known}`"))
                .collect();
            match elsewhere.is_empty() || table::TOP.iter().any(|row| row.name == name) {
                true => message,
                false => format!("no setting `{name}`; there are {}", elsewhere.join(", ")),
            }
        }),
        ["logger", name] => take(&mut settings.logger, table::LOGGER, name, value),
        ["sink", name] => take(&mut settings.sink, table::SINK, name, value),
        ["agent_check", name] => take(&mut settings.agent_check, table::AGENT_CHECK, name, value),
        ["tracing", name] => take(&mut settings.tracing, table::TRACING, name, value),
        ["pool", pool, name] => match settings.pools.iter().position(|known| known.name == pool) {
            Some(_) if name == "name" => Err("a pool gets its name in the file".to_owned()),
            Some(index) => take(&mut settings.pools[index], table::POOL, name, value),
            None => Err(unknown("pool", pool, settings.pools.iter().map(|pool| pool.name.as_str()))),
        },
        _ => {
            let all = dotted_names(settings);
            Err(unknown("setting", name, all.iter().map(String::as_str)))
        }
    }
}

fn dotted_names(settings: &Settings) -> Vec<String> {
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

fn variable_name(dotted: &str) -> String {
    format!("SPLITD_{}", dotted.to_ascii_uppercase().replace(['.', '-'], "_"))
}

fn take_variable(settings: &mut Settings, variable: &str, value: &str, faults: &mut Vec<Fault>) {
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

#[cfg(test)]
mod tests;
