//! Notices that the experiments file is another than before: renamed into place,
//! written in place, reached over a link that was swapped (a volume of
//! Kubernetes swaps `..data`), or there at last.
//!
//! ```text
//! /etc/splitd/experiments.json ─► ..data/experiments.json       watched: every directory on the way,
//! /etc/splitd/..data           ─► ..2026_11_22/                  for the one name in it that matters
//! ```
//! Promises
//! - An event only makes us look: what counts is whether the path leads to
//!   another file, or to the same one changed.
//! - A file that is being written is left alone until its writer closes it, or
//!   has paused for [`WRITER_PAUSE`].
//! - Where the kernel tells nothing (no watch to be had, a file of the network),
//!   a look every [`LOOK_INTERVAL`] finds the change, too.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::clock::Now;

/// Between two looks that nothing called for.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// From a finished change to the look: several changes at once are one.
const SETTLE: Duration = Duration::from_millis(50);
/// A writer that has not closed and writes nothing for so long is not waited for.
const WRITER_PAUSE: Duration = Duration::from_secs(1);
/// Links on the way to a file; the kernel's own bound (MAXSYMLINKS).
const LINK_COUNT_MAX: usize = 40;

/// What tells a file from another, and from itself before a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The file that a path leads to now; none if it leads nowhere.
#[must_use]
pub fn identity(path: &Path) -> Option<Identity> {
    let found = std::fs::metadata(path).ok()?;
    Some(Identity {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

/// See the module.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    inotify: Option<Inotify>,
    /// The names that matter in each directory on the way.
    names: BTreeMap<WatchDescriptor, BTreeSet<OsString>>,
    /// What was last looked at.
    seen: Option<Identity>,
    due_ns: u64,
}

impl Watch {
    /// Begins to watch; `path` is absolute, and need not lead anywhere yet.
    #[must_use]
    pub fn new(path: &Path, now: Now) -> Watch {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        if let Err(errno) = &inotify {
            let every_s = LOOK_INTERVAL.as_secs();
            log::warn!(
                "event=not_watched path={path:?} error={:?} look_interval_s={every_s}",
                errno.to_string()
            );
        }
        let mut watch = Watch {
            path: path.to_owned(),
            inotify: inotify.ok(),
            names: BTreeMap::new(),
            seen: None,
            due_ns: now.plus(LOOK_INTERVAL).mono_ns,
        };
        watch.arm();
        watch
    }

    /// Readable when something may have changed.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Remembers what the path leads to, to be called before the file is read:
    /// what changes under the reader is another change.
    pub fn look(&mut self) {
        self.seen = identity(&self.path);
    }

    /// When [`Watch::is_due`] is to be asked.
    #[must_use]
    pub fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Whether it is time to look, and there is another file than before.
    pub fn is_due(&mut self, now: Now) -> bool {
        if now.mono_ns < self.due_ns {
            return false;
        }
        self.due_ns = now.plus(LOOK_INTERVAL).mono_ns;
        // Directories may have come, gone and come again unseen.
        self.arm();
        identity(&self.path) != self.seen
    }

    /// Takes what the kernel has told.
    pub fn take_events(&mut self, now: Now) {
        let Some(inotify) = &self.inotify else { return };
        let (mut settled, mut writing) = (false, false);
        loop {
            let events = match inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(errno) => {
                    log::warn!("event=watch_failed path={:?} error={:?}", self.path, errno.to_string());
                    self.inotify = None;
                    settled = true;
                    break;
                }
            };
            for event in events {
                // Without a name it is the directory itself, or an overflow.
                let matters = match &event.name {
                    Some(name) => self.names.get(&event.wd).is_some_and(|names| names.contains(name)),
                    None => true,
                };
                let still_written = event.mask == AddWatchFlags::IN_MODIFY;
                settled |= matters && !still_written;
                writing |= matters && still_written;
            }
        }
        // The last word counts: a writer that closed is done.
        if settled {
            self.arm();
            self.due_ns = now.plus(SETTLE).mono_ns;
        } else if writing {
            self.due_ns = now.plus(WRITER_PAUSE).mono_ns;
        }
    }

    /// Watches what lies on the way as it is now, and nothing else.
    fn arm(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let mut names: BTreeMap<WatchDescriptor, BTreeSet<OsString>> = BTreeMap::new();
        for (directory, name) in way(&self.path) {
            // One that is not there is waited for in the one above.
            if let Ok(descriptor) = inotify.add_watch(&directory, flags) {
                names.entry(descriptor).or_default().insert(name);
            }
        }
        for (gone, _) in self.names.iter().filter(|(old, _)| !names.contains_key(old)) {
            // The kernel has taken it off already where the directory went.
            let _ = inotify.rm_watch(*gone);
        }
        self.names = names;
    }
}

/// Every directory on the way to a file, links followed, with the name that
/// leads on from there; up to the first that is not there.
fn way(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut steps = Vec::new();
    let mut at = PathBuf::from("/");
    let mut rest: Vec<OsString> = names_of(path);
    let mut link_count = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        steps.push((at.clone(), name));
        match std::fs::read_link(&next) {
            Ok(target) if link_count < LINK_COUNT_MAX => {
                link_count += 1;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                rest.extend(names_of(&target));
            }
            _ => at = next,
        }
    }
    steps
}

/// A path's names, the last one first.
fn names_of(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let mut names: Vec<OsString> = names.collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    /// Whether the change is told by the kernel and found, long before a look by time.
    fn notices(watch: &mut Watch) -> bool {
        let begun = clock::now();
        // As if it came at once: events are in the descriptor when the call that made them returns.
        watch.take_events(begun);
        let settled = begun.plus(SETTLE);
        watch.due_ns() <= settled.mono_ns && watch.is_due(settled)
    }

    fn watch(path: &Path) -> Watch {
        let mut watch = Watch::new(path, clock::now());
        watch.look();
        watch.take_events(clock::now());
        watch.due_ns = u64::MAX;
        watch
    }

    #[test]
    fn a_file_renamed_into_place_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("experiments.json");
        fs::write(&path, "1").unwrap();
        let mut watch = watch(&path);
        fs::write(directory.path().join("experiments.json.new"), "2").unwrap();
        assert!(!notices(&mut watch), "a name beside it is nobody's business");
        fs::rename(directory.path().join("experiments.json.new"), &path).unwrap();
        assert!(notices(&mut watch));
        watch.look();
        watch.due_ns = u64::MAX;
        assert!(!notices(&mut watch), "once");
    }

    #[test]
    fn a_file_written_in_place_is_looked_at_when_its_writer_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("experiments.json");
        fs::write(&path, "1").unwrap();
        let mut watch = watch(&path);
        let mut file = fs::File::options().append(true).open(&path).unwrap();
        file.write_all(b"2").unwrap();
        assert!(!notices(&mut watch), "half of it");
        let now = clock::now();
        assert!(
            watch.due_ns() > now.mono_ns && watch.is_due(now.plus(WRITER_PAUSE)),
            "unless it never closes"
        );
        watch.due_ns = u64::MAX;
        drop(file);
        assert!(notices(&mut watch));
    }

    #[test]
    fn a_swapped_link_on_the_way_is_followed_again_and_again() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for version in ["..v1", "..v2", "..v3"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("experiments.json"), version).unwrap();
        }
        symlink("..v1", at("..data")).unwrap();
        symlink("..data/experiments.json", at("experiments.json")).unwrap();
        let mut watch = watch(&at("experiments.json"));
        for version in ["..v2", "..v3"] {
            symlink(version, at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
            assert!(notices(&mut watch), "{version}");
            watch.look();
            watch.due_ns = u64::MAX;
        }
        fs::write(at("..v1/experiments.json"), "no more").unwrap();
        assert!(!notices(&mut watch), "it leads there no more");
        fs::write(at("..v3/experiments.json"), "changed").unwrap();
        assert!(notices(&mut watch), "but here");
    }

    #[test]
    fn directories_that_come_later_are_entered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/experiments.json");
        let mut watch = watch(&path);
        fs::create_dir(directory.path().join("a")).unwrap();
        assert!(!notices(&mut watch), "nothing to read yet");
        fs::create_dir(directory.path().join("a/b")).unwrap();
        assert!(!notices(&mut watch));
        fs::write(&path, "1").unwrap();
        assert!(notices(&mut watch));
    }

    #[test]
    fn a_file_that_goes_is_a_change_and_a_circle_of_links_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("experiments.json");
        fs::write(&path, "1").unwrap();
        let mut watch = watch(&path);
        fs::remove_file(&path).unwrap();
        assert!(notices(&mut watch));
        watch.look();
        watch.due_ns = u64::MAX;
        symlink("experiments.json", &path).unwrap();
        assert!(!notices(&mut watch));
        assert!(way(&path).len() <= 2 * LINK_COUNT_MAX);
    }
}
