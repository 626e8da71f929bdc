//! Experiments: their ids and names, groups, blocks and overrides.

use std::collections::HashMap;

use super::blocks::{Owner, Taken};
use super::conditions::{Measure, Names};
use super::json::{Kind, Node, minified};
use super::keys;
use super::layers::UnitKinds;
use super::report::Place;
use super::words::{listed, note_hint, short};
use crate::engine::catalog::{Block, Experiment, Group, Layer, OverrideKind, State};
use crate::limits::{EXPERIMENT_COUNT_MAX, UNIT_VALUE_SIZE_MAX};

/// What experiments may name, and what is known of those before.
pub(super) struct Experiments<'n, 's> {
    names: &'n Names<'n, 's>,
    layers: &'n [(Layer, Option<u32>)],
    layer_index: HashMap<&'n str, usize>,
    unit_kinds: &'n mut UnitKinds,
    taken: Taken,
    /// Id or name → the experiment that had it first.
    ids: HashMap<i64, usize>,
    experiment_names: HashMap<String, usize>,
    /// Segments written in place.
    pub in_place: Vec<(Place, Measure)>,
}

impl<'n, 's> Experiments<'n, 's> {
    pub fn new(
        names: &'n Names<'n, 's>,
        layers: &'n [(Layer, Option<u32>)],
        unit_kinds: &'n mut UnitKinds,
    ) -> Self {
        Experiments {
            names,
            layers,
            layer_index: layers
                .iter()
                .enumerate()
                .map(|(index, (layer, _))| (layer.name.as_str(), index))
                .collect(),
            unit_kinds,
            taken: Taken::new(layers.len()),
            ids: HashMap::new(),
            experiment_names: HashMap::new(),
            in_place: Vec::new(),
        }
    }

    /// Reads `experiments`: all of them, or as many as are right.
    pub fn read(&mut self, node: &Node<'s, '_>) -> Vec<Experiment> {
        let report = self.names.report;
        let Some(items) = report.list(node, "`experiments`") else {
            return Vec::new();
        };
        if items.len() > EXPERIMENT_COUNT_MAX {
            report.fault(node, || {
                format!("{} experiments; at most {EXPERIMENT_COUNT_MAX} are allowed", items.len())
            });
            return Vec::new();
        }
        let items = items.into_iter().enumerate();
        items.filter_map(|(index, item)| self.experiment(&node.item(index, item), index)).collect()
    }

    fn experiment(&mut self, node: &Node<'s, '_>, index: usize) -> Option<Experiment> {
        let report = self.names.report;
        let fields = report.fields(node, "an experiment", keys::EXPERIMENT)?;

        let name = fields.get(node, "name").map(|name| (report.name(&name, "`name`"), name));
        let what = match &name {
            Some((Some(name), _)) => format!("experiment `{}`", short(name)),
            _ => format!("experiment {index}"),
        };
        let name = match name {
            None => {
                report.fault(node, || {
                    format!("{what} has no `name`; a text that no other experiment has is wanted")
                });
                None
            }
            Some((name, at)) => name.inspect(|name| self.claim_name(&at, name, index)),
        };

        let id = report
            .required(node, &fields, "id", &what, "a whole number that no other experiment has is wanted")
            .and_then(|id| {
                let number = report.integer(&id, "`id`", i64::MIN..=i64::MAX)?;
                self.claim_id(&id, number, index);
                Some(number)
            });
        let run_id = report
            .required(node, &fields, "run_id", &what, "a whole number is wanted, 1 for the first run")
            .and_then(|run_id| report.integer(&run_id, "`run_id`", i64::from(i32::MIN)..=i64::from(i32::MAX)))
            .and_then(|run_id| i32::try_from(run_id).ok());
        let state = match fields.get(node, "state") {
            None => Some(State::Running),
            Some(state) => self.state(&state),
        };
        let layer = report
            .required(node, &fields, "layer", &what, "the name of a declared layer is wanted")
            .and_then(|layer| self.layer(&layer));
        let segment = fields.get(node, "segment").map(|segment| self.segment(&segment));
        let groups = report
            .required(node, &fields, "groups", &what, "a list of groups is wanted")
            .and_then(|groups| self.groups(&groups, &what, layer, state, index));
        let overrides = match fields.get(node, "overrides") {
            None => Some(Vec::new()),
            Some(overrides) => self.overrides(&overrides, &what, groups.as_deref()),
        };
        Some(Experiment {
            id: id?,
            run_id: run_id?,
            name: name?,
            state: state?,
            layer: layer?,
            segment: match segment {
                None => None,
                Some(condition) => Some(condition?),
            },
            groups: groups?.into_iter().collect::<Option<_>>()?,
            overrides: overrides?,
        })
    }

    fn claim_name(&mut self, at: &Node<'s, '_>, name: &str, index: usize) {
        if let Some(first) = self.experiment_names.get(name) {
            self.names.report.fault(at, || {
                format!("experiment name `{}` is used twice: /experiments/{first} has it; names are unique over all states", short(name))
            });
        } else {
            self.experiment_names.insert(name.to_owned(), index);
        }
    }

    fn claim_id(&mut self, at: &Node<'s, '_>, id: i64, index: usize) {
        let first = *self.ids.entry(id).or_insert(index);
        if first != index {
            self.names.report.fault(at, || {
                format!("experiment id {id} is repeated: /experiments/{first} has it; ids are unique over all states")
            });
        }
    }

    fn state(&self, node: &Node<'s, '_>) -> Option<State> {
        let report = self.names.report;
        let given = report.text(node, "`state`")?;
        let state = keys::STATES.iter().find(|(name, _)| *name == given).map(|(_, state)| *state);
        if state.is_none() {
            report.fault(node, || {
                let states = || keys::STATES.iter().map(|(name, _)| *name);
                let suggestion = report.suggestion(&given, states());
                format!("unknown state `{}`{suggestion}; the states are {}", short(&given), listed(states()))
            });
        }
        state
    }

    fn layer(&self, node: &Node<'s, '_>) -> Option<usize> {
        let report = self.names.report;
        let name = report.text(node, "`layer`")?;
        let layer = self.layer_index.get(name.as_str()).copied();
        if layer.is_none() {
            report.fault(node, || {
                let suggestion =
                    report.suggestion(&name, self.layers.iter().map(|(layer, _)| layer.name.as_str()));
                format!(
                    "layer `{}` is not declared in `layers`{suggestion}{}",
                    short(&name),
                    note_hint(&name)
                )
            });
        }
        layer
    }

    /// A name or a condition in place.
    fn segment(&mut self, node: &Node<'s, '_>) -> Option<crate::engine::catalog::Condition> {
        let report = self.names.report;
        let mut measure = Measure::default();
        match node.kind() {
            Kind::Text => {
                let name = report.text(node, "`segment`")?;
                self.names.segment(node, &name, 0, &mut measure)
            }
            Kind::Object => {
                let condition = self.names.condition(node, 0, &mut measure);
                self.in_place.push((report.place(node), measure));
                condition
            }
            _ => {
                report.fault(node, || {
                    format!("`segment` is {}; a segment's name or a condition is wanted, or no `segment` for everybody", node.shown())
                });
                None
            }
        }
    }

    /// The groups, none for a faulty one, so that the others keep their places.
    fn groups(
        &mut self,
        node: &Node<'s, '_>,
        what: &str,
        layer: Option<usize>,
        state: Option<State>,
        experiment: usize,
    ) -> Option<Vec<Option<Group>>> {
        let report = self.names.report;
        let items = report.list(node, "`groups`")?;
        let mut first_of: HashMap<String, usize> = HashMap::new();
        let mut groups = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let group_node = node.item(index, item);
            let Some(fields) = report.fields(&group_node, "a group", keys::GROUP) else {
                groups.push(None);
                continue;
            };
            let wanted = "every group has one";
            let name = report
                .required(&group_node, &fields, "name", &format!("group {index} of {what}"), wanted)
                .and_then(|at| {
                    let name = report.name(&at, "a group's `name`")?;
                    let first = *first_of.entry(name.clone()).or_insert(index);
                    if first != index {
                        report.fault(&at, || {
                            format!("group name `{}` is used twice in {what}: group {first} has it; another is wanted", short(&name))
                        });
                    }
                    Some(name)
                });
            let shown = name
                .as_deref()
                .map_or_else(|| format!("group {index} of {what}"), |name| format!("`{}`", short(name)));
            let owner = Owner {
                layer,
                is_taking: state != Some(State::Finished),
                experiment,
                group: index,
                what,
                name: &shown,
            };
            let blocks = report
                .required(
                    &group_node,
                    &fields,
                    "blocks",
                    &format!("group {shown} of {what}"),
                    "a list of [first, count] is wanted, [] for no buckets",
                )
                .and_then(|blocks| self.blocks(&blocks, &owner));
            let payload = fields.get(&group_node, "payload").map(|payload| minified(payload.raw));
            groups.push(match (name, blocks) {
                (Some(name), Some(blocks)) => Some(Group { name, blocks, payload }),
                // Faulty, but its name is one that overrides may use.
                (Some(name), None) => Some(Group { name, blocks: Vec::new(), payload }),
                _ => None,
            });
        }
        Some(groups)
    }

    fn blocks(&mut self, node: &Node<'s, '_>, owner: &Owner<'_>) -> Option<Vec<Block>> {
        let items = self.names.report.list(node, "`blocks`")?;
        let mut blocks = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let at = node.item(index, item);
            if let Some(block) = self.block(&at, owner) {
                blocks.push(block);
                if let Some(layer) = owner.layer
                    && owner.is_taking
                {
                    let layer_name = &self.layers[layer].0.name;
                    self.taken.take(self.names.report, layer, layer_name, block, owner, &at);
                }
            }
        }
        Some(blocks)
    }

    /// `[first, count]` within the layer.
    fn block(&self, node: &Node<'s, '_>, owner: &Owner<'_>) -> Option<Block> {
        let report = self.names.report;
        let items = report.list(node, "a block")?;
        let [first, count] = items[..] else {
            report.fault(node, || {
                format!(
                    "a block of {} has {} numbers; two are wanted: [first bucket, count]",
                    owner.name,
                    items.len()
                )
            });
            return None;
        };
        let most = i64::from(u32::MAX);
        let first = report.integer(&node.item(0, first), "a block's first bucket", 0..=most);
        let count = report.integer(&node.item(1, count), "a block's count", 1..=most);
        let (first, count) = (first?, count?);
        if let Some((layer, bucket_count)) = owner.layer.map(|layer| &self.layers[layer])
            && let Some(bucket_count) = *bucket_count
        {
            let bucket_count = i64::from(bucket_count);
            if first + count > bucket_count {
                report.fault(node, || {
                    let fits = if first < bucket_count {
                        format!("a count of at most {} fits here", bucket_count - first)
                    } else {
                        "its first bucket lies behind them".to_owned()
                    };
                    format!(
                        "block [{first}, {count}] of group {} leaves layer `{}`, whose buckets are 0 to {}; {fits}",
                        owner.name,
                        short(&layer.name),
                        bucket_count - 1
                    )
                });
                return None;
            }
        }
        Some(Block { first: u32::try_from(first).ok()?, count: u32::try_from(count).ok()? })
    }

    fn overrides(
        &mut self,
        node: &Node<'s, '_>,
        what: &str,
        groups: Option<&[Option<Group>]>,
    ) -> Option<Vec<OverrideKind>> {
        let report = self.names.report;
        let members = report.object(node, "`overrides`")?;
        let mut overrides = Vec::new();
        for (kind, raw) in report.named(node, "unit", &members) {
            let at = node.member(kind, raw);
            let unit_kind = self.unit_kinds.index(report, &at, kind);
            let Some(units) = report.object(&at, "what a unit's overrides are") else {
                continue;
            };
            // Which groups there are is not known where `groups` is faulty.
            let group_index: Option<HashMap<&str, usize>> = groups.and_then(|groups| {
                let names = groups
                    .iter()
                    .enumerate()
                    .map(|(index, group)| Some((group.as_ref()?.name.as_str(), index)));
                names.collect()
            });
            let mut listed_units: Vec<(String, usize)> = Vec::with_capacity(units.len());
            for (value, raw) in &units {
                let unit = at.member(value, *raw);
                if value.is_empty() || value.len() > UNIT_VALUE_SIZE_MAX {
                    report.fault(&unit, || {
                        format!("an override for a unit of {} bytes; a request's units have 1 to {UNIT_VALUE_SIZE_MAX}", value.len())
                    });
                }
                let Some(group) = report.text(&unit, "an override's group") else {
                    continue;
                };
                let Some(group_index) = &group_index else { continue };
                match group_index.get(group.as_str()) {
                    Some(group) => listed_units.push((value.clone().into_owned(), *group)),
                    None => report.fault(&unit, || {
                        let suggestion = report.suggestion(&group, group_index.keys().copied());
                        format!(
                            "the override of {kind} `{}` names no group of {what}: `{}`{suggestion}",
                            short(value),
                            short(&group)
                        )
                    }),
                }
            }
            overrides.push(OverrideKind { unit_kind, units: listed_units });
        }
        Some(overrides)
    }
}
