//! The drain: takes exposures out of all rings in fair turns, makes batches of
//! them, and moves each ring's head once the sink has what lies before it.
//!
//! Invariants
//! - Batches go to the sink and come back in one order, so a ring's confirmed
//!   position only grows, and never passes an exposure that is not safe.
//! - In a turn a ring gives at most `RING_TURN_SIZE` while others wait; the next
//!   batch begins where the last one stopped.
//! - Its memory is the fixed set of batches.
//!
//! - A batch is of this instance's rings or of earlier ones', never of both.
//!
//! **Counts that survive a kill.** What was taken from this instance's rings is
//! read off the rings' own reader states, which moved together with the heads: a
//! logger killed between a write and its confirmation neither loses nor doubles
//! a count. What was delivered is that without what was spooled or rejected, which
//! is added up in the step that moves the heads. The spool's books are on its
//! disk. Of earlier instances' rings, which vanish, everything is added up as it
//! happens, and may miss what was under way at a kill.

use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::batch::{Batch, Mark, SourceKey};
use super::sink::kinds::Done;
use super::sink::{Handle, SinkOptions, SpoolState};
use super::sources::{Source, Sources};
use crate::clock::Now;
use crate::exposure::record;
use crate::exposure::ring::{Account, Identity, Step};
use crate::limits::{BATCH_COUNT, BATCH_SIZE, RING_TURN_SIZE};
use crate::metrics::audit::Audit;
use crate::metrics::{Block, Family};

/// How often rings are looked for, and damage is reported.
const SCAN_INTERVAL: Duration = Duration::from_millis(200);
/// Cells of the delivered, corrupt, spooled and rejected families: this
/// instance's rings, earlier ones', and (of the last family) the spool.
const OWN: usize = 0;
const EARLIER: usize = 1;
const FROM_SPOOL: usize = 2;

/// Steps of a ring's turn, and rounds for a batch, at most: damage adds nothing to
/// a batch, and a worker gone wild could write it for ever.
const TURN_STEP_COUNT_MAX: usize = RING_TURN_SIZE / 16;
const ROUND_COUNT_MAX: usize = 2 * BATCH_SIZE / RING_TURN_SIZE;

/// What one turn found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Every ring is read to its end.
    Idle,
    /// There may be more to read now.
    Busy,
    /// All batches are with the sink.
    Blocked,
}

/// The sink's thread is gone: a bug, and nothing can be delivered any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sink's thread has ended")]
pub struct SinkGone;

/// What the sink had counted when it was last carried over.
#[derive(Debug, Default)]
struct Carried {
    bytes: u64,
    errors: u64,
    evicted: u64,
    doubtful: u64,
    confirmations: u64,
    confirmation_us: u64,
}

/// The drain and the sink's thread behind it.
#[derive(Debug)]
pub struct Drain<'m> {
    sources: Sources,
    sink: Handle,
    free: Vec<Batch>,
    metrics: Block<'m>,
    carried: Carried,
    scanned: Option<Now>,
    scan_failing: bool,
    /// The ring that begins the next batch.
    first: SourceKey,
    /// Damage of this instance's rings as last shown: it must not go back.
    corrupt_shown: u64,
    /// The same of what was delivered.
    delivered_shown: u64,
    /// The next batch is of this instance's rings, if they have something.
    own_first: bool,
    /// How long a small batch waits to become larger.
    linger: Option<Duration>,
    sent: Option<Now>,
}

impl<'m> Drain<'m> {
    /// Starts the sink's thread; rings are found in the first turn.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(sources: Sources, sink: &SinkOptions, metrics: Block<'m>) -> io::Result<Drain<'m>> {
        let linger = sink.linger();
        let sink = Handle::start(sink, BATCH_COUNT)?;
        let sources = sources.resume_from(sink.marks.clone());
        Ok(Drain {
            sources,
            sink,
            free: (0..BATCH_COUNT).map(|_| Batch::new()).collect(),
            metrics,
            carried: Carried::default(),
            scanned: None,
            scan_failing: false,
            first: 0,
            corrupt_shown: 0,
            delivered_shown: 0,
            own_first: true,
            linger,
            sent: None,
        })
    }

    /// One turn: confirms what came back, looks for rings when it is time, and
    /// makes one batch of what waits.
    ///
    /// # Errors
    /// If the sink's thread is gone.
    pub fn turn(&mut self, now: Now) -> Result<Turn, SinkGone> {
        self.metrics.turns(now.mono_ns);
        self.take_back()?;
        if self.scanned.is_none_or(|at| now.since(at) >= SCAN_INTERVAL) {
            self.scan(now);
        }
        if self.lingers(now) {
            return Ok(Turn::Idle);
        }
        let Some(mut batch) = self.free.pop() else {
            return Ok(Turn::Blocked);
        };
        let mut is_full = self.fill(&mut batch, self.own_first);
        if batch.reached.is_empty() {
            self.own_first = !self.own_first;
            is_full = self.fill(&mut batch, self.own_first);
        }
        if batch.reached.is_empty() {
            self.free.push(batch);
            return Ok(Turn::Idle);
        }
        self.own_first = !self.own_first;
        self.sent = Some(now);
        self.sink.send(batch).map_err(|_| SinkGone)?;
        Ok(if is_full { Turn::Busy } else { Turn::Idle })
    }

    /// Whether what waits should wait for more: it is little, and not old.
    fn lingers(&mut self, now: Now) -> bool {
        let is_young =
            self.linger.is_some_and(|linger| self.sent.is_some_and(|sent| now.since(sent) < linger));
        if !is_young {
            return false;
        }
        let mut waiting = 0;
        self.sources.rings.values_mut().all(|source| {
            waiting += source.reader.waiting_size().unwrap_or(0);
            waiting < RING_TURN_SIZE as u64
        })
    }

    /// The end is near: nothing waits for more, and a sink that does not answer
    /// is not waited for.
    pub fn hurry(&mut self) {
        self.linger = None;
        self.sink.hurry();
    }

    /// Nothing that could be read waits, and nothing is under way.
    pub fn is_empty(&mut self) -> bool {
        let is_drained = |source: &mut Source| source.fault.is_some() || source.is_empty();
        self.free.len() == BATCH_COUNT && self.sources.rings.values_mut().all(is_drained)
    }

    /// No worker holds any ring.
    #[must_use]
    pub fn have_no_writer(&self) -> bool {
        self.sources.have_no_writer()
    }

    /// Looks for rings now.
    pub fn scan(&mut self, now: Now) {
        self.scanned = Some(now);
        let failed = self.sources.scan();
        if let (Err(fault), false) = (&failed, self.scan_failing) {
            log::error!("event=rings_unreadable error={:?}", fault.to_string());
        }
        self.scan_failing = failed.is_err();
        self.metrics.set(Family::RingsRefused, self.sources.refused_count() as u64);
        for (cell, resumed) in std::mem::take(&mut self.sources.resumed).into_iter().enumerate() {
            self.metrics.add_at(Family::ExposuresSpooled, cell, resumed);
        }
        for source in self.sources.rings.values_mut() {
            source.keep();
            if source.damage.0 > 0 {
                let (count, size) = std::mem::take(&mut source.damage);
                log::error!("event=ring_damaged file={:?} places={count} skipped_bytes={size}", source.path);
            }
        }
        self.show();
        self.show_rings();
    }

    /// No batch follows. The sink syncs, and hangs up when it is done; waits for
    /// that as long as `wait`, and says whether it came.
    #[must_use]
    pub fn finish(mut self, wait: Duration, give_up: bool) -> bool {
        if give_up {
            self.sink.give_up();
        }
        self.sink.finish();
        let deadline = std::time::Instant::now() + wait;
        loop {
            match self.sink.done.recv_deadline(deadline) {
                Ok(done) => self.confirm(done),
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                    self.show();
                    return true;
                }
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    fn take_back(&mut self) -> Result<(), SinkGone> {
        let mut confirmed = false;
        loop {
            match self.sink.done.try_recv() {
                Ok(done) => {
                    self.confirm(done);
                    confirmed = true;
                }
                Err(crossbeam_channel::TryRecvError::Empty) => break,
                Err(crossbeam_channel::TryRecvError::Disconnected) => return Err(SinkGone),
            }
        }
        if confirmed {
            self.show();
        }
        Ok(())
    }

    fn confirm(&mut self, done: Done) {
        let Done { mut batch, delivered, spooled, rejected } = done;
        let cell = if batch.is_own { OWN } else { EARLIER };
        if delivered {
            self.metrics.add_at(Family::ExposuresSpooled, cell, spooled);
            self.metrics.add_at(Family::ExposuresRejected, cell, rejected);
        }
        for (key, Mark { position, .. }) in &batch.reached {
            // A ring goes only when it is empty and confirmed, so it is still there.
            let Some(source) = self.sources.rings.get_mut(key) else {
                continue;
            };
            if !delivered {
                continue;
            }
            let before = source.reader.confirmed();
            source.reader.confirm(*position);
            if !source.own {
                let corrupt = position.corrupt().wrapping_sub(before.corrupt());
                self.metrics.add_at(Family::ExposuresCorrupt, EARLIER, corrupt);
            }
        }
        if delivered && !batch.is_own {
            self.metrics.add_at(Family::ExposuresDelivered, EARLIER, batch.count - spooled - rejected);
        }
        batch.clear();
        self.free.push(batch);
    }

    /// Makes a batch of what waits in this instance's rings, or in earlier ones';
    /// true if it was filled before all was read.
    fn fill(&mut self, batch: &mut Batch, is_own: bool) -> bool {
        batch.is_own = is_own;
        let is_full = self.fill_bytes(batch);
        for (key, source) in self.sources.rings.iter_mut().filter(|(_, source)| source.own == is_own) {
            let position = source.reader.position();
            if position != source.batched {
                source.batched = position;
                let Identity { instance, ring, .. } = source.reader.identity();
                batch.reached.push((*key, Mark { instance, ring, position }));
            }
        }
        is_full
    }

    /// Goes round all rings, from the one that had to wait last, until they are
    /// read to their ends or the batch is full.
    fn fill_bytes(&mut self, batch: &mut Batch) -> bool {
        let first = self.first;
        for _ in 0..ROUND_COUNT_MAX {
            let mut waiting = false;
            // Twice the map, the part behind `first` and the part before it: once round.
            for part in [first..SourceKey::MAX, 0..first] {
                let is_own = batch.is_own;
                let of_batch = |(_, source): &(&SourceKey, &mut Source)| source.own == is_own;
                for (key, source) in self.sources.rings.range_mut(part).filter(of_batch) {
                    match take_turn(source, batch) {
                        Given::All => {}
                        Given::Some => waiting = true,
                        Given::BatchFull => {
                            self.first = *key;
                            return true;
                        }
                    }
                }
            }
            if !waiting {
                return false;
            }
        }
        true
    }

    /// What this instance's rings say of themselves. What a killed worker tore can't
    /// be told from a push under way while a ring moves: that is shown when all
    /// of them stood still for a look, so that no number goes back.
    fn show_rings(&self) {
        if !self.sources.has_own() {
            return;
        }
        let own = self.sources.rings.values().filter(|source| source.own);
        let sum: Account = own.filter_map(|source| Account::read(source.reader.words()).ok()).sum();
        self.metrics.set(Family::ExposuresAttempted, sum.attempted);
        let lost = [sum.refused_full, sum.refused_oversize, sum.torn];
        let shown = if sum.settled { lost.len() } else { lost.len() - 1 };
        for (index, count) in lost.into_iter().take(shown).enumerate() {
            self.metrics.set_at(Family::ExposuresLost, index, count);
        }
        self.metrics.set(Family::ExposuresInRings, sum.in_ring);
        self.metrics.set(Family::RingBytes, sum.in_ring_size);
        self.metrics.set(Family::RingWriters, sum.epoch);
        if sum.settled {
            let audit = Audit::of(|family, cell| self.metrics.get(family, cell));
            self.metrics.set(Family::ExposuresUnaccounted, audit.unaccounted());
        }
    }

    /// Carries the counts into the metrics.
    fn show(&mut self) {
        let own = || self.sources.rings.values().filter(|source| source.own);
        let consumed: u64 = own().map(|source| source.reader.confirmed().consumed()).sum();
        let corrupt: u64 = own().map(|source| source.reader.corrupt()).sum();
        self.corrupt_shown = self.corrupt_shown.max(corrupt);
        // Until the rings are ours, a predecessor's figures stand.
        if self.sources.has_own() {
            let elsewhere = self.metrics.get(Family::ExposuresSpooled, OWN)
                + self.metrics.get(Family::ExposuresRejected, OWN);
            self.delivered_shown = self.delivered_shown.max(consumed.saturating_sub(elsewhere));
            self.metrics.set(Family::ExposuresDelivered, self.delivered_shown);
            self.metrics.set(Family::ExposuresCorrupt, self.corrupt_shown);
        }
        let counts = &self.sink.counts;
        self.metrics.set(Family::SinkFiles, counts.files.load(Relaxed));
        let carry = |family, now: u64, before: &mut u64| {
            self.metrics.add(family, now - *before);
            *before = now;
        };
        carry(Family::SinkBytes, counts.bytes.load(Relaxed), &mut self.carried.bytes);
        let errors = counts.errors.load(Relaxed) + counts.delivery_errors.load(Relaxed);
        carry(Family::SinkErrors, errors, &mut self.carried.errors);
        carry(Family::ExposuresDoubtful, counts.doubtful.load(Relaxed), &mut self.carried.doubtful);
        let latency = [
            (Family::SinkConfirmations, &counts.confirmations, &mut self.carried.confirmations),
            (Family::SinkConfirmationTime, &counts.confirmation_us, &mut self.carried.confirmation_us),
        ];
        for (family, count, before) in latency {
            carry(family, count.load(Relaxed), before);
        }
        carry(Family::ExposuresEvicted, counts.evicted.load(Relaxed), &mut self.carried.evicted);
        self.metrics.set(Family::ExposuresInFlight, counts.under_way.load(Relaxed));
        self.metrics.set(Family::SinkStalled, counts.stalled.load(Relaxed).into());
        let spool = *counts.spool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(SpoolState { taken, books, count, size, size_max, oldest_us }) = spool {
            self.metrics.set(Family::SpoolTaken, taken);
            self.metrics.set(Family::ExposuresReplayed, books.delivered);
            self.metrics.set_at(Family::ExposuresRejected, FROM_SPOOL, books.rejected);
            self.metrics.set(Family::SpoolCorrupt, books.corrupt);
            for (cell, evicted) in books.evicted.into_iter().enumerate() {
                self.metrics.set_at(Family::SpoolEvicted, cell, evicted);
            }
            self.metrics.set(Family::ExposuresInSpool, count);
            self.metrics.set(Family::SpoolBytes, size);
            self.metrics.set(Family::SpoolSizeMax, size_max);
            self.metrics.set(Family::SpoolOldest, oldest_us / 1_000_000);
        }
    }
}

/// What a ring gave in its turn.
enum Given {
    All,
    Some,
    BatchFull,
}

fn take_turn(source: &mut Source, batch: &mut Batch) -> Given {
    let begin = batch.bytes.len();
    for _ in 0..TURN_STEP_COUNT_MAX {
        if batch.bytes.len() - begin >= RING_TURN_SIZE {
            break;
        }
        let room = batch.room();
        match source.reader.next(&mut batch.bytes, room) {
            Ok(Step::Empty) => {
                source.fault = None;
                return Given::All;
            }
            Ok(Step::NoRoom) => return Given::BatchFull,
            Ok(Step::Record { size, .. }) => {
                let record = &batch.bytes[batch.bytes.len() - size..];
                if record::is_framed(record) {
                    batch.count += 1;
                } else {
                    // Whole, but no exposure: in a file it would take those behind it along.
                    source.reader.reject(&mut batch.bytes);
                    source.damage = (source.damage.0 + 1, source.damage.1 + size as u64);
                }
            }
            Ok(Step::Damaged { size, .. }) => {
                source.damage = (source.damage.0 + 1, source.damage.1 + size);
            }
            Err(fault) => {
                if source.fault.is_none() {
                    log::error!("event=ring_unreadable file={:?} error={:?}", source.path, fault.to_string());
                }
                source.fault = Some(fault);
                return Given::All;
            }
        }
    }
    Given::Some
}
