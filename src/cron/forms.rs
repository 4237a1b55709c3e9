//! The ways in which people say when: `--every`, `--at`, `--expires` (07 §1.6,
//! §1.12).
//!
//! Invariant: what is accepted and what becomes of it are those of the published
//! program, roundings included; every rounding is told in a note.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _, ZonedDateTime};

use super::expression::Expression;

/// How long a recurring task lives when nothing else is said (00 §4).
pub const DEFAULT_LIFE: SignedDuration = SignedDuration::from_hours(3 * 24);

/// A repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Every {
    /// Its expression.
    pub cron: String,
    /// What was rounded, for the person.
    pub note: Option<String>,
}

/// A moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// When, to the millisecond.
    pub when: Timestamp,
    /// The local minute as an expression, for display only.
    pub cron: String,
    /// How the moment was understood, for the person.
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Minutes,
    Hours,
    Days,
}

/// `5m`, `2 hours`, `1d`; `None` when it is none of the forms or too long.
pub fn every(text: &str) -> Option<Every> {
    let (value, unit) = amount(text).filter(|(value, _)| *value > 0)?;
    let plain = |cron| Some(Every { cron, note: None });
    match unit {
        Unit::Seconds if value < 60 => Some(Every {
            cron: String::from("*/1 * * * *"),
            note: Some(format!(
                "{value}s is rounded up to 1m, the shortest interval"
            )),
        }),
        Unit::Seconds => Some(every_minutes(half_up(value, 60))),
        Unit::Minutes => Some(every_minutes(value)),
        Unit::Hours if value >= 24 => Some(Every {
            cron: String::from("0 0 * * *"),
            note: Some(format!("{value}h is cut to once a day")),
        }),
        Unit::Hours => {
            let hours = nearest(value, &[1, 2, 3, 4, 6, 8, 12, 24]);
            Some(Every {
                cron: format!("0 */{hours} * * *"),
                note: (hours != value)
                    .then(|| format!("{value}h is rounded to every {hours}h, which divides a day")),
            })
        }
        Unit::Days if value == 1 => plain(String::from("0 0 * * *")),
        Unit::Days => {
            let cron = format!("0 0 */{value} * *");
            Expression::parse(&cron).ok()?;
            plain(cron)
        }
    }
}

fn every_minutes(value: u64) -> Every {
    if value >= 60 {
        let cron = format!("0 */{} * * *", half_up(value, 60));
        return Every { cron, note: None };
    }
    let minutes = nearest(value, &[1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60]);
    Every {
        cron: format!("*/{minutes} * * * *"),
        note: (minutes != value)
            .then(|| format!("{value}m is rounded to every {minutes}m, which divides an hour")),
    }
}

/// `in 45m`, `in 2 hours`, `3:00pm`, on the clock of `zone`; `None` otherwise.
pub fn at(text: &str, now: Timestamp, zone: &TimeZone) -> Option<At> {
    let text = text.trim();
    if let Some(rest) = strip_word(text, "in") {
        let (value, unit) = amount(rest)?;
        let seconds = match unit {
            Unit::Minutes => value.checked_mul(60)?,
            Unit::Hours => value.checked_mul(3600)?,
            Unit::Seconds | Unit::Days => return None,
        };
        let after = SignedDuration::from_secs(i64::try_from(seconds).ok()?);
        let when = now.checked_add(after).ok()?;
        let local = when.to_zoned_datetime(zone.clone());
        return Some(At {
            when,
            cron: display_expression(&local),
            note: Some(format!(
                "Scheduled for {}",
                local.strftime("%H:%M:%S on %A, %-d %B")
            )),
        });
    }
    let time = clock_time(text)?;
    let today = now.to_zoned_datetime(zone.clone()).date();
    let on = |date: jiff::civil::Date| date.to_datetime(time).to_zoned_datetime(zone.clone()).ok();
    let mut local = on(today)?;
    if local.timestamp() <= now {
        local = on(today.checked_add(1.day()).ok()?)?;
    }
    Some(At {
        when: local.timestamp(),
        cron: display_expression(&local),
        note: None,
    })
}

/// When a recurring task ends: a duration in the forms of `--every`, or `never`
/// (`Some(None)`); `None` when it is neither.
pub fn life(text: &str) -> Option<Option<SignedDuration>> {
    if text.trim().eq_ignore_ascii_case("never") {
        return Some(None);
    }
    let (value, unit) = amount(text).filter(|(value, _)| *value > 0)?;
    let unit = match unit {
        Unit::Seconds => 1,
        Unit::Minutes => 60,
        Unit::Hours => 3600,
        Unit::Days => 86_400,
    };
    // Longer than a century is a slip of the keyboard.
    let seconds = value
        .checked_mul(unit)
        .filter(|seconds| *seconds <= 100 * 366 * 86_400)?;
    Some(Some(SignedDuration::from_secs(
        i64::try_from(seconds).ok()?,
    )))
}

/// `7m`, `7 minutes`: a number and a unit.
fn amount(text: &str) -> Option<(u64, Unit)> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let value = text.get(..digits)?.parse().ok()?;
    let unit = text.get(digits..)?.trim_start().to_ascii_lowercase();
    let unit = match unit.as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Seconds,
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Minutes,
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Hours,
        "d" | "day" | "days" => Unit::Days,
        _ => return None,
    };
    Some((value, unit))
}

/// The text behind a word and at least one blank.
fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (head, rest) = (text.get(..word.len())?, text.get(word.len()..)?);
    let apart = rest.starts_with(char::is_whitespace);
    (head.eq_ignore_ascii_case(word) && apart).then_some(rest)
}

/// `3:00pm`.
fn clock_time(text: &str) -> Option<Time> {
    let (hour, rest) = text.split_once(':')?;
    let (minute, half) = (rest.get(..2)?, rest.get(2..)?.trim_start());
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !(1..=2).contains(&hour.len()) || !digits(hour) || !digits(minute) {
        return None;
    }
    let (hour, minute): (i8, i8) = (hour.parse().ok()?, minute.parse().ok()?);
    if !(1..=12).contains(&hour) {
        return None;
    }
    let hour = match half.to_ascii_lowercase().as_str() {
        "am" => hour % 12,
        "pm" => hour % 12 + 12,
        _ => return None,
    };
    Time::new(hour, minute, 0, 0).ok()
}

fn display_expression(local: &ZonedDateTime) -> String {
    format!(
        "{} {} {} {} *",
        local.minute(),
        local.hour(),
        local.day(),
        local.month()
    )
}

/// Quotient, halves rounded up.
fn half_up(value: u64, by: u64) -> u64 {
    value / by + u64::from(value % by * 2 >= by)
}

/// The nearest choice, the smaller one of two.
fn nearest(value: u64, choices: &[u64]) -> u64 {
    choices
        .iter()
        .copied()
        .min_by_key(|choice| choice.abs_diff(value))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cron::zone::Zones;

    #[test]
    fn intervals_become_the_expressions_of_the_published_program() {
        let cases = [
            ("30s", Some("*/1 * * * *"), true),
            ("59 seconds", Some("*/1 * * * *"), true),
            ("60s", Some("*/1 * * * *"), false),
            ("90s", Some("*/2 * * * *"), false),
            ("89s", Some("*/1 * * * *"), false),
            ("5m", Some("*/5 * * * *"), false),
            (" 10 Minutes ", Some("*/10 * * * *"), false),
            ("7m", Some("*/6 * * * *"), true),
            ("8m", Some("*/6 * * * *"), true),
            ("9m", Some("*/10 * * * *"), true),
            ("25m", Some("*/20 * * * *"), true),
            ("45m", Some("*/30 * * * *"), true),
            ("50m", Some("*/60 * * * *"), true),
            ("60m", Some("0 */1 * * *"), false),
            ("90m", Some("0 */2 * * *"), false),
            ("2000m", Some("0 */33 * * *"), false),
            ("2h", Some("0 */2 * * *"), false),
            ("5h", Some("0 */4 * * *"), true),
            ("11h", Some("0 */12 * * *"), true),
            ("20h", Some("0 */24 * * *"), true),
            ("24h", Some("0 0 * * *"), true),
            ("99hrs", Some("0 0 * * *"), true),
            ("1d", Some("0 0 * * *"), false),
            ("3 days", Some("0 0 */3 * *"), false),
            ("31d", Some("0 0 */31 * *"), false),
            ("32d", None, false),
            ("0m", None, false),
            ("m", None, false),
            ("5", None, false),
            ("5w", None, false),
            ("-5m", None, false),
            ("1.5h", None, false),
            ("5m 3s", None, false),
            ("99999999999999999999m", None, false),
        ];
        for (text, cron, noted) in cases {
            let every = every(text);
            assert_eq!(
                every.as_ref().map(|every| every.cron.as_str()),
                cron,
                "{text}"
            );
            assert_eq!(
                every.is_some_and(|every| every.note.is_some()),
                noted,
                "{text}"
            );
        }
    }

    #[test]
    fn moments_are_read_on_the_clock_of_the_zone() {
        let zones = Zones::of_process(Some("Europe/Berlin"));
        let now: Timestamp = "2026-03-26T10:20:30.123Z".parse().expect("a time");
        let cases = [
            ("in 45m", "2026-03-26T11:05:30.123Z", "5 12 26 3 *"),
            ("in 0m", "2026-03-26T10:20:30.123Z", "20 11 26 3 *"),
            ("IN  2 hours", "2026-03-26T12:20:30.123Z", "20 13 26 3 *"),
            ("3:00pm", "2026-03-26T14:00:00Z", "0 15 26 3 *"),
            ("11:20 AM", "2026-03-27T10:20:00Z", "20 11 27 3 *"),
            ("11:21am", "2026-03-26T10:21:00Z", "21 11 26 3 *"),
            ("12:00am", "2026-03-26T23:00:00Z", "0 0 27 3 *"),
            ("12:05pm", "2026-03-26T11:05:00Z", "5 12 26 3 *"),
            ("1:00am", "2026-03-27T00:00:00Z", "0 1 27 3 *"),
        ];
        for (text, when, cron) in cases {
            let at = at(text, now, zones.local()).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(
                (at.when, at.cron.as_str()),
                (when.parse().expect("a time"), cron),
                "{text}"
            );
        }
        for text in [
            "3pm",
            "15:00",
            "in 30s",
            "in 1d",
            "tomorrow 9am",
            "13:00pm",
            "0:30am",
            "3:60pm",
            "3:0pm",
            "in45m",
            "in 45",
            "",
            "in 99999999999999999h",
            "3:00ép",
            ":00pm",
        ] {
            assert_eq!(at(text, now, zones.local()), None, "{text}");
        }
    }

    #[test]
    fn a_moment_that_the_clock_skips_comes_an_hour_later() {
        let zones = Zones::of_process(Some("Europe/Berlin"));
        let now: Timestamp = "2026-03-28T23:30:00Z".parse().expect("a time");
        let at = at("2:30am", now, zones.local()).expect("a time");
        assert_eq!(at.when, "2026-03-29T01:30:00Z".parse().expect("a time"));
        assert_eq!(at.cron, "30 3 29 3 *");
    }

    #[test]
    fn a_life_is_a_duration_or_never() {
        assert_eq!(life("3d"), Some(Some(DEFAULT_LIFE)));
        assert_eq!(
            life("45 seconds"),
            Some(Some(SignedDuration::from_secs(45)))
        );
        assert_eq!(life(" Never "), Some(None));
        for text in ["", "0d", "soon", "9999999d", "3"] {
            assert_eq!(life(text), None, "{text}");
        }
    }
}
