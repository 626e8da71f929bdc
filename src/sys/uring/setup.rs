//! How a ring is made: the best the kernel has, proved to work before it is used.

use std::io;

use io_uring::IoUring;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::buffers::Buffers;
use super::slots::Slots;
use super::{Completion, END_PATIENCE, GROUP, Received, Ring};

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
