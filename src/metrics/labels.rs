//! What the labels of the [families](super::FAMILIES) may say.

/// Label values of `route`, in the order of the endpoint's table.
pub const ROUTES: &[&str] = &[
    "assign",
    "experiment",
    "batch",
    "livez",
    "readyz",
    "metrics",
    "explain",
    "explain_experiment",
    "status",
    "page",
    "none",
];
/// Label values of `status`; what is not listed counts as `other`.
pub const STATUSES: &[&str] = &[
    "200", "400", "404", "405", "408", "413", "414", "415", "417", "422", "431", "500", "501", "503", "505",
    "other",
];
/// Label values of `reason` of closed connections.
pub const CLOSE_REASONS: &[&str] =
    &["peer", "answered", "idle_timeout", "slow", "evicted", "drained", "error"];
/// Label values of `rings`: this instance's, and those that earlier ones left.
pub const RING_ORIGINS: &[&str] = &["own", "earlier"];
/// Label values of `from`: the same, and the spool.
pub const REJECTED_FROM: &[&str] = &["own", "earlier", "spool"];
/// Label values of `reason` of exposures that went from the spool at a bound.
pub const SPOOL_BOUNDS: &[&str] = &["size", "disk", "age"];
/// Label values of `reason` of exposures that no ring took.
pub const LOSS_REASONS: &[&str] = &["full", "oversize", "torn"];
/// Label values of `cause` of replaced processes.
pub const EXIT_CAUSES: &[&str] = &["exit", "signal", "panic", "watchdog"];

/// Label values of `answer` of requests that were shed.
pub const SHED_ANSWERS: &[&str] = &["refused", "empty"];
/// Label values of `reason` of spans that no collector took.
pub const SPAN_DROP_REASONS: &[&str] = &["rejected", "damaged"];
/// Label values of `result` of reloads.
pub const RELOAD_RESULTS: &[&str] = &["taken", "refused", "failed"];

/// The cell of `requests` for a route's index and a status code.
#[must_use]
#[inline]
pub fn request_cell(route: usize, status: u16) -> usize {
    let status = match status {
        200 => 0,
        400 => 1,
        404 => 2,
        405 => 3,
        408 => 4,
        413 => 5,
        414 => 6,
        415 => 7,
        417 => 8,
        422 => 9,
        431 => 10,
        500 => 11,
        501 => 12,
        503 => 13,
        505 => 14,
        _ => 15,
    };
    route * STATUSES.len() + status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_status_has_the_cell_of_its_name() {
        for (index, name) in STATUSES.iter().enumerate() {
            if let Ok(code) = name.parse() {
                assert_eq!(request_cell(0, code), index, "{name}");
            }
        }
        assert_eq!(STATUSES[request_cell(0, 999)], "other");
    }
}
