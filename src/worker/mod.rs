//! A worker: one process, one thread, one CPU. It accepts, reads, decides,
//! records and writes in a tight loop, shares no lock and no writable memory
//! with any other worker, and allocates nothing after its first accept (but
//! for a new plan).
//!
//! The backends (`epoll`) are plain loops around the same
//! [`Connection`](crate::http::connection::Connection), chosen once at start.
//!
//! ```text
//! start: pin → map plan → lock ring → block of metrics → Report::Ready
//! turn:  wait → now → accept → read → answer → write → timers → orders
//! end:   Order::Drain (or the master is gone for long) → answers say
//!        `Connection: close` → nothing open, or the deadline → exit 0
//! ```

pub mod connections;
pub mod epoll;
pub mod timers;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::endpoint::{AppOptions, RouteGroup};
use crate::http::connection::Limits;
use crate::sys::channel::Channel;
use crate::sys::region::Region;

/// All that a worker is given by the master. Before [`run`] is called, the
/// child has already been given its niceness and its panic hook.
pub struct Setup {
    /// How its pool answers.
    pub options: PoolOptions,
    /// Every listening socket of the pool, non-blocking.
    pub listeners: Vec<Listener>,
    /// The plan in force: a sealed memfd.
    pub plan: OwnedFd,
    /// The slot's two ring files and which of them to take; none where no route records.
    pub rings: Option<Rings>,
    /// The metrics region of the instance.
    pub metrics: Region,
    /// Which of the slot's two blocks of metrics to count in: 0 or 1, like the ring.
    pub which: usize,
    /// To and from the master.
    pub channel: Channel,
}

/// The two rings of a slot.
pub struct Rings {
    /// Their files.
    pub paths: [PathBuf; 2],
}

/// A listening socket of the pool.
pub struct Listener {
    /// The socket, as inherited.
    pub fd: OwnedFd,
    /// The slot it belongs to.
    pub slot: usize,
    /// Said in logs: `127.0.0.1:8080`.
    pub address: String,
}

/// What the settings say of a pool, and which of its workers this is.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// The pool's name.
    pub name: String,
    /// The worker's slot, unique over all pools of the instance.
    pub slot: usize,
    /// The worker's number within its pool.
    pub index: usize,
    /// The CPU to be pinned to.
    pub cpu: Option<usize>,
    /// Routes answered.
    pub routes: Vec<RouteGroup>,
    /// How they are answered.
    pub app: AppOptions,
    /// Sizes and timeouts of HTTP.
    pub limits: Limits,
    /// Connections at once.
    pub connection_count_max: usize,
    /// On drain, how long an idle connection is kept, for the proxy to notice.
    pub drain_idle: Duration,
    /// How long to serve on after the master is gone.
    pub orphan_timeout: Duration,
}

/// What the master tells a worker, in one packet of its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Take this plan into force; the sealed memfd comes with the packet.
    Plan,
    /// Finish: nothing new is accepted, answers close; exit at the latest after this long.
    Drain {
        /// How long the rest may take.
        deadline_ms: u64,
    },
    /// Serve the socket of a slot whose worker is missing, too.
    Adopt {
        /// Whose socket.
        slot: usize,
    },
    /// That slot has its own worker again.
    Release {
        /// Whose socket.
        slot: usize,
    },
}

/// What a worker tells the master, in one packet of its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// It accepts, with a plan in force.
    Ready,
    /// A new plan is in force.
    PlanInForce,
    /// The plan was not taken; the one before stays in force.
    PlanRefused {
        /// Why.
        reason: String,
    },
}

/// A packet that is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a packet of {size} bytes with kind {kind} is no message of this channel")]
pub struct UnknownPacket {
    /// Its length.
    pub size: usize,
    /// Its first byte, 0 if empty.
    pub kind: u8,
}

fn numbered(kind: u8, number: u64) -> Vec<u8> {
    let mut packet = vec![kind];
    packet.extend_from_slice(&number.to_le_bytes());
    packet
}

fn number(packet: &[u8]) -> Result<u64, UnknownPacket> {
    let fault = UnknownPacket { size: packet.len(), kind: packet.first().copied().unwrap_or(0) };
    packet.get(1..9).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes).ok_or(fault)
}

impl Order {
    /// The packet's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Order::Plan => vec![b'P'],
            Order::Drain { deadline_ms } => numbered(b'D', *deadline_ms),
            Order::Adopt { slot } => numbered(b'A', *slot as u64),
            Order::Release { slot } => numbered(b'R', *slot as u64),
        }
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// If it is no order.
    pub fn decode(packet: &[u8]) -> Result<Order, UnknownPacket> {
        match packet.first() {
            Some(b'P') => Ok(Order::Plan),
            Some(b'D') => Ok(Order::Drain { deadline_ms: number(packet)? }),
            Some(b'A') => Ok(Order::Adopt { slot: number(packet)? as usize }),
            Some(b'R') => Ok(Order::Release { slot: number(packet)? as usize }),
            other => Err(UnknownPacket { size: packet.len(), kind: other.copied().unwrap_or(0) }),
        }
    }
}

impl Report {
    /// The packet's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Report::Ready => vec![b'r'],
            Report::PlanInForce => vec![b'p'],
            Report::PlanRefused { reason } => [b"x", reason.as_bytes()].concat(),
        }
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// If it is no report.
    pub fn decode(packet: &[u8]) -> Result<Report, UnknownPacket> {
        match packet.first() {
            Some(b'r') => Ok(Report::Ready),
            Some(b'p') => Ok(Report::PlanInForce),
            Some(b'x') => {
                Ok(Report::PlanRefused { reason: String::from_utf8_lossy(&packet[1..]).into_owned() })
            }
            other => Err(UnknownPacket { size: packet.len(), kind: other.copied().unwrap_or(0) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_its_packet() {
        for order in [
            Order::Plan,
            Order::Drain { deadline_ms: 30_000 },
            Order::Adopt { slot: 3 },
            Order::Release { slot: 1 << 40 },
        ] {
            assert_eq!(Order::decode(&order.encode()), Ok(order));
        }
        for report in [Report::Ready, Report::PlanInForce, Report::PlanRefused { reason: "ü".into() }] {
            assert_eq!(Report::decode(&report.encode()), Ok(report));
        }
    }

    #[test]
    fn a_foreign_or_cut_packet_is_no_order() {
        assert!(Order::decode(b"").is_err());
        assert!(Order::decode(b"Q").is_err());
        assert!(Order::decode(b"D\0\0").is_err());
        assert!(Report::decode(b"").is_err());
    }
}
