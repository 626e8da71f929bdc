//! Chaos: every kind of process is killed and stopped at random under load, the
//! experiments are reloaded, and what is around the daemon fails: the disk fills
//! up, or Kafka is away, hangs, loses its answers or its state. Afterwards the law
//! holds, and from outside every answered request has been delivered, once by id,
//! or is counted as refused.
//!
//! `SPLITD_CHAOS_SECONDS=300 SPLITD_CHAOS_SEED=7 cargo test --test process chaos::`
//! runs for longer, and again as before (but for what the machine adds).

mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use splitd::exposure::ring::Account;
use splitd::sys::region::Region;

use crate::arrived::Arrived;
use crate::for_each_backend;
use crate::support::{Daemon, Load, Plan, wait_until};
use places::{Disk, Place};

/// How long a run takes without being told.
const SECONDS_DEFAULT: u64 = 7;
/// How long a trouble may take to be felt once nobody is killed any more.
const FELT_PATIENCE: Duration = Duration::from_secs(15);
const CLIENTS: usize = 6;
const WORKERS: usize = 3;
/// A process that is stopped for longer is taken for stuck.
const STOP_MS_MAX: u64 = 700;
/// Longer than it takes to notice that the sink is away.
const TROUBLE_MS_MAX: u64 = 3_500;

/// xorshift64*: short, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn time(&mut self, ms_max: u64) -> Duration {
        Duration::from_millis(20 + self.below(ms_max - 20))
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// What was done, and how often.
#[derive(Default, Debug)]
struct Deeds(BTreeMap<&'static str, u64>);

impl Deeds {
    fn note(&mut self, deed: &'static str) {
        *self.0.entry(deed).or_default() += 1;
    }

    /// Requests under way are lost at these, and at no other: each has its connections.
    fn kills(&self) -> u64 {
        let count = |deed| self.0.get(deed).copied().unwrap_or(0);
        count("worker killed") + count("child stopped") + count("master killed") * WORKERS as u64
    }
}

/// What a run was.
struct Run {
    daemon: Daemon,
    random: Random,
    deeds: Deeds,
}

impl Run {
    fn send(&mut self, name: &str, what: Signal) -> Option<i32> {
        let children = self.daemon.children();
        let named: Vec<i32> =
            children.into_iter().filter(|(_, child)| child.starts_with(name)).map(|(pid, _)| pid).collect();
        let pid = *named.get(self.random.below(named.len().max(1) as u64) as usize)?;
        // It may have ended by itself in the meantime.
        kill(Pid::from_raw(pid), what).is_ok().then_some(pid)
    }

    fn pause(&mut self) {
        std::thread::sleep(self.random.time(STOP_MS_MAX));
    }

    /// One deed.
    fn act(&mut self) {
        let done = match self.random.below(11) {
            0..=2 => self.send("assign/", Signal::SIGKILL).map(|_| "worker killed"),
            3 | 4 => self.send("logger", Signal::SIGKILL).map(|_| "logger killed"),
            5 => {
                let _ = kill(Pid::from_raw(self.daemon.master_pid()), Signal::SIGHUP);
                // The loader it starts may be killed in the middle.
                if self.send("loader", Signal::SIGKILL).is_some() {
                    self.deeds.note("loader killed");
                }
                Some("reload")
            }
            6..=8 => {
                let name = ["assign/", "logger", "admin/"][self.random.below(3) as usize];
                let stopped = self.send(name, Signal::SIGSTOP);
                stopped.map(|pid| {
                    self.pause();
                    // Killed while it stood still, one time in three.
                    let end = if self.random.below(3) == 0 { Signal::SIGKILL } else { Signal::SIGCONT };
                    let _ = kill(Pid::from_raw(pid), end);
                    "child stopped"
                })
            }
            9 => {
                let master = Pid::from_raw(self.daemon.master_pid());
                kill(master, Signal::SIGSTOP).unwrap();
                self.pause();
                kill(master, Signal::SIGCONT).unwrap();
                Some("master stopped")
            }
            _ => {
                self.daemon.kill_master();
                self.pause();
                self.daemon.start();
                Some("master killed")
            }
        };
        done.into_iter().for_each(|deed| self.deeds.note(deed));
    }
}

/// The books of every ring there has been: of those that are there, and, from the
/// log, of those that were emptied and removed.
fn refused_in(daemon: &Daemon) -> u64 {
    let list = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let rings = list(daemon.directory.path().join("run/rings")).flat_map(list);
    // One may go while we look.
    let there: BTreeMap<PathBuf, u64> = rings
        .filter_map(|path| {
            let account = Account::read(Region::open_file(&path).ok()?.words()).ok()?;
            Some((path, account.refused_full))
        })
        .collect();
    let log = daemon.log();
    let removed: BTreeSet<(PathBuf, u64)> = log
        .lines()
        .filter(|line| line.contains(" event=ring_drained "))
        .map(|line| {
            let value = |name: &str| {
                let from = line.find(name).unwrap_or_else(|| panic!("{name} is not in {line}")) + name.len();
                line[from..].split(' ').next().unwrap_or_default()
            };
            (PathBuf::from(value(" file=").trim_matches('"')), value(" refused_full=").parse().unwrap())
        })
        .collect();
    let removed = removed.into_iter().filter(|(path, _)| !there.contains_key(path));
    there.values().sum::<u64>() + removed.map(|(_, refused)| refused).sum::<u64>()
}

/// One run; gives how many exposures the rings refused.
fn chaos<P: Place>(io: &str, plan: Plan, attributes: &str, make: impl FnOnce(&Daemon) -> P) -> u64 {
    let seed =
        setting("SPLITD_CHAOS_SEED").unwrap_or_else(|| UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64);
    let seconds = setting("SPLITD_CHAOS_SECONDS").unwrap_or(SECONDS_DEFAULT);
    let daemon = plan.workers(WORKERS).set("orphan_timeout=1s").set("drain_timeout=5s").prepare();
    let mut run = Run { daemon, random: Random(seed | 1), deeds: Deeds::default() };
    let mut place = make(&run.daemon);
    eprintln!("{io}, {}: SPLITD_CHAOS_SEED={seed} SPLITD_CHAOS_SECONDS={seconds}", place.name());
    let common =
        ["event=ended process=", "event=restart_waits process=", "event=takeover", "event=master_gone"];
    let common =
        common.into_iter().chain(["event=logger_stopped", "event=last_good_not_kept", "event=order_lost"]);
    common.chain(place.expected().iter().copied()).for_each(|text| run.daemon.expect(text));
    run.daemon.start();
    let load = Load::start_with(run.daemon.assign(), CLIENTS, attributes);
    let mut arrived = Arrived::default();
    let begin = Instant::now();
    let is_over = || begin.elapsed() >= Duration::from_secs(seconds);
    let mut trouble: Option<Instant> = None;
    while !is_over() || trouble.is_some() {
        load.more(50);
        match trouble {
            None if run.random.below(3) == 0 || begin.elapsed() < Duration::from_millis(500) => {
                let what = place.strike(&mut run.random);
                run.deeds.note(what);
                trouble = Some(Instant::now() + run.random.time(TROUBLE_MS_MAX));
            }
            // At least one goes on until it has been felt, or for as long as that could take.
            Some(until)
                if (is_over() || Instant::now() >= until)
                    && (place.was_felt(&run.daemon)
                        || begin.elapsed() >= Duration::from_secs(seconds) + FELT_PATIENCE) =>
            {
                place.recover();
                trouble = None;
            }
            _ => {}
        }
        if trouble.is_none() {
            place.collect(&mut arrived);
        }
        // Whoever is killed again and again feels nothing.
        match is_over() {
            true => std::thread::sleep(Duration::from_millis(50)),
            false => run.act(),
        }
        run.daemon.lives();
    }
    load.more(50);
    let outcome = load.stop();
    let Run { daemon, deeds, .. } = &mut run;
    daemon.wait_for_orphans();
    // A logger that has emptied the rings of earlier instances has opened the spool, too.
    let rings = daemon.directory.path().join("run/rings");
    wait_until("the rings of earlier instances to go", || fs::read_dir(&rings).unwrap().count() == 1);
    // The law, by the instance's own books, once nothing moves.
    let nothing = [
        "splitd_exposures_in_rings",
        "splitd_exposures_in_flight",
        "splitd_exposures_in_spool",
        "splitd_exposures_unaccounted",
    ];
    wait_until("everything to be delivered", || {
        daemon.child("logger").is_some() && nothing.iter().all(|metric| daemon.metric(metric) == 0)
    });
    let refused = refused_in(daemon);
    let shown = daemon.metric("splitd_exposures_lost_total{reason=\"full\"}");
    assert!(shown <= refused, "{shown} are shown as refused, and the rings have {refused}");
    assert_eq!(daemon.stop(), Some(0));
    place.finish(&mut arrived);
    let (answered, unanswered) = (outcome.answered.len(), outcome.unanswered.len() as u64);
    eprintln!(
        "{io}, {}: {answered} answered, {unanswered} not, {refused} refused, {} doubled; {deeds:?}",
        place.name(),
        arrived.doubled()
    );
    // Refused may also be one whose worker was killed before it answered.
    let missing = arrived.missing(&outcome);
    let sound = missing.len() as u64..=missing.len() as u64 + unanswered;
    assert!(
        sound.contains(&refused),
        "{} of {answered} answered are not delivered ({:?} …), and {refused} are counted as refused",
        missing.len(),
        &missing[..missing.len().min(5)]
    );
    let (kills, clients) = (deeds.kills(), CLIENTS as u64);
    assert!(unanswered <= kills * clients, "only what was under way at a kill: {unanswered} at {kills}");
    refused
}

for_each_backend! {
    whatever_is_killed_stopped_or_full_what_was_answered_is_delivered_or_counted_as_refused(io) {
        // The smallest rings, and a disk that fills up: they refuse.
        let plan = Plan::new(io, "edge.experiments.json").set("sink.file_age_max=1s");
        let attributes = format!("{{\"filler\":\"{}\"}}", "x".repeat(3_500));
        chaos(io, plan, &attributes, Disk::mount);
    }
}

#[cfg(feature = "kafka")]
for_each_backend! {
    whatever_is_killed_stopped_or_away_what_was_answered_is_in_kafka_once(io) {
        let topic = places::Topic::start();
        let plan = Plan::new(io, "edge.experiments.json")
            .set("sink.type=kafka")
            .set(&format!("sink.brokers={}", topic.address()))
            .set("logger.spool_free_min=0")
            // Room for all that a second without a logger brings.
            .set("logger.ring_size=16MiB");
        assert_eq!(chaos(io, plan, "{}", |_| topic), 0, "nothing was refused");
    }
}
