//! splitd in the hands of an operator: behind the real HAProxy and under the real
//! systemd, restarted, reloaded and killed under load.

mod booted;
mod generator;
mod haproxy;
#[allow(dead_code, reason = "the benches use the rest")]
#[path = "../../benches/plans.rs"]
mod plans;
mod proxy;
mod show;
#[allow(dead_code, unused_imports, reason = "tests/process uses the rest")]
#[path = "../process/support.rs"]
mod support;
