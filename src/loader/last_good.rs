//! The last good experiments file: a copy of the text whose plan was last taken
//! into force, in the state directory. A start whose source is at fault or gone
//! serves it, compiled anew.
//!
//! Promises
//! - It is written beside and renamed, both synced: after a loss of power there
//!   is the old one or the new one, whole.
//! - Its time of change is when its version came into force first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

/// Its name in the state directory.
pub const FILE_NAME: &str = "experiments.last-good.json";

/// Tells one text from another: XXH3 of its bytes.
#[must_use]
pub fn fingerprint(text: &[u8]) -> u64 {
    xxh3_64(text)
}

/// Where it is kept, and what is known of it.
#[derive(Debug)]
pub struct LastGood {
    path: PathBuf,
    /// The fingerprint of what it holds and since when, Unix seconds; once known.
    holds: Option<(u64, u64)>,
}

impl LastGood {
    /// The one in this directory.
    #[must_use]
    pub fn of(state_dir: &Path) -> LastGood {
        LastGood { path: state_dir.join(FILE_NAME), holds: None }
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its text and since when that is its version, Unix seconds.
    ///
    /// # Errors
    /// If there is none, or it can't be read.
    pub fn read(&mut self, size_max: u64) -> Result<(Vec<u8>, u64), super::file::SourceFault> {
        let text = super::file::read(&self.path, size_max)?;
        let since_s = fs::metadata(&self.path)?.mtime().unsigned_abs();
        self.holds = Some((fingerprint(&text), since_s));
        Ok((text, since_s))
    }

    /// Keeps this text, if it is not what is there; since when it is there, Unix seconds.
    ///
    /// # Errors
    /// If the disk refuses; what was there is still there.
    pub fn keep(&mut self, text: &[u8], now_s: u64) -> io::Result<u64> {
        let wanted = fingerprint(text);
        if self.holds.is_none() {
            // One that can't be read is replaced.
            let _ = self.read(text.len() as u64);
        }
        if let Some((held, since_s)) = self.holds
            && held == wanted
        {
            return Ok(since_s);
        }
        let beside = self.path.with_extension("json.new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&beside)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        self.holds = Some((wanted, now_s));
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(now_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_whole_and_the_same_one_keeps_its_age() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = LastGood::of(directory.path());
        assert!(kept.read(100).is_err());
        assert_eq!(kept.keep(b"{}", 7).unwrap(), 7);
        assert_eq!(kept.keep(b"{}", 8).unwrap(), 7, "not written again");
        assert_eq!(kept.keep(b"{ }", 9).unwrap(), 9);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
        let mut found = LastGood::of(directory.path());
        let (text, since_s) = found.read(100).unwrap();
        assert_eq!(text, b"{ }");
        let mut restarted = LastGood::of(directory.path());
        assert_eq!(restarted.keep(b"{ }", since_s + 1000).unwrap(), since_s, "nor after a restart");
    }

    #[test]
    fn a_disk_that_refuses_leaves_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = LastGood::of(directory.path());
        kept.keep(b"{}", 7).unwrap();
        fs::create_dir(directory.path().join("experiments.last-good.json.new")).unwrap();
        assert!(kept.keep(b"[]", 8).is_err());
        assert_eq!(kept.read(100).unwrap().0, b"{}");
    }
}
