//! The logger: one niced process that takes exposures out of the workers' rings
//! and hands them to the sink.
//!
//! ```text
//! rings ═ drain (this thread) ─ batch ─→ sink (a thread of its own) ─→ files
//!           ↑ heads move                      │    or: delivery ─→ Kafka
//!           └──────── confirmations ──────────┘            └────→ spool ─→ Kafka
//! ```
//! - It polls: about once a millisecond while there is little, without a pause
//!   while there is much. No worker ever wakes it.
//! - A ring's head moves only when the sink or the spool has what lies before it. A logger
//!   killed at any point loses nothing; its successor sends what was under way
//!   again, with the same ids.
//! - While the sink refuses (a full disk, say), exposures wait in the rings.
//! - At the stop, which comes after the last worker's end, it empties the rings,
//!   syncs, and leaves within [`STOP_TIME_MAX`]; what no sink took by then stays in
//!   the rings' files for the next start.
//! - Spans, while tracing is on, have a thread and rings of their own, and hold up
//!   none of this.
//! - When the master dies it serves on until no worker is left to serve.

pub mod batch;
pub mod delivery;
pub mod drain;
pub mod layout;
pub mod sink;
pub mod sources;
pub mod spool;
#[cfg(test)]
mod tests;
mod traces;

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::clock::{self, Now};
use crate::metrics::Block;
use crate::sys::channel::Channel;
use crate::sys::fork::set_niceness;
use drain::{Drain, SinkGone, Turn};
use sources::Sources;
use traces::Exporter;

pub use layout::Layout;
pub use sink::file::Options as FileOptions;
#[cfg(feature = "kafka")]
pub use sink::kafka;
pub use sink::{SinkOptions, SpoolOptions};
pub use traces::Options as TraceOptions;

/// From the order to stop to the end, at most.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(5);
/// Of that, for the rings to become empty; the rest is the sink's, to sync.
const STOP_DRAIN_TIME_MAX: Duration = Duration::from_millis(3500);
const STOP_SYNC_TIME_MAX: Duration = Duration::from_millis(1000);
/// And behind that for a last POST of spans, which went out before the sync.
const STOP_EXPORT_TIME_MAX: Duration = Duration::from_millis(400);
/// Between two looks at rings that have little.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// How long no worker must have been there before an orphaned logger leaves.
const ORPHAN_WAIT: Duration = Duration::from_secs(1);
/// How often an orphaned logger tests that.
const ORPHAN_POLL: Duration = Duration::from_millis(100);

/// What the logger needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where `rings/` is.
    pub runtime_dir: PathBuf,
    /// The instance whose rings are its own.
    pub instance: u64,
    /// The master, by its pid. While it lives it holds `runtime_dir`, so that other
    /// instances' rings are earlier ones'; without it they may be a later one's.
    pub master: Option<i32>,
    /// Its niceness; where it may not be had, that is said once.
    pub nice: i32,
    /// Where exposures go.
    pub sink: SinkOptions,
    /// Where spans go; none while tracing is off.
    pub traces: Option<TraceOptions>,
}

/// What the master tells the logger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The last worker has ended: empty the rings, sync, leave.
    Stop,
}

impl Order {
    /// The packet for the channel.
    #[must_use]
    pub fn encode(self) -> &'static [u8] {
        match self {
            Order::Stop => b"stop",
        }
    }

    /// Reads a packet.
    #[must_use]
    pub fn decode(packet: &[u8]) -> Option<Order> {
        (packet == Order::Stop.encode()).then_some(Order::Stop)
    }
}

/// What was heard while waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    Nothing,
    Order(Order),
    /// The master is gone.
    Closed,
}

/// Where orders come from; waiting for them is the logger's only sleep.
pub(crate) trait Orders {
    fn wait(&mut self, timeout: Duration) -> Heard;
}

/// The master's channel, until it closes.
struct ChannelOrders {
    channel: Option<Channel>,
}

impl Orders for ChannelOrders {
    fn wait(&mut self, timeout: Duration) -> Heard {
        let Some(channel) = &self.channel else {
            std::thread::sleep(timeout);
            return Heard::Closed;
        };
        let mut set = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut set, Some(TimeSpec::from_duration(timeout)), None) {
            Ok(0) | Err(Errno::EINTR) => return Heard::Nothing,
            Ok(_) => {}
            Err(errno) => {
                log::error!("event=poll_failed error={:?}", errno.to_string());
                std::thread::sleep(timeout);
                return Heard::Nothing;
            }
        }
        let mut packet = [0; 64];
        match channel.recv(&mut packet) {
            Ok(Some((size, _))) => match Order::decode(&packet[..size]) {
                Some(order) => Heard::Order(order),
                None => {
                    log::warn!("event=order_unknown bytes={size}");
                    Heard::Nothing
                }
            },
            Err(fault) if matches!(fault.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Heard::Nothing
            }
            Err(fault) if fault.kind() == io::ErrorKind::InvalidData => {
                log::warn!("event=order_unknown error={:?}", fault.to_string());
                Heard::Nothing
            }
            closed => {
                if let Err(fault) = closed {
                    log::error!("event=channel_failed error={:?}", fault.to_string());
                }
                self.channel = None;
                Heard::Closed
            }
        }
    }
}

/// The logger's whole life; gives its exit code.
#[must_use]
pub fn run(options: Options, channel: Channel, metrics: Block<'_>) -> i32 {
    if let Err(fault) = set_niceness(options.nice) {
        log::warn!(
            "event=niceness_refused process=logger nice={} error={:?}",
            options.nice,
            fault.to_string()
        );
    }
    let mut orders = ChannelOrders { channel: Some(channel) };
    serve(&options, &mut orders, metrics)
}

/// How the logger stands to its master.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Serving,
    /// No master; since when there has been nothing to do for anybody.
    Orphaned {
        idle_since: Option<Now>,
        tested: Option<Now>,
    },
    Stopping {
        deadline: Now,
    },
}

pub(crate) fn serve(options: &Options, orders: &mut impl Orders, metrics: Block<'_>) -> i32 {
    let sources = Sources::new(&options.runtime_dir, options.instance).of_master(options.master);
    let mut drain = match Drain::start(sources, &options.sink, metrics) {
        Ok(drain) => drain,
        Err(fault) => {
            log::error!("event=logger_not_started error={:?}", fault.to_string());
            return 3;
        }
    };
    let mut exporter = options.traces.as_ref().and_then(|options| Exporter::start(options, metrics));
    let ended = drain_until_end(&mut drain, exporter.as_mut(), orders);
    if let Some(exporter) = &exporter {
        exporter.stop();
    }
    let code = match ended {
        Ok(emptied) => {
            let is_replaced = !drain.have_no_writer();
            let synced = drain.finish(STOP_SYNC_TIME_MAX, !emptied);
            if !(emptied && synced) {
                // While a worker lives, a successor takes up what is left.
                let level = if is_replaced && synced { log::Level::Info } else { log::Level::Warn };
                log::log!(
                    level,
                    "event=logger_stopped emptied={emptied} synced={synced} replaced={is_replaced}"
                );
            }
            0
        }
        Err(fault) => {
            log::error!("event=logger_failed error={:?}", fault.to_string());
            1
        }
    };
    if let Some(exporter) = exporter {
        exporter.finish(STOP_EXPORT_TIME_MAX);
    }
    code
}

/// Serves until it is time to leave; true if nothing is left behind.
fn drain_until_end(
    drain: &mut Drain<'_>,
    mut exporter: Option<&mut Exporter<'_>>,
    orders: &mut impl Orders,
) -> Result<bool, SinkGone> {
    let mut phase = Phase::Serving;
    let mut wait = Duration::ZERO;
    loop {
        let heard = orders.wait(wait);
        let now = clock::now();
        phase = match (phase, heard) {
            (Phase::Stopping { .. }, _) => phase,
            (_, Heard::Order(Order::Stop)) => {
                drain.hurry();
                drain.scan(now);
                Phase::Stopping { deadline: now.plus(STOP_DRAIN_TIME_MAX) }
            }
            (Phase::Serving, Heard::Closed) => {
                log::warn!("event=master_gone process=logger");
                Phase::Orphaned { idle_since: None, tested: None }
            }
            _ => phase,
        };
        let turn = drain.turn(now)?;
        if let Some(exporter) = &mut exporter {
            exporter.show();
        }
        match &mut phase {
            Phase::Serving => {}
            Phase::Stopping { deadline } => {
                if turn == Turn::Idle && drain.is_empty() {
                    return Ok(true);
                }
                if now.mono_ns >= deadline.mono_ns {
                    return Ok(false);
                }
            }
            Phase::Orphaned { idle_since, tested } => {
                if tested.is_none_or(|at| now.since(at) >= ORPHAN_POLL) {
                    *tested = Some(now);
                    let is_idle = turn == Turn::Idle && drain.have_no_writer() && drain.is_empty();
                    *idle_since = is_idle.then(|| idle_since.unwrap_or(now));
                }
                if idle_since.is_some_and(|since| now.since(since) >= ORPHAN_WAIT) {
                    return Ok(true);
                }
            }
        }
        wait = if turn == Turn::Busy { Duration::ZERO } else { POLL_INTERVAL };
    }
}
