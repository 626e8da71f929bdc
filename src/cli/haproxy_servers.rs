//! `splitd haproxy-servers`: the `server` lines of a backend for this instance,
//! to be pasted or included. With `ports = "per_worker"`, or a Unix socket, a
//! line for each worker, so that `leastconn` spreads connections exactly; else
//! one line for the port that all share, and the kernel's hash spreads them.
//!
//! `scripts/haproxy.cfg` is a backend to put them in.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::settings::SettingsArguments;
use super::{Exit, Failure, say};
use crate::config::settings::{Listen, Pool, Ports, Settings};
use crate::master::heritage::available_cpus;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// The pool; its first address is what HAProxy connects to
    #[arg(long, default_value = "assign")]
    pool: String,
    /// How HAProxy reaches this machine, where splitd listens on all addresses
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// What the servers are called, before their number; the pool's name if not given
    #[arg(long)]
    name: Option<String>,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit, Failure> {
    let settings = match arguments.settings.load() {
        Ok(settings) => settings,
        Err(exit) => return Ok(exit),
    };
    let counts = available_cpus()
        .map_err(|fault| fault.to_string())
        .and_then(|cpus| settings.worker_counts(&cpus).map_err(|fault| fault.to_string()));
    let counts = match counts {
        Ok(counts) => counts,
        Err(fault) => {
            say(&fault);
            return Ok(Exit::Fault);
        }
    };
    let Some(number) = settings.pools.iter().position(|pool| pool.name == arguments.pool) else {
        let names: Vec<&str> = settings.pools.iter().map(|pool| pool.name.as_str()).collect();
        let name = &arguments.pool;
        return Err(Failure::Usage(format!("--pool {name}: no such pool; there are {}", names.join(", "))));
    };
    let name = arguments.name.as_ref().unwrap_or(&arguments.pool);
    for line in lines(&settings, number, counts[number], name, arguments.host) {
        writeln!(out, "{line}")?;
    }
    Ok(Exit::Done)
}

fn lines(settings: &Settings, number: usize, worker_count: usize, name: &str, host: IpAddr) -> Vec<String> {
    let pool: &Pool = &settings.pools[number];
    let Some(listen) = pool.listen.first() else { return Vec::new() };
    let shared = pool.ports == Ports::Shared && matches!(listen, Listen::Tcp(_));
    // Beyond the last port there is none, which `worker_counts` has said.
    let addresses = (0..if shared { 1 } else { worker_count })
        .filter_map(|index| pool.worker_listen(listen, index).ok())
        .map(|listen| match listen {
            Listen::Tcp(address) => reached(address, host).to_string(),
            Listen::Unix(path) => format!("unix@{}", path.display()),
        });
    let agent = settings.agent_check.listen.map_or(String::new(), |address| {
        let address = reached(address, host);
        format!(" agent-check agent-addr {} agent-port {}", address.ip(), address.port())
    });
    addresses
        .enumerate()
        .map(|(index, address)| format!("    server {name}-{index} {address} proto h1 check{agent}"))
        .collect()
}

/// Who listens on all addresses is reached by one of them.
fn reached(address: SocketAddr, host: IpAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::new(host, address.port()) } else { address }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::check_settings;

    fn lines_of(file: &str, worker_count: usize) -> Vec<String> {
        let settings = check_settings(file).unwrap();
        lines(&settings, 0, worker_count, "assign", IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)))
    }

    #[test]
    fn there_is_a_line_for_each_address_that_a_proxy_can_choose() {
        let table: &[(&str, &[&str])] = &[
            ("listen = \"127.0.0.1:8080\"", &["assign-0 127.0.0.1:8080 "]),
            (
                "listen = \"127.0.0.1:8080\"\n[agent_check]\nlisten = \"[::]:9081\"",
                &["assign-0 127.0.0.1:8080 proto h1 check agent-check agent-addr 10.1.2.3 agent-port 9081"],
            ),
            (
                "listen = \"0.0.0.0:8080\"\nports = \"per_worker\"",
                &["assign-0 10.1.2.3:8080 ", "assign-1 10.1.2.3:8081 "],
            ),
            (
                "listen = [\"[::1]:7000\", \"unix:/run/a.sock\"]\nports = \"per_worker\"",
                &["assign-0 [::1]:7000 ", "assign-1 [::1]:7001 "],
            ),
            (
                "listen = \"unix:/run/a.sock\"",
                &["assign-0 unix@/run/a.0.sock ", "assign-1 unix@/run/a.1.sock "],
            ),
        ];
        for (settings, servers) in table {
            let lines = lines_of(&format!("[[pool]]\nname = \"assign\"\n{settings}"), 2);
            assert_eq!(lines.len(), servers.len(), "{settings}: {lines:?}");
            for (line, server) in lines.iter().zip(*servers) {
                assert!(line.starts_with(&format!("    server {server}")), "{line}");
            }
        }
    }
}
