//! The worker's part: times every request, decides which are kept, writes their
//! spans to the ring.
//!
//! ```text
//! head ─ mark(Parse) ─ mark(Decide) ─ mark(Record) ─ answered ┄ pending ┄ handed_over ─ kept?
//! ```
//! A request is timed from where its last bytes are looked at, as its service time
//! is; of a batch that comes in pieces from its first ones on: what was noted of it
//! is parked in between, and found again by a ticket.

use std::time::Duration;

use arrayvec::ArrayVec;

use super::Options;
use super::context::Parent;
use super::hole::{Busy, HOLE_NS, Turns, Usage};
use super::random::Random;
use super::span::{self, Origin};
use crate::clock::{self, Now};
use crate::exposure::ring::Writer;
use crate::metrics::pace::Pace;
use crate::metrics::{Block, Family};

/// Where a request's time goes, between being looked at and being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Head and body are read.
    Parse,
    /// The groups are found.
    Decide,
    /// The exposure is in its ring.
    Record,
}

/// Names of the stages, in their order.
pub(super) const STAGES: [&str; 3] = ["parse", "decide", "record"];

/// What a request is about, as spans name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'h> {
    /// `GET`; `_OTHER` for one that nobody knows.
    pub method: &'static str,
    /// `/v1/assign/{experiment}`; empty where there is no such route.
    pub route: &'static str,
    /// `traceparent`, as it came.
    pub traceparent: Option<&'h [u8]>,
}

/// Why a request is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Rate,
    Header,
    Slowest,
}

impl Reason {
    pub(super) fn name(self) -> &'static str {
        match self {
            Reason::Rate => "rate",
            Reason::Header => "header",
            Reason::Slowest => "slowest",
        }
    }
}

/// One request's times (of CLOCK_MONOTONIC, in nanoseconds), and what explains them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timed {
    pub(super) parent: Option<Parent>,
    pub(super) method: &'static str,
    pub(super) route: &'static str,
    pub(super) status: u16,
    pub(super) assignment_count: u32,
    /// Of a batch, what was answered of it so far.
    pub(super) line_count: u32,
    /// Where it is parked between its pieces; 0 if it comes in one.
    ticket: u16,
    pub(super) ready_ns: u64,
    pub(super) begin_ns: u64,
    pub(super) spent_ns: [u64; STAGES.len()],
    pub(super) end_ns: u64,
    /// The longest before it in its turn.
    pub(super) behind: Busy,
    /// The turn before, if it may have waited for that, and its longest.
    pub(super) before: Option<(u64, Busy)>,
    /// Of its turns, up to its end.
    pub(super) usage: Usage,
    /// When a piece of it was last put down.
    parked_ns: u64,
}

/// Requests of a turn that are answered and not handed over; of more than these
/// the first are taken as handed over when the next one is answered.
const PENDING_COUNT_MAX: usize = 32;
/// Batches that are parked; of more than these, and of those whose connection
/// broke, the oldest is forgotten and goes on as if it began there.
const PARKED_COUNT_MAX: usize = 64;
/// Tickets there are, 0 not among them.
const TICKET_COUNT: u16 = 1 << 13;
/// The bits of a trace's id that are its dice, as OpenTelemetry's consistent
/// sampling has them: sampled if they are not below (1 - rate) · 2^56.
const DICE_BITS: u32 = 56;

/// See the module.
#[derive(Debug)]
pub struct Tracer<'r> {
    header: bool,
    /// Dice below this are not kept.
    threshold: u64,
    ring: Writer<'r>,
    block: Block<'r>,
    origin: Origin,
    random: Random,
    turns: Turns,
    /// The request that is looked at, if one is.
    current: Option<Timed>,
    /// The reading of the clock when it was looked at.
    looked_ns: u64,
    /// When what is looked at was begun with.
    piece_ns: u64,
    /// The last reading of our own, or that one.
    last_ns: u64,
    pending: ArrayVec<Timed, PENDING_COUNT_MAX>,
    /// By the ticket's remainder.
    parked: [Option<Timed>; PARKED_COUNT_MAX],
    ticket: u16,
    slowest: Slowest,
    bytes: Vec<u8>,
}

/// The slowest request of an interval.
#[derive(Debug, Default)]
struct Slowest {
    interval_ns: u64,
    until_ns: u64,
    took_ns: u64,
    /// Unless it was kept anyway.
    waits: Option<Timed>,
}

impl<'r> Tracer<'r> {
    /// Of the worker with this number of the pool; `seed` is random.
    #[must_use]
    pub fn new(
        options: &Options,
        ring: Writer<'r>,
        block: Block<'r>,
        (pool, worker): (&str, usize),
        seed: u64,
    ) -> Tracer<'r> {
        let never = (1u64 << DICE_BITS) as f64;
        let interval = |interval: Duration| u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        Tracer {
            header: options.header,
            threshold: ((1.0 - options.rate.clamp(0.0, 1.0)) * never) as u64,
            ring,
            block,
            origin: Origin::new(pool, worker, std::process::id()),
            random: Random::new(seed),
            turns: Turns::default(),
            current: None,
            looked_ns: 0,
            piece_ns: 0,
            last_ns: 0,
            pending: ArrayVec::new(),
            parked: [None; PARKED_COUNT_MAX],
            ticket: 0,
            slowest: Slowest { interval_ns: options.slowest.map_or(0, interval), ..Slowest::default() },
            bytes: Vec::with_capacity(span::SIZE_MAX),
        }
    }

    /// From here on requests are answered by this version of the experiments.
    pub fn take_plan(&mut self, version: &str) {
        self.keep_slowest();
        version.clone_into(&mut self.origin.version);
    }

    /// The wait has returned.
    #[cold]
    pub fn begin_turn(&mut self, now: Now) {
        self.origin.set_time(now);
        self.turns.begin();
        if self.slowest.interval_ns > 0 && now.mono_ns >= self.slowest.until_ns {
            self.keep_slowest();
            self.slowest.until_ns = now.mono_ns.saturating_add(self.slowest.interval_ns);
        }
    }

    /// The next wait begins.
    #[cold]
    pub fn end_turn(&mut self, now_ns: u64) {
        self.handed_over(now_ns);
        self.put_down(now_ns);
        self.turns.end(now_ns);
        let begin_ns = self.turns.begin_ns();
        if now_ns.saturating_sub(begin_ns) < HOLE_NS {
            return;
        }
        let mut usage = None;
        for parked in self.parked.iter_mut().flatten().filter(|parked| parked.parked_ns >= begin_ns) {
            parked.usage = parked.usage.plus(*usage.get_or_insert_with(|| self.turns.usage()));
        }
    }

    /// A request's head was read: what follows is of it. Heard again with the rest
    /// of the same request, it changes nothing.
    #[cold]
    pub fn head(&mut self, pace: &Pace<'_>, subject: &Subject<'_>) {
        if !self.is_looked_at(pace) {
            self.take_up(pace, None);
            if let Some(request) = &mut self.current {
                request.parent = subject.traceparent.and_then(Parent::read);
                (request.method, request.route) = (subject.method, subject.route);
            }
        }
    }

    /// What is looked at may come in pieces: the ticket to say with each.
    #[cold]
    pub fn ticket(&mut self) -> u16 {
        self.ticket = self.ticket % (TICKET_COUNT - 1) + 1;
        if let Some(request) = &mut self.current {
            request.ticket = self.ticket;
        }
        self.ticket
    }

    /// A line of a batch comes next.
    #[cold]
    pub fn line(&mut self, pace: &Pace<'_>, ticket: u16, subject: &Subject<'_>) {
        if !self.is_looked_at(pace) {
            let place = &mut self.parked[usize::from(ticket) % PARKED_COUNT_MAX];
            match place.take_if(|parked| parked.ticket == ticket) {
                Some(parked) => self.take_up(pace, Some(parked)),
                None => self.head(pace, subject),
            }
        }
        if let Some(request) = &mut self.current {
            request.line_count += 1;
        }
    }

    /// A stage is over; the next one begins.
    #[cold]
    pub fn mark(&mut self, stage: Stage) {
        if let Some(request) = &mut self.current {
            let now_ns = clock::mono_ns();
            request.spent_ns[stage as usize] += now_ns.saturating_sub(self.last_ns);
            self.last_ns = now_ns;
        }
    }

    /// So many experiments were assigned.
    #[cold]
    pub fn assigned(&mut self, count: usize) {
        if let Some(request) = &mut self.current {
            request.assignment_count += count as u32;
        }
    }

    /// The answer is complete.
    #[cold]
    pub fn answered(&mut self, pace: &Pace<'_>, status: u16) {
        if !self.is_looked_at(pace) {
            // Its head could not be read.
            self.take_up(pace, None);
        }
        let now_ns = clock::mono_ns();
        if self.pending.is_full() {
            self.handed_over(now_ns);
        }
        if let Some(request) = self.finish(now_ns) {
            self.pending.push(Timed { status, ..request });
        }
        self.last_ns = now_ns;
    }

    /// The kernel has whatever was answered.
    #[cold]
    pub fn handed_over(&mut self, now_ns: u64) {
        self.first_handed_over(now_ns, self.pending.len());
    }

    /// The kernel has the first so many of the answers.
    #[cold]
    pub fn first_handed_over(&mut self, now_ns: u64, count: usize) {
        let count = count.min(self.pending.len());
        let mut usage = None;
        for index in 0..count {
            let mut request = self.pending[index];
            request.end_ns = now_ns;
            let took_ns = now_ns.saturating_sub(request.ready_ns);
            let dice = self.random.next();
            let why = self.decide(&request, dice);
            let is_slowest = self.slowest.interval_ns > 0 && took_ns > self.slowest.took_ns;
            if why.is_none() && !is_slowest {
                continue;
            }
            if took_ns >= HOLE_NS {
                request.usage = request.usage.plus(*usage.get_or_insert_with(|| self.turns.usage()));
            }
            if is_slowest {
                self.slowest.took_ns = took_ns;
                self.slowest.waits = why.is_none().then_some(request);
            }
            if let Some(why) = why {
                self.keep(&request, why, dice);
            }
        }
        self.pending.drain(..count);
    }

    /// Whether it is kept, however long it took.
    fn decide(&self, request: &Timed, dice: u64) -> Option<Reason> {
        match request.parent {
            Some(parent) if self.header => parent.is_sampled().then_some(Reason::Header),
            _ => (dice & ((1 << DICE_BITS) - 1) >= self.threshold).then_some(Reason::Rate),
        }
    }

    fn keep_slowest(&mut self) {
        self.slowest.took_ns = 0;
        if let Some(request) = self.slowest.waits.take() {
            let dice = self.random.next();
            self.keep(&request, Reason::Slowest, dice);
        }
    }

    fn keep(&mut self, request: &Timed, why: Reason, dice: u64) {
        let own = u128::from(self.random.id()) << 64 | u128::from(dice);
        let trace = request.parent.map_or(own, |parent| parent.trace);
        let count = span::write(&mut self.bytes, request, trace, why, &self.origin, &mut self.random);
        self.ring.claim();
        let family = match self.ring.commit(&self.bytes) {
            Ok(()) => Family::TraceSpansRecorded,
            Err(_) => Family::TraceSpansRefused,
        };
        self.block.add(family, count);
    }

    fn is_looked_at(&self, pace: &Pace<'_>) -> bool {
        self.current.is_some() && self.looked_ns == pace.read_ns()
    }

    /// What is looked at now is a request, or the next piece of one that was parked.
    fn take_up(&mut self, pace: &Pace<'_>, parked: Option<Timed>) {
        self.looked_ns = pace.read_ns();
        self.put_down(self.looked_ns);
        self.last_ns = self.last_ns.max(self.looked_ns);
        self.piece_ns = self.last_ns;
        let ready_ns = pace.ready_ns();
        self.current = Some(parked.unwrap_or_else(|| Timed {
            method: "_OTHER",
            ready_ns,
            begin_ns: self.piece_ns,
            behind: self.turns.longest(),
            before: self.turns.before(ready_ns),
            ..Timed::default()
        }));
    }

    /// What was looked at is done with, for now; whoever is looked at later has
    /// waited for it.
    fn put_down(&mut self, now_ns: u64) {
        if let Some(request) = self.finish(now_ns)
            && request.ticket > 0
        {
            let place = usize::from(request.ticket) % PARKED_COUNT_MAX;
            self.parked[place] = Some(Timed { parked_ns: now_ns, ..request });
        }
    }

    fn finish(&mut self, now_ns: u64) -> Option<Timed> {
        let request = self.current.take()?;
        let took_ns = now_ns.saturating_sub(self.piece_ns);
        self.turns.was_busy(Busy { route: request.route, took_ns });
        Some(request)
    }
}

impl Drop for Tracer<'_> {
    fn drop(&mut self) {
        self.keep_slowest();
    }
}
