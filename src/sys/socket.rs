//! Sockets: how the master listens, and the few calls a worker makes on a
//! connection. Everything here is safe to call and never blocks.
//!
//! Invariants
//! - Every descriptor made here is non-blocking and close-on-exec.
//! - What a connection needs (no delay, keep-alive, user timeout) is set on its
//!   listener; Linux copies it to each accepted socket, so a connection costs
//!   one system call and not six.
//! - A socket's file is removed only if it is a socket and nobody answers on it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::sockopt;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, Shutdown, SockFlag, SockType, SockaddrStorage, UnixAddr,
    accept4 as nix_accept4, bind, connect, getsockname, listen, setsockopt, shutdown, socket,
};

/// What is set on a TCP listener, for its connections to inherit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpOptions {
    /// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
    pub backlog: i32,
    /// Silence after which the peer is asked whether it is still there; whole seconds.
    pub keepalive_idle: Duration,
    /// Time between two such questions; whole seconds.
    pub keepalive_interval: Duration,
    /// Unanswered questions after which the peer counts as dead.
    pub keepalive_count: u32,
    /// How long sent bytes may stay unacknowledged before the peer counts as dead.
    pub user_timeout: Duration,
}

fn tcp_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let made = socket(family, SockType::Stream, flags, None)?;
    // Connections of an earlier run in TIME_WAIT don't keep a listener from its address.
    setsockopt(&made, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        // An address means what it says, whatever the machine's sysctl; who wants
        // both families lists both.
        setsockopt(&made, sockopt::Ipv6V6Only, &true)?;
    }
    Ok(made)
}

/// Finds out whether `address` is free, by binding it alone for a moment.
/// SO_REUSEPORT would let a second instance share it silently.
///
/// # Errors
/// `AddrInUse` where somebody listens there; the kernel's word where the address
/// is none of this machine's or the port is not ours to take.
pub fn probe_tcp(address: SocketAddr) -> io::Result<()> {
    let probe = tcp_socket(address)?;
    bind(probe.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(())
}

/// Listens on `address` beside others of this program (SO_REUSEPORT): the kernel
/// spreads new connections over all of them.
///
/// # Errors
/// The kernel's word where it refuses the address or an option.
pub fn listen_tcp(address: SocketAddr, options: &TcpOptions) -> io::Result<OwnedFd> {
    let listener = tcp_socket(address)?;
    setsockopt(&listener, sockopt::ReusePort, &true)?;
    set_options(&listener, options)?;
    bind(listener.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&listener, backlog(options.backlog))?;
    Ok(listener)
}

fn set_options(listener: &OwnedFd, options: &TcpOptions) -> io::Result<()> {
    setsockopt(listener, sockopt::TcpNoDelay, &true)?;
    setsockopt(listener, sockopt::KeepAlive, &true)?;
    setsockopt(listener, sockopt::TcpKeepIdle, &whole_seconds(options.keepalive_idle))?;
    setsockopt(listener, sockopt::TcpKeepInterval, &whole_seconds(options.keepalive_interval))?;
    setsockopt(listener, sockopt::TcpKeepCount, &options.keepalive_count)?;
    let user_timeout_ms = u32::try_from(options.user_timeout.as_millis()).unwrap_or(u32::MAX);
    Ok(setsockopt(listener, sockopt::TcpUserTimeout, &user_timeout_ms)?)
}

fn whole_seconds(duration: Duration) -> u32 {
    // The kernel counts these in seconds and refuses 0.
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1)
}

fn backlog(count: i32) -> Backlog {
    Backlog::new(count).unwrap_or(Backlog::MAXALLOWABLE)
}

/// The address a TCP socket is bound to: the port the kernel chose for port 0.
///
/// # Errors
/// `Unsupported` where it is no TCP socket.
pub fn local_address(listener: impl AsFd) -> io::Result<SocketAddr> {
    let name: SockaddrStorage = getsockname(listener.as_fd().as_raw_fd())?;
    if let Some(v4) = name.as_sockaddr_in() {
        return Ok(SocketAddr::V4((*v4).into()));
    }
    if let Some(v6) = name.as_sockaddr_in6() {
        return Ok(SocketAddr::V6((*v6).into()));
    }
    Err(io::ErrorKind::Unsupported.into())
}

/// What a listening socket is bound to, as settings write it:
/// `127.0.0.1:8080`, `unix:/run/splitd/assign.0.sock`.
///
/// # Errors
/// `Unsupported` where it is neither, or does not listen for streams.
pub fn bound_to(listener: impl AsFd) -> io::Result<String> {
    let name: SockaddrStorage = getsockname(listener.as_fd().as_raw_fd())?;
    if let Some(path) = name.as_unix_addr().and_then(UnixAddr::path) {
        return Ok(format!("unix:{}", path.display()));
    }
    local_address(listener).map(|address| address.to_string())
}

/// Makes a bound socket what it would be, were it made here: one that listens,
/// with these options where it is TCP, and is non-blocking. It may listen already,
/// never have done, or, if it is TCP, have been told to stop ([`stop_listening`]):
/// a port that was asked for is still its own then (SOCK_BINDPORT_LOCK).
///
/// # Errors
/// If it is no socket that can listen.
pub fn listen_again(listener: &OwnedFd, options: &TcpOptions) -> io::Result<()> {
    if local_address(listener).is_ok() {
        set_options(listener, options)?;
    }
    listen(listener, backlog(options.backlog))?;
    fcntl(listener, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Whether a socket file on which somebody answers may be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// No: it is another instance's.
    No,
    /// Yes: the one who answers is a worker whose master was killed. It goes on
    /// with the connections it has; new ones come here.
    Yes,
}

/// Listens on a socket file. One that is left from before is removed if nobody
/// answers on it, or if it is to be taken over.
///
/// # Errors
/// `AddrInUse` where somebody answers, `AlreadyExists` where the file is no
/// socket, `InvalidInput` where the path is too long (107 bytes), the kernel's
/// word otherwise.
pub fn listen_unix(path: &Path, mode: u32, backlog_count: i32, takeover: Takeover) -> io::Result<OwnedFd> {
    let address = unix_address(path)?;
    remove_stale(path, &address, takeover)?;
    let listener = unix_socket()?;
    bind(listener.as_raw_fd(), &address)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    listen(&listener, backlog(backlog_count))?;
    Ok(listener)
}

fn unix_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(AddressFamily::Unix, SockType::Stream, flags, None)?)
}

fn unix_address(path: &Path) -> io::Result<UnixAddr> {
    UnixAddr::new(path).map_err(|_| {
        let size = path.as_os_str().len();
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the path has {size} bytes; a socket's may have 1 to 107"),
        )
    })
}

fn remove_stale(path: &Path, address: &UnixAddr, takeover: Takeover) -> io::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is in the way"));
    }
    match connect(unix_socket()?.as_raw_fd(), address) {
        Err(Errno::ECONNREFUSED) => std::fs::remove_file(path),
        Ok(()) | Err(Errno::EAGAIN) if takeover == Takeover::Yes => std::fs::remove_file(path),
        Err(Errno::ENOENT) => Ok(()),
        // A full queue is somebody's queue.
        Ok(()) | Err(Errno::EAGAIN) => Err(Errno::EADDRINUSE.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes one waiting connection.
///
/// # Errors
/// `WouldBlock` when none waits; the kernel's word (EMFILE, ECONNABORTED) otherwise.
#[inline]
pub fn accept4(listener: impl AsFd) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let raw = nix_accept4(listener.as_fd().as_raw_fd(), flags)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Reads what is there, up to the buffer's size; 0 means that the peer has shut
/// its write side.
///
/// # Errors
/// `WouldBlock` when there is nothing, the kernel's word otherwise.
#[inline]
pub fn recv(connection: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let size = nix::sys::socket::recv(connection.as_fd().as_raw_fd(), buffer, MsgFlags::empty())?;
    Ok(size)
}

/// Hands bytes to the kernel; says how many it took. A peer that is gone is an
/// error and no SIGPIPE.
///
/// # Errors
/// `WouldBlock` when it takes none now, the kernel's word otherwise.
#[inline]
pub fn send(connection: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let size = nix::sys::socket::send(connection.as_fd().as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?;
    Ok(size)
}

/// Says to the peer that nothing more will come; what it sends can still be read.
///
/// # Errors
/// `NotConnected` where the peer is gone already.
pub fn shutdown_write(connection: impl AsFd) -> io::Result<()> {
    shutdown(connection.as_fd().as_raw_fd(), Shutdown::Write)?;
    Ok(())
}

/// Ends a listening socket for everybody who holds it: from here on the kernel
/// refuses connections, and resets those still queued (inet_shutdown, Linux).
///
/// # Errors
/// If it is no listening socket any more.
pub fn stop_listening(listener: impl AsFd) -> io::Result<()> {
    shutdown(listener.as_fd().as_raw_fd(), Shutdown::Both)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::getsockopt;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
    use std::os::unix::net::UnixStream;

    const OPTIONS: TcpOptions = TcpOptions {
        backlog: 128,
        keepalive_idle: Duration::from_secs(11),
        keepalive_interval: Duration::from_secs(3),
        keepalive_count: 4,
        user_timeout: Duration::from_millis(9_500),
    };

    fn accepted(listener: &OwnedFd) -> OwnedFd {
        loop {
            match accept4(listener) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                other => return other.unwrap(),
            }
        }
    }

    #[test]
    fn an_accepted_connection_inherits_what_was_set_on_its_listener() {
        for ip in ["127.0.0.1", "::1"] {
            let listener = listen_tcp(SocketAddr::new(ip.parse().unwrap(), 0), &OPTIONS).unwrap();
            let _client = TcpStream::connect(local_address(&listener).unwrap()).unwrap();
            let connection = accepted(&listener);
            assert!(getsockopt(&connection, sockopt::TcpNoDelay).unwrap());
            assert!(getsockopt(&connection, sockopt::KeepAlive).unwrap());
            assert_eq!(getsockopt(&connection, sockopt::TcpKeepIdle).unwrap(), 11);
            assert_eq!(getsockopt(&connection, sockopt::TcpKeepInterval).unwrap(), 3);
            assert_eq!(getsockopt(&connection, sockopt::TcpKeepCount).unwrap(), 4);
            assert_eq!(getsockopt(&connection, sockopt::TcpUserTimeout).unwrap(), 9_500);
            let flags = fcntl(&connection, FcntlArg::F_GETFL).unwrap();
            assert_ne!(flags & libc::O_NONBLOCK, 0);
        }
    }

    #[test]
    fn bytes_go_both_ways_and_a_shut_side_reads_as_zero() {
        let listener = listen_tcp((Ipv4Addr::LOCALHOST, 0).into(), &OPTIONS).unwrap();
        assert_eq!(accept4(&listener).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut client = TcpStream::connect(local_address(&listener).unwrap()).unwrap();
        let connection = accepted(&listener);
        let mut buffer = [0; 16];
        assert_eq!(recv(&connection, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(send(&connection, b"answer").unwrap(), 6);
        shutdown_write(&connection).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
        client.write_all(b"late").unwrap();
        let size = loop {
            match recv(&connection, &mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                other => break other.unwrap(),
            }
        };
        assert_eq!(&buffer[..size], b"late");
    }

    #[test]
    fn sending_to_a_peer_that_is_gone_is_an_error_and_no_signal() {
        let listener = listen_tcp((Ipv4Addr::LOCALHOST, 0).into(), &OPTIONS).unwrap();
        drop(TcpStream::connect(local_address(&listener).unwrap()).unwrap());
        let connection = accepted(&listener);
        let gone = (0..1000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            send(&connection, b"anybody?").err()
        });
        let kind = gone.expect("a reset comes back").kind();
        assert!(matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{kind:?}");
    }

    #[test]
    fn workers_share_an_address_and_the_probe_sees_it_taken() {
        let _alone = crate::sys::alone();
        let first = listen_tcp((Ipv4Addr::LOCALHOST, 0).into(), &OPTIONS).unwrap();
        let address = local_address(&first).unwrap();
        let second = listen_tcp(address, &OPTIONS).unwrap();
        assert_eq!(probe_tcp(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop((first, second));
        probe_tcp(address).unwrap();
    }

    #[test]
    fn a_socket_that_was_shut_listens_again_where_it_was() {
        let _alone = crate::sys::alone();
        let free = listen_tcp((Ipv4Addr::LOCALHOST, 0).into(), &OPTIONS).unwrap();
        let address = local_address(&free).unwrap();
        drop(free);
        let listener = listen_tcp(address, &OPTIONS).unwrap();
        assert_eq!(bound_to(&listener).unwrap(), address.to_string());
        stop_listening(&listener).unwrap();
        assert!(TcpStream::connect(address).is_err());
        listen_again(&listener, &TcpOptions { keepalive_count: 9, ..OPTIONS }).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        assert_eq!(getsockopt(&accepted(&listener), sockopt::TcpKeepCount).unwrap(), 9);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let unix = listen_unix(&path, 0o660, 128, Takeover::No).unwrap();
        assert_eq!(bound_to(&unix).unwrap(), format!("unix:{}", path.display()));
        listen_again(&unix, &OPTIONS).unwrap();
    }

    #[test]
    fn an_ipv6_wildcard_leaves_the_ipv4_one_free() {
        let v6 = listen_tcp((Ipv6Addr::UNSPECIFIED, 0).into(), &OPTIONS).unwrap();
        let port = local_address(&v6).unwrap().port();
        probe_tcp((Ipv4Addr::UNSPECIFIED, port).into()).unwrap();
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let _alone = crate::sys::alone();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("assign.0.sock");
        let listener = listen_unix(&path, 0o660, 128, Takeover::No).unwrap();
        assert_eq!(
            listen_unix(&path, 0o660, 128, Takeover::No).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        // The question whether anybody answers was a connection too.
        drop(accepted(&listener));
        let client = UnixStream::connect(&path).unwrap();
        let connection = accepted(&listener);
        send(&connection, b"hello").unwrap();
        drop((client, listener));
        let listener = listen_unix(&path, 0o600, 128, Takeover::No).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(listener);
    }

    #[test]
    fn a_file_in_the_way_of_a_socket_is_never_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        let refused = listen_unix(&path, 0o660, 128, Takeover::No).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
        let long = directory.path().join("x".repeat(120));
        let refused = listen_unix(&long, 0o660, 128, Takeover::No).unwrap_err();
        assert!(refused.to_string().contains("107"), "{refused}");
    }
}
