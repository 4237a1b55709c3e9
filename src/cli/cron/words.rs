//! Schedules in words, for people at a terminal.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::cron::expression::Expression;
use crate::cron::task::{Status, Task};
use crate::cron::zone::Zones;

/// `status`, with the reason of an end.
pub(super) fn status(task: &Task) -> &str {
    match task.text("cancel_reason") {
        "expired" => "expired",
        _ => task.text("status"),
    }
}

/// When a task fires: `every 5 minutes`, `daily at 09:00`, else its expression;
/// with its zone where that is not the one of this process.
pub(super) fn when(task: &Task, zones: &Zones) -> String {
    if !task.is_recurring() {
        return String::from("once");
    }
    let text = expression(task.text("cron"));
    let zone = task.text("timezone");
    if zone.is_empty() || zone == zones.local_name() || text.starts_with("every minute") {
        return text;
    }
    format!("{text} ({zone})")
}

/// The common forms of expressions in words.
fn expression(cron: &str) -> String {
    let fields: Vec<&str> = cron.split_whitespace().collect();
    let [minute, hour, "*", "*", weekday] = fields[..] else {
        return cron.to_owned();
    };
    let step = |field: &str| field.strip_prefix("*/").and_then(|n| n.parse::<u32>().ok());
    let number = |field: &str| field.parse::<u32>().ok();
    let every = |count: u32, unit: &str| match count {
        1 => format!("every {unit}"),
        _ => format!("every {count} {unit}s"),
    };
    match (minute, hour, weekday) {
        ("*", "*", "*") => String::from("every minute"),
        (minute, "*", "*") if step(minute).is_some_and(|n| n > 0 && 60 % n == 0) => {
            every(step(minute).unwrap_or(1), "minute")
        }
        ("0", hour, "*") if step(hour).is_some_and(|n| n > 0 && 24 % n == 0) => {
            every(step(hour).unwrap_or(1), "hour")
        }
        (minute, hour, weekday) => match (number(minute), number(hour), weekday) {
            (Some(minute), Some(hour), "*") => format!("daily at {hour:02}:{minute:02}"),
            (Some(minute), Some(hour), "1-5") => format!("weekdays at {hour:02}:{minute:02}"),
            _ => cron.to_owned(),
        },
    }
}

/// The next fire, on the clock of this process; `-` when there is none.
pub(super) fn next(task: &Task, now: Timestamp, zones: &Zones) -> String {
    match next_fire(task, now, zones) {
        Some(at) => format!("{} ({})", local(at, zones.local()), distance(at, now)),
        None => String::from("-"),
    }
}

fn next_fire(task: &Task, now: Timestamp, zones: &Zones) -> Option<Timestamp> {
    if task.status() != Status::Active {
        return None;
    }
    if let (false, Some(at)) = (task.is_recurring(), task.time("scheduled_for")) {
        return Some(at);
    }
    let (zone, _) = zones.find(task.text("timezone"));
    let next = Expression::parse(task.text("cron"))
        .ok()?
        .next(now, &zone)?;
    // A task that ends before fires no more.
    let ends = task.time("expires_at").filter(|_| task.is_recurring());
    (ends.is_none_or(|end| next < end)).then_some(next)
}

/// The end of a recurring task.
pub(super) fn until(task: &Task, zones: &Zones) -> String {
    match task.time("expires_at") {
        _ if !task.is_recurring() => String::new(),
        None => String::from("for ever"),
        Some(end) => local(end, zones.local()),
    }
}

/// What a new task will do, in one sentence.
pub(super) fn promise(task: &Task, now: Timestamp, zones: &Zones) -> String {
    let next = next(task, now, zones);
    let end = match until(task, zones).as_str() {
        "" => String::new(),
        "for ever" => String::from(", for ever"),
        end => format!(", until {end}"),
    };
    format!("{}{end}; next {next}", when(task, zones))
}

fn local(at: Timestamp, zone: &TimeZone) -> String {
    let at = at.to_zoned_datetime(zone.clone());
    at.strftime("%a %-d %b %H:%M").to_string()
}

fn distance(at: Timestamp, now: Timestamp) -> String {
    let minutes = (at.duration_since(now) + SignedDuration::from_secs(59)).as_mins();
    match minutes {
        ..=0 => String::from("now"),
        1..60 => format!("in {minutes} min"),
        60..1440 => format!("in {} h {} min", minutes / 60, minutes % 60),
        _ => format!("in {} days", minutes / 1440),
    }
}

/// Rows under each other; cells are cut at 40 characters, control characters left out.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    const WIDEST: usize = 40;
    let cell = |text: &String| -> String {
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        match text.char_indices().nth(WIDEST) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    };
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(cell).collect())
        .collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|at| width(at).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", line.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cron::task::NewTask;

    #[test]
    fn the_common_forms_have_words_and_all_others_stay() {
        for (cron, words) in [
            ("* * * * *", "every minute"),
            ("*/1 * * * *", "every minute"),
            ("*/5 * * * *", "every 5 minutes"),
            ("*/7 * * * *", "*/7 * * * *"),
            ("0 */2 * * *", "every 2 hours"),
            ("0 */1 * * *", "every hour"),
            ("5 9 * * *", "daily at 09:05"),
            ("0 18 * * 1-5", "weekdays at 18:00"),
            ("0 9 1 * *", "0 9 1 * *"),
            ("broken", "broken"),
        ] {
            assert_eq!(expression(cron), words);
        }
    }

    #[test]
    fn a_task_tells_its_next_fire_in_local_time_and_its_end() {
        let zones = Zones::of_process(Some("Europe/Berlin"));
        let now: Timestamp = "2026-03-26T10:00:30Z".parse().expect("a time");
        let new = NewTask {
            cron: "0 9 * * *".into(),
            recurring: true,
            ..NewTask::default()
        };
        let task = Task::new(new, now, &zones);
        assert_eq!(
            promise(&task, now, &zones),
            "daily at 09:00, until Sun 29 Mar 12:00; next Fri 27 Mar 09:00 (in 22 h 0 min)"
        );
        let late = now + SignedDuration::from_hours(71);
        assert_eq!(next(&task, late, &zones), "-", "its life ends before");
        let elsewhere = Zones::of_process(Some("UTC"));
        assert_eq!(when(&task, &elsewhere), "daily at 09:00 (Europe/Berlin)");
    }

    #[test]
    fn columns_line_up_and_hold_no_control_characters() {
        let rows = [
            ["ID".to_owned(), "NAME".to_owned()],
            ["1234".to_owned(), format!("\u{1b}[31m{}", "x".repeat(60))],
        ];
        let text = columns(&rows);
        assert!(text.starts_with("ID    NAME\n1234  [31mxxx"));
        assert!(text.ends_with("x…\n"));
    }
}
