//! Where a connection's unread and unfinished bytes are; see the layout of the
//! carry slot at [`Connection`].

use super::super::service::Admission;
use super::super::workspace::{Pool, Slot, Workspace};
use super::Connection;

impl Connection {
    pub(super) fn admitted(&self) -> Admission {
        self.admission.expect("a request in hand was admitted")
    }

    pub(super) fn held(&self) -> &Slot {
        self.carry.as_ref().expect("carried bytes have a slot")
    }

    pub(super) fn slot_mut<'w>(&self, ws: &'w mut Workspace) -> &'w mut [u8] {
        ws.carry.slot_mut(self.held())
    }

    pub(super) fn raw_size(&self) -> usize {
        (self.raw_end - self.raw_start) as usize
    }

    /// What is to be looked at next: carried input first, then new.
    pub(super) fn source<'s>(&self, input: &'s [u8], carry: &'s Pool) -> &'s [u8] {
        match &self.carry {
            Some(slot) if self.raw_size() > 0 => {
                &carry.slot(slot)[self.raw_start as usize..self.raw_end as usize]
            }
            _ => input,
        }
    }

    /// Takes bytes off the source.
    pub(super) fn consume(&mut self, size: usize, input: &mut &[u8]) {
        if self.raw_size() > 0 {
            debug_assert!(size <= self.raw_size());
            self.raw_start += size as u32;
        } else {
            *input = &input[size..];
        }
    }

    /// A carry slot, taken where there was none; none free closes the connection.
    pub(super) fn take_slot(&mut self, ws: &mut Workspace) -> bool {
        if self.carry.is_none() {
            self.carry = ws.carry.take();
            if self.carry.is_none() {
                ws.count_carry_refused();
                self.closing = true;
                return false;
            }
            (self.front, self.raw_start, self.raw_end) = (0, 0, 0);
        }
        true
    }

    /// Moves bytes from the source to the end of the front.
    pub(super) fn keep(&mut self, size: usize, input: &mut &[u8], ws: &mut Workspace) {
        if size == 0 || !self.take_slot(ws) {
            return;
        }
        let (front, raw_start) = (self.front as usize, self.raw_start as usize);
        let raw_size = self.raw_size();
        let slot = self.slot_mut(ws);
        if raw_size > 0 {
            // What is joined is never longer than what it was taken from.
            debug_assert!(front <= raw_start && size <= raw_size);
            slot.copy_within(raw_start..raw_start + size, front);
        } else {
            slot[front..front + size].copy_from_slice(&input[..size]);
        }
        self.front += size as u32;
        self.consume(size, input);
    }

    /// Carries input that cannot be looked at now.
    pub(super) fn stash(&mut self, input: &[u8], ws: &mut Workspace) {
        if input.is_empty() || self.closing || !self.take_slot(ws) {
            return;
        }
        let (front, raw_size) = (self.front as usize, self.raw_size());
        if raw_size == 0 {
            (self.raw_start, self.raw_end) = (self.front, self.front);
        }
        let slot_size = ws.carry.slot_size();
        if self.raw_end as usize + input.len() > slot_size {
            let raw = self.raw_start as usize..self.raw_end as usize;
            self.slot_mut(ws).copy_within(raw, front);
            (self.raw_start, self.raw_end) = (self.front, self.front + raw_size as u32);
        }
        let raw_end = self.raw_end as usize;
        if raw_end + input.len() > slot_size {
            // Only a backend that feeds a connection that wants no input gets here.
            ws.count_carry_refused();
            self.closing = true;
            return;
        }
        self.slot_mut(ws)[raw_end..raw_end + input.len()].copy_from_slice(input);
        self.raw_end += input.len() as u32;
    }

    /// The beginning of a head and what was carried behind it become one.
    pub(super) fn join_front_and_raw(&mut self, ws: &mut Workspace) {
        let raw = self.raw_start as usize..self.raw_end as usize;
        let front = self.front as usize;
        let size = front + raw.len();
        self.slot_mut(ws).copy_within(raw, front);
        (self.front, self.raw_start, self.raw_end) = (0, 0, size as u32);
    }
}
