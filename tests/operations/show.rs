//! What is promised of reloads, replacements and kills, shown under load: a small
//! part of it with every run of the tests, the whole by `scripts/soak`.
//!
//! ```text
//! scripts/soak show          50 reloads, 25 replacements, 3 upgrades at 5,000 requests/s, through HAProxy and directly
//! scripts/soak run [S]       20,000 requests/s over 1,024 connections, reloads, a KILL a minute
//! scripts/soak spread        how evenly HAProxy's pool falls on 8 workers
//! scripts/soak reload        service times with reloads of 10,000 experiments and without
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::generator::{Generator, Work};
use crate::plans;
use crate::proxy::{Proxy, Retries, has_haproxy};
use crate::support::{Client, Daemon, Plan, signal, wait_until};

fn generator(port: u16, connections: usize, rate: f64) -> Generator {
    Generator::start(Work { port, connections, rate, network: None })
}

/// From the environment, for longer runs than a test's.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// The same experiments under another version.
fn reload(daemon: &Daemon, number: u64) {
    let text = fs::read_to_string(daemon.experiments()).unwrap();
    let from = text.find("\"version\"").expect("a version") + "\"version\"".len();
    let begin = from + text[from..].find('"').unwrap() + 1;
    let end = begin + text[begin..].find('"').unwrap();
    daemon.replace_experiments(&format!("{}edge-{number}{}", &text[..begin], &text[end..]));
    let (code, said) = daemon.order(&["reload", "--wait"]);
    assert_eq!(code, Some(0), "{said}");
}

fn replace_workers(daemon: &Daemon) {
    let (code, said) = daemon.order(&["reload", "--workers", "--wait"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn reloads_replacements_and_upgrades_fail_nothing_directly_nor_behind_haproxy_without_retries() {
    if !has_haproxy() {
        return;
    }
    let (reloads, replacements) = (number("SPLITD_SHOW_RELOADS", 6), number("SPLITD_SHOW_REPLACEMENTS", 2));
    let upgrades = number("SPLITD_SHOW_UPGRADES", 1);
    let rate = number("SPLITD_SHOW_RATE", 400) as f64;
    let mut daemon = Plan::new("auto", "edge.experiments.json").workers(2).set("drain_idle=1s").start();
    let proxy = Proxy::start(&[&daemon], Retries::None);
    let (behind, direct) = (generator(proxy.port, 32, rate), generator(daemon.assign(), 32, rate));
    behind.more(rate as u64 / 2);
    for step in 0..reloads.max(replacements) {
        if step < reloads {
            reload(&daemon, step + 2);
        }
        if step < replacements {
            replace_workers(&daemon);
        }
        if step < upgrades {
            upgrade(&daemon);
        }
        behind.more(rate as u64 / 10);
        direct.more(rate as u64 / 10);
    }
    let (behind, direct) = (behind.stop(), direct.stop());
    println!("{reloads} reloads, {replacements} times every worker replaced, {upgrades} upgrades");
    println!("behind HAProxy: {behind}\ndirectly: {direct}");
    assert_eq!((behind.failed(), direct.failed()), (0, 0), "behind HAProxy {behind}; directly {direct}");
    assert_eq!((proxy.count("wretr"), proxy.count("wredis"), direct.turned_away), (0, 0, 0));
    assert!(daemon.metric("splitd_reloads_total") >= reloads);
    drop(proxy);
    assert_eq!(daemon.stop(), Some(0));
}

fn upgrade(daemon: &Daemon) {
    let done = || daemon.log().matches("event=workers_replaced").count();
    let before = done();
    signal(daemon.master_pid(), Signal::SIGUSR2);
    wait_until("everybody to be replaced", || done() > before);
}

/// Memory (proportional, KiB) and descriptors of each process, by name.
fn footprint(daemon: &Daemon) -> BTreeMap<String, (u64, u64)> {
    let master = (daemon.master_pid(), "master".to_owned());
    let all = daemon.children().into_iter().chain([master]);
    all.filter_map(|(pid, name)| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        let kib = line.split_whitespace().next()?.parse().ok()?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
        Some((name, (kib, descriptors)))
    })
    .collect()
}

#[test]
#[ignore = "a minute or more, and the whole machine: scripts/soak run"]
fn soak() {
    let seconds = number("SPLITD_SOAK_SECONDS", 60);
    let (rate, connections) = (number("SPLITD_SOAK_RATE", 20_000), number("SPLITD_SOAK_CONNECTIONS", 1_024));
    let kill_every = Duration::from_secs(number("SPLITD_SOAK_KILL_SECONDS", 60).min(seconds / 3).max(1));
    let mut daemon = Plan::new("auto", "edge.experiments.json")
        .workers(2)
        .set("logger.ring_size=64MiB")
        .set("sink.size_max=64MiB")
        .set("sink.file_size_max=8MiB")
        .start();
    for expected in ["event=ended", "event=restart_waits", "event=files_evicted", "evicted"] {
        daemon.expect(expected);
    }
    let load = generator(daemon.assign(), connections as usize, rate as f64);
    let begin = Instant::now();
    let (mut reloads, mut kills, mut killed_at) = (0, 0, begin);
    let mut early: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    println!("  seconds  answered  process: KiB, descriptors …");
    while begin.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_secs(5));
        reload(&daemon, 2 + reloads);
        reloads += 1;
        // Well after a kill, so that everybody is there and has its memory.
        if killed_at.elapsed() > kill_every / 2 || kills == 0 {
            let now = footprint(&daemon);
            let text: Vec<String> =
                now.iter().map(|(name, (kib, count))| format!("{name}: {kib}, {count}")).collect();
            println!("  {:7}  {:8}  {}", begin.elapsed().as_secs(), load.answered(), text.join("  "));
            if begin.elapsed() > Duration::from_secs(seconds / 4) {
                for (name, value) in now {
                    early.entry(name).or_insert(value);
                }
            }
        }
        if killed_at.elapsed() > kill_every {
            let name = ["assign/0", "logger", "assign/1"][kills as usize % 3];
            println!("  {:7}  KILL {name}", begin.elapsed().as_secs());
            daemon.kill_child(name);
            (kills, killed_at) = (kills + 1, Instant::now());
        }
    }
    let late = footprint(&daemon);
    let outcome = load.stop();
    let elapsed = begin.elapsed().as_secs_f64();
    println!(
        "{:.0} requests/s for {elapsed:.0} s, {reloads} reloads, {kills} KILLs",
        outcome.answered as f64 / elapsed
    );
    println!("{outcome}");
    // A kill loses what was under way on that worker's connections.
    assert!(outcome.unanswered <= kills * connections, "{outcome}");
    assert_eq!(outcome.refused, BTreeMap::new(), "{outcome}");
    for (name, (kib, descriptors)) in &early {
        let Some((kib_late, descriptors_late)) = late.get(name) else { panic!("{name} is missing") };
        assert!(*kib_late <= kib + kib / 5 + 8_192, "{name}: {kib} KiB early, {kib_late} late");
        assert!(
            *descriptors_late <= descriptors + connections + 16,
            "{name}: {descriptors} descriptors early, {descriptors_late} late"
        );
    }
    assert_eq!(daemon.stop(), Some(0));
    println!("exposures that no ring took: {}", daemon.lost());
}

#[test]
#[ignore = "a table and no check: scripts/soak spread"]
fn spread() {
    if !has_haproxy() {
        return;
    }
    let rounds = number("SPLITD_SPREAD_ROUNDS", 7);
    println!(
        "connections of the busiest of 8 workers, divided by an even share; median of {rounds} rounds (least to most)"
    );
    println!("connections   one port, by the kernel's hash   a port for each, leastconn");
    for connections in [16, 32, 64] {
        let mut cells = Vec::new();
        for ports in ["shared", "per_worker"] {
            let mut found: Vec<f64> = (0..rounds).map(|_| spread_once(ports, connections)).collect();
            found.sort_by(f64::total_cmp);
            let (least, most) = (found[0], found[found.len() - 1]);
            cells.push(format!("{:.2} ({least:.2} to {most:.2})", found[found.len() / 2]));
        }
        println!("{connections:11}   {:30}   {}", cells[0], cells[1]);
    }
}

fn spread_once(ports: &str, connections: usize) -> f64 {
    let daemon = Plan::new("epoll", "edge.experiments.json")
        .workers(8)
        .set(&format!("pool.assign.ports={ports}"))
        .start();
    let proxy = Proxy::start(&[&daemon], Retries::None);
    // More than can be answered: every client always waits for an answer, so
    // that the pool has a connection for each.
    let load = generator(proxy.port, connections, 1e6);
    load.more(20_000);
    let text = Client::connect(daemon.admin()).get("/metrics").body;
    let ratio =
        text.lines().find_map(|line| line.strip_prefix("splitd_connections_busiest_ratio{pool=\"assign\"} "));
    let ratio = ratio.expect("the metric").parse().unwrap();
    drop(load.stop());
    ratio
}

#[test]
#[ignore = "half a minute on a quiet machine: scripts/soak reload"]
fn reload_pauses() {
    let shape = plans::Shape::of(10_000);
    let text = plans::experiments_file(&shape);
    let rounds = number("SPLITD_RELOAD_ROUNDS", 5);
    let daemon = Plan::new("auto", "edge.experiments.json").set("sink.type=none").start();
    daemon.replace_experiments(&text);
    let (code, said) = daemon.order(&["reload", "--wait"]);
    assert_eq!(code, Some(0), "{said}");
    let load = generator(daemon.assign(), 16, number("SPLITD_RELOAD_RATE", 200) as f64);
    load.more(400);
    let slow = || {
        let text = Client::connect(daemon.admin()).get("/metrics").body;
        let count = |le: &str| -> u64 {
            let lines = text.lines().filter(|line| {
                line.starts_with("splitd_request_service_seconds_bucket{pool=\"assign\"") && line.contains(le)
            });
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
        };
        (count("le=\"+Inf\""), count("le=\"0.001\""))
    };
    println!("10,000 experiments, by the workers' own histogram: requests of more than 1 ms of service");
    for round in 0..rounds {
        let mut row = Vec::new();
        for with in [false, true] {
            let before = slow();
            let begin = Instant::now();
            let mut reloads = 0;
            while begin.elapsed() < Duration::from_secs(3) {
                if with {
                    reload(&daemon, 100 + round * 100 + reloads);
                    reloads += 1;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            let after = slow();
            let (all, quick) = (after.0 - before.0, after.1 - before.1);
            row.push(format!("{} of {all} with {reloads} reloads", all - quick));
        }
        println!("  round {round}: {}; {}", row[0], row[1]);
    }
    println!("{}", load.stop());
}
