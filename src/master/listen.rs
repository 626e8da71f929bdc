//! The listening sockets: one for each worker on each of its pool's addresses,
//! bound by the master, which keeps them for as long as it lives. A dead
//! worker's queue is so never reset.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::config::settings::{Listen, Pool};
use crate::sys::socket::{self, Takeover, TcpOptions};

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
}

/// An address that can't be had.
#[derive(Debug, thiserror::Error)]
#[error("pool `{pool}` can't listen on {address}: {reason}")]
pub struct ListenFault {
    /// The pool.
    pub pool: String,
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
pub fn bind(pool: &Pool, worker_count: usize, takeover: Takeover) -> Result<Vec<Bound>, ListenFault> {
    let mut bound = Vec::new();
    for listen in &pool.listen {
        let made = match listen {
            Listen::Tcp(address) => bind_tcp(pool, *address, worker_count, takeover),
            Listen::Unix(path) => (0..worker_count)
                .map(|index| {
                    let path = Listen::unix_path(path, index);
                    let fd = socket::listen_unix(&path, pool.socket_mode, pool.backlog, takeover)?;
                    Ok(Bound { fd, index, address: format!("unix:{}", path.display()), path: Some(path) })
                })
                .collect(),
        };
        match made {
            Ok(sockets) => bound.extend(sockets),
            Err(error) => {
                return Err(ListenFault {
                    pool: pool.name.clone(),
                    address: listen.to_string(),
                    reason: explain(&error, &pool.name),
                });
            }
        }
    }
    Ok(bound)
}

fn bind_tcp(
    pool: &Pool,
    mut address: SocketAddr,
    worker_count: usize,
    takeover: Takeover,
) -> io::Result<Vec<Bound>> {
    let options = TcpOptions {
        backlog: pool.backlog,
        keepalive_idle: pool.keepalive_idle,
        keepalive_interval: pool.keepalive_interval,
        keepalive_count: pool.keepalive_count,
        user_timeout: pool.user_timeout,
    };
    match socket::probe_tcp(address) {
        Err(error) if takeover == Takeover::Yes && error.kind() == io::ErrorKind::AddrInUse => {}
        probed => probed?,
    }
    let mut bound = Vec::new();
    for index in 0..worker_count {
        let fd = socket::listen_tcp(address, &options)?;
        // Port 0 is any port, but the same for all workers.
        address = socket::local_address(&fd)?;
        bound.push(Bound { fd, index, address: address.to_string(), path: None });
    }
    Ok(bound)
}

fn explain(error: &io::Error, pool: &str) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "; another instance, or another program, is there. `--set pool.{pool}.listen=…` gives it another"
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
        let set = [("pool.assign.listen".to_owned(), listen.to_owned())];
        load(&Sources { command_line: &set, ..Sources::default() }).unwrap().pools.remove(0)
    }

    #[test]
    fn every_worker_has_a_socket_of_its_own_on_the_same_port() {
        let bound = bind(&pool("127.0.0.1:0"), 3, Takeover::No).unwrap();
        assert_eq!(bound.len(), 3);
        assert!(bound.iter().all(|one| one.address == bound[0].address && !one.address.ends_with(":0")));
        assert_eq!(bound.iter().map(|one| one.index).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_second_instance_on_an_address_is_refused_with_the_way_out() {
        let _alone = crate::sys::alone();
        let first = bind(&pool("127.0.0.1:0"), 1, Takeover::No).unwrap();
        let second = bind(&pool(&first[0].address), 1, Takeover::No).unwrap_err();
        let text = second.to_string();
        assert!(text.starts_with(&format!("pool `assign` can't listen on {}", first[0].address)), "{text}");
        assert!(text.contains("--set pool.assign.listen="), "{text}");
        assert_eq!(bind(&pool(&first[0].address), 2, Takeover::Yes).unwrap().len(), 2, "but a successor may");
    }

    #[test]
    fn unix_sockets_are_numbered_by_worker() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("assign.sock");
        let bound = bind(&pool(&format!("unix:{}", path.display())), 2, Takeover::No).unwrap();
        assert!(directory.path().join("assign.0.sock").exists());
        assert!(directory.path().join("assign.1.sock").exists());
        assert!(bound[1].address.ends_with("/assign.1.sock"));
    }
}
