//! Explain says what assign does: both are asked the same, by the connection's
//! own bytes, over arbitrary catalogs and requests.

use std::sync::atomic::AtomicU64;

#[cfg(test)] // this file is; the reader of the layering table is told so here
use crate::sys::region::Region;

use serde_json::{Value, json};

use crate::clock::Now;
use crate::config::check;
use crate::endpoint::{App, AppOptions, Desk, RouteGroup, Shed};
use crate::engine::arbitrary::{self, Random};
use crate::engine::catalog::Catalog;
use crate::engine::plan::Plan;
use crate::engine::reference;
use crate::exposure::ring::{self, Account, Writer};
use crate::http::{Connection, Limits, Output, Workspace};
use crate::limits::REPORT_SIZE_MAX;
use crate::metrics::{self, Table};

const NOW: Now = Now { mono_ns: 1, unix_us: 784_111_777_000_000 };

/// A worker without sockets that has both routes.
struct Rig<'a, 'r> {
    app: App<'a, 'r>,
    workspace: Workspace,
    ring: &'r [AtomicU64],
}

fn with_rig(experiments: &str, strict: bool, body: impl FnOnce(&mut Rig<'_, '_>)) {
    let (_, image) = check::load(experiments.as_bytes()).unwrap_or_else(|faults| panic!("{faults:#?}"));
    let plan = Plan::open(image.bytes()).unwrap();
    let ring = Region::anonymous(ring::region_size(4 << 20)).unwrap();
    ring::format(ring.words(), ring::Identity { instance: 1, ring: 0, slot: 0 });
    let counters = Region::anonymous(metrics::region_size(1)).unwrap();
    let table = Table::format(counters.words(), 1);
    let options = AppOptions {
        validation_strict: strict,
        record_empty: true,
        record_context: true,
        shed: Shed::NEVER,
        batch_body_size_max: 1 << 20,
    };
    let writer = Writer::attach(ring.words()).unwrap();
    let groups = vec![RouteGroup::Assign, RouteGroup::Explain];
    let mut desk = Desk::new(options, groups, Some(writer), table, table.block(0));
    let limits = Limits { carry_count: 4, pending_output_count: 1, ..Limits::default() };
    body(&mut Rig {
        app: App::new(&plan, &mut desk),
        workspace: Workspace::new(limits, RouteGroup::Explain.answer_size_max()),
        ring: ring.words(),
    });
}

impl Rig<'_, '_> {
    /// Status and body of the answer to one request on a connection of its own.
    fn ask(&mut self, request: &[u8]) -> (u16, Vec<u8>) {
        let mut connection = Connection::new();
        connection.handle_input(request, NOW, &mut self.workspace, &mut self.app);
        let mut answer = Vec::new();
        while let Output::Send(bytes) = connection.poll_output(&self.workspace) {
            answer.extend_from_slice(bytes);
            let size = bytes.len();
            connection.handle_sent(size, NOW, &mut self.workspace, &mut self.app);
        }
        connection.release(&mut self.workspace);
        let head_size = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        (status, answer.split_off(head_size))
    }

    fn post(&mut self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let head = format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
        self.ask(&[head.as_bytes(), body].concat())
    }

    fn get(&mut self, path: &str) -> (u16, Vec<u8>) {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes())
    }

    fn recorded(&self) -> u64 {
        Account::read(self.ring).unwrap().attempted
    }
}

/// A request's bytes may be of any status; both routes have to agree on it, on
/// the words of a refusal, and on every experiment's group.
fn assert_same_verdict(assigned: &(u16, Vec<u8>), explained: &(u16, Vec<u8>)) -> usize {
    assert_eq!(assigned.0, explained.0);
    if assigned.0 != 200 {
        assert_eq!(assigned.1, explained.1, "a refusal in other words");
        return 0;
    }
    let assigned: Value = serde_json::from_slice(&assigned.1).unwrap();
    let explained: Value = serde_json::from_slice(&explained.1).unwrap();
    assert_eq!(assigned["version"], explained["version"]);
    let mut groups = serde_json::Map::new();
    for one in explained["experiments"].as_array().unwrap() {
        let holds = one["segment"].is_null() || one["segment"]["holds"] == json!(true);
        match one["outcome"].as_str().unwrap() {
            "assigned" => assert!(holds && one["owner"]["experiment"] == one["experiment"], "{one}"),
            "not_in_segment" => assert!(!holds, "{one}"),
            "forced" => assert_eq!(one["override"]["group"], one["group"]),
            _ => assert!(one["group"].is_null(), "{one}"),
        }
        if !one["group"].is_null() {
            groups.insert(one["experiment"].as_str().unwrap().to_owned(), one["group"].clone());
        }
    }
    assert_eq!(assigned["assignments"], Value::Object(groups));
    assigned["assignments"].as_object().unwrap().len()
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Doubled names as they are: both scanners have to make the same of them.
fn body_of(request: &reference::Request) -> String {
    let members = |pairs: Vec<(&String, String)>| -> String {
        let members = pairs.iter().map(|(name, value)| format!("{}:{value}", json!(name)));
        members.collect::<Vec<_>>().join(",")
    };
    let units = request.units.iter().map(|(kind, value)| (kind, json!(value).to_string())).collect();
    let attributes = request.attributes.iter().map(|(name, value)| (name, value.to_string())).collect();
    format!("{{\"units\":{{{}}},\"attributes\":{{{}}}}}", members(units), members(attributes))
}

/// The same as a query string, as far as one can say it.
fn query_of(request: &reference::Request) -> String {
    let units = request.units.iter().map(|(kind, value)| (kind, percent_encoded(value)));
    let attributes = request.attributes.iter().map(|(name, value)| {
        let text = match value {
            Value::String(text) => percent_encoded(text),
            Value::Array(items) => {
                let texts = items.iter().map(|item| percent_encoded(item.as_str().unwrap_or("☃")));
                texts.collect::<Vec<_>>().join(",")
            }
            other => percent_encoded(&other.to_string()),
        };
        (name, text)
    });
    let pairs = units.chain(attributes).map(|(name, text)| format!("{}={text}", percent_encoded(name)));
    pairs.collect::<Vec<_>>().join("&")
}

fn every_way_of_asking_agrees(rig: &mut Rig<'_, '_>, random: &mut Random, catalog: &Catalog) -> [usize; 2] {
    let request = arbitrary::request(random, catalog);
    let body = body_of(&request);
    let before = rig.recorded();
    let explained = rig.post("/v1/explain", body.as_bytes());
    assert_eq!(rig.recorded(), before, "explaining records nothing");
    let assigned = rig.post("/v1/assign", body.as_bytes());
    assert_eq!(rig.recorded(), before + u64::from(assigned.0 == 200));
    let mut assigned_count = assert_same_verdict(&assigned, &explained);

    let query = query_of(&request);
    let (assigned, explained) =
        (rig.get(&format!("/v1/assign?{query}")), rig.get(&format!("/v1/explain?{query}")));
    assigned_count += assert_same_verdict(&assigned, &explained);

    // Damaged: cut, or a byte changed.
    let mut damaged = body.into_bytes();
    let at = random.below(damaged.len());
    match random.below(3) {
        0 => damaged.truncate(at),
        1 => damaged[at] = random.of(b"{}[]\",:\\0a-\x00\xff"),
        _ => damaged[at] = random.bits() as u8,
    }
    let (assigned, explained) = (rig.post("/v1/assign", &damaged), rig.post("/v1/explain", &damaged));
    assert_same_verdict(&assigned, &explained);
    [assigned_count, usize::from(assigned.0 == 400)]
}

#[test]
fn explain_says_what_assign_does_of_any_request_by_any_catalog() {
    // SPLITD_SEEDS=FROM..TO looks at others.
    let seeds = std::env::var("SPLITD_SEEDS").unwrap_or_else(|_| "0..100".to_owned());
    let (from, to) = seeds.split_once("..").expect("SPLITD_SEEDS=FROM..TO");
    let mut sums = [0, 0];
    for seed in from.parse().unwrap()..to.parse::<u64>().unwrap() {
        let outcome = std::panic::catch_unwind(|| {
            let mut random = Random(seed);
            let catalog = arbitrary::catalog(&mut random);
            let mut sums = [0, 0];
            with_rig(&arbitrary::source(&catalog), seed % 4 == 0, |rig| {
                for _ in 0..8 {
                    let one = every_way_of_asking_agrees(rig, &mut random, &catalog);
                    sums = [sums[0] + one[0], sums[1] + one[1]];
                }
            });
            sums
        });
        let one = outcome.unwrap_or_else(|_| panic!("with SPLITD_SEEDS={seed}..{}", seed + 1));
        sums = [sums[0] + one[0], sums[1] + one[1]];
    }
    let [assigned, refused] = sums;
    assert!(assigned > 500 && refused > 100, "the work was no work: {assigned} assigned, {refused} refused");
}

const FILE: &str = r#"{
    "version": "1", "attributes": {"age": "number"},
    "layers": {"l": {"salt": "s", "unit": "user_id", "buckets": 1}},
    "experiments": [
        {"id": 1, "run_id": 1, "name": "a/b", "layer": "l", "segment": {"attr": "age", "op": "gte", "value": 18},
         "groups": [{"name": "g", "blocks": [[0, 1]]}]},
        {"id": 2, "run_id": 1, "name": "two", "layer": "l", "groups": [{"name": "g", "blocks": []}]}
    ]
}"#;

#[test]
fn one_experiment_is_explained_by_its_name() {
    with_rig(FILE, false, |rig| {
        let (status, body) = rig.get("/v1/explain/a%2Fb?user_id=7&age=nine&colour=red");
        let object: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, &object["ignored"]), (200, &json!(["colour"])));
        let [one] = &object["experiments"].as_array().unwrap()[..] else { panic!("{object}") };
        assert_eq!((&one["experiment"], &one["outcome"]), (&json!("a/b"), &json!("not_in_segment")));
        assert_eq!((&one["bucket"], &one["owner"]["experiment"]), (&json!(0), &json!("a/b")));
        assert_eq!((&one["segment"]["value"], &one["segment"]["holds"]), (&json!("nine"), &json!(false)));
        assert_eq!(rig.get("/v1/explain/three").0, 404);
        let (status, body) = rig.post("/v1/explain/two", br#"{"units":{"user_id":7,"dog":"1"}}"#);
        let object: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, &object["ignored"]), (200, &json!(["dog"])));
        assert_eq!(object["experiments"][0]["outcome"], "not_in_blocks");
    });
}

#[test]
fn a_list_with_something_else_in_it_is_no_list_to_either() {
    let file = FILE.replace(r#""age": "number""#, r#""age": "string_list""#);
    let file = file.replace(r#""op": "gte", "value": 18"#, r#""op": "contains", "value": "a""#);
    with_rig(&file, false, |rig| {
        for (list, assigned) in
            [(r#"["a"]"#, 1), (r#"["b"]"#, 0), (r#"["a",1]"#, 0), (r#"[null,"a"]"#, 0), (r#"["a",["b"]]"#, 0)]
        {
            let body = format!(r#"{{"units":{{"user_id":"7"}},"attributes":{{"age":{list}}}}}"#);
            let both = ["/v1/assign", "/v1/explain"].map(|path| rig.post(path, body.as_bytes()));
            assert_eq!(assert_same_verdict(&both[0], &both[1]), assigned, "{list}");
        }
    });
}

#[test]
fn strict_validation_and_method_are_judged_as_by_assign() {
    with_rig(FILE, true, |rig| {
        let (status, body) = rig.get("/v1/explain?user_id=7&age=nine");
        assert_eq!(status, 422);
        assert!(String::from_utf8(body).unwrap().contains("attribute `age`"));
        assert_eq!(rig.ask(b"PUT /v1/explain HTTP/1.1\r\nHost: t\r\n\r\n").0, 405);
        assert_eq!(rig.ask(b"HEAD /v1/explain HTTP/1.1\r\nHost: t\r\n\r\n"), (200, Vec::new()));
    });
}

#[test]
fn an_explanation_too_large_to_give_says_how_to_ask_for_less() {
    // Every experiment repeats the same segment of many words.
    let words: Vec<String> = (0..4000).map(|word| format!("word-{word:04}")).collect();
    let experiments: Vec<Value> = (0..=REPORT_SIZE_MAX / 40_000)
        .map(|id| {
            json!({"id": id, "run_id": 1, "name": format!("e{id}"), "layer": "l", "segment": "many",
                   "groups": [{"name": "g", "blocks": []}]})
        })
        .collect();
    let file = json!({
        "version": "1", "attributes": {"word": "string"},
        "segments": {"many": {"attr": "word", "op": "in", "value": words}},
        "layers": {"l": {"salt": "s", "unit": "user_id"}},
        "experiments": experiments,
    });
    with_rig(&file.to_string(), false, |rig| {
        let (status, body) = rig.get("/v1/explain?user_id=7");
        assert_eq!(status, 422);
        assert!(String::from_utf8(body).unwrap().contains("/v1/explain/NAME"));
        assert_eq!(rig.get("/v1/explain/e7?user_id=7").0, 200);
    });
}
