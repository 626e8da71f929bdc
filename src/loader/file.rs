//! The experiments file as a source: read whole, or not at all.
//!
//! Promises
//! - Only a regular file is read (a pipe could keep the loader waiting for ever),
//!   and never more of it than the limit.
//! - A file that changes under the reader is read again, so that half of an edit
//!   is not taken for the file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;

/// How often a file that changes is read again, and how long is waited between.
const READ_COUNT_MAX: usize = 20;
const READ_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum SourceFault {
    /// The system's word.
    #[error("can't be read: {0}")]
    Unreadable(#[from] io::Error),
    /// A directory, a pipe, a device.
    #[error("is no regular file; the path of an experiments file would be right")]
    NoFile,
    /// More than the limit.
    #[error("has {size} bytes; at most {size_max} would be right")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        size_max: u64,
    },
    /// It changed at every look.
    #[error(
        "changed while it was read, {READ_COUNT_MAX} times in a row; one that is renamed into place would be right"
    )]
    Restless,
}

/// Reads the file at `path`, following links, up to `size_max` bytes.
///
/// # Errors
/// See [`SourceFault`].
pub fn read(path: &Path, size_max: u64) -> Result<Vec<u8>, SourceFault> {
    for _ in 0..READ_COUNT_MAX {
        // Opening a pipe would wait for its writer, but for this flag.
        let flags = OFlag::O_NONBLOCK.bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let before = Seen::of(&file)?;
        if before.size > size_max {
            return Err(SourceFault::TooLarge { size: before.size, size_max });
        }
        let mut text = Vec::with_capacity(before.size as usize + 1);
        (&file).take(size_max + 1).read_to_end(&mut text)?;
        if Seen::of(&file)? == before && text.len() as u64 == before.size {
            return Ok(text);
        }
        std::thread::sleep(READ_PAUSE);
    }
    Err(SourceFault::Restless)
}

/// What changes when a file does.
#[derive(PartialEq, Eq)]
struct Seen {
    size: u64,
    changed_s: i64,
    changed_ns: i64,
}

impl Seen {
    fn of(file: &File) -> Result<Seen, SourceFault> {
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(SourceFault::NoFile);
        }
        Ok(Seen { size: found.size(), changed_s: found.ctime(), changed_ns: found.ctime_nsec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_is_read_whole_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("experiments.json");
        std::fs::write(directory.path().join("v1.json"), "{}").unwrap();
        std::os::unix::fs::symlink("v1.json", &path).unwrap();
        assert_eq!(read(&path, 2).unwrap(), b"{}");
        assert!(matches!(read(&path, 1), Err(SourceFault::TooLarge { size: 2, size_max: 1 })));
    }

    #[test]
    fn what_is_no_file_is_refused_and_never_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(read(&pipe, 100), Err(SourceFault::NoFile)));
        assert!(matches!(read(directory.path(), 100), Err(SourceFault::NoFile)));
        let missing = read(&directory.path().join("none"), 100).unwrap_err();
        assert!(missing.to_string().starts_with("can't be read: No such file"), "{missing}");
    }

    #[test]
    fn half_of_an_edit_is_not_taken_for_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("experiments.json");
        std::fs::write(&path, "0").unwrap();
        let writer_path = path.clone();
        let writer = std::thread::spawn(move || {
            let mut file = OpenOptions::new().append(true).open(writer_path).unwrap();
            for _ in 0..200 {
                file.write_all(b"0").unwrap();
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        let text = read(&path, 1000).unwrap();
        assert!((1..=201).contains(&text.len()));
        writer.join().unwrap();
    }
}
