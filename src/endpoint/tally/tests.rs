use std::sync::atomic::AtomicU64;

use super::*;
use crate::config::check;
use crate::engine::plan::PlanImage;
use crate::metrics::{self, Process, worker_block};

/// One layer of ten buckets; each experiment's groups by their count of buckets.
fn plan(experiments: &[(&str, &[u32])]) -> PlanImage {
    let mut first = 0;
    let mut written = Vec::new();
    for (index, (name, groups)) in experiments.iter().enumerate() {
        let group = |(group, count): (usize, &u32)| {
            let text = format!(r#"{{"name": "g{group}", "blocks": [[{first}, {count}]]}}"#);
            first += count;
            text
        };
        let groups: Vec<String> = groups.iter().enumerate().map(group).collect();
        written.push(format!(
            r#"{{"id": {index}, "run_id": 1, "name": "{name}", "layer": "l", "groups": [{}],
                "overrides": {{"user_id": {{"me": "g0"}}}}}}"#,
            groups.join(",")
        ));
    }
    let file = format!(
        r#"{{"version": "1", "layers": {{"l": {{"salt": "s", "unit": "user_id", "buckets": 10}}}}, "experiments": [{}]}}"#,
        written.join(",")
    );
    check::load(file.as_bytes()).unwrap_or_else(|faults| panic!("{faults:#?}")).1
}

/// What is expected, by name: buckets of the group and of the experiment, and from which count on.
fn expected(table: Table<'_>) -> Vec<(String, u32, u32, u64)> {
    let names = table.names().of(NameKind::Assignment);
    let known = names.filter_map(|(place, text)| {
        let (share, since) = table.shares().get(place)?;
        Some((String::from_utf8(text).unwrap().replace('"', ""), share.group, share.experiment, since))
    });
    known.collect()
}

#[test]
fn shares_are_expected_from_when_all_workers_use_them_and_what_stays_counts_on() {
    let size = metrics::region_size(metrics::block_count(1)) / 8;
    let words: Vec<AtomicU64> = (0..size).map(|_| AtomicU64::new(0)).collect();
    let table = Table::format(&words, metrics::block_count(1));
    let block = table.block(worker_block(0, 0));
    block.claim(Process::Worker, "assign");
    let share = |name: &str, group, experiment, since| (name.to_owned(), group, experiment, since);

    let first = plan(&[("a", &[3, 1]), ("b", &[1, 1, 2])]);
    learn(first.bytes(), table).unwrap();
    assert_eq!(expected(table), [], "no worker uses it yet");
    expect(first.bytes(), table).unwrap();
    let a = [share("a:g0", 3, 4, 0), share("a:g1", 1, 4, 0)];
    let b = [share("b:g0", 1, 4, 0), share("b:g1", 1, 4, 0), share("b:g2", 2, 4, 0)];
    assert_eq!(expected(table), [&a[..], &b].concat());

    // One count each; forced ones are counted apart.
    let opened = Plan::open(first.bytes()).unwrap();
    let all: Vec<Chosen> = opened.assignments().collect();
    Tally::new(&opened).assigned(&opened, table.names(), block, &all);
    let counted = |kind| {
        let names = table.names().of(kind);
        names.map(|(place, _)| table.get_named(place)).collect::<Vec<_>>()
    };
    assert_eq!((counted(NameKind::Assignment), counted(NameKind::Forced)), (vec![1; 5], vec![1; 2]));

    // `b` is cut in another way, of which its first group sees nothing.
    let second = plan(&[("a", &[3, 1]), ("b", &[1, 2, 1])]);
    learn(second.bytes(), table).unwrap();
    assert_eq!(expected(table), a);
    expect(second.bytes(), table).unwrap();
    let b = [share("b:g0", 1, 4, 1), share("b:g1", 2, 4, 1), share("b:g2", 1, 4, 1)];
    assert_eq!(expected(table), [&a[..], &b].concat());

    // Of what has gone nothing is expected.
    let third = plan(&[("a", &[3, 1])]);
    learn(third.bytes(), table).unwrap();
    expect(third.bytes(), table).unwrap();
    assert_eq!(expected(table), a);
}
