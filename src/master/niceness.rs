//! Who goes first: workers, then the logger, then the loader. What the system
//! allows is found out once, by trying, and said once in the log.
//!
//! The master keeps the niceness it was started with. It sleeps; when it wakes,
//! somebody is missing, and a child begins with its parent's niceness: behind
//! CPUs kept busy by others, a successor that began last of all has waited for
//! its first turn for many seconds.
//!
//! **Sessions.** Where the kernel groups tasks by session (`sched_autogroup`,
//! sched(7)), niceness counts within a session only, and a session has the weight
//! of *one* task of niceness 0, shared out over all CPUs: of 64 busy workers each
//! would have a 64th of what any other program's task has on its CPU, however low
//! its niceness. So each child leads a session of its own, whose group the master
//! gives the child's niceness. An unprivileged master may do so ten times a
//! second; until it is its turn a child's session has niceness 0.

use std::fs;
use std::io::{self, ErrorKind};
use std::time::Duration;

use nix::unistd::{Pid, getsid};

use super::process::Running;
use crate::config::settings::Settings;
use crate::sys::fork::{niceness, set_niceness};

/// The loader's.
const LAST: i32 = 10;
/// When to try again what the kernel put off: it lets an unprivileged process
/// change one session in this time.
const PUT_OFF: Duration = Duration::from_millis(100);

/// What children may have.
#[derive(Debug)]
pub(super) struct Niceness {
    /// The lowest that is allowed.
    floor: i32,
    /// The master's before it began.
    own: i32,
    /// Children lead sessions: the kernel weighs them, and takes their niceness.
    sessions: bool,
    /// When to go on telling.
    due_ns: Option<u64>,
}

impl Niceness {
    /// Tries for the lowest that the settings want.
    pub(super) fn find(settings: &Settings) -> Niceness {
        let own = niceness();
        let wanted = settings.pools.iter().map(|pool| pool.nice).chain([settings.logger.nice]);
        let lowest = wanted.min().unwrap_or(0).min(own);
        let floor = (lowest..own).find(|nice| set_niceness(*nice).is_ok()).unwrap_or(own);
        if floor > lowest {
            log::info!("event=nice_limited wanted={lowest} nice={floor} hint=\"raise LimitNICE\"");
        }
        // Down is allowed to everybody, and back to where it began.
        let _ = set_niceness(own);
        Niceness { floor, own, sessions: takes_niceness(), due_ns: None }
    }

    /// Whether children lead sessions of their own.
    pub(super) fn by_session(&self) -> bool {
        self.sessions
    }

    /// When to `settle` next, CLOCK_MONOTONIC.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    /// Gives the sessions of children their niceness, as far as the kernel takes it now.
    pub(super) fn settle<'r>(&mut self, running: impl Iterator<Item = &'r mut Running>, now_ns: u64) {
        self.due_ns = None;
        let put_off_ns = now_ns + PUT_OFF.as_nanos() as u64;
        for child in running.filter(|_| self.sessions) {
            let Some(nice) = child.session_nice else { continue };
            let pid = Pid::from_raw(child.pid());
            if getsid(Some(pid)) != Ok(pid) {
                // It does not lead a session yet: it is still in ours.
                self.due_ns = Some(put_off_ns);
                continue;
            }
            match set_session_niceness(pid, nice) {
                Err(fault) if fault.kind() == ErrorKind::WouldBlock => {
                    self.due_ns = Some(put_off_ns);
                    return;
                }
                // Whether we may was found out at the start; one that has just ended
                // has no such file of ours any more.
                Ok(()) | Err(_) => child.session_nice = None,
            }
        }
    }

    /// The niceness of a child that wants this one.
    pub(super) fn allowed(&self, wanted: i32) -> i32 {
        wanted.max(self.floor)
    }

    /// The loader's.
    pub(super) fn loader(&self) -> i32 {
        LAST.max(self.own)
    }
}

/// Whether the kernel groups by session and takes a session's niceness from us:
/// our own is told what it has. In a control group it does not: the file is empty.
fn takes_niceness() -> bool {
    let own = fs::read_to_string("/proc/self/autogroup").unwrap_or_default();
    // proc(5): "/autogroup-25 nice 0"
    let Some(nice) = own.trim().rsplit(' ').next().and_then(|nice| nice.parse().ok()) else { return false };
    let told = set_session_niceness(Pid::this(), nice);
    told.map_or_else(|fault| fault.kind() == ErrorKind::WouldBlock, |()| true)
}

/// Sets the niceness of the session that a process is in.
///
/// # Errors
/// `WouldBlock` where the kernel wants it later; else if it is refused.
fn set_session_niceness(pid: Pid, nice: i32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/autogroup"), nice.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Sources, load};
    use crate::sys::fork::{Exit, fork};

    #[test]
    fn a_child_is_never_refused_what_it_was_promised() {
        let _alone = crate::sys::alone();
        let settings = load(&Sources::default()).unwrap();
        // In a child, because a niceness stays with its process.
        let child = fork(|| {
            let found = Niceness::find(&settings);
            let kept = |nice: i32| set_niceness(found.allowed(nice)).is_ok();
            i32::from(!(kept(10) || found.floor == found.own) | !kept(found.own.min(-5)))
        })
        .unwrap();
        assert_eq!(child.wait().unwrap(), Exit::Code(0));
    }
}
