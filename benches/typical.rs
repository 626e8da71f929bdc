//! The `typical` vectors for measuring: bodies, requests parsed beforehand, and
//! receivers for scanners. Shared by the benches and by `benches/peers`.
#![allow(dead_code, missing_docs, reason = "each of its users needs a part")]

use arrayvec::ArrayVec;
use serde_json::Value as Json;
use splitd::config::check;
use splitd::engine::assignment::Units;
use splitd::engine::attributes::{AttributeIndex, Facts, Value};
use splitd::engine::plan::{Plan, PlanImage};
use splitd::http::{FieldFault, Fields, QueryName, Scalar, Shape};
use splitd::limits::UNIT_COUNT_MAX;

pub const EXPERIMENTS: &str = include_str!("../tests/golden/typical.experiments.json");
const REQUESTS: &str = include_str!("../tests/golden/typical.requests.ndjson");

/// The bodies of the requests.
#[must_use]
pub fn bodies() -> Vec<&'static str> {
    REQUESTS.lines().collect()
}

/// Compiles an experiments file.
///
/// # Panics
/// If it has faults.
#[must_use]
pub fn compile(file: &str) -> PlanImage {
    match check::load(file.as_bytes()) {
        Ok((_, image)) => image,
        Err(faults) => panic!("{} faults, the first: {:?}", faults.len(), faults.first()),
    }
}

/// An attribute's value, owned.
enum Owned {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<String>),
}

/// A request whose attributes are parsed and whose names are looked up.
pub struct Parsed {
    units: Vec<(String, String)>,
    attributes: Vec<(AttributeIndex, Owned)>,
}

impl Parsed {
    /// A body as `plan` sees it.
    ///
    /// # Panics
    /// If it is no sound body.
    #[must_use]
    pub fn new(plan: &Plan<'_>, body: &str) -> Parsed {
        let json: Json = serde_json::from_str(body).expect("a JSON body");
        let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let units = json["units"].as_object().expect("units");
        let units = units.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        let attributes =
            json["attributes"].as_object().expect("attributes").iter().filter_map(|(name, value)| {
                let value = match value {
                    Json::Null => Owned::Null,
                    Json::Bool(truth) => Owned::Bool(*truth),
                    Json::Number(number) => Owned::Number(number.as_f64()?),
                    Json::String(text) => Owned::Text(text.clone()),
                    Json::Array(items) => Owned::List(items.iter().map(text).collect()),
                    Json::Object(_) => return None,
                };
                Some((plan.attribute(name)?.0, value))
            });
        Parsed { units, attributes: attributes.collect() }
    }

    /// The units, as `plan` knows them.
    ///
    /// # Panics
    /// If there are too many.
    #[must_use]
    pub fn units<'a>(&'a self, plan: &Plan<'_>) -> Units<'a> {
        let mut units = Units::new();
        for (name, value) in &self.units {
            units.set(name, plan.unit_kind(name), value).expect("few units");
        }
        units
    }

    /// Sets the facts from the values.
    #[inline]
    pub fn tell(&self, plan: &Plan<'_>, facts: &mut Facts) {
        facts.clear(plan);
        for (attribute, value) in &self.attributes {
            let value = match value {
                Owned::Null => Value::Null,
                Owned::Bool(truth) => Value::Bool(*truth),
                Owned::Number(number) => Value::Number(*number),
                Owned::Text(text) => Value::Text(text),
                Owned::List(items) => {
                    facts.list_begin(plan, *attribute);
                    items.iter().for_each(|item| facts.list_item(plan, *attribute, item));
                    facts.list_end(plan, *attribute, true);
                    continue;
                }
            };
            facts.set(plan, *attribute, value);
        }
    }
}

/// Receives a scan as cheaply as can be: finds each name's slot, and puts down
/// what came. What is timed with it is the scanning.
pub struct Slots<'s, 'a> {
    plan: &'s Plan<'s>,
    /// A kind and a number for each attribute.
    pub values: &'s mut [(u8, u64)],
    pub units: ArrayVec<(&'a str, &'a str), UNIT_COUNT_MAX>,
}

impl<'s, 'a> Slots<'s, 'a> {
    /// Empty slots over `values`, of which there is one for each attribute.
    #[must_use]
    pub fn new(plan: &'s Plan<'s>, values: &'s mut [(u8, u64)]) -> Slots<'s, 'a> {
        values.fill((0, 0));
        Slots { plan, values, units: ArrayVec::new() }
    }
}

impl<'a> Fields<'a> for Slots<'_, 'a> {
    fn unit(&mut self, name: &'a str, value: &'a str) -> Result<(), FieldFault> {
        self.units.push((name, value));
        Ok(())
    }

    fn attributes_begin(&mut self) {
        self.values.fill((0, 0));
    }

    fn attribute(&mut self, name: &str) -> Option<u16> {
        self.plan.attribute(name).map(|(index, _)| index.0)
    }

    fn value(&mut self, slot: u16, value: Scalar<'_>) {
        self.values[usize::from(slot)] = match value {
            Scalar::Null | Scalar::Other => (0, 0),
            Scalar::Bool(truth) => (1, u64::from(truth)),
            Scalar::Number(number) => (2, number.to_bits()),
            Scalar::Text(text) => (3, text.len() as u64),
        };
    }

    fn list_begin(&mut self, slot: u16) {
        self.values[usize::from(slot)] = (4, 0);
    }

    fn list_item(&mut self, slot: u16, item: &str) {
        self.values[usize::from(slot)].1 += item.len() as u64;
    }

    fn list_end(&mut self, _: u16, _: bool) {}

    fn query_name(&mut self, _: &str) -> QueryName {
        QueryName::Ignored
    }

    fn shape(&self, _: u16) -> Shape {
        unreachable!("no query string is scanned")
    }
}

/// Feeds any of serde's deserializers into [`Slots`], so that each JSON crate
/// does the work that splitd's scanner does: no tree, borrowed strings, names
/// looked up as they come.
pub mod by_serde {
    use std::fmt;

    use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
    use splitd::http::{Fields, Scalar};

    use super::Slots;

    /// Scans a body.
    ///
    /// # Errors
    /// What the deserializer says.
    pub fn scan<'de, D: Deserializer<'de>>(
        slots: &mut Slots<'_, 'de>,
        deserializer: D,
    ) -> Result<(), D::Error> {
        Part { slots, kind: Kind::Body }.deserialize(deserializer)
    }

    #[derive(Clone, Copy)]
    enum Kind {
        Body,
        Units,
        Attributes,
        Value(u16),
        Unit,
    }

    struct Part<'s, 'p, 'de> {
        slots: &'s mut Slots<'p, 'de>,
        kind: Kind,
    }

    impl<'de> DeserializeSeed<'de> for Part<'_, '_, 'de> {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            match self.kind {
                Kind::Body | Kind::Units | Kind::Attributes => deserializer.deserialize_map(self),
                Kind::Value(_) | Kind::Unit => deserializer.deserialize_any(self),
            }
        }
    }

    impl<'de> Visitor<'de> for Part<'_, '_, 'de> {
        type Value = ();

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a request")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
            let Part { slots, kind } = self;
            while let Some(Name(name)) = map.next_key()? {
                match (kind, name) {
                    (Kind::Body, "units") => map.next_value_seed(Part { slots, kind: Kind::Units })?,
                    (Kind::Body, "attributes") => {
                        map.next_value_seed(Part { slots, kind: Kind::Attributes })?
                    }
                    (Kind::Units, name) => {
                        map.next_value_seed(Part { slots, kind: Kind::Unit })?;
                        if let Some(unit) = slots.units.last_mut() {
                            unit.0 = name;
                        }
                    }
                    (Kind::Attributes, name) => match slots.attribute(name) {
                        Some(slot) => map.next_value_seed(Part { slots, kind: Kind::Value(slot) })?,
                        None => drop(map.next_value::<IgnoredAny>()?),
                    },
                    _ => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Ok(())
        }

        fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<(), S::Error> {
            let Kind::Value(slot) = self.kind else { return Err(S::Error::custom("no list")) };
            self.slots.list_begin(slot);
            while let Some(Name(item)) = items.next_element()? {
                self.slots.list_item(slot, item);
            }
            Ok(())
        }

        fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
            match self.kind {
                Kind::Value(slot) => self.slots.value(slot, Scalar::Text(text)),
                _ => self.slots.units.push(("", text)),
            }
            Ok(())
        }

        fn visit_bool<E: Error>(self, truth: bool) -> Result<(), E> {
            self.scalar(Scalar::Bool(truth))
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
            self.scalar(Scalar::Number(number as f64))
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
            self.scalar(Scalar::Number(number as f64))
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
            self.scalar(Scalar::Number(number))
        }

        fn visit_unit<E: Error>(self) -> Result<(), E> {
            self.scalar(Scalar::Null)
        }
    }

    impl Part<'_, '_, '_> {
        fn scalar<E: Error>(self, value: Scalar<'_>) -> Result<(), E> {
            let Kind::Value(slot) = self.kind else { return Err(E::custom("no unit")) };
            self.slots.value(slot, value);
            Ok(())
        }
    }

    /// A borrowed string: `typical` has no escapes.
    struct Name<'de>(&'de str);

    impl<'de> serde::Deserialize<'de> for Name<'de> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name<'de>, D::Error> {
            <&str>::deserialize(deserializer).map(Name)
        }
    }
}
