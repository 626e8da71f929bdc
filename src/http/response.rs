//! Answers, written straight into the worker's output.
//!
//! ```text
//! HTTP/1.1 200 OK\r\n                     prepared
//! Date: …\r\n                             made once a second
//! [Connection: close\r\n]                 when due
//! [X-…: …\r\n]                            the service's own
//! Content-Type: application/json\r\n
//! Content-Length:      123\r\n\r\n        patched in afterwards, right-aligned:
//! {…}                                     the leading spaces are OWS (RFC 9110 5.5)
//! ```
//! - Nothing is written twice and nothing is measured beforehand.
//! - An answer that finds no room is taken back whole and becomes a 500; the
//!   limits are such that it never happens to a plan's answers.
//! - The answer to HEAD is written like GET's and its body taken back.

use std::fmt::{self, Display, Write};
use std::ops::{Deref, DerefMut};

use super::workspace::OutputBuffer;

macro_rules! statuses {
    ($($name:ident = $code:literal $title:literal)*) => {
        /// A final status that splitd gives.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Status {
            $(#[doc = concat!($code, " ", $title)] $name = $code,)*
        }

        impl Status {
            /// Every status there is.
            pub const ALL: &'static [Status] = &[$(Status::$name),*];

            /// `HTTP/1.1 200 OK\r\n`
            fn line(self) -> &'static str {
                match self { $(Self::$name => concat!("HTTP/1.1 ", $code, " ", $title, "\r\n"),)* }
            }

            /// The status' name, as RFC 9110 has it.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

statuses! {
    Ok = 200 "OK"
    BadRequest = 400 "Bad Request"
    NotFound = 404 "Not Found"
    MethodNotAllowed = 405 "Method Not Allowed"
    RequestTimeout = 408 "Request Timeout"
    ContentTooLarge = 413 "Content Too Large"
    UriTooLong = 414 "URI Too Long"
    UnsupportedMediaType = 415 "Unsupported Media Type"
    ExpectationFailed = 417 "Expectation Failed"
    UnprocessableContent = 422 "Unprocessable Content"
    HeaderFieldsTooLarge = 431 "Request Header Fields Too Large"
    InternalServerError = 500 "Internal Server Error"
    NotImplemented = 501 "Not Implemented"
    ServiceUnavailable = 503 "Service Unavailable"
    VersionNotSupported = 505 "HTTP Version Not Supported"
}

impl Status {
    /// The number.
    #[must_use]
    pub fn code(self) -> u16 {
        self as u16
    }
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json`
    Json,
    /// `application/problem+json` (RFC 9457)
    Problem,
    /// `application/x-ndjson`
    JsonLines,
    /// `text/plain; charset=utf-8`
    Text,
    /// `text/html; charset=utf-8`
    Html,
    /// Prometheus' text format, `text/plain; version=0.0.4; charset=utf-8`
    Metrics,
    /// `application/openmetrics-text; version=1.0.0; charset=utf-8`
    OpenMetrics,
}

impl ContentType {
    fn line(self) -> &'static str {
        match self {
            Self::Json => "Content-Type: application/json\r\n",
            Self::Problem => "Content-Type: application/problem+json\r\n",
            Self::JsonLines => "Content-Type: application/x-ndjson\r\n",
            Self::Text => "Content-Type: text/plain; charset=utf-8\r\n",
            Self::Html => "Content-Type: text/html; charset=utf-8\r\n",
            Self::Metrics => "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n",
            Self::OpenMetrics => {
                "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"
            }
        }
    }
}

/// A header that is sent again and again: its line, made once. Control characters in
/// the value become `?`.
#[derive(Debug, Clone)]
pub struct HeaderLine(Box<[u8]>);

impl HeaderLine {
    /// Of a header.
    #[must_use]
    pub fn new(name: &str, value: &str) -> HeaderLine {
        debug_assert!(!name.is_empty() && name.bytes().all(super::request::is_token_byte), "header `{name}`");
        let mut line = format!("{name}: {value}\r\n").into_bytes();
        let value = name.len() + 2..line.len() - 2;
        line[value].iter_mut().filter(|byte| is_control(**byte)).for_each(|byte| *byte = b'?');
        HeaderLine(line.into_boxed_slice())
    }
}

/// What the connection decided about an answer before it is given.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AnswerMode {
    /// The request was a HEAD: the body is taken back.
    pub head_only: bool,
    /// `Connection: close` is due.
    pub close: bool,
    /// `Connection: keep-alive` is due (to HTTP/1.0).
    pub keep_alive: bool,
}

/// The right to answer one request, once.
pub struct Answer<'w> {
    out: Out<'w>,
    date: &'w [u8],
    mode: AnswerMode,
    outcome: &'w mut Option<Status>,
}

impl<'w> Answer<'w> {
    pub(super) fn new(
        buffer: &'w mut OutputBuffer,
        date: &'w [u8],
        mode: AnswerMode,
        outcome: &'w mut Option<Status>,
    ) -> Self {
        Self { out: Out::new(buffer), date, mode, outcome }
    }

    /// Begins the answer's head.
    #[must_use]
    pub fn start(mut self, status: Status) -> AnswerHead<'w> {
        let begin = self.out.buffer.position();
        self.out.push_str(status.line());
        self.out.push(self.date);
        if self.mode.close {
            self.out.push_str("Connection: close\r\n");
        } else if self.mode.keep_alive {
            self.out.push_str("Connection: keep-alive\r\n");
        }
        AnswerHead { out: self.out, date: self.date, mode: self.mode, outcome: self.outcome, status, begin }
    }

    /// The whole answer: a problem document (RFC 9457) and nothing else.
    pub fn problem(self, status: Status, detail: impl Display) {
        self.start(status).problem(detail);
    }
}

/// An answer whose status is written and whose headers may still come.
pub struct AnswerHead<'w> {
    out: Out<'w>,
    date: &'w [u8],
    mode: AnswerMode,
    outcome: &'w mut Option<Status>,
    status: Status,
    begin: usize,
}

impl<'w> AnswerHead<'w> {
    /// Adds a header of our own text.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.push_header(name, value);
        self
    }

    /// Adds a header made before.
    #[must_use]
    pub fn header_line(mut self, line: &HeaderLine) -> Self {
        self.push_header_line(line);
        self
    }

    pub(super) fn push_header_line(&mut self, line: &HeaderLine) {
        self.out.push(&line.0);
    }

    /// Adds a header whose value is our own text.
    pub(super) fn push_header(&mut self, name: &str, value: &str) {
        debug_assert!(!name.is_empty() && name.bytes().all(super::request::is_token_byte), "header `{name}`");
        debug_assert!(!value.bytes().any(is_control), "header `{name}`: `{value}`");
        for part in [name, ": ", value, "\r\n"] {
            self.out.push_str(part);
        }
    }

    /// Ends the head and begins the body.
    #[must_use]
    pub fn body(mut self, content_type: ContentType) -> Body<'w> {
        self.out.push_str(content_type.line());
        self.out.push_str(CONTENT_LENGTH);
        let body_at = self.out.buffer.position();
        Body { head: self, body_at }
    }

    /// Ends the head and makes the body a problem document (RFC 9457).
    pub fn problem(self, detail: impl Display) {
        let status = self.status;
        let mut body = self.body(ContentType::Problem);
        body.push_problem(status, detail);
        body.finish();
    }

    /// Ends the head of an answer whose length nobody knows yet: chunked, or
    /// until the connection is closed.
    pub(super) fn stream(mut self, content_type: ContentType, chunked: bool) {
        self.out.push_str(content_type.line());
        if chunked {
            self.out.push(b"Transfer-Encoding: chunked\r\n");
        }
        self.out.push(b"\r\n");
        *self.outcome = Some(self.status);
    }
}

/// The digits' places are patched; 8 of them hold any output buffer.
const CONTENT_LENGTH: &str = "Content-Length:         0\r\n\r\n";
const CONTENT_LENGTH_DIGITS: usize = 8;

fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7F
}

/// An answer's body. Push into it, then [`Body::finish`].
pub struct Body<'w> {
    head: AnswerHead<'w>,
    body_at: usize,
}

impl<'w> Deref for Body<'w> {
    type Target = Out<'w>;

    fn deref(&self) -> &Out<'w> {
        &self.head.out
    }
}

impl<'w> DerefMut for Body<'w> {
    fn deref_mut(&mut self) -> &mut Out<'w> {
        &mut self.head.out
    }
}

impl Body<'_> {
    /// Bytes of the body so far.
    #[must_use]
    pub fn size(&self) -> usize {
        self.head.out.buffer.position() - self.body_at
    }

    /// Completes the answer.
    pub fn finish(self) {
        let size = self.size();
        let Self { head, body_at } = self;
        let AnswerHead { out, date, mode, outcome, status, begin } = head;
        if out.overflow {
            out.buffer.truncate(begin);
            assert!(status != Status::InternalServerError, "a problem document fits any output");
            Answer::new(out.buffer, date, mode, outcome)
                .problem(Status::InternalServerError, "the answer is larger than the server allows");
            return;
        }
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(size).as_bytes();
        let place = out.buffer.written_mut(body_at - 4 - digits.len(), digits.len());
        place.copy_from_slice(digits);
        debug_assert!(digits.len() <= CONTENT_LENGTH_DIGITS);
        if mode.head_only {
            out.buffer.truncate(body_at);
        }
        *outcome = Some(status);
    }
}

/// Output being written. What finds no room is dropped and remembered; the
/// answer as a whole is then taken back.
pub struct Out<'w> {
    buffer: &'w mut OutputBuffer,
    overflow: bool,
}

impl<'w> Out<'w> {
    pub(super) fn new(buffer: &'w mut OutputBuffer) -> Self {
        Self { buffer, overflow: false }
    }

    pub(super) fn overflowed(&self) -> bool {
        self.overflow
    }

    /// Appends bytes.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.overflow |= !self.buffer.push(bytes);
    }

    /// Appends text.
    #[inline]
    pub fn push_str(&mut self, text: &str) {
        self.push(text.as_bytes());
    }

    /// Appends an integer in decimal.
    pub fn push_int(&mut self, integer: impl itoa::Integer) {
        self.push(itoa::Buffer::new().format(integer).as_bytes());
    }

    /// Appends text as a JSON string, quotes and all.
    pub fn push_json_str(&mut self, text: &str) {
        self.push(b"\"");
        self.push_json_escaped(text);
        self.push(b"\"");
    }

    /// Appends text escaped for the inside of a JSON string.
    pub fn push_json_escaped(&mut self, text: &str) {
        super::json::escape(text, |bytes| self.push(bytes));
    }

    /// Appends a problem document (RFC 9457) without a line end: a body, or
    /// the answer to one bad line.
    pub fn push_problem(&mut self, status: Status, detail: impl Display) {
        self.push_str("{\"type\":\"about:blank\",\"title\":\"");
        self.push_str(status.title());
        self.push_str("\",\"status\":");
        self.push_int(status.code());
        self.push_str(",\"detail\":\"");
        // `Escaped` never fails: it has nothing to fail with.
        let _ = write!(Escaped(self), "{detail}");
        self.push_str("\"}");
    }
}

impl Write for Out<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text);
        Ok(())
    }
}

/// Escapes for JSON what is formatted into it.
struct Escaped<'o, 'w>(&'o mut Out<'w>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_json_escaped(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &[u8] = b"Date: now\r\n";

    fn answered(size: usize, mode: AnswerMode, write: impl FnOnce(Answer<'_>)) -> (String, Option<Status>) {
        let mut buffer = OutputBuffer::new(size, 0);
        let mut outcome = None;
        write(Answer::new(&mut buffer, DATE, mode, &mut outcome));
        (String::from_utf8(buffer.unsent().to_vec()).unwrap(), outcome)
    }

    #[test]
    fn headers_come_in_order_and_the_length_is_patched() {
        let (text, outcome) = answered(1000, AnswerMode { close: true, ..AnswerMode::default() }, |answer| {
            let mut body = answer.start(Status::Ok).header("X-A", "b").body(ContentType::Json);
            body.push_json_str("a\"b");
            body.push_int(-12);
            write!(body, "{:?}", 1.5).unwrap();
            assert_eq!(body.size(), 12);
            body.finish();
        });
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nDate: now\r\nConnection: close\r\nX-A: b\r\nContent-Type: application/json\r\n\
             Content-Length:        12\r\n\r\n\"a\\\"b\"-121.5"
        );
        assert_eq!(outcome, Some(Status::Ok));
    }

    #[test]
    fn a_problem_says_what_it_is_in_json() {
        let (text, outcome) = answered(1000, AnswerMode::default(), |answer| {
            answer.problem(Status::BadRequest, format_args!("unit `{}`: no", "a\"\n\u{1}\u{e9}"));
        });
        assert_eq!(outcome, Some(Status::BadRequest));
        let body = text.split_once("\r\n\r\n").unwrap().1;
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            problem,
            serde_json::json!({
                "type": "about:blank", "title": "Bad Request", "status": 400,
                "detail": "unit `a\"\n\u{1}\u{e9}`: no"
            })
        );
        assert!(text.contains("Content-Type: application/problem+json\r\n"));
    }

    #[test]
    fn no_value_breaks_out_of_its_header() {
        let (text, _) = answered(1000, AnswerMode::default(), |answer| {
            let line = HeaderLine::new("X-A", "a\r\nX-B: c\0\u{e9}");
            answer.start(Status::Ok).header_line(&line).body(ContentType::Text).finish();
        });
        assert!(text.contains("\r\nX-A: a??X-B: c?\u{e9}\r\n"));
    }

    #[test]
    fn an_answer_without_room_becomes_a_500_wherever_it_runs_out() {
        for size in 300..690 {
            let (text, outcome) = answered(size, AnswerMode::default(), |answer| {
                let mut body = answer.start(Status::Ok).header("X-A", "b").body(ContentType::Json);
                (0..60).for_each(|_| body.push_str("0123456789"));
                body.push_str("");
                body.finish();
            });
            assert_eq!(outcome, Some(Status::InternalServerError), "{size}");
            assert!(text.starts_with("HTTP/1.1 500 ") && !text.contains("X-A"), "{size}");
        }
    }

    #[test]
    fn every_status_has_a_line_that_begins_with_its_code() {
        for status in Status::ALL {
            assert_eq!(status.line(), format!("HTTP/1.1 {} {}\r\n", status.code(), status.title()));
        }
    }
}
