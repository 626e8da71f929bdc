//! Experiments files of any size in the manner of `tests/golden/typical`: the
//! same attributes and units (so that its requests fit), 8 layers for 10
//! experiments, segments of about 4 leaves. From a seed: the same shape is the
//! same file, whoever measures.

use std::fmt::Write as _;

/// What a file is like; the default is `typical`.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Experiments.
    pub experiment_count: usize,
    /// Layers; experiments are dealt to them in turn.
    pub layer_count: usize,
    /// Blocks of each group, lying between the other group's.
    pub block_count: usize,
    /// Conditions of each segment; with none, everybody is in.
    pub leaf_count: usize,
    /// This operator alone, as `(attribute, operator)`; the usual mix if none.
    pub operator: Option<(&'static str, &'static str)>,
    /// Values of each `in`.
    pub list_size: usize,
    /// Units that each experiment's overrides list.
    pub override_count: usize,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape::of(100)
    }
}

impl Shape {
    /// `typical` with so many experiments.
    #[must_use]
    pub fn of(experiment_count: usize) -> Shape {
        Shape {
            experiment_count,
            layer_count: (experiment_count * 8 / 10).max(1),
            block_count: 2,
            leaf_count: 4,
            operator: None,
            list_size: 5,
            override_count: 0,
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.bits() % count as u64) as usize
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

const ATTRIBUTES: &str = r#"{"platform":"string","country":"string","city":"string","language":"string","device_model":"string","sex":"string","profile_type":"string","app_version":"version","os_version":"version","age":"number","hours_month":"number","days_since_signup":"number","purchases":"number","is_subscriber":"bool","is_trial":"bool","subscriptions":"string_list","signup_source":"string","push_enabled":"bool"}"#;
/// What `typical` uses, about as often.
const OPERATORS: &[(&str, &str)] = &[
    ("app_version", "gt"),
    ("app_version", "gt"),
    ("app_version", "gte"),
    ("app_version", "lt"),
    ("age", "lt"),
    ("age", "gte"),
    ("age", "lte"),
    ("hours_month", "lt"),
    ("days_since_signup", "gt"),
    ("country", "in"),
    ("platform", "in"),
    ("country", "in"),
    ("profile_type", "ne"),
    ("sex", "eq"),
    ("device_model", "starts_with"),
    ("device_model", "contains"),
    ("is_subscriber", "eq"),
    ("subscriptions", "contains_any"),
];
const COUNTRIES: &[&str] = &["RU", "KZ", "BY", "UZ", "AM", "GE", "RS", "TR"];
const PLATFORMS: &[&str] = &["android", "ios", "web", "tizen", "webos", "androidtv", "appletv", "xbox"];
const MODELS: &[&str] = &["iPhone", "SM-", "Pixel", "Mi", "TV"];
const SUBSCRIPTIONS: &[&str] = &["premium", "basic", "kids", "sport", "start", "amedia"];

/// The file.
///
/// # Panics
/// If the layers have too few buckets for so many blocks.
#[must_use]
pub fn experiments_file(shape: &Shape) -> String {
    let mut random = Random(shape.experiment_count as u64);
    let mut text =
        format!("{{\"version\":\"generated-{}\",\"attributes\":{ATTRIBUTES}", shape.experiment_count);
    text.push_str(",\"layers\":{");
    for layer in 0..shape.layer_count {
        let (comma, salt) = (if layer == 0 { "" } else { "," }, random.bits() as u32);
        let unit = if layer % 5 == 4 { "device_id" } else { "user_id" };
        let _ = write!(
            text,
            "{comma}\"layer_{layer:05}\":{{\"salt\":\"salt-{layer:05}-{salt:08x}\",\"unit\":\"{unit}\"}}"
        );
    }
    text.push_str("},\"experiments\":[");
    for experiment in 0..shape.experiment_count {
        let layer = experiment % shape.layer_count;
        let sharers = (shape.experiment_count - layer).div_ceil(shape.layer_count);
        // 80 % of a layer is in use, in equal parts.
        let share = 8000 / sharers;
        let first = experiment / shape.layer_count * share;
        let comma = if experiment == 0 { "" } else { "," };
        let _ = write!(
            text,
            "{comma}{{\"id\":{},\"run_id\":1,\"name\":\"experiment_{experiment:05}\",\"layer\":\"layer_{layer:05}\"",
            1000 + experiment
        );
        if shape.leaf_count > 0 {
            text.push_str(",\"segment\":{\"all\":[");
            for leaf in 0..shape.leaf_count {
                text.push_str(if leaf == 0 { "" } else { "," });
                condition(&mut text, &mut random, shape);
            }
            text.push_str("]}");
        }
        let width = share / (2 * shape.block_count);
        assert!(width > 0, "too many blocks");
        text.push_str(",\"groups\":[");
        for group in 0..2 {
            let name = ["control", "test"][group];
            text.push_str(["", ","][group]);
            let _ = write!(text, "{{\"name\":\"{name}\",\"blocks\":[");
            for block in 0..shape.block_count {
                let comma = if block == 0 { "" } else { "," };
                let _ = write!(text, "{comma}[{},{width}]", first + (2 * block + group) * width);
            }
            text.push_str("]}");
        }
        text.push(']');
        if shape.override_count > 0 {
            text.push_str(",\"overrides\":{\"user_id\":{");
            for unit in 0..shape.override_count {
                // Of them all, no request's.
                let _ =
                    write!(text, "{}\"u-{experiment}-{unit}\":\"test\"", if unit == 0 { "" } else { "," });
            }
            text.push_str("}}");
        }
        text.push('}');
    }
    text.push_str("]}");
    text
}

/// A leaf, or one time in four a choice of two, or its negation: each weak
/// enough that about half of the users pass a segment.
fn condition(text: &mut String, random: &mut Random, shape: &Shape) {
    match (shape.operator, random.below(8)) {
        (None, 0 | 1) => {
            text.push_str("{\"any\":[");
            leaf(text, random, shape);
            text.push(',');
            leaf(text, random, shape);
            text.push_str("]}");
        }
        (None, 2) => {
            text.push_str("{\"not\":");
            leaf(text, random, shape);
            text.push('}');
        }
        _ => leaf(text, random, shape),
    }
}

fn leaf(text: &mut String, random: &mut Random, shape: &Shape) {
    let (attribute, operator) = shape.operator.unwrap_or_else(|| random.of(OPERATORS));
    let _ = write!(text, "{{\"attr\":\"{attribute}\",\"op\":\"{operator}\",\"value\":");
    let some = |random: &mut Random, all: &[&str]| {
        let first = random.below(all.len());
        let count = shape.list_size.min(all.len());
        (0..count).map(|at| format!("\"{}\"", all[(first + at) % all.len()])).collect::<Vec<_>>().join(",")
    };
    let _ = match (attribute, operator) {
        (_, "matches") => write!(text, "\"^{}[0-9]*$\"", random.below(1000)),
        ("city" | "language", _) => {
            // A list of ids: hex texts, of which a request's value may be one.
            let ids = (0..shape.list_size).map(|_| format!("\"{:016x}\"", random.bits()));
            write!(text, "[{}]", ids.collect::<Vec<_>>().join(","))
        }
        ("app_version" | "os_version", "in" | "not_in") => {
            let versions = (0..shape.list_size)
                .map(|_| format!("\"{}.{}.{}\"", random.below(50), random.below(50), random.below(1000)));
            write!(text, "[{}]", versions.collect::<Vec<_>>().join(","))
        }
        ("app_version" | "os_version", "lt" | "lte") => {
            write!(text, "\"{}.{}\"", 35 + random.below(20), random.below(40))
        }
        ("app_version" | "os_version", _) => {
            write!(text, "\"{}.{}.{}\"", 20 + random.below(20), random.below(40), random.below(10))
        }
        ("country", "in" | "not_in") => write!(text, "[{}]", some(random, COUNTRIES)),
        ("platform", "in" | "not_in") => write!(text, "[{}]", some(random, PLATFORMS)),
        ("subscriptions", _) => write!(text, "[{}]", some(random, SUBSCRIPTIONS)),
        ("device_model", _) => write!(text, "\"{}\"", random.of(MODELS)),
        ("signup_source", _) => write!(text, "\"{:x}\"", random.bits() as u32),
        ("profile_type", _) => write!(text, "\"child\""),
        ("sex", _) => write!(text, "\"{}\"", random.of(&["m", "f"])),
        ("country", _) => write!(text, "\"{}\"", random.of(COUNTRIES)),
        ("is_subscriber" | "is_trial" | "push_enabled", _) => write!(text, "{}", random.below(2) == 0),
        (_, "in" | "not_in") => {
            let numbers = (0..shape.list_size).map(|_| random.below(1_000_000).to_string());
            write!(text, "[{}]", numbers.collect::<Vec<_>>().join(","))
        }
        (_, "lt" | "lte") => write!(text, "{}", 50 + random.below(1000)),
        _ => write!(text, "{}", random.below(30)),
    };
    text.push('}');
}
