//! Durations as people write them: `90s`, `5m`, `2h`, `3d` (00 §5).

use std::time::Duration;

/// What [`parse_duration`] takes, for error texts.
pub const DURATION_FORMS: &str = "a whole number with a unit: 90s, 5m, 2h or 3d";

/// Reads a duration; `None` when it is not one of [`DURATION_FORMS`] or too large for 64 bits.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let seconds_per_unit = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    let number = whole_number(&text[..text.len() - unit.len_utf8()])?;
    number
        .checked_mul(seconds_per_unit)
        .map(Duration::from_secs)
}

/// Digits alone: `u64::from_str` would also take a plus sign.
pub(super) fn whole_number(digits: &str) -> Option<u64> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, seconds) in [
            ("90s", 90),
            ("5m", 300),
            ("2h", 7200),
            ("3d", 259_200),
            ("0s", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_secs(seconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "s",
            "90",
            "-5m",
            "+5m",
            "1.5h",
            "5 m",
            "5M",
            "5µ",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
