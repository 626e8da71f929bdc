//! Memory that the kernel reads and writes while operations are in flight.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Private memory of our own, zero, page-aligned, and untouched until it is used.
pub(super) struct Memory {
    base: NonNull<u8>,
    size: NonZeroUsize,
}

impl Memory {
    pub(super) fn new(size: usize) -> io::Result<Memory> {
        let size = NonZeroUsize::new(size).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice: it
        // overlaps nothing that exists.
        let base = unsafe { mmap_anonymous(None, size, protection, MapFlags::MAP_PRIVATE) }?;
        Ok(Memory { base: base.cast(), size })
    }

    /// Where `size` bytes from `offset` begin.
    pub(super) fn part(&self, offset: usize, size: usize) -> *mut u8 {
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
