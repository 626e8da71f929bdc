//! What of the supervisor crosses an upgrade: who lives, and where.

use serde::{Deserialize, Serialize};

use super::hand_over::Leaving;
use super::{Phase, Process, State, Supervisor, Times};

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStanding {
    /// Its worker, and whether that is ready.
    pub worker: Option<(Process, bool)>,
    /// The one that drains.
    pub leaving: Option<Process>,
    /// Which ring and block of metrics its worker was given.
    pub which: usize,
    /// Deaths in a row.
    pub failures: u32,
}

/// Everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The slots, in order.
    pub slots: Vec<SlotStanding>,
    /// The logger, if it lives.
    pub logger: Option<Process>,
    /// The loader, if it lives.
    pub loader: Option<Process>,
    /// The next process's number.
    pub next_process: u64,
}

impl Supervisor {
    /// As it is now, between two events.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let slot = |slot: &super::Slot| SlotStanding {
            worker: slot.state.process().map(|process| (process, matches!(slot.state, State::Ready { .. }))),
            leaving: slot.leaving.as_ref().map(|leaving| leaving.process),
            which: slot.which,
            failures: slot.failures,
        };
        Standing {
            slots: self.slots.iter().map(slot).collect(),
            logger: self.logger.process(),
            loader: self.loader.process(),
            next_process: self.next_process,
        }
    }

    /// Goes on from there: serving, everybody healthy since now. Who is missing is started
    /// with the next event.
    #[must_use]
    pub fn resume(
        standing: &Standing,
        slot_pools: &[usize],
        times: Times,
        seed: u64,
        now_ns: u64,
    ) -> Supervisor {
        assert_eq!(standing.slots.len(), slot_pools.len(), "checked by who read the state");
        let mut supervisor = Supervisor::new(slot_pools, times, seed);
        let since_ns = now_ns;
        for (slot, stood) in supervisor.slots.iter_mut().zip(&standing.slots) {
            slot.state = match stood.worker {
                Some((process, true)) => State::Ready { process, since_ns },
                Some((process, false)) => State::Starting { process, since_ns },
                None => State::Waiting { until_ns: now_ns },
            };
            slot.leaving = stood.leaving.map(|process| Leaving::new(process, times.drain, now_ns));
            (slot.which, slot.failures) = (stood.which, stood.failures);
        }
        let lives = |process: Option<Process>| match process {
            Some(process) => State::Ready { process, since_ns },
            None => State::Waiting { until_ns: now_ns },
        };
        (supervisor.logger, supervisor.loader) = (lives(standing.logger), lives(standing.loader));
        supervisor.next_process = standing.next_process;
        (supervisor.phase, supervisor.ready_said) = (Phase::Serving, true);
        supervisor
    }
}
