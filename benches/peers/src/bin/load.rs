//! The generator: one thread that asks and counts. It does as little as it can,
//! because one core of it must keep up with a server that does nothing: requests
//! are rendered beforehand, and of an answer it looks for Content-Length alone.
//!
//! - Closed loop (the default): each connection keeps `--depth` requests under
//!   way. On io_uring (`--io uring`) or epoll.
//! - Open loop (`--rate`): requests are due at fixed times, whatever the server
//!   does. Latency counts from the time a request was *due*; by how much it left
//!   later than due is the generator's own lateness, and is printed beside it.
//!
//! - `--answers N` ends the measuring after so many, if that comes first.
//!
//! Prints one line of JSON.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use peers::ring::Ring;
use peers::{Options, READ_SIZE, content_length, digits, pin};

const OPTIONS: &[&str] = &[
    "port",
    "cpu",
    "connections",
    "depth",
    "rate",
    "warm-ms",
    "measure-ms",
    "io",
    "bodies",
    "targets",
    "path",
    "pid",
    "limit",
    "answers",
];

fn main() -> Result<()> {
    let options = Options::read(OPTIONS)?;
    pin(options.text("cpu"))?;
    let connection_count = options.get("connections", 64)?;
    let depth: usize = options.get("depth", 1)?;
    let rate = options.get("rate", 0.0)?;
    ensure!(connection_count > 0 && depth > 0 && rate >= 0.0, "nothing to do");
    let requests: &'static Requests = Box::leak(Box::new(Requests::read(&options, depth)?));
    let address = SocketAddr::from(([127, 0, 0, 1], options.get("port", 0)?));
    let sockets = (0..connection_count).map(|_| connect(address)).collect::<Result<Vec<_>>>()?;
    let schedule = Schedule {
        warm: Duration::from_millis(options.get("warm-ms", 150)?),
        measure: Duration::from_millis(options.get("measure-ms", 300)?),
        answers_max: options.get("answers", u64::MAX)?,
        server: options.text("pid").map(str::parse).transpose()?.map(Pid::from_raw),
    };
    let report = match (rate > 0.0, options.text("io").unwrap_or("epoll")) {
        (true, _) => open_loop(sockets, requests, &schedule, rate)?,
        (false, "epoll") => closed_loop(sockets, requests, &schedule, depth)?,
        (false, "uring") => closed_loop_uring(sockets, requests, &schedule, depth)?,
        (_, other) => bail!("--io `{other}` is neither `epoll` nor `uring`"),
    };
    println!("{}", report.json());
    Ok(())
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpStream::connect(address).with_context(|| format!("{address}"))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Rendered requests, one behind the other, and the first ones once more, so
/// that as many as a connection ever sends at once lie in one piece.
struct Requests {
    bytes: Vec<u8>,
    /// Where each begins.
    begins: Vec<usize>,
    count: usize,
}

impl Requests {
    fn read(options: &Options, depth: usize) -> Result<Requests> {
        let mut texts: Vec<String> = match (options.text("bodies"), options.text("targets")) {
            (Some(file), None) => {
                let path = options.text("path").unwrap_or("/v1/assign");
                lines(file)?.iter().map(|body| post(path, body)).collect()
            }
            (None, Some(file)) => lines(file)?.iter().map(|target| get(target)).collect(),
            _ => bail!("either --bodies (POST, a line each) or --targets (GET, a line each)"),
        };
        texts.truncate(options.get("limit", usize::MAX)?.max(1));
        ensure!(!texts.is_empty(), "a file with no request");
        let count = texts.len();
        let mut bytes = Vec::new();
        let mut begins = vec![0];
        for text in texts.iter().cycle().take(count + depth) {
            bytes.extend_from_slice(text.as_bytes());
            begins.push(bytes.len());
        }
        Ok(Requests { bytes, begins, count })
    }

    /// So many requests from `cursor` on, which moves behind them.
    fn next(&self, cursor: &mut usize, count: usize) -> &[u8] {
        let bytes = &self.bytes[self.begins[*cursor]..self.begins[*cursor + count]];
        *cursor = (*cursor + count) % self.count;
        bytes
    }
}

fn lines(file: &str) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file).with_context(|| file.to_owned())?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: splitd\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: splitd\r\n\r\n")
}

/// When is measured, and whose CPU time beside our own.
struct Schedule {
    warm: Duration,
    measure: Duration,
    answers_max: u64,
    server: Option<Pid>,
}

/// What was counted, since the begin of measuring or in all.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    answers: u64,
    bytes: u64,
    /// Answers other than 200.
    refused: u64,
}

/// The state of the run: warm-up, measuring, over.
struct Run<'s> {
    schedule: &'s Schedule,
    count: Count,
    begin: Instant,
    measuring: Option<Reading>,
}

/// Counters and clocks at one moment.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    count: Count,
    server_ns: u64,
    own_ns: u64,
}

impl<'s> Run<'s> {
    fn begin(schedule: &'s Schedule) -> Run<'s> {
        Run { schedule, count: Count::default(), begin: Instant::now(), measuring: None }
    }

    fn read(&self, at: Instant) -> Result<Reading> {
        let server_ns = self.schedule.server.map_or(Ok(0), |pid| cpu_ns(ClockId::pid_cpu_clock_id(pid)?))?;
        let own_ns = cpu_ns(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
        Ok(Reading { at, count: self.count, server_ns, own_ns })
    }

    /// The report, once the time is over.
    fn turn(&mut self, now: Instant) -> Result<Option<Report>> {
        let passed = now - self.begin;
        let Some(from) = self.measuring else {
            if passed >= self.schedule.warm {
                self.measuring = Some(self.read(now)?);
            }
            return Ok(None);
        };
        let is_over =
            now - from.at >= self.schedule.measure || self.count.answers >= self.schedule.answers_max;
        if !is_over {
            return Ok(None);
        }
        let to = self.read(now)?;
        Ok(Some(Report { from, to, tails: None }))
    }

    fn timeout(&self, now: Instant) -> u16 {
        let end = self.begin + self.schedule.warm + self.schedule.measure;
        (end.saturating_duration_since(now).as_millis() as u16 / 2).clamp(1, 50)
    }
}

/// CPU time of a process by the scheduler's own count (that of
/// /proc/PID/schedstat), all threads, up to this moment.
fn cpu_ns(clock: ClockId) -> Result<u64> {
    let time = clock_gettime(clock)?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// Counts answers in a stream of bytes.
#[derive(Default)]
struct Answers {
    /// Of a body that has begun: what is still to come.
    body_left: usize,
    /// A head that has begun.
    carry: Vec<u8>,
}

/// Where the last answer had its Content-Length: the next has it there, too.
#[derive(Default)]
struct Layout {
    length_at: usize,
}

impl Answers {
    /// How many answers ended in `bytes`.
    fn take(&mut self, mut bytes: &[u8], layout: &mut Layout, count: &mut Count) -> Result<usize> {
        count.bytes += bytes.len() as u64;
        let mut ended = 0;
        loop {
            let skipped = self.body_left.min(bytes.len());
            self.body_left -= skipped;
            bytes = &bytes[skipped..];
            if skipped > 0 && self.body_left == 0 {
                ended += 1;
            }
            if bytes.is_empty() {
                break;
            }
            let head = if self.carry.is_empty() { layout.head(bytes)? } else { self.joined(bytes, layout)? };
            let Some(Head { size, body, ok }) = head else {
                if self.carry.is_empty() {
                    self.carry.extend_from_slice(bytes);
                }
                break;
            };
            count.refused += u64::from(!ok);
            // What the carry already had of the head is not in `bytes`.
            let had = self.carry.len().saturating_sub(bytes.len());
            bytes = &bytes[size - had..];
            self.carry.clear();
            self.body_left = body;
            ended += usize::from(body == 0);
        }
        count.answers += ended as u64;
        Ok(ended)
    }

    fn joined(&mut self, bytes: &[u8], layout: &mut Layout) -> Result<Option<Head>> {
        self.carry.extend_from_slice(bytes);
        layout.head(&self.carry)
    }
}

struct Head {
    size: usize,
    body: usize,
    ok: bool,
}

impl Layout {
    fn head(&mut self, bytes: &[u8]) -> Result<Option<Head>> {
        const NAME: &[u8] = b"ontent-length: ";
        let at = self.length_at;
        let known = at > NAME.len()
            && bytes.get(at - NAME.len()..at).is_some_and(|name| name.eq_ignore_ascii_case(NAME));
        if known {
            let (body, count) = digits(&bytes[at..]);
            // Nearly always the last header, or near it.
            if let Some(end) = memmem::find(&bytes[at + count..], b"\r\n\r\n") {
                return Ok(Some(Head { size: at + count + end + 4, body, ok: is_ok(bytes) }));
            }
            return Ok(None);
        }
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
        let size = end + 4;
        let (at, body) = content_length(&bytes[..size]).context("an answer without Content-Length")?;
        self.length_at = at;
        Ok(Some(Head { size, body, ok: is_ok(bytes) }))
    }
}

fn is_ok(head: &[u8]) -> bool {
    head.get(9..12) == Some(b"200")
}

struct Connection {
    socket: TcpStream,
    answers: Answers,
    /// Requests that the socket did not take.
    unsent: Vec<u8>,
    /// Open loop: when each request under way was due.
    due: VecDeque<Instant>,
}

impl Connection {
    fn new(socket: TcpStream) -> Result<Connection> {
        socket.set_nonblocking(true)?;
        Ok(Connection {
            socket,
            answers: Answers::default(),
            unsent: Vec::new(),
            due: VecDeque::with_capacity(64),
        })
    }

    /// Whether all of it went.
    fn send(&mut self, bytes: &[u8]) -> Result<bool> {
        let size = match self.socket.write(bytes) {
            Ok(size) => size,
            Err(fault) if fault.kind() == ErrorKind::WouldBlock => 0,
            Err(fault) => return Err(fault.into()),
        };
        self.unsent.extend_from_slice(&bytes[size..]);
        Ok(size == bytes.len())
    }

    fn receive<'b>(&mut self, buffer: &'b mut [u8]) -> Result<&'b [u8]> {
        match self.socket.read(buffer) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(size) => Ok(&buffer[..size]),
            Err(fault) if fault.kind() == ErrorKind::WouldBlock => Ok(&[]),
            Err(fault) => Err(fault.into()),
        }
    }
}

fn watch(sockets: Vec<TcpStream>) -> Result<(Epoll, Vec<Connection>)> {
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let connections = sockets.into_iter().map(Connection::new).collect::<Result<Vec<_>>>()?;
    for (place, connection) in connections.iter().enumerate() {
        epoll.add(connection.socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, place as u64))?;
    }
    Ok((epoll, connections))
}

fn closed_loop(
    sockets: Vec<TcpStream>,
    requests: &Requests,
    schedule: &Schedule,
    depth: usize,
) -> Result<Report> {
    let (epoll, mut connections) = watch(sockets)?;
    let (mut cursor, mut layout) = (0, Layout::default());
    let mut buffer = vec![0; READ_SIZE];
    let mut events = vec![EpollEvent::empty(); connections.len().max(16)];
    let mut run = Run::begin(schedule);
    for connection in &mut connections {
        connection.send(requests.next(&mut cursor, depth))?;
    }
    loop {
        let now = Instant::now();
        if let Some(report) = run.turn(now)? {
            return Ok(report);
        }
        let count = epoll.wait(&mut events, EpollTimeout::from(run.timeout(now)))?;
        for event in &events[..count] {
            let connection = &mut connections[event.data() as usize];
            let input = connection.receive(&mut buffer)?;
            let mut ended = connection.answers.take(input, &mut layout, &mut run.count)?;
            if !connection.unsent.is_empty() {
                // Answers came, so there is room again.
                let rest = std::mem::take(&mut connection.unsent);
                connection.send(&rest)?;
            }
            while ended > 0 {
                let count = ended.min(depth);
                if connection.unsent.is_empty() {
                    connection.send(requests.next(&mut cursor, count))?;
                } else {
                    connection.unsent.extend_from_slice(requests.next(&mut cursor, count));
                }
                ended -= count;
            }
        }
    }
}

/// How long the open loop waits for what is under way when its time is over.
const GRACE: Duration = Duration::from_secs(1);

fn open_loop(sockets: Vec<TcpStream>, requests: &Requests, schedule: &Schedule, rate: f64) -> Result<Report> {
    let (epoll, mut connections) = watch(sockets)?;
    let (mut cursor, mut layout) = (0, Layout::default());
    let mut buffer = vec![0; READ_SIZE];
    let mut events = vec![EpollEvent::empty(); connections.len().max(16)];
    let (mut latency, mut lateness) = (Histogram::new(), Histogram::new());
    let mut idle: VecDeque<usize> = (0..connections.len()).collect();
    let mut sent_count = 0u64;
    let mut run = Run::begin(schedule);
    let begin = run.begin;
    let due_at = |number: u64| begin + Duration::from_secs_f64(number as f64 / rate);
    let mut due = due_at(0);
    let mut over: Option<Report> = None;
    loop {
        let now = Instant::now();
        if over.is_none() {
            over = run.turn(now)?;
        }
        let from = run.measuring.map(|reading| reading.at);
        let counts = |due: Instant| from.is_some_and(|from| (from..from + schedule.measure).contains(&due));
        if let Some(report) = &over {
            let under_way = || connections.iter().flat_map(|connection| &connection.due).copied();
            if under_way().next().is_some() && now - report.to.at < GRACE {
                // What is under way counts with what it takes.
            } else {
                // What found no answer, or not even a connection, took this long at least.
                let unsent = (sent_count..).map(due_at).take_while(|due| *due < now);
                under_way().chain(unsent).filter(|due| counts(*due)).for_each(|due| latency.add(now - due));
                return Ok(over
                    .map(|report| Report { tails: Some((latency, lateness)), ..report })
                    .expect("it is over"));
            }
        }
        // A request that finds no idle connection waits for one: its latency runs on.
        while over.is_none()
            && due <= now
            && let Some(place) = idle.pop_front()
        {
            let connection = &mut connections[place];
            connection.due.push_back(due);
            if !connection.send(requests.next(&mut cursor, 1))? {
                bail!("a socket with nothing under way takes no request");
            }
            if counts(due) {
                lateness.add(due.elapsed());
            }
            sent_count += 1;
            due = due_at(sent_count);
        }
        let count = epoll.wait(&mut events, EpollTimeout::ZERO)?;
        for event in &events[..count] {
            let place = event.data() as usize;
            let connection = &mut connections[place];
            let input = connection.receive(&mut buffer)?;
            let ended = connection.answers.take(input, &mut layout, &mut run.count)?;
            for _ in 0..ended {
                let due = connection.due.pop_front().context("an answer to nothing")?;
                if counts(due) {
                    latency.add(due.elapsed());
                }
                idle.push_back(place);
            }
        }
    }
}

fn closed_loop_uring(
    sockets: Vec<TcpStream>,
    requests: &'static Requests,
    schedule: &Schedule,
    depth: usize,
) -> Result<Report> {
    const RECEIVE: u64 = 0;
    const SEND: u64 = 1;
    let mut ring = Ring::new()?;
    let (mut cursor, mut layout) = (0, Layout::default());
    let mut states = Vec::new();
    let mut completions = Vec::new();
    let mut run = Run::begin(schedule);
    for (place, socket) in sockets.iter().enumerate() {
        ring.receive(socket.as_raw_fd(), (place as u64) << 1 | RECEIVE)?;
        states.push(Asker { answers: Answers::default(), sending: &[], owed: depth });
    }
    for (place, (socket, state)) in sockets.iter().zip(&mut states).enumerate() {
        state.proceed(requests, &mut cursor, |bytes| {
            ring.send(socket.as_raw_fd(), bytes, (place as u64) << 1 | SEND)
        })?;
    }
    loop {
        if let Some(report) = run.turn(Instant::now())? {
            return Ok(report);
        }
        ring.wait()?;
        ring.take(&mut completions);
        for completion in &completions {
            let place = (completion.word >> 1) as usize;
            let socket = sockets[place].as_raw_fd();
            let state = &mut states[place];
            if completion.word & 1 == SEND {
                let size = usize::try_from(completion.result).context("a send failed")?;
                state.sending = &state.sending[size..];
                if !state.sending.is_empty() {
                    ring.send(socket, state.sending, completion.word)?;
                    continue;
                }
            } else {
                let size = completion.result.max(0) as usize;
                if let Some(buffer) = completion.buffer() {
                    state.owed +=
                        state.answers.take(ring.bytes(buffer, size), &mut layout, &mut run.count)?;
                    ring.give_back(buffer);
                }
                if !completion.goes_on() {
                    let no_buffers = completion.result == -(nix::errno::Errno::ENOBUFS as i32);
                    ensure!(size > 0 || no_buffers, "the server closed a connection: {}", completion.result);
                    ring.receive(socket, completion.word)?;
                }
            }
            state.proceed(requests, &mut cursor, |bytes| {
                ring.send(socket, bytes, (place as u64) << 1 | SEND)
            })?;
        }
    }
}

/// A connection of the generator on io_uring.
struct Asker {
    answers: Answers,
    /// Under way; one send at a time.
    sending: &'static [u8],
    /// Requests to send when that is done.
    owed: usize,
}

impl Asker {
    fn proceed(
        &mut self,
        requests: &'static Requests,
        cursor: &mut usize,
        send: impl FnOnce(&'static [u8]) -> std::io::Result<()>,
    ) -> Result<()> {
        if self.owed > 0 && self.sending.is_empty() {
            self.sending = requests.next(cursor, std::mem::take(&mut self.owed));
            send(self.sending)?;
        }
        Ok(())
    }
}

/// Durations in buckets of less than 1 % width.
struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max_ns: u64,
}

/// Buckets for each power of two.
const STEPS: u64 = 128;

impl Histogram {
    fn new() -> Histogram {
        Histogram { buckets: vec![0; 64 * STEPS as usize], count: 0, max_ns: 0 }
    }

    fn add(&mut self, duration: Duration) {
        let ns = duration.as_nanos() as u64;
        let power = u64::from((ns | STEPS).ilog2() - STEPS.ilog2());
        self.buckets[(power * STEPS + (ns >> power)) as usize] += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// The upper end of a bucket.
    fn value(bucket: u64) -> u64 {
        let power = (bucket / STEPS).saturating_sub(1);
        ((bucket - power * STEPS + 1) << power) - 1
    }

    fn quantile(&self, quantile: f64) -> u64 {
        let rank = (quantile * self.count as f64).ceil() as u64;
        let mut sum = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            sum += count;
            if sum >= rank && sum > 0 {
                return Histogram::value(bucket as u64).min(self.max_ns);
            }
        }
        0
    }

    fn json(&self) -> String {
        let mut text = format!("{{\"count\":{}", self.count);
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
            let _ = write!(text, ",\"{name}\":{}", self.quantile(quantile));
        }
        let _ = write!(text, ",\"max\":{},\"buckets\":[", self.max_ns);
        let mut separator = "";
        for (bucket, &count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            let _ = write!(text, "{separator}[{},{count}]", Histogram::value(bucket as u64));
            separator = ",";
        }
        text.push_str("]}");
        text
    }
}

struct Report {
    from: Reading,
    to: Reading,
    /// Latency and lateness, of an open loop.
    tails: Option<(Histogram, Histogram)>,
}

impl Report {
    fn json(&self) -> String {
        let Report { from, to, .. } = self;
        let mut text = format!(
            "{{\"seconds\":{:.6},\"answers\":{},\"bytes\":{},\"refused\":{},\"server_ns\":{},\"own_ns\":{}",
            (to.at - from.at).as_secs_f64(),
            to.count.answers - from.count.answers,
            to.count.bytes - from.count.bytes,
            // Over all of the run: nobody should be refused in the warm-up either.
            to.count.refused,
            to.server_ns - from.server_ns,
            to.own_ns - from.own_ns,
        );
        if let Some((latency, lateness)) = &self.tails {
            // In nanoseconds; buckets are [upper end, count].
            let _ = write!(text, ",\"latency\":{},\"lateness\":{}", latency.json(), lateness.json());
        }
        text.push('}');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_however_they_are_cut() {
        let one = b"HTTP/1.1 200 OK\r\nContent-Type: a\r\nContent-Length: 12\r\nX: y\r\n\r\nhello, world";
        let two = b"HTTP/1.1 404 Not Found\r\nContent-Type: a\r\nContent-Length: 0\r\n\r\n";
        let stream = [one.as_slice(), two, one, one, two].concat();
        for size in 1..=stream.len() {
            let (mut answers, mut layout, mut count) =
                (Answers::default(), Layout::default(), Count::default());
            for piece in stream.chunks(size) {
                answers.take(piece, &mut layout, &mut count).unwrap();
            }
            assert_eq!((count.answers, count.refused), (5, 2), "in pieces of {size}");
            assert_eq!(count.bytes, stream.len() as u64);
            assert!(answers.carry.is_empty() && answers.body_left == 0);
        }
    }

    #[test]
    fn a_bucket_holds_its_value_within_a_percent() {
        for ns in [0, 1, 127, 128, 129, 255, 256, 1000, 123_456, 1 << 30, (1 << 40) + 7] {
            let mut histogram = Histogram::new();
            histogram.add(Duration::from_nanos(ns));
            histogram.max_ns = u64::MAX;
            let value = histogram.quantile(0.5);
            assert!(value >= ns && value as f64 <= ns as f64 * 1.01 + 1.0, "{ns} → {value}");
        }
    }
}
