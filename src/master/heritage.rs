//! What crosses a fork: everything that outlives a child and is handed to the
//! next one. The settings are turned here, once, into what each process is given.
//!
//! ```text
//! runtime_dir/lock                       one instance a directory; the pid of the one that runs
//! runtime_dir/metrics                    one block a process, two a worker slot
//! runtime_dir/rings/INSTANCE/RING        two a worker slot that records
//! listening sockets                      one a worker on each address of its pool
//! ```
//! The master writes none of these but its own block of metrics.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::listen::{self, Bound, ListenFault};
use super::passed::PassedSockets;
use super::upgrade::State;
use crate::clock;
use crate::config::settings::{Directories, Fault, Io, Pool, Route, Settings};
use crate::endpoint::{self, AppOptions, RouteGroup, Shed};
use crate::exposure::ring::{self, Account};
use crate::http;
use crate::limits;
use crate::logger;
use crate::metrics::board::{self, Board};
use crate::metrics::{self, Block, Table};
use crate::sys::channel::Channel;
use crate::sys::inherit;
use crate::sys::region::Region;
use crate::sys::socket::Takeover;
use crate::worker::{self, Keeper, Listener, PoolOptions, Rings, Setup, Speaks};

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

fn refused(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HeritageFault {
    let path = path.to_owned();
    move |error| HeritageFault::Refused { what, path, error }
}

/// A pid's digits, at most: the text that replaces one covers it.
const LOCK_TEXT_WIDTH: usize = 10;

/// One worker's place in the instance.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its pool, by the settings' order.
    pub pool: usize,
    /// Its number in the pool.
    pub index: usize,
    /// The CPU it is pinned to.
    pub cpu: Option<usize>,
    /// `assign/0`.
    pub name: String,
    /// Whether its routes record exposures.
    records: bool,
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
        let (metrics_file, metrics) = make_metrics(&directories.runtime_dir, places.len())?;
        let instance = getrandom::u64()
            .map_err(|error| HeritageFault::System { what: "random bytes", reason: error.to_string() })?;
        Table::attach(metrics.words()).expect("the region that was laid out here").set_instance(instance);
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
            None => make_metrics(&directories.runtime_dir, places.len())?,
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

    /// Where the workers of these settings would be, if they could serve here.
    ///
    /// # Errors
    /// A setting that the machine contradicts.
    pub fn check(settings: &Settings) -> Result<Vec<Place>, HeritageFault> {
        let places = places(settings, &available_cpus()?)?;
        can_serve(settings)?;
        Ok(places)
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
                let region = Region::create_file(path, size).map_err(refused("can't make the ring", path))?;
                ring::format(region.words(), self.ring_identity(slot, which));
            }
        }
        Ok(())
    }

    fn ring_directory(&self) -> PathBuf {
        self.directories.runtime_dir.join("rings").join(format!("{:016x}", self.instance))
    }

    fn ring_identity(&self, slot: usize, which: usize) -> ring::Identity {
        ring::Identity { instance: self.instance, ring: (slot * 2 + which) as u16, slot: slot as u16 }
    }

    fn ring_paths(&self, slot: usize) -> [PathBuf; 2] {
        [0, 1].map(|which| self.ring_directory().join(format!("{:05}", slot * 2 + which)))
    }

    /// What a worker is given: copies of its descriptors, which are all that it keeps.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn worker(&self, slot: usize, which: usize, plan: &OwnedFd) -> io::Result<WorkerEstate> {
        let place = &self.places[slot];
        let first = slot - place.index;
        let listeners = self.bound[place.pool]
            .iter()
            .map(|bound| {
                Ok(Listener {
                    fd: bound.fd.try_clone()?,
                    slot: first + bound.index,
                    address: bound.address.clone(),
                    speaks: bound.speaks,
                    keeper: bound.keeper,
                })
            })
            .collect::<io::Result<Vec<Listener>>>()?;
        let plan = plan.try_clone()?;
        let keep =
            (listeners.iter().map(|listener| listener.fd.as_raw_fd())).chain([plan.as_raw_fd()]).collect();
        Ok(WorkerEstate {
            options: self.pool_options(slot),
            listeners,
            plan,
            rings: place.records.then(|| Rings {
                paths: self.ring_paths(slot),
                identities: [0, 1].map(|which| self.ring_identity(slot, which)),
            }),
            shown_rings: self.shown_rings(slot),
            metrics: Region::of_file(&self.metrics_file)?,
            which,
            keep,
        })
    }

    /// Slot, which of its two, and file of every ring, for a pool that shows them.
    fn shown_rings(&self, slot: usize) -> Vec<(usize, usize, PathBuf)> {
        if !self.pool(slot).routes.contains(&Route::Status) {
            return Vec::new();
        }
        let recording = self.places.iter().enumerate().filter(|(_, place)| place.records);
        recording
            .flat_map(|(slot, _)| {
                let [first, second] = self.ring_paths(slot);
                [(slot, 0, first), (slot, 1, second)]
            })
            .collect()
    }

    fn pool_options(&self, slot: usize) -> PoolOptions {
        let (place, pool) = (&self.places[slot], self.pool(slot));
        PoolOptions {
            name: pool.name.clone(),
            slot,
            index: place.index,
            io: worker_io(pool.io),
            cpu: place.cpu,
            routes: route_groups(pool),
            app: AppOptions {
                validation_strict: pool.validation_strict,
                record_empty: pool.record_empty,
                record_context: pool.record_context,
                shed: Shed::after(pool.shed_after, pool.shed_empty),
                batch_body_size_max: pool.batch_body_size_max,
            },
            limits: http::Limits {
                head_size_max: pool.head_size_max,
                body_size_max: pool.body_size_max,
                idle_timeout: pool.idle_timeout,
                head_timeout: pool.head_timeout,
                body_timeout: pool.body_timeout,
                write_timeout: pool.write_timeout,
                linger_timeout: pool.linger_timeout,
                pending_output_count: pending_output_count(pool),
                ..http::Limits::default()
            },
            connection_count_max: pool.connection_count_max,
            drain_idle: self.settings.drain_idle,
            drain_timeout: self.settings.drain_timeout,
            orphan_timeout: self.settings.orphan_timeout,
        }
    }

    /// What the logger is given, and its mapping of the metrics.
    ///
    /// # Errors
    /// If there is no memory left.
    pub fn logger(&self, nice: i32) -> io::Result<(logger::Options, Region)> {
        let sink = super::sink::options(&self.settings, &self.directories.state_dir);
        let runtime_dir = self.directories.runtime_dir.clone();
        let master = i32::try_from(std::process::id()).ok();
        let options = logger::Options { runtime_dir, instance: self.instance, master, nice, sink };
        Ok((options, Region::of_file(&self.metrics_file)?))
    }

    /// Clears up at the end, when no child lives: the files of sockets that nobody
    /// keeps, rings that are empty (the others stay for the next instance to drain),
    /// and the lock's text, which says that nobody is left behind. Gives the rings'
    /// books, summed.
    pub fn clear(&mut self) -> Books {
        for bound in self.bound.iter().flatten().filter(|bound| bound.keeper == Keeper::Nobody) {
            if let Some(path) = &bound.path {
                let _ = fs::remove_file(path);
            }
        }
        let mut books = Books::default();
        for slot in 0..self.places.len() {
            for path in self.ring_paths(slot) {
                // No worker of ours lives; a lock would be a stranger's.
                let Ok(region) = Region::open_locked(&path) else { continue };
                let Ok(account) = Account::read(region.words()) else { continue };
                books.add(&account);
                if account.in_ring == 0 {
                    let _ = fs::remove_file(&path);
                }
            }
        }
        // Only if it is empty.
        let _ = fs::remove_dir(self.ring_directory());
        let _ = self.lock.set_len(0);
        books
    }
}

/// What became of all exposures of the instance, as the rings have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Books {
    /// Wanted.
    pub attempted: u64,
    /// Promised.
    pub committed: u64,
    /// Handed to the sink and confirmed.
    pub consumed: u64,
    /// Damaged.
    pub corrupt: u64,
    /// Refused by a full ring, or too large, or torn by a worker's death.
    pub lost: u64,
    /// Left in rings for the next instance.
    pub waiting: u64,
}

impl Books {
    fn add(&mut self, account: &Account) {
        self.attempted += account.attempted;
        self.committed += account.committed;
        self.consumed += account.consumed;
        self.corrupt += account.corrupt;
        self.lost += account.lost;
        self.waiting += account.in_ring;
    }
}

/// What one worker is given, before its channel is made.
pub struct WorkerEstate {
    options: PoolOptions,
    listeners: Vec<Listener>,
    plan: OwnedFd,
    rings: Option<Rings>,
    shown_rings: Vec<(usize, usize, PathBuf)>,
    metrics: Region,
    which: usize,
    /// The descriptors among it.
    pub keep: Vec<RawFd>,
}

impl WorkerEstate {
    /// The worker's whole life, in the child.
    #[must_use]
    pub fn run(self, channel: Channel) -> i32 {
        worker::run(Setup {
            options: self.options,
            listeners: self.listeners,
            plan: self.plan,
            rings: self.rings,
            shown_rings: self.shown_rings,
            metrics: self.metrics,
            which: self.which,
            channel,
        })
    }
}

/// Whose first worker answers HAProxy's agent: the last pool that speaks of the
/// instance's health, `admin` unless the file says otherwise. A worker takes a
/// connection, writes its line and closes, in one turn of its loop; a process
/// for that alone would be one more to watch, and the master does no I/O.
fn agent_pool(pools: &[Pool]) -> usize {
    pools.iter().rposition(|pool| pool.routes.contains(&Route::Health)).unwrap_or(pools.len() - 1)
}

/// The routes of a pool, as the endpoints call them.
fn route_groups(pool: &Pool) -> Vec<RouteGroup> {
    pool.routes.iter().map(|route| route_group(*route)).collect()
}

/// Slots for untaken output, which are as large as the pool's largest answer.
fn pending_output_count(pool: &Pool) -> usize {
    match pool.routes.iter().any(|route| matches!(route, Route::Explain | Route::Status)) {
        true => limits::PENDING_REPORT_COUNT,
        false => limits::PENDING_OUTPUT_COUNT,
    }
}

fn route_group(route: Route) -> RouteGroup {
    match route {
        Route::Assign => RouteGroup::Assign,
        Route::Batch => RouteGroup::Batch,
        Route::Explain => RouteGroup::Explain,
        Route::Health => RouteGroup::Health,
        Route::Metrics => RouteGroup::Metrics,
        Route::Status => RouteGroup::Status,
    }
}

fn places(settings: &Settings, cpus: &[usize]) -> Result<Vec<Place>, HeritageFault> {
    settings.worker_counts(cpus).map_err(HeritageFault::Setting)?;
    let mut places = Vec::new();
    for (number, pool) in settings.pools.iter().enumerate() {
        let cpus = pool.worker_cpus(cpus).map_err(HeritageFault::Setting)?;
        let records = route_groups(pool).into_iter().any(RouteGroup::records);
        places.extend(cpus.into_iter().enumerate().map(|(index, cpu)| Place {
            pool: number,
            index,
            cpu,
            name: format!("{}/{index}", pool.name),
            records,
        }));
    }
    if places.len() > limits::SLOT_COUNT_MAX {
        return Err(HeritageFault::TooManyWorkers { count: places.len() });
    }
    Ok(places)
}

fn worker_io(io: Io) -> worker::Io {
    match io {
        Io::Auto => worker::Io::Auto,
        Io::IoUring => worker::Io::IoUring,
        Io::Epoll => worker::Io::Epoll,
    }
}

/// A backend that was asked for by name and can't be had is a fault of the
/// settings, found before a worker dies of it.
fn can_serve(settings: &Settings) -> Result<(), HeritageFault> {
    for pool in &settings.pools {
        if let Some(refusal) = worker::refusal(worker_io(pool.io)) {
            let message = format!("{refusal}; `auto` or `epoll` would be right here");
            return Err(HeritageFault::Setting(Fault { pointer: format!("pool.{}.io", pool.name), message }));
        }
    }
    Ok(())
}

/// The CPUs that this process may run on.
///
/// # Errors
/// If the system does not tell.
pub fn available_cpus() -> Result<Vec<usize>, HeritageFault> {
    let set = sched_getaffinity(Pid::from_raw(0))
        .map_err(|error| HeritageFault::System { what: "its list of CPUs", reason: error.to_string() })?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// The lock on the directory; and whether the one who had it last was killed, so
/// that its workers may still be serving.
fn take_lock(runtime_dir: &Path) -> Result<(File, Takeover), HeritageFault> {
    let path = runtime_dir.join("lock");
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(refused("can't open", &path))?;
    let held = lock.try_lock();
    let mut text = String::new();
    // Another's pid is a courtesy to whoever reads the fault.
    let _ = lock.read_to_string(&mut text);
    let holder = text.trim();
    match held {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = if holder.is_empty() { String::new() } else { format!(" (pid {holder})") };
            return Err(HeritageFault::Held { path: runtime_dir.to_owned(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(refused("can't lock", &path)(error)),
    }
    let takeover = if holder.is_empty() { Takeover::No } else { Takeover::Yes };
    if takeover == Takeover::Yes {
        log::warn!(
            "event=takeover killed_pid={holder} note=\"the last instance was killed; its workers may serve beside \
             these until they leave, orphan_timeout after its death\""
        );
    }
    // In one write and never emptied: killed in between, it would look like a clean
    // end, and the next would be refused the addresses that the orphans still have.
    let text = format!("{:<width$}\n", std::process::id(), width = LOCK_TEXT_WIDTH);
    let written = lock.rewind().and_then(|()| lock.write_all(text.as_bytes()));
    written.map_err(refused("can't write", &path))?;
    Ok((lock, takeover))
}

fn make_metrics(runtime_dir: &Path, slot_count: usize) -> Result<(File, Region), HeritageFault> {
    let path = runtime_dir.join("metrics");
    // Workers of a killed master go on writing to the file they mapped, unnamed.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(refused("can't replace", &path)(error));
        }
        _ => {}
    }
    let count = metrics::block_count(slot_count);
    let make = || {
        let region = Region::create_file(&path, metrics::region_size(count))?;
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok((file, region))
    };
    let (file, region) = make().map_err(refused("can't make", &path))?;
    let table = Table::format(region.words(), count);
    let (block, now) = (table.block(metrics::MASTER_BLOCK), clock::now());
    block.claim(metrics::Process::Master, "");
    block.born(std::process::id(), now.unix_us, now.mono_ns);
    Ok((file, region))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Sources, load};
    use std::sync::atomic::Ordering::Relaxed;

    fn prepare(directory: &Path, sets: &[(&str, &str)]) -> Result<Heritage, HeritageFault> {
        let mut all = vec![
            ("experiments".to_owned(), "e.json".to_owned()),
            ("pool.assign.listen".to_owned(), "127.0.0.1:0".to_owned()),
            ("pool.bulk.listen".to_owned(), "127.0.0.1:0".to_owned()),
            ("pool.admin.listen".to_owned(), "127.0.0.1:0".to_owned()),
            ("pool.assign.cpus".to_owned(), String::new()),
            ("pool.assign.workers".to_owned(), "2".to_owned()),
            ("logger.ring_size".to_owned(), "4MiB".to_owned()),
        ];
        all.extend(sets.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let settings = load(&Sources { command_line: &all, ..Sources::default() }).unwrap();
        let directories =
            Directories { state_dir: directory.join("state"), runtime_dir: directory.join("run") };
        Heritage::prepare(settings, directories, PassedSockets::default())
    }

    #[test]
    fn one_directory_has_one_instance_and_says_whose_it_is() {
        let _alone = crate::sys::alone();
        let directory = tempfile::tempdir().unwrap();
        let mut first = prepare(directory.path(), &[]).unwrap();
        let refused = prepare(directory.path(), &[]).unwrap_err().to_string();
        assert!(refused.contains(&format!("(pid {})", std::process::id())), "{refused}");
        first.clear();
        drop(first);
        prepare(directory.path(), &[]).unwrap();
    }

    #[test]
    fn after_an_unclean_end_the_addresses_are_shared_with_those_left_behind() {
        let _alone = crate::sys::alone();
        let directory = tempfile::tempdir().unwrap();
        let killed = prepare(directory.path(), &[]).unwrap();
        let address = killed.bound()[0][0].address.clone();
        // Its workers keep the sockets; its lock goes with it, the text stays.
        let left_behind = killed.bound()[0][0].fd.try_clone().unwrap();
        drop(killed);
        let mut next = prepare(directory.path(), &[("pool.assign.listen", &address)]).unwrap();
        next.clear();
        drop(next);
        let refused = prepare(directory.path(), &[("pool.assign.listen", &address)]).unwrap_err();
        assert!(
            matches!(refused, HeritageFault::Listen(_)),
            "after a clean end, it is a stranger's: {refused}"
        );
        drop(left_behind);
    }

    #[test]
    fn every_worker_gets_all_sockets_of_its_pool_each_with_its_slot() {
        let directory = tempfile::tempdir().unwrap();
        let heritage = prepare(directory.path(), &[]).unwrap();
        let names: Vec<_> = heritage.places.iter().map(|place| place.name.as_str()).collect();
        assert_eq!(names, ["assign/0", "assign/1", "bulk/0", "admin/0"]);
        let plan = crate::sys::region::seal(b"plan").unwrap();
        let slots = |slot: usize| {
            let estate = heritage.worker(slot, 1, &plan).unwrap();
            assert_eq!(estate.keep.len(), estate.listeners.len() + 1);
            estate.listeners.iter().map(|listener| listener.slot).collect::<Vec<_>>()
        };
        assert_eq!([slots(0), slots(1), slots(2), slots(3)], [vec![0, 1], vec![0, 1], vec![2], vec![3]]);
    }

    #[test]
    fn rings_are_for_slots_that_record_and_go_when_they_are_empty() {
        let directory = tempfile::tempdir().unwrap();
        let mut heritage = prepare(directory.path(), &[]).unwrap();
        heritage.make_rings().unwrap();
        let count = || fs::read_dir(heritage.ring_directory()).map_or(0, Iterator::count);
        assert_eq!(count(), 6, "two for assign/0, assign/1 and bulk/0, none for admin/0");
        let [path, _] = heritage.ring_paths(1);
        let region = Region::open_locked(&path).unwrap();
        let mut writer = ring::Writer::attach(region.words()).unwrap();
        writer.claim();
        writer.commit(b"\x03abc").unwrap();
        drop(region);
        let books = heritage.clear();
        assert_eq!((books.attempted, books.committed, books.waiting), (1, 1, 1));
        assert!(path.exists(), "what is in it is the next instance's to drain");
        assert_eq!(fs::read_dir(heritage.ring_directory()).unwrap().count(), 1);
    }

    #[test]
    fn levels_of_the_dead_are_cleared_and_their_counts_kept() {
        let directory = tempfile::tempdir().unwrap();
        let heritage = prepare(directory.path(), &[]).unwrap();
        let index = metrics::worker_block(0, 0);
        let block = heritage.table().block(index);
        block.set(metrics::Family::Connections, 7);
        block.add(metrics::Family::ConnectionsAccepted, 9);
        heritage.clear_gauges(&[index]);
        assert_eq!(block.get(metrics::Family::Connections, 0), 0);
        assert_eq!(block.get(metrics::Family::ConnectionsAccepted, 0), 9);
        assert!(heritage.metrics.words().iter().any(|word| word.load(Relaxed) == 9));
    }

    #[test]
    fn what_the_machine_contradicts_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let refused = prepare(directory.path(), &[("pool.assign.cpus", "4095")]).unwrap_err();
        assert!(refused.to_string().starts_with("pool.assign.cpus: CPU 4095 is none"), "{refused}");
    }
}
