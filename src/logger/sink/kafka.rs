//! The Kafka sink: librdkafka's idempotent producer, driven from the logger's
//! delivery thread alone.
//!
//! ```text
//! chunk ─→ messages ─→ backlog ─→ producer ─→ delivery reports ─→ the chunk's outcome
//!                        ↑   too large: split, or alone              │
//!                        └───────────────────────────────────────────┘
//! ```
//! - It is made after the fork and in the logger alone: the client has threads of
//!   its own and is not fork-safe.
//! - A chunk's outcome is known once each of its messages has its report.
//! - A message that the broker calls too large may only have had large
//!   neighbours in its request: it goes again alone, then in halves, and only a
//!   single event that is too large alone is rejected.
//! - A producer that has failed for good (the broker lost its state, say), or one
//!   that is connected and gets nothing through for [`STUCK_TIME`], is destroyed
//!   and made anew; what it had comes back as failed.

mod ear;
mod options;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};

use super::Counts;
use super::kinds::{Courier, Outcome};
use crate::clock::{self, Now};
use crate::exposure::record::{Framed, unframe};
use crate::logger::layout::{self, Layout};
use ear::{Context, Ear, Report, is_too_large};
pub use options::{Options, PROPERTIES, Sasl, Tls};

/// Connected, with something under way, and nothing delivered: made anew.
const STUCK_TIME: Duration = Duration::from_secs(30);
/// Between two tries to make a producer.
const MAKE_INTERVAL: Duration = Duration::from_secs(2);
/// How long a producer to be destroyed may take to give back what it has.
const PURGE_TIME_MAX: Duration = Duration::from_millis(500);
/// One message, until the producer has it.
struct Message {
    token: u64,
    key: Vec<u8>,
    payload: Vec<u8>,
    alone: bool,
}

/// Whether a message with this report may be in the topic all the same.
fn may_have_arrived(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{
        PurgeQueue, QueueFull, TopicAuthorizationFailed, UnknownPartition, UnknownTopic,
        UnknownTopicOrPartition,
    };
    !matches!(
        code,
        PurgeQueue
            | QueueFull
            | UnknownTopic
            | UnknownPartition
            | UnknownTopicOrPartition
            | TopicAuthorizationFailed
    )
}

/// A chunk whose messages are not all reported.
#[derive(Debug, Clone, Copy)]
struct Pending {
    open: u32,
    count: u32,
    rejected: u32,
    failed: bool,
    may_have_arrived: bool,
    sent: Now,
}

/// The sink.
pub struct Kafka {
    options: Options,
    counts: Arc<Counts>,
    ear: Arc<Ear>,
    producer: Option<BaseProducer<Context>>,
    /// For messages that were too large in company.
    single: Option<BaseProducer<Context>>,
    make_after: Option<Now>,
    pending: BTreeMap<u64, Pending>,
    backlog: VecDeque<Message>,
    progress: Now,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("options", &self.options).field("pending", &self.pending.len()).finish()
    }
}

impl Kafka {
    /// A sink without a producer yet: it is made in the first poll.
    #[must_use]
    pub fn new(options: Options, counts: Arc<Counts>, now: Now) -> Kafka {
        Kafka {
            options,
            counts,
            ear: Arc::default(),
            producer: None,
            single: None,
            make_after: None,
            pending: BTreeMap::new(),
            backlog: VecDeque::new(),
            progress: now,
            buffer: Vec::new(),
        }
    }

    fn make(&mut self, alone: bool, now: Now) -> Option<BaseProducer<Context>> {
        if self.make_after.is_some_and(|after| now.mono_ns < after.mono_ns) {
            return None;
        }
        let context = Context { ear: Arc::clone(&self.ear), counts: Arc::clone(&self.counts), alone };
        let made = self.options.config(alone).and_then(|config| {
            config.create_with_context(context).map_err(|fault: KafkaError| fault.to_string())
        });
        match made {
            Ok(producer) => {
                self.make_after = None;
                self.progress = now;
                Some(producer)
            }
            Err(fault) => {
                self.counts.errors.fetch_add(1, Relaxed);
                self.make_after = Some(now.plus(MAKE_INTERVAL));
                self.ear.complain("not_made", log::Level::Error, &fault);
                None
            }
        }
    }

    /// Cuts a chunk into messages.
    fn pack(&mut self, token: u64, chunk: &[u8]) -> u32 {
        let Options { batch, layout, message_size, .. } = self.options;
        let backlog = &mut self.backlog;
        let mut count = 0;
        let mut push = |key: &[u8], payload: &[u8]| {
            count += 1;
            backlog.push_back(Message { token, key: key.to_vec(), payload: payload.to_vec(), alone: false });
        };
        if batch && layout == Layout::Request {
            push(&[], chunk);
            return count;
        }
        let mut out = std::mem::take(&mut self.buffer);
        out.clear();
        let mut events = Vec::new();
        layout::render(chunk, layout, &mut out, |event| events.push(event));
        if batch {
            let mut begin = 0;
            let mut end = 0;
            for event in &events {
                if end > begin && event.bytes.end - begin > message_size {
                    push(&[], &out[begin..end]);
                    begin = end;
                }
                end = event.bytes.end;
            }
            if end > begin {
                push(&[], &out[begin..end]);
            }
        } else {
            for event in &events {
                push(event.key.as_bytes(), &out[event.bytes.clone()]);
            }
        }
        self.buffer = out;
        count
    }

    /// Hands the backlog to the producers, as far as they take it.
    fn push_backlog(&mut self, now: Now) {
        if self.producer.is_none() {
            self.producer = self.make(false, now);
        }
        while let Some(message) = self.backlog.pop_front() {
            if message.alone && self.single.is_none() {
                self.single = self.make(true, now);
            }
            let Some(producer) = (if message.alone { &self.single } else { &self.producer }) else {
                self.backlog.push_front(message);
                return;
            };
            let record = BaseRecord::with_opaque_to(&self.options.topic, message.token as usize)
                .payload(message.payload.as_slice());
            let record = if message.key.is_empty() { record } else { record.key(message.key.as_slice()) };
            let Err((error, _)) = producer.send(record) else {
                continue;
            };
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => {
                    self.backlog.push_front(message);
                    return;
                }
                code => {
                    let code = code.unwrap_or(RDKafkaErrorCode::Unknown);
                    let Message { token, key, payload, alone } = message;
                    let report = Report {
                        token: token as usize,
                        result: Err(code),
                        returned: Some((key, payload)),
                        alone,
                    };
                    self.ear.reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
                }
            }
        }
    }

    fn hear(&mut self, now: Now, outcomes: &mut Vec<(u64, Outcome)>) {
        // An event is as many reports as came at once, so this ends soon.
        for producer in [&self.producer, &self.single].into_iter().flatten() {
            for _ in 0..1000 {
                let before = self.ear.reports.lock().unwrap_or_else(PoisonError::into_inner).len();
                producer.poll(Duration::ZERO);
                if self.ear.reports.lock().unwrap_or_else(PoisonError::into_inner).len() == before {
                    break;
                }
            }
        }
        let reports = std::mem::take(&mut *self.ear.reports.lock().unwrap_or_else(PoisonError::into_inner));
        for report in reports {
            self.take_report(report, now, outcomes);
        }
    }

    fn take_report(&mut self, report: Report, now: Now, outcomes: &mut Vec<(u64, Outcome)>) {
        let token = report.token as u64;
        let Some(pending) = self.pending.get_mut(&token) else {
            return;
        };
        match (report.result, report.returned) {
            (Ok(()), _) => {
                self.progress = now;
                pending.open -= 1;
            }
            (Err(code), Some((key, payload))) if is_too_large(code) => {
                let halves = if report.alone { halve(&payload) } else { None };
                match halves {
                    Some((first, second)) => {
                        pending.open += 1;
                        for payload in [first, second] {
                            let payload = payload.to_vec();
                            self.backlog.push_back(Message { token, key: key.clone(), payload, alone: true });
                        }
                    }
                    None if !report.alone => {
                        self.ear.complain(
                            "too_large",
                            log::Level::Warn,
                            "the broker refuses messages as too large: they go alone, then in halves; raise the \
                             topic's max.message.bytes, or lower sink.message_size and batch.size",
                        );
                        self.backlog.push_back(Message { token, key, payload, alone: true });
                    }
                    None => {
                        let size = payload.len();
                        log::error!("event=exposure_rejected bytes={size} error={:?}", code.to_string());
                        pending.open -= 1;
                        pending.rejected += 1;
                    }
                }
            }
            (Err(code), _) => {
                self.ear.complain(&format!("delivery_{code:?}"), log::Level::Warn, &code.to_string());
                pending.open -= 1;
                pending.failed = true;
                pending.may_have_arrived |= may_have_arrived(code);
            }
        }
        if pending.open == 0 {
            let pending = *pending;
            self.pending.remove(&token);
            self.counts.note_latency(now.since(pending.sent));
            outcomes.push((token, outcome(&pending)));
        }
    }

    /// Destroys the producers; what they had comes back as failed.
    fn remake(&mut self, why: &str, now: Now, outcomes: &mut Vec<(u64, Outcome)>) {
        log::error!("event=kafka_producer_remade under_way={} error={why:?}", self.pending.len());
        self.counts.errors.fetch_add(1, Relaxed);
        self.destroy();
        self.hear(now, outcomes);
        self.backlog.clear();
        for (token, pending) in std::mem::take(&mut self.pending) {
            outcomes.push((token, outcome(&Pending { failed: true, may_have_arrived: true, ..pending })));
        }
        self.ear.reports.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.ear.is_connected.store(false, Relaxed);
        self.progress = now;
    }

    fn destroy(&mut self) {
        for producer in [self.producer.take(), self.single.take()].into_iter().flatten() {
            producer.purge(PurgeConfig::default().queue().inflight());
            let deadline = clock::now().plus(PURGE_TIME_MAX);
            while producer.in_flight_count() > 0 && clock::now().mono_ns < deadline.mono_ns {
                producer.poll(Duration::from_millis(1));
            }
        }
    }
}

fn outcome(pending: &Pending) -> Outcome {
    match pending.failed {
        true => Outcome::Failed { may_have_arrived: pending.may_have_arrived },
        false => Outcome::Delivered { rejected: pending.rejected.min(pending.count) },
    }
}

/// Cuts a message between two of its events, near the middle; `None` if it is one event.
fn halve(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    while let Framed::Whole { size, .. } = unframe(&payload[at..]) {
        if at > 0 && at + size > payload.len() / 2 {
            break;
        }
        at += size;
    }
    // Of two events of which the first is the larger, it is the first half.
    (at > 0 && at < payload.len()).then(|| payload.split_at(at))
}

impl Courier for Kafka {
    fn send(&mut self, token: u64, chunk: &[u8], count: u32, now: Now) -> bool {
        if !self.has_room() {
            return false;
        }
        if self.pending.is_empty() {
            self.progress = now;
        }
        let open = self.pack(token, chunk);
        self.pending.insert(
            token,
            Pending { open, count, rejected: 0, failed: false, may_have_arrived: false, sent: now },
        );
        self.push_backlog(now);
        true
    }

    fn has_room(&self) -> bool {
        self.backlog.is_empty() && self.producer.is_some()
    }

    fn poll(&mut self, now: Now, outcomes: &mut Vec<(u64, Outcome)>) {
        self.push_backlog(now);
        self.hear(now, outcomes);
        // Exposures that no assignment came of are no message.
        self.pending.retain(|token, pending| {
            let is_done = pending.open == 0;
            if is_done {
                outcomes.push((*token, outcome(pending)));
            }
            !is_done
        });
        let producers = [&self.producer, &self.single];
        let fatal = producers.into_iter().flatten().find_map(|producer| producer.client().fatal_error());
        if let Some((code, text)) = fatal {
            self.remake(&format!("{code:?}: {text}"), now, outcomes);
        } else if !self.pending.is_empty()
            && self.ear.is_connected.load(Relaxed)
            && now.since(self.progress) >= STUCK_TIME
        {
            self.remake("connected, and nothing delivered for 30 s", now, outcomes);
        }
    }

    fn finish(&mut self) {
        self.destroy();
    }
}

#[cfg(test)]
mod tests;
