//! A socket without a worker that is ready is served by a ready neighbour of its
//! pool, until it has its own again: connections queued at a socket that nobody
//! accepts from would hang.

use super::{Action, Phase, Process, State, Supervisor};
use crate::worker::Order;

impl Supervisor {
    /// Sees to it that every socket without a worker has a neighbour's.
    pub(super) fn settle_adoptions(&mut self, actions: &mut Vec<Action>) {
        if self.phase != Phase::Serving {
            return;
        }
        let ready: Vec<Option<Process>> = (self.slots.iter())
            .map(|slot| match slot.state {
                State::Ready { process, .. } => Some(process),
                _ => None,
            })
            .collect();
        let pools: Vec<usize> = self.slots.iter().map(|slot| slot.pool).collect();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.adopter = slot.adopter.filter(|adopter| ready.contains(&Some(*adopter)));
            match slot.state {
                State::Ready { .. } => {
                    if let Some(process) = slot.adopter.take() {
                        actions.push(Action::Order { process, order: Order::Release { slot: index } });
                    }
                }
                State::Waiting { .. } | State::Starting { .. } => {
                    let helps = slot.slow || matches!(slot.state, State::Waiting { .. });
                    if !helps || slot.adopter.is_some() {
                        continue;
                    }
                    let count = ready.len();
                    let neighbour = (index + 1..index + count)
                        .map(|at| at % count)
                        .filter(|at| pools[*at] == slot.pool)
                        .find_map(|at| ready[at]);
                    if let Some(process) = neighbour {
                        slot.adopter = Some(process);
                        actions.push(Action::Order { process, order: Order::Adopt { slot: index } });
                    }
                }
                State::Absent => {}
            }
        }
    }
}
