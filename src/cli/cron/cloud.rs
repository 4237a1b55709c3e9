//! The schedules of the cloud, as the command line uses them (07 §1.15, §1.16).

use std::future::Future;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Failure;
use crate::api::{ApiError, Client};
use crate::cli::server::start::Foundation;

/// Says in UTC what a recurring schedule of the cloud means.
const UTC_NOTE: &str = "The cloud reads the expression of a recurring schedule in UTC, not in the zone of this computer.";
const SANDBOX_NOTE: &str = "If that computer is offline when the schedule fires, the agent's cloud sandbox takes its place.";

/// Connects when it is asked for something.
pub(super) struct Cloud {
    foundation: Foundation,
}

/// Everything of a new schedule.
pub(super) struct NewSchedule<'a> {
    pub(super) agent_id: &'a str,
    pub(super) conversation_id: &'a str,
    pub(super) name: &'a str,
    pub(super) description: &'a str,
    pub(super) prompt: &'a str,
    /// An expression, or the moment of a one-shot.
    pub(super) schedule: Result<&'a str, Timestamp>,
    pub(super) computer: Option<&'a str>,
    pub(super) note: Option<String>,
}

impl Cloud {
    pub(super) fn new(foundation: Foundation) -> Self {
        Self { foundation }
    }

    /// Runs one exchange with the server.
    pub(super) fn ask<T, F>(&self, ask: impl FnOnce(Client) -> F) -> Result<T, Asked>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let foundation = &self.foundation;
        let connect = || -> anyhow::Result<_> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let (credentials, net) = foundation.credentials(&foundation.name())?;
            let device_id = foundation.device_id()?;
            let api = foundation.api(&foundation.base_url(), &credentials, &net, &device_id)?;
            Ok((runtime, api.acting_as(None)))
        };
        let (runtime, api) = connect().map_err(|error| Asked::Other(format!("{error:#}")))?;
        runtime.block_on(ask(api)).map_err(|error| {
            if error.is_no_endpoint() {
                Asked::Missing(error.to_string())
            } else {
                Asked::Other(error.to_string())
            }
        })
    }

    /// Makes a schedule; what is printed of it.
    pub(super) fn add(&self, new: NewSchedule<'_>) -> Result<Value, Failure> {
        if new.agent_id.starts_with("agent-local-") {
            return Err(Failure::Usage(format!(
                "agent {} lives on this computer; the cloud cannot fire its schedules.",
                new.agent_id
            )));
        }
        if let Some(computer) = new.computer {
            self.check_computer(computer)?;
        }
        let (schedule, mut notes) = match new.schedule {
            Ok(cron) => (
                json!({"type": "recurring", "cron_expression": cron}),
                vec![UTC_NOTE],
            ),
            Err(when) => (
                json!({"type": "one-time", "scheduled_at": when.as_millisecond()}),
                Vec::new(),
            ),
        };
        if new.computer.is_some() {
            notes.push(SANDBOX_NOTE);
        }
        let mut notes: Vec<String> = notes.into_iter().map(str::to_owned).collect();
        notes.splice(0..0, new.note);
        let mut body = json!({
            "name": new.name, "description": new.description,
            "conversation_id": new.conversation_id,
            "messages": [{"role": "user", "content": new.prompt}],
            "schedule": schedule, "use_sandbox": true,
        });
        if let Some(computer) = new.computer {
            body["target_device_id"] = computer.into();
        }
        let (agent_id, sent) = (new.agent_id, &body);
        let made = self.ask(async move |api: Client| {
            if !api.has_schedules(agent_id).await {
                return Ok(None);
            }
            api.create_schedule(agent_id, sent).await.map(Some)
        });
        let made = match made {
            Ok(Some(made)) => made,
            Ok(None) => {
                return Err(Failure::Failed(format!(
                    "this server keeps no schedules for agent {agent_id}: it does not know the agent, or has no schedules at all. Check --agent, or leave out --cloud to schedule on this computer."
                )));
            }
            Err(error) => {
                return Err(Failure::Failed(format!(
                    "the cloud schedule could not be made: {error}. No schedule was created."
                )));
            }
        };
        let target = made["target_device_id"].as_str().or(new.computer);
        let mut shown = json!({
            "id": made["id"], "runner": "cloud", "execution_target": target.unwrap_or("cloud-sandbox"),
        });
        if let Some(target) = target {
            shown["target_device_id"] = target.into();
        }
        shown["agent_id"] = agent_id.into();
        shown["conversation_id"] = new.conversation_id.into();
        shown["recurring"] = new.schedule.is_ok().into();
        shown["schedule"] = body["schedule"].take();
        if !made["next_scheduled_at"].is_null() {
            shown["next_scheduled_at"] = made["next_scheduled_at"].clone();
        }
        if !notes.is_empty() {
            shown["notes"] = notes.into();
        }
        Ok(shown)
    }

    /// A computer that the cloud can reach; a failed look-up is no obstacle.
    fn check_computer(&self, id: &str) -> Result<(), Failure> {
        let reason = match id {
            "__letta_cloud__" => Some("is no computer; --cloud alone means the cloud's sandbox"),
            "local" => Some("stands for this computer; leave out --cloud and --computer for it"),
            _ => {
                let found = self.ask(async |api: Client| api.environment(id).await);
                let own = |found: Value| found["organizationId"] == "local";
                found
                    .is_ok_and(own)
                    .then_some("is known to this computer alone; the cloud cannot reach it")
            }
        };
        match reason {
            Some(reason) => Err(Failure::Usage(format!("\"{id}\" {reason}."))),
            None => Ok(()),
        }
    }
}

/// Why the server gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Asked {
    /// It has no such thing.
    #[error("{0}")]
    Missing(String),
    #[error("{0}")]
    Other(String),
}

impl From<Asked> for Failure {
    fn from(error: Asked) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A schedule of the cloud as `list` and `get` show it.
pub(super) fn row(schedule: &Value) -> Value {
    let target = &schedule["target_device_id"];
    let mut row = json!({
        "id": schedule["id"], "runner": "cloud",
        "execution_target": target.as_str().unwrap_or("cloud-sandbox"),
    });
    if target.is_string() {
        row["target_device_id"] = target.clone();
    }
    let message = &schedule["message"]["messages"][0]["content"];
    let prompt = message.as_str();
    for (name, value) in [
        ("agent_id", schedule["agent_id"].clone()),
        (
            "conversation_id",
            schedule["conversation_id"]
                .as_str()
                .unwrap_or("default")
                .into(),
        ),
        ("name", schedule["name"].clone()),
        ("description", schedule["description"].clone()),
        ("prompt", json!(prompt)),
        ("schedule", schedule["schedule"].clone()),
        (
            "recurring",
            json!(schedule["schedule"]["type"] == "recurring"),
        ),
        (
            "next_scheduled_time",
            schedule["next_scheduled_time"].clone(),
        ),
        ("created_at", schedule["created_at"].clone()),
    ] {
        row[name] = value;
    }
    row
}
