//! The part of io_uring that the floor server and the generator use: multishot
//! accept and receive into provided buffers, sends of bytes that live for ever.
//! All unsafe code of this crate is here.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::net::TcpStream;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering::Release};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};

const BUFFER_COUNT: u16 = 512;
const BUFFER_SIZE: usize = 4096;
const BUFFER_GROUP: u16 = 0;
const PAGE_SIZE: usize = 4096;
const ENTRY_COUNT: u32 = 1024;

/// A ring with its buffers.
pub struct Ring {
    // First, so that the kernel lets go of the buffers before they are freed.
    uring: IoUring,
    entries: NonNull<BufRingEntry>,
    buffers: Box<[u8]>,
    tail: u16,
}

/// What a completion says.
#[derive(Debug, Clone, Copy)]
pub struct Completion {
    /// As it was given with the request.
    pub word: u64,
    /// Bytes, a descriptor, or minus an errno.
    pub result: i32,
    flags: u32,
}

impl Completion {
    /// The buffer that was filled, to be given back.
    #[must_use]
    pub fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// The connection that an accept took; once a completion.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn socket(&self) -> TcpStream {
        assert!(self.result >= 0, "the accept succeeded");
        // SAFETY: the kernel made the descriptor for this completion, and nobody else knows it.
        TcpStream::from(unsafe { OwnedFd::from_raw_fd(self.result) })
    }

    /// Whether a multishot request goes on.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        cqueue::more(self.flags)
    }
}

impl Ring {
    /// A ring for this thread.
    ///
    /// # Errors
    /// If the kernel has no io_uring (6.1 or later is needed) or does not let us.
    pub fn new() -> io::Result<Ring> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(4 * ENTRY_COUNT)
            .build(ENTRY_COUNT)?;
        let layout =
            Layout::from_size_align(usize::from(BUFFER_COUNT) * size_of::<BufRingEntry>(), PAGE_SIZE)
                .expect("a power of two");
        // SAFETY: the layout is not empty. The memory is never freed: a ring lives as long as its process.
        let entries = NonNull::new(unsafe { alloc_zeroed(layout) }.cast::<BufRingEntry>());
        let entries = entries.unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: the entries are that many, aligned to a page, and never freed.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                entries.as_ptr() as u64,
                BUFFER_COUNT,
                BUFFER_GROUP,
                0,
            )?;
        }
        let buffers = vec![0; usize::from(BUFFER_COUNT) * BUFFER_SIZE].into_boxed_slice();
        let mut ring = Ring { uring, entries, buffers, tail: 0 };
        for buffer in 0..BUFFER_COUNT {
            ring.give_back(buffer);
        }
        Ok(ring)
    }

    /// The bytes that a completion put into a buffer.
    #[must_use]
    pub fn bytes(&self, buffer: u16, size: usize) -> &[u8] {
        &self.buffers[usize::from(buffer) * BUFFER_SIZE..][..size]
    }

    /// Lets the kernel fill a buffer again.
    pub fn give_back(&mut self, buffer: u16) {
        let place = usize::from(self.tail & (BUFFER_COUNT - 1));
        let address = self.buffers[usize::from(buffer) * BUFFER_SIZE..].as_mut_ptr();
        // SAFETY: `place` is below BUFFER_COUNT, and the kernel reads no entry at or behind the tail.
        let entry = unsafe { &mut *self.entries.as_ptr().add(place) };
        entry.set_addr(address as u64);
        entry.set_len(BUFFER_SIZE as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, aligned; only we write it, and the kernel
        // reads it with acquire.
        let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
        tail.store(self.tail, Release);
    }

    /// Accepts until told otherwise; each connection is a completion.
    ///
    /// # Errors
    /// If the kernel takes nothing more.
    pub fn accept(&mut self, listener: RawFd, word: u64) -> io::Result<()> {
        self.push(opcode::AcceptMulti::new(Fd(listener)).build().user_data(word))
    }

    /// Receives until told otherwise.
    ///
    /// # Errors
    /// If the kernel takes nothing more.
    pub fn receive(&mut self, socket: RawFd, word: u64) -> io::Result<()> {
        self.push(opcode::RecvMulti::new(Fd(socket), BUFFER_GROUP).build().user_data(word))
    }

    /// Sends some bytes.
    ///
    /// # Errors
    /// If the kernel takes nothing more.
    pub fn send(&mut self, socket: RawFd, bytes: &'static [u8], word: u64) -> io::Result<()> {
        self.push(opcode::Send::new(Fd(socket), bytes.as_ptr(), bytes.len() as u32).build().user_data(word))
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: what an entry points to is 'static, or a buffer that the kernel was given.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.uring.submit()?;
        }
        Ok(())
    }

    /// Submits, and waits for a completion.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait(&mut self) -> io::Result<()> {
        match self.uring.submit_and_wait(1) {
            // EBUSY: completions are to be taken first.
            Err(fault) if fault.raw_os_error() == Some(nix::errno::Errno::EBUSY as i32) => Ok(()),
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other.map(drop),
        }
    }

    /// Takes the completions that are there.
    pub fn take(&mut self, into: &mut Vec<Completion>) {
        into.clear();
        into.extend(self.uring.completion().map(|entry| Completion {
            word: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }
}
