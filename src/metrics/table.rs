//! The region as a whole: its layout, and where each process finds its block.
//!
//! ```text
//! magic | layout | block count | words a block | instance | retired | … |
//! names | shares | block 0 | … | board
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Process;
use super::block::{BLOCK_WORDS, Block};
use super::board::{BOARD_WORDS, Board};
use super::names::{self, Names, Place};
use super::shares::{self, Shares};

/// The master's block.
pub const MASTER_BLOCK: usize = 0;
/// The logger's block.
pub const LOGGER_BLOCK: usize = 1;

/// The block of a worker slot; `which` is 0 or 1, the same as its ring's.
#[must_use]
pub const fn worker_block(slot: usize, which: usize) -> usize {
    2 + slot * 2 + which
}

/// Blocks of an instance with so many worker slots.
#[must_use]
pub const fn block_count(slot_count: usize) -> usize {
    2 + slot_count * 2
}

const MAGIC: u64 = 0x7370_6c69_7464_4d31; // "splitdM1"
const LAYOUT: u64 = 6;
const REGION_HEADER_WORDS: usize = 8;
/// Of the region's header: the word of the next instance's master.
const AT_RETIRED: usize = 5;
/// Where the shares begin, behind the directory of names.
const SHARES: usize = REGION_HEADER_WORDS + names::WORD_COUNT;
/// Where the blocks begin.
const BLOCKS: usize = SHARES + shares::WORD_COUNT;

/// Bytes of a region for so many blocks.
#[must_use]
pub const fn region_size(block_count: usize) -> usize {
    (BLOCKS + block_count * BLOCK_WORDS + BOARD_WORDS) * 8
}

/// What is wrong with a region that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableFault {
    /// Another file, or another layout's.
    #[error("not a metrics region of layout {LAYOUT}: magic {magic:#x}, layout {layout}")]
    Foreign {
        /// The first word found.
        magic: u64,
        /// The second word found.
        layout: u64,
    },
    /// Its header promises more than is mapped.
    #[error("metrics region of {words} words is too short for its {blocks} blocks")]
    Short {
        /// Words mapped.
        words: usize,
        /// Blocks promised.
        blocks: u64,
    },
}

/// A view of the whole region.
#[derive(Debug, Clone, Copy)]
pub struct Table<'r> {
    words: &'r [AtomicU64],
}

impl<'r> Table<'r> {
    /// Lays out a fresh region.
    ///
    /// # Panics
    /// If the region is not of [`region_size`] for `block_count`.
    #[must_use]
    pub fn format(words: &'r [AtomicU64], block_count: usize) -> Table<'r> {
        assert!(words.len() * 8 >= region_size(block_count), "region made for its blocks");
        words[0].store(MAGIC, Relaxed);
        words[1].store(LAYOUT, Relaxed);
        words[2].store(block_count as u64, Relaxed);
        words[3].store(BLOCK_WORDS as u64, Relaxed);
        words[AT_RETIRED].store(0, Relaxed);
        Table { words }
    }

    /// Whose region it is; said once, by whoever formats it.
    pub fn set_instance(&self, instance: u64) {
        self.words[4].store(instance, Relaxed);
    }

    /// The instance's number, by which its rings are found.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.words[4].load(Relaxed)
    }

    /// Takes a region as found, checking its header.
    ///
    /// # Errors
    /// If it is not of this layout or too short.
    pub fn attach(words: &'r [AtomicU64]) -> Result<Table<'r>, TableFault> {
        let word = |index: usize| words.get(index).map_or(0, |word| word.load(Relaxed));
        if word(0) != MAGIC || word(1) != LAYOUT || word(3) != BLOCK_WORDS as u64 {
            return Err(TableFault::Foreign { magic: word(0), layout: word(1) });
        }
        let blocks = word(2);
        let fits = usize::try_from(blocks)
            .ok()
            .and_then(|count| count.checked_mul(BLOCK_WORDS))
            .is_some_and(|size| size <= words.len().saturating_sub(BLOCKS + BOARD_WORDS));
        if !fits {
            return Err(TableFault::Short { words: words.len(), blocks });
        }
        Ok(Table { words })
    }

    /// How far the workers of an instance whose master was killed are followed:
    /// those of the first `count` slots may leave. `shared`: their sockets are
    /// their followers', too, and stay open.
    pub fn retire(&self, count: usize, shared: bool) {
        self.words[AT_RETIRED].store((count as u64) << 1 | u64::from(shared), Relaxed);
    }

    /// As [`Table::retire`] has it for one slot: whether it may leave, and
    /// whether its sockets stay open.
    #[must_use]
    pub fn retired(&self, slot: usize) -> Option<bool> {
        let word = self.words[AT_RETIRED].load(Relaxed);
        ((slot as u64) < word >> 1).then_some(word & 1 == 1)
    }

    /// The names that came with experiments.
    #[must_use]
    pub fn names(&self) -> Names<'r> {
        Names::new(&self.words[REGION_HEADER_WORDS..SHARES])
    }

    /// What shares of their experiments' assignments they should have.
    #[must_use]
    pub fn shares(&self) -> Shares<'r> {
        Shares::new(&self.words[SHARES..BLOCKS])
    }

    /// What the workers have counted of a name, all together.
    #[must_use]
    pub fn get_named(&self, place: Place) -> u64 {
        let workers = self.blocks().filter(|block| block.process() == Some(Process::Worker));
        workers.fold(0, |sum, block| sum.wrapping_add(block.get_named(place)))
    }

    /// How many blocks there are.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.words[2].load(Relaxed) as usize
    }

    /// One block, to write or to read.
    #[must_use]
    pub fn block(&self, index: usize) -> Block<'r> {
        let at = BLOCKS + index * BLOCK_WORDS;
        Block::new(index, &self.words[at..at + BLOCK_WORDS])
    }

    /// What the instance says in words.
    #[must_use]
    pub fn board(&self) -> Board<'r> {
        Board::new(&self.words[BLOCKS + self.block_count() * BLOCK_WORDS..])
    }

    /// All blocks.
    pub fn blocks(&self) -> impl Iterator<Item = Block<'r>> + use<'r> {
        let table = *self;
        (0..table.block_count()).map(move |index| table.block(index))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Family, Life, Process::Worker, State, request_cell};
    use super::*;

    fn words(block_count: usize) -> Vec<AtomicU64> {
        (0..region_size(block_count) / 8).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_cell_is_found_again_by_whoever_attaches() {
        let words = words(2);
        let table = Table::format(&words, 2);
        table.block(1).claim(Worker, "assign");
        table.block(1).add_at(Family::Requests, request_cell(0, 404), 3);
        let found = Table::attach(&words).unwrap();
        assert_eq!(found.block(1).get(Family::Requests, request_cell(0, 404)), 3);
        assert_eq!(found.block(1).process(), Some(Worker));
        assert_eq!(found.block(1).name(), "assign");
        assert_eq!(found.block(0).get(Family::Requests, request_cell(0, 404)), 0);
    }

    #[test]
    fn a_life_is_read_as_it_was_said() {
        let words = words(1);
        let table = Table::format(&words, 1);
        let block = table.block(0);
        assert_eq!(block.life(), None);
        block.born(7, 1_000, 5);
        block.turns(6);
        block.is(State::Draining);
        let life = Life { pid: 7, birth_unix_us: 1_000, turn_mono_ns: 6, births: 1, state: State::Draining };
        assert_eq!(block.life(), Some(life));
        block.is(State::Ended);
        block.born(8, 2_000, 9);
        assert_eq!(
            block.life().map(|life| (life.pid, life.births, life.state)),
            Some((8, 2, State::Running))
        );
        table.board().set_version("v");
        assert_eq!(block.life().map(|life| life.pid), Some(8), "the board lies behind the blocks");
    }

    #[test]
    fn slots_are_retired_from_the_first_on() {
        let words = words(1);
        let table = Table::format(&words, 1);
        assert_eq!(table.retired(0), None);
        table.retire(2, true);
        assert_eq!([0, 1, 2].map(|slot| table.retired(slot)), [Some(true), Some(true), None]);
        table.retire(3, false);
        assert_eq!(table.retired(2), Some(false));
    }

    #[test]
    fn a_foreign_or_short_region_is_refused() {
        let words = words(1);
        assert!(matches!(Table::attach(&words), Err(TableFault::Foreign { .. })));
        let _ = Table::format(&words, 1);
        words[2].store(u64::MAX, Relaxed);
        assert!(matches!(Table::attach(&words), Err(TableFault::Short { .. })));
        assert!(Table::attach(&[]).is_err());
    }
}
