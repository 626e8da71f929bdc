//! The instance's numbers, in memory that every process maps: one table of
//! families, and for each process one block of words that it alone writes.
//!
//! ```text
//! region: magic | layout | block count | words a block | instance | … | names | block 0 | … | board
//! block:  kind | pool name (32 bytes of text) | pid | birth | turn | births | state | … |
//!         cells, family after family: one word each, of a histogram `histogram::WORD_COUNT` |
//!         one word a name
//! ```
//! A worker slot owns two blocks, as it owns two rings: a successor counts on in
//! the block that its predecessor is not draining on, and sums never go back.
//! One writer a block makes every update a plain load and store; nothing locks.
//!
//! To add a metric: one row in [`FAMILIES`] and its name in [`Family`].

pub mod audit;
pub mod board;
pub mod histogram;
pub mod names;
pub mod pace;
pub mod render;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use board::{BOARD_WORDS, Board};
use histogram::Histogram;
use names::{NameKind, Names, Place};

/// Label values of `route`, in the order of the endpoint's table.
pub const ROUTES: &[&str] = &[
    "assign",
    "experiment",
    "batch",
    "livez",
    "readyz",
    "metrics",
    "explain",
    "explain_experiment",
    "status",
    "page",
    "none",
];
/// Label values of `status`; what is not listed counts as `other`.
pub const STATUSES: &[&str] = &[
    "200", "400", "404", "405", "408", "413", "414", "415", "417", "422", "431", "500", "501", "503", "505",
    "other",
];
/// Label values of `reason` of closed connections.
pub const CLOSE_REASONS: &[&str] =
    &["peer", "answered", "idle_timeout", "slow", "evicted", "drained", "error"];
/// Label values of `rings`: this instance's, and those that earlier ones left.
pub const RING_ORIGINS: &[&str] = &["own", "earlier"];
/// Label values of `from`: the same, and the spool.
pub const REJECTED_FROM: &[&str] = &["own", "earlier", "spool"];
/// Label values of `reason` of exposures that went from the spool at a bound.
pub const SPOOL_BOUNDS: &[&str] = &["size", "disk", "age"];
/// Label values of `reason` of exposures that no ring took.
pub const LOSS_REASONS: &[&str] = &["full", "oversize", "torn"];
/// Label values of `cause` of replaced processes.
pub const EXIT_CAUSES: &[&str] = &["exit", "signal", "panic", "watchdog"];

/// Label values of `answer` of requests that were shed.
pub const SHED_ANSWERS: &[&str] = &["refused", "empty"];
/// Label values of `result` of reloads.
pub const RELOAD_RESULTS: &[&str] = &["taken", "refused", "failed"];

/// Names of the families, in the order of [`FAMILIES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "each row's help text says it")]
pub enum Family {
    BuildInfo,
    PlanInfo,
    Requests,
    RequestsShed,
    ServiceTime,
    QueueDelay,
    LoopStall,
    Connections,
    ConnectionSpread,
    ConnectionsAccepted,
    ConnectionsClosed,
    BytesReceived,
    BytesSent,
    Assignments,
    AttributeFaults,
    ContextsLeftOut,
    LoopTurns,
    SystemCalls,
    PlansTaken,
    PlanExperiments,
    PlanTakenAt,
    ExposuresAttempted,
    ExposuresLost,
    ExposuresInRings,
    RingBytes,
    ExposuresDelivered,
    ExposuresCorrupt,
    RingWriters,
    ExposuresUnaccounted,
    ExposuresEvicted,
    SinkBytes,
    SinkErrors,
    SinkFiles,
    ExposuresSpooled,
    ExposuresRejected,
    ExposuresInFlight,
    ExposuresDoubtful,
    SinkStalled,
    SinkConfirmations,
    SinkConfirmationTime,
    SpoolTaken,
    ExposuresReplayed,
    SpoolEvicted,
    SpoolCorrupt,
    ExposuresInSpool,
    SpoolBytes,
    SpoolOldest,
    Restarts,
    LoggerRestarts,
    Reloads,
    UpgradesFailed,
    SourceFaults,
    PlanLastGood,
    ExperimentsSince,
    InstanceState,
}

/// How a family's cells are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; summed over blocks.
    Counter,
    /// A level; summed over blocks.
    Gauge,
    /// A level of which the instance shows the largest.
    GaugeMax,
    /// How uneven another level is over the workers: the largest over the mean.
    /// It has no cell of its own to write.
    Spread(Family),
    /// Only grows; counted in microseconds, shown in seconds.
    Time,
    /// Durations; each cell is a [`histogram`] of its own.
    Histogram,
    /// Only grows; its labels are [`names`] that come with the experiments.
    Named(NameKind),
    /// Always 1; what there is to know is in its label.
    Info,
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// Which family this is; its place in the table.
    pub family: Family,
    /// The exported name.
    pub name: &'static str,
    /// The exported help text.
    pub help: &'static str,
    /// Which process counts it.
    pub by: Process,
    /// How cells are combined.
    pub kind: Kind,
    /// Fixed labels: name and values. A cell for every combination.
    pub labels: &'static [(&'static str, &'static [&'static str])],
}

const fn row(
    family: Family,
    by: Process,
    kind: Kind,
    name: &'static str,
    help: &'static str,
    labels: &'static [(&'static str, &'static [&'static str])],
) -> Row {
    Row { family, name, help, by, kind, labels }
}

use Kind::{Counter, Gauge, GaugeMax, Histogram as Durations, Info, Named, Spread, Time};
use Process::{Logger, Master, Worker};
/// Every metric there is.
pub const FAMILIES: &[Row] = &[
    row(
        Family::BuildInfo,
        Master,
        Info,
        "splitd_build_info",
        "1; the version is that of the program that answers.",
        &[("version", &[env!("CARGO_PKG_VERSION")])],
    ),
    row(
        Family::PlanInfo,
        Master,
        Info,
        "splitd_plan_info",
        "1; the version is that of the experiments in force.",
        &[("version", &[])],
    ),
    row(
        Family::Requests,
        Worker,
        Counter,
        "splitd_requests_total",
        "Requests answered, by route and status.",
        &[("route", ROUTES), ("status", STATUSES)],
    ),
    row(
        Family::RequestsShed,
        Worker,
        Counter,
        "splitd_requests_shed_total",
        "Requests answered without being served, because they had waited too long.",
        &[("answer", SHED_ANSWERS)],
    ),
    row(
        Family::ServiceTime,
        Worker,
        Durations,
        "splitd_request_service_seconds",
        "Time from a request's bytes being readable to its answer being with the kernel.",
        &[("route", ROUTES)],
    ),
    row(
        Family::QueueDelay,
        Worker,
        Durations,
        "splitd_request_queue_seconds",
        "Of that, time waited in the loop before being looked at.",
        &[("route", ROUTES)],
    ),
    row(
        Family::LoopStall,
        Worker,
        Durations,
        "splitd_loop_stall_seconds",
        "Turns of the event loops, from the end of a wait to the next: who comes meanwhile waits.",
        &[],
    ),
    row(Family::Connections, Worker, Gauge, "splitd_connections", "Connections open now.", &[]),
    row(
        Family::ConnectionSpread,
        Worker,
        Spread(Family::Connections),
        "splitd_connections_busiest_ratio",
        "Connections of the busiest worker, divided by an even share of the pool's; 1 is even.",
        &[],
    ),
    row(
        Family::ConnectionsAccepted,
        Worker,
        Counter,
        "splitd_connections_accepted_total",
        "Connections accepted.",
        &[],
    ),
    row(
        Family::ConnectionsClosed,
        Worker,
        Counter,
        "splitd_connections_closed_total",
        "Connections closed, by reason.",
        &[("reason", CLOSE_REASONS)],
    ),
    row(
        Family::BytesReceived,
        Worker,
        Counter,
        "splitd_received_bytes_total",
        "Bytes read from clients.",
        &[],
    ),
    row(Family::BytesSent, Worker, Counter, "splitd_sent_bytes_total", "Bytes written to clients.", &[]),
    row(
        Family::Assignments,
        Worker,
        Named(NameKind::Assignment),
        "splitd_assignments_total",
        "Assignments, over all answers; names beyond the first 16,384 of an instance's life are `other`.",
        &[("experiment", &[]), ("group", &[])],
    ),
    row(
        Family::AttributeFaults,
        Worker,
        Named(NameKind::Attribute),
        "splitd_attribute_faults_total",
        "Attribute values of another type than declared.",
        &[("attribute", &[])],
    ),
    row(
        Family::ContextsLeftOut,
        Worker,
        Counter,
        "splitd_exposure_contexts_left_out_total",
        "Exposures recorded without their attributes, which were too large.",
        &[],
    ),
    row(Family::LoopTurns, Worker, Counter, "splitd_loop_turns_total", "Turns of the event loops.", &[]),
    row(
        Family::SystemCalls,
        Worker,
        Counter,
        "splitd_system_calls_total",
        "System calls of the event loops that wait, accept, read or write.",
        &[],
    ),
    row(
        Family::PlansTaken,
        Worker,
        Counter,
        "splitd_plans_taken_total",
        "Plans taken into force, one a worker and reload.",
        &[],
    ),
    row(
        Family::PlanExperiments,
        Worker,
        GaugeMax,
        "splitd_plan_experiments",
        "Experiments of the plan in force, all states.",
        &[],
    ),
    row(
        Family::PlanTakenAt,
        Worker,
        GaugeMax,
        "splitd_plan_taken_timestamp_seconds",
        "Unix time at which the plan in force was taken.",
        &[],
    ),
    row(
        Family::ExposuresAttempted,
        Logger,
        Counter,
        "splitd_exposures_attempted_total",
        "Exposures that workers set out to record.",
        &[],
    ),
    row(
        Family::ExposuresLost,
        Logger,
        Counter,
        "splitd_exposures_lost_total",
        "Exposures that no ring took: it was full, they were too large, or their worker was killed.",
        &[("reason", LOSS_REASONS)],
    ),
    row(
        Family::ExposuresInRings,
        Logger,
        Gauge,
        "splitd_exposures_in_rings",
        "Exposures that wait in rings.",
        &[],
    ),
    row(Family::RingBytes, Logger, Gauge, "splitd_ring_bytes", "Bytes of rings that are in use.", &[]),
    row(
        Family::ExposuresDelivered,
        Logger,
        Counter,
        "splitd_exposures_delivered_total",
        "Exposures confirmed by the sink.",
        &[("rings", RING_ORIGINS)],
    ),
    row(
        Family::ExposuresCorrupt,
        Logger,
        Counter,
        "splitd_exposures_corrupt_total",
        "Damaged records skipped in rings.",
        &[("rings", RING_ORIGINS)],
    ),
    row(
        Family::RingWriters,
        Logger,
        Counter,
        "splitd_ring_writers_total",
        "Workers that have taken up a ring; each may leave one torn exposure.",
        &[],
    ),
    row(
        Family::ExposuresUnaccounted,
        Logger,
        Gauge,
        "splitd_exposures_unaccounted",
        "Exposures of which nobody knows what became, when all rings last stood still: always 0, or a fault of splitd.",
        &[],
    ),
    row(
        Family::ExposuresEvicted,
        Logger,
        Counter,
        "splitd_exposures_evicted_total",
        "Exposures that went with the oldest files at the sink's bound.",
        &[],
    ),
    row(Family::SinkBytes, Logger, Counter, "splitd_sink_bytes_total", "Bytes handed to the sink.", &[]),
    row(
        Family::SinkErrors,
        Logger,
        Counter,
        "splitd_sink_errors_total",
        "Writes or syncs that the sink refused.",
        &[],
    ),
    row(
        Family::SinkFiles,
        Logger,
        Gauge,
        "splitd_sink_files",
        "Complete files that the file sink keeps.",
        &[],
    ),
    row(
        Family::ExposuresSpooled,
        Logger,
        Counter,
        "splitd_exposures_spooled_total",
        "Exposures that went from the rings to the spool.",
        &[("rings", RING_ORIGINS)],
    ),
    row(
        Family::ExposuresRejected,
        Logger,
        Counter,
        "splitd_exposures_rejected_total",
        "Exposures that the sink refused for good: alone, and too large.",
        &[("from", REJECTED_FROM)],
    ),
    row(
        Family::ExposuresInFlight,
        Logger,
        Gauge,
        "splitd_exposures_in_flight",
        "Exposures under way to the sink; until it confirms they count as in the rings or in the spool.",
        &[],
    ),
    row(
        Family::ExposuresDoubtful,
        Logger,
        Counter,
        "splitd_exposures_doubtful_total",
        "Exposures sent again, with the same ids, that may have arrived before.",
        &[],
    ),
    row(
        Family::SinkStalled,
        Logger,
        Gauge,
        "splitd_sink_stalled",
        "1 while the sink is away and exposures go to the spool.",
        &[],
    ),
    row(
        Family::SinkConfirmations,
        Logger,
        Counter,
        "splitd_sink_confirmations_total",
        "Chunks of exposures that the sink has answered for.",
        &[],
    ),
    row(
        Family::SinkConfirmationTime,
        Logger,
        Time,
        "splitd_sink_confirmation_seconds_total",
        "Time from their sending to that, summed.",
        &[],
    ),
    row(
        Family::SpoolTaken,
        Logger,
        Counter,
        "splitd_spool_taken_total",
        "Exposures that the spool took since it was made; the spool's other totals count from there, too.",
        &[],
    ),
    row(
        Family::ExposuresReplayed,
        Logger,
        Counter,
        "splitd_exposures_replayed_total",
        "Exposures delivered from the spool.",
        &[],
    ),
    row(
        Family::SpoolEvicted,
        Logger,
        Counter,
        "splitd_spool_evicted_total",
        "Exposures that went from the spool undelivered, at its bound, for want of free disk, or too old.",
        &[("reason", SPOOL_BOUNDS)],
    ),
    row(
        Family::SpoolCorrupt,
        Logger,
        Counter,
        "splitd_spool_corrupt_total",
        "Exposures of the spool that could not be read again.",
        &[],
    ),
    row(
        Family::ExposuresInSpool,
        Logger,
        Gauge,
        "splitd_exposures_in_spool",
        "Exposures that wait in the spool.",
        &[],
    ),
    row(Family::SpoolBytes, Logger, Gauge, "splitd_spool_bytes", "Bytes of the spool's segments.", &[]),
    row(
        Family::SpoolOldest,
        Logger,
        GaugeMax,
        "splitd_spool_oldest_timestamp_seconds",
        "Unix time at which the oldest exposure of the spool went there, about; 0 if it is empty.",
        &[],
    ),
    row(
        Family::Restarts,
        Master,
        Counter,
        "splitd_worker_restarts_total",
        "Workers replaced, by cause.",
        &[("cause", EXIT_CAUSES)],
    ),
    row(
        Family::LoggerRestarts,
        Master,
        Counter,
        "splitd_logger_restarts_total",
        "Loggers replaced, by cause.",
        &[("cause", EXIT_CAUSES)],
    ),
    row(
        Family::Reloads,
        Master,
        Counter,
        "splitd_reloads_total",
        "Experiments files read: taken into force, refused for their faults, or not read to the end.",
        &[("result", RELOAD_RESULTS)],
    ),
    row(
        Family::UpgradesFailed,
        Master,
        Counter,
        "splitd_upgrades_failed_total",
        "Upgrades that were refused or undone; the program before goes on.",
        &[],
    ),
    row(
        Family::SourceFaults,
        Master,
        GaugeMax,
        "splitd_source_faults",
        "Faults of the experiments file as it was last read; 0: it is in force.",
        &[],
    ),
    row(
        Family::PlanLastGood,
        Master,
        GaugeMax,
        "splitd_plan_last_good",
        "1 while the plan in force was made from the last good file, for want of a good experiments file.",
        &[],
    ),
    row(
        Family::ExperimentsSince,
        Master,
        GaugeMax,
        "splitd_experiments_since_timestamp_seconds",
        "Unix time since which the experiments in force are the last good ones, over restarts.",
        &[],
    ),
    row(
        Family::InstanceState,
        Master,
        GaugeMax,
        "splitd_instance_state",
        "0 starting, 1 ready, 2 draining.",
        &[],
    ),
];

/// Values of [`Family::InstanceState`]; `/readyz` answers from it, whoever is asked.
pub mod instance_state {
    #![allow(missing_docs, reason = "each name says it")]
    pub const STARTING: u64 = 0;
    pub const READY: u64 = 1;
    pub const DRAINING: u64 = 2;
}

/// The master's block.
pub const MASTER_BLOCK: usize = 0;
/// The logger's block.
pub const LOGGER_BLOCK: usize = 1;

/// The block of a worker slot; `which` is 0 or 1, the same as its ring's.
#[must_use]
pub const fn worker_block(slot: usize, which: usize) -> usize {
    2 + slot * 2 + which
}

/// Blocks of an instance with so many worker slots.
#[must_use]
pub const fn block_count(slot_count: usize) -> usize {
    2 + slot_count * 2
}

const MAGIC: u64 = 0x7370_6c69_7464_4d31; // "splitdM1"
const LAYOUT: u64 = 4;
const REGION_HEADER_WORDS: usize = 8;
/// Of the region's header: the word of the next instance's master.
const AT_RETIRED: usize = 5;
const BLOCK_HEADER_WORDS: usize = 16;
const NAME_WORDS: usize = 4;
// Words of a block's header, behind the name.
const AT_PID: usize = 5;
const AT_BIRTH: usize = 6;
const AT_TURN: usize = 7;
const AT_BIRTHS: usize = 8;
const AT_STATE: usize = 9;

/// Cells of a family with these labels: one for every combination.
#[must_use]
pub const fn cell_count(labels: &[(&str, &[&str])]) -> usize {
    let mut count = 1;
    let mut index = 0;
    while index < labels.len() {
        count *= labels[index].1.len();
        index += 1;
    }
    count
}

/// Words of one cell.
const fn cell_size(kind: Kind) -> usize {
    if matches!(kind, Kind::Histogram) { histogram::WORD_COUNT } else { 1 }
}

/// Names and values of the labels of one cell, cells in row-major order.
pub fn cell_labels(row: &Row, cell: usize) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
    let (mut stride, mut rest) = (cell_count(row.labels), cell);
    row.labels.iter().map(move |(name, values)| {
        stride /= values.len();
        let value = values[rest / stride % values.len()];
        rest %= stride;
        (*name, value)
    })
}

/// Where each family's cells begin in a block; the last entry is the end.
const OFFSETS: [usize; FAMILIES.len() + 1] = {
    let mut offsets = [0; FAMILIES.len() + 1];
    let mut index = 0;
    let mut at = BLOCK_HEADER_WORDS;
    while index < FAMILIES.len() {
        assert!(FAMILIES[index].family as usize == index, "rows and names are in one order");
        offsets[index] = at;
        at += cell_count(FAMILIES[index].labels) * cell_size(FAMILIES[index].kind);
        index += 1;
    }
    offsets[FAMILIES.len()] = at;
    offsets
};
/// Where the cells of [`names`] begin in a block.
const NAMED: usize = OFFSETS[FAMILIES.len()];
/// Words of a block, a whole number of cache lines so that two writers never share one.
const BLOCK_WORDS: usize = (NAMED + names::CELL_COUNT).next_multiple_of(8);
/// Where the blocks begin, behind the directory of names.
const BLOCKS: usize = REGION_HEADER_WORDS + names::WORD_COUNT;

/// Which process writes a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
#[allow(missing_docs, reason = "the processes of the house")]
pub enum Process {
    Master = 1,
    Logger = 2,
    Worker = 3,
}

/// How far a block's process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
#[allow(missing_docs, reason = "each name says it")]
pub enum State {
    Ended = 0,
    Running = 1,
    Draining = 2,
}

/// What a block's header says of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Its process id.
    pub pid: u32,
    /// When it took the block, in Unix microseconds.
    pub birth_unix_us: i64,
    /// When it last said that it turns, in nanoseconds of the monotonic clock.
    pub turn_mono_ns: u64,
    /// Processes that have had the block so far, this one among them.
    pub births: u64,
    /// How far it has come, as far as anybody has said.
    pub state: State,
}

/// Bytes of a region for so many blocks.
#[must_use]
pub const fn region_size(block_count: usize) -> usize {
    (BLOCKS + block_count * BLOCK_WORDS + BOARD_WORDS) * 8
}

/// What is wrong with a region that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableFault {
    /// Another file, or another layout's.
    #[error("not a metrics region of layout {LAYOUT}: magic {magic:#x}, layout {layout}")]
    Foreign {
        /// The first word found.
        magic: u64,
        /// The second word found.
        layout: u64,
    },
    /// Its header promises more than is mapped.
    #[error("metrics region of {words} words is too short for its {blocks} blocks")]
    Short {
        /// Words mapped.
        words: usize,
        /// Blocks promised.
        blocks: u64,
    },
}

/// A view of the whole region.
#[derive(Debug, Clone, Copy)]
pub struct Table<'r> {
    words: &'r [AtomicU64],
}

impl<'r> Table<'r> {
    /// Lays out a fresh region.
    ///
    /// # Panics
    /// If the region is not of [`region_size`] for `block_count`.
    #[must_use]
    pub fn format(words: &'r [AtomicU64], block_count: usize) -> Table<'r> {
        assert!(words.len() * 8 >= region_size(block_count), "region made for its blocks");
        words[0].store(MAGIC, Relaxed);
        words[1].store(LAYOUT, Relaxed);
        words[2].store(block_count as u64, Relaxed);
        words[3].store(BLOCK_WORDS as u64, Relaxed);
        words[AT_RETIRED].store(0, Relaxed);
        Table { words }
    }

    /// Whose region it is; said once, by whoever formats it.
    pub fn set_instance(&self, instance: u64) {
        self.words[4].store(instance, Relaxed);
    }

    /// The instance's number, by which its rings are found.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.words[4].load(Relaxed)
    }

    /// Takes a region as found, checking its header.
    ///
    /// # Errors
    /// If it is not of this layout or too short.
    pub fn attach(words: &'r [AtomicU64]) -> Result<Table<'r>, TableFault> {
        let word = |index: usize| words.get(index).map_or(0, |word| word.load(Relaxed));
        if word(0) != MAGIC || word(1) != LAYOUT || word(3) != BLOCK_WORDS as u64 {
            return Err(TableFault::Foreign { magic: word(0), layout: word(1) });
        }
        let blocks = word(2);
        let fits = usize::try_from(blocks)
            .ok()
            .and_then(|count| count.checked_mul(BLOCK_WORDS))
            .is_some_and(|size| size <= words.len().saturating_sub(BLOCKS + BOARD_WORDS));
        if !fits {
            return Err(TableFault::Short { words: words.len(), blocks });
        }
        Ok(Table { words })
    }

    /// How far the workers of an instance whose master was killed are followed:
    /// those of the first `count` slots may leave. `shared`: their sockets are
    /// their followers', too, and stay open.
    pub fn retire(&self, count: usize, shared: bool) {
        self.words[AT_RETIRED].store((count as u64) << 1 | u64::from(shared), Relaxed);
    }

    /// As [`Table::retire`] has it for one slot: whether it may leave, and
    /// whether its sockets stay open.
    #[must_use]
    pub fn retired(&self, slot: usize) -> Option<bool> {
        let word = self.words[AT_RETIRED].load(Relaxed);
        ((slot as u64) < word >> 1).then_some(word & 1 == 1)
    }

    /// The names that came with experiments.
    #[must_use]
    pub fn names(&self) -> Names<'r> {
        Names::new(&self.words[REGION_HEADER_WORDS..BLOCKS])
    }

    /// How many blocks there are.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.words[2].load(Relaxed) as usize
    }

    /// One block, to write or to read.
    #[must_use]
    pub fn block(&self, index: usize) -> Block<'r> {
        let at = BLOCKS + index * BLOCK_WORDS;
        Block { index, words: &self.words[at..at + BLOCK_WORDS] }
    }

    /// What the instance says in words.
    #[must_use]
    pub fn board(&self) -> Board<'r> {
        Board::new(&self.words[BLOCKS + self.block_count() * BLOCK_WORDS..])
    }

    /// All blocks.
    pub fn blocks(&self) -> impl Iterator<Item = Block<'r>> + use<'r> {
        let table = *self;
        (0..table.block_count()).map(move |index| table.block(index))
    }
}

/// The words of one process.
#[derive(Debug, Clone, Copy)]
pub struct Block<'r> {
    index: usize,
    words: &'r [AtomicU64],
}

impl Block<'_> {
    /// Says whose block this is; `name` is a pool's, cut at 32 bytes. Counts stay.
    pub fn claim(&self, process: Process, name: &str) {
        self.words[0].store(process as u64, Relaxed);
        let mut text = [0u8; NAME_WORDS * 8];
        let size = name.len().min(text.len());
        text[..size].copy_from_slice(&name.as_bytes()[..size]);
        for (word, bytes) in self.words[1..].iter().zip(text.as_chunks::<8>().0) {
            word.store(u64::from_le_bytes(*bytes), Relaxed);
        }
    }

    /// A process has taken the block, at this time of both clocks.
    pub fn born(&self, pid: u32, unix_us: i64, mono_ns: u64) {
        self.words[AT_PID].store(u64::from(pid), Relaxed);
        self.words[AT_BIRTH].store(unix_us as u64, Relaxed);
        self.words[AT_BIRTHS].store(self.words[AT_BIRTHS].load(Relaxed) + 1, Relaxed);
        self.turns(mono_ns);
        self.is(State::Running);
    }

    /// It turns: to be said at least twice a second.
    #[inline]
    pub fn turns(&self, mono_ns: u64) {
        self.words[AT_TURN].store(mono_ns, Relaxed);
    }

    /// How far it has come; [`State::Ended`] is for whoever has reaped it to say.
    pub fn is(&self, state: State) {
        self.words[AT_STATE].store(state as u64, Relaxed);
    }

    /// What is known of its process; none if it was never taken.
    #[must_use]
    pub fn life(&self) -> Option<Life> {
        let word = |at: usize| self.words[at].load(Relaxed);
        Some(Life {
            pid: u32::try_from(word(AT_PID)).ok().filter(|pid| *pid != 0)?,
            birth_unix_us: word(AT_BIRTH) as i64,
            turn_mono_ns: word(AT_TURN),
            births: word(AT_BIRTHS),
            state: match word(AT_STATE) {
                1 => State::Running,
                2 => State::Draining,
                _ => State::Ended,
            },
        })
    }

    /// Whose block this is, if anybody's.
    #[must_use]
    pub fn process(&self) -> Option<Process> {
        match self.words[0].load(Relaxed) {
            1 => Some(Master),
            2 => Some(Logger),
            3 => Some(Worker),
            _ => None,
        }
    }

    /// The worker slot that it belongs to, if to one.
    #[must_use]
    pub fn slot(&self) -> Option<usize> {
        self.index.checked_sub(worker_block(0, 0)).map(|after| after / 2)
    }

    /// The name it was claimed with.
    #[must_use]
    pub fn name(&self) -> String {
        let bytes: Vec<u8> =
            self.words[1..=NAME_WORDS].iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
    }

    fn cell(&self, family: Family, index: usize) -> &AtomicU64 {
        let (from, to) = (OFFSETS[family as usize], OFFSETS[family as usize + 1]);
        &self.words[from..to][index]
    }

    /// Adds to a family without labels. Only the block's own process may.
    #[inline]
    pub fn add(&self, family: Family, count: u64) {
        self.add_at(family, 0, count);
    }

    /// Adds to one cell of a family with labels, cells in row-major order.
    #[inline]
    pub fn add_at(&self, family: Family, index: usize, count: u64) {
        let cell = self.cell(family, index);
        cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Counts `count` durations of `ns` each in one cell of a histogram.
    #[inline]
    pub fn record_at(&self, family: Family, index: usize, ns: u64, count: u64) {
        histogram::record(self.histogram_words(family, index), ns, count);
    }

    /// Reads one cell of a histogram.
    #[must_use]
    pub fn histogram(&self, family: Family, index: usize) -> Histogram {
        let mut histogram = Histogram::default();
        histogram.add_words(self.histogram_words(family, index));
        histogram
    }

    #[inline]
    fn histogram_words(&self, family: Family, index: usize) -> &[AtomicU64] {
        let from = OFFSETS[family as usize] + index * histogram::WORD_COUNT;
        assert!(from < OFFSETS[family as usize + 1], "a cell of this family");
        &self.words[from..from + histogram::WORD_COUNT]
    }

    /// Adds to the cell of a name.
    #[inline]
    pub fn add_named(&self, place: Place, count: u64) {
        let cell = &self.words[NAMED + usize::from(place.0)];
        cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Reads the cell of a name.
    #[must_use]
    pub fn get_named(&self, place: Place) -> u64 {
        self.words[NAMED + usize::from(place.0)].load(Relaxed)
    }

    /// Sets a family without labels.
    #[inline]
    pub fn set(&self, family: Family, value: u64) {
        self.set_at(family, 0, value);
    }

    /// Sets one cell of a family with labels.
    #[inline]
    pub fn set_at(&self, family: Family, index: usize, value: u64) {
        self.cell(family, index).store(value, Relaxed);
    }

    /// Levels go with the process that had them; what was counted stays.
    pub fn clear_levels(&self) {
        for row in FAMILIES.iter().filter(|row| matches!(row.kind, Gauge | GaugeMax)) {
            for cell in 0..cell_count(row.labels) {
                self.set_at(row.family, cell, 0);
            }
        }
    }

    /// Reads one cell.
    #[must_use]
    pub fn get(&self, family: Family, index: usize) -> u64 {
        self.cell(family, index).load(Relaxed)
    }
}

/// The cell of `requests` for a route's index and a status code.
#[must_use]
#[inline]
pub fn request_cell(route: usize, status: u16) -> usize {
    let status = match status {
        200 => 0,
        400 => 1,
        404 => 2,
        405 => 3,
        408 => 4,
        413 => 5,
        414 => 6,
        415 => 7,
        417 => 8,
        422 => 9,
        431 => 10,
        500 => 11,
        501 => 12,
        503 => 13,
        505 => 14,
        _ => 15,
    };
    route * STATUSES.len() + status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(block_count: usize) -> Vec<AtomicU64> {
        (0..region_size(block_count) / 8).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_cell_is_found_again_by_whoever_attaches() {
        let words = words(2);
        let table = Table::format(&words, 2);
        table.block(1).claim(Worker, "assign");
        table.block(1).add_at(Family::Requests, request_cell(0, 404), 3);
        let found = Table::attach(&words).unwrap();
        assert_eq!(found.block(1).get(Family::Requests, request_cell(0, 404)), 3);
        assert_eq!(found.block(1).process(), Some(Worker));
        assert_eq!(found.block(1).name(), "assign");
        assert_eq!(found.block(0).get(Family::Requests, request_cell(0, 404)), 0);
    }

    #[test]
    fn a_life_is_read_as_it_was_said() {
        let words = words(1);
        let table = Table::format(&words, 1);
        let block = table.block(0);
        assert_eq!(block.life(), None);
        block.born(7, 1_000, 5);
        block.turns(6);
        block.is(State::Draining);
        let life = Life { pid: 7, birth_unix_us: 1_000, turn_mono_ns: 6, births: 1, state: State::Draining };
        assert_eq!(block.life(), Some(life));
        block.is(State::Ended);
        block.born(8, 2_000, 9);
        assert_eq!(
            block.life().map(|life| (life.pid, life.births, life.state)),
            Some((8, 2, State::Running))
        );
        table.board().set_version("v");
        assert_eq!(block.life().map(|life| life.pid), Some(8), "the board lies behind the blocks");
    }

    #[test]
    fn slots_are_retired_from_the_first_on() {
        let words = words(1);
        let table = Table::format(&words, 1);
        assert_eq!(table.retired(0), None);
        table.retire(2, true);
        assert_eq!([0, 1, 2].map(|slot| table.retired(slot)), [Some(true), Some(true), None]);
        table.retire(3, false);
        assert_eq!(table.retired(2), Some(false));
    }

    #[test]
    fn a_foreign_or_short_region_is_refused() {
        let words = words(1);
        assert!(matches!(Table::attach(&words), Err(TableFault::Foreign { .. })));
        let _ = Table::format(&words, 1);
        words[2].store(u64::MAX, Relaxed);
        assert!(matches!(Table::attach(&words), Err(TableFault::Short { .. })));
        assert!(Table::attach(&[]).is_err());
    }

    #[test]
    fn every_listed_status_has_the_cell_of_its_name() {
        for (index, name) in STATUSES.iter().enumerate() {
            if let Ok(code) = name.parse() {
                assert_eq!(request_cell(0, code), index, "{name}");
            }
        }
        assert_eq!(STATUSES[request_cell(0, 999)], "other");
    }
}
