//! Changes of the experiments and replaced workers, under load: nobody notices.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;

use crate::for_each_backend;
use crate::support::{Client, Daemon, Load, Plan, signal, wait_until};

fn text_of(daemon: &Daemon, version: &str) -> String {
    let text = fs::read_to_string(daemon.experiments()).unwrap();
    let from = text.find("edge-").unwrap();
    let to = from + text[from..].find('"').unwrap();
    format!("{}{version}{}", &text[..from], &text[to..])
}

fn serves(daemon: &Daemon, version: &str) {
    wait_until(&format!("{version} at every worker"), || daemon.versions() == [format!("\"{version}\"")]);
}

for_each_backend! {
    a_changed_file_is_taken_by_itself_and_nobody_notices(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).start();
        let load = Load::start(daemon.assign(), 4);
        for number in 2..8 {
            let version = format!("edge-{number}");
            daemon.replace_experiments(&text_of(&daemon, &version));
            serves(&daemon, &version);
        }
        // As a volume of Kubernetes does it.
        let text = text_of(&daemon, "edge-8");
        let at = |name: &str| daemon.directory.path().join(name);
        fs::create_dir(at("..8")).unwrap();
        fs::write(at("..8/experiments.json"), text).unwrap();
        symlink("..8", at("..data")).unwrap();
        symlink("..data/experiments.json", at("link")).unwrap();
        fs::rename(at("link"), daemon.experiments()).unwrap();
        serves(&daemon, "edge-8");
        fs::create_dir(at("..9")).unwrap();
        fs::write(at("..9/experiments.json"), text_of(&daemon, "edge-9")).unwrap();
        symlink("..9", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        serves(&daemon, "edge-9");
        load.more(100);
        assert_eq!(load.stop().unanswered, [] as [String; 0]);
        assert_eq!(daemon.metric("splitd_reloads_total{result=\"taken\"}"), 9);
        assert_eq!(daemon.stop(), Some(0));
    }

    reload_with_wait_says_what_came_of_it(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).start();
        let (code, said) = daemon.order(&["reload", "--wait"]);
        assert_eq!((code, said.contains("edge-1 in force everywhere")), (Some(0), true), "{said}");
        daemon.replace_experiments(&text_of(&daemon, "edge-2"));
        let (code, said) = daemon.order(&["reload", "--wait"]);
        assert_eq!((code, said.contains("edge-2 in force everywhere")), (Some(0), true), "{said}");
        assert_eq!(daemon.versions(), ["\"edge-2\""], "no waiting after that");
        daemon.expect("event=experiments_refused");
        daemon.expect("event=experiments_fault");
        let bad = text_of(&daemon, "edge-3").replacen("10000", "99999", 1).replace("\"layer\": \"L2\"", "\"layer\": \"L99\"");
        daemon.replace_experiments(&bad);
        let (code, said) = daemon.order(&["reload", "--wait"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("/experiments/0/groups/0/blocks/0") && said.contains("L99"), "all faults: {said}");
        assert!(said.contains("edge-2 in force"), "{said}");
        assert_eq!(daemon.versions(), ["\"edge-2\""]);
        let ready = Client::connect(daemon.admin()).get("/readyz");
        assert_eq!((ready.status, &ready.json()["experiments"]), (200, &"before".into()), "{}", ready.body);
        assert_eq!(daemon.stop(), Some(0));
        let (code, said) = daemon.order(&["reload"]);
        assert_eq!((code, said.contains("no instance runs there")), (Some(3), true), "{said}");
    }

    what_was_last_good_is_served_when_the_file_is_bad_or_gone(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).start();
        let good = text_of(&daemon, "edge-2");
        daemon.replace_experiments(&good);
        serves(&daemon, "edge-2");
        assert_eq!(daemon.stop(), Some(0));
        daemon.expect("event=experiments_refused");
        daemon.expect("event=experiments_fault");
        daemon.expect("event=last_good_taken");
        for bad in [Some("{"), None] {
            match bad {
                Some(text) => daemon.replace_experiments(text),
                None => fs::remove_file(daemon.experiments()).unwrap(),
            }
            daemon.start();
            assert_eq!(daemon.versions(), ["\"edge-2\""]);
            assert_eq!(daemon.metric("splitd_plan_last_good"), 1);
            assert_eq!(daemon.metric("splitd_source_faults"), 1);
            let ready = Client::connect(daemon.admin()).get("/readyz").json();
            assert_eq!(ready["experiments"], "last good file", "{ready}");
            assert!(ready["age_s"].as_u64().is_some_and(|age_s| age_s < 3600), "{ready}");
            if bad.is_none() {
                daemon.replace_experiments(&good);
                wait_until("the source is good again", || daemon.metric("splitd_plan_last_good") == 0);
                assert_eq!(daemon.metric("splitd_source_faults"), 0);
            }
            assert_eq!(daemon.stop(), Some(0));
        }
    }

    a_killed_or_hanging_loader_is_not_noticed_and_its_successor_loads(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).start();
        daemon.expect("event=ended process=loader");
        daemon.expect("event=restart_waits process=loader");
        let load = Load::start(daemon.assign(), 4);
        signal(daemon.child("loader").unwrap(), Signal::SIGSTOP);
        load.more(100);
        for _ in 0..3 {
            daemon.kill_child("loader");
        }
        daemon.replace_experiments(&text_of(&daemon, "edge-2"));
        serves(&daemon, "edge-2");
        assert_eq!(load.stop().unanswered, [] as [String; 0]);
        assert_eq!(daemon.metric("splitd_reloads_total{result=\"taken\"}"), 2, "the same text was not taken again");
        assert_eq!(daemon.stop(), Some(0));
    }

    replaced_workers_lose_no_connection_in_use(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).start();
        let load = Load::start(daemon.assign(), 8);
        for _ in 0..5 {
            let before: Vec<i32> = daemon.children().into_iter().map(|(pid, _)| pid).collect();
            let (code, said) = daemon.order(&["reload", "--workers", "--wait"]);
            assert_eq!(code, Some(0), "{said}");
            load.more(100);
            for name in ["assign/0", "assign/1", "bulk/0", "admin/0"] {
                assert!(!before.contains(&daemon.child(name).unwrap()), "{name} is another");
            }
        }
        wait_until("predecessors to leave", || daemon.children().len() == 6);
        assert_eq!(load.stop().unanswered, [] as [String; 0]);
        assert_eq!(daemon.metric("splitd_worker_restarts_total"), 0, "none died");
        assert_eq!(daemon.stop(), Some(0));
        assert_eq!(daemon.lost(), 0);
    }

    drain_by_order_waits_for_the_end(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").start();
        let (code, said) = daemon.order(&["drain", "--wait"]);
        assert_eq!((code, said.as_str()), (Some(0), "done: the instance has left\n"));
        assert_eq!(daemon.wait(), Some(0));
    }
}
