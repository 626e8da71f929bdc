//! The plan against its plain twin, the golden vectors, and damage.

#[cfg(test)] // this file is; the reader of the layering table is told so here
use crate::config::check::check;

use fearless_simd::Level;
use serde_json::Value as Json;

use super::*;
use crate::engine::arbitrary::{self, Random};
use crate::engine::attributes::Value;
use crate::engine::catalog::Catalog;
use crate::engine::compile::compile;
use crate::engine::reference::{self, Assigned, Request};
use crate::limits::UNIT_COUNT_MAX;

/// What a worker keeps for its plan.
struct Worker<'p> {
    plan: Plan<'p>,
    facts: Facts,
    decision: Decision,
}

impl<'p> Worker<'p> {
    fn new(plan: Plan<'p>) -> Worker<'p> {
        Worker { plan, facts: Facts::new(&plan), decision: Decision::new(&plan) }
    }

    fn units<'r>(&self, request: &'r Request) -> Units<'r> {
        let mut units = Units::new();
        for (name, value) in &request.units {
            units.set(name, self.plan.unit_kind(name), value).expect("no more units than a request may have");
        }
        units
    }

    fn learn(&mut self, request: &Request) {
        let Worker { plan, facts, .. } = self;
        facts.clear(plan);
        for (name, value) in &request.attributes {
            let Some((attribute, _)) = plan.attribute(name) else { continue };
            match value {
                Json::Null => facts.set(plan, attribute, Value::Null),
                Json::Bool(truth) => facts.set(plan, attribute, Value::Bool(*truth)),
                Json::Number(number) => facts.set(plan, attribute, Value::Number(number.as_f64().unwrap())),
                Json::String(text) => facts.set(plan, attribute, Value::Text(text)),
                Json::Object(_) => facts.set(plan, attribute, Value::Other),
                Json::Array(items) => {
                    facts.list_begin(plan, attribute);
                    items
                        .iter()
                        .filter_map(Json::as_str)
                        .for_each(|item| facts.list_item(plan, attribute, item));
                    facts.list_end(plan, attribute, items.iter().all(Json::is_string));
                }
            }
        }
    }

    fn decide(&mut self, request: &Request) -> Vec<Chosen> {
        self.learn(request);
        let units = self.units(request);
        self.plan.decide(&units, &self.facts, &mut self.decision);
        self.decision.chosen().to_vec()
    }

    fn decide_one(&mut self, experiment: u32, request: &Request) -> Vec<Chosen> {
        let units = self.units(request);
        self.plan.decide_one(ExperimentIndex(experiment), &units, &self.facts, &mut self.decision);
        self.decision.chosen().to_vec()
    }
}

fn string(json: &[u8]) -> String {
    serde_json::from_slice(json).expect("a JSON string")
}

/// Every bytes the plan holds for an assignment, against the catalog.
fn assert_fragments(plan: &Plan<'_>, catalog: &Catalog, chosen: &Chosen, assigned: &Assigned) {
    let experiment = &catalog.experiments[assigned.experiment];
    let group = &experiment.groups[assigned.group];
    assert_eq!((chosen.experiment.0 as usize, chosen.group as usize), (assigned.experiment, assigned.group));
    assert_eq!(plan.is_forced(chosen), assigned.forced_by.is_some());
    if assigned.forced_by.is_none() {
        let bucket_count: u32 = group.blocks.iter().map(|block| block.count).sum();
        assert_eq!(plan.bucket_count(chosen), bucket_count);
    }
    let (experiment_json, group_json) = (plan.experiment_json(chosen.experiment), plan.group_json(chosen));
    assert_eq!((string(experiment_json), string(group_json)), (experiment.name.clone(), group.name.clone()));
    assert_eq!(plan.answer_fragment(chosen), [b",", experiment_json, b":", group_json].concat());
    assert_eq!(plan.payload_json(chosen), group.payload.as_ref().map(|payload| payload.as_bytes()));
    let payload_fragment =
        group.payload.as_ref().map(|p| [b",", experiment_json, b":", p.as_bytes()].concat());
    assert_eq!(plan.payload_fragment(chosen), payload_fragment.as_deref());

    let (tag, rest) = plan.exposure_fragment(chosen).split_first().unwrap();
    assert_eq!(*tag, 0x2a);
    let assignment: Assignment = prost::Message::decode_length_delimited(rest).unwrap();
    let unit_kind = assigned.forced_by.unwrap_or(catalog.layers[experiment.layer].unit_kind);
    let expected = Assignment {
        experiment_id: experiment.id,
        run_id: experiment.run_id,
        experiment: experiment.name.clone(),
        group: group.name.clone(),
        forced: assigned.forced_by.is_some(),
        unit: catalog.unit_kinds[unit_kind].clone(),
    };
    assert_eq!(assignment, expected);
}

#[derive(Clone, PartialEq, prost::Message)]
struct Assignment {
    #[prost(int64, tag = "1")]
    experiment_id: i64,
    #[prost(int32, tag = "2")]
    run_id: i32,
    #[prost(string, tag = "3")]
    experiment: String,
    #[prost(string, tag = "4")]
    group: String,
    #[prost(bool, tag = "5")]
    forced: bool,
    #[prost(string, tag = "6")]
    unit: String,
}

/// Every level of vector instructions that this machine has, the most portable first.
fn levels() -> Vec<Level> {
    let here = Level::new();
    #[cfg(target_arch = "x86_64")]
    let wider = [here.as_sse4_2().map(Level::Sse4_2), here.as_avx2().map(Level::Avx2)];
    #[cfg(not(target_arch = "x86_64"))]
    let wider = [None];
    [Level::baseline()].into_iter().chain(wider.into_iter().flatten()).chain([here]).collect()
}

/// Decides as the plan and as its twin, by all vector instructions there are; they must agree in everything.
fn assert_twins_agree(worker: &mut Worker<'_>, catalog: &Catalog, request: &Request) -> usize {
    let expected = reference::assign(catalog, request);
    let chosen = worker.decide(request);
    for level in levels() {
        let here = std::mem::replace(&mut worker.decision.level, level);
        assert_eq!(worker.decide(request), chosen, "{level:?} beside {here:?}");
        worker.decision.level = here;
    }
    let plain = |chosen: &[Chosen]| -> Vec<(usize, usize)> {
        chosen.iter().map(|chosen| (chosen.experiment.0 as usize, chosen.group as usize)).collect()
    };
    let expected_plain: Vec<_> =
        expected.iter().map(|assigned| (assigned.experiment, assigned.group)).collect();
    assert_eq!(plain(&chosen), expected_plain);
    let (mut answer_size, mut exposure_size) =
        (worker.plan.version_json().len(), worker.plan.version().len());
    for (chosen, assigned) in chosen.iter().zip(&expected) {
        assert_fragments(&worker.plan, catalog, chosen, assigned);
        answer_size += worker.plan.answer_fragment(chosen).len();
        answer_size += worker.plan.payload_fragment(chosen).map_or(0, |payload| payload.len());
        exposure_size += worker.plan.exposure_fragment(chosen).len();
    }
    assert!(answer_size + 512 < worker.plan.answer_size_max());
    assert!(exposure_size + crate::limits::CONTEXT_SIZE_MAX < worker.plan.exposure_size_max());
    for experiment in 0..catalog.experiments.len() {
        let alone = worker.decide_one(experiment as u32, request);
        let expected: Vec<_> =
            chosen.iter().filter(|c| c.experiment.0 as usize == experiment).copied().collect();
        assert_eq!(alone, expected, "experiment {experiment} alone");
    }
    chosen.len()
}

#[test]
fn the_plan_decides_like_its_plain_twin() {
    // SPLITD_SEEDS=FROM..TO looks at others.
    let seeds = std::env::var("SPLITD_SEEDS").unwrap_or_else(|_| "0..600".to_owned());
    let (from, to) = seeds.split_once("..").expect("SPLITD_SEEDS=FROM..TO");
    let (mut request_count, mut assignment_count, mut run_count_max) = (0, 0, 0);
    for seed in from.parse().unwrap()..to.parse::<u64>().unwrap() {
        let outcome = std::panic::catch_unwind(|| {
            let mut random = Random(seed);
            let catalog = arbitrary::catalog(&mut random);
            let image = compile(&catalog, b"{}").expect("a catalog within all limits");
            let plan = Plan::open(image.bytes()).unwrap();
            let mut worker = Worker::new(plan);
            let mut assignment_count = 0;
            for _ in 0..30 {
                let request = arbitrary::request(&mut random, &catalog);
                if request.units.iter().map(|(name, _)| name).collect::<std::collections::HashSet<_>>().len()
                    > UNIT_COUNT_MAX
                {
                    continue;
                }
                assignment_count += assert_twins_agree(&mut worker, &catalog, &request);
            }
            (assignment_count, plan.tables.runs.len())
        });
        let Ok((count, run_count)) = outcome else { panic!("seed {seed}") };
        request_count += 30;
        assignment_count += count;
        run_count_max = run_count.max(run_count_max);
    }
    println!("{request_count} requests, {assignment_count} assignments, up to {run_count_max} runs");
    assert!(assignment_count > request_count / 2, "the generator no longer meets the experiments");
}

fn golden(name: &str) -> (Vec<u8>, String, String) {
    let read = |what: &str| {
        let path = format!("{}/tests/golden/{name}.{what}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    (read("experiments.json").into_bytes(), read("requests.ndjson"), read("answers.ndjson"))
}

fn assert_golden(name: &str) {
    let (source, requests, answers) = golden(name);
    let catalog = check(&source).unwrap();
    let image = compile(&catalog, &source).unwrap();
    let plan = Plan::open(image.bytes()).unwrap();
    assert_eq!(plan.source(), source);
    let mut worker = Worker::new(plan);
    assert_eq!(requests.lines().count(), answers.lines().count());
    for (number, (request, answer)) in requests.lines().zip(answers.lines()).enumerate() {
        let request = Request::from_json(request).unwrap();
        assert_twins_agree(&mut worker, &catalog, &request);
        // The bytes themselves, put together as an endpoint would; the vectors
        // are written with spaces, and the order of members counts.
        let chosen = worker.decide(&request);
        let fragments: Vec<&[u8]> = chosen.iter().map(|chosen| plan.answer_fragment(chosen)).collect();
        let fragments = fragments.concat();
        let listed = fragments.get(1..).unwrap_or_default();
        let made = [b"{\"version\":", plan.version_json(), b",\"assignments\":{", listed, b"}}"].concat();
        let spaced = String::from_utf8(made).unwrap();
        assert_eq!(spaced, unspaced(answer), "{name}, line {}", number + 1);
    }
}

/// JSON without the white space between its tokens.
fn unspaced(json: &str) -> String {
    let (mut within, mut escaped) = (false, false);
    json.chars()
        .filter(|&c| {
            let keep = within || c != ' ';
            match c {
                '"' if !escaped => within = !within,
                _ => {}
            }
            escaped = within && c == '\\' && !escaped;
            keep
        })
        .collect()
}

#[test]
fn the_edge_vectors_answer_as_the_rules_say() {
    assert_golden("edge");
}

#[test]
fn the_typical_vectors_answer_as_the_rules_say() {
    assert_golden("typical");
}

mod damage;
