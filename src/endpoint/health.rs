//! Health speaks for the instance, whichever worker is asked: the master keeps
//! its state in the metrics region.

use crate::clock::Now;
use crate::http::{Answer, ContentType, Status};
use crate::metrics::{Block, Family, MASTER_BLOCK, Table, instance_state};

/// `/livez`: whoever answers, lives.
pub(super) fn live(answer: Answer<'_>) {
    status(answer, "live");
}

/// `/readyz`: a plan is in force and every pool accepts; draining is not ready.
/// Old experiments are better than none, so an instance that serves the last
/// good ones for want of better is ready, and says so.
pub(super) fn ready(table: Table<'_>, now: Now, answer: Answer<'_>) {
    let master = table.block(MASTER_BLOCK);
    let fault_count = master.get(Family::SourceFaults, 0);
    match master.get(Family::InstanceState, 0) {
        instance_state::READY if fault_count > 0 => {
            let from = if master.get(Family::PlanLastGood, 0) == 1 { "last good file" } else { "before" };
            let since_s = master.get(Family::ExperimentsSince, 0);
            let age_s = (now.unix_us.unsigned_abs() / 1_000_000).saturating_sub(since_s);
            let mut body = answer.start(Status::Ok).body(ContentType::Json);
            body.push_str("{\"status\":\"ready\",\"experiments\":\"");
            body.push_str(from);
            body.push_str("\",\"age_s\":");
            body.push_str(itoa::Buffer::new().format(age_s));
            body.push_str(",\"source_faults\":");
            body.push_str(itoa::Buffer::new().format(fault_count));
            body.push_str("}");
            body.finish();
        }
        instance_state::READY => status(answer, "ready"),
        instance_state::DRAINING => answer.problem(Status::ServiceUnavailable, "draining"),
        _ => answer.problem(Status::ServiceUnavailable, "starting: not every pool accepts yet"),
    }
}

/// The line for HAProxy's agent-check ("Agent check protocol" of its manual): for
/// all but a ready instance no new requests, those under way end well.
#[must_use]
pub fn agent_line(master: Block<'_>) -> &'static str {
    match master.get(Family::InstanceState, 0) {
        instance_state::READY => "up ready 100%\n",
        _ => "drain\n",
    }
}

fn status(answer: Answer<'_>, word: &str) {
    let mut body = answer.start(Status::Ok).body(ContentType::Json);
    body.push_str("{\"status\":\"");
    body.push_str(word);
    body.push_str("\"}");
    body.finish();
}
