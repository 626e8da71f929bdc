//! The file sink: length-delimited exposures in files that any protobuf reader
//! takes, bounded in size and age.
//!
//! ```text
//! exposures-20261122T083038Z-0000.pb         complete: never changes again
//! exposures-20261122T084038Z-0000.pb.part    current: grows, locked by its logger
//! ```
//! Promises
//! - A batch is confirmed when the kernel has it; synced every `sync_interval`.
//! - A complete file ends behind a whole exposure. One that a dead logger left
//!   is cut behind its last whole exposure and then renamed into place.
//! - A refused write (no space, say) is taken up where it stopped: nothing is
//!   lost and nothing is doubled.
//! - Past `size_max` or `age_max` the oldest complete file goes, and the
//!   exposures in it are counted. What others remove is not counted.
//! - Two loggers (an orphan's last hour, an upgrade) may share a directory: each
//!   writes its own current file, under a lock.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, UNIX_EPOCH};

use super::Counts;
use super::kinds::Sink;
use crate::clock::Now;
use crate::exposure::stream::Messages;

/// Of a complete file's name.
pub const FILE_PREFIX: &str = "exposures-";
/// Of a complete file's name.
pub const FILE_SUFFIX: &str = ".pb";
/// Behind a complete file's name while it is the current one.
pub const PART_SUFFIX: &str = ".part";

/// How often the bounds are looked at when no file completes.
const BOUNDS_INTERVAL: Duration = Duration::from_secs(10);
/// Refusals in a row, other than for want of space, after which a file is left
/// for a new one.
const REFUSAL_COUNT_MAX: u32 = 8;
/// Files that may begin in one second.
const NAME_COUNT_MAX: u32 = 10_000;
/// Given to the kernel at once: many kernels don't let anybody else have the CPU
/// within a system call, and a worker's request waits meanwhile (a batch of 1 MiB
/// has been seen to take 0.4 ms).
const WRITE_SIZE: usize = 64 * 1024;

/// Where and how much.
#[derive(Debug, Clone)]
pub struct Options {
    /// Made if it is not there.
    pub directory: PathBuf,
    /// A file is completed before it would grow beyond this.
    pub file_size_max: u64,
    /// A file is completed when its first exposure is this old.
    pub file_age_max: Duration,
    /// All files together.
    pub size_max: u64,
    /// How long a complete file is kept.
    pub age_max: Duration,
    /// What the machine's power loss may cost.
    pub sync_interval: Duration,
}

/// The file that grows.
#[derive(Debug)]
struct Current {
    file: File,
    /// Its name once it is complete.
    name: String,
    begun: Now,
    /// Bytes of whole batches.
    size: u64,
    /// Exposures in them.
    count: u64,
    /// Bytes behind them of a batch whose write was refused half way.
    partial: u64,
    /// Since when it holds what is not synced.
    dirty: Option<Now>,
    refusals: u32,
}

/// A complete file.
#[derive(Debug, Clone, Copy)]
struct Kept {
    size: u64,
    completed_us: i64,
    /// Exposures in it, where we know without reading it.
    count: Option<u64>,
}

/// The sink.
#[derive(Debug)]
pub struct FileSink {
    options: Options,
    counts: Arc<Counts>,
    current: Option<Current>,
    /// Complete files by name, and so by age.
    kept: BTreeMap<String, Kept>,
    /// The directory is there, and what dead loggers left in it is complete.
    recovered: bool,
    bounds_checked: Option<Now>,
}

impl FileSink {
    /// A sink that touches nothing before its first tick.
    #[must_use]
    pub fn new(options: Options, counts: Arc<Counts>) -> FileSink {
        FileSink {
            options,
            counts,
            current: None,
            kept: BTreeMap::new(),
            recovered: false,
            bounds_checked: None,
        }
    }

    fn note_error(&self, what: &str, name: &str, fault: &io::Error) {
        self.counts.errors.fetch_add(1, Relaxed);
        log::error!("event=sink_error doing={what} file={name:?} error={:?}", fault.to_string());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.options.directory.join(name)
    }

    fn part_path(&self, name: &str) -> PathBuf {
        self.options.directory.join(format!("{name}{PART_SUFFIX}"))
    }

    /// Makes the directory, completes what dead loggers left, and looks at what is kept.
    fn recover(&mut self, now: Now) -> io::Result<()> {
        fs::create_dir_all(&self.options.directory)?;
        for entry in fs::read_dir(&self.options.directory)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            if let Some(name) = name.strip_suffix(PART_SUFFIX)
                && is_complete_name(name)
                && self.current.as_ref().is_none_or(|current| current.name != name)
            {
                self.recover_part(name)?;
            }
        }
        self.recovered = true;
        self.check_bounds(now);
        Ok(())
    }

    fn recover_part(&mut self, name: &str) -> io::Result<()> {
        let path = self.part_path(name);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        if !lock(&file, &path)? {
            return Ok(());
        }
        let size = file.metadata()?.len();
        let mut messages = Messages::new(&file);
        messages.skip_all()?;
        let (whole_size, count) = (messages.whole_size(), messages.count());
        if whole_size < size {
            log::warn!(
                "event=torn_file_cut file={name} kept_bytes={whole_size} cut_bytes={} exposures={count}",
                size - whole_size
            );
            file.set_len(whole_size)?;
        }
        if whole_size == 0 {
            return fs::remove_file(&path);
        }
        file.sync_data()?;
        self.put_in_place(name)?;
        self.remember(name, whole_size, count, &file);
        Ok(())
    }

    fn put_in_place(&self, name: &str) -> io::Result<()> {
        fs::rename(self.part_path(name), self.path(name))?;
        File::open(&self.options.directory)?.sync_all()
    }

    fn remember(&mut self, name: &str, size: u64, count: u64, file: &File) {
        let completed_us = file.metadata().map_or(0, |metadata| modified_us(&metadata));
        let kept = Kept { size, completed_us, count: Some(count) };
        self.kept.insert(name.to_owned(), kept);
        self.counts.files.store(self.kept.len() as u64, Relaxed);
    }

    /// Begins a file: named by the second, numbered within it.
    fn begin(&self, now: Now) -> io::Result<Current> {
        for number in 0..NAME_COUNT_MAX {
            let name = format!("{FILE_PREFIX}{}-{number:04}{FILE_SUFFIX}", utc(now.unix_us / 1_000_000));
            let part_path = self.part_path(&name);
            let opened =
                OpenOptions::new().read(true).write(true).create_new(true).mode(0o640).open(&part_path);
            let file = match opened {
                Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened?,
            };
            // The part's name is ours now, so nobody else can make the complete
            // one; it may have been made before.
            if self.path(&name).exists() {
                fs::remove_file(&part_path)?;
                continue;
            }
            if lock(&file, &part_path)? {
                return Ok(Current {
                    file,
                    name,
                    begun: now,
                    size: 0,
                    count: 0,
                    partial: 0,
                    dirty: None,
                    refusals: 0,
                });
            }
        }
        Err(io::Error::other("no free name for a file within this second"))
    }

    /// Completes the current file, if there is one: cut, synced, put in place.
    /// One that can't be is left as it is for the next recovery.
    fn complete(&mut self, now: Now) {
        let Some(current) = self.current.take() else {
            return;
        };
        let name = current.name.as_str();
        let cut = match current.partial {
            0 => Ok(()),
            _ => current.file.set_len(current.size),
        };
        let completed = cut.and_then(|()| current.file.sync_data()).and_then(|()| match current.size {
            0 => fs::remove_file(self.part_path(name)),
            _ => self.put_in_place(name),
        });
        match completed {
            Ok(()) if current.size > 0 => self.remember(name, current.size, current.count, &current.file),
            Ok(()) => {}
            Err(fault) => {
                self.note_error("complete", name, &fault);
                self.recovered = false;
            }
        }
        self.check_bounds(now);
    }

    /// Looks at what is there, others may have removed some, and lets the oldest
    /// go while there is too much.
    fn check_bounds(&mut self, now: Now) {
        self.bounds_checked = Some(now);
        if let Err(fault) = self.list() {
            self.note_error("list", &self.options.directory.to_string_lossy(), &fault);
            return;
        }
        let current_size = self.current.as_ref().map_or(0, |current| current.size);
        let mut size = current_size + self.kept.values().map(|kept| kept.size).sum::<u64>();
        while let Some((name, kept)) = self.kept.first_key_value() {
            let age_us = now.unix_us.saturating_sub(kept.completed_us);
            let too_old = i128::from(age_us) > self.options.age_max.as_micros() as i128;
            if size <= self.options.size_max && !too_old {
                break;
            }
            let (name, kept) = (name.clone(), *kept);
            if !self.evict(&name, kept) {
                break;
            }
            size -= kept.size;
            self.kept.remove(&name);
        }
        self.counts.files.store(self.kept.len() as u64, Relaxed);
    }

    fn evict(&self, name: &str, kept: Kept) -> bool {
        let path = self.path(name);
        let count = kept.count.map_or_else(|| count_exposures(&path), Ok);
        let removed = count.and_then(|count| fs::remove_file(&path).map(|()| count));
        match removed {
            Ok(count) => {
                self.counts.evicted.fetch_add(count, Relaxed);
                log::warn!("event=file_evicted file={name} exposures={count} bytes={}", kept.size);
                true
            }
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => true,
            Err(fault) => {
                self.note_error("evict", name, &fault);
                false
            }
        }
    }

    fn list(&mut self) -> io::Result<()> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.options.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if !is_complete_name(&name) {
                continue;
            }
            let metadata = match entry.metadata() {
                Err(fault) if fault.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            let kept = Kept {
                size: metadata.len(),
                completed_us: modified_us(&metadata),
                count: self.kept.get(&name).and_then(|kept| kept.count),
            };
            found.insert(name, kept);
        }
        self.kept = found;
        Ok(())
    }

    /// Syncs what is due, and notices a file that was removed under our hands.
    fn sync(&mut self, now: Now) {
        let Some(current) = &mut self.current else {
            return;
        };
        let due = current.dirty.is_some_and(|since| now.since(since) >= self.options.sync_interval);
        if !due {
            return;
        }
        current.dirty = None;
        let synced = current.file.sync_data();
        let removed = current.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
        let name = current.name.clone();
        if let Err(fault) = synced {
            // What the kernel could not write it may have forgotten: the next
            // sync of the same file would say nothing. A new file begins.
            self.note_error("sync", &name, &fault);
            self.complete(now);
        }
        if removed {
            log::error!("event=file_removed file={name} by=stranger");
            self.counts.errors.fetch_add(1, Relaxed);
            self.current = None;
            self.recovered = false;
        }
    }

    fn is_too_old(&self, now: Now) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.size > 0 && now.since(current.begun) >= self.options.file_age_max)
    }
}

impl Sink for FileSink {
    fn write(&mut self, bytes: &[u8], count: u64, now: Now) -> io::Result<()> {
        if !self.recovered {
            self.recover(now)?;
        }
        let size = bytes.len() as u64;
        let full = self.current.as_ref().is_some_and(|current| {
            current.partial == 0 && current.size > 0 && current.size + size > self.options.file_size_max
        });
        if full {
            self.complete(now);
        }
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.begin(now).inspect_err(|_| self.recovered = false)?,
        };
        let written = write_on(&mut current, bytes);
        let failing = match &written {
            Ok(()) => false,
            Err(fault) if fault.kind() == io::ErrorKind::StorageFull => false,
            Err(_) => {
                current.refusals += 1;
                current.refusals >= REFUSAL_COUNT_MAX
            }
        };
        if written.is_ok() {
            current.size += size;
            current.count += count;
            (current.partial, current.refusals) = (0, 0);
            current.dirty = current.dirty.or(Some(now));
        }
        self.current = Some(current);
        if failing {
            self.complete(now);
        }
        written
    }

    fn tick(&mut self, now: Now) -> Duration {
        if !self.recovered
            && let Err(fault) = self.recover(now)
        {
            log::debug!("event=sink_not_ready error={:?}", fault.to_string());
            return Duration::from_secs(1);
        }
        self.sync(now);
        if self.is_too_old(now) {
            self.complete(now);
        }
        if self.bounds_checked.is_none_or(|at| now.since(at) >= BOUNDS_INTERVAL) {
            self.check_bounds(now);
        }
        match &self.current {
            None => BOUNDS_INTERVAL,
            Some(current) => {
                let sync_due = current.dirty.map(|since| since.plus(self.options.sync_interval));
                let age_due = current.begun.plus(self.options.file_age_max);
                let due = sync_due.map_or(age_due.since(now), |due| due.since(now).min(age_due.since(now)));
                due.clamp(Duration::from_millis(1), BOUNDS_INTERVAL)
            }
        }
    }

    fn finish(&mut self, now: Now) {
        self.complete(now);
    }
}

/// Goes on where the last refusal stopped.
fn write_on(current: &mut Current, bytes: &[u8]) -> io::Result<()> {
    while (current.partial as usize) < bytes.len() {
        let rest = &bytes[current.partial as usize..];
        let piece = &rest[..rest.len().min(WRITE_SIZE)];
        match current.file.write_at(piece, current.size + current.partial) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(size) => current.partial += size as u64,
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

/// Takes a file's lock; false if another has it, or the file is no longer in its place.
fn lock(file: &File, path: &Path) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(fault)) => return Err(fault),
    }
    let ours = file.metadata()?;
    Ok(fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (ours.dev(), ours.ino())))
}

fn is_complete_name(name: &str) -> bool {
    name.starts_with(FILE_PREFIX) && name.ends_with(FILE_SUFFIX)
}

fn count_exposures(path: &Path) -> io::Result<u64> {
    let mut messages = Messages::new(File::open(path)?);
    messages.skip_all()?;
    Ok(messages.count())
}

fn modified_us(metadata: &fs::Metadata) -> i64 {
    let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
    modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// `20261122T083038Z`: sorts by time, and any file system takes it.
fn utc(unix_s: i64) -> String {
    let [year, month, day, hour, minute, second] = civil(unix_s);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Year, month, day, hour, minute and second of a Unix time, in UTC; times
/// before 1970 count as its begin.
pub(crate) fn civil(unix_s: i64) -> [i64; 6] {
    let (mut days, second) = (unix_s.max(0) / 86_400, unix_s.max(0) % 86_400);
    let is_leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    // By whole calendars of 400 years first, so that no time takes long.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + i64::from(is_leap(year)) {
        days -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for size in [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < size {
            break;
        }
        days -= size;
        month += 1;
    }
    [year, month, days + 1, second / 3600, second / 60 % 60, second % 60]
}

#[cfg(test)]
mod tests;
