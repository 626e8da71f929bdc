//! `traceparent` of W3C Trace Context (level 1 and 2, section 3.2): the trace that
//! a request is part of, and the span that it comes from.
//!
//! ```text
//! 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//! version  trace-id                    parent-id        flags: 01 sampled, 02 random
//! ```

/// Its one form in version 00, and the least of later ones.
const SIZE: usize = 55;
/// `trace-flags` (3.2.2.5).
const SAMPLED: u8 = 0x01;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Not zero.
    pub trace: u128,
    /// Not zero.
    pub span: u64,
    /// As they came.
    pub flags: u8,
}

impl Parent {
    /// Reads a `traceparent`; one that is malformed is as good as none (4.3). Of a
    /// later version the fields of this one are taken, whatever follows them.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<Parent> {
        let (known, more) = value.split_at_checked(SIZE)?;
        let version = u8::try_from(hex(&known[..2])?).ok()?;
        let ends = more.is_empty() || (version > 0 && more[0] == b'-');
        if version == 0xff || !ends || [known[2], known[35], known[52]] != [b'-'; 3] {
            return None;
        }
        let parent = Parent {
            trace: hex(&known[3..35])?,
            span: u64::try_from(hex(&known[36..52])?).ok()?,
            flags: u8::try_from(hex(&known[53..])?).ok()?,
        };
        (parent.trace != 0 && parent.span != 0).then_some(parent)
    }

    /// Whether the caller may have recorded its part.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// Lower case alone (3.2.2, HEXDIGLC), at most 32 digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(text: &str) -> Option<Parent> {
        Parent::read(text.as_bytes())
    }

    #[test]
    fn the_example_of_the_recommendation_is_read() {
        let parent = read(GOOD).unwrap();
        assert_eq!(parent.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(parent.span, 0x00f0_67aa_0ba9_02b7);
        assert!(parent.is_sampled());
        assert!(!read(&GOOD.replace("-01", "-00")).unwrap().is_sampled());
        assert!(read(&GOOD.replace("-01", "-ff")).unwrap().is_sampled(), "other flags are ignored");
    }

    #[test]
    fn of_a_later_version_what_is_known_is_taken() {
        let later = GOOD.replacen("00", "cc", 1);
        assert_eq!(read(&later), read(GOOD));
        assert_eq!(read(&format!("{later}-what-the-future-will-be-like")), read(GOOD));
        assert_eq!(read(&format!("{later}.what-the-future-will-be-like")), None);
    }

    #[test]
    fn whatever_is_malformed_is_none() {
        for bad in [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-00"),
            format!("{GOOD} "),
            GOOD.replacen("00", "ff", 1),
            GOOD.replacen("00", "0x", 1),
            GOOD.to_ascii_uppercase(),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("4bf9", "4bg9"),
            GOOD.replace("-01", "_01"),
            GOOD.replace("-01", "-+1"),
            GOOD.replace("e4736-00", "e4736 00"),
        ] {
            assert_eq!(read(&bad), None, "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn what_is_written_is_read_again(trace in 1u128.., span in 1u64.., flags: u8) {
            let text = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
            prop_assert_eq!(read(&text), Some(Parent { trace, span, flags }));
        }

        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(parent) = Parent::read(&bytes) {
                prop_assert!(parent.trace != 0 && parent.span != 0);
            }
        }
    }
}
