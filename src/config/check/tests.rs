//! What is taken, and what is refused with which words. Every single fault is a row
//! of [`table`].

mod bounds;
mod mutations;
mod table;

use super::*;
use crate::engine::catalog::{
    AttributeKind, Block, Condition, OrderedTest, OverrideKind, State, StringTest, Test,
};
use crate::engine::reference::members;
use crate::limits;
use mutations::Random;

/// A small file without a fault, with one of everything.
const BASE: &str = r#"{
  "version": "v1",
  "attributes": { "platform": "string", "age": "number", "kid": "bool", "app": "version", "subs": "string_list" },
  "segments": {
    "new": { "all": [ { "attr": "app", "op": "gte", "value": "42.24" }, { "attr": "platform", "op": "in", "value": ["tv"] } ] },
    "adults": { "not": { "any": [ { "attr": "age", "op": "lt", "value": 18 }, { "attr": "kid", "op": "eq", "value": true } ] } },
    "both": { "all": [ { "segment": "new" }, { "segment": "adults" } ] }
  },
  "layers": {
    "home": { "salt": "h", "unit": "user_id", "buckets": 100 },
    "solo": { "salt": "", "unit": "device_id" }
  },
  "experiments": [
    { "id": 1, "run_id": 1, "name": "one", "layer": "home", "segment": "both",
      "groups": [ { "name": "control", "blocks": [[0, 10]] }, { "name": "test", "blocks": [[10, 5], [15, 5]], "payload": {"rows": 5} } ],
      "overrides": { "user_id": { "42": "test" }, "device_id": { "d": "control" } } },
    { "id": 2, "run_id": 1, "name": "two", "layer": "home", "state": "killed",
      "groups": [ { "name": "all", "blocks": [[50, 50]] } ] },
    { "id": 3, "run_id": 1, "name": "three", "layer": "solo", "state": "finished",
      "segment": { "attr": "subs", "op": "contains", "value": "kids" },
      "groups": [ { "name": "all", "blocks": [[0, 10000]] } ] }
  ]
}"#;

fn base_with(old: &str, new: &str) -> String {
    assert_eq!(BASE.matches(old).count(), 1, "`{old}` stands once in the base");
    BASE.replace(old, new)
}

fn faults_of(source: &[u8]) -> Vec<Fault> {
    match check(source) {
        Ok(_) => panic!("no fault: {}", String::from_utf8_lossy(source)),
        Err(faults) => faults,
    }
}

/// Exactly one fault, there, that says all of this.
#[track_caller]
fn refused_alone(source: &[u8], pointer: &str, says: &[&str]) {
    let faults = faults_of(source);
    let [fault] = &faults[..] else { panic!("not one fault: {faults:#?}") };
    assert_eq!(fault.pointer, pointer, "{fault}");
    for part in says {
        assert!(fault.message.contains(part), "`{part}` is not said: {fault}");
    }
}

#[test]
fn a_file_without_fault_becomes_a_catalog() {
    let catalog = check(BASE.as_bytes()).expect("no fault");
    assert_eq!(catalog.version, "v1");
    assert_eq!(catalog.unit_kinds, ["user_id", "device_id"]);
    let kinds: Vec<AttributeKind> = catalog.attributes.iter().map(|attribute| attribute.kind).collect();
    use AttributeKind::{Bool, Number, String, StringList, Version};
    assert_eq!(kinds, [String, Number, Bool, Version, StringList]);
    let test = |attribute, test| Condition::Test { attribute, test };
    assert_eq!(
        catalog.segments[0].condition,
        Condition::All(vec![
            test(3, Test::Version(OrderedTest::Gte([42, 24, 0, 0]))),
            test(0, Test::String(StringTest::In(vec!["tv".into()]))),
        ])
    );
    assert_eq!(
        catalog.segments[1].condition,
        Condition::Not(Box::new(Condition::Any(vec![
            test(1, Test::Number(OrderedTest::Lt(18.0))),
            test(2, Test::BoolEq(true)),
        ])))
    );
    assert_eq!(
        catalog.segments[2].condition,
        Condition::All(vec![Condition::Segment(0), Condition::Segment(1)])
    );
    assert_eq!(catalog.layers[0].bucket_count, 100);
    assert_eq!(catalog.layers[1].bucket_count, 10_000);
    let states: Vec<State> = catalog.experiments.iter().map(|experiment| experiment.state).collect();
    assert_eq!(states, [State::Running, State::Killed, State::Finished]);
    let one = &catalog.experiments[0];
    assert_eq!(one.segment, Some(Condition::Segment(2)));
    assert_eq!(one.groups[1].blocks, [Block { first: 10, count: 5 }, Block { first: 15, count: 5 }]);
    assert_eq!(one.groups[1].payload.as_deref(), Some(r#"{"rows":5}"#));
    assert_eq!(
        one.overrides,
        [
            OverrideKind { unit_kind: 0, units: vec![("42".into(), 1)] },
            OverrideKind { unit_kind: 1, units: vec![("d".into(), 0)] },
        ]
    );
}

#[test]
fn text_that_is_no_json_is_refused_with_its_line_and_column() {
    let table: &[(&[u8], &[&str])] = &[
        (b"", &["is empty", "a JSON object is wanted"]),
        (b" \n", &["is empty"]),
        (b"{\n  \"version\": tru\n}", &["malformed JSON at line 2, column 17"]),
        (b"{\"version\": \"v\",}", &["malformed JSON at line 1, column 17", "a comma too many"]),
        (b"{} {}", &["malformed JSON at line 1, column 4", "trailing characters"]),
        (b"{\"a\": 01}", &["malformed JSON at line 1"]),
        (b"{\"a\": NaN}", &["malformed JSON at line 1"]),
        (b"{'a': 1}", &["malformed JSON at line 1"]),
        (b"{\"a\": \"\n\"}", &["malformed JSON at line"]),
        (b"[", &["malformed JSON at line 1, column 2", "EOF"]),
        (b"\xEF\xBB\xBF{}", &["byte order mark", "UTF-8 without one"]),
        (b"\xFF\xFE{\0}\0", &["UTF-16", "UTF-8 is wanted"]),
        (b"{\n \"\xC3\xA9\xFF\": 1}", &["not UTF-8 at line 2, column 4 (offset 6)", "FF"]),
        (b"[]", &["the file is a list", "an object is wanted"]),
        (b"5", &["the file is a number (5)"]),
    ];
    for (source, says) in table {
        refused_alone(source, "", says);
    }
}

#[test]
fn all_faults_are_reported_in_one_run_and_in_the_files_order() {
    let source = br#"{
      "attributes": { "age": "nmber", "payloads": "bool" },
      "layers": { "home": { "salt": 5, "unit": "user_id", "buckets": 0 } },
      "experiments": [
        { "id": 1, "run_id": 1, "name": "one", "layer": "nome", "groups": [ { "blocks": [[0]] } ] },
        5,
        { "id": 1, "run_id": 1, "name": "one", "layer": "home", "segment": { "all": [ { "attr": "aeg", "op": "eqq" }, {} ] },
          "groups": [ { "name": "g", "blocks": [[0, 0], [1, 70000]] } ], "overrides": { "u": { "x": "h" } } }
      ],
      "segments": { "a": { "segment": "b" }, "b": { "segment": "a" } }
    }"#;
    let pointers: Vec<String> = faults_of(source).into_iter().map(|fault| fault.pointer).collect();
    assert_eq!(
        pointers,
        [
            "", // no version
            "/attributes/age",
            "/attributes/payloads",
            "/layers/home/salt",
            "/layers/home/buckets",
            "/experiments/0/layer",
            "/experiments/0/groups/0", // no name
            "/experiments/0/groups/0/blocks/0",
            "/experiments/1",
            "/experiments/2/id",
            "/experiments/2/name",
            "/experiments/2/segment/all/0/attr",
            "/experiments/2/segment/all/0/op",
            "/experiments/2/segment/all/1",
            "/experiments/2/groups/0/blocks/0/1",
            "/experiments/2/overrides/u/x",
            "/segments/b/segment", // closes the circle
        ]
    );
}

#[test]
fn notes_are_allowed_everywhere_and_ignored() {
    let notes = r#""description": "why", "meta": [{"any": null}]"#;
    let noted = format!(
        r#"{{ {notes}, "version": "v1",
          "attributes": {{ {notes}, "n": "number" }},
          "segments": {{ {notes}, "s": {{ {notes}, "all": [ {{ {notes}, "attr": "n", "op": "lt", "value": 1 }}, {{ {notes}, "not": {{ {notes}, "any": [] }} }} ] }} }},
          "layers": {{ {notes}, "l": {{ {notes}, "salt": "s", "unit": "u" }} }},
          "experiments": [ {{ {notes}, "id": 1, "run_id": 1, "name": "e", "layer": "l", "segment": "s",
             "groups": [ {{ {notes}, "name": "g", "blocks": [] }} ], "overrides": {{ {notes}, "u": {{ "description": "g" }} }} }} ] }}"#
    );
    let bare = noted.replace(&format!("{notes},"), "");
    let catalog = check(noted.as_bytes()).expect("notes are no fault");
    assert_eq!(Ok(&catalog), check(bare.as_bytes()).as_ref());
    // Where keys are units' values, every key is one.
    assert_eq!(catalog.experiments[0].overrides[0].units, [("description".to_owned(), 0)]);
}

#[test]
fn blocks_of_drafts_and_killed_ones_stay_theirs_and_those_of_finished_ones_are_free() {
    let file = |state: &str| {
        format!(
            r#"{{ "version": "v", "layers": {{ "l": {{ "salt": "s", "unit": "u", "buckets": 10 }} }}, "experiments": [
              {{ "id": 1, "run_id": 1, "name": "a", "layer": "l", "state": "{state}", "groups": [ {{ "name": "g", "blocks": [[0, 10]] }} ] }},
              {{ "id": 2, "run_id": 1, "name": "b", "layer": "l", "groups": [ {{ "name": "h", "blocks": [[3, 2]] }} ] }} ] }}"#
        )
    };
    assert!(check(file("finished").as_bytes()).is_ok());
    for state in ["running", "draft", "killed"] {
        let says = ["buckets 3 to 4 of layer `l` are owned by group `g` of experiment `a`"];
        refused_alone(file(state).as_bytes(), "/experiments/1/groups/0/blocks/0", &says);
    }
}

#[test]
fn finished_blocks_must_still_lie_in_their_layer() {
    refused_alone(
        base_with("[[0, 10000]]", "[[0, 10001]]").as_bytes(),
        "/experiments/2/groups/0/blocks/0",
        &["leaves layer `solo`, whose buckets are 0 to 9999"],
    );
}

#[test]
fn a_block_over_several_owners_names_each() {
    let source = base_with("[[50, 50]]", "[[5, 50]]");
    let faults = faults_of(source.as_bytes());
    let messages: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
    assert_eq!(messages.len(), 2, "{faults:#?}");
    assert!(
        messages[0]
            .contains("buckets 5 to 9 of layer `home` are owned by group `control` of experiment `one`")
    );
    assert!(
        messages[1]
            .contains("buckets 10 to 14 of layer `home` are owned by group `test` of experiment `one`")
    );
}

#[test]
fn overlaps_found_by_the_runs_are_those_found_bucket_by_bucket() {
    // The plain way: an owner for each bucket. Which blocks are blamed must agree.
    let mut random = Random(7);
    for _ in 0..300 {
        let blocks: Vec<(u64, u64)> =
            (0..random.below(12) + 1).map(|_| (random.below(40), random.below(12) + 1)).collect();
        let mut owned = [false; 64];
        let mut blamed = Vec::new();
        for (index, (first, count)) in blocks.iter().enumerate() {
            let range = *first as usize..(*first + *count) as usize;
            if owned[range.clone()].contains(&true) {
                blamed.push(format!("/experiments/0/groups/{index}/blocks/0"));
            }
            owned[range].fill(true);
        }
        let groups: Vec<String> = blocks
            .iter()
            .enumerate()
            .map(|(index, (first, count))| {
                format!(r#"{{"name": "g{index}", "blocks": [[{first}, {count}]]}}"#)
            })
            .collect();
        let source = format!(
            r#"{{"version": "v", "layers": {{"l": {{"salt": "", "unit": "u", "buckets": 64}}}},
               "experiments": [{{"id": 1, "run_id": 1, "name": "e", "layer": "l", "groups": [{}]}}]}}"#,
            groups.join(",")
        );
        let mut pointers: Vec<String> =
            check(source.as_bytes()).err().into_iter().flatten().map(|fault| fault.pointer).collect();
        pointers.dedup();
        assert_eq!(pointers, blamed, "{source}");
    }
}

#[test]
fn payloads_keep_what_was_written_less_insignificant_white_space() {
    let table = [
        ("{ \"b\" : 1.0e+2 , \"a\":\t[ ] }", r#"{"b":1.0e+2,"a":[]}"#),
        (r#""a \" b\\" "#, r#""a \" b\\""#),
        ("  [ 1 ,\n\t\"x  y\" ]", r#"[1,"x  y"]"#),
        ("null", "null"),
        ("1E999", "1E999"),
        (r#""\u0020\ud83d\ude00""#, r#""\u0020\ud83d\ude00""#),
    ];
    for (written, kept) in table {
        let catalog = check(base_with(r#"{"rows": 5}"#, written).as_bytes()).expect("no fault");
        assert_eq!(catalog.experiments[0].groups[1].payload.as_deref(), Some(kept), "{written}");
    }
}

#[test]
fn numbers_in_the_file_are_the_nearest_f64() {
    for text in ["18.499999999999999999", "9007199254740993", "1.7976931348623157e308", "5e-324"] {
        let nearest: f64 = text.parse().expect("a number");
        let catalog = check(base_with(r#""value": 18 }"#, &format!(r#""value": {text} }}"#)).as_bytes())
            .expect("no fault");
        let Condition::Not(any) = &catalog.segments[1].condition else { panic!() };
        let Condition::Any(parts) = &**any else { panic!() };
        assert_eq!(parts[0], Condition::Test { attribute: 1, test: Test::Number(OrderedTest::Lt(nearest)) });
    }
}

#[test]
fn a_name_may_be_a_unit_and_an_attribute() {
    assert!(
        check(base_with(r#""age": "number","#, r#""age": "number", "user_id": "string","#).as_bytes())
            .is_ok()
    );
}

const LARGE: &str = r"(\\pL{1,9}[0-9]{1,9}){1,9}x";

fn load_faults(source: &str) -> Vec<Fault> {
    match load(source.as_bytes()) {
        Ok(_) => panic!("no fault: {source}"),
        Err(faults) => faults,
    }
}

#[test]
fn what_only_the_plan_can_tell_is_a_fault_with_its_pointer() {
    assert!(load(BASE.as_bytes()).is_ok());

    let large = format!(r#""op": "matches", "value": "{LARGE}""#);
    let faults = load_faults(&base_with(r#""op": "in", "value": ["tv"]"#, &large));
    let [fault] = &faults[..] else { panic!("{faults:#?}") };
    assert_eq!(fault.pointer, "/segments/new/all/1/value");
    assert!(fault.message.contains("262144 bytes"), "{fault}");

    let in_place = format!(r#""segment": {{ "not": {{ "attr": "platform", {large} }} }}"#);
    let faults = load_faults(&base_with(r#""segment": "both""#, &in_place));
    assert_eq!(faults[0].pointer, "/experiments/0/segment/not/value");

    let payload = format!("\"{}\"", "x".repeat(limits::ANSWER_SIZE_MAX));
    let faults = load_faults(&base_with(r#"{"rows": 5}"#, &payload));
    let [fault] = &faults[..] else { panic!("{} faults", faults.len()) };
    assert_eq!(fault.pointer, "/experiments");
    assert!(fault.message.contains("answer") && fault.message.contains("1048576"), "{fault}");
}

#[test]
fn regular_expressions_too_large_are_told_beside_other_faults() {
    let source =
        base_with(r#""op": "in", "value": ["tv"]"#, &format!(r#""op": "matches", "value": "{LARGE}""#));
    let source = source.replace(r#""version": "v1","#, "").replace(r#""id": 2"#, r#""id": 1"#);
    let pointers: Vec<String> = load_faults(&source).into_iter().map(|fault| fault.pointer).collect();
    assert_eq!(pointers, ["", "/segments/new/all/1/value", "/experiments/1/id"]);
}
