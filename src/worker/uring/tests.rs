//! The loop where everything is scarce, on a thread of the test: a few buffers,
//! slots and places for completions, and peers of every kind; in every mode that
//! the kernel has.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::libc::linger as Linger;
use nix::sys::socket::{setsockopt, sockopt};

use super::*;
use crate::config::check;
use crate::endpoint::{AppOptions, Desk, RouteGroup, Shed};
use crate::engine::plan::Plan;
use crate::http::Limits;
use crate::metrics::{self, Table};
use crate::sys::channel::Channel;
use crate::sys::region::{self, Region};
use crate::sys::uring::Mode;
use crate::worker::{Io, Order};

const SCARCE: Sizes = Sizes {
    queue_count: 2,
    completion_count: 4,
    buffer_count: 2,
    buffer_size: 512,
    slot_count: 2,
    slot_size: 4096,
};

struct Running {
    port: u16,
    master: Channel,
    thread: JoinHandle<Counts>,
}

/// What the worker counted, by the end.
struct Counts {
    accepted: u64,
    evicted: u64,
    slow: u64,
    open: u64,
}

fn start(mode: Mode, sizes: Sizes, limits: Limits) -> Option<Running> {
    // On a thread of its own, as `Ring::refusal`.
    let trial = std::thread::spawn(move || Ring::in_mode(mode, sizes).err());
    if let Some(refusal) = trial.join().unwrap() {
        eprintln!("{} is skipped: {refusal}", mode.name());
        return None;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (master, channel) = Channel::pair().unwrap();
    let thread = std::thread::spawn(move || serve(mode, sizes, limits, listener, channel));
    Some(Running { port, master, thread })
}

fn serve(mode: Mode, sizes: Sizes, limits: Limits, listener: TcpListener, channel: Channel) -> Counts {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/typical.experiments.json");
    let (_, image) = check::load(&std::fs::read(golden).unwrap()).unwrap();
    let plan = Region::map_sealed(&region::seal(image.bytes()).unwrap()).unwrap();
    let plan = Plan::open(plan.bytes()).unwrap();
    let region = Region::anonymous(metrics::region_size(metrics::block_count(1))).unwrap();
    let table = Table::format(region.words(), metrics::block_count(1));
    let block = table.block(metrics::worker_block(0, 0));
    let app = AppOptions {
        validation_strict: false,
        record_empty: false,
        record_context: true,
        shed: Shed::NEVER,
        batch_body_size_max: 64 << 20,
    };
    let routes = vec![RouteGroup::Assign, RouteGroup::Batch, RouteGroup::Health];
    let options = PoolOptions {
        name: "test".to_owned(),
        slot: 0,
        index: 0,
        io: Io::IoUring,
        cpu: None,
        routes: routes.clone(),
        app,
        limits,
        connection_count_max: 512,
        drain_idle: Duration::from_millis(10),
        orphan_timeout: Duration::from_secs(30),
        drain_timeout: Duration::from_secs(30),
    };
    let mut desk = Desk::new(app, routes, None, table, block);
    let listeners = vec![Listener {
        fd: listener.into(),
        slot: 0,
        address: "test".to_owned(),
        speaks: crate::worker::Speaks::Http,
        keeper: crate::worker::Keeper::Nobody,
    }];
    let ring = Ring::in_mode(mode, sizes).unwrap();
    let control = Control::new(channel, &options);
    let mut backend = Backend::new(ring, &options, listeners, control, table, block).unwrap();
    let outcome = backend.serve(&mut App::new(&plan, &mut desk)).unwrap();
    assert!(matches!(outcome, Outcome::Leave));
    let closed = |reason: Reason| block.get(Family::ConnectionsClosed, reason as usize);
    Counts {
        accepted: block.get(Family::ConnectionsAccepted, 0),
        evicted: closed(Reason::Evicted),
        slow: closed(Reason::Slow),
        open: backend.hall.connections.count() as u64,
    }
}

impl Running {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn stop(self) -> Counts {
        self.master.send(&Order::Drain { deadline_ms: 20_000, last: true }.encode(), None).unwrap();
        self.thread.join().unwrap()
    }
}

fn get(user: usize) -> String {
    format!("GET /v1/assign?user_id={user} HTTP/1.1\r\nHost: t\r\n\r\n")
}

fn post(body: &str) -> String {
    format!("POST /v1/assign HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The next answer's status and body; what is read beyond it stays in `rest`.
fn answer(stream: &mut TcpStream, rest: &mut Vec<u8>) -> Option<(u16, Vec<u8>)> {
    loop {
        if let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(rest[..end + 4].to_vec()).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length:")).unwrap();
            let size = end + 4 + length.trim().parse::<usize>().unwrap();
            if rest.len() >= size {
                let body = rest[end + 4..size].to_vec();
                rest.drain(..size);
                return Some((head[9..12].parse().unwrap(), body));
            }
        }
        let mut chunk = [0; 65536];
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(size) => rest.extend_from_slice(&chunk[..size]),
        }
    }
}

fn ask(stream: &mut TcpStream, text: &str) -> Option<(u16, Vec<u8>)> {
    stream.write_all(text.as_bytes()).ok()?;
    answer(stream, &mut Vec::new())
}

#[test]
fn two_of_everything_are_enough_for_a_hundred_busy_connections() {
    for mode in Mode::ALL {
        let Some(running) = start(mode, SCARCE, Limits::default()) else { continue };
        let mut streams: Vec<TcpStream> = (0..100).map(|_| running.connect()).collect();
        // Longer than a buffer, and than a carry's first piece.
        let body = format!(
            "{{\"units\":{{\"user_id\":\"7\"}},\"attributes\":{{\"city\":\"{}\"}}}}",
            "x".repeat(1500)
        );
        let expected = ask(&mut streams[0], &get(7)).unwrap().1;
        for _ in 0..5 {
            for stream in &mut streams {
                stream.write_all(post(&body).as_bytes()).unwrap();
            }
            for stream in &mut streams {
                let (status, body) = answer(stream, &mut Vec::new()).expect("an answer");
                assert_eq!((status, body), (200, expected.clone()));
            }
        }
        drop(streams);
        let counts = running.stop();
        assert_eq!((counts.accepted, counts.evicted, counts.slow, counts.open), (100, 0, 0, 0));
    }
}

#[test]
fn pipelined_answers_keep_their_order_whatever_is_scarce() {
    for mode in Mode::ALL {
        for sizes in [SCARCE, Sizes { slot_size: 64, ..SCARCE }, SIZES] {
            let Some(running) = start(mode, sizes, Limits::default()) else { continue };
            let mut plain = running.connect();
            let expected: Vec<Vec<u8>> = (0..50).map(|user| ask(&mut plain, &get(user)).unwrap().1).collect();
            let mut streams: Vec<TcpStream> = (0..20).map(|_| running.connect()).collect();
            let text: String = (0..500).map(|index| get(index % 50)).collect();
            for stream in &mut streams {
                stream.write_all(text.as_bytes()).unwrap();
            }
            for stream in &mut streams {
                let mut rest = Vec::new();
                for index in 0..500 {
                    let (status, body) = answer(stream, &mut rest).expect("an answer");
                    assert_eq!(status, 200);
                    assert!(body == expected[index % 50], "answer {index}");
                }
            }
            let counts = running.stop();
            assert_eq!((counts.evicted, counts.slow, counts.open), (0, 0, 0));
        }
    }
}

/// Sends without reading until the peer takes no more; how many requests it took whole.
fn flood(stream: &mut TcpStream) -> usize {
    setsockopt(&*stream, sockopt::RcvBuf, &65536).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let text: String = (0..100).map(get).collect();
    let mut sent = 0;
    while let Ok(size) = stream.write(&text.as_bytes()[sent % text.len()..]) {
        sent += size;
        assert!(sent < 256 << 20, "somebody takes without end");
    }
    // 100 requests of two lengths.
    let whole = sent / text.len();
    let mut left = sent % text.len();
    whole * 100
        + (0..100)
            .take_while(|user| left.checked_sub(get(*user).len()).map(|rest| left = rest).is_some())
            .count()
}

#[test]
fn who_sends_and_does_not_read_is_not_received_from_and_loses_no_answer() {
    for mode in Mode::ALL {
        let Some(running) = start(mode, SIZES, Limits::default()) else { continue };
        let mut slow = running.connect();
        let count = flood(&mut slow);
        let mut other = running.connect();
        assert_eq!(ask(&mut other, &get(1)).unwrap().0, 200, "nobody else waits");
        let mut rest = Vec::new();
        let expected = ask(&mut other, &get(7)).unwrap().1;
        for index in 0..count {
            let (status, body) = answer(&mut slow, &mut rest).unwrap_or_else(|| panic!("{index} of {count}"));
            assert_eq!(status, 200);
            assert!(index % 100 != 7 || body == expected, "answer {index}");
        }
        drop((slow, other));
        let counts = running.stop();
        assert_eq!((counts.evicted, counts.slow, counts.open), (0, 0, 0));
    }
}

#[test]
fn senders_who_do_not_read_go_before_anybody_else_waits_for_their_buffers() {
    for mode in Mode::ALL {
        let Some(running) = start(mode, SCARCE, Limits::default()) else { continue };
        let mut slow: Vec<TcpStream> = (0..8).map(|_| running.connect()).collect();
        std::thread::scope(|scope| {
            for stream in &mut slow {
                scope.spawn(|| flood(stream));
            }
        });
        let mut other = running.connect();
        for user in 0..100 {
            assert_eq!(ask(&mut other, &get(user)).expect("an answer").0, 200);
        }
        drop((slow, other));
        running.stop();
    }
}

#[test]
fn a_reader_who_never_reads_is_closed_when_its_time_is_over() {
    for mode in Mode::ALL {
        let limits = Limits { write_timeout: Duration::from_millis(200), ..Limits::default() };
        let Some(running) = start(mode, SIZES, limits) else { continue };
        let mut slow = running.connect();
        flood(&mut slow);
        let mut chunk = [0; 65536];
        while slow.read(&mut chunk).is_ok_and(|size| size > 0) {}
        assert_eq!(running.stop().slow, 1);
    }
}

#[test]
fn a_large_answer_goes_past_the_slots() {
    for mode in Mode::ALL {
        let Some(running) = start(mode, SCARCE, Limits::default()) else { continue };
        let lines: String = (0..3000).map(|user| format!("{{\"units\":{{\"user_id\":{user}}}}}\n")).collect();
        let mut stream = running.connect();
        let head = format!(
            "POST /v1/batch HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            lines.len()
        );
        let mut writer = stream.try_clone().unwrap();
        let thread = std::thread::spawn(move || writer.write_all((head + &lines).as_bytes()));
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        thread.join().unwrap().unwrap();
        let count = text.windows(11).filter(|window| window == b"assignments").count();
        assert_eq!(count, 3000);
        drop(stream);
        assert_eq!(running.stop().evicted, 0);
    }
}

#[test]
fn a_half_closed_peer_gets_all_its_answers_and_the_end() {
    for mode in Mode::ALL {
        for sizes in [SCARCE, SIZES] {
            let Some(running) = start(mode, sizes, Limits::default()) else { continue };
            let mut stream = running.connect();
            let text: String = (0..200).map(get).collect();
            stream.write_all(text.as_bytes()).unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHo").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            for _ in 0..200 {
                assert_eq!(answer(&mut stream, &mut rest).expect("an answer").0, 200);
            }
            assert!(answer(&mut stream, &mut rest).is_none());
            assert!(rest.is_empty());
            assert_eq!(running.stop().open, 0);
        }
    }
}

#[test]
fn peers_that_reset_leave_nothing_behind() {
    for mode in Mode::ALL {
        for sizes in [SCARCE, SIZES] {
            let Some(running) = start(mode, sizes, Limits::default()) else { continue };
            let text: String = (0..300).map(get).collect();
            for round in 0..60 {
                let mut stream = running.connect();
                let size = [0, 10, text.len()][round % 3];
                stream.write_all(&text.as_bytes()[..size]).unwrap();
                if round % 2 == 0 && size == text.len() {
                    let _ = stream.read(&mut [0; 1]);
                }
                // Closing with a linger of zero is a reset.
                let linger = Linger { l_onoff: 1, l_linger: 0 };
                setsockopt(&stream, sockopt::Linger, &linger).unwrap();
            }
            let mut stream = running.connect();
            assert_eq!(ask(&mut stream, &get(1)).unwrap().0, 200);
            drop(stream);
            let counts = running.stop();
            assert_eq!((counts.accepted, counts.open), (61, 0));
        }
    }
}

#[test]
fn a_head_that_comes_too_slowly_is_answered_with_408_and_an_idle_peer_is_closed() {
    for mode in Mode::ALL {
        let limits = Limits {
            head_timeout: Duration::from_millis(100),
            idle_timeout: Duration::from_millis(300),
            ..Limits::default()
        };
        let Some(running) = start(mode, SIZES, limits) else { continue };
        let mut slow = running.connect();
        let mut idle = running.connect();
        slow.write_all(b"GET /livez HTT").unwrap();
        assert_eq!(answer(&mut slow, &mut Vec::new()).unwrap().0, 408);
        assert!(answer(&mut slow, &mut Vec::new()).is_none());
        assert!(answer(&mut idle, &mut Vec::new()).is_none());
        drop((slow, idle));
        let counts = running.stop();
        assert_eq!((counts.slow, counts.open), (1, 0));
    }
}

#[test]
fn past_the_largest_count_the_oldest_idle_connection_goes() {
    for mode in Mode::ALL {
        let Some(running) = start(mode, SIZES, Limits::default()) else { continue };
        let mut streams: Vec<TcpStream> = (0..512).map(|_| running.connect()).collect();
        for stream in &mut streams {
            assert_eq!(ask(stream, &get(1)).unwrap().0, 200);
        }
        let mut late = running.connect();
        assert_eq!(ask(&mut late, &get(1)).unwrap().0, 200);
        assert!(answer(&mut streams[0], &mut Vec::new()).is_none());
        assert_eq!(ask(&mut streams[1], &get(1)).unwrap().0, 200);
        drop((streams, late));
        assert_eq!(running.stop().evicted, 1);
    }
}
