//! The master: one thread that binds the sockets, starts the children, and does
//! what the supervisor says. It does no I/O that can block.
//!
//! ```text
//! signals   ─┐                                    ┌─ spawn: heritage → fork → process
//! pidfds    ─┼─ one poll ─► events ─► supervisor ─┼─ orders over the channels
//! channels  ─┤                        (pure)      ├─ kill
//! its timer ─┘                                    └─ exit, when no child lives
//! ```
//! - [`supervisor`] decides, and touches nothing; [`hear`] is what it is told of,
//!   [`perform`] how it is done.
//! - [`plans`] is the plan in force; [`control`] the socket for orders.
//! - [`heritage`] is what crosses a fork: sockets, rings, metrics, settings.
//! - [`process`] is one child: its pidfd, channel and last words.
//! - [`upgrade`] is what crosses an exec; [`passed`] what systemd kept or passes.
//! - [`listen`] binds; [`signals`] turns signals into messages.
//!
//! If the master is killed, workers and logger see their channels close.

pub mod control;
mod hear;
pub mod heritage;
pub mod listen;
mod niceness;
pub mod passed;
mod perform;
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
use crate::metrics::{Family, instance_state};
use crate::sys::fork;
use crate::sys::inherit;
use crate::worker;
use control::Control;
use heritage::{Heritage, HeritageFault};
use niceness::Niceness;
use passed::PassedSockets;
use plans::Plans;
use process::Running;
use pulse::Pulses;
use signals::Signals;
use supervisor::{Event, Process, Role, Supervisor, Times};
use systemd::Systemd;
use upgrade::{Program, State, Target};

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
        let seed = heritage.instance.rotate_left(17);
        let pools: Vec<usize> = heritage.places.iter().map(|place| place.pool).collect();
        let supervisor = Supervisor::new(&pools, times(heritage.settings()), seed);
        let mut master = Master::of(heritage, supervisor, signals, control, program, origin, started_ns);
        master.say_start();
        master.store_sockets();
        let mut actions = Vec::new();
        master.supervisor.start(started_ns, &mut actions);
        master.perform(actions);
        // While the loader reads and compiles.
        let made = master.heritage.make_rings().and_then(|()| master.heritage.make_trace_rings());
        if let Err(fault) = made {
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
        heritage.make_trace_rings()?;
        let control = inherit::take(state.control).map_err(system("the control socket"))?;
        let control = Control::kept(&heritage.directories.runtime_dir, control);
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
            // The counters may have been laid out anew.
            heritage.board().set_version(&plan.version);
            if readable {
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
        let mut master =
            Master::of(heritage, supervisor, signals, control, program, origin, state.started_ns);
        (master.plans, master.rolls.stage) = (plans, stage);
        master.adopt(state)?;
        let (from, to) = (&state.program, env!("CARGO_PKG_VERSION"));
        match back {
            true => log::warn!("event=upgrade_reverted version={to}"),
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

    /// One that has no children yet.
    fn of(
        heritage: Heritage,
        supervisor: Supervisor,
        signals: Signals,
        control: Control,
        program: Program,
        origin: Origin,
        started_ns: u64,
    ) -> Master {
        Master {
            niceness: Niceness::find(heritage.settings()),
            heritage,
            supervisor,
            signals,
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
        }
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
                log::info!("event=listen pool={} address={:?}", pool.name, socket.address);
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
            self.niceness.settle(self.running.values_mut(), now_ns);
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
                        books.in_ring
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
        let due = [
            self.supervisor.poll_timeout(),
            self.control.due_ns(),
            self.niceness.due_ns(),
            pulses_ns,
            self.systemd.due_ns(),
        ];
        let Some(due_ns) = due.into_iter().flatten().min() else { return PollTimeout::NONE };
        // Rounded up: a moment too early would be a turn for nothing.
        let left_ms = due_ns.saturating_sub(clock::now().mono_ns).div_ceil(1_000_000);
        PollTimeout::try_from(i32::try_from(left_ms).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
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
        log::info!("event=descriptor_limit soft={soft} hard={hard} error={:?}", errno.to_string());
    }
}
