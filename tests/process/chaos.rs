//! Chaos: every kind of process is killed and stopped at random under load, the
//! experiments are reloaded, the disk fills up. Afterwards the law holds, and from
//! outside every answered request has been delivered, once by id.
//!
//! `SPLITD_CHAOS_SECONDS=600 SPLITD_CHAOS_SEED=7 cargo test --test process chaos`
//! runs for longer, and again as before (but for what the machine adds).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, UNIX_EPOCH};

use nix::sys::signal::Signal;

use serde_json::{Value, json};

use crate::for_each_backend;
use crate::support::{Daemon, Load, Outcome, Plan, signal, wait_until};

/// How long a run takes without being told.
const SECONDS_DEFAULT: u64 = 7;
const CLIENTS: usize = 6;
const WORKERS: usize = 3;
/// A process that is stopped for longer is taken for stuck.
const STOP_MS_MAX: u64 = 700;

/// xorshift64*: short, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A small file system in memory to be filled up, where root can mount one.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path) -> Option<Disk> {
        fs::create_dir_all(path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=256m", "splitd-test"]).arg(path).output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("without a full disk: mounting a small one takes root");
        }
        mounted.then(|| Disk(path.to_owned()))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes all that is left.
    fn fill(&self) {
        let block = vec![0; 1 << 20];
        let mut file = fs::File::create(self.filler()).unwrap();
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    fn empty(&self) {
        let _ = fs::remove_file(self.filler());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still writes there keeps it until then.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// What was done, and how often.
#[derive(Default, Debug)]
struct Deeds(BTreeMap<&'static str, u64>);

impl Deeds {
    fn note(&mut self, deed: &'static str) {
        *self.0.entry(deed).or_default() += 1;
    }

    fn count(&self, deed: &str) -> u64 {
        self.0.get(deed).copied().unwrap_or(0)
    }
}

fn pick(random: &mut Random, daemon: &Daemon, name: &str) -> Option<i32> {
    let children: Vec<i32> = daemon
        .children()
        .into_iter()
        .filter(|(_, child)| child.starts_with(name))
        .map(|(pid, _)| pid)
        .collect();
    (!children.is_empty()).then(|| children[random.below(children.len() as u64) as usize])
}

/// One deed. The process may have ended by itself in the meantime.
fn act(random: &mut Random, daemon: &mut Daemon, disk: Option<&Disk>, deeds: &mut Deeds) {
    let pause =
        |random: &mut Random| std::thread::sleep(Duration::from_millis(20 + random.below(STOP_MS_MAX - 20)));
    let send = |pid: i32, what| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), what).is_ok();
    match random.below(12) {
        0..=2 => {
            if pick(random, daemon, "assign/").is_some_and(|pid| send(pid, Signal::SIGKILL)) {
                deeds.note("worker killed");
            }
        }
        3 | 4 => {
            if pick(random, daemon, "logger").is_some_and(|pid| send(pid, Signal::SIGKILL)) {
                deeds.note("logger killed");
            }
        }
        5 => {
            // The loader it starts may be killed in the middle.
            signal(daemon.master_pid(), Signal::SIGHUP);
            if pick(random, daemon, "loader").is_some_and(|pid| send(pid, Signal::SIGKILL)) {
                deeds.note("loader killed");
            }
            deeds.note("reload");
        }
        6..=8 => {
            let name = ["assign/", "logger", "admin/"][random.below(3) as usize];
            let Some(pid) = pick(random, daemon, name) else { return };
            if send(pid, Signal::SIGSTOP) {
                pause(random);
                // Killed while it stood still, one time in three.
                let end = if random.below(3) == 0 { Signal::SIGKILL } else { Signal::SIGCONT };
                send(pid, end);
                deeds.note("child stopped");
            }
        }
        9 => {
            signal(daemon.master_pid(), Signal::SIGSTOP);
            pause(random);
            signal(daemon.master_pid(), Signal::SIGCONT);
            deeds.note("master stopped");
        }
        10 => {
            daemon.kill_master();
            pause(random);
            daemon.start();
            deeds.note("master killed");
        }
        _ => {
            let Some(disk) = disk else { return };
            disk.fill();
            pause(random);
            disk.empty();
            deeds.note("disk filled");
        }
    }
}

/// From outside. Gives how many records came twice.
fn delivered_once(events: &[Value], outcome: &Outcome) -> usize {
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut doubled = 0;
    for event in events {
        let user = event["units"]["user_id"].as_str().unwrap().to_owned();
        doubled +=
            usize::from(!ids.entry(user).or_default().insert(event["id"].as_str().unwrap().to_owned()));
    }
    let lost: Vec<&String> = outcome.answered.iter().filter(|user| !ids.contains_key(*user)).collect();
    assert!(
        lost.is_empty(),
        "{} of {} answered are not delivered: {:?}",
        lost.len(),
        outcome.answered.len(),
        &lost[..lost.len().min(5)]
    );
    for (user, ids) in &ids {
        assert_eq!(ids.len(), 1, "{user} has more than one exposure: {ids:?}");
    }
    let answered: BTreeSet<&String> = outcome.answered.iter().collect();
    let unanswered: BTreeSet<&String> = outcome.unanswered.iter().collect();
    for user in ids.keys().filter(|user| !answered.contains(user)) {
        assert!(unanswered.contains(user), "{user} was never asked for");
    }
    doubled
}

for_each_backend! {
    whatever_is_killed_stopped_or_full_no_answered_request_loses_its_exposure(io) {
        let seed = setting("SPLITD_CHAOS_SEED").unwrap_or_else(|| UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64);
        let seconds = setting("SPLITD_CHAOS_SECONDS").unwrap_or(SECONDS_DEFAULT);
        eprintln!("{io}: SPLITD_CHAOS_SEED={seed} SPLITD_CHAOS_SECONDS={seconds}");
        let mut random = Random(seed | 1);
        let mut daemon = Plan::new(io, "edge.experiments.json")
            .workers(WORKERS)
            // Room for all that a second without a logger or a disk brings: nothing is refused.
            .set("logger.ring_size=16MiB")
            .set("orphan_timeout=1s")
            .set("drain_timeout=5s")
            .prepare();
        let disk = Disk::mount(&daemon.state_dir());
        daemon.start();
        for text in [
            "event=ended process=", "event=restart_waits process=", "event=takeover", "event=master_gone",
            "event=sink_refused", "event=sink_error", "event=torn_file_cut", "event=logger_stopped", "event=last_good_not_kept", "event=order_lost",
        ] {
            daemon.expect(text);
        }
        let load = Load::start(daemon.assign(), CLIENTS);
        let mut deeds = Deeds::default();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(seconds) {
            load.more(50);
            act(&mut random, &mut daemon, disk.as_ref(), &mut deeds);
        }
        load.more(50);
        let outcome = load.stop();
        daemon.wait_for_orphans();
        // The law, by the instance's own books, once nothing moves.
        wait_until("empty rings", || {
            daemon.child("logger").is_some() && daemon.metric("splitd_exposures_in_rings") == 0
        });
        wait_until("books that hold", || daemon.metric("splitd_exposures_unaccounted") == 0);
        assert_eq!(daemon.metric("splitd_exposures_lost_total{reason=\"full\"}"), 0, "nothing was refused");
        assert_eq!(daemon.stop(), Some(0));
        let doubled = delivered_once(&daemon.events(), &outcome);
        let (answered, unanswered) = (outcome.answered.len(), outcome.unanswered.len() as u64);
        eprintln!("{io}: {answered} answered, {unanswered} not, {doubled} doubled; {deeds:?}");
        let kills = deeds.count("worker killed") + deeds.count("child stopped") + deeds.count("master killed") * WORKERS as u64;
        assert!(unanswered <= kills * CLIENTS as u64, "only what was under way at a kill: {unanswered}");
        drop(disk);
    }
}

#[test]
fn the_check_sees_what_is_lost_doubled_under_two_ids_or_never_asked_for() {
    let event = |user: &str, id: &str| json!({"units": {"user_id": user}, "id": id});
    let outcome =
        Outcome { answered: vec!["a".to_owned(), "b".to_owned()], unanswered: vec!["c".to_owned()] };
    let (a, b) = (event("a", "1"), event("b", "2"));
    let good = [
        &[a.clone(), b.clone()][..],
        &[a.clone(), b.clone(), event("c", "3")],
        &[a.clone(), a.clone(), b.clone()],
    ];
    assert_eq!(good.map(|events| delivered_once(events, &outcome)), [0, 0, 1]);
    for bad in [vec![a.clone()], vec![a.clone(), b.clone(), event("a", "9")], vec![a, b, event("d", "4")]] {
        let checked = std::panic::catch_unwind(|| delivered_once(&bad, &outcome));
        assert!(checked.is_err(), "{bad:?}");
    }
}
