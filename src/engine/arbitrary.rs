//! Catalogs and requests from a seed, for property tests: every operator and
//! type, layers of few and of very many runs, overrides that overlap, all states,
//! segments in segments. Values come from small pools, so that they often meet.

use serde_json::{Value, json};

use super::catalog::{
    Attribute, AttributeKind, Block, Catalog, Condition, Experiment, Group, Layer, OrderedTest, OverrideKind,
    Segment, State, StringTest, Test,
};
use super::reference::{Request, state_name, written};

/// Numbers from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ bits >> 31
    }

    /// Below `count`, which is at least 1.
    pub fn below(&mut self, count: usize) -> usize {
        (self.bits() % count as u64) as usize
    }

    /// One time of `count`.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// One of some.
    pub fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn many<T>(&mut self, count_max: usize, mut make: impl FnMut(&mut Random) -> T) -> Vec<T> {
        (0..self.below(count_max + 1)).map(|_| make(self)).collect()
    }
}

const KINDS: [AttributeKind; 5] = [
    AttributeKind::String,
    AttributeKind::Number,
    AttributeKind::Bool,
    AttributeKind::Version,
    AttributeKind::StringList,
];
const UNIT_KINDS: [&str; 5] = ["user_id", "device_id", "profile_id", "дом", "un\"it"];
const PATTERNS: [&str; 8] = ["^a", "b$", "^$", "М.с", "[0-9]{2}", "(?i)TEXT-1", "a|☃", ""];

fn text(random: &mut Random) -> String {
    match random.below(4) {
        0 => random.of(&["", "a", "b", "ab", "ba", "abc", "Москва", "☃", "é", "a\"b\\c\n"]).to_owned(),
        1 => format!("text-{}", random.below(100)),
        2 => format!("text-{}", random.below(10)),
        _ => random.of(&["android", "androidtv", "ios"]).to_owned(),
    }
}

fn number(random: &mut Random) -> f64 {
    match random.below(4) {
        0 => random.of(&[0.0, -0.0, 1.5, -1.5, 1e308, -1e308, 5e-324, 18.0, 0.1 + 0.2]),
        1 => random.below(1000) as f64 / 4.0 - 100.0,
        _ => random.below(12) as f64 - 3.0,
    }
}

fn version(random: &mut Random) -> [u32; 4] {
    let small = |random: &mut Random| random.below(4) as u32;
    match random.below(3) {
        0 => [random.of(&[0, 42, u32::MAX]), random.of(&[0, u32::MAX]), 0, 0],
        1 => [random.below(50) as u32, small(random), 0, 0],
        _ => [small(random), small(random), random.below(2) as u32, random.below(2) as u32],
    }
}

fn ordered<T>(random: &mut Random, mut value: impl FnMut(&mut Random) -> T) -> OrderedTest<T> {
    let count_max = random.of(&[1, 4, 60]);
    match random.below(8) {
        0 => OrderedTest::Eq(value(random)),
        1 => OrderedTest::Ne(value(random)),
        2 => OrderedTest::In(random.many(count_max, value)),
        3 => OrderedTest::NotIn(random.many(count_max, value)),
        4 => OrderedTest::Lt(value(random)),
        5 => OrderedTest::Lte(value(random)),
        6 => OrderedTest::Gt(value(random)),
        _ => OrderedTest::Gte(value(random)),
    }
}

fn test(random: &mut Random, kind: AttributeKind) -> Test {
    if random.one_in(8) {
        return Test::Exists(random.one_in(2));
    }
    match kind {
        AttributeKind::String => Test::String(match random.below(8) {
            0 => StringTest::Eq(text(random)),
            1 => StringTest::Ne(text(random)),
            2 => StringTest::In(random.many(8, text)),
            3 => StringTest::NotIn(random.many(8, text)),
            4 => StringTest::StartsWith(text(random)),
            5 => StringTest::EndsWith(text(random)),
            6 => StringTest::Contains(text(random)),
            _ => StringTest::Matches(random.of(&PATTERNS).to_owned().into()),
        }),
        AttributeKind::Number => Test::Number(ordered(random, number)),
        AttributeKind::Version => Test::Version(ordered(random, version)),
        AttributeKind::Bool => match random.below(2) {
            0 => Test::BoolEq(random.one_in(2)),
            _ => Test::BoolNe(random.one_in(2)),
        },
        AttributeKind::StringList => match random.below(2) {
            0 => Test::ListAny(random.many(3, text)),
            _ => Test::ListAll(random.many(3, text)),
        },
    }
}

/// A condition; `segments` are those it may name.
fn condition(random: &mut Random, attributes: &[Attribute], segments: &[usize], depth: usize) -> Condition {
    match random.below(if depth == 0 { 2 } else { 6 }) {
        0 if !segments.is_empty() => Condition::Segment(random.of(segments)),
        2 | 3 => Condition::All(random.many(4, |random| condition(random, attributes, segments, depth - 1))),
        4 => Condition::Any(random.many(4, |random| condition(random, attributes, segments, depth - 1))),
        5 => Condition::Not(Box::new(condition(random, attributes, segments, depth - 1))),
        _ => {
            let attribute = random.below(attributes.len());
            Condition::Test { attribute, test: test(random, attributes[attribute].kind) }
        }
    }
}

/// A catalog that a checked file could have led to.
pub(crate) fn catalog(random: &mut Random) -> Catalog {
    let attribute_count = 1 + random.below(12);
    let attributes: Vec<Attribute> = (0..attribute_count)
        .map(|index| Attribute { name: format!("attribute \"{index}\""), kind: random.of(&KINDS) })
        .collect();

    // Any segment may name those that come before it in a shuffled order.
    let segment_count = random.below(8);
    let mut order: Vec<usize> = (0..segment_count).collect();
    order.sort_by_cached_key(|_| random.bits());
    let mut conditions = vec![Condition::All(Vec::new()); segment_count];
    for (place, &index) in order.iter().enumerate() {
        conditions[index] = condition(random, &attributes, &order[..place], 3);
    }
    let segments: Vec<Segment> = conditions
        .into_iter()
        .enumerate()
        .map(|(index, condition)| Segment { name: format!("segment/{index}"), condition })
        .collect();

    let unit_kind_count = 1 + random.below(UNIT_KINDS.len());
    let unit_kinds = UNIT_KINDS[..unit_kind_count].iter().map(|&kind| kind.to_owned()).collect();
    let layer_count = 1 + random.below(6);
    let layers: Vec<Layer> = (0..layer_count)
        .map(|index| Layer {
            name: format!("layer {index}"),
            salt: random
                .of(&[
                    "",
                    "s1",
                    "a:b",
                    "☃",
                    &"x".repeat(30),
                    &"y".repeat(31),
                    &"z".repeat(32),
                    &"w".repeat(256),
                ])
                .to_owned(),
            unit_kind: random.below(unit_kind_count),
            bucket_count: match random.below(3) {
                0 => random.of(&[1, 2, 7, 31, 32, 33, 1024, 1025, 65_535, 65_536]),
                1 => 1 + random.below(65_536) as u32,
                _ => 10_000,
            },
        })
        .collect();

    let mut experiments = Vec::new();
    for (layer, record) in layers.iter().enumerate() {
        let experiment_count = random.below(10);
        let mut own: Vec<Experiment> = (0..experiment_count)
            .map(|_| experiment(random, layer, (&attributes, segment_count), unit_kind_count))
            .collect();
        let piece_size_max = match random.below(3) {
            0 => 1 + record.bucket_count as usize,
            1 => 1 + record.bucket_count as usize / 40,
            _ => 3,
        };
        give_blocks(random, record.bucket_count, piece_size_max, &mut own, |state| state != State::Finished);
        give_blocks(random, record.bucket_count, 1 + record.bucket_count as usize / 4, &mut own, |state| {
            state == State::Finished
        });
        experiments.append(&mut own);
    }
    experiments.sort_by_cached_key(|_| random.bits());
    for (index, experiment) in experiments.iter_mut().enumerate() {
        experiment.id = random.of(&[1, -1, i64::MAX / 1000, 0]) * 1000 + index as i64;
        experiment.name = random.of(&["e", "эксперимент ", "\"quoted\\\" "]).to_owned() + &index.to_string();
    }
    Catalog { version: "2026-11-22.\"3\"".to_owned(), attributes, unit_kinds, segments, layers, experiments }
}

fn experiment(
    random: &mut Random,
    layer: usize,
    (attributes, segment_count): (&[Attribute], usize),
    unit_kind_count: usize,
) -> Experiment {
    let all_segments: Vec<usize> = (0..segment_count).collect();
    let group_count = 1 + random.below(3);
    let groups = (0..group_count)
        .map(|index| Group {
            name: random.of(&["control", "test", "a \"quoted\"", "группа"]).to_owned() + &index.to_string(),
            blocks: Vec::new(),
            payload: random
                .one_in(2)
                .then(|| random.of(&["{\"rows\":5}", "null", "[1,\"два\"]", "0"]).to_owned()),
        })
        .collect();
    let mut kinds: Vec<usize> = (0..unit_kind_count).collect();
    kinds.sort_by_cached_key(|_| random.bits());
    let override_count = if random.one_in(2) { random.below(unit_kind_count + 1) } else { 0 };
    let overrides = kinds[..override_count]
        .iter()
        .map(|&unit_kind| {
            let mut units: Vec<(String, usize)> =
                random.many(6, |random| (unit(random), random.below(group_count)));
            units.sort();
            units.dedup_by(|a, b| a.0 == b.0);
            OverrideKind { unit_kind, units }
        })
        .collect();
    Experiment {
        id: 0,
        run_id: random.of(&[0, 1, -1, i32::MAX]),
        name: String::new(),
        state: random.of(&[
            State::Running,
            State::Running,
            State::Running,
            State::Running,
            State::Draft,
            State::Killed,
            State::Finished,
        ]),
        layer,
        segment: random.below(4).ne(&0).then(|| condition(random, attributes, &all_segments, 3)),
        groups,
        overrides,
    }
}

/// Cuts the buckets into pieces and gives each to a group or to nobody.
fn give_blocks(
    random: &mut Random,
    bucket_count: u32,
    piece_size_max: usize,
    experiments: &mut [Experiment],
    takes: impl Fn(State) -> bool,
) {
    let owners: Vec<(usize, usize)> = experiments
        .iter()
        .enumerate()
        .filter(|(_, experiment)| takes(experiment.state))
        .flat_map(|(index, experiment)| (0..experiment.groups.len()).map(move |group| (index, group)))
        .collect();
    if owners.is_empty() {
        return;
    }
    let mut first = 0;
    while first < bucket_count {
        let count = (1 + random.below(piece_size_max) as u32).min(bucket_count - first);
        if !random.one_in(4) {
            let (experiment, group) = random.of(&owners);
            experiments[experiment].groups[group].blocks.push(Block { first, count });
        }
        first += count;
    }
    for group in experiments.iter_mut().flat_map(|experiment| &mut experiment.groups) {
        if random.one_in(2) {
            group.blocks.reverse(); // the order of blocks never matters
        }
    }
}

fn unit(random: &mut Random) -> String {
    match random.below(8) {
        0 => String::new(),
        1 => random.of(&["☃", "Москва", "a\"b", &"u".repeat(256), &"v".repeat(100)]).to_owned(),
        2 => random.bits().to_string(),
        _ => random.below(12).to_string(),
    }
}

/// A request that a client could make of the catalog.
pub(crate) fn request(random: &mut Random, catalog: &Catalog) -> Request {
    let names = ["user_id", "device_id", "profile_id", "дом", "un\"it", "other"];
    let unit_count = 1 + random.below(8);
    let units = (0..unit_count).map(|_| (random.of(&names).to_owned(), unit(random))).collect();
    let mut attributes = Vec::new();
    for attribute in &catalog.attributes {
        for _ in 0..random.of(&[0, 1, 1, 1, 1, 2]) {
            attributes.push((attribute.name.clone(), value(random, attribute.kind)));
        }
    }
    attributes.sort_by_cached_key(|_| random.bits());
    if random.one_in(4) {
        attributes.push(("unknown".to_owned(), json!("a")));
    }
    Request { units, attributes }
}

fn value(random: &mut Random, kind: AttributeKind) -> Value {
    let kind = if random.one_in(10) { random.of(&KINDS) } else { kind };
    match random.below(12) {
        0 => return Value::Null,
        1 if random.one_in(3) => return json!({}),
        _ => {}
    }
    match kind {
        AttributeKind::String => json!(text(random)),
        AttributeKind::Number => json!(number(random)),
        AttributeKind::Bool => json!(random.one_in(2)),
        AttributeKind::Version => {
            let parts = version(random).map(|part| part.to_string());
            let count = 1 + random.below(4);
            let prefix = random.of(&["", "v", "V", "0"]).to_owned();
            let fault = if random.one_in(10) { random.of(&[".", "-beta", ".1.2.3", " "]) } else { "" };
            json!(prefix + &parts[..count].join(".") + fault)
        }
        AttributeKind::StringList => {
            let mut list: Vec<Value> = random.many(4, |random| json!(text(random)));
            if random.one_in(4) {
                list.push(random.of(&[json!(1), json!(null), json!([])]));
            }
            Value::Array(list)
        }
    }
}

/// The catalog as an experiments file. Unit kinds that nothing uses leave no trace in it.
pub(crate) fn source(catalog: &Catalog) -> String {
    let object = |members: Vec<(&str, Value)>| -> Value {
        Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    };
    let type_name = |kind| match kind {
        AttributeKind::String => "string",
        AttributeKind::Number => "number",
        AttributeKind::Bool => "bool",
        AttributeKind::Version => "version",
        AttributeKind::StringList => "string_list",
    };
    let attributes =
        catalog.attributes.iter().map(|attribute| (&*attribute.name, json!(type_name(attribute.kind))));
    let segments =
        catalog.segments.iter().map(|segment| (&*segment.name, condition_json(catalog, &segment.condition)));
    let layers = catalog.layers.iter().map(|layer| {
        let unit = &catalog.unit_kinds[layer.unit_kind];
        (&*layer.name, json!({ "salt": layer.salt, "unit": unit, "buckets": layer.bucket_count }))
    });
    let experiments = catalog.experiments.iter().map(|experiment| {
        let groups = experiment.groups.iter().map(|group| {
            let blocks = group.blocks.iter().map(|block| [block.first, block.count]).collect::<Vec<_>>();
            let mut json = json!({ "name": group.name, "blocks": blocks });
            if let Some(payload) = &group.payload {
                json["payload"] = serde_json::from_str(payload).expect("a payload is JSON");
            }
            json
        });
        let overrides = experiment.overrides.iter().map(|kind| {
            // One of an empty unit forces nobody; a file may have none.
            let units = kind.units.iter().filter(|(unit, _)| !unit.is_empty());
            let units = units.map(|(unit, group)| (&**unit, json!(experiment.groups[*group].name)));
            (&*catalog.unit_kinds[kind.unit_kind], object(units.collect()))
        });
        let mut json = json!({
            "id": experiment.id,
            "run_id": experiment.run_id,
            "name": experiment.name,
            "state": state_name(experiment.state),
            "layer": catalog.layers[experiment.layer].name,
            "groups": groups.collect::<Vec<_>>(),
            "overrides": object(overrides.collect()),
        });
        if let Some(segment) = &experiment.segment {
            json["segment"] = condition_json(catalog, segment);
        }
        json
    });
    json!({
        "version": catalog.version,
        "attributes": object(attributes.collect()),
        "segments": object(segments.collect()),
        "layers": object(layers.collect()),
        "experiments": experiments.collect::<Vec<_>>(),
    })
    .to_string()
}

fn condition_json(catalog: &Catalog, condition: &Condition) -> Value {
    let all =
        |parts: &[Condition]| parts.iter().map(|part| condition_json(catalog, part)).collect::<Vec<_>>();
    match condition {
        Condition::All(parts) => json!({ "all": all(parts) }),
        Condition::Any(parts) => json!({ "any": all(parts) }),
        Condition::Not(part) => json!({ "not": condition_json(catalog, part) }),
        Condition::Segment(segment) => json!({ "segment": catalog.segments[*segment].name }),
        Condition::Test { attribute, test } => {
            let (op, value) = written(test);
            json!({ "attr": catalog.attributes[*attribute].name, "op": op, "value": value })
        }
    }
}
