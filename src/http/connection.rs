//! http/connection
use super::service::Service;
use super::workspace::{PoolExhausted, Workspace};
use crate::clock::Now;

/// What a connection wants done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Output<'w> {
    /// Send these bytes, or some of them, and say how many: `handle_sent`.
    Send(&'w [u8]),
    /// Wait for input (or, at [`Wait::Write`], for the socket).
    Receive,
    /// Shut the write side, linger where `wants_linger`, close.
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

/// The state of one connection.
#[derive(Debug, Default)]
pub struct Connection {}

impl Connection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Input came: at most [`crate::limits::READ_BUFFER_SIZE`] bytes. All of it is taken.
    pub fn handle_input<S: Service>(&mut self, input: &[u8], now: Now, ws: &mut Workspace, service: &mut S) {
        let _ = (input, now, ws, service);
    }
    /// The peer shut its write side: finishes what is complete, then closes.
    pub fn handle_eof<S: Service>(&mut self, now: Now, ws: &mut Workspace, service: &mut S) {
        let _ = (now, ws, service);
    }
    /// What to do next.
    #[must_use]
    pub fn poll_output<'w>(&'w self, ws: &'w Workspace) -> Output<'w> {
        let _ = ws;
        Output::Receive
    }
    /// So many bytes of `Send` were taken; goes on with carried input once all were.
    pub fn handle_sent<S: Service>(&mut self, size: usize, now: Now, ws: &mut Workspace, service: &mut S) {
        let _ = (size, now, ws, service);
    }
    /// The socket takes no more now: output moves to a slot of the
    /// connection's own. Must be called before another connection is handled.
    ///
    /// # Errors
    /// No slot is free: evict the oldest holder and try again, or `release`.
    pub fn handle_blocked(&mut self, ws: &mut Workspace) -> Result<(), PoolExhausted> {
        let _ = ws;
        Ok(())
    }
    /// False while output is pending, carried input is to be looked at first, or closing.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        true
    }
    /// After `Close`: is the peer to be given time to read what was sent?
    #[must_use]
    pub fn wants_linger(&self) -> bool {
        true
    }
    /// What is waited for.
    #[must_use]
    pub fn wait(&self) -> Wait {
        Wait::Idle
    }
    /// Changes whenever a request has begun or been answered: a timer of the same
    /// [`Wait`] that was set at another turn is to be set anew.
    #[must_use]
    pub fn turn(&self) -> u32 {
        0
    }
    /// The timeout of [`Connection::wait`] has passed: Idle and Write close,
    /// Head and Body answer 408 and close.
    pub fn handle_timeout<S: Service>(&mut self, now: Now, ws: &mut Workspace, service: &mut S) {
        let _ = (now, ws, service);
    }
    /// The worker drains: `Connection: close` with the last answer to what was received.
    pub fn handle_drain(&mut self) {}
    /// Holds a carry slot.
    #[must_use]
    pub fn holds_carry(&self) -> bool {
        false
    }
    /// Holds a slot for untaken output.
    #[must_use]
    pub fn holds_pending(&self) -> bool {
        false
    }
    /// Gives all slots back. Call before the connection is forgotten.
    pub fn release(&mut self, ws: &mut Workspace) {
        let _ = ws;
    }
}
