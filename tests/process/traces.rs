//! Spans, as a collector gets them that is not ours (`collector.py`): which are
//! kept, what they say, what makes holes in them, and that nothing waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::for_each_backend;
use crate::support::{Client, Load, PATIENCE, Plan, lines, post, signal, wait_until};

/// What nobody is, and what nobody's span is.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
/// A light request.
const BODY: &str = r#"{"units":{"user_id":"42"}}"#;

/// The collector's process and what it has got.
struct Collector {
    process: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl Collector {
    /// None where `scripts/test` has not installed what it needs.
    fn start() -> Option<Collector> {
        let collector = Collector::start_at(0, tempfile::tempdir().unwrap());
        if collector.is_none() {
            eprintln!("skipped: opentelemetry-proto is not in target/otlp-venv (scripts/test installs it)");
        }
        collector
    }

    fn start_at(port: u16, directory: tempfile::TempDir) -> Option<Collector> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("target/otlp-venv/bin/python");
        if !python.exists() {
            return None;
        }
        let mut process = Command::new(python)
            .arg(root.join("tests/process/collector.py"))
            .arg(port.to_string())
            .args([directory.path().join("spans"), directory.path().join("mode")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        Some(Collector { process, port: said.trim().parse().expect("its port"), directory })
    }

    /// From now on it answers so.
    fn answers(&self, mode: &str) {
        let beside = self.directory.path().join("mode.new");
        fs::write(&beside, mode).unwrap();
        fs::rename(beside, self.directory.path().join("mode")).unwrap();
    }

    /// How many requests it has answered so.
    fn answered(&self, mode: &str) -> usize {
        let answers = fs::read_to_string(self.directory.path().join("spans.answers")).unwrap_or_default();
        answers.lines().filter(|line| *line == mode).count()
    }

    fn spans(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.directory.path().join("spans")).unwrap_or_default();
        // The last line may be under way.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn requests(&self) -> Vec<Request> {
        requests(self.spans())
    }

    /// Waits for the request whose caller said that it was this span of it.
    fn request_of(&self, parent: u64) -> Request {
        let mut found = None;
        wait_until("the spans of a request", || {
            found = self.requests().into_iter().find(|request| request.parent == format!("{parent:016x}"));
            found.is_some()
        });
        found.unwrap()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server span and its children by name.
#[derive(Debug)]
struct Request {
    server: Value,
    parent: String,
    children: BTreeMap<String, Value>,
}

impl Request {
    fn attribute(&self, name: &str) -> &Value {
        &self.server["attributes"][name]
    }

    fn route(&self) -> &str {
        self.attribute("http.route").as_str().unwrap_or("")
    }

    fn kept_by(&self) -> &str {
        self.attribute("splitd.kept_by").as_str().unwrap()
    }

    /// The event of a hole with this cause.
    fn hole(&self, cause: &str) -> Option<&Value> {
        let mut events = self.server["events"].as_array().unwrap().iter();
        events.find(|event| event["name"] == "hole" && event["splitd.hole.cause"] == cause)
    }

    fn took_ns(&self) -> u64 {
        took_ns(&self.server)
    }
}

fn ns(span: &Value, at: &str) -> u64 {
    span[at].as_u64().unwrap()
}

fn took_ns(span: &Value) -> u64 {
    ns(span, "end") - ns(span, "start")
}

fn requests(spans: Vec<Value>) -> Vec<Request> {
    let (servers, children): (Vec<Value>, Vec<Value>) = spans.into_iter().partition(|span| span["kind"] == 2);
    let mut all: Vec<Request> = servers
        .into_iter()
        .map(|server| Request {
            parent: server["parent"].as_str().unwrap().to_owned(),
            server,
            children: BTreeMap::new(),
        })
        .collect();
    for child in children {
        assert_eq!(child["kind"], 1, "internal: {child}");
        let parent = all.iter_mut().find(|request| request.server["span"] == child["parent"]);
        let parent = parent.unwrap_or_else(|| panic!("a child without its parent: {child}"));
        assert_eq!(parent.server["trace"], child["trace"]);
        let name = child["name"].as_str().unwrap().to_owned();
        assert!(parent.children.insert(name, child).is_none(), "each child once");
    }
    all
}

fn plan(io: &'static str, collector: &Collector) -> Plan {
    Plan::new(io, "typical.experiments.json")
        .set(&format!("tracing.endpoint=http://127.0.0.1:{}/v1/traces", collector.port))
        .set("tracing.interval=20ms")
        .set("tracing.slowest=never")
        .set("pool.assign.routes=assign,batch,health")
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

fn traced(target: &str, body: &str, traceparent: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: t\r\ntraceparent: {traceparent}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A caller's span, sampled.
fn sampled(parent: u64) -> String {
    format!("00-{TRACE}-{parent:016x}-01")
}

/// Sends a request that is kept for certain, and gives its spans. Those of one
/// worker arrive in order, so what was to come before has come.
fn marked(client: &mut Client, collector: &Collector, parent: u64) -> Request {
    assert!(client.send(traced("/v1/assign", BODY, &sampled(parent)).as_bytes()));
    assert_eq!(client.receive().unwrap().status, 200);
    collector.request_of(parent)
}

for_each_backend! {
    every_kept_request_is_a_trace_whose_spans_are_nested_and_in_order(io) {
        let Some(collector) = Collector::start() else { return };
        let begin_ns = unix_ns();
        let mut daemon = plan(io, &collector).set("tracing.rate=1").start();
        let worker = daemon.child("assign/0").unwrap();
        let bodies = lines("typical.requests.ndjson");
        let mut client = Client::connect(daemon.assign());
        let answer = client.post("/v1/assign", &bodies[0]).json();
        assert_eq!(client.get("/v1/assign/experiment_000?user_id=5").status, 200);
        assert_eq!(client.get("/nowhere").status, 404);
        assert_eq!(client.post("/v1/batch", &bodies[..10].join("\n")).status, 200);
        // Four in one piece.
        let piece: String = bodies[..4].iter().map(|body| post("/v1/assign", body)).collect();
        assert!(client.send(piece.as_bytes()));
        (0..4).for_each(|_| assert_eq!(client.receive().unwrap().status, 200));
        let last = marked(&mut client, &collector, 1);
        let end_ns = unix_ns();

        let all: Vec<Request> = collector.requests();
        let of = |route: &str| all.iter().filter(|request| request.route() == route).collect::<Vec<_>>();
        let first = of("/v1/assign")[0];
        assert_eq!(first.server["name"], "POST /v1/assign");
        assert_eq!(first.attribute("http.request.method"), "POST");
        assert_eq!(first.attribute("http.response.status_code"), 200);
        assert_eq!(first.attribute("splitd.pool"), "assign");
        assert_eq!(first.attribute("splitd.worker"), 0);
        assert_eq!(first.attribute("process.pid"), worker);
        assert_eq!(first.attribute("splitd.version"), &answer["version"]);
        assert_eq!(first.attribute("splitd.assignments"), answer["assignments"].as_object().unwrap().len());
        assert_eq!(first.kept_by(), "rate");
        assert_eq!((first.parent.as_str(), &first.server["flags"]), ("", &Value::from(0x103)));
        assert_eq!(first.server["resource"]["service.name"], "splitd");
        assert_eq!(first.server["scope"], "splitd");
        // The collector's own are said to be another process's.
        assert_eq!((last.server["trace"].as_str(), &last.server["flags"]), (Some(TRACE), &Value::from(0x301)));
        assert_eq!(last.kept_by(), "header");
        let missing = of("");
        assert_eq!((missing.len(), missing[0].attribute("http.response.status_code")), (1, &Value::from(404)));
        let batch = of("/v1/batch")[0];
        assert_eq!((batch.attribute("splitd.lines"), batch.children.contains_key("parse")), (&Value::from(10), false));
        assert!(batch.attribute("splitd.decide_ns").as_u64().unwrap() > 0);
        assert_eq!(of("/v1/assign/{experiment}").len(), 1);
        assert_eq!(of("/v1/assign").len(), 1 + 4 + 1);

        for request in of("/v1/assign").into_iter().chain(of("/v1/assign/{experiment}")) {
            let stages = ["queue", "parse", "decide", "record", "write"];
            let children: Vec<&Value> = stages.iter().filter_map(|name| request.children.get(*name)).collect();
            assert_eq!(children.len(), request.children.len(), "{request:?}");
            let has = |name: &str| request.children.contains_key(name);
            assert!(["parse", "decide", "record", "write"].into_iter().all(has), "{request:?}");
            assert_eq!(ns(children[0], "start"), ns(&request.server, "start"));
            assert_eq!(ns(children[children.len() - 1], "end"), ns(&request.server, "end"));
            for pair in children.windows(2) {
                assert_eq!(ns(pair[0], "end"), ns(pair[1], "start"), "no gap and no overlap: {request:?}");
            }
            assert!(children.iter().all(|child| took_ns(child) > 0));
            // Both clocks are read at once, to the microsecond.
            assert!(begin_ns - 1000 <= ns(&request.server, "start"), "{request:?}");
            assert!(ns(&request.server, "end") <= end_ns + 1000, "{request:?}");
        }
        // One behind the other, handed over together.
        let piece = &of("/v1/assign")[1..5];
        for pair in piece.windows(2) {
            assert_eq!(ns(&pair[0].server, "end"), ns(&pair[1].server, "end"));
            assert!(ns(&pair[0].children["record"], "end") <= ns(&pair[1].children["parse"], "start"));
        }
        let ids: BTreeSet<String> = collector.spans().iter().map(|span| span["span"].to_string()).collect();
        assert_eq!(ids.len(), collector.spans().len(), "no id twice");
        let traces: BTreeSet<String> = all.iter().map(|request| request.server["trace"].to_string()).collect();
        assert_eq!(traces.len(), all.len());

        let recorded = collector.spans().len() as u64;
        assert_eq!(daemon.metric("splitd_trace_spans_recorded_total{pool=\"assign\""), recorded);
        wait_until("the books", || daemon.metric("splitd_trace_spans_exported_total") >= recorded);
        assert_eq!(daemon.metric("splitd_trace_spans_dropped_total"), 0);
        assert_eq!(daemon.stop(), Some(0));
        assert!(!daemon.directory.path().join("run/spans").exists(), "nothing is left behind");
    }

    traceparent_decides_unless_the_settings_say_otherwise(io) {
        let Some(collector) = Collector::start() else { return };
        for header in [true, false] {
            let mut daemon = plan(io, &collector)
                .set(if header { "tracing.rate=0" } else { "tracing.rate=1" })
                .set(&format!("tracing.header={header}"))
                .start();
            let before = collector.requests().len();
            let mut client = Client::connect(daemon.assign());
            let mut ask = |traceparent: &str| {
                assert!(client.send(traced("/v1/assign", BODY, traceparent).as_bytes()));
                assert_eq!(client.receive().unwrap().status, 200);
            };
            let number = u64::from(header) << 32;
            let [unsampled, later, twice, last] = [1, 2, 3, 4].map(|at| number + at);
            ask(&format!("00-{TRACE}-{unsampled:016x}-00"));
            ask(&format!("cc-{TRACE}-{later:016x}-01-more"));
            for malformed in ["", "00", "01", &format!("00-{TRACE}-{SPAN}"), &format!("00-{TRACE}-{SPAN}-1g")] {
                ask(malformed);
            }
            ask(&format!("{}\r\nTraceparent: {}", sampled(twice), sampled(twice)));
            ask(&sampled(last));
            collector.request_of(last);
            let requests = collector.requests();
            let parents: Vec<&str> =
                requests[before..].iter().map(|request| request.parent.as_str()).filter(|p| !p.is_empty()).collect();
            let own = requests.len() - before - parents.len();
            let text = |number: u64| format!("{number:016x}");
            if header {
                assert_eq!((parents, own), (vec![text(later).as_str(), text(last).as_str()], 0));
            } else {
                let with: Vec<String> = [unsampled, later, last].map(text).to_vec();
                // What is malformed has no parent, and is kept by the rate all the same.
                assert_eq!((parents, own), (with.iter().map(String::as_str).collect(), 6));
            }
            assert_eq!(daemon.stop(), Some(0));
        }
    }

    tracing_comes_and_goes_with_the_settings_and_nobody_notices(io) {
        let Some(collector) = Collector::start() else { return };
        let mut daemon = Plan::new(io, "typical.experiments.json").settings("# off").start();
        let load = Load::start(daemon.assign(), 4);
        let on = format!(
            "[tracing]\nendpoint = \"http://127.0.0.1:{}/v1/traces\"\nrate = 0\nslowest = \"never\"\ninterval = \"20ms\"\n",
            collector.port
        );
        let reload = |text: &str| {
            let replaced = || daemon.log().matches("event=workers_replaced").count();
            let before = replaced();
            fs::write(daemon.settings_file(), text).unwrap();
            signal(daemon.master_pid(), Signal::SIGHUP);
            wait_until("the settings to be in force", || replaced() > before);
            load.more(50);
        };
        let recorded = || daemon.metric("splitd_trace_spans_recorded_total");
        // Asked to be traced while nobody is.
        let unheard = |parent: u64| {
            let mut client = Client::connect(daemon.assign());
            assert!(client.send(traced("/v1/assign", BODY, &sampled(parent)).as_bytes()));
            assert_eq!(client.receive().unwrap().status, 200);
        };
        unheard(1);
        assert_eq!(recorded(), 0);
        for round in 1..=2 {
            reload(&on);
            marked(&mut Client::connect(daemon.assign()), &collector, 10 * round);
            let before = recorded();
            reload("# off");
            unheard(10 * round + 1);
            assert_eq!(recorded(), before);
        }
        let parents: Vec<String> = collector.requests().into_iter().map(|request| request.parent).collect();
        assert_eq!(parents, [10, 20].map(|parent| format!("{parent:016x}")));
        assert_eq!(load.stop().unanswered, [] as [String; 0]);
        assert_eq!(daemon.metric("splitd_upgrades_failed_total"), 0);
        assert_eq!(daemon.stop(), Some(0));
        assert!(!daemon.directory.path().join("run/spans").exists(), "nothing is left behind");
    }

    the_rate_is_the_share_that_is_kept_and_the_others_leave_nothing(io) {
        let Some(collector) = Collector::start() else { return };
        let mut daemon = plan(io, &collector).set("tracing.rate=0.25").start();
        let mut client = Client::connect(daemon.assign());
        for _ in 0..40 {
            let piece = post("/v1/assign", BODY).repeat(50);
            assert!(client.send(piece.as_bytes()));
            (0..50).for_each(|_| assert_eq!(client.receive().unwrap().status, 200));
        }
        marked(&mut client, &collector, 1);
        let kept = collector.requests().into_iter().filter(|request| request.kept_by() == "rate").count();
        // 500 and nine deviations of a binomial to either side.
        assert!((325..=675).contains(&kept), "{kept} of 2000 were kept, a quarter is 500");
        assert_eq!(daemon.stop(), Some(0));
    }

    of_every_interval_the_slowest_request_is_kept_and_no_other(io) {
        let Some(collector) = Collector::start() else { return };
        let start = Instant::now();
        let mut daemon = plan(io, &collector).set("tracing.rate=0").set("tracing.slowest=300ms").start();
        let bodies = lines("typical.requests.ndjson");
        let batch = bodies.iter().cycle().take(100).cloned().collect::<Vec<_>>().join("\n");
        let mut client = Client::connect(daemon.assign());
        let of_batches = || collector.requests().into_iter().filter(|request| request.route() == "/v1/batch").count();
        // A batch takes as long as a hundred of the others.
        wait_until("batches are the slowest", || {
            (0..20).for_each(|_| assert_eq!(client.post("/v1/assign", &bodies[0]).status, 200));
            assert_eq!(client.post("/v1/batch", &batch).status, 200);
            of_batches() >= 3
        });
        let requests = collector.requests();
        assert!(requests.iter().all(|request| request.kept_by() == "slowest"));
        let most = start.elapsed().as_millis() as usize / 300 + 1;
        assert!(requests.len() <= most, "{} in {most} intervals", requests.len());
        assert_eq!(daemon.stop(), Some(0));
    }

    who_stood_behind_a_long_batch_shows_a_hole_with_its_name(io) {
        let Some(collector) = Collector::start() else { return };
        let mut daemon = plan(io, &collector).set("tracing.rate=0").start();
        let worker = daemon.child("assign/0").unwrap();
        let batch = post("/v1/batch", &lines("typical.requests.ndjson")[..60].join("\n"));
        let [mut heavy, mut light] = [(), ()].map(|()| Client::connect(daemon.assign()));
        for client in [&mut heavy, &mut light] {
            assert_eq!(client.get("/livez").status, 200);
        }
        // Both are there when the worker looks, mostly the batch first, and mostly it gets
        // a CPU for both.
        let (start, mut found) = (Instant::now(), false);
        for parent in 1.. {
            assert!(!found && start.elapsed() < PATIENCE, "no hole behind a batch");
            signal(worker, Signal::SIGSTOP);
            assert!(heavy.send(batch.as_bytes()));
            assert!(light.send(traced("/v1/assign", BODY, &sampled(parent)).as_bytes()));
            signal(worker, Signal::SIGCONT);
            assert_eq!(heavy.receive().unwrap().status, 200);
            assert_eq!(light.receive().unwrap().status, 200);
            let request = collector.request_of(parent);
            let Some(hole) = request.hole("queued") else { continue };
            assert_eq!(hole["splitd.hole.behind.route"], "/v1/batch", "{request:?}");
            let behind_ns = hole["splitd.hole.behind.duration_ns"].as_u64().unwrap();
            let queue_ns = took_ns(&request.children["queue"]);
            assert_eq!(hole["splitd.hole.duration_ns"], queue_ns);
            assert!(behind_ns <= queue_ns && queue_ns <= request.took_ns(), "{request:?}");
            found = behind_ns > queue_ns / 2;
            if found {
                break;
            }
        }
        assert!(found);
        assert_eq!(daemon.stop(), Some(0));
    }

    a_worker_that_was_stopped_shows_a_hole_in_which_it_did_not_run(io) {
        const STOPPED: Duration = Duration::from_millis(100);
        let Some(collector) = Collector::start() else { return };
        let mut daemon = plan(io, &collector).set("tracing.rate=0").start();
        let worker = daemon.child("assign/0").unwrap();
        // What one read brings, again and again: the worker is in the middle of one most of the time.
        let body = lines("typical.requests.ndjson")[..30].join("\n");
        let mut client = Client::connect(daemon.assign());
        let (start, mut found) = (Instant::now(), false);
        for parent in (1u64..).step_by(20) {
            assert!(start.elapsed() < PATIENCE, "no hole of a worker that was stopped");
            let batches: String = (0..20).map(|at| traced("/v1/batch", &body, &sampled(parent + at))).collect();
            let mut reader = client.clone_stream();
            let writer = std::thread::spawn(move || std::io::Write::write_all(&mut reader, batches.as_bytes()));
            assert_eq!(client.receive().unwrap().status, 200);
            signal(worker, Signal::SIGSTOP);
            std::thread::sleep(STOPPED);
            signal(worker, Signal::SIGCONT);
            (1..20).for_each(|_| assert_eq!(client.receive().unwrap().status, 200));
            writer.join().unwrap().unwrap();
            collector.request_of(parent + 19);
            for request in collector.requests() {
                let Some(hole) = request.hole("descheduled") else { continue };
                let hole_ns = hole["splitd.hole.duration_ns"].as_u64().unwrap();
                assert!(request.took_ns() >= hole_ns, "the hole is in the span: {request:?}");
                // One that gave way to somebody else is a hole as well.
                found |= Duration::from_nanos(hole_ns) >= STOPPED
                    && hole["splitd.hole.switches.voluntary"].as_u64().unwrap() >= 1;
            }
            if found {
                break;
            }
        }
        assert!(found);
        assert_eq!(daemon.stop(), Some(0));
    }

    a_page_that_was_not_there_shows_as_a_hole(io) {
        let Some(collector) = Collector::start() else { return };
        let mut daemon = plan(io, &collector).set("tracing.rate=0").start();
        let body = lines("typical.requests.ndjson")[..60].join("\n");
        let mut client = Client::connect(daemon.assign());
        let mut ask = |parent: u64| {
            assert!(client.send(traced("/v1/batch", &body, &sampled(parent)).as_bytes()));
            assert_eq!(client.receive().unwrap().status, 200);
            collector.request_of(parent)
        };
        ask(1);
        let faults = |request: &Request| {
            request.hole("page_fault").map_or(0, |hole| {
                let of = |kind: &str| hole[format!("splitd.hole.faults.{kind}")].as_u64().unwrap();
                of("minor") + of("major")
            })
        };
        // Now and then the kernel moves a page of whomever it likes.
        let calm: Vec<Request> = (2..5).map(&mut ask).take_while(|request| faults(request) > 0).collect();
        assert!(calm.len() < 3, "{calm:?}");
        wait_until("the ring to be empty", || daemon.metric("splitd_exposures_in_rings") == 0);
        // Its records were read; their pages go.
        let list = |path: PathBuf| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        for ring in list(daemon.directory.path().join("run/rings")).flat_map(list) {
            let file = fs::File::options().write(true).open(&ring).unwrap();
            let size = file.metadata().unwrap().len() as i64;
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            if let Err(fault) = fallocate(&file, hole, 4096, size - 4096) {
                eprintln!("skipped: no hole can be made in a file here: {fault}");
                return;
            }
        }
        let faulting = ask(5);
        // 60 exposures of more than a kilobyte.
        assert!(faults(&faulting) >= 15, "{faulting:?}");
        assert_eq!(daemon.stop(), Some(0));
        assert_eq!(daemon.lost(), 0);
    }

    spans_of_a_killed_worker_are_exported(io) {
        let Some(collector) = Collector::start() else { return };
        let mut daemon = plan(io, &collector).set("tracing.rate=1").start();
        daemon.expect("event=ended process=assign/0");
        let logger = daemon.child("logger").unwrap();
        signal(logger, Signal::SIGSTOP);
        let mut client = Client::connect(daemon.assign());
        for number in 0..20 {
            assert_eq!(client.get(&format!("/v1/assign?user_id={number}")).status, 200);
        }
        let before = daemon.metric("splitd_trace_spans_recorded_total{pool=\"assign\"");
        daemon.kill_child("assign/0");
        signal(logger, Signal::SIGCONT);
        wait_until("the dead one's spans", || collector.requests().len() >= 20);
        // Its successor writes on in the same ring.
        let mut client = Client::connect(daemon.assign());
        assert_eq!(client.get("/v1/assign?user_id=21").status, 200);
        wait_until("its successor's", || collector.requests().len() >= 21);
        let recorded = daemon.metric("splitd_trace_spans_recorded_total{pool=\"assign\"");
        assert!(recorded > before && recorded == collector.spans().len() as u64, "{recorded}, {before} before");
        assert_eq!(daemon.stop(), Some(0));
    }
}

#[test]
fn while_the_collector_is_away_spans_are_dropped_and_counted_and_nothing_else_moves() {
    let Some(collector) = Collector::start() else { return };
    let port = collector.port;
    drop(collector);
    // First nobody listens; then somebody who never answers.
    for silent in [false, true] {
        let listener = silent.then(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let port = listener.as_ref().map_or(port, |listener| listener.local_addr().unwrap().port());
        let mut daemon = Plan::new("epoll", "edge.experiments.json")
            .set(&format!("tracing.endpoint=http://127.0.0.1:{port}/v1/traces"))
            .set("tracing.rate=1")
            .set("tracing.ring_size=64KiB")
            .set("tracing.interval=20ms")
            .start();
        daemon.expect("event=spans_not_taken");
        let load = Load::start(daemon.assign(), 4);
        load.more(1000);
        let refused = "splitd_trace_spans_refused_total{pool=\"assign\"";
        wait_until("the ring for spans is full", || daemon.metric(refused) > 0);
        load.more(500);
        let outcome = load.stop();
        assert!(outcome.unanswered.is_empty());
        let answered = outcome.answered.len() as u64;
        wait_until("all exposures", || daemon.metric("splitd_exposures_delivered_total") == answered);
        assert_eq!(daemon.metric("splitd_trace_spans_exported_total"), 0);
        if !silent {
            // It comes, and takes what waited.
            let collector = Collector::start_at(port, tempfile::tempdir().unwrap()).unwrap();
            wait_until("what waited", || {
                daemon.metric("splitd_trace_spans_exported_total")
                    == daemon.metric("splitd_trace_spans_recorded_total")
            });
            assert_eq!(daemon.metric("splitd_trace_spans_exported_total"), collector.spans().len() as u64);
            assert!(daemon.log().contains("event=spans_taken_again"));
        }
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
        assert_eq!(daemon.lost(), 0);
    }
}

#[test]
fn what_the_collector_refuses_is_counted_and_what_it_can_not_take_now_is_sent_again() {
    let Some(collector) = Collector::start() else { return };
    let mut daemon = plan("auto", &collector).set("tracing.rate=1").start();
    daemon.expect("event=spans_not_taken");
    let mut client = Client::connect(daemon.assign());
    let rejected = "splitd_trace_spans_dropped_total{reason=\"rejected\"";
    let mut ask = || assert_eq!(client.get("/v1/assign?user_id=1").status, 200);
    collector.answers("400");
    ask();
    wait_until("a refusal", || daemon.metric(rejected) > 0);
    let refused = daemon.metric(rejected);
    collector.answers("503");
    ask();
    wait_until("more tries", || collector.answered("503") >= 3);
    // It was said once.
    assert_eq!(daemon.log().matches("event=spans_not_taken").count(), 1);
    assert!(collector.spans().is_empty());
    collector.answers("partial");
    wait_until("it is taken", || !collector.spans().is_empty());
    wait_until("one of them is not", || daemon.metric(rejected) == refused + 1);
    assert_eq!(daemon.metric("splitd_trace_spans_exported_total"), collector.spans().len() as u64 - 1);
    assert_eq!(daemon.stop(), Some(0));
}
