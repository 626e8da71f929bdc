//! Counting by names that the experiments bring: what was assigned, and which
//! attributes came as another type than declared. A name's place is looked up
//! when it is first met and kept for as long as the plan is in force, so that
//! an assignment costs two loads and a store.

use crate::engine::assignment::Chosen;
use crate::engine::attributes::AttributeIndex;
use crate::engine::plan::{Plan, PlanFault};
use crate::metrics::names::{NameKind, Names, Place};
use crate::metrics::{Block, Table};

/// Not looked up yet.
const UNKNOWN: Place = Place(u16::MAX);

/// The places of a plan's names.
pub(super) struct Tally {
    assignments: Vec<Place>,
    attributes: Vec<Place>,
}

impl Tally {
    /// None looked up yet.
    pub(super) fn new(plan: &Plan<'_>) -> Tally {
        let unknown = |count: usize| vec![UNKNOWN; count];
        Tally { assignments: unknown(plan.assignments().len()), attributes: unknown(plan.attribute_count()) }
    }

    /// Counts an answer's assignments.
    #[inline]
    pub(super) fn assigned(
        &mut self,
        plan: &Plan<'_>,
        names: Names<'_>,
        block: Block<'_>,
        chosen: &[Chosen],
    ) {
        for chosen in chosen {
            let place = &mut self.assignments[chosen.index()];
            if *place == UNKNOWN {
                *place = look_up(names, NameKind::Assignment, plan.answer_fragment(chosen));
            }
            block.add_named(*place, 1);
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

/// Gives all names of a plan their places. Only the master may, and before any
/// worker is given the plan.
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
        names.learn(NameKind::Assignment, plan.answer_fragment(&chosen));
    }
    Ok(())
}
