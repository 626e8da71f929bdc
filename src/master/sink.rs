//! From the settings to the logger's sink.

use std::path::Path;

use crate::config::settings::{self, Settings, SinkKind};
use crate::logger;

/// Where exposures go, as set.
pub(super) fn options(settings: &Settings, state_dir: &Path) -> logger::SinkOptions {
    let (logger, sink) = (&settings.logger, &settings.sink);
    let layout = match logger.layout {
        settings::Layout::Request => logger::Layout::Request,
        settings::Layout::Assignment => logger::Layout::Assignment { context: logger.layout_context },
    };
    match sink.kind {
        SinkKind::None => logger::SinkOptions::None,
        SinkKind::File => logger::SinkOptions::File(
            logger::FileOptions {
                directory: state_dir.join(sink.directory.as_deref().unwrap_or("exposures".as_ref())),
                file_size_max: sink.file_size_max,
                file_age_max: sink.file_age_max,
                size_max: sink.size_max,
                age_max: sink.age_max,
                sync_interval: logger.spool_sync,
            },
            layout,
        ),
        #[cfg(feature = "kafka")]
        SinkKind::Kafka => logger::SinkOptions::Kafka(
            Box::new(kafka_options(sink, layout)),
            Box::new(logger::SpoolOptions {
                directory: state_dir.join("spool"),
                bounds: logger::spool::Options {
                    size_max: logger.spool_size_max,
                    free_min: logger.spool_free_min,
                    age_max: logger.spool_age_max,
                    when_full: match logger.spool_full {
                        settings::SpoolFull::Oldest => logger::spool::WhenFull::Oldest,
                        settings::SpoolFull::Newest => logger::spool::WhenFull::Newest,
                    },
                    sync_interval: logger.spool_sync,
                    segment_size: logger::spool::SEGMENT_SIZE,
                },
                replay_rate: logger.spool_replay_rate,
            }),
        ),
        #[cfg(not(feature = "kafka"))]
        SinkKind::Kafka => unreachable!("the settings refuse what this build has not"),
    }
}

#[cfg(feature = "kafka")]
fn kafka_options(sink: &settings::SinkSettings, layout: logger::Layout) -> logger::kafka::Options {
    let mechanism = match sink.sasl {
        settings::Sasl::None => None,
        settings::Sasl::Plain => Some("PLAIN"),
        settings::Sasl::ScramSha256 => Some("SCRAM-SHA-256"),
        settings::Sasl::ScramSha512 => Some("SCRAM-SHA-512"),
    };
    logger::kafka::Options {
        brokers: sink.brokers.join(","),
        topic: sink.topic.clone(),
        batch: sink.batch,
        message_size: sink.message_size,
        layout,
        tls: sink.tls.then(|| logger::kafka::Tls {
            ca: sink.tls_ca.clone(),
            certificate: sink.tls_certificate.clone(),
            key: sink.tls_key.clone(),
        }),
        sasl: mechanism.map(|mechanism| logger::kafka::Sasl {
            mechanism: mechanism.to_owned(),
            username: sink.sasl_username.clone(),
            password_file: sink.sasl_password_file.clone().unwrap_or_default(),
        }),
        properties: sink.properties.clone(),
    }
}
