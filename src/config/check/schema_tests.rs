//! The schema and `check` speak of one file: the same words, and neither refuses
//! what the other's rules allow.

use serde_json::{Value, json};

use super::*;
use crate::engine::catalog::AttributeKind;

fn schema() -> Value {
    serde_json::from_str(SCHEMA).expect("the schema is JSON")
}

fn validator() -> jsonschema::Validator {
    jsonschema::draft202012::new(&schema()).expect("the schema is one")
}

fn consts(part: &Value) -> Vec<&str> {
    part["oneOf"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| row["const"].as_str().expect("a text"))
        .collect()
}

fn property_names(part: &Value) -> Vec<&str> {
    part["properties"].as_object().expect("properties").keys().map(String::as_str).collect()
}

fn sorted<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names
}

#[test]
fn the_schema_is_a_schema_of_its_draft() {
    assert_eq!(schema()["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(jsonschema::meta::is_valid(&schema()));
}

#[test]
fn the_golden_files_and_the_example_are_valid_under_both() {
    for path in [
        "tests/golden/edge.experiments.json",
        "tests/golden/typical.experiments.json",
        "systemd/experiments.json",
    ] {
        let source = std::fs::read(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).expect(path);
        assert!(check(&source).is_ok(), "{path}: {:#?}", check(&source));
        let file: Value = serde_json::from_slice(&source).expect(path);
        let faults: Vec<String> = validator().iter_errors(&file).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{path}: {faults:#?}");
    }
}

#[test]
fn every_word_of_the_tables_stands_in_the_schema_and_the_other_way_round() {
    let schema = schema();
    let definitions = &schema["$defs"];
    assert_eq!(sorted(consts(&definitions["type"])), sorted(keys::TYPES.iter().map(|(name, _)| *name)));
    assert_eq!(sorted(consts(&definitions["state"])), sorted(keys::STATES.iter().map(|(name, _)| *name)));
    assert_eq!(sorted(consts(&definitions["operator"])), sorted(operators::all_operators()));
    assert_eq!(
        definitions["request_name"]["not"]["enum"],
        json!(keys::RESERVED),
        "names that are the request's own"
    );
    for (part, keys) in [
        (&schema, keys::FILE),
        (&definitions["layer"], keys::LAYER),
        (&definitions["experiment"], keys::EXPERIMENT),
        (&definitions["group"], keys::GROUP),
        (&definitions["condition"], keys::CONDITION),
    ] {
        assert_eq!(sorted(property_names(part)), sorted(keys.iter().chain(keys::NOTES).copied()));
        assert_eq!(part["additionalProperties"], json!(false));
    }
    // Objects whose keys are names allow the notes too.
    for part in [
        &schema["properties"]["attributes"],
        &schema["properties"]["segments"],
        &schema["properties"]["layers"],
        &definitions["experiment"]["properties"]["overrides"],
    ] {
        assert_eq!(sorted(property_names(part)), keys::NOTES);
    }
}

#[test]
fn the_types_descriptions_name_exactly_their_operators() {
    let schema = schema();
    for (name, kind) in keys::TYPES {
        let rows = schema["$defs"]["type"]["oneOf"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["const"] == *name).expect("a row");
        let (_, listed) =
            row["description"].as_str().expect("a text").rsplit_once(": ").expect("a list at the end");
        let listed: Vec<&str> =
            listed.trim_end_matches('.').split(", ").map(|op| op.trim_end_matches(" (one)")).collect();
        assert_eq!(listed, operators::operators(*kind), "{name}");
    }
}

#[test]
fn every_operator_with_its_operand_is_valid_under_both() {
    for (type_name, kind) in keys::TYPES {
        let one = match kind {
            AttributeKind::String | AttributeKind::StringList => json!("x"),
            AttributeKind::Number => json!(1.5),
            AttributeKind::Bool => json!(true),
            AttributeKind::Version => json!("v1.2"),
        };
        for op in operators::operators(*kind) {
            let mut test = json!({"attr": "a", "op": op, "value": one});
            match op {
                "in" | "not_in" | "contains_any" | "contains_all" => test["value"] = json!([one]),
                "exists" => test["value"] = json!(false),
                _ => {}
            }
            let file = json!({"version": "v", "attributes": {"a": type_name}, "segments": {"s": test}, "experiments": []});
            assert!(validator().is_valid(&file), "{file}");
            assert!(check(file.to_string().as_bytes()).is_ok(), "{file}");
        }
    }
}

#[test]
fn what_a_schema_can_say_is_refused_by_both() {
    // (where in the example, what stands there instead; null takes it out)
    let table = [
        ("/version", json!(1)),
        ("/version", json!("")),
        ("/version", Value::Null),
        ("/experiments", json!({})),
        ("/unheard_of", json!(1)),
        ("/description", json!(5)),
        ("/attributes/age", json!("integer")),
        ("/attributes/payloads", json!("bool")),
        ("/attributes/exposure", json!("bool")),
        ("/segments/staff", json!({})),
        ("/segments/staff", json!("adults")),
        ("/segments/staff", json!({"all": [], "any": []})),
        ("/segments/staff", json!({"attr": "age"})),
        ("/segments/staff", json!({"op": "eq", "value": 1})),
        ("/segments/staff", json!({"attr": "age", "op": "lt"})),
        ("/segments/staff", json!({"attr": "age", "op": "less", "value": 1})),
        ("/segments/staff", json!({"attr": "age", "op": "in", "value": 1})),
        ("/segments/staff", json!({"attr": "age", "op": "in", "value": [1, "2"]})),
        ("/segments/staff", json!({"attr": "age", "op": "lt", "value": true})),
        ("/segments/staff", json!({"attr": "age", "op": "exists", "value": "no"})),
        ("/segments/staff", json!({"attr": "platform", "op": "starts_with", "value": ["a"]})),
        ("/segments/staff", json!({"attr": "platform", "op": "eq", "value": null})),
        ("/segments/staff", json!({"attr": "subscriptions", "op": "contains_any", "value": "a"})),
        ("/segments/staff", json!({"attr": "app_version", "op": "lt", "value": "1.2.3.4.5"})),
        ("/segments/staff", json!({"segment": "adults", "op": "eq"})),
        ("/layers/home/salt", Value::Null),
        ("/layers/home/unit", Value::Null),
        ("/layers/home/unit", json!("payloads")),
        ("/layers/home/buckets", json!(0)),
        ("/layers/home/buckets", json!(65_537)),
        ("/layers/home/buckets", json!("many")),
        ("/layers/home/colour", json!("red")),
        ("/experiments/0/id", Value::Null),
        ("/experiments/0/id", json!("1001")),
        ("/experiments/0/id", json!(9_223_372_036_854_775_808_u64)),
        ("/experiments/0/run_id", json!(2_147_483_648_u32)),
        ("/experiments/0/run_id", json!(1.5)),
        ("/experiments/0/name", json!("")),
        ("/experiments/0/name", json!("x".repeat(257))),
        ("/experiments/0/state", json!("paused")),
        ("/experiments/0/layer", Value::Null),
        ("/experiments/0/segment", json!(5)),
        ("/experiments/0/groups", json!("control")),
        ("/experiments/0/groups/0/name", Value::Null),
        ("/experiments/0/groups/0/name", json!("")),
        ("/experiments/0/groups/0/blocks", Value::Null),
        ("/experiments/0/groups/0/blocks", json!([[0]])),
        ("/experiments/0/groups/0/blocks", json!([[0, 1, 2]])),
        ("/experiments/0/groups/0/blocks", json!([[0, 0]])),
        ("/experiments/0/groups/0/blocks", json!([[-1, 1]])),
        ("/experiments/0/groups/0/weight", json!(1)),
        ("/experiments/0/overrides", json!(["42"])),
        ("/experiments/0/overrides/user_id", json!("42")),
        ("/experiments/0/overrides/user_id/42", json!(1)),
        ("/experiments/0/overrides/exposure", json!({})),
    ];
    let example = include_str!("../../../systemd/experiments.json");
    let validator = validator();
    for (pointer, instead) in table {
        let mut file: Value = serde_json::from_str(example).expect("the example is JSON");
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = file.pointer_mut(parent).expect("a place in the example");
        match parent {
            Value::Object(members) if instead.is_null() => drop(members.remove(key)),
            Value::Object(members) => drop(members.insert(key.into(), instead.clone())),
            _ => panic!("{pointer}"),
        }
        assert!(!validator.is_valid(&file), "the schema allows {pointer}: {instead}");
        assert!(check(file.to_string().as_bytes()).is_err(), "check allows {pointer}: {instead}");
    }
}

#[test]
fn the_example_shows_every_type_and_state_and_most_operators() {
    let example = include_str!("../../../systemd/experiments.json");
    let catalog = check(example.as_bytes()).expect("no fault");
    assert!(catalog.experiments.len() >= 20);
    for (name, kind) in keys::TYPES {
        assert!(catalog.attributes.iter().any(|attribute| attribute.kind == *kind), "{name}");
    }
    for (name, state) in keys::STATES {
        assert!(catalog.experiments.iter().any(|experiment| experiment.state == *state), "{name}");
    }
    let operators = operators::all_operators();
    let shown = operators.iter().filter(|op| example.contains(&format!(r#""op": "{op}""#))).count();
    assert!(shown * 10 >= operators.len() * 9, "{shown} of {}", operators.len());
}
