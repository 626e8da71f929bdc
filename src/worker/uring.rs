//! The worker's loop over io_uring: completions come in, bytes are there
//! already, the connection decides. One system call a turn hands over what the
//! turn before has queued, and brings what has come meanwhile.
//!
//! ```text
//! receive (one, without end) ─► buffer ─► connection ─► slot ─► send (never waits)
//!                                  └─ held: a send is under way, or the peer does not read
//! ```
//!
//! Invariants
//! - A connection has at most one send under way, so its bytes keep their order.
//! - Input that comes before that send has ended is held in its buffer; one who
//!   holds several, or does not read, is not received from until that is over.
//! - Listeners are watched, and connections taken by accept4: what is taken by
//!   the kernel into a completion queue would die with this worker.
//! - A connection that is gone may still complete something: its key finds nobody.
//! - When slots or buffers run out, whoever holds one longest goes; nobody else
//!   notices.

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::clock::{self, Now};
use crate::endpoint::App;
use crate::http::{Connection, Output};
use crate::limits;
use crate::metrics::{Block, Family, Table};
use crate::sys::socket;
use crate::sys::uring::{Completion, Picked, Received, Ring, Sizes, SlotIndex};

use super::connections::Key;
use super::control::Control;
use super::hall::{Gate, Guest, Hall, Porter};
use super::policy::Reason;
use super::timers::Class;
use super::{Listener, Outcome, PoolOptions};

/// Buffers held for one connection before it is not received from.
const HELD_COUNT_MAX: u16 = 4;
/// No buffer.
const NONE: u16 = u16::MAX;
/// Names the channel among what is watched; the others are gates.
const CHANNEL: u64 = 1 << 32;

/// How much of everything a worker takes.
pub const SIZES: Sizes = Sizes {
    queue_count: limits::OPERATION_COUNT,
    completion_count: limits::COMPLETION_COUNT,
    buffer_count: limits::RECEIVE_BUFFER_COUNT,
    buffer_size: limits::RECEIVE_BUFFER_SIZE,
    slot_count: limits::SEND_SLOT_COUNT,
    slot_size: limits::SEND_SLOT_SIZE,
};

/// An operation that goes on until it is told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Off,
    On,
    /// Cancelled; its last completion has not come.
    Ending,
    /// Ended for want of a buffer; begun anew at the turn's end.
    Parched,
}

/// An open connection.
pub struct Open {
    socket: OwnedFd,
    connection: Connection,
    /// `Connection::turn` when its timer was armed last.
    turn: u32,
    /// The send under way, or what rests of it.
    sending: Option<SlotIndex>,
    /// To be closed for this, once that send has ended.
    closing: Option<Reason>,
    receive: Standing,
    /// Buffers not looked at yet: the first, the last, how many.
    held: (u16, u16, u16),
    /// The socket has taken no more; room is awaited.
    awaits_write: bool,
    /// Its write side is shut; input is thrown away until FIN or the linger timeout.
    lingers: bool,
    /// The peer shut its write side.
    ended: bool,
    /// The connection was told so.
    told_ended: bool,
}

/// A buffer held for a connection, and the next one.
struct Held {
    picked: Picked,
    /// When it came.
    ready_ns: u64,
    next: u16,
}

impl Guest for Open {
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// The loop and all it keeps.
pub struct Backend<'r> {
    // Dropped first: what is queued is handed over while its sockets are open.
    ring: Ring,
    hall: Hall<'r, Open>,
    /// By the gate's index.
    watches: Vec<Standing>,
    /// By the buffer's index.
    held: Box<[Option<Held>]>,
    /// Connections whose receive ended for want of a buffer.
    parched: Vec<Key>,
    /// Calls of the ring that were counted already.
    enter_count: u64,
}

impl<'r> Backend<'r> {
    /// Takes all memory and serves the worker's own sockets from the next turn on.
    ///
    /// # Errors
    /// If the system does not tell its limits.
    pub fn new(
        ring: Ring,
        options: &PoolOptions,
        listeners: Vec<Listener>,
        control: Control,
        table: Table<'r>,
        block: Block<'r>,
    ) -> io::Result<Backend<'r>> {
        let hall: Hall<'r, Open> = Hall::new(options, listeners, control, table, block)?;
        let mut backend = Backend {
            held: (0..ring.buffers_free()).map(|_| None).collect(),
            ring,
            watches: vec![Standing::Off; hall.gates.len()],
            parched: Vec::with_capacity(hall.connections.count_max()),
            hall,
            enter_count: 0,
        };
        backend.watch_channel();
        backend.serve_gates(options.slot, true)?;
        Ok(backend)
    }

    /// Turns until there is a new plan, or nothing left to do.
    ///
    /// # Errors
    /// If the kernel refuses to wait: a broken belief, since it did before.
    pub fn serve(&mut self, app: &mut App<'_, 'r>) -> io::Result<Outcome> {
        self.hall.control.in_force();
        loop {
            let end_ns = clock::mono_ns();
            // The wait hands over what was answered before it waits.
            app.end_turn(end_ns);
            self.ring.wait(self.hall.timeout(end_ns))?;
            let now = clock::now();
            self.hall.begin_turn(now);
            app.begin_turn(now);
            app.desk().beat();
            self.take_completions(now, app);
            self.expire(now, app);
            self.receive_again();
            self.hall.block.set(Family::Connections, self.hall.connections.count() as u64);
            let outcome = self.take_orders(now)?;
            let drained = self.drained(now);
            self.count_enters();
            if let Some(outcome) = outcome {
                // Taking a plan takes a while; answers don't wait for it.
                self.ring.submit()?;
                app.handed_over(clock::mono_ns());
                return Ok(outcome);
            }
            if drained {
                return Ok(Outcome::Leave);
            }
        }
    }

    fn count_enters(&mut self) {
        let count = self.ring.enter_count();
        self.hall.block.add(Family::SystemCalls, count - self.enter_count);
        self.enter_count = count;
    }

    fn take_completions(&mut self, now: Now, app: &mut App<'_, '_>) {
        // What completes while these are looked at has its turn after the others.
        for _ in 0..self.ring.completion_count() {
            let Some(completion) = self.ring.reap() else { break };
            match completion {
                Completion::Received { word, what, more } => {
                    self.received(Key::from_word(word), what, more, now, app);
                }
                Completion::Sent { word, result, rest } => {
                    self.sent(Key::from_word(word), result, rest, now, app);
                }
                Completion::Writable { word } => self.writable(Key::from_word(word), now, app),
                Completion::Watched { word: CHANNEL, more } => {
                    self.hall.ordered = true;
                    if !more {
                        self.watch_channel();
                    }
                }
                Completion::Watched { word, more } => self.knocked(word as usize, more),
            }
        }
        self.accept(now);
    }

    // ── One connection ─────────────────────────────────────────────────────

    fn received(&mut self, key: Key, what: Received, more: bool, now: Now, app: &mut App<'_, '_>) {
        let Some(open) = self.hall.connections.get(key) else {
            if let Received::Bytes(picked) = what {
                self.ring.give_back(picked);
            }
            return;
        };
        if !more {
            open.receive = Standing::Off;
        }
        match what {
            Received::Bytes(picked) => {
                self.hall.block.add(Family::BytesReceived, picked.size() as u64);
                if open.lingers {
                    self.ring.give_back(picked);
                } else {
                    self.hold(key, picked, now);
                }
            }
            Received::End if open.lingers => return self.forget(key),
            Received::End => open.ended = true,
            Received::NoBuffer => {
                open.receive = Standing::Parched;
                self.parched.push(key);
            }
            Received::Cancelled => {}
            Received::Fault(_) if open.lingers => return self.forget(key),
            Received::Fault(_) => return self.close(key, Reason::Peer, now),
        }
        self.progress(key, false, now, app);
    }

    fn sent(
        &mut self,
        key: Key,
        result: Result<usize, Errno>,
        rest: Option<SlotIndex>,
        now: Now,
        app: &mut App<'_, '_>,
    ) {
        let Some(open) = self.hall.connections.get(key) else { return };
        open.sending = rest;
        let size = match result {
            Ok(size) => size,
            Err(Errno::EAGAIN) => 0,
            Err(_) => return self.close(key, Reason::Peer, now),
        };
        self.hall.block.add(Family::BytesSent, size as u64);
        if rest.is_some() {
            open.awaits_write = true;
            self.ring.await_writable(&open.socket, key.to_word());
        }
        self.progress(key, size > 0, now, app);
    }

    fn writable(&mut self, key: Key, now: Now, app: &mut App<'_, '_>) {
        let Some(open) = self.hall.connections.get(key) else { return };
        open.awaits_write = false;
        if let Some(slot) = open.sending {
            self.ring.send_rest(&open.socket, slot);
        }
        self.progress(key, false, now, app);
    }

    /// Moves one connection as far as it goes without waiting. `wrote`: the
    /// socket has taken something.
    fn progress(&mut self, key: Key, wrote: bool, now: Now, app: &mut App<'_, '_>) {
        let mut wrote = wrote;
        app.pace().look(now.mono_ns);
        let closing = loop {
            let Some(open) = self.hall.connections.get(key) else { return };
            if open.lingers {
                break None;
            }
            if open.sending.is_some() || open.awaits_write {
                // What was built beside the send under way waits in a slot of its own.
                if !self.keep_output(key) {
                    break Some(Reason::Error);
                }
                break None;
            }
            match open.connection.poll_output(&self.hall.workspace) {
                Output::Send(bytes) => {
                    let size = bytes.len();
                    if let Some(slot) = self.ring.send(&open.socket, bytes, key.to_word()) {
                        open.sending = Some(slot);
                        open.connection.handle_sent(size, now, &mut self.hall.workspace, app);
                        continue;
                    }
                    // It fits no slot, or none is free.
                    self.hall.block.add(Family::SystemCalls, 1);
                    match socket::send(&open.socket, bytes) {
                        Ok(size) => {
                            self.hall.block.add(Family::BytesSent, size as u64);
                            open.connection.handle_sent(size, now, &mut self.hall.workspace, app);
                            wrote = true;
                        }
                        Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                            open.awaits_write = true;
                            self.ring.await_writable(&open.socket, key.to_word());
                        }
                        Err(_) => break Some(Reason::Peer),
                    }
                }
                Output::Close => {
                    let natural = if open.ended { Reason::Peer } else { Reason::Answered };
                    break Some(open.closing.unwrap_or(natural));
                }
                Output::Receive => {
                    if let Some(reason) = open.closing
                        && open.held.2 == 0
                    {
                        break Some(reason);
                    }
                    if !open.connection.wants_input() || !self.feed(key, now, app) {
                        break None;
                    }
                }
            }
        };
        match closing {
            Some(reason) => self.close(key, reason, now),
            None => {
                self.rearm(key, wrote, now);
                self.settle_receive(key);
            }
        }
    }

    /// Tells the connection what has come next; false if nothing has.
    fn feed(&mut self, key: Key, now: Now, app: &mut App<'_, '_>) -> bool {
        let holds = self.hall.connections.get(key).is_some_and(|open| open.connection.holds_carry());
        if self.hall.workspace.carry_free() == 0 && !holds {
            self.evict(&[Class::Head, Class::Body]);
        }
        let Some(open) = self.hall.connections.get(key) else { return false };
        if let Some((picked, ready_ns)) = take_held(&mut self.held, open) {
            app.pace().look(ready_ns);
            let input = self.ring.bytes(&picked);
            open.connection.handle_input(input, now, &mut self.hall.workspace, app);
            self.ring.give_back(picked);
            app.pace().moved_on(clock::mono_ns());
        } else if open.ended && !open.told_ended {
            open.told_ended = true;
            open.connection.handle_eof(now, &mut self.hall.workspace, app);
        } else {
            return false;
        }
        true
    }

    /// Puts a buffer behind the others that a connection has not looked at.
    fn hold(&mut self, key: Key, picked: Picked, now: Now) {
        let Some(open) = self.hall.connections.get(key) else { return self.ring.give_back(picked) };
        let index = picked.index() as u16;
        let (first, last, count) = open.held;
        if let Some(before) = self.held.get_mut(usize::from(last)).and_then(Option::as_mut) {
            before.next = index;
        }
        open.held = (if count == 0 { index } else { first }, index, count + 1);
        self.held[usize::from(index)] = Some(Held { picked, ready_ns: now.mono_ns, next: NONE });
    }

    /// Output leaves the workspace, which belongs to the next connection. False if it can't.
    fn keep_output(&mut self, key: Key) -> bool {
        loop {
            let Some(open) = self.hall.connections.get(key) else { return false };
            if open.connection.handle_blocked(&mut self.hall.workspace).is_ok() {
                return true;
            }
            if !self.evict(&[Class::Write]) {
                return false;
            }
        }
    }

    /// Starts the timer anew where what is waited for has changed or moved on.
    fn rearm(&mut self, key: Key, wrote: bool, now: Now) {
        let Some(open) = self.hall.connections.get(key) else { return };
        if open.lingers {
            return;
        }
        let class = match Class::of(open.connection.wait()) {
            _ if open.awaits_write => Class::Write,
            // A request has begun to come, though nobody has looked at it.
            Class::Idle if open.held.2 > 0 => Class::Head,
            class => class,
        };
        let turn = open.connection.turn();
        let moved = turn != open.turn || (wrote && class == Class::Write);
        if moved || self.hall.timers.class(key.index) != Some(class) {
            open.turn = turn;
            self.hall.timers.arm(key.index, class, now);
        }
    }

    /// Receives from whoever is to be received from, and from nobody else.
    fn settle_receive(&mut self, key: Key) {
        let Some(open) = self.hall.connections.get(key) else { return };
        let takes = !open.awaits_write && open.held.2 < HELD_COUNT_MAX;
        let wanted = !open.ended && (open.lingers || takes);
        match open.receive {
            Standing::Off if wanted => {
                open.receive = Standing::On;
                self.ring.receive(&open.socket, key.to_word());
            }
            Standing::On if !wanted => {
                open.receive = Standing::Ending;
                self.ring.cancel_receive(key.to_word());
            }
            _ => {}
        }
    }

    /// Begins anew what ended for want of a buffer. All buffers have gone back by
    /// now, but for those held.
    fn receive_again(&mut self) {
        while !self.parched.is_empty() && self.ring.buffers_free() == 0 {
            // Those of sends under way come back with them; the others are held
            // by peers who send and don't read.
            if !self.evict(&[Class::Write]) {
                return;
            }
        }
        while let Some(key) = self.parched.pop() {
            if let Some(open) = self.hall.connections.get(key) {
                open.receive = Standing::Off;
                self.settle_receive(key);
            }
        }
    }

    fn expire(&mut self, now: Now, app: &mut App<'_, '_>) {
        while let Some((index, class)) = self.hall.timers.expire(now) {
            let Some(key) = self.hall.connections.key(index) else { continue };
            let Some(open) = self.hall.connections.get(key) else { continue };
            app.pace().look(now.mono_ns);
            match class {
                Class::Linger => self.forget(key),
                Class::Idle => {
                    open.connection.handle_timeout(now, &mut self.hall.workspace, app);
                    self.close(key, Reason::IdleTimeout, now);
                }
                Class::Write => {
                    self.hall.block.add_at(Family::ConnectionsClosed, Reason::Slow as usize, 1);
                    self.forget(key);
                }
                Class::Head | Class::Body => {
                    open.connection.handle_timeout(now, &mut self.hall.workspace, app);
                    // What there is to say (408) is sent before it closes.
                    open.closing = Some(Reason::Slow);
                    self.progress(key, false, now, app);
                }
            }
        }
    }

    // ── New connections ────────────────────────────────────────────────────

    fn knocked(&mut self, index: usize, more: bool) {
        let gate = &mut self.hall.gates[index];
        gate.ready = gate.served;
        if !more {
            self.watches[index] = Standing::Off;
            self.settle_watch(index);
        }
    }

    fn settle_watch(&mut self, index: usize) {
        let Gate { listener, served, .. } = &self.hall.gates[index];
        match self.watches[index] {
            Standing::Off if *served => {
                self.watches[index] = Standing::On;
                self.ring.watch(&listener.fd, index as u64);
            }
            Standing::On if !*served => {
                self.watches[index] = Standing::Ending;
                self.ring.cancel_watch(index as u64);
            }
            _ => {}
        }
    }

    fn watch_channel(&mut self) {
        if let Some(channel) = self.hall.control.descriptor() {
            self.ring.watch(channel, CHANNEL);
        }
    }
}

impl<'r> Porter<'r> for Backend<'r> {
    type Open = Open;

    fn hall(&mut self) -> &mut Hall<'r, Open> {
        &mut self.hall
    }

    fn watch(&mut self, gate: usize) -> io::Result<()> {
        self.settle_watch(gate);
        Ok(())
    }

    fn enter(&mut self, socket: OwnedFd, connection: Connection, now: Now) {
        let key = self.hall.connections.insert(Open {
            socket,
            turn: connection.turn(),
            connection,
            sending: None,
            closing: None,
            receive: Standing::Off,
            held: (NONE, NONE, 0),
            awaits_write: false,
            lingers: false,
            ended: false,
            told_ended: false,
        });
        self.hall.timers.arm(key.index, Class::Idle, now);
        self.settle_receive(key);
    }

    /// Shuts the write side and gives the peer time to read, or closes at once.
    fn close(&mut self, key: Key, reason: Reason, now: Now) {
        let Some(open) = self.hall.connections.get(key) else { return };
        if open.sending.is_some() && matches!(reason, Reason::IdleTimeout | Reason::Drained) {
            // The last answer is under way.
            open.closing = Some(reason);
            return self.hall.timers.arm(key.index, Class::Write, now);
        }
        self.hall.block.add_at(Family::ConnectionsClosed, reason as usize, 1);
        let cut_short = open.ended || matches!(reason, Reason::Peer) || open.sending.is_some();
        let lingers = !cut_short && open.connection.wants_linger();
        if lingers && socket::shutdown_write(&open.socket).is_ok() {
            open.lingers = true;
            // Output of this connection may still lie in the workspace.
            open.connection.release(&mut self.hall.workspace);
            while let Some((picked, _)) = take_held(&mut self.held, open) {
                self.ring.give_back(picked);
            }
            self.hall.timers.arm(key.index, Class::Linger, now);
            self.settle_receive(key);
        } else {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: Key) {
        let Some(mut open) = self.hall.connections.remove(key) else { return };
        open.connection.release(&mut self.hall.workspace);
        self.hall.timers.disarm(key.index);
        while let Some((picked, _)) = take_held(&mut self.held, &mut open) {
            self.ring.give_back(picked);
        }
        if let Some(slot) = open.sending {
            self.ring.drop_slot(slot);
        }
        // What is in flight keeps the socket open, whatever we close.
        if open.receive == Standing::On {
            self.ring.cancel_receive(key.to_word());
        }
        if open.awaits_write {
            self.ring.cancel_writable(key.to_word());
        }
        self.ring.retire(open.socket);
    }
}

/// The first of the buffers that a connection has not looked at, and when it came.
fn take_held(held: &mut [Option<Held>], open: &mut Open) -> Option<(Picked, u64)> {
    let (first, last, count) = open.held;
    let Held { picked, ready_ns, next } = held.get_mut(usize::from(first))?.take()?;
    open.held = if count == 1 { (NONE, NONE, 0) } else { (next, last, count - 1) };
    Some((picked, ready_ns))
}

#[cfg(test)]
#[path = "uring/tests.rs"]
mod tests;
