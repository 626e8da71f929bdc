//! The loader: it lives beside everybody else, and only at the first start does
//! anything depend on it.

use std::time::Duration;

use super::{Action, EXIT_FAULTY, EXIT_REFUSED, Limited, Phase, Role, State, Supervisor, failures_now, ns};

/// A first loader that is killed so often in a row is not tried again.
const FIRST_LOAD_FAILURES: u32 = 3;

impl Supervisor {
    pub(super) fn handle_load_begun(&mut self, now_ns: u64) {
        if let Some(process) = self.loader.process() {
            self.load = Some(Limited { process, since_ns: now_ns, killed: self.is_stopping() });
        }
    }

    pub(super) fn handle_load_ended(&mut self) {
        // One that was killed for its time is not forgiven for being done just then.
        self.load = self.load.filter(|load| load.killed);
    }

    pub(super) fn handle_loader_ended(&mut self, code: Option<i32>, now_ns: u64, actions: &mut Vec<Action>) {
        self.loader_failures = failures_now(self.loader, self.loader_failures, now_ns);
        self.loader = State::Absent;
        self.load = None;
        if self.is_stopping() {
            return;
        }
        if self.phase == Phase::Loading && (code.is_some() || self.loader_failures >= FIRST_LOAD_FAILURES) {
            self.exit_code = match code {
                Some(code) if code == i32::from(EXIT_FAULTY) => EXIT_FAULTY,
                _ => EXIT_REFUSED,
            };
            return self.begin_stop("no experiments to serve", Some(Duration::ZERO), now_ns, actions);
        }
        if self.loader_failures == 1 {
            return self.spawn_loader(now_ns, actions);
        }
        let (failures, delay) = (self.loader_failures, self.backoff(self.loader_failures));
        self.loader = State::Waiting { until_ns: now_ns + ns(delay) };
        actions.push(Action::Waits { role: Role::Loader, delay, failures });
    }

    pub(super) fn handle_reload(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        match self.loader {
            State::Waiting { .. } => self.spawn_loader(now_ns, actions),
            State::Starting { process, .. } | State::Ready { process, .. } if !self.is_stopping() => {
                actions.push(Action::Reload(process));
            }
            _ => {}
        }
    }

    pub(super) fn spawn_loader(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let process = self.process();
        self.loader = State::Ready { process, since_ns: now_ns };
        // It begins by reading.
        self.load = Some(Limited { process, since_ns: now_ns, killed: false });
        actions.push(Action::Spawn { process, role: Role::Loader, which: 0 });
    }
}
