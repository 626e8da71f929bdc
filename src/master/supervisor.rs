//! The supervisor: what happened, and when, goes in; what is to be done comes
//! out. No process, no socket, no clock is touched here, so that every crash loop
//! and every stop is a unit test.
//!
//! ```text
//!             plan                TERM INT QUIT           no worker, no loader      logger gone
//!   Loading ────────► Serving ───────────────► Draining ───────────────────► Logging ────► Done
//!      └── no plan, or a signal ──────────────────────────────────────────────────┘ (nothing lives)
//!
//! one slot:  Starting ──Ready──► Ready      dead: at once Starting again, then after
//!               ▲  └──dead──┐      │dead    100 ms, doubling to 10 s; 60 healthy
//!               └──time── Waiting ◄┘        seconds forget it all
//! ```
//! - [`messages`]: what goes in and comes out.
//! - [`loader`], [`logger`], [`check`]: who lives beside the workers.
//! - [`hand_over`]: a worker that lives is replaced, one slot after the other.
//! - [`adoption`]: a socket without a worker is served by a neighbour.
//! - [`watchdog`]: a process that stands still is ended.
//! - [`standing`]: what crosses an upgrade.
//! - [`stop`]: how it ends.
//!
//! Promises
//! - A slot has one worker, and beside it at most either a successor that is not
//!   ready or a predecessor that drains; each has a ring of its own.
//! - While a slot waits (or its worker is slow to start), a ready worker of its
//!   pool serves its socket too, if there is one; it is told when that ends.
//! - The logger is stopped last, after every worker is gone.
//! - `Exit` is said once, when nothing lives any more; every stop gets there,
//!   whatever the children do, because what does not leave is killed.

mod adoption;
mod check;
mod hand_over;
mod loader;
mod logger;
mod messages;
pub mod standing;
mod stop;
pub mod watchdog;

use std::collections::VecDeque;
use std::time::Duration;

use nix::sys::signal::Signal;

pub use messages::{Action, EXIT_CRASHING, EXIT_DONE, EXIT_FAULTY, EXIT_REFUSED, Event, Process, Role};

/// Before a second replacement in a row; it doubles from there.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// It doubles up to this.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A process that was well for so long has its failures forgotten.
const HEALTHY: Duration = Duration::from_secs(60);
/// A worker that is not ready by then is killed and counts as failed.
const START_TIME_MAX: Duration = Duration::from_secs(10);
/// A worker that is not ready by then has its socket served by a neighbour.
const START_TIME_SLOW: Duration = Duration::from_secs(1);
/// A loader that takes longer to read and compile is killed; the plan in force stays.
const LOAD_TIME_MAX: Duration = Duration::from_secs(120);
/// What checks an upgrade and takes longer is killed, and the upgrade refused.
const CHECK_TIME_MAX: Duration = Duration::from_secs(10);
/// Past a drain's deadline, when workers should have left by themselves.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// The logger promises to be done in 5 s.
const LOGGER_STOP_MAX: Duration = Duration::from_secs(7);
/// When no worker is ready and each slot failed so often in a row, it is no
/// accident of one worker. By then some six seconds of waiting have not helped.
const CRASH_LOOP_FAILURES: u32 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    Starting { process: Process, since_ns: u64 },
    Ready { process: Process, since_ns: u64 },
    Waiting { until_ns: u64 },
}

impl State {
    fn process(self) -> Option<Process> {
        match self {
            State::Starting { process, .. } | State::Ready { process, .. } => Some(process),
            State::Absent | State::Waiting { .. } => None,
        }
    }
}

#[derive(Debug)]
struct Slot {
    pool: usize,
    state: State,
    failures: u32,
    which: usize,
    /// The neighbour's process that serves this slot's socket.
    adopter: Option<Process>,
    /// Its worker has not been ready for so long that a neighbour is to help.
    slow: bool,
    /// Its worker was killed for not being ready at all.
    condemned: bool,
    /// The one that is to follow its worker, while that still serves.
    next: Option<hand_over::Next>,
    /// The one that its worker has followed, while that drains.
    leaving: Option<hand_over::Leaving>,
}

impl Slot {
    /// All that live in it.
    fn processes(&self) -> impl Iterator<Item = Process> + use<> {
        let next = self.next.as_ref().map(|next| next.process);
        let leaving = self.leaving.as_ref().map(|leaving| leaving.process);
        [self.state.process(), next, leaving].into_iter().flatten()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Loading,
    Serving,
    Draining { kill_at_ns: u64, killed: bool, hurried: bool },
    Logging { kill_at_ns: u64, killed: bool },
    Done,
}

/// A child whose work has a time limit.
#[derive(Debug, Clone, Copy)]
struct Limited {
    process: Process,
    since_ns: u64,
    killed: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Supervisor {
    phase: Phase,
    slots: Vec<Slot>,
    logger: State,
    logger_failures: u32,
    /// It was told to leave, for another to take its place.
    logger_leaves: Option<Limited>,
    loader: State,
    loader_failures: u32,
    /// The loader's reading and compiling, while it does.
    load: Option<Limited>,
    check: Option<Limited>,
    /// Slots whose workers are to be replaced, in this order.
    rolling: VecDeque<usize>,
    /// Some were, and the end has not been said.
    rolls: bool,
    watched: watchdog::Watched,
    ready_said: bool,
    exit_code: u8,
    times: Times,
    next_process: u64,
    jitter: u64,
}

/// The durations that settings give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// `drain_timeout`.
    pub drain: Duration,
    /// `watchdog`; zero: nobody is watched.
    pub watchdog: Duration,
}

fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

impl Supervisor {
    /// One that has started nothing: `slot_pools` gives each slot's pool;
    /// `seed` is any random number, for the jitter.
    #[must_use]
    pub fn new(slot_pools: &[usize], times: Times, seed: u64) -> Supervisor {
        let slot = |pool: &usize| Slot {
            pool: *pool,
            state: State::Absent,
            failures: 0,
            which: 0,
            adopter: None,
            slow: false,
            condemned: false,
            next: None,
            leaving: None,
        };
        Supervisor {
            phase: Phase::Loading,
            slots: slot_pools.iter().map(slot).collect(),
            logger: State::Absent,
            logger_failures: 0,
            logger_leaves: None,
            loader: State::Absent,
            loader_failures: 0,
            load: None,
            check: None,
            rolling: VecDeque::new(),
            rolls: false,
            watched: watchdog::Watched::default(),
            ready_said: false,
            exit_code: EXIT_DONE,
            times,
            next_process: 1,
            jitter: seed,
        }
    }

    /// The first thing to do: load the experiments.
    pub fn start(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        self.spawn_loader(now_ns, actions);
    }

    /// Other times from here on.
    pub fn set_times(&mut self, times: Times) {
        self.times = times;
    }

    /// Whether a stop has begun.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        !matches!(self.phase, Phase::Loading | Phase::Serving)
    }

    /// Whether it is being found out if an upgrade is possible.
    #[must_use]
    pub fn is_checking(&self) -> bool {
        self.check.is_some()
    }

    /// Workers that are ready, of all.
    #[must_use]
    pub fn ready_count(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot.state, State::Ready { .. })).count()
    }

    /// Takes what happened; appends what is to be done.
    pub fn handle(&mut self, event: Event, now_ns: u64, actions: &mut Vec<Action>) {
        match event {
            Event::Plan => self.handle_plan(now_ns, actions),
            Event::LoadBegun => self.handle_load_begun(now_ns),
            Event::LoadEnded => self.handle_load_ended(),
            Event::Ready(process) => self.handle_ready(process, now_ns, actions),
            Event::Ended { process, code } => self.handle_ended(process, code, now_ns, actions),
            Event::Reload => self.handle_reload(now_ns, actions),
            Event::Drain => self.handle_drain(now_ns, actions),
            Event::Stop => self.handle_stop(now_ns, actions),
            Event::Replace { slot } => self.handle_replace(slot),
            Event::ReplaceLogger => self.handle_replace_logger(now_ns, actions),
            Event::Upgrade => self.handle_upgrade(now_ns, actions),
            Event::UpgradeFailed => {}
            Event::Pulse(process, pulse) => self.handle_pulse(process, pulse, now_ns, actions),
            Event::TimeSkipped => self.watched.forget(),
            Event::Time => {}
        }
        self.handle_time(now_ns, actions);
        self.settle_roll(now_ns, actions);
        self.settle_adoptions(actions);
        self.say_ready(actions);
        self.finish(now_ns, actions);
    }

    /// When [`Event::Time`] is due, if nothing else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let mut due = Vec::new();
        let limited =
            [(self.load, LOAD_TIME_MAX), (self.check, CHECK_TIME_MAX), (self.logger_leaves, LOGGER_STOP_MAX)];
        due.extend(limited.iter().filter_map(|(limited, time_max)| {
            limited.filter(|limited| !limited.killed).map(|limited| limited.since_ns + ns(*time_max))
        }));
        due.extend(self.hand_over_due_ns());
        due.extend(self.watched.due_ns());
        match self.phase {
            Phase::Serving => {
                for slot in &self.slots {
                    match slot.state {
                        State::Waiting { until_ns } => due.push(until_ns),
                        State::Starting { since_ns, .. } if !slot.condemned => {
                            let limit = if slot.slow { START_TIME_MAX } else { START_TIME_SLOW };
                            due.push(since_ns + ns(limit));
                        }
                        _ => {}
                    }
                }
            }
            Phase::Draining { kill_at_ns, killed: false, .. }
            | Phase::Logging { kill_at_ns, killed: false } => due.push(kill_at_ns),
            _ => {}
        }
        for state in [self.logger, self.loader] {
            if let State::Waiting { until_ns } = state {
                due.push(until_ns);
            }
        }
        due.into_iter().min()
    }

    // ── What happened ──────────────────────────────────────────────────────

    fn handle_plan(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if self.phase == Phase::Loading {
            self.phase = Phase::Serving;
            self.spawn_logger(now_ns, actions);
            for slot in 0..self.slots.len() {
                self.spawn_worker(slot, now_ns, actions);
            }
        }
    }

    fn handle_ready(&mut self, ready: Process, now_ns: u64, actions: &mut Vec<Action>) {
        if self.take_over(ready, now_ns, actions) {
            return;
        }
        for slot in &mut self.slots {
            if let State::Starting { process, .. } = slot.state
                && process == ready
            {
                slot.state = State::Ready { process, since_ns: now_ns };
                slot.slow = false;
            }
        }
    }

    fn handle_ended(&mut self, ended: Process, code: Option<i32>, now_ns: u64, actions: &mut Vec<Action>) {
        self.watched.remove(ended);
        if self.loader.process() == Some(ended) {
            self.handle_loader_ended(code, now_ns, actions);
        } else if self.logger.process() == Some(ended) {
            self.handle_logger_ended(now_ns, actions);
        } else if self.check.is_some_and(|check| check.process == ended) {
            self.handle_check_ended(code, actions);
        } else if self.leaver_ended(ended) || self.successor_ended(ended, actions) {
            // Its slot has a worker.
        } else if let Some(slot) = self.slots.iter().position(|slot| slot.state.process() == Some(ended)) {
            self.handle_worker_ended(slot, now_ns, actions);
        }
    }

    fn handle_worker_ended(&mut self, index: usize, now_ns: u64, actions: &mut Vec<Action>) {
        let serving = self.phase == Phase::Serving;
        let slot = &mut self.slots[index];
        slot.failures = failures_now(slot.state, slot.failures, now_ns);
        if self.promote_successor(index) {
            return;
        }
        let slot = &mut self.slots[index];
        if matches!(slot.state, State::Starting { .. }) && slot.leaving.is_none() {
            // It never got to work: perhaps its ring is what hurt it. The dead
            // hold no ring, so a successor of one that worked goes on with its own.
            slot.which ^= 1;
        }
        slot.state = State::Absent;
        let failures = slot.failures;
        if !serving {
            return;
        }
        if failures == 1 {
            return self.spawn_worker(index, now_ns, actions);
        }
        let delay = self.backoff(failures);
        self.slots[index].state = State::Waiting { until_ns: now_ns + ns(delay) };
        let role = Role::Worker { slot: index };
        actions.push(Action::Waits { role, delay, failures });
        let crashing =
            self.ready_count() == 0 && self.slots.iter().all(|slot| slot.failures >= CRASH_LOOP_FAILURES);
        if crashing {
            self.exit_code = EXIT_CRASHING;
            self.begin_stop("all workers keep crashing", Some(Duration::ZERO), now_ns, actions);
        }
    }

    fn handle_time(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let limits = [
            (&mut self.load, LOAD_TIME_MAX, "still loading after 120 s"),
            (&mut self.check, CHECK_TIME_MAX, "no answer for 10 s"),
            (&mut self.logger_leaves, LOGGER_STOP_MAX, "rings not emptied in 7 s"),
        ];
        for (limited, time_max, why) in limits {
            if let Some(limited) = limited
                && !limited.killed
                && now_ns >= limited.since_ns + ns(time_max)
            {
                limited.killed = true;
                actions.push(Action::Kill { process: limited.process, signal: Signal::SIGKILL, why });
            }
        }
        if let State::Waiting { until_ns } = self.loader
            && now_ns >= until_ns
        {
            self.spawn_loader(now_ns, actions);
        }
        self.handle_hand_over_time(now_ns, actions);
        self.handle_watchdog_time(now_ns, actions);
        if let State::Waiting { until_ns } = self.logger
            && now_ns >= until_ns
        {
            self.spawn_logger(now_ns, actions);
        }
        if self.phase == Phase::Serving {
            for slot in 0..self.slots.len() {
                self.handle_slot_time(slot, now_ns, actions);
            }
        }
        self.handle_stop_time(now_ns, actions);
    }

    fn handle_slot_time(&mut self, index: usize, now_ns: u64, actions: &mut Vec<Action>) {
        let slot = &mut self.slots[index];
        match slot.state {
            State::Waiting { until_ns } if now_ns >= until_ns => {
                self.spawn_worker(index, now_ns, actions);
                // It was missed long enough: its neighbour stays until it is ready.
                self.slots[index].slow = true;
            }
            State::Starting { process, since_ns } if !slot.condemned => {
                slot.slow |= now_ns >= since_ns + ns(START_TIME_SLOW);
                if now_ns >= since_ns + ns(START_TIME_MAX) {
                    slot.condemned = true;
                    let signal = Signal::SIGKILL;
                    actions.push(Action::Kill { process, signal, why: "not ready after 10 s" });
                }
            }
            _ => {}
        }
    }

    // ── What follows from it ───────────────────────────────────────────────

    fn process(&mut self) -> Process {
        let process = Process(self.next_process);
        self.next_process += 1;
        process
    }

    fn spawn_worker(&mut self, index: usize, now_ns: u64, actions: &mut Vec<Action>) {
        let process = self.process();
        let slot = &mut self.slots[index];
        assert!(slot.state.process().is_none(), "a slot has one process");
        slot.state = State::Starting { process, since_ns: now_ns };
        (slot.slow, slot.condemned) = (false, false);
        actions.push(Action::Spawn { process, role: Role::Worker { slot: index }, which: slot.which });
    }

    /// The delay after so many deaths in a row: 100 ms after the second, doubling
    /// to 10 s, less up to a fifth by chance, so that slots don't beat in time.
    fn backoff(&mut self, failures: u32) -> Duration {
        let doubled = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(2).min(16));
        let delay = doubled.min(BACKOFF_MAX);
        // SplitMix64 (public domain): enough for a jitter.
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.jitter;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let less = (mixed ^ (mixed >> 31)) % (ns(delay) / 5);
        delay - Duration::from_nanos(less)
    }

    fn say_ready(&mut self, actions: &mut Vec<Action>) {
        if self.phase == Phase::Serving && !self.ready_said && self.ready_count() == self.slots.len() {
            self.ready_said = true;
            actions.push(Action::Ready);
        }
    }
}

/// Deaths in a row, this one counted.
fn failures_now(state: State, failures: u32, now_ns: u64) -> u32 {
    match state {
        State::Ready { since_ns, .. } if now_ns.saturating_sub(since_ns) >= ns(HEALTHY) => 1,
        _ => failures.saturating_add(1),
    }
}

#[cfg(test)]
mod tests;
