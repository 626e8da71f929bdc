//! The words of one process, which it alone writes.
//!
//! ```text
//! kind | pool name (32 bytes of text) | pid | birth | turn | births | state | … |
//! cells, family after family: one word each, of a histogram `histogram::WORD_COUNT` |
//! columns of one word a name
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::families::cell_size;
use super::histogram::Histogram;
use super::names::Place;
use super::{FAMILIES, Family, Kind, Process, cell_count, histogram, names, worker_block};

const BLOCK_HEADER_WORDS: usize = 16;
const NAME_WORDS: usize = 4;
// Words of a block's header, behind the name.
const AT_PID: usize = 5;
const AT_BIRTH: usize = 6;
const AT_TURN: usize = 7;
const AT_BIRTHS: usize = 8;
const AT_STATE: usize = 9;

/// Where each family's cells begin in a block; the last entry is the end.
const OFFSETS: [usize; FAMILIES.len() + 1] = {
    let mut offsets = [0; FAMILIES.len() + 1];
    let mut index = 0;
    let mut at = BLOCK_HEADER_WORDS;
    while index < FAMILIES.len() {
        offsets[index] = at;
        at += cell_count(FAMILIES[index].labels) * cell_size(FAMILIES[index].kind);
        index += 1;
    }
    offsets[FAMILIES.len()] = at;
    offsets
};
/// Where the cells of [`names`] begin in a block.
const NAMED: usize = OFFSETS[FAMILIES.len()];
/// Words of a block, a whole number of cache lines so that two writers never share one.
pub(super) const BLOCK_WORDS: usize = (NAMED + names::CELL_COUNT).next_multiple_of(8);

/// How far a block's process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
#[allow(missing_docs, reason = "each name says it")]
pub enum State {
    Ended = 0,
    Running = 1,
    Draining = 2,
}

/// What a block's header says of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Its process id.
    pub pid: u32,
    /// When it took the block, in Unix microseconds.
    pub birth_unix_us: i64,
    /// When it last said that it turns, in nanoseconds of the monotonic clock.
    pub turn_mono_ns: u64,
    /// Processes that have had the block so far, this one among them.
    pub births: u64,
    /// How far it has come, as far as anybody has said.
    pub state: State,
}

/// The words of one process.
#[derive(Debug, Clone, Copy)]
pub struct Block<'r> {
    index: usize,
    words: &'r [AtomicU64],
}

impl<'r> Block<'r> {
    /// Of these words; `index` says whose they are.
    pub(super) fn new(index: usize, words: &'r [AtomicU64]) -> Block<'r> {
        assert_eq!(words.len(), BLOCK_WORDS, "a block's own words");
        Block { index, words }
    }

    /// Says whose block this is; `name` is a pool's, cut at 32 bytes. Counts stay.
    pub fn claim(&self, process: Process, name: &str) {
        self.words[0].store(process as u64, Relaxed);
        let mut text = [0u8; NAME_WORDS * 8];
        let size = name.len().min(text.len());
        text[..size].copy_from_slice(&name.as_bytes()[..size]);
        for (word, bytes) in self.words[1..].iter().zip(text.as_chunks::<8>().0) {
            word.store(u64::from_le_bytes(*bytes), Relaxed);
        }
    }

    /// A process has taken the block, at this time of both clocks.
    pub fn born(&self, pid: u32, unix_us: i64, mono_ns: u64) {
        self.words[AT_PID].store(u64::from(pid), Relaxed);
        self.words[AT_BIRTH].store(unix_us as u64, Relaxed);
        self.words[AT_BIRTHS].store(self.words[AT_BIRTHS].load(Relaxed) + 1, Relaxed);
        self.turns(mono_ns);
        self.is(State::Running);
    }

    /// It turns: to be said at least twice a second.
    #[inline]
    pub fn turns(&self, mono_ns: u64) {
        self.words[AT_TURN].store(mono_ns, Relaxed);
    }

    /// How far it has come; [`State::Ended`] is for whoever has reaped it to say.
    pub fn is(&self, state: State) {
        self.words[AT_STATE].store(state as u64, Relaxed);
    }

    /// What is known of its process; none if it was never taken.
    #[must_use]
    pub fn life(&self) -> Option<Life> {
        let word = |at: usize| self.words[at].load(Relaxed);
        Some(Life {
            pid: u32::try_from(word(AT_PID)).ok().filter(|pid| *pid != 0)?,
            birth_unix_us: word(AT_BIRTH) as i64,
            turn_mono_ns: word(AT_TURN),
            births: word(AT_BIRTHS),
            state: match word(AT_STATE) {
                1 => State::Running,
                2 => State::Draining,
                _ => State::Ended,
            },
        })
    }

    /// Whose block this is, if anybody's.
    #[must_use]
    pub fn process(&self) -> Option<Process> {
        match self.words[0].load(Relaxed) {
            1 => Some(Process::Master),
            2 => Some(Process::Logger),
            3 => Some(Process::Worker),
            _ => None,
        }
    }

    /// The worker slot that it belongs to, if to one.
    #[must_use]
    pub fn slot(&self) -> Option<usize> {
        self.index.checked_sub(worker_block(0, 0)).map(|after| after / 2)
    }

    /// The name it was claimed with.
    #[must_use]
    pub fn name(&self) -> String {
        let bytes: Vec<u8> =
            self.words[1..=NAME_WORDS].iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
    }

    fn cell(&self, family: Family, index: usize) -> &AtomicU64 {
        let (from, to) = (OFFSETS[family as usize], OFFSETS[family as usize + 1]);
        &self.words[from..to][index]
    }

    /// Adds to a family without labels. Only the block's own process may.
    #[inline]
    pub fn add(&self, family: Family, count: u64) {
        self.add_at(family, 0, count);
    }

    /// Adds to one cell of a family with labels, cells in row-major order.
    #[inline]
    pub fn add_at(&self, family: Family, index: usize, count: u64) {
        let cell = self.cell(family, index);
        cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Counts `count` durations of `ns` each in one cell of a histogram.
    #[inline]
    pub fn record_at(&self, family: Family, index: usize, ns: u64, count: u64) {
        histogram::record(self.histogram_words(family, index), ns, count);
    }

    /// Reads one cell of a histogram.
    #[must_use]
    pub fn histogram(&self, family: Family, index: usize) -> Histogram {
        let mut histogram = Histogram::default();
        histogram.add_words(self.histogram_words(family, index));
        histogram
    }

    #[inline]
    fn histogram_words(&self, family: Family, index: usize) -> &[AtomicU64] {
        let from = OFFSETS[family as usize] + index * histogram::WORD_COUNT;
        assert!(from < OFFSETS[family as usize + 1], "a cell of this family");
        &self.words[from..from + histogram::WORD_COUNT]
    }

    /// Adds to the cell of a name.
    #[inline]
    pub fn add_named(&self, place: Place, count: u64) {
        let cell = &self.words[NAMED + usize::from(place.0)];
        cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Reads the cell of a name.
    #[must_use]
    pub fn get_named(&self, place: Place) -> u64 {
        self.words[NAMED + usize::from(place.0)].load(Relaxed)
    }

    /// Sets a family without labels.
    #[inline]
    pub fn set(&self, family: Family, value: u64) {
        self.set_at(family, 0, value);
    }

    /// Sets one cell of a family with labels.
    #[inline]
    pub fn set_at(&self, family: Family, index: usize, value: u64) {
        self.cell(family, index).store(value, Relaxed);
    }

    /// Levels go with the process that had them; what was counted stays.
    pub fn clear_levels(&self) {
        for row in FAMILIES.iter().filter(|row| matches!(row.kind, Kind::Gauge | Kind::GaugeMax)) {
            for cell in 0..cell_count(row.labels) {
                self.set_at(row.family, cell, 0);
            }
        }
    }

    /// Reads one cell.
    #[must_use]
    pub fn get(&self, family: Family, index: usize) -> u64 {
        self.cell(family, index).load(Relaxed)
    }
}
