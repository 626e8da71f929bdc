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
//! - [`upgrade`] is what crosses an exec; [`passed`] what systemd kept or passes.
//! - [`listen`] binds; [`signals`] turns signals into messages.
//!
//! If the master is killed, workers and logger see their channels close.

pub mod control;
pub mod heritage;
pub mod listen;
mod niceness;
pub mod passed;
mod plans;
pub mod process;
mod pulse;
pub mod signals;
mod sink;
pub mod supervisor;
mod systemd;
pub mod upgrade;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;

use crate::clock;
use crate::config::settings::{Directories, Origin, Settings};
use crate::loader;
use crate::logger;
use crate::metrics::{self, Family, instance_state};
use crate::sys::fork::{self, Exit};
use crate::sys::inherit;
use crate::worker::{self, Order, Report};
use control::Control;
use heritage::{Heritage, HeritageFault};
use niceness::Niceness;
use passed::PassedSockets;
use plans::Plans;
use process::{Birth, Running};
use pulse::Pulses;
use signals::{Signals, Told};
use supervisor::{Action, Event, Process, Role, Supervisor, Times};
use systemd::Systemd;
use upgrade::{Program, State, Target};

/// Faults of one file that are logged; `splitd check` shows them all.
const FAULT_LOG_COUNT_MAX: usize = 100;
/// Names of the causes, as `metrics::EXIT_CAUSES` has them.
const CAUSES: [&str; 4] = ["exit", "signal", "panic", "watchdog"];

/// Runs an instance until it is told to stop; the process's exit code.
#[must_use]
pub fn run(settings: Settings, origin: Origin, directories: Directories) -> ExitCode {
    match Master::start(settings, origin, directories) {
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

/// How far the replacement of everybody after an upgrade has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// There is none.
    #[default]
    None,
    /// The plan in force is another version's, which our workers can't read: the
    /// loader makes it anew first.
    AwaitsPlan,
    /// The logger is replaced.
    AwaitsLogger,
    /// The workers are.
    AwaitsWorkers,
}

/// Replacements of workers, as far as anybody waits for their end.
#[derive(Debug, Default)]
struct Rolls {
    stage: Stage,
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
    pulses: Pulses,
    systemd: Systemd,
    program: Program,
    /// Where the settings in force came from.
    origin: Origin,
    /// They are to be read again.
    settings_wished: bool,
    /// What was wrong with those that were wished for last.
    settings_faults: Vec<String>,
    /// What an upgrade that is under way puts in our place.
    target: Target,
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
    fn start(settings: Settings, origin: Origin, directories: Directories) -> Result<Master, HeritageFault> {
        let started_ns = clock::now().mono_ns;
        let system = |what| move |error: io::Error| HeritageFault::System { what, reason: error.to_string() };
        // First of all, so that a signal that comes now is found in the loop.
        let signals = Signals::block().map_err(system("its signals"))?;
        raise_descriptor_limit();
        let passed = PassedSockets::collect();
        let program = Program::find(None).map_err(system("its own program"))?;
        let heritage = Heritage::prepare(settings, directories, passed)?;
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
            pulses: Pulses::default(),
            systemd: Systemd::find(),
            program,
            origin,
            settings_wished: false,
            settings_faults: Vec::new(),
            target: Target::default(),
            started_ns,
            exit: None,
        };
        master.say_start();
        master.store_sockets();
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

    /// Goes on where the image before an exec stopped; `back`: that is the one
    /// we tried to become, and nobody is replaced.
    fn resume(
        settings: Settings,
        origin: Origin,
        directories: Directories,
        state: &State,
        back: bool,
    ) -> Result<Master, HeritageFault> {
        let system = |what| move |error: io::Error| HeritageFault::System { what, reason: error.to_string() };
        let signals = Signals::block().map_err(system("its signals"))?;
        // What is executed by its descriptor is called by its number.
        fork::set_name("splitd");
        let program = Program::find(Some(state.path.clone())).map_err(system("its own program"))?;
        let heritage = Heritage::inherit(settings, directories, state)?;
        heritage.keep_log().map_err(system("memory"))?;
        heritage.make_rings()?;
        let control = inherit::take(state.control).map_err(system("the control socket"))?;
        let control = Control::kept(&heritage.directories.runtime_dir, control);
        let niceness = Niceness::find(heritage.settings());
        let pools: Vec<usize> = heritage.places.iter().map(|place| place.pool).collect();
        let (now_ns, times) = (clock::now().mono_ns, times(heritage.settings()));
        let seed = heritage.instance.rotate_left(17) ^ now_ns;
        let supervisor = Supervisor::resume(&state.standing, &pools, times, seed, now_ns);
        let mut plans = Plans::default();
        plans.ticket = state.ticket;
        let mut stage = if back { Stage::None } else { Stage::AwaitsLogger };
        if let Some(plan) = &state.plan {
            let image = inherit::take(plan.fd).map_err(system("the plan"))?;
            let readable = worker::reads(&image);
            if readable {
                // The counters may have been laid out anew.
                if let Err(error) = heritage.learn(&image).and_then(|()| heritage.expect(&image)) {
                    log::error!("event=shares_unknown version={:?} reason={error:?}", plan.version);
                }
            } else {
                stage = Stage::AwaitsPlan;
            }
            plans.in_force = Some(plans::InForce {
                image: Rc::new(image),
                version: plan.version.clone(),
                // One that is to be made anew is not taken for the same.
                fingerprint: if readable { plan.fingerprint } else { 0 },
                taken_ns: plan.taken_ns,
                awaited: false,
                refusals: Vec::new(),
            });
        }
        let mut master = Master {
            heritage,
            supervisor,
            signals,
            niceness,
            running: BTreeMap::new(),
            plans,
            rolls: Rolls { stage, ..Rolls::default() },
            control,
            pulses: Pulses::default(),
            systemd: Systemd::find(),
            program,
            origin,
            settings_wished: false,
            settings_faults: Vec::new(),
            target: Target::default(),
            started_ns: state.started_ns,
            exit: None,
        };
        master.adopt(state)?;
        let (from, to) = (&state.program, env!("CARGO_PKG_VERSION"));
        match back {
            true => log::warn!("event=upgrade_reverted version={to} note=\"everything is as it was\""),
            false => log::info!("event=upgraded from={from} to={to} children={}", state.children.len()),
        }
        // The loader holds nothing: its successor is of this program.
        if let Some(loader) = master.running.values_mut().find(|running| running.role == Role::Loader) {
            loader.told_to_leave = true;
            let _ = loader.kill(nix::sys::signal::Signal::SIGKILL);
        }
        master.heritage.block().set(Family::InstanceState, instance_state::READY);
        if stage == Stage::None {
            master.notify(&[NotifyState::Ready]);
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
        let mut first = (self.rolls.stage == Stage::AwaitsLogger).then_some(Event::ReplaceLogger);
        loop {
            let ready = self.wait();
            let now_ns = clock::now().mono_ns;
            self.heritage.block().turns(now_ns);
            let mut events = VecDeque::from([Event::Time]);
            events.extend(first.take());
            if now_ns >= self.pulses.due_ns() {
                self.take_pulses(now_ns, &mut events);
            }
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
            self.look_at_settings(&mut events);
            while let Some(event) = events.pop_front() {
                let mut actions = Vec::new();
                self.supervisor.handle(event, now_ns, &mut actions);
                events.extend(self.perform(actions));
            }
            self.settle_clients();
            self.tell_systemd(now_ns);
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
        let pulses_ns = self.supervisor.watched().next().map(|_| self.pulses.due_ns());
        let due = [self.supervisor.poll_timeout(), self.control.due_ns(), pulses_ns, self.systemd.due_ns()];
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
                    (None, "reload the settings and the experiments")
                }
                Told::ReopenLogs => (None, "reopen logs; there are none but standard error"),
                Told::Upgrade => {
                    if !self.supervisor.is_checking() {
                        self.target = Target::Path;
                    }
                    (Some(Event::Upgrade), "upgrade to the program now at our path")
                }
            };
            log::info!("event=signal signal={signal} sender_pid={sender} means={means:?}");
            events.extend(event);
        }
    }

    /// Somebody wants the experiments read again; the wish's number is the ticket.
    fn wish_reload(&mut self, events: &mut VecDeque<Event>) {
        self.plans.ticket += 1;
        self.tell_reloading();
        events.push_back(Event::Reload);
        self.settings_wished = self.origin.path.is_some();
    }

    /// Has the settings looked at, if somebody wished for it and nothing else is under way.
    fn look_at_settings(&mut self, events: &mut VecDeque<Event>) {
        let busy =
            self.supervisor.is_checking() || self.supervisor.is_rolling() || self.rolls.stage != Stage::None;
        if self.settings_wished && !busy {
            self.settings_wished = false;
            self.target = Target::Itself;
            self.settings_faults.clear();
            events.push_back(Event::Upgrade);
        }
    }

    /// Whether no new plan may come into force now.
    fn holds_plans(&self) -> bool {
        self.supervisor.is_checking()
            || matches!(self.rolls.stage, Stage::AwaitsLogger | Stage::AwaitsWorkers)
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
                Role::Check => {
                    self.settings_faults =
                        String::from_utf8_lossy(&packet).lines().map(str::to_owned).collect();
                }
                Role::Logger => {
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
                self.follow_left_behind(process);
            }
            Ok(Report::PlanInForce) => self.plan_answered(process, None),
            Ok(Report::PlanRefused { reason }) => self.plan_answered(process, Some(reason)),
            Err(fault) => log::warn!("event=packet_dropped process={name} reason={:?}", fault.to_string()),
        }
    }

    /// A worker is ready: those of a killed instance may leave up to the first
    /// slot that has none yet.
    fn follow_left_behind(&mut self, process: Process) {
        if let Some(running) = self.running.get_mut(&process) {
            running.ready = true;
        }
        let ready = |slot: usize| {
            let of_slot = |running: &&Running| running.role == Role::Worker { slot } && running.ready;
            self.running.values().any(|running| of_slot(&running))
        };
        let count = (0..self.heritage.places.len()).take_while(|slot| ready(*slot)).count();
        self.heritage.retire_left_behind(count);
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
            _ if running.stood_still => 3,
            (_, Some(_)) => 2,
            (Exit::Signal(_), None) => 1,
            (Exit::Code(_), None) => 0,
        };
        let block = self.heritage.block();
        let expected = match running.role {
            Role::Loader if running.told_to_leave || self.supervisor.is_stopping() => true,
            // At a first start it leaves when there is nothing to serve, and has said why.
            Role::Loader if self.plans.in_force.is_none() && self.plans.loader_spoke => true,
            Role::Loader => {
                block.add_at(Family::Reloads, 2, 1);
                let faults = vec![format!("the loader ended: {exit}")];
                self.plans.outcome = Some(plans::Outcome { ticket: self.plans.ticket, faults });
                false
            }
            Role::Check => {
                matches!(exit, Exit::Code(code) if code == 0 || code == i32::from(upgrade::EXIT_SAME))
            }
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
                    self.end_upgrade();
                    self.rolls.ended += 1;
                    self.rolls.fault = None;
                    log::info!("event=workers_replaced");
                }
                Action::ReplacementFailed { slot } => {
                    self.end_upgrade();
                    let name = self.name(Role::Worker { slot }).to_owned();
                    log::error!(
                        "event=replacement_failed worker={name} note=\"it serves on, and so do all not yet replaced\""
                    );
                    self.rolls.ended += 1;
                    self.rolls.fault = Some(format!("worker {name}: its successor did not get to work"));
                }
                Action::Upgrade => {
                    self.tell_begun();
                    let error = self.upgrade();
                    self.heritage.block().add(Family::UpgradesFailed, 1);
                    log::error!("event=upgrade_failed error=\"{error}\" note=\"nothing has changed\"");
                    self.notify(&[NotifyState::Ready]);
                    events.push(Event::UpgradeFailed);
                }
                Action::UpgradeRefused(why) => {
                    self.heritage.block().add(Family::UpgradesFailed, 1);
                    if self.settings_faults.is_empty() {
                        self.settings_faults.push(format!("settings not taken: {why}"));
                    }
                    log::error!("event=upgrade_refused reason={why:?} note=\"nothing has changed\"");
                }
                Action::StopLogger(process) => {
                    if let Some(running) = self.running.get_mut(&process) {
                        running.told_to_leave = true;
                        running.send(logger::Order::Stop.encode().to_vec(), None);
                    }
                }
                Action::Kill { process, signal, why } => {
                    if let Some(running) = self.running.get_mut(&process) {
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
                        running.stood_still |= signal == nix::sys::signal::Signal::SIGABRT;
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
                    let text =
                        deadline.map_or("none".to_owned(), |deadline| deadline.as_millis().to_string());
                    log::info!("event=stopping why={why:?} deadline_ms={text}");
                    self.notify(&[NotifyState::Stopping]);
                    if deadline.is_none() {
                        self.forget_sockets();
                    }
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

    /// Everybody is of this program now, or stays of the one before.
    fn end_upgrade(&mut self) {
        if std::mem::take(&mut self.rolls.stage) != Stage::None {
            self.notify(&[NotifyState::Ready]);
        }
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

    /// Starts a process; what happened is its end, if it could not be, or what
    /// its start was waited for.
    fn spawn(&mut self, process: Process, role: Role, which: usize) -> Vec<Event> {
        match self.try_spawn(role, which) {
            Ok(running) => {
                log::info!("event=started process={} child_pid={}", running.name, running.pid());
                self.running.insert(process, running);
                if role == Role::Logger && self.rolls.stage == Stage::AwaitsLogger {
                    self.rolls.stage = Stage::AwaitsWorkers;
                    return (0..self.heritage.places.len()).map(|slot| Event::Replace { slot }).collect();
                }
                Vec::new()
            }
            Err(error) => {
                log::error!("event=not_started process={} error={:?}", self.name(role), error.to_string());
                vec![Event::Ended { process, code: None }]
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
            Role::Check => self.start_check(birth),
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
}

fn times(settings: &Settings) -> Times {
    Times { drain: settings.drain_timeout, watchdog: settings.watchdog }
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
