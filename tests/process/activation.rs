//! Sockets that somebody keeps from one instance to the next: passed as systemd
//! passes those of a socket unit and of the fd store (sd_listen_fds(3)), which the
//! test plays. tests/operations/booted.rs has the real one.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::for_each_backend;
use crate::order::Told;
use crate::support::{Client, Daemon, PATIENCE, Plan, queued, signal, wait_until};

const ASK: &[u8] = b"GET /v1/assign?user_id=1 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";

/// Two sockets of the pool `assign`, and the socket that systemd would listen on.
struct Manager {
    daemon: Daemon,
    tcp: TcpListener,
    unix: UnixListener,
    told: Told,
}

impl Manager {
    fn new(io: &'static str) -> Manager {
        let daemon = Plan::new(io, "edge.experiments.json")
            .set("watchdog=1h")
            .set("drain_timeout=1h")
            .set("pool.assign.head_timeout=1h")
            .prepare();
        let path = daemon.directory.path();
        let tcp = TcpListener::bind(("127.0.0.1", daemon.assign())).unwrap();
        let unix = UnixListener::bind(path.join("assign.0.sock")).unwrap();
        let told = Told::listen(&path.join("notify"));
        Manager { daemon, tcp, unix, told }
    }

    /// Starts it with the sockets by these names.
    fn start(&mut self, names: &str) {
        let path = self.daemon.directory.path();
        let own = self.daemon.command();
        let script = "export LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 4<&1 </dev/null >/dev/null";
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).arg(own.get_program()).args(own.get_args());
        command.arg("--set").arg(format!(
            "pool.assign.listen=127.0.0.1:{},unix:{}",
            self.daemon.assign(),
            path.join("assign.sock").display()
        ));
        command.env_clear().env("NOTIFY_SOCKET", path.join("notify"));
        command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names);
        command.stdin(OwnedFd::from(self.tcp.try_clone().unwrap()));
        command.stdout(OwnedFd::from(self.unix.try_clone().unwrap()));
        self.daemon.start_by(command);
    }

    /// Whether it was told to do this with the sockets of this name.
    fn heard(&self, what: &str, name: &str) -> bool {
        let name = format!("FDNAME={name}\n");
        self.told.all().iter().any(|told| told.contains(what) && format!("{told}\n").contains(&name))
    }

    fn ask_unix(&self) -> UnixStream {
        let mut stream = UnixStream::connect(self.daemon.directory.path().join("assign.0.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(ASK).unwrap();
        stream
    }
}

fn ask(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(ASK).unwrap();
    stream
}

fn answered(mut stream: impl Read) {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer, and the end");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text:?}");
}

for_each_backend! {
    whoever_comes_in_a_restart_waits_in_the_queue_and_is_answered_by_the_next(io) {
        for names in ["splitd.socket:splitd.socket", "splitd-assign-0:splitd-assign-0"] {
            let mut manager = Manager::new(io);
            manager.start(names);
            let port = manager.daemon.assign();
            // A request that is not whole keeps the instance from leaving.
            let mut held = Client::connect(port);
            assert!(held.send(b"GET /livez HTTP/1.1\r\n"));
            signal(manager.daemon.master_pid(), Signal::SIGTERM);
            let (mut tcp, mut unix) = (Vec::new(), Vec::new());
            wait_until("nobody to be let in any more", || {
                tcp.push(ask(port));
                unix.push(manager.ask_unix());
                queued(&fs::read_to_string("/proc/net/tcp").unwrap(), port) >= 64
            });
            assert!(held.send(b"Host: t\r\n\r\n"));
            assert_eq!(held.receive().expect("its answer").status, 200);
            assert_eq!(manager.daemon.wait(), Some(0));
            assert!(!manager.heard("FDSTOREREMOVE=1", "splitd-assign-0"));
            manager.start(names);
            tcp.into_iter().for_each(answered);
            unix.into_iter().for_each(answered);
            assert_eq!(manager.daemon.stop(), Some(0));
        }
    }

    who_is_queued_when_the_master_is_killed_is_answered_by_the_next_ones_workers(io) {
        let mut manager = Manager::new(io);
        manager.daemon.expect("event=takeover");
        manager.start("splitd-assign-0:splitd-assign-0");
        let port = manager.daemon.assign();
        // It is left behind and answers nobody, so that only a follower can.
        let worker = manager.daemon.child("assign/0").unwrap();
        signal(worker, Signal::SIGSTOP);
        let tcp: Vec<TcpStream> = (0..64).map(|_| ask(port)).collect();
        let unix: Vec<UnixStream> = (0..64).map(|_| manager.ask_unix()).collect();
        manager.daemon.expect("event=master_gone");
        manager.daemon.kill_master();
        manager.start("splitd-assign-0:splitd-assign-0");
        tcp.into_iter().for_each(answered);
        unix.into_iter().for_each(answered);
        signal(worker, Signal::SIGCONT);
        manager.daemon.wait_for_orphans();
        assert_eq!(manager.daemon.stop(), Some(0));
    }

    a_drain_that_nobody_follows_refuses_whoever_comes_and_empties_the_store(io) {
        let mut manager = Manager::new(io);
        manager.start("splitd-assign-0:splitd-assign-0");
        let port = manager.daemon.assign();
        let mut held = Client::connect(port);
        assert!(held.send(b"GET /livez HTTP/1.1\r\n"));
        signal(manager.daemon.master_pid(), Signal::SIGQUIT);
        wait_until("connections to be refused", || TcpStream::connect(("127.0.0.1", port)).is_err());
        wait_until("the store to be emptied", || manager.heard("FDSTOREREMOVE=1", "splitd-assign-0"));
        assert!(held.send(b"Host: t\r\n\r\n"));
        assert_eq!(held.receive().expect("its answer").status, 200);
        assert_eq!(manager.daemon.wait(), Some(0));
        assert!(!manager.daemon.directory.path().join("assign.0.sock").exists());
    }

    a_stored_socket_that_no_pool_wants_any_more_leaves_the_store(io) {
        let mut manager = Manager::new(io);
        manager.daemon.expect("event=socket_left");
        manager.unix = UnixListener::bind(manager.daemon.directory.path().join("old.0.sock")).unwrap();
        manager.start("splitd-assign-0:splitd-old-0");
        wait_until("the other to leave the store", || manager.heard("FDSTOREREMOVE=1", "splitd-old-0"));
        for name in ["splitd-assign-0", "splitd-bulk-0", "splitd-admin-0"] {
            wait_until("the sockets to be stored", || manager.heard("FDSTORE=1", name));
        }
        assert_eq!(manager.daemon.stop(), Some(0));
    }
}
