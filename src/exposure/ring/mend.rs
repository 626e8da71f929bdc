//! Mending a header that does not hold, from what else is known: the file's name
//! and size, the slot of the reader's state that is not in force, the records
//! themselves. Each side mends its own words, under its own lock; what nobody
//! can tell any more is left as it is, and the ring is refused.

use super::super::atomic::AtomicU64;
use super::super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::reader::{Position, Reader, Step};
use super::{
    AT_CAPACITY, AT_INSTANCE, AT_LAYOUT, AT_MAGIC, AT_NEXT_SEQ, AT_PLACE, AT_REFUSED_FULL,
    AT_REFUSED_OVERSIZE, AT_STATE, AT_TAIL, HEADER_WORDS, Identity, LAYOUT, MAGIC, POSITION_END, RingFault,
    SEQ_END, capacity_is_sound, check_positions, get, identify, put,
};
use crate::limits::EXPOSURE_SIZE_MAX;

/// Whose words the caller alone may write now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The writer's: it holds the ring's lock, and a logger may be reading.
    Writer,
    /// The reader's: it reads the instance, and a worker may be writing.
    Reader,
    /// Both: the reader, with the ring's lock.
    Both,
}

/// Makes the header of a ring hold again, as far as `side` may. `identity` is what
/// the file's place says; the size of its area is what is mapped. Changes
/// nothing that holds.
///
/// - A state that does not check: the one before it is in force again, so what was
///   confirmed last is read again, with the same ids. Where that is damaged too,
///   reading begins a lap before the tail, and what was there before it counts as
///   consumed.
/// - A tail off bounds: behind the last record that verifies.
/// - A next number off bounds: the first that no record and no confirmation has
///   had. Numbers that were refused may be used again: no id has them.
///
/// # Errors
/// The first fault that is left: always that of a ring of another layout, which is
/// not damaged and not ours.
pub fn mend(words: &[AtomicU64], identity: Identity, side: Side) -> Result<(), RingFault> {
    let mapped = words.len().saturating_sub(HEADER_WORDS) as u64 * 8;
    if words.len() < HEADER_WORDS || !capacity_is_sound(mapped) {
        return identify(words).map(drop);
    }
    match identify(words) {
        Ok(found) if found == (identity, mapped) => {}
        Err(fault @ RingFault::Layout { .. }) => return Err(fault),
        _ => mend_identity(words, identity, mapped),
    }
    if side != Side::Writer && Position::load(words).is_err() {
        mend_state(words, mapped)?;
    }
    let position = Position::load(words)?;
    if side != Side::Reader {
        mend_writer(words, mapped, position);
    }
    Ok(())
}

/// Whether anybody has pushed to it or read from it, whatever the rest says.
#[must_use]
pub fn was_used(words: &[AtomicU64]) -> bool {
    words.len() >= HEADER_WORDS && [AT_NEXT_SEQ, AT_TAIL, AT_STATE].iter().any(|at| get(words, *at) != 0)
}

fn mend_identity(words: &[AtomicU64], identity: Identity, capacity: u64) {
    put(words, AT_LAYOUT, LAYOUT, Relaxed);
    put(words, AT_CAPACITY, capacity, Relaxed);
    put(words, AT_INSTANCE, identity.instance, Relaxed);
    put(words, AT_PLACE, identity.place(), Relaxed);
    put(words, AT_MAGIC, MAGIC, Release);
}

fn mend_state(words: &[AtomicU64], capacity: u64) -> Result<(), RingFault> {
    let state = get(words, AT_STATE);
    let tail = words[AT_TAIL].load(Acquire);
    let slots = [0, 1].map(|slot| Position::load_slot(words, slot));
    // One that contradicts the tail is better than none: the tail may be what is damaged.
    let fits = |position: &Position| check_positions(position.head, tail, capacity).is_ok();
    let best = slots.into_iter().flatten().max_by_key(|position| (fits(position), position.head));
    let position = match best {
        Some(position) => position,
        None if tail < POSITION_END && tail.is_multiple_of(8) => lap_before(words, capacity, tail),
        None => return Err(RingFault::State { state }),
    };
    position.store(words, usize::from(state & 1 == 0));
    Ok(())
}

/// Where reading begins when nothing but the tail is known. Which numbers before
/// it were torn nobody knows: none, it is taken.
fn lap_before(words: &[AtomicU64], capacity: u64, tail: u64) -> Position {
    let head = tail.saturating_sub(capacity);
    let next_seq = Some(get(words, AT_NEXT_SEQ)).filter(|next_seq| *next_seq <= SEQ_END / 2).unwrap_or(0);
    let mut reader = Reader::over(words, capacity, Position { head, ..Position::default() }, tail);
    let Some((expected, _)) = next_record(&mut reader) else {
        return Position { head: tail, consumed: next_seq, expected: next_seq, ..Position::default() };
    };
    let count = 1 + std::iter::from_fn(|| next_record(&mut reader)).count() as u64;
    let refused = get(words, AT_REFUSED_FULL).saturating_add(get(words, AT_REFUSED_OVERSIZE));
    let consumed = next_seq.saturating_sub(refused.saturating_add(count));
    Position { head, consumed, expected, ..Position::default() }
}

fn mend_writer(words: &[AtomicU64], capacity: u64, position: Position) {
    let (tail, next_seq) = (get(words, AT_TAIL), get(words, AT_NEXT_SEQ));
    let is_tail_sound = check_positions(position.head, tail, capacity).is_ok();
    if is_tail_sound && (position.expected..=SEQ_END / 2).contains(&next_seq) {
        return;
    }
    let tail_max = if is_tail_sound { tail } else { position.head + capacity };
    let mut reader = Reader::over(words, capacity, position, tail_max);
    let (mut last_seq, mut end) = (None, position.head);
    while let Some((seq, position)) = next_record(&mut reader) {
        (last_seq, end) = (Some(seq), position);
    }
    let unused = last_seq.map_or(0, |seq| seq + 1).max(position.expected);
    if !(unused..=SEQ_END / 2).contains(&next_seq) {
        put(words, AT_NEXT_SEQ, unused, Relaxed);
    }
    if !is_tail_sound {
        put(words, AT_TAIL, end, Release);
    }
}

/// The next record that verifies: its number, and where it ends.
fn next_record(reader: &mut Reader<&[AtomicU64]>) -> Option<(u64, u64)> {
    let mut out = Vec::new();
    loop {
        match reader.next(&mut out, EXPOSURE_SIZE_MAX) {
            Ok(Step::Record { seq, .. }) => return Some((seq, reader.position().head)),
            Ok(Step::Damaged { .. }) => {}
            // At the tail given; what the word in the ring says is in doubt.
            Ok(Step::Empty | Step::NoRoom) | Err(_) => return None,
        }
    }
}
