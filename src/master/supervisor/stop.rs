//! The stop: workers drain, then the logger empties the rings, then nothing lives.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Action, LOGGER_STOP_MAX, Phase, STOP_GRACE, Slot, State, Supervisor, ns};
use crate::worker::Order;

/// A drain without a deadline still ends some day.
const DRAIN_UNBOUNDED: Duration = Duration::from_secs(24 * 3600);

impl Supervisor {
    pub(super) fn handle_drain(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if !self.is_stopping() {
            self.begin_stop("told to drain", None, now_ns, actions);
        }
    }

    pub(super) fn handle_stop(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Loading | Phase::Serving => {
                self.begin_stop("told to stop", Some(self.times.drain), now_ns, actions);
            }
            Phase::Draining { hurried: false, .. } => {
                self.order_drain("told to stop while draining", Some(self.times.drain), now_ns, actions);
            }
            Phase::Draining { hurried: true, killed: false, .. } => {
                self.order_drain("told to stop again", Some(Duration::ZERO), now_ns, actions);
            }
            // All that is left is what already has little time.
            Phase::Draining { .. } | Phase::Logging { .. } | Phase::Done => {}
        }
    }

    pub(super) fn handle_stop_time(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        match &mut self.phase {
            Phase::Draining { kill_at_ns, killed, .. } if !*killed && now_ns >= *kill_at_ns => {
                *killed = true;
                for process in self.slots.iter().flat_map(Slot::processes) {
                    let signal = Signal::SIGKILL;
                    actions.push(Action::Kill { process, signal, why: "not done at the drain's deadline" });
                }
            }
            Phase::Logging { kill_at_ns, killed } if !*killed && now_ns >= *kill_at_ns => {
                *killed = true;
                if let Some(process) = self.logger.process() {
                    let signal = Signal::SIGKILL;
                    actions.push(Action::Kill { process, signal, why: "rings not emptied in 7 s" });
                }
            }
            _ => {}
        }
    }

    pub(super) fn begin_stop(
        &mut self,
        why: &'static str,
        deadline: Option<Duration>,
        now_ns: u64,
        actions: &mut Vec<Action>,
    ) {
        // Those that nobody waits for; one killed for its time dies anyhow.
        let loader_killed = self.load.is_some_and(|load| load.killed);
        let loader = self.loader.process().filter(|_| !loader_killed);
        let check = self.check.filter(|check| !check.killed).map(|check| check.process);
        for process in [loader, check].into_iter().flatten() {
            let (signal, why) = (Signal::SIGKILL, "the instance stops");
            actions.push(Action::Kill { process, signal, why });
        }
        for limited in [&mut self.load, &mut self.check].into_iter().flatten() {
            limited.killed = true;
        }
        if self.loader.process().is_none() {
            self.loader = State::Absent;
        }
        self.rolling.clear();
        self.watched.forget();
        for slot in &mut self.slots {
            slot.adopter = None;
            if slot.state.process().is_none() {
                slot.state = State::Absent;
            }
        }
        self.order_drain(why, deadline, now_ns, actions);
    }

    fn order_drain(
        &mut self,
        why: &'static str,
        deadline: Option<Duration>,
        now_ns: u64,
        actions: &mut Vec<Action>,
    ) {
        actions.push(Action::Stopping { why, deadline });
        let limit = deadline.unwrap_or(DRAIN_UNBOUNDED);
        // Whoever restarts us stops us, in bounded time.
        let order = Order::Drain { deadline_ms: limit.as_millis() as u64, last: deadline.is_none() };
        for process in self.slots.iter().flat_map(Slot::processes) {
            actions.push(Action::Order { process, order: order.clone() });
        }
        let kill_at_ns = now_ns + ns(limit) + ns(STOP_GRACE);
        self.phase = Phase::Draining { kill_at_ns, killed: false, hurried: deadline.is_some() };
    }

    pub(super) fn finish(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let workers_gone = self.slots.iter().all(|slot| slot.processes().next().is_none());
        let others_gone = self.loader.process().is_none() && self.check.is_none();
        if matches!(self.phase, Phase::Draining { .. }) && workers_gone && others_gone {
            if let Some(process) = self.logger.process() {
                actions.push(Action::StopLogger(process));
            } else {
                // One that keeps dying is not waited for: the rings outlive the
                // instance, and the next one drains them.
                self.logger = State::Absent;
            }
            self.phase = Phase::Logging { kill_at_ns: now_ns + ns(LOGGER_STOP_MAX), killed: false };
        }
        if matches!(self.phase, Phase::Logging { .. }) && self.logger == State::Absent {
            self.phase = Phase::Done;
            actions.push(Action::Exit(self.exit_code));
        }
    }
}
