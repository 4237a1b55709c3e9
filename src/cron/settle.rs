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
use super::store::{Document, Ids, Place, Stamp, Store, StoreError};
use super::table::{Due, TOO_LATE, Touched};
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
    /// The file that was read, and the one that there is now.
    pub(super) stamps: [Option<Stamp>; 2],
    /// The tasks that may have changed, as they are now; `None` for one that is gone.
    pub(super) touched: Touched,
    /// Conversations whose clients hear of it.
    pub(super) changed: Vec<Scope>,
    pub(super) counts: Vec<CronOutcome>,
    runs: Vec<(String, Map<String, Value>)>,
}

impl Wanted {
    pub(super) fn is_nothing(&self) -> bool {
        self.due.is_empty() && self.fired.is_empty() && !self.collect
    }

    /// Writes all of it. Blocking.
    pub(super) fn settle(&self, store: &Store, lease: &Lease) -> Result<Settled, StoreError> {
        let mut settled = Settled::default();
        let fired = self.fired.iter().map(|fired| fired.task.id());
        let ids: Ids<&str> = fired.chain(self.due.iter().map(Due::id)).collect();
        let choice = |place: &Place| ids.contains(place.id()) || self.collect && place.is_over();
        let now = store.update_some(&choice, &mut |document| {
            settled.stamps[0] = document.stamp;
            let places = document.places();
            // A task that was deleted meanwhile stays deleted.
            let mut written = false;
            for fired in &self.fired {
                if let Some(at) = places.get(fired.task.id()) {
                    written |= fired.record(&mut document.tasks[*at]);
                }
                settled.fired(fired);
            }
            settled.lost = !lease.holds(document);
            if !settled.lost {
                for due in &self.due {
                    if let Some(at) = places.get(due.id()) {
                        written |= settled.apply(&mut document.tasks[*at], due, self.now);
                    }
                }
                written |= self.collect && collect(document, self.now);
            }
            settled.touched = ids.iter().map(|id| ((*id).to_owned(), None)).collect();
            for task in &document.tasks {
                settled
                    .touched
                    .insert(task.id().to_owned(), Some(task.clone()));
            }
            written
        })?;
        settled.stamps[1] = now;
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

    fn apply(&mut self, task: &mut Task, due: &Due, now: Timestamp) -> bool {
        let more = match due {
            Due::Fire { .. } => None,
            Due::Expire(_) => self.expire(task, now),
            Due::Miss(_) => self.miss(task, now),
            Due::Complain(_) => self.complain(task, now),
        };
        let Some(Value::Object(more)) = more else {
            return false;
        };
        let mut entry = run_entry(task, now);
        entry.extend(more);
        self.runs.push((task.id().to_owned(), entry));
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
