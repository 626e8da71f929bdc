//! Memory that processes share: rings, metrics and last words as words that
//! everybody maps, the plan as bytes that nobody can change any more.
//!
//! Invariants
//! - A mapping lives as long as its [`Region`]; what it hands out borrows it.
//! - Shared words are atomics in every process that maps them, so no access is
//!   a data race, whatever the others do.
//! - Bytes are handed out only of a memfd that the kernel has sealed against
//!   writing, shrinking and growing: nobody can change them, not even we.
//! - A file's pages are allocated when it is made: a full tmpfs refuses then,
//!   and does not kill with SIGBUS at some later store.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl, posix_fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mlock, mmap, mmap_anonymous, munmap};

/// The step in which pages are touched where the kernel can't populate at once.
const PAGE_SIZE: usize = 4096;
/// What makes a memfd's bytes immutable.
const SEALS: SealFlag = SealFlag::F_SEAL_WRITE.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW);

/// How long somebody else's test of a lock may take.
const LOCK_ATTEMPT_COUNT: usize = 5;
const LOCK_ATTEMPT_WAIT: Duration = Duration::from_millis(2);

/// What the mapping is made of, and so what it may hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Readable and writable by every process that maps it.
    Words,
    /// Sealed: readable, and the same for ever.
    Bytes,
}

/// One mapping of shared memory.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    size: usize,
    content: Content,
}

// SAFETY: a Region is an address and a size; the memory behind is reached only
// as atomics or as immutable bytes, and is unmapped once, by `drop`.
unsafe impl Send for Region {}
// SAFETY: as above: `&Region` gives atomics or immutable bytes, nothing else.
unsafe impl Sync for Region {}

impl Region {
    /// Makes a file of `size` bytes, all zero and all allocated, readable by the
    /// owner alone, and maps it shared. Words, so `size` is a multiple of 8.
    ///
    /// # Errors
    /// If the file exists already, or the system refuses it or its size.
    pub fn create_file(path: &Path, size: usize) -> io::Result<Region> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let made = allocate(&file, size).and_then(|()| Region::of_file(&file));
        if made.is_err() {
            // What could not be made whole must not be found by anybody.
            let _ = std::fs::remove_file(path);
        }
        made
    }

    /// Maps a file that exists, shared, whole and writable.
    ///
    /// # Errors
    /// If it can't be opened or mapped, or is empty.
    pub fn open_file(path: &Path) -> io::Result<Region> {
        Region::of_file(&OpenOptions::new().read(true).write(true).open(path)?)
    }

    /// Maps a file that exists, shared and whole, to be looked at: what is mapped
    /// can't be written, and a store to it ends the process.
    ///
    /// # Errors
    /// If it can't be opened or mapped, or is empty.
    pub fn view_file(path: &Path) -> io::Result<Region> {
        Region::map_words(&File::open(path)?, ProtFlags::PROT_READ)
    }

    /// Opens a file, takes its lock and maps it: for the one who is to be its
    /// only writer. The mapping holds the open file and so the lock: it goes
    /// when the region is dropped or the process dies. Open it in the process
    /// that is to hold it, since children forked later would share the lock.
    ///
    /// # Errors
    /// `WouldBlock` if another process holds the lock; `NotFound` if the file is
    /// gone or was replaced while it was being locked; else as [`Region::open_file`].
    pub fn open_locked(path: &Path) -> io::Result<Region> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        lock(&file)?;
        // Whoever removes a file does so under its lock: one that is still in
        // its place now stays there.
        let (ours, found) = (file.metadata()?, std::fs::metadata(path)?);
        if (ours.dev(), ours.ino()) != (found.dev(), found.ino()) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        Region::of_file(&file)
    }

    /// Maps an open file, shared, whole and writable. The mapping keeps it open.
    ///
    /// # Errors
    /// If the system refuses, or the file is empty.
    pub fn of_file(file: &File) -> io::Result<Region> {
        Region::map_words(file, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
    }

    fn map_words(file: &File, protection: ProtFlags) -> io::Result<Region> {
        let size = size_of_file(file)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice: it
        // overlaps nothing that exists.
        let base = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Region { base: base.cast(), size: size.get(), content: Content::Words })
    }

    /// Memory without a name, zeroed, shared with the children forked later.
    ///
    /// # Errors
    /// If the system refuses it, or `size` is zero.
    pub fn anonymous(size: usize) -> io::Result<Region> {
        let length = NonZeroUsize::new(size).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice: it
        // overlaps nothing that exists.
        let base = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_SHARED) }?;
        Ok(Region { base: base.cast(), size, content: Content::Words })
    }

    /// Maps a memfd made by [`seal`], after checking its seals, read-only.
    ///
    /// # Errors
    /// `InvalidData` if it is not sealed against writing, shrinking and growing
    /// (or is no memfd); else as the system says.
    pub fn map_sealed(fd: &OwnedFd) -> io::Result<Region> {
        let seals = fcntl(fd, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
        if !seals.is_ok_and(|seals| seals.contains(SEALS)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the memory is not sealed against writing, shrinking and growing",
            ));
        }
        let size = size_of_file(&File::from(fd.try_clone()?))?;
        // Private: kernels before 6.7 refuse a shared mapping of what is sealed
        // against writing, and read-only pages are the page cache's own anyhow.
        // SAFETY: a fresh mapping at an address of the kernel's choice: it
        // overlaps nothing that exists.
        let base = unsafe { mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, fd, 0) }?;
        Ok(Region { base: base.cast(), size: size.get(), content: Content::Bytes })
    }

    /// The mapping as words that other processes may change at any time.
    ///
    /// # Panics
    /// If the region is sealed bytes.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        assert!(self.content == Content::Words, "sealed bytes are no shared words");
        // SAFETY: `base` (page-aligned) and `size` are the mapping this Region
        // owns, which outlives the borrow; every holder, in any process, reaches
        // it through this function alone, and so uses atomics only.
        unsafe { slice::from_raw_parts(self.base.as_ptr().cast(), self.size / 8) }
    }

    /// The sealed bytes; they begin on a page.
    ///
    /// # Panics
    /// If the region is shared words, which could change under the borrow.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        assert!(self.content == Content::Bytes, "shared words are no sealed bytes");
        // SAFETY: `base` and `size` are the mapping this Region owns, which
        // outlives the borrow; `map_sealed` saw the kernel's seals against
        // writing, shrinking and growing, and seals can't be taken off.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.size) }
    }

    /// Bytes mapped.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Keeps the mapping in memory (mlock), touching it all.
    ///
    /// # Errors
    /// If RLIMIT_MEMLOCK does not allow it, mostly.
    pub fn lock_memory(&self) -> io::Result<()> {
        // SAFETY: the range is the mapping this Region owns.
        unsafe { mlock(self.base.cast(), self.size) }?;
        Ok(())
    }

    /// Touches every page, for writing where it can be written, so that no
    /// request has to wait for one. Changes nothing.
    pub fn prefault(&self) {
        self.prefault_part(0, self.size);
    }

    /// The same for `size` bytes from `offset`, to go in steps between requests.
    /// What lies outside of the mapping is left out.
    pub fn prefault_part(&self, offset: usize, size: usize) {
        let from = offset.min(self.size) / PAGE_SIZE * PAGE_SIZE;
        let to = offset.saturating_add(size).min(self.size);
        if from >= to {
            return;
        }
        let advice = match self.content {
            Content::Words => libc::MADV_POPULATE_WRITE,
            Content::Bytes => libc::MADV_POPULATE_READ,
        };
        // SAFETY: the range lies in the mapping this Region owns, from a page's
        // start, and populating changes no byte of it.
        let populated = unsafe { libc::madvise(self.base.as_ptr().add(from).cast(), to - from, advice) } == 0;
        if populated {
            return;
        }
        // Before Linux 5.14 there is no such advice.
        match self.content {
            Content::Words => {
                for word in self.words()[from / 8..to / 8].iter().step_by(PAGE_SIZE / 8) {
                    word.fetch_or(0, Relaxed);
                }
            }
            Content::Bytes => {
                for byte in self.bytes()[from..to].iter().step_by(PAGE_SIZE) {
                    std::hint::black_box(byte);
                }
            }
        }
    }
}

impl Region {
    /// Gives back what this process keeps for `size` bytes from `offset` of
    /// sealed bytes, to go in steps before a large mapping is dropped. Whoever
    /// looks at them again finds the same.
    ///
    /// # Panics
    /// If the region is shared words.
    pub fn release_part(&self, offset: usize, size: usize) {
        assert!(self.content == Content::Bytes, "shared words are not given back");
        let from = offset.min(self.size) / PAGE_SIZE * PAGE_SIZE;
        let to = offset.saturating_add(size).min(self.size);
        if from < to {
            // SAFETY: the range lies in the mapping this Region owns, from a page's
            // start. The mapping is private, of a sealed memfd, and was never
            // written: what is dropped are this process's page table entries, and
            // the same bytes come back from the file.
            unsafe { libc::madvise(self.base.as_ptr().add(from).cast(), to - from, libc::MADV_DONTNEED) };
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this Region's own, and no borrow outlives it.
        // A failure would leave it mapped, which harms nobody.
        let _ = unsafe { munmap(self.base.cast(), self.size) };
    }
}

impl AsRef<[AtomicU64]> for Region {
    fn as_ref(&self) -> &[AtomicU64] {
        self.words()
    }
}

/// Puts bytes into a memfd and seals it: from now on nobody can change them.
///
/// # Errors
/// If the system refuses, or `bytes` is empty.
pub fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    if bytes.is_empty() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create("splitd", flags)?);
    file.write_all(bytes)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS | SealFlag::F_SEAL_SEAL))?;
    Ok(file.into())
}

/// Takes a file's lock, where nobody holds it for longer than it takes to test it:
/// the logger does that, for an instant.
fn lock(file: &File) -> io::Result<()> {
    for _ in 1..LOCK_ATTEMPT_COUNT {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_ATTEMPT_WAIT),
            Err(TryLockError::Error(fault)) => return Err(fault),
            Ok(()) => return Ok(()),
        }
    }
    file.try_lock().map_err(|fault| match fault {
        TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        TryLockError::Error(fault) => fault,
    })
}

fn size_of_file(file: &File) -> io::Result<NonZeroUsize> {
    usize::try_from(file.metadata()?.len())
        .ok()
        .and_then(NonZeroUsize::new)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the file to map is empty"))
}

fn allocate(file: &File, size: usize) -> io::Result<()> {
    let length = i64::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
    loop {
        match posix_fallocate(file.as_fd(), 0, length) {
            Ok(()) => return Ok(()),
            // A signal may interrupt the making of many pages.
            Err(Errno::EINTR) => {}
            Err(errno) => {
                log::debug!("fd={} size={size} fallocate failed: {errno}", file.as_raw_fd());
                return Err(errno.into());
            }
        }
    }
}

/// Maps every page of the program's own code, so that no request is the first to
/// run one. Where the kernel can't (before Linux 5.14), they come as they are run.
pub fn prefault_program() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    // proc_pid_maps(5): address range, permissions, offset, device, inode, path.
    for line in maps.lines().filter(|line| line.contains(" r-xp ") && line.contains('/')) {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let Some((from, to)) = range else { continue };
        let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16)) else {
            continue;
        };
        // SAFETY: populating for reading changes no byte and no mapping, whatever
        // lies there; a range that is none any more is refused by the kernel.
        unsafe {
            libc::madvise(from as *mut libc::c_void, to.saturating_sub(from), libc::MADV_POPULATE_READ)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_written_through_one_mapping_are_read_through_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("region");
        let made = Region::create_file(&path, 8192).unwrap();
        made.prefault();
        made.words()[1023].store(7, Relaxed);
        let found = Region::open_file(&path).unwrap();
        assert_eq!(found.words().len(), 1024);
        assert_eq!(found.words()[1023].load(Relaxed), 7);
        assert!(Region::create_file(&path, 8192).is_err(), "never taken over");
    }

    #[test]
    fn a_view_sees_what_is_written_and_needs_no_leave_to_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("words");
        let writer = Region::create_file(&path, 4096).unwrap();
        let view = Region::view_file(&path).unwrap();
        writer.words()[7].store(42, Relaxed);
        assert_eq!(view.words()[7].load(Relaxed), 42);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let of_file = maps.lines().filter(|line| line.ends_with(path.to_str().unwrap()));
        let rights: Vec<&str> = of_file.filter_map(|line| line.split(' ').nth(1)).collect();
        assert!(rights.contains(&"rw-s") && rights.contains(&"r--s"), "{rights:?}");
    }

    #[test]
    fn a_locked_file_has_one_holder_for_as_long_as_it_is_mapped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("region");
        drop(Region::create_file(&path, 4096).unwrap());
        let holder = Region::open_locked(&path).unwrap();
        let refused = Region::open_locked(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let _reader = Region::open_file(&path).unwrap();
        drop(holder);
        assert!(Region::open_locked(&path).is_ok());
    }

    #[test]
    fn anonymous_memory_is_zero_and_writable() {
        let region = Region::anonymous(4096).unwrap();
        assert!(region.words().iter().all(|word| word.load(Relaxed) == 0));
        region.prefault_part(0, usize::MAX);
        region.prefault_part(1 << 40, 1);
        region.words()[0].store(1, Relaxed);
        assert!(Region::anonymous(0).is_err());
    }

    #[test]
    fn sealed_bytes_are_read_whole_and_can_not_be_written() {
        let bytes: Vec<u8> = (0..10_001u32).map(|n| n as u8).collect();
        let fd = seal(&bytes).unwrap();
        let region = Region::map_sealed(&fd).unwrap();
        region.prefault();
        assert_eq!(region.bytes(), bytes);
        region.release_part(4096, 4096);
        region.release_part(8192, usize::MAX);
        assert_eq!(region.bytes(), bytes, "what was given back is the same");
        let mut file = File::from(fd);
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(1).is_err());
    }

    #[test]
    fn memory_that_can_still_change_is_refused() {
        let fd: OwnedFd = memfd_create("open", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        File::from(fd.try_clone().unwrap()).write_all(b"abc").unwrap();
        let fault = Region::map_sealed(&fd).unwrap_err();
        assert_eq!(fault.kind(), io::ErrorKind::InvalidData);
        assert!(seal(b"").is_err());
    }

    #[test]
    #[should_panic(expected = "sealed bytes are no shared words")]
    fn sealed_bytes_are_not_handed_out_as_words() {
        let region = Region::map_sealed(&seal(b"abc").unwrap()).unwrap();
        let _ = region.words();
    }
}
