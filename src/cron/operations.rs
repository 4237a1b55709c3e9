//! What people, agents and clients do with tasks (07 §1.8).
//!
//! Invariant: an operation that is refused leaves the file untouched. All of it
//! blocks.

use jiff::Timestamp;

use super::expression::Expression;
use super::jitter;
use super::lease::is_somebody_firing;
use super::store::{Store, StoreError};
use super::task::{NewTask, Reason, Status, Task, iso};
use super::zone::Zones;

/// How many tasks of one agent may be waiting to fire.
const MAX_TASKS: usize = 50;

/// Longest text of a task, in bytes: more than any prompt needs.
const MAX_TEXT: usize = 256 * 1024;

const NOBODY_FIRES: &str = "No letta server is running on this computer, so nothing fires this task. Start one with `letta server`.";

/// A task that was added.
#[derive(Debug)]
pub struct Added {
    /// The task as stored.
    pub task: Task,
    /// Why it will not fire as things are.
    pub warning: Option<&'static str>,
}

/// What became of `pause`, `resume` or a run by hand.
#[derive(Debug)]
pub enum Changed {
    /// Done, or so already.
    Done(Box<Task>),
    /// There is no such task.
    NotFound,
    /// The task does not allow it.
    Refused(Box<Task>, &'static str),
}

/// New values for fields of a task; `None` leaves one as it is.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Text fields by name: `name`, `description`, `conversation_id`, `cron`,
    /// `timezone`, `prompt`.
    pub texts: Vec<(&'static str, String)>,
    /// `recurring`.
    pub recurring: Option<bool>,
    /// `scheduled_for`; `Some(None)` takes it away.
    pub scheduled_for: Option<Option<Timestamp>>,
}

impl Store {
    /// Adds a task.
    ///
    /// # Errors
    /// For an invalid expression, an agent with too many tasks, a text that is too
    /// long, and when the store cannot be used.
    pub fn add(&self, new: NewTask, now: Timestamp, zones: &Zones) -> Result<Added, StoreError> {
        check_cron(&new.cron)?;
        for text in [&new.name, &new.description, &new.prompt] {
            check_length(text)?;
        }
        let agent_id = new.agent_id.clone();
        let task = Task::new(new, now, zones);
        let (mut waiting, mut covered) = (0, false);
        self.update(&mut |document| {
            let open =
                |task: &&Task| task.text("agent_id") == agent_id && !task.status().is_terminal();
            waiting = document.tasks.iter().filter(open).count();
            covered = is_somebody_firing(document, &agent_id);
            let allowed = waiting < MAX_TASKS;
            if allowed {
                document.tasks.push(task.clone());
            }
            allowed
        })?;
        if waiting >= MAX_TASKS {
            return Err(StoreError::Refused(format!(
                "Agent {agent_id} has {waiting} active or paused tasks (max {MAX_TASKS}). Delete some before adding more."
            )));
        }
        let warning = (!covered).then_some(NOBODY_FIRES);
        Ok(Added { task, warning })
    }

    /// The tasks of an agent and a conversation, where these are given.
    pub fn list(&self, agent_id: Option<&str>, conversation_id: Option<&str>) -> Vec<Task> {
        let is = |task: &Task, name: &str, wanted: Option<&str>| {
            wanted.is_none_or(|wanted| wanted.is_empty() || task.text(name) == wanted)
        };
        let mut tasks = self.read().tasks;
        tasks.retain(|task| {
            is(task, "agent_id", agent_id) && is(task, "conversation_id", conversation_id)
        });
        tasks
    }

    /// Changes fields of a task; `None` when there is no such task.
    ///
    /// # Errors
    /// As for [`add`](Self::add).
    pub fn change(&self, id: &str, changes: &Changes) -> Result<Option<Task>, StoreError> {
        for (name, text) in &changes.texts {
            check_length(text)?;
            if *name == "cron"
                && let Some(task) = self.get(id)
                && task.text("cron") != text
            {
                check_cron(text)?;
            }
        }
        let mut changed = None;
        self.update_some(&|place| place.id() == id, &mut |document| {
            let Some(task) = document.task_mut(id) else {
                return false;
            };
            let old_cron = task.text("cron").to_owned();
            for (name, text) in &changes.texts {
                task.set(name, text.as_str());
            }
            if let Some(recurring) = changes.recurring {
                task.set("recurring", recurring);
            }
            if let Some(when) = changes.scheduled_for {
                task.set("scheduled_for", when.map(iso));
            }
            let mended = task.text("cron") != old_cron
                && task.text("last_run_reason") == Reason::InvalidCron.as_str();
            if mended {
                for name in [
                    "last_run_at",
                    "last_run_outcome",
                    "last_run_reason",
                    "last_run_error",
                ] {
                    task.set(name, ());
                }
            }
            changed = Some(task.clone());
            true
        })?;
        Ok(changed)
    }

    /// Changes one task as `decide` says; the store is written when it is `Ok(true)`.
    fn decide(
        &self,
        id: &str,
        decide: &dyn Fn(&mut Task) -> Result<bool, &'static str>,
    ) -> Result<Changed, StoreError> {
        let mut outcome = Changed::NotFound;
        self.update_some(&|place| place.id() == id, &mut |document| {
            let Some(task) = document.task_mut(id) else {
                return false;
            };
            let decided = decide(task);
            let task = Box::new(task.clone());
            outcome = match decided {
                Ok(_) => Changed::Done(task),
                Err(reason) => Changed::Refused(task, reason),
            };
            decided == Ok(true)
        })?;
        Ok(outcome)
    }

    /// Keeps a task from firing until it is resumed.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn pause(&self, id: &str) -> Result<Changed, StoreError> {
        self.decide(id, &|task| match task.status() {
            Status::Paused => Ok(false),
            Status::Active => {
                task.set("status", "paused");
                Ok(true)
            }
            _ => Err("Completed schedules cannot be paused"),
        })
    }

    /// Lets a paused task fire again. A one-shot needs a moment in the future:
    /// `when`, else its own.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn resume(
        &self,
        id: &str,
        when: Option<Timestamp>,
        now: Timestamp,
        zones: &Zones,
    ) -> Result<Changed, StoreError> {
        self.decide(id, &|task| {
            match task.status() {
                Status::Active => return Ok(false),
                Status::Paused => {}
                _ => return Err("Completed schedules cannot be resumed"),
            }
            if !task.is_recurring() {
                let at = when.or_else(|| task.time("scheduled_for"));
                let at = at.ok_or("A one-off schedule requires a valid scheduled_for timestamp")?;
                if at <= now {
                    return Err(
                        "An overdue one-off schedule requires a new future scheduled_for timestamp",
                    );
                }
                if when.is_some() {
                    let created = task.time("created_at").unwrap_or(now);
                    let shift = jitter::of_one_shot(task.id(), at, created, zones.local());
                    task.set("scheduled_for", iso(at));
                    task.set("jitter_offset_ms", shift);
                }
            }
            task.set("status", "active");
            Ok(true)
        })
    }

    /// Removes a task; whether there was one.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn delete(&self, id: &str) -> Result<bool, StoreError> {
        let mut found = false;
        self.update_some(&|place| place.id() == id, &mut |document| {
            found = !document.tasks.is_empty();
            if found {
                document.tasks.remove(0);
            }
            found
        })?;
        Ok(found)
    }

    /// Removes all tasks of an agent; how many.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn delete_all(&self, agent_id: &str) -> Result<usize, StoreError> {
        let mut deleted = 0;
        self.update(&mut |document| {
            let before = document.tasks.len();
            document
                .tasks
                .retain(|task| task.text("agent_id") != agent_id);
            deleted = before - document.tasks.len();
            deleted > 0
        })?;
        Ok(deleted)
    }
}

fn check_cron(cron: &str) -> Result<(), StoreError> {
    match Expression::parse(cron) {
        Ok(_) => Ok(()),
        Err(error) => Err(StoreError::Refused(format!(
            "{error} Schedule was not saved."
        ))),
    }
}

fn check_length(text: &str) -> Result<(), StoreError> {
    if text.len() <= MAX_TEXT {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "A text of {} bytes is too long for a task (max {MAX_TEXT}). Schedule was not saved.",
        text.len()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Home;
    use serde_json::Value;

    struct Lab {
        _dir: tempfile::TempDir,
        store: Store,
        zones: Zones,
        now: Timestamp,
    }

    impl Lab {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("temp dir");
            Self {
                store: Store::new(&Home::at(dir.path())),
                _dir: dir,
                zones: Zones::of_process(Some("UTC")),
                now: "2026-03-26T10:00:00Z".parse().expect("a time"),
            }
        }

        fn add(&self, new: NewTask) -> Task {
            self.store
                .add(new, self.now, &self.zones)
                .expect("added")
                .task
        }

        fn resume(&self, id: &str, when: Option<&str>) -> Changed {
            let when = when.map(|when| when.parse().expect("a time"));
            self.store
                .resume(id, when, self.now, &self.zones)
                .expect("usable")
        }
    }

    fn recurring(agent_id: &str) -> NewTask {
        NewTask {
            agent_id: agent_id.into(),
            cron: "*/5 * * * *".into(),
            recurring: true,
            ..NewTask::default()
        }
    }

    fn one_shot(when: &str) -> NewTask {
        NewTask {
            recurring: false,
            scheduled_for: Some(when.parse().expect("a time")),
            ..recurring("agent-1")
        }
    }

    fn refused(changed: Changed) -> &'static str {
        match changed {
            Changed::Refused(_, reason) => reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn what_cannot_fire_is_refused_and_not_written() {
        let lab = Lab::new();
        let bad = NewTask {
            cron: "0 0 31 2 *".into(),
            ..recurring("agent-1")
        };
        let error = lab
            .store
            .add(bad, lab.now, &lab.zones)
            .expect_err("impossible");
        assert!(
            error
                .to_string()
                .ends_with("never has a day 31. Schedule was not saved."),
            "{error}"
        );
        let long = NewTask {
            prompt: "x".repeat(MAX_TEXT + 1),
            ..recurring("agent-1")
        };
        assert!(lab.store.add(long, lab.now, &lab.zones).is_err());
        assert_eq!(lab.store.stamp(), None);
    }

    #[test]
    fn an_agent_has_at_most_fifty_tasks_that_can_fire() {
        let lab = Lab::new();
        let tasks: Vec<Task> = (0..MAX_TASKS)
            .map(|_| lab.add(recurring("agent-1")))
            .collect();
        let more = || lab.store.add(recurring("agent-1"), lab.now, &lab.zones);
        assert!(
            more()
                .expect_err("full")
                .to_string()
                .contains("50 active or paused tasks")
        );
        lab.add(recurring("agent-2"));
        lab.store.pause(tasks[0].id()).expect("paused");
        assert!(more().is_err(), "a paused one counts");
        lab.store
            .update(&mut |document| {
                document.tasks[1].expired();
                true
            })
            .expect("written");
        assert!(more().expect("one is over").warning.is_some());
        assert_eq!(lab.store.list(Some("agent-1"), None).len(), 51);
        assert_eq!(lab.store.delete_all("agent-1").expect("deleted"), 51);
        assert_eq!(lab.store.list(None, None).len(), 1);
    }

    #[test]
    fn pause_and_resume_go_both_ways_and_stop_at_the_end() {
        let lab = Lab::new();
        let task = lab.add(recurring("agent-1"));
        for (status, changed) in [
            ("paused", lab.store.pause(task.id()).expect("usable")),
            ("paused", lab.store.pause(task.id()).expect("usable")),
            ("active", lab.resume(task.id(), None)),
            ("active", lab.resume(task.id(), None)),
        ] {
            let Changed::Done(task) = changed else {
                panic!("{status}: {changed:?}")
            };
            assert_eq!(task.text("status"), status);
        }
        assert!(matches!(lab.store.pause("nobody"), Ok(Changed::NotFound)));
        lab.store
            .update(&mut |document| {
                document.tasks[0].expired();
                true
            })
            .expect("written");
        let paused = lab.store.pause(task.id()).expect("usable");
        assert_eq!(refused(paused), "Completed schedules cannot be paused");
        assert_eq!(
            refused(lab.resume(task.id(), None)),
            "Completed schedules cannot be resumed"
        );
    }

    #[test]
    fn an_overdue_one_shot_is_resumed_only_with_a_new_moment() {
        let lab = Lab::new();
        let task = lab.add(one_shot("2026-03-26T09:00:00Z"));
        lab.store.pause(task.id()).expect("paused");
        for when in [None, Some("2026-03-26T10:00:00Z")] {
            assert!(refused(lab.resume(task.id(), when)).starts_with("An overdue one-off"));
        }
        let Changed::Done(task) = lab.resume(task.id(), Some("2026-03-26T12:00:00Z")) else {
            panic!("not resumed");
        };
        assert_eq!(task.text("scheduled_for"), "2026-03-26T12:00:00.000Z");
        let shift = task.jitter().as_millis();
        assert!((-90_000..=0).contains(&shift), "{shift}");
    }

    #[test]
    fn a_new_expression_is_checked_and_clears_the_old_complaint() {
        let lab = Lab::new();
        let task = lab.add(recurring("agent-1"));
        lab.store
            .update(&mut |document| {
                document.tasks[0].set("cron", "broken");
                document.tasks[0].failed(lab.now, Reason::InvalidCron, "no");
                true
            })
            .expect("written");
        let cron = |cron: &str| Changes {
            texts: vec![("cron", cron.into())],
            ..Changes::default()
        };
        let before = lab.store.stamp();
        assert!(lab.store.change(task.id(), &cron("1 2 3")).is_err());
        assert_eq!(lab.store.stamp(), before);
        let unchanged = lab
            .store
            .change(task.id(), &cron("broken"))
            .expect("usable")
            .expect("there");
        assert_eq!(unchanged.text("last_run_reason"), "invalid_cron");
        let mended = lab
            .store
            .change(task.id(), &cron("0 9 * * *"))
            .expect("usable")
            .expect("there");
        assert_eq!(mended.fields()["last_run_error"], Value::Null);
        assert_eq!(mended.text("expires_at"), task.text("expires_at"));
        assert_eq!(mended.jitter(), task.jitter());
        assert!(
            lab.store
                .change("nobody", &cron("0 9 * * *"))
                .expect("usable")
                .is_none()
        );
    }
}
