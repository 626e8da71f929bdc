//! A connection's steps: one request, or one piece of one, from whatever input
//! there is. Each takes what it can use and says whether there may be more.

use crate::clock::Now;

use super::super::chunked::Next;
use super::super::request::{self, HeadScan};
use super::super::response::Status;
use super::super::service::Service;
use super::super::workspace::Workspace;
use super::{Begun, Connection, Phase, Step, desk};

impl Connection {
    pub(super) fn step_head<S: Service>(
        &mut self,
        input: &mut &[u8],
        now: Now,
        ws: &mut Workspace,
        service: &mut S,
    ) -> Step {
        if self.front > 0 && self.raw_size() > 0 {
            self.join_front_and_raw(ws);
        }
        if self.front > 0 {
            return self.step_carried_head(input, now, ws, service);
        }
        let (carry, mut desk) = desk(ws);
        let source = self.source(input, carry);
        match request::scan_head(source, 0, desk.limits.head_size_max) {
            Err(fault) => {
                self.refuse_framing(fault.status, fault.reason, false, &mut desk, service);
                Step::Again
            }
            Ok(HeadScan::Partial(0)) => Step::Starved,
            Ok(HeadScan::Partial(scanned)) => {
                let size = source.len();
                self.keep(size, input, ws);
                self.scanned = scanned as u32;
                Step::Starved
            }
            Ok(HeadScan::Complete(head_size)) => {
                let (head, rest) = source.split_at(head_size);
                match self.begin(head, rest, now, &mut desk, service) {
                    Begun::Done(body_size) => self.consume(head_size + body_size, input),
                    Begun::Kept => self.keep(head_size, input, ws),
                }
                Step::Again
            }
        }
    }

    /// The head began in an earlier input and lies in the front.
    pub(super) fn step_carried_head<S: Service>(
        &mut self,
        input: &mut &[u8],
        now: Now,
        ws: &mut Workspace,
        service: &mut S,
    ) -> Step {
        let head_size_max = ws.limits.head_size_max;
        let front = self.front as usize;
        let added = input.len().min(head_size_max - front);
        if added == 0 {
            return Step::Starved;
        }
        let slot = self.slot_mut(ws);
        slot[front..front + added].copy_from_slice(&input[..added]);
        let (carry, mut desk) = desk(ws);
        let bytes = &carry.slot(self.held())[..front + added];
        match request::scan_head(bytes, self.scanned as usize, head_size_max) {
            Err(fault) => {
                self.refuse_framing(fault.status, fault.reason, false, &mut desk, service);
                Step::Again
            }
            Ok(HeadScan::Partial(scanned)) => {
                self.front += added as u32;
                self.scanned = scanned as u32;
                *input = &input[added..];
                Step::Starved
            }
            Ok(HeadScan::Complete(head_size)) => {
                // What came behind the head is still in the input; it is
                // looked at there.
                let rest = &input[head_size - front..];
                match self.begin(&bytes[..head_size], rest, now, &mut desk, service) {
                    Begun::Done(body_size) => {
                        *input = &rest[body_size..];
                        self.front = 0;
                    }
                    Begun::Kept => {
                        *input = rest;
                        self.front = head_size as u32;
                    }
                }
                Step::Again
            }
        }
    }

    pub(super) fn step_body<S: Service>(
        &mut self,
        input: &mut &[u8],
        now: Now,
        ws: &mut Workspace,
        service: &mut S,
    ) -> Step {
        let size = self.source(input, &ws.carry).len().min(self.body_left as usize);
        if size == 0 {
            return Step::Starved;
        }
        self.keep(size, input, ws);
        self.body_left -= size as u32;
        if self.body_left == 0 {
            self.answer_front(input, now, ws, service);
        }
        Step::Again
    }

    pub(super) fn step_chunked<S: Service>(
        &mut self,
        input: &mut &[u8],
        now: Now,
        ws: &mut Workspace,
        service: &mut S,
    ) -> Step {
        let limit = self.admitted().body_size_max.min(ws.limits.body_size_max as u32);
        let size = match self.next_chunk(input, limit, ws, service) {
            Ok(Some(size)) => size,
            Ok(None) => {
                self.answer_front(input, now, ws, service);
                return Step::Again;
            }
            Err(step) => return step,
        };
        self.keep(size, input, ws);
        self.chunk.data_taken(size);
        self.body_taken += size as u32;
        Step::Again
    }

    pub(super) fn step_discard<S: Service>(
        &mut self,
        input: &mut &[u8],
        ws: &mut Workspace,
        service: &mut S,
    ) -> Step {
        let size = if self.chunked {
            let limit = ws.limits.body_size_max as u32;
            match self.next_chunk(input, limit, ws, service) {
                Ok(Some(size)) => {
                    self.chunk.data_taken(size);
                    self.body_taken += size as u32;
                    size
                }
                Ok(None) => {
                    self.phase = Phase::Head;
                    return Step::Again;
                }
                Err(step) => return step,
            }
        } else {
            let size = self.source(input, &ws.carry).len().min(self.body_left as usize);
            self.body_left -= size as u32;
            if self.body_left == 0 {
                self.phase = Phase::Head;
            } else if size == 0 {
                return Step::Starved;
            }
            size
        };
        self.consume(size, input);
        Step::Again
    }

    /// Reads chunk framing: the size of the data that is here now, or `None`
    /// at the body's end. `Err` is the step to end with.
    pub(super) fn next_chunk<S: Service>(
        &mut self,
        input: &mut &[u8],
        limit: u32,
        ws: &mut Workspace,
        service: &mut S,
    ) -> Result<Option<usize>, Step> {
        let source = self.source(input, &ws.carry);
        let available = source.len();
        let (taken, next) = match self.chunk.framing(source) {
            Ok(progress) => progress,
            Err(fault) => {
                self.refuse_body(Status::BadRequest, fault.0, ws, service);
                return Err(Step::Again);
            }
        };
        self.consume(taken, input);
        match next {
            Next::End => Ok(None),
            Next::More => Err(Step::Starved),
            Next::Data(size) if size > u64::from(limit - self.body_taken) => {
                self.refuse_body(Status::ContentTooLarge, "the body is too large", ws, service);
                Err(Step::Again)
            }
            Next::Data(size) => match size.min((available - taken) as u64) as usize {
                0 => Err(Step::Starved),
                size => Ok(Some(size)),
            },
        }
    }
}
