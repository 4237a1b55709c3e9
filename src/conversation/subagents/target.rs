//! Whom a task goes to: a new agent, one that is there, or a copy of the
//! parent's conversation; with which settings and which words (07 §3.3).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::api::{ApiError, Client};
use crate::conversation::model::CarriedModel;
use crate::conversation::services::Services;
use crate::protocol::Scope;
use crate::protocol::command::{CreateMessage, ExecutionSettings, InputOptions};
use crate::subagents::{Kind, Kinds, LaunchError, Parent, Wanted};

/// Server tools of a new agent.
const SERVER_TOOLS: [&str; 2] = ["web_search", "fetch_webpage"];

const OWN_CONVERSATION: &str = "A subagent cannot run in its parent conversation";

/// A task that can be begun.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) parent: Parent,
    pub(super) wanted: Wanted,
    pub(super) kind: Kind,
    /// The copy of the parent's conversation.
    fork: Option<Scope>,
}

fn refused<T>(reason: impl Into<String>) -> Result<T, LaunchError> {
    Err(LaunchError::Refused(reason.into()))
}

/// Checks a task, and copies the parent's conversation if its kind wants that.
pub(super) async fn prepare(
    services: &Services,
    parent: Parent,
    wanted: Wanted,
) -> Result<Prepared, LaunchError> {
    let deploys = wanted.agent_id.is_some() || wanted.conversation_id.is_some();
    let kind = if wanted.kind == "custom" && deploys {
        prepared_conversation(&parent, &wanted)?
    } else {
        let (home, cwd) = (services.home.clone(), parent.cwd.clone());
        let read = move || Kinds::discover(&home, &cwd).0;
        let kinds = tokio::task::spawn_blocking(read).await;
        let kinds = kinds.unwrap_or_else(|_| Kinds::built_in());
        let Some(kind) = kinds.get(&wanted.kind) else {
            return refused(format!(
                "Invalid subagent type \"{}\". Available types: {}",
                wanted.kind,
                kinds.names()
            ));
        };
        if kind.fork && deploys {
            return refused(format!(
                "\"{}\" goes on in a copy of this conversation: it cannot be combined with agent_id or conversation_id",
                kind.name
            ));
        }
        if deploys && kind.name != "general-purpose" {
            return refused(format!(
                "An existing agent or conversation goes with subagent_type \"general-purpose\" only, not \"{}\"",
                kind.name
            ));
        }
        kind.clone()
    };
    if wanted.conversation_id.as_deref() == Some("default") && wanted.agent_id.is_none() {
        return refused("conversation_id \"default\" needs agent_id");
    }
    let mut prepared = Prepared {
        parent,
        wanted,
        kind,
        fork: None,
    };
    if prepared.kind.fork {
        let fork = fork(services, &prepared).await;
        prepared.fork = Some(fork.map_err(|error| {
            LaunchError::Refused(format!("Failed to fork parent conversation: {error}"))
        })?);
    }
    Ok(prepared)
}

/// `custom`: a conversation that was made and configured for the task.
fn prepared_conversation(parent: &Parent, wanted: &Wanted) -> Result<Kind, LaunchError> {
    match wanted.conversation_id.as_deref() {
        None | Some("default") => {
            refused("custom needs the conversation_id of a prepared conversation")
        }
        Some(_) if wanted.model.is_some() => {
            refused("custom takes the model of its conversation; leave `model` out")
        }
        Some(id) if id == &*parent.scope.conversation_id => refused(OWN_CONVERSATION),
        Some(_) => Ok(Kind {
            name: "custom".into(),
            ..Kind::default()
        }),
    }
}

async fn fork(services: &Services, task: &Prepared) -> Result<Scope, ApiError> {
    let api = acting(services, &task.parent);
    let parent = &task.parent.scope;
    let mut query = Map::new();
    query.insert("hidden".into(), true.into());
    if parent.is_default() {
        query.insert("agent_id".into(), json!(parent.agent_id));
    }
    let made = api
        .fork_conversation(&parent.conversation_id, &query)
        .await?;
    let id = made.get("id").and_then(Value::as_str).unwrap_or_default();
    let wanted = [&task.wanted.model, &task.kind.model];
    let wanted = wanted.into_iter().flatten().next();
    if let Some(model) = wanted.filter(|model| *model != "inherit") {
        let model = handle_of(services, &api, model).await;
        let changed = api.update_conversation(id, &json!({"model": model})).await;
        if let Err(error) = changed {
            // The reason is worth more than what becomes of the copy.
            let _ = api.delete_conversation(id).await;
            return Err(error);
        }
    }
    Ok(Scope::new(parent.agent_id.as_deref(), Some(id)))
}

/// Deletes a copy that nobody works in.
pub(super) async fn discard(services: &Services, task: &Prepared) {
    if let Some(fork) = &task.fork {
        let api = acting(services, &task.parent);
        if let Err(error) = api.delete_conversation(&fork.conversation_id).await {
            tracing::debug!(?error, "A copy of a conversation could not be deleted.");
        }
    }
}

/// Finds or makes the conversation of a task; its model, if it is chosen here.
pub(super) async fn resolve(
    services: &Services,
    task: &Prepared,
) -> Result<(Scope, Option<String>), String> {
    if let Some(fork) = &task.fork {
        return Ok((fork.clone(), None));
    }
    let api = acting(services, &task.parent);
    let wanted = &task.wanted;
    let scope = match (&wanted.agent_id, &wanted.conversation_id) {
        (None, None) => return new_agent(services, &api, task).await,
        (Some(agent), None) => {
            let mut body = Map::new();
            body.insert("agent_id".into(), agent.as_str().into());
            let made = api.create_conversation(Some(agent), &body).await;
            let made = made.map_err(|error| error.to_string())?;
            Scope::new(Some(agent), made.get("id").and_then(Value::as_str))
        }
        (Some(agent), Some(id)) if id == "default" => Scope::new(Some(agent), None),
        (agent, Some(id)) => {
            let found = api.conversation(id).await;
            let found = found.map_err(|error| error.to_string())?;
            let owner = found.get("agent_id").and_then(Value::as_str);
            if agent.is_some() && agent.as_deref() != owner {
                return Err(format!("agent_id does not own the conversation {id}"));
            }
            Scope::new(owner, Some(id))
        }
    };
    if scope == task.parent.scope {
        return Err(OWN_CONVERSATION.into());
    }
    Ok((scope, None))
}

/// A new agent for one task. It stays, so that the parent can go on with it.
async fn new_agent(
    services: &Services,
    api: &Client,
    task: &Prepared,
) -> Result<(Scope, Option<String>), String> {
    let inherited = parent_model(services, api, &task.parent.scope).await;
    let wanted = [&task.wanted.model, &task.kind.model];
    let wanted = wanted.into_iter().flatten().next();
    let chosen = match wanted.filter(|model| *model != "inherit") {
        Some(model) => Some(handle_of(services, api, model).await),
        None => inherited.clone(),
    };
    let parent = task.parent.scope.agent_id.as_deref().unwrap_or_default();
    let kind = &task.kind;
    let mut body = json!({
        "agent_type": "letta_v1_agent",
        "name": format!("{}-{}", kind.name, &uuid::Uuid::new_v4().simple().to_string()[..8]),
        "description": task.wanted.description, "system": kind.prompt,
        "tags": ["origin:letta-code", "role:subagent", format!("type:{}", kind.name),
            format!("parent:{parent}")],
        "tools": SERVER_TOOLS, "include_base_tools": false, "include_base_tool_rules": false,
        "initial_message_sequence": [], "parallel_tool_calls": true, "hidden": true,
    });
    let mut made = None;
    // A model that the server does not know gives way to the parent's, once.
    let same = chosen == inherited;
    for model in [chosen, inherited] {
        if let Some(model) = &model {
            let compaction = if services.cloud { "letta/auto" } else { model };
            body["compaction_settings"] = json!({"model": compaction});
            body["model"] = model.as_str().into();
        }
        match api.create_agent_anyway(body.clone()).await {
            Ok(agent) => {
                made = Some(Ok((agent, model)));
                break;
            }
            Err(error) => {
                let about_model = matches!(error.status(), Some(400 | 404 | 422));
                made.get_or_insert(Err(error));
                if !about_model || same {
                    break;
                }
            }
        }
    }
    let (agent, model) = match made {
        Some(made) => made.map_err(|error| error.to_string())?,
        None => return Err("No agent could be made.".into()),
    };
    let id = agent.get("id").and_then(Value::as_str);
    let id = id.ok_or("The server made an agent without an id.")?;
    let scope = Scope::new(Some(id), None);
    services.agents.note_made(&scope, agent.clone());
    Ok((scope, model))
}

/// The model that the parent talks to.
async fn parent_model(services: &Services, api: &Client, parent: &Scope) -> Option<String> {
    let conversation = async {
        if parent.is_default() {
            return None;
        }
        api.conversation(&parent.conversation_id).await.ok()
    };
    let (agent, conversation) = tokio::join!(services.agents.agent(api, parent), conversation);
    let model = CarriedModel::of(agent.as_deref(), conversation.as_ref());
    model.handle().map(String::from)
}

/// The handle of a model that may be given by a short name.
async fn handle_of(services: &Services, api: &Client, model: &str) -> String {
    if model.contains('/') {
        return model.to_owned();
    }
    let catalogue = services.models.catalogue(api, false).await;
    let row = catalogue.iter().find(|row| row["id"] == model);
    let handle = row.and_then(crate::api::models::handle);
    handle.map_or_else(|| format!("letta/{model}"), String::from)
}

fn acting(services: &Services, parent: &Parent) -> Client {
    services.api.acting_as(parent.acting_user_id.as_deref())
}

impl Prepared {
    /// The settings of its turns.
    pub(super) fn execution(&self) -> ExecutionSettings {
        ExecutionSettings {
            allowed_tools: self.kind.tools.clone().unwrap_or_default(),
            disallowed_tools: self.parent.disallowed_tools.clone(),
            tools: self.kind.tools.clone(),
            max_turns: self.wanted.max_turns,
            preload_skills: self.kind.skills.clone(),
            is_subagent: true,
            parent_agent_id: self.parent.scope.agent_id.as_deref().map(String::from),
            ..ExecutionSettings::default()
        }
    }

    /// The message that gives the task. A copy works with the toolset of its parent.
    pub(super) fn input(&self, services: &Services, child: &Scope) -> CreateMessage {
        let message = json!({
            "role": "user",
            "content": [
                {"type": "text", "text": self.reminder(child)},
                {"type": "text", "text": self.wanted.prompt},
            ],
            "client_message_id": self.wanted.client_message_id.clone()
                .unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        });
        let messages = message.as_object().cloned().into_iter().collect();
        let server = services.api.base_url().as_str();
        let toolset = self.fork.as_ref().and_then(|_| {
            services
                .settings
                .toolset_preference(&self.parent.scope, server)
        });
        CreateMessage {
            messages,
            options: InputOptions {
                toolset_base: toolset,
                acting_user_id: self.parent.acting_user_id.as_deref().map(String::from),
                ..InputOptions::default()
            },
        }
    }

    /// What the subagent must know besides the task.
    fn reminder(&self, child: &Scope) -> String {
        let parent = &self.parent.scope;
        let agent = parent.agent_id.as_deref().unwrap_or_default();
        let from = format!(
            "agent {agent} in its conversation {}",
            parent.conversation_id
        );
        let last = "Only your last message goes back to it: make it the whole report.";
        let text = if self.fork.is_some() {
            format!(
                "You are a copy of this conversation, made for one task; you are not the agent that talks to the user ({from}). Everything above is there for you to know, not to finish: leave what was under way alone, and do only the task that follows. You cannot ask questions. {last}"
            )
        } else if self.parent.scope.agent_id == child.agent_id || !self.deploys() {
            format!("This task comes from {from}. You cannot ask questions. {last}")
        } else {
            format!(
                "This task comes from {from}, which has put you to work as a subagent. Your tools work on the machine and in the files of its user. You cannot ask questions. {last}"
            )
        };
        format!("<system-reminder>{text}</system-reminder>")
    }

    fn deploys(&self) -> bool {
        self.wanted.agent_id.is_some() || self.wanted.conversation_id.is_some()
    }
}

/// Where people find the conversation of a subagent.
pub(super) fn agent_url(child: &Scope) -> Option<Arc<str>> {
    let agent = child.agent_id.as_ref()?;
    if agent.starts_with("agent-local-") {
        return Some(Arc::clone(agent));
    }
    let conversation = &child.conversation_id;
    let more = if child.is_default() {
        String::new()
    } else {
        format!("?conversation={conversation}")
    };
    Some(format!("https://chat.letta.com/chat/{agent}{more}").into())
}
