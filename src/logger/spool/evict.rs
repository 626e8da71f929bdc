//! What goes: at a bound, undelivered and counted; and whatever was emptied.

use std::io;

use super::cursor::Reason;
use super::disk::Disk;
use super::segment::segment_name;
use super::{Refusal, Spool, State, WhenFull};
use crate::clock::Now;

impl<D: Disk> Spool<D> {
    pub(super) fn make_room(&mut self, size: u64, now: Now) -> Result<(), Refusal> {
        loop {
            let reason = if self.size() + size > self.options.size_max {
                Reason::Size
            } else if self.options.free_min > 0
                && self.disk.free_size()? < self.options.free_min.saturating_add(size)
            {
                Reason::Disk
            } else {
                return Ok(());
            };
            let why = match reason {
                Reason::Disk => "too little of the disk is free (logger.spool_free_min)",
                _ => "it is as large as it may be (logger.spool_size_max)",
            };
            let tail_listed = self.tail.as_ref().is_some_and(|tail| tail.safe > 0);
            let has_older = self.segments.len() > usize::from(tail_listed);
            if self.options.when_full == WhenFull::Newest || !has_older {
                return Err(Refusal::Full(why));
            }
            self.evict(reason, now)?;
        }
    }

    /// Lets what is older than the age bound go.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn check_age(&mut self, now: Now) -> io::Result<()> {
        let age_max = i64::try_from(self.options.age_max.as_micros()).unwrap_or(i64::MAX);
        while let Some(oldest) = self.segments.front() {
            // Of one that an earlier process closed, the next one's begin is its end.
            let next_us = self.segments.get(1).map_or(0, |next| next.created_us);
            if now.unix_us.saturating_sub(oldest.ended_us.max(next_us)) <= age_max {
                return Ok(());
            }
            if self.segments.len() == 1 {
                self.close_tail()?;
            }
            self.evict(Reason::Age, now)?;
        }
        Ok(())
    }

    /// Counts what is left of the oldest segment, which is not the tail, as gone,
    /// and removes it.
    fn evict(&mut self, reason: Reason, now: Now) -> io::Result<()> {
        let Some(oldest) = self.segments.front().copied() else {
            return Ok(());
        };
        let end = self.segments.get(1).map_or(self.safe, |next| next.first);
        let mut books = self.books;
        let begin = books.number();
        if end <= begin {
            // Emptied before: the disk failed when it was to go.
            self.cursor.sync(&self.disk)?;
            self.remove_emptied();
            return Ok(());
        }
        for (_, entry) in self.entries.range(..end) {
            match entry.state {
                State::Settled { rejected } => {
                    books.rejected += u64::from(rejected);
                    books.delivered += u64::from(entry.count - rejected);
                }
                State::Corrupt => books.corrupt += u64::from(entry.count),
                State::Out | State::Again => {}
            }
        }
        let evicted = (end - begin) - (books.number() - begin);
        books.evicted[reason as usize] += evicted;
        self.cursor.save(&self.disk, &books)?;
        self.cursor.sync(&self.disk)?;
        (self.books, self.saved) = (books, books);
        self.entries = self.entries.split_off(&end);
        self.again_count = self.entries.values().filter(|entry| entry.state == State::Again).count();
        self.read = self.read.max(end);
        let age_s = now.unix_us.saturating_sub(oldest.created_us) / 1_000_000;
        log::warn!(
            "event=spool_evicted file={} reason={reason:?} exposures={evicted} bytes={} age_s={age_s}",
            segment_name(oldest.first),
            oldest.size
        );
        self.remove_emptied();
        Ok(())
    }

    /// Removes segments below the cursor, which is saved. The last is kept as long
    /// as it is written to.
    pub(super) fn remove_emptied(&mut self) {
        while let Some(oldest) = self.segments.front().copied() {
            let end = self.segments.get(1).map_or(self.safe, |next| next.first);
            let is_tail = self.tail.as_ref().is_some_and(|tail| tail.first == oldest.first);
            if end > self.books.number() || (is_tail && !self.is_clean()) {
                break;
            }
            if is_tail {
                self.tail = None;
            }
            self.segments.pop_front();
            self.remove_segment(oldest.first);
        }
    }

    pub(super) fn remove_segment(&self, first: u64) {
        let name = segment_name(first);
        if let Err(fault) = self.disk.remove(&name)
            && fault.kind() != io::ErrorKind::NotFound
        {
            log::warn!("event=spool_not_removed file={name} error={:?}", fault.to_string());
        }
    }
}
