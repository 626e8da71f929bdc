//! Who stands still is ended and followed, and who only gets no CPU is not: with
//! real processes that spin, are stopped, are starved.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, Uid};
use splitd::clock;
use splitd::metrics::Table;
use splitd::sys::region::Region;

use crate::for_each_backend;
use crate::support::{Client, Daemon, Plan, signal, wait_until};

/// An instruction that jumps to itself.
#[cfg(target_arch = "x86_64")]
const SPIN: &[u8] = &[0xEB, 0xFE];
#[cfg(target_arch = "aarch64")]
const SPIN: &[u8] = &0x1400_0000u32.to_le_bytes();

/// Has a process spin for ever once the system call returns that it waits in: its
/// next instruction becomes one that jumps to itself, in its own copy of the page
/// (proc(5): `syscall`, `mem`).
fn spin(pid: i32) {
    let mut next = None;
    wait_until("it to wait in a system call", || {
        let text = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap();
        next = text.split_whitespace().nth(8).map(|word| word.trim_start_matches("0x").to_owned());
        next.is_some()
    });
    let next = u64::from_str_radix(&next.unwrap(), 16).unwrap();
    let memory = File::options().write(true).open(format!("/proc/{pid}/mem")).unwrap();
    memory.write_all_at(SPIN, next).unwrap();
}

/// How long a process has not turned, as its block of metrics says.
fn stands_still(daemon: &Daemon, pid: i32) -> Duration {
    let region = Region::view_file(&daemon.directory.path().join("run/metrics")).unwrap();
    let table = Table::attach(region.words()).unwrap();
    let lives = table.blocks().filter_map(|block| block.life());
    let turned_ns = lives.filter(|life| life.pid as i32 == pid).map(|life| life.turn_mono_ns).max();
    Duration::from_nanos(clock::mono_ns().saturating_sub(turned_ns.expect("its block")))
}

/// Processes that have a thousandth of one CPU among them.
struct Starved {
    group: PathBuf,
    hog: Child,
}

impl Starved {
    /// None where this machine does not let us.
    fn new() -> Option<Starved> {
        let name = format!("splitd-test-{}", std::process::id());
        // As both versions of cgroups have it: a millisecond a second.
        let versions: [(&str, &[(&str, &str)]); 2] = [
            ("/sys/fs/cgroup/cpu", &[("cpu.cfs_period_us", "1000000"), ("cpu.cfs_quota_us", "1000")]),
            ("/sys/fs/cgroup", &[("cpu.max", "1000 1000000")]),
        ];
        versions.into_iter().find_map(|(root, limits)| {
            let group = Path::new(root).join(&name);
            fs::create_dir(&group).ok()?;
            let hog = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
            let starved = Starved { group, hog };
            let limited = limits.iter().all(|(file, limit)| starved.write(file, limit));
            (limited && starved.take(starved.hog.id() as i32)).then_some(starved)
        })
    }

    fn write(&self, file: &str, text: &str) -> bool {
        let file = File::options().write(true).open(self.group.join(file));
        file.is_ok_and(|file| file.write_all_at(text.as_bytes(), 0).is_ok())
    }

    fn take(&self, pid: i32) -> bool {
        self.write("cgroup.procs", &pid.to_string())
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        let _ = self.hog.kill();
        let _ = self.hog.wait();
        let above = self.group.parent().unwrap().join("cgroup.procs");
        for pid in fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(&above, pid);
        }
        let _ = fs::remove_dir(&self.group);
    }
}

#[test]
fn a_worker_that_gets_no_cpu_is_left_alone() {
    let Some(starved) = Starved::new() else {
        return eprintln!("skipped: no control over CPU time here");
    };
    let daemon = Plan::new("auto", "edge.experiments.json").set("watchdog=1s").start();
    let worker = daemon.child("assign/0").unwrap();
    // Beside the hog it has next to nothing of that thousandth.
    let idle = Command::new("chrt").args(["--idle", "--pid", "0", &worker.to_string()]).status();
    assert!(idle.expect("chrt").success());
    assert!(starved.take(worker));
    // Both on the worker's CPU: on two they would not wait for each other.
    let (hog, cpus) =
        (Pid::from_raw(starved.hog.id() as i32), sched_getaffinity(Pid::from_raw(worker)).unwrap());
    sched_setaffinity(hog, &cpus).unwrap();
    wait_until("it to stand still", || stands_still(&daemon, worker) > Duration::from_secs(3));
    drop(starved);
    assert_eq!(Client::connect(daemon.assign()).get("/v1/assign?user_id=1").status, 200);
    assert_eq!(daemon.child("assign/0"), Some(worker));
    assert!(!daemon.log().contains("event=kill"), "{}", daemon.log());
}

for_each_backend! {
    a_worker_that_spins_is_ended_and_followed(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).set("watchdog=1s").start();
        daemon.expect("event=kill process=assign/0");
        daemon.expect("event=ended process=assign/0");
        let spinning = daemon.child("assign/0").unwrap();
        spin(spinning);
        wait_until("a successor", || daemon.child("assign/0").is_some_and(|pid| pid != spinning));
        assert_eq!(daemon.metric("splitd_worker_restarts_total{cause=\"watchdog\"}"), 1);
        assert_eq!(daemon.stop(), Some(0));
    }

    a_worker_that_was_stopped_is_replaced_by_the_watchdog(io) {
        let mut daemon = Plan::new(io, "edge.experiments.json").workers(2).set("watchdog=1s").start();
        daemon.expect("event=kill process=assign/0");
        daemon.expect("event=ended process=assign/0");
        let stopped = daemon.child("assign/0").unwrap();
        signal(stopped, Signal::SIGSTOP);
        wait_until("a successor", || daemon.child("assign/0").is_some_and(|pid| pid != stopped));
        assert_eq!(daemon.metric("splitd_worker_restarts_total{cause=\"watchdog\"}"), 1);
        let logger = daemon.child("logger").unwrap();
        daemon.expect("event=kill process=logger");
        daemon.expect("event=ended process=logger");
        signal(logger, Signal::SIGSTOP);
        wait_until("another logger", || daemon.child("logger").is_some_and(|pid| pid != logger));
        assert_eq!(daemon.metric("splitd_logger_restarts_total{cause=\"watchdog\"}"), 1);
        assert_eq!(daemon.stop(), Some(0));
    }
}

/// A session's niceness, of the session that a process is in (proc(5): `autogroup`).
fn session_nice(pid: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/autogroup")).ok()?;
    text.trim().rsplit(' ').next()?.parse().ok()
}

/// `SID` and the niceness of a process (proc(5): `stat`).
fn session_and_nice(pid: i32) -> (i32, i32) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<i64> =
        stat.rsplit(')').next().unwrap().split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    (fields[3] as i32, fields[16] as i32)
}

/// Each child leads a session as nice as itself, and no other session has changed;
/// false where this kernel does not group tasks by session.
fn sessions_are_as_nice_as_their_children(daemon: &Daemon) -> bool {
    let Some(own) = session_nice(daemon.master_pid()) else { return false };
    let mut niceness = Vec::new();
    for (pid, name) in daemon.children() {
        let (session, nice) = session_and_nice(pid);
        assert_eq!(session, pid, "{name} leads it");
        wait_until("the session's niceness", || session_nice(pid) == Some(nice));
        niceness.push(nice);
    }
    assert!(niceness.contains(&3) && niceness.contains(&9), "{niceness:?}");
    assert_eq!(session_nice(daemon.master_pid()), Some(own), "the master's and its caller's");
    true
}

fn niced() -> Plan {
    let plan = Plan::new("auto", "edge.experiments.json").workers(2);
    plan.set("pool.assign.nice=3").set("logger.nice=9")
}

#[test]
fn each_childs_session_is_as_nice_as_itself() {
    if !sessions_are_as_nice_as_their_children(&niced().start()) {
        eprintln!("skipped: this kernel does not group tasks by session");
    }
}

/// The kernel lets such a master change one session in a tenth of a second.
#[test]
fn an_unprivileged_masters_children_have_such_sessions_too() {
    if !Uid::effective().is_root() {
        return eprintln!("skipped: this master is always unprivileged");
    }
    const NOBODY: u32 = 65534;
    let mut daemon = niced().copied().prepare();
    let directory = daemon.directory.path();
    for path in [directory.to_owned(), directory.join("experiments.json"), daemon.program()] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut command = daemon.command();
    command.uid(NOBODY).gid(NOBODY);
    daemon.start_by(command);
    if !sessions_are_as_nice_as_their_children(&daemon) {
        eprintln!("skipped: this kernel does not group tasks by session");
    }
}
