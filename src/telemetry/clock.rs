//! The clock time in front of a log line.

use std::fmt::{Display, Write as _};
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

/// The same for many moments in a row, most of which share their second.
pub(super) struct Clock {
    zone: TimeZone,
    /// A second since the epoch and how it is shown.
    known: Option<(i64, String)>,
}

impl Clock {
    pub(super) fn new(zone: TimeZone) -> Self {
        Self { zone, known: None }
    }

    /// Appends the time of day to `line`.
    pub(super) fn push(&mut self, line: &mut String, at: SystemTime) {
        let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
        let millis = at.as_millisecond();
        let second = millis.div_euclid(1000);
        if self
            .known
            .as_ref()
            .is_none_or(|(known, _)| *known != second)
        {
            let time = self.zone.to_datetime(at).time();
            self.known = Some((second, time.strftime("%H:%M:%S").to_string()));
        }
        if let Some((_, text)) = &self.known {
            // Writing into a string does not fail.
            let _ = write!(line, "{text}.{:03}", millis.rem_euclid(1000));
        }
    }
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
    #[test]
    fn a_clock_that_remembers_its_second_shows_the_same() {
        let zone = TimeZone::fixed(jiff::tz::offset(-3));
        let mut remembers = Clock::new(zone.clone());
        for millis in [0, 7, 999, 1000, 1999, 51_423_020, 51_423_021, 3] {
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
            let mut line = String::new();
            remembers.push(&mut line, at);
            assert_eq!(line, clock(at, &zone).to_string());
        }
    }
}
