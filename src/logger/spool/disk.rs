//! The few calls by which the spool touches the disk, as a trait, so that its
//! tests can fail any of them, cut any write short, and take the power away.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

/// A directory of files.
pub trait Disk {
    /// An open file.
    type File;

    /// Names and sizes of what is there.
    ///
    /// # Errors
    /// Whatever keeps it from being read.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// Makes a file, empty; one of that name loses its content.
    ///
    /// # Errors
    /// If the disk is full, say.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// If it isn't there, say.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Writes some of `bytes`, and says how many.
    ///
    /// # Errors
    /// If the disk is full, say.
    fn write_at(&self, file: &Self::File, bytes: &[u8], at: u64) -> io::Result<usize>;
    /// Reads some bytes, and says how many; none at the end.
    ///
    /// # Errors
    /// If the disk fails.
    fn read_at(&self, file: &Self::File, bytes: &mut [u8], at: u64) -> io::Result<usize>;
    /// Makes a file's content durable.
    ///
    /// # Errors
    /// If the disk fails; what was written since the last success may be lost.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Makes names durable.
    ///
    /// # Errors
    /// If the disk fails.
    fn sync_names(&self) -> io::Result<()>;
    /// Cuts a file behind `size` bytes.
    ///
    /// # Errors
    /// If the disk fails.
    fn cut(&self, file: &Self::File, size: u64) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// If it isn't there, say.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Bytes that may still be written by whoever we are.
    ///
    /// # Errors
    /// If the file system does not say.
    fn free_size(&self) -> io::Result<u64>;
}

/// A real directory, locked by the one logger that uses it.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Its lock, and what its names are synced by.
    handle: File,
}

impl Directory {
    /// Makes the directory if it is not there, and takes its lock.
    ///
    /// # Errors
    /// `WouldBlock` if another logger has it; whatever else the system says.
    pub fn take(path: &Path) -> io::Result<Directory> {
        fs::create_dir_all(path)?;
        let handle = File::open(path)?;
        match handle.try_lock() {
            Ok(()) => Ok(Directory { path: path.to_owned(), handle }),
            Err(TryLockError::WouldBlock) => {
                Err(io::Error::new(io::ErrorKind::WouldBlock, "another logger has the spool"))
            }
            Err(TryLockError::Error(fault)) => Err(fault),
        }
    }
}

impl Disk for Directory {
    type File = File;

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                found.push((name, entry.metadata()?.len()));
            }
        }
        Ok(found)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o640);
        options.open(self.path.join(name))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path.join(name))
    }

    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
        file.write_at(bytes, at)
    }

    fn read_at(&self, file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        file.read_at(bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_names(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn cut(&self, file: &File, size: u64) -> io::Result<()> {
        file.set_len(size)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn free_size(&self) -> io::Result<u64> {
        let stat = statvfs(&self.path)?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }
}

/// Writes all of `bytes`, however many calls it takes.
pub(super) fn write_all<D: Disk>(disk: &D, file: &D::File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match disk.write_at(file, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(size) => {
                bytes = &bytes[size..];
                at += size as u64;
            }
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

/// Reads until `bytes` is full or the file ends; gives how many were read.
pub(super) fn read_full<D: Disk>(
    disk: &D,
    file: &D::File,
    bytes: &mut [u8],
    mut at: u64,
) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match disk.read_at(file, &mut bytes[read..], at) {
            Ok(0) => break,
            Ok(size) => {
                read += size;
                at += size as u64;
            }
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(read)
}
