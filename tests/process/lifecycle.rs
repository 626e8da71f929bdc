//! Starting, reloading, draining, stopping.

use std::fs;

use nix::sys::signal::Signal;

use crate::for_each_backend;
use crate::support::{Client, Load, Plan, golden, signal, splitd, wait_until};

for_each_backend! {
    a_reload_takes_the_new_file_and_a_bad_one_changes_nothing(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).start();
        let file = daemon.directory.path().join("experiments.json");
        let load = Load::start(daemon.assign(), 4);
        let text = fs::read_to_string(&file).unwrap();
        let version = |daemon: &crate::support::Daemon| {
            let mut versions: Vec<String> = (0..8)
                .map(|_| Client::connect(daemon.assign()).get("/v1/assign").json()["version"].to_string())
                .collect();
            versions.dedup();
            versions
        };
        assert_eq!(version(&daemon), ["\"edge-1\""]);
        fs::write(&file, text.replace("edge-1", "edge-2")).unwrap();
        signal(daemon.master_pid(), Signal::SIGHUP);
        wait_until("the new version at every worker", || version(&daemon) == ["\"edge-2\""]);
        daemon.expect("event=experiments_refused");
        daemon.expect("/experiments/0/groups/0/blocks/0");
        fs::write(&file, text.replacen("10000", "99999", 1)).unwrap();
        signal(daemon.master_pid(), Signal::SIGHUP);
        wait_until("the fault in the log", || daemon.log().contains("/experiments/0/groups/0/blocks/0"));
        assert_eq!(version(&daemon), ["\"edge-2\""]);
        load.more(100);
        let outcome = load.stop();
        assert!(outcome.unanswered.is_empty(), "a reload breaks no connection");
        assert_eq!(daemon.stop(), Some(0));
    }

    a_drain_answers_what_came_says_close_and_leaves_nobody(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).start();
        let mut busy = Client::connect(daemon.assign());
        assert_eq!(busy.get("/livez").status, 200);
        let mut idle = Client::connect(daemon.assign());
        assert_eq!(idle.get("/livez").status, 200);
        let pids: Vec<i32> = daemon.children().into_iter().map(|(pid, _)| pid).collect();
        assert!(pids.len() >= 5, "workers of three pools and a logger: {:?}", daemon.children());
        // Half a request before the drain, the other half during it.
        let request = b"POST /v1/assign HTTP/1.1\r\nHost: t\r\nContent-Length: 25\r\n\r\n{\"units\":{\"user_id\":\"7\"}}";
        let (half, rest) = request.split_at(70);
        assert!(busy.send(half));
        signal(daemon.master_pid(), Signal::SIGTERM);
        wait_until("not ready", || match Client::try_connect(daemon.admin()) {
            Some(mut client) => client.try_get("/readyz").is_none_or(|response| response.status == 503),
            None => true,
        });
        // The master's word reaches one worker after the other.
        let closes = |_| match Client::try_connect(daemon.assign()) {
            Some(mut client) => client.try_get("/livez").is_none_or(|answer| answer.header("connection").is_some()),
            None => true,
        };
        wait_until("every worker to say close", || (0..16).all(closes));
        assert!(busy.send(rest));
        let response = busy.receive().expect("what came before the drain is answered");
        assert_eq!((response.status, response.header("connection")), (200, Some("close")));
        assert!(busy.closed());
        assert!(idle.closed(), "an idle connection is closed, not reset");
        assert_eq!(daemon.wait(), Some(0));
        for pid in pids {
            assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} is left");
        }
        let ids: Vec<String> = daemon.events().iter().map(|event| event["units"]["user_id"].to_string()).collect();
        assert_eq!(ids, ["\"7\""], "and recorded");
    }

    a_second_instance_is_refused_and_the_first_serves_on(io) {
        let daemon = Plan::new(io, "edge.experiments.json").start();
        let output = daemon.command().output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
        let mut elsewhere = daemon.command();
        let run = daemon.directory.path().join("run2");
        elsewhere.arg("--set").arg(format!("runtime_dir={}", run.display()));
        let output = elsewhere.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.contains(&format!("127.0.0.1:{}", daemon.assign())), "{text}");
        assert_eq!(Client::connect(daemon.assign()).get("/livez").status, 200);
    }

    metrics_count_what_was_done(io) {
        let daemon = Plan::new(io, "edge.experiments.json").workers(2).start();
        let mut client = Client::connect(daemon.assign());
        for user in 0..10 {
            assert_eq!(client.get(&format!("/v1/assign?user_id={user}")).status, 200);
        }
        assert_eq!(client.get("/nowhere").status, 404);
        let requests = "splitd_requests_total{pool=\"assign\",route=\"assign\",status=\"200\"}";
        assert_eq!(daemon.metric(requests), 10);
        assert_eq!(daemon.metric("splitd_requests_total{pool=\"assign\",route=\"none\",status=\"404\"}"), 1);
        assert_eq!(daemon.metric("splitd_connections{pool=\"assign\"}"), 1);
        assert!(daemon.metric("splitd_assignments_total{pool=\"assign\"") >= 10);
        wait_until("all delivered", || daemon.metric("splitd_exposures_delivered_total") == 10);
        assert_eq!(daemon.events().len(), 10);
    }

    head_and_exposure_false_record_nothing(io) {
        let daemon = Plan::new(io, "edge.experiments.json").start();
        let mut client = Client::connect(daemon.assign());
        client.send(b"HEAD /v1/assign?user_id=1 HTTP/1.1\r\nHost: t\r\n\r\n");
        let head = client.receive_to("HEAD").unwrap();
        assert_eq!(client.get("/v1/assign?user_id=2&exposure=false").status, 200);
        let get = client.get("/v1/assign?user_id=1");
        assert_eq!(head.header("content-length"), get.header("content-length"));
        wait_until("one exposure", || daemon.events().len() == 1);
        assert_eq!(daemon.events()[0]["units"]["user_id"], "1");
    }
}

#[test]
fn a_faulty_experiments_file_stops_the_start_with_every_fault() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("experiments.json");
    let text = fs::read_to_string(golden("edge.experiments.json")).unwrap();
    fs::write(&file, text.replacen("10000", "99999", 1).replace("\"layer\": \"L2\"", "\"layer\": \"L99\""))
        .unwrap();
    for command in ["check", "serve"] {
        let mut run = splitd();
        run.env_clear().current_dir(directory.path()).arg(command);
        if command == "serve" {
            run.arg("--experiments");
        }
        let output = run.arg(&file).output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{command}: {text}");
        assert!(text.contains("/experiments/0/groups/0/blocks/0"), "{command}: {text}");
        assert!(text.contains("L99") || text.contains("/experiments/1/layer"), "{command}: {text}");
    }
}
