//! The spool: exposures that the sink can't take now, on disk.
//!
//! ```text
//! state_dir/spool/
//!   00000000000000000000.spool     a segment: whole batches, each made whole by a mark behind it
//!   00000000000000013107.spool     the next, named by the number of its first exposure
//!   cursor                         how far it was emptied, and the books
//!
//!        cursor            read                     safe      written
//!   ───────┼─────────────────┼────────────────────────┼───────────┼──→ numbers
//!    settled   handed out, some settled   not yet       not synced
//! ```
//! Promises
//! - What [`Spool::sync`] has confirmed outlasts any process and the machine's
//!   power; until then the rings keep it. A batch is there whole or not at all.
//! - A batch's mark says how far its rings were read. Who opens the spool after a
//!   kill moves their heads there ([`Spool::take_marks`]), so that a batch is in
//!   the spool or in the rings and never in both.
//! - `number = delivered + rejected + corrupt + evicted` at the cursor, and what is
//!   between the cursor and `safe` is in the spool: the books are read off the
//!   disk and survive every process.
//! - What was delivered and not yet saved in the cursor at a kill comes again.
//! - The bounds (bytes, free disk, age) hold before a batch is written: the oldest
//!   segment goes and is counted, or, as set, the newest batch is refused and
//!   waits in the rings.
//! - Damage costs what it covers and is counted. A failing disk delays: nothing
//!   here loops, gives up for good or holds more in memory than a segment.

mod append;
pub mod cursor;
pub mod disk;
mod evict;
mod hand_out;
mod recover;
pub mod segment;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use super::batch::Mark;
use crate::clock::Now;
use cursor::{Books, Cursor};
use disk::Disk;
use segment::parse_segment_name;

pub use recover::peek;

/// A segment is closed once it is this large.
pub const SEGMENT_SIZE: u64 = 16 * 1024 * 1024;

/// What happens at a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// The oldest segment goes, and is counted.
    #[default]
    Oldest,
    /// New batches are refused: they wait in the rings, which refuse in their turn.
    Newest,
}

/// The bounds.
#[derive(Debug, Clone)]
pub struct Options {
    /// All segments together.
    pub size_max: u64,
    /// What stays free on the file system.
    pub free_min: u64,
    /// How long an exposure is kept.
    pub age_max: Duration,
    /// What happens at `size_max` and `free_min`.
    pub when_full: WhenFull,
    /// What a loss of power may cost, and how long a batch waits to be safe.
    pub sync_interval: Duration,
    /// [`SEGMENT_SIZE`], but for tests.
    pub segment_size: u64,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A bound.
    #[error("the spool is full: {0}")]
    Full(&'static str),
    /// The disk.
    #[error("{0}")]
    Disk(#[from] io::Error),
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The number of its first exposure; names it from now on.
    pub number: u64,
    /// Exposures in it.
    pub count: u32,
    segment: u64,
    at: u64,
    size: usize,
}

/// What became of a chunk that was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The sink has it, but for so many exposures of it that it refused for good.
    Settled {
        /// Refused for good.
        rejected: u32,
    },
    /// It is to be handed out again.
    Again,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Out,
    Again,
    Settled { rejected: u32 },
    Corrupt,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    state: State,
    count: u32,
    /// Where it lies; a gap that damage left lies nowhere.
    place: Option<Place>,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    first: u64,
    /// Bytes that are safe.
    size: u64,
    created_us: i64,
    /// When the last of it was written.
    ended_us: i64,
}

/// The segment that grows; the last of the list once it has something safe.
#[derive(Debug)]
struct Tail<F> {
    file: F,
    first: u64,
    created_us: i64,
    ended_us: i64,
    /// With what is not synced.
    written: u64,
    /// Without.
    safe: u64,
    /// Since when it has what is not synced.
    dirty: Option<Now>,
    /// Its name is not durable yet.
    is_new: bool,
}

/// A segment in memory, for handing out.
#[derive(Debug)]
struct Loaded {
    first: u64,
    bytes: Vec<u8>,
    /// Where the next record begins.
    at: usize,
}

/// The spool.
pub struct Spool<D: Disk> {
    disk: D,
    options: Options,
    cursor: Cursor<D::File>,
    books: Books,
    /// The books as the disk has them.
    saved: Books,
    segments: VecDeque<Segment>,
    tail: Option<Tail<D::File>>,
    /// Up to here everything is synced.
    safe: u64,
    /// Up to here everything is written.
    written: u64,
    /// The next to be handed out for the first time.
    read: u64,
    /// What was handed out and is at or above the cursor, by number.
    entries: BTreeMap<u64, Entry>,
    /// How many of them are to be handed out again.
    again_count: usize,
    loaded: Option<Loaded>,
    read_attempts: u32,
    /// Rings' positions found at the opening.
    marks: Vec<Mark>,
    buffer: Vec<u8>,
}

impl<D: Disk> Spool<D> {
    /// Opens what is there: recomputes sizes, cuts what was not finished, removes
    /// what was emptied.
    ///
    /// # Errors
    /// If the disk fails; to be tried again.
    pub fn open(disk: D, options: Options) -> io::Result<Spool<D>> {
        let (cursor, books) = Cursor::open(&disk)?;
        let mut names: Vec<u64> = Vec::new();
        for (name, _) in disk.list()? {
            names.extend(parse_segment_name(&name));
        }
        names.sort_unstable();
        let mut spool = Spool {
            disk,
            options,
            cursor,
            books: books.unwrap_or_default(),
            saved: books.unwrap_or_default(),
            segments: VecDeque::new(),
            tail: None,
            safe: 0,
            written: 0,
            read: 0,
            entries: BTreeMap::new(),
            again_count: 0,
            loaded: None,
            read_attempts: 0,
            marks: Vec::new(),
            buffer: Vec::new(),
        };
        spool.recover(&names)?;
        Ok(spool)
    }

    /// How far rings were read for what is in the spool, as the opening found it:
    /// what lies before is not to be read again.
    pub fn take_marks(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.marks)
    }

    /// What became of everything below the cursor.
    #[must_use]
    pub fn books(&self) -> Books {
        self.books
    }

    /// Exposures that were ever safe in it.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.safe
    }

    /// Exposures in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.safe - self.books.number()
    }

    /// Bytes of its segments.
    #[must_use]
    pub fn size(&self) -> u64 {
        let tail = self.tail.as_ref().map_or(0, |tail| tail.written - tail.safe);
        self.segments.iter().map(|segment| segment.size).sum::<u64>() + tail
    }

    /// The most they may be.
    #[must_use]
    pub fn size_max(&self) -> u64 {
        self.options.size_max
    }

    /// When its oldest exposure was written, about; `None` if it is empty.
    #[must_use]
    pub fn oldest_us(&self) -> Option<i64> {
        let oldest = self.segments.front().filter(|_| self.count() > 0)?;
        Some(oldest.created_us)
    }

    /// Chunks handed out and not settled.
    #[must_use]
    pub fn out_count(&self) -> usize {
        self.entries.values().filter(|entry| entry.state == State::Out).count()
    }
}
