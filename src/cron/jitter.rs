//! The small shift that keeps many tasks from firing in the same second (07 §1.7).
//!
//! Invariant: a function of the task alone, the same in the published program.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A recurring task fires less than a minute late, so that its minute stays its own.
const MAX_DELAY_MS: i64 = 59_999;
/// A one-shot on the hour or half hour fires up to this much early.
const MAX_EARLY_MS: i64 = 90_000;

/// Milliseconds by which a recurring task fires after its minute began.
pub fn of_recurring(id: &str, cron: &str) -> i64 {
    match period_ms(cron) {
        0 => 0,
        period => hash(id) % (period / 10).clamp(1, MAX_DELAY_MS),
    }
}

/// Milliseconds, at most 0, by which a one-shot fires early.
pub fn of_one_shot(id: &str, when: Timestamp, created: Timestamp, local: &TimeZone) -> i64 {
    if !matches!(local.to_datetime(when).minute(), 0 | 30) {
        return 0;
    }
    let early = -(hash(id) % MAX_EARLY_MS);
    if when.as_millisecond() + early < created.as_millisecond() {
        return 0;
    }
    early
}

/// `h = h * 31 + unit` over UTF-16 units, wrapping, made positive.
fn hash(id: &str) -> i64 {
    let hash = id.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(unit.into())
    });
    i64::from(hash).abs()
}

/// How often the common forms fire; 0 for all others.
fn period_ms(cron: &str) -> i64 {
    let fields: Vec<&str> = cron.split_whitespace().collect();
    let [minute, hour, "*", "*", "*"] = fields[..] else {
        return 0;
    };
    let step = |field: &str| {
        let step = field.strip_prefix("*/")?;
        step.parse::<i64>()
            .ok()
            .filter(|step| (1..=1_000_000).contains(step))
    };
    if let (Some(minutes), "*") = (step(minute), hour) {
        minutes * 60_000
    } else if let (false, Some(hours)) = (minute.starts_with('*'), step(hour)) {
        hours * 3_600_000
    } else if !minute.contains('*') && !hour.contains('*') {
        24 * 3_600_000
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_published_formula_come_out() {
        assert_eq!(
            (hash("deadbeef"), hash("0a1b2c3d")),
            (503_332_488, 561_018_876)
        );
        for (cron, first, second) in [
            ("*/5 * * * *", 22_488, 18_876),
            ("0 9 * * *", 877, 28_226),
            ("15 */2 * * *", 503_332_488 % 59_999, 561_018_876 % 59_999),
            ("*/1 * * * *", 503_332_488 % 6_000, 561_018_876 % 6_000),
            ("0 9 * * 1", 0, 0),
            ("* * * * *", 0, 0),
            ("*/5 9 * * *", 0, 0),
        ] {
            assert_eq!(of_recurring("deadbeef", cron), first, "{cron}");
            assert_eq!(of_recurring("0a1b2c3d", cron), second, "{cron}");
        }
    }

    #[test]
    fn a_one_shot_on_the_hour_fires_early_but_never_before_it_was_made() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let jitter = |id, when, created| of_one_shot(id, at(when), at(created), &TimeZone::UTC);
        let made = "2026-03-26T10:00:00Z";
        assert_eq!(jitter("deadbeef", "2026-03-26T11:00:00Z", made), -52_488);
        assert_eq!(jitter("0a1b2c3d", "2026-03-26T11:30:00Z", made), -48_876);
        assert_eq!(jitter("deadbeef", "2026-03-26T11:01:00Z", made), 0);
        assert_eq!(
            jitter("deadbeef", "2026-03-26T11:00:00Z", "2026-03-26T10:59:30Z"),
            0
        );
    }
}
