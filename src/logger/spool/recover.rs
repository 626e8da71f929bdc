//! What was there: the opening after any end, and a look from outside.

use std::io;
use std::path::Path;

use super::cursor::{self, Books};
use super::disk::{Disk, read_full, write_all};
use super::segment::{
    Kind, SEGMENT_HEADER_SIZE, find_record, parse_header, parse_marks, parse_record, parse_segment_name,
    segment_name,
};
use super::{Segment, Spool};
use crate::logger::batch::Mark;

impl<D: Disk> Spool<D> {
    pub(super) fn recover(&mut self, names: &[u64]) -> io::Result<()> {
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
            log::error!("event=spool_segments_missing exposures={gap}");
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

    fn read_whole(&self, file: &D::File, size: Option<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_on(file, &mut bytes, size).map(|()| bytes)
    }
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
