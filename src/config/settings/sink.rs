//! `[sink]`: where exposures are delivered, and how.

use std::path::PathBuf;
use std::time::Duration;

use super::Settings;
use super::row::{DAY, KIB, MIB, MINUTE, Row, TIB, last, live, ms, row};

/// Where exposures go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SinkKind {
    /// Rotated files.
    #[default]
    File,
    /// A Kafka topic.
    Kafka,
    /// Nowhere: counted and dropped.
    None,
}

/// How a client says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sasl {
    /// It does not.
    #[default]
    None,
    /// By a password, sent as it is.
    Plain,
    /// By a password that is not sent, with SHA-256.
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

/// `[sink]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the rows below say what each means")]
pub struct SinkSettings {
    pub kind: SinkKind,
    pub directory: Option<PathBuf>,
    pub size_max: u64,
    pub age_max: Duration,
    pub file_size_max: u64,
    pub file_age_max: Duration,
    pub brokers: Vec<String>,
    pub topic: String,
    pub batch: bool,
    pub message_size: usize,
    pub tls: bool,
    pub tls_ca: Option<PathBuf>,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub sasl: Sasl,
    pub sasl_username: String,
    pub sasl_password_file: Option<PathBuf>,
    pub properties: Vec<(String, String)>,
}

/// Its settings.
pub(super) const ROWS: &[Row<Settings>] = &[
    row(
        "type",
        "file",
        "Where exposures go: `file`, `kafka`, or `none` (counted and dropped).",
        |to, value| {
            let kinds = [("file", SinkKind::File), ("kafka", SinkKind::Kafka), ("none", SinkKind::None)];
            to.sink.kind = value.choice(&kinds)?;
            if to.sink.kind == SinkKind::Kafka && !cfg!(feature = "kafka") {
                return Err(
                    "this build has no Kafka client (cargo feature `kafka`); `file` or `none` would be right"
                        .to_owned(),
                );
            }
            Ok(())
        },
    ),
    live!(sink.directory, "", "Of the exposure files. Unset: `exposures` in state_dir.", path()),
    live!(
        sink.size_max,
        "8GiB",
        "All exposure files; beyond it the oldest goes, counted.",
        size(MIB..=1024 * TIB)
    ),
    live!(
        sink.age_max,
        "7d",
        "The oldest exposure file; beyond it it goes, counted.",
        duration(ms(MINUTE, 3650 * DAY))
    ),
    live!(sink.file_size_max, "64MiB", "One file; then the next is begun.", size(64 * KIB..=TIB)),
    live!(sink.file_age_max, "1m", "One file; then the next is begun.", duration(ms(100, DAY))),
    live!(sink.brokers, "", "Kafka: brokers to begin with, `kafka-1:9092`.", |value| {
        let mut brokers = Vec::new();
        for broker in value.list() {
            let port = broker
                .rsplit_once(':')
                .and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok()).flatten());
            if port.is_none_or(|port| port == 0) {
                return Err(format!("`{broker}` is no broker; `kafka-1:9092` would be right"));
            }
            brokers.push(broker.to_owned());
        }
        brokers
    }),
    live!(sink.topic, "exposures", "Kafka: the topic.", |value| {
        let topic = value.text()?;
        let fits = (1..=249).contains(&topic.len())
            && topic.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && !matches!(topic, "." | "..");
        if !fits {
            return Err(format!(
                "`{topic}` is no topic; 1 to 249 of a-z, A-Z, 0-9, `.`, `_`, `-` would be right"
            ));
        }
        topic.to_owned()
    }),
    live!(
        sink.batch,
        "true",
        "Kafka: many events a message, without a key; `false`: one event a message, keyed by its unit.",
        truth()
    ),
    live!(sink.message_size, "64KiB", "Kafka: a message of many events, at most.", size(KIB..=512 * KIB)),
    live!(sink.tls, "false", "Kafka: TLS.", truth()),
    live!(sink.tls_ca, "", "Authorities, PEM. Unset: the system's.", path()),
    live!(sink.tls_certificate, "", "A certificate to show the brokers, PEM.", path()),
    live!(sink.tls_key, "", "Its key, PEM.", path()),
    live!(
        sink.sasl,
        "none",
        "Kafka: `none`, `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.",
        choice(&[
            ("none", Sasl::None),
            ("PLAIN", Sasl::Plain),
            ("SCRAM-SHA-256", Sasl::ScramSha256),
            ("SCRAM-SHA-512", Sasl::ScramSha512),
        ])
    ),
    live!(sink.sasl_username, "", "The user.", owned_text()),
    live!(sink.sasl_password_file, "", "The file with the user's password.", path()),
    live!(
        sink.properties,
        "",
        "Kafka: further properties of librdkafka, over splitd's own: `linger.ms=20`, `acks=1`.",
        |value| {
            let mut properties = Vec::new();
            for text in value.list() {
                let (name, value) = text
                    .split_once('=')
                    .filter(|(name, _)| !name.trim().is_empty())
                    .ok_or_else(|| format!("`{text}` is no property; `linger.ms=20` would be right"))?;
                properties.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            properties
        }
    ),
];
