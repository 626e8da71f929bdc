//! Heavy requests beside light ones: in a pool of their own they leave the
//! light ones alone; in the same pool they stand before them; shed, they do less.
//!
//! The figures of the README: `SPLITD_FLOOD_ROUNDS=15 cargo test --release --test
//! process flood::a_flood -- --nocapture --test-threads 1`

use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::sys::signal::Signal;
use splitd::metrics::histogram::Histogram;
use splitd::metrics::{Family, Process, Table};
use splitd::sys::region::Region;

use crate::for_each_backend;
use crate::support::{Client, Daemon, Plan, lines, post, signal, wait_until};

/// Connections that send batches without pause.
const FLOOD_COUNT: usize = 8;
/// Light requests, one after the other.
const PROBE_COUNT: usize = 200;

/// A histogram of the pool assign's route assign, over its workers.
fn histogram(daemon: &Daemon, family: Family) -> Histogram {
    let region = Region::open_file(&daemon.directory.path().join("run/metrics")).unwrap();
    let table = Table::attach(region.words()).unwrap();
    let mut sum = Histogram::default();
    for block in table.blocks() {
        if block.process() == Some(Process::Worker) && block.name() == "assign" {
            sum.add(&block.histogram(family, 0));
        }
    }
    sum
}

/// Where shedding is on, what has waited longer is shed.
const SHED_AFTER_NS: u64 = 1_000_000;

/// What light requests meet in a round: queue delay and service time of those that
/// were served, and how many were shed.
struct Met {
    queue: Histogram,
    service: Histogram,
    shed: u64,
}

/// The middle one, the least and the most.
fn spread(mut values: Vec<u64>) -> [u64; 3] {
    values.sort_unstable();
    [values[values.len() / 2], values[0], values[values.len() - 1]]
}

/// Quantiles of each round: the median of the rounds, from the least to the most.
fn print(what: &str, rounds: &[Met]) {
    let cell = |of: fn(&Met) -> &Histogram, quantile| {
        let each = rounds.iter().filter_map(|met| of(met).quantile_ns(quantile)).collect();
        let [median, least, most] = spread(each).map(|ns| ns as f64 / 1000.0);
        format!("{median:.1} ({least:.1} to {most:.1})")
    };
    let [queue, service]: [fn(&Met) -> &Histogram; 2] = [|met| &met.queue, |met| &met.service];
    let cells = [cell(queue, 0.5), cell(queue, 0.99), cell(service, 0.5), cell(service, 0.99)];
    let shed: u64 = rounds.iter().map(|met| met.shed).sum();
    let share = 100.0 * shed as f64 / (rounds.len() * PROBE_COUNT) as f64;
    println!("| {what} | {} | {share:.0} % |", cells.join(" | "));
}

/// Sends light requests while `flooded` is flooded, if a port is.
fn probe(daemon: &Daemon, flooded: Option<u16>) -> Met {
    let batch = post("/v1/batch", &lines("typical.requests.ndjson")[..60].join("\n"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for port in flooded.into_iter().cycle().take(if flooded.is_some() { FLOOD_COUNT } else { 0 }) {
            let (batch, stop) = (&batch, &stop);
            scope.spawn(move || {
                let mut client = Client::connect(port);
                // One is always waiting behind the one that is answered.
                assert!(client.send(batch.as_bytes()));
                while !stop.load(Ordering::Relaxed) {
                    assert!(client.send(batch.as_bytes()));
                    assert!(matches!(client.receive().expect("an answer").status, 200 | 503));
                }
                let _ = client.clone_stream().shutdown(Shutdown::Both);
            });
        }
        let batches = "splitd_requests_total{pool=\"";
        if flooded.is_some() {
            let before = daemon.metric(batches);
            wait_until("the flood", || daemon.metric(batches) >= before + 2 * FLOOD_COUNT as u64);
        }
        let before = [Family::QueueDelay, Family::ServiceTime].map(|family| histogram(daemon, family));
        let mut client = Client::connect(daemon.assign());
        let mut shed = 0;
        for body in lines("typical.requests.ndjson").iter().cycle().take(PROBE_COUNT) {
            match client.post("/v1/assign", body).status {
                200 => {}
                503 => shed += 1,
                other => panic!("status {other}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
        let [queue, service] =
            [Family::QueueDelay, Family::ServiceTime].map(|family| histogram(daemon, family));
        Met { queue: queue.since(&before[0]), service: service.since(&before[1]), shed }
    })
}

/// Rounds of each kind; SPLITD_FLOOD_ROUNDS for more.
fn round_count() -> usize {
    std::env::var("SPLITD_FLOOD_ROUNDS").map_or(3, |count| count.parse().expect("a count of rounds"))
}

for_each_backend! {
    a_flood_of_batches_leaves_assign_alone_unless_they_share_a_pool(io) {
        let start = |shed_after: &str| {
            Plan::new(io, "typical.experiments.json")
                .set("pool.assign.routes=assign,batch,health")
                .set(&format!("pool.assign.shed_after={shed_after}"))
                .set("sink.type=none")
                .start()
        };
        let (keeping, shedding) = (start("never"), start("1ms"));
        let kinds = [
            ("no flood", &keeping, None),
            ("flood in the bulk pool", &keeping, Some(keeping.bulk())),
            ("flood in the same pool", &keeping, Some(keeping.assign())),
            ("the same, shed after 1 ms", &shedding, Some(shedding.assign())),
        ];
        for daemon in [&keeping, &shedding] {
            probe(daemon, None);
        }
        let mut met = kinds.map(|_| Vec::new());
        // In turns, so that whatever else the machine does meets all of them.
        for _ in 0..round_count() {
            for (met, (_, daemon, flooded)) in met.iter_mut().zip(kinds) {
                met.push(probe(daemon, flooded));
            }
        }
        println!("| {io}, us | queue delay p50 | p99 | service time p50 | p99 | shed |\n| --- | --- | --- | --- | --- | --- |");
        for ((what, ..), met) in kinds.iter().zip(&met) {
            print(what, met);
        }
        // Each round against its neighbours, and most rounds count: distributions that
        // lie a thousand times apart on a quiet machine, held to a tenth.
        let [alone, beside, within, shed] = &met;
        let median = |of: &Histogram| of.quantile_ns(0.5).unwrap();
        let most = |what: &str, holds: &dyn Fn(usize) -> bool| {
            let count = (0..round_count()).filter(|round| holds(*round)).count();
            assert!(2 * count > round_count(), "{what}: in {count} of {} rounds", round_count());
        };
        most("sharing a pool makes wait", &|round| median(&within[round].queue) > 10 * median(&beside[round].queue));
        most("sharing a pool takes longer", &|round| median(&within[round].service) > 2 * median(&beside[round].service));
        most("a pool of their own leaves assign alone", &|round| {
            median(&beside[round].service) < 4 * median(&alone[round].service)
        });
        // Whatever the machine does: what was served has not waited longer than the
        // bound, to the width of a bucket.
        for round in shed.iter().filter(|round| round.queue.count() > 0) {
            assert!(round.queue.quantile_ns(1.0).unwrap() <= SHED_AFTER_NS * 9 / 8);
        }
    }

    what_has_waited_too_long_is_shed_and_counted(io) {
        for (setting, status) in [("refuse", 503), ("empty", 200)] {
            let mut daemon = Plan::new(io, "typical.experiments.json")
                .set("pool.assign.shed_after=0ms")
                .set(&format!("pool.assign.shed_answer={setting}"))
                .start();
            let worker = daemon.child("assign/0").unwrap();
            let bodies = lines("typical.requests.ndjson");
            let mut clients: Vec<Client> = (0..40).map(|_| Client::connect(daemon.assign())).collect();
            for client in &mut clients {
                assert_eq!(client.get("/livez").status, 200);
            }
            // All wait when the worker looks, so most of them wait for others.
            let (start, mut shed, mut served) = (Instant::now(), 0, 0);
            while shed == 0 {
                assert!(start.elapsed() < crate::support::PATIENCE);
                signal(worker, Signal::SIGSTOP);
                for (client, body) in clients.iter_mut().zip(&bodies) {
                    assert!(client.send(post("/v1/assign", body).as_bytes()));
                }
                signal(worker, Signal::SIGCONT);
                for client in &mut clients {
                    let answer = client.receive().expect("an answer");
                    let is_shed = answer.status == 503 || answer.header("X-Splitd-Shed") == Some("queue");
                    if is_shed {
                        assert_eq!(answer.status, status, "{answer:?}");
                        if status == 503 {
                            assert_eq!(answer.header("Retry-After"), Some("1"));
                        } else {
                            assert_eq!(answer.json()["assignments"], serde_json::json!({}));
                        }
                    } else {
                        assert!(!answer.json()["assignments"].as_object().unwrap().is_empty());
                    }
                    *(if is_shed { &mut shed } else { &mut served }) += 1;
                }
            }
            // Health is not shed, and a light load is served.
            assert_eq!(clients[0].get("/livez").status, 200);
            assert_eq!(daemon.metric("splitd_requests_shed_total{pool=\"assign\""), shed);
            assert_eq!(daemon.stop(), Some(0));
            assert_eq!(daemon.events().len() as u64, served, "nothing that was shed is an exposure");
        }
    }
}
