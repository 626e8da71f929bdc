use super::*;

fn value_of(body: &str, attribute: &str) -> Option<Value> {
    Request::from_json(body).expect("a body").attribute(attribute).cloned()
}

#[test]
fn numbers_are_the_nearest_f64() {
    for text in ["18.499999999999999999", "9007199254740993", "1.7976931348623157e308", "5e-324", "-0", "0.1"]
    {
        let body = format!(r#"{{"units":{{}},"attributes":{{"n":{text}}}}}"#);
        let nearest: f64 = text.parse().expect("a number");
        assert_eq!(value_of(&body, "n"), Some(Value::from(nearest)), "{text}");
    }
}

#[test]
fn a_number_beyond_f64_is_of_no_type() {
    let value = value_of(r#"{"units":{},"attributes":{"n":1e999}}"#, "n").expect("a value");
    assert!(!value.is_number() && !value.is_null());
}

#[test]
fn of_a_name_given_twice_the_last_counts() {
    let body =
        r#"{"units":{"u":"a"},"units":{"u":"b","u":7},"attributes":{"n":1},"attributes":{"n":2,"\u006e":3}}"#;
    let request = Request::from_json(body).expect("a body");
    assert_eq!(request.unit("u"), Some("7"));
    assert_eq!(request.attribute("n"), Some(&Value::from(3.0)));
}

#[test]
fn empty_and_null_units_are_as_good_as_missing() {
    let request = Request::from_json(r#"{"units":{"a":"","b":null,"c":"x"}}"#).expect("a body");
    assert_eq!((request.unit("a"), request.unit("b"), request.unit("c")), (None, None, Some("x")));
}

#[test]
fn bodies_that_are_no_requests_are_refused() {
    for body in [
        "",
        "[]",
        "{}",
        r#"{"units":[]}"#,
        r#"{"units":{"u":1.0}}"#,
        r#"{"units":{"u":1e2}}"#,
        r#"{"units":{"u":true}}"#,
        r#"{"units":{"u":{}}}"#,
        r#"{"units":{},"attributes":[]}"#,
        r#"{"units":{}} x"#,
        r#"{"units":{"u":"\ud800"}}"#,
        r#"{"units":{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"8":1,"9":null}}"#,
    ] {
        assert!(Request::from_json(body).is_err(), "{body}");
    }
    let long = format!(r#"{{"units":{{"u":"{}"}}}}"#, "x".repeat(257));
    assert!(Request::from_json(&long).is_err());
}

#[test]
fn versions_have_one_to_four_parts_below_two_to_the_32() {
    let table = [
        ("42.24", Some([42, 24, 0, 0])),
        ("v42.24.0", Some([42, 24, 0, 0])),
        ("V1.2.3.4", Some([1, 2, 3, 4])),
        ("007", Some([7, 0, 0, 0])),
        ("00000000000000000000004294967295", Some([u32::MAX, 0, 0, 0])),
        ("4294967296", None),
        ("1.2.3.4.5", None),
        ("", None),
        ("v", None),
        ("vv1", None),
        ("1.", None),
        (".1", None),
        ("1..2", None),
        ("+1", None),
        ("-1", None),
        (" 1", None),
        ("1.2-beta", None),
        ("٣", None),
    ];
    for (text, parts) in table {
        assert_eq!(parse_version(text), parts, "{text:?}");
    }
}

#[test]
fn buckets_are_pinned_for_ever() {
    // Made by the xxHash authors' C library, over all lengths at which the hash changes its way.
    for line in include_str!("buckets.txt").lines() {
        let [salt, unit, count, wanted] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let count: u32 = count.parse().expect("a count");
        assert_eq!(bucket(salt, unit, count).to_string(), wanted, "{line}");
    }
}
