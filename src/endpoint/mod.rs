//! Where HTTP and the engine meet: which routes there are, and what each does
//! with a request. One [`App`] a worker and plan; it allocates when it is made
//! and, but for explain, never while it answers.
//!
//! To add a route: a row in [`ROUTES`], its label in `metrics::ROUTES`, and an
//! arm in [`App::answer`](Service::answer).

mod assign;
mod explain;
mod form;
mod health;
mod shed;
mod status;
mod tally;
mod traced;

pub use health::agent_line;
pub use shed::Shed;
pub use tally::{Tally, expect, learn};

use crate::clock::Now;
use crate::engine::assignment::{Decision, ExperimentIndex};
use crate::engine::attributes::Facts;
use crate::engine::plan::Plan;
use crate::exposure::ring::Writer;
use crate::http::{
    Admission, Answer, BodyMode, ContentType, Head, HeaderLine, LinesHead, Media, MemberOrder, Method, Out,
    Refusal, Request, Service, Status, percent_decode, query_options,
};
use crate::limits::{ANSWER_SIZE_MAX, EXPOSURE_SIZE_MAX, HEAD_SIZE_MAX, NAME_SIZE_MAX, REPORT_SIZE_MAX};
use crate::metrics::pace::Pace;
use crate::metrics::render::{Format, render};
use crate::metrics::{self, Block, Family, Table, request_cell};
use crate::status::snapshot::RingWords;
use crate::trace::Tracer;

/// Groups of routes that a pool's `routes` setting names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteGroup {
    /// `assign`: GET and POST `/v1/assign`, and `/v1/assign/{experiment}`.
    Assign,
    /// `batch`: POST `/v1/batch`.
    Batch,
    /// `explain`: GET and POST `/v1/explain`, and `/v1/explain/{experiment}`.
    Explain,
    /// `health`: GET `/livez`, `/readyz`.
    Health,
    /// `metrics`: GET `/metrics`.
    Metrics,
    /// `status`: GET `/v1/status`, and the page at `/`.
    Status,
}

impl RouteGroup {
    /// Whether its routes record exposures.
    #[must_use]
    pub fn records(self) -> bool {
        matches!(self, RouteGroup::Assign | RouteGroup::Batch)
    }

    /// No answer of its routes is larger, head included.
    #[must_use]
    pub fn answer_size_max(self) -> usize {
        match self {
            RouteGroup::Explain | RouteGroup::Status => REPORT_SIZE_MAX + HEAD_SIZE_MAX,
            _ => ANSWER_SIZE_MAX,
        }
    }
}

/// Which paths a route answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// This one.
    Exact(&'static str),
    /// This, followed by an experiment's name, percent-encoded.
    Experiment(&'static str),
}

/// One row of the route table.
struct Route {
    path: Path,
    group: RouteGroup,
    /// The Allow header, which is also the list of what is allowed.
    allow: &'static str,
    body: BodyMode,
    media: Media,
}

const ASSIGN: u16 = 0;
const EXPERIMENT: u16 = 1;
const BATCH: u16 = 2;
const LIVEZ: u16 = 3;
const READYZ: u16 = 4;
const METRICS: u16 = 5;
const EXPLAIN: u16 = 6;
const EXPLAIN_EXPERIMENT: u16 = 7;
const STATUS: u16 = 8;
const PAGE: u16 = 9;

const GET: &str = "GET, HEAD";
const POST: &str = "POST";
const BOTH: &str = "GET, HEAD, POST";

/// Every route, in the order of `metrics::ROUTES`.
const ROUTES: &[Route] = &[
    route(Path::Exact("/v1/assign"), RouteGroup::Assign, BOTH, BodyMode::Whole, Media::Json),
    route(Path::Experiment("/v1/assign/"), RouteGroup::Assign, BOTH, BodyMode::Whole, Media::Json),
    route(Path::Exact("/v1/batch"), RouteGroup::Batch, POST, BodyMode::Lines, Media::JsonLines),
    route(Path::Exact("/livez"), RouteGroup::Health, GET, BodyMode::Whole, Media::Any),
    route(Path::Exact("/readyz"), RouteGroup::Health, GET, BodyMode::Whole, Media::Any),
    route(Path::Exact("/metrics"), RouteGroup::Metrics, GET, BodyMode::Whole, Media::Any),
    route(Path::Exact("/v1/explain"), RouteGroup::Explain, BOTH, BodyMode::Whole, Media::Json),
    route(Path::Experiment("/v1/explain/"), RouteGroup::Explain, BOTH, BodyMode::Whole, Media::Json),
    route(Path::Exact("/v1/status"), RouteGroup::Status, GET, BodyMode::Whole, Media::Any),
    route(Path::Exact("/"), RouteGroup::Status, GET, BodyMode::Whole, Media::Any),
];

const fn route(path: Path, group: RouteGroup, allow: &'static str, body: BodyMode, media: Media) -> Route {
    Route { path, group, allow, body, media }
}

/// `Admission::options` of a batch: `payloads=true` was asked for.
const WITH_PAYLOADS: u16 = 1;
/// `Admission::options` of a batch: `exposure=false` was asked for.
const WITHOUT_EXPOSURE: u16 = 2;
/// `Admission::options` of assigning: the answer is to be empty.
const SHED: u16 = 4;
/// `Admission::options` of a batch: from here on they are the tracer's ticket.
const TICKET: u16 = 8;

/// How a pool's routes answer, from the settings.
#[derive(Debug, Clone, Copy)]
pub struct AppOptions {
    /// `validation = "strict"`: a value of the wrong type is refused with 422.
    pub validation_strict: bool,
    /// Record answers without an assignment, too.
    pub record_empty: bool,
    /// Record the attributes as they came.
    pub record_context: bool,
    /// What is done for requests that have waited long.
    pub shed: Shed,
    /// Largest body of a batch, in bytes.
    pub batch_body_size_max: usize,
}

/// What a worker keeps for its answers over all plans.
pub struct Desk<'r> {
    options: AppOptions,
    groups: Vec<RouteGroup>,
    ring: Option<Writer<'r>>,
    record: Vec<u8>,
    table: Table<'r>,
    block: Block<'r>,
    pace: Pace<'r>,
    rings: Vec<RingWords<'r>>,
    tracer: Option<Box<Tracer<'r>>>,
}

impl<'r> Desk<'r> {
    /// `ring` is there where a route records; `block` is the worker's own in `table`.
    #[must_use]
    pub fn new(
        options: AppOptions,
        groups: Vec<RouteGroup>,
        ring: Option<Writer<'r>>,
        table: Table<'r>,
        block: Block<'r>,
    ) -> Desk<'r> {
        let size = if ring.is_some() { EXPOSURE_SIZE_MAX } else { 0 };
        let pace = Pace::new(block);
        let record = Vec::with_capacity(size);
        Desk { options, groups, ring, record, table, block, pace, rings: Vec::new(), tracer: None }
    }

    /// The instance's rings, for the route that shows them.
    pub fn show_rings(&mut self, rings: Vec<RingWords<'r>>) {
        self.rings = rings;
    }

    /// Says to whoever watches the ring that its writer is alive.
    pub fn beat(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.beat();
        }
    }
}

/// The endpoints over one plan.
pub struct App<'a, 'r> {
    plan: &'a Plan<'a>,
    /// Says by which experiments file an answer was decided.
    version_line: HeaderLine,
    order: MemberOrder,
    facts: Facts,
    decision: Decision,
    tally: Tally,
    source: explain::Source,
    desk: &'a mut Desk<'r>,
}

impl<'a, 'r> App<'a, 'r> {
    /// Takes all memory that answering by this plan needs.
    #[must_use]
    pub fn new(plan: &'a Plan<'a>, desk: &'a mut Desk<'r>) -> App<'a, 'r> {
        if let Some((tracer, _)) = desk.tracer() {
            tracer.take_plan(plan.version());
        }
        let (facts, decision) = (Facts::new(plan), Decision::new(plan));
        App {
            plan,
            version_line: HeaderLine::new("X-Splitd-Version", plan.version()),
            order: MemberOrder::new(plan.attribute_count()),
            facts,
            decision,
            tally: Tally::new(plan),
            source: explain::Source::new(),
            desk,
        }
    }

    /// What it keeps over all plans.
    pub fn desk(&mut self) -> &mut Desk<'r> {
        self.desk
    }

    /// The worker's stopwatch, which the loop keeps going.
    pub fn pace(&mut self) -> &mut Pace<'r> {
        &mut self.desk.pace
    }

    fn experiment(&self, path: &str, prefix: &str) -> Option<ExperimentIndex> {
        let name = path.strip_prefix(prefix)?;
        // A longer one is no name of any file.
        let mut room = [0; 3 * NAME_SIZE_MAX];
        let name = percent_decode(name, room.get_mut(..name.len())?).ok()?;
        self.plan.experiment(name)
    }
}

impl Service for App<'_, '_> {
    fn admit(&mut self, head: &Head<'_>) -> Result<Admission, Refusal> {
        let offered = |route: &&(usize, &Route)| self.desk.groups.contains(&route.1.group);
        let matches = |(_, route): &(usize, &Route)| match route.path {
            Path::Exact(path) => path == head.path,
            Path::Experiment(prefix) => head.path.len() > prefix.len() && head.path.starts_with(prefix),
        };
        let found = ROUTES.iter().enumerate().filter(|r| offered(&r)).find(matches);
        self.desk.trace_head(head, found.map(|(index, _)| index as u16));
        let Some((index, route)) = found else {
            return Err(Refusal::not_found("this listener has no such path"));
        };
        if let Path::Experiment(prefix) = route.path
            && self.experiment(head.path, prefix).is_none()
        {
            return Err(Refusal::not_found("no experiment has this name"));
        }
        let allowed = match head.method {
            Method::Get | Method::Head => route.allow != POST,
            Method::Post => route.allow != GET,
            _ => false,
        };
        if !allowed {
            return Err(Refusal::method_not_allowed(route.allow));
        }
        let shed = if self.shed(route.group)? { SHED } else { 0 };
        let (options, body_size_max) = match route.body {
            // As large as the connection takes.
            BodyMode::Whole => (shed, usize::MAX),
            BodyMode::Lines => {
                let options = query_options(head.query).map_err(|_| {
                    let detail = "`payloads` and `exposure` in the query string must be `true` or `false`";
                    Refusal::new(Status::BadRequest, detail)
                })?;
                let payloads = if options.payloads { WITH_PAYLOADS } else { 0 };
                let exposure = if options.exposure { 0 } else { WITHOUT_EXPOSURE };
                (payloads | exposure | self.desk.trace_ticket(), self.desk.options.batch_body_size_max)
            }
        };
        Ok(Admission {
            route: index as u16,
            options,
            body_size_max: u32::try_from(body_size_max).unwrap_or(u32::MAX),
            body: route.body,
            media: route.media,
        })
    }

    fn answer(
        &mut self,
        admission: Admission,
        request: &Request<'_>,
        scratch: &mut [u8],
        now: Now,
        answer: Answer<'_>,
    ) {
        self.desk.trace_head(request.head, Some(admission.route));
        match admission.route {
            ASSIGN if admission.options & SHED != 0 => self.answer_shed(None, answer),
            ASSIGN => self.assign(request, scratch, now, answer),
            STATUS => self.status(now, answer),
            PAGE => status::page(answer),
            EXPLAIN => self.explain(None, request, scratch, answer),
            one @ (EXPERIMENT | EXPLAIN_EXPERIMENT) => {
                let Path::Experiment(prefix) = ROUTES[usize::from(one)].path else { unreachable!() };
                match self.experiment(request.head.path, prefix) {
                    Some(experiment) if admission.options & SHED != 0 => {
                        self.answer_shed(Some(experiment), answer);
                    }
                    Some(experiment) if one == EXPERIMENT => {
                        self.assign_one(experiment, request, scratch, now, answer);
                    }
                    Some(experiment) => self.explain(Some(experiment), request, scratch, answer),
                    // It was there when the head came; the plan has changed since.
                    None => answer.problem(Status::NotFound, "no experiment has this name"),
                }
            }
            LIVEZ => health::live(answer),
            READYZ => health::ready(self.desk.table, now, answer),
            METRICS => {
                let (format, media) = match request.head.accept.is_some_and(accepts_open_metrics) {
                    true => (Format::OpenMetrics, ContentType::OpenMetrics),
                    false => (Format::Text, ContentType::Metrics),
                };
                let mut body = answer.start(Status::Ok).body(media);
                // What finds no room makes the answer a 500.
                let _ = render(self.desk.table, self.plan.version(), format, &mut *body);
                body.finish();
            }
            other => unreachable!("route {other} is not whole or not in the table"),
        }
    }

    fn lines_begin(&mut self, _: Admission, head: &mut LinesHead<'_, '_>) {
        head.header_line(&self.version_line);
    }

    fn answer_line(
        &mut self,
        admission: Admission,
        line: &[u8],
        scratch: &mut [u8],
        now: Now,
        out: &mut Out<'_>,
    ) {
        debug_assert_eq!(admission.route, BATCH);
        self.desk.trace_line(admission.options);
        self.batch_line(admission.options, line, scratch, now, out);
    }

    fn refused(&mut self, status: Status, _: &'static str) {
        let none = metrics::ROUTES.len() - 1;
        self.desk.block.add_at(Family::Requests, request_cell(none, status.code()), 1);
        self.desk.pace.answered(none);
        self.desk.trace_answered(status.code());
    }

    fn answered(&mut self, admission: Admission, status: Status) {
        let route = usize::from(admission.route);
        self.desk.block.add_at(Family::Requests, request_cell(route, status.code()), 1);
        self.desk.pace.answered(route);
        self.desk.trace_answered(status.code());
    }
}

/// Whether an Accept header names OpenMetrics, as a scraper's does that would rather have it.
fn accepts_open_metrics(accept: &[u8]) -> bool {
    let accept = String::from_utf8_lossy(accept);
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named =
            parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/openmetrics-text"));
        named && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_counts_under_its_own_label() {
        let label = |route: &Route| match route.path {
            Path::Experiment("/v1/assign/") => "experiment",
            Path::Experiment(_) => "explain_experiment",
            Path::Exact("/") => "page",
            Path::Exact(path) => path.rsplit('/').next().unwrap(),
        };
        for (index, route) in ROUTES.iter().enumerate() {
            assert_eq!(metrics::ROUTES[index], label(route));
        }
        assert_eq!(metrics::ROUTES[ROUTES.len()..], ["none"]);
    }
}
