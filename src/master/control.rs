//! The control socket: `runtime_dir/control`, for `splitd reload` and
//! `splitd drain`. A connection carries one request and one answer, a line of
//! JSON each:
//!
//! ```text
//! {"order":"reload","wait":true}    {"ok":true,"version":"2026-11-22"}
//!                                   {"ok":false,"version":"2026-11-21","faults":["/experiments/3/layer: …"]}
//! {"order":"workers","wait":true}   replace every worker by hand-over
//! {"order":"drain"}                 as QUIT; the connection closes when the instance has left
//! ```
//! Promises
//! - No client makes the master wait: sockets are non-blocking, a request has at
//!   most [`REQUEST_SIZE_MAX`] bytes, there are at most [`CLIENT_COUNT_MAX`]
//!   clients, and one that says nothing for [`REQUEST_TIME_MAX`] is let go.
//! - Whoever may open the socket file (its owner, mode 0600) may give orders.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Master;
use super::supervisor::Event;
use crate::sys::socket::{self, Takeover};

/// Its name in the runtime directory.
pub const SOCKET_NAME: &str = "control";
/// The longest request.
const REQUEST_SIZE_MAX: usize = 1024;
/// Clients at once; the next wait in the socket's queue.
const CLIENT_COUNT_MAX: usize = 16;
/// From connecting to a whole request.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
const SOCKET_MODE: u32 = 0o600;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// Read the settings and the experiments again.
    Reload,
    /// Replace every worker by hand-over.
    Workers,
    /// Drain, and leave.
    Drain,
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What is asked for.
    pub order: Wish,
    /// Answer when it is done, and how it went; else at once.
    #[serde(default)]
    pub wait: bool,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reply {
    /// It is done, or was begun where nobody waits.
    pub ok: bool,
    /// The experiments in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What was wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
}

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its request is not whole.
    Asking { until_ns: u64 },
    /// What comes of a wish to reload.
    Reload { ticket: u64 },
    /// Every worker's replacement, or the end of that; counted.
    Workers { after: u64 },
    /// The instance's end.
    End,
    /// That it takes its answer.
    Answered,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    stage: Stage,
    request: Vec<u8>,
    reply: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Control {
    path: PathBuf,
    listener: OwnedFd,
    clients: BTreeMap<u64, Client>,
    next: u64,
}

impl Control {
    /// Listens in this directory, which is locked: whoever answered there is gone.
    ///
    /// # Errors
    /// If the socket can't be made.
    pub(super) fn listen(runtime_dir: &Path) -> io::Result<Control> {
        let path = runtime_dir.join(SOCKET_NAME);
        let listener = socket::listen_unix(&path, SOCKET_MODE, CLIENT_COUNT_MAX as i32, Takeover::Yes)?;
        Ok(Control { path, listener, clients: BTreeMap::new(), next: 0 })
    }

    /// Goes on listening on a socket from before an upgrade.
    pub(super) fn kept(runtime_dir: &Path, listener: OwnedFd) -> Control {
        Control { path: runtime_dir.join(SOCKET_NAME), listener, clients: BTreeMap::new(), next: 0 }
    }

    /// The listening socket, which is to cross an exec.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The listening socket, while there is room for another client.
    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        (self.clients.len() < CLIENT_COUNT_MAX).then(|| self.listener.as_fd())
    }

    /// The clients: key, socket, and whether an answer waits for room.
    pub(super) fn clients(&self) -> impl Iterator<Item = (u64, BorrowedFd<'_>, bool)> {
        self.clients.iter().map(|(key, client)| (*key, client.socket.as_fd(), !client.reply.is_empty()))
    }

    /// When the first client has asked for too long.
    pub(super) fn due_ns(&self) -> Option<u64> {
        let asking = |client: &Client| match client.stage {
            Stage::Asking { until_ns } => Some(until_ns),
            _ => None,
        };
        self.clients.values().filter_map(asking).min()
    }

    pub(super) fn accept(&mut self, now_ns: u64) {
        if let Ok(socket) = socket::accept4(&self.listener) {
            let until_ns = now_ns + REQUEST_TIME_MAX.as_nanos() as u64;
            let stage = Stage::Asking { until_ns };
            self.clients.insert(self.next, Client { socket, stage, request: Vec::new(), reply: Vec::new() });
            self.next += 1;
        }
    }

    /// Takes what a client sends; its request, once that is whole.
    fn hear(&mut self, key: u64) -> Option<Result<Request, String>> {
        let client = self.clients.get_mut(&key)?;
        let mut buffer = [0; REQUEST_SIZE_MAX];
        loop {
            match socket::recv(&client.socket, &mut buffer) {
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => return None,
                Ok(size) if size > 0 && matches!(client.stage, Stage::Asking { .. }) => {
                    client.request.extend_from_slice(&buffer[..size]);
                    if let Some(end) = client.request.iter().position(|byte| *byte == b'\n') {
                        let line = &client.request[..end];
                        let example = "`{\"order\":\"reload\",\"wait\":true}` would be right";
                        return Some(
                            serde_json::from_slice(line).map_err(|fault| format!("{fault}; {example}")),
                        );
                    }
                    if client.request.len() > REQUEST_SIZE_MAX {
                        return Some(Err(format!("no line within {REQUEST_SIZE_MAX} bytes")));
                    }
                }
                // What comes after a request is nobody's.
                Ok(size) if size > 0 => {}
                // It left; what it asked for goes on without it.
                Ok(_) | Err(_) => {
                    self.clients.remove(&key);
                    return None;
                }
            }
        }
    }

    fn answer(&mut self, key: u64, reply: &Reply) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        client.stage = Stage::Answered;
        client.reply = serde_json::to_vec(reply).expect("texts are always JSON");
        client.reply.push(b'\n');
        self.flush(key);
    }

    /// Sends what waits; a client that has its answer is let go.
    pub(super) fn flush(&mut self, key: u64) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        while !client.reply.is_empty() {
            match socket::send(&client.socket, &client.reply) {
                Ok(size) => drop(client.reply.drain(..size)),
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        if client.stage == Stage::Answered {
            self.clients.remove(&key);
        }
    }

    /// Lets those go that have asked for too long.
    pub(super) fn expire(&mut self, now_ns: u64) {
        self.clients.retain(|_, client| match client.stage {
            Stage::Asking { until_ns } => now_ns < until_ns,
            _ => true,
        });
    }

    /// At the end.
    pub(super) fn clear(&mut self) {
        self.clients.clear();
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Master {
    pub(super) fn hear_client(&mut self, key: u64, events: &mut VecDeque<Event>) {
        self.control.flush(key);
        let request = match self.control.hear(key) {
            None => return,
            Some(Ok(request)) => request,
            Some(Err(fault)) => {
                let reply = Reply { faults: vec![fault], ..Reply::default() };
                return self.control.answer(key, &reply);
            }
        };
        log::info!("event=control order={:?} wait={}", request.order, request.wait);
        if self.supervisor.is_stopping() && request.order != Wish::Drain {
            let reply = Reply { faults: vec!["the instance stops".to_owned()], ..Reply::default() };
            return self.control.answer(key, &reply);
        }
        let stage = match request.order {
            Wish::Reload => {
                self.wish_reload(events);
                Stage::Reload { ticket: self.plans.ticket }
            }
            Wish::Workers => {
                events.extend((0..self.heritage.places.len()).map(|slot| Event::Replace { slot }));
                Stage::Workers { after: self.rolls.ended }
            }
            Wish::Drain => {
                events.push_back(Event::Drain);
                Stage::End
            }
        };
        if let Some(client) = self.control.clients.get_mut(&key) {
            client.stage = stage;
        }
        if !request.wait {
            self.control.answer(key, &Reply { ok: true, version: self.version(), faults: Vec::new() });
        }
    }

    fn version(&self) -> Option<String> {
        self.plans.in_force.as_ref().map(|plan| plan.version.clone())
    }

    /// Answers whoever waits for something that has come.
    pub(super) fn settle_clients(&mut self) {
        let done: Vec<(u64, Vec<String>)> = (self.control.clients.iter())
            .filter_map(|(key, client)| Some((*key, self.came(client.stage)?)))
            .collect();
        for (key, faults) in done {
            let reply = Reply { ok: faults.is_empty(), version: self.version(), faults };
            self.control.answer(key, &reply);
        }
    }

    /// What is wrong, once what a client waits for has come.
    fn came(&self, stage: Stage) -> Option<Vec<String>> {
        match stage {
            Stage::Reload { .. } if self.settings_wished => None,
            Stage::Reload { .. } if !self.settings_faults.is_empty() => Some(self.settings_faults.clone()),
            // What the settings bring comes first; the loader's word is kept for after.
            Stage::Reload { .. } if self.holds_plans() => None,
            Stage::Reload { ticket } => {
                let outcome = self.plans.outcome.as_ref().filter(|outcome| outcome.ticket >= ticket)?;
                let in_force = self.plans.in_force.as_ref();
                match outcome.faults.is_empty() {
                    false => Some(outcome.faults.clone()),
                    true if in_force.is_none_or(|plan| plan.awaited) => None,
                    true => Some(in_force.map(|plan| plan.refusals.clone()).unwrap_or_default()),
                }
            }
            Stage::Workers { after } if self.rolls.ended > after => {
                Some(self.rolls.fault.iter().cloned().collect())
            }
            Stage::Workers { .. } | Stage::End | Stage::Asking { .. } | Stage::Answered => None,
        }
    }
}
