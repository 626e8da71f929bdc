//! `[logger]`: the rings, the layout of what is delivered, the spool.

use std::time::Duration;

use super::Settings;
use super::row::{DAY, GIB, KIB, MIB, MINUTE, Row, TIB, fixed, last, live, ms, row};
use crate::limits;

/// What is delivered for one exposure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// One message a request.
    #[default]
    Request,
    /// One message an assignment.
    Assignment,
}

/// What happens when the spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpoolFull {
    /// The oldest goes.
    #[default]
    Oldest,
    /// The newest is refused.
    Newest,
}

/// `[logger]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the rows below say what each means")]
pub struct LoggerSettings {
    pub nice: i32,
    pub ring_size: usize,
    pub layout: Layout,
    pub layout_context: bool,
    pub spool_sync: Duration,
    pub spool_size_max: u64,
    pub spool_free_min: u64,
    pub spool_age_max: Duration,
    pub spool_full: SpoolFull,
    pub spool_replay_rate: u64,
}

/// Its settings.
pub(super) const ROWS: &[Row<Settings>] = &[
    live!(logger.nice, "5", "Niceness.", number(-20..=19)),
    fixed!(
        logger.ring_size,
        "16MiB",
        "A worker's ring (each has two): at least 2 s of its peak. A power of two.",
        power_of_two(limits::RING_SIZE_MIN as u64..=GIB)
    ),
    live!(
        logger.layout,
        "request",
        "What is delivered: `request` (one `Exposure` a request) or `assignment` (one `ExperimentParticipation` \
         an assignment).",
        choice(&[("request", Layout::Request), ("assignment", Layout::Assignment)])
    ),
    live!(
        logger.layout_context,
        "false",
        "With `layout = \"assignment\"`: the request's attributes in each message.",
        truth()
    ),
    live!(
        logger.spool_sync,
        "200ms",
        "How often what is written is synced to the disk.",
        duration(ms(1, MINUTE))
    ),
    live!(
        logger.spool_size_max,
        "8GiB",
        "The spool (`state_dir/spool`), where exposures wait while Kafka is away: its bound.",
        size(64 * MIB..=1024 * TIB)
    ),
    live!(logger.spool_free_min, "1GiB", "What the spool leaves free on its disk.", size(0..=1024 * TIB)),
    live!(
        logger.spool_age_max,
        "7d",
        "The oldest exposures in the spool; beyond it they go, counted.",
        duration(ms(MINUTE, 3650 * DAY))
    ),
    live!(
        logger.spool_full,
        "oldest",
        "At `spool_size_max` and `spool_free_min`: the `oldest` go, counted, or the `newest` wait in the rings \
         until those refuse.",
        choice(&[("oldest", SpoolFull::Oldest), ("newest", SpoolFull::Newest)])
    ),
    live!(
        logger.spool_replay_rate,
        "32MiB",
        "Bytes a second from the spool, beside live traffic.",
        size(KIB..=TIB)
    ),
];
