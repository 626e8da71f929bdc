//! One row for each thing a file is refused for: where the fault is and what it says.

use super::*;
use crate::engine::catalog::{
    AttributeKind, Block, Condition, OrderedTest, OverrideKind, State, StringTest, Test,
};
use crate::engine::reference::members;
use crate::limits;

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
fn every_fault_is_reported_where_it_is_with_what_would_be_right() {
    // (what stands in the base, what stands there instead, the fault's pointer, what it says)
    let table: &[(&str, &str, &str, &[&str])] = &[
        // Keys: unknown, repeated, missing, at every level.
        (
            r#""version": "v1","#,
            r#""version": "v1", "experimants": 1,"#,
            "/experimants",
            &["unknown key `experimants`", "did you mean `experiments`?", "`layers`"],
        ),
        (
            r#""buckets": 100"#,
            r#""bucket": 100"#,
            "/layers/home/bucket",
            &["unknown key `bucket`", "did you mean `buckets`?"],
        ),
        (
            r#""state": "killed""#,
            r#""stat": "draft""#,
            "/experiments/1/stat",
            &["unknown key `stat`", "did you mean `state`?"],
        ),
        (
            r#""payload": {"rows": 5}"#,
            r#""payloads": {"rows": 5}"#,
            "/experiments/0/groups/1/payloads",
            &["unknown key `payloads`", "did you mean `payload`?"],
        ),
        (
            r#""value": "42.24" }"#,
            r#""value": "42.24", "extra~/": 1 }"#,
            "/segments/new/all/0/extra~0~1",
            &["unknown key `extra~/`"],
        ),
        (
            r#""version": "v1","#,
            r#""version": "v1", "version": "v2","#,
            "/version",
            &["key `version` is repeated", "line 2"],
        ),
        (
            r#""buckets": 100"#,
            r#""buckets": 100, "salt": "i""#,
            "/layers/home/salt",
            &["key `salt` is repeated", "line 10"],
        ),
        (
            r#""age": "number","#,
            r#""age": "number", "\u0061ge": "number","#,
            "/attributes/age",
            &["key `age` is repeated"],
        ),
        (
            r#""42": "test""#,
            r#""42": "test", "42": "control""#,
            "/experiments/0/overrides/user_id/42",
            &["key `42` is repeated"],
        ),
        (
            r#"{"rows": 5}"#,
            r#"{"rows": 5, "deep": [{"a": 1, "a": 2}]}"#,
            "/experiments/0/groups/1/payload/deep/0/a",
            &["key `a` is repeated"],
        ),
        (
            r#""version": "v1","#,
            r#""version": "v1", "meta": {"a": {"b": 1, "b": 2}},"#,
            "/meta/a/b",
            &["key `b` is repeated"],
        ),
        (r#""version": "v1","#, "", "", &["no `version`", "is wanted"]),
        (r#""salt": "h", "#, "", "/layers/home", &["layer `home` has no `salt`"]),
        (r#", "unit": "device_id""#, "", "/layers/solo", &["layer `solo` has no `unit`"]),
        (r#""id": 2, "#, "", "/experiments/1", &["experiment `two` has no `id`"]),
        (r#""id": 2, "run_id": 1,"#, r#""id": 2,"#, "/experiments/1", &["experiment `two` has no `run_id`"]),
        (r#""name": "two", "#, "", "/experiments/1", &["experiment 1 has no `name`"]),
        (r#""layer": "solo", "#, "", "/experiments/2", &["experiment `three` has no `layer`"]),
        (
            r#""name": "all", "blocks": [[50, 50]]"#,
            r#""name": "all""#,
            "/experiments/1/groups/0",
            &["group `all` of experiment `two` has no `blocks`", "[] for no buckets"],
        ),
        // Names: used twice, not declared, too long, empty, the request's own.
        (
            r#""name": "two""#,
            r#""name": "one""#,
            "/experiments/1/name",
            &["experiment name `one` is used twice", "/experiments/0"],
        ),
        (
            r#""payload": {"rows": 5} } ]"#,
            r#""payload": {"rows": 5} }, { "name": "control", "blocks": [] } ]"#,
            "/experiments/0/groups/2/name",
            &["group name `control` is used twice", "`one`", "group 0 has it"],
        ),
        (
            r#""layer": "solo""#,
            r#""layer": "sol""#,
            "/experiments/2/layer",
            &["layer `sol` is not declared", "did you mean `solo`?"],
        ),
        (
            r#""segment": "both""#,
            r#""segment": "Both""#,
            "/experiments/0/segment",
            &["segment `Both` is not declared", "did you mean `both`?"],
        ),
        (
            r#"{ "segment": "adults" }"#,
            r#"{ "segment": "nobody" }"#,
            "/segments/both/all/1/segment",
            &["segment `nobody` is not declared"],
        ),
        (
            r#""attr": "subs""#,
            r#""attr": "sbus""#,
            "/experiments/2/segment/attr",
            &["attribute `sbus` is not declared", "did you mean `subs`?"],
        ),
        (
            r#""attr": "subs""#,
            r#""attr": "meta""#,
            "/experiments/2/segment/attr",
            &["`meta` is not declared", "are notes"],
        ),
        (r#""name": "two""#, r#""name": """#, "/experiments/1/name", &["`name` is empty", "1 to 256 bytes"]),
        (r#""unit": "device_id""#, r#""unit": """#, "/layers/solo/unit", &["`unit` is empty"]),
        (r#""version": "v1""#, r#""version": """#, "/version", &["`version` is empty"]),
        (r#""version": "v1""#, r#""version": "v\n1""#, "/version", &["control character"]),
        (
            r#""age": "number","#,
            r#""age": "number", "payloads": "bool","#,
            "/attributes/payloads",
            &["`payloads` is an option of the request's own"],
        ),
        (
            r#""age": "number","#,
            r#""age": "number", "exposure": "bool","#,
            "/attributes/exposure",
            &["`exposure` is an option of the request's own"],
        ),
        (
            r#""unit": "device_id""#,
            r#""unit": "payloads""#,
            "/layers/solo/unit",
            &["`payloads`", "can't be a unit"],
        ),
        (
            r#""device_id": { "d": "control" }"#,
            r#""exposure": { "d": "control" }"#,
            "/experiments/0/overrides/exposure",
            &["`exposure`", "can't be a unit"],
        ),
        // Types, states and other words.
        (
            r#""kid": "bool""#,
            r#""kid": "boolean""#,
            "/attributes/kid",
            &["unknown type `boolean`", "`string_list`"],
        ),
        (
            r#""kid": "bool""#,
            r#""kid": "bol""#,
            "/attributes/kid",
            &["unknown type `bol`", "did you mean `bool`?"],
        ),
        (r#""kid": "bool""#, r#""kid": 5"#, "/attributes/kid", &["a number (5)", "a text is wanted"]),
        (
            r#""state": "killed""#,
            r#""state": "kiled""#,
            "/experiments/1/state",
            &["unknown state `kiled`", "did you mean `killed`?", "`draft`"],
        ),
        (
            r#""version": "v1""#,
            r#""version": 1"#,
            "/version",
            &["`version` is a number (1)", "a text is wanted"],
        ),
        (r#""salt": "h""#, r#""salt": null"#, "/layers/home/salt", &["`salt` is null", "a text is wanted"]),
        (
            r#""version": "v1","#,
            r#""version": "v1", "description": 5,"#,
            "/description",
            &["`description` is a number (5)", "a text"],
        ),
        (
            r#""segment": "both""#,
            r#""segment": null"#,
            "/experiments/0/segment",
            &["`segment` is null", "no `segment` for everybody"],
        ),
        // Numbers of their own width.
        (
            r#""id": 2, "#,
            r#""id": 1, "#,
            "/experiments/1/id",
            &["experiment id 1 is repeated", "/experiments/0"],
        ),
        (
            r#""id": 2, "#,
            r#""id": 9223372036854775808, "#,
            "/experiments/1/id",
            &["9223372036854775808", "9223372036854775807"],
        ),
        (
            r#""id": 2, "#,
            r#""id": 2.0, "#,
            "/experiments/1/id",
            &["a number (2.0)", "a whole number is wanted"],
        ),
        (
            r#""id": 2, "#,
            r#""id": "2", "#,
            "/experiments/1/id",
            &["a text (\"2\")", "a whole number is wanted"],
        ),
        (
            r#""id": 2, "run_id": 1"#,
            r#""id": 2, "run_id": 2147483648"#,
            "/experiments/1/run_id",
            &["2147483648", "-2147483648 to 2147483647"],
        ),
        (r#""buckets": 100"#, r#""buckets": 65537"#, "/layers/home/buckets", &["65537", "1 to 65536"]),
        (
            r#""buckets": 100"#,
            r#""buckets": 1e2"#,
            "/layers/home/buckets",
            &["1e2", "without point or exponent"],
        ),
        // Conditions.
        (r#"{ "segment": "adults" }"#, "{}", "/segments/both/all/1", &["a condition says nothing", "`attr`"]),
        (
            r#"{ "segment": "adults" }"#,
            "5",
            "/segments/both/all/1",
            &["a condition is a number (5)", "an object is wanted"],
        ),
        (
            r#"{ "segment": "adults" }"#,
            r#"{ "segment": "adults", "all": [] }"#,
            "/segments/both/all/1",
            &["`all` and `segment`"],
        ),
        (
            r#"{ "segment": "adults" }"#,
            r#"{ "segment": "adults", "op": "eq" }"#,
            "/segments/both/all/1/op",
            &["`op` belongs to a test"],
        ),
        (
            r#"{ "segment": "adults" }"#,
            r#"{ "op": "eq", "value": 1 }"#,
            "/segments/both/all/1",
            &["no `attr`"],
        ),
        (
            r#"{ "segment": "adults" }"#,
            r#"{ "any": {} }"#,
            "/segments/both/all/1/any",
            &["`any` is an object", "a list is wanted"],
        ),
        (
            r#""op": "contains", "value": "kids""#,
            r#""value": "kids""#,
            "/experiments/2/segment",
            &["no `op`", "`contains_all`"],
        ),
        // Circles.
        (
            r#"{ "segment": "adults" }"#,
            r#"{ "segment": "both" }"#,
            "/segments/both/all/1/segment",
            &["in a circle", "`both` → `both`"],
        ),
        (
            r#"{ "attr": "kid", "op": "eq", "value": true }"#,
            r#"{ "segment": "both" }"#,
            "/segments/both/all/1/segment",
            &["in a circle", "`adults` → `both` → `adults`"],
        ),
        // Operators that do not fit, operands of the wrong type.
        (
            r#""attr": "app", "op": "gte""#,
            r#""attr": "app", "op": "contains""#,
            "/segments/new/all/0/op",
            &["`contains` does not fit attribute `app`, a version", "`gte`"],
        ),
        (
            r#""op": "lt", "value": 18"#,
            r#""op": "matches", "value": "18""#,
            "/segments/adults/not/any/0/op",
            &["`matches` does not fit attribute `age`, a number"],
        ),
        (
            r#""op": "eq", "value": true"#,
            r#""op": "in", "value": [true]"#,
            "/segments/adults/not/any/1/op",
            &["`in` does not fit attribute `kid`, a bool", "`eq`, `ne` and `exists`"],
        ),
        (
            r#""op": "contains", "value": "kids""#,
            r#""op": "eq", "value": ["kids"]"#,
            "/experiments/2/segment/op",
            &["`eq` does not fit attribute `subs`, a string_list"],
        ),
        (
            r#""op": "in", "value": ["tv"]"#,
            r#""op": "lt", "value": "tv""#,
            "/segments/new/all/1/op",
            &["`lt` does not fit attribute `platform`, a string"],
        ),
        (r#""op": "gte""#, r#""op": "=>""#, "/segments/new/all/0/op", &["unknown operator `=>`", "`gte`"]),
        (
            r#""op": "in""#,
            r#""op": "int""#,
            "/segments/new/all/1/op",
            &["unknown operator `int`", "did you mean `in`?"],
        ),
        (
            r#""op": "in", "value": ["tv"]"#,
            r#""op": "in", "value": "tv""#,
            "/segments/new/all/1/value",
            &["the operand of `in` is a text (\"tv\")", "a list of texts is wanted"],
        ),
        (
            r#""op": "in", "value": ["tv"]"#,
            r#""op": "in", "value": ["tv", 5]"#,
            "/segments/new/all/1/value/1",
            &["a number (5)", "a text is wanted"],
        ),
        (
            r#""op": "in", "value": ["tv"]"#,
            r#""op": "in""#,
            "/segments/new/all/1",
            &["`in` has no `value`", "a list of texts"],
        ),
        (
            r#""op": "lt", "value": 18"#,
            r#""op": "lt", "value": "18""#,
            "/segments/adults/not/any/0/value",
            &["a text (\"18\")", "a number is wanted"],
        ),
        (
            r#""op": "lt", "value": 18"#,
            r#""op": "lt", "value": [18]"#,
            "/segments/adults/not/any/0/value",
            &["a list", "one number is wanted"],
        ),
        (
            r#""op": "lt", "value": 18"#,
            r#""op": "lt", "value": 1e999"#,
            "/segments/adults/not/any/0/value",
            &["1e999", "beyond f64"],
        ),
        (
            r#""op": "eq", "value": true"#,
            r#""op": "eq", "value": 1"#,
            "/segments/adults/not/any/1/value",
            &["a number (1)", "true or false"],
        ),
        (
            r#""op": "eq", "value": true"#,
            r#""op": "exists", "value": "no""#,
            "/segments/adults/not/any/1/value",
            &["a text (\"no\")", "true, false"],
        ),
        (
            r#""value": "42.24""#,
            r#""value": "42.24-beta""#,
            "/segments/new/all/0/value",
            &["`42.24-beta`, no version", "1 to 4 whole numbers"],
        ),
        (
            r#""value": "42.24""#,
            r#""value": 42.24"#,
            "/segments/new/all/0/value",
            &["a number (42.24)", "a version is a text"],
        ),
        (
            r#""op": "contains", "value": "kids""#,
            r#""op": "contains", "value": ["kids"]"#,
            "/experiments/2/segment/value",
            &["a list", "one text is wanted"],
        ),
        (
            r#""op": "in", "value": ["tv"]"#,
            r#""op": "matches", "value": "a(""#,
            "/segments/new/all/1/value",
            &["`a(` is faulty", "unclosed group"],
        ),
        (
            r#""op": "in", "value": ["tv"]"#,
            r#""op": "matches", "value": "\\btv""#,
            "/segments/new/all/1/value",
            &["Unicode word boundary", "(?-u:\\b)"],
        ),
        (
            r#""op": "in", "value": ["tv"]"#,
            r#""op": "matches", "value": "(?-u:\\xFF)""#,
            "/segments/new/all/1/value",
            &["is faulty"],
        ),
        // Groups and blocks.
        (
            r#"{ "name": "control", "blocks": [[0, 10]] }"#,
            r#"{ "blocks": [[0, 10]] }"#,
            "/experiments/0/groups/0",
            &["group 0 of experiment `one` has no `name`"],
        ),
        (
            r#""name": "all", "blocks": [[50, 50]]"#,
            r#""name": "", "blocks": [[50, 50]]"#,
            "/experiments/1/groups/0/name",
            &["`name` is empty"],
        ),
        (
            r#"[[50, 50]]"#,
            r#"[[50, 51]]"#,
            "/experiments/1/groups/0/blocks/0",
            &[
                "block [50, 51] of group `all`",
                "leaves layer `home`, whose buckets are 0 to 99",
                "at most 50",
            ],
        ),
        (
            r#"[[50, 50]]"#,
            r#"[[100, 1]]"#,
            "/experiments/1/groups/0/blocks/0",
            &["leaves layer `home`", "behind them"],
        ),
        (r#"[[50, 50]]"#, r#"[[50, 0]]"#, "/experiments/1/groups/0/blocks/0/1", &["count is 0", "1 to"]),
        (r#"[[50, 50]]"#, r#"[[-1, 5]]"#, "/experiments/1/groups/0/blocks/0/0", &["-1", "0 to"]),
        (
            r#"[[50, 50]]"#,
            r#"[[50]]"#,
            "/experiments/1/groups/0/blocks/0",
            &["1 numbers", "[first bucket, count]"],
        ),
        (
            r#"[[50, 50]]"#,
            r#"[[4294967295, 4294967295]]"#,
            "/experiments/1/groups/0/blocks/0",
            &["leaves layer"],
        ),
        (
            r#"[[50, 50]]"#,
            r#"[[19, 5]]"#,
            "/experiments/1/groups/0/blocks/0",
            &[
                "block [19, 5] of group `all` of experiment `two`",
                "bucket 19 of layer `home` is owned by group `test` of experiment `one`",
            ],
        ),
        (
            r#"[[10, 5], [15, 5]]"#,
            r#"[[9, 3], [15, 5]]"#,
            "/experiments/0/groups/1/blocks/0",
            &["bucket 9 of layer `home` is owned by group `control` of experiment `one`"],
        ),
        (
            r#"[[10, 5], [15, 5]]"#,
            r#"[[10, 6], [14, 5]]"#,
            "/experiments/0/groups/1/blocks/1",
            &["buckets 14 to 15", "owned by the same group"],
        ),
        // Overrides.
        (
            r#""42": "test""#,
            r#""42": "tests""#,
            "/experiments/0/overrides/user_id/42",
            &["override of user_id `42` names no group of experiment `one`: `tests`", "did you mean `test`?"],
        ),
        (r#""42": "test""#, r#""": "test""#, "/experiments/0/overrides/user_id/", &["a unit of 0 bytes"]),
        (
            r#""42": "test""#,
            r#""42": 1"#,
            "/experiments/0/overrides/user_id/42",
            &["a number (1)", "a text is wanted"],
        ),
        (
            r#"{ "42": "test" }"#,
            r#"["42"]"#,
            "/experiments/0/overrides/user_id",
            &["a list", "an object is wanted"],
        ),
        // Text that is no text.
        (
            r#""kids""#,
            r#""\ud800""#,
            "/experiments/2/segment/value",
            &["half of a surrogate pair", "line 20"],
        ),
        (
            r#"{"rows": 5}"#,
            r#"{"rows": "\udc00x"}"#,
            "/experiments/0/groups/1/payload/rows",
            &["half of a surrogate pair"],
        ),
        (
            r#"{"rows": 5}"#,
            r#"{"\ud800": 5}"#,
            "/experiments/0/groups/1/payload",
            &["a key in here", "half of a surrogate pair"],
        ),
    ];
    for (old, new, pointer, says) in table {
        refused_alone(base_with(old, new).as_bytes(), pointer, says);
    }
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

#[test]
fn nesting_is_read_to_its_limit_and_refused_beyond() {
    let nested = |depth: usize| {
        let payload = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        base_with(r#"{"rows": 5}"#, &payload)
    };
    // The payload lies in the file, `experiments`, an experiment, `groups` and a group.
    let room = limits::JSON_DEPTH_MAX - 5;
    assert!(check(nested(room).as_bytes()).is_ok());
    let pointer = format!("/experiments/0/groups/1/payload{}", "/0".repeat(room));
    refused_alone(nested(room + 1).as_bytes(), &pointer, &["nested deeper than 64"]);
    refused_alone(nested(200_000).as_bytes(), &pointer, &["nested deeper than 64"]);

    let conditions = format!("{}{{\"all\": []}}{}", r#"{"not": "#.repeat(100_000), "}".repeat(100_000));
    let faults = faults_of(base_with(r#"{ "segment": "adults" }"#, &conditions).as_bytes());
    assert!(faults.len() == 1 && faults[0].message.contains("nested deeper"), "{faults:#?}");
}

#[test]
fn a_circle_of_many_names_some_of_them() {
    let segments: Vec<String> =
        (0..100_000).map(|n| format!(r#""s{n}": {{"segment": "s{}"}}"#, (n + 1) % 100_000)).collect();
    let source =
        format!(r#"{{"version": "v", "segments": {{ {} }}, "experiments": []}}"#, segments.join(","));
    refused_alone(
        source.as_bytes(),
        "/segments/s99999/segment",
        &["in a circle: `s0` → `s1` → ", "99988 more → `s0`"],
    );
}

#[test]
fn every_circle_is_reported() {
    let source = br#"{"version": "v", "experiments": [], "segments": {
        "a": {"any": [{"segment": "b"}, {"segment": "c"}]}, "b": {"segment": "a"}, "c": {"not": {"segment": "a"}},
        "d": {"segment": "d"}, "e": {"segment": "a"} }}"#;
    let pointers: Vec<String> = faults_of(source).into_iter().map(|fault| fault.pointer).collect();
    assert_eq!(pointers, ["/segments/b/segment", "/segments/c/not/segment", "/segments/d/segment"]);
}

#[test]
fn segments_that_double_at_every_level_are_refused_at_once() {
    for leaf in [r#"{"all": []}"#, r#"{"attr": "n", "op": "exists"}"#] {
        let mut segments = vec![format!(r#""s0": {leaf}"#)];
        segments.extend((1..64).map(|n| {
            format!(r#""s{n}": {{"all": [{{"segment": "s{p}"}}, {{"segment": "s{p}"}}]}}"#, p = n - 1)
        }));
        let source = format!(
            r#"{{"version": "v", "attributes": {{"n": "number"}}, "segments": {{ {} }}, "experiments": []}}"#,
            segments.join(",")
        );
        // 1 + 2 + 4 … passes 2^20 with the 21st.
        refused_alone(source.as_bytes(), "/segments/s20", &["more than 1048576 tests"]);
    }
}

#[test]
fn a_chain_of_segments_is_as_long_as_plain_recursion_can_follow() {
    let chain = |length: usize| {
        let mut segments = vec![r#""s0": {"all": []}"#.to_owned()];
        segments.extend((1..length).map(|n| format!(r#""s{n}": {{"segment": "s{}"}}"#, n - 1)));
        format!(r#"{{"version": "v", "segments": {{ {} }}, "experiments": []}}"#, segments.join(","))
    };
    assert!(check(chain(limits::SEGMENT_DEPTH_MAX).as_bytes()).is_ok());
    refused_alone(chain(limits::SEGMENT_DEPTH_MAX + 1).as_bytes(), "/segments/s512", &["nested 513 deep"]);
    let faults = faults_of(chain(50_000).as_bytes());
    assert_eq!(faults[0].pointer, "/segments/s512");
}

#[test]
fn counts_and_sizes_over_their_limits_are_refused() {
    let long = "x".repeat(limits::NAME_SIZE_MAX + 1);
    refused_alone(
        base_with(r#""name": "two""#, &format!(r#""name": "{long}""#)).as_bytes(),
        "/experiments/1/name",
        &["257 bytes", "at most 256"],
    );
    refused_alone(
        base_with(r#""salt": "h""#, &format!(r#""salt": "{long}""#)).as_bytes(),
        "/layers/home/salt",
        &["257 bytes"],
    );
    refused_alone(
        base_with(r#""version": "v1""#, &format!(r#""version": "{long}""#)).as_bytes(),
        "/version",
        &["257 bytes"],
    );
    refused_alone(
        base_with(r#""42": "test""#, &format!(r#""{long}": "test""#)).as_bytes(),
        &format!("/experiments/0/overrides/user_id/{long}"),
        &["a unit of 257 bytes", "1 to 256"],
    );
    let attributes: Vec<String> =
        (0..limits::ATTRIBUTE_COUNT_MAX).map(|n| format!(r#""a{n}": "bool","#)).collect();
    refused_alone(
        base_with(r#""age": "number","#, &format!(r#""age": "number", {}"#, attributes.concat())).as_bytes(),
        "/attributes",
        &["1029 attributes", "at most 1024"],
    );
    let kinds: Vec<String> = (0..limits::UNIT_KIND_COUNT_MAX).map(|n| format!(r#""u{n}": {{}},"#)).collect();
    refused_alone(
        base_with(r#""overrides": {"#, &format!(r#""overrides": {{ {}"#, kinds.concat())).as_bytes(),
        "/experiments/0/overrides/u1022",
        &["one kind too many"],
    );
    let experiments = vec!["0"; limits::EXPERIMENT_COUNT_MAX + 1].join(",");
    let source = format!(r#"{{"version": "v", "experiments": [{experiments}]}}"#);
    refused_alone(source.as_bytes(), "/experiments", &["100001 experiments", "at most 100000"]);
}

#[test]
fn a_hundred_thousand_faults_are_cut_short_and_counted() {
    let experiments: Vec<String> = (0..100_000)
        .map(|n| format!(r#"{{"id": {n}, "run_id": 1, "name": "e{n}", "layer": "hime{n}", "groups": []}}"#))
        .collect();
    let layers: Vec<String> =
        (0..20_000).map(|n| format!(r#""home{n}": {{"salt": "s", "unit": "u"}}"#)).collect();
    let source = format!(
        r#"{{"version": "v", "layers": {{ {} }}, "experiments": [{}]}}"#,
        layers.join(","),
        experiments.join(",")
    );
    let faults = faults_of(source.as_bytes());
    assert_eq!(faults.len(), FAULT_COUNT_MAX + 1);
    assert!(faults[0].message.contains("did you mean `home0`?"), "{}", faults[0]);
    let last = faults.last().expect("one");
    assert_eq!(last.to_string(), "the file: and at least 99000 more; mend these first");
}

#[test]
fn blocks_that_all_overlap_take_no_quadratic_time() {
    let mut blocks: Vec<String> = (0..32_768).map(|n| format!("[{}, 1]", 2 * n)).collect();
    blocks.extend(std::iter::repeat_n("[0, 65536]".to_owned(), 50_000));
    let source = format!(
        r#"{{"version": "v", "layers": {{"l": {{"salt": "", "unit": "u", "buckets": 65536}}}}, "experiments": [
           {{"id": 1, "run_id": 1, "name": "e", "layer": "l", "groups": [{{"name": "g", "blocks": [{}]}}]}}]}}"#,
        blocks.join(",")
    );
    assert_eq!(faults_of(source.as_bytes()).len(), FAULT_COUNT_MAX + 1);
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

/// xorshift64*: enough to shake a file, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

/// The seed of this run, printed; `SPLITD_SEED` sets another, `SPLITD_ROUNDS` more rounds.
fn seeded(round_count: u64) -> (Random, u64) {
    let variable = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = variable("SPLITD_SEED").unwrap_or(0x5EED).max(1);
    println!("SPLITD_SEED={seed}");
    (Random(seed), variable("SPLITD_ROUNDS").unwrap_or(round_count))
}

const GOLDEN_EDGE: &str = include_str!("../../../tests/golden/edge.experiments.json");
const EXAMPLE: &str = include_str!("../../../systemd/experiments.json");

#[test]
fn no_mutation_of_a_files_bytes_panics_or_hangs() {
    let (mut random, round_count) = seeded(1500);
    let words: &[&[u8]] = &[
        b"{", b"}", b"[", b"]", b",", b":", b"\"", b"\\u", b"\\ud800", b"null", b"1e999", b"-", b"0", b"\xFF",
    ];
    for round in 0..round_count {
        let mut mutated = [BASE, GOLDEN_EDGE, EXAMPLE][round as usize % 3].as_bytes().to_vec();
        for _ in 0..random.below(4) + 1 {
            let at = random.below(mutated.len() as u64) as usize;
            let end = (at + random.below(40) as usize).min(mutated.len());
            match random.below(4) {
                0 => mutated[at] = random.below(256) as u8,
                1 => drop(mutated.drain(at..end)),
                2 => {
                    let word = words[random.below(words.len() as u64) as usize];
                    mutated.splice(at..at, word.iter().copied());
                }
                _ => mutated[at] = mutated[at].wrapping_add(1),
            }
            if mutated.is_empty() {
                mutated.push(b'{');
            }
        }
        fuzz_experiments_file(&mutated);
    }
}

/// Every value of a JSON text, by its place in it.
fn value_ranges(text: &str, json: &str, ranges: &mut Vec<std::ops::Range<usize>>) {
    let start = json.as_ptr().addr() - text.as_ptr().addr();
    ranges.push(start..start + json.len());
    if json.starts_with('{') {
        for (_, value) in members(json).expect("an object") {
            value_ranges(text, value.get(), ranges);
        }
    } else if json.starts_with('[') {
        for value in serde_json::from_str::<Vec<&RawValue>>(json).expect("an array") {
            value_ranges(text, value.get(), ranges);
        }
    }
}

#[test]
fn no_value_in_the_place_of_another_panics_or_hangs() {
    let (mut random, round_count) = seeded(600);
    let words = [
        "null",
        "true",
        "0",
        "-1",
        "1",
        "65536",
        "1e999",
        "\"\"",
        "[]",
        "{}",
        "[[0,65536]]",
        "\"(a{1000}){100}\"",
        "\"\\\\b\"",
        "{\"all\":[]}",
        "{\"segment\":\"adults\"}",
        "\"v1.2\"",
        "\"contains\"",
        "\"version\"",
        "\"finished\"",
    ];
    let (mut taken, mut refused) = (0, 0);
    for round in 0..round_count {
        let mut mutated = [BASE, GOLDEN_EDGE, EXAMPLE][round as usize % 3].to_owned();
        for _ in 0..random.below(3) + 1 {
            let mut ranges = Vec::new();
            value_ranges(&mutated, mutated.trim(), &mut ranges);
            // Not the whole file, and not its larger halves time and again.
            let place = ranges[random.below(ranges.len() as u64 - 1) as usize + 1].clone();
            let instead = match random.below(3) {
                0 => words[random.below(words.len() as u64) as usize].to_owned(),
                _ => mutated[ranges[random.below(ranges.len() as u64) as usize].clone()].to_owned(),
            };
            mutated.replace_range(place, &instead);
        }
        fuzz_experiments_file(mutated.as_bytes());
        match check(mutated.as_bytes()) {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused: the mutations say nothing");
}
