//! How far the spool has been emptied, and what became of what was in it.
//!
//! ```text
//! cursor   slot 0 | slot 1, 128 bytes each; the newest sound one is in force
//! slot     generation | delivered | rejected | corrupt | evicted: size, disk, age | crc32c, u64 each
//! ```
//! The books are the cursor: every exposure below it was delivered, rejected,
//! found corrupt or evicted, so it stands at their sum. One write moves all.
//!
//! Both slots are written each time, the one in force as it is, and again before
//! each sync: what a failed sync made the kernel forget can still be read, and a
//! later sync says nothing of it (fsync(2), "Errors"); only writing it again
//! brings it to the disk.

use std::io;

use super::disk::{Disk, read_full, write_all};
use crate::exposure::checksum::checksum;

/// The file.
pub const CURSOR_NAME: &str = "cursor";
const SLOT_SIZE: usize = 128;
const WORD_COUNT: usize = 8;

/// Why exposures went from the spool without being delivered; label values of
/// the metric, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// The spool's own bound.
    Size,
    /// Too little of the disk is free.
    Disk,
    /// They were too old.
    Age,
}

/// What became of exposures, since the spool was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Books {
    /// The sink confirmed them.
    pub delivered: u64,
    /// The sink refused them for good.
    pub rejected: u64,
    /// They could not be read again.
    pub corrupt: u64,
    /// They went at a bound, by [`Reason`].
    pub evicted: [u64; 3],
}

impl Books {
    /// All of them: where the cursor stands.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.delivered + self.rejected + self.corrupt + self.evicted.iter().sum::<u64>()
    }

    fn words(&self) -> [u64; 6] {
        let [size, disk, age] = self.evicted;
        [self.delivered, self.rejected, self.corrupt, size, disk, age]
    }
}

/// The cursor's file.
#[derive(Debug)]
pub struct Cursor<F> {
    file: F,
    generation: u64,
    slots: [u8; 2 * SLOT_SIZE],
}

impl<F> Cursor<F> {
    /// Opens or makes it; gives the books in force, if there are sound ones.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn open<D: Disk<File = F>>(disk: &D) -> io::Result<(Cursor<F>, Option<Books>)> {
        let file = match disk.open(CURSOR_NAME) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => disk.create(CURSOR_NAME)?,
            opened => opened?,
        };
        let mut slots = [0; 2 * SLOT_SIZE];
        read_full(disk, &file, &mut slots, 0)?;
        let newest = newest(&slots);
        let generation = newest.map_or(0, |(generation, _)| generation);
        Ok((Cursor { file, generation, slots }, newest.map(|(_, books)| books)))
    }

    /// Puts the books in force for whoever opens the spool after this process.
    ///
    /// # Errors
    /// If the disk fails; the books before stay in force.
    pub fn save<D: Disk<File = F>>(&mut self, disk: &D, books: &Books) -> io::Result<()> {
        let generation = self.generation + 1;
        let mut slots = self.slots;
        let slot = &mut slots[(generation % 2) as usize * SLOT_SIZE..][..SLOT_SIZE];
        for (bytes, word) in
            slot.as_chunks_mut::<8>().0.iter_mut().zip(std::iter::once(generation).chain(books.words()))
        {
            *bytes = word.to_le_bytes();
        }
        let crc = u64::from(checksum(&slot[..8 * (WORD_COUNT - 1)]));
        slot[8 * (WORD_COUNT - 1)..8 * WORD_COUNT].copy_from_slice(&crc.to_le_bytes());
        write_all(disk, &self.file, &slots, 0)?;
        (self.generation, self.slots) = (generation, slots);
        Ok(())
    }

    /// Makes what was saved outlast a loss of power, by whichever process it was saved.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn sync<D: Disk<File = F>>(&self, disk: &D) -> io::Result<()> {
        write_all(disk, &self.file, &self.slots, 0)?;
        disk.sync(&self.file)
    }
}

/// What the bytes of a cursor's file say.
#[must_use]
pub fn parse_cursor(bytes: &[u8]) -> Option<Books> {
    newest(bytes).map(|(_, books)| books)
}

fn newest(bytes: &[u8]) -> Option<(u64, Books)> {
    bytes.chunks_exact(SLOT_SIZE).filter_map(parse).max_by_key(|(generation, _)| *generation)
}

fn parse(slot: &[u8]) -> Option<(u64, Books)> {
    let word = |index: usize| u64::from_le_bytes(slot.as_chunks().0[index]);
    let sound = word(0) > 0 && word(7) == u64::from(checksum(&slot[..8 * (WORD_COUNT - 1)]));
    let books = Books {
        delivered: word(1),
        rejected: word(2),
        corrupt: word(3),
        evicted: [word(4), word(5), word(6)],
    };
    sound.then_some((word(0), books))
}
