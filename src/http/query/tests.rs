//! Sentences about the query string.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::fields::FieldFault;
use super::*;

/// `u…` are units; `t…` texts, `n…` numbers, `b…` truths, `l…` lists; the rest
/// is unknown. Keeps the last of everything.
#[derive(Default)]
struct Table {
    units: Vec<(String, String)>,
    names: Vec<String>,
    values: BTreeMap<u16, String>,
}

impl<'a> Fields<'a> for Table {
    fn unit(&mut self, name: &'a str, value: &'a str) -> Result<(), FieldFault> {
        self.units.push((name.into(), value.into()));
        Ok(())
    }

    fn attributes_begin(&mut self) {
        self.values.clear();
    }

    fn attribute(&mut self, _: &str) -> Option<u16> {
        unreachable!("a query string asks by query_name")
    }

    fn value(&mut self, slot: u16, value: Scalar<'_>) {
        self.values.insert(slot, format!("{value:?}"));
    }

    fn list_begin(&mut self, slot: u16) {
        self.values.insert(slot, "[".into());
    }

    fn list_item(&mut self, slot: u16, item: &str) {
        self.values.get_mut(&slot).unwrap().push_str(&format!("{item:?} "));
    }

    fn list_end(&mut self, slot: u16, all_strings: bool) {
        assert!(all_strings);
        self.values.get_mut(&slot).unwrap().push(']');
    }

    fn query_name(&mut self, name: &str) -> QueryName {
        match name.bytes().next() {
            Some(b'u') => return QueryName::Unit,
            Some(b't' | b'n' | b'b' | b'l') => {}
            _ => return QueryName::Ignored,
        }
        let slot = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.into());
            self.names.len() - 1
        });
        QueryName::Attribute(slot as u16)
    }

    fn shape(&self, slot: u16) -> Shape {
        match self.names[usize::from(slot)].as_bytes()[0] {
            b't' => Shape::Text,
            b'n' => Shape::Number,
            b'b' => Shape::Bool,
            _ => Shape::List,
        }
    }
}

#[derive(Debug, PartialEq)]
struct Seen {
    units: String,
    values: String,
    context: String,
    options: QueryOptions,
}

fn scan(query: &str) -> Result<Seen, String> {
    scan_after(&mut MemberOrder::new(100), &mut Vec::new(), query)
}

/// By what earlier queries have taught; `names` are those of the slots.
fn scan_after(order: &mut MemberOrder, names: &mut Vec<String>, query: &str) -> Result<Seen, String> {
    let mut scratch = vec![0xFF; scratch_size(query.len())];
    let mut table = Table { names: std::mem::take(names), ..Table::default() };
    let scanned = scan_query(query, &mut scratch, order, &mut table);
    names.clone_from(&table.names);
    let scanned = scanned.map_err(|fault| fault.to_string())?;
    Ok(Seen {
        context: String::from_utf8(scanned.context.to_vec()).unwrap(),
        options: QueryOptions { payloads: scanned.payloads, exposure: scanned.exposure },
        units: table.units.iter().map(|(name, value)| format!("{name}={value};")).collect(),
        values: table
            .values
            .iter()
            .map(|(&slot, value)| format!("{}={value};", table.names[usize::from(slot)]))
            .collect(),
    })
}

fn values(query: &str) -> String {
    scan(query).unwrap().values
}

fn context(query: &str) -> String {
    scan(query).unwrap().context
}

#[test]
fn names_stand_for_units_attributes_or_nothing() {
    let seen = scan("user_id=42&t=android&version=9&n=18&b=true&l=a,b").unwrap();
    assert_eq!(seen.units, "user_id=42;");
    assert_eq!(seen.values, "t=Text(\"android\");n=Number(18.0);b=Bool(true);l=[\"a\" \"b\" ];");
    assert_eq!(seen.context, r#"{"t":"android","n":18,"b":true,"l":["a","b"]}"#);
    assert_eq!(seen.options, QueryOptions::default());
}

#[test]
fn an_empty_query_has_no_context() {
    for query in ["", "&", "&&", "x=1", "user_id=1", "payloads=true"] {
        assert_eq!(context(query), "", "{query}");
    }
}

#[test]
fn texts_are_percent_decoded_once_and_a_plus_is_a_plus() {
    assert_eq!(values("t=a%20b%2Bc+d%2520"), "t=Text(\"a b+c+d%20\");");
    assert_eq!(values("%74=%D0%9c"), "t=Text(\"\u{41c}\");");
    assert_eq!(scan("%75ser%5Fid=%34%32").unwrap().units, "user_id=42;");
    assert_eq!(values("t=a=b%26t=c"), "t=Text(\"a=b&t=c\");");
    assert_eq!(values("t=%00"), "t=Text(\"\\0\");");
    assert_eq!(context("t=%00%22%5c%0a%7f"), "{\"t\":\"\\u0000\\\"\\\\\\n\u{7f}\"}");
}

#[test]
fn an_empty_value_is_an_empty_text_or_list() {
    assert_eq!(values("t=&l=&n=&b="), "t=Text(\"\");l=[];n=Text(\"\");b=Text(\"\");");
    assert_eq!(values("t&l"), "t=Text(\"\");l=[];");
    assert_eq!(context("t&l"), r#"{"t":"","l":[]}"#);
    assert_eq!(scan("u=&u2").unwrap().units, "u=;u2=;");
    // A name may be empty, too.
    assert!(scan("=&=x").is_ok());
}

#[test]
fn a_lists_commas_split_before_decoding() {
    assert_eq!(values("l=a%2Cb,c"), "l=[\"a,b\" \"c\" ];");
    assert_eq!(values("l=,"), "l=[\"\" \"\" ];");
    assert_eq!(context("l=a%2Cb,,%22"), r#"{"l":["a,b","","\""]}"#);
    assert_eq!(values("t=a,b"), "t=Text(\"a,b\");");
}

#[test]
fn numbers_follow_jsons_grammar_and_truths_their_words() {
    for (text, number) in
        [("0", "0.0"), ("-0", "-0.0"), ("1e3", "1000.0"), ("%31%2E5", "1.5"), ("-12.5E-1", "-1.25")]
    {
        assert_eq!(values(&format!("n={text}")), format!("n=Number({number});"), "{text}");
    }
    for text in ["01", "+1", "1.", ".5", "0x1", "1 ", "%201", "NaN", "1,2", "1e", "", "--1"] {
        assert!(values(&format!("n={text}")).starts_with("n=Text("), "{text}");
    }
    assert_eq!(values("n=1e999"), "n=Other;");
    assert_eq!(context("n=1e999&n2=x&n3=1e3"), r#"{"n":1e999,"n2":"x","n3":1e3}"#);
    assert_eq!(values("b=true&b2=false"), "b=Bool(true);b2=Bool(false);");
    for text in ["True", "1", "yes", "t", "true%20", "null"] {
        assert!(values(&format!("b={text}")).starts_with("b=Text("), "{text}");
    }
}

#[test]
fn of_repeated_names_the_last_counts() {
    let seen = scan("t=1&n=1&u=1&t=2&u2=x&u=2&l=a&n=x&l=b,c").unwrap();
    assert_eq!(seen.units, "u=2;u2=x;");
    assert_eq!(seen.values, "t=Text(\"2\");n=Text(\"x\");l=[\"b\" \"c\" ];");
    let value: serde_json::Value = serde_json::from_str(&seen.context).unwrap();
    assert_eq!(value, serde_json::json!({"t": "2", "n": "x", "l": ["b", "c"]}));
    assert_eq!(seen.context.matches("\"t\"").count(), 1);
    assert_eq!(scan("payloads=true&payloads=false").unwrap().options, QueryOptions::default());
}

#[test]
fn options_are_the_requests_own() {
    let options = |query: &str| scan(query).map(|seen| seen.options);
    assert_eq!(options("payloads=true&exposure=false"), Ok(QueryOptions { payloads: true, exposure: false }));
    assert_eq!(options("pay%6Coads=tru%65"), Ok(QueryOptions { payloads: true, exposure: true }));
    for value in ["", "1", "True", "yes", "true,", "%20true"] {
        let fault = Err("`payloads` in the query string must be `true` or `false`".to_owned());
        assert_eq!(options(&format!("payloads={value}")), fault);
        assert_eq!(
            query_options(Some(&format!("payloads={value}"))).map_err(|fault| fault.to_string()),
            fault
        );
    }
    assert!(options("exposure").is_err());
}

#[test]
fn options_are_read_of_a_post_too() {
    assert_eq!(query_options(None), Ok(QueryOptions::default()));
    assert_eq!(
        query_options(Some("x=1&p%61yloads=tru%65&&exposure=false&user_id=%20")),
        Ok(QueryOptions { payloads: true, exposure: false })
    );
    assert_eq!(query_options(Some("a=b&c=%zz")), Err(ScanFault::Query { offset: 6, reason: BAD_ESCAPE }));
}

#[test]
fn bad_percent_escapes_are_refused_with_the_byte() {
    for (query, offset) in [
        ("t=%", 2),
        ("t=ab%4", 4),
        ("t=%4g", 2),
        ("t=%%41", 2),
        ("t=%+1", 2),
        ("a%zz=1", 1),
        ("x=1&ignored=%zz", 12),
        ("l=a,b%", 5),
        ("user_id=%1", 8),
        ("payloads=%1", 9),
    ] {
        let fault = scan(query).unwrap_err();
        assert_eq!(fault, format!("query string, byte {offset}: {BAD_ESCAPE}"), "{query}");
        assert_eq!(query_options(Some(query)).unwrap_err(), ScanFault::Query { offset, reason: BAD_ESCAPE });
    }
}

#[test]
fn decoded_bytes_must_be_utf_8() {
    for (query, offset) in [("t=%ff", 2), ("x=%C3", 2), ("%80=1", 0), ("l=a,%ed%a0%80", 4), ("u=%C3,%A9", 2)]
    {
        let fault = scan(query).unwrap_err();
        assert_eq!(fault, format!("query string, byte {offset}: not UTF-8 once decoded"), "{query}");
    }
}

#[test]
fn units_keep_to_their_bounds() {
    assert!(scan(&format!("u={}", "x".repeat(256))).is_ok());
    assert_eq!(
        scan(&format!("u={}", "x".repeat(257))),
        Err("unit `u`: must be a string of 1 to 256 bytes or an integer".into())
    );
    assert!(scan(&format!("u={}", "%41".repeat(256))).is_ok());
    assert!(scan("u1=&u2=&u3=&u4=&u5=&u6=&u7=&u8=&u1=x").is_ok());
    assert_eq!(scan("u1=&u2=&u3=&u4=&u5=&u6=&u7=&u8=&u9="), Err("unit `u9`: more than 8 units".into()));
}

#[test]
fn paths_are_decoded_by_the_same_rule() {
    let mut scratch = [0; 16];
    assert_eq!(percent_decode("new_home", &mut scratch), Ok("new_home"));
    assert_eq!(percent_decode("a%2Fb+c", &mut scratch), Ok("a/b+c"));
    assert_eq!(
        percent_decode("ab%2", &mut scratch).unwrap_err().to_string(),
        format!("byte 2: {BAD_ESCAPE}")
    );
    assert_eq!(percent_decode("%ff", &mut scratch).unwrap_err().reason, "not UTF-8 once decoded");
}

/// Percent-encodes every byte that `keep` does not keep.
fn encode(text: &str, keep: impl Fn(u8) -> bool) -> String {
    text.bytes()
        .map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn any_texts_come_through_with_a_context_that_is_their_json(
        pairs in proptest::collection::vec(("[tlu][a-c]?", proptest::collection::vec(any::<String>(), 1..4)), 0..7)
    ) {
        let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+!".contains(&byte);
        let query: Vec<String> = pairs
            .iter()
            .map(|(name, texts)| {
                let texts: Vec<String> = texts.iter().map(|text| encode(text, keep)).collect();
                format!("{name}={}", if name.starts_with('l') { texts.join(",") } else { texts[0].clone() })
            })
            .collect();
        let long_unit = |(name, texts): &(String, Vec<String>)| name.starts_with('u') && texts[0].len() > 256;
        prop_assume!(!pairs.iter().any(long_unit));
        let seen = scan(&query.join("&")).unwrap();
        let expected: BTreeMap<&str, serde_json::Value> = pairs
            .iter()
            .filter(|(name, _)| !name.starts_with('u'))
            .map(|(name, texts)| {
                let value = match name.starts_with('l') {
                    true if texts.len() == 1 && texts[0].is_empty() => serde_json::json!([]),
                    true => serde_json::json!(texts),
                    false => serde_json::json!(texts[0]),
                };
                (&name[..], value)
            })
            .collect();
        let context: BTreeMap<&str, serde_json::Value> =
            if seen.context.is_empty() { BTreeMap::new() } else { serde_json::from_str(&seen.context).unwrap() };
        prop_assert_eq!(context, expected);
    }

    #[test]
    fn what_earlier_queries_taught_changes_nothing(
        queries in proptest::collection::vec(
            proptest::collection::vec(("[tlnb][ab\"]?|u|x|payloads", "=?", "true|[0-9]{1,20}|%41|a%|[a=,%]{0,3}"), 0..6),
            1..8,
        )
    ) {
        let (mut order, mut names) = (MemberOrder::new(100), Vec::new());
        for pairs in queries {
            let query: Vec<String> =
                pairs.iter().map(|(name, equals, value)| format!("{name}{equals}{value}")).collect();
            let query = query.join("&");
            let plain = scan_after(&mut MemberOrder::new(100), &mut names, &query);
            for _ in 0..2 {
                prop_assert_eq!(&scan_after(&mut order, &mut names, &query), &plain, "{}", query);
            }
        }
    }

    #[test]
    fn no_query_string_overflows_its_scratch(query in "[a-dtlunb%0-9A-F&=,+]{0,60}") {
        let _ = scan(&query);
        let _ = query_options(Some(&query));
    }
}
