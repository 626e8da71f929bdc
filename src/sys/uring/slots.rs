//! The slots to send from, which stay where they are while the kernel reads them.
//!
//! ```text
//! free ──fill──► resting ──handed over──► flying ──all taken──► free
//!                   ▲                       │
//!                   └──part taken, or none──┘
//! ```

use std::io;

use super::memory::Memory;

/// Names a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotIndex(pub(super) u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    Free,
    Flying,
    /// Flying, and nobody wants to hear of it any more.
    Abandoned,
    Resting,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) state: SlotState,
    pub(super) word: u64,
    pub(super) start: u32,
    pub(super) end: u32,
}

/// The slots to send from.
pub(super) struct Slots {
    pub(super) memory: Memory,
    pub(super) size: usize,
    pub(super) slots: Box<[Slot]>,
    /// The one freed last is the next one taken: a quiet worker touches few.
    free: Vec<u32>,
}

impl Slots {
    pub(super) fn new(count: u32, size: usize) -> io::Result<Slots> {
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
    pub(super) fn fill(&mut self, bytes: &[u8], word: u64) -> Option<u32> {
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

    pub(super) fn free(&mut self, index: u32) {
        self.slots[index as usize].state = SlotState::Free;
        self.free.push(index);
    }
}
