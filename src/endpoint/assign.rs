//! Assigning: scan, decide, record, answer. The exposure is committed to the
//! ring before a byte of the answer can leave.

use std::fmt;

use crate::clock::Now;
use crate::engine::assignment::{Chosen, Decision, ExperimentIndex, Units};
use crate::engine::attributes::{AttributeIndex, Facts};
use crate::engine::plan::Plan;
use crate::exposure::record::{self, Exposure};
use crate::http::{
    Answer, ContentType, Fields, MemberOrder, Method, Out, Request, ScanFault, Scanned, Status,
    query_options, scan_query, scan_request,
};
use crate::limits::CONTEXT_SIZE_MAX;
use crate::metrics::Family;
use crate::trace::Stage;

use super::form::Form;
use super::tally::Tally;
use super::{App, Desk, WITH_PAYLOADS, WITHOUT_EXPOSURE};

/// Why a request is not decided.
pub(super) enum Fault<'a> {
    /// 400.
    Scan(ScanFault<'a>),
    /// 422, where the pool is strict.
    Mistyped { name: &'a str },
}

impl Fault<'_> {
    pub(super) fn status(&self) -> Status {
        match self {
            Fault::Scan(_) => Status::BadRequest,
            Fault::Mistyped { .. } => Status::UnprocessableContent,
        }
    }
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Scan(fault) => fault.fmt(out),
            Fault::Mistyped { name } => {
                write!(out, "attribute `{name}`: its value is of another type than declared")
            }
        }
    }
}

/// A request as far as it was read.
struct Asked<'a> {
    units: Units<'a>,
    scanned: Scanned<'a>,
}

impl App<'_, '_> {
    /// `/v1/assign`
    pub(super) fn assign(&mut self, request: &Request<'_>, scratch: &mut [u8], now: Now, answer: Answer<'_>) {
        let App { plan, version_line, order, facts, decision, tally, desk, .. } = self;
        let asked = read(plan, order, facts, tally, desk, request, scratch);
        desk.trace_stage(Stage::Parse);
        let asked = match asked {
            Ok(asked) => asked,
            Err(fault) => return answer.problem(fault.status(), fault),
        };
        foresee(desk);
        plan.decide(&asked.units, facts, decision);
        desk.trace_stage(Stage::Decide);
        if request.head.method != Method::Head {
            record(plan, decision, tally, desk, &asked, now);
        }
        desk.trace_recorded(decision.chosen().len());
        let head = answer.start(Status::Ok).header_line(version_line);
        let mut body = head.body(ContentType::Json);
        write_all(plan, decision.chosen(), asked.scanned.payloads, &mut body);
        body.finish();
    }

    /// `/v1/assign/{experiment}`
    pub(super) fn assign_one(
        &mut self,
        experiment: ExperimentIndex,
        request: &Request<'_>,
        scratch: &mut [u8],
        now: Now,
        answer: Answer<'_>,
    ) {
        let App { plan, version_line, order, facts, decision, tally, desk, .. } = self;
        let asked = read(plan, order, facts, tally, desk, request, scratch);
        desk.trace_stage(Stage::Parse);
        let asked = match asked {
            Ok(asked) => asked,
            Err(fault) => return answer.problem(fault.status(), fault),
        };
        plan.decide_one(experiment, &asked.units, facts, decision);
        desk.trace_stage(Stage::Decide);
        if request.head.method != Method::Head {
            record(plan, decision, tally, desk, &asked, now);
        }
        desk.trace_recorded(decision.chosen().len());
        let chosen = decision.chosen().first();
        let head = answer.start(Status::Ok).header_line(version_line);
        let mut body = head.body(ContentType::Json);
        body.push_str("{\"version\":");
        body.push(plan.version_json());
        body.push_str(",\"experiment\":");
        body.push(plan.experiment_json(experiment));
        body.push_str(",\"group\":");
        body.push(chosen.map_or(b"null", |chosen| plan.group_json(chosen)));
        if let Some(payload) = chosen.filter(|_| asked.scanned.payloads).and_then(|c| plan.payload_json(c)) {
            body.push_str(",\"payload\":");
            body.push(payload);
        }
        body.push_str("}");
        body.finish();
    }

    /// One line of `/v1/batch`: an answer like that of `/v1/assign`, or a
    /// problem document, and the rest of the batch goes on.
    pub(super) fn batch_line(
        &mut self,
        options: u16,
        line: &[u8],
        scratch: &mut [u8],
        now: Now,
        out: &mut Out<'_>,
    ) {
        let App { plan, order, facts, decision, tally, desk, .. } = self;
        let mut form = Form::new(plan, facts);
        let asked = scan_request(line, scratch, order, &mut form)
            .map(|scanned| Asked {
                units: form.units,
                scanned: Scanned {
                    payloads: options & WITH_PAYLOADS != 0,
                    exposure: options & WITHOUT_EXPOSURE == 0,
                    ..scanned
                },
            })
            .map_err(Fault::Scan)
            .and_then(|asked| judge_types(plan, facts, tally, desk).map(|()| asked));
        desk.trace_stage(Stage::Parse);
        match asked {
            Ok(asked) => {
                foresee(desk);
                plan.decide(&asked.units, facts, decision);
                desk.trace_stage(Stage::Decide);
                record(plan, decision, tally, desk, &asked, now);
                desk.trace_recorded(decision.chosen().len());
                write_all(plan, decision.chosen(), asked.scanned.payloads, out);
            }
            Err(fault) => out.push_problem(fault.status(), &fault),
        }
        out.push_str("\n");
    }
}

/// Reads a whole request into units and facts.
fn read<'a>(
    plan: &Plan<'a>,
    order: &mut MemberOrder,
    facts: &mut Facts,
    tally: &mut Tally,
    desk: &Desk<'_>,
    request: &Request<'a>,
    scratch: &'a mut [u8],
) -> Result<Asked<'a>, Fault<'a>> {
    let mut form = Form::new(plan, facts);
    let scanned = scan(request, scratch, order, &mut form);
    let units = form.units;
    let scanned = scanned.map_err(Fault::Scan)?;
    judge_types(plan, facts, tally, desk)?;
    Ok(Asked { units, scanned })
}

/// A POST's body, or a GET's query string, into `fields`.
#[inline]
pub(super) fn scan<'a, F: Fields<'a>>(
    request: &Request<'a>,
    scratch: &'a mut [u8],
    order: &mut MemberOrder,
    fields: &mut F,
) -> Result<Scanned<'a>, ScanFault<'a>> {
    if request.head.method == Method::Post {
        let options = query_options(request.head.query)?;
        let scanned = scan_request(request.body, scratch, order, fields)?;
        Ok(Scanned { payloads: options.payloads, exposure: options.exposure, ..scanned })
    } else {
        scan_query(request.head.query.unwrap_or(""), scratch, order, fields)
    }
}

/// Counts values of another type than declared; refuses them where the pool is strict.
pub(super) fn judge_types<'a>(
    plan: &Plan<'a>,
    facts: &Facts,
    tally: &mut Tally,
    desk: &Desk<'_>,
) -> Result<(), Fault<'a>> {
    if !facts.mistyped_any() {
        return Ok(());
    }
    for attribute in facts.mistyped() {
        tally.mistyped(plan, desk.table.names(), desk.block, attribute);
    }
    match facts.mistyped().next() {
        Some(AttributeIndex(index)) if desk.options.validation_strict => {
            Err(Fault::Mistyped { name: plan.attribute_name(AttributeIndex(index)) })
        }
        _ => Ok(()),
    }
}

/// Before deciding, which takes about as long as it takes to fetch memory for what is
/// recorded then: a twentieth of the whole work otherwise spent waiting.
#[inline]
fn foresee(desk: &Desk<'_>) {
    if let Some(ring) = &desk.ring {
        ring.foresee();
    }
}

/// Commits the exposure of a decision, unless there is nothing to record. What
/// the ring refuses is counted there, and is answered all the same.
fn record(
    plan: &Plan<'_>,
    decision: &Decision,
    tally: &mut Tally,
    desk: &mut Desk<'_>,
    asked: &Asked<'_>,
    now: Now,
) {
    let chosen = decision.chosen();
    tally.assigned(plan, desk.table.names(), desk.block, chosen);
    if !asked.scanned.exposure || (chosen.is_empty() && !desk.options.record_empty) {
        return;
    }
    let Some(ring) = &mut desk.ring else { return };
    let mut context: &[u8] = if desk.options.record_context { asked.scanned.context } else { b"" };
    if context.len() > CONTEXT_SIZE_MAX {
        desk.block.add(Family::ContextsLeftOut, 1);
        context = b"";
    }
    let units = asked.units.iter().map(|unit| (unit.name, unit.value));
    let exposure = Exposure {
        id: ring.claim(),
        time_us: now.unix_us,
        version: plan.version(),
        units: units.filter(|(_, value)| !value.is_empty()),
        assignments: chosen.iter().map(|chosen| plan.exposure_fragment(chosen)),
        context,
    };
    record::encode(&mut desk.record, exposure);
    // The ring counts what it refuses; here it is known of whom it was.
    if ring.commit(&desk.record).is_err() {
        tally.lost(desk.block, chosen);
    }
}

/// `{"version":…,"assignments":{…}}`, with payloads where they are asked for.
fn write_all(plan: &Plan<'_>, chosen: &[Chosen], payloads: bool, out: &mut Out<'_>) {
    out.push_str("{\"version\":");
    out.push(plan.version_json());
    out.push_str(",\"assignments\":{");
    join(chosen.iter().map(|chosen| plan.answer_fragment(chosen)), out);
    if payloads {
        out.push_str("},\"payloads\":{");
        join(chosen.iter().filter_map(|chosen| plan.payload_fragment(chosen)), out);
    }
    out.push_str("}}");
}

/// Members with a comma before each, but for the first's.
fn join<'p>(members: impl Iterator<Item = &'p [u8]>, out: &mut Out<'_>) {
    let mut left_out = 1;
    for member in members {
        out.push(&member[left_out..]);
        left_out = 0;
    }
}
