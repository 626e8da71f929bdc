//! Conditions and named segments: each part checked where it stands, then the
//! whole: no segment refers to itself, and written out they stay within bounds.

use std::collections::HashMap;

use super::json::{Kind, Node};
use super::keys;
use super::operators::{all_operators, operator_fault, operators, read_test};
use super::report::{Place, Report};
use super::words::{listed, note_hint, short};
use crate::engine::catalog::{Attribute, AttributeKind, Condition, Segment};
use crate::limits::{SEGMENT_DEPTH_MAX, SEGMENT_LEAF_COUNT_MAX};

/// Declared attributes by name: index, and the type where that was right.
pub(super) type AttributeNames = HashMap<String, (usize, Option<AttributeKind>)>;

/// What conditions may name.
pub(super) struct Names<'r, 's> {
    pub report: &'r Report<'s>,
    pub attributes: AttributeNames,
    pub segments: HashMap<String, usize>,
}

/// What a condition is before segments named in it are written out.
#[derive(Debug, Default)]
pub(super) struct Measure {
    /// Tests, and lists of nothing.
    leaf_count: usize,
    depth: usize,
    references: Vec<Reference>,
}

#[derive(Debug)]
struct Reference {
    segment: usize,
    /// Conditions it lies in.
    depth: usize,
    place: Place,
}

impl<'s> Names<'_, 's> {
    /// Reads a condition. Everything in it is looked at, whatever is wrong with it.
    pub fn condition(&self, node: &Node<'s, '_>, depth: usize, measure: &mut Measure) -> Option<Condition> {
        measure.depth = measure.depth.max(depth + 1);
        let report = self.report;
        let fields = report.fields(node, "a condition", keys::CONDITION)?;
        let forms: Vec<&'static str> =
            ["all", "any", "not", "segment", "attr"].into_iter().filter(|form| fields.has(form)).collect();
        let [form] = forms[..] else {
            if forms.len() > 1 {
                report.fault(node, || {
                    format!(
                        "a condition is one thing, and this is {} at once; put them into an `all` or `any`",
                        listed(forms)
                    )
                });
            } else if fields.has("op") || fields.has("value") {
                report.fault(node, || {
                    "a test has no `attr`; the name of a declared attribute is wanted".into()
                });
            } else if !fields.unknown_seen {
                report.fault(node, || {
                    "a condition says nothing; one of `all`, `any`, `not`, `segment`, or `attr` with `op` and `value`, is wanted \
                     (`{\"all\": []}` holds for everybody)"
                        .into()
                });
            }
            return None;
        };
        if form != "attr" {
            for key in ["op", "value"] {
                if let Some(stray) = fields.get(node, key) {
                    report.fault(&stray, || format!("`{key}` belongs to a test with `attr`, and this condition is `{form}`; take it out"));
                }
            }
        }
        let inner = fields.get(node, form)?;
        match form {
            "all" => self.list(&inner, "`all`", depth, measure).map(Condition::All),
            "any" => self.list(&inner, "`any`", depth, measure).map(Condition::Any),
            "not" => self.condition(&inner, depth + 1, measure).map(|part| Condition::Not(Box::new(part))),
            "segment" => {
                let name = report.text(&inner, "`segment`")?;
                self.segment(&inner, &name, depth, measure)
            }
            _ => {
                measure.leaf_count += 1;
                let op = fields.get(node, "op");
                self.test(node, &inner, op.as_ref(), fields.get(node, "value").as_ref())
            }
        }
    }

    fn list(
        &self,
        node: &Node<'s, '_>,
        what: &str,
        depth: usize,
        measure: &mut Measure,
    ) -> Option<Vec<Condition>> {
        let items = self.report.list(node, what)?;
        if items.is_empty() {
            measure.leaf_count += 1;
        }
        let mut parts = Vec::with_capacity(items.len());
        let mut whole = true;
        for (index, item) in items.into_iter().enumerate() {
            match self.condition(&node.item(index, item), depth + 1, measure) {
                Some(part) => parts.push(part),
                None => whole = false,
            }
        }
        whole.then_some(parts)
    }

    /// A segment by its name.
    pub fn segment(
        &self,
        node: &Node<'s, '_>,
        name: &str,
        depth: usize,
        measure: &mut Measure,
    ) -> Option<Condition> {
        let Some(&segment) = self.segments.get(name) else {
            self.report.fault(node, || {
                let suggestion = self.report.suggestion(name, self.segments.keys().map(String::as_str));
                format!(
                    "segment `{}` is not declared in `segments`{suggestion}{}",
                    short(name),
                    note_hint(name)
                )
            });
            return None;
        };
        measure.references.push(Reference { segment, depth, place: self.report.place(node) });
        Some(Condition::Segment(segment))
    }

    fn test(
        &self,
        node: &Node<'s, '_>,
        attr: &Node<'s, '_>,
        op: Option<&Node<'s, '_>>,
        value: Option<&Node<'s, '_>>,
    ) -> Option<Condition> {
        let report = self.report;
        let attr_name = report.text(attr, "`attr`");
        let declared = attr_name.as_ref().and_then(|name| {
            let declared = self.attributes.get(name.as_str());
            if declared.is_none() {
                report.fault(attr, || {
                    let suggestion = report.suggestion(name, self.attributes.keys().map(String::as_str));
                    format!(
                        "attribute `{}` is not declared in `attributes`{suggestion}{}",
                        short(name),
                        note_hint(name)
                    )
                });
            }
            declared
        });
        let Some(op) = op else {
            report.fault(node, || {
                let takes = match declared {
                    Some((_, Some(kind))) => listed(operators(*kind)),
                    _ => listed(all_operators()),
                };
                format!("a test has no `op`; one of {takes} is wanted")
            });
            return None;
        };
        let op_name = report.text(op, "`op`")?;
        let Some(&(attribute, Some(kind))) = declared else {
            // The type is not known, but an operator that no type has is one more fault.
            if !all_operators().contains(&op_name.as_str()) {
                report.fault(op, || {
                    let suggestion = report.suggestion(&op_name, all_operators());
                    format!(
                        "unknown operator `{}`{suggestion}; there are {}",
                        short(&op_name),
                        listed(all_operators())
                    )
                });
            }
            return None;
        };
        if !operators(kind).contains(&op_name.as_str()) {
            report.fault(op, || {
                operator_fault(report, &op_name, attr_name.as_deref().unwrap_or_default(), kind)
            });
            return None;
        }
        let test = read_test(report, kind, node, &op_name, value)?;
        Some(Condition::Test { attribute, test })
    }
}

/// Reads `attributes`.
pub(super) fn attributes<'s>(report: &Report<'s>, node: &Node<'s, '_>) -> (Vec<Attribute>, AttributeNames) {
    let (mut attributes, mut names) = (Vec::new(), AttributeNames::new());
    let Some(members) = report.object(node, "`attributes`") else {
        return (attributes, names);
    };
    for (name, raw) in report.named(node, "attribute", &members) {
        let value = node.member(name, raw);
        if keys::RESERVED.contains(&name.as_ref()) {
            report.fault(&value, || {
                format!(
                    "`{name}` is an option of the request's own and can't be declared; another name is wanted"
                )
            });
        }
        let kind = report.text(&value, "an attribute's type").and_then(|given| {
            let kind = keys::TYPES.iter().find(|(type_name, _)| *type_name == given).map(|(_, kind)| *kind);
            if kind.is_none() {
                report.fault(&value, || {
                    let types = || keys::TYPES.iter().map(|(type_name, _)| *type_name);
                    let suggestion = report.suggestion(&given, types());
                    format!("unknown type `{}`{suggestion}; the types are {}", short(&given), listed(types()))
                });
            }
            kind
        });
        names.insert(name.clone().into_owned(), (attributes.len(), kind));
        // A stand-in where the type is faulty: the file is refused, so nobody sees it.
        let kind = kind.unwrap_or(AttributeKind::String);
        attributes.push(Attribute { name: name.clone().into_owned(), kind });
    }
    if attributes.len() > crate::limits::ATTRIBUTE_COUNT_MAX {
        report.fault(node, || {
            format!(
                "{} attributes; at most {} are allowed",
                attributes.len(),
                crate::limits::ATTRIBUTE_COUNT_MAX
            )
        });
    }
    (attributes, names)
}

/// Reads `segments`, whose names are in `names` already; one measure a segment.
pub(super) fn segments<'s>(
    names: &Names<'_, 's>,
    node: &Node<'s, '_>,
) -> (Vec<Segment>, Vec<(Place, Measure)>) {
    let report = names.report;
    let (mut segments, mut measures) = (Vec::new(), Vec::new());
    if node.kind() != Kind::Object {
        return (segments, measures); // reported where the names were read
    }
    let Some(members) = report.object(node, "`segments`") else {
        return (segments, measures);
    };
    let quiet = Report::new(""); // sizes and notes were judged where the names were read
    for (name, raw) in quiet.named(node, "segment", &members) {
        let value = node.member(name, raw);
        let mut measure = Measure::default();
        let condition = names.condition(&value, 0, &mut measure);
        let condition = condition.unwrap_or_else(|| Condition::All(Vec::new())); // a stand-in, as above
        segments.push(Segment { name: name.clone().into_owned(), condition });
        measures.push((report.place(&value), measure));
    }
    (segments, measures)
}

/// A named segment written out.
#[derive(Clone, Copy)]
struct Written {
    leaf_count: usize,
    depth: usize,
    /// It leads into a circle, which is a fault of its own: no size to judge.
    is_circular: bool,
}

/// Holds segments against each other: circles, and sizes once written out.
/// `in_place` are the conditions that experiments have in place.
pub(super) fn judge_segments(
    report: &Report<'_>,
    segments: &[Segment],
    named: &[(Place, Measure)],
    in_place: &[(Place, Measure)],
) {
    let mut written: Vec<Option<Written>> = vec![None; named.len()];
    let mut is_open = vec![false; named.len()];
    // Depth first with a stack of its own: a chain of segments may be as long as the file.
    let mut open: Vec<(usize, usize)> = Vec::new();
    for start in 0..named.len() {
        if written[start].is_some() {
            continue;
        }
        is_open[start] = true;
        open.push((start, 0));
        while let Some((segment, next)) = open.last_mut() {
            let segment = *segment;
            let Some(reference) = named[segment].1.references.get(*next) else {
                written[segment] = Some(write_out(&named[segment].1, &written));
                is_open[segment] = false;
                open.pop();
                continue;
            };
            *next += 1;
            let target = reference.segment;
            if is_open[target] {
                report.fault_at(&reference.place, || {
                    let circle =
                        open.iter().map(|(segment, _)| *segment).skip_while(|segment| *segment != target);
                    circle_fault(segments, &circle.collect::<Vec<_>>())
                });
            } else if written[target].is_none() {
                is_open[target] = true;
                open.push((target, 0));
            }
        }
    }

    let mut total: usize = 0;
    let mut is_over = false;
    for (place, measure) in named.iter().chain(in_place) {
        let size = write_out(measure, &written);
        let is_own = |reference: &Reference| {
            written[reference.segment].is_none_or(|written| written.depth <= SEGMENT_DEPTH_MAX)
        };
        if size.is_circular {
            continue;
        }
        if size.depth > SEGMENT_DEPTH_MAX && measure.references.iter().all(is_own) {
            report.fault_at(place, || {
                format!(
                    "conditions are nested {} deep once the segments named here are written out; at most {SEGMENT_DEPTH_MAX} are allowed",
                    size.depth
                )
            });
        }
        total = total.saturating_add(size.leaf_count);
        if total > SEGMENT_LEAF_COUNT_MAX && !is_over {
            is_over = true;
            report.fault_at(place, || {
                format!(
                    "with this one, the file's segments have more than {SEGMENT_LEAF_COUNT_MAX} tests once segments named in segments \
                     are written out; name fewer segments in segments"
                )
            });
        }
    }
}

/// A reference to what is not written out closes a circle.
fn write_out(measure: &Measure, written: &[Option<Written>]) -> Written {
    let mut whole = Written { leaf_count: measure.leaf_count, depth: measure.depth, is_circular: false };
    for reference in &measure.references {
        let Some(target) = written[reference.segment].filter(|target| !target.is_circular) else {
            whole.is_circular = true;
            continue;
        };
        whole.leaf_count = whole.leaf_count.saturating_add(target.leaf_count);
        whole.depth = whole.depth.max(reference.depth.saturating_add(1).saturating_add(target.depth));
    }
    whole
}

fn circle_fault(segments: &[Segment], circle: &[usize]) -> String {
    const SHOWN: usize = 12;
    let mut names: Vec<String> =
        circle.iter().take(SHOWN).map(|segment| format!("`{}`", short(&segments[*segment].name))).collect();
    if circle.len() > SHOWN {
        names.push(format!("{} more", circle.len() - SHOWN));
    }
    names.push(names[0].clone());
    format!(
        "segments refer to each other in a circle: {}; one of them must not name the next",
        names.join(" → ")
    )
}
