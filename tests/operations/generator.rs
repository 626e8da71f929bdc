//! A generator of requests at a rate, over many keep-alive connections: one
//! thread, epoll. Requests are due at fixed times whatever the server does, each
//! for a user of its own; what became of every one of them is told.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{setsockopt, sockopt};

/// How much, and to whom.
pub struct Work {
    pub port: u16,
    pub connections: usize,
    /// Requests a second.
    pub rate: f64,
    /// The network that the server is in, if another than ours.
    pub network: Option<File>,
}

/// What became of all requests.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub sent: u64,
    pub answered: u64,
    /// Answers other than 200, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Sent, but the connection ended before the answer.
    pub unanswered: u64,
    /// Connections that the server ended when nothing was under way.
    pub ended_idle: u64,
    /// Connections that nobody let in.
    pub turned_away: u64,
    /// From when a request was due to its answer.
    pub latency: Latency,
}

impl Outcome {
    pub fn failed(&self) -> u64 {
        self.unanswered + self.refused.values().sum::<u64>()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} sent, {} answered, {} unanswered", self.sent, self.answered, self.unanswered)?;
        if self.turned_away > 0 {
            write!(f, ", {} times turned away", self.turned_away)?;
        }
        for (status, count) in &self.refused {
            write!(f, ", {count} answered {status}")?;
        }
        let [half, most, worst] = [0.5, 0.99, 1.0].map(|share| self.latency.quantile(share) as f64 / 1000.0);
        write!(f, "; from due to answered: median {half:.2} ms, 99 % {most:.2} ms, worst {worst:.2} ms")
    }
}

/// Counts by duration, each bucket 1/16 of an octave.
#[derive(Debug, Clone, Default)]
pub struct Latency {
    counts: BTreeMap<u32, u64>,
}

impl Latency {
    fn add(&mut self, duration: Duration) {
        let us = (duration.as_micros() as u64).max(1);
        let octave = us.ilog2();
        let part = if octave >= 4 { us >> (octave - 4) } else { us << (4 - octave) } - 16;
        *self.counts.entry(octave * 16 + part as u32).or_default() += 1;
    }

    /// The duration in microseconds that this share did not pass.
    pub fn quantile(&self, share: f64) -> u64 {
        let total: u64 = self.counts.values().sum();
        let mut left = (total as f64 * share).ceil() as u64;
        for (bucket, count) in &self.counts {
            left = left.saturating_sub(*count);
            if left == 0 {
                let (octave, part) = (bucket / 16, u64::from(bucket % 16) + 17);
                return if octave >= 4 { part << (octave - 4) } else { part >> (4 - octave) };
            }
        }
        0
    }
}

/// What is told of a generator at work.
#[derive(Debug, Default)]
struct Told {
    answered: AtomicU64,
    failed: AtomicU64,
}

/// A generator at work.
pub struct Generator {
    rate: f64,
    stop: Arc<AtomicBool>,
    told: Arc<Told>,
    thread: JoinHandle<Outcome>,
}

impl Generator {
    pub fn start(work: Work) -> Generator {
        Generator::start_with(work, "{}")
    }

    /// The same, with these attributes in each request.
    pub fn start_with(work: Work, attributes: &str) -> Generator {
        let attributes = attributes.to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::new(Told::default());
        let (rate, stopped, tells) = (work.rate, stop.clone(), told.clone());
        let thread = std::thread::spawn(move || {
            if let Some(network) = &work.network {
                // The thread's alone.
                setns(network, CloneFlags::CLONE_NEWNET).expect("its network");
            }
            Bench::new(&work, attributes).run(work.rate, &stopped, &tells)
        });
        Generator { rate, stop, told, thread }
    }

    pub fn answered(&self) -> u64 {
        self.told.answered.load(Relaxed)
    }

    /// As [`Outcome::failed`], up to now.
    pub fn failed(&self) -> u64 {
        self.told.failed.load(Relaxed)
    }

    /// Waits until as many more were answered as are sent in so many seconds.
    pub fn go_on(&self, seconds: f64) {
        self.more((self.rate * seconds) as u64);
    }

    /// Waits until so many more were answered.
    pub fn more(&self, count: u64) {
        let target = self.answered() + count;
        crate::support::wait_until("answers under load", || {
            assert!(!self.thread.is_finished(), "the generator ended");
            self.answered() >= target
        });
    }

    /// Sends no more, waits for what is under way, and tells.
    pub fn stop(self) -> Outcome {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("the generator's own thread")
    }
}

struct Lane {
    /// None: to be connected again.
    stream: Option<TcpStream>,
    /// When the request under way was due.
    due: Option<Instant>,
    input: Vec<u8>,
}

struct Bench {
    address: SocketAddr,
    epoll: Epoll,
    lanes: Vec<Lane>,
    attributes: String,
    idle: VecDeque<usize>,
    ended: VecDeque<usize>,
    outcome: Outcome,
    user: u64,
}

impl Bench {
    fn new(work: &Work, attributes: String) -> Bench {
        let mut bench = Bench {
            address: SocketAddr::from(([127, 0, 0, 1], work.port)),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap(),
            lanes: Vec::new(),
            attributes,
            idle: VecDeque::new(),
            ended: VecDeque::new(),
            outcome: Outcome::default(),
            user: 0,
        };
        for lane in 0..work.connections {
            bench.lanes.push(Lane { stream: None, due: None, input: Vec::new() });
            bench.ended.push_back(lane);
        }
        bench
    }

    fn run(mut self, rate: f64, stop: &AtomicBool, told: &Told) -> Outcome {
        let begin = Instant::now();
        let interval = Duration::from_secs_f64(1.0 / rate);
        let mut due = begin;
        let mut end: Option<Instant> = None;
        let mut retry = begin;
        let mut events = vec![EpollEvent::empty(); 256];
        loop {
            let now = Instant::now();
            if stop.load(Relaxed) && end.is_none() {
                end = Some(now + crate::support::PATIENCE);
            }
            if now >= retry {
                self.connect(now, &mut retry);
            }
            while end.is_none() && due <= now {
                // None idle: it waits, and its waiting counts.
                let Some(lane) = self.idle.pop_front() else { break };
                self.send(lane, due);
                due += interval;
            }
            if end.is_some_and(|end| now >= end || self.lanes.iter().all(|lane| lane.due.is_none())) {
                self.outcome.unanswered += self.lanes.iter().filter(|lane| lane.due.is_some()).count() as u64;
                return self.outcome;
            }
            let count = self.epoll.wait(&mut events, EpollTimeout::from(1u8)).unwrap_or(0);
            for event in &events[..count] {
                self.receive(event.data() as usize);
            }
            told.answered.store(self.outcome.answered, Relaxed);
            told.failed.store(self.outcome.failed(), Relaxed);
        }
    }

    /// As a client would: again at once, and where nobody listens a little later.
    fn connect(&mut self, now: Instant, retry: &mut Instant) {
        while let Some(lane) = self.ended.pop_front() {
            match TcpStream::connect(self.address) {
                Ok(stream) => {
                    stream.set_nodelay(true).unwrap();
                    stream.set_nonblocking(true).unwrap();
                    self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, lane as u64)).unwrap();
                    self.lanes[lane].stream = Some(stream);
                    self.idle.push_back(lane);
                }
                Err(_) => {
                    self.outcome.turned_away += 1;
                    self.ended.push_front(lane);
                    *retry = now + Duration::from_millis(5);
                    return;
                }
            }
        }
    }

    fn send(&mut self, lane: usize, due: Instant) {
        let mut text = String::with_capacity(256 + self.attributes.len());
        self.user += 1;
        let user = format!("u{}-{}", std::process::id(), self.user);
        let body = format!("{{\"units\":{{\"user_id\":\"{user}\"}},\"attributes\":{}}}", self.attributes);
        write!(
            text,
            "POST /v1/assign HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let one = &mut self.lanes[lane];
        one.due = Some(due);
        self.outcome.sent += 1;
        // So little always fits; an end is found when it is read.
        let _ = one.stream.as_mut().expect("an idle lane is connected").write_all(text.as_bytes());
    }

    fn receive(&mut self, lane: usize) {
        let one = &mut self.lanes[lane];
        let Some(stream) = &mut one.stream else { return };
        let mut buffer = [0; 16 * 1024];
        match stream.read(&mut buffer) {
            Ok(0) => self.end(lane),
            Ok(size) => {
                one.input.extend_from_slice(&buffer[..size]);
                self.answer(lane);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.end(lane),
        }
    }

    fn answer(&mut self, lane: usize) {
        let one = &mut self.lanes[lane];
        let Some((status, size, close)) = whole(&one.input) else { return };
        one.input.drain(..size);
        match one.due.take() {
            Some(due) => {
                self.outcome.latency.add(due.elapsed());
                self.outcome.answered += 1;
                if status != 200 {
                    *self.outcome.refused.entry(status).or_default() += 1;
                }
            }
            // 408 of a proxy, say, to nobody's request.
            None => *self.outcome.refused.entry(status).or_default() += 1,
        }
        if close {
            self.drop_stream(lane);
        } else {
            self.idle.push_back(lane);
        }
    }

    fn end(&mut self, lane: usize) {
        match self.lanes[lane].due.take() {
            Some(_) => self.outcome.unanswered += 1,
            None => {
                self.outcome.ended_idle += 1;
                self.idle.retain(|idle| *idle != lane);
            }
        }
        self.drop_stream(lane);
    }

    fn drop_stream(&mut self, lane: usize) {
        let one = &mut self.lanes[lane];
        one.input.clear();
        if let Some(stream) = one.stream.take() {
            let _ = self.epoll.delete(&stream);
            // A long run would use up the ports that wait in TIME_WAIT.
            let _ = setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
        }
        self.ended.push_back(lane);
    }
}

/// Status, size, and whether it is the connection's last, of an answer that is whole.
fn whole(input: &[u8]) -> Option<(u16, usize, bool)> {
    let head_size = memchr::memmem::find(input, b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&input[..head_size]).expect("a head in ASCII");
    let status = head.get(9..12).and_then(|text| text.parse().ok()).expect("a status");
    let (mut size, mut close) = (0, false);
    for line in head.lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            size = value.trim().parse().expect("a length");
        } else if name.eq_ignore_ascii_case("connection") {
            close = value.trim().eq_ignore_ascii_case("close");
        }
    }
    (input.len() >= head_size + size).then_some((status, head_size + size, close))
}

#[test]
fn an_answer_is_whole_when_its_body_is_there() {
    let text = b"HTTP/1.1 503 x\r\nContent-Length: 3\r\nconnection: close\r\n\r\nabcHTTP";
    assert_eq!(whole(text), Some((503, text.len() - 4, true)));
    assert_eq!(whole(&text[..text.len() - 5]), None);
}

#[test]
fn quantiles_are_never_below_what_was_measured() {
    let mut latency = Latency::default();
    for us in [1, 7, 100, 1_000, 50_000] {
        latency.add(Duration::from_micros(us));
    }
    for (share, us) in [(0.2, 1), (0.4, 7), (0.6, 100), (0.8, 1_000), (1.0, 50_000)] {
        let found = latency.quantile(share);
        assert!(found >= us && found <= us + us / 8 + 1, "{share}: {found} for {us}");
    }
}
