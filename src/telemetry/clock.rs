//! The clock time in front of a log line.

use std::fmt::Display;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `14:17:03.221` in `zone`.
pub(super) fn clock(at: SystemTime, zone: &TimeZone) -> impl Display {
    let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    zone.to_datetime(at)
        .time()
        .strftime("%H:%M:%S%.3f")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn clock_times_are_local_with_three_digits() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(51_423_020);
        assert_eq!(clock(at, &TimeZone::UTC).to_string(), "14:17:03.020");
        let east = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(clock(at, &east).to_string(), "16:17:03.020");
    }
}
