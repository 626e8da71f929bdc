//! The table of families: what there is to measure, and the cells of each.

use super::labels::{
    CLOSE_REASONS, EXIT_CAUSES, LOSS_REASONS, REJECTED_FROM, RELOAD_RESULTS, RING_ORIGINS, ROUTES,
    SHED_ANSWERS, SPAN_DROP_REASONS, SPOOL_BOUNDS, STATUSES,
};
use super::names::{Column, NameKind};

/// Which process writes a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
#[allow(missing_docs, reason = "the processes of the house")]
pub enum Process {
    Master = 1,
    Logger = 2,
    Worker = 3,
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
    /// Durations; each cell is a [`histogram`](super::histogram) of its own.
    Histogram,
    /// Only grows; its labels are [`names`](super::names) that come with the experiments.
    Named(NameKind, Column),
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

/// A row: its name in the program, who counts it, how its cells are combined, its
/// exported name, its labels with their values, its exported help text.
macro_rules! families {
    ($($family:ident: $by:expr, $kind:expr, $name:literal, [$($label:ident: $values:expr),*], $help:literal;)*) => {
        /// Names of the families, in the order of [`FAMILIES`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Family {
            $(#[doc = $help] $family,)*
        }

        /// Every metric there is.
        pub const FAMILIES: &[Row] = &[$(Row {
            family: Family::$family,
            name: $name,
            help: $help,
            by: $by,
            kind: $kind,
            labels: &[$((stringify!($label), $values)),*],
        },)*];
    };
}

use Kind::{Counter, Gauge, GaugeMax, Histogram as Durations, Info, Named, Spread, Time};
use Process::{Logger, Master, Worker};

families! {
    BuildInfo: Master, Info, "splitd_build_info", [version: &[env!("CARGO_PKG_VERSION")]],
        "1; the version is that of the program that answers.";
    PlanInfo: Master, Info, "splitd_plan_info", [version: &[]],
        "1; the version is that of the experiments in force.";
    Requests: Worker, Counter, "splitd_requests_total", [route: ROUTES, status: STATUSES],
        "Requests answered, by route and status.";
    RequestsShed: Worker, Counter, "splitd_requests_shed_total", [answer: SHED_ANSWERS],
        "Requests answered without being served, because they had waited too long.";
    ServiceTime: Worker, Durations, "splitd_request_service_seconds", [route: ROUTES],
        "Time from a request's bytes being readable to its answer being with the kernel.";
    QueueDelay: Worker, Durations, "splitd_request_queue_seconds", [route: ROUTES],
        "Of that, time waited in the loop before being looked at.";
    LoopStall: Worker, Durations, "splitd_loop_stall_seconds", [],
        "Turns of the event loops, from the end of a wait to the next: who comes meanwhile waits.";
    Connections: Worker, Gauge, "splitd_connections", [],
        "Connections open now.";
    ConnectionSpread: Worker, Spread(Family::Connections), "splitd_connections_busiest_ratio", [],
        "Connections of the busiest worker, divided by an even share of the pool's; 1 is even.";
    ConnectionsAccepted: Worker, Counter, "splitd_connections_accepted_total", [],
        "Connections accepted.";
    ConnectionsClosed: Worker, Counter, "splitd_connections_closed_total", [reason: CLOSE_REASONS],
        "Connections closed, by reason.";
    BytesReceived: Worker, Counter, "splitd_received_bytes_total", [],
        "Bytes read from clients.";
    BytesSent: Worker, Counter, "splitd_sent_bytes_total", [],
        "Bytes written to clients.";
    Assignments: Worker, Named(NameKind::Assignment, Column::Met), "splitd_assignments_total",
        [experiment: &[], group: &[]],
        "Assignments by bucket, over all answers; names beyond the first 16,384 of an instance's life are `other`.";
    AssignmentsLost: Worker, Named(NameKind::Assignment, Column::Lost), "splitd_assignments_lost_total",
        [experiment: &[], group: &[]],
        "Of those, assignments whose exposure the ring refused: whether losses lean to one group.";
    AssignmentsForced: Worker, Named(NameKind::Forced, Column::Met), "splitd_assignments_forced_total",
        [experiment: &[], group: &[]],
        "Assignments that an override forced.";
    AssignmentsForcedLost: Worker, Named(NameKind::Forced, Column::Lost), "splitd_assignments_forced_lost_total",
        [experiment: &[], group: &[]],
        "Of those, assignments whose exposure the ring refused.";
    AttributeFaults: Worker, Named(NameKind::Attribute, Column::Met), "splitd_attribute_faults_total",
        [attribute: &[]],
        "Attribute values of another type than declared.";
    ContextsLeftOut: Worker, Counter, "splitd_exposure_contexts_left_out_total", [],
        "Exposures recorded without their attributes, which were too large.";
    LoopTurns: Worker, Counter, "splitd_loop_turns_total", [],
        "Turns of the event loops.";
    SystemCalls: Worker, Counter, "splitd_system_calls_total", [],
        "System calls of the event loops that wait, accept, read or write.";
    PlansTaken: Worker, Counter, "splitd_plans_taken_total", [],
        "Plans taken into force, one a worker and reload.";
    PlanExperiments: Worker, GaugeMax, "splitd_plan_experiments", [],
        "Experiments of the plan in force, all states.";
    PlanTakenAt: Worker, GaugeMax, "splitd_plan_taken_timestamp_seconds", [],
        "Unix time at which the plan in force was taken.";
    ExposuresAttempted: Logger, Counter, "splitd_exposures_attempted_total", [],
        "Exposures that workers set out to record.";
    ExposuresLost: Logger, Counter, "splitd_exposures_lost_total", [reason: LOSS_REASONS],
        "Exposures that no ring took: it was full, they were too large, or their worker was killed.";
    ExposuresInRings: Logger, Gauge, "splitd_exposures_in_rings", [],
        "Exposures that wait in rings.";
    RingBytes: Logger, Gauge, "splitd_ring_bytes", [],
        "Bytes of rings that are in use.";
    RingsRefused: Logger, Gauge, "splitd_rings_refused", [],
        "Rings that this program does not know or can't mend: what is in them waits there, see the log.";
    ExposuresDelivered: Logger, Counter, "splitd_exposures_delivered_total", [rings: RING_ORIGINS],
        "Exposures confirmed by the sink.";
    ExposuresCorrupt: Logger, Counter, "splitd_exposures_corrupt_total", [rings: RING_ORIGINS],
        "Damaged records skipped in rings.";
    RingWriters: Logger, Counter, "splitd_ring_writers_total", [],
        "Workers that have taken up a ring; each may leave one torn exposure.";
    ExposuresUnaccounted: Logger, Gauge, "splitd_exposures_unaccounted", [],
        "Exposures of which nobody knows what became, when all rings last stood still: always 0, or a fault of splitd.";
    ExposuresEvicted: Logger, Counter, "splitd_exposures_evicted_total", [],
        "Exposures that went with the oldest files at the sink's bound.";
    SinkBytes: Logger, Counter, "splitd_sink_bytes_total", [],
        "Bytes handed to the sink.";
    SinkErrors: Logger, Counter, "splitd_sink_errors_total", [],
        "Writes or syncs that the sink refused.";
    SinkFiles: Logger, Gauge, "splitd_sink_files", [],
        "Complete files that the file sink keeps.";
    ExposuresSpooled: Logger, Counter, "splitd_exposures_spooled_total", [rings: RING_ORIGINS],
        "Exposures that went from the rings to the spool.";
    ExposuresRejected: Logger, Counter, "splitd_exposures_rejected_total", [from: REJECTED_FROM],
        "Exposures that the sink refused for good: alone, and too large.";
    ExposuresInFlight: Logger, Gauge, "splitd_exposures_in_flight", [],
        "Exposures under way to the sink; until it confirms they count as in the rings or in the spool.";
    ExposuresDoubtful: Logger, Counter, "splitd_exposures_doubtful_total", [],
        "Exposures sent again, with the same ids, that may have arrived before.";
    SinkStalled: Logger, Gauge, "splitd_sink_stalled", [],
        "1 while the sink is away and exposures go to the spool.";
    SinkConfirmations: Logger, Counter, "splitd_sink_confirmations_total", [],
        "Chunks of exposures that the sink has answered for.";
    SinkConfirmationTime: Logger, Time, "splitd_sink_confirmation_seconds_total", [],
        "Time from their sending to that, summed.";
    SpoolTaken: Logger, Counter, "splitd_spool_taken_total", [],
        "Exposures that the spool took since it was made; the spool's other totals count from there, too.";
    ExposuresReplayed: Logger, Counter, "splitd_exposures_replayed_total", [],
        "Exposures delivered from the spool.";
    SpoolEvicted: Logger, Counter, "splitd_spool_evicted_total", [reason: SPOOL_BOUNDS],
        "Exposures that went from the spool undelivered, at its bound, for want of free disk, or too old.";
    SpoolCorrupt: Logger, Counter, "splitd_spool_corrupt_total", [],
        "Exposures of the spool that could not be read again.";
    ExposuresInSpool: Logger, Gauge, "splitd_exposures_in_spool", [],
        "Exposures that wait in the spool.";
    SpoolBytes: Logger, Gauge, "splitd_spool_bytes", [],
        "Bytes of the spool's segments.";
    SpoolSizeMax: Logger, Gauge, "splitd_spool_size_max_bytes", [],
        "The most that they may be, as it is set; 0 where there is no spool.";
    SpoolOldest: Logger, GaugeMax, "splitd_spool_oldest_timestamp_seconds", [],
        "Unix time at which the oldest exposure of the spool went there, about; 0 if it is empty.";
    Restarts: Master, Counter, "splitd_worker_restarts_total", [cause: EXIT_CAUSES],
        "Workers replaced, by cause.";
    LoggerRestarts: Master, Counter, "splitd_logger_restarts_total", [cause: EXIT_CAUSES],
        "Loggers replaced, by cause.";
    Reloads: Master, Counter, "splitd_reloads_total", [result: RELOAD_RESULTS],
        "Experiments files read: taken into force, refused for their faults, or not read to the end.";
    UpgradesFailed: Master, Counter, "splitd_upgrades_failed_total", [],
        "Upgrades that were refused or undone; the program before goes on.";
    SourceFaults: Master, GaugeMax, "splitd_source_faults", [],
        "Faults of the experiments file as it was last read; 0: it is in force.";
    PlanLastGood: Master, GaugeMax, "splitd_plan_last_good", [],
        "1 while the plan in force was made from the last good file, for want of a good experiments file.";
    ExperimentsSince: Master, GaugeMax, "splitd_experiments_since_timestamp_seconds", [],
        "Unix time since which the experiments in force are the last good ones, over restarts.";
    InstanceState: Master, GaugeMax, "splitd_instance_state", [],
        "0 starting, 1 ready, 2 draining.";
    TraceSpansRecorded: Worker, Counter, "splitd_trace_spans_recorded_total", [],
        "Spans of kept requests, written to a ring.";
    TraceSpansRefused: Worker, Counter, "splitd_trace_spans_refused_total", [],
        "Spans of kept requests that a full ring refused.";
    TraceSpansExported: Logger, Counter, "splitd_trace_spans_exported_total", [],
        "Spans that the collector has taken.";
    TraceSpansDropped: Logger, Counter, "splitd_trace_spans_dropped_total", [reason: SPAN_DROP_REASONS],
        "Spans that the collector refused for good, and damaged records of rings.";
}

/// Values of [`Family::InstanceState`]; `/readyz` answers from it, whoever is asked.
pub mod instance_state {
    #![allow(missing_docs, reason = "each name says it")]
    pub const STARTING: u64 = 0;
    pub const READY: u64 = 1;
    pub const DRAINING: u64 = 2;
}

/// Words of one cell.
pub(super) const fn cell_size(kind: Kind) -> usize {
    if matches!(kind, Kind::Histogram) { super::histogram::WORD_COUNT } else { 1 }
}

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
