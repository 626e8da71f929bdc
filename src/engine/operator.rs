//! The arithmetic of the operators: from a value to ranks and truth bits.
//!
//! Adding an operator: ordered ones are intervals of ranks and live in
//! `compile/facts.rs` alone; one that looks into a text is an arm of
//! [`Operator`] here and an arm there.

use bytemuck::{Pod, Zeroable};

/// A version's four parts as one number that compares like them; `None` where
/// the text is no version.
///
/// One to four decimal integers separated by dots, each below 2^32, after an
/// optional `v` or `V`; missing parts count as 0.
pub fn parse_version(text: &str) -> Option<[u32; 4]> {
    let bytes = text.as_bytes();
    let mut rest = match bytes {
        [b'v' | b'V', rest @ ..] => rest,
        _ => bytes,
    };
    let mut parts = [0; 4];
    for part in &mut parts {
        let mut value = 0_u64;
        let mut digit_count = 0;
        while let [digit @ b'0'..=b'9', after @ ..] = rest {
            value = value * 10 + u64::from(digit - b'0');
            if value > u64::from(u32::MAX) {
                return None;
            }
            digit_count += 1;
            rest = after;
        }
        if digit_count == 0 {
            return None;
        }
        *part = value as u32;
        match rest {
            [] => return Some(parts),
            [b'.', after @ ..] => rest = after,
            _ => return None,
        }
    }
    None // a fifth part
}

/// A version's parts as one number that compares like them.
#[inline]
pub(super) fn version_number(parts: [u32; 4]) -> u128 {
    parts.iter().fold(0, |number, &part| number << 32 | u128::from(part))
}

/// The rank of a value among ascending thresholds: even where it equals one,
/// odd between; 0 is never a rank, it stands for a missing value.
///
/// ```text
/// value   < t0   = t0   t0..t1   = t1   …
/// rank      1      2       3       4
/// ```
#[inline(always)]
pub(super) fn rank<T: Copy + PartialOrd>(thresholds: &[T], value: T) -> u32 {
    // Up to here counting everything without branches beats searching.
    const SCAN_COUNT_MAX: usize = 32;
    if thresholds.len() <= SCAN_COUNT_MAX {
        let below_or_equal =
            thresholds.iter().map(|&t| u32::from(t < value) + u32::from(t <= value)).sum::<u32>();
        return below_or_equal + 1;
    }
    let below = thresholds.partition_point(|&t| t < value);
    let equal = thresholds.get(below).is_some_and(|&t| t == value);
    2 * below as u32 + 1 + u32::from(equal)
}

/// How a pattern looks into a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub(super) enum Operator {
    StartsWith = 0,
    EndsWith = 1,
    Contains = 2,
    Matches = 3,
}

impl Operator {
    /// The operator of a number in the plan.
    #[inline]
    pub fn from_number(number: u32) -> Option<Operator> {
        Some(match number {
            0 => Operator::StartsWith,
            1 => Operator::EndsWith,
            2 => Operator::Contains,
            3 => Operator::Matches,
            _ => return None,
        })
    }
}

/// Whether `text` contains `needle`.
#[inline]
pub(super) fn contains(text: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(text, needle).is_some()
}

/// A regular expression as a table of transitions; only whether it matches
/// anywhere is asked, so all its matching states are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct DfaRecord {
    /// Which of the plan's class tables maps bytes to classes.
    pub classes: u32,
    /// Where its transitions begin: `class_count` for each state, the last for the text's end.
    pub transition_first: u32,
    /// Classes of bytes, and one for the end.
    pub class_count: u32,
    /// States, [`DEAD`] and [`MATCHED`] counted.
    pub state_count: u32,
    /// Where to begin.
    pub start: u32,
}

/// No match any more.
pub(super) const DEAD: u16 = 0;
/// There is a match.
pub(super) const MATCHED: u16 = 1;

impl DfaRecord {
    /// Whether the expression matches anywhere in the text.
    #[inline]
    pub fn matches(&self, classes: &[[u8; 256]], transitions: &[u16], text: &[u8]) -> bool {
        let classes = &classes[self.classes as usize];
        let class_count = self.class_count as usize;
        let size = class_count * self.state_count as usize;
        let transitions = &transitions[self.transition_first as usize..][..size];
        let mut state = self.start as u16;
        for &byte in text {
            if state <= MATCHED {
                return state == MATCHED;
            }
            state = transitions[usize::from(state) * class_count + usize::from(classes[usize::from(byte)])];
        }
        if state > MATCHED {
            state = transitions[usize::from(state) * class_count + class_count - 1];
        }
        state == MATCHED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_one_to_four_numbers_below_two_to_the_32() {
        for (text, expected) in [
            ("42.24", Some([42, 24, 0, 0])),
            ("v42.24.0", Some([42, 24, 0, 0])),
            ("V1", Some([1, 0, 0, 0])),
            ("042.024", Some([42, 24, 0, 0])),
            ("1.2.3.4", Some([1, 2, 3, 4])),
            ("4294967295.1", Some([u32::MAX, 1, 0, 0])),
            ("0000000000000000000000000000001", Some([1, 0, 0, 0])),
            ("4294967296", None),
            ("99999999999999999999999999999999", None),
            ("1.2.3.4.5", None),
            ("1.2.3.4.", None),
            ("42.", None),
            (".42", None),
            ("1..2", None),
            ("", None),
            ("v", None),
            ("vv1", None),
            ("1v", None),
            ("42.24-beta", None),
            (" 1", None),
            ("1 ", None),
            ("+1", None),
            ("-1", None),
            ("١", None),
        ] {
            assert_eq!(parse_version(text), expected, "{text:?}");
        }
    }

    #[test]
    fn versions_compare_as_numbers() {
        let number = |text| version_number(parse_version(text).unwrap());
        assert!(number("9.10") < number("10"));
        assert!(number("42.24") == number("42.24.0.0"));
        assert!(number("42.24.0.1") > number("42.24"));
        assert!(number("4294967295") < number("4294967295.0.0.1"));
    }

    #[test]
    fn ranks_of_few_and_of_many_thresholds_follow_one_rule() {
        for count in [0, 1, 2, 31, 32, 33, 100_u32] {
            let thresholds: Vec<f64> = (0..count).map(|n| f64::from(n) * 10.0).collect();
            for step in 0..=count * 2 + 2 {
                let value = f64::from(step) * 5.0 - 5.0; // -5, 0, 5, 10 …
                let last = 2 * count + 1;
                assert_eq!(rank(&thresholds, value), (step + 1).min(last), "{count} thresholds, {value}");
            }
        }
        assert_eq!(rank(&[0.0], -0.0), 2);
    }
}
