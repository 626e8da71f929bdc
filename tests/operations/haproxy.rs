//! The shipped HAProxy file, with the real HAProxy.

use std::io::Read;
use std::net::TcpStream;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::generator::{Generator, Work};
use crate::proxy::{Proxy, Retries, has_haproxy};
use crate::show::rate;
use crate::support::{Client, Daemon, Plan, signal, wait_until};

fn daemon(workers: usize) -> Daemon {
    Plan::new("auto", "edge.experiments.json")
        .workers(workers)
        .set("pool.assign.ports=per_worker")
        .set("pool.admin.head_timeout=1h")
        .start()
}

fn load(port: u16, connections: usize, rate: f64) -> Generator {
    Generator::start(Work { port, connections, rate, network: None })
}

fn agent_says(daemon: &Daemon) -> String {
    let mut text = String::new();
    TcpStream::connect(("127.0.0.1", daemon.agent())).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_shipped_file_is_in_order_as_it_is() {
    if !has_haproxy() {
        return;
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/haproxy.cfg");
    let output = Command::new("/usr/sbin/haproxy").args(["-c", "-f", file]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !text.contains("WARNING"), "{text}");
}

#[test]
fn connections_to_workers_are_reused_and_spread_evenly() {
    if !has_haproxy() {
        return;
    }
    let mut daemon = daemon(3);
    let proxy = Proxy::start(&[&daemon], Retries::None);
    let load = load(proxy.port, 24, 2_000.0);
    load.more(6_000);
    let outcome = load.stop();
    assert_eq!(outcome.failed(), 0, "{outcome}");
    let (opened, requests) = (proxy.count("connect"), proxy.count("req_tot"));
    println!("{opened} connections upstream for {requests} requests; {outcome}");
    assert!(requests >= 6_000);
    assert!(opened * 50 <= requests, "{opened} connections for {requests} requests");
    let each = proxy.counts("req_tot");
    assert_eq!(each.len(), 3, "a server for each worker");
    assert!(each.iter().all(|count| count * 6 >= requests), "none has less than half its share: {each:?}");
    drop(proxy);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn the_agent_says_drain_before_anything_else_happens_and_the_proxy_heeds_it() {
    if !has_haproxy() {
        return;
    }
    let mut daemon = daemon(2);
    let proxy = Proxy::start(&[&daemon], Retries::None);
    for _ in 0..100 {
        assert_eq!(agent_says(&daemon), "up ready 100%\n");
    }
    let mut held = Client::connect(daemon.admin());
    assert!(held.send(b"GET /metrics HTTP/1.1\r\n"), "half a request keeps the drain waiting");
    // Beyond the idle time nobody is let in any more; up to then the agent speaks.
    signal(daemon.master_pid(), Signal::SIGTERM);
    wait_until("drain", || {
        let states = proxy.states();
        states.len() == 2
            && states.values().all(|state| state.starts_with("DRAIN") || state.starts_with("DOWN"))
    });
    assert!(held.send(b"Host: t\r\n\r\n"));
    assert_eq!(held.receive().expect("its answer").status, 200);
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn one_of_two_instances_stops_and_no_request_fails_without_a_retry() {
    if !has_haproxy() {
        return;
    }
    let (stays, mut leaves) =
        (daemon(1), Plan::new("auto", "edge.experiments.json").set("drain_idle=1s").start());
    let proxy = Proxy::start(&[&stays, &leaves], Retries::None);
    let load = load(proxy.port, 16, 1_000.0);
    load.more(1_000);
    for _ in 0..2 {
        assert_eq!(leaves.stop(), Some(0));
        load.more(500);
        leaves.start();
        wait_until("it to be up again", || proxy.states().values().all(|state| state == "UP"));
        load.more(500);
    }
    let outcome = load.stop();
    println!("{outcome}");
    assert_eq!(outcome.failed(), 0, "{outcome}");
    assert_eq!((proxy.count("wretr"), proxy.count("wredis")), (0, 0), "nothing was repeated");
    assert!(leaves.metric("splitd_connections_accepted_total") > 0, "it is used again");
}

#[test]
fn a_restart_of_the_only_instance_fails_nothing_with_the_shipped_file() {
    if !has_haproxy() {
        return;
    }
    let mut daemon = Plan::new("auto", "edge.experiments.json").workers(2).set("drain_idle=1s").start();
    let proxy = Proxy::start(&[&daemon], Retries::AsShipped);
    let load = load(proxy.port, 16, rate(500));
    load.go_on(1.0);
    for _ in 0..2 {
        assert_eq!(daemon.stop(), Some(0));
        daemon.start();
        load.go_on(1.0);
    }
    let outcome = load.stop();
    println!("{outcome}");
    assert_eq!(outcome.failed(), 0, "{outcome}");
}
