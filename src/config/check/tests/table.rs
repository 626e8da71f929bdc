//! One row for each thing a file is refused for: where the fault is and what it says.

use super::*;

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
