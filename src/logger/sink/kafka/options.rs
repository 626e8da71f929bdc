//! Where and how messages are sent, and what that is in properties of the client.

use std::path::PathBuf;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use crate::logger::layout::Layout;

/// Properties of librdkafka, which the operator may override by `sink.properties`.
pub const PROPERTIES: &[(&str, &str)] = &[
    ("client.id", "splitd"),
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("compression.type", "lz4"),
    ("linger.ms", "5"),
    ("queue.buffering.max.kbytes", "65536"),
    ("queue.buffering.max.messages", "200000"),
    ("message.timeout.ms", "60000"),
    ("socket.timeout.ms", "10000"),
    ("socket.keepalive.enable", "true"),
    ("reconnect.backoff.ms", "100"),
    ("reconnect.backoff.max.ms", "2000"),
    ("retry.backoff.max.ms", "1000"),
    ("log.connection.close", "false"),
];

/// Where and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `host:port`, with commas.
    pub brokers: String,
    /// Where messages go.
    pub topic: String,
    /// Many events a message, without a key; or one, keyed by its unit.
    pub batch: bool,
    /// A message of many events has at most these bytes.
    pub message_size: usize,
    /// Which events.
    pub layout: Layout,
    /// Encryption.
    pub tls: Option<Tls>,
    /// Who we are.
    pub sasl: Option<Sasl>,
    /// Properties of librdkafka, over ours.
    pub properties: Vec<(String, String)>,
}

/// TLS; what is unset is the client's default (the system's authorities).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities, PEM.
    pub ca: Option<PathBuf>,
    /// Our certificate, PEM.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
}

/// SASL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sasl {
    /// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`.
    pub mechanism: String,
    /// The user.
    pub username: String,
    /// The file with the password, and nothing else but white space around it.
    pub password_file: PathBuf,
}

impl Options {
    /// What the client is told; `alone`: that each message has a request of its own.
    pub(super) fn config(&self, alone: bool) -> Result<ClientConfig, String> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        for (name, value) in PROPERTIES {
            config.set(*name, *value);
        }
        config.set("statistics.interval.ms", "1000");
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        if let Some(tls) = &self.tls {
            let files = [
                ("ssl.ca.location", &tls.ca),
                ("ssl.certificate.location", &tls.certificate),
                ("ssl.key.location", &tls.key),
            ];
            for (name, file) in files {
                if let Some(file) = file {
                    config.set(name, path(file));
                }
            }
        }
        if let Some(sasl) = &self.sasl {
            let password = std::fs::read_to_string(&sasl.password_file)
                .map_err(|fault| format!("{}: {fault}", sasl.password_file.display()))?;
            config.set("sasl.mechanism", &sasl.mechanism);
            config.set("sasl.username", &sasl.username);
            config.set("sasl.password", password.trim());
        }
        let protocol = match (self.tls.is_some(), self.sasl.is_some()) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        if alone {
            config.set("batch.num.messages", "1");
        }
        config.set_log_level(RDKafkaLogLevel::Warning);
        Ok(config)
    }
}
