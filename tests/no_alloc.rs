//! A worker allocates nothing for a request: a real worker serves real sockets
//! on a thread of this test, under an allocator that counts that thread's calls.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use splitd::config::check;
use splitd::endpoint::{AppOptions, RouteGroup, Shed};
use splitd::exposure::ring;
use splitd::http::Limits;
use splitd::metrics::{self, Table};
use splitd::sys::channel::Channel;
use splitd::sys::region::{self, Region};
use splitd::sys::uring::Ring;
use splitd::trace;
use splitd::worker::{self, Io, Keeper, Listener, Order, PoolOptions, Report, Rings, Setup, Speaks, Traces};

/// For a worker to get ready, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}
static CALLS: AtomicU64 = AtomicU64::new(0);

struct Counting;

#[allow(unsafe_code, reason = "a global allocator is an unsafe trait")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count() {
    if WATCHED.try_with(Cell::get).unwrap_or(false) {
        CALLS.fetch_add(1, Relaxed);
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A worker on a thread, and the way to its socket and its orders.
struct Running {
    port: u16,
    master: Channel,
    thread: std::thread::JoinHandle<i32>,
    _directory: tempfile::TempDir,
}

fn start(io: Io, strict: bool, traced: bool) -> Running {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/typical.experiments.json");
    let (_, image) = check::load(&std::fs::read(golden).unwrap()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let identity = |ring| ring::Identity { instance: 1, ring, slot: 0 };
    let rings = |name: &str, size: usize| {
        let paths = [0u16, 1].map(|ring| {
            let path = directory.path().join(format!("{name}{ring}"));
            let region = Region::create_file(&path, ring::region_size(size)).unwrap();
            ring::format(region.words(), identity(ring));
            path
        });
        Rings { paths, identities: [0, 1].map(identity) }
    };
    // Nobody reads it: it takes the first requests' spans and refuses the others'.
    let every = trace::Options { rate: 1.0, header: true, slowest: Some(Duration::from_millis(10)) };
    let traces = traced.then(|| Traces { rings: rings("spans", 1 << 20), options: every });
    let metrics = Region::anonymous(metrics::region_size(metrics::block_count(1))).unwrap();
    let _ = Table::format(metrics.words(), metrics::block_count(1));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (master, channel) = Channel::pair().unwrap();
    let setup = Setup {
        options: PoolOptions {
            name: "assign".to_owned(),
            slot: 0,
            index: 0,
            io,
            cpu: None,
            routes: vec![RouteGroup::Assign, RouteGroup::Batch, RouteGroup::Health],
            app: AppOptions {
                validation_strict: strict,
                record_empty: false,
                record_context: true,
                shed: Shed::NEVER,
                batch_body_size_max: 1 << 20,
            },
            limits: Limits::default(),
            connection_count_max: 64,
            drain_idle: Duration::from_millis(10),
            orphan_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
        },
        listeners: vec![Listener {
            fd: listener.into(),
            slot: 0,
            address: "test".to_owned(),
            speaks: Speaks::Http,
            keeper: Keeper::Nobody,
        }],
        plan: region::seal(image.bytes()).unwrap(),
        rings: Some(rings("ring", 64 << 20)),
        traces,
        shown_rings: Vec::new(),
        metrics,
        which: 0,
        channel,
    };
    let thread = std::thread::spawn(move || {
        WATCHED.set(true);
        let code = worker::run(setup);
        WATCHED.set(false);
        code
    });
    let running = Running { port, master, thread, _directory: directory };
    let mut packet = [0; 64];
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        match running.master.recv(&mut packet) {
            Ok(received) => {
                let (size, _) = received.expect("the worker lives");
                assert_eq!(Report::decode(&packet[..size]), Ok(Report::Ready));
                return running;
            }
            Err(fault) => assert_eq!(fault.kind(), std::io::ErrorKind::WouldBlock),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the worker is not ready after {PATIENCE:?}");
}

impl Running {
    fn stop(self) {
        self.master.send(&Order::Drain { deadline_ms: 10_000, last: true }.encode(), None).unwrap();
        assert_eq!(self.thread.join().unwrap(), 0);
    }
}

/// Sends all of it, and reads until so many answers have come; their statuses.
fn exchange(stream: &mut TcpStream, bytes: &[u8], answer_count: usize, buffer: &mut Vec<u8>) -> Vec<u16> {
    stream.write_all(bytes).unwrap();
    buffer.clear();
    let mut statuses = Vec::new();
    let mut chunk = [0; 65536];
    while statuses.len() < answer_count {
        let size = stream.read(&mut chunk).unwrap();
        assert!(size > 0, "closed after {statuses:?}");
        buffer.extend_from_slice(&chunk[..size]);
        while let Some((status, size)) = whole(buffer) {
            statuses.push(status);
            buffer.drain(..size);
        }
    }
    statuses
}

fn whole(bytes: &[u8]) -> Option<(u16, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let status = head[9..12].parse().unwrap();
    if head.contains("chunked") {
        let close = bytes.windows(5).position(|window| window == b"0\r\n\r\n")?;
        return Some((status, close + 5));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length:")).unwrap();
    let size = end + length.trim().parse::<usize>().unwrap();
    (bytes.len() >= size).then_some((status, size))
}

fn post(extra: &str, body: &str) -> String {
    format!("POST /v1/assign{extra}\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// What is asked, in how many requests, and what must be answered.
fn kinds(strict: bool) -> Vec<(String, Vec<u16>)> {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/typical.requests.ndjson");
    let bodies: Vec<String> =
        std::fs::read_to_string(golden).unwrap().lines().take(20).map(str::to_owned).collect();
    let escapes = r#"{"units":{"user_\u0069d":"\u044f\n42"},"attributes":{"cit\u0079":"\u041c\"\\","subscriptions":["k\u0069ds"],"platform":null}}"#;
    let mistyped = r#"{"units":{"user_id":1},"attributes":{"age":"x"}}"#;
    let chunked = "POST /v1/assign HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n15\r\n{\"units\":{\"user_id\":1\r\n2\r\n}}\r\n0\r\n\r\n";
    let batch = bodies.join("\n");
    vec![
        (post(" HTTP/1.1", &bodies[0]), vec![200]),
        (post(" HTTP/1.1\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", &bodies[0]), vec![200]),
        (post(" HTTP/1.1", escapes), vec![200]),
        (post("?payloads=true&exposure=false HTTP/1.1", &bodies[1]), vec![200]),
        (bodies.iter().map(|body| post(" HTTP/1.1", body)).collect(), vec![200; bodies.len()]),
        (chunked.to_owned(), vec![200]),
        ("GET /v1/assign?user_id=%D1%8F&city=%D0%9C+%22&age=34&subscriptions=kids,sport&is_trial=true HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(), vec![200]),
        ("GET /v1/assign/experiment_00%30?user_id=5 HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(), vec![200]),
        (format!("POST /v1/batch HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{batch}", batch.len()), vec![200]),
        ("GET /livez HTTP/1.1\r\nHost: t\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(), vec![200, 404]),
        ("PUT /v1/assign HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{}".to_owned(), vec![405]),
        (post(" HTTP/1.1\r\nContent-Type: text/xml", "{}"), vec![415]),
        (post(" HTTP/1.1", "{\"units\":{\"user_id\":1.5}}"), vec![400]),
        (post(" HTTP/1.1", "{\"units\":"), vec![400]),
        (post(" HTTP/1.1", mistyped), vec![if strict { 422 } else { 200 }]),
    ]
}

/// The count itself: one box is one call to take it and one to give it back.
fn the_count_notices() {
    let before = CALLS.load(Relaxed);
    WATCHED.set(true);
    drop(std::hint::black_box(Box::new(7)));
    WATCHED.set(false);
    assert_eq!(CALLS.load(Relaxed) - before, 2);
}

#[test]
fn a_request_of_any_kind_allocates_nothing() {
    the_count_notices();
    // One after the other: the count is the process's.
    allocates_nothing(Io::Epoll);
    match Ring::refusal(worker::uring::SIZES) {
        None => allocates_nothing(Io::IoUring),
        Some(refusal) => eprintln!("io_uring is skipped: {refusal}"),
    }
}

fn allocates_nothing(io: Io) {
    for (strict, traced) in [(false, false), (true, false), (true, true)] {
        let running = start(io, strict, traced);
        let mut stream = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
        let mut buffer = Vec::new();
        // The first round may still touch what is made once (a connection's slot, say).
        for round in 0..200 {
            let before = CALLS.load(Relaxed);
            for (bytes, statuses) in kinds(strict) {
                let got = exchange(&mut stream, bytes.as_bytes(), statuses.len(), &mut buffer);
                assert_eq!(got, statuses, "{bytes}");
                let calls = CALLS.load(Relaxed) - before;
                assert!(round == 0 || calls == 0, "round {round}: {calls} calls of the allocator by {bytes}");
            }
        }
        // A request in two pieces takes a carry slot, a refused one closes: still nothing.
        let before = CALLS.load(Relaxed);
        for _ in 0..50 {
            let mut stream = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
            let text = post(" HTTP/1.1", &kinds(strict)[1].0);
            let (head, rest) = text.split_at(text.len() / 2);
            stream.write_all(head.as_bytes()).unwrap();
            std::thread::yield_now();
            assert_eq!(exchange(&mut stream, rest.as_bytes(), 1, &mut buffer), [400]);
            let bad = "GET /livez HTTP/1.1\r\nHost : t\r\n\r\n";
            assert_eq!(exchange(&mut stream, bad.as_bytes(), 1, &mut buffer), [400]);
        }
        assert_eq!(CALLS.load(Relaxed) - before, 0, "accepting, carrying, refusing");
        drop(stream);
        running.stop();
    }
}
