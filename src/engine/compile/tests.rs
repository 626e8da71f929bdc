//! What makes no plan, and where the fault lies.

use super::*;
use crate::engine::assignment::Decision;
use crate::engine::catalog::{
    Attribute, AttributeKind, Block, Experiment, Group, Layer, OverrideKind, Segment, StringTest, Test,
};
use crate::engine::plan::Plan;
use crate::limits::SEGMENT_LEAF_COUNT_MAX;

fn experiment(index: usize, layer: usize, segment: Option<Condition>) -> Experiment {
    Experiment {
        id: index as i64,
        run_id: 1,
        name: format!("e{index}"),
        state: State::Running,
        layer,
        segment,
        groups: vec![Group {
            name: "g".to_owned(),
            blocks: vec![Block { first: 0, count: 10 }],
            payload: None,
        }],
        overrides: Vec::new(),
    }
}

/// One attribute `s`, a layer for each experiment.
fn catalog(segments: Vec<Condition>, experiments: Vec<Option<Condition>>) -> Catalog {
    let layers = (0..experiments.len().max(1)).map(|index| Layer {
        name: format!("l{index}"),
        salt: format!("s{index}"),
        unit_kind: 0,
        bucket_count: 10,
    });
    let name = |index: usize| match index {
        0 => "a/b".to_owned(),
        1 => "c~d".to_owned(),
        2 => "e".to_owned(),
        _ => format!("s{index}"),
    };
    Catalog {
        version: "1".to_owned(),
        attributes: vec![Attribute { name: "s".to_owned(), kind: AttributeKind::String }],
        unit_kinds: vec!["user_id".to_owned()],
        segments: segments
            .into_iter()
            .enumerate()
            .map(|(index, condition)| Segment { name: name(index), condition })
            .collect(),
        layers: layers.collect(),
        experiments: experiments
            .into_iter()
            .enumerate()
            .map(|(i, segment)| experiment(i, i, segment))
            .collect(),
    }
}

fn string(test: StringTest) -> Condition {
    Condition::Test { attribute: 0, test: Test::String(test) }
}

fn matches(pattern: &str) -> Condition {
    string(StringTest::Matches(pattern.to_owned().into()))
}

fn eq(text: &str) -> Condition {
    string(StringTest::Eq(text.to_owned()))
}

fn faults(catalog: &Catalog) -> Vec<(String, String)> {
    let faults = compile(catalog, b"").err().unwrap_or_default();
    faults.into_iter().map(|fault| (fault.place.pointer(catalog), fault.message)).collect()
}

#[test]
fn every_regular_expression_too_large_is_reported_with_its_pointer() {
    let large = "[01]*1[01]{20}";
    let nested = Condition::Any(vec![eq("x"), Condition::Not(Box::new(matches(large)))]);
    let catalog = catalog(
        vec![matches("a"), Condition::All(vec![matches("b"), nested.clone()]), matches("(")],
        vec![Some(matches("a")), Some(nested)],
    );
    let found = faults(&catalog);
    let pointers: Vec<&str> = found.iter().map(|(pointer, _)| &**pointer).collect();
    assert_eq!(
        pointers,
        [
            "/segments/c~0d/all/1/any/1/not/value",
            "/segments/e/value",
            "/experiments/1/segment/any/1/not/value"
        ]
    );
    assert!(found[0].1.contains("262144 bytes"), "{}", found[0].1);
}

#[test]
fn regular_expressions_that_are_too_large_together_are_refused_once() {
    // each some 100 KiB; 8 MiB in all is passed after less than 150
    let segments = (0..150).map(|index| matches(&format!("x{index}[01]*1[01]{{11}}$"))).collect();
    let found = faults(&catalog(segments, Vec::new()));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.contains("8388608"), "{found:?}");
}

#[test]
fn segments_that_double_at_every_level_are_refused_before_they_fill_memory() {
    for base in [eq("a"), Condition::All(Vec::new())] {
        let mut segments = vec![base];
        for level in 0..60 {
            segments.push(Condition::All(vec![Condition::Segment(level), Condition::Segment(level)]));
        }
        let found = faults(&catalog(segments, vec![Some(Condition::Segment(60))]));
        let (pointer, message) = &found[0];
        // 2^0 + 2^1 + … passes 2^20 with level 20
        assert_eq!((found.len(), &**pointer), (1, "/segments/s20"));
        assert!(message.contains(&SEGMENT_LEAF_COUNT_MAX.to_string()), "{message}");
    }
}

#[test]
fn long_chains_of_segments_compile_in_no_time() {
    // Each is nothing but the one before it, turned round and wrapped.
    let mut segments = vec![eq("a")];
    for before in 0..100_000 {
        let inner = Condition::Not(Box::new(Condition::All(vec![Condition::Segment(before)])));
        segments.push(inner);
    }
    let experiments = (0..100).map(|index| Some(Condition::Segment(100_000 - index))).collect();
    let mut catalog = catalog(segments, experiments);
    let image = compile(&catalog, b"").unwrap();
    Plan::open(image.bytes()).unwrap();
    // … or with a leaf of its own at each level: as deep as there are leaves.
    let mut segments = vec![eq("a")];
    for before in 0..1400 {
        let both = vec![eq(&before.to_string()), Condition::Segment(before)];
        segments.push(if before % 2 == 0 { Condition::All(both) } else { Condition::Any(both) });
    }
    catalog.segments =
        segments.into_iter().map(|condition| Segment { name: String::new(), condition }).collect();
    catalog.experiments.truncate(1);
    catalog.experiments[0].segment = Some(Condition::Segment(1400));
    let image = compile(&catalog, b"").unwrap();
    Plan::open(image.bytes()).unwrap();
}

#[test]
fn an_answer_or_exposure_that_could_pass_its_limit_is_refused() {
    let mut catalog = catalog(Vec::new(), vec![None, None]);
    assert_eq!(faults(&catalog), []);
    catalog.experiments[0].groups[0].payload = Some(format!("\"{}\"", "x".repeat(ANSWER_SIZE_MAX / 2)));
    assert_eq!(faults(&catalog), []);
    catalog.experiments[1].groups[0].payload = Some(format!("\"{}\"", "y".repeat(ANSWER_SIZE_MAX / 2)));
    let found = faults(&catalog);
    assert_eq!((found.len(), &*found[0].0), (1, "/experiments"));
    assert!(found[0].1.contains("1048576"), "{found:?}");
    // In one layer they exclude each other …
    catalog.experiments[1].layer = 0;
    catalog.experiments[1].groups[0].blocks.clear();
    assert_eq!(faults(&catalog), []);
    // … unless an override forces one.
    catalog.experiments[1].overrides = vec![OverrideKind { unit_kind: 0, units: vec![("42".to_owned(), 0)] }];
    assert_eq!(faults(&catalog).len(), 1);
    // One that does not run adds nothing.
    catalog.experiments[1].state = State::Killed;
    assert_eq!(faults(&catalog), []);

    let mut many = self::catalog(Vec::new(), vec![None; 2500]);
    for experiment in &mut many.experiments {
        experiment.name = format!("{:0>180}", experiment.name);
    }
    assert_eq!(faults(&many), []);
    for experiment in &mut many.experiments {
        experiment.name = format!("{:0>220}", experiment.name);
    }
    let found = faults(&many);
    assert!(
        found.iter().any(|(_, message)| message.contains("exposure") && message.contains("524288")),
        "{found:?}"
    );
}

#[test]
fn only_running_experiments_leave_facts_and_segments_in_the_plan() {
    let mut catalog = catalog(Vec::new(), vec![Some(matches("a+")), Some(eq("b"))]);
    catalog.experiments[0].state = State::Draft;
    catalog.experiments[1].groups[0].blocks.clear();
    let image = compile(&catalog, b"").unwrap();
    let plan = Plan::open(image.bytes()).unwrap();
    assert!(plan.tables().dfas.is_empty() && plan.tables().layers.is_empty());
    assert_eq!(plan.tables().leaves.len(), 2);
    assert_eq!((plan.experiment_count(), plan.layer_count()), (2, 2));
    assert!(plan.experiment("e0").is_some() && plan.experiment("e2").is_none());
    assert!(Decision::new(&plan).chosen().is_empty());
}

#[test]
fn very_many_sets_over_one_attribute_stay_small() {
    // 5,000 sets of 10 among 5,000 literals: a table of rows would take 3 MB, and so on upwards.
    let set = |n: usize| (0..10).map(|k| format!("u{}", (n * 7 + k * 13) % 5000)).collect();
    let experiments = (0..5000).map(|n| Some(string(StringTest::In(set(n))))).collect();
    let image = compile(&catalog(Vec::new(), experiments), b"").unwrap();
    Plan::open(image.bytes()).unwrap();
    assert!(image.bytes().len() < 4 * 1024 * 1024, "{}", image.bytes().len());
}
