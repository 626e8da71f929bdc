//! Listening sockets that systemd passes: those of a socket unit (activation),
//! and those that a master has put into its fd store, which outlive its crash.
//!
//! A socket is taken for an address that a pool listens on. Of a pool whose
//! sockets come from a socket unit there are as many workers as sockets.

use std::os::fd::{OwnedFd, RawFd};

use crate::config::settings::{Listen, Settings};
use crate::sys::{inherit, socket};

/// The first descriptor that is passed (sd_listen_fds(3)).
const FIRST: RawFd = 3;
/// What names begin with that a master gave.
const STORED: &str = "splitd-";

/// One socket.
#[derive(Debug)]
pub struct Passed {
    fd: OwnedFd,
    /// What it is bound to: `127.0.0.1:8080`, `unix:/run/splitd/assign.0.sock`.
    address: String,
    stored: bool,
}

/// All that were passed to this process and not taken yet.
#[derive(Debug, Default)]
pub struct PassedSockets(Vec<Passed>);

/// The name of a worker's socket in the fd store.
#[must_use]
pub fn stored_name(pool: &str, index: usize) -> String {
    format!("{STORED}{pool}-{index}")
}

impl PassedSockets {
    /// Takes them from the environment.
    #[must_use]
    pub fn collect() -> PassedSockets {
        let variable = |name| std::env::var(name).unwrap_or_default();
        if variable("LISTEN_PID") != std::process::id().to_string() {
            return PassedSockets::default();
        }
        let names = variable("LISTEN_FDNAMES");
        let names: Vec<&str> = names.split(':').collect();
        let count: RawFd = variable("LISTEN_FDS").parse().unwrap_or(0);
        let mut passed = Vec::new();
        for number in 0..count {
            let name = names.get(number as usize).copied().unwrap_or_default();
            let taken = inherit::take(FIRST + number).and_then(|fd| Ok((socket::bound_to(&fd)?, fd)));
            inherit::release(FIRST + number);
            match taken {
                Ok((address, fd)) => passed.push(Passed { fd, address, stored: name.starts_with(STORED) }),
                Err(error) => log::warn!("event=socket_not_taken name={name:?} error=\"{error}\""),
            }
        }
        PassedSockets(passed)
    }

    /// Whether a socket unit passed some: then systemd keeps them by itself.
    #[must_use]
    pub fn are_activated(&self) -> bool {
        self.0.iter().any(|passed| !passed.stored)
    }

    /// Gives pools whose sockets come from a socket unit as many workers.
    pub fn size_pools(&self, settings: &mut Settings) {
        for pool in &mut settings.pools {
            let first = pool.listen.first().map(ToString::to_string);
            let count = |passed: &&Passed| !passed.stored && first.as_ref() == Some(&passed.address);
            let count = self.0.iter().filter(count).count();
            if count > 0 {
                pool.workers = Some(count);
            }
        }
    }

    /// One that is bound to this address, made to listen if it was told not to.
    #[must_use]
    pub fn take(&mut self, listen: &Listen, backlog: i32) -> Option<OwnedFd> {
        let address = listen.to_string();
        let at = self.0.iter().position(|passed| passed.address == address)?;
        let fd = self.0.remove(at).fd;
        match socket::listen_again(&fd, backlog) {
            Ok(()) => Some(fd),
            Err(error) => {
                log::warn!("event=socket_not_taken address={address} error=\"{error}\"");
                None
            }
        }
    }

    /// Says which nobody wants; they are closed.
    pub fn say_left(&self) {
        for passed in &self.0 {
            let address = &passed.address;
            log::warn!("event=socket_not_taken address={address} note=\"no pool listens there\"");
        }
    }
}
