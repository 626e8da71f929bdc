//! One io_uring, as far as a worker needs it: receive without end into buffers
//! that the kernel picks, send from slots that stay where they are, watch a
//! descriptor, cancel, and wait with a timeout.
//!
//! [`setup`] makes it; [`buffers`] and [`slots`] are the memory it works on.
//!
//! ```text
//! receive   buffer: the kernel's ──completion──► lent (Picked) ──give_back──► the kernel's
//! send      slot:   free ──send──► flying ──all taken──► free
//!                             ▲        └──part taken, or none──► resting ──drop_slot──► free
//!                             └───────────── send_rest ◄────────────┘
//! ```
//!
//! Invariants
//! - Memory that the kernel may read or write is the ring's own: buffers and
//!   slots are mapped here, and handed out only while they are not the kernel's.
//! - It outlives every operation: a ring that is dropped cancels what is in
//!   flight and waits for it; what then still has no completion keeps its memory
//!   for ever.
//! - An operation has exactly one last completion, and is in flight until then.
//! - A queued operation names its descriptor by number, so a descriptor is
//!   closed through [`Ring::retire`], after what was queued has been handed over.

mod buffers;
mod memory;
mod setup;
mod slots;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use nix::errno::Errno;

use buffers::Buffers;
pub use buffers::Picked;
pub use setup::{Mode, Refusal, Sizes};
pub use slots::SlotIndex;
use slots::{SlotState, Slots};

/// The one group of buffers there is.
const GROUP: u16 = 0;
/// Words given by the caller leave the highest bits to us.
pub const WORD_BIT_COUNT: u32 = 60;
/// How long a dropped ring waits for its operations to end.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// How often a full queue is handed over before it counts as broken.
const HANDOVER_COUNT_MAX: usize = 100;

/// Something has happened. `word` is what the caller named the operation by.
#[derive(Debug)]
pub enum Completion {
    /// Of [`Ring::receive`].
    Received {
        /// Whose.
        word: u64,
        /// What came.
        what: Received,
        /// False if it was the last: nothing more is received until asked for again.
        more: bool,
    },
    /// Of [`Ring::send`] and [`Ring::send_rest`].
    Sent {
        /// Whose.
        word: u64,
        /// Bytes taken, or the fault; EAGAIN where the socket has no room.
        result: Result<usize, Errno>,
        /// The slot with the rest; none if the slot is free again.
        rest: Option<SlotIndex>,
    },
    /// Of [`Ring::watch`].
    Watched {
        /// Whose.
        word: u64,
        /// False if it was the last.
        more: bool,
    },
    /// Of [`Ring::await_writable`].
    Writable {
        /// Whose.
        word: u64,
    },
}

/// What a receive brought.
#[derive(Debug)]
pub enum Received {
    /// Bytes, in a buffer.
    Bytes(Picked),
    /// The peer has shut its write side.
    End,
    /// No buffer was free; the bytes wait in the socket.
    NoBuffer,
    /// It was cancelled.
    Cancelled,
    /// The connection is gone.
    Fault(Errno),
}

/// Operations, as the highest bits of their user data say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Operation {
    Receive = 1,
    Send = 2,
    Watch = 3,
    Writable = 4,
    Cancel = 5,
}

fn user_data(operation: Operation, word: u64) -> u64 {
    assert!(word >> WORD_BIT_COUNT == 0, "a word's highest bits are not the caller's");
    (operation as u64) << WORD_BIT_COUNT | word
}

/// The ring and the memory it works on. Made and used by one thread.
pub struct Ring {
    ring: Option<IoUring>,
    mode: Mode,
    // Dropped by hand: they stay if an operation does.
    buffers: Option<Buffers>,
    slots: Option<Slots>,
    /// Closed as soon as nothing queued names them any more.
    retired: Vec<OwnedFd>,
    in_flight_count: usize,
    enter_count: u64,
}

/// Asked for again and again where they are used: there until the ring is dropped.
const WHOLE: &str = "a ring has its parts until it is dropped";

impl Ring {
    /// When the kernel finishes operations.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Calls of `io_uring_enter` so far.
    #[must_use]
    pub fn enter_count(&self) -> u64 {
        self.enter_count
    }

    /// Buffers that the kernel may pick.
    #[must_use]
    pub fn buffers_free(&self) -> usize {
        let buffers = self.buffers.as_ref().expect(WHOLE);
        usize::from(buffers.count - buffers.lent_count)
    }

    /// Bytes of a slot.
    #[must_use]
    pub fn slot_size(&self) -> usize {
        self.slots.as_ref().expect(WHOLE).size
    }

    // ── Operations ─────────────────────────────────────────────────────────

    /// Receives from `socket` until it is told otherwise, or the last completion.
    pub fn receive(&mut self, socket: impl AsFd, word: u64) {
        let fd = Fd(socket.as_fd().as_raw_fd());
        let entry = opcode::RecvMulti::new(fd, GROUP).build();
        // SAFETY: it writes to buffers of the group alone, which live as long as
        // it is in flight.
        unsafe { self.push(&entry, Operation::Receive, word) };
    }

    /// Ends a receive; what it has received already still completes.
    pub fn cancel_receive(&mut self, word: u64) {
        self.cancel(Operation::Receive, word);
    }

    /// Copies `bytes` into a slot and sends them, as far as the socket takes
    /// them without waiting. None, and nothing done, if no slot is free or the
    /// bytes are more than fit one.
    pub fn send(&mut self, socket: impl AsFd, bytes: &[u8], word: u64) -> Option<SlotIndex> {
        let index = self.slots.as_mut().expect(WHOLE).fill(bytes, word)?;
        self.send_rest(socket, SlotIndex(index));
        Some(SlotIndex(index))
    }

    /// Sends what rests in a slot.
    ///
    /// # Panics
    /// If nothing rests in it.
    pub fn send_rest(&mut self, socket: impl AsFd, index: SlotIndex) {
        let slots = self.slots.as_mut().expect(WHOLE);
        let slot = &mut slots.slots[index.0 as usize];
        assert!(slot.state == SlotState::Resting, "nothing rests in the slot");
        slot.state = SlotState::Flying;
        let size = slot.end - slot.start;
        let address = slots.memory.part(index.0 as usize * slots.size + slot.start as usize, size as usize);
        // MSG_DONTWAIT: it completes as it is handed over, and a slow reader does
        // not keep a slot flying.
        let entry = opcode::Send::new(Fd(socket.as_fd().as_raw_fd()), address, size)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
            .build();
        // SAFETY: it reads a slot that was marked flying above: nobody writes to it
        // before the completion, and the memory lives until then.
        unsafe { self.push(&entry, Operation::Send, u64::from(index.0)) };
    }

    /// Frees a slot: at once if it rests, else when its send has completed, of
    /// which nothing is said any more.
    pub fn drop_slot(&mut self, index: SlotIndex) {
        let slots = self.slots.as_mut().expect(WHOLE);
        match &mut slots.slots[index.0 as usize].state {
            state @ SlotState::Flying => *state = SlotState::Abandoned,
            SlotState::Resting => slots.free(index.0),
            SlotState::Free | SlotState::Abandoned => panic!("the slot is nobody's"),
        }
    }

    /// Says whenever `descriptor` has become readable, until it is told otherwise.
    pub fn watch(&mut self, descriptor: impl AsFd, word: u64) {
        let fd = Fd(descriptor.as_fd().as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
        // SAFETY: it touches no memory of ours.
        unsafe { self.push(&entry, Operation::Watch, word) };
    }

    /// Ends a watch.
    pub fn cancel_watch(&mut self, word: u64) {
        self.cancel(Operation::Watch, word);
    }

    /// Says once that `socket` has room for output, or that its peer is gone.
    pub fn await_writable(&mut self, socket: impl AsFd, word: u64) {
        let fd = Fd(socket.as_fd().as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLOUT as u32).build();
        // SAFETY: it touches no memory of ours.
        unsafe { self.push(&entry, Operation::Writable, word) };
    }

    /// Ends such waiting.
    pub fn cancel_writable(&mut self, word: u64) {
        self.cancel(Operation::Writable, word);
    }

    fn cancel(&mut self, operation: Operation, word: u64) {
        let entry = opcode::AsyncCancel::new(user_data(operation, word)).build();
        // SAFETY: it touches no memory of ours.
        unsafe { self.push(&entry, Operation::Cancel, 0) };
    }

    /// Closes a descriptor, not before everything queued has been handed over:
    /// its number could be another's by then.
    pub fn retire(&mut self, descriptor: OwnedFd) {
        if self.queued_count() == 0 {
            return drop(descriptor);
        }
        if self.retired.len() == self.retired.capacity() {
            // Only a kernel without memory keeps operations in the queue; then
            // the list grows.
            let _ = self.submit();
        }
        self.retired.push(descriptor);
    }

    /// # Safety
    /// What the operation reads or writes is the ring's own memory, and is left
    /// alone until its last completion.
    unsafe fn push(&mut self, entry: &squeue::Entry, operation: Operation, word: u64) {
        let entry = entry.clone().user_data(user_data(operation, word));
        for _ in 0..HANDOVER_COUNT_MAX {
            // SAFETY: as the caller has promised.
            if unsafe { self.ring().submission().push(&entry) }.is_ok() {
                self.in_flight_count += 1;
                return;
            }
            let _ = self.submit();
        }
        panic!("the kernel takes no more operations");
    }

    fn ring(&mut self) -> &mut IoUring {
        self.ring.as_mut().expect(WHOLE)
    }

    fn queued_count(&mut self) -> usize {
        self.ring().submission().len()
    }

    // ── Handing over and waiting ───────────────────────────────────────────

    /// Hands over what is queued, without waiting.
    ///
    /// # Errors
    /// The kernel's word.
    pub fn submit(&mut self) -> io::Result<()> {
        if self.queued_count() == 0 {
            return Ok(());
        }
        self.enter_count += 1;
        let handed_over = self.ring().submit();
        self.handed_over(handed_over)
    }

    /// Hands over what is queued, and waits until there is a completion, or for
    /// this long.
    ///
    /// # Errors
    /// The kernel's word; that time has passed or a signal came is none.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timespec = Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos());
        self.enter_count += 1;
        let args = SubmitArgs::new().timespec(&timespec);
        let handed_over = self.ring().submitter().submit_with_args(1, &args);
        self.handed_over(handed_over)
    }

    fn handed_over(&mut self, result: io::Result<usize>) -> io::Result<()> {
        if !self.retired.is_empty() && self.queued_count() == 0 {
            self.retired.clear();
        }
        match result.map_err(|fault| fault.raw_os_error().map(Errno::from_raw).ok_or(fault)) {
            Ok(_) => Ok(()),
            // EBUSY: completions that found no room come first; EAGAIN: no memory
            // just now. What is queued stays queued.
            Err(Ok(Errno::ETIME | Errno::EINTR | Errno::EBUSY | Errno::EAGAIN)) => Ok(()),
            Err(Ok(errno)) => Err(errno.into()),
            Err(Err(fault)) => Err(fault),
        }
    }

    /// Completions that are there now.
    #[must_use]
    pub fn completion_count(&mut self) -> usize {
        self.ring().completion().len()
    }

    /// The next completion that is there.
    pub fn reap(&mut self) -> Option<Completion> {
        loop {
            let entry = self.ring().completion().next()?;
            let more = cqueue::more(entry.flags());
            if !more {
                self.in_flight_count -= 1;
            }
            if let Some(completion) = self.completion(&entry, more) {
                return Some(completion);
            }
        }
    }

    fn completion(&mut self, entry: &cqueue::Entry, more: bool) -> Option<Completion> {
        let word = entry.user_data() & ((1 << WORD_BIT_COUNT) - 1);
        let operation = entry.user_data() >> WORD_BIT_COUNT;
        Some(match operation {
            _ if operation == Operation::Receive as u64 => {
                Completion::Received { word, what: self.received(entry), more }
            }
            _ if operation == Operation::Send as u64 => return self.sent(entry.result(), word as u32),
            _ if operation == Operation::Watch as u64 => Completion::Watched { word, more },
            _ if operation == Operation::Writable as u64 => Completion::Writable { word },
            // What was to be cancelled says it itself.
            _ => return None,
        })
    }

    fn received(&mut self, entry: &cqueue::Entry) -> Received {
        let buffers = self.buffers.as_mut().expect(WHOLE);
        let picked = cqueue::buffer_select(entry.flags());
        if let Some(buffer) = picked {
            buffers.lend(buffer);
        }
        match (entry.result(), picked) {
            (size @ 1.., Some(buffer)) => {
                assert!(size as usize <= buffers.size, "more came than a buffer holds");
                return Received::Bytes(Picked { buffer, size: size as u32 });
            }
            (_, Some(buffer)) => buffers.give_back(buffer),
            _ => {}
        }
        match entry.result() {
            0.. => Received::End,
            fault => match Errno::from_raw(-fault) {
                Errno::ENOBUFS => Received::NoBuffer,
                Errno::ECANCELED => Received::Cancelled,
                errno => Received::Fault(errno),
            },
        }
    }

    fn sent(&mut self, result: i32, index: u32) -> Option<Completion> {
        let slots = self.slots.as_mut().expect(WHOLE);
        let slot = &mut slots.slots[index as usize];
        let (word, state) = (slot.word, slot.state);
        assert!(matches!(state, SlotState::Flying | SlotState::Abandoned), "a sent slot was flying");
        if let Ok(taken) = u32::try_from(result) {
            assert!(taken <= slot.end - slot.start, "more was taken than there was");
            slot.start += taken;
        }
        slot.state = SlotState::Resting;
        let waits = result >= 0 || result == -libc::EAGAIN;
        let rest = if state == SlotState::Flying && waits && slot.start < slot.end {
            Some(SlotIndex(index))
        } else {
            slots.free(index);
            None
        };
        if state == SlotState::Abandoned {
            return None;
        }
        let result = usize::try_from(result).map_err(|_| Errno::from_raw(-result));
        Some(Completion::Sent { word, result, rest })
    }

    /// The bytes of a buffer that is lent.
    ///
    /// # Panics
    /// If it is not lent by this ring.
    #[must_use]
    pub fn bytes(&self, picked: &Picked) -> &[u8] {
        self.buffers.as_ref().expect(WHOLE).bytes(picked)
    }

    /// Lets the kernel pick the buffer again.
    ///
    /// # Panics
    /// If it is not lent by this ring.
    pub fn give_back(&mut self, picked: Picked) {
        self.buffers.as_mut().expect(WHOLE).give_back(picked.buffer);
    }

    /// Cancels everything and waits for it; true when nothing is in flight.
    fn end(&mut self) -> bool {
        let start = Instant::now();
        let handed_over = self.submit().is_ok();
        if handed_over && self.in_flight_count > 0 {
            let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            // SAFETY: it touches no memory of ours.
            unsafe { self.push(&entry, Operation::Cancel, 0) };
        }
        while handed_over && self.in_flight_count > 0 && start.elapsed() < END_PATIENCE {
            if self.wait(END_PATIENCE / 10).is_err() {
                break;
            }
            while let Some(completion) = self.reap() {
                if let Completion::Received { what: Received::Bytes(picked), .. } = completion {
                    self.give_back(picked);
                }
            }
        }
        self.in_flight_count == 0
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let ended = !std::thread::panicking() && self.end();
        // Closing the ring ends what is left, but the kernel does so when it likes.
        drop(self.ring.take());
        if !ended {
            std::mem::forget((self.buffers.take(), self.slots.take()));
        }
    }
}

#[cfg(test)]
mod tests;
