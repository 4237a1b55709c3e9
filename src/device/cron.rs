//! The schedules of this computer: `cron_*` (07 §1.14).
//!
//! Clients hear of a change by `crons_updated`, bare and behind the answer.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::call::{Answer, Call, Failure};
use crate::cron::firing::{self, Conversations, off_runtime};
use crate::cron::operations::{Changed, Changes};
use crate::cron::runs::PageRequest;
use crate::cron::store::{Store, StoreError};
use crate::cron::task::{NewTask, Task, read_time};
use crate::cron::zone::Zones;
use crate::protocol::fields::{Fields, ShapeError};
use crate::protocol::time::epoch_millis;

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(error.to_string())
    }
}

fn store(call: &Call) -> Store {
    call.services().schedules.clone()
}

/// `cron_list`.
pub(super) async fn list(mut call: Call) -> Answer {
    let agent_id = call.fields.optional_string("agent_id")?;
    let conversation_id = call.fields.optional_string("conversation_id")?;
    let tasks = off_runtime(&store(&call), move |store| {
        store.list(agent_id.as_deref(), conversation_id.as_deref())
    });
    let tasks: Value = tasks.await.into_iter().map(shown).collect();
    Ok(json!({"tasks": tasks}))
}

/// `cron_add`.
pub(super) async fn add(mut call: Call) -> Answer {
    let fields = &mut call.fields;
    let expires_at = match fields.peek("expires_at") {
        None => None,
        Some(_) => Some(moment(fields, "expires_at")?),
    };
    let new = NewTask {
        agent_id: fields.string("agent_id")?,
        conversation_id: fields.optional_string("conversation_id")?,
        name: fields.string("name")?,
        description: fields.string("description")?,
        cron: fields.string("cron")?,
        timezone: fields.optional_string("timezone")?,
        recurring: boolean(fields, "recurring")?,
        prompt: fields.string("prompt")?,
        scheduled_for: moment(fields, "scheduled_for")?,
        expires_at,
    };
    let added = off_runtime(&store(&call), move |store| {
        store.add(new, Timestamp::now(), &Zones::system())
    });
    let added = added.await?;
    tell(&call, &added.task);
    let mut more = json!({"task": shown(added.task)});
    if let Some(warning) = added.warning {
        more["warning"] = warning.into();
    }
    Ok(more)
}

/// `cron_get`.
pub(super) async fn get(mut call: Call) -> Answer {
    let id = call.fields.string("task_id")?;
    let task = off_runtime(&store(&call), move |store| store.get(&id)).await;
    Ok(json!({"found": task.is_some(), "task": task.map(shown)}))
}

/// `cron_runs`.
pub(super) async fn runs(mut call: Call) -> Answer {
    let id = call.fields.string("task_id")?;
    let request = PageRequest {
        limit: number(&mut call.fields, "limit")?,
        offset: number(&mut call.fields, "offset")?,
        run_id: call.fields.optional_string("run_id")?,
    };
    let page = off_runtime(&store(&call), move |store| store.runs(&id, &request)).await;
    match page {
        Ok(page) => Ok(json!({"page": page})),
        Err(error) => Err(Failure::new(error.to_string())),
    }
}

/// `cron_trigger`: its `crons_updated` goes to subscribers, before the answer.
pub(super) async fn trigger(mut call: Call) -> Answer {
    let id = call.fields.string("task_id")?;
    let services = call.services();
    let target = Conversations {
        api: services.api.0.clone(),
        inject: services.inject.clone(),
        events: services.events.clone(),
    };
    let (store, zones) = (store(&call), Zones::system());
    let fired = firing::trigger(&store, &target, &zones, &id, Timestamp::now());
    changed(fired.await?)
}

/// `cron_pause`.
pub(super) async fn pause(mut call: Call) -> Answer {
    let id = call.fields.string("task_id")?;
    let paused = off_runtime(&store(&call), move |store| store.pause(&id)).await?;
    told(&call, paused)
}

/// `cron_resume`.
pub(super) async fn resume(mut call: Call) -> Answer {
    let id = call.fields.string("task_id")?;
    let when = moment(&mut call.fields, "scheduled_for")?;
    let resumed = off_runtime(&store(&call), move |store| {
        store.resume(&id, when, Timestamp::now(), &Zones::system())
    });
    told(&call, resumed.await?)
}

/// `cron_update`.
pub(super) async fn update(mut call: Call) -> Answer {
    let id = call.fields.string("task_id")?;
    let mut changes = Changes::default();
    for name in [
        "name",
        "description",
        "conversation_id",
        "cron",
        "timezone",
        "prompt",
    ] {
        if let Some(text) = call.fields.optional_string(name)? {
            changes.texts.push((name, text));
        }
    }
    changes.recurring = call.fields.optional_bool("recurring")?;
    if call.fields.peek("scheduled_for").is_some() {
        changes.scheduled_for = Some(moment(&mut call.fields, "scheduled_for")?);
    }
    let task = off_runtime(&store(&call), move |store| store.change(&id, &changes)).await?;
    let task = task.ok_or_else(|| Failure::new("Cron task not found"))?;
    tell(&call, &task);
    Ok(json!({"task": shown(task)}))
}

/// `cron_delete`.
pub(super) async fn delete(mut call: Call) -> Answer {
    let id = call.fields.string("task_id")?;
    let deleted = off_runtime(&store(&call), move |store| {
        let task = store.get(&id);
        store.delete(&id).map(|found| task.filter(|_| found))
    });
    let deleted = deleted.await?;
    if let Some(task) = &deleted {
        tell(&call, task);
    }
    Ok(json!({"found": deleted.is_some()}))
}

/// `cron_delete_all`.
pub(super) async fn delete_all(mut call: Call) -> Answer {
    let agent_id = call.fields.string("agent_id")?;
    let wanted = agent_id.clone();
    let deleted = off_runtime(&store(&call), move |store| store.delete_all(&wanted)).await;
    let deleted =
        deleted.map_err(|error| Failure::from(error).with("agent_id", agent_id.as_str()))?;
    if deleted > 0 {
        let mut frame = updated();
        frame["agent_id"] = agent_id.as_str().into();
        call.push_after(frame);
    }
    Ok(json!({"agent_id": agent_id, "deleted": deleted}))
}

fn shown(task: Task) -> Value {
    Value::Object(task.into_fields())
}

fn updated() -> Value {
    json!({"type": "crons_updated", "timestamp": epoch_millis(std::time::SystemTime::now())})
}

/// Tells the asker behind the answer that a task changed.
fn tell(call: &Call, task: &Task) {
    let mut frame = updated();
    frame["agent_id"] = task.text("agent_id").into();
    frame["conversation_id"] = task.text("conversation_id").into();
    call.push_after(frame);
}

fn told(call: &Call, outcome: Changed) -> Answer {
    if let Changed::Done(task) = &outcome {
        tell(call, task);
    }
    changed(outcome)
}

fn changed(outcome: Changed) -> Answer {
    match outcome {
        Changed::Done(task) => Ok(json!({"found": true, "task": shown(*task)})),
        Changed::NotFound => Err(Failure::new("Schedule not found").with("found", false)),
        Changed::Refused(task, reason) => Err(Failure::new(reason)
            .with("found", true)
            .with("task", shown(*task))),
    }
}

fn moment(fields: &mut Fields, name: &str) -> Result<Option<Timestamp>, Failure> {
    let text = fields.optional_string(name)?;
    let read = |text: String| {
        read_time(&text).ok_or_else(|| Failure::new(format!("Invalid {name} timestamp")))
    };
    text.map(read).transpose()
}

fn boolean(fields: &mut Fields, name: &str) -> Result<bool, ShapeError> {
    let flag = fields.optional_bool(name)?;
    flag.ok_or_else(|| ShapeError::new(name, "true or false"))
}

fn number(fields: &mut Fields, name: &str) -> Result<Option<f64>, ShapeError> {
    let read = |value: Value| {
        value
            .as_f64()
            .ok_or_else(|| ShapeError::new(name, "a number"))
    };
    fields.take(name).map(read).transpose()
}
