//! The two kinds of places where exposures go: one that has what it was given when
//! its call returns, and one that confirms later.

use std::io;
use std::time::Duration;

use crate::clock::Now;
use crate::logger::batch::Batch;

/// One place where exposures go.
pub trait Sink {
    /// Takes `bytes`, whole exposures, `count` of them: after `Ok` they are safe.
    /// After an error it is called with the same bytes again, and what it had
    /// taken of them must not come out twice.
    ///
    /// # Errors
    /// Whatever keeps it from it.
    fn write(&mut self, bytes: &[u8], count: u64, now: Now) -> io::Result<()>;

    /// Does what is due (syncs, rotations); gives how long until it wants to be
    /// asked again.
    fn tick(&mut self, now: Now) -> Duration;

    /// Makes everything durable; nothing follows.
    fn finish(&mut self, now: Now);
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The sink has it, but for so many exposures that it refused for good.
    Delivered {
        /// Refused for good.
        rejected: u32,
    },
    /// It is to be sent again.
    Failed {
        /// Whether it may be there all the same.
        may_have_arrived: bool,
    },
}

/// A place where exposures go, that confirms later. It gives each chunk's
/// outcome once, and knows by itself when to begin anew.
pub trait Courier {
    /// Sends a chunk: whole exposures, `count` of them. `false` if there is no
    /// room now.
    fn send(&mut self, token: u64, chunk: &[u8], count: u32, now: Now) -> bool;

    /// Whether it would take a chunk.
    fn has_room(&self) -> bool;

    /// Appends what became of chunks since the last call.
    fn poll(&mut self, now: Now, outcomes: &mut Vec<(u64, Outcome)>);

    /// Gives up what is under way; nothing follows.
    fn finish(&mut self);
}

/// A batch's fate.
#[derive(Debug)]
pub struct Done {
    /// To be filled again.
    pub batch: Batch,
    /// Whether it is safe: delivered, in the spool, or refused for good.
    pub delivered: bool,
    /// Exposures of it that went to the spool.
    pub spooled: u64,
    /// Exposures of it that the sink refused for good.
    pub rejected: u64,
}
