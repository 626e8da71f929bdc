//! The spool: exposures that the sink can't take now, on disk.
//!
//! ```text
//! state_dir/spool/
//!   00000000000000000000.spool     a segment: whole batches, each made whole by a mark behind it
//!   00000000000000013107.spool     the next, named by the number of its first exposure
//!   cursor                         how far it was emptied, and the books
//!
//!        cursor            read                     safe      written
//!   ───────┼─────────────────┼────────────────────────┼───────────┼──→ numbers
//!    settled   handed out, some settled   not yet       not synced
//! ```
//! Promises
//! - What [`Spool::sync`] has confirmed outlasts any process and the machine's
//!   power; until then the rings keep it. A batch is there whole or not at all.
//! - A batch's mark says how far its rings were read. Who opens the spool after a
//!   kill moves their heads there ([`Spool::take_marks`]), so that a batch is in
//!   the spool or in the rings and never in both.
//! - `number = delivered + rejected + corrupt + evicted` at the cursor, and what is
//!   between the cursor and `safe` is in the spool: the books are read off the
//!   disk and survive every process.
//! - What was delivered and not yet saved in the cursor at a kill comes again.
//! - The bounds (bytes, free disk, age) hold before a batch is written: the oldest
//!   segment goes and is counted, or, as set, the newest batch is refused and
//!   waits in the rings.
//! - Damage costs what it covers and is counted. A failing disk delays: nothing
//!   here loops, gives up for good or holds more in memory than a segment.

pub mod cursor;
pub mod disk;
pub mod segment;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::time::Duration;

use super::batch::Mark;
use crate::clock::Now;
use cursor::{Books, Cursor, Reason};
use disk::{Disk, read_full, write_all};
use segment::{
    Kind, Record, SEGMENT_HEADER_SIZE, find_record, parse_header, parse_marks, parse_record,
    parse_segment_name, put_header, put_marks, put_record, segment_name,
};

/// A segment is closed once it is this large.
pub const SEGMENT_SIZE: u64 = 16 * 1024 * 1024;
/// Written and not synced at most.
const UNSYNCED_SIZE_MAX: u64 = 1024 * 1024;
/// A part of a segment is tried to be read so often before it is taken as damaged.
const READ_ATTEMPT_COUNT: u32 = 30;
/// What is read at once.
const READ_SIZE: usize = 256 * 1024;

/// What happens at a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// The oldest segment goes, and is counted.
    #[default]
    Oldest,
    /// New batches are refused: they wait in the rings, which refuse in their turn.
    Newest,
}

/// The bounds.
#[derive(Debug, Clone)]
pub struct Options {
    /// All segments together.
    pub size_max: u64,
    /// What stays free on the file system.
    pub free_min: u64,
    /// How long an exposure is kept.
    pub age_max: Duration,
    /// What happens at `size_max` and `free_min`.
    pub when_full: WhenFull,
    /// What a loss of power may cost, and how long a batch waits to be safe.
    pub sync_interval: Duration,
    /// [`SEGMENT_SIZE`], but for tests.
    pub segment_size: u64,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A bound.
    #[error("the spool is full: {0}")]
    Full(&'static str),
    /// The disk.
    #[error("{0}")]
    Disk(#[from] io::Error),
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The number of its first exposure; names it from now on.
    pub number: u64,
    /// Exposures in it.
    pub count: u32,
    segment: u64,
    at: u64,
    size: usize,
}

/// What became of a chunk that was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The sink has it, but for so many exposures of it that it refused for good.
    Settled {
        /// Refused for good.
        rejected: u32,
    },
    /// It is to be handed out again.
    Again,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Out,
    Again,
    Settled { rejected: u32 },
    Corrupt,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    state: State,
    count: u32,
    /// Where it lies; a gap that damage left lies nowhere.
    place: Option<Place>,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    first: u64,
    /// Bytes that are safe.
    size: u64,
    created_us: i64,
    /// When the last of it was written.
    ended_us: i64,
}

/// The segment that grows; the last of the list once it has something safe.
#[derive(Debug)]
struct Tail<F> {
    file: F,
    first: u64,
    created_us: i64,
    ended_us: i64,
    /// With what is not synced.
    written: u64,
    /// Without.
    safe: u64,
    /// Since when it has what is not synced.
    dirty: Option<Now>,
    /// Its name is not durable yet.
    is_new: bool,
}

/// A segment in memory, for handing out.
#[derive(Debug)]
struct Loaded {
    first: u64,
    bytes: Vec<u8>,
    /// Where the next record begins.
    at: usize,
}

/// The spool.
pub struct Spool<D: Disk> {
    disk: D,
    options: Options,
    cursor: Cursor<D::File>,
    books: Books,
    /// The books as the disk has them.
    saved: Books,
    segments: VecDeque<Segment>,
    tail: Option<Tail<D::File>>,
    /// Up to here everything is synced.
    safe: u64,
    /// Up to here everything is written.
    written: u64,
    /// The next to be handed out for the first time.
    read: u64,
    /// What was handed out and is at or above the cursor, by number.
    entries: BTreeMap<u64, Entry>,
    /// How many of them are to be handed out again.
    again_count: usize,
    loaded: Option<Loaded>,
    read_attempts: u32,
    /// Rings' positions found at the opening.
    marks: Vec<Mark>,
    buffer: Vec<u8>,
}

impl<D: Disk> Spool<D> {
    /// Opens what is there: recomputes sizes, cuts what was not finished, removes
    /// what was emptied.
    ///
    /// # Errors
    /// If the disk fails; to be tried again.
    pub fn open(disk: D, options: Options) -> io::Result<Spool<D>> {
        let (cursor, books) = Cursor::open(&disk)?;
        let mut names: Vec<u64> = Vec::new();
        for (name, _) in disk.list()? {
            names.extend(parse_segment_name(&name));
        }
        names.sort_unstable();
        let mut spool = Spool {
            disk,
            options,
            cursor,
            books: books.unwrap_or_default(),
            saved: books.unwrap_or_default(),
            segments: VecDeque::new(),
            tail: None,
            safe: 0,
            written: 0,
            read: 0,
            entries: BTreeMap::new(),
            again_count: 0,
            loaded: None,
            read_attempts: 0,
            marks: Vec::new(),
            buffer: Vec::new(),
        };
        spool.recover(&names)?;
        Ok(spool)
    }

    fn recover(&mut self, names: &[u64]) -> io::Result<()> {
        // Whoever wrote it may have been killed before it was durable, and what it
        // says is empty goes now.
        self.cursor.sync(&self.disk)?;
        let mut end = self.books.number();
        for (index, &first) in names.iter().enumerate() {
            let next = names.get(index + 1).copied();
            // The marks of a batch that its ring does not know of yet are near the end.
            let is_near_end = index + 2 >= names.len();
            if next.is_some_and(|next| next <= self.books.number()) && !is_near_end {
                self.remove_segment(first);
                continue;
            }
            let name = segment_name(first);
            let file = self.disk.open(&name)?;
            let mut segment = Segment { first, size: 0, created_us: 0, ended_us: 0 };
            if is_near_end {
                let bytes = self.read_whole(&file, None)?;
                let found = look_through(&bytes, first, next.unwrap_or(u64::MAX));
                let header = parse_header(&bytes).filter(|(of, _)| *of == first);
                segment.created_us = header.map_or(0, |(_, created_us)| created_us);
                segment.size = found.size as u64;
                segment.ended_us = found.ended_us.max(segment.created_us);
                for mark in found.marks {
                    self.marks.retain(|older| (older.instance, older.ring) != (mark.instance, mark.ring));
                    self.marks.push(mark);
                }
                if segment.size < bytes.len() as u64 {
                    log::warn!(
                        "event=spool_tail_cut file={name} kept_bytes={} cut_bytes={}",
                        segment.size,
                        bytes.len() as u64 - segment.size
                    );
                    self.disk.cut(&file, segment.size)?;
                }
                // It may have been written by a process that was killed before it
                // synced, or whose sync failed: what the kernel then forgot to write
                // can still be read, and is written by us.
                if next.is_none() {
                    write_all(&self.disk, &file, &bytes[..segment.size as usize], 0)?;
                }
                self.disk.sync(&file)?;
                end = end.max(found.end);
            } else {
                let mut header = [0; SEGMENT_HEADER_SIZE];
                let size = read_full(&self.disk, &file, &mut header, 0)?;
                segment.created_us = parse_header(&header[..size]).map_or(0, |(_, created_us)| created_us);
                segment.size = self.size_on_disk(&name)?;
                segment.ended_us = segment.created_us;
            }
            if segment.size == 0 || (next.is_none() && end <= first) {
                // Begun, and nothing in it.
                self.remove_segment(first);
                continue;
            }
            self.segments.push_back(segment);
        }
        if self.saved == Books::default()
            && let Some(first) = self.segments.front().map(|segment| segment.first)
        {
            // No cursor, or none that is sound: what is there comes again.
            self.books.delivered = first;
        }
        if let Some(first) = self.segments.front().map(|segment| segment.first)
            && first > self.books.number()
        {
            let gap = first - self.books.number();
            log::error!("event=spool_segments_missing exposures={gap} removed by somebody else");
            self.books.corrupt += gap;
        }
        self.safe = end.max(self.books.number());
        self.written = self.safe;
        self.read = self.books.number();
        self.disk.sync_names()?;
        self.remove_emptied();
        Ok(())
    }

    fn size_on_disk(&self, name: &str) -> io::Result<u64> {
        let list = self.disk.list()?;
        let found = list.into_iter().find(|(other, _)| other == name);
        found.map(|(_, size)| size).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// How far rings were read for what is in the spool, as the opening found it:
    /// what lies before is not to be read again.
    pub fn take_marks(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.marks)
    }

    /// What became of everything below the cursor.
    #[must_use]
    pub fn books(&self) -> Books {
        self.books
    }

    /// Exposures that were ever safe in it.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.safe
    }

    /// Exposures in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.safe - self.books.number()
    }

    /// Bytes of its segments.
    #[must_use]
    pub fn size(&self) -> u64 {
        let tail = self.tail.as_ref().map_or(0, |tail| tail.written - tail.safe);
        self.segments.iter().map(|segment| segment.size).sum::<u64>() + tail
    }

    /// The most they may be.
    #[must_use]
    pub fn size_max(&self) -> u64 {
        self.options.size_max
    }

    /// When its oldest exposure was written, about; `None` if it is empty.
    #[must_use]
    pub fn oldest_us(&self) -> Option<i64> {
        let oldest = self.segments.front().filter(|_| self.count() > 0)?;
        Some(oldest.created_us)
    }

    /// Chunks handed out and not settled.
    #[must_use]
    pub fn out_count(&self) -> usize {
        self.entries.values().filter(|entry| entry.state == State::Out).count()
    }

    // ── In ─────────────────────────────────────────────────────────────────

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

    fn close_tail(&mut self) -> io::Result<()> {
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
            log::warn!("event=spool_not_cut file={} error=\"{fault}\"", segment_name(tail.first));
        }
    }

    fn make_room(&mut self, size: u64, now: Now) -> Result<(), Refusal> {
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

    // ── Out ────────────────────────────────────────────────────────────────

    /// A chunk that was appended is under way already: it is not handed out,
    /// unless it comes back. To be called once it is safe.
    pub fn hand_out(&mut self, place: Place) {
        debug_assert!(place.number + u64::from(place.count) <= self.safe, "only what is safe is handed out");
        if place.number >= self.books.number() {
            let entry = Entry { state: State::Out, count: place.count, place: Some(place) };
            self.entries.insert(place.number, entry);
        }
    }

    /// Hands out the next chunk: its bytes are put into `out`, whose content goes.
    /// `None` if there is none that is safe.
    ///
    /// # Errors
    /// If the disk fails; to be tried again after a while.
    pub fn next(&mut self, out: &mut Vec<u8>) -> io::Result<Option<Place>> {
        out.clear();
        while self.again_count > 0 {
            let (number, entry) = self
                .entries
                .iter_mut()
                .find(|(_, entry)| entry.state == State::Again)
                .expect("as many as are counted");
            let place = entry.place.expect("only what lies somewhere was handed out");
            let file = self.disk.open(&segment_name(place.segment))?;
            out.resize(place.size, 0);
            let size = match read_full(&self.disk, &file, out, place.at) {
                Ok(size) => size,
                Err(fault) if self.read_attempts < READ_ATTEMPT_COUNT => {
                    self.read_attempts += 1;
                    return Err(fault);
                }
                Err(_) => 0,
            };
            self.read_attempts = 0;
            self.again_count -= 1;
            let found = parse_record(&out[..size]).filter(|record| record.number == *number);
            match found.map(|record| record.payload.len()) {
                Some(payload_size) => {
                    entry.state = State::Out;
                    out.copy_within(
                        segment::RECORD_HEADER_SIZE..segment::RECORD_HEADER_SIZE + payload_size,
                        0,
                    );
                    out.truncate(payload_size);
                    return Ok(Some(place));
                }
                None => {
                    entry.state = State::Corrupt;
                    log::error!("event=spool_damaged number={number} exposures={} skipped", entry.count);
                }
            }
        }
        self.next_unread(out)
    }

    fn next_unread(&mut self, out: &mut Vec<u8>) -> io::Result<Option<Place>> {
        // What was under way when it was written may be settled and forgotten before
        // anything was read.
        self.read = self.read.max(self.books.number());
        while self.read < self.safe {
            if let Some(entry) = self.entries.get(&self.read) {
                self.read += u64::from(entry.count);
                continue;
            }
            let index = self.segments.partition_point(|segment| segment.first <= self.read);
            let Some(index) = index.checked_sub(1) else {
                // Below the first segment: it was removed under our hands.
                let first = self.segments.front().map_or(self.safe, |segment| segment.first);
                self.note_gap(first);
                continue;
            };
            let segment = self.segments[index];
            let end = self.segments.get(index + 1).map_or(self.safe, |next| next.first);
            self.load(segment)?;
            let loaded = self.loaded.as_mut().expect("loaded just now");
            let found = match parse_record(loaded.bytes.get(loaded.at..).unwrap_or_default()) {
                Some(record) => Some((loaded.at, record)),
                None => find_record(&loaded.bytes, loaded.at, self.read..end),
            };
            let Some((at, record)) = found else {
                self.note_gap(end);
                continue;
            };
            if record.number > self.read && record.number < end {
                let number = record.number;
                loaded.at = at;
                self.note_gap(number);
                continue;
            }
            let is_next = record.kind == Kind::Chunk
                && record.number == self.read
                && record.number + u64::from(record.count) <= end;
            loaded.at = at + record.size;
            if !is_next {
                continue;
            }
            let Record { number, count, size, .. } = record;
            out.extend_from_slice(record.payload);
            let place = Place { number, count, segment: segment.first, at: at as u64, size };
            self.read += u64::from(count);
            self.entries.insert(number, Entry { state: State::Out, count, place: Some(place) });
            return Ok(Some(place));
        }
        self.loaded = None;
        Ok(None)
    }

    /// Has the safe part of a segment in memory.
    fn load(&mut self, segment: Segment) -> io::Result<()> {
        let (mut bytes, at) = match self.loaded.take() {
            Some(loaded) if loaded.first == segment.first && loaded.bytes.len() as u64 >= segment.size => {
                self.loaded = Some(loaded);
                return Ok(());
            }
            Some(loaded) if loaded.first == segment.first => (loaded.bytes, loaded.at),
            Some(mut loaded) => {
                loaded.bytes.clear();
                (loaded.bytes, SEGMENT_HEADER_SIZE)
            }
            None => (Vec::new(), SEGMENT_HEADER_SIZE),
        };
        // One that somebody removed or cut is damaged where it is missing.
        let read = match self.disk.open(&segment_name(segment.first)) {
            Ok(file) => self.read_on(&file, &mut bytes, Some(segment.size)),
            Err(fault) => Err(fault),
        };
        match read {
            Ok(()) => self.read_attempts = 0,
            Err(fault) if self.read_attempts < READ_ATTEMPT_COUNT => {
                self.read_attempts += 1;
                self.loaded = Some(Loaded { first: segment.first, bytes, at });
                return Err(fault);
            }
            Err(fault) => {
                log::error!("event=spool_unreadable file={} error=\"{fault}\"", segment_name(segment.first));
                self.read_attempts = 0;
                let step =
                    if fault.kind() == io::ErrorKind::NotFound { SEGMENT_SIZE as usize } else { READ_SIZE };
                let size = (bytes.len() + step).min(segment.size as usize);
                bytes.resize(size, 0);
                self.loaded = Some(Loaded { first: segment.first, bytes, at });
                return self.load(segment);
            }
        }
        bytes.resize(segment.size as usize, 0);
        self.loaded = Some(Loaded { first: segment.first, bytes, at });
        Ok(())
    }

    fn read_whole(&self, file: &D::File, size: Option<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_on(file, &mut bytes, size).map(|()| bytes)
    }

    /// Reads what follows `bytes` in its file, up to `size` or the end.
    fn read_on(&self, file: &D::File, bytes: &mut Vec<u8>, size: Option<u64>) -> io::Result<()> {
        loop {
            let begin = bytes.len();
            let left = size.map_or(usize::MAX, |size| (size as usize).saturating_sub(begin));
            if left == 0 {
                return Ok(());
            }
            bytes.resize(begin + left.min(READ_SIZE), 0);
            let wanted = bytes.len() - begin;
            let read = read_full(&self.disk, file, &mut bytes[begin..], begin as u64);
            bytes.truncate(begin + *read.as_ref().unwrap_or(&0));
            if read? < wanted {
                return Ok(());
            }
        }
    }

    /// Nothing can be read between here and `end`: what is not under way anyway is corrupt.
    fn note_gap(&mut self, end: u64) {
        let mut lost = 0;
        while self.read < end {
            if let Some(entry) = self.entries.get(&self.read) {
                self.read += u64::from(entry.count);
                continue;
            }
            let known = self.entries.range(self.read..end).next().map_or(end, |(number, _)| *number);
            let count = u32::try_from(known - self.read).unwrap_or(u32::MAX);
            self.entries.insert(self.read, Entry { state: State::Corrupt, count, place: None });
            lost += u64::from(count);
            self.read += u64::from(count);
        }
        log::error!("event=spool_damaged number={end} exposures={lost} skipped before it");
    }

    /// What became of a chunk that was handed out; one that went at a bound
    /// meanwhile is no longer known.
    pub fn settle(&mut self, number: u64, fate: Fate) {
        let Some(entry) = self.entries.get_mut(&number).filter(|entry| entry.state == State::Out) else {
            return;
        };
        entry.state = match fate {
            Fate::Settled { rejected } => State::Settled { rejected: rejected.min(entry.count) },
            Fate::Again => {
                self.again_count += 1;
                State::Again
            }
        };
    }

    /// Moves the cursor over what is settled, saves it, and removes the segments
    /// that are empty. The books change only here and at a bound.
    ///
    /// # Errors
    /// If the disk fails: the cursor stays where it was.
    pub fn advance(&mut self) -> io::Result<()> {
        let mut books = self.books;
        let mut settled = 0;
        for (number, entry) in &self.entries {
            let count = u64::from(entry.count);
            match entry.state {
                _ if *number != books.number() => break,
                State::Settled { rejected } => {
                    books.rejected += u64::from(rejected);
                    books.delivered += count - u64::from(rejected);
                }
                State::Corrupt => books.corrupt += count,
                State::Out | State::Again => break,
            }
            settled += 1;
        }
        if books != self.saved {
            self.cursor.save(&self.disk, &books)?;
            (self.books, self.saved) = (books, books);
            for _ in 0..settled {
                self.entries.pop_first();
            }
        }
        let is_emptied = |segments: &VecDeque<Segment>| {
            let end = segments.get(1).map_or(self.safe, |next| next.first);
            segments.front().is_some_and(|_| end <= self.books.number())
        };
        if is_emptied(&self.segments) {
            self.cursor.sync(&self.disk)?;
            self.remove_emptied();
        }
        Ok(())
    }

    /// Removes segments below the cursor, which is saved. The last is kept as long
    /// as it is written to.
    fn remove_emptied(&mut self) {
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

    fn remove_segment(&self, first: u64) {
        let name = segment_name(first);
        if let Err(fault) = self.disk.remove(&name)
            && fault.kind() != io::ErrorKind::NotFound
        {
            log::warn!("event=spool_not_removed file={name} error=\"{fault}\" the next start tries again");
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

/// Looks into the spool of whoever has it, from `from` or the cursor on, and
/// changes nothing; gives the number behind what it has shown.
///
/// # Errors
/// If the directory can't be read, or `each` fails.
pub fn peek(directory: &Path, from: u64, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
    let read = |name: &str| match std::fs::read(directory.join(name)) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    };
    let mut names: Vec<u64> = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.extend(entry?.file_name().to_str().and_then(parse_segment_name));
    }
    names.sort_unstable();
    let books = cursor::parse_cursor(&read(cursor::CURSOR_NAME)?);
    let mut number = from.max(books.map_or(0, |books| books.number()));
    for (index, &first) in names.iter().enumerate() {
        let end = names.get(index + 1).copied().unwrap_or(u64::MAX);
        if end <= number {
            continue;
        }
        let bytes = read(&segment_name(first))?;
        let mut at = SEGMENT_HEADER_SIZE;
        while let Some((found, record)) = find_record(&bytes, at, number.min(first)..end) {
            at = found + record.size;
            let behind = record.number + u64::from(record.count);
            if record.kind == Kind::Chunk && record.number >= number && behind <= end {
                each(record.payload)?;
                number = behind;
            }
        }
    }
    Ok(number)
}

/// What a segment holds as far as it was finished.
struct Found {
    /// Up to behind its last mark.
    size: usize,
    /// The number there.
    end: u64,
    /// When it was written.
    ended_us: i64,
    /// How far each ring was read, later ones behind earlier ones.
    marks: Vec<Mark>,
}

/// Looks through a segment whose next one begins with `next`. Damage in between is passed
/// over: what it covers is counted when it is handed out.
fn look_through(bytes: &[u8], first: u64, next: u64) -> Found {
    let size = SEGMENT_HEADER_SIZE.min(bytes.len());
    let mut found = Found { size, end: first, ended_us: 0, marks: Vec::new() };
    let (mut at, mut number) = (SEGMENT_HEADER_SIZE, first);
    while at < bytes.len() {
        let record = match parse_record(&bytes[at..]) {
            Some(record) if (number..=next).contains(&record.number) => Some((at, record)),
            _ => find_record(bytes, at + 8, number..next),
        };
        let Some((found_at, record)) = record else {
            break;
        };
        number = record.number + u64::from(record.count);
        at = found_at + record.size;
        // A file that could not be cut may hold what its successor holds too.
        if number > next {
            break;
        }
        if record.kind == Kind::Mark {
            (found.size, found.end, found.ended_us) = (at, record.number, record.time_us);
            found.marks.extend(parse_marks(record.payload));
        }
    }
    found
}
