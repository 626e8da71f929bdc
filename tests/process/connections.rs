//! Connections in number and of every kind, and what they cost.

use std::sync::Mutex;

use nix::libc::linger as Linger;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use crate::for_each_backend;
use crate::support::{Client, Daemon, Plan, post, signal};

/// As many connections as the limit allows, 10,000 at most; our own files aside.
fn connection_count() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    usize::try_from(hard).unwrap().saturating_sub(256).min(10_000)
}

/// System calls of the loop for each of so many requests that are all there when it looks.
fn calls_per_request(daemon: &Daemon, clients: &mut [Client], rounds: usize) -> f64 {
    let worker = daemon.child("assign/0").unwrap();
    let before = daemon.metric("splitd_system_calls_total");
    for _ in 0..rounds {
        signal(worker, Signal::SIGSTOP);
        for (user, client) in clients.iter_mut().enumerate() {
            let body = format!("{{\"units\":{{\"user_id\":\"{user}\"}}}}");
            assert!(client.send(post("/v1/assign", &body).as_bytes()));
        }
        signal(worker, Signal::SIGCONT);
        for client in clients.iter_mut() {
            assert_eq!(client.receive().expect("an answer").status, 200);
        }
    }
    let calls = daemon.metric("splitd_system_calls_total") - before;
    calls as f64 / (rounds * clients.len()) as f64
}

/// So many connections at once are as many as this process may have.
static ONE_CROWD: Mutex<()> = Mutex::new(());

for_each_backend! {
    ten_thousand_connections_are_served_and_stay(io) {
        let _crowd = ONE_CROWD.lock();
        let count = connection_count();
        let mut daemon = Plan::new(io, "edge.experiments.json").start();
        let mut clients: Vec<Client> = Vec::with_capacity(count);
        for _ in 0..count {
            let mut client = Client::connect(daemon.assign());
            assert_eq!(client.get("/livez").status, 200);
            clients.push(client);
        }
        assert!(daemon.metric("splitd_connections{") >= count as u64);
        for client in &mut clients {
            assert!(client.send(post("/v1/assign", "{\"units\":{\"user_id\":\"1\"}}").as_bytes()));
        }
        for client in &mut clients {
            assert_eq!(client.receive().expect("an answer").status, 200);
        }
        drop(clients);
        assert_eq!(daemon.metric("splitd_connections_closed_total{pool=\"assign\",reason=\"evicted\"}"), 0);
        assert_eq!(daemon.stop(), Some(0));
    }

    half_closed_and_reset_peers_leave_nothing_behind(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").start();
        let text = post("/v1/assign", "{\"units\":{\"user_id\":\"1\"}}").repeat(100);
        for round in 0..30 {
            let mut half_closed = Client::connect(daemon.assign());
            assert!(half_closed.send(text.as_bytes()));
            half_closed.clone_stream().shutdown(std::net::Shutdown::Write).unwrap();
            let mut reset = Client::connect(daemon.assign());
            assert!(reset.send(&text.as_bytes()[..[0, 20, text.len()][round % 3]]));
            let linger = Linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&reset.clone_stream(), sockopt::Linger, &linger).unwrap();
            drop(reset);
            for _ in 0..100 {
                assert_eq!(half_closed.receive().expect("an answer").status, 200);
            }
            assert!(half_closed.closed());
        }
        assert_eq!(daemon.stop(), Some(0));
        let log = daemon.log();
        assert!(!log.contains("warn"), "{log}");
    }

    system_calls_stay_within_their_budget(io) {
        let daemon = Plan::new(io, "edge.experiments.json").start();
        let mut clients: Vec<Client> = (0..64).map(|_| Client::connect(daemon.assign())).collect();
        for client in &mut clients {
            assert_eq!(client.get("/livez").status, 200);
        }
        let calls = calls_per_request(&daemon, &mut clients, 100);
        println!("{io}: {calls:.3} system calls a request at 64 busy connections");
        // Two, and the waits; one for 20 where the kernel moves the bytes (it
        // completes so many at a time, since Linux 6.13).
        let most = if io == "epoll" { 2.1 } else { 0.1 };
        assert!(calls < most, "{calls}");
    }

    the_log_names_the_backend(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").start();
        assert!(daemon.log().contains(&format!("event=io pool=assign backend={io}")), "{}", daemon.log());
        assert_eq!(daemon.stop(), Some(0));
    }
}

#[test]
fn a_setting_of_auto_takes_a_backend_and_says_which() {
    let mut daemon = Plan::new("auto", "edge.experiments.json").start();
    assert_eq!(Client::connect(daemon.assign()).get("/v1/assign?user_id=1").status, 200);
    assert!(daemon.log().contains("event=io pool=assign backend="), "{}", daemon.log());
    assert_eq!(daemon.stop(), Some(0));
}
