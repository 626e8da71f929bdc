//! The instance as JSON, and a page that draws it. Both allocate: they are for
//! people, in a pool of their own.

use crate::clock::Now;
use crate::http::{Answer, ContentType, Status};
use crate::limits::REPORT_SIZE_MAX;
use crate::status::json::json;
use crate::status::snapshot::{self, Snapshot};

use super::App;

/// The page: one file, which fetches nothing but `/v1/status`.
const PAGE: &str = include_str!("status.html");
/// Nothing from elsewhere, nothing but its own words and this origin's answers.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

impl App<'_, '_> {
    /// `/v1/status`
    pub(super) fn status(&self, now: Now, answer: Answer<'_>) {
        let snapshot = Snapshot::take(self.desk.table, &self.desk.rings, now, snapshot::lives);
        let json = serde_json::to_vec(&json(&snapshot)).expect("texts, numbers and lists");
        if json.len() > REPORT_SIZE_MAX {
            return answer
                .problem(Status::InternalServerError, "the status is larger than the server allows");
        }
        let mut body = answer.start(Status::Ok).header("Cache-Control", "no-store").body(ContentType::Json);
        body.push(&json);
        body.finish();
    }
}

/// `/` and `/status`
pub(super) fn page(answer: Answer<'_>) {
    let head = answer.start(Status::Ok).header("Content-Security-Policy", POLICY);
    let head = head.header("X-Content-Type-Options", "nosniff").header("Cache-Control", "no-cache");
    let mut body = head.body(ContentType::Html);
    body.push_str(PAGE);
    body.finish();
}
