//! What an operator reads off `/metrics`.

use std::collections::BTreeMap;

use crate::for_each_backend;
use crate::support::{Client, Daemon, Plan, post, wait_until};

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
