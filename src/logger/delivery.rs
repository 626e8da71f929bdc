//! From batches to a sink that confirms later and may be away: what it does not
//! take goes to the spool.
//!
//! ```text
//! batch ─ cut into chunks ─→ courier: under way ─ delivered ─→ safe
//!                  │              └─ failed: waits again          ↑
//!                  └─ stalled: append, sync ──────────────────────┘
//! spool ─ replay, rate-limited, behind live traffic ─→ courier
//! ```
//! Promises
//! - A batch is confirmed once each of its chunks was delivered, refused for good
//!   or is synced in the spool; and batches are confirmed in order.
//! - *Stalled* is: something waits or is under way, and nothing was delivered for
//!   [`STALL_TIME`]. Then batches go to the spool; what is under way stays so, and
//!   is not handed out by the spool before it has come back. So nothing is
//!   doubled but where the sink itself does not know whether it has it.
//! - One delivery ends the stall, or that nothing is left to deliver (what was in
//!   the spool can be evicted, or damaged). While it lasts, something is always under
//!   way: what is left of before, or one chunk of the spool (or, where the spool
//!   takes nothing, of the rings).
//! - What neither takes stays in its batch, and so in the rings.
//!
//! Live traffic is here, what goes through the spool in [`spooling`].
//!
//! It sees no clock and no thread: time is an argument, and sink and disk are
//! traits, so that a test can play any bad day.

mod spooling;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use super::batch::Batch;
use super::sink::kinds::{Courier, Done, Outcome};
use super::spool::disk::Disk;
use super::spool::{Fate, Place, Spool};
use crate::clock::Now;
use crate::exposure::record::{Framed, unframe};

/// Without a delivery for so long, with something waiting, the sink is away.
pub const STALL_TIME: Duration = Duration::from_secs(2);
/// The same once the logger is to stop.
const STALL_TIME_STOPPING: Duration = Duration::from_millis(400);
/// After a failed delivery, before the next is tried; doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// What goes on failing is reported this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// Between two looks for what was delivered.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
const IDLE_INTERVAL: Duration = Duration::from_millis(100);

/// How chunks are made and replayed.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A chunk's bytes at most, unless a single exposure is larger.
    pub chunk_size: usize,
    /// Bytes a second from the spool.
    pub replay_rate: u64,
}

/// One more sending of something.
type Token = u64;

/// What is under way.
#[derive(Debug, Clone, Copy)]
enum Aim {
    Live { batch: u64, chunk: usize },
    Spooled { number: u64, size: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    UnderWay(Token),
    /// Delivered, or refused for good.
    Settled {
        rejected: u32,
    },
}

#[derive(Debug, Clone)]
struct Chunk {
    bytes: Range<usize>,
    count: u32,
    state: State,
}

/// A batch that is not confirmed.
#[derive(Debug)]
struct Held {
    batch: Batch,
    chunks: Vec<Chunk>,
    /// Written to the spool: which chunks, where, and the number behind them.
    written: Option<Written>,
    /// Exposures of it that are safe in the spool.
    spooled: u64,
    is_safe: bool,
}

#[derive(Debug)]
struct Written {
    places: Vec<(usize, Place)>,
    end: u64,
}

/// What is counted, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Exposures under way now.
    pub under_way: u64,
    /// Exposures sent again that may have arrived before.
    pub doubtful: u64,
    /// Bytes delivered.
    pub bytes: u64,
    /// Sendings that failed, and refusals of the disk.
    pub errors: u64,
}

/// The state machine.
pub struct Delivery<C, D: Disk> {
    /// The sink.
    pub courier: C,
    /// The spool, once it could be opened.
    pub spool: Option<Spool<D>>,
    options: Options,
    held: VecDeque<Held>,
    /// The number of the first of them.
    first: u64,
    under_way: BTreeMap<Token, (Aim, u32)>,
    next_token: Token,
    /// Bytes of the spool under way.
    replay_size: usize,
    stalled: Option<Now>,
    /// When something was last delivered, or began to wait.
    progress: Now,
    retry_wait: Duration,
    send_after: Option<Now>,
    spool_after: Option<Now>,
    replay_after: Option<Now>,
    allowance: f64,
    allowed_at: Option<Now>,
    age_checked: Option<Now>,
    reported: BTreeMap<&'static str, Now>,
    stopping: bool,
    tally: Tally,
    outcomes: Vec<(Token, Outcome)>,
    buffer: Vec<u8>,
}

impl<C: Courier, D: Disk> Delivery<C, D> {
    /// Nothing under way.
    pub fn new(courier: C, spool: Option<Spool<D>>, options: Options, now: Now) -> Delivery<C, D> {
        Delivery {
            courier,
            spool,
            options,
            held: VecDeque::new(),
            first: 0,
            under_way: BTreeMap::new(),
            next_token: 1,
            replay_size: 0,
            stalled: None,
            progress: now,
            retry_wait: RETRY_FIRST,
            send_after: None,
            spool_after: None,
            replay_after: None,
            allowance: 0.0,
            allowed_at: None,
            age_checked: None,
            reported: BTreeMap::new(),
            stopping: false,
            tally: Tally::default(),
            outcomes: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Takes a batch.
    pub fn take(&mut self, batch: Batch, now: Now) {
        if self.is_idle() {
            self.progress = now;
        }
        let chunks = cut(&batch.bytes, self.options.chunk_size);
        self.held.push_back(Held { batch, chunks, written: None, spooled: 0, is_safe: false });
    }

    /// From now on a stall is noticed sooner, and the spool is not replayed.
    pub fn hurry(&mut self) {
        self.stopping = true;
    }

    /// No batch waits to be confirmed.
    #[must_use]
    pub fn holds_nothing(&self) -> bool {
        self.held.is_empty()
    }

    /// Nothing is under way.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.under_way.is_empty()
    }

    fn is_idle(&self) -> bool {
        self.held.is_empty() && self.under_way.is_empty()
    }

    /// The sink is away.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    /// What is counted.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally { under_way: self.under_way.values().map(|(_, count)| u64::from(*count)).sum(), ..self.tally }
    }

    /// How long it may sleep if no batch comes.
    #[must_use]
    pub fn wait(&self) -> Duration {
        let has_work = !self.is_idle() || self.spool.as_ref().is_some_and(|spool| spool.count() > 0);
        if has_work { POLL_INTERVAL } else { IDLE_INTERVAL }
    }

    /// One turn: hears what was delivered, sends, spools, replays; `confirm` gets
    /// the batches that are safe, in order.
    pub fn turn(&mut self, now: Now, mut confirm: impl FnMut(Done)) {
        self.hear(now);
        self.look_for_stall(now);
        if self.stalled.is_some() {
            self.spool_batches(now);
        }
        self.sync_spool(now);
        self.send(now);
        self.replay(now);
        self.tend_spool(now);
        while let Some(held) = self.held.front_mut() {
            let is_settled = |chunk: &Chunk| matches!(chunk.state, State::Settled { .. });
            // One that is written and not synced is neither in the spool nor not.
            if held.written.is_some() || !(held.is_safe || held.chunks.iter().all(is_settled)) {
                break;
            }
            let rejected = held.chunks.iter().map(|chunk| match chunk.state {
                State::Settled { rejected } => u64::from(rejected),
                _ => 0,
            });
            let rejected = rejected.sum();
            let held = self.held.pop_front().expect("seen just now");
            self.first += 1;
            confirm(Done { batch: held.batch, delivered: true, spooled: held.spooled, rejected });
        }
    }

    /// The end: what is not safe goes to the spool, or stays in the rings.
    pub fn finish(&mut self, now: Now, confirm: impl FnMut(Done)) {
        self.stalled = self.stalled.or(Some(now));
        self.spool_after = None;
        self.spool_batches(now);
        if let Some(spool) = &mut self.spool {
            let synced = spool.sync();
            if let Err(fault) = synced {
                log::error!("event=spool_refused waiting_in=rings error={:?}", fault.to_string());
            }
        }
        self.take_spooled();
        self.turn(now, confirm);
    }

    fn hear(&mut self, now: Now) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.courier.poll(now, &mut outcomes);
        for (token, outcome) in outcomes.drain(..) {
            let Some((aim, count)) = self.under_way.remove(&token) else {
                continue;
            };
            match outcome {
                Outcome::Delivered { rejected } => self.note_progress(now, rejected < count),
                Outcome::Failed { may_have_arrived } => {
                    self.note_failure(now);
                    self.tally.doubtful += if may_have_arrived { u64::from(count) } else { 0 };
                }
            }
            let rejected = match outcome {
                Outcome::Delivered { rejected } => Some(rejected),
                Outcome::Failed { .. } => None,
            };
            match aim {
                Aim::Spooled { number, size } => {
                    self.replay_size -= size;
                    self.tally.bytes += rejected.map_or(0, |_| size as u64);
                    if let Some(spool) = &mut self.spool {
                        let fate = rejected.map_or(Fate::Again, |rejected| Fate::Settled { rejected });
                        spool.settle(number, fate);
                    }
                }
                Aim::Live { batch, chunk } => {
                    let held =
                        batch.checked_sub(self.first).and_then(|index| self.held.get_mut(index as usize));
                    if let Some(chunk) = held.and_then(|held| held.chunks.get_mut(chunk)) {
                        self.tally.bytes += rejected.map_or(0, |_| chunk.bytes.len() as u64);
                        chunk.state = rejected.map_or(State::Waiting, |rejected| State::Settled { rejected });
                    }
                }
            }
        }
        self.outcomes = outcomes;
    }

    fn note_progress(&mut self, now: Now, delivered: bool) {
        self.progress = now;
        if !delivered {
            return;
        }
        (self.retry_wait, self.send_after) = (RETRY_FIRST, None);
        if let Some(since) = self.stalled.take() {
            log::info!(
                "event=sink_recovered after_s={:.1} in_spool={}",
                now.since(since).as_secs_f64(),
                self.spool.as_ref().map_or(0, Spool::count)
            );
        }
    }

    fn note_failure(&mut self, now: Now) {
        self.tally.errors += 1;
        if self.send_after.is_none_or(|after| now.mono_ns >= after.mono_ns) {
            self.send_after = Some(now.plus(self.retry_wait));
            self.retry_wait = (self.retry_wait * 2).min(RETRY_LAST);
        }
    }

    fn look_for_stall(&mut self, now: Now) {
        if self.is_idle() {
            self.progress = now;
            if self.spool.as_ref().is_some_and(|spool| spool.count() == 0)
                && let Some(since) = self.stalled.take()
            {
                log::info!(
                    "event=sink_stall_over reason=\"nothing is left to deliver\" after_s={:.1}",
                    now.since(since).as_secs_f64()
                );
            }
            return;
        }
        let stall_time = if self.stopping { STALL_TIME_STOPPING } else { STALL_TIME };
        if self.stalled.is_none() && now.since(self.progress) >= stall_time {
            log::warn!(
                "event=sink_stalled silent_s={:.1} under_way={} waiting_in={}",
                now.since(self.progress).as_secs_f64(),
                self.under_way.len(),
                if self.spool.is_some() { "spool" } else { "rings" }
            );
            self.stalled = Some(now);
        }
    }

    fn may_send(&self, now: Now) -> bool {
        self.send_after.is_none_or(|after| now.mono_ns >= after.mono_ns)
    }

    /// Sends what waits, in order; in a stall one chunk, if nothing else shows
    /// when the sink is back.
    fn send(&mut self, now: Now) {
        if !self.may_send(now) {
            return;
        }
        let is_probe = self.stalled.is_some();
        if is_probe
            && (!self.under_way.is_empty() || self.spool.as_ref().is_some_and(|spool| spool.count() > 0))
        {
            return;
        }
        for (index, held) in self.held.iter_mut().enumerate() {
            if held.is_safe || held.written.is_some() {
                continue;
            }
            for (chunk_index, chunk) in held.chunks.iter_mut().enumerate() {
                if chunk.state != State::Waiting {
                    continue;
                }
                let token = self.next_token;
                if !self.courier.send(token, &held.batch.bytes[chunk.bytes.clone()], chunk.count, now) {
                    return;
                }
                self.next_token += 1;
                chunk.state = State::UnderWay(token);
                let aim = Aim::Live { batch: self.first + index as u64, chunk: chunk_index };
                self.under_way.insert(token, (aim, chunk.count));
                if is_probe {
                    return;
                }
            }
        }
    }

    fn report(&mut self, now: Now, event: &'static str, what: impl FnOnce() -> String) {
        if self.reported.get(event).is_none_or(|at| now.since(*at) >= REPORT_INTERVAL) {
            self.reported.insert(event, now);
            log::error!("event={event} {}", what());
        }
    }
}

/// Cuts whole exposures into chunks of at most `size` bytes.
fn cut(bytes: &[u8], size: usize) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let (mut begin, mut at, mut count) = (0, 0, 0);
    while let Framed::Whole { size: next, .. } = unframe(&bytes[at..]) {
        if at > begin && at + next - begin > size {
            chunks.push(Chunk { bytes: begin..at, count, state: State::Waiting });
            (begin, count) = (at, 0);
        }
        at += next;
        count += 1;
    }
    debug_assert_eq!(at, bytes.len(), "the drain takes whole exposures alone");
    if count > 0 {
        chunks.push(Chunk { bytes: begin..at, count, state: State::Waiting });
    }
    chunks
}

#[cfg(test)]
mod tests;
