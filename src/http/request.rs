//! Strict reading of a request's head (RFC 9112), on httparse with own checks
//! where it is laxer. A proxy in front may read a doubtful message otherwise
//! than we do, and what it takes for one request we could take for two; so
//! doubt is refused and the connection closed.
//!
//! What httparse would let through and is refused here: empty lines before
//! the request, bare LF as a line's end, bytes above 0x7E and `#` in the
//! target, and everything that concerns more than one field at a time (Host,
//! Content-Length, Transfer-Encoding).
//!
//! Reading has two steps. [`scan_head`] looks for the end of the head and may
//! be told how far it got last time, so a head that dribbles in byte by byte
//! is looked at once. [`parse_head`] reads a complete head. Neither's verdict
//! depends on how the bytes were cut.

use std::mem::MaybeUninit;

use crate::limits;

use super::response::Status;

/// A request's method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// One that RFC 9110 9.3 or RFC 5789 names and no route of ours takes:
    /// PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH. Known, so 405.
    Standard,
    /// Any other token: not implemented, so 501.
    Unknown,
}

/// The versions that are answered; both with HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: closes after the answer unless asked to keep the connection.
    Http10,
    /// HTTP/1.1
    Http11,
}

/// How much body follows the head (RFC 9112 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// No Content-Length and no Transfer-Encoding.
    None,
    /// Content-Length.
    Known(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What an Expect header asks (RFC 9110 10.1.1). HTTP/1.0's are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    None,
    /// `100-continue`
    Continue,
    /// Anything else: 417.
    Other,
}

/// A request's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// The method.
    pub method: Method,
    /// The target's path, not percent-decoded; `*` for `OPTIONS *`.
    pub path: &'a str,
    /// What follows the target's `?`, if it has one.
    pub query: Option<&'a str>,
    /// The version.
    pub version: Version,
    /// Content-Type, the last one.
    pub content_type: Option<&'a [u8]>,
    /// Accept, the last one.
    pub accept: Option<&'a [u8]>,
    /// `traceparent`, not looked into; empty where there is more than one.
    pub traceparent: Option<&'a [u8]>,
    /// The body that follows.
    pub body: BodyLength,
    /// Expect.
    pub expect: Expect,
    /// The connection is to stay open: not `Connection: close`, and in 1.0
    /// `Connection: keep-alive` (RFC 9112 9.3).
    pub keep_alive: bool,
}

/// A head that is refused; the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadFault {
    /// 400, 414, 431, 501, 505.
    pub status: Status,
    /// A sentence for the client.
    pub reason: &'static str,
}

const fn bad(reason: &'static str) -> HeadFault {
    HeadFault { status: Status::BadRequest, reason }
}

/// Where a head ends, or how far was looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadScan {
    /// The head is this long, its empty line included.
    Complete(usize),
    /// These bytes hold no end of it and need not be looked at again.
    Partial(usize),
}

/// Looks for the end of a head. `scanned` is what the last call on a shorter
/// `bytes` returned with [`HeadScan::Partial`], or 0.
///
/// # Errors
/// What no further byte could mend: a first byte that begins no request, a
/// bare LF, a head over `head_size_max`.
pub fn scan_head(bytes: &[u8], scanned: usize, head_size_max: usize) -> Result<HeadScan, HeadFault> {
    let Some(&first) = bytes.first() else {
        return Ok(HeadScan::Partial(0));
    };
    // RFC 9112 2.2 lets a server skip empty lines here. We do not: what a
    // client sends behind a body by mistake is a length that two parties
    // read differently.
    if !is_token_byte(first) {
        return Err(bad("a request begins with its method"));
    }
    // Only the first `head_size_max` bytes count, so that the verdict is the
    // same however much has come by now.
    let window = &bytes[..bytes.len().min(head_size_max)];
    let mut search_at = scanned;
    while let Some(found) = memchr::memchr(b'\n', &window[search_at..]) {
        let feed_at = search_at + found;
        // The first byte is no line end, so an LF has a byte before it, and a
        // line of nothing has two.
        if window[feed_at - 1] != b'\r' {
            return Err(bad("a line ends with CR LF, not with a bare LF"));
        }
        if feed_at >= 2 && window[feed_at - 2] == b'\n' {
            return Ok(HeadScan::Complete(feed_at + 1));
        }
        search_at = feed_at + 1;
    }
    if window.len() < head_size_max {
        return Ok(HeadScan::Partial(window.len()));
    }
    Err(if memchr::memchr(b'\n', window).is_none() {
        HeadFault { status: Status::UriTooLong, reason: "the request line is too long" }
    } else {
        HeadFault { status: Status::HeaderFieldsTooLarge, reason: "the request's head is too large" }
    })
}

/// Reads a complete head, as [`scan_head`] delimits it.
///
/// # Errors
/// Whatever RFC 9112 or http.md's "What is accepted" refuses in a head.
pub fn parse_head(bytes: &[u8]) -> Result<Head<'_>, HeadFault> {
    let mut headers = [const { MaybeUninit::uninit() }; limits::HEADER_COUNT_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(size)) if size == bytes.len() => {}
        Ok(_) => return Err(bad("the head is malformed")),
        Err(error) => return Err(parse_fault(error, bytes)),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(bad("the request line is malformed"));
    };
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    let method = parse_method(method);
    let (path, query) = parse_target(method, target)?;
    let mut fields = FieldLines::default();
    for header in parsed.headers.iter() {
        fields.take(header.name, header.value)?;
    }
    fields.check(version)?;
    Ok(Head {
        method,
        path,
        query,
        version,
        content_type: fields.content_type,
        accept: fields.accept,
        traceparent: fields.traceparent,
        body: match fields.content_length {
            Some(size) => BodyLength::Known(size),
            None if fields.chunked => BodyLength::Chunked,
            None => BodyLength::None,
        },
        // RFC 9110 10.1.1: a 1.0 client cannot mean it.
        expect: if version == Version::Http10 { Expect::None } else { fields.expect },
        keep_alive: !fields.close && (version == Version::Http11 || fields.keep_alive),
    })
}

fn parse_fault(error: httparse::Error, bytes: &[u8]) -> HeadFault {
    match error {
        httparse::Error::TooManyHeaders => {
            HeadFault { status: Status::HeaderFieldsTooLarge, reason: "the request has too many headers" }
        }
        httparse::Error::Version if names_other_version(bytes) => {
            HeadFault { status: Status::VersionNotSupported, reason: "only HTTP/1.0 and HTTP/1.1 are spoken" }
        }
        httparse::Error::Version => bad("the request line does not end with an HTTP version"),
        httparse::Error::Token => bad("the request line is malformed"),
        httparse::Error::HeaderName => {
            bad("a header's name is malformed, or its line begins with white space")
        }
        httparse::Error::HeaderValue => bad("a header's value has a character that is not allowed"),
        httparse::Error::NewLine => bad("a line ends with CR LF"),
        httparse::Error::Status => bad("the head is malformed"),
    }
}

/// Does the request line end with `HTTP/` DIGIT `.` DIGIT, other than ours?
fn names_other_version(bytes: &[u8]) -> bool {
    let line = memchr::memchr(b'\r', bytes).map_or(bytes, |end| &bytes[..end]);
    let Some(space) = line.iter().rposition(|&byte| byte == b' ') else {
        return false;
    };
    match line[space + 1..] {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] => {
            major.is_ascii_digit()
                && minor.is_ascii_digit()
                && !(major == b'1' && matches!(minor, b'0' | b'1'))
        }
        _ => false,
    }
}

fn parse_method(method: &str) -> Method {
    match method {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "HEAD" => Method::Head,
        "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH" => Method::Standard,
        _ => Method::Unknown,
    }
}

/// The target's path and query (RFC 9112 3.2).
fn parse_target(method: Method, target: &str) -> Result<(&str, Option<&str>), HeadFault> {
    // `#` begins a fragment, which no target has (RFC 9112 3.2); parties that
    // cut there and parties that do not route the same target differently.
    // Without an early end, so that it is done many bytes at a time.
    let is_bad = |byte: u8| !(0x21..=0x7E).contains(&byte) | (byte == b'#');
    if target.bytes().fold(false, |found, byte| found | is_bad(byte)) {
        return Err(bad("the request target has a character that is not allowed"));
    }
    let origin = if target.starts_with('/') {
        target
    } else if target == "*" && method == Method::Standard {
        // Asterisk form, for OPTIONS: a resource that no route has.
        return Ok((target, None));
    } else {
        absolute_form(target)?
    };
    Ok(match memchr::memchr(b'?', origin.as_bytes()) {
        Some(mark) => {
            let path = if mark == 0 { "/" } else { &origin[..mark] };
            (path, Some(&origin[mark + 1..]))
        }
        None if origin.is_empty() => ("/", None),
        None => (origin, None),
    })
}

/// What follows the authority of `http://host:port/path?query`. The authority
/// itself does not matter: every host is ours (RFC 9112 3.2.2, 3.3).
fn absolute_form(target: &str) -> Result<&str, HeadFault> {
    let scheme_size = ["http://", "https://"].into_iter().map(str::len).find(|&size| {
        target.get(..size).is_some_and(|start| {
            start.eq_ignore_ascii_case("http://") || start.eq_ignore_ascii_case("https://")
        })
    });
    let Some(scheme_size) = scheme_size else {
        // Authority form (CONNECT) included: this is no tunnel.
        return Err(bad("the request target is neither a path nor an http URI"));
    };
    let rest = &target[scheme_size..];
    let authority_size = rest.bytes().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, origin) = rest.split_at(authority_size);
    if authority.is_empty() || !is_host(authority.as_bytes()) {
        return Err(bad("the request target names no valid host"));
    }
    Ok(origin)
}

/// The fields that framing and routing need, as the lines are met.
struct FieldLines<'a> {
    host_count: u32,
    content_length: Option<u64>,
    transfer_encoding: bool,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expect: Expect,
    content_type: Option<&'a [u8]>,
    accept: Option<&'a [u8]>,
    traceparent: Option<&'a [u8]>,
}

impl Default for FieldLines<'_> {
    fn default() -> Self {
        Self {
            host_count: 0,
            content_length: None,
            transfer_encoding: false,
            chunked: false,
            close: false,
            keep_alive: false,
            expect: Expect::None,
            content_type: None,
            accept: None,
            traceparent: None,
        }
    }
}

impl<'a> FieldLines<'a> {
    fn take(&mut self, name: &str, value: &'a [u8]) -> Result<(), HeadFault> {
        // The length tells most fields apart without a comparison.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                self.host_count += 1;
                if !is_host(value) {
                    return Err(bad("Host is not valid"));
                }
            }
            6 if name.eq_ignore_ascii_case("expect") => {
                let continues = value.eq_ignore_ascii_case(b"100-continue");
                self.expect = match self.expect {
                    Expect::None | Expect::Continue if continues => Expect::Continue,
                    _ => Expect::Other,
                };
            }
            6 if name.eq_ignore_ascii_case("accept") => self.accept = Some(value),
            10 if name.eq_ignore_ascii_case("connection") => {
                for option in value.split(|&byte| byte == b',') {
                    let option = option.trim_ascii();
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            // Two of them say nothing: nobody knows which is meant.
            11 if name.eq_ignore_ascii_case("traceparent") => {
                self.traceparent = Some(if self.traceparent.is_some() { b"" } else { value });
            }
            12 if name.eq_ignore_ascii_case("content-type") => self.content_type = Some(value),
            14 if name.eq_ignore_ascii_case("content-length") => {
                // RFC 9112 6.3 lets equal ones pass. We do not: whoever sends
                // two has been confused by somebody.
                if self.content_length.is_some() {
                    return Err(bad("Content-Length is given twice"));
                }
                self.content_length = Some(parse_content_length(value)?);
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if self.transfer_encoding {
                    return Err(bad("Transfer-Encoding is given twice"));
                }
                self.transfer_encoding = true;
                self.chunked = parse_transfer_encoding(value)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self, version: Version) -> Result<(), HeadFault> {
        if self.transfer_encoding && version == Version::Http10 {
            // RFC 9112 6.1: its framing is faulty, whatever it says.
            return Err(bad("HTTP/1.0 has no Transfer-Encoding"));
        }
        if self.transfer_encoding && self.content_length.is_some() {
            // RFC 9112 6.1 and 11.2: the smuggler's signature.
            return Err(bad("Content-Length and Transfer-Encoding exclude each other"));
        }
        // RFC 9112 3.2.
        match self.host_count {
            0 if version == Version::Http11 => Err(bad("HTTP/1.1 requires a Host header")),
            0 | 1 => Ok(()),
            _ => Err(bad("Host is given twice")),
        }
    }
}

/// 1*DIGIT (RFC 9110 8.6): no sign, no list, no overflow.
fn parse_content_length(value: &[u8]) -> Result<u64, HeadFault> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad("Content-Length is not a decimal number"));
    }
    value
        .iter()
        .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .ok_or(bad("Content-Length is too large a number"))
}

/// True for exactly `chunked`. Where something else comes before a last
/// `chunked`, the coding is one we lack: 501 (RFC 9112 6.1). Where the last
/// coding is another, the body's end is unknowable: 400 (RFC 9112 6.3).
fn parse_transfer_encoding(value: &[u8]) -> Result<bool, HeadFault> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(true);
    }
    let mut codings = value.rsplit(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let last_is_chunked = codings.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let others_are_other =
        codings.all(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"chunked"));
    Err(if last_is_chunked && others_are_other {
        HeadFault { status: Status::NotImplemented, reason: "no transfer coding but chunked is known" }
    } else {
        bad("Transfer-Encoding is not `chunked`")
    })
}

/// tchar (RFC 9110 5.6.2).
const TOKEN: u8 = 1;
/// reg-name (RFC 3986 3.2.2) without the comma, which would make it a list.
const HOST: u8 = 2;

/// What a byte may be part of.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0u8;
    loop {
        let alphanumeric = byte.is_ascii_alphanumeric();
        if alphanumeric || is_one_of(byte, b"!#$%&'*+-.^_`|~") {
            classes[byte as usize] |= TOKEN;
        }
        if alphanumeric || is_one_of(byte, b"-._~!$&'()*+;=%") {
            classes[byte as usize] |= HOST;
        }
        if byte == u8::MAX {
            break classes;
        }
        byte += 1;
    }
};

const fn is_one_of(byte: u8, bytes: &[u8]) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

/// tchar (RFC 9110 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TOKEN != 0
}

/// `uri-host [ ":" port ]` (RFC 9110 7.2), empty allowed, by its characters:
/// no white space, no list of hosts, no user, no path.
fn is_host(value: &[u8]) -> bool {
    let (host, port): (&[u8], &[u8]) = match value.first() {
        Some(b'[') => match memchr::memchr(b']', value) {
            Some(end) => (&value[1..end], &value[end + 1..]),
            None => return false,
        },
        _ => {
            let end = memchr::memchr(b':', value).unwrap_or(value.len());
            (&value[..end], &value[end..])
        }
    };
    let bracketed = value.first() == Some(&b'[');
    let host_is_sound =
        host.iter().all(|&byte| CLASSES[usize::from(byte)] & HOST != 0 || (bracketed && byte == b':'));
    let port_is_sound = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host_is_sound && port_is_sound && !(bracketed && host.is_empty())
}
