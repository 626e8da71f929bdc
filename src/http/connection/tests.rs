//! Sentences about one connection, without a socket: a wire that feeds bytes
//! and takes bytes, and a service that says what it was asked.

use std::time::Duration;

use proptest::prelude::*;

use super::super::request::HeadScan;
use super::super::response::{ContentType, HeaderLine};
use super::super::service::{LinesHead, Media};
use super::*;

mod drain_and_time;
mod framing;
mod lines;
mod output;
mod requests;
mod splits;

const NOW: Now = Now { mono_ns: 0, unix_us: 784_111_777_000_000 };

/// Says what it was asked, and remembers what it was told.
#[derive(Default)]
struct Echo {
    admitted: usize,
    answered: Vec<Status>,
    refused: Vec<(Status, &'static str)>,
}

const ECHO: u16 = 0;
const BIG: u16 = 1;
const SILENT: u16 = 2;
const UNFINISHED: u16 = 3;
const OVERFLOWING: u16 = 4;
const LINES: u16 = 5;

/// The sum of a body in lines.
const LINES_SIZE_MAX: u32 = 400_000;

impl Service for Echo {
    fn admit(&mut self, head: &Head<'_>) -> Result<Admission, Refusal> {
        self.admitted += 1;
        let (route, methods) = match head.path {
            "/" | "/echo" => (ECHO, "GET, HEAD, POST"),
            "/big" => (BIG, "GET, HEAD"),
            "/silent" => (SILENT, "GET, HEAD"),
            "/unfinished" => (UNFINISHED, "GET, HEAD"),
            "/overflowing" => (OVERFLOWING, "GET, HEAD"),
            "/lines" => (LINES, "POST"),
            "/busy" => return Err(Refusal::unavailable("shedding", 7)),
            _ => return Err(Refusal::not_found("no such path")),
        };
        let allowed = match head.method {
            Method::Get => methods.contains("GET"),
            Method::Head => methods.contains("HEAD"),
            Method::Post => methods.contains("POST"),
            Method::Standard | Method::Unknown => false,
        };
        if !allowed {
            return Err(Refusal::method_not_allowed(methods));
        }
        Ok(match (route, head.method) {
            (LINES, _) => Admission {
                route,
                options: 9,
                body_size_max: LINES_SIZE_MAX,
                body: BodyMode::Lines,
                media: Media::JsonLines,
            },
            (_, Method::Post) => Admission {
                route,
                options: 9,
                body_size_max: u32::MAX,
                body: BodyMode::Whole,
                media: Media::Json,
            },
            _ => {
                Admission { route, options: 9, body_size_max: 100, body: BodyMode::Whole, media: Media::Any }
            }
        })
    }

    fn answer(
        &mut self,
        admission: Admission,
        request: &Request<'_>,
        _: &mut [u8],
        now: Now,
        answer: Answer<'_>,
    ) {
        assert_eq!(admission.options, 9, "the admission comes back as it was given");
        assert_eq!(now, NOW);
        let Head { method, path, query, version, .. } = request.head;
        match admission.route {
            BIG => {
                let size: usize = query.unwrap_or("0").parse().unwrap();
                let mut body = answer.start(Status::Ok).body(ContentType::Text);
                (0..size).for_each(|at| body.push(&[b'a' + (at % 26) as u8]));
                body.finish();
            }
            SILENT => {}
            UNFINISHED => {
                let mut body = answer.start(Status::Ok).header("X-Version", "1").body(ContentType::Json);
                body.push(b"half an ans");
            }
            OVERFLOWING => {
                let mut body = answer.start(Status::Ok).body(ContentType::Json);
                for _ in 0..1_000_000 {
                    body.push(b"too much");
                }
                body.finish();
            }
            _ => {
                let mut body = answer.start(Status::Ok).header("X-Version", "1").body(ContentType::Text);
                body.push_str(&format!("{method:?} {path} {query:?} {version:?} "));
                body.push(request.body);
                body.finish();
            }
        }
    }

    fn lines_begin(&mut self, _: Admission, head: &mut LinesHead<'_, '_>) {
        head.header_line(&HeaderLine::new("X-Version", "1"));
    }

    fn answer_line(&mut self, admission: Admission, line: &[u8], _: &mut [u8], now: Now, out: &mut Out<'_>) {
        assert_eq!((admission.options, now), (9, NOW));
        match line {
            b"silent" => {}
            b"overflowing" => (0..1_000_000).for_each(|_| out.push(b"too much")),
            _ => {
                out.push(b"<");
                out.push(line);
                out.push(b">\n");
            }
        }
    }

    fn refused(&mut self, status: Status, reason: &'static str) {
        self.refused.push((status, reason));
    }

    fn answered(&mut self, admission: Admission, status: Status) {
        assert_eq!(admission.options, 9);
        self.answered.push(status);
    }
}

fn limits() -> Limits {
    Limits { carry_count: 4, pending_output_count: 2, ..Limits::default() }
}

/// A connection, its worker, and what it sent.
struct Wire {
    connection: Connection,
    workspace: Workspace,
    service: Echo,
    output: Vec<u8>,
    closed: bool,
}

impl Wire {
    fn new() -> Self {
        Self::with(limits(), 4096)
    }

    fn with(limits: Limits, answer_size_max: usize) -> Self {
        Self {
            connection: Connection::new(),
            workspace: Workspace::new(limits, answer_size_max),
            service: Echo::default(),
            output: Vec::new(),
            closed: false,
        }
    }

    fn input(&mut self, bytes: &[u8]) {
        self.connection.handle_input(bytes, NOW, &mut self.workspace, &mut self.service);
    }

    /// Feeds, and takes all output.
    fn feed(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        for piece in bytes.as_ref().chunks(crate::limits::READ_BUFFER_SIZE) {
            if !self.closed {
                assert!(self.connection.wants_input());
                self.input(piece);
                self.take_all();
            }
        }
        self
    }

    fn eof(&mut self) -> &mut Self {
        self.connection.handle_eof(NOW, &mut self.workspace, &mut self.service);
        self.take_all();
        self
    }

    fn time_out(&mut self) -> &mut Self {
        self.connection.handle_timeout(NOW, &mut self.workspace, &mut self.service);
        self.take_all();
        self
    }

    /// Takes at most `size` bytes of output; how many there were.
    fn take(&mut self, size: usize) -> usize {
        let Output::Send(bytes) = self.connection.poll_output(&self.workspace) else {
            return 0;
        };
        let size = size.min(bytes.len());
        self.output.extend_from_slice(&bytes[..size]);
        self.connection.handle_sent(size, NOW, &mut self.workspace, &mut self.service);
        size
    }

    fn take_all(&mut self) {
        while self.take(usize::MAX) > 0 {}
        self.closed = self.connection.poll_output(&self.workspace) == Output::Close;
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    fn replies(&self) -> Vec<Reply> {
        replies(&self.output, &[])
    }

    fn statuses(&self) -> Vec<u16> {
        self.replies().iter().map(|reply| reply.status).collect()
    }

    fn refusals(&self) -> Vec<u16> {
        self.service.refused.iter().map(|(status, _)| status.code()).collect()
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    /// False where the output ended before the body did.
    complete: bool,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice");
        value
    }
}

/// Reads answers as a client would; `heads` are the numbers of those to HEAD.
fn replies(output: &[u8], heads: &[usize]) -> Vec<Reply> {
    let mut replies = Vec::new();
    let mut rest = output;
    while !rest.is_empty() {
        let end = memchr::memmem::find(rest, b"\r\n\r\n").expect("a whole head");
        let head = std::str::from_utf8(&rest[..end]).unwrap();
        rest = &rest[end + 4..];
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        if status == 100 {
            continue;
        }
        let headers = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut reply = Reply { status, headers, body: String::new(), complete: true };
        assert!(reply.header("Date").is_some());
        if heads.contains(&replies.len()) {
            assert!(reply.header("Content-Length").is_some());
        } else if let Some(size) = reply.header("Content-Length") {
            let size: usize = size.parse().unwrap();
            reply.body = String::from_utf8_lossy(&rest[..size]).into_owned();
            rest = &rest[size..];
        } else if reply.header("Transfer-Encoding") == Some("chunked") {
            loop {
                let Some(end) = memchr::memmem::find(rest, b"\r\n") else {
                    assert!(rest.is_empty());
                    reply.complete = false;
                    break;
                };
                let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
                reply.body.push_str(std::str::from_utf8(&rest[end + 2..end + 2 + size]).unwrap());
                assert_eq!(&rest[end + 2 + size..end + 4 + size], b"\r\n");
                rest = &rest[end + 4 + size..];
                if size == 0 {
                    break;
                }
            }
        } else {
            assert_eq!(reply.header("Connection"), Some("close"));
            reply.body = String::from_utf8_lossy(rest).into_owned();
            rest = &[];
        }
        replies.push(reply);
    }
    replies
}

/// A GET that is answered, to see whether the connection still serves.
const PROBE: &str = "GET /echo?probe HTTP/1.1\r\nHost: a\r\n\r\n";

fn is_probed(reply: &Reply) -> bool {
    reply.status == 200 && reply.body == "Get /echo Some(\"probe\") Http11 "
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// `body` in chunks of `size` bytes.
fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn chunked_post(path: &str, body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes =
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    bytes.extend_from_slice(&chunked(body, size));
    bytes
}
