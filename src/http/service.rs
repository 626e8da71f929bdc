//! How a connection asks the endpoints: once for the head, once for the
//! answer. What the connection judges itself (framing, 413, 415, 417, time)
//! the endpoints hear of only to count it.

use crate::clock::Now;

use super::request::Head;
use super::response::{Answer, AnswerHead, HeaderLine, Out, Status};

/// How a route wants its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyMode {
    /// In one piece, with one answer.
    Whole,
    /// Line by line, with one line of answer each, streamed both ways.
    Lines,
}

/// Which content types a route takes, where the request names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// Whatever it says.
    Any,
    /// `application/json` and `application/…+json`.
    Json,
    /// Those, and `application/x-ndjson`, `application/ndjson`, `application/jsonl`.
    JsonLines,
}

/// What a route takes; goes back to the service with the whole request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// The service's own number of the route.
    pub route: u16,
    /// The service's own notes (say, what a query string asked for).
    pub options: u16,
    /// The largest body; a larger one is refused with 413. Of a body in lines
    /// this bounds the sum; a line is bounded by [`super::Limits::body_size_max`].
    /// Of a whole body, never more than that.
    pub body_size_max: u32,
    /// How the body is wanted.
    pub body: BodyMode,
    /// Which content types are taken; others are refused with 415.
    pub media: Media,
}

/// Why a request with sound framing is not taken. The connection stays open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// 404, 405, 503 …
    pub status: Status,
    /// A sentence for the client.
    pub detail: &'static str,
    /// The Allow header (RFC 9110 10.2.1), for 405.
    pub allow: Option<&'static str>,
    /// The Retry-After header in seconds, for 503.
    pub retry_after_s: Option<u16>,
}

impl Refusal {
    /// 404.
    #[must_use]
    pub const fn not_found(detail: &'static str) -> Self {
        Self::new(Status::NotFound, detail)
    }

    /// 405; a method nobody knows becomes 501 on its way out (RFC 9110 9.1).
    #[must_use]
    pub const fn method_not_allowed(allow: &'static str) -> Self {
        let mut refusal = Self::new(Status::MethodNotAllowed, "this path has no such method");
        refusal.allow = Some(allow);
        refusal
    }

    /// 503 with Retry-After.
    #[must_use]
    pub const fn unavailable(detail: &'static str, retry_after_s: u16) -> Self {
        let mut refusal = Self::new(Status::ServiceUnavailable, detail);
        refusal.retry_after_s = Some(retry_after_s);
        refusal
    }

    /// Any other.
    #[must_use]
    pub const fn new(status: Status, detail: &'static str) -> Self {
        Self { status, detail, allow: None, retry_after_s: None }
    }
}

/// A whole request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its head.
    pub head: &'a Head<'a>,
    /// Its body, chunks joined; empty where there is none.
    pub body: &'a [u8],
}

/// The head of an answer in lines: more headers, and nothing else.
pub struct LinesHead<'a, 'w> {
    head: &'a mut AnswerHead<'w>,
}

impl<'a, 'w> LinesHead<'a, 'w> {
    pub(super) fn new(head: &'a mut AnswerHead<'w>) -> Self {
        Self { head }
    }

    /// Adds a header made before.
    pub fn header_line(&mut self, line: &HeaderLine) {
        self.head.push_header_line(line);
    }
}

/// The endpoints, as a connection sees them.
pub trait Service {
    /// Is there such a route, and does it take the method? (404, 405, 503.)
    /// Framing was judged before; 413, 415 and 417 are judged by the
    /// connection afterwards. Called once a request.
    ///
    /// # Errors
    /// The refusal to answer with.
    fn admit(&mut self, head: &Head<'_>) -> Result<Admission, Refusal>;

    /// Answers a whole request, exactly once. `scratch` is what the scanners
    /// unescape into. An answer that is not finished becomes a 500.
    fn answer(
        &mut self,
        admission: Admission,
        request: &Request<'_>,
        scratch: &mut [u8],
        now: Now,
        answer: Answer<'_>,
    );

    /// The answer in lines is about to begin: adds its headers.
    fn lines_begin(&mut self, admission: Admission, head: &mut LinesHead<'_, '_>) {
        let _ = (admission, head);
    }

    /// Answers one line of a body in lines: exactly one line, with its `\n`.
    /// `line` comes without its `\n` or `\r\n` and may be empty.
    fn answer_line(
        &mut self,
        admission: Admission,
        line: &[u8],
        scratch: &mut [u8],
        now: Now,
        out: &mut Out<'_>,
    );

    /// The connection refused by itself (framing, 413, 415, 417, 408, and what
    /// [`Service::admit`] refused): to be counted.
    fn refused(&mut self, status: Status, reason: &'static str);

    /// An answer by [`Service::answer`], or all of one in lines, is complete:
    /// to be counted.
    fn answered(&mut self, admission: Admission, status: Status) {
        let _ = (admission, status);
    }
}
