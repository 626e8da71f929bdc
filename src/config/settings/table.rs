//! The one table of settings: a row gives a setting's name, its default (as one
//! would write it), what it means, and how its value is taken. To add a setting:
//! a field in [`super::Settings`] and a row here; the file, the environment, the
//! command line, `check`, the suggestions and the printed list follow.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::value::{Cpus, Listen, Value};
use super::{
    AgentCheckSettings, Io, Layout, LoggerSettings, Pool, Ports, Route, Sasl, Settings, SinkKind,
    SinkSettings, SpoolFull, TracingSettings,
};
use crate::limits;

/// One row.
pub(super) struct Row<T> {
    pub(super) name: &'static str,
    pub(super) default: &'static str,
    pub(super) doc: &'static str,
    pub(super) take: fn(&mut T, &Value) -> Result<(), String>,
}

const fn row<T>(
    name: &'static str,
    default: &'static str,
    doc: &'static str,
    take: fn(&mut T, &Value) -> Result<(), String>,
) -> Row<T> {
    Row { name, default, doc, take }
}

const fn ms(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(from)..=Duration::from_millis(to)
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Settings that stand at the top of the file.
pub(super) const TOP: &[Row<Settings>] = &[
    row("experiments", "", "The experiments file.", |to, value| {
        to.experiments = value.path()?;
        Ok(())
    }),
    row(
        "state_dir",
        "",
        "What outlives a reboot: exposure files, the spool. Unset: systemd's STATE_DIRECTORY, /var/lib/splitd for root, ./splitd-data.",
        |to, value| {
            to.state_dir = value.path()?;
            Ok(())
        },
    ),
    row(
        "runtime_dir",
        "",
        "Rings and metrics; one instance a directory. Unset: systemd's RUNTIME_DIRECTORY, /run/splitd for root, \
         $XDG_RUNTIME_DIR/splitd, ./splitd-data/run.",
        |to, value| {
            to.runtime_dir = value.path()?;
            Ok(())
        },
    ),
    row("drain_timeout", "30s", "How long a stop lets requests and connections finish.", |to, value| {
        to.drain_timeout = value.duration(ms(0, HOUR))?;
        Ok(())
    }),
    row(
        "drain_idle",
        "1s",
        "How much longer idle connections are kept in a drain, for the proxy to react.",
        |to, value| {
            to.drain_idle = value.duration(ms(0, HOUR))?;
            Ok(())
        },
    ),
    row(
        "orphan_timeout",
        "30s",
        "How long workers serve on when the master is gone and none comes.",
        |to, value| {
            to.orphan_timeout = value.duration(ms(0, HOUR))?;
            Ok(())
        },
    ),
    row(
        "watchdog",
        "5s",
        "A worker that stands still for so long, and is not starved of CPU, is ended and replaced; `0s` watches nobody.",
        |to, value| {
            to.watchdog = value.duration(ms(0, HOUR))?;
            if to.watchdog > Duration::ZERO && to.watchdog < Duration::from_secs(1) {
                return Err(format!(
                    "`{}` is less than two of a worker's turns; `1s` or more, or `0s`, would be right",
                    value.text()?
                ));
            }
            Ok(())
        },
    ),
];

const ROUTES: &[(&str, Route)] = &[
    ("assign", Route::Assign),
    ("batch", Route::Batch),
    ("explain", Route::Explain),
    ("health", Route::Health),
    ("metrics", Route::Metrics),
    ("status", Route::Status),
];

/// A setting that a running instance can't change, and whether two differ in it:
/// what it says is in sockets, files or memory that outlive every process.
pub(super) type Fixed<T> = (&'static str, fn(&T, &T) -> bool);

/// At the top; all others change live.
pub(super) const FIXED_TOP: &[Fixed<Settings>] = &[
    ("state_dir", |old, new| old.state_dir != new.state_dir),
    ("runtime_dir", |old, new| old.runtime_dir != new.runtime_dir),
    ("agent_check.listen", |old, new| old.agent_check.listen != new.agent_check.listen),
    ("tracing.ring_size", |old, new| old.tracing.ring_size != new.tracing.ring_size),
];
/// Of a pool.
pub(super) const FIXED_POOL: &[Fixed<Pool>] = &[
    ("listen", |old, new| old.listen != new.listen),
    ("ports", |old, new| old.ports != new.ports),
    ("workers", |old, new| old.workers != new.workers),
    ("backlog", |old, new| old.backlog != new.backlog),
    ("keepalive_idle", |old, new| old.keepalive_idle != new.keepalive_idle),
    ("keepalive_interval", |old, new| old.keepalive_interval != new.keepalive_interval),
    ("keepalive_count", |old, new| old.keepalive_count != new.keepalive_count),
    ("user_timeout", |old, new| old.user_timeout != new.user_timeout),
    ("socket_mode", |old, new| old.socket_mode != new.socket_mode),
];
/// Of the logger.
pub(super) const FIXED_LOGGER: &[Fixed<LoggerSettings>] =
    &[("ring_size", |old, new| old.ring_size != new.ring_size)];

/// Settings of one `[[pool]]`.
pub(super) const POOL: &[Row<Pool>] = &[
    row("name", "", "The pool's name: a-z, 0-9, `_`, `-`.", |to, value| {
        let name = value.text()?;
        let fits = (1..=32).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if !fits {
            return Err(format!("`{name}` is no pool's name; 1 to 32 of a-z, 0-9, `_`, `-` would be right"));
        }
        name.clone_into(&mut to.name);
        Ok(())
    }),
    row(
        "listen",
        "",
        "Addresses: `127.0.0.1:8080`, `[::1]:8080` (IPv6 alone), `unix:/path/assign.sock` (becomes assign.0.sock, …).",
        |to, value| {
            let mut listen = Vec::new();
            for text in value.list() {
                let one = Listen::parse(text)?;
                if listen.contains(&one) {
                    return Err(format!("`{text}` stands there twice"));
                }
                listen.push(one);
            }
            to.listen = listen;
            Ok(())
        },
    ),
    row(
        "ports",
        "shared",
        "TCP: `shared` is one port for all workers; `per_worker` counts up from it, a port for each (`splitd haproxy-servers`).",
        |to, value| {
            to.ports = value.choice(&[("shared", Ports::Shared), ("per_worker", Ports::PerWorker)])?;
            Ok(())
        },
    ),
    row(
        "cpus",
        "",
        "CPUs the workers are pinned to: `0-3`, `0,2`, `all`; nothing pins none.",
        |to, value| {
            to.cpus = Cpus::parse(&value.list().join(","))?;
            Ok(())
        },
    ),
    row("workers", "auto", "Processes; `auto` is one for each CPU of `cpus`, or one.", |to, value| {
        to.workers = match value.text()? {
            "auto" => None,
            _ => Some(value.number(1..=limits::SLOT_COUNT_MAX as i64)? as usize),
        };
        Ok(())
    }),
    row("io", "auto", "How sockets are served: `auto`, `io_uring` or `epoll`.", |to, value| {
        to.io = value.choice(&[("auto", Io::Auto), ("io_uring", Io::IoUring), ("epoll", Io::Epoll)])?;
        Ok(())
    }),
    row("nice", "0", "Niceness; below 0 where LimitNICE allows it.", |to, value| {
        to.nice = value.number(-20..=19)? as i32;
        Ok(())
    }),
    row("routes", "", "What it answers: assign, batch, explain, health, metrics, status.", |to, value| {
        to.routes = value.choices(ROUTES)?;
        Ok(())
    }),
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
            to.connection_count_max = value.number(1..=limits::CONNECTION_COUNT_MAX as i64)? as usize;
            Ok(())
        },
    ),
    row("head_size_max", "8KiB", "A request's line and headers.", |to, value| {
        to.head_size_max = value.size(256..=limits::READ_BUFFER_SIZE as u64 / 2)? as usize;
        Ok(())
    }),
    row("body_size_max", "64KiB", "A request's body.", |to, value| {
        to.body_size_max = value.size(256..=limits::BODY_SIZE_MAX as u64)? as usize;
        Ok(())
    }),
    row("batch_body_size_max", "4MiB", "The body of a batch.", |to, value| {
        to.batch_body_size_max = value.size(256..=GIB)? as usize;
        Ok(())
    }),
    row("idle_timeout", "75s", "A connection without a request.", |to, value| {
        to.idle_timeout = value.duration(ms(100, DAY))?;
        Ok(())
    }),
    row("head_timeout", "5s", "From a head's first byte to its last.", |to, value| {
        to.head_timeout = value.duration(ms(100, HOUR))?;
        Ok(())
    }),
    row("body_timeout", "10s", "From a body's first byte to its last.", |to, value| {
        to.body_timeout = value.duration(ms(100, HOUR))?;
        Ok(())
    }),
    row("write_timeout", "10s", "An answer that the peer does not take.", |to, value| {
        to.write_timeout = value.duration(ms(100, HOUR))?;
        Ok(())
    }),
    row("linger_timeout", "1s", "After the last answer, how long the peer's end is awaited.", |to, value| {
        to.linger_timeout = value.duration(ms(0, MINUTE))?;
        Ok(())
    }),
    row("backlog", "4096", "Connections that may wait to be accepted.", |to, value| {
        to.backlog = value.number(1..=65_535)? as i32;
        Ok(())
    }),
    row("keepalive_idle", "15s", "TCP: silence before the peer is asked whether it lives.", |to, value| {
        to.keepalive_idle = value.duration(ms(1_000, 9 * HOUR))?;
        Ok(())
    }),
    row("keepalive_interval", "5s", "TCP: time between such questions.", |to, value| {
        to.keepalive_interval = value.duration(ms(1_000, 9 * HOUR))?;
        Ok(())
    }),
    row("keepalive_count", "3", "TCP: unanswered questions that end it.", |to, value| {
        to.keepalive_count = value.number(1..=127)? as u32;
        Ok(())
    }),
    row("user_timeout", "20s", "TCP: how long sent bytes may stay unacknowledged.", |to, value| {
        to.user_timeout = value.duration(ms(100, HOUR))?;
        Ok(())
    }),
    row("socket_mode", "0660", "Permissions of Unix sockets, octal.", |to, value| {
        let text = value.text()?;
        to.socket_mode = u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| format!("`{text}` is no mode; `\"0660\"` would be right"))?;
        Ok(())
    }),
    row(
        "record_empty",
        "false",
        "Record exposures of requests that no experiment took, too.",
        |to, value| {
            to.record_empty = value.truth()?;
            Ok(())
        },
    ),
    row("record_context", "true", "Record the request's attributes in its exposure.", |to, value| {
        to.record_context = value.truth()?;
        Ok(())
    }),
    row(
        "shed_after",
        "never",
        "Requests that have waited longer than this behind others are shed; health and metrics never are.",
        |to, value| {
            to.shed_after = match value.text()? {
                "never" => None,
                _ => Some(value.duration(ms(0, HOUR))?),
            };
            Ok(())
        },
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

/// Settings of `[logger]`.
pub(super) const LOGGER: &[Row<LoggerSettings>] = &[
    row("nice", "5", "Niceness.", |to, value| {
        to.nice = value.number(-20..=19)? as i32;
        Ok(())
    }),
    row(
        "ring_size",
        "16MiB",
        "A worker's ring (each has two): at least 2 s of its peak. A power of two.",
        |to, value| {
            let size = value.size(limits::RING_SIZE_MIN as u64..=GIB)?;
            if !size.is_power_of_two() {
                return Err(format!(
                    "`{}` is no power of two; `8MiB`, `16MiB` or `32MiB` would be right",
                    value.text()?
                ));
            }
            to.ring_size = size as usize;
            Ok(())
        },
    ),
    row(
        "layout",
        "request",
        "What is delivered: `request` (one `Exposure` a request) or `assignment` (one `ExperimentParticipation` \
         an assignment).",
        |to, value| {
            to.layout = value.choice(&[("request", Layout::Request), ("assignment", Layout::Assignment)])?;
            Ok(())
        },
    ),
    row(
        "layout_context",
        "false",
        "With `layout = \"assignment\"`: the request's attributes in each message.",
        |to, value| {
            to.layout_context = value.truth()?;
            Ok(())
        },
    ),
    row("spool_sync", "200ms", "How often what is written is synced to the disk.", |to, value| {
        to.spool_sync = value.duration(ms(1, MINUTE))?;
        Ok(())
    }),
    row(
        "spool_size_max",
        "8GiB",
        "The spool (`state_dir/spool`), where exposures wait while Kafka is away: its bound.",
        |to, value| {
            to.spool_size_max = value.size(64 * MIB..=1024 * TIB)?;
            Ok(())
        },
    ),
    row("spool_free_min", "1GiB", "What the spool leaves free on its disk.", |to, value| {
        to.spool_free_min = value.size(0..=1024 * TIB)?;
        Ok(())
    }),
    row(
        "spool_age_max",
        "7d",
        "The oldest exposures in the spool; beyond it they go, counted.",
        |to, value| {
            to.spool_age_max = value.duration(ms(MINUTE, 3650 * DAY))?;
            Ok(())
        },
    ),
    row(
        "spool_full",
        "oldest",
        "At `spool_size_max` and `spool_free_min`: the `oldest` go, counted, or the `newest` wait in the rings \
         until those refuse.",
        |to, value| {
            to.spool_full = value.choice(&[("oldest", SpoolFull::Oldest), ("newest", SpoolFull::Newest)])?;
            Ok(())
        },
    ),
    row("spool_replay_rate", "32MiB", "Bytes a second from the spool, beside live traffic.", |to, value| {
        to.spool_replay_rate = value.size(KIB..=TIB)?;
        Ok(())
    }),
];

/// Settings of `[sink]`.
pub(super) const SINK: &[Row<SinkSettings>] = &[
    row(
        "type",
        "file",
        "Where exposures go: `file`, `kafka`, or `none` (counted and dropped).",
        |to, value| {
            let kinds = [("file", SinkKind::File), ("kafka", SinkKind::Kafka), ("none", SinkKind::None)];
            to.kind = value.choice(&kinds)?;
            if to.kind == SinkKind::Kafka && !cfg!(feature = "kafka") {
                return Err(
                    "this build has no Kafka client (cargo feature `kafka`); `file` or `none` would be right"
                        .to_owned(),
                );
            }
            Ok(())
        },
    ),
    row("directory", "", "Of the exposure files. Unset: `exposures` in state_dir.", |to, value| {
        to.directory = value.path()?;
        Ok(())
    }),
    row("size_max", "8GiB", "All exposure files; beyond it the oldest goes, counted.", |to, value| {
        to.size_max = value.size(MIB..=1024 * TIB)?;
        Ok(())
    }),
    row("age_max", "7d", "The oldest exposure file; beyond it it goes, counted.", |to, value| {
        to.age_max = value.duration(ms(MINUTE, 3650 * DAY))?;
        Ok(())
    }),
    row("file_size_max", "64MiB", "One file; then the next is begun.", |to, value| {
        to.file_size_max = value.size(64 * KIB..=TIB)?;
        Ok(())
    }),
    row("file_age_max", "1m", "One file; then the next is begun.", |to, value| {
        to.file_age_max = value.duration(ms(100, DAY))?;
        Ok(())
    }),
    row("brokers", "", "Kafka: brokers to begin with, `kafka-1:9092`.", |to, value| {
        let mut brokers = Vec::new();
        for broker in value.list() {
            let port = broker
                .rsplit_once(':')
                .and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok()).flatten());
            if port.is_none_or(|port| port == 0) {
                return Err(format!("`{broker}` is no broker; `kafka-1:9092` would be right"));
            }
            brokers.push(broker.to_owned());
        }
        to.brokers = brokers;
        Ok(())
    }),
    row("topic", "exposures", "Kafka: the topic.", |to, value| {
        let topic = value.text()?;
        let fits = (1..=249).contains(&topic.len())
            && topic.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && !matches!(topic, "." | "..");
        if !fits {
            return Err(format!(
                "`{topic}` is no topic; 1 to 249 of a-z, A-Z, 0-9, `.`, `_`, `-` would be right"
            ));
        }
        topic.clone_into(&mut to.topic);
        Ok(())
    }),
    row(
        "batch",
        "true",
        "Kafka: many events a message, without a key; `false`: one event a message, keyed by its unit.",
        |to, value| {
            to.batch = value.truth()?;
            Ok(())
        },
    ),
    row("message_size", "64KiB", "Kafka: a message of many events, at most.", |to, value| {
        to.message_size = value.size(KIB..=512 * KIB)? as usize;
        Ok(())
    }),
    row("tls", "false", "Kafka: TLS.", |to, value| {
        to.tls = value.truth()?;
        Ok(())
    }),
    row("tls_ca", "", "Authorities, PEM. Unset: the system's.", |to, value| {
        to.tls_ca = value.path()?;
        Ok(())
    }),
    row("tls_certificate", "", "A certificate to show the brokers, PEM.", |to, value| {
        to.tls_certificate = value.path()?;
        Ok(())
    }),
    row("tls_key", "", "Its key, PEM.", |to, value| {
        to.tls_key = value.path()?;
        Ok(())
    }),
    row("sasl", "none", "Kafka: `none`, `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.", |to, value| {
        to.sasl = value.choice(&[
            ("none", Sasl::None),
            ("PLAIN", Sasl::Plain),
            ("SCRAM-SHA-256", Sasl::ScramSha256),
            ("SCRAM-SHA-512", Sasl::ScramSha512),
        ])?;
        Ok(())
    }),
    row("sasl_username", "", "The user.", |to, value| {
        value.text()?.clone_into(&mut to.sasl_username);
        Ok(())
    }),
    row("sasl_password_file", "", "The file with the user's password.", |to, value| {
        to.sasl_password_file = value.path()?;
        Ok(())
    }),
    row(
        "properties",
        "",
        "Kafka: further properties of librdkafka, over splitd's own: `linger.ms=20`, `acks=1`.",
        |to, value| {
            let mut properties = Vec::new();
            for text in value.list() {
                let (name, value) = text
                    .split_once('=')
                    .filter(|(name, _)| !name.trim().is_empty())
                    .ok_or_else(|| format!("`{text}` is no property; `linger.ms=20` would be right"))?;
                properties.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            to.properties = properties;
            Ok(())
        },
    ),
];

/// Settings of `[agent_check]`.
pub(super) const AGENT_CHECK: &[Row<AgentCheckSettings>] = &[row(
    "listen",
    "",
    "HAProxy's agent-check: a TCP address where every connection gets one line, `up ready 100%` or `drain`.",
    |to, value| {
        let text = value.text()?;
        to.listen = match text {
            "" => None,
            _ => Some(text.parse().map_err(|_| {
                format!("`{text}` is no address; `127.0.0.1:9081` or `[::1]:9081` would be right")
            })?),
        };
        Ok(())
    },
)];

/// Settings of `[tracing]`.
pub(super) const TRACING: &[Row<TracingSettings>] = &[
    row(
        "endpoint",
        "",
        "Where spans go, by OTLP over HTTP: `http://127.0.0.1:4318/v1/traces`. Unset: nothing is traced.",
        |to, value| {
            let text = value.text()?;
            to.endpoint = (!text.is_empty()).then(|| text.to_owned());
            if !text.is_empty() && !is_http_url(text) {
                return Err(format!(
                    "`{text}` is no place for spans; `http://127.0.0.1:4318/v1/traces` would be right"
                ));
            }
            if to.endpoint.is_some() && !cfg!(feature = "tracing") {
                return Err("this build does not trace (cargo feature `tracing`)".to_owned());
            }
            Ok(())
        },
    ),
    row(
        "rate",
        "0.001",
        "Of requests that bring no decision with them, the share that is kept: 0 to 1.",
        |to, value| {
            let text = value.text()?;
            to.rate =
                text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate)).ok_or_else(|| {
                    format!("`{text}` is no share; `0.001`, one in a thousand, would be right")
                })?;
            Ok(())
        },
    ),
    row(
        "header",
        "true",
        "Whether a request's `traceparent` decides: kept if it says sampled, else not; `false`: by `rate` like any other.",
        |to, value| {
            to.header = value.truth()?;
            Ok(())
        },
    ),
    row(
        "slowest",
        "1s",
        "Of every such interval a worker's slowest request is kept, whatever else was decided; `never`.",
        |to, value| {
            to.slowest = match value.text()? {
                "never" => None,
                _ => Some(value.duration(ms(10, HOUR))?),
            };
            Ok(())
        },
    ),
    row("interval", "1s", "How often spans are sent.", |to, value| {
        to.interval = value.duration(ms(10, MINUTE))?;
        Ok(())
    }),
    row(
        "ring_size",
        "1MiB",
        "Where a worker's spans wait for the collector (it has two, a request takes 1 KiB); what finds no room is \
         dropped and counted. A power of two.",
        |to, value| {
            let size = value.size(64 * KIB..=GIB)?;
            if !size.is_power_of_two() {
                return Err(format!("`{}` is no power of two; `1MiB` would be right", value.text()?));
            }
            to.ring_size = size as usize;
            Ok(())
        },
    ),
];

/// `http://host:port/path`, as far as can be told without asking anybody.
fn is_http_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://") else { return false };
    let host = rest.split('/').next().unwrap_or_default();
    let port = host.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
    let port_fits = port.is_none_or(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
    let name = port.map_or(host, |(name, _)| name);
    port_fits && !name.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}
