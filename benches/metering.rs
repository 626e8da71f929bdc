//! What a worker counts of one request, by itself. Shared by `benches/meter.rs`
//! and `tests/counted`.
#![allow(dead_code, missing_docs, reason = "each of its users needs a part")]

use splitd::endpoint::Tally;
use splitd::engine::assignment::{Chosen, Decision, Units};
use splitd::engine::attributes::Facts;
use splitd::engine::plan::Plan;
use splitd::metrics::pace::Pace;
use splitd::metrics::{Block, Family, Table, request_cell};

use crate::typical::Parsed;

/// A worker's counters.
pub struct Meter<'p, 'r> {
    plan: &'p Plan<'p>,
    table: Table<'r>,
    block: Block<'r>,
    pace: Pace<'r>,
    tally: Tally,
}

impl<'p, 'r> Meter<'p, 'r> {
    pub fn new(plan: &'p Plan<'p>, table: Table<'r>) -> Meter<'p, 'r> {
        let block = table.block(0);
        Meter { plan, table, block, pace: Pace::new(block), tally: Tally::new(plan) }
    }

    /// The stopwatch and its histograms, of a request that is alone in its turn (in
    /// company it costs less): `clock` is read where the answer is handed over. The
    /// loop's own readings, at both ends of the turn, are there for its timeouts.
    #[inline]
    pub fn time(&mut self, turn: [u64; 2], clock: impl FnOnce() -> u64) {
        self.pace.begin_turn(turn[0]);
        self.pace.look(turn[0]);
        self.block.add_at(Family::Requests, request_cell(0, 200), 1);
        self.pace.answered(0);
        self.pace.handed_over(clock());
        self.pace.end_turn(turn[1]);
    }

    /// The counters of its assignments.
    #[inline]
    pub fn tally(&mut self, chosen: &[Chosen]) {
        self.tally.assigned(self.plan, self.table.names(), self.block, chosen);
    }
}

/// What each body is assigned.
pub fn decisions(plan: &Plan<'_>, bodies: &[&str]) -> Vec<Vec<Chosen>> {
    let (mut facts, mut decision) = (Facts::new(plan), Decision::new(plan));
    let decide = |body: &&str| {
        let parsed = Parsed::new(plan, body);
        let units: Units<'_> = parsed.units(plan);
        parsed.tell(plan, &mut facts);
        plan.decide(&units, &facts, &mut decision);
        decision.chosen().to_vec()
    };
    bodies.iter().map(decide).collect()
}
