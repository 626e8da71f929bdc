//! The logger: there is one at a time, because a ring has one reader.

use super::{Action, Limited, Phase, Role, State, Supervisor, failures_now, ns};

impl Supervisor {
    pub(super) fn handle_logger_ended(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Logging { .. }) {
            self.logger = State::Absent;
            return;
        }
        self.logger_failures = failures_now(self.logger, self.logger_failures, now_ns);
        if self.logger_leaves.take().is_some() {
            self.logger_failures = 0;
            return self.spawn_logger(now_ns, actions);
        }
        if self.logger_failures == 1 {
            return self.spawn_logger(now_ns, actions);
        }
        let delay = self.backoff(self.logger_failures);
        self.logger = State::Waiting { until_ns: now_ns + ns(delay) };
        actions.push(Action::Waits { role: Role::Logger, delay, failures: self.logger_failures });
    }

    pub(super) fn handle_replace_logger(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        match self.logger {
            State::Starting { process, .. } | State::Ready { process, .. }
                if self.phase == Phase::Serving && self.logger_leaves.is_none() =>
            {
                self.logger_leaves = Some(Limited { process, since_ns: now_ns, killed: false });
                actions.push(Action::StopLogger(process));
            }
            State::Waiting { .. } if self.phase == Phase::Serving => self.spawn_logger(now_ns, actions),
            _ => {}
        }
    }

    pub(super) fn spawn_logger(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let process = self.process();
        // A logger has nothing to report before it works.
        self.logger = State::Ready { process, since_ns: now_ns };
        actions.push(Action::Spawn { process, role: Role::Logger, which: 0 });
    }
}
