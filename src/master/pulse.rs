//! How the children fare, looked at twice a second: their turns in shared memory,
//! their CPU time and run delay in /proc. What it means is the supervisor's.

use std::collections::VecDeque;
use std::fs;
use std::time::Duration;

use super::Master;
use super::supervisor::watchdog::Pulse;
use super::supervisor::{Event, Process, Role};
use crate::clock;
use crate::metrics::{Family, LOGGER_BLOCK};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// Between two looks that were late by so much, all of us stood still.
const GAP: Duration = Duration::from_secs(2);
/// A logger turns while its sink hangs: this long nothing may leave the rings
/// while something is in them, and no error tells why. Longer than a disk's worst.
const LOGGER_PROGRESS_TIME_MAX: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pulses {
    last_ns: u64,
    suspended_ns: u64,
    logger: Progress,
}

/// How far the logger has come.
#[derive(Debug, Default)]
struct Progress {
    moved: u64,
    since_ns: u64,
    /// What its turns were when it was last seen to move.
    turns: u64,
}

impl Progress {
    /// Its turns, as long as it also gets on.
    fn turns(&mut self, moved: u64, waiting: bool, turns: u64, now_ns: u64) -> u64 {
        if moved != self.moved || !waiting || self.since_ns == 0 {
            (self.moved, self.since_ns) = (moved, now_ns);
        }
        if now_ns - self.since_ns < LOGGER_PROGRESS_TIME_MAX.as_nanos() as u64 {
            self.turns = turns;
        }
        self.turns
    }
}

impl Pulses {
    /// When to look next.
    pub(super) fn due_ns(&self) -> u64 {
        self.last_ns + INTERVAL.as_nanos() as u64
    }
}

impl Master {
    pub(super) fn take_pulses(&mut self, now_ns: u64, events: &mut VecDeque<Event>) {
        let suspended_ns = clock::suspended_ns();
        let gap_ns = now_ns - self.pulses.last_ns;
        let skipped = gap_ns > GAP.as_nanos() as u64 || suspended_ns > self.pulses.suspended_ns + 100_000_000;
        (self.pulses.last_ns, self.pulses.suspended_ns) = (now_ns, suspended_ns);
        if skipped {
            events.push_back(Event::TimeSkipped);
        }
        let watched: Vec<Process> = self.supervisor.watched().collect();
        for process in watched {
            let Some(running) = self.running.get(&process) else { continue };
            let (pid, role) = (running.pid(), running.role);
            // One that has no block yet has not begun.
            let Some(turns) = self.heritage.turn_of(pid) else { continue };
            let Some((run_ns, delay_ns, runnable)) = fare(pid) else { continue };
            let turns = match role {
                Role::Logger => {
                    let (moved, waiting) = self.logger_progress();
                    self.pulses.logger.turns(moved, waiting, turns, now_ns)
                }
                _ => turns,
            };
            events.push_back(Event::Pulse(process, Pulse { turns, run_ns, delay_ns, runnable }));
        }
    }

    /// A number that moves with what leaves the rings and with every error, and
    /// whether something waits in them.
    fn logger_progress(&self) -> (u64, bool) {
        let block = self.heritage.block_of(LOGGER_BLOCK);
        let left = [0, 1].map(|origin| {
            block.get(Family::ExposuresDelivered, origin) + block.get(Family::ExposuresCorrupt, origin)
        });
        let moved = left[0] + left[1] + block.get(Family::SinkErrors, 0);
        (moved, block.get(Family::ExposuresInRings, 0) > 0)
    }
}

/// A process's CPU time and run delay in nanoseconds (`schedstat`: proc(5), Linux
/// Documentation/scheduler/sched-stats.rst), and whether it is runnable now.
fn fare(pid: i32) -> Option<(u64, u64, bool)> {
    let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    let mut numbers = schedstat.split_whitespace().map(str::parse::<u64>);
    let (run_ns, delay_ns) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, brackets too.
    let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    Some((run_ns, delay_ns, state == 'R'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_is_runnable_and_its_time_grows() {
        let own = std::process::id() as i32;
        let (before_ns, _, _) = fare(own).unwrap();
        let begun = clock::now();
        while fare(own).unwrap().0 == before_ns {
            assert!(clock::now().since(begun) < Duration::from_secs(60), "no CPU time in a minute");
        }
        assert_eq!(fare(i32::MAX), None);
    }

    #[test]
    fn a_logger_that_turns_and_gets_nowhere_stands_still_after_a_while() {
        const SECOND: u64 = 1_000_000_000;
        let mut progress = Progress::default();
        let turns = |progress: &mut Progress, moved, waiting, second| {
            progress.turns(moved, waiting, second, second * SECOND)
        };
        assert_eq!(turns(&mut progress, 0, true, 1), 1);
        assert_eq!(turns(&mut progress, 0, true, 30), 30);
        assert_eq!(turns(&mut progress, 0, true, 31), 30, "30 s without progress");
        assert_eq!(turns(&mut progress, 0, true, 40), 30);
        assert_eq!(turns(&mut progress, 1, true, 41), 41, "it moves");
        assert_eq!(turns(&mut progress, 1, false, 100), 100, "there is nothing to do");
        assert_eq!(turns(&mut progress, 1, true, 101), 101);
    }
}
