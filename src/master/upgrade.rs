//! The upgrade: the master becomes the program now at its path by exec in place.
//! Same process, so its children stay its children; listening sockets, channels,
//! pidfds, the lock, the plan and the state cross in inherited descriptors.
//!
//! ```text
//! USR2 ─► check: a child is that program and reads the state and the settings ──fault──► nothing has changed
//!            │ all is well
//!         exec ──fails──► nothing has changed
//!            │
//!         resume: takes copies of all descriptors ──fault──► exec of the old program, whose descriptor crossed, too
//!            │
//!         the logger is replaced, then the workers one by one; no new experiments meanwhile
//! ```
//! - The state is JSON in a sealed memfd, [`STATE_VERSION`] first. A program reads
//!   the versions it knows, and unknown fields are passed over, so that the way
//!   back works, too.
//! - The inherited descriptors stay as they are until the new program serves:
//!   what goes back finds them.
//! - The rings cross as files: a program that would lay them out in another way is
//!   refused by the check. Counters of another layout begin anew.
//! - Sockets, pools and workers are what crosses: settings that would make other
//!   ones are refused by the check, all at once.
//! - Other settings come into force the same way, with HUP: the check is the same
//!   program's, and when the settings file has changed and is in order it is put in
//!   its own place.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::heritage::{Heritage, HeritageFault, Place};
use super::plans::InForce;
use super::process::{Birth, Running};
use super::supervisor::standing::Standing;
use super::supervisor::{Process, Role};
use super::{Master, supervisor};
use crate::config::settings::{Directories, Origin, Settings, fixed_changes};
use crate::sys::channel::Channel;
use crate::sys::inherit;
use crate::sys::region::{Region, seal};
use crate::worker::{Keeper, Speaks};

/// Of [`State`]'s meaning.
const STATE_VERSION: u32 = 1;
/// The hidden argument that gives the state's descriptor.
pub const INHERIT: &str = "--inherit";
/// The hidden argument that asks whether the state could be gone on with, and
/// gives the descriptor of a channel for what is wrong.
pub const CHECK: &str = "--inherit-check";
/// The hidden argument of the way back.
pub const BACK: &str = "--inherit-back";

/// The checked one leaves so if the settings file is as it was.
pub const EXIT_SAME: u8 = 10;
/// What is told of faults.
const FAULTS_SIZE_MAX: usize = 8 * 1024;

/// What is to be put in our place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Target {
    /// The program now at our path.
    #[default]
    Path,
    /// Ourselves, for the settings.
    Itself,
}

/// One child.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in `Running`")]
pub struct ChildState {
    pub process: Process,
    pub role: Role,
    pub name: String,
    pub which: usize,
    pub started_ns: u64,
    pub told_to_leave: bool,
    pub pid: i32,
    pub pidfd: RawFd,
    pub channel: Option<RawFd>,
}

/// One listening socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in `Bound`")]
pub struct SocketState {
    pub fd: RawFd,
    pub pool: usize,
    pub index: usize,
    pub address: String,
    pub path: Option<PathBuf>,
    #[serde(default)]
    pub keeper: Keeper,
    /// It speaks the agent-check's line and not HTTP.
    pub agent: bool,
}

/// The plan in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in `InForce`")]
pub struct PlanState {
    pub fd: RawFd,
    pub version: String,
    pub fingerprint: u64,
    pub taken_ns: u64,
}

/// What crosses.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is some part's of the master")]
pub struct State {
    pub version: u32,
    /// The version of the program that wrote it.
    pub program: String,
    pub instance: u64,
    pub started_ns: u64,
    pub runtime_dir: PathBuf,
    pub standing: Standing,
    pub children: Vec<ChildState>,
    /// `assign/0` …, in the order of the slots.
    pub places: Vec<String>,
    pub sockets: Vec<SocketState>,
    pub lock: RawFd,
    pub control: RawFd,
    pub plan: Option<PlanState>,
    /// The number of the last wish to reload.
    pub ticket: u64,
    /// Where the program lies, and the one that wrote this.
    pub path: PathBuf,
    pub old_program: RawFd,
    /// Nothing but the settings file may have changed.
    pub only_settings: bool,
    /// The text of the settings file that was in force, for the way back.
    pub settings_text: Option<String>,
    /// How it was called, in bytes.
    pub arguments: Vec<Vec<u8>>,
}

impl State {
    /// Reads what the image before left.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(fd: RawFd) -> Result<State, String> {
        let memory = inherit::take(fd).map_err(|error| format!("the state: {error}"))?;
        let region = Region::map_sealed(&memory).map_err(|error| format!("the state: {error}"))?;
        let state: State =
            serde_json::from_slice(region.bytes()).map_err(|error| format!("the state: {error}"))?;
        match state.version {
            STATE_VERSION => Ok(state),
            other => Err(format!("the state has version {other}; this program knows {STATE_VERSION}")),
        }
    }

    /// Whether these places in these directories are those it speaks of.
    ///
    /// # Errors
    /// The difference.
    pub fn fits(&self, places: &[Place], directories: &Directories) -> Result<(), String> {
        let names: Vec<&str> = places.iter().map(|place| place.name.as_str()).collect();
        if names != self.places {
            return Err(format!(
                "pools and workers can't change by an upgrade: there are {}, the settings say {}; that takes a restart",
                self.places.join(" "),
                names.join(" ")
            ));
        }
        if directories.runtime_dir != self.runtime_dir {
            return Err(format!(
                "runtime_dir can't change by an upgrade: it is {:?}, the settings say {:?}; that takes a restart",
                self.runtime_dir, directories.runtime_dir
            ));
        }
        if self.standing.slots.len() != places.len() {
            return Err("the state's slots are not its places".to_owned());
        }
        Ok(())
    }

    /// Every descriptor that crosses, but its own.
    fn descriptors(&self) -> Vec<RawFd> {
        let children = self.children.iter().flat_map(|child| [Some(child.pidfd), child.channel]).flatten();
        let sockets = self.sockets.iter().map(|socket| socket.fd);
        let plan = self.plan.iter().map(|plan| plan.fd);
        children.chain(sockets).chain(plan).chain([self.lock, self.control, self.old_program]).collect()
    }
}

/// The program and how it was called.
#[derive(Debug)]
pub(super) struct Program {
    /// Where it was found, for the next to be looked for there.
    path: PathBuf,
    /// Itself, even when another is at its path.
    itself: OwnedFd,
    arguments: Vec<OsString>,
}

impl Program {
    /// This process's; `path` is where an image before was found.
    ///
    /// # Errors
    /// If /proc is not mounted.
    pub(super) fn find(path: Option<PathBuf>) -> io::Result<Program> {
        let itself = std::fs::File::open("/proc/self/exe")?.into();
        let path = match path {
            Some(path) => path,
            None => std::env::current_exe()?,
        };
        // As given, without those that only one image is called with.
        let mut arguments = Vec::new();
        let mut given = std::env::args_os();
        while let Some(argument) = given.next() {
            match argument.to_str() {
                Some(INHERIT | CHECK) => drop(given.next()),
                Some(BACK) => {}
                _ => arguments.push(argument),
            }
        }
        Ok(Program { path, itself, arguments })
    }

    /// Becomes that program; gives why not.
    fn exec(&self, target: Target, state: RawFd, more: &[&str]) -> io::Error {
        let itself = format!("/proc/self/fd/{}", self.itself.as_raw_fd());
        let path = match target {
            Target::Path => self.path.as_os_str().as_bytes(),
            Target::Itself => itself.as_bytes(),
        };
        exec(path, &self.arguments, state, more)
    }
}

/// What comes of `--inherit-check`: the exit code. What is wrong is said in the
/// log and over the channel. `load` as in [`resume`].
#[must_use]
pub fn check(load: impl Fn(Option<String>) -> Loaded, state: RawFd, channel: RawFd) -> ExitCode {
    let checked = State::read(state).map_err(|reason| vec![reason]).and_then(|state| {
        let (settings, origin, directories) = load(None)?;
        if state.only_settings && origin.text == state.settings_text {
            return Ok(EXIT_SAME);
        }
        // Those in force were good when they came.
        let old = state.settings_text.clone().and_then(|text| load(Some(text)).ok());
        let fixed = old.map(|(old, _, _)| fixed_changes(&old, &settings)).unwrap_or_default();
        if !fixed.is_empty() {
            return Err(fixed.iter().map(ToString::to_string).collect());
        }
        let places = Heritage::check(&settings).map_err(|fault| vec![fault.to_string()])?;
        state.fits(&places, &directories).map_err(|reason| vec![reason])?;
        Heritage::check_rings(&directories, state.instance, &places)
            .map_err(|fault| vec![fault.to_string()])?;
        Ok(0)
    });
    let faults = match checked {
        Ok(code) => return ExitCode::from(code),
        Err(faults) => faults,
    };
    for fault in &faults {
        log::error!("event=upgrade_fault reason={fault:?}");
    }
    if let Ok(channel) = inherit::take(channel) {
        let text = faults.join("\n");
        let packet = &text.as_bytes()[..text.len().min(FAULTS_SIZE_MAX)];
        // A master that does not take it has the log.
        let _ = Channel::from(channel).send(packet, None);
    }
    ExitCode::from(supervisor::EXIT_FAULTY)
}

/// Settings, where they came from, and the directories; or every fault.
pub type Loaded = Result<(Settings, Origin, Directories), Vec<String>>;

/// Goes on where the image before stopped. On any fault that one is put back,
/// unless we are it: then the process's exit code. `load` gives the settings, from
/// this text of the file where it is given.
#[must_use]
pub fn resume(load: impl FnOnce(Option<String>) -> Loaded, state_fd: RawFd, back: bool) -> ExitCode {
    let state = match State::read(state_fd) {
        Ok(state) => state,
        // Not even where the old program is can be known.
        Err(reason) => {
            log::error!("event=not_resumed reason={reason:?}");
            return ExitCode::from(supervisor::EXIT_REFUSED);
        }
    };
    if !back {
        let state = state.clone();
        std::panic::set_hook(Box::new(move |info| put_back(&state, state_fd, &info.to_string())));
    }
    // The file may have changed since; what was in force then is as it was.
    let text = if back { state.settings_text.clone() } else { None };
    let loaded = load(text).map_err(|faults| HeritageFault::Upgrade(faults.join("; ")));
    let resumed = loaded.and_then(|(settings, origin, directories)| {
        Master::resume(settings, origin, directories, &state, back)
    });
    let _ = std::panic::take_hook();
    match resumed {
        Ok(mut master) => {
            state.descriptors().into_iter().chain([state_fd]).for_each(inherit::release);
            ExitCode::from(master.serve())
        }
        Err(fault) if back => {
            log::error!("event=not_resumed reason={:?}", fault.to_string());
            ExitCode::from(supervisor::EXIT_REFUSED)
        }
        Err(fault) => {
            put_back(&state, state_fd, &fault.to_string());
            ExitCode::from(supervisor::EXIT_REFUSED)
        }
    }
}

/// Becomes the old program again, called as it was; returns only if that fails, too.
fn put_back(state: &State, state_fd: RawFd, reason: &str) {
    log::error!("event=upgrade_undone reason={reason:?}");
    let arguments: Vec<OsString> = state.arguments.iter().cloned().map(OsString::from_vec).collect();
    let path = format!("/proc/self/fd/{}", state.old_program);
    let error = exec(path.as_bytes(), &arguments, state_fd, &[BACK]);
    log::error!("event=not_undone error={:?}", error.to_string());
}

/// Becomes a program, called with these arguments and the state; gives why not.
fn exec(path: &[u8], arguments: &[OsString], state: RawFd, more: &[&str]) -> io::Error {
    let text = |bytes: Vec<u8>| CString::new(bytes).expect("a path or an argument that came from the system");
    let inherit = [INHERIT.to_owned(), state.to_string()];
    let more = inherit.into_iter().chain(more.iter().map(|argument| (*argument).to_owned()));
    let mut all: Vec<CString> = arguments.iter().map(|argument| text(argument.clone().into_vec())).collect();
    all.extend(more.map(|argument| text(argument.into_bytes())));
    inherit::exec(&text(path.to_vec()), &all)
}

impl Master {
    /// The state as it is now.
    fn state(&self) -> State {
        let raw = |fd: &dyn AsRawFd| fd.as_raw_fd();
        let heritage = &self.heritage;
        let children = self.running.iter().filter(|(_, running)| running.role != Role::Check);
        let child = |(process, running): (&Process, &Running)| ChildState {
            process: *process,
            role: running.role,
            name: running.name.clone(),
            which: running.which,
            started_ns: running.started_ns,
            told_to_leave: running.told_to_leave,
            pid: running.pid(),
            pidfd: raw(&running.pidfd()),
            channel: running.channel().map(|(channel, _)| raw(&channel)),
        };
        let sockets = heritage.bound().iter().enumerate().flat_map(|(pool, bound)| {
            bound.iter().map(move |bound| SocketState {
                fd: bound.fd.as_raw_fd(),
                pool,
                index: bound.index,
                address: bound.address.clone(),
                path: bound.path.clone(),
                keeper: bound.keeper,
                agent: bound.speaks == Speaks::Agent,
            })
        });
        let plan = |plan: &InForce| PlanState {
            fd: plan.image.as_raw_fd(),
            version: plan.version.clone(),
            fingerprint: plan.fingerprint,
            taken_ns: plan.taken_ns,
        };
        State {
            version: STATE_VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            instance: heritage.instance,
            started_ns: self.started_ns,
            runtime_dir: heritage.directories.runtime_dir.clone(),
            standing: self.supervisor.standing(),
            children: children.map(child).collect(),
            places: heritage.places.iter().map(|place| place.name.clone()).collect(),
            sockets: sockets.collect(),
            lock: raw(&heritage.lock()),
            control: raw(&self.control.socket()),
            plan: self.plans.in_force.as_ref().map(plan),
            ticket: self.plans.ticket,
            path: self.program.path.clone(),
            old_program: raw(&self.program.itself),
            only_settings: self.target == Target::Itself,
            settings_text: self.origin.text.clone(),
            arguments: self.program.arguments.iter().map(|argument| argument.clone().into_vec()).collect(),
        }
    }

    fn seal_state(&self) -> io::Result<(State, OwnedFd)> {
        let state = self.state();
        let memory = seal(&serde_json::to_vec(&state)?)?;
        Ok((state, memory))
    }

    /// The child that asks the program now at our path whether it could go on.
    pub(super) fn start_check(&self, birth: Birth) -> io::Result<Running> {
        let (_, memory) = self.seal_state()?;
        let keep = vec![memory.as_raw_fd(), self.program.itself.as_raw_fd()];
        Running::start(Birth { keep, ..birth }, move |channel| {
            let channel = OwnedFd::from(channel);
            let crossed =
                inherit::cross_exec(&memory, true).and_then(|()| inherit::cross_exec(&channel, true));
            let number = channel.as_raw_fd().to_string();
            let error = match crossed {
                Ok(()) => self.program.exec(self.target, memory.as_raw_fd(), &[CHECK, &number]),
                Err(error) => error,
            };
            log::error!("event=upgrade_fault path={:?} error={:?}", self.program.path, error.to_string());
            i32::from(supervisor::EXIT_REFUSED)
        })
    }

    /// Becomes the program at our path. Returns only if that fails; then nothing
    /// has changed.
    pub(super) fn upgrade(&mut self) -> io::Error {
        if self.running.values().any(|running| running.channel().is_some_and(|(_, waits)| waits)) {
            return io::Error::other("a process does not take its orders");
        }
        let (state, memory) = match self.seal_state() {
            Ok(sealed) => sealed,
            Err(error) => return error,
        };
        log::info!("event=upgrade path={:?} from={}", self.program.path, state.program);
        let crossed = self.let_cross(&memory, true);
        let error = match crossed {
            Ok(()) => self.program.exec(self.target, memory.as_raw_fd(), &[]),
            Err(error) => error,
        };
        let _ = self.let_cross(&memory, false);
        error
    }

    fn let_cross(&self, memory: &OwnedFd, crosses: bool) -> io::Result<()> {
        inherit::cross_exec(memory, crosses)?;
        for running in self.running.values().filter(|running| running.role != Role::Check) {
            inherit::cross_exec(running.pidfd(), crosses)?;
            if let Some((channel, _)) = running.channel() {
                inherit::cross_exec(channel, crosses)?;
            }
        }
        for bound in self.heritage.bound().iter().flatten() {
            inherit::cross_exec(&bound.fd, crosses)?;
        }
        if let Some(plan) = &self.plans.in_force {
            inherit::cross_exec(&*plan.image, crosses)?;
        }
        inherit::cross_exec(self.heritage.lock(), crosses)?;
        inherit::cross_exec(self.control.socket(), crosses)?;
        inherit::cross_exec(&self.program.itself, crosses)
    }

    /// The children of the image before, by copies of their descriptors.
    pub(super) fn adopt(&mut self, state: &State) -> Result<(), HeritageFault> {
        let inherited =
            |what| move |error: io::Error| HeritageFault::System { what, reason: error.to_string() };
        for child in &state.children {
            let pidfd = inherit::take(child.pidfd).map_err(inherited("a pidfd"))?;
            let channel = child.channel.map(inherit::take).transpose().map_err(inherited("a channel"))?;
            self.running.insert(child.process, Running::kept(child, pidfd, channel));
        }
        Ok(())
    }
}
