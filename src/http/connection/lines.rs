//! A connection's bodies in lines: one line in, one line out, both streamed.
//!
//! - The answer's head is written with its first line, so that what shows
//!   before is still answered with its own status.
//! - Every line of answer is a chunk; HTTP/1.0 reads until the connection
//!   closes.
//! - A line longer than a body may be is answered with an error and dropped;
//!   the rest goes on.

use crate::clock::Now;

use super::super::response::{Answer, AnswerMode, ContentType, Out, Status};
use super::super::service::{Admission, LinesHead, Service};
use super::super::workspace::Workspace;
use super::{Connection, Desk, Phase, Step, desk};

impl Connection {
    /// A body of lines: one line, or what there is of one.
    pub(super) fn step_lines<S: Service>(
        &mut self,
        input: &mut &[u8],
        now: Now,
        ws: &mut Workspace,
        service: &mut S,
    ) -> Step {
        let data_size = if self.chunked {
            let limit = self.admitted().body_size_max;
            match self.next_chunk(input, limit, ws, service) {
                Ok(Some(size)) => size,
                Ok(None) => return self.end_lines(now, ws, service),
                Err(step) => return step,
            }
        } else {
            if self.body_left == 0 {
                return self.end_lines(now, ws, service);
            }
            match self.source(input, &ws.carry).len().min(self.body_left as usize) {
                0 => return Step::Starved,
                size => size,
            }
        };
        let (carry, mut desk) = desk(ws);
        let data = &self.source(input, carry)[..data_size];
        let feed = memchr::memchr(b'\n', data);
        // What belongs to the line, and what is taken with its LF.
        let piece_size = feed.unwrap_or(data_size);
        let taken = feed.map_or(data_size, |at| at + 1);
        if self.line_dropped {
            self.line_dropped = feed.is_none();
            self.consume(taken, input);
        } else if self.front as usize + piece_size > desk.limits.body_size_max {
            self.write_line(&mut desk, service, |_, _, _, out| {
                out.push_problem(Status::ContentTooLarge, "the line is too long");
            });
            self.front = 0;
            self.line_dropped = feed.is_none();
            self.consume(taken, input);
        } else if feed.is_some() && self.front == 0 {
            self.answer_line(&data[..piece_size], now, &mut desk, service);
            self.consume(taken, input);
        } else {
            self.keep(piece_size, input, ws);
            if feed.is_some() && !self.closing {
                self.consume(1, input);
                self.answer_front_line(now, ws, service);
            }
        }
        if self.chunked {
            self.chunk.data_taken(taken);
            self.body_taken += taken as u32;
        } else {
            self.body_left -= taken as u32;
        }
        Step::Again
    }

    pub(super) fn end_lines<S: Service>(&mut self, now: Now, ws: &mut Workspace, service: &mut S) -> Step {
        if self.front > 0 {
            self.answer_front_line(now, ws, service);
        }
        let admission = self.admitted();
        let (_, mut desk) = desk(ws);
        self.begin_lines(&mut desk, service);
        if self.lines_chunked {
            Out::new(desk.output).push(b"0\r\n\r\n");
        }
        self.phase = Phase::Head;
        self.closing |= !self.keep_alive;
        service.answered(admission, Status::Ok);
        Step::Again
    }

    /// Writes the head of an answer in lines, once.
    pub(super) fn begin_lines<S: Service>(&mut self, desk: &mut Desk<'_>, service: &mut S) {
        if self.lines_begun {
            return;
        }
        self.lines_begun = true;
        // Without chunks only the connection's end marks the answer's.
        self.keep_alive &= self.lines_chunked && !self.draining;
        let mode = AnswerMode { head_only: false, close: !self.keep_alive, keep_alive: false };
        let mut outcome = None;
        let mut head = Answer::new(desk.output, desk.date.line(), mode, &mut outcome).start(Status::Ok);
        service.lines_begin(self.admitted(), &mut LinesHead::new(&mut head));
        head.stream(ContentType::JsonLines, self.lines_chunked);
    }

    pub(super) fn answer_line<S: Service>(
        &mut self,
        line: &[u8],
        now: Now,
        desk: &mut Desk<'_>,
        service: &mut S,
    ) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.write_line(desk, service, |service, admission, scratch, out| {
            service.answer_line(admission, line, scratch, now, out);
        });
    }

    /// Answers the line that was put together in the front.
    pub(super) fn answer_front_line<S: Service>(&mut self, now: Now, ws: &mut Workspace, service: &mut S) {
        let (carry, mut desk) = desk(ws);
        let line: &[u8] = match &self.carry {
            Some(slot) => &carry.slot(slot)[..self.front as usize],
            None => &[],
        };
        self.answer_line(line, now, &mut desk, service);
        self.front = 0;
    }

    /// One line of answer, as one chunk (RFC 9112 7.1) where there are chunks.
    pub(super) fn write_line<S: Service>(
        &mut self,
        desk: &mut Desk<'_>,
        service: &mut S,
        write: impl FnOnce(&mut S, Admission, &mut [u8], &mut Out<'_>),
    ) {
        const SIZE_PLACE: &[u8] = b"0000000\r\n";
        self.begin_lines(desk, service);
        if self.lines_chunked {
            Out::new(desk.output).push(SIZE_PLACE);
        }
        let begin = desk.output.position();
        let mut out = Out::new(desk.output);
        write(service, self.admitted(), desk.scratch, &mut out);
        if out.overflowed() || desk.output.position() == begin || !desk.output.has_tail_room() {
            desk.output.truncate(begin);
            Out::new(desk.output)
                .push_problem(Status::InternalServerError, "the line got no answer that the server allows");
        }
        if desk.output.written_mut(begin, desk.output.position() - begin).last() != Some(&b'\n') {
            Out::new(desk.output).push(b"\n");
        }
        if self.lines_chunked {
            let mut size = desk.output.position() - begin;
            let place = desk.output.written_mut(begin - SIZE_PLACE.len(), SIZE_PLACE.len() - 2);
            for digit in place.iter_mut().rev() {
                *digit = b"0123456789abcdef"[size & 0xF];
                size >>= 4;
            }
            Out::new(desk.output).push(b"\r\n");
        }
    }
}
