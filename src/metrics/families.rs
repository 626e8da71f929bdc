//! What there is to measure: the table of families, and what labels their cells have.

use super::names::{Column, NameKind};

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
/// Label values of `reason` of spans that no collector took.
pub const SPAN_DROP_REASONS: &[&str] = &["rejected", "damaged"];
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
    AssignmentsLost,
    AssignmentsForced,
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
    RingsRefused,
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
    SpoolSizeMax,
    SpoolOldest,
    Restarts,
    LoggerRestarts,
    Reloads,
    UpgradesFailed,
    SourceFaults,
    PlanLastGood,
    ExperimentsSince,
    InstanceState,
    TraceSpansRecorded,
    TraceSpansRefused,
    TraceSpansExported,
    TraceSpansDropped,
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
        Named(NameKind::Assignment, Column::Met),
        "splitd_assignments_total",
        "Assignments by bucket, over all answers; names beyond the first 16,384 of an instance's life are `other`.",
        &[("experiment", &[]), ("group", &[])],
    ),
    row(
        Family::AssignmentsLost,
        Worker,
        Named(NameKind::Assignment, Column::Lost),
        "splitd_assignments_lost_total",
        "Of those, assignments whose exposure the ring refused: whether losses lean to one group.",
        &[("experiment", &[]), ("group", &[])],
    ),
    row(
        Family::AssignmentsForced,
        Worker,
        Named(NameKind::Forced, Column::Met),
        "splitd_assignments_forced_total",
        "Assignments that an override forced.",
        &[("experiment", &[]), ("group", &[])],
    ),
    row(
        Family::AttributeFaults,
        Worker,
        Named(NameKind::Attribute, Column::Met),
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
        Family::RingsRefused,
        Logger,
        Gauge,
        "splitd_rings_refused",
        "Rings that this program does not know or can't mend: what is in them waits there, see the log.",
        &[],
    ),
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
        Family::SpoolSizeMax,
        Logger,
        Gauge,
        "splitd_spool_size_max_bytes",
        "The most that they may be, as it is set; 0 where there is no spool.",
        &[],
    ),
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
    row(
        Family::TraceSpansRecorded,
        Worker,
        Counter,
        "splitd_trace_spans_recorded_total",
        "Spans of kept requests, written to a ring.",
        &[],
    ),
    row(
        Family::TraceSpansRefused,
        Worker,
        Counter,
        "splitd_trace_spans_refused_total",
        "Spans of kept requests that a full ring refused.",
        &[],
    ),
    row(
        Family::TraceSpansExported,
        Logger,
        Counter,
        "splitd_trace_spans_exported_total",
        "Spans that the collector has taken.",
        &[],
    ),
    row(
        Family::TraceSpansDropped,
        Logger,
        Counter,
        "splitd_trace_spans_dropped_total",
        "Spans that the collector refused for good, and damaged records of rings.",
        &[("reason", SPAN_DROP_REASONS)],
    ),
];

/// Values of [`Family::InstanceState`]; `/readyz` answers from it, whoever is asked.
pub mod instance_state {
    #![allow(missing_docs, reason = "each name says it")]
    pub const STARTING: u64 = 0;
    pub const READY: u64 = 1;
    pub const DRAINING: u64 = 2;
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

/// Words of one cell.
pub(super) const fn cell_size(kind: Kind) -> usize {
    if matches!(kind, Kind::Histogram) { super::histogram::WORD_COUNT } else { 1 }
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

/// Which process writes a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
#[allow(missing_docs, reason = "the processes of the house")]
pub enum Process {
    Master = 1,
    Logger = 2,
    Worker = 3,
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
