//! What a segment file holds.
//!
//! ```text
//! header   magic u64 | first u64 | created_us i64 | crc32c u32 | 0 u32
//! record   size u32 | crc32c u32 | number u64 | time_us i64 | count u32 | kind u32 | payload, zeros to 8 bytes
//! ```
//! All little-endian. `number` is how many exposures the spool had ever taken
//! before this record, so that a record's place, a segment's name, the cursor
//! and the books are one number line. A *chunk*'s payload is `count` exposures
//! as a ring gave them; a *mark*'s says how far each ring was read for the
//! chunks before it, and so makes them whole: what no mark follows was not
//! finished, and is not there.

use super::super::batch::Mark;
use crate::exposure::checksum;
use crate::exposure::ring::{POSITION_WORDS, Position};
use crate::limits::BATCH_SIZE;

const MAGIC: u64 = u64::from_le_bytes(*b"splitdS\x01");
/// Bytes of a segment's header.
pub const SEGMENT_HEADER_SIZE: usize = 32;
/// Bytes of a record's header.
pub const RECORD_HEADER_SIZE: usize = 32;
/// A mark: instance, ring, position.
const MARK_SIZE: usize = 8 * (2 + POSITION_WORDS);
/// Behind a segment's first number in its file's name.
pub const SEGMENT_SUFFIX: &str = ".spool";

/// The kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Exposures.
    Chunk = 1,
    /// How far rings were read.
    Mark = 2,
}

/// A record as it lies in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'b> {
    /// Of its first exposure.
    pub number: u64,
    /// When it was written, in Unix microseconds.
    pub time_us: i64,
    /// Exposures in it.
    pub count: u32,
    /// What the payload is.
    pub kind: Kind,
    /// The payload.
    pub payload: &'b [u8],
    /// Bytes it takes in the segment.
    pub size: usize,
}

/// A segment's file name.
#[must_use]
pub fn segment_name(first: u64) -> String {
    format!("{first:020}{SEGMENT_SUFFIX}")
}

/// The first number of the segment of that name, if it is one's name.
#[must_use]
pub fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Appends a segment's header.
pub fn put_header(out: &mut Vec<u8>, first: u64, created_us: i64) {
    let begin = out.len();
    out.extend(MAGIC.to_le_bytes());
    out.extend(first.to_le_bytes());
    out.extend(created_us.to_le_bytes());
    let crc = checksum::checksum(&out[begin..]);
    out.extend(u64::from(crc).to_le_bytes());
}

/// First number and time of a segment's header, if it is whole.
#[must_use]
pub fn parse_header(bytes: &[u8]) -> Option<(u64, i64)> {
    let bytes = bytes.get(..SEGMENT_HEADER_SIZE)?;
    let word = |index: usize| u64::from_le_bytes(bytes.as_chunks().0[index]);
    let sound = word(0) == MAGIC && word(3) == u64::from(checksum::checksum(&bytes[..24]));
    sound.then(|| (word(1), word(2) as i64))
}

/// Appends a record.
pub fn put_record(out: &mut Vec<u8>, number: u64, time_us: i64, count: u32, kind: Kind, payload: &[u8]) {
    let begin = out.len();
    out.extend((payload.len() as u32).to_le_bytes());
    out.extend([0; 4]);
    out.extend(number.to_le_bytes());
    out.extend(time_us.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend((kind as u32).to_le_bytes());
    out.extend_from_slice(payload);
    let crc = record_checksum(&out[begin..], payload.len());
    out[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
    let size = out.len() - begin;
    out.resize(begin + size.next_multiple_of(8), 0);
}

/// Of everything in a record but itself.
fn record_checksum(record: &[u8], payload_size: usize) -> u32 {
    let crc = checksum::checksum(&record[..4]);
    checksum::append(crc, &record[8..RECORD_HEADER_SIZE + payload_size])
}

/// Reads the record at the begin of `bytes`; `None` if there is no whole and
/// sound one.
#[must_use]
pub fn parse_record(bytes: &[u8]) -> Option<Record<'_>> {
    let header = bytes.get(..RECORD_HEADER_SIZE)?;
    let half = |index: usize| u32::from_le_bytes(header.as_chunks().0[index]);
    let word = |index: usize| u64::from_le_bytes(header.as_chunks().0[index]);
    let payload_size = half(0) as usize;
    let (number, count) = (word(1), half(6));
    let kind = match half(7) {
        1 if count > 0 => Kind::Chunk,
        2 if count == 0 => Kind::Mark,
        _ => return None,
    };
    let payload_size_max = if kind == Kind::Chunk { BATCH_SIZE } else { usize::from(u16::MAX) * MARK_SIZE };
    if payload_size > payload_size_max || number.checked_add(count.into()).is_none() {
        return None;
    }
    let payload = bytes.get(RECORD_HEADER_SIZE..RECORD_HEADER_SIZE + payload_size)?;
    if record_checksum(bytes, payload_size) != half(1) {
        return None;
    }
    let size = (RECORD_HEADER_SIZE + payload_size).next_multiple_of(8);
    Some(Record { number, time_us: word(2) as i64, count, kind, payload, size })
}

/// The first sound record at or behind `at`, a multiple of 8, and where it is.
/// The bytes checked on the way are bounded: each word may claim to begin a long
/// record, and checking them all could take for ever.
#[must_use]
pub fn find_record(
    bytes: &[u8],
    mut at: usize,
    numbers: std::ops::Range<u64>,
) -> Option<(usize, Record<'_>)> {
    let mut budget = bytes.len() * 4 + (1 << 20);
    while at + RECORD_HEADER_SIZE <= bytes.len() {
        let claimed = u32::from_le_bytes(bytes[at..].as_chunks().0[0]) as usize;
        let number = u64::from_le_bytes(bytes[at..].as_chunks().0[1]);
        // A mark's number may be the end of the range.
        let fits = claimed <= bytes.len() - at - RECORD_HEADER_SIZE;
        if fits && (numbers.start..=numbers.end).contains(&number) {
            budget = budget.checked_sub(claimed)?;
            if let Some(record) = parse_record(&bytes[at..]) {
                return Some((at, record));
            }
        }
        at += 8;
    }
    None
}

/// Appends a mark's payload.
pub fn put_marks(out: &mut Vec<u8>, marks: &[Mark]) {
    for mark in marks {
        out.extend(mark.instance.to_le_bytes());
        out.extend(u64::from(mark.ring).to_le_bytes());
        for word in mark.position.to_words() {
            out.extend(word.to_le_bytes());
        }
    }
}

/// Reads a mark's payload.
pub fn parse_marks(payload: &[u8]) -> impl Iterator<Item = Mark> + '_ {
    let word = |bytes: &[u8], index: usize| u64::from_le_bytes(bytes.as_chunks().0[index]);
    payload.chunks_exact(MARK_SIZE).map(move |bytes| Mark {
        instance: word(bytes, 0),
        ring: word(bytes, 1) as u16,
        position: Position::from_words(std::array::from_fn(|index| word(bytes, 2 + index))),
    })
}
