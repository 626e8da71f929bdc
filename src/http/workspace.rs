//! What all connections of one worker share, taken once at start: the output
//! buffer, slots for unfinished requests and for output a socket did not take,
//! scratch to unescape into, the Date header.
//!
//! ```text
//! output   [ sent | to be sent | room for more answers … one largest answer ]
//! carry    slot: [ front: the request (or line) being put together | … | raw: input not looked at yet ]
//! pending  slot: [ sent | to be sent ]
//! ```
//! A slot is memory that nobody touches until it is first used; freed slots
//! are used again first, so a quiet worker stays small.

use std::io::Write;
use std::num::NonZeroU32;
use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Now;
use crate::limits;

/// Every bound of a connection, from the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest head, request line and headers with the empty line.
    pub head_size_max: usize,
    /// The largest whole body, and the largest line of a body in lines.
    pub body_size_max: usize,
    /// Unfinished requests kept at once.
    pub carry_count: usize,
    /// Connections with untaken output kept at once.
    pub pending_output_count: usize,
    /// Output gathered from pipelined requests, beyond one largest answer,
    /// before the rest of them has to wait until it is sent.
    pub output_batch_size: usize,
    /// How long a connection may lie idle between requests.
    pub idle_timeout: Duration,
    /// How long a head may take to come.
    pub head_timeout: Duration,
    /// How long a body may take to come.
    pub body_timeout: Duration,
    /// How long output may wait for its socket.
    pub write_timeout: Duration,
    /// How long input is still read after the write side was shut.
    pub linger_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_size_max: limits::HEAD_SIZE_MAX,
            body_size_max: limits::BODY_SIZE_MAX,
            carry_count: limits::CARRY_COUNT,
            pending_output_count: limits::PENDING_OUTPUT_COUNT,
            output_batch_size: 128 * 1024,
            idle_timeout: Duration::from_secs(75),
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            linger_timeout: Duration::from_secs(1),
        }
    }
}

/// No slot is free: the oldest holder has to go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no slot is free for another connection's pending output")]
pub struct PoolExhausted;

/// Room beside the largest answer: a `100 Continue` or a line's chunk framing,
/// and a refusal's own problem document.
pub(super) const ANSWER_SLACK_SIZE: usize = 4096;

/// What all connections of one worker share.
pub struct Workspace {
    pub(super) limits: Limits,
    pub(super) output: OutputBuffer,
    pub(super) carry: Pool,
    pub(super) pending: Pool,
    pub(super) scratch: Box<[u8]>,
    pub(super) date: DateLine,
    carry_refused: u64,
}

impl Workspace {
    /// Takes all memory. `answer_size_max` is the largest answer any service
    /// of this worker gives, head included.
    ///
    /// # Panics
    /// Where a limit is zero, or too large for a connection's 32-bit sizes.
    #[must_use]
    pub fn new(limits: Limits, answer_size_max: usize) -> Self {
        assert!(limits.head_size_max > 0 && limits.head_size_max <= 1 << 20, "head_size_max");
        assert!(limits.body_size_max > 0 && limits.body_size_max <= 1 << 30, "body_size_max");
        assert!(limits.carry_count > 0 && limits.pending_output_count > 0, "slot counts");
        assert!(answer_size_max <= 64 << 20, "answer_size_max");
        let slot_size = (limits.head_size_max + limits.body_size_max).max(limits::READ_BUFFER_SIZE);
        let output = OutputBuffer::new(answer_size_max + ANSWER_SLACK_SIZE, limits.output_batch_size);
        Self {
            limits,
            carry: Pool::new(limits.carry_count, slot_size),
            pending: Pool::new(limits.pending_output_count, output.bytes.len()),
            output,
            scratch: zeroed(limits.body_size_max.max(super::query::scratch_size(limits.head_size_max))),
            date: DateLine::new(),
            carry_refused: 0,
        }
    }

    /// Keeps the Date header current; connections call it themselves with the
    /// time they are given.
    pub fn set_time(&mut self, now: Now) {
        self.date.set(now);
    }

    /// The limits it was made for.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether the largest answer finds room beside what was set aside.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.output.has_room()
    }

    /// Sets aside what the connection that was handled last has to say, so that others
    /// can be handled before it is sent.
    pub fn set_aside(&mut self) -> SetAside {
        self.output.set_aside()
    }

    /// Brings back what a connection has to say, in order to be sent now. Until it is
    /// sent (or blocked), nothing but that connection is handled.
    ///
    /// # Panics
    /// Where another's output was neither sent nor set aside.
    pub fn bring_back(&mut self, aside: SetAside) {
        self.output.bring_back(aside);
    }

    /// Everything that was set aside has come back, or its connection is gone.
    ///
    /// # Panics
    /// Where output was neither sent nor set aside.
    pub fn forget_aside(&mut self) {
        self.output.forget_aside();
    }

    /// Slots for unfinished requests that are free. A backend that finds none
    /// evicts the oldest holder before it feeds another connection.
    #[must_use]
    pub fn carry_free(&self) -> usize {
        self.carry.free.len()
    }

    /// Slots for untaken output that are free.
    #[must_use]
    pub fn pending_free(&self) -> usize {
        self.pending.free.len()
    }

    /// Connections closed because no carry slot was free.
    #[must_use]
    pub fn carry_refused(&self) -> u64 {
        self.carry_refused
    }

    pub(super) fn count_carry_refused(&mut self) {
        self.carry_refused += 1;
    }
}

/// A zeroed box whose pages nobody has touched yet.
fn zeroed(size: usize) -> Box<[u8]> {
    vec![0; size].into_boxed_slice()
}

/// Slots of one size.
pub(super) struct Pool {
    bytes: Box<[u8]>,
    slot_size: usize,
    free: Vec<u32>,
}

impl Pool {
    fn new(count: usize, slot_size: usize) -> Self {
        let count_u32 = u32::try_from(count).expect("a slot's number fits 32 bits");
        Self { bytes: zeroed(count * slot_size), slot_size, free: (1..=count_u32).rev().collect() }
    }

    /// A free slot, the one freed last first.
    pub(super) fn take(&mut self) -> Option<Slot> {
        self.free.pop().and_then(NonZeroU32::new).map(Slot)
    }

    pub(super) fn give_back(&mut self, slot: Slot) {
        debug_assert!(!self.free.contains(&slot.0.get()), "slot {} was free already", slot.0);
        self.free.push(slot.0.get());
    }

    pub(super) fn slot_size(&self) -> usize {
        self.slot_size
    }

    pub(super) fn slot(&self, slot: &Slot) -> &[u8] {
        &self.bytes[slot.index() * self.slot_size..][..self.slot_size]
    }

    pub(super) fn slot_mut(&mut self, slot: &Slot) -> &mut [u8] {
        &mut self.bytes[slot.index() * self.slot_size..][..self.slot_size]
    }
}

/// One slot of a pool, held by one connection; given back, not dropped.
/// Counted from one, so that an `Option` of it takes no more room.
#[derive(Debug)]
pub(super) struct Slot(NonZeroU32);

impl Slot {
    fn index(&self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The worker-wide output: one connection at a time builds its answers here.
/// ```text
/// [ set aside | set aside | … | sent | to be sent | room ]
///                             base   start        end
/// ```
pub(super) struct OutputBuffer {
    bytes: Box<[u8]>,
    base: usize,
    start: usize,
    end: usize,
    answer_room: usize,
}

/// Where output lies that was set aside.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAside {
    start: usize,
    end: usize,
}

impl OutputBuffer {
    /// With room for one answer of `answer_room` behind `batch_size` of others.
    pub(super) fn new(answer_room: usize, batch_size: usize) -> Self {
        Self { bytes: zeroed(answer_room + batch_size), base: 0, start: 0, end: 0, answer_room }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Is there room for one more of the largest answers?
    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() - self.end >= self.answer_room
    }

    /// Is there still room for what a refusal or the end of a line writes?
    pub(super) fn has_tail_room(&self) -> bool {
        self.bytes.len() - self.end >= ANSWER_SLACK_SIZE / 2
    }

    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn sent(&mut self, size: usize) {
        assert!(size <= self.end - self.start, "more was sent than there was");
        self.start += size;
        if self.start == self.end {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (self.base, self.base);
    }

    /// Leaves what is to be sent where it is, for [`OutputBuffer::bring_back`]: what is
    /// written from now on comes behind it.
    fn set_aside(&mut self) -> SetAside {
        let aside = SetAside { start: self.start, end: self.end };
        (self.base, self.start) = (self.end, self.end);
        aside
    }

    fn bring_back(&mut self, SetAside { start, end }: SetAside) {
        assert!(self.is_empty() && start <= end && end <= self.base, "output comes back as it was set aside");
        (self.start, self.end) = (start, end);
        if self.is_empty() {
            self.clear();
        }
    }

    fn forget_aside(&mut self) {
        assert!(self.is_empty(), "output was left in the worker's buffer");
        self.base = 0;
        self.clear();
    }

    /// Where the next byte goes.
    pub(super) fn position(&self) -> usize {
        self.end
    }

    /// Takes back everything from `position` on.
    pub(super) fn truncate(&mut self, position: usize) {
        debug_assert!(self.start <= position && position <= self.end);
        self.end = position;
    }

    /// Appends, or says that there is no room.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        let Some(room) = self.bytes.get_mut(self.end..self.end + bytes.len()) else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.end += bytes.len();
        true
    }

    /// Bytes already written, to be patched.
    pub(super) fn written_mut(&mut self, position: usize, size: usize) -> &mut [u8] {
        &mut self.bytes[position..self.end][..size]
    }
}

/// `Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n`, made once a second.
pub(super) struct DateLine {
    line: [u8; 37],
    second: i64,
}

impl DateLine {
    fn new() -> Self {
        let mut date = Self { line: *b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", second: 0 };
        date.write(0);
        date
    }

    fn set(&mut self, now: Now) {
        let second = now.unix_us.max(0) / 1_000_000;
        if second != self.second {
            self.second = second;
            self.write(second.unsigned_abs());
        }
    }

    fn write(&mut self, second: u64) {
        // A date past the year 9999 has no HTTP form; the last line stands then.
        if second < 253_402_300_800 {
            let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(second));
            let mut value = &mut self.line[6..35];
            write!(value, "{date}").expect("an HTTP date has 29 bytes");
        }
    }

    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_follows_the_time_it_is_given() {
        let mut workspace = Workspace::new(Limits::default(), 1024);
        workspace.set_time(Now { mono_ns: 0, unix_us: 784_111_777_123_456 });
        assert_eq!(workspace.date.line(), b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        workspace.set_time(Now { mono_ns: 0, unix_us: i64::MAX });
        assert_eq!(workspace.date.line(), b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    }

    #[test]
    fn what_was_set_aside_comes_back_whole_and_nothing_is_written_over_it() {
        let mut output = OutputBuffer::new(8, 32);
        let say = |output: &mut OutputBuffer, text: &[u8]| assert!(output.push(text));
        say(&mut output, b"first");
        let first = output.set_aside();
        assert!(output.is_empty());
        let nothing = output.set_aside();
        say(&mut output, b"second");
        let second = output.set_aside();
        output.bring_back(first);
        assert_eq!(output.unsent(), b"first");
        output.sent(2);
        output.sent(3);
        // What a connection says to what it carried.
        say(&mut output, b"more");
        assert_eq!(output.unsent(), b"more");
        output.clear();
        output.bring_back(nothing);
        assert!(output.is_empty());
        output.bring_back(second);
        assert_eq!(output.unsent(), b"second");
        output.sent(6);
        output.forget_aside();
        (0..5).for_each(|_| say(&mut output, b"12345678"));
        assert!(!output.has_room() && !output.push(b"9"));
    }

    #[test]
    fn a_freed_slot_is_the_next_one_taken() {
        let mut pool = Pool::new(3, 8);
        let first = pool.take().unwrap();
        let second = pool.take().unwrap();
        let number = first.0;
        pool.give_back(first);
        assert_eq!(pool.take().unwrap().0, number);
        pool.slot_mut(&second)[0] = 1;
        assert_eq!(pool.slot(&second)[0], 1);
        assert!(pool.take().is_some());
        assert!(pool.take().is_none());
    }
}
