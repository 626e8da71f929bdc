//! Out: chunks are handed out in order, come back settled or to be handed out
//! again, and move the cursor.

use std::collections::VecDeque;
use std::io;

use super::disk::{Disk, read_full};
use super::segment::{
    Kind, RECORD_HEADER_SIZE, Record, SEGMENT_HEADER_SIZE, find_record, parse_record, segment_name,
};
use super::{Entry, Fate, Loaded, Place, SEGMENT_SIZE, Segment, Spool, State};

/// A part of a segment is tried to be read so often before it is taken as damaged.
const READ_ATTEMPT_COUNT: u32 = 30;
/// What is read at once.
const READ_SIZE: usize = 256 * 1024;

impl<D: Disk> Spool<D> {
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
                    out.copy_within(RECORD_HEADER_SIZE..RECORD_HEADER_SIZE + payload_size, 0);
                    out.truncate(payload_size);
                    return Ok(Some(place));
                }
                None => {
                    entry.state = State::Corrupt;
                    log::error!("event=spool_damaged number={number} skipped={}", entry.count);
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
                log::error!(
                    "event=spool_unreadable file={} error={:?}",
                    segment_name(segment.first),
                    fault.to_string()
                );
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

    /// Reads what follows `bytes` in its file, up to `size` or the end.
    pub(super) fn read_on(&self, file: &D::File, bytes: &mut Vec<u8>, size: Option<u64>) -> io::Result<()> {
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
        log::error!("event=spool_damaged number={end} skipped={lost}");
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
}
