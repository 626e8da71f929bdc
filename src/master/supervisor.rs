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
//!
//! Promises
//! - A slot never has two processes, so a ring never has two writers.
//! - While a slot waits (or its worker is slow to start), a ready worker of its
//!   pool serves its socket too, if there is one; it is told when that ends.
//! - The logger is stopped last, after every worker is gone.
//! - `Exit` is said once, when nothing lives any more; every stop gets there,
//!   whatever the children do, because what does not leave is killed.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::worker::Order;

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
/// A loader that takes longer is killed; the plan in force stays.
const LOAD_TIME_MAX: Duration = Duration::from_secs(120);
/// Past a drain's deadline, when workers should have left by themselves.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// The logger promises to be done in 5 s.
const LOGGER_STOP_MAX: Duration = Duration::from_secs(7);
/// A drain without a deadline still ends some day.
const DRAIN_UNBOUNDED: Duration = Duration::from_secs(24 * 3600);
/// When no worker is ready and each slot failed so often in a row, it is no
/// accident of one worker. By then some six seconds of waiting have not helped.
const CRASH_LOOP_FAILURES: u32 = 8;

/// One life of one process; never used twice in an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(pub u64);

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Reads and compiles the experiments, once.
    Loader,
    /// Drains the rings.
    Logger,
    /// Answers on a slot's sockets.
    Worker {
        /// The slot, over all pools.
        slot: usize,
    },
}

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The loader handed over a plan that is good.
    Plan,
    /// A worker accepts.
    Ready(Process),
    /// A process is gone (or could not be started), reaped, and what it had said is read.
    Ended {
        /// Which.
        process: Process,
        /// The code it left with, if it left by itself.
        code: Option<i32>,
    },
    /// HUP: read the experiments again.
    Reload,
    /// QUIT: let everything finish, then leave.
    Drain,
    /// TERM, INT: the same with a deadline; the second time at once.
    Stop,
    /// Nothing but time.
    Time,
}

/// Something to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start a process. If that is impossible, say that it ended.
    Spawn {
        /// Its key.
        process: Process,
        /// What it is.
        role: Role,
        /// Which of its slot's two rings and blocks of metrics it takes first.
        which: usize,
    },
    /// Tell a worker.
    Order {
        /// Whom.
        process: Process,
        /// What.
        order: Order,
    },
    /// Tell the logger to empty the rings and leave.
    StopLogger(Process),
    /// Send a signal.
    Kill {
        /// To whom.
        process: Process,
        /// Which.
        signal: Signal,
        /// Why, for the log.
        why: &'static str,
    },
    /// For the log: a dead process is not replaced at once.
    Waits {
        /// What is missing.
        role: Role,
        /// How long.
        delay: Duration,
        /// Deaths in a row.
        failures: u32,
    },
    /// Every worker is ready for the first time.
    Ready,
    /// The stop begins: not ready any more.
    Stopping {
        /// Why, for the log.
        why: &'static str,
        /// How long workers may take; none: as long as they need.
        deadline: Option<Duration>,
    },
    /// Leave with this code; nothing lives.
    Exit(u8),
}

/// Left as asked.
pub const EXIT_DONE: u8 = 0;
/// The experiments are at fault.
pub const EXIT_FAULTY: u8 = 1;
/// The system refused something.
pub const EXIT_REFUSED: u8 = 3;
/// Workers keep crashing.
pub const EXIT_CRASHING: u8 = 4;

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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Loading,
    Serving,
    Draining { kill_at_ns: u64, killed: bool, hurried: bool },
    Logging { kill_at_ns: u64, killed: bool },
    Done,
}

#[derive(Debug, Clone, Copy)]
struct Loader {
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
    loader: Option<Loader>,
    reload_again: bool,
    ready_said: bool,
    exit_code: u8,
    drain_timeout: Duration,
    next_process: u64,
    jitter: u64,
}

fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

impl Supervisor {
    /// One that has started nothing: `slot_pools` gives each slot's pool;
    /// `seed` is any random number, for the jitter.
    #[must_use]
    pub fn new(slot_pools: &[usize], drain_timeout: Duration, seed: u64) -> Supervisor {
        let slot = |pool: &usize| Slot {
            pool: *pool,
            state: State::Absent,
            failures: 0,
            which: 0,
            adopter: None,
            slow: false,
            condemned: false,
        };
        Supervisor {
            phase: Phase::Loading,
            slots: slot_pools.iter().map(slot).collect(),
            logger: State::Absent,
            logger_failures: 0,
            loader: None,
            reload_again: false,
            ready_said: false,
            exit_code: EXIT_DONE,
            drain_timeout,
            next_process: 1,
            jitter: seed,
        }
    }

    /// The first thing to do: load the experiments.
    pub fn start(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        self.load(now_ns, actions);
    }

    /// Whether a stop has begun.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        !matches!(self.phase, Phase::Loading | Phase::Serving)
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
            Event::Ready(process) => self.handle_ready(process, now_ns),
            Event::Ended { process, code } => self.handle_ended(process, code, now_ns, actions),
            Event::Reload => self.handle_reload(now_ns, actions),
            Event::Drain => self.handle_drain(now_ns, actions),
            Event::Stop => self.handle_stop(now_ns, actions),
            Event::Time => {}
        }
        self.handle_time(now_ns, actions);
        self.settle_adoptions(actions);
        self.say_ready(actions);
        self.finish(now_ns, actions);
    }

    /// When [`Event::Time`] is due, if nothing else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let mut due = Vec::new();
        if let Some(loader) = self.loader.filter(|loader| !loader.killed) {
            due.push(loader.since_ns + ns(LOAD_TIME_MAX));
        }
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
        if let State::Waiting { until_ns } = self.logger {
            due.push(until_ns);
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

    fn handle_ready(&mut self, ready: Process, now_ns: u64) {
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
        if self.loader.is_some_and(|loader| loader.process == ended) {
            self.handle_loader_ended(code, now_ns, actions);
        } else if self.logger.process() == Some(ended) {
            self.handle_logger_ended(now_ns, actions);
        } else if let Some(slot) = self.slots.iter().position(|slot| slot.state.process() == Some(ended)) {
            self.handle_worker_ended(slot, now_ns, actions);
        }
    }

    fn handle_loader_ended(&mut self, code: Option<i32>, now_ns: u64, actions: &mut Vec<Action>) {
        self.loader = None;
        match self.phase {
            Phase::Loading => {
                self.exit_code = match code {
                    Some(code) if code == i32::from(EXIT_FAULTY) => EXIT_FAULTY,
                    _ => EXIT_REFUSED,
                };
                self.begin_stop("no experiments to serve", Some(Duration::ZERO), now_ns, actions);
            }
            Phase::Serving if self.reload_again => self.load(now_ns, actions),
            _ => {}
        }
    }

    fn handle_logger_ended(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Logging { .. }) {
            self.logger = State::Absent;
            return;
        }
        self.logger_failures = failures_now(self.logger, self.logger_failures, now_ns);
        if self.logger_failures == 1 {
            return self.spawn_logger(now_ns, actions);
        }
        let delay = self.backoff(self.logger_failures);
        self.logger = State::Waiting { until_ns: now_ns + ns(delay) };
        actions.push(Action::Waits { role: Role::Logger, delay, failures: self.logger_failures });
    }

    fn handle_worker_ended(&mut self, index: usize, now_ns: u64, actions: &mut Vec<Action>) {
        let serving = self.phase == Phase::Serving;
        let slot = &mut self.slots[index];
        slot.failures = failures_now(slot.state, slot.failures, now_ns);
        if matches!(slot.state, State::Starting { .. }) {
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

    fn handle_reload(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        match (self.phase, self.loader) {
            (Phase::Serving, None) => self.load(now_ns, actions),
            // What the loader has read may be older than this wish.
            (Phase::Serving | Phase::Loading, Some(_)) => self.reload_again = true,
            _ => {}
        }
    }

    fn handle_drain(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if !self.is_stopping() {
            self.begin_stop("told to drain", None, now_ns, actions);
        }
    }

    fn handle_stop(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Loading | Phase::Serving => {
                self.begin_stop("told to stop", Some(self.drain_timeout), now_ns, actions);
            }
            Phase::Draining { hurried: false, .. } => {
                self.order_drain("told to stop while draining", Some(self.drain_timeout), now_ns, actions);
            }
            Phase::Draining { hurried: true, killed: false, .. } => {
                self.order_drain("told to stop again", Some(Duration::ZERO), now_ns, actions);
            }
            // All that is left is what already has little time.
            Phase::Draining { .. } | Phase::Logging { .. } | Phase::Done => {}
        }
    }

    fn handle_time(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if let Some(loader) = &mut self.loader
            && !loader.killed
            && now_ns >= loader.since_ns + ns(LOAD_TIME_MAX)
        {
            loader.killed = true;
            let (process, signal) = (loader.process, Signal::SIGKILL);
            actions.push(Action::Kill { process, signal, why: "still loading after 120 s" });
        }
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
        match &mut self.phase {
            Phase::Draining { kill_at_ns, killed, .. } if !*killed && now_ns >= *kill_at_ns => {
                *killed = true;
                for process in self.slots.iter().filter_map(|slot| slot.state.process()) {
                    let signal = Signal::SIGKILL;
                    actions.push(Action::Kill { process, signal, why: "not done at the drain's deadline" });
                }
            }
            Phase::Logging { kill_at_ns, killed } if !*killed && now_ns >= *kill_at_ns => {
                *killed = true;
                if let Some(process) = self.logger.process() {
                    let signal = Signal::SIGKILL;
                    actions.push(Action::Kill { process, signal, why: "rings not emptied in 7 s" });
                }
            }
            _ => {}
        }
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

    fn load(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let process = self.process();
        self.loader = Some(Loader { process, since_ns: now_ns, killed: false });
        self.reload_again = false;
        actions.push(Action::Spawn { process, role: Role::Loader, which: 0 });
    }

    fn spawn_logger(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let process = self.process();
        // A logger has nothing to report before it works.
        self.logger = State::Ready { process, since_ns: now_ns };
        actions.push(Action::Spawn { process, role: Role::Logger, which: 0 });
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

    fn begin_stop(
        &mut self,
        why: &'static str,
        deadline: Option<Duration>,
        now_ns: u64,
        actions: &mut Vec<Action>,
    ) {
        if let Some(loader) = &mut self.loader
            && !loader.killed
        {
            loader.killed = true;
            let (process, signal) = (loader.process, Signal::SIGKILL);
            actions.push(Action::Kill { process, signal, why: "the instance stops" });
        }
        for slot in &mut self.slots {
            slot.adopter = None;
            if slot.state.process().is_none() {
                slot.state = State::Absent;
            }
        }
        self.order_drain(why, deadline, now_ns, actions);
    }

    fn order_drain(
        &mut self,
        why: &'static str,
        deadline: Option<Duration>,
        now_ns: u64,
        actions: &mut Vec<Action>,
    ) {
        actions.push(Action::Stopping { why, deadline });
        let limit = deadline.unwrap_or(DRAIN_UNBOUNDED);
        for process in self.slots.iter().filter_map(|slot| slot.state.process()) {
            let order = Order::Drain { deadline_ms: limit.as_millis() as u64 };
            actions.push(Action::Order { process, order });
        }
        let kill_at_ns = now_ns + ns(limit) + ns(STOP_GRACE);
        self.phase = Phase::Draining { kill_at_ns, killed: false, hurried: deadline.is_some() };
    }

    /// Sees to it that every socket without a worker has a neighbour's.
    fn settle_adoptions(&mut self, actions: &mut Vec<Action>) {
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

    fn say_ready(&mut self, actions: &mut Vec<Action>) {
        if self.phase == Phase::Serving && !self.ready_said && self.ready_count() == self.slots.len() {
            self.ready_said = true;
            actions.push(Action::Ready);
        }
    }

    fn finish(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let workers_gone = self.slots.iter().all(|slot| slot.state.process().is_none());
        if matches!(self.phase, Phase::Draining { .. }) && workers_gone && self.loader.is_none() {
            if let Some(process) = self.logger.process() {
                actions.push(Action::StopLogger(process));
            } else {
                // One that keeps dying is not waited for: the rings outlive the
                // instance, and the next one drains them.
                self.logger = State::Absent;
            }
            self.phase = Phase::Logging { kill_at_ns: now_ns + ns(LOGGER_STOP_MAX), killed: false };
        }
        if matches!(self.phase, Phase::Logging { .. }) && self.logger == State::Absent {
            self.phase = Phase::Done;
            actions.push(Action::Exit(self.exit_code));
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
