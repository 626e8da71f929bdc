//! What every backend decides alike: how often, how soon, how many, and why a
//! connection is closed.

use std::io;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::clock::Now;
use crate::http::Limits;
use crate::metrics::CLOSE_REASONS;

use super::PoolOptions;
use super::timers::CLASS_COUNT;

/// Connections accepted from one socket before the others have their turn.
pub const ACCEPTS_A_TURN: usize = 64;
/// A loop turns at least this often, so that a watchdog can tell it from a dead one.
pub const TURN_MAX: Duration = Duration::from_millis(500);
/// How soon to try again to accept when there was no room or no descriptor.
pub const STARVED_RETRY: Duration = Duration::from_millis(50);
/// Descriptors that are not connections: listeners aside, the backend's own, channel, log.
const OTHER_DESCRIPTORS: usize = 32;

/// Why a connection is closed, in the order of `metrics::CLOSE_REASONS`.
#[derive(Debug, Clone, Copy)]
pub enum Reason {
    /// The peer closed, or is gone.
    Peer,
    /// The last answer was given.
    Answered,
    /// It lay idle for too long.
    IdleTimeout,
    /// A head, a body or a reader was too slow.
    Slow,
    /// Something ran out, and it held it longest.
    Evicted,
    /// The worker drains.
    Drained,
    /// The system refused something.
    Error,
}
const _: () = assert!(CLOSE_REASONS.len() == Reason::Error as usize + 1);

/// A drain under way. Idle connections are closed when the idle time is over, but
/// for those that have only just come: they bring a request. (The turn in which
/// the time is over is most often one that somebody's coming began, so that
/// without this a busy proxy lost one request a worker and stop.)
#[derive(Debug)]
pub struct Drain {
    idle: Duration,
    idle_ns: u64,
    deadline_ns: u64,
    /// Nothing new is let in any more.
    pub shut: bool,
    /// Nobody is to follow on the sockets.
    pub last: bool,
}

impl Drain {
    /// Idle connections are kept for `idle`, the others for `deadline`.
    #[must_use]
    pub fn begin(idle: Duration, deadline: Duration, last: bool, now: Now) -> Drain {
        let (idle_ns, deadline_ns) = (now.plus(idle).mono_ns, now.plus(deadline).mono_ns);
        Drain { idle, idle_ns, deadline_ns, shut: false, last }
    }

    /// Another order to drain can only hurry one that is under way.
    pub fn hurry(&mut self, deadline: Duration, now: Now) {
        self.deadline_ns = self.deadline_ns.min(now.plus(deadline).mono_ns);
    }

    /// Whether the rest is to be left as it is.
    #[must_use]
    pub fn is_late(&self, now: Now) -> bool {
        now.mono_ns >= self.deadline_ns
    }

    /// True each time when idle connections are to be closed.
    pub fn idle_is_over(&mut self, now: Now) -> bool {
        let over = self.is_late(now) || now.mono_ns >= self.idle_ns;
        if over {
            self.idle_ns = now.plus(self.grace()).mono_ns;
        }
        over
    }

    /// How long a connection must have been idle to be closed.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.idle / 10
    }

    /// How long until idle connections are to be looked at.
    #[must_use]
    pub fn wait(&self, now_ns: u64) -> Duration {
        let until_ns = self.idle_ns.min(self.deadline_ns).saturating_sub(now_ns);
        // A turn for nothing costs as much as one: no finer than the clock of epoll.
        Duration::from_nanos(until_ns).max(Duration::from_millis(1))
    }
}

/// The durations of the timers, in the order of [`super::timers::Class`].
#[must_use]
pub fn timer_durations(limits: &Limits) -> [Duration; CLASS_COUNT] {
    [
        limits.idle_timeout,
        limits.head_timeout,
        limits.body_timeout,
        limits.write_timeout,
        limits.linger_timeout,
    ]
}

/// The setting, or what the descriptor limit allows, raised as far as it goes.
///
/// # Errors
/// If the system does not tell the limit.
pub fn connection_count_max(options: &PoolOptions, listener_count: usize) -> io::Result<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    let room =
        usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(OTHER_DESCRIPTORS + listener_count);
    let count = options.connection_count_max.min(room).max(1);
    if count < options.connection_count_max && options.index == 0 {
        log::info!(
            "event=connections_limited pool={} connections={count} wanted={} hint=\"raise LimitNOFILE\"",
            options.name,
            options.connection_count_max
        );
    }
    Ok(count)
}
