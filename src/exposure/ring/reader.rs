//! The consumer's end of a ring.
//!
//! **Damage.** Behind a record whose checksum or number does not hold, the reader
//! looks on, word by word, for the next record or pad that verifies, which the
//! position in the checksum makes unambiguous; finding none, it goes on at the
//! tail. A damaged length is never followed: it might lead over a sound record.
//! How many records were damaged is read off the sequence numbers, when the next
//! good one comes: of its gap, one for each place where the damaged record's
//! length agrees with where the reader went on, and otherwise as many as the
//! bytes skipped could hold (numbers refused in between may then count as corrupt
//! too: they can't be told apart).

use super::super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::super::atomic::{AtomicU64, fence};
use super::super::checksum::{append, checksum};
use super::{
    AT_NEXT_SEQ, AT_READER_HEARTBEAT, AT_SLOTS, AT_STATE, AT_TAIL, Identity, PAD, RECORD_HEADER_SIZE,
    RingFault, SEQ_END, bind, check_positions, get, identify, pad_word, put, record_size, word_at,
};
use crate::limits::EXPOSURE_SIZE_MAX;

/// Words of a [`Position`].
pub const POSITION_WORDS: usize = 5;

/// How far a ring was read, with the counts up to there. What
/// [`Reader::confirm`] puts in force, all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    pub(super) head: u64,
    pub(super) consumed: u64,
    pub(super) corrupt: u64,
    /// The number that the next record has if none was lost.
    pub(super) expected: u64,
    /// Damaged records, at most, that wait for the next good number to be counted.
    pub(super) pending: u64,
}

impl Position {
    /// Records read, over the ring's life.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Numbers known to be lost to damage, over the ring's life.
    #[must_use]
    pub fn corrupt(&self) -> u64 {
        self.corrupt
    }

    /// The position in words, for whoever must remember it beyond this process.
    #[must_use]
    pub fn to_words(self) -> [u64; POSITION_WORDS] {
        [self.head, self.consumed, self.corrupt, self.expected, self.pending]
    }

    /// Takes back what [`Position::to_words`] gave.
    #[must_use]
    pub fn from_words(words: [u64; POSITION_WORDS]) -> Position {
        let [head, consumed, corrupt, expected, pending] = words;
        Position { head, consumed, corrupt, expected, pending }
    }

    fn check(&self, state: u64) -> u64 {
        let parts = [state, self.consumed, self.corrupt, self.expected, self.pending];
        let check = parts.iter().fold(0, |crc, part| append(crc, &part.to_le_bytes()));
        u64::from(check)
    }

    /// Writes the slot and then puts it in force.
    pub(super) fn store(&self, words: &[AtomicU64], slot: usize) {
        let state = self.head | slot as u64;
        let parts = [state, self.consumed, self.corrupt, self.expected, self.pending, self.check(state)];
        // Whoever reads a word of this slot's new state, and then the state
        // word, sees that the slot's old state is no longer in force.
        fence(Release);
        for (index, part) in parts.into_iter().enumerate() {
            put(words, AT_SLOTS[slot] + index, part, Relaxed);
        }
        put(words, AT_STATE, state, Release);
    }

    /// The state in force, if it checks.
    pub(super) fn load(words: &[AtomicU64]) -> Result<Position, RingFault> {
        let state = words[AT_STATE].load(Acquire);
        let slot = (state & 1) as usize;
        let in_force = get(words, AT_SLOTS[slot]) == state;
        Position::load_slot(words, slot).filter(|_| in_force).ok_or(RingFault::State { state })
    }

    /// What one slot says, in force or not, if it checks.
    pub(super) fn load_slot(words: &[AtomicU64], slot: usize) -> Option<Position> {
        let at = AT_SLOTS[slot];
        let state = get(words, at);
        let position = Position {
            head: state & !1,
            consumed: get(words, at + 1),
            corrupt: get(words, at + 2),
            expected: get(words, at + 3),
            pending: get(words, at + 4),
        };
        let sound = state & 1 == slot as u64 && get(words, at + 5) == position.check(state);
        (sound && position.head.is_multiple_of(8)).then_some(position)
    }
}

/// What stands at a position, as far as its first words say.
#[derive(Debug, Clone, Copy)]
pub(super) enum Frame {
    Record { size: u64, payload_size: u32, crc: u32, seq: u64 },
    Pad { size: u64 },
    Broken,
}

/// Reads a frame's first words. `position < tail`, both checked.
#[inline]
pub(super) fn frame(words: &[AtomicU64], capacity: u64, position: u64, tail: u64) -> Frame {
    let at = word_at(position, capacity);
    let to_end = capacity - (position & (capacity - 1));
    let room = to_end.min(tail - position);
    let first = get(words, at);
    let payload_size = first as u32;
    if payload_size == PAD {
        return match first == pad_word(position) && to_end == room {
            true => Frame::Pad { size: to_end },
            false => Frame::Broken,
        };
    }
    let size = record_size(u64::from(payload_size));
    if payload_size == 0 || payload_size as usize > EXPOSURE_SIZE_MAX || size > room {
        return Frame::Broken;
    }
    Frame::Record { size, payload_size, crc: (first >> 32) as u32, seq: get(words, at + 1) }
}

/// What one [`Reader::next`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A record's payload was appended.
    Record {
        /// Its number.
        seq: u64,
        /// Bytes appended.
        size: usize,
    },
    /// Everything committed was read.
    Empty,
    /// The next record is larger than the room given; it is still there.
    NoRoom,
    /// Damage was skipped; to be reported.
    Damaged {
        /// Where it began.
        position: u64,
        /// Bytes skipped.
        size: u64,
    },
}

/// The consumer's end; the words are anything that holds them (`&[AtomicU64]`,
/// or a mapped region).
#[derive(Debug)]
pub struct Reader<W> {
    words: W,
    capacity: u64,
    identity: Identity,
    /// In force.
    confirmed: Position,
    /// Of the slot in force.
    slot: usize,
    /// Read, not yet confirmed.
    position: Position,
    /// The tail as last seen and checked.
    tail: u64,
    heartbeat: u64,
    /// Size of the record that the last step gave, which may still be rejected.
    last: Option<usize>,
}

impl<'r> Reader<&'r [AtomicU64]> {
    /// Reads from a position to a tail that the header need not say; to be
    /// read, not confirmed.
    pub(super) fn over(words: &'r [AtomicU64], capacity: u64, position: Position, tail: u64) -> Self {
        let identity = Identity { instance: 0, ring: 0, slot: 0 };
        Reader {
            words,
            capacity,
            identity,
            confirmed: position,
            slot: 0,
            position,
            tail,
            heartbeat: 0,
            last: None,
        }
    }
}

impl<W: AsRef<[AtomicU64]>> Reader<W> {
    /// Takes up a ring where the last confirmation left it. What was read after
    /// that, by this process or a predecessor, is read again.
    ///
    /// # Errors
    /// If this is no ring of this layout, or its reader's state is damaged.
    pub fn attach(words: W) -> Result<Reader<W>, RingFault> {
        let shared = words.as_ref();
        let (identity, capacity) = identify(shared)?;
        let confirmed = Position::load(shared)?;
        let slot = (get(shared, AT_STATE) & 1) as usize;
        let heartbeat = get(shared, AT_READER_HEARTBEAT);
        Ok(Reader {
            words,
            capacity,
            identity,
            confirmed,
            slot,
            position: confirmed,
            tail: confirmed.head,
            heartbeat,
            last: None,
        })
    }

    /// Which ring this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The words it reads.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        self.words.as_ref()
    }

    /// How far it has read; to be confirmed once everything up to it is safe.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The position in force.
    #[must_use]
    pub fn confirmed(&self) -> Position {
        self.confirmed
    }

    /// Numbers lost to damage up to the confirmed position, with those that wait
    /// for the next good number to be told, where nothing is left to read.
    #[must_use]
    pub fn corrupt(&self) -> u64 {
        let confirmed = self.confirmed;
        if confirmed.pending == 0 || get(self.words(), AT_TAIL) != confirmed.head {
            return confirmed.corrupt;
        }
        let untold = get(self.words(), AT_NEXT_SEQ).saturating_sub(confirmed.expected);
        confirmed.corrupt.saturating_add(confirmed.pending.min(untold))
    }

    /// Bytes committed and not yet read.
    ///
    /// # Errors
    /// If the tail contradicts the head.
    pub fn waiting_size(&mut self) -> Result<u64, RingFault> {
        self.look()?;
        Ok(self.tail - self.position.head)
    }

    /// Looks for a new tail.
    fn look(&mut self) -> Result<(), RingFault> {
        let tail = self.words()[AT_TAIL].load(Acquire);
        check_positions(self.confirmed.head, tail, self.capacity)?;
        check_positions(self.position.head, tail, self.capacity)?;
        self.tail = tail;
        Ok(())
    }

    /// Reads one record: appends its payload to `out` if it has at most
    /// `room` bytes. `out` is not left changed by anything but a record.
    ///
    /// # Errors
    /// If the writer's tail contradicts the head: nothing can be read, now.
    pub fn next(&mut self, out: &mut Vec<u8>, room: usize) -> Result<Step, RingFault> {
        self.last = None;
        loop {
            if self.position.head == self.tail {
                self.look()?;
                if self.position.head == self.tail {
                    return Ok(Step::Empty);
                }
            }
            match frame(self.words(), self.capacity, self.position.head, self.tail) {
                // At most two in a row: the tail is within one lap.
                Frame::Pad { size } => self.position.head += size,
                Frame::Broken => return Ok(self.skip_damage()),
                Frame::Record { payload_size, .. } if payload_size as usize > room => {
                    // A length that is no record's must not stop the reading.
                    return Ok(match self.is_sound(self.position.head) {
                        true => Step::NoRoom,
                        false => self.skip_damage(),
                    });
                }
                Frame::Record { size, payload_size, crc, seq } => {
                    let begin = out.len();
                    self.copy(self.position.head, payload_size as usize, out);
                    // The copy is checked, not the shared words: they may change.
                    let found = bind(checksum(&out[begin..]), self.position.head, payload_size, seq);
                    if found != crc || !(self.position.expected..SEQ_END).contains(&seq) {
                        out.truncate(begin);
                        return Ok(self.skip_damage());
                    }
                    self.count(seq);
                    self.position.head += size;
                    let size = out.len() - begin;
                    self.last = Some(size);
                    return Ok(Step::Record { seq, size });
                }
            }
        }
    }

    /// The record that [`Reader::next`] has just given is not what it should be:
    /// it is counted as corrupt, and taken off `out` again.
    ///
    /// # Panics
    /// If the last call gave no record.
    pub fn reject(&mut self, out: &mut Vec<u8>) {
        let size = self.last.take().expect("a record was read just now");
        out.truncate(out.len() - size);
        self.position.consumed = self.position.consumed.wrapping_sub(1);
        self.position.corrupt = self.position.corrupt.wrapping_add(1);
    }

    /// Everything up to `position` is safe: the head, the counts and the next
    /// expected number move there as one. Confirming an older one changes nothing.
    pub fn confirm(&mut self, position: Position) {
        if position.head <= self.confirmed.head {
            return;
        }
        let slot = 1 - self.slot;
        position.store(self.words.as_ref(), slot);
        (self.slot, self.confirmed) = (slot, position);
    }

    /// Takes up the ring at `position`, where a predecessor had made everything
    /// safe and was killed before it could confirm that. One that is not ahead
    /// changes nothing.
    ///
    /// # Errors
    /// If it is no position of what lies in this ring.
    pub fn resume(&mut self, position: Position) -> Result<(), RingFault> {
        if position.head <= self.confirmed.head {
            return Ok(());
        }
        let tail = self.words()[AT_TAIL].load(Acquire);
        check_positions(position.head, tail, self.capacity)?;
        self.confirm(position);
        (self.position, self.tail, self.last) = (position, tail, None);
        Ok(())
    }

    /// Shows that the logger lives. True if the state in force had been damaged
    /// and was put back: a worker that attaches needs it.
    pub fn beat(&mut self) -> bool {
        self.heartbeat = self.heartbeat.wrapping_add(1);
        let words = self.words.as_ref();
        put(words, AT_READER_HEARTBEAT, self.heartbeat, Relaxed);
        let is_damaged = Position::load(words) != Ok(self.confirmed);
        if is_damaged {
            self.confirmed.store(words, self.slot);
        }
        is_damaged
    }

    fn count(&mut self, seq: u64) {
        let gap = seq - self.position.expected;
        let damaged = self.position.pending.min(gap);
        self.position.corrupt = self.position.corrupt.wrapping_add(damaged);
        self.position.pending = 0;
        self.position.consumed = self.position.consumed.wrapping_add(1);
        self.position.expected = seq + 1;
    }

    fn copy(&self, position: u64, payload_size: usize, out: &mut Vec<u8>) {
        let at = word_at(position + RECORD_HEADER_SIZE, self.capacity);
        let begin = out.len();
        out.resize(begin + payload_size, 0);
        let words = &self.words()[at..];
        let (whole, rest) = out[begin..].as_chunks_mut::<8>();
        for (bytes, word) in whole.iter_mut().zip(words) {
            *bytes = word.load(Relaxed).to_le_bytes();
        }
        if !rest.is_empty() {
            let bytes = words[whole.len()].load(Relaxed).to_le_bytes();
            rest.copy_from_slice(&bytes[..rest.len()]);
        }
    }

    /// Goes on at the next word where something verifies, or at the tail.
    fn skip_damage(&mut self) -> Step {
        let position = self.position.head;
        let declared = match frame(self.words(), self.capacity, position, self.tail) {
            Frame::Record { size, .. } => Some(position + size),
            Frame::Pad { .. } | Frame::Broken => None,
        };
        // Each word may claim to begin a long record; checking them all could
        // take for ever. What honest damage needs is far less.
        let mut budget = self.capacity.saturating_mul(2);
        let mut at = position + 8;
        while at < self.tail && !self.verifies(at, &mut budget) {
            at = match declared {
                _ if budget > 0 => at + 8,
                Some(declared) if declared > at && self.is_sound(declared) => declared,
                _ => self.tail,
            };
        }
        self.position.head = at;
        let record_count_max = match declared == Some(at) {
            true => 1,
            false => (at - position) / record_size(1),
        };
        self.position.pending = self.position.pending.saturating_add(record_count_max);
        Step::Damaged { position, size: at - position }
    }

    fn is_sound(&self, position: u64) -> bool {
        let mut budget = self.capacity;
        self.verifies(position, &mut budget)
    }

    /// Whether a whole record, not out of order, or a pad stands at `position`.
    /// The bytes checked for that are taken off the budget.
    fn verifies(&self, position: u64, budget: &mut u64) -> bool {
        match frame(self.words(), self.capacity, position, self.tail) {
            Frame::Broken => false,
            Frame::Pad { .. } => true,
            Frame::Record { seq, .. } if !(self.position.expected..SEQ_END).contains(&seq) => false,
            Frame::Record { size, payload_size, crc, seq } => {
                *budget = budget.saturating_sub(size);
                bind(self.payload_crc(position, payload_size), position, payload_size, seq) == crc
            }
        }
    }

    /// The checksum of a payload where it lies.
    fn payload_crc(&self, position: u64, payload_size: u32) -> u32 {
        let at = word_at(position + RECORD_HEADER_SIZE, self.capacity);
        let size = payload_size as usize;
        let mut left = size;
        let mut crc = 0;
        let mut bytes = [0; 512];
        for words in self.words()[at..at + size.div_ceil(8)].chunks(bytes.len() / 8) {
            for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
                *bytes = word.load(Relaxed).to_le_bytes();
            }
            let size = left.min(words.len() * 8);
            crc = append(crc, &bytes[..size]);
            left -= size;
        }
        crc
    }
}
