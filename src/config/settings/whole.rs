//! What is wrong only when all settings are seen together.

use super::{Cpus, Fault, Listen, Pool, Sasl, Settings, SinkKind};
use crate::limits;

pub(super) fn check_whole(settings: &Settings, faults: &mut Vec<Fault>) {
    let mut fault = |pointer: String, message: String| faults.push(Fault { pointer, message });
    if settings.pools.is_empty() || settings.pools.len() > limits::POOL_COUNT_MAX {
        fault(
            "pool".to_owned(),
            format!("{} pools; 1 to {} would be right", settings.pools.len(), limits::POOL_COUNT_MAX),
        );
    }
    let mut taken: Vec<(&Listen, &str)> = Vec::new();
    for pool in &settings.pools {
        let name = &pool.name;
        if pool.listen.is_empty() {
            fault(
                format!("pool.{name}.listen"),
                "listens nowhere; `listen = [\"127.0.0.1:8080\"]` would be right".to_owned(),
            );
        }
        if pool.routes.is_empty() {
            fault(
                format!("pool.{name}.routes"),
                "answers nothing; `routes = [\"assign\", \"health\"]` would be right".to_owned(),
            );
        }
        for listen in &pool.listen {
            let port_chosen = matches!(listen, Listen::Tcp(address) if address.port() == 0);
            match taken.iter().find(|(other, _)| *other == listen) {
                Some((_, other)) if !port_chosen => fault(
                    format!("pool.{name}.listen"),
                    format!("`{listen}` is pool `{other}`'s address too; each needs its own"),
                ),
                _ => taken.push((listen, name)),
            }
        }
    }
    let sink = &settings.sink;
    if sink.kind == SinkKind::Kafka && sink.brokers.is_empty() {
        fault(
            "sink.brokers".to_owned(),
            "no broker; `brokers = [\"kafka-1:9092\"]` would be right".to_owned(),
        );
    }
    if sink.sasl != Sasl::None && (sink.sasl_username.is_empty() || sink.sasl_password_file.is_none()) {
        fault(
            "sink.sasl".to_owned(),
            "needs `sink.sasl_username` and `sink.sasl_password_file` beside it".to_owned(),
        );
    }
    let has_tls_files = sink.tls_ca.is_some() || sink.tls_certificate.is_some() || sink.tls_key.is_some();
    if has_tls_files && !sink.tls {
        fault(
            "sink.tls".to_owned(),
            "is off, but files for it are set; `tls = true` would be right".to_owned(),
        );
    }
    if sink.tls_certificate.is_some() != sink.tls_key.is_some() {
        fault("sink.tls_certificate".to_owned(), "and `sink.tls_key` need each other".to_owned());
    }
    let slots: usize = settings.pools.iter().map(slot_count_known).sum();
    if slots > limits::SLOT_COUNT_MAX {
        fault(
            "pool".to_owned(),
            format!("{slots} workers in all; at most {} would be right", limits::SLOT_COUNT_MAX),
        );
    }
}

/// Workers as far as the settings alone say.
fn slot_count_known(pool: &Pool) -> usize {
    let cpus = match &pool.cpus {
        Cpus::List(list) => list.len(),
        Cpus::All | Cpus::Unpinned => 1,
    };
    pool.workers.unwrap_or(cpus)
}
