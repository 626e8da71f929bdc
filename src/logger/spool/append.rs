//! In: batches are written, and safe once they are synced; what a failed sync
//! leaves in doubt is forgotten.

use std::io;

use super::disk::{Disk, write_all};
use super::segment::{Kind, put_header, put_marks, put_record, segment_name};
use super::{Place, Refusal, Segment, Spool, Tail};
use crate::clock::Now;
use crate::logger::batch::Mark;

/// Written and not synced at most.
const UNSYNCED_SIZE_MAX: u64 = 1024 * 1024;

impl<D: Disk> Spool<D> {
    /// Writes the chunks of a batch and its marks, and says where each chunk
    /// lies. They are safe once [`Spool::sync`] has said so, and gone if it fails.
    ///
    /// # Errors
    /// If a bound or the disk refuses. After the disk's refusal nothing that was
    /// written since the last sync is there any more: [`Spool::is_clean`].
    pub fn append<'c>(
        &mut self,
        chunks: impl Iterator<Item = (&'c [u8], u32)>,
        marks: &[Mark],
        now: Now,
    ) -> Result<Vec<Place>, Refusal> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let taken = self.append_by(&mut buffer, chunks, marks, now);
        self.buffer = buffer;
        if matches!(taken, Err(Refusal::Disk(_))) {
            self.roll_back();
        }
        taken
    }

    fn append_by<'c>(
        &mut self,
        buffer: &mut Vec<u8>,
        chunks: impl Iterator<Item = (&'c [u8], u32)>,
        marks: &[Mark],
        now: Now,
    ) -> Result<Vec<Place>, Refusal> {
        let mut places = Vec::new();
        let mut number = self.written;
        for (bytes, count) in chunks {
            let at = buffer.len();
            put_record(buffer, number, now.unix_us, count, Kind::Chunk, bytes);
            let size = buffer.len() - at;
            places.push(Place { number, count, segment: 0, at: at as u64, size });
            number += u64::from(count);
        }
        let mut payload = Vec::new();
        put_marks(&mut payload, marks);
        put_record(buffer, number, now.unix_us, 0, Kind::Mark, &payload);
        if self.tail.as_ref().is_some_and(|tail| tail.written >= self.options.segment_size) {
            self.close_tail()?;
        }
        self.make_room(buffer.len() as u64, now)?;
        let tail = match &mut self.tail {
            Some(tail) => tail,
            none => {
                let begun = begin_segment(&self.disk, self.written, now);
                if begun.is_err() {
                    let _ = self.disk.remove(&segment_name(self.written));
                }
                none.insert(begun?)
            }
        };
        write_all(&self.disk, &tail.file, buffer, tail.written)?;
        for place in &mut places {
            place.segment = tail.first;
            place.at += tail.written;
        }
        tail.written += buffer.len() as u64;
        tail.dirty = tail.dirty.or(Some(now));
        tail.ended_us = now.unix_us;
        self.written = number;
        Ok(places)
    }

    /// Nothing is written that is not synced.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.tail.as_ref().is_none_or(|tail| tail.dirty.is_none())
    }

    /// It is time for a sync.
    #[must_use]
    pub fn is_sync_due(&self, now: Now) -> bool {
        self.tail.as_ref().is_some_and(|tail| {
            tail.written - tail.safe >= UNSYNCED_SIZE_MAX
                || tail.dirty.is_some_and(|since| now.since(since) >= self.options.sync_interval)
        })
    }

    /// Makes everything written safe.
    ///
    /// # Errors
    /// If the disk fails. What was not safe before is not there any more: what
    /// the kernel could not write it may have forgotten, and a second sync of the
    /// same file would say nothing.
    pub fn sync(&mut self) -> io::Result<()> {
        let Some(tail) = &mut self.tail else {
            return Ok(());
        };
        if tail.dirty.is_none() {
            return Ok(());
        }
        let synced = self.disk.sync(&tail.file);
        let synced = if tail.is_new { synced.and_then(|()| self.disk.sync_names()) } else { synced };
        if let Err(fault) = synced {
            self.roll_back();
            return Err(fault);
        }
        if tail.safe == 0 {
            let Tail { first, created_us, ended_us, .. } = *tail;
            self.segments.push_back(Segment { first, size: 0, created_us, ended_us });
        }
        (tail.safe, tail.dirty, tail.is_new) = (tail.written, None, false);
        if let Some(last) = self.segments.back_mut() {
            (last.size, last.ended_us) = (tail.safe, tail.ended_us);
        }
        self.safe = self.written;
        Ok(())
    }

    pub(super) fn close_tail(&mut self) -> io::Result<()> {
        self.sync()?;
        self.tail = None;
        Ok(())
    }

    /// Forgets what is not safe, with the file it is in.
    fn roll_back(&mut self) {
        self.written = self.safe;
        let Some(tail) = self.tail.take() else {
            return;
        };
        let cleared = match tail.safe {
            0 => self.disk.remove(&segment_name(tail.first)),
            safe => self.disk.cut(&tail.file, safe),
        };
        if let Err(fault) = cleared {
            log::warn!("event=spool_not_cut file={} error={:?}", segment_name(tail.first), fault.to_string());
        }
    }
}

fn begin_segment<D: Disk>(disk: &D, first: u64, now: Now) -> io::Result<Tail<D::File>> {
    let file = disk.create(&segment_name(first))?;
    let mut header = Vec::new();
    put_header(&mut header, first, now.unix_us);
    write_all(disk, &file, &header, 0)?;
    let written = header.len() as u64;
    let created_us = now.unix_us;
    Ok(Tail { file, first, created_us, ended_us: created_us, written, safe: 0, dirty: None, is_new: true })
}
