//! Plain structs out of shared words: one instance at one moment, as it is for
//! whoever shows it.

mod pool;
mod process;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::assignments::Assignments;
use crate::clock::Now;
use crate::exposure::ring::{Account, RingFault};
use crate::metrics::audit::Audit;
use crate::metrics::board::Line;
use crate::metrics::{Family, MASTER_BLOCK, Process, Table, instance_state};
pub use pool::Pool;
use pool::pools;
use process::processes;
pub use process::{Health, ProcessView, STUCK_AFTER, lives};

/// One ring.
#[derive(Debug, Clone, PartialEq)]
pub struct RingView {
    /// The worker's slot.
    pub slot: usize,
    /// Which of the slot's two.
    pub which: usize,
    /// Its books, or why it can't be read.
    pub account: Result<Account, RingFault>,
}

/// The spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolView {
    /// Bytes of its segments.
    pub size: u64,
    /// The most they may be.
    pub size_max: u64,
    /// Exposures that wait in it.
    pub waiting: u64,
    /// How long the oldest of them has been there, about.
    pub oldest_age: Option<Duration>,
    /// Exposures that went from it undelivered, at a bound, since it was made.
    pub evicted: u64,
}

/// One instance at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// When it was taken.
    pub taken: Now,
    /// `starting`, `ready`, `draining`, or `gone`: its master lives no more.
    pub state: &'static str,
    /// The experiments in force; empty before the first, none while they change.
    pub version: Option<String>,
    /// Its processes: master, logger, workers by slot; one that drains beside its successor.
    pub processes: Vec<ProcessView>,
    /// Its pools, in the settings' order.
    pub pools: Vec<Pool>,
    /// What master and logger count.
    pub instance: Pool,
    /// What was assigned, by experiment and group.
    pub assignments: Assignments,
    /// Its rings.
    pub rings: Vec<RingView>,
    /// What became of its exposures.
    pub audit: Audit,
    /// The last lines of its log, oldest first.
    pub log: Vec<Line>,
}

/// A ring to be read: its slot, which of the two, and its words.
pub type RingWords<'r> = (usize, usize, &'r [AtomicU64]);

impl Snapshot {
    /// Reads an instance. `lives` says whether there is a process of this id.
    #[must_use]
    pub fn take(
        table: Table<'_>,
        rings: &[RingWords<'_>],
        now: Now,
        lives: impl Fn(u32) -> bool,
    ) -> Snapshot {
        let processes = processes(table, now, lives);
        let master_gone = processes
            .iter()
            .any(|p| p.process == Process::Master && matches!(p.health, Health::Dead | Health::Ended));
        let state = match table.block(MASTER_BLOCK).get(Family::InstanceState, 0) {
            _ if master_gone => "gone",
            instance_state::READY => "ready",
            instance_state::DRAINING => "draining",
            _ => "starting",
        };
        let (instance, pools) = pools(table);
        let ring =
            |&(slot, which, words): &RingWords<'_>| RingView { slot, which, account: Account::read(words) };
        Snapshot {
            taken: now,
            state,
            version: table.board().version(),
            processes,
            pools,
            instance,
            assignments: Assignments::read(table),
            rings: rings.iter().map(ring).collect(),
            audit: Audit::read(table),
            log: table.board().lines(),
        }
    }

    /// When the experiments in force were taken by whoever took them last, in Unix seconds.
    #[must_use]
    pub fn plan_taken_s(&self) -> u64 {
        self.pools.iter().map(|pool| pool.value(Family::PlanTakenAt, 0)).max().unwrap_or(0)
    }

    /// How long they have been in force.
    #[must_use]
    pub fn plan_age(&self) -> Option<Duration> {
        let taken_us = i64::try_from(self.plan_taken_s()).ok().filter(|taken| *taken > 0)? * 1_000_000;
        Some(Duration::from_micros(u64::try_from(self.taken.unix_us - taken_us).unwrap_or(0)))
    }

    /// Experiments in force, of all states.
    #[must_use]
    pub fn experiment_count(&self) -> u64 {
        self.pools.iter().map(|pool| pool.value(Family::PlanExperiments, 0)).max().unwrap_or(0)
    }

    /// The spool, where there is one.
    #[must_use]
    pub fn spool(&self) -> Option<SpoolView> {
        let of = |family| self.instance.total(family);
        let oldest_us = i64::try_from(of(Family::SpoolOldest)).unwrap_or(0) * 1_000_000;
        let age_us = u64::try_from(self.taken.unix_us - oldest_us).unwrap_or(0);
        (of(Family::SpoolSizeMax) > 0).then(|| SpoolView {
            size: of(Family::SpoolBytes),
            size_max: of(Family::SpoolSizeMax),
            waiting: of(Family::ExposuresInSpool),
            oldest_age: (oldest_us > 0).then(|| Duration::from_micros(age_us)),
            evicted: of(Family::SpoolEvicted),
        })
    }

    /// Whether the sink is away, as far as one sees.
    #[must_use]
    pub fn sink_is_away(&self) -> bool {
        self.instance.total(Family::SinkStalled) > 0
    }

    /// How long the sink took to answer for what it was sent, on average since
    /// `earlier` (or ever); none where it has not, or needs not.
    #[must_use]
    pub fn sink_delay(&self, earlier: Option<&Snapshot>) -> Option<Duration> {
        let since = |family| {
            let before = earlier.map_or(0, |earlier| earlier.instance.total(family));
            self.instance.total(family).saturating_sub(before)
        };
        let average_us = since(Family::SinkConfirmationTime).checked_div(since(Family::SinkConfirmations));
        average_us.map(Duration::from_micros)
    }

    /// What is not as it should be, as sentences; none where all is in order.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.state != "ready" {
            complaints.push(match self.state {
                "gone" => "the master is gone".to_owned(),
                other => format!("the instance is {other}"),
            });
        }
        for process in &self.processes {
            let ProcessView { name, pid, turn_age, .. } = process;
            match process.health {
                Health::Running | Health::Draining => {}
                // Said already.
                Health::Dead | Health::Ended if process.process == Process::Master => {}
                Health::Stuck => complaints
                    .push(format!("{name} (pid {pid}) has not turned for {:.1} s", turn_age.as_secs_f64())),
                Health::Dead => complaints.push(format!("{name} (pid {pid}) is dead and nobody has noticed")),
                Health::Ended => complaints.push(format!("{name} has ended and has no successor")),
            }
        }
        for ring in &self.rings {
            if let Err(fault) = &ring.account {
                complaints.push(format!("ring {} of slot {}: {fault}", ring.which, ring.slot));
            }
        }
        complaints
    }
}

#[cfg(test)]
pub(crate) mod tests;
