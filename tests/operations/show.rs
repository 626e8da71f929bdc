//! What is promised of reloads, replacements and kills, shown under load: a small
//! part of it with every run of the tests, the whole by `scripts/soak`, which says
//! what there is. A promise that does not hold is named.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use splitd::metrics::{Family, Process, ROUTES, Table, histogram::upper_edge_ns};
use splitd::sys::region::Region;

use crate::generator::{Generator, Work};
use crate::plans;
use crate::proxy::{Proxy, Retries, has_haproxy};
use crate::support::{Client, Daemon, Plan, signal, wait_until};

fn generator(port: u16, connections: usize, rate: f64) -> Generator {
    Generator::start(Work { port, connections, rate, network: None })
}

/// From the environment, for longer runs than a test's.
pub fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Requests a second, directly and as many through HAProxy.
pub fn rate(otherwise: u64) -> f64 {
    number("SPLITD_SHOW_RATE", otherwise) as f64
}

/// Promises, as they are found to hold or not.
#[derive(Default)]
struct Promises {
    broken: Vec<String>,
}

impl Promises {
    fn hold(&mut self, promise: &str, held: bool, found: impl Display) {
        println!("  {} {promise}: {found}", if held { "kept  " } else { "BROKEN" });
        if !held && !self.broken.iter().any(|broken| broken == promise) {
            self.broken.push(promise.to_owned());
        }
    }

    fn end(self) {
        assert!(self.broken.is_empty(), "BROKEN: {}", self.broken.join("; "));
    }
}

/// The same experiments under another version.
fn reload(daemon: &Daemon, number: u64) {
    let text = fs::read_to_string(daemon.experiments()).unwrap();
    let from = text.find("\"version\"").expect("a version") + "\"version\"".len();
    let begin = from + text[from..].find('"').unwrap() + 1;
    let end = begin + text[begin..].find('"').unwrap();
    daemon.replace_experiments(&format!("{}edge-{number}{}", &text[..begin], &text[end..]));
    order(daemon, &["reload", "--wait"]);
}

fn order(daemon: &Daemon, arguments: &[&str]) {
    let (code, said) = daemon.order(arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
}

fn upgrade(daemon: &Daemon) {
    let done = || daemon.log().matches("event=workers_replaced").count();
    let before = done();
    signal(daemon.master_pid(), Signal::SIGUSR2);
    wait_until("everybody to be replaced", || done() > before);
}

#[test]
fn reloads_replacements_and_upgrades_fail_nothing_directly_nor_behind_haproxy_without_retries() {
    if !has_haproxy() {
        return;
    }
    let (reloads, replacements) = (number("SPLITD_SHOW_RELOADS", 6), number("SPLITD_SHOW_REPLACEMENTS", 2));
    let upgrades = number("SPLITD_SHOW_UPGRADES", 1);
    let mut daemon = Plan::new("auto", "edge.experiments.json").workers(2).set("drain_idle=1s").start();
    let proxy = Proxy::start(&[&daemon], Retries::None);
    let (behind, direct) = (generator(proxy.port, 32, rate(400)), generator(daemon.assign(), 32, rate(400)));
    behind.go_on(0.5);
    for step in 0..reloads.max(replacements) {
        if step < reloads {
            reload(&daemon, step + 2);
        }
        if step < replacements {
            order(&daemon, &["reload", "--workers", "--wait"]);
        }
        if step < upgrades {
            upgrade(&daemon);
        }
        behind.go_on(0.1);
        direct.go_on(0.1);
    }
    let repeated = proxy.count("wretr") + proxy.count("wredis");
    let (behind, direct) = (behind.stop(), direct.stop());
    println!("{reloads} reloads, {replacements} times every worker replaced, {upgrades} upgrades");
    let mut promises = Promises::default();
    promises.hold("nothing fails behind HAProxy", behind.failed() == 0, &behind);
    promises.hold("HAProxy repeats nothing", repeated == 0, repeated);
    promises.hold("nothing fails directly", direct.failed() == 0, &direct);
    promises.hold("nobody is turned away", direct.turned_away == 0, direct.turned_away);
    assert!(daemon.metric("splitd_reloads_total") >= reloads);
    drop(proxy);
    assert_eq!(daemon.stop(), Some(0));
    promises.end();
}

/// Kills a process and says how many requests failed of it; none may have failed
/// since the kill before, which is what `failed` was then.
fn kill(
    daemon: &Daemon,
    name: &str,
    load: &Generator,
    failed: &mut u64,
    loses_max: u64,
    promises: &mut Promises,
) {
    let between = load.failed() - *failed;
    promises.hold("nothing fails but by a KILL of a worker", between == 0, between);
    daemon.kill_child(name);
    load.go_on(0.5);
    let lost = load.failed() - *failed - between;
    *failed = load.failed();
    let promise = match loses_max {
        0 => format!("a KILL of {name} loses nothing"),
        _ => "a KILL of a worker loses at most what was under way on its connections".to_owned(),
    };
    promises.hold(&promise, lost <= loses_max, format!("{lost} of {loses_max} connections"));
}

#[test]
fn a_killed_worker_loses_what_was_under_way_and_a_killed_master_or_logger_nothing() {
    const CONNECTIONS: usize = 32;
    let mut daemon = Plan::new("auto", "edge.experiments.json").workers(2).set("orphan_timeout=1h").start();
    for expected in
        ["event=ended", "event=restart_waits", "event=master_gone", "event=takeover", "event=torn_file_cut"]
    {
        daemon.expect(expected);
    }
    let load = generator(daemon.assign(), CONNECTIONS, rate(400));
    load.go_on(0.5);
    let (mut promises, mut failed) = (Promises::default(), 0);
    for _ in 0..number("SPLITD_SHOW_KILLS", 1) {
        kill(&daemon, "assign/0", &load, &mut failed, CONNECTIONS as u64, &mut promises);
        kill(&daemon, "logger", &load, &mut failed, 0, &mut promises);
        daemon.kill_master();
        daemon.start();
        daemon.wait_for_orphans();
        load.go_on(0.5);
        let lost = load.failed() - failed;
        promises.hold("a KILL of the master loses nothing", lost == 0, lost);
    }
    let outcome = load.stop();
    println!("{outcome}");
    promises.hold("nobody is turned away", outcome.turned_away == 0, outcome.turned_away);
    promises.hold("no answer but 200", outcome.refused.is_empty(), &outcome);
    assert_eq!(daemon.stop(), Some(0));
    promises.end();
}

/// What a process has of the machine.
#[derive(Debug, Clone, Copy)]
struct Footprint {
    /// Its own memory, in KiB.
    own: u64,
    /// With its share of what it maps with others.
    proportional: u64,
    mappings: u64,
    /// Descriptors, but for sockets.
    descriptors: u64,
    sockets: u64,
}

impl Footprint {
    fn of(pid: i32) -> Option<Footprint> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let kib = |name: &str| -> Option<u64> {
            rollup.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.filter_map(|entry| {
            Some(fs::read_link(entry.ok()?.path()).ok()?.to_string_lossy().starts_with("socket:"))
        });
        let (sockets, descriptors): (Vec<bool>, Vec<bool>) = descriptors.partition(|is_socket| *is_socket);
        Some(Footprint {
            own: kib("Pss_Anon:")?,
            proportional: kib("Pss:")?,
            mappings: fs::read_to_string(format!("/proc/{pid}/maps")).ok()?.lines().count() as u64,
            descriptors: descriptors.len() as u64,
            sockets: sockets.len() as u64,
        })
    }
}

impl Display for Footprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Footprint { own, proportional, mappings, descriptors, sockets } = self;
        write!(f, "{own} of {proportional} KiB in {mappings}, {descriptors} + {sockets}")
    }
}

/// By name.
fn footprints(daemon: &Daemon) -> BTreeMap<String, Footprint> {
    let master = (daemon.master_pid(), "master".to_owned());
    let all = daemon.children().into_iter().chain([master]);
    all.filter_map(|(pid, name)| Some((name, Footprint::of(pid)?))).collect()
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
    let (mut promises, mut failed) = (Promises::default(), 0);
    let (mut reloads, mut kills, mut killed_at) = (0, 0, begin);
    let mut early: BTreeMap<String, Footprint> = BTreeMap::new();
    let mut late = early.clone();
    println!("  seconds  answered  process: own of proportional memory in mappings, descriptors + sockets …");
    while begin.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_secs(5));
        reload(&daemon, 2 + reloads);
        reloads += 1;
        // Well after a kill, so that everybody is there and has its memory.
        if killed_at.elapsed() > kill_every / 2 {
            let now = footprints(&daemon);
            let text: Vec<String> = now.iter().map(|(name, has)| format!("{name}: {has}")).collect();
            println!("  {:7}  {:8}  {}", begin.elapsed().as_secs(), load.answered(), text.join("  "));
            if begin.elapsed() > Duration::from_secs(seconds / 4) {
                for (name, has) in &now {
                    early.entry(name.clone()).or_insert(*has);
                }
            }
            late = now;
        }
        if killed_at.elapsed() > kill_every {
            let name = ["assign/0", "logger", "assign/1"][kills % 3];
            println!("  {:7}  KILL {name}", begin.elapsed().as_secs());
            let loses_max = if name == "logger" { 0 } else { connections };
            kill(&daemon, name, &load, &mut failed, loses_max, &mut promises);
            (kills, killed_at) = (kills + 1, Instant::now());
        }
    }
    let unaccounted = daemon.metric("splitd_exposures_unaccounted");
    let after = load.failed() - failed;
    let outcome = load.stop();
    let elapsed = begin.elapsed().as_secs_f64();
    println!("{reloads} reloads and {kills} KILLs in {elapsed:.0} s; {outcome}");
    promises.hold("nothing fails but by a KILL of a worker", after == 0, after);
    promises.hold("no answer but 200", outcome.refused.is_empty(), &outcome);
    promises.hold("nobody is turned away", outcome.turned_away == 0, outcome.turned_away);
    let served = outcome.answered as f64 / elapsed;
    let promise = format!("{rate} requests/s are served");
    promises.hold(&promise, served > 0.99 * rate as f64, format!("{served:.0}"));
    promises.hold("every exposure is accounted for", unaccounted == 0, unaccounted);
    for (name, then) in &early {
        let Some(now) = late.get(name) else { panic!("{name} is missing") };
        let found = format!("{then} early, {now} late");
        promises.hold(&format!("the memory of {name} is flat"), is_flat(then, now), &found);
        promises.hold(
            &format!("the descriptors of {name} are flat"),
            now.descriptors <= then.descriptors + 2,
            &found,
        );
    }
    let sockets: u64 = late.values().map(|has| has.sockets).sum();
    let most = connections + 128;
    promises.hold(
        "no connection is left open",
        sockets <= most,
        format!("{sockets} sockets, at most {most}"),
    );
    assert_eq!(daemon.stop(), Some(0));
    println!("exposures that no ring took: {}", daemon.lost());
    promises.end();
}

/// A byte lost with eight requests makes 2 MiB in a quarter of an hour at 20,000/s, and a
/// plan that is not given back a mapping every 5 s; an allocator that warms up makes some
/// 5. Shares of rings come and go with those who map them, by some 12 MiB at a logger's
/// death.
fn is_flat(then: &Footprint, now: &Footprint) -> bool {
    now.own <= then.own + 2_048
        && now.mappings <= then.mappings + 16
        && now.proportional <= then.proportional + then.proportional / 5 + 8_192
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

/// Requests that the pool `assign` has answered, and those of them that took more
/// than 1 ms: by the workers' own histogram, from the bucket on that 1 ms is in,
/// which begins at 0.983 ms.
fn served(region: &Region) -> (u64, u64) {
    let table = Table::attach(region.words()).unwrap();
    let mut served = (0, 0);
    let of_pool = |block: &splitd::metrics::Block<'_>| {
        block.process() == Some(Process::Worker) && block.name() == "assign"
    };
    for block in table.blocks().filter(of_pool) {
        for route in 0..ROUTES.len() {
            for (bucket, count) in block.histogram(Family::ServiceTime, route).counts.iter().enumerate() {
                served.0 += count;
                let slow = upper_edge_ns(bucket).is_none_or(|edge_ns| edge_ns > 1_000_000);
                served.1 += if slow { *count } else { 0 };
            }
        }
    }
    served
}

#[test]
#[ignore = "a minute and a half on a quiet machine: scripts/soak reload"]
fn reload_pauses() {
    let daemon = Plan::new("auto", "edge.experiments.json").set("sink.type=none").start();
    let path = daemon.directory.path();
    // Written before, so that nothing but the reload is paired with none.
    let text = plans::experiments_file(&plans::Shape::of(10_000));
    for name in ["even", "odd"] {
        fs::write(path.join(name), text.replacen("generated", name, 1)).unwrap();
    }
    let mut reloads = 0;
    let mut take = || {
        reloads += 1;
        let name = ["even", "odd"][reloads % 2];
        fs::hard_link(path.join(name), path.join("next")).unwrap();
        fs::rename(path.join("next"), daemon.experiments()).unwrap();
        order(&daemon, &["reload", "--wait"]);
    };
    take();
    let load = generator(daemon.assign(), 16, number("SPLITD_RELOAD_RATE", 1_000) as f64);
    load.go_on(1.0);
    let region = Region::view_file(&path.join("run/metrics")).unwrap();
    let (rounds, seconds) = (number("SPLITD_RELOAD_ROUNDS", 10), number("SPLITD_RELOAD_SECONDS", 4));
    println!("10,000 experiments; requests of more than 1 ms of service, by the workers' own histogram");
    let mut more = Vec::new();
    for round in 0..rounds {
        let (mut row, mut slow) = (Vec::new(), [0, 0]);
        for with in [false, true] {
            let before = served(&region);
            let begin = Instant::now();
            let mut count = 0;
            while begin.elapsed() < Duration::from_secs(seconds) {
                if with {
                    take();
                    count += 1;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            let after = served(&region);
            slow[usize::from(with)] = (after.1 - before.1) as i64;
            row.push(format!("{} of {} with {count} reloads", after.1 - before.1, after.0 - before.0));
        }
        println!("  round {round}: {}", row.join("; "));
        more.push(slow[1] - slow[0]);
    }
    println!("{}", load.stop());
    let mut promises = Promises::default();
    let found = format!("with reloads more by {more:?}");
    promises.hold("no service time over 1 ms because of a reload", is_by_chance(&more), found);
    promises.end();
}

/// Whether rounds with may as well be rounds without: of all ways to have called each
/// round's two counts the one and the other, at least one in a hundred makes as large
/// a sum of differences. Slow requests come in heaps, all of a turn at once, so that
/// their number alone says little.
fn is_by_chance(more: &[i64]) -> bool {
    assert!(more.len() >= 7, "with fewer rounds nothing could be found out");
    let found: i64 = more.iter().sum();
    let signed = |way: u32| -> i64 {
        let signs = more.iter().enumerate().map(|(at, more)| if way >> at & 1 == 1 { -more } else { *more });
        signs.sum()
    };
    let ways = 1 << more.len();
    let as_large = (0..ways).filter(|way| signed(*way) >= found).count();
    as_large * 100 >= ways as usize
}

#[test]
fn what_is_more_in_nearly_every_round_is_not_by_chance() {
    assert!(is_by_chance(&[0; 10]) && is_by_chance(&[-45, 21, 9, 5, 1, -1, 0]) && is_by_chance(&[-3; 10]));
    assert!(!is_by_chance(&[1, 2, 1, 3, 1, 1, 2, 1]) && !is_by_chance(&[7, 9, 8, 0, 12, 7, 9, 6, -1, 8]));
}
