//! Files that are made to cost much: nested, long, circular, or wrong all over.

use super::*;

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
fn a_file_is_read_a_few_times_however_it_is_nested() {
    let tests = vec![r#"{"attr": "age", "op": "gt", "value": 1}"#; 2000].join(", ");
    for levels in [0, 25, 50] {
        let (open, close) = (r#"{"not": "#.repeat(levels), "}".repeat(levels));
        let condition = format!(r#"{open}{{"any": [{tests}]}}{close}"#);
        let payload = format!("{}{tests}{}", "[".repeat(levels + 1), "]".repeat(levels + 1));
        let source = base_with(r#"{ "segment": "adults" }"#, &condition).replace(r#"{"rows": 5}"#, &payload);
        values::READ_SIZE.set(0);
        assert!(check(source.as_bytes()).is_ok());
        // To find what it holds, to see that it is well formed, and to take it.
        let (read, size) = (values::READ_SIZE.get(), source.len());
        assert!((2 * size..=3 * size).contains(&read), "{read} bytes read of {size}, {levels} levels deep");
    }
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
