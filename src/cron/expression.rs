//! Cron expressions: the five-field dialect of the published program with its
//! quirks (07 §1.6), as bit sets.
//!
//! Invariant: [`Expression::next`] finds the first minute for which
//! [`Expression::matches`] holds on the clock of the zone; a minute that daylight
//! saving skips never comes, one that it repeats comes twice.

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan as _};

/// What [`Expression::parse`] says of a text that is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid cron expression \"{expression}\": {reason}.")]
pub struct InvalidExpression {
    expression: String,
    reason: String,
}

/// A valid expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expression {
    /// One bit a value, the lowest is 0.
    minutes: u64,
    hours: u32,
    days: u32,
    months: u16,
    /// Sunday is 0.
    weekdays: u8,
    /// Whether the text of the field is exactly `*`.
    any_day: bool,
    any_weekday: bool,
}

/// One of the five fields.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// `*/S` means "divisible by S", not "every S from the first".
    divisible: bool,
}

const FIELDS: [Field; 5] = [
    field("minute", 0, 59, false),
    field("hour", 0, 23, false),
    field("day of month", 1, 31, true),
    field("month", 1, 12, true),
    field("day of week", 0, 7, false),
];

const fn field(name: &'static str, min: u32, max: u32, divisible: bool) -> Field {
    Field {
        name,
        min,
        max,
        divisible,
    }
}

/// A search ends here: every valid expression comes at least once in this time
/// (29 February around a century without leap day).
const HORIZON_YEARS: i64 = 9;

/// Longest text that is looked at, in bytes.
const MAX_LENGTH: usize = 1024;

impl Expression {
    /// Reads five fields.
    ///
    /// # Errors
    /// Says which field is wrong and why. Dates that never come, such as 31
    /// February, are errors as well.
    pub fn parse(text: &str) -> Result<Self, InvalidExpression> {
        read(text).map_err(|reason| InvalidExpression {
            expression: text.chars().take(200).collect(),
            reason,
        })
    }

    /// Whether a minute of a wall clock is one of the expression's.
    pub fn matches(&self, at: DateTime) -> bool {
        self.minutes & (1 << at.minute()) != 0
            && self.hours & (1 << at.hour()) != 0
            && self.matches_day(at.date())
    }

    fn matches_day(&self, date: Date) -> bool {
        if self.months & (1 << date.month()) == 0 {
            return false;
        }
        let day = self.days & (1 << date.day()) != 0;
        let weekday = self.weekdays & weekday_bit(date.weekday()) != 0;
        match (self.any_day, self.any_weekday) {
            (false, false) => day || weekday,
            (false, true) => day,
            (true, _) => weekday,
        }
    }

    /// The first matching minute after `after` on the clock of `zone`; `None`
    /// when there is none in nine years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = after.as_second().div_euclid(60).checked_add(1)?;
        let mut at = Timestamp::from_second(minute.checked_mul(60)?).ok()?;
        let end = at
            .checked_add(Span::new().try_hours(HORIZON_YEARS * 366 * 24).ok()?)
            .ok()?;
        // Between two changes of the zone's offset its clock runs evenly.
        while at < end {
            let offset = zone.to_offset(at);
            let change = zone.following(at).next().map(|change| change.timestamp());
            let stop = change.map_or(end, |change| change.min(end));
            let last = offset.to_datetime(stop);
            let found = self.next_civil(offset.to_datetime(at), last);
            if let Some(found) = found.and_then(|civil| offset.to_timestamp(civil).ok()) {
                return Some(found);
            }
            at = stop;
        }
        None
    }

    /// The first matching minute in `from..to` of a calendar without changes.
    fn next_civil(&self, from: DateTime, to: DateTime) -> Option<DateTime> {
        let mut date = from.date();
        let mut first = minute_of_day(from);
        while date <= to.date() {
            if self.months & (1 << date.month()) == 0 {
                date = date.first_of_month().checked_add(1.month()).ok()?;
                first = 0;
                continue;
            }
            if self.matches_day(date)
                && let Some((hour, minute)) = self.next_of_day(first)
            {
                let found = date.at(hour, minute, 0, 0);
                return (found < to).then_some(found);
            }
            date = date.tomorrow().ok()?;
            first = 0;
        }
        None
    }

    /// Hour and minute of the first match of a day at or after a minute of it.
    fn next_of_day(&self, first: u32) -> Option<(i8, i8)> {
        let (mut hour, mut minute) = (first / 60, first % 60);
        loop {
            let rest = (u64::from(self.hours) >> hour).trailing_zeros();
            if rest == 64 {
                return None;
            }
            if rest > 0 {
                minute = 0;
            }
            hour += rest;
            let rest = (self.minutes >> minute).trailing_zeros();
            if rest < 64 {
                return Some((i8::try_from(hour).ok()?, i8::try_from(minute + rest).ok()?));
            }
            (hour, minute) = (hour + 1, 0);
        }
    }
}

fn weekday_bit(day: Weekday) -> u8 {
    1 << day.to_sunday_zero_offset()
}

fn minute_of_day(at: DateTime) -> u32 {
    u32::from(at.hour().unsigned_abs()) * 60 + u32::from(at.minute().unsigned_abs())
}

fn read(text: &str) -> Result<Expression, String> {
    if text.len() > MAX_LENGTH {
        return Err(format!("it is longer than {MAX_LENGTH} bytes"));
    }
    let texts: Vec<&str> = text.split_whitespace().collect();
    if texts.len() != FIELDS.len() {
        return Err(format!(
            "it needs 5 fields (minute hour day-of-month month day-of-week) and has {}",
            texts.len()
        ));
    }
    let mut sets = [0u64; 5];
    for ((set, field), text) in sets.iter_mut().zip(&FIELDS).zip(&texts) {
        *set = field
            .read(text)
            .map_err(|why| format!("{why} in the {} field `{text}`", field.name))?;
    }
    let [minutes, hours, days, months, weekdays] = sets;
    never_comes(texts[3], days, months)?;
    Ok(Expression {
        minutes,
        // The ranges of the fields are those of the types.
        hours: hours as u32,
        days: days as u32,
        months: months as u16,
        weekdays: weekdays as u8,
        any_day: texts[2] == "*",
        any_weekday: texts[4] == "*",
    })
}

/// One month that never has the smallest of the days.
fn never_comes(month: &str, days: u64, months: u64) -> Result<(), String> {
    const LENGTHS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let [only] = (1..=12usize)
        .filter(|month| months & (1 << month) != 0)
        .collect::<Vec<_>>()[..]
    else {
        return Ok(());
    };
    let first = days.trailing_zeros();
    if first > LENGTHS[only - 1] {
        return Err(format!("month `{month}` never has a day {first}"));
    }
    Ok(())
}

impl Field {
    /// The values of a comma list, one bit each.
    fn read(&self, text: &str) -> Result<u64, String> {
        let (mut listed, mut twice, mut meant) = (0, 0, 0);
        for item in text.split(',') {
            let (raw, values) = self.item(item)?;
            let (raw, values) = (self.folded(raw), self.folded(values));
            twice |= listed & raw;
            listed |= raw;
            meant |= values;
        }
        // The published parser overlooks a repeated 0, and whatever else is
        // repeated beside it.
        if twice != 0 && twice & 1 == 0 {
            return Err(format!("{} is listed twice", twice.trailing_zeros()));
        }
        if meant == 0 {
            return Err(String::from("no value of the range is left"));
        }
        Ok(meant)
    }

    /// Day 7 of the week is day 0.
    fn folded(&self, values: u64) -> u64 {
        if self.max == 7 {
            (values | values >> 7) & 0x7f
        } else {
            values
        }
    }

    /// The values of one item: as listed, which counts for repetitions, and as
    /// meant. They differ for `*/S` in day of month and month.
    fn item(&self, text: &str) -> Result<(u64, u64), String> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(number(step)?)),
            None => (text, None),
        };
        if step == Some(0) {
            return Err(String::from("a step of 0"));
        }
        let every =
            |first: u32, last: u32| bits((first..=last).step_by(step.unwrap_or(1) as usize));
        if range == "*" {
            let listed = every(self.min, self.max);
            return Ok(match step {
                Some(step) if self.divisible => (
                    listed,
                    bits((self.min..=self.max).filter(|value| value % step == 0)),
                ),
                _ => (listed, listed),
            });
        }
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None if step.is_some() => return Err(String::from("a step needs `*` or a range")),
            None => {
                let only = number(range)?;
                (only, only)
            }
        };
        if first > last {
            return Err(format!("the range {first}-{last} goes backwards"));
        }
        if first < self.min || last > self.max {
            return Err(format!("a value outside {}-{}", self.min, self.max));
        }
        let listed = every(first, last);
        Ok((listed, listed))
    }
}

fn bits(values: impl Iterator<Item = u32>) -> u64 {
    values.fold(0, |set, value| set | 1 << value)
}

/// Decimal digits and nothing else; what is too large for a field stays too large.
fn number(text: &str) -> Result<u32, String> {
    if text.is_empty() {
        return Err(String::from("a number is missing"));
    }
    text.bytes().try_fold(0u32, |value, digit| match digit {
        b'0'..=b'9' => Ok(value
            .saturating_mul(10)
            .saturating_add((digit - b'0').into())),
        _ => Err(format!("`{text}` is no number")),
    })
}

#[cfg(test)]
mod tests;
