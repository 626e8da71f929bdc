//! Replacing a worker that lives: its successor takes the sockets first, and only
//! then is it told to drain. One slot after the other.
//!
//! ```text
//! state:    Ready(a) ───────────────────────────► Ready(b)
//! next:         b starts, on the other ring ──Ready──┘
//! leaving:                                        a drains ──── gone, or killed
//! ```
//! - A successor that dies before it is ready ends the roll; `a` serves on.
//! - If `a` dies meanwhile, `b` is its replacement, and as slow as any.
//! - A predecessor that still drains when its slot is to be replaced again is
//!   waited for, for [`LEAVE_TIME`], and ended then: a slot has two rings.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Action, Phase, Process, Role, START_TIME_MAX, STOP_GRACE, State, Supervisor, ns};
use crate::worker::Order;

/// How long a predecessor has before its place may be needed for another. By
/// then whoever goes on asking has been told to go elsewhere.
const LEAVE_TIME: Duration = Duration::from_secs(5);

/// A successor that is not ready yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    pub(super) process: Process,
    pub(super) since_ns: u64,
    pub(super) killed: bool,
}

/// A predecessor that drains.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    pub(super) process: Process,
    since_ns: u64,
    pub(super) kill_at_ns: u64,
    pub(super) killed: bool,
    /// It was told that its place is needed.
    hurried: bool,
}

impl Leaving {
    pub(super) fn new(process: Process, deadline: Duration, now_ns: u64) -> Leaving {
        let kill_at_ns = now_ns + ns(deadline) + ns(STOP_GRACE);
        Leaving { process, since_ns: now_ns, kill_at_ns, killed: false, hurried: false }
    }
}

impl Supervisor {
    /// Whether workers are being replaced, or are to be.
    #[must_use]
    pub fn is_rolling(&self) -> bool {
        !self.rolling.is_empty() || self.slots.iter().any(|slot| slot.next.is_some())
    }

    pub(super) fn handle_replace(&mut self, slot: usize) {
        if !self.is_stopping() && !self.rolling.contains(&slot) {
            self.rolling.push_back(slot);
            self.rolls = true;
        }
    }

    /// Begins the next replacement once the one before is done.
    pub(super) fn settle_roll(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if self.phase != Phase::Serving || self.slots.iter().any(|slot| slot.next.is_some()) {
            return;
        }
        while let Some(&index) = self.rolling.front() {
            let slot = &mut self.slots[index];
            match (slot.state, &mut slot.leaving) {
                // What is started from now on is as good as a successor.
                (State::Waiting { .. } | State::Absent, _) => drop(self.rolling.pop_front()),
                // What is being started may not be; it is replaced once it is ready.
                (State::Starting { .. }, _) => return,
                (State::Ready { .. }, Some(leaving)) => {
                    if !leaving.hurried && now_ns >= leaving.since_ns + ns(LEAVE_TIME) {
                        leaving.hurried = true;
                        leaving.kill_at_ns = leaving.kill_at_ns.min(now_ns + ns(STOP_GRACE));
                        let order = Order::HandOver { deadline_ms: 0 };
                        actions.push(Action::Order { process: leaving.process, order });
                    }
                    return;
                }
                (State::Ready { .. }, None) => {
                    self.rolling.pop_front();
                    let process = self.process();
                    let slot = &mut self.slots[index];
                    slot.next = Some(Next { process, since_ns: now_ns, killed: false });
                    let (role, which) = (Role::Worker { slot: index }, slot.which ^ 1);
                    return actions.push(Action::Spawn { process, role, which });
                }
            }
        }
        if std::mem::take(&mut self.rolls) {
            actions.push(Action::Replaced);
        }
    }

    /// A successor is ready: the slot is its own, and who had it drains. False if
    /// it is nobody's successor.
    pub(super) fn take_over(&mut self, ready: Process, now_ns: u64, actions: &mut Vec<Action>) -> bool {
        let deadline = self.times.drain;
        let stopping = self.is_stopping();
        let is_next = |next: &Next| next.process == ready;
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.next.as_ref().is_some_and(is_next)) else {
            return false;
        };
        // In a stop it drains like everybody else.
        if stopping {
            return true;
        }
        slot.next = None;
        if let Some(process) = slot.state.process() {
            slot.leaving = Some(Leaving::new(process, deadline, now_ns));
            let order = Order::HandOver { deadline_ms: deadline.as_millis() as u64 };
            actions.push(Action::Order { process, order });
            self.watched.remove(process);
        }
        slot.state = State::Ready { process: ready, since_ns: now_ns };
        slot.which ^= 1;
        (slot.slow, slot.condemned) = (false, false);
        true
    }

    /// The worker is dead: its successor, if one is on its way, is its replacement.
    pub(super) fn promote_successor(&mut self, index: usize) -> bool {
        let slot = &mut self.slots[index];
        let Some(next) = slot.next.take() else { return false };
        slot.state = State::Starting { process: next.process, since_ns: next.since_ns };
        slot.which ^= 1;
        (slot.slow, slot.condemned) = (false, next.killed);
        true
    }

    /// Whether that was a predecessor, which has done its part.
    pub(super) fn leaver_ended(&mut self, ended: Process) -> bool {
        let is_leaving = |leaving: &Leaving| leaving.process == ended;
        let slot = self.slots.iter_mut().find(|slot| slot.leaving.as_ref().is_some_and(is_leaving));
        slot.is_some_and(|slot| slot.leaving.take().is_some())
    }

    /// Whether that was a successor; then nobody else is replaced.
    pub(super) fn successor_ended(&mut self, ended: Process, actions: &mut Vec<Action>) -> bool {
        let is_next = |next: &Next| next.process == ended;
        let found = self.slots.iter().position(|slot| slot.next.as_ref().is_some_and(is_next));
        let Some(index) = found else { return false };
        self.slots[index].next = None;
        if !self.is_stopping() {
            self.rolling.clear();
            self.rolls = false;
            actions.push(Action::ReplacementFailed { slot: index });
        }
        true
    }

    pub(super) fn handle_hand_over_time(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if self.phase != Phase::Serving {
            return;
        }
        for slot in &mut self.slots {
            let signal = Signal::SIGKILL;
            if let Some(next) = &mut slot.next
                && !next.killed
                && now_ns >= next.since_ns + ns(START_TIME_MAX)
            {
                next.killed = true;
                actions.push(Action::Kill { process: next.process, signal, why: "not ready after 10 s" });
            }
            if let Some(leaving) = &mut slot.leaving
                && !leaving.killed
                && now_ns >= leaving.kill_at_ns
            {
                leaving.killed = true;
                let why = "replaced, and not done at the drain's deadline";
                actions.push(Action::Kill { process: leaving.process, signal, why });
            }
        }
    }

    pub(super) fn hand_over_due_ns(&self) -> Option<u64> {
        if self.phase != Phase::Serving {
            return None;
        }
        let due = self.slots.iter().flat_map(|slot| {
            let next = slot.next.as_ref().filter(|next| !next.killed);
            let leaving = slot.leaving.as_ref().filter(|leaving| !leaving.killed);
            [next.map(|next| next.since_ns + ns(START_TIME_MAX)), leaving.map(|leaving| leaving.kill_at_ns)]
        });
        let idle = self.slots.iter().all(|slot| slot.next.is_none());
        let first = self.rolling.front().map(|slot| &self.slots[*slot]).filter(|_| idle);
        let first = first.filter(|slot| matches!(slot.state, State::Ready { .. }));
        let awaited = first.and_then(|slot| slot.leaving.as_ref());
        let hurry = awaited.filter(|leaving| !leaving.hurried && !leaving.killed);
        let due = due.chain([hurry.map(|leaving| leaving.since_ns + ns(LEAVE_TIME))]);
        due.flatten().min()
    }
}
