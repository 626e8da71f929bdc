//! `[tracing]`: which requests' spans are kept, and where they go.

use std::time::Duration;

use super::Settings;
use super::row::{GIB, HOUR, KIB, MINUTE, Row, fixed, last, live, ms, row};

/// `[tracing]`.
#[derive(Debug, Clone, PartialEq, Default)]
#[allow(missing_docs, reason = "the rows below say what each means")]
pub struct TracingSettings {
    pub endpoint: Option<String>,
    pub rate: f64,
    pub header: bool,
    pub slowest: Option<Duration>,
    pub interval: Duration,
    pub ring_size: usize,
}

/// Its settings.
pub(super) const ROWS: &[Row<Settings>] = &[
    live!(
        tracing.endpoint,
        "",
        "Where spans go, by OTLP over HTTP: `http://127.0.0.1:4318/v1/traces`. Unset: nothing is traced.",
        |value| match value.text()? {
            "" => None,
            text if !is_http_url(text) => {
                return Err(format!(
                    "`{text}` is no place for spans; `http://127.0.0.1:4318/v1/traces` would be right"
                ));
            }
            _ if !cfg!(feature = "tracing") => {
                return Err("this build does not trace (cargo feature `tracing`)".to_owned());
            }
            text => Some(text.to_owned()),
        }
    ),
    live!(
        tracing.rate,
        "0.001",
        "Of requests that bring no decision with them, the share that is kept: 0 to 1.",
        |value| {
            let text = value.text()?;
            text.parse()
                .ok()
                .filter(|rate| (0.0..=1.0).contains(rate))
                .ok_or_else(|| format!("`{text}` is no share; `0.001`, one in a thousand, would be right"))?
        }
    ),
    live!(
        tracing.header,
        "true",
        "Whether a request's `traceparent` decides: kept if it says sampled, else not; `false`: by `rate` like any other.",
        truth()
    ),
    live!(
        tracing.slowest,
        "1s",
        "Of every such interval a worker's slowest request is kept, whatever else was decided; `never`.",
        unless("never", |value| value.duration(ms(10, HOUR)))
    ),
    live!(tracing.interval, "1s", "How often spans are sent.", duration(ms(10, MINUTE))),
    fixed!(
        tracing.ring_size,
        "1MiB",
        "Where a worker's spans wait for the collector (it has two, a request takes 1 KiB); what finds no room is \
         dropped and counted. A power of two.",
        power_of_two(64 * KIB..=GIB)
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
