//! A ring's books, read from its words by anyone at any time, and summed over rings.

use std::iter::Sum;

use super::super::atomic::Ordering::Acquire;
use super::super::atomic::{AtomicU64, fence};
use super::reader::{Frame, Position, frame};
use super::{
    AT_EPOCH, AT_NEXT_SEQ, AT_READER_HEARTBEAT, AT_REFUSED_FULL, AT_REFUSED_OVERSIZE, AT_STATE, AT_TAIL,
    AT_WRITER_HEARTBEAT, RingFault, check_positions, get, identify,
};

/// How often a moving ring is read again before its books are taken as they are.
/// Few: a full ring takes a millisecond to walk, and a busy one never stands still.
const ATTEMPT_COUNT: usize = 4;

/// What became of every number a ring has handed out.
///
/// The law: `attempted = committed + lost`, `committed = consumed + corrupt +
/// in_ring`, `lost = refused_full + refused_oversize + torn`. It holds exactly
/// for a ring that nobody is pushing to. While one is pushed to, `torn` includes
/// the push under way; where framing was damaged, `corrupt` is an upper bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// Numbers handed out.
    pub attempted: u64,
    /// Exposures that were committed, and so promised.
    pub committed: u64,
    /// Attempts that were not committed.
    pub lost: u64,
    /// Of those, the ones that a killed worker left behind.
    pub torn: u64,
    /// Of those, the ones that found no room.
    pub refused_full: u64,
    /// Of those, the ones that were too large.
    pub refused_oversize: u64,
    /// Committed ones that the logger has confirmed.
    pub consumed: u64,
    /// Committed ones that were damaged before they were read.
    pub corrupt: u64,
    /// Committed ones that wait.
    pub in_ring: u64,
    /// Bytes between head and tail.
    pub in_ring_size: u64,
    /// Bytes of the record area.
    pub capacity: u64,
    /// Writers that have attached so far.
    pub epoch: u64,
    /// The writer's heartbeat.
    pub writer_heartbeat: u64,
    /// The reader's heartbeat.
    pub reader_heartbeat: u64,
    /// Nothing moved while it was read.
    pub settled: bool,
}

impl Account {
    /// Reads a ring's books.
    ///
    /// # Errors
    /// If this is no ring of this layout, or a damaged one.
    pub fn read(words: &[AtomicU64]) -> Result<Account, RingFault> {
        let mut last = Err(RingFault::Blank);
        for _ in 0..ATTEMPT_COUNT {
            last = Account::read_once(words);
            if last.is_ok_and(|account| account.settled) {
                break;
            }
        }
        last
    }

    fn read_once(words: &[AtomicU64]) -> Result<Account, RingFault> {
        let (_, capacity) = identify(words)?;
        let moving = || (get(words, AT_STATE), get(words, AT_TAIL), get(words, AT_NEXT_SEQ));
        let before = moving();
        let position = Position::load(words)?;
        let tail = words[AT_TAIL].load(Acquire);
        check_positions(position.head, tail, capacity)?;
        let in_ring = count_records(words, capacity, position.head, tail);
        let (refused_full, refused_oversize) = (get(words, AT_REFUSED_FULL), get(words, AT_REFUSED_OVERSIZE));
        // The attempts last: what was committed or refused up to here is among them.
        fence(Acquire);
        let attempted = get(words, AT_NEXT_SEQ);
        fence(Acquire);
        let settled = moving() == before;
        let unread = attempted.saturating_sub(position.expected).saturating_sub(in_ring);
        let corrupt = position.corrupt.saturating_add(position.pending.min(unread));
        let committed = position.consumed.saturating_add(corrupt).saturating_add(in_ring);
        let lost = attempted.saturating_sub(committed);
        Ok(Account {
            attempted,
            committed,
            lost,
            torn: lost.saturating_sub(refused_full.saturating_add(refused_oversize)),
            refused_full,
            refused_oversize,
            consumed: position.consumed,
            corrupt,
            in_ring,
            in_ring_size: tail - position.head,
            capacity,
            epoch: get(words, AT_EPOCH),
            writer_heartbeat: get(words, AT_WRITER_HEARTBEAT),
            reader_heartbeat: get(words, AT_READER_HEARTBEAT),
            settled,
        })
    }
}

/// The books of several rings as one: all add up, and they are settled if each is.
/// A heartbeat of the sum moves when one of theirs does.
impl Sum for Account {
    fn sum<I: Iterator<Item = Account>>(accounts: I) -> Account {
        let none = Account { settled: true, ..Account::default() };
        // Words of another process: they may say anything, and add up to more than there is.
        accounts.fold(none, |sum, one| Account {
            attempted: sum.attempted.wrapping_add(one.attempted),
            committed: sum.committed.wrapping_add(one.committed),
            lost: sum.lost.wrapping_add(one.lost),
            torn: sum.torn.wrapping_add(one.torn),
            refused_full: sum.refused_full.wrapping_add(one.refused_full),
            refused_oversize: sum.refused_oversize.wrapping_add(one.refused_oversize),
            consumed: sum.consumed.wrapping_add(one.consumed),
            corrupt: sum.corrupt.wrapping_add(one.corrupt),
            in_ring: sum.in_ring.wrapping_add(one.in_ring),
            in_ring_size: sum.in_ring_size.wrapping_add(one.in_ring_size),
            capacity: sum.capacity.wrapping_add(one.capacity),
            epoch: sum.epoch.wrapping_add(one.epoch),
            writer_heartbeat: sum.writer_heartbeat.wrapping_add(one.writer_heartbeat),
            reader_heartbeat: sum.reader_heartbeat.wrapping_add(one.reader_heartbeat),
            settled: sum.settled && one.settled,
        })
    }
}

/// Follows the framing from head to tail, and no further than it holds.
fn count_records(words: &[AtomicU64], capacity: u64, head: u64, tail: u64) -> u64 {
    let (mut position, mut count) = (head, 0);
    while position < tail {
        match frame(words, capacity, position, tail) {
            Frame::Record { size, .. } => {
                position += size;
                count += 1;
            }
            Frame::Pad { size } => position += size,
            Frame::Broken => break,
        }
    }
    count
}
