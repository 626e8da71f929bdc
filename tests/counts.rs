//! Costs that can be counted, held to their bounds: user instructions a request
//! (callgrind), page faults of a worker in its steady state, bytes of memory an
//! idle connection takes. Allocations are counted in `no_alloc.rs`.
//!
//! The instructions are those of a release build; other builds leave that test
//! out and say so: `cargo test --release --test counts`.

#[path = "../benches/rig.rs"]
mod rig;
#[allow(dead_code, reason = "the process tests need all of it")]
#[path = "process/support.rs"]
mod support;

use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rig::{DRAIN_EVERY, post, with_rig};
use support::{Client, Plan, golden, lines, wait_until};

/// Backends that are counted.
const BACKENDS: &[&str] = &["epoll", "io_uring"];

// ── User instructions ──────────────────────────────────────────────────────

/// A POST of the `typical` vectors, head to answer with the exposure in the ring:
/// measured, and a tenth more.
const POST_INSTRUCTIONS_MAX: u64 = 40_000;
/// A GET with six attributes, likewise.
const GET_INSTRUCTIONS_MAX: u64 = 31_500;

/// Set for the process that callgrind watches: how many requests, and of which kind.
const COUNT: &str = "SPLITD_COUNTED_REQUESTS";
const KIND: &str = "SPLITD_COUNTED_KIND";

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "instructions are those of a release build: cargo test --release --test counts"
)]
fn a_request_stays_within_its_instructions() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("skipped: valgrind is not here");
        return;
    }
    for (kind, bound) in [("POST", POST_INSTRUCTIONS_MAX), ("GET", GET_INSTRUCTIONS_MAX)] {
        // Whole rounds of the 300 vectors, less what making the rig takes.
        let (few, many) = (300, 300 + 3000);
        let count = (instructions(kind, many) - instructions(kind, few)) / (many - few);
        eprintln!("{kind}: {count} instructions a request, {bound} at most");
        assert!(count <= bound, "{kind}: {count} instructions a request; {bound} is the bound");
        // A count that is far below its bound no longer guards anything.
        assert!(count * 2 > bound, "{kind}: {count} instructions a request; lower the bound of {bound}");
    }
}

/// Instructions of a whole process that answers so many requests.
fn instructions(kind: &str, count: u64) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let out = format!("--callgrind-out-file={}", directory.path().join("out").display());
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", &out])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "answers_requests_for_callgrind", "--ignored", "--test-threads=1"])
        .env(COUNT, count.to_string())
        .env(KIND, kind)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stdout));
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    collected.expect("callgrind says what it collected").1.trim().parse().unwrap()
}

#[test]
#[ignore = "run by a_request_stays_within_its_instructions, under callgrind"]
fn answers_requests_for_callgrind() {
    let Ok(count) = std::env::var(COUNT) else { return };
    let count: usize = count.parse().unwrap();
    let requests: Vec<String> = if std::env::var(KIND).unwrap() == "GET" {
        vec![get()]
    } else {
        lines("typical.requests.ndjson").iter().map(|body| post(body)).collect()
    };
    let file = std::fs::read_to_string(golden("typical.experiments.json")).unwrap();
    with_rig(&file, |rig| {
        // The ring takes them all: a full one would be quicker.
        assert!(count < 20 * DRAIN_EVERY);
        for request in requests.iter().cycle().take(count) {
            assert!(rig.exchange(request.as_bytes()) > 0);
        }
    });
}

fn get() -> String {
    "GET /v1/assign?user_id=3443880&platform=ios&country=RS&app_version=28.5.4&age=34&is_subscriber=true\
     &days_since_signup=1277 HTTP/1.1\r\nHost: splitd\r\n\r\n"
        .to_owned()
}

// ── Memory ─────────────────────────────────────────────────────────────────

/// Minor and major page faults of a process so far.
fn page_faults(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which may have spaces: state is field 3, minflt 10, majflt 12.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[7].parse::<u64>().unwrap() + fields[9].parse::<u64>().unwrap()
}

#[test]
fn a_worker_in_its_steady_state_faults_no_page() {
    let bodies = lines("typical.requests.ndjson");
    for &io in BACKENDS {
        let daemon = Plan::new(io, "typical.experiments.json").start();
        let worker = daemon.child("assign/0").unwrap();
        let mut client = Client::connect(daemon.assign());
        let mut serve = |count: usize| {
            for body in bodies.iter().cycle().take(count) {
                assert_eq!(client.post("/v1/assign", body).status, 200);
            }
            assert_eq!(client.get("/v1/assign?user_id=%D1%8F&age=34").status, 200);
        };
        serve(1000);
        let before = page_faults(worker);
        // More than the ring of 4 MiB has room for: every page of it is written again.
        serve(6000);
        assert_eq!(page_faults(worker) - before, 0, "{io}");
    }
}

/// What a connection may add to a worker's own memory while it waits.
const IDLE_CONNECTION_SIZE_MAX: u64 = 200;
const IDLE_CONNECTION_COUNT: usize = 8000;

#[test]
fn an_idle_connection_takes_a_slot_and_no_buffer() {
    // Ours and the worker's ends; a lower limit makes for a coarser count.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let count = IDLE_CONNECTION_COUNT.min(hard as usize - 500);
    for &io in BACKENDS {
        let daemon = Plan::new(io, "typical.experiments.json").start();
        let worker = daemon.child("assign/0").unwrap();
        let body = &lines("typical.requests.ndjson")[0];
        // Whatever is touched once is touched now: every receive buffer, say.
        let mut first: Vec<Client> = (0..100).map(|_| Client::connect(daemon.assign())).collect();
        for _ in 0..10 {
            for client in &mut first {
                assert_eq!(client.post("/v1/assign", body).status, 200);
            }
        }
        let before = own_memory(worker);
        let idle: Vec<_> = (0..count)
            .map(|_| {
                let mut client = Client::connect(daemon.assign());
                assert_eq!(client.post("/v1/assign", body).status, 200);
                // Without the client's own buffer.
                client.clone_stream()
            })
            .collect();
        let open = "splitd_connections{pool=\"assign\"";
        wait_until("all are open", || daemon.metric(open) as usize >= count);
        let growth = own_memory(worker).saturating_sub(before);
        let each = growth / count as u64;
        eprintln!("{io}: {each} bytes an idle connection ({count} of them)");
        assert!(each <= IDLE_CONNECTION_SIZE_MAX, "{io}: {each} bytes an idle connection");
        drop(idle);
    }
}

/// Bytes of resident memory that no file backs.
fn own_memory(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a field since Linux 4.5");
    field.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}
