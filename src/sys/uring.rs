//! One io_uring, as far as a worker needs it: receive without end into buffers
//! that the kernel picks, send from slots that stay where they are, watch a
//! descriptor, cancel, and wait with a timeout.
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

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering::Release};
use std::time::{Duration, Instant};

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

/// The one group of buffers there is.
const GROUP: u16 = 0;
/// Words given by the caller leave the highest bits to us.
pub const WORD_BIT_COUNT: u32 = 60;
/// How long a dropped ring waits for its operations to end.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// How often a full queue is handed over before it counts as broken.
const HANDOVER_COUNT_MAX: usize = 100;

/// How much of everything there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Operations queued before they are handed over; a power of two.
    pub queue_count: u32,
    /// Completions before the kernel has to keep more of them elsewhere; a power of two.
    pub completion_count: u32,
    /// Buffers to receive into; a power of two, at most 32,768.
    pub buffer_count: u16,
    /// Bytes of each.
    pub buffer_size: usize,
    /// Slots to send from.
    pub slot_count: u32,
    /// Bytes of each.
    pub slot_size: usize,
}

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The kernel has none for us.
    #[error("the kernel refuses a ring: {0}")]
    Setup(io::Error),
    /// It has one that is too old.
    #[error("the kernel's rings lack {0}")]
    Lacks(&'static str),
    /// No memory.
    #[error("no memory for the ring's buffers: {0}")]
    Memory(io::Error),
    /// No provided buffers.
    #[error("the kernel refuses a ring of buffers (Linux 5.19 has them): {0}")]
    Buffers(io::Error),
    /// A socket pair did not get its bytes through the ring.
    #[error("receiving without end does not work here (Linux 6.0 has it): {0}")]
    Receive(io::Error),
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, refusal)
    }
}

/// When the kernel finishes operations, as far as it lets us choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// While we wait, and never between (Linux 6.1).
    Deferred,
    /// At our next system call, without an interrupt (Linux 5.19).
    Cooperative,
}

impl Mode {
    /// The best first.
    pub const ALL: [Mode; 2] = [Mode::Deferred, Mode::Cooperative];

    /// For logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Deferred => "defer_taskrun",
            Mode::Cooperative => "coop_taskrun",
        }
    }
}

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

/// A buffer with bytes, lent to us. Not dropped: given back.
#[derive(Debug)]
pub struct Picked {
    buffer: u16,
    size: u32,
}

impl Picked {
    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size as usize
    }

    /// Its number, below [`Sizes::buffer_count`]; no two that are lent have the same.
    #[must_use]
    pub fn index(&self) -> usize {
        usize::from(self.buffer)
    }
}

/// Names a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotIndex(u32);

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

/// Private memory of our own, zero, page-aligned, and untouched until it is used.
struct Memory {
    base: NonNull<u8>,
    size: NonZeroUsize,
}

impl Memory {
    fn new(size: usize) -> io::Result<Memory> {
        let size = NonZeroUsize::new(size).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice: it
        // overlaps nothing that exists.
        let base = unsafe { mmap_anonymous(None, size, protection, MapFlags::MAP_PRIVATE) }?;
        Ok(Memory { base: base.cast(), size })
    }

    /// Where `size` bytes from `offset` begin.
    fn part(&self, offset: usize, size: usize) -> *mut u8 {
        assert!(offset <= self.size.get() && size <= self.size.get() - offset, "beyond the memory");
        self.base.as_ptr().wrapping_add(offset)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this Memory's own; the ring drops it only once
        // no operation is in flight, and borrows of it end before.
        let _ = unsafe { munmap(self.base.cast(), self.size.get()) };
    }
}

/// The buffers to receive into, and the ring by which they go to the kernel.
struct Buffers {
    entries: Memory,
    memory: Memory,
    size: usize,
    count: u16,
    tail: u16,
    /// Which are ours at the moment.
    lent: Box<[bool]>,
    lent_count: u16,
}

impl Buffers {
    fn new(count: u16, size: usize) -> io::Result<Buffers> {
        assert!(count.is_power_of_two(), "buffer_count");
        assert!(u32::try_from(size).is_ok(), "buffer_size");
        let mut buffers = Buffers {
            entries: Memory::new(usize::from(count) * size_of::<BufRingEntry>())?,
            memory: Memory::new(usize::from(count) * size)?,
            size,
            count,
            tail: 0,
            lent: vec![true; usize::from(count)].into_boxed_slice(),
            lent_count: count,
        };
        for buffer in 0..count {
            buffers.give_back(buffer);
        }
        Ok(buffers)
    }

    fn give_back(&mut self, buffer: u16) {
        assert!(std::mem::replace(&mut self.lent[usize::from(buffer)], false), "the buffer was not lent");
        self.lent_count -= 1;
        let address = self.memory.part(usize::from(buffer) * self.size, self.size);
        let place = usize::from(self.tail & (self.count - 1)) * size_of::<BufRingEntry>();
        let entry: *mut BufRingEntry = self.entries.part(place, size_of::<BufRingEntry>()).cast();
        // SAFETY: `entry` lies in our own mapping, aligned to its 16 bytes. The
        // kernel reads only entries before the tail, and there are as many places
        // as buffers, so this one is not before it; nobody else writes any.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address as u64);
        entry.set_len(self.size as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        let first: *const BufRingEntry = self.entries.part(0, size_of::<BufRingEntry>()).cast();
        // SAFETY: `first` is the first entry of the ring, zeroed or written above;
        // its reserved half-word is the ring's tail, aligned, and both we and the
        // kernel reach it as an atomic from here on.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(first).cast_mut()) };
        tail.store(self.tail, Release);
    }

    fn lend(&mut self, buffer: u16) {
        assert!(
            !std::mem::replace(&mut self.lent[usize::from(buffer)], true),
            "the kernel has picked a buffer that is not its"
        );
        self.lent_count += 1;
    }

    fn bytes(&self, picked: &Picked) -> &[u8] {
        assert!(self.lent[usize::from(picked.buffer)], "the buffer is not lent");
        let size = picked.size as usize;
        let address = self.memory.part(usize::from(picked.buffer) * self.size, size);
        // SAFETY: `part` has checked the range against our own mapping. The kernel
        // writes to no buffer that is lent, and giving it back takes `&mut self`,
        // which the borrow of the bytes forbids.
        unsafe { std::slice::from_raw_parts(address, size) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    Free,
    Flying,
    /// Flying, and nobody wants to hear of it any more.
    Abandoned,
    Resting,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    state: SlotState,
    word: u64,
    start: u32,
    end: u32,
}

/// The slots to send from.
struct Slots {
    memory: Memory,
    size: usize,
    slots: Box<[Slot]>,
    /// The one freed last is the next one taken: a quiet worker touches few.
    free: Vec<u32>,
}

impl Slots {
    fn new(count: u32, size: usize) -> io::Result<Slots> {
        assert!(u32::try_from(size).is_ok(), "slot_size");
        let slot = Slot { state: SlotState::Free, word: 0, start: 0, end: 0 };
        Ok(Slots {
            memory: Memory::new(count as usize * size)?,
            size,
            slots: vec![slot; count as usize].into_boxed_slice(),
            free: (0..count).rev().collect(),
        })
    }

    /// Takes a slot and copies `bytes` into it.
    fn fill(&mut self, bytes: &[u8], word: u64) -> Option<u32> {
        if bytes.len() > self.size {
            return None;
        }
        let index = self.free.pop()?;
        let slot = &mut self.slots[index as usize];
        assert!(slot.state == SlotState::Free, "a listed slot is free");
        *slot = Slot { state: SlotState::Resting, word, start: 0, end: bytes.len() as u32 };
        let address = self.memory.part(index as usize * self.size, bytes.len());
        // SAFETY: `part` has checked the range against our own mapping, which no
        // borrowed bytes can lie in; the slot was free, so nobody reads it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address, bytes.len()) };
        Some(index)
    }

    fn free(&mut self, index: u32) {
        self.slots[index as usize].state = SlotState::Free;
        self.free.push(index);
    }
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
    /// Makes a ring with the best the kernel has, and sees whether it works.
    ///
    /// # Errors
    /// If it has not what is needed, and what that is.
    ///
    /// # Panics
    /// If a count is no power of two.
    pub fn new(sizes: Sizes) -> Result<Ring, Refusal> {
        let [best, second] = Mode::ALL;
        match Ring::in_mode(best, sizes) {
            // A flag that the kernel does not know.
            Err(Refusal::Setup(fault)) if fault.raw_os_error() == Some(libc::EINVAL) => {
                Ring::in_mode(second, sizes)
            }
            other => other,
        }
    }

    /// Makes a ring of that mode, or none.
    ///
    /// # Errors
    /// As [`Ring::new`].
    ///
    /// # Panics
    /// If a count is no power of two.
    pub fn in_mode(mode: Mode, sizes: Sizes) -> Result<Ring, Refusal> {
        let ring = set_up(mode, sizes).map_err(Refusal::Setup)?;
        if !ring.params().is_feature_ext_arg() {
            return Err(Refusal::Lacks("waiting with a timeout (Linux 5.11 has it)"));
        }
        if !ring.params().is_feature_nodrop() {
            return Err(Refusal::Lacks("keeping completions that find no room (Linux 5.5 has it)"));
        }
        let buffers = Buffers::new(sizes.buffer_count, sizes.buffer_size).map_err(Refusal::Memory)?;
        let slots = Slots::new(sizes.slot_count, sizes.slot_size).map_err(Refusal::Memory)?;
        let address = buffers.entries.part(0, 0) as u64;
        // SAFETY: the entries are a mapping of their own, with room for as many as
        // are named, which lives until the ring's operations have ended.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, sizes.buffer_count, GROUP, 0) }
            .map_err(Refusal::Buffers)?;
        let mut ring = Ring {
            ring: Some(ring),
            mode,
            buffers: Some(buffers),
            slots: Some(slots),
            retired: Vec::with_capacity(sizes.queue_count as usize),
            in_flight_count: 0,
            enter_count: 0,
        };
        ring.prove().map_err(Refusal::Receive)?;
        ring.enter_count = 0;
        Ok(ring)
    }

    /// Why there would be no ring; none if there would be one. Found out on a
    /// thread of its own: where a ring has been closed, the kernel still has work
    /// for the thread that made it, and interrupts its next calls for it (EINTR).
    #[must_use]
    pub fn refusal(sizes: Sizes) -> Option<Refusal> {
        let trial = std::thread::spawn(move || Ring::new(sizes).err());
        trial.join().unwrap_or(Some(Refusal::Lacks("the kernel's good behaviour")))
    }

    /// Sends two packets through a socket pair: each must come in a buffer of its
    /// own from one operation, and the end after them.
    fn prove(&mut self) -> io::Result<()> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
        self.receive(&ours, 0);
        for text in [b"one", b"two"] {
            nix::unistd::write(&theirs, text)?;
            match self.wait_for_one()? {
                Some(Completion::Received { what: Received::Bytes(picked), more: true, .. }) => {
                    let same = self.bytes(&picked) == text;
                    self.give_back(picked);
                    if !same {
                        return Err(io::Error::other("other bytes came than were sent"));
                    }
                }
                Some(Completion::Received { what: Received::Fault(errno), .. }) => return Err(errno.into()),
                other => return Err(io::Error::other(format!("{other:?} instead of bytes"))),
            }
        }
        drop(theirs);
        match self.wait_for_one()? {
            Some(Completion::Received { what: Received::End, more: false, .. }) => Ok(()),
            other => Err(io::Error::other(format!("{other:?} instead of the end"))),
        }
    }

    fn wait_for_one(&mut self) -> io::Result<Option<Completion>> {
        self.wait(END_PATIENCE)?;
        Ok(self.reap())
    }

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

fn set_up(mode: Mode, sizes: Sizes) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(sizes.completion_count).setup_submit_all().dontfork();
    match mode {
        Mode::Deferred => builder.setup_single_issuer().setup_defer_taskrun(),
        Mode::Cooperative => builder.setup_coop_taskrun().setup_taskrun_flag(),
    };
    builder.build(sizes.queue_count)
}

#[cfg(test)]
#[path = "uring/tests.rs"]
mod tests;
