//! A real daemon, started from outside: its own temporary directory, its own
//! free ports, and nothing left behind.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use log_lines::is_event;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use splitd::exposure::ring::Account;
use splitd::sys::region::Region;
use splitd::sys::uring::Ring;

#[path = "log_lines.rs"]
mod log_lines;

/// How long a condition may take on a slow, busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test.
pub fn splitd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_splitd"))
}

/// A file of `tests/golden`.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Its lines.
pub fn lines(name: &str) -> Vec<String> {
    fs::read_to_string(golden(name)).unwrap().lines().map(str::to_owned).collect()
}

/// Waits for a condition, not for time.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether this kernel lets us have io_uring; says so where not.
pub fn has_io_uring() -> bool {
    let refusal = Ring::refusal(splitd::worker::uring::SIZES);
    if let Some(refusal) = &refusal {
        eprintln!("skipped: {refusal}");
    }
    refusal.is_none()
}

/// Ports that no test program beside this one gives out.
struct Ports {
    left: Range<u16>,
    /// A block of ports is ours as long as we have the UDP port of its first number,
    /// which nobody needs; the kernel takes it back whatever becomes of us.
    claims: Vec<UdpSocket>,
}

impl Ports {
    /// Below those that the kernel gives to whom asks for any (ip(7), ip_local_port_range),
    /// which a connection of another test could take before a daemon listens there.
    const ALL: Range<u16> = 10_000..32_000;
    const BLOCK: u16 = 250;

    fn claim_block(&mut self) {
        let mut firsts = Ports::ALL.step_by(Ports::BLOCK.into());
        let claim = firsts.find_map(|first| Some((first, UdpSocket::bind(("127.0.0.1", first)).ok()?)));
        let (first, claim) = claim.expect("no block of ports is left");
        self.left = first..first + Ports::BLOCK;
        self.claims.push(claim);
    }
}

/// The first of so many free ports in a row. Each is given out once.
pub fn free_ports(count: u16) -> u16 {
    static PORTS: Mutex<Ports> = Mutex::new(Ports { left: 0..0, claims: Vec::new() });
    let mut ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        while ports.left.len() < count.into() {
            ports.claim_block();
        }
        let first = ports.left.start;
        let is_free = (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
        ports.left.start += if is_free { count } else { 1 };
        if is_free {
            return first;
        }
    }
}

/// Connections that wait at a listening port, by the text of /proc/net/tcp (proc(5)).
pub fn queued(table: &str, port: u16) -> u64 {
    let waiting = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(3) == Some(&"0A") && fields[1].ends_with(&format!(":{port:04X}"));
        listens.then(|| u64::from_str_radix(fields[4].split_once(':').unwrap().1, 16).unwrap())
    };
    table.lines().filter_map(waiting).sum()
}

/// How to start a daemon.
pub struct Plan {
    pub io: &'static str,
    pub workers: usize,
    pub experiments: PathBuf,
    pub sets: Vec<String>,
    /// It runs a copy of the program, in its own directory.
    pub copied: bool,
    /// It is called with a settings file, which begins with this text.
    pub settings: Option<&'static str>,
}

impl Plan {
    pub fn new(io: &'static str, experiments: &str) -> Plan {
        Plan {
            io,
            workers: 1,
            experiments: golden(experiments),
            sets: Vec::new(),
            copied: false,
            settings: None,
        }
    }

    pub fn workers(mut self, count: usize) -> Plan {
        self.workers = count;
        self
    }

    pub fn set(mut self, set: &str) -> Plan {
        self.sets.push(set.to_owned());
        self
    }

    pub fn settings(mut self, text: &'static str) -> Plan {
        self.settings = Some(text);
        self
    }

    pub fn copied(mut self) -> Plan {
        self.copied = true;
        self
    }

    pub fn start(self) -> Daemon {
        let mut daemon = self.prepare();
        daemon.start();
        daemon
    }

    /// All but the start.
    pub fn prepare(self) -> Daemon {
        let directory = tempfile::tempdir().unwrap();
        let experiments = directory.path().join("experiments.json");
        fs::copy(&self.experiments, &experiments).unwrap();
        let daemon = Daemon {
            master: None,
            ports: [free_ports(self.workers as u16), free_ports(1), free_ports(1), free_ports(1)],
            directory,
            plan: self,
            expected: Vec::new(),
            orphans: BTreeSet::new(),
        };
        if let Some(text) = daemon.plan.settings {
            fs::write(daemon.settings_file(), text).unwrap();
        }
        if daemon.plan.copied {
            fs::copy(env!("CARGO_BIN_EXE_splitd"), daemon.program()).unwrap();
        }
        daemon
    }
}

/// A running splitd with the pools assign, bulk and admin.
pub struct Daemon {
    master: Option<Child>,
    ports: [u16; 4],
    pub directory: tempfile::TempDir,
    plan: Plan,
    expected: Vec<&'static str>,
    orphans: BTreeSet<i32>,
}

impl Daemon {
    /// The command that starts it.
    pub fn command(&self) -> Command {
        let mut command = if self.plan.copied { Command::new(self.program()) } else { splitd() };
        let path = self.directory.path();
        command.env_clear().env("PATH", "/usr/bin:/bin").current_dir(path);
        command.arg("serve").arg("--experiments").arg(path.join("experiments.json"));
        if self.plan.settings.is_some() {
            command.arg("--config").arg(self.settings_file());
        }
        for set in self.sets() {
            command.arg("--set").arg(set);
        }
        command
    }

    /// Its settings, as `--set` takes them.
    pub fn sets(&self) -> Vec<String> {
        let path = self.directory.path();
        let [assign, bulk, admin, agent] = self.ports;
        let mut sets = vec![
            format!("state_dir={}", path.join("state").display()),
            format!("runtime_dir={}", path.join("run").display()),
            format!("pool.assign.listen=127.0.0.1:{assign}"),
            format!("pool.bulk.listen=127.0.0.1:{bulk}"),
            format!("pool.admin.listen=127.0.0.1:{admin}"),
            format!("agent_check.listen=127.0.0.1:{agent}"),
            format!("pool.assign.workers={}", self.plan.workers),
            "logger.ring_size=4MiB".to_owned(),
            // On a busy machine, too, the logger keeps up and a look at the metrics is short.
            "logger.nice=0".to_owned(),
            "pool.admin.nice=0".to_owned(),
            "drain_idle=100ms".to_owned(),
        ];
        for pool in ["assign", "bulk", "admin"] {
            sets.push(format!("pool.{pool}.io={}", self.plan.io));
        }
        sets.extend(self.plan.sets.iter().cloned());
        sets
    }

    /// Its settings file, if it is called with one.
    pub fn settings_file(&self) -> PathBuf {
        self.directory.path().join("splitd.toml")
    }

    /// The copy of the program that it runs.
    pub fn program(&self) -> PathBuf {
        self.directory.path().join("splitd")
    }

    /// Starts it (again, over what an earlier one left) and waits until it is ready.
    pub fn start(&mut self) {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.start_by(command);
    }

    /// The same by a command that becomes it.
    pub fn start_by(&mut self, mut command: Command) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        self.master = Some(command.stderr(log).spawn().unwrap());
        // Before its first word a signal could end it.
        let word = format!(" pid={} event=", self.master_pid());
        wait_until("readyz", || {
            self.lives();
            // Those of a killed master may answer, too.
            if !self.log().contains(&word) {
                return false;
            }
            Client::try_connect(self.admin())
                .and_then(|mut client| client.try_get("/readyz"))
                .is_some_and(|response| response.status == 200)
        });
    }

    /// It has not left by itself.
    pub fn lives(&mut self) {
        if let Ok(Some(status)) = self.master.as_mut().unwrap().try_wait() {
            panic!("splitd left with {status}:\n{}", self.log());
        }
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    pub fn assign(&self) -> u16 {
        self.ports[0]
    }

    pub fn bulk(&self) -> u16 {
        self.ports[1]
    }

    pub fn admin(&self) -> u16 {
        self.ports[2]
    }

    pub fn agent(&self) -> u16 {
        self.ports[3]
    }

    pub fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn master_pid(&self) -> i32 {
        self.master.as_ref().expect("running").id() as i32
    }

    /// Warnings and errors with this text are part of the test.
    pub fn expect(&mut self, text: &'static str) {
        self.expected.push(text);
    }

    /// Its children: pid and name (`assign/0`, `logger`).
    pub fn children(&self) -> Vec<(i32, String)> {
        let master = self.master_pid();
        let list = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        list.split_whitespace()
            .filter_map(|pid| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
                Some((pid.parse().ok()?, name.trim().to_owned()))
            })
            .collect()
    }

    /// The pid of the child with that name; the last started, if there are two.
    pub fn child(&self, name: &str) -> Option<i32> {
        self.children().into_iter().rfind(|(_, child)| child == name).map(|(pid, _)| pid)
    }

    /// Runs `splitd ARGUMENTS…` for this instance: its exit code and all that it said.
    pub fn order(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = splitd();
        command.args(arguments).arg("--runtime-dir").arg(self.directory.path().join("run"));
        let output = command.env_clear().output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    }

    /// Renames another text into the experiments file's place.
    pub fn replace_experiments(&self, text: &str) {
        let beside = self.directory.path().join("experiments.json.new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.experiments()).unwrap();
    }

    pub fn experiments(&self) -> PathBuf {
        self.directory.path().join("experiments.json")
    }

    /// The versions that are served, over many connections.
    pub fn versions(&self) -> Vec<String> {
        let mut versions: Vec<String> = (0..8)
            .map(|_| Client::connect(self.assign()).get("/v1/assign").json()["version"].to_string())
            .collect();
        versions.sort();
        versions.dedup();
        versions
    }

    /// Kills the child with that name and waits until another has its place.
    pub fn kill_child(&self, name: &str) {
        let mut old = None;
        wait_until(&format!("a child {name}"), || {
            old = self.child(name);
            old.is_some()
        });
        signal(old.unwrap(), Signal::SIGKILL);
        wait_until(&format!("a successor of {name}"), || {
            self.child(name).is_some_and(|new| Some(new) != old)
        });
    }

    /// Kills the child with that name until a successor is stopped before it is ready;
    /// that one's pid.
    pub fn stop_at_start(&self, name: &str) -> i32 {
        let ready = format!("event=worker_ready worker={name} ");
        let mut caught = None;
        wait_until(&format!("a {name} to be caught"), || {
            let readies = self.log().matches(&ready).count();
            self.kill_child(name);
            let pid = self.child(name);
            // The next may have to be waited for again.
            caught = pid.filter(|pid| kill(Pid::from_raw(*pid), Signal::SIGSTOP).is_ok());
            self.settle();
            caught.is_some() && self.log().matches(&ready).count() == readies
        });
        caught.unwrap()
    }

    /// Waits until the master has heard all that it was told by now.
    fn settle(&self) {
        // Signals are heard first in a turn: the second one in a later turn.
        for _ in 0..2 {
            let heard = || self.log().matches("signal=SIGUSR1").count();
            let before = heard();
            signal(self.master_pid(), Signal::SIGUSR1);
            wait_until("a signal to be heard", || heard() > before);
        }
    }

    /// Does `work` while nobody has the place of a killed child: kills it until the wait
    /// before its successor, which each death doubles, is long enough for that.
    pub fn while_missing(&self, name: &str, mut work: impl FnMut()) {
        let adopted = || self.log().matches("event=socket_adopted").count();
        for _ in 0..12 {
            let (mut old, before) = (None, adopted());
            wait_until(&format!("a child {name}"), || {
                old = self.child(name);
                old.is_some()
            });
            signal(old.unwrap(), Signal::SIGKILL);
            wait_until("its socket to be adopted, or a successor", || {
                adopted() > before || self.child(name).is_some_and(|new| Some(new) != old)
            });
            if self.child(name).is_none() {
                work();
                if self.child(name).is_none() {
                    return;
                }
            }
        }
        panic!("a successor of {name} was always there before");
    }

    /// KILL to the master alone; its children go on as orphans.
    pub fn kill_master(&mut self) -> Vec<i32> {
        let children: Vec<i32> = self.children().into_iter().map(|(pid, _)| pid).collect();
        self.orphans.extend(&children);
        let mut master = self.master.take().unwrap();
        master.kill().unwrap();
        master.wait().unwrap();
        children
    }

    /// Waits until the children of killed masters have left.
    pub fn wait_for_orphans(&mut self) {
        wait_until("the orphans to leave by themselves", || {
            self.orphans.iter().all(|pid| {
                fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
            })
        });
        self.orphans.clear();
    }

    /// TERM, and its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        signal(self.master_pid(), Signal::SIGTERM);
        self.wait()
    }

    /// Waits until the master has left; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.wait_doing(|_| {})
    }

    /// The same, and does this meanwhile.
    pub fn wait_doing(&mut self, deed: impl Fn(&Daemon)) -> Option<i32> {
        let mut code = None;
        wait_until("the master's end", || {
            deed(self);
            let status = self.master.as_mut().unwrap().try_wait().unwrap();
            code = status.and_then(|status| status.code());
            status.is_some()
        });
        self.master = None;
        code
    }

    /// One value of `/metrics`, summed over all lines that begin with `prefix`.
    pub fn metric(&self, prefix: &str) -> u64 {
        let text = Client::connect(self.admin()).get("/metrics").body;
        let values = text.lines().filter(|line| line.starts_with(prefix));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Every exposure that reached the sink, as `splitd events` prints it.
    pub fn events(&self) -> Vec<Value> {
        let output = splitd().arg("events").arg(self.state_dir()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    }

    /// Exposures that no ring took: by the books that a master closes at its end,
    /// or those of the rings that a killed one left. All others were delivered.
    pub fn lost(&self) -> u64 {
        let log = self.log();
        if let Some(line) = log.lines().rfind(|line| line.contains(" event=exposures ")) {
            let number = |name: &str| -> u64 {
                let from = line.find(&format!(" {name}=")).expect(name) + name.len() + 2;
                line[from..].split(' ').next().unwrap().parse().unwrap()
            };
            assert_eq!(number("attempted"), number("committed") + number("lost"), "{line}");
            assert_eq!(number("committed"), number("consumed"), "{line}");
            return number("lost");
        }
        let list =
            |path: PathBuf| fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path());
        let rings = list(self.directory.path().join("run/rings")).flat_map(list);
        let accounts = rings.map(|path| Account::read(Region::open_file(&path).unwrap().words()).unwrap());
        accounts
            .inspect(|account| {
                assert_eq!(account.attempted, account.committed + account.lost, "{account:?}");
                assert_eq!(account.committed, account.consumed, "{account:?}");
            })
            .map(|account| account.lost)
            .sum()
    }

    fn unexpected(&self) -> Vec<String> {
        let loud = |line: &&str| line.contains(" warn pid=") || line.contains(" error pid=");
        let log = self.log();
        let lines = log.lines().filter(loud);
        lines
            .filter(|line| !self.expected.iter().any(|text| line.contains(text)))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Before its end, which is not the test's.
        let unexpected = self.unexpected();
        if self.master.is_some() {
            self.orphans.extend(self.children().into_iter().map(|(pid, _)| pid));
        }
        if let Some(master) = &mut self.master {
            let _ = master.kill();
            let _ = master.wait();
        }
        for &orphan in &self.orphans {
            // Ours by its directory: a pid may have been given to somebody else.
            let ours = fs::read_to_string(format!("/proc/{orphan}/cmdline"))
                .is_ok_and(|line| line.contains(self.directory.path().to_str().unwrap()));
            if ours {
                let _ = kill(Pid::from_raw(orphan), Signal::SIGKILL);
            }
        }
        if std::thread::panicking() {
            eprintln!("── log of the daemon ──\n{}", self.log());
        } else {
            let log = self.log();
            let free: Vec<&str> = log.lines().filter(|line| !is_event(line)).collect();
            assert!(free.is_empty(), "no pairs key=value in the log:\n{}", free.join("\n"));
            assert!(unexpected.is_empty(), "unexpected in the log:\n{}", unexpected.join("\n"));
        }
    }
}

pub fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A keep-alive connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(port: u16) -> Client {
        Client::try_connect(port).expect("it listens")
    }

    pub fn try_connect(port: u16) -> Option<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Client { stream: BufReader::new(stream) })
    }

    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.get_mut().write_all(bytes).is_ok()
    }

    /// The same connection, for a thread that only writes.
    pub fn clone_stream(&self) -> TcpStream {
        self.stream.get_ref().try_clone().unwrap()
    }

    /// One answer; none if the connection ended before it was whole.
    pub fn receive(&mut self) -> Option<Response> {
        self.receive_to("GET")
    }

    pub fn receive_to(&mut self, method: &str) -> Option<Response> {
        let mut head = String::new();
        loop {
            let before = head.len();
            if self.stream.read_line(&mut head).ok()? == 0 {
                return None;
            }
            if &head[before..] == "\r\n" {
                break;
            }
        }
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let response = Response { status, head, body: String::new() };
        let mut body = Vec::new();
        if method != "HEAD" && status != 100 {
            if response.header("transfer-encoding") == Some("chunked") {
                loop {
                    let mut line = String::new();
                    self.stream.read_line(&mut line).ok()?;
                    let size = usize::from_str_radix(line.trim(), 16).ok()?;
                    let mut chunk = vec![0; size + 2];
                    self.stream.read_exact(&mut chunk).ok()?;
                    body.extend_from_slice(&chunk[..size]);
                    if size == 0 {
                        break;
                    }
                }
            } else if let Some(size) = response.header("content-length") {
                body = vec![0; size.parse().ok()?];
                self.stream.read_exact(&mut body).ok()?;
            } else {
                self.stream.read_to_end(&mut body).ok()?;
            }
        }
        Some(Response { body: String::from_utf8(body).ok()?, ..response })
    }

    /// Whether the peer has closed, waiting for it.
    pub fn closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).is_err() || rest.is_empty()
    }

    pub fn try_get(&mut self, target: &str) -> Option<Response> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
        self.receive()
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.try_get(target).expect("an answer")
    }

    pub fn try_post(&mut self, target: &str, body: &str) -> Option<Response> {
        self.send(post(target, body).as_bytes());
        self.receive()
    }

    pub fn post(&mut self, target: &str, body: &str) -> Response {
        self.try_post(target, body).expect("an answer")
    }
}

/// The bytes of a POST.
pub fn post(target: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Clients that ask without pause, each request for a user of its own.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<(Vec<String>, Vec<String>)>>,
}

/// What became of a load's requests, by user.
pub struct Outcome {
    pub answered: Vec<String>,
    /// Sent, but the connection ended before the answer.
    pub unanswered: Vec<String>,
}

impl Load {
    pub fn start(port: u16, clients: usize) -> Load {
        Load::start_with(port, clients, "{}")
    }

    /// The same, with these attributes in each request.
    pub fn start_with(port: u16, clients: usize, attributes: &str) -> Load {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let threads = (0..clients)
            .map(|_| {
                let (stop, answered, attributes) = (stop.clone(), answered.clone(), attributes.to_owned());
                std::thread::spawn(move || {
                    let (mut good, mut bad) = (Vec::new(), Vec::new());
                    let mut client = None;
                    while !stop.load(Ordering::Relaxed) {
                        if client.is_none() {
                            client = Client::try_connect(port);
                        }
                        let Some(open) = &mut client else {
                            std::thread::sleep(Duration::from_millis(1));
                            continue;
                        };
                        let user = format!("load-{}", NEXT.fetch_add(1, Ordering::Relaxed));
                        let body =
                            format!("{{\"units\":{{\"user_id\":\"{user}\"}},\"attributes\":{attributes}}}");
                        match open.try_post("/v1/assign", &body) {
                            Some(response) if response.status == 200 => {
                                if response.header("connection") == Some("close") {
                                    client = None;
                                }
                                answered.fetch_add(1, Ordering::Relaxed);
                                good.push(user);
                                // The logger is to keep up on any machine.
                                std::thread::sleep(Duration::from_micros(500));
                            }
                            Some(response) => panic!("{response:?}"),
                            None => {
                                bad.push(user);
                                client = None;
                            }
                        }
                    }
                    (good, bad)
                })
            })
            .collect();
        Load { stop, answered, threads }
    }

    /// Waits until so many more were answered.
    pub fn more(&self, count: u64) {
        let target = self.answered.load(Ordering::Relaxed) + count;
        wait_until("answers under load", || self.answered.load(Ordering::Relaxed) >= target);
    }

    pub fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut outcome = Outcome { answered: Vec::new(), unanswered: Vec::new() };
        for thread in self.threads {
            let (good, bad) = thread.join().expect("no client met a refusal");
            outcome.answered.extend(good);
            outcome.unanswered.extend(bad);
        }
        outcome
    }
}
