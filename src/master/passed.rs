//! Listening sockets that systemd passes: those of a socket unit (activation),
//! and those that a master has put into its fd store.
//!
//! A socket is taken for an address that a pool listens on. Of a pool whose
//! sockets come from a socket unit there are as many workers as sockets.
//!
//! The fd store keeps what it has while the service runs and until a stop that no
//! start follows: a crash and `systemctl restart` find it
//! (`FileDescriptorStorePreserve=restart`, the default, and what systemd did
//! before it could be set).

use std::fs;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;

use sd_notify::NotifyState;

use super::listen::tcp_options;
use crate::config::settings::{Listen, Pool, Settings};
use crate::sys::{inherit, socket};
use crate::worker::Keeper;

/// The first descriptor that is passed (sd_listen_fds(3)).
const FIRST: RawFd = 3;
/// What names begin with that a master gave.
const STORED: &str = "splitd-";

/// One socket.
#[derive(Debug)]
struct Passed {
    fd: OwnedFd,
    /// What it is bound to: `127.0.0.1:8080`, `unix:/run/splitd/assign.0.sock`.
    address: String,
    name: String,
    keeper: Keeper,
}

/// All that were passed to this process and not taken yet.
#[derive(Debug, Default)]
pub struct PassedSockets {
    sockets: Vec<Passed>,
    /// Some were taken.
    taken: bool,
    /// Who will keep those that are made here.
    keeper: Keeper,
}

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
        let stores = std::env::var_os("NOTIFY_SOCKET").is_some();
        let keeper = if stores { Keeper::Store } else { Keeper::Nobody };
        let mut passed = PassedSockets { keeper, ..PassedSockets::default() };
        if variable("LISTEN_PID") != std::process::id().to_string() {
            return passed;
        }
        let names = variable("LISTEN_FDNAMES");
        let names: Vec<&str> = names.split(':').collect();
        let count: RawFd = variable("LISTEN_FDS").parse().unwrap_or(0);
        for number in 0..count {
            let name = names.get(number as usize).copied().unwrap_or_default().to_owned();
            let taken = inherit::take(FIRST + number).and_then(|fd| Ok((socket::bound_to(&fd)?, fd)));
            inherit::release(FIRST + number);
            let keeper = if name.starts_with(STORED) { Keeper::Store } else { Keeper::Unit };
            match taken {
                Ok((address, fd)) => passed.sockets.push(Passed { fd, address, name, keeper }),
                Err(error) => {
                    log::warn!("event=socket_not_taken name={name:?} error={:?}", error.to_string())
                }
            }
        }
        passed
    }

    /// Who will keep a socket that is made here.
    #[must_use]
    pub fn keeper(&self) -> Keeper {
        self.keeper
    }

    /// Whether sockets of an instance before were taken, or those of a unit.
    #[must_use]
    pub fn were_taken(&self) -> bool {
        self.taken
    }

    /// Gives pools whose sockets come from a socket unit as many workers.
    pub fn size_pools(&self, settings: &mut Settings) {
        for pool in &mut settings.pools {
            let first = pool.listen.first().map(ToString::to_string);
            let of_unit = |passed: &&Passed| passed.keeper == Keeper::Unit;
            let count =
                self.sockets.iter().filter(of_unit).filter(|passed| first.as_ref() == Some(&passed.address));
            let count = count.count();
            if count > 0 {
                pool.workers = Some(count);
            }
        }
    }

    /// One that is bound to this address of the pool's, made what the pool would
    /// have made, and who keeps it.
    #[must_use]
    pub fn take(&mut self, listen: &Listen, pool: &Pool) -> Option<(OwnedFd, Keeper)> {
        let address = listen.to_string();
        let at = self.sockets.iter().position(|passed| passed.address == address)?;
        let passed = &self.sockets[at];
        let mode = fs::Permissions::from_mode(pool.socket_mode);
        let reachable = match (listen, passed.keeper) {
            // The instance's own, whose file may be gone.
            (Listen::Unix(path), Keeper::Store) => fs::set_permissions(path, mode),
            _ => Ok(()),
        };
        if let Err(error) = reachable.and_then(|()| socket::listen_again(&passed.fd, &tcp_options(pool))) {
            log::warn!("event=socket_not_taken address={address:?} error={:?}", error.to_string());
            return None;
        }
        self.taken = true;
        let passed = self.sockets.remove(at);
        Some((passed.fd, passed.keeper))
    }

    /// Lets go of those that nobody wants: in the fd store they would be given
    /// connections, and nobody would answer.
    pub fn leave(self) {
        for Passed { address, name, keeper, .. } in &self.sockets {
            log::warn!("event=socket_left address={address:?} name={name:?}");
            if *keeper == Keeper::Store {
                forget(name);
            }
        }
    }
}

/// Has the fd store close all that has this name.
pub(super) fn forget(name: &str) {
    let states = [NotifyState::FdStoreRemove, NotifyState::FdName(name)];
    if let Err(error) = sd_notify::notify(&states) {
        log::warn!("event=systemd_not_told error={:?}", error.to_string());
    }
}
