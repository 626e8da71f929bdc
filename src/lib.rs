//! splitd answers one question on the request path of a company: in which A/B
//! experiments is this user, and in which group of each?
//!
//! # Processes
//! ```text
//! splitd serve
//! master                     binds, forks, supervises; does no I/O that can block
//!  ├─ loader                 reads and checks the experiments, compiles the plan, hands it over as a sealed memfd
//!  ├─ worker assign/0..n     one thread, pinned: accept, read, decide, record, write
//!  ├─ worker bulk/0..m       the same program with other routes
//!  ├─ worker admin/0         the same program again: metrics, health, status
//!  └─ logger                 niced: drains the rings, delivers to the sink
//! ```
//! Workers share no lock and no writable memory with each other.
//!
//! # Flow of one request
//! ```text
//! socket bytes ─ worker/epoll ─ http/connection ─ http/request ─ endpoint (route)
//!    ─ http/{json,query} → engine/attributes ─ engine/layer (bucket → group) ─ engine/segment
//!    ─┬─ http/response ─ worker/epoll ─ socket bytes
//!     └─ exposure/record → exposure/ring ═(shared memory)═ logger/drain ─ logger/sink
//! ```
//! The exposure is committed to its ring before the answer is handed to the kernel.
//! Where tracing is on, `trace` times each of these steps.
//!
//! # Who may know whom
//! `tests/layering.rs` holds the table and checks it. In short: `limits` and
//! `clock` know nothing; `engine` is pure and knows neither HTTP nor time;
//! `http` knows neither sockets nor the engine; `endpoint` joins the two;
//! `worker`, `logger` and `loader` are processes that do not know each other;
//! `master` starts them. `unsafe` lives in `sys` and nowhere else.

pub mod cli;
pub mod clock;
pub mod config;
pub mod endpoint;
pub mod engine;
pub mod exposure;
pub mod http;
pub mod limits;
pub mod loader;
pub mod logger;
pub mod master;
pub mod metrics;
pub mod status;
pub mod sys;
pub mod trace;
pub mod worker;
