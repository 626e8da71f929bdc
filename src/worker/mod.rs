//! A worker: one process, one thread, one CPU. It accepts, reads, decides,
//! records and writes in a tight loop, shares no lock and no writable memory
//! with any other worker, and allocates nothing after its first accept (but
//! for a new plan).
//!
//! The backends (`epoll`, `uring`) are plain loops around the same
//! [`Connection`](crate::http::connection::Connection), chosen once at start.
//!
//! ```text
//! start: pin → map plan → lock ring → block of metrics → Report::Ready
//! turn:  wait → now → accept → read → answer → write → timers → orders
//! end:   Order::Drain (or the master is gone for long) → answers say
//!        `Connection: close` → nothing open, or the deadline → exit 0
//! ```

pub mod connections;
pub mod control;
pub mod epoll;
pub mod hall;
pub mod policy;
pub mod timers;
pub mod uring;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use core_affinity::CoreId;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::endpoint::{App, AppOptions, Desk, RouteGroup};
use crate::engine::plan::{Plan, PlanFault};
use crate::exposure::ring::{self, Identity, RingFault, Side, Writer};
use crate::http::Limits;
use crate::limits::ANSWER_SIZE_MAX;
use crate::metrics::{Block, Family, Process, Table, TableFault, worker_block};
use crate::sys::cache::will_write;
use crate::sys::channel::Channel;
use crate::sys::region::{Region, prefault_program};
use crate::sys::uring::{Refusal, Ring};
use crate::trace::{self, Tracer};
use control::Control;
use hall::Porter;

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
    /// Where spans of its requests go; none while tracing is off.
    pub traces: Option<Traces>,
    /// Slot, which of its two, and file of every ring of the instance, for a pool that shows them.
    pub shown_rings: Vec<(usize, usize, PathBuf)>,
    /// The metrics region of the instance.
    pub metrics: Region,
    /// Which of the slot's two blocks of metrics to count in: 0 or 1, like the ring.
    pub which: usize,
    /// To and from the master.
    pub channel: Channel,
}

/// How a worker traces.
pub struct Traces {
    /// The slot's two rings for spans.
    pub rings: Rings,
    /// What is kept.
    pub options: trace::Options,
}

/// The two rings of a slot.
pub struct Rings {
    /// Their files.
    pub paths: [PathBuf; 2],
    /// What each says it is.
    pub identities: [Identity; 2],
}

/// A listening socket of the pool.
pub struct Listener {
    /// The socket, as inherited.
    pub fd: OwnedFd,
    /// The slot it belongs to.
    pub slot: usize,
    /// Said in logs: `127.0.0.1:8080`.
    pub address: String,
    /// What is spoken there.
    pub speaks: Speaks,
    /// Who else keeps it open.
    pub keeper: Keeper,
}

/// Who keeps a listening socket open beside the instance, so that connections
/// wait in its queue from one instance to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Keeper {
    /// Nobody.
    #[default]
    Nobody,
    /// systemd's fd store, from a start to a stop that no other start follows.
    Store,
    /// A socket unit, which it belongs to.
    Unit,
}

/// What is spoken on a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP.
    Http,
    /// Every connection gets the agent-check's line and is closed.
    Agent,
}

/// Which backend serves the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Io {
    /// io_uring where the kernel has what it takes, else epoll.
    #[default]
    Auto,
    /// io_uring, or none.
    IoUring,
    /// epoll.
    Epoll,
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
    /// Which backend serves its sockets.
    pub io: Io,
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
    /// How long a drain may take that no order's deadline bounds.
    pub drain_timeout: Duration,
}

impl PoolOptions {
    /// The largest answer of its routes.
    #[must_use]
    pub fn answer_size_max(&self) -> usize {
        self.routes.iter().map(|route| route.answer_size_max()).max().unwrap_or(ANSWER_SIZE_MAX)
    }
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
        /// Nobody is to follow on these sockets: who comes later is refused and
        /// need not wait.
        last: bool,
    },
    /// A successor accepts on the same sockets: nothing more is accepted here,
    /// answers close; exit at the latest after this long.
    HandOver {
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

/// Why this machine can't serve sockets so, before a worker finds out.
#[must_use]
pub fn refusal(io: Io) -> Option<String> {
    match io {
        Io::IoUring => Ring::refusal(uring::SIZES).map(|refusal| refusal.to_string()),
        Io::Auto | Io::Epoll => None,
    }
}

/// Whether a worker of this program can serve this plan: one that another
/// version has compiled may be laid out in another way.
#[must_use]
pub fn reads(plan: &OwnedFd) -> bool {
    Region::map_sealed(plan).is_ok_and(|region| Plan::attach(region.bytes()).is_ok())
}

/// Serves until it is told to leave; the process's exit code. A fault at the
/// start is said in the log and leaves 1.
#[must_use]
pub fn run(setup: Setup) -> i32 {
    match serve(setup) {
        Ok(()) => 0,
        Err(fault) => {
            log::error!("event=worker_failed reason={:?}", fault.to_string());
            1
        }
    }
}

/// Why a worker can't serve.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the plan can't be mapped: {0}")]
    Map(io::Error),
    #[error("the plan is not sound: {0}")]
    Plan(#[from] PlanFault),
    #[error("ring {path}: {fault}")]
    RingFile { path: PathBuf, fault: io::Error },
    #[error("ring: {0}")]
    Ring(#[from] RingFault),
    #[error("metrics: {0}")]
    Metrics(#[from] TableFault),
    #[error("io = \"io_uring\": {0}; `auto` or `epoll` would be right here")]
    Io(#[from] Refusal),
    #[error("event loop: {0}")]
    Loop(#[from] io::Error),
}

fn serve(setup: Setup) -> Result<(), Fault> {
    let Setup { options, listeners, plan, rings, traces, shown_rings, metrics, which, channel } = setup;
    if let Some(cpu) = options.cpu
        && !core_affinity::set_for_current(CoreId { id: cpu })
    {
        log::warn!("event=not_pinned pool={} worker={} cpu={cpu}", options.name, options.index);
    }
    let (ring, which) = match &rings {
        None => (None, which),
        Some(rings) => take_ring(rings, which).map(|(region, which)| (Some(region), which))?,
    };
    if let Some(region) = &ring {
        region.prefault();
        if let Err(fault) = region.lock_memory()
            && options.slot == 0
        {
            log::info!("event=memory_not_locked reason={:?} hint=\"raise LimitMEMLOCK\"", fault.to_string());
        }
    }
    let trace_ring = traces.as_ref().and_then(|traces| take_trace_ring(traces, which));
    let writer = ring.as_ref().map(|region| Writer::attach(region.words())).transpose()?;
    let writer = writer.map(|writer| writer.hinting(will_write));
    metrics.prefault();
    prefault_program();
    let metrics = Rc::new(metrics);
    let table = Table::attach(metrics.words())?;
    let block = table.block(worker_block(options.slot, which));
    block.claim(Process::Worker, &options.name);
    let now = clock::now();
    block.born(std::process::id(), now.unix_us, now.mono_ns);
    let shown: Vec<(usize, usize, Region)> = shown_rings.iter().filter_map(view_ring).collect();
    let mut desk = Desk::new(options.app, options.routes.clone(), writer, table, block);
    desk.show_rings(shown.iter().map(|(slot, which, region)| (*slot, *which, region.words())).collect());
    if let (Some(region), Some(traces)) = (&trace_ring, &traces) {
        let worker = (options.name.as_str(), options.index);
        let seed = getrandom::u64().unwrap_or(now.mono_ns ^ u64::from(std::process::id()));
        desk.trace(Tracer::new(&traces.options, Writer::attach(region.words())?, block, worker, seed));
    }
    let control = Control::new(channel, &options).followed_in(Rc::clone(&metrics));
    let mut backend = Backend::new(&options, listeners, control, table, block)?;
    let mut region = Region::map_sealed(&plan).map_err(Fault::Map)?;
    drop(plan);
    Plan::open(region.bytes())?;
    loop {
        // Opened, that is checked through, when it came; nobody can change it since.
        let plan = Plan::attach(region.bytes())?;
        let taken = clock::now();
        block.add(Family::PlansTaken, 1);
        block.set(Family::PlanExperiments, plan.experiment_count() as u64);
        block.set(Family::PlanTakenAt, taken.unix_us.unsigned_abs() / 1_000_000);
        match backend.serve(&mut App::new(&plan, &mut desk))? {
            Outcome::Plan(next) => backend.control().retire(std::mem::replace(&mut region, next)),
            Outcome::Leave => return Ok(()),
        }
    }
}

/// The backend that was chosen.
enum Backend<'r> {
    Epoll(Box<epoll::Backend<'r>>),
    Uring(Box<uring::Backend<'r>>),
}

impl<'r> Backend<'r> {
    fn new(
        options: &PoolOptions,
        listeners: Vec<Listener>,
        control: Control,
        table: Table<'r>,
        block: Block<'r>,
    ) -> Result<Backend<'r>, Fault> {
        let (ring, reason) = match options.io {
            Io::Epoll => (None, None),
            Io::IoUring => (Some(Ring::new(uring::SIZES)?), None),
            Io::Auto => match Ring::new(uring::SIZES) {
                Ok(ring) => (Some(ring), None),
                Err(refusal) => (None, Some(refusal)),
            },
        };
        let (pool, first) = (&options.name, options.index == 0);
        match (&ring, reason) {
            _ if !first => {}
            (Some(ring), _) => {
                log::info!("event=io pool={pool} backend=io_uring mode={}", ring.mode().name())
            }
            (None, None) => log::info!("event=io pool={pool} backend=epoll"),
            (None, Some(reason)) => {
                log::info!("event=io pool={pool} backend=epoll reason={:?}", reason.to_string())
            }
        }
        Ok(match ring {
            Some(ring) => Backend::Uring(Box::new(uring::Backend::new(
                ring, options, listeners, control, table, block,
            )?)),
            None => Backend::Epoll(Box::new(epoll::Backend::new(options, listeners, control, table, block)?)),
        })
    }

    fn control(&mut self) -> &mut Control {
        match self {
            Backend::Epoll(backend) => &mut backend.hall().control,
            Backend::Uring(backend) => &mut backend.hall().control,
        }
    }

    fn serve(&mut self, app: &mut App<'_, 'r>) -> io::Result<Outcome> {
        match self {
            Backend::Epoll(backend) => backend.serve(app),
            Backend::Uring(backend) => backend.serve(app),
        }
    }
}

/// A ring to be shown; one that can't be had is not shown.
fn view_ring((slot, which, path): &(usize, usize, PathBuf)) -> Option<(usize, usize, Region)> {
    match Region::view_file(path) {
        Ok(region) => Some((*slot, *which, region)),
        Err(error) => {
            log::warn!("event=ring_not_shown file={:?} reason={:?}", path, error.to_string());
            None
        }
    }
}

/// Takes one of the slot's rings: the one that was named first, if nobody else
/// has it and its header holds or can be mended.
fn take_ring(rings: &Rings, which: usize) -> Result<(Region, usize), Fault> {
    let take = |which: usize| {
        let path = &rings.paths[which];
        let region =
            Region::open_locked(path).map_err(|fault| Fault::RingFile { path: path.clone(), fault })?;
        mend(rings, which, &region)?;
        Ok((region, which))
    };
    take(which).or_else(|fault: Fault| {
        take(1 - which).inspect(|_| log::warn!("event=other_ring_taken reason={:?}", fault.to_string()))
    })
}

/// A ring for spans. One that can't be had costs spans and nothing else.
fn take_trace_ring(traces: &Traces, which: usize) -> Option<Region> {
    match take_ring(&traces.rings, which) {
        Ok((region, _)) => {
            region.prefault();
            Some(region)
        }
        Err(fault) => {
            log::warn!("event=not_traced reason={:?}", fault.to_string());
            None
        }
    }
}

/// What a ring's header should say is known from where it lies.
fn mend(rings: &Rings, which: usize, region: &Region) -> Result<(), RingFault> {
    let identity = rings.identities[which];
    let fault = match Writer::check(region.words()) {
        Ok(found) if found == identity => return Ok(()),
        Ok(found) => format!("it says that it is ring {} of instance {:016x}", found.ring, found.instance),
        Err(fault) => fault.to_string(),
    };
    let path = rings.paths[which].display();
    ring::mend(region.words(), identity, Side::Writer)?;
    Writer::check(region.words())?;
    log::error!("event=ring_mended file={path:?} reason={:?}", fault.to_string());
    Ok(())
}

/// Why a backend's loop ended.
pub enum Outcome {
    /// A new plan is to be taken into force.
    Plan(Region),
    /// Nothing is left to do.
    Leave,
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
            Order::Drain { deadline_ms, last } => {
                [numbered(b'D', *deadline_ms), vec![u8::from(*last)]].concat()
            }
            Order::HandOver { deadline_ms } => numbered(b'H', *deadline_ms),
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
            Some(b'D') => {
                let last = packet.get(9).is_some_and(|last| *last != 0);
                Ok(Order::Drain { deadline_ms: number(packet)?, last })
            }
            Some(b'H') => Ok(Order::HandOver { deadline_ms: number(packet)? }),
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
            Order::Drain { deadline_ms: 30_000, last: false },
            Order::Drain { deadline_ms: 1 << 40, last: true },
            Order::HandOver { deadline_ms: 0 },
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
