//! How long requests take on their way through a worker's loop, and the loop's
//! own stalls, out of readings of the clock that the loop makes anyway: one at
//! each end of a turn, one each time a connection was moved on.
//!
//! ```text
//! wait ─► ready ──── in line behind others ────► looked at ── read, decide, build ──► handed over
//!         ├──────────── queue delay ────────────┤                                         │
//!         ├──────────────────────────────── service time ─────────────────────────────────┤
//! wait ─► ├────────────────────────── the turn, a stall if long ──────────────────────────┤ ─► wait
//! ```
//! - *Ready* is when the wait returned that said so: bytes that came during the
//!   turn before are up to that turn's length older, and nobody can tell. So
//!   where turns are long, read the three histograms together: the true delay
//!   is at most the queue delay and a turn.
//! - *Looked at* is when the connection before was done with, or by epoll, where
//!   some go through together, was answered. Requests that came in one piece are
//!   looked at together.
//! - *Handed over*: the kernel has taken the answer (epoll), or is given all
//!   answers of the turn at once (io_uring, where one call sends and waits, so
//!   nobody can tell how long the sending took). One that a slow reader's socket
//!   does not take was handed over when it was first offered.

use super::{Block, Family};

/// Answers of one route that were ready together.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    route: u32,
    count: u32,
    ready_ns: u64,
}

/// Runs that wait to be handed over; of more than these in a turn the first
/// are counted as handed over when the next one is answered.
const RUN_COUNT_MAX: usize = 32;

/// A worker's stopwatch. All times are of CLOCK_MONOTONIC, in nanoseconds.
#[derive(Debug)]
pub struct Pace<'r> {
    block: Block<'r>,
    turn_ns: u64,
    /// The last reading.
    now_ns: u64,
    ready_ns: u64,
    delay_ns: u64,
    runs: [Run; RUN_COUNT_MAX],
    run_count: usize,
    /// Answers in the runs.
    waiting: u32,
}

impl<'r> Pace<'r> {
    /// Counting in this block.
    #[must_use]
    pub fn new(block: Block<'r>) -> Pace<'r> {
        let runs = [Run::default(); RUN_COUNT_MAX];
        Pace { block, turn_ns: 0, now_ns: 0, ready_ns: 0, delay_ns: 0, runs, run_count: 0, waiting: 0 }
    }

    /// The wait has returned.
    #[inline]
    pub fn begin_turn(&mut self, now_ns: u64) {
        (self.turn_ns, self.now_ns) = (now_ns, now_ns);
        self.look(now_ns);
    }

    /// The next wait begins; whatever was answered is with the kernel by then.
    #[inline]
    pub fn end_turn(&mut self, now_ns: u64) {
        self.handed_over(now_ns);
        if self.turn_ns > 0 {
            self.block.record_at(Family::LoopStall, 0, now_ns.saturating_sub(self.turn_ns), 1);
            self.turn_ns = 0;
        }
    }

    /// A connection is looked at, whose input has been ready since `ready_ns`.
    #[inline]
    pub fn look(&mut self, ready_ns: u64) {
        self.ready_ns = ready_ns;
        self.delay_ns = self.now_ns.saturating_sub(ready_ns);
    }

    /// How long what is looked at has waited.
    #[must_use]
    pub fn delay_ns(&self) -> u64 {
        self.delay_ns
    }

    /// Since when what is looked at has been ready.
    #[must_use]
    pub fn ready_ns(&self) -> u64 {
        self.ready_ns
    }

    /// The last reading of the clock: when what is looked at was.
    #[must_use]
    pub fn read_ns(&self) -> u64 {
        self.now_ns
    }

    /// A request of what is looked at was answered.
    #[inline]
    pub fn answered(&mut self, route: usize) {
        self.block.record_at(Family::QueueDelay, route, self.delay_ns, 1);
        let (route, ready_ns) = (route as u32, self.ready_ns);
        if let Some(run) = self.runs[..self.run_count].last_mut()
            && (run.route, run.ready_ns) == (route, ready_ns)
        {
            run.count += 1;
            self.waiting += 1;
            return;
        }
        if self.run_count == RUN_COUNT_MAX {
            self.handed_over(self.now_ns);
        }
        self.runs[self.run_count] = Run { route, count: 1, ready_ns };
        self.run_count += 1;
        self.waiting += 1;
    }

    /// Answers that were not handed over yet.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// A connection was moved on as far as it goes.
    #[inline]
    pub fn moved_on(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// The same, and the kernel has whatever was answered.
    #[inline]
    pub fn handed_over(&mut self, now_ns: u64) {
        self.first_handed_over(now_ns, self.waiting);
    }

    /// The same, and the kernel has the first so many of those answers.
    #[inline]
    pub fn first_handed_over(&mut self, now_ns: u64, count: u32) {
        self.now_ns = now_ns;
        let (mut left, mut done) = (count.min(self.waiting), 0);
        self.waiting -= left;
        while left > 0 {
            let run = &mut self.runs[done];
            let some = run.count.min(left);
            let took_ns = now_ns.saturating_sub(run.ready_ns);
            self.block.record_at(Family::ServiceTime, run.route as usize, took_ns, u64::from(some));
            (run.count, left) = (run.count - some, left - some);
            done += usize::from(run.count == 0);
        }
        if self.waiting == 0 {
            self.run_count = 0;
        } else if done > 0 {
            self.runs.copy_within(done..self.run_count, 0);
            self.run_count -= done;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::super::{Table, block_count, region_size};
    use super::*;

    fn with_pace(test: impl FnOnce(&mut Pace<'_>, Block<'_>)) {
        let words: Vec<AtomicU64> = (0..region_size(block_count(1)) / 8).map(|_| AtomicU64::new(0)).collect();
        let block = Table::format(&words, block_count(1)).block(0);
        test(&mut Pace::new(block), block);
    }

    /// How many, and their sum.
    fn totals(block: Block<'_>, family: Family, route: usize) -> (u64, u64) {
        let histogram = block.histogram(family, route);
        (histogram.count(), histogram.sum_ns)
    }

    #[test]
    fn who_is_looked_at_later_has_waited_longer() {
        with_pace(|pace, block| {
            pace.begin_turn(1000);
            pace.look(1000);
            pace.answered(2);
            pace.handed_over(1010);
            // Ready in the turn before.
            pace.look(900);
            pace.answered(3);
            pace.answered(3);
            pace.handed_over(1030);
            pace.end_turn(1035);
            assert_eq!(totals(block, Family::QueueDelay, 2), (1, 0));
            assert_eq!(totals(block, Family::ServiceTime, 2), (1, 10));
            assert_eq!(totals(block, Family::QueueDelay, 3), (2, 220));
            assert_eq!(totals(block, Family::ServiceTime, 3), (2, 260));
            assert_eq!(totals(block, Family::LoopStall, 0), (1, 35));
        });
    }

    #[test]
    fn what_is_handed_over_together_takes_as_long_as_the_turn() {
        with_pace(|pace, block| {
            pace.begin_turn(1000);
            for connection in 0..3 {
                pace.look(1000);
                pace.answered(0);
                pace.moved_on(1010 + connection * 10);
            }
            assert_eq!(totals(block, Family::ServiceTime, 0), (0, 0));
            pace.end_turn(1050);
            assert_eq!(totals(block, Family::ServiceTime, 0), (3, 150));
            assert_eq!(totals(block, Family::QueueDelay, 0), (3, 30));
        });
    }

    #[test]
    fn of_those_who_go_through_together_each_is_handed_over_when_its_own_was() {
        with_pace(|pace, block| {
            pace.begin_turn(1000);
            for route in [0, 0, 1] {
                pace.look(1000);
                pace.answered(route);
            }
            assert_eq!(pace.waiting(), 3);
            pace.first_handed_over(1010, 1);
            assert_eq!((pace.waiting(), totals(block, Family::ServiceTime, 0)), (2, (1, 10)));
            pace.first_handed_over(1020, 0);
            pace.first_handed_over(1030, 1);
            assert_eq!(totals(block, Family::ServiceTime, 0), (2, 40));
            assert_eq!(totals(block, Family::ServiceTime, 1), (0, 0));
            pace.first_handed_over(1040, 7);
            assert_eq!((pace.waiting(), totals(block, Family::ServiceTime, 1)), (0, (1, 40)));
        });
    }

    #[test]
    fn no_answer_is_left_out_however_they_alternate() {
        with_pace(|pace, block| {
            pace.begin_turn(1000);
            for index in 0..1001 {
                pace.answered(index % 2);
            }
            pace.end_turn(1100);
            let count = |family, route| totals(block, family, route).0;
            assert_eq!(count(Family::ServiceTime, 0) + count(Family::ServiceTime, 1), 1001);
            assert_eq!(count(Family::QueueDelay, 0), 501);
        });
    }
}
