//! The buffers that the kernel picks from to receive into.
//!
//! ```text
//! the kernel's ──picked by a completion──► lent ──give_back──► the kernel's
//! ```

use std::io;
use std::sync::atomic::{AtomicU16, Ordering::Release};

use io_uring::types::BufRingEntry;

use super::memory::Memory;

/// A buffer with bytes, lent to us. Not dropped: given back.
#[derive(Debug)]
pub struct Picked {
    pub(super) buffer: u16,
    pub(super) size: u32,
}

impl Picked {
    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size as usize
    }

    /// Its number, below [`Sizes::buffer_count`](super::Sizes::buffer_count); no two that are lent have the same.
    #[must_use]
    pub fn index(&self) -> usize {
        usize::from(self.buffer)
    }
}

/// The buffers to receive into, and the ring by which they go to the kernel.
pub(super) struct Buffers {
    pub(super) entries: Memory,
    memory: Memory,
    pub(super) size: usize,
    pub(super) count: u16,
    tail: u16,
    /// Which are ours at the moment.
    lent: Box<[bool]>,
    pub(super) lent_count: u16,
}

impl Buffers {
    pub(super) fn new(count: u16, size: usize) -> io::Result<Buffers> {
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

    pub(super) fn give_back(&mut self, buffer: u16) {
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

    pub(super) fn lend(&mut self, buffer: u16) {
        assert!(
            !std::mem::replace(&mut self.lent[usize::from(buffer)], true),
            "the kernel has picked a buffer that is not its"
        );
        self.lent_count += 1;
    }

    pub(super) fn bytes(&self, picked: &Picked) -> &[u8] {
        assert!(self.lent[usize::from(picked.buffer)], "the buffer is not lent");
        let size = picked.size as usize;
        let address = self.memory.part(usize::from(picked.buffer) * self.size, size);
        // SAFETY: `part` has checked the range against our own mapping. The kernel
        // writes to no buffer that is lent, and giving it back takes `&mut self`,
        // which the borrow of the bytes forbids.
        unsafe { std::slice::from_raw_parts(address, size) }
    }
}
