//! What every backend keeps and does alike, whatever moves its bytes: who is let
//! in at the gates, what the master orders, and how a drain ends.
//!
//! ```text
//! gates ─ accept ─► connections ⇄ the backend's own loop
//!                       ▲
//! orders ─ adopt, release, drain, plan
//! ```
//! A backend is a [`Porter`]: it says how a gate is watched, how a connection
//! enters and how it leaves; the rest follows from that.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::clock::Now;
use crate::endpoint::agent_line;
use crate::http::{Connection, Workspace};
use crate::metrics::{Block, Family, MASTER_BLOCK, State, Table};
use crate::sys::socket;

use super::connections::{Connections, Key};
use super::control::{Control, Task};
use super::policy::{
    ACCEPTS_A_TURN, Drain, Reason, STARVED_RETRY, TURN_MAX, connection_count_max, timer_durations,
};
use super::timers::{Class, Timers};
use super::{Keeper, Listener, Outcome, PoolOptions, Speaks};

/// A listening socket, and whether it is served here.
pub struct Gate {
    /// The socket.
    pub listener: Listener,
    /// Connections are taken from it.
    pub served: bool,
    /// The kernel may hold more connections than were accepted.
    pub ready: bool,
}

/// What a backend keeps of an open connection.
pub trait Guest {
    /// The protocol's state.
    fn connection(&mut self) -> &mut Connection;
}

/// What every backend keeps.
pub struct Hall<'r, O> {
    /// Every listening socket of the pool.
    pub gates: Vec<Gate>,
    /// Who is in.
    pub connections: Connections<O>,
    /// How long each of them may be.
    pub timers: Timers,
    /// Where requests are put together and answers are built.
    pub workspace: Workspace,
    /// Counts.
    pub block: Block<'r>,
    /// The master's, which has the instance's state.
    master: Block<'r>,
    /// The master's orders.
    pub control: Control,
    /// The channel may hold more orders than were taken.
    pub ordered: bool,
    drain: Option<Drain>,
    drain_idle: Duration,
    /// Room or descriptors have run out: the queues wait.
    starved: bool,
    own_slot: usize,
}

impl<'r, O: Guest> Hall<'r, O> {
    /// Takes all memory; nothing is served yet.
    ///
    /// # Errors
    /// If the system does not tell its limits.
    pub fn new(
        options: &PoolOptions,
        listeners: Vec<Listener>,
        control: Control,
        table: Table<'r>,
        block: Block<'r>,
    ) -> io::Result<Hall<'r, O>> {
        let count_max = connection_count_max(options, listeners.len())?;
        let gates = listeners.into_iter().map(|listener| Gate { listener, served: false, ready: false });
        Ok(Hall {
            gates: gates.collect(),
            connections: Connections::new(count_max),
            timers: Timers::new(count_max, timer_durations(&options.limits)),
            workspace: Workspace::new(options.limits, options.answer_size_max()),
            block,
            master: table.block(MASTER_BLOCK),
            control,
            ordered: true,
            drain: None,
            drain_idle: options.drain_idle,
            starved: false,
            own_slot: options.slot,
        })
    }

    /// How long the loop may wait.
    #[must_use]
    pub fn timeout(&self, now_ns: u64) -> Duration {
        if self.control.is_busy() || (!self.starved && self.gates.iter().any(|gate| gate.ready)) {
            return Duration::ZERO;
        }
        let most = if self.starved { STARVED_RETRY } else { TURN_MAX };
        let most = self.drain.as_ref().map_or(most, |drain| drain.wait(now_ns).min(most));
        self.timers.next(now_ns).map_or(most, |next| next.min(most))
    }

    /// A turn has begun.
    pub fn begin_turn(&mut self, now: Now) {
        self.workspace.set_time(now);
        self.block.add(Family::LoopTurns, 1);
        self.block.turns(now.mono_ns);
    }

    fn next_task(&mut self, now: Now) -> Option<Task> {
        if self.ordered {
            let task = self.control.next(now);
            self.ordered = task.is_some();
            if task.is_some() {
                return task;
            }
        }
        self.control.abandoned(now)
    }

    /// The next order, or what was begun for an earlier one and is done now. Goes
    /// one step further with that, so once a turn.
    fn next_step(&mut self, now: Now) -> Option<Task> {
        self.next_task(now).or_else(|| self.control.step())
    }
}

/// A backend, as far as the hall goes.
pub trait Porter<'r> {
    /// What it keeps of an open connection.
    type Open: Guest;

    /// What it keeps like any other.
    fn hall(&mut self) -> &mut Hall<'r, Self::Open>;

    /// A gate's `served` has changed: watch its socket, or do so no more.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn watch(&mut self, gate: usize) -> io::Result<()>;

    /// There is room for it: a connection has come.
    fn enter(&mut self, socket: OwnedFd, connection: Connection, now: Now);

    /// Shuts the write side and gives the peer time to read, or closes at once.
    fn close(&mut self, key: Key, reason: Reason, now: Now);

    /// Closes at once, counting nothing.
    fn forget(&mut self, key: Key);

    /// Closes whoever has waited longest in the first of these classes that anybody is in.
    fn evict(&mut self, classes: &[Class]) -> bool {
        let hall = self.hall();
        let oldest = classes.iter().find_map(|class| hall.timers.oldest(*class));
        let Some(key) = oldest.and_then(|index| hall.connections.key(index)) else { return false };
        hall.block.add_at(Family::ConnectionsClosed, Reason::Evicted as usize, 1);
        self.forget(key);
        true
    }

    /// Lets in whoever waits at the gates.
    fn accept(&mut self, now: Now) {
        self.hall().starved = false;
        for gate in 0..self.hall().gates.len() {
            self.accept_at(gate, now);
        }
    }

    /// Lets in some of those who wait at one gate.
    fn accept_at(&mut self, index: usize, now: Now) {
        for _ in 0..ACCEPTS_A_TURN {
            let hall = self.hall();
            let gate = &mut hall.gates[index];
            if !gate.served || !gate.ready {
                return;
            }
            let full = !hall.connections.has_room();
            if full && hall.timers.oldest(Class::Linger).or(hall.timers.oldest(Class::Idle)).is_none() {
                hall.starved = true;
                return;
            }
            hall.block.add(Family::SystemCalls, 1);
            match socket::accept4(&gate.listener.fd) {
                Ok(socket) => {
                    if full {
                        self.evict(&[Class::Linger, Class::Idle]);
                    }
                    self.welcome(socket, index, now);
                }
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => gate.ready = false,
                // The peer gave up while it was queued (accept(2)).
                Err(fault) if fault.kind() == io::ErrorKind::ConnectionAborted => {}
                // It listens no more (accept(2), EINVAL): a neighbour that served it, too,
                // has drained before us, and nobody told it that this slot has a worker.
                Err(fault) if fault.kind() == io::ErrorKind::InvalidInput => {
                    log::info!("event=socket_ended address={:?}", gate.listener.address);
                    (gate.served, gate.ready) = (false, false);
                    // Watched no more, it is as good.
                    let _ = self.watch(index);
                    return;
                }
                Err(fault) => {
                    // No descriptor or no memory: the oldest idle one goes, and the queue waits.
                    if !hall.starved {
                        let address = &gate.listener.address;
                        log::warn!("event=accept_failed address={address:?} reason={:?}", fault.to_string());
                    }
                    hall.starved = true;
                    self.evict(&[Class::Linger, Class::Idle]);
                    return;
                }
            }
        }
    }

    /// A connection that was accepted enters.
    fn welcome(&mut self, socket: OwnedFd, gate: usize, now: Now) {
        let hall = self.hall();
        if hall.gates[gate].listener.speaks == Speaks::Agent {
            // A line that a fresh socket always takes, and that is all there is to say.
            let _ = socket::send(&socket, agent_line(hall.master).as_bytes());
            return;
        }
        let mut connection = Connection::new();
        if hall.drain.is_some() {
            connection.handle_drain();
        }
        hall.block.add(Family::ConnectionsAccepted, 1);
        self.enter(socket, connection, now);
    }

    /// Does what the master has ordered meanwhile.
    ///
    /// # Errors
    /// If a gate can't be watched.
    fn take_orders(&mut self, now: Now) -> io::Result<Option<Outcome>> {
        while let Some(task) = self.hall().next_step(now) {
            match task {
                Task::Plan(region) => return Ok(Some(Outcome::Plan(region))),
                Task::Adopt(slot) => self.serve_gates(slot, true)?,
                Task::Release(slot) if slot != self.hall().own_slot => self.serve_gates(slot, false)?,
                Task::Release(_) => {}
                Task::Drain { deadline, last } => self.begin_drain(deadline, last, now),
                Task::HandOver(deadline) => {
                    for index in 0..self.hall().gates.len() {
                        let slot = self.hall().gates[index].listener.slot;
                        self.serve_gates(slot, false)?;
                    }
                    self.begin_drain(deadline, false, now);
                }
            }
        }
        Ok(None)
    }

    /// Begins or ends serving the sockets of a slot.
    ///
    /// # Errors
    /// If one can't be watched.
    fn serve_gates(&mut self, slot: usize, serve: bool) -> io::Result<()> {
        for index in 0..self.hall().gates.len() {
            let gate = &mut self.hall().gates[index];
            if gate.listener.slot == slot && gate.served != serve {
                (gate.served, gate.ready) = (serve, serve);
                self.watch(index)?;
            }
        }
        Ok(())
    }

    /// Until the idle time is over everything goes on, with `Connection: close`:
    /// whoever asks for health sees that it is time to go elsewhere.
    fn begin_drain(&mut self, deadline: Duration, last: bool, now: Now) {
        let hall = self.hall();
        if let Some(drain) = &mut hall.drain {
            return drain.hurry(deadline, now);
        }
        let keys: Vec<Key> = hall.connections.keys().collect();
        for key in keys {
            if let Some(open) = hall.connections.get(key) {
                open.connection().handle_drain();
            }
        }
        hall.block.is(State::Draining);
        hall.drain = Some(Drain::begin(hall.drain_idle, deadline, last, now));
    }

    /// Moves a drain on; true when nothing is left, or the deadline is over.
    fn drained(&mut self, now: Now) -> bool {
        let Some(drain) = &mut self.hall().drain else { return false };
        let (late, over) = (drain.is_late(now), drain.idle_is_over(now));
        let shut = drain.shut || over;
        let grace_ns = if late { 0 } else { drain.grace().as_nanos() as u64 };
        let (shuts, last) = (std::mem::replace(&mut drain.shut, shut) != shut, drain.last);
        if over {
            let idle = |hall: &mut Hall<'r, Self::Open>| {
                let oldest = hall.timers.oldest(Class::Idle);
                let oldest = oldest.filter(|index| hall.timers.age_ns(*index, now) >= grace_ns);
                oldest.and_then(|index| hall.connections.key(index))
            };
            while let Some(key) = idle(self.hall()) {
                self.close(key, Reason::Drained, now);
            }
        }
        if shuts {
            self.stop_accepting(last, now);
        }
        let hall = self.hall();
        let done = late || (shut && hall.connections.count() == 0);
        if done {
            hall.block.set(Family::Connections, 0);
        }
        done
    }

    /// Whoever was queued by now was let in by the kernel and is answered. Who
    /// comes from here on is refused, so that nobody waits in vain, or waits in the
    /// queue of a socket that is kept for the next instance.
    fn stop_accepting(&mut self, last: bool, now: Now) {
        for index in 0..self.hall().gates.len() {
            while self.hall().gates[index].served && self.hall().connections.has_room() {
                match socket::accept4(&self.hall().gates[index].listener.fd) {
                    Ok(socket) => self.welcome(socket, index, now),
                    Err(_) => break,
                }
            }
            let gate = &mut self.hall().gates[index];
            gate.ready = false;
            if std::mem::take(&mut gate.served) {
                let kept = match gate.listener.keeper {
                    Keeper::Nobody => false,
                    Keeper::Store => !last,
                    Keeper::Unit => true,
                };
                // One that is ended already, or watched no more, is as good.
                if !kept {
                    let _ = socket::stop_listening(&gate.listener.fd);
                }
                let _ = self.watch(index);
            }
        }
    }
}
