//! The prompt of a task as the model gets it (07 §1.11).
//!
//! Invariant: clients take it apart again, so lines and their order are fixed.

use jiff::Timestamp;

use super::task::Task;
use super::zone::{Found, Zones};

const AUTONOMY: &str = "You are running autonomously: nobody is watching this turn, and questions stay without an answer. Send results through the channels you have or keep them in memory, and go on until the task is done or cannot go further.";

/// The text of one fire. `intended` is when it was due, `now` when it happens.
pub fn wrap(task: &Task, intended: Timestamp, now: Timestamp, zones: &Zones) -> String {
    let zone = task.text("timezone");
    let (clock, found) = zones.find(zone);
    let shown_zone = match found {
        Found::Named => zone.to_owned(),
        Found::Unnamed => String::from("local time"),
        Found::Unknown => format!("{zone} (invalid; using local time)"),
    };
    let label = match (found, zones.local_name()) {
        (Found::Named, _) => zone,
        (_, "") => "local",
        (_, name) => name,
    };
    let instant = |at: Timestamp| {
        let at = at.to_zoned_datetime(clock.clone());
        format!("{}[{label}]", at.strftime("%Y-%m-%dT%H:%M:%S.%3f%:z"))
    };
    let description = match task.text("description") {
        "" => String::new(),
        text => format!("Description: {text}\n"),
    };
    let recurrence = if task.is_recurring() {
        let number = task.count("fire_count").saturating_add(1);
        format!("This is fire #{number} (cron: {}).", task.text("cron"))
    } else {
        String::from("This is a one-off scheduled task.")
    };
    format!(
        "Scheduled task \"{}\" is firing.\n{description}Timezone: {shown_zone}\n\
         Scheduled for: {}\nCurrent time: {}\n{recurrence}\n\n{AUTONOMY}\n\nPrompt: {}",
        task.text("name"),
        instant(intended),
        instant(now),
        task.text("prompt"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn task(fields: Value) -> Task {
        Task::read(fields).expect("an object")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn the_skeleton_is_the_one_that_clients_parse() {
        let zones = Zones::of_process(Some("Europe/Berlin"));
        let recurring = task(json!({
            "name": "daily", "description": "Look around", "timezone": "America/St_Johns",
            "recurring": true, "cron": "5 0 * * *", "fire_count": 2, "prompt": "Do it.\nWell.",
        }));
        let text = wrap(
            &recurring,
            at("2026-06-01T02:35:00Z"),
            at("2026-06-01T02:35:17Z"),
            &zones,
        );
        let lines: Vec<&str> = text.split('\n').collect();
        assert_eq!(lines[0], "Scheduled task \"daily\" is firing.");
        assert_eq!(lines[1], "Description: Look around");
        assert_eq!(lines[2], "Timezone: America/St_Johns");
        assert_eq!(
            lines[3],
            "Scheduled for: 2026-06-01T00:05:00.000-02:30[America/St_Johns]"
        );
        assert_eq!(
            lines[4],
            "Current time: 2026-06-01T00:05:17.000-02:30[America/St_Johns]"
        );
        assert_eq!(lines[5], "This is fire #3 (cron: 5 0 * * *).");
        assert_eq!(lines[6], "");
        assert!(lines[7].starts_with("You are running autonomously: "));
        assert_eq!(lines[8..], ["", "Prompt: Do it.", "Well."]);
    }

    #[test]
    fn a_one_shot_and_an_odd_zone_say_so() {
        let zones = Zones::of_process(Some("Europe/Berlin"));
        let shown = |zone: &str| {
            let task =
                task(json!({"name": "n", "description": "", "timezone": zone, "prompt": "p"}));
            let now = at("2026-01-01T00:00:00.5Z");
            wrap(&task, now, now, &zones)
        };
        let text = shown("Mars/Olympus");
        assert!(text.starts_with(
            "Scheduled task \"n\" is firing.\nTimezone: Mars/Olympus (invalid; using local time)\n\
             Scheduled for: 2026-01-01T01:00:00.500+01:00[Europe/Berlin]\n"
        ));
        assert!(text.contains("\nThis is a one-off scheduled task.\n"));
        assert!(shown("").contains("\nTimezone: local time\n"));
    }
}
