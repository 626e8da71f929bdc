//! The order in which a service's clients write their attributes. They are
//! written by programs, so the next member's name is mostly the one that came
//! behind the same attribute in the request before, spelled and spaced the same:
//! one comparison of its text then stands for the comma, the quotes, the colon
//! (in a query string for `&` and `=`) and the search for the name. In a query
//! string units stand among the attributes; its first unit, its second … have
//! slots of their own behind the attributes'.
//!
//! A guess is as good as reading: what was read there byte for byte the same was
//! read as this attribute, and `{` has a place of its own, so no comma is taken
//! for granted where there must be none. A wrong guess costs two comparisons.

use wide::u8x16;

use crate::limits::UNIT_COUNT_MAX;

/// Bytes of a member's text that are kept: `, "days_since_signup": ` has 23.
const TEXT_SIZE_MAX: usize = 32;

/// What is expected at a place: the text from there to the value, and whose it is.
#[derive(Debug, Clone, Copy)]
struct Member {
    text: [u8; TEXT_SIZE_MAX],
    /// A bit for each byte of it; 0 where nothing is expected.
    mask: u32,
    slot: u16,
}

const UNKNOWN: Member = Member { text: [0; TEXT_SIZE_MAX], mask: 0, slot: 0 };

/// Where a member is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

impl Place {
    /// Behind the object's `{`, or before any attribute of a query string.
    pub(super) const FIRST: Place = Place(0);

    /// Where nothing is expected, and nothing is learned.
    pub(super) const NOWHERE: Place = Place(usize::MAX);

    /// Behind the value of the attribute in this slot.
    #[inline(always)]
    pub(super) fn behind(slot: u16) -> Place {
        Place(usize::from(slot) + 1)
    }
}

/// What came behind each attribute when it was read last. Made anew with the
/// slots' meaning, that is with each plan.
#[derive(Debug)]
pub struct MemberOrder {
    /// Members of a body's object.
    pub(super) body: Order,
    /// Pairs of a query string: what is a member's text in one is none in the other.
    pub(super) query: Order,
}

impl MemberOrder {
    /// For so many slots; nothing is expected yet.
    #[must_use]
    pub fn new(slot_count: usize) -> MemberOrder {
        let order = || Order(vec![UNKNOWN; 1 + slot_count + UNIT_COUNT_MAX].into_boxed_slice());
        MemberOrder { body: order(), query: order() }
    }
}

/// The order in one notation.
#[derive(Debug)]
pub(super) struct Order(Box<[Member]>);

impl Order {
    /// The slot of a query string's first unit: the next one's is the next.
    #[inline(always)]
    pub(super) fn unit_slot(&self) -> u16 {
        (self.0.len() - 1 - UNIT_COUNT_MAX) as u16
    }

    /// Whose value follows in `rest`, and the bytes before it: where the expected
    /// member follows, or the one expected behind that one, which was left out.
    #[inline(always)]
    pub(super) fn guess(&self, rest: &[u8], place: Place) -> Option<(u16, usize)> {
        match rest.first_chunk() {
            Some(rest) => self.guess_in(rest, place),
            None => {
                // No member's text has a NUL, so none goes beyond the rest.
                let mut padded = [0; TEXT_SIZE_MAX];
                padded[..rest.len()].copy_from_slice(rest);
                self.guess_in(&padded, place)
            }
        }
    }

    #[inline(always)]
    fn guess_in(&self, rest: &[u8; TEXT_SIZE_MAX], place: Place) -> Option<(u16, usize)> {
        let member = self.0.get(place.0)?;
        if let Some(size) = member.size_in(rest) {
            return Some((member.slot, size));
        }
        if place == Place::FIRST {
            return None;
        }
        let member = self.0.get(Place::behind(member.slot).0)?;
        member.size_in(rest).map(|size| (member.slot, size))
    }

    /// This text stood there, and the value of `slot` behind it.
    #[inline(never)]
    pub(super) fn learn(&mut self, place: Place, text: &[u8], slot: u16) {
        let Some(member) = self.0.get_mut(place.0) else { return };
        *member = UNKNOWN;
        if let Some(room) = member.text.get_mut(..text.len()) {
            room.copy_from_slice(text);
            member.mask = (u32::MAX).unbounded_shr((TEXT_SIZE_MAX - text.len()) as u32);
            member.slot = slot;
        }
    }
}

impl Member {
    /// The text's size, if `rest` begins with it.
    #[inline(always)]
    fn size_in(&self, rest: &[u8; TEXT_SIZE_MAX]) -> Option<usize> {
        let same = |half: usize| {
            let half = |bytes: &[u8; TEXT_SIZE_MAX]| u8x16::new(bytes.as_chunks().0[half]);
            half(rest).simd_eq(half(&self.text)).to_bitmask()
        };
        let same = same(0) | same(1) << 16;
        (self.mask != 0 && same & self.mask == self.mask).then_some(self.mask.count_ones() as usize)
    }
}
