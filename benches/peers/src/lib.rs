//! What the floor servers and the generator share: options, pinning, and the
//! least that can be asked of HTTP: where a message ends.

use std::net::{SocketAddr, TcpListener};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use memchr::memmem;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

#[path = "../../plans.rs"]
pub mod plans;
pub mod ring;
#[path = "../../typical.rs"]
pub mod typical;

/// Options of the command line, `--name value` each.
pub struct Options(Vec<(String, String)>);

impl Options {
    /// Reads them.
    ///
    /// # Errors
    /// If a name has no value, or is none of `known`.
    pub fn read(known: &[&str]) -> Result<Options> {
        let mut options = Vec::new();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").filter(|name| known.contains(name));
            let Some(name) = name else { bail!("`{word}` is none of {known:?}") };
            let value = words.next().with_context(|| format!("`{word}` has no value"))?;
            options.push((name.to_owned(), value));
        }
        Ok(Options(options))
    }

    /// The value of `name`, where it was given.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of `name`, or `default`.
    ///
    /// # Errors
    /// If it is no `T`.
    pub fn get<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| anyhow!("--{name} `{text}` is not understood")),
        }
    }
}

/// Keeps this thread on one CPU.
///
/// # Errors
/// If there is no such CPU for us.
pub fn pin(cpu: Option<&str>) -> Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(cpu.parse()?)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("CPU {cpu}"))
}

/// CPU time of this thread so far: what others do on its CPU does not count.
///
/// # Panics
/// Never: every Linux has this clock.
#[must_use]
pub fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock that is always there");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// A listener on loopback; says its port on standard output.
///
/// # Errors
/// If the port is taken.
pub fn listen(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    listener.set_nonblocking(true)?;
    println!("listening {}", listener.local_addr()?.port());
    Ok(listener)
}

/// Spends so much CPU time: the control that a harness must be able to see.
#[inline]
pub fn busy(duration: Duration) {
    if !duration.is_zero() {
        let begin = Instant::now();
        while begin.elapsed() < duration {
            std::hint::spin_loop();
        }
    }
}

/// What a floor server is told.
pub struct Floor {
    /// Where it listens.
    pub listener: TcpListener,
    /// [`ANSWER_RUN`] answers in a row.
    pub answers: Vec<u8>,
    /// Bytes of one.
    pub answer_size: usize,
    /// Spent on each request.
    pub busy: Duration,
    /// Whether it times its requests.
    pub timed: bool,
}

/// Answers that leave in one piece, at most.
pub const ANSWER_RUN: usize = 64;
/// What a floor server reads at once.
pub const READ_SIZE: usize = 64 * 1024;

impl Floor {
    /// Reads the options, pins, listens.
    ///
    /// # Errors
    /// If any of it can't be.
    pub fn from_options() -> Result<Floor> {
        let options = Options::read(&["port", "cpu", "answer-size", "busy-ns", "timed"])?;
        pin(options.text("cpu"))?;
        let answer_size = options.get("answer-size", 1024)?;
        let answers = answer(answer_size)?.repeat(ANSWER_RUN);
        let busy = Duration::from_nanos(options.get("busy-ns", 0)?);
        let timed = options.get("timed", 0)? != 0;
        Ok(Floor { listener: listen(options.get("port", 0)?)?, answers, answer_size, busy, timed })
    }

    /// The next bytes to send of `unsent`, which ends with an answer's end.
    #[must_use]
    #[inline]
    pub fn to_send(&self, unsent: usize) -> &[u8] {
        let begin = (self.answer_size - unsent % self.answer_size) % self.answer_size;
        &self.answers[begin..(begin + unsent).min(self.answers.len())]
    }

    /// Takes the whole requests off the front of `bytes`; how many, and the bytes they had.
    #[inline]
    pub fn take(&self, bytes: &[u8]) -> (usize, usize) {
        let (mut count, mut taken) = (0, 0);
        while let Some(size) = request_size(&bytes[taken..]) {
            taken += size;
            count += 1;
            busy(self.busy);
        }
        (count, taken)
    }
}

/// An answer of so many bytes, head included, with the headers that splitd's have.
fn answer(size: usize) -> Result<Vec<u8>> {
    let head = |body: usize| {
        format!(
            "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nX-Floor-Version: constant\r\n\
             Content-Type: application/json\r\nContent-Length: {body}\r\n\r\n"
        )
    };
    let body = (0..size).rev().find(|&body| head(body).len() + body <= size);
    let body = body.with_context(|| format!("an answer has more than {size} bytes"))?;
    // Where the length's own digits leave a byte over, the body is that byte short.
    let mut bytes = head(body).into_bytes();
    bytes.resize(bytes.len() + body, b'x');
    Ok(bytes)
}

/// Bytes of the request at the front, head and body, if all of them are here.
#[must_use]
#[inline]
pub fn request_size(bytes: &[u8]) -> Option<usize> {
    let head = memmem::find(bytes, b"\r\n\r\n")? + 4;
    let body = content_length(&bytes[..head]).map_or(0, |(_, length)| length);
    (bytes.len() >= head + body).then_some(head + body)
}

/// Where in a head the value of Content-Length begins, and what it says.
#[must_use]
#[inline]
pub fn content_length(head: &[u8]) -> Option<(usize, usize)> {
    const NAME: &[u8] = b"ontent-";
    let mut from = 0;
    loop {
        from += memmem::find(&head[from..], NAME)? + NAME.len();
        if head[from..].get(..7).is_some_and(|rest| rest.eq_ignore_ascii_case(b"length:")) {
            let mut begin = from + 7;
            while head.get(begin) == Some(&b' ') {
                begin += 1;
            }
            return Some((begin, digits(&head[begin..]).0));
        }
    }
}

/// The decimal number at the front, and how many digits it has.
#[must_use]
#[inline]
pub fn digits(bytes: &[u8]) -> (usize, usize) {
    let (mut value, mut count) = (0usize, 0);
    while let Some(digit) = bytes.get(count).filter(|byte| byte.is_ascii_digit()) {
        value = value * 10 + usize::from(digit - b'0');
        count += 1;
    }
    (value, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_size_that_was_asked_for() {
        for size in [200, 1024, 1025, 9_999] {
            let bytes = answer(size).unwrap();
            assert!(size - bytes.len() <= 1);
            assert_eq!(request_size(&bytes), Some(bytes.len()));
            assert_eq!(request_size(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn other_headers_named_alike_are_no_length() {
        assert_eq!(
            content_length(b"GET / HTTP/1.1\r\nContent-Type: x\r\ncontent-LENGTH:  12\r\n\r\n").unwrap().1,
            12
        );
        assert_eq!(content_length(b"GET / HTTP/1.1\r\nContent-Type: x\r\n\r\n"), None);
    }
}
