//! The way through the spool: what the sink does not take is appended and synced,
//! and what is in it is replayed behind live traffic.

use std::time::Duration;

use super::{Aim, Chunk, Delivery, State, Written};
use crate::clock::Now;
use crate::limits::REPLAY_SIZE_MAX;
use crate::logger::sink::kinds::Courier;
use crate::logger::spool::disk::Disk;
use crate::logger::spool::{Fate, Refusal};

/// Between two tries of a spool that refuses.
const SPOOL_RETRY: Duration = Duration::from_millis(500);
/// Between two tries to read a spool that can't be read.
const READ_RETRY: Duration = Duration::from_secs(1);
/// How often the spool's age bound is looked at.
const AGE_INTERVAL: Duration = Duration::from_secs(5);

impl<C: Courier, D: Disk> Delivery<C, D> {
    /// Writes the batches that are not safe.
    pub(super) fn spool_batches(&mut self, now: Now) {
        if self.spool_after.is_some_and(|after| now.mono_ns < after.mono_ns) {
            return;
        }
        let Some(spool) = &mut self.spool else {
            return;
        };
        let mut fault = None;
        for held in &mut self.held {
            let is_open = |chunk: &Chunk| !matches!(chunk.state, State::Settled { .. });
            if held.is_safe || held.written.is_some() || !held.chunks.iter().any(is_open) {
                continue;
            }
            let open: Vec<usize> =
                (0..held.chunks.len()).filter(|index| is_open(&held.chunks[*index])).collect();
            let bytes = |index: &usize| {
                let chunk = &held.chunks[*index];
                (&held.batch.bytes[chunk.bytes.clone()], chunk.count)
            };
            let marks: Vec<_> = held.batch.reached.iter().map(|(_, mark)| *mark).collect();
            match spool.append(open.iter().map(bytes), &marks, now) {
                Ok(places) => {
                    let end = places.last().map_or(0, |place| place.number + u64::from(place.count));
                    held.written = Some(Written { places: open.into_iter().zip(places).collect(), end });
                }
                Err(refusal) => {
                    fault = Some(refusal);
                    break;
                }
            }
            if spool.is_sync_due(now) {
                break;
            }
        }
        if let Some(refusal) = fault {
            self.note_spool_refusal(&refusal, now);
        }
        // A segment that became full was synced.
        self.take_spooled();
    }

    pub(super) fn sync_spool(&mut self, now: Now) {
        let Some(spool) = &mut self.spool else {
            return;
        };
        if !spool.is_sync_due(now) {
            return;
        }
        if let Err(fault) = spool.sync() {
            self.note_spool_refusal(&Refusal::Disk(fault), now);
        }
        self.take_spooled();
    }

    fn note_spool_refusal(&mut self, refusal: &Refusal, now: Now) {
        self.tally.errors += u64::from(matches!(refusal, Refusal::Disk(_)));
        self.spool_after = Some(now.plus(SPOOL_RETRY));
        self.report(now, "spool_refused", || format!("waiting_in=rings error={:?}", refusal.to_string()));
    }

    /// Batches that were written are safe now, or are no longer there.
    pub(super) fn take_spooled(&mut self) {
        let Some(spool) = &mut self.spool else {
            return;
        };
        let is_clean = spool.is_clean();
        for held in &mut self.held {
            let Some(written) = held.written.take() else {
                continue;
            };
            if written.end > spool.taken() {
                if !is_clean {
                    held.written = Some(written);
                }
                continue;
            }
            held.is_safe = true;
            for (index, place) in written.places {
                held.spooled += u64::from(place.count);
                let chunk = &mut held.chunks[index];
                match chunk.state {
                    State::Waiting => {}
                    State::UnderWay(token) => {
                        spool.hand_out(place);
                        if let Some((aim, _)) = self.under_way.get_mut(&token) {
                            *aim = Aim::Spooled { number: place.number, size: chunk.bytes.len() };
                            self.replay_size += chunk.bytes.len();
                        }
                    }
                    State::Settled { rejected } => {
                        spool.hand_out(place);
                        spool.settle(place.number, Fate::Settled { rejected });
                        // Counted where the spool's books are.
                        chunk.state = State::Settled { rejected: 0 };
                    }
                }
            }
        }
    }

    /// Sends what the spool has, behind live traffic and no faster than allowed.
    pub(super) fn replay(&mut self, now: Now) {
        let since = self.allowed_at.map_or(Duration::ZERO, |at| now.since(at));
        self.allowed_at = Some(now);
        let rate = self.options.replay_rate as f64;
        self.allowance = (self.allowance + rate * since.as_secs_f64()).min(rate / 4.0);
        // At the end the spool keeps what it has: what is sent now may not be
        // confirmed in time, and would come twice.
        if self.stopping {
            return;
        }
        let is_due = |after: Option<Now>| after.is_none_or(|after| now.mono_ns >= after.mono_ns);
        if !is_due(self.send_after) || !is_due(self.replay_after) {
            return;
        }
        let is_live_sent = self
            .held
            .iter()
            .all(|held| held.is_safe || held.chunks.iter().all(|chunk| chunk.state != State::Waiting));
        if self.stalled.is_none() && !is_live_sent {
            return;
        }
        loop {
            let is_held_back = match self.stalled {
                Some(_) => !self.under_way.is_empty(),
                None => self.allowance < 0.0 || self.replay_size >= REPLAY_SIZE_MAX,
            };
            let Some(spool) = &mut self.spool else {
                return;
            };
            if is_held_back || !self.courier.has_room() {
                return;
            }
            match spool.next(&mut self.buffer) {
                Ok(None) => return,
                Ok(Some(place)) => {
                    let token = self.next_token;
                    if !self.courier.send(token, &self.buffer, place.count, now) {
                        spool.settle(place.number, Fate::Again);
                        return;
                    }
                    if self.is_idle() {
                        self.progress = now;
                    }
                    self.next_token += 1;
                    let size = self.buffer.len();
                    self.replay_size += size;
                    self.allowance -= size as f64;
                    self.under_way.insert(token, (Aim::Spooled { number: place.number, size }, place.count));
                }
                Err(fault) => {
                    self.tally.errors += 1;
                    self.replay_after = Some(now.plus(READ_RETRY));
                    self.report(now, "spool_unreadable", || format!("error={:?}", fault.to_string()));
                    return;
                }
            }
        }
    }

    pub(super) fn tend_spool(&mut self, now: Now) {
        let Some(spool) = &mut self.spool else {
            return;
        };
        let mut tended = spool.advance();
        if self.age_checked.is_none_or(|at| now.since(at) >= AGE_INTERVAL) {
            self.age_checked = Some(now);
            tended = tended.and_then(|()| spool.check_age(now));
            self.take_spooled();
        }
        if let Err(fault) = tended {
            self.tally.errors += 1;
            self.report(now, "spool_not_tended", || format!("error={:?}", fault.to_string()));
        }
    }
}
