//! What happened between two snapshots.

use std::time::Duration;

use super::assignments::Experiment;
use super::snapshot::{Pool, Snapshot};
use crate::metrics::Family;
use crate::metrics::histogram::Histogram;

/// Two snapshots of one instance, the later one last.
#[derive(Debug, Clone, Copy)]
pub struct Rates<'s> {
    earlier: &'s Snapshot,
    later: &'s Snapshot,
}

impl<'s> Rates<'s> {
    /// Of these two.
    #[must_use]
    pub fn between(earlier: &'s Snapshot, later: &'s Snapshot) -> Rates<'s> {
        Rates { earlier, later }
    }

    /// The time between them.
    #[must_use]
    pub fn span(&self) -> Duration {
        self.later.taken.since(self.earlier.taken)
    }

    fn a_second(&self, before: u64, after: u64) -> f64 {
        let seconds = self.span().as_secs_f64();
        // One that starts again from zero has done at least what it shows.
        let more = if after >= before { after - before } else { after };
        if seconds > 0.0 { more as f64 / seconds } else { 0.0 }
    }

    fn earlier_pool(&self, name: &str) -> Option<&'s Pool> {
        self.earlier.pools.iter().find(|pool| pool.name == name)
    }

    /// How much of a counter, all cells together, came in a pool each second.
    #[must_use]
    pub fn pool(&self, pool: &Pool, family: Family) -> f64 {
        self.a_second(self.earlier_pool(&pool.name).map_or(0, |pool| pool.total(family)), pool.total(family))
    }

    /// The same for the cells that `wanted` picks by their number.
    #[must_use]
    pub fn cells(&self, pool: &Pool, family: Family, wanted: impl Fn(usize) -> bool) -> f64 {
        let sum = |pool: &Pool| pool.sum(family, &wanted);
        self.a_second(self.earlier_pool(&pool.name).map_or(0, sum), sum(pool))
    }

    /// The same for what master and logger count.
    #[must_use]
    pub fn instance(&self, family: Family) -> f64 {
        self.a_second(self.earlier.instance.total(family), self.later.instance.total(family))
    }

    /// What was assigned in an experiment each second.
    #[must_use]
    pub fn assigned(&self, experiment: &Experiment) -> f64 {
        let mut earlier = self.earlier.assignments.experiments.iter();
        let before = earlier.find(|known| known.name == experiment.name).map_or(0, Experiment::count);
        self.a_second(before, experiment.count())
    }

    /// Requests a process answered each second.
    #[must_use]
    pub fn requests(&self, name: &str) -> f64 {
        let of = |snapshot: &Snapshot| {
            snapshot
                .processes
                .iter()
                .find(|process| process.name == name)
                .map_or(0, |process| process.requests)
        };
        self.a_second(of(self.earlier), of(self.later))
    }

    /// The durations that a pool counted in between, all cells together.
    #[must_use]
    pub fn histogram(&self, pool: &Pool, family: Family) -> Histogram {
        let later = pool.histogram_total(family);
        match self.earlier_pool(&pool.name) {
            Some(earlier) => later.since(&earlier.histogram_total(family)),
            None => later,
        }
    }
}
