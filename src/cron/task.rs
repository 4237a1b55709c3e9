//! One scheduled task as it stands in `crons.json` (07 §1.3).
//!
//! Invariant: a task is the JSON object that was read; what this build does not
//! know is written back as it was. Fields are read leniently: what has another
//! type than it should counts as absent.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::zone::Zones;
use super::{forms, jitter};

/// A task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task(pub(super) Map<String, Value>);

/// `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It fires.
    Active,
    /// It waits for `cron_resume`.
    Paused,
    /// A one-shot that fired.
    Fired,
    /// A one-shot whose time passed.
    Missed,
    /// Its life is over.
    Cancelled,
    /// A word of a later version: left alone.
    Other,
}

impl Status {
    /// The status of a word on disk.
    pub(super) fn read(word: &str) -> Self {
        match word {
            "active" => Self::Active,
            "paused" => Self::Paused,
            "fired" => Self::Fired,
            "missed" => Self::Missed,
            "cancelled" => Self::Cancelled,
            _ => Self::Other,
        }
    }

    /// Whether nothing will happen with the task any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Fired | Self::Missed | Self::Cancelled)
    }
}

/// What a person or an agent gives for a new task; everything else is made.
#[derive(Clone, Debug, Default)]
pub struct NewTask {
    /// The agent that gets the prompt.
    pub agent_id: String,
    /// `new`, `default` or an id; `None` is `new`.
    pub conversation_id: Option<String>,
    /// A short name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// A valid expression.
    pub cron: String,
    /// `None` is the zone of this process.
    pub timezone: Option<String>,
    /// Whether it fires again and again.
    pub recurring: bool,
    /// What the agent is told.
    pub prompt: String,
    /// When a one-shot fires.
    pub scheduled_for: Option<Timestamp>,
    /// When a recurring task ends: `None` is the usual time, `Some(None)` never.
    pub expires_at: Option<Option<Timestamp>>,
}

/// What became of a fire or of the time for one, as `last_run_*` and the run log
/// have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A recurring task was due.
    ScheduledTimeMatched,
    /// A one-shot was due.
    OneOffDue,
    /// Nothing fired schedules when it was due.
    SchedulerInactive,
    /// The conversation's queue took no more.
    QueueFull,
    /// The process was going down.
    RuntimeUnavailable,
    /// Its life was over.
    TaskCancelled,
    /// The expression of the task cannot be read.
    InvalidCron,
}

impl Reason {
    /// The word on disk.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScheduledTimeMatched => "scheduled_time_matched",
            Self::OneOffDue => "one_off_due",
            Self::SchedulerInactive => "scheduler_inactive",
            Self::QueueFull => "queue_full",
            Self::RuntimeUnavailable => "runtime_unavailable",
            Self::TaskCancelled => "task_cancelled",
            Self::InvalidCron => "invalid_cron",
        }
    }
}

/// Fields that older versions did not write, with the value that they then have.
const ADDED_LATER: [&str; 5] = [
    "last_run_at",
    "last_run_outcome",
    "last_run_reason",
    "last_run_error",
    "last_missed_at",
];

impl Task {
    /// Takes a task of the store; `None` when it is no object.
    pub(super) fn read(value: Value) -> Option<Self> {
        let Value::Object(mut fields) = value else {
            return None;
        };
        for name in ADDED_LATER {
            fields.entry(name).or_insert(Value::Null);
        }
        for name in ["missed_count", "failed_count"] {
            let count = fields.entry(name).or_insert(Value::Null);
            if count.is_null() {
                *count = json!(0);
            }
        }
        Some(Self(fields))
    }

    /// A new active task with an id of its own.
    pub fn new(new: NewTask, now: Timestamp, zones: &Zones) -> Self {
        let id = format!("{:08x}", fastrand::u32(..));
        let shift = match (new.recurring, new.scheduled_for) {
            (true, _) => jitter::of_recurring(&id, &new.cron),
            (false, Some(when)) => jitter::of_one_shot(&id, when, now, zones.local()),
            (false, None) => 0,
        };
        let expires_at = match new.expires_at {
            _ if !new.recurring => None,
            Some(given) => given,
            None => now.checked_add(forms::DEFAULT_LIFE).ok(),
        };
        let timezone = new
            .timezone
            .unwrap_or_else(|| zones.local_name().to_owned());
        let fields = json!({
            "id": id,
            "agent_id": new.agent_id,
            "conversation_id": new.conversation_id.as_deref().unwrap_or("new"),
            "name": new.name,
            "description": new.description,
            "cron": new.cron,
            "timezone": timezone,
            "recurring": new.recurring,
            "prompt": new.prompt,
            "status": "active",
            "created_at": iso(now),
            "expires_at": expires_at.map(iso),
            "last_fired_at": null,
            "fire_count": 0,
            "cancel_reason": null,
            "jitter_offset_ms": shift,
            "last_run_at": null,
            "last_run_outcome": null,
            "last_run_reason": null,
            "last_run_error": null,
            "last_missed_at": null,
            "missed_count": 0,
            "failed_count": 0,
            "scheduled_for": new.scheduled_for.map(iso),
            "fired_at": null,
            "missed_at": null,
        });
        // It is an object as written above.
        Self::read(fields).unwrap_or_else(|| Self(Map::new()))
    }

    /// A text field; empty when absent.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A count; 0 when absent.
    pub fn count(&self, name: &str) -> u64 {
        self.0.get(name).and_then(Value::as_u64).unwrap_or_default()
    }

    /// A moment; `None` when absent or unreadable.
    pub fn time(&self, name: &str) -> Option<Timestamp> {
        read_time(self.text(name))
    }

    /// The task's id.
    pub fn id(&self) -> &str {
        self.text("id")
    }

    /// `recurring`.
    pub fn is_recurring(&self) -> bool {
        self.0.get("recurring") == Some(&Value::Bool(true))
    }

    /// `jitter_offset_ms`, at most an hour either way.
    pub fn jitter(&self) -> SignedDuration {
        const HOUR: i64 = 3_600_000;
        let ms = self.0.get("jitter_offset_ms").and_then(Value::as_i64);
        SignedDuration::from_millis(ms.unwrap_or_default().clamp(-HOUR, HOUR))
    }

    /// `status`.
    pub fn status(&self) -> Status {
        Status::read(self.text("status"))
    }

    /// The whole object.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The object, taken.
    pub fn into_fields(self) -> Map<String, Value> {
        self.0
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn add_one(&mut self, name: &str) {
        self.set(name, self.count(name).saturating_add(1));
    }

    fn set_last_run(&mut self, at: Timestamp, outcome: &str, reason: &str, error: Option<&str>) {
        self.set("last_run_at", iso(at));
        self.set("last_run_outcome", outcome);
        self.set("last_run_reason", reason);
        self.set("last_run_error", error);
    }

    /// The reason of a good fire.
    pub(super) fn due_reason(&self) -> Reason {
        if self.is_recurring() {
            Reason::ScheduledTimeMatched
        } else {
            Reason::OneOffDue
        }
    }

    /// Its prompt was queued; a one-shot that fired by itself is over (07 §1.10).
    pub(super) fn queued(&mut self, at: Timestamp, automatic: bool) {
        if automatic && !self.is_recurring() {
            self.set("status", "fired");
            self.set("fired_at", iso(at));
        }
        self.set("last_fired_at", iso(at));
        self.add_one("fire_count");
        let reason = self.due_reason();
        self.set_last_run(at, "queued", reason.as_str(), None);
    }

    /// It should have fired and could not.
    pub(super) fn failed(&mut self, at: Timestamp, reason: Reason, error: &str) {
        self.set_last_run(at, "failed", reason.as_str(), Some(error));
        self.add_one("failed_count");
    }

    /// Its moment passed; gives reason and error for the run log.
    pub(super) fn missed(&mut self, at: Timestamp) -> (String, Option<String>) {
        let (reason, error) = match (self.text("last_run_outcome"), self.text("last_run_reason")) {
            ("failed", "") => ("scheduler_error", self.text("last_run_error")),
            ("failed", reason) => (reason, self.text("last_run_error")),
            _ => (Reason::SchedulerInactive.as_str(), ""),
        };
        let (reason, error) = (reason.to_owned(), error.to_owned());
        let error = Some(error).filter(|error| !error.is_empty());
        self.set("status", "missed");
        self.set("missed_at", iso(at));
        self.set_last_run(at, "missed", &reason, error.as_deref());
        let scheduled_for = self.0.get("scheduled_for").cloned();
        self.set("last_missed_at", scheduled_for.unwrap_or_default());
        self.add_one("missed_count");
        (reason, error)
    }

    /// Its life is over (07 §1.12).
    pub(super) fn expired(&mut self) {
        self.set("status", "cancelled");
        self.set("cancel_reason", "expired");
    }

    /// Whether its invalid expression was reported already.
    pub(super) fn is_reported_invalid(&self, error: &str) -> bool {
        self.text("last_run_outcome") == "failed"
            && self.text("last_run_reason") == Reason::InvalidCron.as_str()
            && self.text("last_run_error") == error
    }

    /// The newest time at which something happened to it, for collecting what is
    /// over (07 §1.8).
    pub(super) fn last_event(&self) -> Option<Timestamp> {
        let cancelled = self.status() == Status::Cancelled;
        ["last_fired_at", "fired_at", "missed_at", "created_at"]
            .into_iter()
            .chain(cancelled.then_some("expires_at"))
            .filter_map(|name| self.time(name))
            .max()
    }
}

/// What is stored for a recurring task whose expression cannot be read.
pub(super) fn invalid_cron_error(cron: &str) -> String {
    format!("Invalid cron expression \"{cron}\". Delete and recreate this schedule.")
}

/// A moment as it stands on disk and on the wire.
pub fn iso(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// Reads a moment: RFC 3339, with or without seconds, or a date alone, which is
/// midnight in UTC.
pub fn read_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let date: jiff::civil::Date = text.parse().ok().filter(|_| text.len() == 10)?;
        Some(
            date.to_zoned_datetime(jiff::tz::TimeZone::UTC)
                .ok()?
                .timestamp(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn new_task(recurring: bool) -> NewTask {
        NewTask {
            agent_id: "agent-1".into(),
            name: "n".into(),
            cron: "0 9 * * *".into(),
            recurring,
            ..NewTask::default()
        }
    }

    #[test]
    fn a_new_task_has_the_fields_of_the_published_store_in_their_order() {
        let zones = Zones::of_process(Some("Europe/Berlin"));
        let sample: Value =
            serde_json::from_str(include_str!("../../tests/data/cron/published-store.json"))
                .expect("a store");
        let published: Vec<&String> = sample["tasks"][0]
            .as_object()
            .expect("a task")
            .keys()
            .collect();
        let task = Task::new(new_task(true), at("2026-03-26T10:00:01.123Z"), &zones);
        assert_eq!(task.fields().keys().collect::<Vec<_>>(), published);
        assert_eq!(task.text("timezone"), "Europe/Berlin");
        assert_eq!(task.text("conversation_id"), "new");
        assert_eq!(task.id().len(), 8);
        assert_eq!(task.text("created_at"), "2026-03-26T10:00:01.123Z");
    }

    #[test]
    fn recurring_tasks_end_after_three_days_unless_said_otherwise() {
        let zones = Zones::of_process(Some("UTC"));
        let now = at("2026-03-26T10:00:00Z");
        let expires = |new: NewTask| Task::new(new, now, &zones).fields()["expires_at"].clone();
        assert_eq!(expires(new_task(true)), "2026-03-29T10:00:00.000Z");
        assert_eq!(expires(new_task(false)), Value::Null);
        let never = NewTask {
            expires_at: Some(None),
            ..new_task(true)
        };
        assert_eq!(expires(never), Value::Null);
    }

    #[test]
    fn fields_that_older_versions_did_not_write_are_added_and_unknown_ones_kept() {
        let task = Task::read(json!({"id": "a", "later": {"x": 1}, "missed_count": null}))
            .expect("a task");
        assert_eq!(task.fields()["later"]["x"], 1);
        assert_eq!(task.fields()["last_run_error"], Value::Null);
        assert_eq!(
            (
                &task.fields()["missed_count"],
                &task.fields()["failed_count"]
            ),
            (&json!(0), &json!(0))
        );
        assert_eq!(Task::read(json!("a")), None);
    }

    #[test]
    fn times_are_read_in_the_forms_that_clients_send() {
        let expected = Some(at("2026-03-26T00:00:00Z"));
        for text in [
            "2026-03-26",
            "2026-03-26T00:00:00Z",
            "2026-03-26T02:00+02:00",
            "2026-03-26T00:00:00.000Z",
        ] {
            assert_eq!(read_time(text), expected, "{text}");
        }
        for text in ["", "soon", "2026-13-01", "20260326x"] {
            assert_eq!(read_time(text), None, "{text}");
        }
    }
}
