//! Costs that can be counted, held to their bounds: user instructions a request
//! (callgrind), page faults of a worker in its steady state, bytes of memory an
//! idle connection takes. Allocations are counted in `no_alloc.rs`.
//!
//! The instructions are those of a release build: `tests/counted` is built for it.

#[allow(dead_code, reason = "the process tests need all of it")]
#[path = "process/support.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{Client, Plan, golden, lines, wait_until};

/// Backends that are counted.
const BACKENDS: &[&str] = &["epoll", "io_uring"];

// ── User instructions ──────────────────────────────────────────────────────

/// A POST of the `typical` vectors, head to answer with the exposure in the ring:
/// measured, and a tenth more.
const POST_INSTRUCTIONS_MAX: u64 = 31_300;
/// A GET with six attributes, likewise.
const GET_INSTRUCTIONS_MAX: u64 = 22_000;
/// The decision alone on these vectors, with the AVX2 that callgrind knows: measured,
/// and a twentieth more.
const DECIDE_INSTRUCTIONS_MAX: u64 = 11_600;
/// What a POST may cost more in a build that can trace and does not than in one that
/// can't: the branches that find no tracer. Measured: 43, of 29,926.
const UNTRACED_INSTRUCTIONS_MAX: u64 = 60;
/// What it costs more where tracing is on, as the settings have it: a stopwatch. And
/// where every request is kept: its spans, too.
const TRACED_INSTRUCTIONS_MAX: u64 = 1_200;
const KEPT_INSTRUCTIONS_MAX: u64 = 7_000;

/// Stopwatch, histograms and the counters of 26 assignments: what is counted of a
/// POST, and in it; measured, and a tenth more.
const METER_INSTRUCTIONS_MAX: u64 = 660;

#[test]
fn a_request_stays_within_its_instructions() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("skipped: valgrind is not here");
        return;
    }
    let program = build_counted(&[]);
    let mut bounds = vec![
        ("POST", POST_INSTRUCTIONS_MAX),
        ("GET", GET_INSTRUCTIONS_MAX),
        ("METER", METER_INSTRUCTIONS_MAX),
    ];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        bounds.push(("DECIDE", DECIDE_INSTRUCTIONS_MAX));
    }
    for (kind, bound) in bounds {
        let count = instructions_each(&program, kind);
        eprintln!("{kind}: {count} instructions a request, {bound} at most");
        assert!(count <= bound, "{kind}: {count} instructions a request; {bound} is the bound");
        // A count that is far below its bound no longer guards anything.
        assert!(count * 2 > bound, "{kind}: {count} instructions a request; lower the bound of {bound}");
    }
}

#[test]
fn tracing_costs_branches_while_it_is_off_and_a_stopwatch_while_it_is_on() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("skipped: valgrind is not here");
        return;
    }
    let program = build_counted(&[]);
    let off = instructions_each(&program, "POST");
    let mut costs = vec![
        ("on", instructions_each(&program, "TRACED").abs_diff(off), TRACED_INSTRUCTIONS_MAX),
        ("on, every request kept", instructions_each(&program, "KEPT").abs_diff(off), KEPT_INSTRUCTIONS_MAX),
    ];
    if std::env::var_os("SPLITD_COUNTS").is_some_and(|which| which == "all") {
        let without = instructions_each(&build_counted(&["--no-default-features"]), "POST");
        costs.push(("off", off.saturating_sub(without), UNTRACED_INSTRUCTIONS_MAX));
        eprintln!("a POST takes {without} instructions in a build that can't trace");
    } else {
        eprintln!("SPLITD_COUNTS=all compares it with a build that can't trace, a minute more");
    }
    for (what, cost, bound) in costs {
        eprintln!("tracing {what}: {cost} more, {bound} at most");
        assert!(cost <= bound, "tracing {what}: {cost} instructions a request; {bound} is the bound");
    }
}

/// Of one request of a kind.
fn instructions_each(program: &Counted, kind: &str) -> u64 {
    // Whole rounds of the 300 vectors, less what making the rig takes.
    let (few, many) = (300, 300 + 3000);
    let [few_instructions, many_instructions] =
        [few, many].map(|count| instructions(&program.path(), kind, count));
    (many_instructions - few_instructions) / (many - few)
}

/// A program that answers from memory, in a directory of its own.
struct Counted {
    directory: tempfile::TempDir,
}

impl Counted {
    fn path(&self) -> PathBuf {
        self.directory.path().join("counted")
    }
}

/// Builds it as it would be shipped, or with `more` arguments.
fn build_counted(more: &[&str]) -> Counted {
    // Builds with other features put their program in the same place.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _alone = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--quiet", "--package", "counted"])
        .args(["--message-format", "json-render-diagnostics"])
        .args(more)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let said = String::from_utf8(built.stdout).unwrap();
    let messages = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut programs = messages.filter_map(|message| Some(PathBuf::from(message["executable"].as_str()?)));
    let program = programs.next().expect("cargo says where the program is");
    let counted = Counted { directory: tempfile::tempdir().unwrap() };
    std::fs::copy(program, counted.path()).unwrap();
    counted
}

/// Instructions of a whole process that answers so many requests.
fn instructions(program: &Path, kind: &str, count: u64) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let out = format!("--callgrind-out-file={}", directory.path().join("out").display());
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", &out])
        .arg(program)
        .args([kind, &count.to_string()])
        .args([golden("typical.experiments.json"), golden("typical.requests.ndjson")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    collected.expect("callgrind says what it collected").1.trim().parse().unwrap()
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
        let mut faults_of_a_round = || {
            let before = page_faults(worker);
            // More than the ring of 4 MiB has room for: every page of it is written again.
            serve(6000);
            page_faults(worker) - before
        };
        // Now and then the kernel moves a page of whomever it likes.
        let faults: Vec<u64> = (0..3).map(|_| faults_of_a_round()).take_while(|count| *count > 0).collect();
        assert!(faults.len() < 3, "{io}: {faults:?}");
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
