//! Counting by names that the experiments bring: what was assigned, what of it
//! went with an exposure that the ring refused, and which attributes came as
//! another type than declared. A name's place is looked up when it is first met
//! and kept for as long as the plan is in force, so that an assignment costs two
//! loads and a store. What overrides force is counted apart: it says nothing of how
//! the buckets fall.

use std::collections::HashSet;

use crate::engine::assignment::Chosen;
use crate::engine::attributes::AttributeIndex;
use crate::engine::plan::{Plan, PlanFault};
use crate::metrics::names::{Column, NameKind, Names, Place};
use crate::metrics::shares::Share;
use crate::metrics::{Block, Table};

/// Not looked up yet.
const UNKNOWN: Place = Place(u16::MAX);

/// The places of a plan's names.
pub struct Tally {
    assignments: Vec<Place>,
    attributes: Vec<Place>,
}

impl Tally {
    /// None looked up yet.
    #[must_use]
    pub fn new(plan: &Plan<'_>) -> Tally {
        let unknown = |count: usize| vec![UNKNOWN; count];
        Tally { assignments: unknown(plan.assignments().len()), attributes: unknown(plan.attribute_count()) }
    }

    /// Counts an answer's assignments.
    #[inline]
    pub fn assigned(&mut self, plan: &Plan<'_>, names: Names<'_>, block: Block<'_>, chosen: &[Chosen]) {
        for chosen in chosen {
            let place = &mut self.assignments[chosen.index()];
            if *place == UNKNOWN {
                *place = look_up(names, kind(plan, chosen), plan.assignment_json(chosen));
            }
            block.add_named(*place, 1);
        }
    }

    /// Counts assignments, of those just counted, whose exposure the ring refused.
    #[cold]
    pub(super) fn lost(&self, block: Block<'_>, chosen: &[Chosen]) {
        for chosen in chosen {
            block.add_named(self.assignments[chosen.index()].of(Column::Lost), 1);
        }
    }

    /// Counts an attribute's value of another type than declared.
    pub(super) fn mistyped(
        &mut self,
        plan: &Plan<'_>,
        names: Names<'_>,
        block: Block<'_>,
        attribute: AttributeIndex,
    ) {
        let place = &mut self.attributes[usize::from(attribute.0)];
        if *place == UNKNOWN {
            *place = look_up(names, NameKind::Attribute, plan.attribute_name(attribute).as_bytes());
        }
        block.add_named(*place, 1);
    }
}

#[cold]
fn look_up(names: Names<'_>, kind: NameKind, text: &[u8]) -> Place {
    names.find(kind, text).unwrap_or(Place::other(kind))
}

fn kind(plan: &Plan<'_>, chosen: &Chosen) -> NameKind {
    if plan.is_forced(chosen) { NameKind::Forced } else { NameKind::Assignment }
}

/// Gives all names of a plan their places, and withdraws the shares of which it
/// has others. Only the master may, and before any worker is given the plan.
///
/// # Errors
/// If the image is no sound plan.
pub fn learn(image: &[u8], table: Table<'_>) -> Result<(), PlanFault> {
    let plan = Plan::open(image)?;
    let names = table.names();
    for index in 0..plan.attribute_count() {
        let name = plan.attribute_name(AttributeIndex(index as u16));
        names.learn(NameKind::Attribute, name.as_bytes());
    }
    for chosen in plan.assignments() {
        names.learn(kind(&plan, &chosen), plan.assignment_json(&chosen));
    }
    let known = table.shares();
    let holds = |(place, share): &(Place, Share)| known.get(*place).is_some_and(|(known, _)| known == *share);
    let kept: HashSet<Place> = shares(&plan, names)
        .into_iter()
        .filter(|groups| groups.iter().all(holds))
        .flatten()
        .map(|(place, _)| place)
        .collect();
    let places = (0..names.count()).map(|place| Place(place as u16));
    places.filter(|place| !kept.contains(place)).for_each(|place| known.withdraw(place));
    Ok(())
}

/// Says which shares of its experiment's assignments each group should have, from
/// here on. Only the master may, once all workers use the plan.
///
/// # Errors
/// If the image is no plan. It is one that [`learn`] has taken.
pub fn expect(image: &[u8], table: Table<'_>) -> Result<(), PlanFault> {
    let plan = Plan::attach(image)?;
    for (place, share) in shares(&plan, table.names()).into_iter().flatten() {
        if table.shares().get(place).is_none() {
            table.shares().expect(place, share, table.get_named(place));
        }
    }
    Ok(())
}

/// The shares of the groups of every running experiment, as far as they have places.
fn shares(plan: &Plan<'_>, names: Names<'_>) -> Vec<Vec<(Place, Share)>> {
    let drawn: Vec<Chosen> = plan.assignments().filter(|chosen| !plan.is_forced(chosen)).collect();
    let of_experiment = |groups: &[Chosen]| {
        let experiment = groups.iter().map(|chosen| plan.bucket_count(chosen)).fold(0, u32::saturating_add);
        let share = |chosen: &Chosen| {
            let place = names.find(NameKind::Assignment, plan.assignment_json(chosen))?;
            Some((place, Share { group: plan.bucket_count(chosen), experiment }))
        };
        groups.iter().filter_map(share).collect()
    };
    drawn.chunk_by(|a, b| a.experiment == b.experiment).map(of_experiment).collect()
}

#[cfg(test)]
mod tests;
