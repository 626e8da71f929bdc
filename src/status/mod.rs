//! One instance as it is now, read from its shared memory: for `splitd status`,
//! `splitd top`, `/v1/status` and the status page, which all show the same.
//!
//! ```text
//! runtime_dir/metrics ─┐
//! runtime_dir/rings/* ─┴─ Snapshot::take ─┬─ json    /v1/status, `splitd status --json`
//!                         (plain structs)  ├─ text    `splitd status`
//!                                          └─ rates   of two snapshots: `splitd top`
//! ```
//! Nothing is asked of any process of the instance, so it works on one that is
//! stuck or dead, and says so: each process writes down when it last turned.

pub mod assignments;
pub mod json;
pub mod rates;
pub mod snapshot;
pub mod text;

pub use rates::Rates;
pub use snapshot::{Health, Pool, ProcessView, RingView, Snapshot};
