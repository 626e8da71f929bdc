//! A request's fields as the plan in force knows them: the scanner's finds go
//! straight into units and facts.

use crate::engine::assignment::Units;
use crate::engine::attributes::{AttributeIndex, Facts, Value};
use crate::engine::catalog::AttributeKind;
use crate::engine::plan::Plan;
use crate::http::{FieldFault, Fields, QueryName, Scalar, Shape};

/// Receives one request.
pub(super) struct Form<'f, 'a> {
    plan: &'f Plan<'f>,
    facts: &'f mut Facts,
    pub(super) units: Units<'a>,
}

impl<'f, 'a> Form<'f, 'a> {
    /// An empty form; `facts` are cleared.
    pub(super) fn new(plan: &'f Plan<'f>, facts: &'f mut Facts) -> Form<'f, 'a> {
        facts.clear(plan);
        Form { plan, facts, units: Units::new() }
    }

    /// A declared attribute's name.
    pub(super) fn attribute_name(&self, slot: u16) -> &'f str {
        self.plan.attribute_name(AttributeIndex(slot))
    }

    /// Whether a layer or an override uses units of this name.
    pub(super) fn knows_unit(&self, name: &str) -> bool {
        self.plan.unit_kind(name).is_some()
    }
}

impl<'a> Fields<'a> for Form<'_, 'a> {
    fn unit(&mut self, name: &'a str, value: &'a str) -> Result<(), FieldFault> {
        let kind = self.plan.unit_kind(name);
        self.units.set(name, kind, value).map_err(|_| FieldFault("a request carries at most 8 units"))
    }

    fn attributes_begin(&mut self) {
        self.facts.clear(self.plan);
    }

    fn attribute(&mut self, name: &str) -> Option<u16> {
        self.plan.attribute(name).map(|(index, _)| index.0)
    }

    fn value(&mut self, slot: u16, value: Scalar<'_>) {
        let value = match value {
            Scalar::Null => Value::Null,
            Scalar::Bool(value) => Value::Bool(value),
            Scalar::Number(value) => Value::Number(value),
            Scalar::Text(value) => Value::Text(value),
            Scalar::Other => Value::Other,
        };
        self.facts.set(self.plan, AttributeIndex(slot), value);
    }

    fn list_begin(&mut self, slot: u16) {
        self.facts.list_begin(self.plan, AttributeIndex(slot));
    }

    fn list_item(&mut self, slot: u16, item: &str) {
        self.facts.list_item(self.plan, AttributeIndex(slot), item);
    }

    fn list_end(&mut self, slot: u16, all_strings: bool) {
        self.facts.list_end(self.plan, AttributeIndex(slot), all_strings);
    }

    fn query_name(&mut self, name: &str) -> QueryName {
        if self.plan.unit_kind(name).is_some() {
            return QueryName::Unit;
        }
        match self.plan.attribute(name) {
            None => QueryName::Ignored,
            Some((index, _)) => QueryName::Attribute(index.0),
        }
    }

    fn shape(&self, slot: u16) -> Shape {
        match self.plan.attribute_kind(AttributeIndex(slot)) {
            AttributeKind::String | AttributeKind::Version => Shape::Text,
            AttributeKind::Number => Shape::Number,
            AttributeKind::Bool => Shape::Bool,
            AttributeKind::StringList => Shape::List,
        }
    }
}
