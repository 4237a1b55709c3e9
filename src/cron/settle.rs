//! What a wake of the scheduler changes in the store, all in one rewrite
//! (07 §1.8–§1.13).
//!
//! Invariant: every change is looked at again under the lock: a task that was
//! paused, changed or deleted meanwhile is left as it is. Run logs and frames
//! follow only what is on disk.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::expression::Expression;
use super::firing::{Fired, Outcome, run_entry, scheduled_for};
use super::lease::Lease;
use super::store::{Document, Stamp, Store, StoreError};
use super::table::{Due, TOO_LATE, Table};
use super::task::{Reason, Status, Task, invalid_cron_error};
use crate::protocol::Scope;
use crate::telemetry::metrics::CronOutcome;

/// How long what is over stays in the store.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Everything that one wake wants to write.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) now: Timestamp,
    /// Everything but fires.
    pub(super) due: Vec<Due>,
    pub(super) fired: Vec<Fired>,
    /// Whether to drop what has been over for a day.
    pub(super) collect: bool,
}

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// The lease was lost: fires that happened are written, nothing else.
    pub(super) lost: bool,
    /// The store as it is now.
    pub(super) table: Table,
    pub(super) stamp: Option<Stamp>,
    /// Conversations whose clients hear of it.
    pub(super) changed: Vec<Scope>,
    pub(super) counts: Vec<CronOutcome>,
    runs: Vec<(String, Map<String, Value>)>,
}

impl Wanted {
    pub(super) fn is_nothing(&self) -> bool {
        self.due.is_empty() && self.fired.is_empty() && !self.collect
    }

    /// Writes all of it; `table` is made of what is in the store then. Blocking.
    pub(super) fn settle(
        &self,
        store: &Store,
        lease: &Lease,
        table: &dyn Fn(&[Task]) -> Table,
    ) -> Result<Settled, StoreError> {
        let mut settled = Settled::default();
        settled.stamp = store.update(&mut |document| {
            let mut written = false;
            for fired in &self.fired {
                written |= fired.record(document);
                settled.fired(fired);
            }
            settled.lost = !lease.holds(document);
            if !settled.lost {
                for due in &self.due {
                    written |= settled.apply(document, due, self.now);
                }
                written |= self.collect && collect(document, self.now);
            }
            settled.table = table(&document.tasks);
            written
        })?;
        for (id, entry) in settled.runs.drain(..) {
            store.log_run(&id, entry);
        }
        Ok(settled)
    }
}

impl Settled {
    fn fired(&mut self, fired: &Fired) {
        self.runs.push((fired.task.id().to_owned(), fired.run()));
        let queued = matches!(fired.outcome, Outcome::Queued(_));
        if queued {
            self.changed.push(fired.scope.clone());
        }
        self.counts.push(if queued {
            CronOutcome::Fired
        } else {
            CronOutcome::Failed
        });
    }

    fn apply(&mut self, document: &mut Document, due: &Due, now: Timestamp) -> bool {
        let (Due::Expire(id) | Due::Miss(id) | Due::Complain(id)) = due else {
            return false;
        };
        let Some(task) = document.task_mut(id) else {
            return false;
        };
        let more = match due {
            Due::Expire(_) => self.expire(task, now),
            Due::Miss(_) => self.miss(task, now),
            _ => self.complain(task, now),
        };
        let Some(Value::Object(more)) = more else {
            return false;
        };
        let mut entry = run_entry(task, now);
        entry.extend(more);
        self.runs.push((id.clone(), entry));
        true
    }

    fn tell(&mut self, task: &Task) {
        let scope = Scope::new(
            Some(task.text("agent_id")),
            Some(task.text("conversation_id")),
        );
        self.changed.push(scope);
    }

    fn expire(&mut self, task: &mut Task, now: Timestamp) -> Option<Value> {
        let open = matches!(task.status(), Status::Active | Status::Paused);
        let over = task.time("expires_at").is_some_and(|end| end <= now);
        if !(task.is_recurring() && open && over) {
            return None;
        }
        task.expired();
        self.tell(task);
        self.counts.push(CronOutcome::Expired);
        let reason = Reason::TaskCancelled.as_str();
        Some(
            json!({"status": "skipped", "outcome": "skipped", "reason": reason, "summary": "expired"}),
        )
    }

    fn miss(&mut self, task: &mut Task, now: Timestamp) -> Option<Value> {
        let at = task
            .time("scheduled_for")
            .filter(|_| !task.is_recurring())?;
        if task.status() != Status::Active || now.duration_since(at) <= TOO_LATE {
            return None;
        }
        let (reason, error) = task.missed(now);
        self.counts.push(CronOutcome::Missed);
        let mut more = json!({
            "status": "skipped", "outcome": "missed", "reason": reason, "summary": "missed",
            "scheduledFor": scheduled_for(task), "missedCount": 1,
        });
        if let Some(error) = error {
            more["error"] = error.into();
        }
        Some(more)
    }

    fn complain(&mut self, task: &mut Task, now: Timestamp) -> Option<Value> {
        let cron = task.text("cron").to_owned();
        let error = invalid_cron_error(&cron);
        let known = task.is_reported_invalid(&error) || Expression::parse(&cron).is_ok();
        if task.status() != Status::Active || !task.is_recurring() || known {
            return None;
        }
        task.failed(now, Reason::InvalidCron, &error);
        self.tell(task);
        self.counts.push(CronOutcome::Failed);
        let reason = Reason::InvalidCron.as_str();
        Some(json!({"status": "error", "outcome": "failed", "reason": reason, "error": error}))
    }
}

/// Drops what has been over for a day; whether there was any.
fn collect(document: &mut Document, now: Timestamp) -> bool {
    let before = document.tasks.len();
    document.tasks.retain(|task| {
        let recent = |at: Timestamp| now.duration_since(at) < KEPT;
        !task.status().is_terminal() || task.last_event().is_some_and(recent)
    });
    document.tasks.len() < before
}
