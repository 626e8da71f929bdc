//! One connection as a state machine over bytes and time: `handle_*` is told
//! something, `poll_output` is asked what next. It owns no buffer: input is
//! borrowed from the backend, output is built in the worker's [`Workspace`].
//!
//! ```text
//!            ┌──────────────── answered ◄──────────────────────┐
//!            ▼                                                 │
//!  Head ──► judged ─┬─ whole body here already ────────────────┤
//!            │      ├─ body to come ──► Body, Chunked ─────────┤
//!            │      ├─ in lines ──────► Lines (answers stream) ┤
//!            │      └─ refused ───────► Discard (its body) ────┘
//!            └─ framing refused ──► closing: output is sent, then Close
//! ```
//!
//! Promises
//! - A request that is whole in the input is parsed and answered there: no
//!   byte of it is copied. Only what is unfinished moves to a carry slot, and
//!   of a chunked body the data, joined.
//! - How the input was cut changes no answer (only whether a `100 Continue`
//!   was still worth sending).
//! - Answers leave in the order of the requests. While less than the largest
//!   answer's room is left in the output, nothing is parsed; the rest of the
//!   input is carried and looked at when the output has been sent.
//! - Every byte is looked at a bounded number of times: the search for a
//!   head's end goes on where it stopped.
//! - What is refused after its head is answered at once and its body
//!   discarded, not kept, as long as it is no longer than a body may be. Where
//!   the client waits for `100 Continue` nobody knows whether the body will
//!   still be sent (RFC 9110 10.1.1), so then the connection is closed.

// The steps of the state machine, and what they stand on, each on its own.
mod carry;
mod judge;
mod lines;
mod steps;

use crate::clock::Now;

use self::judge::{body_end, holds_request, judge};
use super::chunked::Decoder;
use super::request::{self, BodyLength, Expect, Head, Method, Version};
use super::response::{Answer, AnswerMode, Out, Status};
use super::service::{Admission, BodyMode, Refusal, Request, Service};
use super::workspace::{DateLine, Limits, OutputBuffer, Pool, PoolExhausted, Slot, Workspace};

/// What a connection wants done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Output<'w> {
    /// Send these bytes, or some of them, and say how many
    /// ([`Connection::handle_sent`]) or that the socket takes none
    /// ([`Connection::handle_blocked`]).
    Send(&'w [u8]),
    /// Wait for input.
    Receive,
    /// Shut the write side, linger where [`Connection::wants_linger`], close.
    Close,
}

/// What a connection waits for, and so which timeout runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// A request's first byte.
    Idle,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
    /// The socket, to take output.
    Write,
}

/// Where in a request we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between requests, or in a head.
    Head,
    /// In a body of known length that is put together behind its head.
    Body,
    /// In a chunked body that is joined behind its head.
    Chunked,
    /// In a body that is answered line by line.
    Lines,
    /// In the body of a request that was refused.
    Discard,
}

/// Where output waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    /// In the worker's output buffer.
    Shared,
    /// In a slot of our own.
    Pending,
}

/// The state of one connection.
///
/// ```text
/// carry slot  [ front: head and body so far, or a line so far | … | raw: not looked at yet | … ]
///             0                                               front   raw_start      raw_end
/// ```
#[derive(Debug)]
pub struct Connection {
    chunk: Decoder,
    admission: Option<Admission>,
    carry: Option<Slot>,
    front: u32,
    raw_start: u32,
    raw_end: u32,
    /// How far the search for the head's end got in the front.
    scanned: u32,
    /// Of a request whose body is being put together.
    head_size: u32,
    /// Of a body of known length: what is still to come.
    body_left: u32,
    /// Of a chunked body: the data taken so far.
    body_taken: u32,
    pending: Option<Slot>,
    pending_start: u32,
    pending_end: u32,
    turn: u32,
    phase: Phase,
    place: Place,
    /// The body is chunked (Lines, Discard).
    chunked: bool,
    /// The answer in lines may be chunked, and its head has been written.
    lines_chunked: bool,
    lines_begun: bool,
    /// The rest of a line that was too long is being dropped.
    line_dropped: bool,
    /// The connection stays open after the answer in lines.
    keep_alive: bool,
    draining: bool,
    eof: bool,
    closing: bool,
    /// Nobody is there to read what was sent: no use lingering.
    abandoned: bool,
}

const _: () = assert!(size_of::<Connection>() <= 96);

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

/// The workspace without its pools: what an answer needs.
struct Desk<'w> {
    output: &'w mut OutputBuffer,
    scratch: &'w mut [u8],
    date: &'w DateLine,
    limits: &'w Limits,
}

/// The workspace, parted so that a slot may be read while an answer is written.
fn desk(ws: &mut Workspace) -> (&Pool, Desk<'_>) {
    let Workspace { limits, output, carry, scratch, date, .. } = ws;
    (carry, Desk { output, scratch, date, limits })
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Something was done; there may be more to do.
    Again,
    /// Nothing more without input.
    Starved,
}

/// What became of a head.
enum Begun {
    /// Done with it, and with so many bytes behind it.
    Done(usize),
    /// It is needed until its body is whole.
    Kept,
}

impl Connection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new() -> Self {
        Self {
            chunk: Decoder::default(),
            admission: None,
            carry: None,
            front: 0,
            raw_start: 0,
            raw_end: 0,
            scanned: 0,
            head_size: 0,
            body_left: 0,
            body_taken: 0,
            pending: None,
            pending_start: 0,
            pending_end: 0,
            turn: 0,
            phase: Phase::Head,
            place: Place::Nowhere,
            chunked: false,
            lines_chunked: false,
            lines_begun: false,
            line_dropped: false,
            keep_alive: false,
            draining: false,
            eof: false,
            closing: false,
            abandoned: false,
        }
    }

    // ── What the backend tells ─────────────────────────────────────────────

    /// Input came: at most [`crate::limits::READ_BUFFER_SIZE`] bytes. All of
    /// it is taken. Better not called while [`Connection::wants_input`] is
    /// false: such input is carried, and where it finds no room the
    /// connection is closed.
    pub fn handle_input<S: Service>(&mut self, input: &[u8], now: Now, ws: &mut Workspace, service: &mut S) {
        self.run(input, now, ws, service);
    }

    /// The peer shut its write side: what is complete is answered, then the
    /// connection closes.
    pub fn handle_eof<S: Service>(&mut self, now: Now, ws: &mut Workspace, service: &mut S) {
        self.eof = true;
        self.run(&[], now, ws, service);
    }

    /// So many bytes of [`Output::Send`] were taken. Once all were, goes on
    /// with carried input.
    ///
    /// # Panics
    /// Where that is more than there was to send.
    pub fn handle_sent<S: Service>(&mut self, size: usize, now: Now, ws: &mut Workspace, service: &mut S) {
        match self.place {
            Place::Nowhere => assert!(size == 0, "more was sent than there was"),
            Place::Shared => {
                ws.output.sent(size);
                if ws.output.is_empty() {
                    self.place = Place::Nowhere;
                }
            }
            Place::Pending => {
                let left = (self.pending_end - self.pending_start) as usize;
                assert!(size <= left, "more was sent than there was");
                self.pending_start += size as u32;
                if size == left {
                    self.drop_pending(ws);
                }
            }
        }
        if self.place == Place::Nowhere {
            self.run(&[], now, ws, service);
        }
    }

    /// The socket takes no more now: output moves to a slot of the
    /// connection's own. Must be called before another connection is handled.
    ///
    /// # Errors
    /// No slot is free: evict the oldest holder and call again, or
    /// [`Connection::release`] this one.
    pub fn handle_blocked(&mut self, ws: &mut Workspace) -> Result<(), PoolExhausted> {
        if self.place != Place::Shared {
            return Ok(());
        }
        let slot = ws.pending.take().ok_or(PoolExhausted)?;
        let unsent = ws.output.unsent();
        ws.pending.slot_mut(&slot)[..unsent.len()].copy_from_slice(unsent);
        (self.pending_start, self.pending_end) = (0, unsent.len() as u32);
        self.pending = Some(slot);
        self.place = Place::Pending;
        ws.output.clear();
        Ok(())
    }

    /// The timeout of [`Connection::wait`] has passed: Idle and Write close,
    /// Head and Body answer 408 (RFC 9110 15.5.9) and close.
    pub fn handle_timeout<S: Service>(&mut self, now: Now, ws: &mut Workspace, service: &mut S) {
        ws.set_time(now);
        match self.wait() {
            _ if self.closing && self.place == Place::Nowhere => {}
            Wait::Write => {
                self.drop_output(ws);
                self.abandoned = true;
                self.closing = true;
            }
            Wait::Idle => self.closing = true,
            Wait::Head => self.time_out("the request's head came too slowly", ws, service),
            Wait::Body if self.phase == Phase::Discard => self.closing = true,
            Wait::Body => self.time_out("the request's body came too slowly", ws, service),
        }
        self.settle(ws);
    }

    /// The worker drains: what was received is answered, the last answer says
    /// `Connection: close`, and then the connection closes. An idle one stays
    /// open until its next answer, or its timeout.
    pub fn handle_drain(&mut self) {
        self.draining = true;
    }

    /// Gives all slots back. Call before the connection is forgotten.
    pub fn release(&mut self, ws: &mut Workspace) {
        self.drop_output(ws);
        self.closing = true;
        self.abandoned = true;
        self.settle(ws);
    }

    // ── What the backend asks ──────────────────────────────────────────────

    /// What to do next.
    ///
    /// # Panics
    /// Never, unless the workspace is another's.
    #[must_use]
    pub fn poll_output<'w>(&'w self, ws: &'w Workspace) -> Output<'w> {
        match (self.place, &self.pending) {
            (Place::Shared, _) => Output::Send(ws.output.unsent()),
            (Place::Pending, Some(slot)) => {
                Output::Send(&ws.pending.slot(slot)[self.pending_start as usize..self.pending_end as usize])
            }
            (Place::Pending, None) => unreachable!("pending output has a slot"),
            (Place::Nowhere, _) if self.closing => Output::Close,
            (Place::Nowhere, _) => Output::Receive,
        }
    }

    /// False while output waits, and when closing.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.place == Place::Nowhere && !self.closing && !self.eof
    }

    /// After [`Output::Close`]: is the peer to be given time to read what was
    /// sent? (Closing with input unread would reset the connection and could
    /// destroy the last answer: RFC 9112 9.6.)
    #[must_use]
    pub fn wants_linger(&self) -> bool {
        !self.eof && !self.abandoned
    }

    /// Input was carried that nobody has looked at, for want of room for its answers:
    /// where there is some, [`Connection::handle_sent`] goes on, be it with nothing sent.
    #[must_use]
    pub fn wants_room(&self) -> bool {
        self.place == Place::Nowhere && !self.closing && self.raw_size() > 0
    }

    /// What is waited for.
    #[must_use]
    pub fn wait(&self) -> Wait {
        match self.phase {
            _ if self.place != Place::Nowhere => Wait::Write,
            Phase::Head if self.front == 0 => Wait::Idle,
            Phase::Head => Wait::Head,
            Phase::Body | Phase::Chunked | Phase::Lines | Phase::Discard => Wait::Body,
        }
    }

    /// Changes with every request that was read: a timer set for the same
    /// [`Wait`] at another turn is to be set anew.
    #[must_use]
    pub fn turn(&self) -> u32 {
        self.turn
    }

    /// Nothing but the timers would tell this connection from a new one.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.wait() == Wait::Idle && !self.closing
    }

    /// Holds a carry slot.
    #[must_use]
    pub fn holds_carry(&self) -> bool {
        self.carry.is_some()
    }

    /// Holds a slot for untaken output.
    #[must_use]
    pub fn holds_pending(&self) -> bool {
        self.pending.is_some()
    }

    // ── The loop ───────────────────────────────────────────────────────────

    fn run<S: Service>(&mut self, input: &[u8], now: Now, ws: &mut Workspace, service: &mut S) {
        ws.set_time(now);
        let mut input = input;
        if self.place == Place::Pending || (self.raw_size() > 0 && !input.is_empty()) {
            self.stash(input, ws);
            input = &[];
        }
        if self.place == Place::Pending {
            self.settle(ws);
            return;
        }
        assert!(
            self.place == Place::Shared || ws.output.is_empty(),
            "another connection's output was left in the worker's buffer"
        );
        while !self.closing {
            if !ws.output.has_room() {
                self.stash(input, ws);
                break;
            }
            let step = match self.phase {
                Phase::Head => self.step_head(&mut input, now, ws, service),
                Phase::Body => self.step_body(&mut input, now, ws, service),
                Phase::Chunked => self.step_chunked(&mut input, now, ws, service),
                Phase::Lines => self.step_lines(&mut input, now, ws, service),
                Phase::Discard => self.step_discard(&mut input, ws, service),
            };
            if step == Step::Starved {
                self.closing |= self.eof;
                break;
            }
        }
        self.settle(ws);
        if !ws.output.is_empty() {
            self.place = Place::Shared;
        }
    }

    /// Gives the carry slot back where nothing in it is needed any more.
    fn settle(&mut self, ws: &mut Workspace) {
        if self.closing {
            (self.front, self.raw_start, self.raw_end) = (0, 0, 0);
        }
        if self.front == 0
            && self.raw_size() == 0
            && let Some(slot) = self.carry.take()
        {
            ws.carry.give_back(slot);
        }
    }

    fn drop_pending(&mut self, ws: &mut Workspace) {
        if let Some(slot) = self.pending.take() {
            ws.pending.give_back(slot);
        }
        self.place = Place::Nowhere;
    }

    fn drop_output(&mut self, ws: &mut Workspace) {
        match self.place {
            Place::Nowhere => {}
            Place::Shared => ws.output.clear(),
            Place::Pending => self.drop_pending(ws),
        }
        self.place = Place::Nowhere;
    }

    // ── One request ────────────────────────────────────────────────────────

    /// Judges a complete head, and answers where all that takes is here.
    /// `rest` is what came behind it.
    fn begin<S: Service>(
        &mut self,
        head: &[u8],
        rest: &[u8],
        now: Now,
        desk: &mut Desk<'_>,
        service: &mut S,
    ) -> Begun {
        self.turn = self.turn.wrapping_add(1);
        self.head_size = head.len() as u32;
        self.scanned = 0;
        let head = match request::parse_head(head) {
            Ok(head) => head,
            Err(fault) => {
                self.refuse_framing(fault.status, fault.reason, false, desk, service);
                return Begun::Done(0);
            }
        };
        let admission = match judge(&head, desk.limits, service) {
            Ok(admission) => admission,
            Err(refusal) => {
                self.refuse(&head, rest, &refusal, desk, service);
                return Begun::Done(0);
            }
        };
        self.admission = Some(admission);
        self.chunk = Decoder::default();
        self.body_taken = 0;
        let awaited = match (admission.body, head.body) {
            (BodyMode::Whole, BodyLength::None) => {
                self.answer_whole(&head, b"", rest, now, desk, service);
                return Begun::Done(0);
            }
            (BodyMode::Whole, BodyLength::Known(size)) if size <= rest.len() as u64 => {
                let (body, rest) = rest.split_at(size as usize);
                self.answer_whole(&head, body, rest, now, desk, service);
                return Begun::Done(body.len());
            }
            (BodyMode::Whole, BodyLength::Known(size)) => {
                self.phase = Phase::Body;
                self.body_left = size as u32;
                true
            }
            (BodyMode::Whole, BodyLength::Chunked) => {
                self.phase = Phase::Chunked;
                true
            }
            (BodyMode::Lines, length) => {
                self.phase = Phase::Lines;
                self.chunked = length == BodyLength::Chunked;
                self.body_left = if let BodyLength::Known(size) = length { size as u32 } else { 0 };
                self.lines_begun = false;
                self.line_dropped = false;
                self.lines_chunked = head.version == Version::Http11;
                self.keep_alive = head.keep_alive;
                self.chunked || self.body_left > 0
            }
        };
        if awaited && head.expect == Expect::Continue && rest.is_empty() {
            Out::new(desk.output).push(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if admission.body == BodyMode::Lines { Begun::Done(0) } else { Begun::Kept }
    }

    /// Answers the request that was put together in the front.
    fn answer_front<S: Service>(&mut self, input: &[u8], now: Now, ws: &mut Workspace, service: &mut S) {
        if self.closing {
            return;
        }
        let (carry, mut desk) = desk(ws);
        let (head, body) = carry.slot(self.held())[..self.front as usize].split_at(self.head_size as usize);
        let head = request::parse_head(head).expect("this head was read before");
        let rest = self.source(input, carry);
        self.answer_whole(&head, body, rest, now, &mut desk, service);
        self.front = 0;
        self.phase = Phase::Head;
    }

    fn answer_whole<S: Service>(
        &mut self,
        head: &Head<'_>,
        body: &[u8],
        rest: &[u8],
        now: Now,
        desk: &mut Desk<'_>,
        service: &mut S,
    ) {
        let admission = self.admitted();
        let mode = self.mode(head, head.keep_alive, rest, desk.limits);
        let position = desk.output.position();
        let mut outcome = None;
        let answer = Answer::new(desk.output, desk.date.line(), mode, &mut outcome);
        service.answer(admission, &Request { head, body }, desk.scratch, now, answer);
        if outcome.is_none() {
            desk.output.truncate(position);
            Answer::new(desk.output, desk.date.line(), mode, &mut outcome)
                .problem(Status::InternalServerError, "the request got no answer");
        }
        self.closing |= mode.close;
        service.answered(admission, outcome.unwrap_or(Status::InternalServerError));
    }

    /// How the answer to `head` is to be framed, `rest` being what was
    /// received behind the request.
    fn mode(&self, head: &Head<'_>, keep_alive: bool, rest: &[u8], limits: &Limits) -> AnswerMode {
        // In a drain the last answer to what was received says so.
        let close = !keep_alive || (self.draining && !holds_request(rest, limits));
        AnswerMode {
            head_only: head.method == Method::Head,
            close,
            keep_alive: !close && head.version == Version::Http10,
        }
    }

    /// Refuses a request whose framing is sound: answers now, and discards
    /// the body that is still coming.
    fn refuse<S: Service>(
        &mut self,
        head: &Head<'_>,
        rest: &[u8],
        refusal: &Refusal,
        desk: &mut Desk<'_>,
        service: &mut S,
    ) {
        let body_is_bounded = match head.body {
            BodyLength::Known(size) => size <= desk.limits.body_size_max as u64,
            BodyLength::None | BodyLength::Chunked => true,
        };
        let body_is_doubtful = head.expect == Expect::Continue
            && rest.is_empty()
            && !matches!(head.body, BodyLength::None | BodyLength::Known(0));
        let keep_alive = head.keep_alive
            && refusal.status != Status::ContentTooLarge
            && body_is_bounded
            && !body_is_doubtful;
        let behind = match body_end(head.body, rest) {
            Some(end) if self.draining => &rest[end..],
            _ => &[],
        };
        let mode = self.mode(head, keep_alive, behind, desk.limits);
        let mut outcome = None;
        let mut answer = Answer::new(desk.output, desk.date.line(), mode, &mut outcome).start(refusal.status);
        if let Some(allow) = refusal.allow {
            answer.push_header("Allow", allow);
        }
        if let Some(seconds) = refusal.retry_after_s {
            answer.push_header("Retry-After", itoa::Buffer::new().format(seconds));
        }
        answer.problem(refusal.detail);
        service.refused(refusal.status, refusal.detail);
        self.closing |= mode.close;
        self.phase = Phase::Discard;
        self.chunked = head.body == BodyLength::Chunked;
        self.chunk = Decoder::default();
        self.body_taken = 0;
        self.body_left = match head.body {
            BodyLength::Known(size) if !self.closing => size as u32,
            _ => 0,
        };
    }

    /// Refuses a message whose framing cannot be trusted; nothing behind it
    /// is read.
    fn refuse_framing<S: Service>(
        &mut self,
        status: Status,
        reason: &'static str,
        head_only: bool,
        desk: &mut Desk<'_>,
        service: &mut S,
    ) {
        let mode = AnswerMode { head_only, close: true, keep_alive: false };
        let mut outcome = None;
        Answer::new(desk.output, desk.date.line(), mode, &mut outcome).problem(status, reason);
        service.refused(status, reason);
        self.closing = true;
    }

    /// Refuses in the middle of a body. Where the answer has begun, it ends
    /// with an error line and without its last chunk, so that nobody takes it
    /// for complete (RFC 9112 8).
    fn refuse_body<S: Service>(
        &mut self,
        status: Status,
        reason: &'static str,
        ws: &mut Workspace,
        service: &mut S,
    ) {
        let head_only = self.head_method_in_front(ws);
        let (_, mut desk) = desk(ws);
        match self.phase {
            // Its answer has left already.
            Phase::Discard => {}
            Phase::Lines if self.lines_begun => {
                self.write_line(&mut desk, service, |_, _, _, out| out.push_problem(status, reason));
                service.refused(status, reason);
            }
            _ => self.refuse_framing(status, reason, head_only, &mut desk, service),
        }
        self.closing = true;
    }

    /// Is the request whose body is being put together a HEAD?
    fn head_method_in_front(&self, ws: &Workspace) -> bool {
        matches!(self.phase, Phase::Body | Phase::Chunked)
            && self.carry.as_ref().is_some_and(|slot| ws.carry.slot(slot).starts_with(b"HEAD "))
    }

    fn time_out<S: Service>(&mut self, reason: &'static str, ws: &mut Workspace, service: &mut S) {
        assert!(ws.output.is_empty(), "another connection's output was left in the worker's buffer");
        self.refuse_body(Status::RequestTimeout, reason, ws, service);
        self.place = Place::Shared;
    }
}

#[cfg(test)]
mod tests;
