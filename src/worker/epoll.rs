//! The worker's loop over epoll, through mio: readiness comes in, bytes move,
//! the connection decides. Edge-triggered, so what was not read or accepted to
//! the end is remembered and gone on with in the next turn, after the others.
//!
//! Those who are ready together go through in steps together, some at a time:
//!
//! ```text
//! receive, receive, …  ─►  answer, answer, …  ─►  send, send, …
//! └── one buffer ────┘     └── one output ──┘
//! ```
//! The code of a step, the kernel's and ours, does not fit the first-level cache
//! together with another's; taken in turns for each request they push one another
//! out (a quarter of a worker's own time). Nobody waits for input by it.
//!
//! Invariants
//! - A request costs one `recv` and one `send`; a read shorter than its buffer
//!   has emptied the socket (epoll(7)), and the next byte makes a new edge. The
//!   end of the stream is another matter: it may have come with the bytes.
//! - The workspace's output belongs to one connection at a time: it is sent, set
//!   aside, or moved to the connection's own slot, before the next is looked at.
//! - Nobody is read from more than [`READS_A_TURN`] buffers a turn.
//! - When slots run out, whoever holds one longest goes; nobody else notices.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use arrayvec::ArrayVec;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::clock::{self, Now};
use crate::endpoint::App;
use crate::http::{Connection, Output, SetAside};
use crate::limits::READ_BUFFER_SIZE;
use crate::metrics::{Block, Family, Table};
use crate::sys::socket;

use super::connections::Key;
use super::control::Control;
use super::hall::{Gate, Guest, Hall, Porter};
use super::policy::Reason;
use super::timers::Class;
use super::{Listener, Outcome, PoolOptions};

/// Buffers read from one connection before the others have their turn.
const READS_A_TURN: usize = 4;
/// Connections that go through together: 32 were 1.02 to 1.03 times as fast as 16, and
/// the first of them has its answer 0.1 ms later than alone.
const GROUP_SIZE: usize = 32;
/// Input that is more than one request has: who was answered before is not kept waiting for it.
const LARGE_INPUT_SIZE: usize = 4096;
/// Of the read buffer, what must be left for another of them.
const GROUP_READ_SIZE: usize = READ_BUFFER_SIZE / 2;
/// Events taken from the kernel at once.
const EVENTS_A_TURN: usize = 1024;

const CHANNEL: Token = Token(usize::MAX);
/// Slot indexes stop below this; from here on a token names a listener.
const LISTENER_TOKENS: usize = 0xFFFF_0000;

/// An open connection.
pub struct Open {
    socket: OwnedFd,
    connection: Connection,
    /// The kernel may hold more input than was read.
    readable: bool,
    /// Since when.
    ready_ns: u64,
    /// Writability is awaited.
    awaits_write: bool,
    /// Its write side is shut; input is thrown away until FIN or the linger timeout.
    lingers: bool,
    /// `Connection::turn` when its timer was armed last.
    turn: u32,
    /// The peer shut its write side, which was read.
    ended: bool,
    /// The kernel has said so already: behind what is read there is the end.
    read_closed: bool,
}

impl Guest for Open {
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// One of those who go through together.
struct Asking {
    key: Key,
    /// Its input in the read buffer; none where it has ended.
    input: Range<usize>,
    /// What it has to say, and how many answers that is.
    output: SetAside,
    answer_count: u32,
}

/// The loop and all it keeps.
pub struct Backend<'r> {
    hall: Hall<'r, Open>,
    poll: Poll,
    events: Events,
    read_buffer: Box<[u8]>,
    group: ArrayVec<Asking, GROUP_SIZE>,
    /// Connections that have more to read than their turn allowed.
    again: Vec<Key>,
    next: Vec<Key>,
}

impl<'r> Backend<'r> {
    /// Takes all memory and serves the worker's own sockets from the next turn on.
    ///
    /// # Errors
    /// If the kernel refuses an epoll instance or one of the sockets.
    pub fn new(
        options: &PoolOptions,
        listeners: Vec<Listener>,
        control: Control,
        table: Table<'r>,
        block: Block<'r>,
    ) -> io::Result<Backend<'r>> {
        let hall: Hall<'r, Open> = Hall::new(options, listeners, control, table, block)?;
        let count_max = hall.connections.count_max();
        let mut backend = Backend {
            hall,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_A_TURN),
            read_buffer: vec![0; READ_BUFFER_SIZE].into_boxed_slice(),
            group: ArrayVec::new(),
            // One of a group may be in it twice.
            again: Vec::with_capacity(2 * count_max),
            next: Vec::with_capacity(2 * count_max),
        };
        if let Some(channel) = backend.hall.control.descriptor() {
            backend.poll.registry().register(
                &mut SourceFd(&channel.as_raw_fd()),
                CHANNEL,
                Interest::READABLE,
            )?;
        }
        backend.serve_gates(options.slot, true)?;
        Ok(backend)
    }

    /// Turns until there is a new plan, or nothing left to do.
    ///
    /// # Errors
    /// If the kernel refuses to wait: a broken belief, since all of it was registered.
    pub fn serve(&mut self, app: &mut App<'_, 'r>) -> io::Result<Outcome> {
        self.hall.control.in_force();
        loop {
            let end_ns = clock::mono_ns();
            app.end_turn(end_ns);
            let timeout = self.timeout(end_ns);
            match self.poll.poll(&mut self.events, Some(timeout)) {
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let now = clock::now();
            self.hall.begin_turn(now);
            self.hall.block.add(Family::SystemCalls, 1);
            app.begin_turn(now);
            app.desk().beat();
            self.take_events(now, app);
            self.go_on_reading(now, app);
            self.expire(now, app);
            self.hall.block.set(Family::Connections, self.hall.connections.count() as u64);
            if let Some(outcome) = self.take_orders(now)? {
                return Ok(outcome);
            }
            if self.drained(now) {
                return Ok(Outcome::Leave);
            }
        }
    }

    fn timeout(&self, now_ns: u64) -> Duration {
        if self.again.is_empty() { self.hall.timeout(now_ns) } else { Duration::ZERO }
    }

    fn take_events(&mut self, now: Now, app: &mut App<'_, '_>) {
        // The list is filled by the poll alone; taken out so that the rest of
        // `self` can be worked on, and put back.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                CHANNEL => self.hall.ordered = true,
                Token(token) if token as u32 as usize >= LISTENER_TOKENS => {
                    self.hall.gates[token - LISTENER_TOKENS].ready = true;
                }
                Token(token) => self.take_event(event, Key::from_word(token as u64), now, app),
            }
        }
        self.events = events;
        self.answer_group(now, app);
        self.accept(now);
    }

    fn take_event(&mut self, event: &Event, key: Key, now: Now, app: &mut App<'_, '_>) {
        let Some(open) = self.hall.connections.get(key) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            if !open.readable {
                open.ready_ns = now.mono_ns;
            }
            open.readable = true;
        }
        open.read_closed |= event.is_read_closed();
        if !self.join_group(key, now, app) {
            self.answer_group(now, app);
            self.progress(key, now, app);
        }
    }

    /// Receives from a connection that has nothing else to do, and lets it go with the
    /// group. False where it must go alone.
    fn join_group(&mut self, key: Key, now: Now, app: &mut App<'_, '_>) -> bool {
        let used = |group: &[Asking]| group.last().map_or(0, |last| last.input.end);
        if self.group.is_full() || self.read_buffer.len() - used(&self.group) < GROUP_READ_SIZE {
            self.answer_group(now, app);
        }
        let begin = used(&self.group);
        let Some(open) = self.hall.connections.get(key) else { return true };
        let has_slot = open.connection.holds_carry() || self.hall.workspace.carry_free() > self.group.len();
        let waits = open.connection.poll_output(&self.hall.workspace) == Output::Receive;
        if open.lingers || !open.readable || !open.connection.wants_input() || !waits || !has_slot {
            return false;
        }
        let room = &mut self.read_buffer[begin..];
        self.hall.block.add(Family::SystemCalls, 1);
        match socket::recv(&open.socket, room) {
            Ok(size) => {
                // An end that came with the bytes makes no edge of its own.
                open.readable = size > 0 && (open.read_closed || size == room.len());
                open.ended = size == 0;
                self.hall.block.add(Family::BytesReceived, size as u64);
                let (input, output) = (begin..begin + size, SetAside::default());
                self.group.push(Asking { key, input, output, answer_count: 0 });
            }
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => open.readable = false,
            Err(_) => self.close(key, Reason::Peer, now),
        }
        true
    }

    /// Answers those of the group, and sends their answers.
    fn answer_group(&mut self, now: Now, app: &mut App<'_, '_>) {
        let mut sent_count = 0;
        for index in 0..self.group.len() {
            let is_large = self.group[index].input.len() > LARGE_INPUT_SIZE;
            if is_large || !self.hall.workspace.has_room() {
                self.send_group(sent_count..index, now, app);
                sent_count = index;
            }
            let Asking { key, input, output, answer_count } = &mut self.group[index];
            let Some(open) = self.hall.connections.get(*key) else { continue };
            app.pace().look(open.ready_ns);
            let before = app.pace().waiting();
            if input.start == input.end {
                open.connection.handle_eof(now, &mut self.hall.workspace, app);
            } else {
                let input = &self.read_buffer[input.clone()];
                open.connection.handle_input(input, now, &mut self.hall.workspace, app);
            }
            *output = self.hall.workspace.set_aside();
            *answer_count = app.pace().waiting().saturating_sub(before);
            app.pace().moved_on(clock::mono_ns());
        }
        self.send_group(sent_count..self.group.len(), now, app);
        self.group.clear();
    }

    /// Sends what those who were answered have to say. Who has more input than was
    /// received has another turn for it.
    fn send_group(&mut self, answered: Range<usize>, now: Now, app: &mut App<'_, '_>) {
        for index in answered.clone() {
            let Asking { key, output, answer_count, .. } = self.group[index];
            if self.hall.connections.get(key).is_some() {
                self.hall.workspace.bring_back(output);
                self.move_on(key, READS_A_TURN, answer_count, now, app);
            }
        }
        self.hall.workspace.forget_aside();
        // Beside the others' output there was no room for what more it had asked.
        for index in answered {
            let key = self.group[index].key;
            if let Some(open) = self.hall.connections.get(key)
                && open.connection.wants_room()
            {
                open.connection.handle_sent(0, now, &mut self.hall.workspace, app);
                self.move_on(key, READS_A_TURN, u32::MAX, now, app);
            }
        }
    }

    fn go_on_reading(&mut self, now: Now, app: &mut App<'_, '_>) {
        if self.again.is_empty() {
            return;
        }
        // Accepting took its time.
        app.pace().moved_on(clock::mono_ns());
        std::mem::swap(&mut self.again, &mut self.next);
        for index in 0..self.next.len() {
            self.progress(self.next[index], now, app);
        }
        self.next.clear();
    }

    /// Moves one connection as far as it goes without waiting.
    fn progress(&mut self, key: Key, now: Now, app: &mut App<'_, '_>) {
        self.move_on(key, 0, u32::MAX, now, app);
    }

    /// The same, after so many reads; of the answers that wait to be handed over, so many
    /// are its own.
    fn move_on(&mut self, key: Key, reads: usize, answer_count: u32, now: Now, app: &mut App<'_, '_>) {
        let mut reads = reads;
        let mut wrote = false;
        let mut calls = 0;
        if let Some(open) = self.hall.connections.get(key) {
            app.pace().look(open.ready_ns);
        }
        let closing = loop {
            let Some(open) = self.hall.connections.get(key) else { break None };
            if open.lingers {
                return self.linger(key);
            }
            match open.connection.poll_output(&self.hall.workspace) {
                Output::Send(bytes) => match counted(&mut calls, socket::send(&open.socket, bytes)) {
                    Ok(size) => {
                        self.hall.block.add(Family::BytesSent, size as u64);
                        open.connection.handle_sent(size, now, &mut self.hall.workspace, app);
                        wrote = true;
                    }
                    Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                        if !self.await_write(key) {
                            break Some(Reason::Error);
                        }
                        break None;
                    }
                    Err(_) => break Some(Reason::Peer),
                },
                Output::Close => break Some(if open.ended { Reason::Peer } else { Reason::Answered }),
                Output::Receive => {
                    if !open.readable || !open.connection.wants_input() {
                        break None;
                    }
                    if reads == READS_A_TURN {
                        self.again.push(key);
                        break None;
                    }
                    if self.hall.workspace.carry_free() == 0 && !open.connection.holds_carry() {
                        self.evict(&[Class::Head, Class::Body]);
                    }
                    let Some(open) = self.hall.connections.get(key) else { break None };
                    match counted(&mut calls, socket::recv(&open.socket, &mut self.read_buffer)) {
                        Ok(0) => {
                            (open.readable, open.ended) = (false, true);
                            open.connection.handle_eof(now, &mut self.hall.workspace, app);
                        }
                        Ok(size) => {
                            reads += 1;
                            self.hall.block.add(Family::BytesReceived, size as u64);
                            // An end that came with the bytes makes no edge of its own.
                            open.readable = open.read_closed || size == self.read_buffer.len();
                            let input = &self.read_buffer[..size];
                            open.connection.handle_input(input, now, &mut self.hall.workspace, app);
                        }
                        Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => open.readable = false,
                        Err(_) => break Some(Reason::Peer),
                    }
                }
            }
        };
        self.hall.block.add(Family::SystemCalls, calls);
        app.first_handed_over(clock::mono_ns(), answer_count);
        match closing {
            Some(reason) => self.close(key, reason, now),
            None => self.rearm(key, wrote, now),
        }
    }

    /// The socket takes no more: the output moves out of the workspace, and the
    /// kernel is asked to say when there is room. False if that can't be.
    fn await_write(&mut self, key: Key) -> bool {
        let holds = self.hall.connections.get(key).is_some_and(|open| open.connection.holds_pending());
        if !holds && self.hall.workspace.pending_free() == 0 {
            self.evict(&[Class::Write]);
        }
        let Some(open) = self.hall.connections.get(key) else { return false };
        if open.connection.handle_blocked(&mut self.hall.workspace).is_err() {
            return false;
        }
        if !open.awaits_write {
            open.awaits_write = true;
            let both = Interest::READABLE | Interest::WRITABLE;
            let raw = open.socket.as_raw_fd();
            let token = Token(key.to_word() as usize);
            return self.poll.registry().reregister(&mut SourceFd(&raw), token, both).is_ok();
        }
        true
    }

    /// Starts the timer anew where what is waited for has changed or moved on.
    fn rearm(&mut self, key: Key, wrote: bool, now: Now) {
        let Some(open) = self.hall.connections.get(key) else { return };
        let class = Class::of(open.connection.wait());
        let turn = open.connection.turn();
        let moved = turn != open.turn || (wrote && class == Class::Write);
        if moved || self.hall.timers.class(key.index) != Some(class) {
            open.turn = turn;
            self.hall.timers.arm(key.index, class, now);
        }
    }

    /// Throws away what a closing connection still sends, until its FIN.
    fn linger(&mut self, key: Key) {
        for _ in 0..READS_A_TURN {
            let Some(open) = self.hall.connections.get(key) else { return };
            match socket::recv(&open.socket, &mut self.read_buffer) {
                Ok(0) => return self.forget(key),
                Ok(size) => self.hall.block.add(Family::BytesReceived, size as u64),
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.forget(key),
            }
        }
        self.again.push(key);
    }

    fn expire(&mut self, now: Now, app: &mut App<'_, '_>) {
        while let Some((index, class)) = self.hall.timers.expire(now) {
            let Some(key) = self.hall.connections.key(index) else { continue };
            let Some(open) = self.hall.connections.get(key) else { continue };
            if class == Class::Linger {
                self.forget(key);
                continue;
            }
            app.pace().look(now.mono_ns);
            open.connection.handle_timeout(now, &mut self.hall.workspace, app);
            if class == Class::Idle {
                self.close(key, Reason::IdleTimeout, now);
                continue;
            }
            // What there is to say (408) is sent as far as the socket takes it.
            while let Some(open) = self.hall.connections.get(key)
                && let Output::Send(bytes) = open.connection.poll_output(&self.hall.workspace)
                && let Ok(size) = socket::send(&open.socket, bytes)
            {
                self.hall.block.add(Family::BytesSent, size as u64);
                open.connection.handle_sent(size, now, &mut self.hall.workspace, app);
            }
            self.close(key, Reason::Slow, now);
        }
    }
}

impl<'r> Porter<'r> for Backend<'r> {
    type Open = Open;

    fn hall(&mut self) -> &mut Hall<'r, Open> {
        &mut self.hall
    }

    fn watch(&mut self, gate: usize) -> io::Result<()> {
        let Gate { listener, served, .. } = &self.hall.gates[gate];
        let raw = listener.fd.as_fd().as_raw_fd();
        let registry = self.poll.registry();
        if *served {
            registry.register(&mut SourceFd(&raw), Token(LISTENER_TOKENS + gate), Interest::READABLE)
        } else {
            registry.deregister(&mut SourceFd(&raw))
        }
    }

    fn enter(&mut self, socket: OwnedFd, connection: Connection, now: Now) {
        let raw = socket.as_raw_fd();
        let open = Open {
            socket,
            turn: connection.turn(),
            connection,
            readable: false,
            ready_ns: now.mono_ns,
            awaits_write: false,
            lingers: false,
            ended: false,
            read_closed: false,
        };
        let key = self.hall.connections.insert(open);
        let token = Token(key.to_word() as usize);
        // Input that came before is an edge of the registration.
        if self.poll.registry().register(&mut SourceFd(&raw), token, Interest::READABLE).is_ok() {
            self.hall.timers.arm(key.index, Class::Idle, now);
        } else {
            self.hall.block.add_at(Family::ConnectionsClosed, Reason::Error as usize, 1);
            self.forget(key);
        }
    }

    /// Shuts the write side and gives the peer time to read, or closes at once.
    fn close(&mut self, key: Key, reason: Reason, now: Now) {
        let Some(open) = self.hall.connections.get(key) else { return };
        let lingers = open.connection.wants_linger() && !open.ended && !matches!(reason, Reason::Peer);
        if lingers && socket::shutdown_write(&open.socket).is_ok() {
            open.lingers = true;
            // Output of this connection may still lie in the workspace.
            open.connection.release(&mut self.hall.workspace);
            self.hall.timers.arm(key.index, Class::Linger, now);
            self.hall.block.add_at(Family::ConnectionsClosed, reason as usize, 1);
            self.linger(key);
        } else {
            self.hall.block.add_at(Family::ConnectionsClosed, reason as usize, 1);
            self.forget(key);
        }
    }

    fn forget(&mut self, key: Key) {
        if let Some(mut open) = self.hall.connections.remove(key) {
            open.connection.release(&mut self.hall.workspace);
            self.hall.timers.disarm(key.index);
            // Closing the socket takes it out of epoll: no other descriptor has it.
        }
    }
}

/// Counts a system call beside its result.
fn counted<T>(calls: &mut u64, result: T) -> T {
    *calls += 1;
    result
}
