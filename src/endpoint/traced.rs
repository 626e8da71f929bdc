//! What the endpoints tell the tracer, where there is one. Built without the
//! feature `tracing` there is never one, and nothing of this is left; with it, and
//! tracing off, each call is one branch that always goes the same way.

use crate::clock::Now;
use crate::http::{Head, Method};
use crate::metrics::pace::Pace;
use crate::trace::{Stage, Subject, Tracer};

use super::{App, BATCH, Desk, Path, ROUTES, TICKET};

impl<'r> Desk<'r> {
    /// From here on requests are traced.
    pub fn trace(&mut self, tracer: Tracer<'r>) {
        self.tracer = Some(Box::new(tracer));
    }

    #[inline]
    pub(super) fn tracer(&mut self) -> Option<(&mut Tracer<'r>, &Pace<'r>)> {
        match &mut self.tracer {
            Some(tracer) if cfg!(feature = "tracing") => Some((tracer, &self.pace)),
            _ => None,
        }
    }

    /// A request's head was read, or another piece of the request.
    #[inline]
    pub(super) fn trace_head(&mut self, head: &Head<'_>, route: Option<u16>) {
        if let Some((tracer, pace)) = self.tracer() {
            let route = route.map_or("", template);
            let subject = Subject { method: method(head.method), route, traceparent: head.traceparent };
            tracer.head(pace, &subject);
        }
    }

    /// Its body comes in lines, maybe in pieces: what is to be said with each.
    #[inline]
    pub(super) fn trace_ticket(&mut self) -> u16 {
        self.tracer().map_or(0, |(tracer, _)| tracer.ticket() * TICKET)
    }

    /// A line of a batch comes next.
    #[inline]
    pub(super) fn trace_line(&mut self, options: u16) {
        if let Some((tracer, pace)) = self.tracer() {
            let subject = Subject { method: "POST", route: template(BATCH), traceparent: None };
            tracer.line(pace, options / TICKET, &subject);
        }
    }

    /// A stage of what is looked at is over.
    #[inline]
    pub(super) fn trace_stage(&mut self, stage: Stage) {
        if let Some((tracer, _)) = self.tracer() {
            tracer.mark(stage);
        }
    }

    /// So many experiments were assigned, and the exposure is in its ring.
    #[inline]
    pub(super) fn trace_recorded(&mut self, assignment_count: usize) {
        if let Some((tracer, _)) = self.tracer() {
            tracer.assigned(assignment_count);
            tracer.mark(Stage::Record);
        }
    }

    #[inline]
    pub(super) fn trace_answered(&mut self, status: u16) {
        if let Some((tracer, pace)) = self.tracer() {
            tracer.answered(pace, status);
        }
    }
}

impl App<'_, '_> {
    /// The wait has returned.
    #[inline]
    pub fn begin_turn(&mut self, now: Now) {
        self.desk.pace.begin_turn(now.mono_ns);
        if let Some((tracer, _)) = self.desk.tracer() {
            tracer.begin_turn(now);
        }
    }

    /// The next wait begins; whatever was answered is with the kernel by then.
    #[inline]
    pub fn end_turn(&mut self, now_ns: u64) {
        self.desk.pace.end_turn(now_ns);
        if let Some((tracer, _)) = self.desk.tracer() {
            tracer.end_turn(now_ns);
        }
    }

    /// A connection was moved on as far as it goes, and the kernel has whatever
    /// was answered.
    #[inline]
    pub fn handed_over(&mut self, now_ns: u64) {
        self.first_handed_over(now_ns, u32::MAX);
    }

    /// The same, and the kernel has the first so many answers.
    #[inline]
    pub fn first_handed_over(&mut self, now_ns: u64, count: u32) {
        self.desk.pace.first_handed_over(now_ns, count);
        if let Some((tracer, _)) = self.desk.tracer() {
            tracer.first_handed_over(now_ns, count as usize);
        }
    }
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        // As OpenTelemetry's conventions have what is not worth a name.
        Method::Standard | Method::Unknown => "_OTHER",
    }
}

/// A route's path, its variable in braces.
fn template(route: u16) -> &'static str {
    match ROUTES[usize::from(route)].path {
        Path::Exact(path) => path,
        Path::Experiment("/v1/assign/") => "/v1/assign/{experiment}",
        Path::Experiment(_) => "/v1/explain/{experiment}",
    }
}
