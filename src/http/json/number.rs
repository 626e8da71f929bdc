//! JSON's numbers (RFC 8259 6), to the nearest f64.

use crate::http::fields::Scalar;

/// Where the JSON number at the start of `bytes` ends, and whether it is an
/// integer; `Err` is where the grammar is broken.
pub(in crate::http) fn number_end(bytes: &[u8]) -> Result<(usize, bool), usize> {
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    at = match bytes.get(at) {
        Some(b'0') => at + 1,
        Some(b'1'..=b'9') => digits(at + 1),
        _ => return Err(at),
    };
    let mut integer = true;
    if bytes.get(at) == Some(&b'.') {
        integer = false;
        let end = digits(at + 1);
        if end == at + 1 {
            return Err(end);
        }
        at = end;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        integer = false;
        let from = at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let end = digits(from);
        if end == from {
            return Err(end);
        }
        at = end;
    }
    Ok((at, integer))
}

/// The nearest f64 of a JSON number, or `Other` where it is beyond f64.
pub(in crate::http) fn number_value(token: &str) -> Scalar<'static> {
    if let Some((value, _)) = short_decimal(token.as_bytes()) {
        return Scalar::Number(value);
    }
    match token.parse::<f64>() {
        Ok(value) if value.is_finite() => Scalar::Number(value),
        _ => Scalar::Other,
    }
}

/// Digits that make an integer which any f64 holds exactly (and with it 10 to
/// as many): 10^15 < 2^53.
const EXACT_DIGIT_COUNT_MAX: usize = 15;

const POWERS_OF_TEN: [f64; EXACT_DIGIT_COUNT_MAX + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// The value and the end of the JSON number at the start of `bytes`, where it
/// is as most are: few digits and no exponent. `None` says nothing of it.
///
/// Its digits and the power of ten are exact, and one division of exact
/// numbers rounds once, so to the nearest.
#[inline(always)]
pub(super) fn short_decimal(bytes: &[u8]) -> Option<(f64, usize)> {
    let mut sum = 0u64;
    let mut digits = |mut at: usize| {
        while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
            // Wraps only where there are too many digits.
            sum = sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            at += 1;
        }
        at
    };
    let negative = bytes.first() == Some(&b'-');
    let whole_from = usize::from(negative);
    let whole_end = digits(whole_from);
    let whole_count = whole_end - whole_from;
    let (mut end, mut scale) = (whole_end, 0);
    if bytes.get(end) == Some(&b'.') {
        end = digits(whole_end + 1);
        scale = end - whole_end - 1;
        if scale == 0 {
            return None;
        }
    }
    let leading_zero = whole_count > 1 && bytes[whole_from] == b'0';
    let exponent = matches!(bytes.get(end), Some(b'e' | b'E'));
    if whole_count == 0 || leading_zero || exponent || whole_count + scale > EXACT_DIGIT_COUNT_MAX {
        return None;
    }
    let mut value = sum as f64;
    if scale > 0 {
        value /= POWERS_OF_TEN[scale];
    }
    Some((if negative { -value } else { value }, end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn short_decimals_are_what_the_standard_library_reads(
            text in "-?(0|[1-9][0-9]{0,9})([.][0-9]{1,8})?", behind in "[,}\\] ]?"
        ) {
            let token = format!("{text}{behind}");
            let short = short_decimal(token.as_bytes());
            let digits = text.bytes().filter(u8::is_ascii_digit).count();
            prop_assert_eq!(short.is_some(), digits <= EXACT_DIGIT_COUNT_MAX);
            if let Some((value, end)) = short {
                prop_assert_eq!(value.to_bits(), text.parse::<f64>().unwrap().to_bits());
                prop_assert_eq!(end, text.len());
            }
        }

        #[test]
        fn what_is_read_as_a_short_decimal_is_a_json_number(text in "[-0-9.eE+]{1,20}[,}]?") {
            if let Some((value, end)) = short_decimal(text.as_bytes()) {
                prop_assert_eq!(number_end(text.as_bytes()).map(|(end, _)| end), Ok(end));
                prop_assert_eq!(value.to_bits(), text[..end].parse::<f64>().unwrap().to_bits());
            }
        }
    }
}
