//! Who stands still is ended: ABRT, so that a core tells where, a second later
//! KILL; the successor is started as after any death.
//!
//! ```text
//! a process's time = what passed since its last turn, less what it waited for a CPU
//!   asleep, stopped: clock time less the run delay of /proc/PID/schedstat
//!   runnable:        the CPU time it had; it may wait at this moment, which the
//!                    kernel adds to the run delay only when the wait is over
//! ```
//! - So a worker that is starved is never ended for it, one that spins is once it
//!   has spun for `watchdog` of CPU time, and one that hangs in a system call, or
//!   was stopped by a signal, after `watchdog`.
//! - When the machine slept, or all of us did, everybody begins anew.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Action, Phase, Process, Supervisor, ns};

/// From ABRT to KILL.
const ABORT_TIME_MAX: Duration = Duration::from_secs(1);

/// How a process has fared up to now; all of it only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// Anything that moves while it does its work.
    pub turns: u64,
    /// CPU time it had.
    pub run_ns: u64,
    /// Time it was runnable and had no CPU.
    pub delay_ns: u64,
    /// Whether it is runnable now.
    pub runnable: bool,
}

#[derive(Debug, Clone, Copy)]
struct Still {
    since_ns: u64,
    /// As it was then.
    pulse: Pulse,
    /// ABRT was sent; when KILL is due, unless it was sent, too.
    aborted: bool,
    kill_at_ns: Option<u64>,
}

/// Everybody who is watched, and since when each has not moved.
#[derive(Debug, Default)]
pub(super) struct Watched(BTreeMap<Process, Still>);

impl Watched {
    pub(super) fn remove(&mut self, process: Process) {
        self.0.remove(&process);
    }

    /// All begin anew, but for those whose end has begun.
    pub(super) fn forget(&mut self) {
        self.0.retain(|_, still| still.aborted);
    }

    pub(super) fn due_ns(&self) -> Option<u64> {
        self.0.values().filter_map(|still| still.kill_at_ns).min()
    }
}

impl Supervisor {
    /// Whether every pool has a worker that is ready, or a stop or a start is
    /// under way, which have limits of their own.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        let ready = |slot: &super::Slot| matches!(slot.state, super::State::Ready { .. });
        self.phase != Phase::Serving
            || !self.ready_said
            || self
                .slots
                .iter()
                .all(|slot| self.slots.iter().any(|other| other.pool == slot.pool && ready(other)))
    }

    /// Those whose pulse is to be taken.
    pub fn watched(&self) -> impl Iterator<Item = Process> {
        let ready = |state: super::State| match state {
            super::State::Ready { process, .. } => Some(process),
            _ => None,
        };
        let serving = self.phase == Phase::Serving && self.times.watchdog > Duration::ZERO;
        let states = self.slots.iter().map(|slot| slot.state).chain([self.logger]);
        states.filter_map(ready).filter(move |_| serving)
    }

    pub(super) fn handle_pulse(
        &mut self,
        process: Process,
        pulse: Pulse,
        now_ns: u64,
        actions: &mut Vec<Action>,
    ) {
        if !self.watched().any(|watched| watched == process) {
            return;
        }
        let limit_ns = ns(self.times.watchdog);
        let anew = Still { since_ns: now_ns, pulse, aborted: false, kill_at_ns: None };
        let still = self.watched.0.entry(process).or_insert(anew);
        if still.aborted {
            return;
        }
        if still.pulse.turns != pulse.turns {
            *still = anew;
            return;
        }
        let passed_ns = now_ns - still.since_ns;
        let delay_ns = pulse.delay_ns.saturating_sub(still.pulse.delay_ns);
        let own_ns = match pulse.runnable {
            true => pulse.run_ns.saturating_sub(still.pulse.run_ns),
            false => passed_ns.saturating_sub(delay_ns),
        };
        if own_ns.min(passed_ns) >= limit_ns {
            still.aborted = true;
            still.kill_at_ns = Some(now_ns + ns(ABORT_TIME_MAX));
            let (signal, why) = (Signal::SIGABRT, "it stands still");
            actions.push(Action::Kill { process, signal, why });
        }
    }

    pub(super) fn handle_watchdog_time(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        for (process, still) in &mut self.watched.0 {
            if still.kill_at_ns.is_some_and(|kill_at_ns| now_ns >= kill_at_ns) {
                still.kill_at_ns = None;
                let (process, signal, why) =
                    (*process, Signal::SIGKILL, "it stands still, and did not abort");
                actions.push(Action::Kill { process, signal, why });
            }
        }
    }
}
