//! Tracing: where the time of single requests went, as spans that any
//! OpenTelemetry collector takes.
//!
//! ```text
//! worker   stopwatch of every request ─ kept? ─ spans (bytes of OTLP) ─ ring
//!                                                                        ║ shared memory, outlives both
//! logger                         export: read ─ POST /v1/traces ─ answered ─ the ring's head moves
//! ```
//! - While it is off there is no [`Tracer`], and each place that would speak to
//!   one asks whether there is: a branch that always goes the same way.
//! - While it is on, every request is timed, since nobody knows beforehand which
//!   will be slow; only of those that are kept spans are written ([`Options`] says
//!   which). It makes no lock and no allocation.
//! - It is lossy where exposures are not: what a full ring refuses, what the
//!   collector rejects, and what it has not taken by a stop, is gone. The first
//!   two are counted; no request ever waits for any of it.
//!
//! One record of a ring is one request: its spans as they stand in OTLP's
//! `ScopeSpans`, so that a batch is a copy.
//!
//! ```text
//! POST /v1/assign      ├──────────────────────────────────────────────────────────┤  server span
//! queue                ├─────────┤  readable, in line behind others
//! parse                          ├───────┤  head and body
//! decide                                 ├─────────────┤
//! record                                               ├──────┤  the exposure
//! write                                                       ├────────────────────┤  … handed to the kernel
//! ```

mod context;
mod hole;
mod otlp;
mod random;
mod request;
mod span;
#[cfg(test)]
mod tests;
mod tracer;

use std::time::Duration;

pub use context::Parent;
pub use request::request;
pub use span::{SIZE_MAX as RECORD_SIZE_MAX, count as span_count};
pub use tracer::{Stage, Subject, Tracer};

/// Which requests' spans are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Of requests that bring no decision with them, the share that is kept, 0 to 1.
    pub rate: f64,
    /// A request with a `traceparent` is kept where that says `sampled`, and else
    /// not; without this by the rate, like any other.
    pub header: bool,
    /// Of every such interval, a worker's slowest request is kept, whatever else
    /// was decided of it.
    pub slowest: Option<Duration>,
}
