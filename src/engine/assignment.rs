//! What goes into a decision and what comes out: the request's units, and the
//! experiments chosen with their groups. Both live on the worker's side and are
//! used again for every request; nothing here allocates after it was made.

use arrayvec::ArrayVec;

use super::bucket::Salted;
use super::plan::Plan;
use crate::limits::{UNIT_COUNT_MAX, UNIT_VALUE_SIZE_MAX};

/// A kind of unit that a layer or an override names (`user_id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitKind(pub u16);

/// An experiment of the plan, of any state, by its place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExperimentIndex(pub u32);

/// One unit of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit<'a> {
    /// Its name in the request.
    pub name: &'a str,
    /// What the plan in force knows it as; none where no layer and no override names it.
    pub kind: Option<UnitKind>,
    /// 1 to `UNIT_VALUE_SIZE_MAX` bytes; empty means missing.
    pub value: &'a str,
}

/// A unit beyond the `UNIT_COUNT_MAX`-th.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request carries at most {UNIT_COUNT_MAX} units")]
pub struct TooManyUnits;

/// The units of one request, each name once.
#[derive(Debug, Clone, Default)]
pub struct Units<'a> {
    units: ArrayVec<Unit<'a>, UNIT_COUNT_MAX>,
}

impl<'a> Units<'a> {
    /// None yet.
    pub fn new() -> Units<'a> {
        Units::default()
    }

    /// Adds a unit; of a name given twice, the last value counts. The value's
    /// size was held against its limit by whoever read it.
    pub fn set(&mut self, name: &'a str, kind: Option<UnitKind>, value: &'a str) -> Result<(), TooManyUnits> {
        assert!(value.len() <= UNIT_VALUE_SIZE_MAX, "unit `{name}`: longer than {UNIT_VALUE_SIZE_MAX} bytes");
        let unit = Unit { name, kind, value };
        if let Some(known) = self.units.iter_mut().find(|known| known.name == name) {
            *known = unit;
            return Ok(());
        }
        self.units.try_push(unit).map_err(|_| TooManyUnits)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.units.clear();
    }

    /// In the order of the request, empty ones too.
    pub fn as_slice(&self) -> &[Unit<'a>] {
        &self.units
    }

    /// In the order of the request, empty ones too.
    pub fn iter(&self) -> std::slice::Iter<'_, Unit<'a>> {
        self.units.iter()
    }

    /// Those that can decide something: of a kind the plan knows, and not empty.
    pub(super) fn present(&self) -> impl Iterator<Item = (UnitKind, &'a str)> + '_ {
        self.units
            .iter()
            .filter(|unit| !unit.value.is_empty())
            .filter_map(|unit| Some((unit.kind?, unit.value)))
    }

    /// The value of one kind, if it is there.
    pub(super) fn value(&self, kind: UnitKind) -> Option<&'a str> {
        self.present().find(|&(known, _)| known == kind).map(|(_, value)| value)
    }
}

/// An experiment that a request takes part in, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// The experiment.
    pub experiment: ExperimentIndex,
    /// Its group, by its place in the experiment.
    pub group: u32,
    /// Where the plan keeps the bytes of this assignment.
    pub(super) variant: u32,
}

/// The outcome for one request, and the room to work it out. One a worker,
/// sized for a plan: made anew when the plan changes.
///
/// Between decisions `chosen_bits` and `forced_bits` are all zero.
#[derive(Clone)]
pub struct Decision {
    pub(super) chosen: Vec<Chosen>,
    /// One bit an experiment: takes part.
    pub(super) chosen_bits: Vec<u64>,
    /// One bit an experiment: by override.
    pub(super) forced_bits: Vec<u64>,
    /// For experiments with their bit set: as what (index of a variant).
    pub(super) picks: Vec<u32>,
    /// For forced experiments: the rank of the unit kind that forced.
    pub(super) ranks: Vec<u32>,
    /// Runs whose owner may take part, if its segment holds.
    pub(super) candidates: Vec<u32>,
    pub(super) salted: Salted,
}

impl Decision {
    /// Room for any decision of this plan.
    pub fn new(plan: &Plan<'_>) -> Decision {
        let experiment_count = plan.experiment_count();
        let word_count = experiment_count.div_ceil(64);
        Decision {
            chosen: Vec::with_capacity(experiment_count),
            chosen_bits: vec![0; word_count],
            forced_bits: vec![0; word_count],
            picks: vec![0; experiment_count],
            ranks: vec![0; experiment_count],
            candidates: vec![0; plan.active_layer_count() + 1],
            salted: Salted::new(),
        }
    }

    /// The experiments the request takes part in, in the file's order.
    pub fn chosen(&self) -> &[Chosen] {
        &self.chosen
    }
}
