//! Timestamps as they stand on the wire: `2026-11-22T13:52:14.358Z` (02 §1.3).

use std::time::SystemTime;

/// Formats a moment as ISO-8601 in UTC with milliseconds.
pub fn iso_millis(at: SystemTime) -> String {
    let millis = epoch_millis(at);
    jiff::Timestamp::from_millisecond(millis).map_or_else(
        |_| String::from("1970-01-01T00:00:00.000Z"),
        |stamp| format!("{stamp:.3}"),
    )
}

/// Milliseconds since the Unix epoch; negative before it.
pub fn epoch_millis(at: SystemTime) -> i64 {
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn milliseconds_are_always_three_digits() {
        let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        assert_eq!(iso_millis(at(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            iso_millis(at(1_795_355_534_358)),
            "2026-11-22T13:52:14.358Z"
        );
    }
}
