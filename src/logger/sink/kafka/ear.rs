//! What the client's threads tell us: reports of messages, whether it is
//! connected, and what it complains of.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::statistics::Statistics;

use super::Counts;
use crate::clock::{self, Now};

/// The same complaint of the client is repeated this often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A message's report.
pub(super) struct Report {
    pub(super) token: usize,
    pub(super) result: Result<(), RDKafkaErrorCode>,
    /// What came back, where it may be sent otherwise.
    pub(super) returned: Option<(Vec<u8>, Vec<u8>)>,
    pub(super) alone: bool,
}

/// What the client's threads tell us.
#[derive(Default)]
pub(super) struct Ear {
    pub(super) reports: Mutex<Vec<Report>>,
    pub(super) is_connected: AtomicBool,
    complaints: Mutex<BTreeMap<String, (Now, u64)>>,
}

impl Ear {
    /// One line for the same kind of complaint in a while.
    pub(super) fn complain(&self, kind: &str, level: log::Level, text: &str) {
        let now = clock::now();
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        match complaints.get_mut(kind) {
            Some((at, held_back)) if now.since(*at) < LOG_INTERVAL => *held_back += 1,
            known => {
                let held_back = known.map_or(0, |(_, held_back)| *held_back);
                complaints.insert(kind.to_owned(), (now, 0));
                log::log!(level, "event=kafka_client kind={kind} held_back={held_back} text={text:?}");
            }
        }
    }
}

/// A producer's side of it.
pub(super) struct Context {
    pub(super) ear: Arc<Ear>,
    pub(super) counts: Arc<Counts>,
    pub(super) alone: bool,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, text: &str) {
        let level = match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => log::Level::Warn,
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => log::Level::Info,
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => log::Level::Debug,
        };
        self.ear.complain(fac, level, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.counts.errors.fetch_add(1, Relaxed);
        let code = error.rdkafka_error_code().map_or_else(|| "none".to_owned(), |code| format!("{code:?}"));
        self.ear.complain(&code, log::Level::Warn, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let up = statistics.brokers.values().filter(|broker| broker.nodeid >= 0 && broker.state == "UP");
        self.ear.is_connected.store(up.count() > 0, Relaxed);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, token: usize) {
        let (result, returned) = match result {
            Ok(_) => (Ok(()), None),
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                let bytes = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
                let returned = is_too_large(code).then(|| (bytes(message.key()), bytes(message.payload())));
                (Err(code), returned)
            }
        };
        let report = Report { token, result, returned, alone: self.alone };
        self.ear.reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }
}

pub(super) fn is_too_large(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize)
}
