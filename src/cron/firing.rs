//! One fire: from a task to an item in a conversation's queue, and its record
//! (07 §1.10).
//!
//! Invariant: a fire is recorded after its prompt waits in the queue. A process
//! that dies between the two fires again after its restart, for the queue died
//! with it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::envelope;
use super::operations::Changed;
use super::store::{Store, StoreError};
use super::task::{Reason, Status, Task, iso};
use super::zone::Zones;
use crate::api::Client;
use crate::events::{Audience, EventKind, EventSink, Injected, Outbound, Receipt, Recipient};
use crate::protocol::Scope;
use crate::protocol::time::epoch_millis;

/// How long the server may take to make a conversation.
const CREATION: Duration = Duration::from_secs(60);

/// A boxed future, for [`Target`].
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where prompts go.
pub trait Target: Send + Sync {
    /// Makes a conversation of its own for a fire; its id.
    fn create<'a>(
        &'a self,
        agent_id: &'a str,
        name: &'a str,
    ) -> Pending<'a, Result<String, String>>;
    /// Puts a prompt into the queue of a conversation; the item's id when it was
    /// taken, `None` when the queue is full.
    fn enqueue<'a>(
        &'a self,
        scope: &'a Scope,
        text: String,
    ) -> Pending<'a, Result<Option<String>, Closed>>;
    /// Tells the clients of a conversation that its schedules changed.
    fn changed(&self, scope: &Scope);
}

/// The process takes no more work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// The conversations of this process.
#[derive(Clone)]
pub struct Conversations {
    /// The Letta API.
    pub api: Client,
    /// Where work for conversations goes.
    pub inject: mpsc::UnboundedSender<(Recipient, Injected)>,
    /// Where frames go.
    pub events: EventSink,
}

impl Target for Conversations {
    fn create<'a>(
        &'a self,
        agent_id: &'a str,
        name: &'a str,
    ) -> Pending<'a, Result<String, String>> {
        Box::pin(async move {
            let Value::Object(body) = json!({
                "agent_id": agent_id, "summary": name, "tags": ["origin:schedule"],
            }) else {
                return Err(String::new());
            };
            let made = self.api.create_conversation(Some(agent_id), &body);
            let made = match tokio::time::timeout(CREATION, made).await {
                Ok(made) => made.map_err(|error| error.to_string())?,
                Err(_) => return Err(String::from("The server did not answer in time.")),
            };
            let id = made.get("id").and_then(Value::as_str);
            id.map(str::to_owned)
                .ok_or_else(|| String::from("The server made a conversation without an id."))
        })
    }

    fn enqueue<'a>(
        &'a self,
        scope: &'a Scope,
        text: String,
    ) -> Pending<'a, Result<Option<String>, Closed>> {
        let (receipt, answer) = Receipt::channel();
        let work = Injected::CronPrompt { text, receipt };
        let sent = self
            .inject
            .send((Recipient::Conversation(scope.clone()), work));
        Box::pin(async move {
            sent.map_err(|_| Closed)?;
            answer.await.ok_or(Closed)
        })
    }

    fn changed(&self, scope: &Scope) {
        let frame = json!({
            "type": "crons_updated", "timestamp": epoch_millis(std::time::SystemTime::now()),
            "agent_id": scope.agent_id, "conversation_id": scope.conversation_id,
        });
        self.events.send(Outbound::Event {
            to: Audience::Subscribers,
            scope: scope.clone(),
            kind: EventKind::Control,
            body: frame.to_string().into(),
        });
    }
}

/// How a fire ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The prompt waits under this id.
    Queued(String),
    /// It does not, and the task says why.
    Failed(Reason, &'static str),
    /// No conversation could be made: only the run log says so.
    NoConversation(String),
}

/// A fire that is over and not yet written down.
#[derive(Clone, Debug)]
pub(super) struct Fired {
    pub(super) task: Task,
    pub(super) scope: Scope,
    pub(super) at: Timestamp,
    pub(super) automatic: bool,
    pub(super) outcome: Outcome,
}

/// Fires a task: nothing is written yet.
pub(super) async fn fire(
    target: &dyn Target,
    zones: &Zones,
    task: Task,
    intended: Timestamp,
    now: Timestamp,
    automatic: bool,
) -> Fired {
    let agent_id = task.text("agent_id").to_owned();
    let (conversation_id, outcome) = match task.text("conversation_id") {
        "new" => match target.create(&agent_id, task.text("name")).await {
            Ok(id) => (id, None),
            Err(error) => (String::from("new"), Some(Outcome::NoConversation(error))),
        },
        id => (id.to_owned(), None),
    };
    let scope = Scope::new(Some(&agent_id), Some(&conversation_id));
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => match target
            .enqueue(&scope, envelope::wrap(&task, intended, now, zones))
            .await
        {
            Ok(Some(item)) => Outcome::Queued(item),
            Ok(None) => Outcome::Failed(Reason::QueueFull, "queue buffer limit"),
            Err(Closed) => Outcome::Failed(Reason::RuntimeUnavailable, "No active runtime"),
        },
    };
    Fired {
        task,
        scope,
        at: now,
        automatic,
        outcome,
    }
}

impl Fired {
    /// Writes the fire into its task; whether anything changed.
    pub(super) fn record(&self, task: &mut Task) -> bool {
        match &self.outcome {
            Outcome::Queued(_) => task.queued(self.at, self.automatic),
            Outcome::Failed(reason, error) => task.failed(self.at, *reason, error),
            Outcome::NoConversation(_) => return false,
        }
        true
    }

    /// The entry of the run log.
    pub(super) fn run(&self) -> Map<String, Value> {
        let mut entry = run_entry(&self.task, self.at);
        entry.insert("scheduledFor".into(), scheduled_for(&self.task));
        let more = match &self.outcome {
            Outcome::Queued(item) => {
                entry.insert("conversationId".into(), json!(self.scope.conversation_id));
                json!({"status": "ok", "outcome": "queued", "reason": self.task.due_reason().as_str(),
                    "queueItemId": item, "firedAt": iso(self.at)})
            }
            Outcome::Failed(reason, error) => {
                json!({"status": "error", "outcome": "failed", "reason": reason.as_str(), "error": error})
            }
            Outcome::NoConversation(error) => json!({"status": "error", "error": error}),
        };
        if let Value::Object(more) = more {
            entry.extend(more);
        }
        entry
    }
}

/// The fields that every entry of the run log has.
pub(super) fn run_entry(task: &Task, at: Timestamp) -> Map<String, Value> {
    let entry = json!({
        "ts": epoch_millis(std::time::SystemTime::now()),
        "jobId": task.id(),
        "action": "finished",
        "agentId": task.text("agent_id"),
        "conversationId": task.text("conversation_id"),
        "runAtMs": at.as_millisecond(),
    });
    match entry {
        Value::Object(entry) => entry,
        _ => Map::new(),
    }
}

pub(super) fn scheduled_for(task: &Task) -> Value {
    task.fields()
        .get("scheduled_for")
        .cloned()
        .unwrap_or_default()
}

/// When a task was meant to fire that fires at `now`.
pub(super) fn intended(task: &Task, now: Timestamp) -> Timestamp {
    let own = task.time("scheduled_for").filter(|_| !task.is_recurring());
    own.unwrap_or_else(|| minute_start(now))
}

pub(super) fn minute_start(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second().div_euclid(60) * 60).unwrap_or(at)
}

/// Fires a task by hand (`cron_trigger`). It needs no lease: nothing but this
/// process fires because of it.
///
/// # Errors
/// When the store cannot be used; the prompt may be queued then.
pub async fn trigger(
    store: &Store,
    target: &dyn Target,
    zones: &Zones,
    id: &str,
    now: Timestamp,
) -> Result<Changed, StoreError> {
    let wanted = id.to_owned();
    let Some(task) = off_runtime(store, move |store| store.get(&wanted)).await else {
        return Ok(Changed::NotFound);
    };
    if !matches!(task.status(), Status::Active | Status::Paused) {
        return Ok(Changed::Refused(
            Box::new(task),
            "Completed schedules cannot run again",
        ));
    }
    let due = intended(&task, now);
    let fired = fire(target, zones, task, due, now, false).await;
    let queued = matches!(fired.outcome, Outcome::Queued(_));
    let scope = fired.scope.clone();
    let saved = off_runtime(store, move |store| {
        let id = fired.task.id();
        // A task that was deleted meanwhile stays deleted.
        store.update_some(&|place| place.id() == id, &mut |document| {
            document
                .tasks
                .first_mut()
                .is_some_and(|task| fired.record(task))
        })?;
        store.log_run(id, fired.run());
        Ok::<_, StoreError>(store.get(id).unwrap_or(fired.task))
    });
    let task = Box::new(saved.await?);
    if !queued {
        return Ok(Changed::Refused(task, "Failed to enqueue schedule run"));
    }
    target.changed(&scope);
    Ok(Changed::Done(task))
}

/// Runs a blocking call of the store. It ends soon: the lock is waited for 5 s at most.
pub fn off_runtime<T, W>(store: &Store, work: W) -> impl Future<Output = T> + Send + use<T, W>
where
    T: Send + 'static,
    W: FnOnce(Store) -> T + Send + 'static,
{
    let store = store.clone();
    async move {
        match tokio::task::spawn_blocking(move || work(store)).await {
            Ok(done) => done,
            // Blocking work is cancelled only with its runtime, and we with it.
            Err(_) => std::future::pending().await,
        }
    }
}
