//! Health speaks for the instance, whichever worker is asked: the master keeps
//! its state in the metrics region.

use crate::http::{Answer, ContentType, Status};
use crate::metrics::{Family, MASTER_BLOCK, Table, instance_state};

/// `/livez`: whoever answers, lives.
pub(super) fn live(answer: Answer<'_>) {
    status(answer, "live");
}

/// `/readyz`: a plan is in force and every pool accepts; draining is not ready.
pub(super) fn ready(table: Table<'_>, answer: Answer<'_>) {
    match table.block(MASTER_BLOCK).get(Family::InstanceState, 0) {
        instance_state::READY => status(answer, "ready"),
        instance_state::DRAINING => answer.problem(Status::ServiceUnavailable, "draining"),
        _ => answer.problem(Status::ServiceUnavailable, "starting: not every pool accepts yet"),
    }
}

fn status(answer: Answer<'_>, word: &str) {
    let mut body = answer.start(Status::Ok).body(ContentType::Json);
    body.push_str("{\"status\":\"");
    body.push_str(word);
    body.push_str("\"}");
    body.finish();
}
