//! Whether another program could go on in our place: a child is it, and tells.

use super::{Action, Limited, Phase, Role, Supervisor};
use crate::master::upgrade::EXIT_SAME;

impl Supervisor {
    pub(super) fn handle_upgrade(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let refusal = match self.phase {
            Phase::Serving if self.check.is_some() => "another is under way",
            Phase::Serving if self.is_rolling() => "workers are being replaced; again when that is done",
            Phase::Serving => {
                let process = self.process();
                self.check = Some(Limited { process, since_ns: now_ns, killed: false });
                return actions.push(Action::Spawn { process, role: Role::Check, which: 0 });
            }
            Phase::Loading => "nothing is served yet",
            _ => "the instance stops",
        };
        actions.push(Action::UpgradeRefused(refusal));
    }

    pub(super) fn handle_check_ended(&mut self, code: Option<i32>, actions: &mut Vec<Action>) {
        let killed = self.check.take().is_some_and(|check| check.killed);
        actions.push(match (code, self.phase) {
            (_, phase) if phase != Phase::Serving => Action::UpgradeRefused("the instance stops"),
            (Some(0), _) => Action::Upgrade,
            (Some(code), _) if code == i32::from(EXIT_SAME) => return,
            (_, _) if killed => Action::UpgradeRefused("the new program did not answer in 10 s"),
            _ => Action::UpgradeRefused("the new program refused; what it said stands above"),
        });
    }
}
