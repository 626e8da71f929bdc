//! What crosses a fork: everything that outlives a child and is handed to the
//! next one. The settings are turned here, once, into what each process is given.
//!
//! ```text
//! runtime_dir/lock                       one instance a directory; the pid of the one that runs
//! runtime_dir/metrics                    one block a process, two a worker slot
//! runtime_dir/rings/INSTANCE/RING        two a worker slot that records
//! runtime_dir/spans/INSTANCE/RING        two a worker slot that decides, while tracing is on
//! listening sockets                      one a worker on each address of its pool
//! ```
//! The master writes none of these but its own block of metrics.
//!
//! - [`directory`]: the lock and the metrics; [`places`]: the slots.
//! - [`estate`]: what each child is given; [`traces`]: what of it is for tracing;
//!   [`end`]: what is cleared up.

mod directory;
mod end;
mod estate;
mod places;
mod traces;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::listen::{self, Bound, ListenFault};
use super::passed::PassedSockets;
use super::upgrade::State;
use crate::config::settings::{Directories, Fault, Pool, Settings};
use crate::endpoint;
use crate::exposure::ring::{self, RingFault};
use crate::limits;
use crate::metrics::board::{self, Board};
use crate::metrics::{self, Block, Table};
use crate::sys::inherit;
use crate::sys::region::Region;
use crate::sys::socket::Takeover;
use crate::worker::{Keeper, Speaks};
use directory::{make_metrics, take_lock};
pub use estate::WorkerEstate;
use places::agent_pool;
pub use places::{Place, available_cpus};

/// Why an instance can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum HeritageFault {
    /// No experiments file is named.
    #[error(
        "no experiments file; `--experiments FILE` or `experiments = \"…\"` in splitd.toml would be right"
    )]
    NoExperiments,
    /// A file or a directory.
    #[error("{what} {path}: {error}")]
    Refused {
        /// What was to be done: `can't make`.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's word.
        error: io::Error,
    },
    /// Another instance.
    #[error("{path}: another instance{holder} runs there; `--set runtime_dir=…` gives this one its own")]
    Held {
        /// The directory.
        path: PathBuf,
        /// ` (pid 12)`, where known.
        holder: String,
    },
    /// An address.
    #[error(transparent)]
    Listen(#[from] ListenFault),
    /// A setting that the machine contradicts.
    #[error("{0}")]
    Setting(Fault),
    /// More workers than there may be.
    #[error("{count} workers in all; at most {} would be right", limits::SLOT_COUNT_MAX)]
    TooManyWorkers {
        /// Workers wanted.
        count: usize,
    },
    /// What the image before left is not what these settings would make.
    #[error("{0}")]
    Upgrade(String),
    /// Random bytes, CPUs.
    #[error("the system refuses {what}: {reason}")]
    System {
        /// What.
        what: &'static str,
        /// Its word.
        reason: String,
    },
}

fn experiments_of(settings: &Settings) -> Result<PathBuf, HeritageFault> {
    let experiments = settings.experiments.as_ref().ok_or(HeritageFault::NoExperiments)?;
    std::path::absolute(experiments).map_err(refused("can't find", experiments))
}

/// Where an instance has its rings.
fn ring_directory(directories: &Directories, instance: u64) -> PathBuf {
    directories.runtime_dir.join("rings").join(format!("{instance:016x}"))
}

/// The two rings of a slot, in a directory of an instance.
fn ring_paths(directory: &Path, slot: usize) -> [PathBuf; 2] {
    [0, 1].map(|which| directory.join(format!("{:05}", slot * 2 + which)))
}

fn refused(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HeritageFault {
    let path = path.to_owned();
    move |error| HeritageFault::Refused { what, path, error }
}

/// See the module.
#[derive(Debug)]
pub struct Heritage {
    /// Unique for ever; in every exposure's id.
    pub instance: u64,
    /// Where the instance keeps its things.
    pub directories: Directories,
    /// The slots, pool after pool.
    pub places: Vec<Place>,
    settings: Settings,
    experiments: PathBuf,
    bound: Vec<Vec<Bound>>,
    metrics_file: File,
    metrics: Region,
    lock: File,
    left_behind: Option<LeftBehind>,
}

/// The workers of an instance whose master was killed.
#[derive(Debug)]
struct LeftBehind {
    /// Its metrics, where they read how far they are followed.
    metrics: Region,
    /// Their sockets were passed on to us.
    shared: bool,
}

impl Heritage {
    /// Takes the directory, binds the sockets, lays out the metrics. What it has
    /// done is undone by leaving: sockets close, the lock goes.
    ///
    /// # Errors
    /// See [`HeritageFault`]; the first thing that can't be had.
    pub fn prepare(
        mut settings: Settings,
        directories: Directories,
        mut passed: PassedSockets,
    ) -> Result<Heritage, HeritageFault> {
        passed.size_pools(&mut settings);
        let experiments = experiments_of(&settings)?;
        let places = Heritage::check(&settings)?;
        for directory in [&directories.state_dir, &directories.runtime_dir] {
            fs::create_dir_all(directory).map_err(refused("can't make the directory", directory))?;
        }
        let (lock, takeover) = take_lock(&directories.runtime_dir)?;
        let mut bound = Vec::new();
        for (number, pool) in settings.pools.iter().enumerate() {
            let count = places.iter().filter(|place| place.pool == number).count();
            bound.push(listen::bind(pool, count, takeover, &mut passed)?);
        }
        if let Some(address) = settings.agent_check.listen {
            let pool = agent_pool(&settings.pools);
            bound[pool].push(listen::bind_agent(&settings.pools[pool], address, takeover, &mut passed)?);
        }
        let shared = passed.were_taken();
        passed.leave();
        let left_behind = match takeover {
            Takeover::Yes => Region::open_file(&directories.runtime_dir.join("metrics")).ok(),
            Takeover::No => None,
        };
        let left_behind = left_behind.map(|metrics| LeftBehind { metrics, shared });
        let instance = getrandom::u64()
            .map_err(|error| HeritageFault::System { what: "random bytes", reason: error.to_string() })?;
        let (metrics_file, metrics) = make_metrics(&directories.runtime_dir, places.len(), instance)?;
        Ok(Heritage {
            instance,
            directories,
            places,
            settings,
            experiments,
            bound,
            metrics_file,
            metrics,
            lock,
            left_behind,
        })
    }

    /// What an image before has built, taken over from the descriptors that it
    /// left. Nothing of it is touched where a fault is found.
    ///
    /// # Errors
    /// If settings and machine don't allow it, or it is of another shape.
    pub fn inherit(
        settings: Settings,
        directories: Directories,
        state: &State,
    ) -> Result<Heritage, HeritageFault> {
        let experiments = experiments_of(&settings)?;
        let places = Heritage::check(&settings)?;
        state.fits(&places, &directories).map_err(HeritageFault::Upgrade)?;
        let inherited =
            |what| move |error: io::Error| HeritageFault::System { what, reason: error.to_string() };
        let mut bound: Vec<Vec<Bound>> = settings.pools.iter().map(|_| Vec::new()).collect();
        for socket in &state.sockets {
            bound[socket.pool].push(Bound {
                fd: inherit::take(socket.fd).map_err(inherited("a listening socket"))?,
                index: socket.index,
                address: socket.address.clone(),
                path: socket.path.clone(),
                keeper: socket.keeper,
                speaks: if socket.agent { Speaks::Agent } else { Speaks::Http },
            });
        }
        let lock = inherit::take(state.lock).map_err(inherited("the lock"))?.into();
        let found = OpenOptions::new().read(true).write(true).open(directories.runtime_dir.join("metrics"));
        let kept = found.and_then(|file| Ok((Region::of_file(&file)?, file))).ok().filter(|(region, _)| {
            Table::attach(region.words())
                .is_ok_and(|table| table.block_count() == metrics::block_count(places.len()))
        });
        let (metrics_file, metrics) = match kept {
            Some((region, file)) => (file, region),
            // Of another layout: those from before go on counting in theirs, unnamed.
            None => make_metrics(&directories.runtime_dir, places.len(), state.instance)?,
        };
        Ok(Heritage {
            instance: state.instance,
            directories,
            places,
            settings,
            experiments,
            bound,
            metrics_file,
            metrics,
            lock,
            left_behind: None,
        })
    }

    /// The lock on the directory, which is to cross an exec.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// When the process of this id last turned, as its block says.
    #[must_use]
    pub fn turn_of(&self, pid: i32) -> Option<u64> {
        let lives = self.table().blocks().filter_map(|block| block.life());
        lives.filter(|life| i64::from(life.pid) == i64::from(pid)).map(|life| life.turn_mono_ns).max()
    }

    /// Requests answered since the instance began.
    #[must_use]
    pub fn request_count(&self) -> u64 {
        let cells = metrics::ROUTES.len() * metrics::STATUSES.len();
        let of = |block: Block<'_>| -> u64 {
            (0..cells).map(|cell| block.get(metrics::Family::Requests, cell)).sum()
        };
        self.table().blocks().map(of).sum()
    }

    /// The workers of an instance that was killed are followed in the first
    /// `count` slots: they may leave.
    pub fn retire_left_behind(&mut self, count: usize) {
        let Some(LeftBehind { metrics, shared }) = &self.left_behind else { return };
        // Of another layout: they leave when nobody came for `orphan_timeout`.
        let Ok(table) = Table::attach(metrics.words()) else { return };
        let all = count == self.places.len();
        // All of theirs, however many there were.
        table.retire(if all { limits::SLOT_COUNT_MAX } else { count }, *shared);
        if all {
            self.left_behind = None;
        }
    }

    /// No instance is to follow: what the fd store keeps is ours alone from here on.
    pub fn keep_sockets_no_more(&mut self) {
        for bound in self.bound.iter_mut().flatten().filter(|bound| bound.keeper == Keeper::Store) {
            bound.keeper = Keeper::Nobody;
        }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The experiments file, absolute.
    #[must_use]
    pub fn experiments(&self) -> &Path {
        &self.experiments
    }

    /// Each pool's sockets, in the settings' order.
    #[must_use]
    pub fn bound(&self) -> &[Vec<Bound>] {
        &self.bound
    }

    /// The pool of a slot.
    #[must_use]
    pub fn pool(&self, slot: usize) -> &Pool {
        &self.settings.pools[self.places[slot].pool]
    }

    /// The master's block of metrics.
    #[must_use]
    pub fn block(&self) -> Block<'_> {
        self.table().block(metrics::MASTER_BLOCK)
    }

    /// Another's, to be read.
    #[must_use]
    pub fn block_of(&self, index: usize) -> Block<'_> {
        self.table().block(index)
    }

    /// Where the master says in words what it does.
    #[must_use]
    pub fn board(&self) -> Board<'_> {
        self.table().board()
    }

    /// From here on the log is kept on the board, too, by the children as well.
    ///
    /// # Errors
    /// If there is no memory left.
    pub fn keep_log(&self) -> io::Result<()> {
        // The process's log ends with the process.
        let region: &'static Region = Box::leak(Box::new(Region::of_file(&self.metrics_file)?));
        if let Ok(table) = Table::attach(region.words()) {
            board::keep_log(table.board());
        }
        Ok(())
    }

    /// Its process has ended; who took its block over goes on.
    pub fn say_ended(&self, pid: u32) {
        for block in self.table().blocks() {
            if block.life().is_some_and(|life| life.pid == pid) {
                block.is(metrics::State::Ended);
            }
        }
    }

    fn table(&self) -> Table<'_> {
        Table::attach(self.metrics.words()).expect("the region that was laid out here")
    }

    /// Gives the names of a plan their places among the counters.
    ///
    /// # Errors
    /// If it is no sound plan, or such that somebody could change it.
    pub fn learn(&self, image: &OwnedFd) -> Result<(), String> {
        let plan = Region::map_sealed(image).map_err(|error| error.to_string())?;
        endpoint::learn(plan.bytes(), self.table()).map_err(|fault| fault.to_string())
    }

    /// All workers use a plan that was learned: from here on its shares are expected.
    ///
    /// # Errors
    /// As of [`Heritage::learn`].
    pub fn expect(&self, image: &OwnedFd) -> Result<(), String> {
        let plan = Region::map_sealed(image).map_err(|error| error.to_string())?;
        endpoint::expect(plan.bytes(), self.table()).map_err(|fault| fault.to_string())
    }

    /// Levels of a dead process say nothing any more; its counts stay. Only for
    /// blocks that nobody writes.
    pub fn clear_gauges(&self, blocks: &[usize]) {
        for block in blocks.iter().map(|block| self.table().block(*block)) {
            block.clear_levels();
        }
    }

    /// Makes the two rings of every slot that records, where they are not there yet.
    ///
    /// # Errors
    /// If there is no room for them, mostly.
    pub fn make_rings(&self) -> Result<(), HeritageFault> {
        let directory = self.ring_directory();
        fs::create_dir_all(&directory).map_err(refused("can't make the directory", &directory))?;
        let size = ring::region_size(self.settings.logger.ring_size);
        for (slot, _) in self.places.iter().enumerate().filter(|(_, place)| place.records) {
            for (which, path) in self.ring_paths(slot).iter().enumerate() {
                if path.exists() {
                    continue;
                }
                self.make_ring(path, size, slot, which)?;
            }
        }
        Ok(())
    }

    /// Whether workers of this program can go on writing the rings of an instance.
    ///
    /// # Errors
    /// A ring that another program has laid out in another way.
    pub fn check_rings(
        directories: &Directories,
        instance: u64,
        places: &[Place],
    ) -> Result<(), HeritageFault> {
        let directory = ring_directory(directories, instance);
        let recording = places.iter().enumerate().filter(|(_, place)| place.records);
        for path in recording.flat_map(|(slot, _)| ring_paths(&directory, slot)) {
            // What is gone or damaged is made anew or mended by whoever needs it.
            let Ok(region) = Region::view_file(&path) else { continue };
            if let Err(fault @ RingFault::Layout { .. }) = ring::identity(region.words()) {
                let path = path.display();
                return Err(HeritageFault::Upgrade(format!("{path}: {fault}; that takes a restart")));
            }
        }
        Ok(())
    }

    fn make_ring(&self, path: &Path, size: usize, slot: usize, which: usize) -> Result<(), HeritageFault> {
        let region = Region::create_file(path, size).map_err(refused("can't make the ring", path))?;
        ring::format(region.words(), self.ring_identity(slot, which));
        Ok(())
    }

    fn ring_directory(&self) -> PathBuf {
        ring_directory(&self.directories, self.instance)
    }

    fn ring_identity(&self, slot: usize, which: usize) -> ring::Identity {
        ring::Identity { instance: self.instance, ring: (slot * 2 + which) as u16, slot: slot as u16 }
    }

    fn ring_paths(&self, slot: usize) -> [PathBuf; 2] {
        ring_paths(&self.ring_directory(), slot)
    }
}

#[cfg(test)]
mod tests;
