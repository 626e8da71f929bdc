//! The rings that this logger reads: found under `runtime_dir/rings`, its own
//! instance's and those that earlier ones left.
//!
//! ```text
//! rings/{instance:016x}/          locked by the one logger that reads it
//! rings/{instance:016x}/{ring:05} locked by the one worker that writes it
//! ```
//! A ring of an earlier instance is removed once it is empty and no worker has
//! it; its directory once it has no ring left. A logger without a master takes no
//! more of them: they may be a later instance's, whose workers are yet to come. A header that does not hold is
//! mended, the worker's words of it only where no worker has the ring; what can't
//! be mended is said once and left where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use nix::unistd::getppid;

use super::batch::{Mark, SourceKey};
use crate::exposure::ring::{self, Account, Identity, Position, Reader, RingFault, Side};
use crate::sys::region::Region;

/// One ring.
#[derive(Debug)]
pub struct Source {
    /// Its file.
    pub path: PathBuf,
    /// Of this instance, not left by an earlier one.
    pub own: bool,
    /// The consumer's end.
    pub reader: Reader<Region>,
    /// Up to where a batch has been made of it.
    pub batched: Position,
    /// Damage since it was last reported: how often, and bytes.
    pub damage: (u64, u64),
    /// Why it can't be read now; said once.
    pub fault: Option<RingFault>,
    /// Another open file of the ring, to test the writer's lock with.
    probe: File,
    /// Its books were said: nobody pushes to it any more.
    is_closed: bool,
}

impl Source {
    /// Everything committed was read, and what was read is safe.
    pub fn is_empty(&mut self) -> bool {
        let is_confirmed = self.reader.position() == self.reader.confirmed();
        is_confirmed && self.fault.is_none() && self.reader.waiting_size() == Ok(0)
    }

    /// Puts its header right: the reader's state always, the rest where nothing can
    /// be read and no worker is there who will.
    pub fn keep(&mut self) {
        if self.reader.beat() {
            log::error!("event=ring_mended file={:?} reason=\"the reader's state\"", self.path);
        }
        if let Some(fault) = self.fault
            && !self.has_writer()
            && mend(self.reader.words(), self.reader.identity(), &self.probe).is_ok()
        {
            log::error!("event=ring_mended file={:?} reason={:?}", self.path, fault.to_string());
            self.fault = None;
        }
    }

    /// Whether a worker holds it. A test that fails counts as held.
    #[must_use]
    pub fn has_writer(&self) -> bool {
        match self.probe.try_lock_shared() {
            Ok(()) => self.probe.unlock().is_err(),
            Err(_) => true,
        }
    }
}

/// A directory of rings that nobody but us reads.
#[derive(Debug)]
struct Instance {
    /// Its lock.
    _lock: File,
    /// Rings in it that can't be taken, which was said.
    said: BTreeSet<u16>,
    /// Those of them that are not tried again.
    refused: BTreeSet<u16>,
}

/// All rings.
#[derive(Debug)]
pub struct Sources {
    directory: PathBuf,
    own_instance: u64,
    /// See [`super::Options::master`].
    master: Option<i32>,
    instances: BTreeMap<u64, Instance>,
    /// By key, in the order of finding.
    pub rings: BTreeMap<SourceKey, Source>,
    known: BTreeSet<(u64, u16)>,
    next_key: SourceKey,
    /// How far rings were read for what is safe in the spool.
    marks: Vec<Mark>,
    /// Exposures passed over by them since this was last taken: of this
    /// instance's rings, of earlier ones'.
    pub resumed: [u64; 2],
}

impl Sources {
    /// Nothing yet; see [`Sources::scan`].
    #[must_use]
    pub fn new(runtime_dir: &Path, own_instance: u64) -> Sources {
        Sources {
            directory: runtime_dir.join("rings"),
            own_instance,
            master: None,
            instances: BTreeMap::new(),
            rings: BTreeMap::new(),
            known: BTreeSet::new(),
            next_key: 0,
            marks: Vec::new(),
            resumed: [0; 2],
        }
    }

    /// Other instances' rings are taken only while this process is our parent.
    #[must_use]
    pub fn of_master(self, master: Option<i32>) -> Sources {
        Sources { master, ..self }
    }

    /// Rings that a predecessor had read further than they know (it was killed
    /// before it could confirm) are taken up there.
    #[must_use]
    pub fn resume_from(self, marks: Vec<Mark>) -> Sources {
        Sources { marks, ..self }
    }

    /// Looks for rings that are new, and removes those that have served.
    ///
    /// # Errors
    /// If the directories can't be read; what was found so far stays.
    pub fn scan(&mut self) -> io::Result<()> {
        self.remove_served()?;
        for (name, path) in list(&self.directory)? {
            let Some(instance) = parse_instance(&name) else {
                continue;
            };
            if self.adopt(instance, &path)? {
                self.scan_instance(instance, &path)?;
            }
        }
        Ok(())
    }

    /// Rings that can't be taken.
    #[must_use]
    pub fn refused_count(&self) -> usize {
        self.instances.values().map(|instance| instance.said.len()).sum()
    }

    /// No worker holds any ring.
    #[must_use]
    pub fn have_no_writer(&self) -> bool {
        self.rings.values().all(|source| !source.has_writer())
    }

    /// This instance's rings are ours to read.
    #[must_use]
    pub fn has_own(&self) -> bool {
        self.instances.contains_key(&self.own_instance)
    }

    /// Takes a directory for reading, if no other logger has it.
    fn adopt(&mut self, instance: u64, path: &Path) -> io::Result<bool> {
        if self.instances.contains_key(&instance) {
            return Ok(true);
        }
        let lock = match File::open(path) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(fault)) => return Err(fault),
        }
        // Asked now that the lock is ours: a later instance's directory can't have
        // been there before our master's death, so this is none.
        if instance != self.own_instance && self.master.is_some_and(|master| getppid().as_raw() != master) {
            return Ok(false);
        }
        if instance != self.own_instance {
            log::info!("event=rings_found instance={instance:016x} of=earlier");
        }
        let (said, refused) = (BTreeSet::new(), BTreeSet::new());
        self.instances.insert(instance, Instance { _lock: lock, said, refused });
        Ok(true)
    }

    fn scan_instance(&mut self, instance: u64, path: &Path) -> io::Result<()> {
        for (name, path) in list(path)? {
            let Some(ring) = parse_ring(&name) else {
                continue;
            };
            let is_refused =
                self.instances.get(&instance).is_some_and(|instance| instance.refused.contains(&ring));
            if is_refused || self.known.contains(&(instance, ring)) {
                continue;
            }
            match self.take(instance, ring, &path) {
                Ok(()) => {
                    if let Some(instance) = self.instances.get_mut(&instance) {
                        instance.said.remove(&ring);
                    }
                }
                // Who was making it is gone, and nobody will finish it.
                Err(Refusal::NotYet) if instance != self.own_instance => remove_unfinished(&path),
                Err(Refusal::NotYet) => {}
                Err(refusal) => {
                    let Some(instance) = self.instances.get_mut(&instance) else { continue };
                    if instance.said.insert(ring) {
                        log::error!("event=ring_refused file={:?} error={:?}", path, refusal.to_string());
                    }
                    // The worker that takes it may still put its name right.
                    if !matches!(refusal, Refusal::Misplaced { .. }) {
                        instance.refused.insert(ring);
                    }
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, instance: u64, ring: u16, path: &Path) -> Result<(), Refusal> {
        // Opened apart: a mapping holds its open file, and so the probe's lock.
        let probe = OpenOptions::new().read(true).write(true).open(path)?;
        let region = Region::open_file(path)?;
        if let Err(fault) = Reader::attach(region.words()) {
            // A blank one of our own is still being made, or its worker will mend it.
            if fault == RingFault::Blank && (instance == self.own_instance || !ring::was_used(region.words()))
            {
                return Err(Refusal::NotYet);
            }
            let identity = Identity { instance, ring, slot: ring / 2 };
            mend(region.words(), identity, &probe)?;
            log::error!("event=ring_mended file={:?} reason={:?}", path, fault.to_string());
        }
        let mut reader = Reader::attach(region)?;
        let identity = reader.identity();
        if (identity.instance, identity.ring) != (instance, ring) {
            return Err(Refusal::Misplaced { instance: identity.instance, ring: identity.ring });
        }
        if let Some(index) = self.marks.iter().position(|mark| (mark.instance, mark.ring) == (instance, ring))
        {
            let (mark, before) = (self.marks.swap_remove(index), reader.confirmed().consumed());
            reader.resume(mark.position)?;
            let resumed = reader.confirmed().consumed().wrapping_sub(before);
            self.resumed[usize::from(instance != self.own_instance)] += resumed;
        }
        let batched = reader.position();
        let source = Source {
            path: path.to_owned(),
            own: instance == self.own_instance,
            reader,
            batched,
            damage: (0, 0),
            fault: None,
            probe,
            is_closed: false,
        };
        self.rings.insert(self.next_key, source);
        self.next_key += 1;
        self.known.insert((instance, ring));
        Ok(())
    }

    /// Removes earlier instances' rings that are empty and free, and their
    /// directories when nothing is left in them.
    fn remove_served(&mut self) -> io::Result<()> {
        let own_instance = self.own_instance;
        let served: Vec<SourceKey> = self
            .rings
            .iter_mut()
            .filter(|(_, source)| !source.own)
            .filter_map(|(key, source)| (source.is_empty() && remove_if_free(source)).then_some(*key))
            .collect();
        for key in served {
            if let Some(source) = self.rings.remove(&key) {
                let identity = source.reader.identity();
                self.known.remove(&(identity.instance, identity.ring));
            }
        }
        let rings = &self.rings;
        let directory = &self.directory;
        self.instances.retain(|instance, _| {
            let is_in_use = || rings.values().any(|source| source.reader.identity().instance == *instance);
            if *instance == own_instance || is_in_use() {
                return true;
            }
            // What is not empty (a ring refused, something foreign) stays, and is ours to look at.
            fs::remove_dir(directory.join(format!("{instance:016x}"))).is_err()
        });
        Ok(())
    }
}

/// Mends a header: the worker's words too, where no worker has the ring.
fn mend(words: &[AtomicU64], identity: Identity, probe: &File) -> Result<(), RingFault> {
    let is_free = probe.try_lock().is_ok();
    let mended = ring::mend(words, identity, if is_free { Side::Both } else { Side::Reader });
    if is_free {
        let _ = probe.unlock();
    }
    mended
}

/// Closes a ring's books, which go with it, and removes its file, under its lock
/// and if no worker has it.
fn remove_if_free(source: &mut Source) -> bool {
    if source.probe.try_lock().is_err() {
        return false;
    }
    // Again, now that nobody can push: a worker may have died just now.
    let is_served = source.is_empty();
    if is_served && !source.is_closed {
        source.is_closed = true;
        say_books(source);
    }
    let removed = is_served && remove_file(&source.path);
    let _ = source.probe.unlock();
    removed
}

/// What became of all that its workers set out to record, as its header has it.
fn say_books(source: &Source) {
    match Account::read(source.reader.words()) {
        Ok(Account {
            attempted, committed, consumed, corrupt, torn, refused_full, refused_oversize, ..
        }) => {
            log::info!(
                "event=ring_drained file={:?} attempted={attempted} committed={committed} consumed={consumed} \
                 corrupt={corrupt} refused_full={refused_full} refused_oversize={refused_oversize} torn={torn}",
                source.path
            );
        }
        Err(fault) => {
            log::error!("event=ring_unreadable file={:?} error={:?}", source.path, fault.to_string())
        }
    }
}

/// Removes a ring that an earlier instance did not get to make, if nobody has it.
fn remove_unfinished(path: &Path) {
    if let Ok(file) = File::open(path)
        && file.try_lock().is_ok()
    {
        remove_file(path);
    }
}

fn remove_file(path: &Path) -> bool {
    match fs::remove_file(path) {
        Ok(()) => true,
        Err(fault) => fault.kind() == io::ErrorKind::NotFound,
    }
}

/// Why a file is not taken as a ring.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// It is still being made.
    #[error("it is not ready")]
    NotYet,
    #[error("{0}")]
    Ring(RingFault),
    #[error("{0}")]
    File(io::Error),
    #[error("it says that it is ring {ring} of instance {instance:016x}")]
    Misplaced { instance: u64, ring: u16 },
}

impl From<RingFault> for Refusal {
    fn from(fault: RingFault) -> Refusal {
        match fault {
            RingFault::Blank => Refusal::NotYet,
            fault => Refusal::Ring(fault),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(fault: io::Error) -> Refusal {
        match fault.kind() {
            // Gone again, or not yet of its size.
            io::ErrorKind::NotFound | io::ErrorKind::InvalidData => Refusal::NotYet,
            _ => Refusal::File(fault),
        }
    }
}

/// Names and paths in a directory, in order; none if it isn't there.
fn list(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn parse_instance(name: &str) -> Option<u64> {
    let is_ours = name.len() == 16 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_ours.then(|| u64::from_str_radix(name, 16).ok()).flatten()
}

fn parse_ring(name: &str) -> Option<u16> {
    let is_ours = name.len() == 5 && name.bytes().all(|byte| byte.is_ascii_digit());
    is_ours.then(|| name.parse().ok()).flatten()
}
