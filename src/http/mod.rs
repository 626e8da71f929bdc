//! HTTP/1 without sockets and without a clock: bytes and time come in, bytes
//! go out. Which loop moves them is not known here, so epoll, io_uring and a
//! test drive the very same connection.
//!
//! ```text
//!  backend's read buffer                                   worker-wide output ──► socket
//!        │ (borrowed)                                          ▲
//!        ▼                                                     │
//!  connection ── request (head: httparse + own checks) ── Service::admit ── Service::answer
//!        │            chunked (bodies)                                          │
//!        └─ unfinished tail ─► carry slot                    json │ query ─► Fields (the endpoint's)
//! ```
//!
//! The parts
//! - [`connection`]: the state machine of one connection. Whole requests are
//!   parsed and answered in the backend's own buffer; only an unfinished tail
//!   is copied, into a carry slot.
//! - [`workspace`]: what all connections of a worker share: output buffer,
//!   carry slots, slots for output a socket did not take, scratch, the Date.
//! - [`request`], [`chunked`]: strict reading of heads and chunked bodies
//!   (RFC 9110, RFC 9112). What a proxy in front might read otherwise than we
//!   do is refused and the connection closed.
//! - [`service`]: the trait by which an endpoint is asked.
//! - [`response`]: answers, written straight into the output.
//! - [`json`], [`query`]: one-pass scanners from a request into [`fields`];
//!   no tree, no allocation.
//!
//! Order of judgement of one request: framing (400, 408, 414, 431, 501, 505;
//! the connection is closed), 404, 405, 413 (closed), 415, 417, 400, 422.
//!
//! Nothing here allocates after [`workspace::Workspace::new`].

pub mod chunked;
pub mod connection;
pub mod fields;
#[doc(hidden)]
pub mod fuzz;
pub mod json;
mod order;
pub mod query;
pub mod request;
pub mod response;
mod scratch;
pub mod service;
mod units;
pub mod workspace;

pub use connection::{Connection, Output, Wait};
pub use fields::{FieldFault, Fields, QueryName, Scalar, ScanFault, Scanned, Shape};
pub use json::scan_request;
pub use order::MemberOrder;
pub use query::{PercentFault, QueryOptions, percent_decode, query_options, scan_query};
pub use request::{BodyLength, Head, Method, Version};
pub use response::{Answer, AnswerHead, Body, ContentType, HeaderLine, Out, Status};
pub use service::{Admission, BodyMode, LinesHead, Media, Refusal, Request, Service};
pub use workspace::{Limits, PoolExhausted, SetAside, Workspace};
