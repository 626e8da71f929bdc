//! A real HAProxy with `scripts/haproxy.cfg`: its own port and directory, the
//! servers as `splitd haproxy-servers` prints them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::{Daemon, free_ports, splitd, wait_until};

/// Whether there is one; says so where not.
pub fn has_haproxy() -> bool {
    let found = find().is_some();
    if !found {
        eprintln!("skipped: haproxy is not installed");
    }
    found
}

fn find() -> Option<PathBuf> {
    ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

/// Whether it repeats what failed, as the shipped file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retries {
    AsShipped,
    None,
}

pub struct Proxy {
    child: Child,
    pub port: u16,
    directory: tempfile::TempDir,
}

/// The shipped file for these servers.
pub fn configuration(port: u16, socket: &str, servers: &str, retries: Retries) -> String {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/haproxy.cfg");
    let mut text = fs::read_to_string(file).unwrap();
    let mut put = |from: &str, to: &str| {
        assert!(text.contains(from), "scripts/haproxy.cfg lacks `{from}`");
        text = text.replace(from, to);
    };
    put("/run/haproxy/splitd.sock", socket);
    put("log /dev/log local0", "log stdout format raw local0");
    put("127.0.0.1:8000", &format!("127.0.0.1:{port}"));
    put(
        "    server assign-0 127.0.0.1:8080 proto h1 check agent-check agent-addr 127.0.0.1 agent-port 9081\n",
        servers,
    );
    let first = servers.split_whitespace().nth(2).expect("an address");
    put("server restart 127.0.0.1:8080", &format!("server restart {first}"));
    if retries == Retries::None {
        put("retries 30", "retries 0");
        put("    retry-on conn-failure\n", "");
        put("    option redispatch 1\n", "");
        text = text
            .lines()
            .filter(|line| !line.contains("server restart"))
            .map(|line| format!("{line}\n"))
            .collect();
    }
    text
}

/// What `splitd haproxy-servers` says of a daemon's pool `assign`.
pub fn servers(daemon: &Daemon, name: &str) -> String {
    let mut command = splitd();
    command.env_clear().args(["haproxy-servers", "--name", name]);
    for set in daemon.sets() {
        command.arg("--set").arg(set);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Proxy {
    /// In front of these daemons, and waits until all their servers are up.
    pub fn start(daemons: &[&Daemon], retries: Retries) -> Proxy {
        let port = free_ports(1);
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("haproxy.sock");
        let mut lines = String::new();
        for (number, daemon) in daemons.iter().enumerate() {
            lines += &servers(daemon, &format!("d{number}"));
        }
        let text = configuration(port, socket.to_str().unwrap(), &lines, retries);
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, text).unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let child = Command::new(find().unwrap())
            .args(["-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut proxy = Proxy { child, port, directory };
        wait_until("HAProxy and its servers", || {
            if let Ok(Some(status)) = proxy.child.try_wait() {
                panic!("HAProxy left with {status}:\n{}", proxy.log());
            }
            let states = proxy.states();
            !states.is_empty() && states.values().all(|state| state == "UP" || state == "no check")
        });
        proxy
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn ask(&self, command: &str) -> String {
        let mut text = String::new();
        if let Ok(mut stream) = UnixStream::connect(self.directory.path().join("haproxy.sock")) {
            let _ = stream.write_all(format!("{command}\n").as_bytes());
            let _ = stream.read_to_string(&mut text);
        }
        text
    }

    /// The rows of `show stat` for its servers: each a server's name and its fields.
    fn rows(&self) -> Vec<BTreeMap<String, String>> {
        let text = self.ask("show stat");
        let mut lines = text.lines().filter(|line| !line.is_empty());
        let Some(names) = lines.next() else { return Vec::new() };
        let names: Vec<&str> = names.trim_start_matches("# ").split(',').collect();
        lines
            .map(|line| {
                names
                    .iter()
                    .zip(line.split(','))
                    .map(|(name, value)| ((*name).to_owned(), value.to_owned()))
                    .collect()
            })
            .filter(|row: &BTreeMap<String, String>| {
                row["pxname"] == "splitd" && !["FRONTEND", "BACKEND"].contains(&row["svname"].as_str())
            })
            .collect()
    }

    /// Each server's state: `UP`, `DRAIN`, `DOWN 1/2`, …
    pub fn states(&self) -> BTreeMap<String, String> {
        self.rows().into_iter().map(|row| (row["svname"].clone(), row["status"].clone())).collect()
    }

    /// A count of `show stat`, over all servers.
    pub fn count(&self, field: &str) -> u64 {
        self.rows().iter().map(|row| row[field].parse::<u64>().unwrap_or(0)).sum()
    }

    /// The same for each server.
    pub fn counts(&self, field: &str) -> Vec<u64> {
        self.rows().iter().map(|row| row[field].parse().unwrap_or(0)).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("── log of HAProxy ──\n{}", self.log());
        }
    }
}
