//! `[[pool]]`: a named set of workers that listen at the same addresses and answer
//! the same routes.

use std::net::SocketAddr;
use std::time::Duration;

use super::Fault;
use super::row::{DAY, GIB, HOUR, MINUTE, Row, fixed, last, live, ms, row, take, take_defaults};
use super::value::{Cpus, Listen, Value};
use crate::limits;

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

/// One `[[pool]]`. Each field is a row of the table, which says what it means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the rows below say what each means")]
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

const ROUTES: &[(&str, Route)] = &[
    ("assign", Route::Assign),
    ("batch", Route::Batch),
    ("explain", Route::Explain),
    ("health", Route::Health),
    ("metrics", Route::Metrics),
    ("status", Route::Status),
];

/// Its settings.
pub(super) const ROWS: &[Row<Pool>] = &[
    live!(name, "", "The pool's name: a-z, 0-9, `_`, `-`.", |value| {
        let name = value.text()?;
        let fits = (1..=32).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if !fits {
            return Err(format!("`{name}` is no pool's name; 1 to 32 of a-z, 0-9, `_`, `-` would be right"));
        }
        name.to_owned()
    }),
    fixed!(
        listen,
        "",
        "Addresses: `127.0.0.1:8080`, `[::1]:8080` (IPv6 alone), `unix:/path/assign.sock` (becomes assign.0.sock, …).",
        |value| {
            let mut listen = Vec::new();
            for text in value.list() {
                let one = Listen::parse(text)?;
                if listen.contains(&one) {
                    return Err(format!("`{text}` stands there twice"));
                }
                listen.push(one);
            }
            listen
        }
    ),
    fixed!(
        ports,
        "shared",
        "TCP: `shared` is one port for all workers; `per_worker` counts up from it, a port for each (`splitd haproxy-servers`).",
        choice(&[("shared", Ports::Shared), ("per_worker", Ports::PerWorker)])
    ),
    live!(cpus, "", "CPUs the workers are pinned to: `0-3`, `0,2`, `all`; nothing pins none.", |value| {
        Cpus::parse(&value.list().join(","))?
    }),
    fixed!(
        workers,
        "auto",
        "Processes; `auto` is one for each CPU of `cpus`, or one.",
        unless("auto", |value| value.number(1..=limits::SLOT_COUNT_MAX as i64))
    ),
    live!(
        io,
        "auto",
        "How sockets are served: `auto`, `io_uring` or `epoll`.",
        choice(&[("auto", Io::Auto), ("io_uring", Io::IoUring), ("epoll", Io::Epoll)])
    ),
    live!(nice, "0", "Niceness; below 0 where LimitNICE allows it.", number(-20..=19)),
    live!(routes, "", "What it answers: assign, batch, explain, health, metrics, status.", choices(ROUTES)),
    row(
        "validation",
        "lenient",
        "`strict` refuses an attribute of the wrong type with 422; `lenient` takes it as missing and counts it.",
        |to, value| {
            to.validation_strict = value.choice(&[("lenient", false), ("strict", true)])?;
            Ok(())
        },
    ),
    row(
        "connections",
        "65536",
        "Connections a worker holds; fewer where LimitNOFILE is lower.",
        |to, value| {
            to.connection_count_max = value.number(1..=limits::CONNECTION_COUNT_MAX as i64)?;
            Ok(())
        },
    ),
    live!(
        head_size_max,
        "8KiB",
        "A request's line and headers.",
        size(256..=limits::READ_BUFFER_SIZE as u64 / 2)
    ),
    live!(body_size_max, "64KiB", "A request's body.", size(256..=limits::BODY_SIZE_MAX as u64)),
    live!(batch_body_size_max, "4MiB", "The body of a batch.", size(256..=GIB)),
    live!(idle_timeout, "75s", "A connection without a request.", duration(ms(100, DAY))),
    live!(head_timeout, "5s", "From a head's first byte to its last.", duration(ms(100, HOUR))),
    live!(body_timeout, "10s", "From a body's first byte to its last.", duration(ms(100, HOUR))),
    live!(write_timeout, "10s", "An answer that the peer does not take.", duration(ms(100, HOUR))),
    live!(
        linger_timeout,
        "1s",
        "After the last answer, how long the peer's end is awaited.",
        duration(ms(0, MINUTE))
    ),
    fixed!(backlog, "4096", "Connections that may wait to be accepted.", number(1..=65_535)),
    fixed!(
        keepalive_idle,
        "15s",
        "TCP: silence before the peer is asked whether it lives.",
        duration(ms(1_000, 9 * HOUR))
    ),
    fixed!(keepalive_interval, "5s", "TCP: time between such questions.", duration(ms(1_000, 9 * HOUR))),
    fixed!(keepalive_count, "3", "TCP: unanswered questions that end it.", number(1..=127)),
    fixed!(user_timeout, "20s", "TCP: how long sent bytes may stay unacknowledged.", duration(ms(100, HOUR))),
    fixed!(socket_mode, "0660", "Permissions of Unix sockets, octal.", |value| {
        let text = value.text()?;
        u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| format!("`{text}` is no mode; `\"0660\"` would be right"))?
    }),
    live!(record_empty, "false", "Record exposures of requests that no experiment took, too.", truth()),
    live!(record_context, "true", "Record the request's attributes in its exposure.", truth()),
    live!(
        shed_after,
        "never",
        "Requests that have waited longer than this behind others are shed; health and metrics never are.",
        unless("never", |value| value.duration(ms(0, HOUR)))
    ),
    row(
        "shed_answer",
        "refuse",
        "To what is shed: `refuse` answers 503 with Retry-After; `empty` lets assign answer no assignments, with `X-Splitd-Shed`, unrecorded.",
        |to, value| {
            to.shed_empty = value.choice(&[("refuse", false), ("empty", true)])?;
            Ok(())
        },
    ),
];

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

/// A pool of this name as it is where the file says no more of it.
pub(super) fn default_pool(name: &str) -> Pool {
    let mut pool = Pool::default();
    // Its name is the one setting without a default.
    take_defaults(&mut pool, ROWS.iter().filter(|row| row.name != "name"));
    name.clone_into(&mut pool.name);
    if let Some((_, own)) = POOLS.iter().find(|(known, _)| *known == name) {
        for (setting, value) in *own {
            let taken = take(&mut pool, ROWS, setting, &Value::One((*value).to_owned()));
            assert_eq!(taken, Ok(()), "the own default of `{name}.{setting}` is a value of its own");
        }
    }
    pool
}

/// The pools of an instance whose file names none.
pub(super) fn default_pools() -> Vec<Pool> {
    POOLS.iter().map(|(name, _)| default_pool(name)).collect()
}
