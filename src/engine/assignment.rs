//! What goes into a decision and what comes out: the request's units, and the
//! experiments chosen with their groups. Both live on the worker's side and are
//! used again for every request; nothing here allocates after it was made.

use arrayvec::ArrayVec;
use fearless_simd::Level;

use super::bucket::Salted;
use super::layer::{CHUNK, Run};
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

/// The widest vector instructions that this machine has, and deciding gains by.
///
/// With AVX-512 the compiler (LLVM 21) takes a line's mask apart bit by bit: twice
/// the time of AVX2.
fn level() -> Level {
    let level = Level::new();
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = level.as_avx2() {
        return Level::Avx2(avx2);
    }
    level
}

impl Chosen {
    /// Which of [`Plan::assignments`] it is.
    #[inline]
    #[must_use]
    pub fn index(&self) -> usize {
        self.variant as usize
    }
}

/// The outcome for one request, and the room to work it out. One a worker,
/// sized for a plan: made anew when the plan changes.
///
/// Between decisions `variant_bits` is all zero.
#[derive(Clone)]
pub struct Decision {
    pub(super) chosen: Vec<Chosen>,
    /// One bit a variant. Of an experiment's variants the first counts.
    pub(super) variant_bits: Vec<u64>,
    /// Owners of the buckets that the unit lies in, of some layers.
    pub(super) owners: [Run; CHUNK],
    /// Those whose segments hold.
    pub(super) passed: [u32; CHUNK],
    pub(super) salted: Salted,
    /// The vector instructions that this machine has.
    pub(super) level: Level,
}

impl Decision {
    /// Room for any decision of this plan.
    pub fn new(plan: &Plan<'_>) -> Decision {
        Decision {
            chosen: Vec::with_capacity(plan.experiment_count()),
            variant_bits: vec![0; plan.variant_count().div_ceil(64)],
            owners: [Run::NOBODYS; CHUNK],
            passed: [0; CHUNK],
            salted: Salted::new(),
            level: level(),
        }
    }

    /// The experiments the request takes part in, in the file's order.
    pub fn chosen(&self) -> &[Chosen] {
        &self.chosen
    }
}
