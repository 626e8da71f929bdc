//! The package and its unit under a real systemd: a container is booted from the
//! tree that `scripts/booted-tree` makes, with a network of its own that has
//! nothing but loopback, and thrown away afterwards.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sched::{CloneFlags, setns};

use crate::generator::{Generator, Work};
use crate::proxy::{self, Retries};
use crate::show::rate;
use crate::support::{Client, PATIENCE, Response, golden, queued, signal, wait_until};

fn target() -> PathBuf {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/target");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| own.into(), PathBuf::from)
}

/// A booted Debian.
struct Machine {
    nspawn: Child,
    /// Its first process, as we see it.
    leader: i32,
    log: PathBuf,
    directory: tempfile::TempDir,
}

impl Machine {
    /// None, and why, where this machine can't.
    fn boot() -> Result<Machine, String> {
        let tree = target().join("booted/tree");
        if !nix::unistd::geteuid().is_root() {
            return Err("it takes root".to_owned());
        }
        if !tree.join("splitd-tree-is-whole").exists() {
            return Err("there is no tree to boot; scripts/booted-tree makes one".to_owned());
        }
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("console");
        let console = File::create(&log).unwrap();
        let mut nspawn = Command::new("systemd-nspawn")
            .args([
                "--boot",
                "--quiet",
                "--register=no",
                "--keep-unit",
                "--private-network",
                "--volatile=overlay",
                // Without it nspawn forbids mlock to everybody.
                "--capability=CAP_IPC_LOCK",
            ])
            .args(["--console=pipe", "--machine", &format!("splitd-test-{}", std::process::id())])
            .arg("--directory")
            .arg(tree)
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .spawn()
            .map_err(|error| format!("systemd-nspawn: {error}"))?;
        let pid = nspawn.id();
        let mut leader = None;
        let begin = std::time::Instant::now();
        while leader.is_none() {
            let ended = nspawn.try_wait().unwrap().is_some();
            if ended || begin.elapsed() > PATIENCE {
                let _ = nspawn.kill();
                let _ = nspawn.wait();
                return Err(format!(
                    "systemd-nspawn can't here: {}",
                    fs::read_to_string(&log).unwrap_or_default()
                ));
            }
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            leader = children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid: &i32| {
                fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "systemd")
            });
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let machine = Machine { nspawn, leader: leader.unwrap(), log, directory };
        wait_until("the machine to be up", || {
            let state = machine.run(&["systemctl", "is-system-running"]);
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            state == "running" || state == "degraded"
        });
        Ok(machine)
    }

    /// A file of its tree, as we see it.
    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.leader))
    }

    fn run(&self, command: &[&str]) -> Output {
        Command::new("nsenter")
            .args(["--target", &self.leader.to_string(), "--mount", "--uts", "--ipc", "--net", "--pid", "--"])
            .args(command)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("SYSTEMD_PAGER", "")
            .env("SYSTEMD_COLORS", "0")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What a command that must succeed prints.
    fn did(&self, command: &[&str]) -> String {
        let output = self.run(command);
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {}\n{text}\n{}", output.status, self.journal(&[]));
        text.trim().to_owned()
    }

    fn property(&self, name: &str) -> String {
        self.did(&["systemctl", "show", "--value", "--property", name, "splitd"])
    }

    fn journal(&self, options: &[&str]) -> String {
        let mut command = vec!["journalctl", "--no-pager", "--unit", "splitd"];
        command.extend(options);
        String::from_utf8_lossy(&self.run(&command).stdout).into_owned()
    }

    fn network(&self) -> File {
        File::open(format!("/proc/{}/ns/net", self.leader)).unwrap()
    }

    /// Does something in its network.
    fn within<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let network = self.network();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(&network, CloneFlags::CLONE_NEWNET).expect("its network");
                action()
            });
            thread.join().unwrap()
        })
    }

    fn try_get(&self, port: u16, target: &str) -> Option<Response> {
        self.within(|| Client::try_connect(port)?.try_get(target))
    }

    fn get(&self, port: u16, target: &str) -> Response {
        self.try_get(port, target).unwrap_or_else(|| panic!("{port} {target}\n{}", self.journal(&[])))
    }

    /// A load that has begun.
    fn load(&self, port: u16) -> Generator {
        let work = Work { port, connections: 16, rate: rate(500), network: Some(self.network()) };
        let load = Generator::start(work);
        load.go_on(0.5);
        load
    }

    /// Our pids of splitd's children, by name.
    fn child(&self, name: &str) -> Option<i32> {
        let main: i32 = self.property("MainPID").parse().unwrap();
        // Its pid there is not its pid here.
        let list = self.did(&["cat", &format!("/proc/{main}/task/{main}/children")]);
        list.split_whitespace()
            // One that has just ended has no name any more.
            .find(|pid| {
                self.run(&["cat", &format!("/proc/{pid}/comm")]).stdout.trim_ascii() == name.as_bytes()
            })
            .map(|pid| pid.parse().unwrap())
    }

    /// So many starts in so short a time would be one crash after another.
    fn forget_starts(&self) {
        self.run(&["systemctl", "reset-failed", "splitd"]);
    }

    /// The pids of all that is splitd's.
    fn lives(&self) -> Vec<u8> {
        let names = "splitd|assign/.*|bulk/.*|admin/.*|logger|loader";
        self.run(&["pgrep", "--exact", names]).stdout
    }

    /// One field of a file in its /proc.
    fn proc(&self, pid: i32, file: &str) -> String {
        self.did(&["cat", &format!("/proc/{pid}/{file}")])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("── console ──\n{}", fs::read_to_string(&self.log).unwrap_or_default());
            eprintln!("── journal ──\n{}", self.journal(&[]));
        }
        // The first process of a pid namespace takes all others with it.
        signal(self.leader, nix::sys::signal::Signal::SIGKILL);
        let _ = self.nspawn.wait();
        let _ = self.directory.path();
    }
}

type Step = fn(&Machine);

#[test]
fn the_package_lives_under_systemd() {
    let machine = match Machine::boot() {
        Ok(machine) => machine,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let steps: &[(&str, Step)] = &[
        ("the package puts everything in its place", the_package_puts_everything_in_its_place),
        ("the unit is in order and shut tight", the_unit_is_in_order_and_shut_tight),
        ("started is when every pool accepts", started_is_when_every_pool_accepts),
        ("the sandbox lets through what it must", the_sandbox_lets_through_what_it_must),
        ("a reload takes a good file and no bad one", a_reload_takes_a_good_file_and_no_bad_one),
        ("a killed master is replaced and nobody notices", a_killed_master_is_replaced_and_nobody_notices),
        ("an upgrade is the same service with another program", an_upgrade_is_the_same_service),
        ("a restart fails nothing behind HAProxy", a_restart_fails_nothing_behind_haproxy),
        ("a restart turns nobody away", a_restart_turns_nobody_away),
        ("who waits while the old one drains is answered by the next", who_waits_is_answered_by_the_next),
        ("a stop is within its time and leaves nobody", a_stop_is_within_its_time_and_leaves_nobody),
        ("a socket unit starts it, and a restart turns nobody away", a_socket_unit_starts_it),
    ];
    for (name, step) in steps {
        let begin = std::time::Instant::now();
        println!("{name} …");
        machine.forget_starts();
        step(&machine);
        println!("{name}: {} ms", begin.elapsed().as_millis());
    }
}

fn the_package_puts_everything_in_its_place(machine: &Machine) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/package");
    let output = Command::new(script).arg(env!("CARGO_BIN_EXE_splitd")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let package = String::from_utf8(output.stdout).unwrap();
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join(package.trim());
    fs::copy(package, machine.path("/srv/splitd.deb")).unwrap();
    machine.did(&["dpkg", "--install", "/srv/splitd.deb"]);
    for path in ["/usr/bin/splitd", "/etc/splitd/splitd.toml", "/etc/splitd/experiments.json"] {
        assert!(machine.path(path).exists(), "{path}");
    }
    let directory = machine.did(&["stat", "--format", "%U %a", "/var/lib/splitd"]);
    assert_eq!(directory, "splitd 750", "sysusers and tmpfiles were done");
    machine.did(&["splitd", "check", "/etc/splitd/splitd.toml", "/etc/splitd/experiments.json"]);
}

fn the_unit_is_in_order_and_shut_tight(machine: &Machine) {
    assert_eq!(machine.did(&["systemd-analyze", "verify", "splitd.service"]), "");
    let text = machine.did(&[
        "systemd-analyze",
        "security",
        "--offline=true",
        "/usr/lib/systemd/system/splitd.service",
    ]);
    let score = text.lines().last().unwrap().split_whitespace().find_map(|word| word.parse::<f64>().ok());
    println!("  exposure {score:?}");
    assert!(score.expect("a score") <= 1.5, "{text}");
}

fn started_is_when_every_pool_accepts(machine: &Machine) {
    // Killed masters are to be forgotten soon, and rings to fit any limit of locked memory.
    let drop_in = machine.path("/etc/systemd/system/splitd.service.d");
    fs::create_dir_all(&drop_in).unwrap();
    fs::write(
        drop_in.join("test.conf"),
        "[Service]\nEnvironment=SPLITD_ORPHAN_TIMEOUT=2s SPLITD_LOGGER_RING_SIZE=4MiB\n",
    )
    .unwrap();
    machine.did(&["systemctl", "daemon-reload"]);
    for _ in 0..3 {
        machine.did(&["systemctl", "start", "splitd"]);
        for port in [8080, 8081, 9080] {
            assert_eq!(machine.get(port, "/readyz").status, 200, "at once, as `systemctl start` came back");
        }
        machine.did(&["systemctl", "stop", "splitd"]);
    }
    machine.did(&["systemctl", "start", "splitd"]);
    assert_eq!(machine.property("SubState"), "running");
    assert!(machine.property("StatusText").contains("ready"), "{}", machine.property("StatusText"));
    assert_eq!(machine.get(8080, "/v1/assign?user_id=42").status, 200);
}

fn the_sandbox_lets_through_what_it_must(machine: &Machine) {
    let log = machine.journal(&[]);
    let first = machine.proc(1, "status");
    let bounds = status_field(&first, "CapBnd:");
    // CAP_SYS_RESOURCE; without it no manager can raise a limit.
    let may_raise = u64::from_str_radix(&bounds, 16).unwrap() & 1 << 24 != 0;
    if crate::support::has_io_uring() {
        assert!(log.contains("event=io pool=assign backend=io_uring"), "{log}");
    }
    let worker = machine.child("assign/0").expect("a worker");
    let stat = machine.proc(worker, "stat");
    let nice = stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap();
    if may_raise {
        assert_eq!(nice, "-5");
        assert!(!log.contains("event=nice_limited"), "{log}");
        assert!(!log.contains("event=connections_limited"), "{log}");
    } else {
        println!(
            "  skipped: this machine can't raise limits, so niceness ({nice}) and descriptors are its own"
        );
    }
    // An unprivileged master is let tell one session in a tenth of a second. Empty
    // where control groups divide the CPU: then niceness counts as it is.
    let session =
        || String::from_utf8(machine.run(&["cat", &format!("/proc/{worker}/autogroup")]).stdout).unwrap();
    if !session().is_empty() {
        wait_until("its session's niceness", || session().trim().ends_with(&format!(" nice {nice}")));
    }
    assert!(!log.contains("event=memory_not_locked"), "{log}");
    assert!(!log.contains("event=not_pinned"), "{log}");
    let status = machine.proc(worker, "status");
    let field = |name| status_field(&status, name);
    assert_ne!(field("VmLck:"), "0 kB", "its memory is locked");
    assert_eq!(field("Cpus_allowed_list:"), "0", "it is pinned");
    assert_eq!((field("CapEff:"), field("NoNewPrivs:")), ("0000000000000000".to_owned(), "1".to_owned()));
}

fn status_field(status: &str, name: &str) -> String {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_else(|| panic!("{name}"))
        .trim()
        .to_owned()
}

fn version(machine: &Machine) -> String {
    machine.get(8080, "/v1/assign").json()["version"].as_str().unwrap().to_owned()
}

fn a_reload_takes_a_good_file_and_no_bad_one(machine: &Machine) {
    let text = fs::read_to_string(golden("edge.experiments.json")).unwrap();
    let put = |text: &str| {
        let mut file = File::create(machine.path("/etc/splitd/experiments.json")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let load = machine.load(8080);
    put(&text.replace("edge-1", "edge-2"));
    machine.did(&["systemctl", "reload", "splitd"]);
    wait_until("the new version", || version(machine) == "edge-2");
    put(&text.replacen("10000", "99999", 1));
    machine.did(&["systemctl", "reload", "splitd"]);
    wait_until("the fault in the journal", || {
        machine.journal(&["--priority=err", "--output=cat"]).contains("event=experiments_refused")
    });
    assert!(!machine.journal(&["--output=cat"]).contains("<6>"), "levels are the journal's own");
    assert_eq!(version(machine), "edge-2");
    put(&text.replace("edge-1", "edge-3"));
    machine.did(&["systemctl", "reload", "splitd"]);
    wait_until("the next version", || version(machine) == "edge-3");
    let outcome = load.stop();
    assert_eq!(outcome.failed(), 0, "{outcome}");
}

fn a_killed_master_is_replaced_and_nobody_notices(machine: &Machine) {
    let before = machine.property("MainPID");
    let load = machine.load(8080);
    machine.did(&["kill", "-KILL", &before]);
    wait_until("a new master", || {
        let pid = machine.property("MainPID");
        pid != "0" && pid != before && machine.property("SubState") == "running"
    });
    load.go_on(0.5);
    wait_until("the old workers to leave", || {
        let tasks = machine.did(&["cat", "/proc/1/task/1/children"]);
        !tasks.split_whitespace().any(|pid| {
            let name = machine.run(&["cat", &format!("/proc/{pid}/comm")]).stdout;
            String::from_utf8_lossy(&name).starts_with("assign/")
        })
    });
    load.go_on(0.5);
    let outcome = load.stop();
    println!("  {outcome}");
    assert_eq!((outcome.failed(), outcome.turned_away), (0, 0), "{outcome}");
    assert_eq!(machine.get(9080, "/readyz").status, 200);
}

fn an_upgrade_is_the_same_service(machine: &Machine) {
    let before = (machine.property("MainPID"), machine.child("assign/0"));
    let load = machine.load(8080);
    machine.did(&["systemctl", "kill", "--kill-who=main", "--signal=USR2", "splitd"]);
    wait_until("everybody to be replaced", || {
        machine.journal(&["--output=cat"]).contains("event=workers_replaced")
            && machine.child("assign/0").is_some_and(|pid| Some(pid) != before.1)
    });
    load.go_on(0.5);
    let outcome = load.stop();
    println!("  {outcome}");
    assert_eq!((outcome.failed(), outcome.turned_away), (0, 0), "{outcome}");
    assert_eq!((machine.property("MainPID"), machine.property("SubState")), (before.0, "running".into()));
}

fn a_restart_fails_nothing_behind_haproxy(machine: &Machine) {
    let servers = machine.did(&["splitd", "haproxy-servers", "--config", "/etc/splitd/splitd.toml"]);
    let servers = format!("    {servers}\n");
    let text = proxy::configuration(8000, "/run/haproxy.sock", &servers, Retries::AsShipped);
    fs::write(machine.path("/srv/haproxy.cfg"), text).unwrap();
    machine.did(&["systemd-run", "--unit=proxy", "haproxy", "-db", "-f", "/srv/haproxy.cfg"]);
    wait_until("HAProxy", || {
        machine.try_get(8000, "/v1/assign?user_id=1").is_some_and(|response| response.status == 200)
    });
    let load = machine.load(8000);
    machine.did(&["systemctl", "restart", "splitd"]);
    load.go_on(1.0);
    let outcome = load.stop();
    println!("  {outcome}");
    assert_eq!(outcome.failed(), 0, "{outcome}");
}

fn a_restart_turns_nobody_away(machine: &Machine) {
    let load = machine.load(8080);
    for _ in 0..2 {
        machine.did(&["systemctl", "restart", "splitd"]);
        load.go_on(0.5);
    }
    let outcome = load.stop();
    println!("  {outcome}");
    assert_eq!((outcome.failed(), outcome.turned_away), (0, 0), "{outcome}");
}

/// A request that is not whole keeps the old one beyond its idle time.
fn who_waits_is_answered_by_the_next(machine: &Machine) {
    let before = machine.property("MainPID");
    let ask = || {
        machine.within(|| {
            let mut client = Client::connect(8080);
            assert!(client.send(b"GET /v1/assign?user_id=1 HTTP/1.1\r\nHost: t\r\n\r\n"));
            client
        })
    };
    let mut held = machine.within(|| Client::connect(8080));
    assert!(held.send(b"GET /livez HTTP/1.1\r\n"));
    machine.did(&["systemctl", "restart", "--no-block", "splitd"]);
    let mut waiting = Vec::new();
    wait_until("nobody to be let in any more", || {
        // The one that is held has five seconds.
        waiting.extend((0..16).map(|_| ask()));
        queued(&machine.did(&["cat", "/proc/net/tcp"]), 8080) >= 64
    });
    assert_eq!(machine.property("MainPID"), before, "the old one is not done yet");
    assert!(held.send(b"Host: t\r\n\r\n"));
    assert_eq!(held.receive().expect("its answer").status, 200);
    for client in &mut waiting {
        assert_eq!(client.receive().expect("an answer").status, 200);
    }
    assert_ne!(machine.property("MainPID"), before);
}

fn a_socket_unit_starts_it(machine: &Machine) {
    assert_eq!(machine.did(&["systemd-analyze", "verify", "splitd.socket"]), "");
    machine.did(&["systemctl", "start", "splitd.socket"]);
    assert_eq!(machine.property("ActiveState"), "inactive", "nobody has asked yet");
    assert_eq!(machine.get(8080, "/v1/assign?user_id=1").status, 200, "the first who asks starts it");
    a_restart_turns_nobody_away(machine);
    who_waits_is_answered_by_the_next(machine);
    machine.forget_starts();
    let load = machine.load(8080);
    machine.did(&["systemctl", "stop", "splitd.service"]);
    load.go_on(0.5);
    let outcome = load.stop();
    println!("  stopped, and started by who asked: {outcome}");
    assert_eq!((outcome.failed(), outcome.turned_away), (0, 0), "{outcome}");
    machine.did(&["systemctl", "stop", "splitd.socket", "splitd.service"]);
    wait_until("all to be gone", || machine.lives().is_empty());
}

fn a_stop_is_within_its_time_and_leaves_nobody(machine: &Machine) {
    machine.did(&["systemctl", "stop", "splitd"]);
    assert_eq!(
        (machine.property("Result"), machine.property("ActiveState")),
        ("success".into(), "inactive".into())
    );
    // The logger of the master that was killed leaves once no worker writes any more.
    wait_until("all to be gone", || machine.lives().is_empty());
    let log = machine.journal(&["--output=cat"]);
    assert!(log.contains("event=exit code=0"), "{log}");
}
