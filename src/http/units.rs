//! The units of one request while it is scanned. They are told at the end,
//! because only then is it known which value of a doubled name counts.

use arrayvec::ArrayVec;

use crate::limits::{UNIT_COUNT_MAX, UNIT_NAME_SIZE_MAX, UNIT_VALUE_SIZE_MAX};

use super::fields::{Fields, ScanFault};

/// A unit's last value; `None` where it is no text and no integer.
struct Unit<'a> {
    name: &'a str,
    value: Option<&'a str>,
}

#[derive(Default)]
pub(super) struct UnitList<'a> {
    units: ArrayVec<Unit<'a>, UNIT_COUNT_MAX>,
    /// The first that found no place.
    surplus: Option<&'a str>,
}

impl<'a> UnitList<'a> {
    /// The units begin again.
    pub(super) fn clear(&mut self) {
        self.units.clear();
        self.surplus = None;
    }

    /// Units so far.
    pub(super) fn count(&self) -> usize {
        self.units.len()
    }

    /// A unit's value: a string, or an integer's text; `""` is missing.
    pub(super) fn set_text(&mut self, name: &'a str, value: &'a str) {
        self.set(name, Some(value));
    }

    /// A unit's value is of no kind that is allowed.
    pub(super) fn set_refused(&mut self, name: &'a str) {
        self.set(name, None);
    }

    fn set(&mut self, name: &'a str, value: Option<&'a str>) {
        match self.units.iter_mut().find(|unit| unit.name == name) {
            Some(unit) => unit.value = value,
            None => {
                if self.units.try_push(Unit { name, value }).is_err() {
                    self.surplus.get_or_insert(name);
                }
            }
        }
    }

    /// Tells the units, in the order in which their names first came.
    pub(super) fn tell<F: Fields<'a>>(&self, fields: &mut F) -> Result<(), ScanFault<'a>> {
        if let Some(name) = self.surplus {
            return Err(fault(name, "more than 8 units"));
        }
        for &Unit { name, value } in &self.units {
            if name.len() > UNIT_NAME_SIZE_MAX {
                return Err(fault(name, "a unit's name has at most 256 bytes"));
            }
            match value {
                Some(value) if value.len() <= UNIT_VALUE_SIZE_MAX => {
                    fields.unit(name, value).map_err(|refused| fault(name, refused.0))?;
                }
                _ => return Err(fault(name, "must be a string of 1 to 256 bytes or an integer")),
            }
        }
        Ok(())
    }
}

// The texts above name the limits.
const _: () = assert!(UNIT_COUNT_MAX == 8 && UNIT_NAME_SIZE_MAX == 256 && UNIT_VALUE_SIZE_MAX == 256);

/// A name is shown as far as any allowed one could reach.
fn fault<'a>(name: &'a str, reason: &'static str) -> ScanFault<'a> {
    let mut shown = name.len().min(UNIT_NAME_SIZE_MAX);
    while !name.is_char_boundary(shown) {
        shown -= 1;
    }
    ScanFault::Unit { name: &name[..shown], reason }
}
