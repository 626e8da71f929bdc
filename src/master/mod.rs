//! The master: one thread that binds the sockets, starts the children, and does
//! what the supervisor says. It does no I/O that can block.
//!
//! ```text
//! signals   ─┐                                    ┌─ spawn: heritage → fork → process
//! pidfds    ─┼─ one poll ─► events ─► supervisor ─┼─ orders over the channels
//! channels  ─┤                        (pure)      ├─ kill
//! its timer ─┘                                    └─ exit, when no child lives
//! ```
//! - [`supervisor`] decides, and touches nothing.
//! - [`plans`] is the plan in force; [`control`] the socket for orders.
//! - [`heritage`] is what crosses a fork: sockets, rings, metrics, settings.
//! - [`process`] is one child: its pidfd, channel and last words.
//! - [`listen`] binds; [`signals`] turns signals into messages.
//!
//! If the master is killed, workers and logger see their channels close.

pub mod control;
pub mod heritage;
pub mod listen;
mod niceness;
mod plans;
pub mod process;
pub mod signals;
pub mod supervisor;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;

use crate::clock;
use crate::config::settings::{Directories, Settings};
use crate::loader;
use crate::logger;
use crate::metrics::{self, Family, instance_state};
use crate::sys::fork::Exit;
use crate::worker::{Order, Report};
use control::Control;
use heritage::{Heritage, HeritageFault};
use niceness::Niceness;
use plans::Plans;
use process::{Birth, Running};
use signals::{Signals, Told};
use supervisor::{Action, Event, Process, Role, Supervisor, Times};

/// Faults of one file that are logged; `splitd check` shows them all.
const FAULT_LOG_COUNT_MAX: usize = 100;
/// Names of the causes, as `metrics::EXIT_CAUSES` has them.
const CAUSES: [&str; 4] = ["exit", "signal", "panic", "watchdog"];

/// Runs an instance until it is told to stop; the process's exit code.
#[must_use]
pub fn run(settings: Settings, directories: Directories) -> ExitCode {
    match Master::start(settings, directories) {
        Ok(mut master) => ExitCode::from(master.serve()),
        Err(fault) => {
            log::error!("event=not_started reason={:?}", fault.to_string());
            let code = match fault {
                HeritageFault::NoExperiments => 2,
                HeritageFault::Setting(_) | HeritageFault::TooManyWorkers { .. } => supervisor::EXIT_FAULTY,
                _ => supervisor::EXIT_REFUSED,
            };
            ExitCode::from(code)
        }
    }
}

/// Replacements of workers, as far as anybody waits for their end.
#[derive(Debug, Default)]
struct Rolls {
    /// Ended up to now.
    ended: u64,
    /// What went wrong with the last.
    fault: Option<String>,
}

struct Master {
    heritage: Heritage,
    supervisor: Supervisor,
    signals: Signals,
    niceness: Niceness,
    running: BTreeMap<Process, Running>,
    plans: Plans,
    rolls: Rolls,
    control: Control,
    started_ns: u64,
    exit: Option<u8>,
}

/// What a descriptor of the loop is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Channel(Process),
    End(Process),
    /// Somebody wants to give an order.
    Control,
    Client(u64),
}

impl Master {
    fn start(settings: Settings, directories: Directories) -> Result<Master, HeritageFault> {
        let started_ns = clock::now().mono_ns;
        let system = |what| move |error: io::Error| HeritageFault::System { what, reason: error.to_string() };
        // First of all, so that a signal that comes now is found in the loop.
        let signals = Signals::block().map_err(system("its signals"))?;
        raise_descriptor_limit();
        let heritage = Heritage::prepare(settings, directories)?;
        heritage.keep_log().map_err(system("memory"))?;
        let control =
            Control::listen(&heritage.directories.runtime_dir).map_err(system("a control socket"))?;
        let niceness = Niceness::find(heritage.settings());
        let seed = heritage.instance.rotate_left(17);
        let pools: Vec<usize> = heritage.places.iter().map(|place| place.pool).collect();
        let supervisor = Supervisor::new(&pools, times(heritage.settings()), seed);
        let mut master = Master {
            heritage,
            supervisor,
            signals,
            niceness,
            running: BTreeMap::new(),
            plans: Plans::default(),
            rolls: Rolls::default(),
            control,
            started_ns,
            exit: None,
        };
        master.say_start();
        let mut actions = Vec::new();
        master.supervisor.start(started_ns, &mut actions);
        master.perform(actions);
        // While the loader reads and compiles.
        if let Err(fault) = master.heritage.make_rings() {
            master.abandon();
            return Err(fault);
        }
        Ok(master)
    }

    fn say_start(&self) {
        let heritage = &self.heritage;
        log::info!(
            "event=start version={} instance={:016x} experiments={:?} state_dir={:?} runtime_dir={:?} workers={}",
            env!("CARGO_PKG_VERSION"),
            heritage.instance,
            heritage.experiments(),
            heritage.directories.state_dir,
            heritage.directories.runtime_dir,
            heritage.places.len(),
        );
        for (pool, bound) in heritage.settings().pools.iter().zip(heritage.bound()) {
            // One that all share is said once.
            let mut said = "";
            for socket in
                bound.iter().filter(|socket| socket.address != std::mem::replace(&mut said, &socket.address))
            {
                log::info!("event=listen pool={} address={}", pool.name, socket.address);
            }
        }
    }

    /// Before anything serves: ends what has been started.
    fn abandon(&mut self) {
        for running in self.running.values() {
            let _ = running.kill(nix::sys::signal::Signal::SIGKILL);
            let _ = running.wait();
        }
        self.control.clear();
        self.heritage.clear();
    }

    // ── The loop ───────────────────────────────────────────────────────────

    fn serve(&mut self) -> u8 {
        loop {
            let ready = self.wait();
            let now_ns = clock::now().mono_ns;
            self.heritage.block().turns(now_ns);
            let mut events = VecDeque::from([Event::Time]);
            for source in ready {
                match source {
                    Source::Signals => self.hear_signals(&mut events),
                    Source::Channel(process) => self.hear_channel(process, &mut events),
                    Source::End(process) => self.hear_end(process, &mut events),
                    Source::Control => self.control.accept(now_ns),
                    Source::Client(key) => self.hear_client(key, &mut events),
                }
            }
            self.control.expire(now_ns);
            self.take_held(&mut events);
            while let Some(event) = events.pop_front() {
                let mut actions = Vec::new();
                self.supervisor.handle(event, now_ns, &mut actions);
                events.extend(self.perform(actions));
            }
            self.settle_clients();
            if let Some(code) = self.exit {
                let books = self.heritage.clear();
                // Last, because whoever waits for the end waits for this.
                self.control.clear();
                if books.attempted > 0 {
                    log::info!(
                        "event=exposures attempted={} committed={} consumed={} corrupt={} lost={} waiting={}",
                        books.attempted,
                        books.committed,
                        books.consumed,
                        books.corrupt,
                        books.lost,
                        books.waiting
                    );
                }
                let uptime_s = (clock::now().mono_ns - self.started_ns) / 1_000_000_000;
                log::info!("event=exit code={code} uptime_s={uptime_s}");
                return code;
            }
        }
    }

    /// Waits until something is to be heard, or the supervisor's time is due.
    fn wait(&self) -> Vec<Source> {
        let mut sources = vec![Source::Signals];
        let mut set = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        for (process, running) in &self.running {
            // The channel first: what a child said before it ended comes before its end.
            if let Some((channel, waits)) = running.channel() {
                let wants = if waits { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
                sources.push(Source::Channel(*process));
                set.push(PollFd::new(channel, wants));
            }
            sources.push(Source::End(*process));
            set.push(PollFd::new(running.pidfd(), PollFlags::POLLIN));
        }
        if let Some(listener) = self.control.listener() {
            sources.push(Source::Control);
            set.push(PollFd::new(listener, PollFlags::POLLIN));
        }
        for (key, client, waits) in self.control.clients() {
            let wants = if waits { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
            sources.push(Source::Client(key));
            set.push(PollFd::new(client, wants));
        }
        match poll(&mut set, self.timeout()) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Vec::new(),
            // The descriptors are all our own: a fault here is ours.
            Err(errno) => panic!("poll over {} descriptors of the master's own: {errno}", set.len()),
        }
        let ready = |found: &PollFd<'_>| found.revents().is_some_and(|events| !events.is_empty());
        sources.into_iter().zip(&set).filter(|(_, found)| ready(found)).map(|(source, _)| source).collect()
    }

    fn timeout(&self) -> PollTimeout {
        let due = [self.supervisor.poll_timeout(), self.control.due_ns()];
        let Some(due_ns) = due.into_iter().flatten().min() else { return PollTimeout::NONE };
        // Rounded up: a moment too early would be a turn for nothing.
        let left_ms = due_ns.saturating_sub(clock::now().mono_ns).div_ceil(1_000_000);
        PollTimeout::try_from(i32::try_from(left_ms).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
    }

    fn hear_signals(&mut self, events: &mut VecDeque<Event>) {
        loop {
            let (signal, told, sender) = match self.signals.read() {
                Ok(Some(found)) => found,
                Ok(None) => return,
                Err(error) => {
                    log::error!("event=signals_failed error={:?}", error.to_string());
                    return;
                }
            };
            let (event, means) = match told {
                Told::Stop => (Some(Event::Stop), "stop"),
                Told::Drain => (Some(Event::Drain), "drain"),
                Told::Reload if self.supervisor.is_stopping() => (None, "reload, but the instance stops"),
                Told::Reload => {
                    self.wish_reload(events);
                    (None, "reload the experiments; settings take a restart")
                }
                Told::ReopenLogs => (None, "reopen logs; there are none but standard error"),
                Told::Upgrade => (None, "upgrade, which this build does not know yet; restart it"),
            };
            log::info!("event=signal signal={signal} sender_pid={sender} means={means:?}");
            events.extend(event);
        }
    }

    /// Somebody wants the experiments read again; the wish's number is the ticket.
    fn wish_reload(&mut self, events: &mut VecDeque<Event>) {
        self.plans.ticket += 1;
        events.push_back(Event::Reload);
    }

    /// Whether no new plan may come into force now.
    fn holds_plans(&self) -> bool {
        false
    }

    fn hear_channel(&mut self, process: Process, events: &mut VecDeque<Event>) {
        let Some(running) = self.running.get_mut(&process) else { return };
        running.flush();
        let packets = running.receive();
        let (role, name) = (running.role, running.name.clone());
        for (packet, memory) in packets {
            match role {
                Role::Loader => self.hear_loader(&packet, memory, events),
                Role::Worker { .. } => self.hear_worker(process, &name, &packet, events),
                Role::Logger | Role::Check => {
                    log::warn!("event=packet_dropped process={name} size={}", packet.len());
                }
            }
        }
    }

    fn hear_worker(&mut self, process: Process, name: &str, packet: &[u8], events: &mut VecDeque<Event>) {
        match Report::decode(packet) {
            Ok(Report::Ready) => {
                log::info!("event=worker_ready worker={name} after_ms={}", self.age_ms(process));
                events.push_back(Event::Ready(process));
            }
            Ok(Report::PlanInForce) => self.plan_answered(process, None),
            Ok(Report::PlanRefused { reason }) => self.plan_answered(process, Some(reason)),
            Err(fault) => log::warn!("event=packet_dropped process={name} reason={:?}", fault.to_string()),
        }
    }

    fn hear_end(&mut self, process: Process, events: &mut VecDeque<Event>) {
        // What it had said is heard before its end.
        self.hear_channel(process, events);
        let exit = match self.running.get(&process).map(Running::try_wait) {
            Some(Ok(Some(exit))) => exit,
            Some(Ok(None)) | None => return,
            Some(Err(error)) => panic!("a child of the master's own can't be reaped: {error}"),
        };
        self.say_end(process, exit);
        let Some(running) = self.running.remove(&process) else { return };
        if let Role::Worker { slot } = running.role {
            self.heritage.clear_gauges(&[0, 1].map(|which| metrics::worker_block(slot, which)));
        }
        self.heritage.say_ended(running.pid().unsigned_abs());
        self.say_plan_in_force();
        let code = match exit {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) => None,
        };
        events.push_back(Event::Ended { process, code });
    }

    fn say_end(&mut self, process: Process, exit: Exit) {
        let running = &self.running[&process];
        let last_words = running.last_words();
        let cause = match (exit, &last_words) {
            (_, Some(_)) => 2,
            (Exit::Signal(_), None) => 1,
            (Exit::Code(_), None) => 0,
        };
        let block = self.heritage.block();
        let expected = match running.role {
            Role::Loader if self.supervisor.is_stopping() => true,
            // At a first start it leaves when there is nothing to serve, and has said why.
            Role::Loader if self.plans.in_force.is_none() && self.plans.loader_spoke => true,
            Role::Loader => {
                block.add(Family::ReloadsFailed, 1);
                let faults = vec![format!("the loader ended: {exit}")];
                self.plans.outcome = Some(plans::Outcome { ticket: self.plans.ticket, faults });
                false
            }
            Role::Check => exit == Exit::Code(0),
            Role::Logger | Role::Worker { .. } if running.told_to_leave || self.supervisor.is_stopping() => {
                exit == Exit::Code(0)
            }
            Role::Logger => {
                block.add_at(Family::LoggerRestarts, cause, 1);
                false
            }
            Role::Worker { .. } => {
                block.add_at(Family::Restarts, cause, 1);
                false
            }
        };
        let level = if expected { log::Level::Info } else { log::Level::Error };
        let words = last_words.map(|words| format!(" last_words={words:?}")).unwrap_or_default();
        log::log!(
            level,
            "event=ended process={} child_pid={} cause={} {exit} after_ms={}{words}",
            running.name,
            running.pid(),
            CAUSES[cause],
            self.age_ms(process),
        );
    }

    fn age_ms(&self, process: Process) -> u64 {
        let started_ns = self.running.get(&process).map_or(u64::MAX, |running| running.started_ns);
        clock::now().mono_ns.saturating_sub(started_ns) / 1_000_000
    }

    // ── What is to be done ─────────────────────────────────────────────────

    /// Does it; gives what happened by that.
    fn perform(&mut self, actions: Vec<Action>) -> Vec<Event> {
        let mut events = Vec::new();
        for action in actions {
            match action {
                Action::Spawn { process, role, which } => events.extend(self.spawn(process, role, which)),
                Action::Order { process, order } => self.order(process, &order),
                Action::Reload(process) => {
                    let order = loader::Order::Reload { ticket: self.plans.ticket };
                    if let Some(running) = self.running.get_mut(&process) {
                        running.send(order.encode(), None);
                    }
                }
                Action::Replaced => {
                    self.rolls.ended += 1;
                    self.rolls.fault = None;
                    log::info!("event=workers_replaced");
                }
                Action::ReplacementFailed { slot } => {
                    let name = self.name(Role::Worker { slot }).to_owned();
                    log::error!(
                        "event=replacement_failed worker={name} note=\"it serves on, and so do all not yet replaced\""
                    );
                    self.rolls.ended += 1;
                    self.rolls.fault = Some(format!("worker {name}: its successor did not get to work"));
                }
                Action::Upgrade | Action::UpgradeRefused(_) => unreachable!("nobody asks for one yet"),
                Action::StopLogger(process) => {
                    if let Some(running) = self.running.get_mut(&process) {
                        running.told_to_leave = true;
                        running.send(logger::Order::Stop.encode().to_vec(), None);
                    }
                }
                Action::Kill { process, signal, why } => {
                    if let Some(running) = self.running.get(&process) {
                        // Whoever has nothing to finish is not asked.
                        let usual = matches!(running.role, Role::Loader) && self.supervisor.is_stopping();
                        log::log!(
                            if usual { log::Level::Info } else { log::Level::Warn },
                            "event=kill process={} child_pid={} signal={signal} why={why:?}",
                            running.name,
                            running.pid()
                        );
                        // It may have ended in this moment; its pidfd says so next.
                        let _ = running.kill(signal);
                    }
                }
                Action::Waits { role, delay, failures } => {
                    let name = self.name(role);
                    let delay_ms = delay.as_millis();
                    log::warn!(
                        "event=restart_waits process={name} deaths_in_a_row={failures} delay_ms={delay_ms}"
                    );
                }
                Action::Ready => self.say_ready(),
                Action::Stopping { why, deadline } => {
                    self.heritage.block().set(Family::InstanceState, instance_state::DRAINING);
                    let deadline =
                        deadline.map_or("none".to_owned(), |deadline| deadline.as_millis().to_string());
                    log::info!("event=stopping why={why:?} deadline_ms={deadline}");
                    self.notify(&[NotifyState::Stopping]);
                }
                Action::Exit(code) => self.exit = Some(code),
            }
        }
        events
    }

    fn say_ready(&mut self) {
        self.heritage.block().set(Family::InstanceState, instance_state::READY);
        let start_ms = (clock::now().mono_ns - self.started_ns) / 1_000_000;
        log::info!("event=ready workers={} start_ms={start_ms}", self.supervisor.ready_count());
        self.notify(&[NotifyState::Ready]);
    }

    fn order(&mut self, process: Process, order: &Order) {
        let Some(running) = self.running.get_mut(&process) else { return };
        running.send(order.encode(), None);
        let name = running.name.clone();
        match order {
            Order::Adopt { slot } => {
                log::info!("event=socket_adopted worker={} by={name}", self.heritage.places[*slot].name);
            }
            Order::Release { slot } => {
                log::info!("event=socket_released worker={} by={name}", self.heritage.places[*slot].name);
            }
            Order::HandOver { deadline_ms } => {
                running.told_to_leave = true;
                log::info!(
                    "event=handed_over worker={name} child_pid={} deadline_ms={deadline_ms}",
                    running.pid()
                );
            }
            Order::Plan | Order::Drain { .. } => {}
        }
    }

    fn name(&self, role: Role) -> &str {
        match role {
            Role::Loader => "loader",
            Role::Check => "check",
            Role::Logger => "logger",
            Role::Worker { slot } => &self.heritage.places[slot].name,
        }
    }

    /// Starts a process; what happened is its end, if it could not be.
    fn spawn(&mut self, process: Process, role: Role, which: usize) -> Option<Event> {
        match self.try_spawn(role, which) {
            Ok(running) => {
                log::info!("event=started process={} child_pid={}", running.name, running.pid());
                self.running.insert(process, running);
                None
            }
            Err(error) => {
                log::error!("event=not_started process={} error={:?}", self.name(role), error.to_string());
                Some(Event::Ended { process, code: None })
            }
        }
    }

    fn try_spawn(&mut self, role: Role, which: usize) -> io::Result<Running> {
        let birth = Birth {
            role,
            name: self.name(role).to_owned(),
            which,
            nice: 0,
            now_ns: clock::now().mono_ns,
            keep: Vec::new(),
        };
        match role {
            Role::Loader => {
                self.plans.loader_spoke = false;
                let options = loader::Options {
                    path: self.heritage.experiments().to_owned(),
                    state_dir: self.heritage.directories.state_dir.clone(),
                    in_force: self.plans.in_force.as_ref().map(|plan| plan.fingerprint),
                    ticket: self.plans.ticket,
                };
                let birth = Birth { nice: self.niceness.loader(), ..birth };
                Running::start(birth, move |channel| loader::run(&options, &channel))
            }
            Role::Check => unreachable!("nobody asks for one yet"),
            Role::Logger => {
                let nice = self.niceness.allowed(self.heritage.settings().logger.nice);
                let (options, region) = self.heritage.logger(nice)?;
                Running::start(Birth { nice, ..birth }, move |channel| {
                    let table = metrics::Table::attach(region.words()).expect("laid out by the master");
                    let block = table.block(metrics::LOGGER_BLOCK);
                    block.claim(metrics::Process::Logger, "");
                    let now = clock::now();
                    block.born(std::process::id(), now.unix_us, now.mono_ns);
                    logger::run(options, channel, block)
                })
            }
            Role::Worker { slot } => {
                let plan =
                    self.plans.in_force.as_ref().ok_or_else(|| io::Error::other("no plan to serve"))?;
                let mut estate = self.heritage.worker(slot, which, &plan.image)?;
                let nice = self.niceness.allowed(self.heritage.pool(slot).nice);
                let keep = std::mem::take(&mut estate.keep);
                Running::start(Birth { nice, keep, ..birth }, move |channel| estate.run(channel))
            }
        }
    }

    /// Tells systemd, if it listens, with a text for `systemctl status`.
    fn notify(&self, states: &[NotifyState<'_>]) {
        let version = self.plans.in_force.as_ref().map_or("none", |plan| plan.version.as_str());
        let status = format!(
            "experiments {version}; {} of {} workers ready",
            self.supervisor.ready_count(),
            self.heritage.places.len()
        );
        let mut all = vec![NotifyState::Status(&status)];
        all.extend_from_slice(states);
        if let Err(error) = sd_notify::notify(&all) {
            log::warn!("event=systemd_not_told error={:?}", error.to_string());
        }
    }
}

fn times(settings: &Settings) -> Times {
    Times { drain: settings.drain_timeout, watchdog: std::time::Duration::ZERO }
}

/// A worker's connections are descriptors: as many as the hard limit allows.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::info!("event=descriptor_limit soft={soft} hard={hard} error=\"{errno}\"");
    }
}
