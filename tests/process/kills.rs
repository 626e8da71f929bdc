//! KILL of each kind of process under load: who is answered, and whether every
//! exposure is accounted for.

use std::collections::{BTreeMap, BTreeSet};

use crate::for_each_backend;
use crate::support::{Client, Daemon, Load, Outcome, Plan, post, signal, wait_until};

/// From outside: every answered request is delivered, once by id; delivered
/// without an answer are at most those under way at a kill.
pub fn accounts(daemon: &Daemon, outcome: &Outcome) {
    let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for event in daemon.events() {
        let user = event["units"]["user_id"].as_str().unwrap().to_owned();
        users.entry(user).or_default().insert(event["id"].as_str().unwrap().to_owned());
    }
    let mut missing = 0;
    for user in &outcome.answered {
        let ids = users.remove(user).unwrap_or_default();
        assert!(ids.len() <= 1, "{user}: {ids:?}");
        missing += u64::from(ids.is_empty());
    }
    // Lost is what a full ring refused, though it was answered, and what a killed
    // worker had begun and not answered.
    let lost = daemon.lost();
    let torn_max = outcome.unanswered.len() as u64;
    assert!(
        (missing..=missing + torn_max).contains(&lost),
        "{missing} were answered and not delivered, but {lost} are counted as lost"
    );
    for (user, ids) in users {
        assert!(outcome.unanswered.contains(&user), "{user} was never asked for");
        assert_eq!(ids.len(), 1, "{user}");
    }
}

for_each_backend! {
    workers_killed_under_load_lose_no_committed_exposure(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).start();
        daemon.expect("event=ended process=assign/");
        daemon.expect("event=restart_waits process=assign/");
        let load = Load::start(daemon.assign(), 8);
        for round in 0..6 {
            load.more(200);
            daemon.kill_child(&format!("assign/{}", round % 2));
        }
        load.more(200);
        let outcome = load.stop();
        assert!(outcome.unanswered.len() <= 6 * 8, "only what was under way: {}", outcome.unanswered.len());
        assert_eq!(daemon.metric("splitd_worker_restarts_total"), 6);
        assert_eq!(daemon.stop(), Some(0));
        accounts(&daemon, &outcome);
    }

    a_logger_killed_under_load_is_not_noticed_and_loses_nothing(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).start();
        daemon.expect("event=ended process=logger");
        daemon.expect("event=restart_waits process=logger");
        // It may die in the middle of a write.
        daemon.expect("event=torn_file_cut");
        let load = Load::start(daemon.assign(), 8);
        for _ in 0..4 {
            load.more(300);
            daemon.kill_child("logger");
        }
        load.more(300);
        let outcome = load.stop();
        assert!(outcome.unanswered.is_empty());
        assert_eq!(daemon.stop(), Some(0));
        accounts(&daemon, &outcome);
    }

    a_killed_master_is_not_noticed_and_its_exposures_arrive(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json")
            .workers(2)
            .set("orphan_timeout=2s")
            .set("drain_timeout=5s")
            .start();
        daemon.expect("event=master_gone");
        let load = Load::start(daemon.assign(), 8);
        load.more(300);
        let children = daemon.kill_master();
        load.more(300);
        let outcome = load.stop();
        assert!(outcome.unanswered.is_empty());
        wait_until("the orphans to leave by themselves", || {
            children.iter().all(|pid| {
                std::fs::read_to_string(format!("/proc/{pid}/stat"))
                    .map_or(true, |stat| stat.contains(") Z "))
            })
        });
        accounts(&daemon, &outcome);
    }

    everything_killed_at_once_loses_nothing_that_was_committed(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).start();
        let load = Load::start(daemon.assign(), 8);
        load.more(500);
        daemon.expect("event=takeover");
        daemon.expect("event=torn_file_cut");
        let logger = daemon.child("logger").unwrap();
        let others: Vec<i32> = daemon.children().into_iter().map(|(pid, _)| pid).filter(|pid| *pid != logger).collect();
        daemon.expect("event=master_gone");
        // The logger first, so that the rings hold what only its successor can deliver.
        signal(logger, nix::sys::signal::Signal::SIGSTOP);
        load.more(500);
        daemon.kill_master();
        for pid in others.into_iter().chain([logger]) {
            signal(pid, nix::sys::signal::Signal::SIGKILL);
        }
        let outcome = load.stop();
        daemon.start();
        assert_eq!(daemon.stop(), Some(0));
        accounts(&daemon, &outcome);
    }

    connections_queued_at_a_dead_workers_socket_are_answered(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").start();
        daemon.expect("event=ended process=assign/");
        let worker = daemon.child("assign/0").unwrap();
        signal(worker, nix::sys::signal::Signal::SIGSTOP);
        let mut clients: Vec<Client> = (0..64).map(|_| Client::connect(daemon.assign())).collect();
        for (user, client) in clients.iter_mut().enumerate() {
            assert!(client.send(post("/v1/assign", &format!("{{\"units\":{{\"user_id\":{user}}}}}")).as_bytes()));
        }
        signal(worker, nix::sys::signal::Signal::SIGKILL);
        for client in &mut clients {
            assert_eq!(client.receive().expect("the successor answers").status, 200);
        }
    }

    a_neighbour_serves_the_socket_of_a_worker_that_waits_to_be_replaced(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).start();
        daemon.expect("event=ended process=assign/0");
        daemon.expect("event=restart_waits process=assign/0");
        daemon.while_missing("assign/0", || {
            let mut clients: Vec<Client> = (0..64).map(|_| Client::connect(daemon.assign())).collect();
            for client in &mut clients {
                assert_eq!(client.get("/v1/assign?user_id=1").status, 200);
            }
        });
    }

    a_socket_that_a_neighbour_has_ended_is_left_alone_by_its_own_worker(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).set("orphan_timeout=1s").start();
        daemon.expect("event=ended process=assign/0");
        daemon.expect("event=restart_waits process=assign/0");
        let late = daemon.stop_at_start("assign/0");
        let count = |what: &str| daemon.log().matches(&format!("event=socket_{what} worker=assign/0 ")).count();
        wait_until("its socket to be adopted", || count("adopted") == count("released") + 1);
        // The neighbour is not told any more that it is to let go of it.
        let neighbour = daemon.child("assign/1").unwrap();
        daemon.expect("event=master_gone");
        daemon.kill_master();
        wait_until("the neighbour to drain, and with it both sockets", || {
            std::fs::read_to_string(format!("/proc/{neighbour}/stat")).map_or(true, |stat| stat.contains(") Z "))
        });
        signal(late, nix::sys::signal::Signal::SIGCONT);
        daemon.wait_for_orphans();
        assert_eq!(daemon.log().matches(&format!("pid={late} event=socket_ended")).count(), 1);
    }
}
