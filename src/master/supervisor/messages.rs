//! What the supervisor is told, and what it says.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::watchdog;
use crate::worker::Order;

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
