//! Explaining: the request is read by the same scanners and judged by the same
//! rules as for assign, and then the plain twin goes through the experiments file
//! step by step. Nothing is recorded.
//!
//! It allocates, and takes time in the order of the file: a route for a pool of
//! its own. The file's text comes with the plan; it is read once a plan, by the
//! first request that asks, and by no pool that has no such route.

use std::cell::OnceCell;

use serde_json::{Number, Value};

use crate::config::check;
use crate::engine::assignment::ExperimentIndex;
use crate::engine::catalog::Catalog;
use crate::engine::reference::{Explained, Request as Plain};
use crate::http::{Answer, ContentType, FieldFault, Fields, QueryName, Request, Scalar, Shape, Status};
use crate::limits::REPORT_SIZE_MAX;

use super::App;
use super::assign::{Fault, judge_types, scan};
use super::form::Form;

/// The catalog of the plan in force, once somebody has asked for it.
pub(super) type Source = OnceCell<Option<Catalog>>;

impl App<'_, '_> {
    /// `/v1/explain`, or for one experiment `/v1/explain/{experiment}`.
    pub(super) fn explain(
        &mut self,
        experiment: Option<ExperimentIndex>,
        request: &Request<'_>,
        scratch: &mut [u8],
        answer: Answer<'_>,
    ) {
        let App { plan, version_line, order, facts, tally, desk, source, .. } = self;
        let mut notes = Notes::new(Form::new(plan, facts));
        let scanned = scan(request, scratch, order, &mut notes).map_err(Fault::Scan);
        let Notes { mut ignored, request, .. } = notes;
        if let Err(fault) = scanned.and_then(|_| judge_types(plan, facts, tally, desk)) {
            return answer.problem(fault.status(), fault);
        }
        let Some(catalog) = source.get_or_init(|| check::check(plan.source()).ok()) else {
            return answer.problem(Status::InternalServerError, "the plan in force came without its file");
        };
        ignored.sort_unstable();
        ignored.dedup();
        let one = experiment.map(|experiment| experiment.0 as usize);
        let explained = Explained::new(catalog, &request, &ignored, one);
        let json = serde_json::to_vec(&explained).expect("texts, numbers and lists");
        if json.len() > REPORT_SIZE_MAX {
            let detail = format!(
                "the explanation takes {} bytes, of which at most {REPORT_SIZE_MAX} are given; \
                 ask for one experiment, /v1/explain/NAME",
                json.len()
            );
            return answer.problem(Status::UnprocessableContent, detail);
        }
        let mut body = answer.start(Status::Ok).header_line(version_line).body(ContentType::Json);
        body.push(&json);
        body.finish();
    }
}

/// A request noted twice: as the plan takes it, so that it is judged as by
/// assign, and as it came, for the plain twin.
struct Notes<'f, 'a> {
    form: Form<'f, 'a>,
    request: Plain,
    /// Names that the experiments neither use as a unit nor declare as an attribute.
    ignored: Vec<String>,
}

impl<'f, 'a> Notes<'f, 'a> {
    fn new(form: Form<'f, 'a>) -> Notes<'f, 'a> {
        Notes { form, request: Plain::default(), ignored: Vec::new() }
    }

    fn note(&mut self, slot: u16, value: Value) {
        let name = self.form.attribute_name(slot).to_owned();
        self.request.attributes.push((name, value));
    }

    /// The list that is being told.
    fn list(&mut self) -> &mut Vec<Value> {
        match self.request.attributes.last_mut() {
            Some((_, Value::Array(items))) => items,
            other => unreachable!("a list's item after {other:?}"),
        }
    }
}

impl<'a> Fields<'a> for Notes<'_, 'a> {
    fn unit(&mut self, name: &'a str, value: &'a str) -> Result<(), FieldFault> {
        self.form.unit(name, value)?;
        if !self.form.knows_unit(name) {
            self.ignored.push(name.to_owned());
        }
        self.request.units.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    fn attributes_begin(&mut self) {
        self.form.attributes_begin();
        self.request.attributes.clear();
        self.ignored.clear();
    }

    fn attribute(&mut self, name: &str) -> Option<u16> {
        let slot = self.form.attribute(name);
        if slot.is_none() {
            self.ignored.push(name.to_owned());
        }
        slot
    }

    fn value(&mut self, slot: u16, value: Scalar<'_>) {
        self.form.value(slot, value);
        let of_no_type = || Value::Object(serde_json::Map::new());
        self.note(
            slot,
            match value {
                Scalar::Null => Value::Null,
                Scalar::Bool(truth) => Value::Bool(truth),
                Scalar::Number(number) => Number::from_f64(number).map_or_else(of_no_type, Value::Number),
                Scalar::Text(text) => Value::from(text),
                Scalar::Other => of_no_type(),
            },
        );
    }

    fn list_begin(&mut self, slot: u16) {
        self.form.list_begin(slot);
        self.note(slot, Value::Array(Vec::new()));
    }

    fn list_item(&mut self, slot: u16, item: &str) {
        self.form.list_item(slot, item);
        self.list().push(Value::from(item));
    }

    fn list_end(&mut self, slot: u16, all_strings: bool) {
        self.form.list_end(slot, all_strings);
        if !all_strings {
            // An element that is no string: which, the scanner does not tell.
            self.list().push(Value::Null);
        }
    }

    fn query_name(&mut self, name: &str) -> QueryName {
        let known = self.form.query_name(name);
        if known == QueryName::Ignored {
            self.ignored.push(name.to_owned());
        }
        known
    }

    fn shape(&self, slot: u16) -> Shape {
        self.form.shape(slot)
    }
}

#[cfg(test)]
mod tests;
