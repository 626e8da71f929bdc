//! Sentences about the body. That the scanner takes exactly what serde_json
//! takes is held by `fuzz::fuzz_body_scanner`.

use proptest::prelude::*;

use super::super::fields::{FieldFault, QueryName, Shape};
use super::*;

/// Writes down what is told, in order. Declared are names that begin with `a`.
#[derive(Default)]
struct Log {
    lines: Vec<String>,
    names: Vec<String>,
    refuses: &'static str,
}

impl<'a> Fields<'a> for Log {
    fn unit(&mut self, name: &'a str, value: &'a str) -> Result<(), FieldFault> {
        if name == self.refuses {
            return Err(FieldFault("not wanted"));
        }
        self.lines.push(format!("unit {name}={value}"));
        Ok(())
    }

    fn attributes_begin(&mut self) {
        self.lines.push("begin".into());
    }

    fn attribute(&mut self, name: &str) -> Option<u16> {
        name.starts_with('a').then(|| {
            let known = self.names.iter().position(|known| known == name);
            known.unwrap_or_else(|| {
                self.names.push(name.to_owned());
                self.names.len() - 1
            }) as u16
        })
    }

    fn value(&mut self, slot: u16, value: Scalar<'_>) {
        self.lines.push(format!("{}={value:?}", self.names[usize::from(slot)]));
    }

    fn list_begin(&mut self, slot: u16) {
        self.lines.push(format!("{}=[", self.names[usize::from(slot)]));
    }

    fn list_item(&mut self, _: u16, item: &str) {
        self.lines.push(format!("  {item}"));
    }

    fn list_end(&mut self, _: u16, all_strings: bool) {
        self.lines.push(format!("] {all_strings}"));
    }

    fn query_name(&mut self, _: &str) -> QueryName {
        QueryName::Ignored
    }

    fn shape(&self, _: u16) -> Shape {
        unreachable!("no query string is scanned")
    }
}

/// What is told, and the context; or the fault in words.
fn scan(body: impl AsRef<[u8]>) -> Result<(Vec<String>, String), String> {
    scan_after(&mut MemberOrder::new(100), &mut Log::default(), body.as_ref())
}

/// The same, by what other bodies have taught.
fn scan_after(order: &mut MemberOrder, log: &mut Log, body: &[u8]) -> Result<(Vec<String>, String), String> {
    let mut scratch = vec![0xFF; body.len()];
    log.lines.clear();
    match scan_request(body, &mut scratch, order, log) {
        Ok(scanned) => {
            assert!(scanned.exposure && !scanned.payloads);
            Ok((log.lines.clone(), String::from_utf8(scanned.context.to_vec()).unwrap()))
        }
        Err(fault) => Err(fault.to_string()),
    }
}

fn told(body: impl AsRef<[u8]>) -> Vec<String> {
    scan(body).unwrap().0
}

#[track_caller]
fn refused(body: impl AsRef<[u8]>, offset: usize, reason: &str) {
    assert_eq!(scan(body), Err(format!("body, byte {offset}: {reason}")));
}

#[test]
fn units_and_declared_attributes_are_told() {
    let (told, context) = scan(
        r#" {"attributes" : {"a1":"x", "b":{"a":[1]}, "a2":-1.5e1, "a3":true,"a4":false,"a5":null,
            "a6":{"a":1}, "a7":["y","z"], "a8":[], "a9":["y",1,["q"],"z"]}, "else":[{}], "units":{"u":"1","v":2} } "#,
    )
    .unwrap();
    let expected = [
        "begin",
        "a1=Text(\"x\")",
        "a2=Number(-15.0)",
        "a3=Bool(true)",
        "a4=Bool(false)",
        "a5=Null",
        "a6=Other",
        "a7=[",
        "  y",
        "  z",
        "] true",
        "a8=[",
        "] true",
        "a9=[",
        "  y",
        "  z",
        "] false",
        "unit u=1",
        "unit v=2",
    ];
    assert_eq!(told, expected);
    assert!(context.starts_with("{\"a1\"") && context.ends_with("\"z\"]}"));
}

#[test]
fn attributes_may_be_absent_and_units_empty() {
    assert_eq!(scan("{\"units\":{}}"), Ok((vec![], String::new())));
    assert_eq!(scan("{\"units\":{},\"attributes\":{ }}"), Ok((vec!["begin".into()], "{ }".into())));
}

#[test]
fn strings_are_unescaped_wherever_they_count() {
    let body = r#"{"\u0075nits":{"na\u006de":"\u041c\ud83d\ude00\"\\\/\b\f\n\r\t"},"attr\u0069butes":{"\u0061":"x\u0000y","ab":["\n","\\"]}}"#;
    assert_eq!(
        told(body),
        [
            "begin",
            "a=Text(\"x\\0y\")",
            "ab=[",
            "  \n",
            "  \\",
            "] true",
            "unit name=\u{41c}\u{1f600}\"\\/\u{8}\u{c}\n\r\t"
        ]
    );
}

#[test]
fn of_doubled_names_the_last_counts() {
    // Units: the last value, in the first one's place.
    assert_eq!(told(r#"{"units":{"u":"1","v":"2","u":"3"}}"#), ["unit u=3", "unit v=2"]);
    assert_eq!(told(r#"{"units":{"u":1.0,"u":"ok"}}"#), ["unit u=ok"]);
    assert_eq!(told(r#"{"units":{"u":"1","\u0075":"2"}}"#), ["unit u=2"]);
    // Attributes: told again.
    assert_eq!(
        told(r#"{"units":{},"attributes":{"a":1,"a":"x"}}"#),
        ["begin", "a=Number(1.0)", "a=Text(\"x\")"]
    );
    // The members themselves: the last one wholly.
    assert_eq!(told(r#"{"units":{"u":"1","w":[]},"units":{"v":"2"}}"#), ["unit v=2"]);
    assert_eq!(told(r#"{"units":5,"units":{"v":"2"}}"#), ["unit v=2"]);
    refused(r#"{"units":{"v":"2"},"units":5}"#, 27, "`units` must be an object");
    let (told, context) = scan(r#"{"units":{},"attributes":{"a":1},"attributes":{"ab":2}}"#).unwrap();
    assert_eq!(
        (told.join(" "), context.as_str()),
        ("begin a=Number(1.0) begin ab=Number(2.0)".into(), r#"{"ab":2}"#)
    );
    assert!(scan(r#"{"units":{},"attributes":null,"attributes":{}}"#).is_ok());
    refused(r#"{"units":{},"attributes":{},"attributes":null}"#, 41, "`attributes` must be an object");
    // Though each is checked as JSON.
    refused(r#"{"units":{"u":01},"units":{}}"#, 15, "`,` or `}` is expected");
}

#[test]
fn nine_units_are_refused_but_not_nine_values_of_eight() {
    let units = |count: usize| (0..count).map(|n| format!("\"u{n}\":\"\"")).collect::<Vec<_>>().join(",");
    assert_eq!(told(format!("{{\"units\":{{{}}}}}", units(8))).len(), 8);
    assert_eq!(told(format!("{{\"units\":{{{},\"u3\":\"x\"}}}}", units(8))).len(), 8);
    assert_eq!(scan(format!("{{\"units\":{{{}}}}}", units(9))), Err("unit `u8`: more than 8 units".into()));
    assert_eq!(told(format!("{{\"units\":{{{}}},\"units\":{{{}}}}}", units(9), units(1))), ["unit u0="]);
}

#[test]
fn unit_values_are_texts_of_1_to_256_bytes_or_integers_or_missing() {
    let unit =
        |value: &str| scan(format!("{{\"units\":{{\"user_id\":{value}}}}}")).map(|(told, _)| told.concat());
    for (value, text) in [
        ("\"42\"", "42"),
        ("\"\"", ""),
        ("null", ""),
        ("0", "0"),
        ("-0", "-0"),
        ("-12", "-12"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("\"\\u0041\"", "A"),
        ("\" \"", " "),
    ] {
        assert_eq!(unit(value), Ok(format!("unit user_id={text}")), "{value}");
    }
    for value in ["1.0", "1e2", "1E2", "-1.5", "true", "false", "{}", "[]", "[\"1\"]", "{\"a\":1}", "1e999"] {
        assert_eq!(
            unit(value),
            Err("unit `user_id`: must be a string of 1 to 256 bytes or an integer".into()),
            "{value}"
        );
    }
    for (size, taken) in [(256, true), (257, false)] {
        assert_eq!(unit(&format!("\"{}\"", "x".repeat(size))).is_ok(), taken);
        assert_eq!(unit(&"1".repeat(size)).is_ok(), taken);
        // After unescaping, in bytes.
        assert_eq!(unit(&format!("\"{}\"", "\\u0041".repeat(size))).is_ok(), taken);
        assert_eq!(
            unit(&format!("\"{}\"", "\u{e9}".repeat(size / 2) + &"x".repeat(size % 2))).is_ok(),
            taken
        );
        let name = "n".repeat(size);
        assert_eq!(scan(format!("{{\"units\":{{\"{name}\":1}}}}")).is_ok(), taken);
    }
    // A name too long is not shown beyond what any name may be.
    let name = "\u{20ac}".repeat(1000);
    let fault = scan(format!("{{\"units\":{{\"{name}\":1}}}}")).unwrap_err();
    assert_eq!(fault, format!("unit `{}`: a unit's name has at most 256 bytes", "\u{20ac}".repeat(85)));
}

#[test]
fn what_the_receiver_refuses_is_refused_with_the_units_name() {
    let mut log = Log { refuses: "v", ..Log::default() };
    let mut scratch = [0; 64];
    let fault =
        scan_request(br#"{"units":{"u":"1","v":"2"}}"#, &mut scratch, &mut MemberOrder::new(0), &mut log)
            .unwrap_err();
    assert_eq!(fault, ScanFault::Unit { name: "v", reason: "not wanted" });
}

#[test]
fn numbers_follow_jsons_grammar_to_the_nearest_f64() {
    let number = |text: &str| {
        scan(format!("{{\"units\":{{}},\"attributes\":{{\"a\":{text}}}}}")).map(|(told, _)| told[1].clone())
    };
    for text in [
        "0",
        "-0",
        "7",
        "-7",
        "0.0",
        "-0.0",
        "0.1",
        "1e5",
        "1E+5",
        "1e-5",
        "123456789012345",
        "-999999999999999",
        "1234567890123456",
        "9007199254740993",
        "18.499999999999999999",
        "2.2250738585072011e-308",
        "5e-324",
        "1e-999",
        "1.7976931348623157e308",
        "0.1e1",
        "100000000000000000000000",
    ] {
        let value: f64 = text.parse().unwrap();
        assert_eq!(number(text), Ok(format!("a={:?}", Scalar::Number(value))), "{text}");
    }
    for text in ["1e309", "-1e309", "1.8e308", &"9".repeat(400)] {
        assert_eq!(number(text), Ok("a=Other".into()), "{text}");
    }
    for (text, at, reason) in [
        ("01", 1, "`,` or `}` is expected"),
        ("-", 1, "a number is malformed"),
        ("-a", 1, "a number is malformed"),
        ("+1", 0, "a value is expected"),
        (".5", 0, "a value is expected"),
        ("1.", 2, "a number is malformed"),
        ("1.e5", 2, "a number is malformed"),
        ("1e", 2, "a number is malformed"),
        ("1e+", 3, "a number is malformed"),
        ("0x1", 1, "`,` or `}` is expected"),
        ("1_000", 1, "`,` or `}` is expected"),
        ("NaN", 0, "a value is expected"),
        ("Infinity", 0, "a value is expected"),
        ("--1", 1, "a number is malformed"),
    ] {
        assert_eq!(number(text), Err(format!("body, byte {}: {reason}", 30 + at)), "{text}");
    }
}

#[test]
fn malformed_bodies_are_refused_with_the_byte() {
    refused("", 0, "a JSON object is expected");
    refused("  ", 2, "a JSON object is expected");
    refused("[]", 0, "a JSON object is expected");
    refused("\u{feff}{}", 0, "a JSON object is expected");
    refused("{}", 2, "`units` is missing");
    refused("{\"units\":{}}x", 12, "text behind the object");
    refused("{\"units\":{}} {}", 13, "text behind the object");
    refused("{\"units\":{}}\0", 12, "text behind the object");
    refused("{\"units\":null}", 9, "`units` must be an object");
    refused("{\"units\":[]}", 9, "`units` must be an object");
    refused("{\"units\":{},\"attributes\":[]}", 25, "`attributes` must be an object");
    refused("{\"units\":{},}", 12, "a member's name is expected");
    refused("{,\"units\":{}}", 1, "a member's name is expected");
    refused("{\"units\":{} \"a\":1}", 12, "`,` or `}` is expected");
    refused("{\"units\" {}}", 9, "`:` is expected");
    refused("{\"units\":}", 9, "a value is expected");
    refused("{units:{}}", 1, "a member's name is expected");
    refused("{'units':{}}", 1, "a member's name is expected");
    refused("{\"a\":[1,],\"units\":{}}", 8, "a value is expected");
    refused("{\"a\":[1 2],\"units\":{}}", 8, "`,` or `]` is expected");
    refused("{\"a\":[1},\"units\":{}}", 7, "`,` or `]` is expected");
    refused("{\"a\":tru,\"units\":{}}", 5, "a value is expected");
    refused("{\"a\":True,\"units\":{}}", 5, "a value is expected");
    refused("{\"a\":nulll,\"units\":{}}", 9, "`,` or `}` is expected");
    refused("{\"units\":{\"u\":\"x", 16, "a string has no end");
    refused("{\"units\":{\"u\":\"x\\", 16, "an escape that JSON does not have");
    refused("{\"units\":{\"u\":\"x\\n", 18, "a string has no end");
    refused("{\"units\":{\"u\":\"x\ny\"}}", 16, "a control character in a string");
    refused("{\"units\":{\"u\":\"\\n\0\"}}", 17, "a control character in a string");
    refused("{\"units\":{\"u\":\"\\x\"}}", 15, "an escape that JSON does not have");
    refused("{\"units\":{\"u\":\"\\u12g4\"}}", 19, "four hexadecimal digits are expected");
    refused("// c\n{\"units\":{}}", 0, "a JSON object is expected");
}

#[test]
fn every_beginning_of_a_body_is_refused() {
    let body = r#"{"units":{"user_id":"4\u00322","n":null},"attributes":{"a":["x",{"y":-1.5e3}],"ab":true},"z":[[],{}]}"#;
    assert!(scan(body).is_ok());
    for size in 0..body.len() {
        let fault = scan(&body[..size]).unwrap_err();
        let offset: usize = fault["body, byte ".len()..].split(':').next().unwrap().parse().unwrap();
        assert!(offset <= size, "{fault}");
    }
}

#[test]
fn lone_surrogates_are_refused_wherever_they_are() {
    for sequence in [
        r"\ud800",
        r"\udc00",
        r"\ud800x",
        r"\ud800\n",
        r"\ud800\ud800",
        r"\ud800\u0041",
        r"\uDFFF",
        r"\udbff\\udc00",
    ] {
        for body in [
            format!("{{\"z\":\"{sequence}\",\"units\":{{}}}}"),
            format!("{{\"{sequence}\":1,\"units\":{{}}}}"),
            format!("{{\"units\":{{\"{sequence}\":1}}}}"),
            format!("{{\"units\":{{}},\"attributes\":{{\"a\":[\"{sequence}\"]}}}}"),
            format!("{{\"units\":{{}},\"attributes\":{{\"b\":{{\"c\":\"{sequence}\"}}}}}}"),
        ] {
            refused(&body, body.find("\\u").unwrap(), "a lone surrogate");
        }
    }
    assert_eq!(told(r#"{"units":{"u":"\uDBFF\uDFFF"}}"#), ["unit u=\u{10ffff}"]);
}

#[test]
fn bytes_that_are_no_utf_8_are_refused_wherever_they_are() {
    for bytes in [&b"\xff"[..], b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"] {
        let mut body = b"{\"z\":\"".to_vec();
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\",\"units\":{}}");
        refused(body, 6, "not UTF-8");
    }
    refused(b"{\"units\":{}}\xff", 12, "not UTF-8");
}

#[test]
fn containers_nest_64_deep_and_no_deeper() {
    for (open, close) in [("[", "]"), ("{\"k\":", "}")] {
        // The body's object is the first, so 63 in it.
        let nested = |depth: usize| {
            let inner = if open == "[" { "" } else { "0" };
            format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
        };
        for (place, outer) in [
            ("{\"units\":{},\"z\":@}", 1),
            ("{\"units\":{},\"attributes\":{\"b\":@}}", 2),
            ("{\"units\":{},\"attributes\":{\"a\":[@]}}", 3),
        ] {
            assert!(scan(place.replace('@', &nested(64 - outer))).is_ok());
            let body = place.replace('@', &nested(65 - outer));
            let fault = scan(&body).unwrap_err();
            assert!(fault.ends_with("nested too deep"), "{fault}");
        }
    }
    let deep = format!("{{\"units\":{{\"u\":{}", "[".repeat(60_000));
    refused(deep, 14 + 62, "nested too deep");
}

#[test]
fn white_space_is_jsons_own() {
    assert!(scan("\n\r\t {\t\"units\"\r:\n{ } }\n").is_ok());
    for space in ["\u{b}", "\u{c}", "\u{a0}", "\u{2003}"] {
        assert!(scan(format!("{{{space}\"units\":{{}}}}")).is_err(), "{space:?}");
    }
}

#[test]
fn whatever_bodies_were_read_before_a_body_reads_the_same() {
    let body = r#"{"attributes": {"a1": "x", "a2":2, "b": [3] , "a\u0033" : null, "a4": ["y"], "an_attribute_of_a_long_name": true, "a5":6}, "units": {}}"#;
    // Long enough behind the members that all of them are looked up by guess.
    let body = format!("{body}{}", " ".repeat(32));
    let (mut order, mut log) = (MemberOrder::new(100), Log::default());
    assert_eq!(scan_after(&mut order, &mut log, body.as_bytes()), scan(&body));
    let mut nearly = Vec::new();
    for at in 0..body.len() {
        let mut bytes = body.clone().into_bytes();
        bytes.remove(at);
        nearly.push(bytes);
        for byte in *b",: \"{}0a" {
            let mut bytes = body.clone().into_bytes();
            bytes.insert(at, byte);
            nearly.push(bytes);
        }
        let [one, other] = [body[at..].find(','), body.find("\"a")].map(|found| found.unwrap_or(0));
        nearly.push([&body.as_bytes()[..at], &body.as_bytes()[(at + one).max(other)..]].concat());
    }
    for bytes in &nearly {
        let shown = String::from_utf8_lossy(bytes);
        let expected = scan(bytes);
        assert_eq!(scan_after(&mut order, &mut log, bytes), expected, "after many: {shown}");
        let (mut order, mut log) = (MemberOrder::new(100), Log::default());
        let _ = scan_after(&mut order, &mut log, body.as_bytes());
        assert_eq!(
            scan_after(&mut order, &mut log, bytes),
            expected,
            "after the one that it is like: {shown}"
        );
    }
}

#[test]
fn attributes_beyond_the_order_are_read_and_not_learned() {
    let (mut order, mut log) = (MemberOrder::new(1), Log::default());
    let body = format!("{{\"attributes\":{{\"a1\":1,\"a2\":2,\"a3\":3}},\"units\":{{}}}}{}", " ".repeat(32));
    for _ in 0..3 {
        assert_eq!(scan_after(&mut order, &mut log, body.as_bytes()), scan(&body));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn what_is_escaped_reads_back_the_same(text in any::<String>()) {
        let mut bytes = b"{\"units\":{},\"attributes\":{\"a\":\"".to_vec();
        escape(&text, |piece| bytes.extend_from_slice(piece));
        bytes.extend_from_slice(b"\"}}");
        prop_assert_eq!(told(&bytes)[1].clone(), format!("a={:?}", Scalar::Text(&text)));
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        prop_assert_eq!(value["attributes"]["a"].as_str().unwrap(), text);
    }

    #[test]
    fn numbers_read_as_the_standard_library_reads_them(
        text in "-?(0|[1-9][0-9]{0,20})([.][0-9]{1,20})?([eE][+-]?[0-9]{1,3})?"
    ) {
        let value: f64 = text.parse().unwrap();
        let expected = if value.is_finite() { Scalar::Number(value) } else { Scalar::Other };
        let body = format!("{{\"units\":{{}},\"attributes\":{{\"a\":{text}}}}}");
        prop_assert_eq!(told(body)[1].clone(), format!("a={expected:?}"));
    }
}
