//! One exposure ring: a single producer (a worker) and a single consumer (the
//! logger) over words that both map, in a file that outlives either.
//!
//! ```text
//! word   0  identity  magic | layout | capacity | instance | ring, slot << 16     whoever formats it, once
//! word  16  writer    tail | next_seq | refused: full, oversize | epoch | heartbeat         the worker alone
//! word  32  reader    state = head | slot | heartbeat                                       the logger alone
//! word  40            slot 0: state | consumed | corrupt | expected | pending | check
//! word  48            slot 1: the same
//! word 512  records   `capacity` bytes, a power of two
//!
//! record    len u32 | crc32c u32 | seq u64 | payload, padded with zeros to 8 bytes
//! pad       0xFFFF_FFFF u32 | crc32c u32, then whatever, up to the end of the area
//! ```
//! Positions (`head`, `tail`) count bytes since the ring was made; a position's
//! place in the area is its remainder. The checksum covers the payload, the
//! position, the length and the sequence number, so bytes of an earlier lap, or
//! a payload that quotes a record, never pass for one.
//!
//! Invariants
//! - `head <= tail <= head + capacity`; both only grow, by multiples of 8.
//! - Words before `tail` are complete: a worker that dies in the middle of a
//!   push leaves one used number, and nothing to repair.
//! - The reader's head, counts and next expected number move as one: they are
//!   written to the slot that is not in force, and one release store of `state`
//!   (the head, whose low bit names the slot) puts them in force.
//! - A full ring refuses. It never waits and never overwrites; the gap in the
//!   sequence numbers is the record of the loss.
//! - What the other side wrote is input: checked before it is used, and no
//!   content makes either side panic, read outside or run for ever.
//!
//! A header says its layout twice, in the magic's last byte and in the word behind
//! it. Where both name one that is not ours, the ring is another program's (an
//! upgrade or a way back lies between) and whole: nobody here writes a word of it,
//! and it waits for whoever knows it. A header that contradicts itself is damaged,
//! and mended. So a later layout takes a number of its own in both places, and its
//! program reads this one too, as long as there are rings of it.
//!
//! The law of a ring: `attempted = committed + lost`, and
//! `lost = refused (full, oversize) + torn`; see [`Account`].
//!
//! Push, in five steps: (1) `next_seq` moves, so that the attempt is counted
//! ([`Writer::claim`]); (2) no room: return; (3) write; (4) one release store of
//! `tail` commits ([`Writer::commit`]); (5) only then may the answer leave.

mod account;
mod mend;
mod reader;
#[cfg(test)]
mod tests;

use std::fmt;

use super::atomic::Ordering::{self, Acquire, Relaxed, Release};
use super::atomic::{AtomicU64, fence, stored};
use super::checksum::{append, checksum};
use crate::limits::EXPOSURE_SIZE_MAX;

pub use account::Account;
pub use mend::{Side, mend, was_used};
pub use reader::{POSITION_WORDS, Position, Reader, Step};

/// The layout drawn above.
const LAYOUT: u64 = 1;
/// The first word of a ring: "splitdR" and the layout.
const MAGIC: u64 = magic_of(LAYOUT);

const fn magic_of(layout: u64) -> u64 {
    u64::from_le_bytes(*b"splitdR\0") | layout << 56
}

const AT_MAGIC: usize = 0;
const AT_LAYOUT: usize = 1;
const AT_CAPACITY: usize = 2;
const AT_INSTANCE: usize = 3;
const AT_PLACE: usize = 4;
// Two lines apart: the CPU fetches lines in pairs.
const AT_TAIL: usize = 16;
const AT_NEXT_SEQ: usize = 17;
const AT_REFUSED_FULL: usize = 18;
const AT_REFUSED_OVERSIZE: usize = 19;
const AT_EPOCH: usize = 20;
const AT_WRITER_HEARTBEAT: usize = 21;
const AT_STATE: usize = 32;
const AT_READER_HEARTBEAT: usize = 33;
const AT_SLOTS: [usize; 2] = [40, 48];
/// One page, so that the area begins on one.
const HEADER_WORDS: usize = 512;

/// In the place of a length: the rest of the area is empty.
const PAD: u32 = u32::MAX;
const RECORD_HEADER_SIZE: u64 = 16;
/// An exposure's id has 48 bits for the number.
const SEQ_END: u64 = 1 << 48;
/// The smallest area that makes sense; real rings obey `limits::RING_SIZE_MIN`.
const CAPACITY_MIN: u64 = 64;
/// And the largest: 64 GiB.
const CAPACITY_MAX: u64 = 1 << 36;
/// No position gets there: a century at 2 GB/s.
const POSITION_END: u64 = 1 << 63;

/// Which ring it is; written once, by whoever makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Random, made when the instance first started.
    pub instance: u64,
    /// The ring's number in the instance: `slot * 2 + which`.
    pub ring: u16,
    /// The worker slot that owns it.
    pub slot: u16,
}

impl Identity {
    /// Ring and slot as one word of the header.
    fn place(self) -> u64 {
        u64::from(self.ring) | (u64::from(self.slot) << 16)
    }
}

/// An exposure's id: unique for ever, made without a clock or randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExposureId {
    /// The ring's instance.
    pub instance: u64,
    /// The ring's number in the instance.
    pub ring: u16,
    /// The attempt's number in the ring, below 2^48.
    pub seq: u64,
}

impl ExposureId {
    /// The 16 bytes of the record, big-endian: instance, then `ring << 48 | seq`.
    #[must_use]
    #[inline]
    pub fn to_bytes(self) -> [u8; 16] {
        let number = (u64::from(self.ring) << 48) | (self.seq % SEQ_END);
        ((u128::from(self.instance) << 64) | u128::from(number)).to_be_bytes()
    }
}

impl fmt::Display for ExposureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.to_bytes()))
    }
}

/// Why a ring, or what its other side wrote in it, is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingFault {
    /// Not even a header.
    #[error("a ring of {words} words is too short; its header alone has {HEADER_WORDS}")]
    Short {
        /// Words mapped.
        words: usize,
    },
    /// Zero where the magic should be: it is still being made.
    #[error("the ring is not formatted yet")]
    Blank,
    /// A ring, of another program's layout.
    #[error("a ring of layout {layout}; this program knows {LAYOUT}")]
    Layout {
        /// What the header says, twice.
        layout: u64,
    },
    /// Something else.
    #[error("not a ring of layout {LAYOUT}: magic {magic:#x}, layout {layout}")]
    Foreign {
        /// The first word found.
        magic: u64,
        /// The second word found.
        layout: u64,
    },
    /// The area is not a power of two within bounds, or not what is mapped.
    #[error(
        "capacity {capacity} is no power of two from {CAPACITY_MIN}, or not what {words} mapped words hold"
    )]
    Capacity {
        /// Bytes of records promised.
        capacity: u64,
        /// Words mapped.
        words: usize,
    },
    /// The positions contradict each other.
    #[error("tail {tail} does not lie within {capacity} bytes from head {head}, or off a word's edge")]
    Tail {
        /// The reader's position.
        head: u64,
        /// The writer's position.
        tail: u64,
        /// Bytes of records.
        capacity: u64,
    },
    /// The reader's state does not check.
    #[error("the reader's state {state:#x} and its slot do not agree")]
    State {
        /// The state word found.
        state: u64,
    },
    /// The next number is damaged: one that leaves half of the 48 bits unused is
    /// right, and that half lasts for 44 years.
    #[error("the next number {next_seq} is beyond {}", SEQ_END / 2)]
    Numbers {
        /// The writer's next number.
        next_seq: u64,
    },
}

/// Why a record was not taken. The attempt's number is used either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The logger is behind: no room until the head moves.
    #[error("the ring is full")]
    Full,
    /// Larger than any ring takes, or than half of this one.
    #[error("the exposure is larger than a ring takes")]
    Oversize,
}

/// Bytes of a region whose record area has `ring_size` bytes.
///
/// # Panics
/// If `ring_size` is no power of two from 64 bytes to 64 GiB.
#[must_use]
pub fn region_size(ring_size: usize) -> usize {
    assert!(capacity_is_sound(ring_size as u64), "a ring's size is a power of two");
    HEADER_WORDS * 8 + ring_size
}

fn capacity_is_sound(capacity: u64) -> bool {
    capacity.is_power_of_two() && (CAPACITY_MIN..=CAPACITY_MAX).contains(&capacity)
}

/// Makes an empty ring of a region of [`region_size`]: whatever was there is gone.
/// The magic is written last, so that nobody attaches to half a header.
///
/// # Panics
/// If the region's size is not one that [`region_size`] gives.
pub fn format(words: &[AtomicU64], identity: Identity) {
    let capacity = (words.len() as u64).saturating_sub(HEADER_WORDS as u64).saturating_mul(8);
    assert!(capacity_is_sound(capacity), "a region made for a ring");
    for index in 0..HEADER_WORDS {
        put(words, index, 0, Relaxed);
    }
    put(words, AT_LAYOUT, LAYOUT, Relaxed);
    put(words, AT_CAPACITY, capacity, Relaxed);
    put(words, AT_INSTANCE, identity.instance, Relaxed);
    put(words, AT_PLACE, identity.place(), Relaxed);
    Position::default().store(words, 0);
    put(words, AT_MAGIC, MAGIC, Release);
}

/// Reads and checks the identity; gives the capacity beside it.
///
/// # Errors
/// If this is no ring of this layout, or a damaged one.
fn identify(words: &[AtomicU64]) -> Result<(Identity, u64), RingFault> {
    if words.len() < HEADER_WORDS {
        return Err(RingFault::Short { words: words.len() });
    }
    let (magic, layout) = (words[AT_MAGIC].load(Acquire), get(words, AT_LAYOUT));
    match (magic, layout) {
        (0, _) => return Err(RingFault::Blank),
        (MAGIC, LAYOUT) => {}
        (magic, 1..=0xff) if magic == magic_of(layout) => return Err(RingFault::Layout { layout }),
        _ => return Err(RingFault::Foreign { magic, layout }),
    }
    let capacity = get(words, AT_CAPACITY);
    let mapped = (words.len() - HEADER_WORDS) as u64 * 8;
    if !capacity_is_sound(capacity) || capacity != mapped {
        return Err(RingFault::Capacity { capacity, words: words.len() });
    }
    let place = get(words, AT_PLACE);
    let identity =
        Identity { instance: get(words, AT_INSTANCE), ring: place as u16, slot: (place >> 16) as u16 };
    Ok((identity, capacity))
}

/// Which ring this is, without attaching to it.
///
/// # Errors
/// If this is no ring of this layout, or a damaged one.
pub fn identity(words: &[AtomicU64]) -> Result<Identity, RingFault> {
    identify(words).map(|(identity, _)| identity)
}

fn check_positions(head: u64, tail: u64, capacity: u64) -> Result<(), RingFault> {
    let sound =
        tail.checked_sub(head).is_some_and(|size| size <= capacity) && (head | tail).is_multiple_of(8);
    (sound && tail < POSITION_END).then_some(()).ok_or(RingFault::Tail { head, tail, capacity })
}

/// Every load of a header word that needs no order.
#[inline]
fn get(words: &[AtomicU64], index: usize) -> u64 {
    words[index].load(Relaxed)
}

/// Every store of either side goes through here, so that a test can kill the
/// process that makes them after any one of them.
#[inline]
fn put(words: &[AtomicU64], index: usize, value: u64, ordering: Ordering) {
    words[index].store(value, ordering);
    stored(index, value);
}

/// The first word of the record area that holds a position.
#[inline]
fn word_at(position: u64, capacity: u64) -> usize {
    HEADER_WORDS + (position & (capacity - 1)) as usize / 8
}

/// Bytes a record takes in the area.
#[inline]
fn record_size(payload_size: u64) -> u64 {
    RECORD_HEADER_SIZE + payload_size.next_multiple_of(8)
}

/// Binds a checksum of a payload to where and what the record is.
#[inline]
fn bind(payload_crc: u32, position: u64, size: u32, seq: u64) -> u32 {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&position.to_le_bytes());
    bytes[8..12].copy_from_slice(&size.to_le_bytes());
    bytes[12..].copy_from_slice(&seq.to_le_bytes());
    append(payload_crc, &bytes)
}

/// A pad's first and only word.
fn pad_word(position: u64) -> u64 {
    u64::from(PAD) | (u64::from(bind(0, position, PAD, 0)) << 32)
}

/// The producer's end. One at a time, which the ring's file lock guards.
#[derive(Debug)]
pub struct Writer<'r> {
    words: &'r [AtomicU64],
    capacity: u64,
    identity: Identity,
    tail: u64,
    next_seq: u64,
    /// The number of the attempt under way.
    claimed: Option<u64>,
    /// The reader's head as last seen: only a full ring makes us look again, so
    /// the reader's line is fetched about once a lap.
    head_seen: u64,
    refused_full: u64,
    refused_oversize: u64,
    heartbeat: u64,
    /// What the last record took.
    last_words: usize,
    hint: fn(&[AtomicU64]),
}

impl<'r> Writer<'r> {
    /// Whether a ring could be attached to, and which it says it is.
    ///
    /// # Errors
    /// If this is no ring of this layout, or a damaged one.
    pub fn check(words: &'r [AtomicU64]) -> Result<Identity, RingFault> {
        let (identity, capacity) = identify(words)?;
        let head = words[AT_STATE].load(Acquire) & !1;
        check_positions(head, get(words, AT_TAIL), capacity)?;
        match get(words, AT_NEXT_SEQ) {
            next_seq if next_seq > SEQ_END / 2 => Err(RingFault::Numbers { next_seq }),
            _ => Ok(identity),
        }
    }

    /// Takes up a ring, fresh or a predecessor's: goes on where that one stopped,
    /// with the next number. What the predecessor was killed in the middle of is
    /// a used number and bytes that will be written over.
    ///
    /// # Errors
    /// If this is no ring of this layout, or a damaged one.
    pub fn attach(words: &'r [AtomicU64]) -> Result<Writer<'r>, RingFault> {
        let identity = Writer::check(words)?;
        let (_, capacity) = identify(words)?;
        let (tail, next_seq) = (get(words, AT_TAIL), get(words, AT_NEXT_SEQ));
        let head = words[AT_STATE].load(Acquire) & !1;
        put(words, AT_EPOCH, get(words, AT_EPOCH).wrapping_add(1), Relaxed);
        Ok(Writer {
            words,
            capacity,
            identity,
            tail,
            next_seq,
            claimed: None,
            head_seen: head,
            refused_full: get(words, AT_REFUSED_FULL),
            refused_oversize: get(words, AT_REFUSED_OVERSIZE),
            heartbeat: get(words, AT_WRITER_HEARTBEAT),
            last_words: 0,
            hint: |_| (),
        })
    }

    /// The same, which [`Writer::foresee`]s by `hint`: what tells the caches that words
    /// will be written soon.
    #[must_use]
    pub fn hinting(self, hint: fn(&[AtomicU64])) -> Writer<'r> {
        Writer { hint, ..self }
    }

    /// Which ring this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Says that a record will come soon: the memory that one of the last one's size
    /// would take is fetched meanwhile. A lap ago it was written last, so it is far
    /// away by now.
    #[inline]
    pub fn foresee(&self) {
        let at = word_at(self.tail, self.capacity);
        let end = self.words.len().min(at + self.last_words);
        (self.hint)(&self.words[at..end]);
    }

    /// Step 1: takes the next number, which counts the attempt.
    ///
    /// # Panics
    /// After 2^48 attempts: 89 years of 100,000 a second.
    #[inline]
    pub fn claim(&mut self) -> ExposureId {
        let seq = self.next_seq;
        assert!(seq < SEQ_END, "a ring's numbers last for longer than a machine");
        self.next_seq = seq + 1;
        self.claimed = Some(seq);
        put(self.words, AT_NEXT_SEQ, self.next_seq, Relaxed);
        // The number is used before anything else of the push can be seen.
        fence(Release);
        ExposureId { instance: self.identity.instance, ring: self.identity.ring, seq }
    }

    /// Steps 2 to 4: room, write, one release store. The payload is the
    /// length-delimited exposure that carries the claimed id. After `Ok` it will
    /// be delivered, whatever happens to this process, and the answer may leave.
    ///
    /// # Errors
    /// The reason why it was not taken; the loss is on record.
    ///
    /// # Panics
    /// Without a claim, or if `payload` is empty: both are our own mistakes.
    #[inline]
    pub fn commit(&mut self, payload: &[u8]) -> Result<(), Refused> {
        let seq = self.claimed.take().expect("every commit follows a claim");
        assert!(!payload.is_empty(), "an exposure has an id at least");
        let size = record_size(payload.len() as u64);
        if payload.len() > EXPOSURE_SIZE_MAX || size > self.capacity / 2 {
            self.refused_oversize = self.refused_oversize.wrapping_add(1);
            put(self.words, AT_REFUSED_OVERSIZE, self.refused_oversize, Relaxed);
            return Err(Refused::Oversize);
        }
        let to_end = self.capacity - (self.tail & (self.capacity - 1));
        let pad = if size > to_end { to_end } else { 0 };
        if !self.has_room(pad + size) {
            self.refused_full = self.refused_full.wrapping_add(1);
            put(self.words, AT_REFUSED_FULL, self.refused_full, Relaxed);
            return Err(Refused::Full);
        }
        if pad > 0 {
            let at = word_at(self.tail, self.capacity);
            put(self.words, at, pad_word(self.tail), Relaxed);
        }
        let position = self.tail + pad;
        self.write(position, seq, payload);
        self.tail = position + size;
        self.last_words = (size / 8) as usize;
        put(self.words, AT_TAIL, self.tail, Release);
        Ok(())
    }

    #[inline]
    fn has_room(&mut self, size: u64) -> bool {
        let has_room = |head: u64| self.tail - head + size <= self.capacity;
        if has_room(self.head_seen) {
            return true;
        }
        // Acquire: the reader is done with what lies before this head.
        let head = self.words[AT_STATE].load(Acquire) & !1;
        // A head that goes back, or beyond what was written, is damage: never
        // write over what may still be unread.
        let sound = (self.head_seen..=self.tail).contains(&head) && head.is_multiple_of(8);
        if !sound || !has_room(head) {
            return false;
        }
        self.head_seen = head;
        true
    }

    #[inline]
    fn write(&mut self, position: u64, seq: u64, payload: &[u8]) {
        let at = word_at(position, self.capacity);
        let size = payload.len() as u32;
        let crc = bind(checksum(payload), position, size, seq);
        let words = self.words;
        put(words, at, u64::from(size) | (u64::from(crc) << 32), Relaxed);
        put(words, at + 1, seq, Relaxed);
        let (whole, rest) = payload.as_chunks::<8>();
        let at = at + 2;
        // Like `put`, with one check of the bounds for all of them.
        for (index, (word, bytes)) in words[at..at + whole.len()].iter().zip(whole).enumerate() {
            let value = u64::from_le_bytes(*bytes);
            word.store(value, Relaxed);
            stored(at + index, value);
        }
        if !rest.is_empty() {
            let mut bytes = [0; 8];
            bytes[..rest.len()].copy_from_slice(rest);
            put(words, at + whole.len(), u64::from_le_bytes(bytes), Relaxed);
        }
    }

    /// Shows that the worker lives.
    #[inline]
    pub fn beat(&mut self) {
        self.heartbeat = self.heartbeat.wrapping_add(1);
        put(self.words, AT_WRITER_HEARTBEAT, self.heartbeat, Relaxed);
    }
}
