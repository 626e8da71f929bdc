//! The upgrade by exec in place, and the death of the master: under load, and
//! nobody notices.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::Command;

use nix::sys::signal::Signal;

use serde_json::Value;

use crate::for_each_backend;
use crate::kills::accounts;
use crate::support::{Client, Daemon, Load, Plan, signal, wait_until};

/// Orders an upgrade, and waits until every process but the master is another.
fn upgrade(daemon: &Daemon) {
    let before: Vec<i32> = daemon.children().into_iter().map(|(pid, _)| pid).collect();
    let done = daemon.log().matches("event=workers_replaced").count();
    signal(daemon.master_pid(), Signal::SIGUSR2);
    wait_until("everybody to be replaced", || daemon.log().matches("event=workers_replaced").count() > done);
    wait_until("the old ones to leave", || {
        let now = daemon.children();
        now.len() == before.len() && now.iter().all(|(pid, _)| !before.contains(pid))
    });
}

/// Puts another program where ours is.
fn replace_program(daemon: &Daemon, text: &str) {
    let beside = daemon.directory.path().join("splitd.new");
    fs::write(&beside, text).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(beside, daemon.program()).unwrap();
}

for_each_backend! {
    an_upgrade_under_load_replaces_everybody_and_nobody_notices(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).start();
        let master = daemon.master_pid();
        let load = Load::start(daemon.assign(), 8);
        load.more(200);
        for round in 1..=3 {
            upgrade(&daemon);
            assert_eq!(daemon.log().matches("event=upgraded").count(), round);
            load.more(200);
        }
        assert_eq!(daemon.master_pid(), master);
        // It is as able as before: the dead are replaced, the file is watched.
        daemon.expect("event=ended process=assign/0");
        daemon.kill_child("assign/0");
        daemon.replace_experiments(&fs::read_to_string(daemon.experiments()).unwrap().replace("edge-1", "edge-2"));
        wait_until("the new version", || daemon.versions() == ["\"edge-2\""]);
        let outcome = load.stop();
        assert!(outcome.unanswered.len() <= 8, "those of the killed worker: {}", outcome.unanswered.len());
        assert_eq!(daemon.metric("splitd_upgrades_failed_total"), 0);
        assert!(daemon.metric("splitd_requests_total{pool=\"assign\"") >= 800, "counts go on");
        assert_eq!(daemon.stop(), Some(0));
        accounts(&daemon, &outcome);
    }

    a_program_that_is_not_in_order_is_refused_and_nothing_changes(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").copied().start();
        daemon.expect("event=upgrade_refused");
        daemon.expect("event=upgrade_fault");
        daemon.expect("event=ended process=check");
        let before = daemon.children();
        let load = Load::start(daemon.assign(), 4);
        // One that fails, one that is no program, none at all.
        for (number, bad) in [Some("#!/bin/sh\nexit 1\n"), Some("nonsense"), None].into_iter().enumerate() {
            match bad {
                Some(text) => replace_program(&daemon, text),
                None => fs::remove_file(daemon.program()).unwrap(),
            }
            signal(daemon.master_pid(), Signal::SIGUSR2);
            wait_until("the refusal", || daemon.log().matches("event=upgrade_refused").count() > number);
        }
        load.more(100);
        assert_eq!(load.stop().unanswered, [] as [String; 0]);
        assert_eq!(daemon.children(), before);
        assert_eq!(daemon.metric("splitd_upgrades_failed_total"), 3);
        assert_eq!(daemon.stop(), Some(0));
    }

    a_program_that_can_not_go_on_puts_the_old_one_back(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").copied().start();
        daemon.expect("event=upgrade_undone");
        daemon.expect("event=upgrade_reverted");
        let (master, before) = (daemon.master_pid(), daemon.children());
        let load = Load::start(daemon.assign(), 4);
        // In order when it is asked, and then it would have one more worker.
        let real = env!("CARGO_BIN_EXE_splitd");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *--inherit-check*) exec {real} \"$@\";; esac\nexec {real} \"$@\" --set pool.assign.workers=2\n"
        );
        replace_program(&daemon, &script);
        for round in 1..=2 {
            signal(daemon.master_pid(), Signal::SIGUSR2);
            wait_until("the way back", || daemon.log().matches("event=upgrade_reverted").count() == round);
            load.more(50);
        }
        assert_eq!(load.stop().unanswered, [] as [String; 0]);
        let workers = |children: &[(i32, String)]| -> Vec<i32> {
            children.iter().filter(|(_, name)| name.contains('/')).map(|(pid, _)| *pid).collect()
        };
        assert_eq!(workers(&daemon.children()), workers(&before), "nobody was replaced");
        assert_eq!(daemon.master_pid(), master);
        let (code, said) = daemon.order(&["reload", "--workers", "--wait"]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(daemon.stop(), Some(0));
    }

    changed_settings_come_into_force_all_or_none(io) {
        let pools = "[[pool]]\nname = \"assign\"\n#\n[[pool]]\nname = \"bulk\"\n[[pool]]\nname = \"admin\"\n";
        let mut daemon = Plan::new(io, "edge.experiments.json").settings(pools).workers(2).start();
        let master = daemon.master_pid();
        let load = Load::start(daemon.assign(), 4);
        daemon.expect("event=upgrade_fault");
        daemon.expect("event=upgrade_refused");
        daemon.expect("event=ended process=check");
        let status = || Client::connect(daemon.assign()).get("/v1/assign?user_id=1&n=old").status;
        let served = |text: &str| {
            fs::write(daemon.settings_file(), pools.replace('#', text)).unwrap();
            daemon.order(&["reload", "--wait"])
        };
        let same = served("# as before");
        assert_eq!((same.0, status()), (Some(0), 200), "{}", same.1);
        let (code, said) = served("validation = \"strict\"\nidle_timeout = \"70s\"");
        assert_eq!((code, status()), (Some(0), 422), "in force everywhere: {said}");
        let (code, said) = served("validation = \"lenient\"\nbacklog = 7\nsocket_mode = \"0600\"");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("pool.assign.backlog: can't change") && said.contains("pool.assign.socket_mode"), "{said}");
        let (code, said) = served("validation = \"lenient\"\nidle_timeuot = \"70s\"\nnice = 99");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("idle_timeout") && said.contains("pool.assign.nice"), "all faults: {said}");
        assert_eq!(status(), 422, "what was refused left the settings as they were");
        assert_eq!(daemon.log().matches("event=upgraded").count(), 2, "by a comment, and by what is strict");
        load.more(50);
        assert_eq!(load.stop().unanswered, [] as [String; 0]);
        assert_eq!(daemon.master_pid(), master);
        assert_eq!(daemon.stop(), Some(0));
    }

    a_new_master_replaces_the_workers_of_a_killed_one(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).set("orphan_timeout=1h").start();
        daemon.expect("event=master_gone");
        daemon.expect("event=takeover");
        let orphans = daemon.kill_master();
        let mut client = Client::connect(daemon.assign());
        assert_eq!(client.get("/v1/assign?user_id=1").status, 200, "they serve on");
        daemon.start();
        wait_until("the orphans to be followed", || {
            orphans.iter().all(|pid| {
                fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
            })
        });
        assert_eq!(daemon.log().matches("event=followed").count(), 4);
        assert_eq!(Client::connect(daemon.assign()).get("/livez").status, 200);
        assert_eq!(daemon.stop(), Some(0));
    }
}

#[test]
fn the_lock_says_whose_it_is_and_is_empty_only_after_a_clean_end() {
    let mut daemon = Plan::new("auto", "edge.experiments.json").set("orphan_timeout=1h").start();
    let master = daemon.master_pid().to_string();
    let path = daemon.directory.path().join("run/lock");
    // Its text, and when it was written last, or cut.
    let look = || {
        let found = fs::metadata(&path).unwrap();
        (fs::read_to_string(&path).unwrap(), (found.mtime(), found.mtime_nsec()))
    };
    let first = look();
    assert_eq!(first.0.trim(), master);
    upgrade(&daemon);
    assert_eq!(daemon.order(&["reload", "--workers", "--wait"]).0, Some(0));
    assert_eq!(look(), first, "nobody touches it while it is held");
    let second = daemon.command().output().unwrap();
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(3) && text.contains(&format!("(pid {master})")), "{text}");
    assert_eq!(look(), first);
    // The next one ends as it is about to write its own: it may write no file at all (setrlimit(2)).
    daemon.expect("event=master_gone");
    daemon.kill_master();
    let own = daemon.command();
    let mut cut = Command::new("/bin/sh");
    cut.arg("-c").arg("ulimit -f 0; exec \"$0\" \"$@\"").arg(own.get_program()).args(own.get_args());
    let cut = cut.env_clear().current_dir(daemon.directory.path()).output().unwrap();
    assert!(!cut.status.success(), "{cut:?}");
    assert_eq!(look(), first, "it still says that an instance was killed");
    daemon.expect("event=takeover");
    daemon.start();
    assert!(daemon.log().contains(&format!("event=takeover killed_pid={master}")));
    assert_eq!(look().0.trim(), daemon.master_pid().to_string());
    daemon.wait_for_orphans();
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(look().0, "");
}

#[test]
fn shares_are_expected_anew_where_an_upgrade_lays_the_counters_out_anew() {
    let mut daemon = Plan::new("auto", "edge.experiments.json").start();
    let ask = |count: usize| {
        let mut client = Client::connect(daemon.assign());
        (0..count).for_each(|user| assert_eq!(client.get(&format!("/v1/assign?user_id={user}")).status, 200));
    };
    let look = || Client::connect(daemon.admin()).get("/v1/status").json();
    // Groups of each experiment: name, share that it should have, count.
    let groups = |status: &Value| -> BTreeMap<String, Vec<(String, f64, u64)>> {
        let all = status["assignments"]["experiments"].as_array().unwrap().iter().map(|experiment| {
            let group = |group: &Value| {
                let (name, expected) =
                    (group["group"].as_str().unwrap(), group["expected"].as_f64().unwrap());
                (name.to_owned(), expected, group["count"].as_u64().unwrap())
            };
            let groups = experiment["groups"].as_array().unwrap().iter().map(group).collect();
            (experiment["experiment"].as_str().unwrap().to_owned(), groups)
        });
        all.collect()
    };
    ask(50);
    let before = groups(&look());
    assert!(before.values().flatten().any(|(_, _, count)| *count > 0), "{before:?}");
    // As if the program before had another layout: its number is the second word.
    let path = daemon.directory.path().join("run/metrics");
    let mut words = fs::read(&path).unwrap();
    words[8] ^= 0xff;
    fs::write(path.with_extension("new"), words).unwrap();
    fs::rename(path.with_extension("new"), &path).unwrap();
    upgrade(&daemon);
    let status = look();
    let anew: BTreeMap<_, _> = (before.iter())
        .map(|(experiment, groups)| {
            let uncounted = groups.iter().map(|(name, expected, _)| (name.clone(), *expected, 0)).collect();
            (experiment.clone(), uncounted)
        })
        .collect();
    assert_eq!(groups(&status), anew, "the same shares, of nothing yet");
    ask(50);
    assert_eq!(groups(&look()), before, "counted from there on");
    assert_eq!(status["experiments"]["version"], "edge-1");
    // Its rings are found by its number.
    let (code, said) = daemon.order(&["status", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let found: Value = serde_json::from_str(&said).unwrap();
    assert!(!found["rings"].as_array().unwrap().is_empty(), "{said}");
    let law = || -> [Value; 3] {
        ["attempted", "delivered", "unaccounted"].map(|figure| look()["law"][figure].clone())
    };
    wait_until("the books to hold", || law() == [100, 100, 0].map(Value::from));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_program_that_lays_rings_out_in_another_way_is_refused_and_nothing_changes() {
    let mut daemon = Plan::new("auto", "edge.experiments.json").workers(2).start();
    daemon.expect("event=upgrade_refused");
    daemon.expect("event=upgrade_fault");
    daemon.expect("event=ended process=check");
    let before = daemon.children();
    let rings = daemon.directory.path().join("run/rings");
    let instance = fs::read_dir(&rings).unwrap().next().unwrap().unwrap().path();
    // The layout is said twice: in the last byte of the first word, and in the second
    // word. The second ring of a slot is nobody's between two replacements.
    let ring = fs::File::options().write(true).open(instance.join("00003")).unwrap();
    let lay_out = |layout: u8| {
        ring.write_all_at(&[layout], 7).unwrap();
        ring.write_all_at(&u64::from(layout).to_le_bytes(), 8).unwrap();
    };
    lay_out(2);
    signal(daemon.master_pid(), Signal::SIGUSR2);
    wait_until("the refusal", || daemon.log().contains("event=upgrade_refused"));
    let reason = "00003: a ring of layout 2; this program knows 1; that takes a restart";
    assert!(daemon.log().contains(reason), "with a word");
    assert_eq!(daemon.children(), before);
    assert!(!daemon.log().contains("event=upgraded"));
    assert_eq!(Client::connect(daemon.assign()).get("/v1/assign?user_id=1").status, 200);
    lay_out(1);
    upgrade(&daemon);
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(daemon.events().len(), 1);
}
