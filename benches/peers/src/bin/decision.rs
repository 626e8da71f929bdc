//! Deciding alone, attributes parsed beforehand: splitd beside Unleash's Rust
//! engine, in turns within one process. One line of JSON for each. With
//! `--write FILE` the generated experiments are written instead.
//!
//! What Unleash has no words for is put as near as it goes
//! - a layer: it has none. Each experiment is a flag with a gradual rollout of
//!   its own over the same share of users (and so not exclusive with others);
//! - `any` and `not`: conditions become disjunctive normal form, a strategy for
//!   each conjunction;
//! - lists: a text with commas, searched by STR_CONTAINS;
//! - versions: semantic versions of three parts.

use std::collections::HashMap;
use std::hint::black_box;

use anyhow::{Context as _, Result};
use peers::plans::{Shape, experiments_file};
use peers::typical::{EXPERIMENTS, Parsed, bodies, compile};
use peers::{Options, pin, thread_ns};
use serde_json::Value as Json;
use splitd::engine::assignment::Decision;
use splitd::engine::attributes::Facts;
use splitd::engine::plan::Plan;
use unleash_types::client_features::{
    ClientFeature, ClientFeatures, Constraint, Context, Operator, Strategy, StrategyVariant,
};
use unleash_yggdrasil::EngineState;
use unleash_yggdrasil::state::EnrichedContext;

fn main() -> Result<()> {
    let options = Options::read(&["cpu", "rounds", "sizes", "write"])?;
    pin(options.text("cpu"))?;
    let rounds = options.get("rounds", 15)?;
    for size in options.text("sizes").unwrap_or("typical,100,1000,10000").split(',') {
        let generated;
        let file = if size == "typical" {
            EXPERIMENTS
        } else {
            generated = experiments_file(&Shape::of(size.parse()?));
            &generated
        };
        match options.text("write") {
            Some(path) => std::fs::write(path, file).with_context(|| path.to_owned())?,
            None => measure(size, file, rounds)?,
        }
    }
    Ok(())
}

fn measure(size: &str, file: &str, rounds: usize) -> Result<()> {
    let image = compile(file);
    let plan = Plan::attach(image.bytes())?;
    let bodies = bodies();
    let parsed: Vec<Parsed> = bodies.iter().map(|body| Parsed::new(&plan, body)).collect();
    let (mut facts, mut decision) = (Facts::new(&plan), Decision::new(&plan));
    let mut by_splitd = |request: usize| {
        parsed[request].tell(&plan, &mut facts);
        plan.decide(&parsed[request].units(&plan), &facts, &mut decision);
        decision.chosen().len()
    };

    let json: Json = serde_json::from_str(file)?;
    let engine = EngineState::default();
    let features = features(&json)?;
    let names: Vec<String> = features.features.iter().map(|feature| feature.name.clone()).collect();
    let warnings = engine.apply_client_features(features);
    anyhow::ensure!(
        warnings.as_ref().is_none_or(Vec::is_empty),
        "Unleash: {:?}",
        warnings.map(|w| w[0].message.clone())
    );
    let contexts = bodies.iter().map(|body| context(body)).collect::<Result<Vec<_>>>()?;
    let by_unleash = |request: usize| {
        let of = |name| engine.check_variant(&EnrichedContext::from(&contexts[request], name, None));
        names.iter().filter(|name| black_box(of(name)).is_some_and(|variant| variant.enabled)).count()
    };

    let experiments = plan.experiment_count();
    let splitd_count = (20_000_000 / (experiments * 30)).max(300);
    let unleash_count = (3_000_000 / (experiments * 30)).max(10);
    let (mut splitd, mut again, mut unleash) = (Vec::new(), Vec::new(), Vec::new());
    let mut assigned = [0; 2];
    for round in 0..=2 * rounds {
        // A B B A; the first of all is a warm-up.
        let splitd_first = round % 2 == 0;
        for is_splitd in [splitd_first, !splitd_first] {
            if is_splitd {
                let (total, ns) = time(splitd_count, bodies.len(), &mut by_splitd);
                splitd.push(ns / splitd_count as f64);
                assigned[0] = total;
                again.push(time(splitd_count, bodies.len(), &mut by_splitd).1 / splitd_count as f64);
            } else {
                let (total, ns) = time(unleash_count, bodies.len(), &by_unleash);
                unleash.push(ns / unleash_count as f64);
                assigned[1] = total;
            }
        }
    }
    let mean = [assigned[0] as f64 / splitd_count as f64, assigned[1] as f64 / unleash_count as f64];
    let plan_size = image.bytes().len();
    let sides =
        [("splitd", &splitd, mean[0]), ("splitd again", &again, mean[0]), ("unleash", &unleash, mean[1])];
    for (name, times, assigned) in sides {
        let times = &times[1..];
        println!(
            "{{\"name\":\"{name}\",\"plan\":\"{size}\",\"experiments\":{experiments},\"layers\":{},\
             \"plan_bytes\":{plan_size},\"assigned\":{assigned:.1},\"ns\":{times:?}}}",
            plan.layer_count()
        );
    }
    Ok(())
}

/// Assignments in all, and nanoseconds of CPU time.
fn time(count: usize, request_count: usize, mut decide: impl FnMut(usize) -> usize) -> (usize, f64) {
    let begin = thread_ns();
    let total = (0..count).map(|at| black_box(decide(black_box(at % request_count)))).sum();
    (total, (thread_ns() - begin) as f64)
}

// ── The file in Unleash's words ────────────────────────────────────────────

/// A conjunction; a condition is a list of these.
type All = Vec<Constraint>;

fn features(file: &Json) -> Result<ClientFeatures> {
    let experiments = file["experiments"].as_array().context("experiments")?;
    let features = experiments.iter().map(|experiment| feature(file, experiment)).collect::<Result<_>>()?;
    Ok(ClientFeatures { version: 2, features, segments: None, query: None, meta: None })
}

fn feature(file: &Json, experiment: &Json) -> Result<ClientFeature> {
    let name = experiment["name"].as_str().context("name")?;
    let layer = &file["layers"][experiment["layer"].as_str().context("layer")?];
    let buckets = layer["buckets"].as_u64().unwrap_or(10_000);
    let stickiness = if layer["unit"] == "user_id" { "userId" } else { "device_id" };
    let groups = experiment["groups"].as_array().context("groups")?;
    let widths: Vec<(String, u64)> = groups
        .iter()
        .map(|group| {
            let blocks = group["blocks"].as_array().into_iter().flatten();
            (
                group["name"].as_str().unwrap_or("").to_owned(),
                blocks.filter_map(|block| block[1].as_u64()).sum(),
            )
        })
        .collect();
    let total: u64 = widths.iter().map(|(_, width)| width).sum();
    let variants: Vec<StrategyVariant> = widths
        .into_iter()
        .map(|(name, width)| StrategyVariant {
            name,
            weight: (1000 * width / total.max(1)) as i32,
            payload: None,
            stickiness: Some(stickiness.to_owned()),
        })
        .collect();
    let parameters = HashMap::from([
        ("rollout".to_owned(), (100 * total / buckets).to_string()),
        ("stickiness".to_owned(), stickiness.to_owned()),
        ("groupId".to_owned(), name.to_owned()),
    ]);
    let conditions = match &experiment["segment"] {
        Json::Null => vec![Vec::new()],
        Json::String(segment) => normal_form(file, &file["segments"][segment], false)?,
        condition => normal_form(file, condition, false)?,
    };
    let strategies = conditions.into_iter().map(|all| Strategy {
        name: "flexibleRollout".to_owned(),
        sort_order: None,
        segments: None,
        constraints: Some(all),
        parameters: Some(parameters.clone()),
        variants: Some(variants.clone()),
    });
    Ok(ClientFeature {
        name: name.to_owned(),
        enabled: true,
        strategies: Some(strategies.collect()),
        ..ClientFeature::default()
    })
}

/// The condition, or its opposite, as a choice of conjunctions.
fn normal_form(file: &Json, condition: &Json, inverted: bool) -> Result<Vec<All>> {
    if let Some(name) = condition["segment"].as_str() {
        return normal_form(file, &file["segments"][name], inverted);
    }
    if !condition["not"].is_null() {
        return normal_form(file, &condition["not"], !inverted);
    }
    let (of, all) = match (condition["all"].as_array(), condition["any"].as_array()) {
        (Some(of), _) => (of, !inverted),
        (_, Some(of)) => (of, inverted),
        _ => return leaf(file, condition, inverted),
    };
    let mut forms = of.iter().map(|condition| normal_form(file, condition, inverted));
    if !all {
        return forms.try_fold(Vec::new(), |sum, form| Ok([sum, form?].concat()));
    }
    forms.try_fold(vec![Vec::new()], |product, form| {
        let form = form?;
        Ok(product
            .iter()
            .flat_map(|left: &All| form.iter().map(|right| [left.clone(), right.clone()].concat()))
            .collect())
    })
}

fn leaf(file: &Json, leaf: &Json, inverted: bool) -> Result<Vec<All>> {
    let attribute = leaf["attr"].as_str().context("attr")?;
    let kind = file["attributes"][attribute].as_str().context("a declared attribute")?;
    let text = |value: &Json| match (kind, value) {
        ("version", value) => semantic(value.as_str().unwrap_or("0")),
        ("string_list", value) => format!(",{},", value.as_str().unwrap_or("")),
        (_, Json::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    };
    let values: Vec<String> = match &leaf["value"] {
        Json::Array(values) => values.iter().map(text).collect(),
        value => vec![text(value)],
    };
    let operator = match (kind, leaf["op"].as_str().context("op")?) {
        ("version", "eq" | "ne") => Operator::SemverEq,
        ("version", "lt") => Operator::SemverLt,
        ("version", "lte") => Operator::SemverLte,
        ("version", "gt") => Operator::SemverGt,
        ("version", "gte") => Operator::SemverGte,
        ("number", "lt") => Operator::NumLt,
        ("number", "lte") => Operator::NumLte,
        ("number", "gt") => Operator::NumGt,
        ("number", "gte") => Operator::NumGte,
        (_, "ne" | "not_in") => Operator::NotIn,
        (_, "eq" | "in") => Operator::In,
        (_, "starts_with") => Operator::StrStartsWith,
        (_, "ends_with") => Operator::StrEndsWith,
        (_, "contains" | "contains_any" | "contains_all") => Operator::StrContains,
        (_, "matches") => Operator::RegexMatch,
        (_, other) => anyhow::bail!("`{other}` has no likeness in Unleash"),
    };
    let one = |values: Vec<String>| {
        let single = !matches!(
            operator,
            Operator::In
                | Operator::NotIn
                | Operator::StrStartsWith
                | Operator::StrEndsWith
                | Operator::StrContains
        );
        Constraint {
            context_name: attribute.to_owned(),
            operator: operator.clone(),
            case_insensitive: false,
            inverted: inverted != (kind == "version" && leaf["op"] == "ne"),
            value: single.then(|| values[0].clone()),
            values: (!single).then_some(values),
        }
    };
    if leaf["op"] != "contains_all" {
        return Ok(vec![vec![one(values)]]);
    }
    let each = values.into_iter().map(|value| one(vec![value]));
    Ok(if inverted { each.map(|constraint| vec![constraint]).collect() } else { vec![each.collect()] })
}

/// `42.24` → `42.24.0`; a fourth part goes.
fn semantic(version: &str) -> String {
    let mut parts: Vec<&str> = version.trim_start_matches(['v', 'V']).split('.').take(3).collect();
    parts.resize(3, "0");
    parts.join(".")
}

fn context(body: &str) -> Result<Context> {
    let json: Json = serde_json::from_str(body)?;
    let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut properties = HashMap::new();
    for (name, value) in json["attributes"].as_object().context("attributes")? {
        let value = match value {
            Json::Null => continue,
            Json::Array(items) => format!(",{},", items.iter().map(text).collect::<Vec<_>>().join(",")),
            value if name.ends_with("_version") => semantic(&text(value)),
            value => text(value),
        };
        properties.insert(name.clone(), value);
    }
    let units = &json["units"];
    if let Some(device) = units.get("device_id") {
        properties.insert("device_id".to_owned(), text(device));
    }
    Ok(Context {
        user_id: units.get("user_id").map(text),
        properties: Some(properties),
        ..Context::default()
    })
}
