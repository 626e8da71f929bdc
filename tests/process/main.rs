//! splitd from outside: real processes, real sockets, real signals.

mod activation;
mod arrived;
mod bad_input;
#[cfg(feature = "kafka")]
mod broker;
mod chaos;
mod clickhouse;
mod connections;
mod flood;
#[cfg(feature = "kafka")]
#[allow(dead_code, reason = "tests/operations uses the rest")]
#[path = "../operations/generator.rs"]
mod generator;
#[cfg(feature = "kafka")]
mod kafka;
mod kills;
mod lifecycle;
mod metrics;
mod order;
#[cfg(feature = "kafka")]
mod outage;
mod ports;
#[cfg(feature = "kafka")]
mod rate;
mod reload;
mod status;
mod supervision;
mod support;
mod traces;
mod upgrade;
mod vectors;

/// A test for every I/O backend that there is.
macro_rules! for_each_backend {
    ($($(#[$attribute:meta])* $name:ident($io:ident) $body:block)*) => {
        $(
            mod $name {
                #[allow(unused_imports, reason = "a body may be written without")]
                use super::*;

                fn check($io: &'static str) $body

                #[test]
                $(#[$attribute])*
                fn epoll() {
                    check("epoll");
                }

                #[test]
                $(#[$attribute])*
                fn io_uring() {
                    if crate::support::has_io_uring() {
                        check("io_uring");
                    }
                }
            }
        )*
    };
}
pub(crate) use for_each_backend;
