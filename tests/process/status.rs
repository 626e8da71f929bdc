//! `splitd status`, `splitd top`, `/v1/status` and its page, over a real daemon.

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Client, Daemon, Plan, signal, splitd, wait_until};

fn runtime_dir(daemon: &Daemon) -> String {
    format!("runtime_dir={}", daemon.directory.path().join("run").display())
}

fn status(daemon: &Daemon, more: &[&str]) -> Output {
    splitd().arg("status").args(more).args(["--set", &runtime_dir(daemon)]).output().unwrap()
}

fn status_json(daemon: &Daemon) -> (Option<i32>, Value) {
    let output = status(daemon, &["--json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("JSON"))
}

fn healths(json: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let processes = json["processes"].as_array().unwrap();
    processes.iter().map(|process| (text(&process["name"]), text(&process["health"]))).collect()
}

/// The whole instance stands still, the master first so that it replaces nobody.
fn stop_all(daemon: &Daemon) -> Vec<i32> {
    let mut pids = vec![daemon.master_pid()];
    pids.extend(daemon.children().into_iter().map(|(pid, _)| pid));
    for &pid in &pids {
        signal(pid, Signal::SIGSTOP);
    }
    pids
}

/// And goes on, the master last so that it finds everybody well.
fn go_on(daemon: &Daemon, pids: &[i32]) {
    for &pid in pids[1..].iter().rev() {
        signal(pid, Signal::SIGCONT);
    }
    wait_until("everybody turns", || {
        healths(&status_json(daemon).1).iter().all(|(_, health)| health == "running")
    });
    signal(pids[0], Signal::SIGCONT);
}

#[test]
fn status_says_the_same_from_memory_and_by_http() {
    let mut daemon = Plan::new("auto", "edge.experiments.json").workers(2).start();
    let mut client = Client::connect(daemon.assign());
    for _ in 0..5 {
        assert_eq!(client.get("/v1/assign?user_id=42").status, 200);
    }
    let mut json = Value::Null;
    wait_until("the logger has delivered", || {
        json = status_json(&daemon).1;
        json["metrics"]["splitd_exposures_delivered_total"][0]["value"] == 5
    });
    let (code, json) = status_json(&daemon);
    let names = ["master", "logger", "assign/0", "assign/1", "bulk/0", "admin/0"];
    assert_eq!(healths(&json), names.map(|name| (name.to_owned(), "running".to_owned())));
    assert_eq!(
        (code, &json["state"], &json["complaints"]),
        (Some(0), &"ready".into(), &Value::Array(vec![]))
    );
    assert_eq!(json["experiments"]["version"], "edge-1");
    assert_eq!((&json["law"]["committed"], &json["law"]["unaccounted"]), (&5.into(), &0.into()));
    assert!(json["experiments"]["age_s"].as_f64().unwrap() < 600.0);
    let mut pids: Vec<i64> =
        json["processes"].as_array().unwrap().iter().map(|p| p["pid"].as_i64().unwrap()).collect();
    let mut real: Vec<i64> = daemon.children().into_iter().map(|(pid, _)| i64::from(pid)).collect();
    real.push(daemon.master_pid().into());
    real.retain(|pid| pids.contains(pid)); // the loader has no block
    pids.sort_unstable();
    real.sort_unstable();
    assert_eq!(pids, real);
    let rings = json["rings"].as_array().unwrap();
    assert_eq!(rings.len(), 6, "two for each worker that records");
    assert_eq!(rings.iter().map(|ring| ring["consumed"].as_u64().unwrap()).sum::<u64>(), 5);
    let log = json["log"].as_array().unwrap();
    assert!(log.iter().any(|line| line["text"].as_str().unwrap().starts_with("event=experiments_taken")));

    let response = Client::connect(daemon.admin()).get("/v1/status");
    assert_eq!((response.status, response.header("Cache-Control")), (200, Some("no-store")));
    let by_http = response.json();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&by_http), keys(&json));
    assert_eq!(healths(&by_http), healths(&json));
    assert_eq!(by_http["rings"].as_array().map(Vec::len), Some(6));
    assert_eq!(Client::connect(daemon.assign()).get("/v1/status").status, 404, "not in this pool");

    let text = status(&daemon, &[]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains(": ready, up ") && text.contains("experiments edge-1"), "{text}");
    assert_eq!(daemon.stop(), Some(0));
    let (code, json) = status_json(&daemon);
    assert_eq!((code, &json["state"]), (Some(1), &"gone".into()), "the memory outlives it");
}

/// An experiment of ten buckets: so many for `small`, the rest for `large`.
fn uneven(version: &str, small: u32) -> String {
    let large = 10 - small;
    format!(
        r#"{{"version": "{version}", "layers": {{"l": {{"salt": "s", "unit": "user_id", "buckets": 10}}}},
            "experiments": [{{"id": 1, "run_id": 1, "name": "sizes", "layer": "l",
                "groups": [{{"name": "small", "blocks": [[0, {small}]]}}, {{"name": "large", "blocks": [[{small}, {large}]]}}],
                "overrides": {{"user_id": {{"tester": "small"}}}}}}]}}"#
    )
}

fn start_uneven() -> Daemon {
    let directory = tempfile::tempdir().unwrap();
    let experiments = directory.path().join("experiments.json");
    std::fs::write(&experiments, uneven("uneven-1", 1)).unwrap();
    Plan { experiments, ..Plan::new("auto", "").workers(2) }.start()
}

/// Asks for every user; how many are in `small`.
fn ask(daemon: &Daemon, users: impl Iterator<Item = String>) -> u64 {
    let mut client = Client::connect(daemon.assign());
    let mut is_small = |user: &String| {
        let answer = client.get(&format!("/v1/assign?user_id={user}"));
        answer.json()["assignments"]["sizes"] == "small"
    };
    users.filter(|user| is_small(user)).count() as u64
}

#[test]
fn assignments_are_held_against_the_shares_that_groups_should_have() {
    let daemon = start_uneven();
    let mut found = Value::Null;
    let mut wait_for = |count: u64| {
        wait_until(&format!("{count} are counted"), || {
            found = status_json(&daemon).1["assignments"]["experiments"][0].clone();
            found["count"] == count
        });
        found.clone()
    };
    let small = ask(&daemon, (0..1000).map(|user| user.to_string()));
    // Forced ones say nothing of the buckets.
    assert_eq!(ask(&daemon, (0..50).map(|_| "tester".to_owned())), 50);
    let even = wait_for(1000);
    let groups = serde_json::json!([
        {"group": "small", "count": small, "share": small as f64 / 1000.0, "expected": 0.1},
        {"group": "large", "count": 1000 - small, "share": (1000 - small) as f64 / 1000.0, "expected": 0.9},
    ]);
    assert_eq!((&even["experiment"], &even["groups"]), (&"sizes".into(), &groups));
    assert_eq!(even["mismatch"], false, "{even}");

    // A unit that makes much of the traffic.
    let robot = (0..).map(|user| user.to_string()).find(|user| ask(&daemon, [user.clone()].into_iter()) == 1);
    let robot = robot.unwrap();
    let asked = 1000 + robot.parse::<u64>().unwrap() + 1;
    assert_eq!(ask(&daemon, (0..200).map(|_| robot.clone())), 200);
    let uneven_now = wait_for(asked + 200);
    assert!(uneven_now["mismatch"] == true && uneven_now["p"].as_f64().unwrap() < 0.001, "{uneven_now}");
    let text = String::from_utf8(status(&daemon, &[]).stdout).unwrap();
    assert!(text.contains("! shares of sizes are not as expected, p "), "{text}");
    let by_http = Client::connect(daemon.admin()).get("/v1/status").json();
    assert_eq!(by_http["assignments"]["experiments"][0], uneven_now);

    // Other blocks: what was assigned by the old ones is not held against them.
    std::fs::write(daemon.directory.path().join("experiments.json"), uneven("uneven-2", 4)).unwrap();
    signal(daemon.master_pid(), Signal::SIGHUP);
    let fresh = wait_for(0);
    assert_eq!((&fresh["groups"][0]["expected"], &fresh["mismatch"]), (&0.4.into(), &false.into()));
    let small = ask(&daemon, (0..100).map(|user| user.to_string()));
    assert_eq!(wait_for(100)["groups"][0]["count"], small);
}

#[test]
fn status_tells_of_an_instance_that_stands_still() {
    let mut daemon = Plan::new("auto", "edge.experiments.json").start();
    let pids = stop_all(&daemon);
    let mut json = Value::Null;
    wait_until("four have stood still for long", || {
        json = status_json(&daemon).1;
        healths(&json).iter().filter(|(_, health)| health == "stuck").count() == 4
    });
    let complaints = json["complaints"].to_string();
    assert!(
        complaints.contains("assign/0 (pid ") && complaints.contains("has not turned for"),
        "{complaints}"
    );
    let output = status(&daemon, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("STUCK"));
    go_on(&daemon, &pids);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn status_tells_that_the_master_was_killed_and_who_serves_on() {
    let mut daemon = Plan::new("auto", "edge.experiments.json").start();
    daemon.expect("event=master_gone");
    daemon.kill_master();
    let (code, json) = status_json(&daemon);
    assert_eq!((code, &json["state"]), (Some(1), &"gone".into()));
    let healths = healths(&json);
    assert_eq!(healths[0], ("master".to_owned(), "dead".to_owned()));
    assert!(healths[1..].iter().all(|(_, health)| health == "running"), "{healths:?}");
}

#[test]
fn where_no_instance_is_status_and_top_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let set = format!("runtime_dir={}", directory.path().display());
    let output = splitd().args(["status", "--set", &set]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no instance runs there"));
    std::fs::write(directory.path().join("metrics"), vec![7; 4096]).unwrap();
    let output = splitd().args(["status", "--set", &set]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a metrics region"));
    let output = splitd().args(["top", "--set", &set]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "it is no terminal");
}

/// `splitd top` in a pseudo-terminal, and all that it has drawn.
struct Top {
    child: Child,
    drawn: Arc<Mutex<String>>,
}

impl Top {
    fn start(daemon: &Daemon) -> Option<Top> {
        let top = env!("CARGO_BIN_EXE_splitd");
        let line =
            format!("stty rows 40 cols 150; exec {top} top --interval 100 --set {}", runtime_dir(daemon));
        // util-linux's `script` gives it a terminal of its own.
        let child = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(fault) => {
                eprintln!("skipped: no `script` here ({fault})");
                return None;
            }
        };
        let drawn = Arc::new(Mutex::new(String::new()));
        let (mut stdout, into) = (child.stdout.take().unwrap(), Arc::clone(&drawn));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(size @ 1..) = stdout.read(&mut bytes) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..size]));
            }
        });
        Some(Top { child, drawn })
    }

    fn press(&mut self, key: &str) {
        self.child.stdin.as_mut().unwrap().write_all(key.as_bytes()).unwrap();
    }

    fn wait_for(&self, text: &str) {
        wait_until(&format!("`{text}` on the screen"), || self.drawn.lock().unwrap().contains(text));
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn top_draws_in_a_terminal_also_when_the_daemon_stands_still() {
    let mut daemon = start_uneven();
    let Some(mut top) = Top::start(&daemon) else { return };
    ask(&daemon, (0..100).map(|user| user.to_string()));
    for text in
        ["ready", "uneven-1", "assign/0", "running", "requests/s", "slot", "sizes", "of 10.0 %", "quit"]
    {
        top.wait_for(text);
    }
    let pids = stop_all(&daemon);
    top.wait_for("STUCK");
    top.press("p");
    top.wait_for("PAUSED");
    top.press("q");
    let mut code = None;
    wait_until("its end", || {
        code = top.child.try_wait().unwrap().map(|status| status.code());
        code.is_some()
    });
    assert_eq!(code, Some(Some(0)));
    top.wait_for("\x1b[?1049l"); // the terminal is as it was
    go_on(&daemon, &pids);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn the_page_is_one_file_that_asks_nobody_else() {
    let daemon = Plan::new("auto", "edge.experiments.json").start();
    let response = Client::connect(daemon.admin()).get("/");
    assert_eq!(response.header("Content-Type"), Some("text/html; charset=utf-8"));
    let policy = response.header("Content-Security-Policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
    let page = response.body.replace("http://www.w3.org/2000/svg", ""); // a name, not an address
    for elsewhere in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(elsewhere), "the page has `{elsewhere}`");
    }
    assert_eq!(Client::connect(daemon.assign()).get("/").status, 404, "not in this pool");
}

#[test]
fn the_page_draws_in_a_browser() {
    let daemon = start_uneven();
    ask(&daemon, (0..200).map(|user| user.to_string()));
    wait_until("all are delivered", || daemon.metric("splitd_exposures_delivered_total") == 200);
    let profile = tempfile::tempdir().unwrap();
    let browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--virtual-time-budget=6000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://127.0.0.1:{}/", daemon.admin()))
        .stderr(Stdio::null())
        .output();
    let output = match browser {
        Ok(output) => output,
        Err(fault) => return eprintln!("skipped: no chromium here ({fault})"),
    };
    let dom = String::from_utf8_lossy(&output.stdout);
    for part in [
        r#"<span class="badge ready" id="state">ready</span>"#,
        "uneven-1",
        "assign/0",
        "assign/1",
        "admin/0",
        r#"<span class="state running">running</span>"#,
        "event=experiments_taken",
        "delivered  200",
        r#"<h3>sizes<span>200</span></h3>"#,
        "% of 10.0 %",
    ] {
        assert!(dom.contains(part), "`{part}` is not in the page:\n{dom}");
    }
    let polls =
        dom.split("data-polls=\"").nth(1).and_then(|rest| rest.split('"').next()).map(str::parse::<u32>);
    assert!(polls.is_some_and(|polls| polls.unwrap() >= 2), "it goes on asking: {dom}");
}
