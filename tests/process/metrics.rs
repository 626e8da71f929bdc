//! What an operator reads off `/metrics`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use splitd::exposure::ring::Account;
use splitd::sys::region::Region;

use crate::for_each_backend;
use crate::support::{Client, Daemon, Plan, lines, post, signal, wait_until};

/// Every line of `/metrics`: what is measured, and its value.
fn readings(daemon: &Daemon) -> BTreeMap<String, f64> {
    let text = Client::connect(daemon.admin()).get("/metrics").body;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        })
        .collect()
}

/// Those that only grow.
fn counts(daemon: &Daemon) -> BTreeMap<String, f64> {
    let grows = |name: &str| ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end));
    let mut readings = readings(daemon);
    readings.retain(|name, _| grows(name.split('{').next().unwrap()));
    readings
}

for_each_backend! {
    every_answer_is_in_the_histograms_and_nothing_goes_back_when_a_worker_is_replaced(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).start();
        daemon.expect("event=ended process=assign");
        daemon.expect("event=restart_waits process=assign");
        let mut before = counts(&daemon);
        let body = "{\"units\":{\"user_id\":\"1\"}}";
        for round in 0..4 {
            // One after the other, then as many at once, then those that are refused.
            for _ in 0..20 {
                let mut client = Client::connect(daemon.assign());
                assert_eq!(client.post("/v1/assign", body).status, 200);
                assert!(client.send(post("/v1/assign", body).repeat(20).as_bytes()));
                (0..20).for_each(|_| assert_eq!(client.receive().expect("an answer").status, 200));
                assert_eq!(client.get("/nowhere").status, 404);
                assert_eq!(client.get("/livez").status, 200);
            }
            // A worker counts once the kernel has the answer, when we may have it, too.
            let counted = "splitd_request_service_seconds_count{pool=\"assign\"";
            wait_until("all are counted", || daemon.metric(counted) == (round + 1) * 20 * (21 + 2));
            daemon.kill_child(&format!("assign/{}", round % 2));
            let after = counts(&daemon);
            for (name, count) in &before {
                let now = after.get(name).unwrap_or_else(|| panic!("{name} is gone"));
                assert!(now >= count, "{name} went from {count} to {now}");
            }
            before = after;
        }
        let after = readings(&daemon);
        let routes = ["assign", "livez", "none"];
        for (route, expected) in routes.iter().zip([4 * 20 * 21, 4 * 20, 4 * 20]) {
            for metric in ["splitd_request_service_seconds", "splitd_request_queue_seconds"] {
                let labels = format!("pool=\"assign\",route=\"{route}\"");
                let read = |name: &str| after[&format!("{metric}_{name}")];
                assert_eq!(read(&format!("count{{{labels}}}")), f64::from(expected), "{metric} {route}");
                assert_eq!(read(&format!("bucket{{{labels},le=\"+Inf\"}}")), f64::from(expected));
            }
            let sum = |metric: &str| {
                after[&format!("splitd_request_{metric}_seconds_sum{{pool=\"assign\",route=\"{route}\"}}")]
            };
            assert!(sum("queue") < sum("service"), "{route}: waiting is a part of it");
        }
        let turns: f64 = after["splitd_loop_stall_seconds_count{pool=\"assign\"}"];
        assert!(turns > 0.0 && turns <= after["splitd_loop_turns_total{pool=\"assign\"}"]);
    }
}

/// What is counted by name: the values of its labels, and how many.
fn by_labels(daemon: &Daemon, metric: &str) -> BTreeMap<Vec<String>, u64> {
    let mut found = BTreeMap::new();
    for (name, value) in readings(daemon) {
        let Some(labels) = name.strip_prefix(metric).and_then(|rest| rest.strip_prefix('{')) else {
            continue;
        };
        let values = labels.trim_end_matches('}').split(',').filter(|label| !label.starts_with("pool="));
        let values = values.map(|label| label.split('"').nth(1).unwrap().to_owned()).collect();
        *found.entry(values).or_default() += value as u64;
    }
    found
}

#[test]
fn what_a_full_ring_refuses_is_counted_by_experiment_and_group_over_replacements() {
    let mut daemon = Plan::new("auto", "typical.experiments.json").set("watchdog=0s").prepare();
    daemon.expect("event=ended process=assign");
    // One user is forced into a group.
    let mut file: Value = serde_json::from_slice(&std::fs::read(daemon.experiments()).unwrap()).unwrap();
    let forced: Vec<String> = [&file["experiments"][0]["name"], &file["experiments"][0]["groups"][0]["name"]]
        .map(|name| name.as_str().unwrap().to_owned())
        .into();
    file["experiments"][0]["overrides"] = serde_json::json!({"user_id": {"tester": forced[1]}});
    std::fs::write(daemon.experiments(), file.to_string()).unwrap();
    daemon.start();
    let logger = daemon.child("logger").unwrap();
    signal(logger, Signal::SIGSTOP);
    let mut expected: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    let mut note = |answer: &Value, count: u64| {
        for (experiment, group) in answer["assignments"].as_object().unwrap() {
            let labels = vec![experiment.clone(), group.as_str().unwrap().to_owned()];
            *expected.entry(labels).or_default() += count;
        }
    };
    let refused = |daemon: &Daemon| -> u64 {
        let rings = std::fs::read_dir(daemon.directory.path().join("run/rings")).unwrap();
        let rings = rings.flat_map(|instance| std::fs::read_dir(instance.unwrap().path()).unwrap());
        let regions = rings.map(|ring| Region::open_file(&ring.unwrap().path()).unwrap());
        regions.map(|region| Account::read(region.words()).unwrap().refused_full).sum()
    };
    // Exposures of one size, until there is no room for another.
    let mut client = Client::connect(daemon.assign());
    let small = post("/v1/assign", "{\"units\":{\"user_id\":\"1\"}}");
    let mut answer = Value::Null;
    for _ in 0..10_000 {
        assert!(client.send(small.repeat(20).as_bytes()));
        (0..20).for_each(|_| answer = client.receive().expect("an answer").json());
        if refused(&daemon) > 0 {
            break;
        }
    }
    let count = refused(&daemon);
    assert!(count > 0, "the ring became full");
    note(&answer, count);
    // And larger ones of others, of which there is room for none.
    let filler = "x".repeat(2_000);
    for user in 0..50 {
        let body =
            format!("{{\"units\":{{\"user_id\":\"u-{user}\"}},\"attributes\":{{\"filler\":\"{filler}\"}}}}");
        note(&client.post("/v1/assign", &body).json(), 1);
    }
    // And some for whom an override decides once: that is counted apart.
    let body = format!("{{\"units\":{{\"user_id\":\"tester\"}},\"attributes\":{{\"filler\":\"{filler}\"}}}}");
    for _ in 0..3 {
        let mut answer = client.post("/v1/assign", &body).json();
        let group = answer["assignments"].as_object_mut().unwrap().remove(&forced[0]);
        assert_eq!(group, Some(forced[1].as_str().into()));
        note(&answer, 1);
    }
    assert_eq!(refused(&daemon), count + 53);
    let lost = |daemon: &Daemon| by_labels(daemon, "splitd_assignments_lost_total");
    assert_eq!(by_labels(&daemon, "splitd_assignments_forced_lost_total"), [(forced, 3)].into());
    assert_eq!(lost(&daemon), expected);
    daemon.kill_child("assign/0");
    assert_eq!(lost(&daemon), expected, "a killed worker's stay");
    assert_eq!(daemon.order(&["reload", "--workers", "--wait"]).0, Some(0));
    assert_eq!(lost(&daemon), expected, "and a replaced one's");
    signal(logger, Signal::SIGCONT);
    wait_until("the books", || daemon.metric("splitd_exposures_lost_total{reason=\"full\"}") == count + 53);
    let assigned = by_labels(&daemon, "splitd_assignments_total");
    assert!(expected.iter().all(|(labels, lost)| assigned[labels] >= *lost));
    assert!(assigned.values().sum::<u64>() > expected.values().sum(), "those before were recorded");
}

#[test]
fn assignments_are_counted_by_experiment_and_group_over_reloads_and_deaths() {
    let mut daemon = Plan::new("epoll", "typical.experiments.json").workers(2).start();
    daemon.expect("event=ended process=assign");
    let mut expected: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    let ask = |daemon: &Daemon, expected: &mut BTreeMap<Vec<String>, u64>| {
        for body in lines("typical.requests.ndjson") {
            // A connection each, so that both workers have some.
            let answer = Client::connect(daemon.assign()).post("/v1/assign", &body);
            for (experiment, group) in answer.json()["assignments"].as_object().unwrap() {
                let labels = vec![experiment.clone(), group.as_str().unwrap().to_owned()];
                *expected.entry(labels).or_default() += 1;
            }
        }
        assert_eq!(by_labels(daemon, "splitd_assignments_total"), *expected);
    };
    ask(&daemon, &mut expected);
    assert!(expected.len() > 100, "{expected:?}");
    daemon.kill_child("assign/0");
    ask(&daemon, &mut expected);
    // Another order, other experiments beside: a plan in which every index is another.
    let path = daemon.directory.path().join("experiments.json");
    let mut file: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    file["version"] = "turned".into();
    file["experiments"].as_array_mut().unwrap().reverse();
    file["experiments"].as_array_mut().unwrap().truncate(60);
    std::fs::write(&path, file.to_string()).unwrap();
    signal(daemon.master_pid(), Signal::SIGHUP);
    wait_until("the plan at both workers", || {
        daemon.log().contains("event=plan_in_force version=\"turned\"")
    });
    ask(&daemon, &mut expected);
    assert_eq!(readings(&daemon)["splitd_plan_info{version=\"turned\"}"], 1.0);
    assert_eq!(readings(&daemon)["splitd_reloads_total{result=\"taken\"}"], 2.0);
    let body = r#"{"units":{"user_id":"1"},"attributes":{"age":"x","city":7,"sex":null}}"#;
    for _ in 0..3 {
        assert_eq!(Client::connect(daemon.assign()).post("/v1/assign", body).status, 200);
    }
    let faults = by_labels(&daemon, "splitd_attribute_faults_total");
    assert_eq!(faults, [(vec!["age".to_owned()], 3), (vec!["city".to_owned()], 3)].into());
}

/// Prometheus' own checker, where `scripts/test` has put it, or on the path.
fn promtool() -> Option<Command> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/prometheus/usr/bin/promtool");
    [beside, "promtool"].into_iter().find_map(|path| {
        Command::new(path).arg("--version").output().ok()?;
        Some(Command::new(path))
    })
}

#[test]
fn promtool_finds_nothing_to_say_of_the_metrics() {
    let Some(mut promtool) = promtool() else {
        eprintln!("skipped: promtool is not here");
        return;
    };
    let daemon = Plan::new("epoll", "typical.experiments.json").start();
    let body = r#"{"units":{"user_id":"1"},"attributes":{"age":"x"}}"#;
    assert_eq!(Client::connect(daemon.assign()).post("/v1/assign", body).status, 200);
    let text = Client::connect(daemon.admin()).get("/metrics").body;
    let mut child = promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn open_metrics_is_given_to_whom_accepts_it() {
    let daemon = Plan::new("epoll", "typical.experiments.json").start();
    let mut client = Client::connect(daemon.admin());
    let mut get = |accept: &str| {
        client.send(format!("GET /metrics HTTP/1.1\r\nHost: t\r\nAccept: {accept}\r\n\r\n").as_bytes());
        client.receive().unwrap()
    };
    // What Prometheus 2.42 sends.
    let open = get(
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    );
    assert!(open.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(open.body.ends_with("\n# EOF\n"));
    // Every sample is of the family before it; a counter's has its suffix, its family none.
    let mut family = (String::new(), String::new());
    for line in open.body.lines() {
        if let Some(words) = line.strip_prefix("# TYPE ") {
            let (name, kind) = words.split_once(' ').unwrap();
            assert!(!name.ends_with("_total"), "{line}");
            family = (name.to_owned(), kind.to_owned());
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let suffixes: &[&str] = match family.1.as_str() {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.iter().any(|suffix| name == family.0.clone() + suffix), "{line} in {family:?}");
        }
    }
    for accept in ["text/plain", "*/*", "application/openmetrics-text;q=0"] {
        assert!(
            get(accept).header("content-type").unwrap().starts_with("text/plain; version=0.0.4"),
            "{accept}"
        );
    }
}
