//! A snapshot for programs: `/v1/status` and `splitd status --json`.
//!
//! Names are the same as in `/metrics` where they are the same figures; times are
//! in seconds. Members may be added, and none changes its meaning.

use serde_json::{Value, json};

use super::assignments::{Assignments, Experiment};
use super::snapshot::{Pool, ProcessView, RingView, Snapshot};
use crate::metrics::audit::Audit;
use crate::metrics::{FAMILIES, Kind, Process, Row, cell_count, cell_labels};

/// The whole of it, as JSON.
#[must_use]
pub fn json(snapshot: &Snapshot) -> Value {
    json!({
        "splitd": env!("CARGO_PKG_VERSION"),
        "time": snapshot.taken.unix_us as f64 / 1e6,
        "state": snapshot.state,
        "complaints": snapshot.complaints(),
        "experiments": {
            "version": snapshot.version,
            "count": snapshot.experiment_count(),
            "taken": snapshot.plan_taken_s(),
            "age_s": snapshot.plan_age().map(|age| age.as_secs_f64()),
        },
        "processes": snapshot.processes.iter().map(process).collect::<Vec<_>>(),
        "pools": snapshot.pools.iter().map(pool).collect::<Vec<_>>(),
        "assignments": assignments(&snapshot.assignments),
        "rings": snapshot.rings.iter().map(ring).collect::<Vec<_>>(),
        "law": law(&snapshot.audit),
        "metrics": metrics(snapshot),
        "log": snapshot.log.iter().map(|line| json!({
            "time": line.unix_us as f64 / 1e6, "level": line.level, "pid": line.pid, "text": line.text,
        })).collect::<Vec<_>>(),
    })
}

fn process(view: &ProcessView) -> Value {
    json!({
        "name": view.name,
        "kind": match view.process {
            Process::Master => "master",
            Process::Logger => "logger",
            Process::Worker => "worker",
        },
        "slot": view.slot,
        "pid": view.pid,
        "health": view.health,
        "age_s": view.age.as_secs_f64(),
        "turn_age_s": view.turn_age.as_secs_f64(),
        "restarts": view.restarts,
        "connections": view.connections,
        "requests": view.requests,
    })
}

fn pool(pool: &Pool) -> Value {
    json!({ "name": pool.name, "slots": pool.slots, "connections_busiest_ratio": pool.spread() })
}

fn assignments(assignments: &Assignments) -> Value {
    let experiment = |experiment: &Experiment| {
        json!({
            "experiment": experiment.name,
            "count": experiment.count(),
            "groups": experiment.groups.iter().map(|group| json!({
                "group": group.name,
                "count": group.count,
                "share": experiment.share(group),
                "expected": group.expected,
            })).collect::<Vec<_>>(),
            "p": experiment.p(),
            "mismatch": experiment.is_mismatched(),
        })
    };
    json!({
        "experiments": assignments.foremost().into_iter().map(experiment).collect::<Vec<_>>(),
        "other": assignments.other,
    })
}

fn ring(view: &RingView) -> Value {
    match &view.account {
        Err(fault) => json!({ "slot": view.slot, "which": view.which, "fault": fault.to_string() }),
        Ok(account) => json!({
            "slot": view.slot,
            "which": view.which,
            "capacity": account.capacity,
            "bytes": account.in_ring_size,
            "attempted": account.attempted,
            "committed": account.committed,
            "consumed": account.consumed,
            "corrupt": account.corrupt,
            "in_ring": account.in_ring,
            "lost": { "full": account.refused_full, "oversize": account.refused_oversize, "torn": account.torn },
        }),
    }
}

/// What became of the exposures of this instance: `attempted = committed + lost`,
/// and what was committed is somewhere. `unaccounted` is 0 whenever nothing moves.
fn law(audit: &Audit) -> Value {
    json!({
        "attempted": audit.attempted,
        "committed": audit.committed(),
        "lost": audit.lost(),
        "in_rings": audit.in_rings,
        "delivered": audit.delivered,
        "rejected": audit.rejected,
        "spooled": audit.spooled,
        "corrupt": audit.corrupt,
        "in_spool": audit.spool.waiting,
        "unaccounted": audit.unaccounted(),
    })
}

/// Every cell of every family that is not zero, by the family's exported name.
fn metrics(snapshot: &Snapshot) -> Value {
    let mut families = serde_json::Map::new();
    for row in FAMILIES {
        let of_workers = row.by == Process::Worker;
        let pools: Vec<&Pool> =
            if of_workers { snapshot.pools.iter().collect() } else { vec![&snapshot.instance] };
        let samples: Vec<Value> = pools.into_iter().flat_map(|pool| samples(row, pool)).collect();
        families.insert(row.name.to_owned(), Value::Array(samples));
    }
    Value::Object(families)
}

fn samples(row: &Row, pool: &Pool) -> Vec<Value> {
    let mut found = Vec::new();
    for cell in 0..cell_count(row.labels) {
        let mut sample = serde_json::Map::new();
        if !pool.name.is_empty() {
            sample.insert("pool".to_owned(), json!(pool.name));
        }
        for (name, value) in cell_labels(row, cell) {
            sample.insert(name.to_owned(), json!(value));
        }
        if let Some(histogram) = pool.histogram(row.family, cell) {
            let count = histogram.count();
            if count == 0 {
                continue;
            }
            // Upper edges in nanoseconds; the last has none.
            let buckets = histogram.counts.iter().enumerate().filter(|(_, count)| **count > 0);
            let buckets: Vec<Value> = buckets
                .map(|(bucket, count)| json!([crate::metrics::histogram::upper_edge_ns(bucket), count]))
                .collect();
            sample.insert("count".to_owned(), json!(count));
            sample.insert("sum".to_owned(), json!(histogram.sum_ns as f64 / 1e9));
            sample.insert("buckets_ns".to_owned(), json!(buckets));
        } else if let Kind::Spread(_) = row.kind {
            sample.insert("value".to_owned(), json!(pool.spread()));
        } else {
            let value = pool.value(row.family, cell);
            if value == 0 && !row.labels.is_empty() {
                continue;
            }
            let value = if row.kind == Kind::Time { json!(value as f64 / 1e6) } else { json!(value) };
            sample.insert("value".to_owned(), value);
        }
        found.push(Value::Object(sample));
    }
    found
}
