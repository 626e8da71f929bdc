//! An instance that is not in order: what the service manager is told, which the
//! test plays (sd_notify(3)), and how one leaves whose workers keep crashing.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Daemon, Plan, signal, wait_until};

/// All that was said on a socket as NOTIFY_SOCKET names it.
pub struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    pub fn listen(path: &Path) -> Told {
        let socket = UnixDatagram::bind(path).unwrap();
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::downgrade(&told);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(size) = socket.recv(&mut buffer) {
                let Some(heard) = heard.upgrade() else { return };
                heard.lock().unwrap().push(String::from_utf8_lossy(&buffer[..size]).into_owned());
            }
        });
        Told(told)
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn signs_of_life(&self) -> usize {
        self.all().iter().filter(|told| told.lines().any(|line| line == "WATCHDOG=1")).count()
    }
}

#[test]
fn systemd_hears_a_sign_of_life_only_while_every_pool_has_a_worker() {
    /// Half of WATCHDOG_USEC: between two signs.
    const INTERVAL: Duration = Duration::from_millis(100);
    let mut daemon = Plan::new("auto", "edge.experiments.json").prepare();
    daemon.expect("event=ended process=assign/0");
    daemon.expect("event=restart_waits process=assign/0");
    let notify = daemon.directory.path().join("notify");
    let told = Told::listen(&notify);
    let mut command = daemon.command();
    command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", (2 * INTERVAL).as_micros().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    daemon.start_by(command);
    wait_until("signs of life", || told.signs_of_life() > 3);
    // One that is not ready is waited for, for ten seconds; nobody else is in its pool.
    let late = daemon.stop_at_start("assign/0");
    // What was said before is on its way.
    std::thread::sleep(INTERVAL);
    let before = told.signs_of_life();
    std::thread::sleep(10 * INTERVAL);
    assert_eq!(told.signs_of_life(), before, "all else goes on, and that is not enough");
    signal(late, Signal::SIGCONT);
    wait_until("signs of life again", || told.signs_of_life() > before + 3);
    assert_eq!(daemon.child("assign/0"), Some(late));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn an_instance_whose_workers_keep_crashing_leaves_with_code_4() {
    let mut daemon = Plan::new("auto", "edge.experiments.json").start();
    daemon.expect("event=ended process=");
    daemon.expect("event=restart_waits process=");
    let code = daemon.wait_doing(|daemon: &Daemon| {
        for (pid, _) in daemon.children().into_iter().filter(|(_, name)| name.contains('/')) {
            // It may have ended in this moment.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    });
    assert_eq!(code, Some(4));
    assert!(daemon.log().contains("event=stopping why=\"all workers keep crashing\""));
    let given_up = daemon.log().matches("event=restart_waits process=assign/0 ").count();
    assert!(given_up >= 7, "not before it was tried again and again: {given_up}");
}
