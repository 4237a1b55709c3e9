//! Timestamps as they stand on the wire: `2026-11-22T13:52:14.358Z` (02 §1.3).

use std::cell::RefCell;
use std::time::SystemTime;

thread_local! {
    /// The last second that was asked for, up to its point: most moments of a
    /// turn share it, and a calendar is dear.
    static SECOND: RefCell<(i64, String)> = RefCell::new((0, String::from("1970-01-01T00:00:00.")));
}

/// Formats a moment as ISO-8601 in UTC with milliseconds.
pub fn iso_millis(at: SystemTime) -> String {
    let all = epoch_millis(at);
    let (second, millis) = (all.div_euclid(1000), all.rem_euclid(1000));
    SECOND.with_borrow_mut(|(known, text)| {
        if *known != second
            && let Ok(stamp) = jiff::Timestamp::from_second(second)
        {
            *text = format!("{stamp:.0}");
            text.pop();
            text.push('.');
            *known = second;
        }
        let mut stamp = String::with_capacity(text.len() + 4);
        stamp.push_str(text);
        for place in [100, 10, 1] {
            stamp.push(char::from(
                b'0' + u8::try_from(millis / place % 10).unwrap_or(0),
            ));
        }
        stamp.push('Z');
        stamp
    })
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
        assert_eq!(
            iso_millis(at(1_795_355_534_009)),
            "2026-11-22T13:52:14.009Z"
        );
        assert_eq!(
            iso_millis(at(1_795_355_535_000)),
            "2026-11-22T13:52:15.000Z"
        );
        let before = SystemTime::UNIX_EPOCH - Duration::from_millis(1);
        assert_eq!(iso_millis(before), "1969-12-31T23:59:59.999Z");
    }
}
