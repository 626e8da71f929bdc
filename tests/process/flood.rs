//! Heavy requests beside light ones: in a pool of their own they leave the
//! light ones alone; in the same pool they stand before them; shed, they do less.
//!
//! The figures of the README: `cargo test --release --test process flood:: -- --nocapture`

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
const PROBE_COUNT: usize = 400;

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

/// What light requests meet: queue delay and service time.
struct Met {
    queue: Histogram,
    service: Histogram,
}

impl Met {
    fn print(&self, what: &str) {
        let us = |histogram: &Histogram, quantile| histogram.quantile_ns(quantile).unwrap() as f64 / 1000.0;
        let [queue, service] = [&self.queue, &self.service]
            .map(|of| format!("{:9.1} {:9.1} {:9.1}", us(of, 0.5), us(of, 0.99), us(of, 0.999)));
        println!("{what:24} queue delay p50, p99, p99.9 in us: {queue}   service time: {service}");
    }

    fn add(&mut self, other: &Met) {
        self.queue.add(&other.queue);
        self.service.add(&other.service);
    }
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
        for body in lines("typical.requests.ndjson").iter().cycle().take(PROBE_COUNT) {
            assert!(matches!(client.post("/v1/assign", body).status, 200 | 503));
        }
        stop.store(true, Ordering::Relaxed);
        let [queue, service] =
            [Family::QueueDelay, Family::ServiceTime].map(|family| histogram(daemon, family));
        Met { queue: queue.since(&before[0]), service: service.since(&before[1]) }
    })
}

for_each_backend! {
    a_flood_of_batches_leaves_assign_alone_unless_they_share_a_pool(io) {
        let daemon = Plan::new(io, "typical.experiments.json")
            .set("pool.assign.routes=assign,batch,health")
            .set("sink.type=none")
            .start();
        probe(&daemon, None);
        let empty = || Met { queue: Histogram::default(), service: Histogram::default() };
        let (mut alone, mut beside, mut within) = (empty(), empty(), empty());
        // In turns, so that whatever else the machine does meets all of them.
        for _ in 0..2 {
            for (met, flooded) in
                [(&mut alone, None), (&mut beside, Some(daemon.bulk())), (&mut within, Some(daemon.assign()))]
            {
                met.add(&probe(&daemon, flooded));
            }
        }
        println!("{io}:");
        alone.print("alone");
        beside.print("bulk pool flooded");
        within.print("same pool flooded");
        let median = |histogram: &Histogram| histogram.quantile_ns(0.5).unwrap();
        // A thousand times apart where the machine is quiet.
        assert!(median(&within.queue) > 10 * median(&beside.queue), "sharing a pool hurts");
        assert!(median(&within.service) > 2 * median(&beside.service), "sharing a pool hurts");
        assert!(median(&beside.queue) < 100_000, "{} ns waited in a pool of their own", median(&beside.queue));
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
