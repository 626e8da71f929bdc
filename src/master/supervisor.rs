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
//! - [`hand_over`]: a worker that lives is replaced, one slot after the other.
//! - [`adoption`]: a socket without a worker is served by a neighbour.
//! - [`watchdog`]: a process that stands still is ended.
//! - [`standing`]: what crosses an upgrade.
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
mod hand_over;
pub mod standing;
pub mod watchdog;

use std::collections::VecDeque;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

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
/// A loader that takes longer to read and compile is killed; the plan in force stays.
const LOAD_TIME_MAX: Duration = Duration::from_secs(120);
/// A first loader that is killed so often in a row is not tried again.
const FIRST_LOAD_FAILURES: u32 = 3;
/// What checks an upgrade and takes longer is killed, and the upgrade refused.
const CHECK_TIME_MAX: Duration = Duration::from_secs(10);
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Process(pub u64);

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Reads and compiles the experiments whenever they change.
    Loader,
    /// The program now at our path, asked whether it could go on in our place.
    Check,
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
    /// The loader begins to read.
    LoadBegun,
    /// The loader has said what came of it.
    LoadEnded,
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
    /// A slot's worker is to be replaced by hand-over, after those named before it.
    Replace {
        /// Whose.
        slot: usize,
    },
    /// The logger is to be replaced.
    ReplaceLogger,
    /// USR2: become the program now at our path.
    Upgrade,
    /// The upgrade was not possible after all.
    UpgradeFailed,
    /// How a process has fared up to now.
    Pulse(Process, watchdog::Pulse),
    /// Time did not pass for the children as it did on the clock: the machine,
    /// or all of us, stood still.
    TimeSkipped,
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
    /// Tell the loader to read again.
    Reload(Process),
    /// Tell the logger to empty the rings and leave.
    StopLogger(Process),
    /// Every worker that was to be replaced has been.
    Replaced,
    /// A successor did not get to work: nobody else is replaced. The worker it
    /// was to follow serves on.
    ReplacementFailed {
        /// Whose.
        slot: usize,
    },
    /// The new program is in order: put it in our place.
    Upgrade,
    /// It is not, or it is not the time; why, for the log.
    UpgradeRefused(&'static str),
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

    fn handle_load_begun(&mut self, now_ns: u64) {
        if let Some(process) = self.loader.process() {
            self.load = Some(Limited { process, since_ns: now_ns, killed: self.is_stopping() });
        }
    }

    fn handle_load_ended(&mut self) {
        // One that was killed for its time is not forgiven for being done just then.
        self.load = self.load.filter(|load| load.killed);
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

    fn handle_loader_ended(&mut self, code: Option<i32>, now_ns: u64, actions: &mut Vec<Action>) {
        self.loader_failures = failures_now(self.loader, self.loader_failures, now_ns);
        self.loader = State::Absent;
        self.load = None;
        if self.is_stopping() {
            return;
        }
        if self.phase == Phase::Loading && (code.is_some() || self.loader_failures >= FIRST_LOAD_FAILURES) {
            self.exit_code = match code {
                Some(code) if code == i32::from(EXIT_FAULTY) => EXIT_FAULTY,
                _ => EXIT_REFUSED,
            };
            return self.begin_stop("no experiments to serve", Some(Duration::ZERO), now_ns, actions);
        }
        if self.loader_failures == 1 {
            return self.spawn_loader(now_ns, actions);
        }
        let (failures, delay) = (self.loader_failures, self.backoff(self.loader_failures));
        self.loader = State::Waiting { until_ns: now_ns + ns(delay) };
        actions.push(Action::Waits { role: Role::Loader, delay, failures });
    }

    fn handle_check_ended(&mut self, code: Option<i32>, actions: &mut Vec<Action>) {
        let killed = self.check.take().is_some_and(|check| check.killed);
        actions.push(match (code, self.phase) {
            (_, phase) if phase != Phase::Serving => Action::UpgradeRefused("the instance stops"),
            (Some(0), _) => Action::Upgrade,
            (Some(code), _) if code == i32::from(super::upgrade::EXIT_SAME) => return,
            (_, _) if killed => Action::UpgradeRefused("the new program did not answer in 10 s"),
            _ => Action::UpgradeRefused("the new program refused; what it said stands above"),
        });
    }

    fn handle_logger_ended(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Logging { .. }) {
            self.logger = State::Absent;
            return;
        }
        self.logger_failures = failures_now(self.logger, self.logger_failures, now_ns);
        if self.logger_leaves.take().is_some() {
            self.logger_failures = 0;
            return self.spawn_logger(now_ns, actions);
        }
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

    fn handle_reload(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        match self.loader {
            State::Waiting { .. } => self.spawn_loader(now_ns, actions),
            State::Starting { process, .. } | State::Ready { process, .. } if !self.is_stopping() => {
                actions.push(Action::Reload(process));
            }
            _ => {}
        }
    }

    fn handle_replace_logger(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        match self.logger {
            State::Starting { process, .. } | State::Ready { process, .. }
                if self.phase == Phase::Serving && self.logger_leaves.is_none() =>
            {
                self.logger_leaves = Some(Limited { process, since_ns: now_ns, killed: false });
                actions.push(Action::StopLogger(process));
            }
            State::Waiting { .. } if self.phase == Phase::Serving => self.spawn_logger(now_ns, actions),
            _ => {}
        }
    }

    fn handle_upgrade(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
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

    fn handle_drain(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if !self.is_stopping() {
            self.begin_stop("told to drain", None, now_ns, actions);
        }
    }

    fn handle_stop(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Loading | Phase::Serving => {
                self.begin_stop("told to stop", Some(self.times.drain), now_ns, actions);
            }
            Phase::Draining { hurried: false, .. } => {
                self.order_drain("told to stop while draining", Some(self.times.drain), now_ns, actions);
            }
            Phase::Draining { hurried: true, killed: false, .. } => {
                self.order_drain("told to stop again", Some(Duration::ZERO), now_ns, actions);
            }
            // All that is left is what already has little time.
            Phase::Draining { .. } | Phase::Logging { .. } | Phase::Done => {}
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
        match &mut self.phase {
            Phase::Draining { kill_at_ns, killed, .. } if !*killed && now_ns >= *kill_at_ns => {
                *killed = true;
                for process in self.slots.iter().flat_map(Slot::processes) {
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

    fn spawn_loader(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let process = self.process();
        self.loader = State::Ready { process, since_ns: now_ns };
        // It begins by reading.
        self.load = Some(Limited { process, since_ns: now_ns, killed: false });
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
        // Those that nobody waits for; one killed for its time dies anyhow.
        let loader_killed = self.load.is_some_and(|load| load.killed);
        let loader = self.loader.process().filter(|_| !loader_killed);
        let check = self.check.filter(|check| !check.killed).map(|check| check.process);
        for process in [loader, check].into_iter().flatten() {
            let (signal, why) = (Signal::SIGKILL, "the instance stops");
            actions.push(Action::Kill { process, signal, why });
        }
        for limited in [&mut self.load, &mut self.check].into_iter().flatten() {
            limited.killed = true;
        }
        if self.loader.process().is_none() {
            self.loader = State::Absent;
        }
        self.rolling.clear();
        self.watched.forget();
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
        // Whoever restarts us stops us, in bounded time.
        let order = Order::Drain { deadline_ms: limit.as_millis() as u64, last: deadline.is_none() };
        for process in self.slots.iter().flat_map(Slot::processes) {
            actions.push(Action::Order { process, order: order.clone() });
        }
        let kill_at_ns = now_ns + ns(limit) + ns(STOP_GRACE);
        self.phase = Phase::Draining { kill_at_ns, killed: false, hurried: deadline.is_some() };
    }

    fn say_ready(&mut self, actions: &mut Vec<Action>) {
        if self.phase == Phase::Serving && !self.ready_said && self.ready_count() == self.slots.len() {
            self.ready_said = true;
            actions.push(Action::Ready);
        }
    }

    fn finish(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let workers_gone = self.slots.iter().all(|slot| slot.processes().next().is_none());
        let others_gone = self.loader.process().is_none() && self.check.is_none();
        if matches!(self.phase, Phase::Draining { .. }) && workers_gone && others_gone {
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
