//! The listening sockets: one for each worker on each of its pool's addresses,
//! bound by the master, which keeps them for as long as it lives. A dead
//! worker's queue is so never reset. Whether the sockets share a port or each
//! has its own, a neighbour can serve a dead worker's.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::passed::PassedSockets;
use crate::config::settings::{Listen, Pool, Ports};
use crate::sys::socket::{self, Takeover, TcpOptions};
use crate::worker::{Keeper, Speaks};

/// One socket, for one worker.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub fd: OwnedFd,
    /// The worker's number in its pool.
    pub index: usize,
    /// The address as people write it, the port known.
    pub address: String,
    /// Its file, where it has one.
    pub path: Option<PathBuf>,
    /// What is spoken there.
    pub speaks: Speaks,
    /// Who keeps it from one instance to the next.
    pub keeper: Keeper,
}

/// An address that can't be had.
#[derive(Debug, thiserror::Error)]
#[error("{who} can't listen on {address}: {reason}")]
pub struct ListenFault {
    /// For whom: ``pool `assign` ``.
    pub who: String,
    /// The address.
    pub address: String,
    /// The system's word, and what would be right.
    pub reason: String,
}

/// Binds a pool's sockets for `worker_count` workers. After an instance that was
/// killed, its workers may still serve on the same addresses for a while:
/// `takeover` binds beside them; otherwise an address in use is refused.
///
/// # Errors
/// The first address that can't be had.
pub fn bind(
    pool: &Pool,
    worker_count: usize,
    takeover: Takeover,
    passed: &mut PassedSockets,
) -> Result<Vec<Bound>, ListenFault> {
    let mut bound = Vec::new();
    for listen in &pool.listen {
        let mut shared = None;
        for index in 0..worker_count {
            let made = bind_one(pool, listen, index, shared, takeover, passed);
            let one = made.map_err(|(address, reason)| ListenFault {
                who: format!("pool `{}`", pool.name),
                address,
                reason,
            })?;
            shared = shared.or(one.tcp.filter(|_| pool.ports == Ports::Shared));
            bound.push(one.bound);
        }
    }
    Ok(bound)
}

/// Binds the socket where HAProxy's agent-check asks. It is one of `pool`'s, whose
/// first worker answers there.
///
/// # Errors
/// If the address can't be had.
pub fn bind_agent(
    pool: &Pool,
    address: SocketAddr,
    takeover: Takeover,
    passed: &mut PassedSockets,
) -> Result<Bound, ListenFault> {
    let refused = |error: io::Error| ListenFault {
        who: "agent_check".to_owned(),
        address: address.to_string(),
        reason: explain(&error, "agent_check"),
    };
    let (fd, keeper) = match passed.take(&Listen::Tcp(address), pool) {
        Some(found) => found,
        None => (bind_tcp(pool, address, None, takeover).map_err(refused)?, passed.keeper()),
    };
    let address = socket::bound_to(&fd).map_err(refused)?;
    Ok(Bound { fd, index: 0, address, path: None, speaks: Speaks::Agent, keeper })
}

/// One socket, and its address where it is TCP.
struct One {
    bound: Bound,
    tcp: Option<SocketAddr>,
}

/// `shared` is the address that the first worker has already, its port known.
fn bind_one(
    pool: &Pool,
    listen: &Listen,
    index: usize,
    shared: Option<SocketAddr>,
    takeover: Takeover,
    passed: &mut PassedSockets,
) -> Result<One, (String, String)> {
    let own = pool.worker_listen(listen, index).map_err(|fault| (listen.to_string(), fault.message))?;
    let refused = |error: io::Error| (own.to_string(), explain(&error, &format!("pool.{}", pool.name)));
    // A socket unit names a Unix socket without the worker's number.
    let found = passed.take(&own, pool).or_else(|| passed.take(listen, pool));
    let (fd, keeper) = match found {
        Some(found) => found,
        None => {
            let made = match &own {
                Listen::Unix(path) => socket::listen_unix(path, pool.socket_mode, pool.backlog, takeover),
                Listen::Tcp(address) => bind_tcp(pool, *address, shared, takeover),
            };
            (made.map_err(refused)?, passed.keeper())
        }
    };
    let address = socket::bound_to(&fd).map_err(refused)?;
    // Port 0 is any port, but the same for all workers that share it.
    let tcp = socket::local_address(&fd).ok();
    let path = match own {
        Listen::Unix(path) => Some(path),
        Listen::Tcp(_) => None,
    };
    Ok(One { bound: Bound { fd, index, address, path, speaks: Speaks::Http, keeper }, tcp })
}

fn bind_tcp(
    pool: &Pool,
    address: SocketAddr,
    shared: Option<SocketAddr>,
    takeover: Takeover,
) -> io::Result<OwnedFd> {
    if shared.is_none() {
        match socket::probe_tcp(address) {
            Err(error) if takeover == Takeover::Yes && error.kind() == io::ErrorKind::AddrInUse => {}
            probed => probed?,
        }
    }
    socket::listen_tcp(shared.unwrap_or(address), &tcp_options(pool))
}

/// What a pool's settings say of its TCP sockets.
pub(super) fn tcp_options(pool: &Pool) -> TcpOptions {
    TcpOptions {
        backlog: pool.backlog,
        keepalive_idle: pool.keepalive_idle,
        keepalive_interval: pool.keepalive_interval,
        keepalive_count: pool.keepalive_count,
        user_timeout: pool.user_timeout,
    }
}

fn explain(error: &io::Error, section: &str) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "; another instance, or another program, is there. `--set {section}.listen=…` gives it another"
            )
        }
        io::ErrorKind::PermissionDenied => {
            "; a port below 1024, or a directory, that this user may not use".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "; none of this machine's addresses".to_owned(),
        io::ErrorKind::NotFound => "; its directory has to be there".to_owned(),
        _ => String::new(),
    };
    format!("{error}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Sources, load};

    fn pool(listen: &str) -> Pool {
        pool_with(listen, "shared")
    }

    fn pool_with(listen: &str, ports: &str) -> Pool {
        let set = [("listen", listen), ("ports", ports)]
            .map(|(name, value)| (format!("pool.assign.{name}"), value.to_owned()));
        load(&Sources { command_line: &set, ..Sources::default() }).unwrap().pools.remove(0)
    }

    #[test]
    fn every_worker_has_a_socket_of_its_own_on_the_same_port() {
        let bound = bind(&pool("127.0.0.1:0"), 3, Takeover::No, &mut PassedSockets::default()).unwrap();
        assert_eq!(bound.len(), 3);
        assert!(bound.iter().all(|one| one.address == bound[0].address && !one.address.ends_with(":0")));
        assert_eq!(bound.iter().map(|one| one.index).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn where_each_has_its_own_port_they_count_up_from_the_first() {
        let _alone = crate::sys::alone();
        let ports = |bound: &[Bound]| -> Vec<u16> {
            bound.iter().map(|one| one.address.rsplit_once(':').unwrap().1.parse().unwrap()).collect()
        };
        let chosen = ports(
            &bind(&pool_with("127.0.0.1:0", "per_worker"), 3, Takeover::No, &mut PassedSockets::default())
                .unwrap(),
        );
        assert!(chosen[0] != chosen[1] && chosen[1] != chosen[2], "{chosen:?}");
        // Three free ports in a row are found sooner or later.
        let found = (20_000..60_000).step_by(7).find_map(|base| {
            let bound = bind(
                &pool_with(&format!("127.0.0.1:{base}"), "per_worker"),
                3,
                Takeover::No,
                &mut PassedSockets::default(),
            )
            .ok()?;
            Some((base, ports(&bound)))
        });
        let (base, bound) = found.unwrap();
        assert_eq!(bound, [base, base + 1, base + 2]);
        let beyond = bind(
            &pool_with("127.0.0.1:65535", "per_worker"),
            2,
            Takeover::Yes,
            &mut PassedSockets::default(),
        )
        .unwrap_err();
        assert!(beyond.to_string().contains("worker 1 would have 65536"), "{beyond}");
    }

    #[test]
    fn a_second_instance_on_an_address_is_refused_with_the_way_out() {
        let _alone = crate::sys::alone();
        let first = bind(&pool("127.0.0.1:0"), 1, Takeover::No, &mut PassedSockets::default()).unwrap();
        let second =
            bind(&pool(&first[0].address), 1, Takeover::No, &mut PassedSockets::default()).unwrap_err();
        let text = second.to_string();
        assert!(text.starts_with(&format!("pool `assign` can't listen on {}", first[0].address)), "{text}");
        assert!(text.contains("--set pool.assign.listen="), "{text}");
        assert_eq!(
            bind(&pool(&first[0].address), 2, Takeover::Yes, &mut PassedSockets::default()).unwrap().len(),
            2,
            "but a successor may"
        );
    }

    #[test]
    fn unix_sockets_are_numbered_by_worker() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("assign.sock");
        let bound =
            bind(&pool(&format!("unix:{}", path.display())), 2, Takeover::No, &mut PassedSockets::default())
                .unwrap();
        assert!(directory.path().join("assign.0.sock").exists());
        assert!(directory.path().join("assign.1.sock").exists());
        assert!(bound[1].address.ends_with("/assign.1.sock"));
    }
}
