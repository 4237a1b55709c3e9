//! `runtime_start`: find or create the agent and the conversation (spec 02 §5.2).

use serde_json::{Map, Value, json};

use super::workspace;
use crate::conversation::Services;
use crate::conversation::mailbox::Adopt;
use crate::protocol::command::{ExternalToolGroup, RuntimeStart};
use crate::protocol::reply::runtime_start_nothing;
use crate::protocol::{ConnectionId, PermissionMode, Scope};
use crate::skills::Source;

/// A scope with what its conversation must apply.
pub(super) struct Resolved {
    pub(super) from: ConnectionId,
    pub(super) request_id: String,
    pub(super) scope: Scope,
    /// The connection's tools for the scope; empty removes them.
    pub(super) external_tools: Vec<ExternalToolGroup>,
    pub(super) adopt: Adopt,
}

/// Server tools of a new agent whose body names none.
const DEFAULT_TOOLS: [&str; 2] = ["web_search", "fetch_webpage"];

/// Summary prefixes that a tag makes redundant.
const PREFIXES: [(&str, &str); 4] = [
    ("channel:discord", "[discord] "),
    ("channel:slack", "[slack] "),
    ("channel:telegram", "[telegram] "),
    ("origin:schedule", "[schedule] "),
];

/// Resolves the scope; the error holds the fields of the failed response.
pub(super) async fn resolve(
    services: &Services,
    from: ConnectionId,
    request_id: String,
    start: RuntimeStart,
) -> Result<Resolved, Map<String, Value>> {
    let mut found = runtime_start_nothing();
    let mode = match check(&start) {
        Ok(mode) => mode,
        Err(error) => return Err(failed(found, error)),
    };
    let (workspace, cwd) = match workspace::wanted(&services.background, &start).await {
        Ok(None) => (None, start.cwd.clone()),
        Ok(Some(wanted)) => (Some(wanted.workspace), Some(Some(wanted.cwd))),
        Err(error) => return Err(failed(found, error)),
    };
    match find(services, &start, &mut found).await {
        Ok(scope) => Ok(Resolved {
            from,
            request_id,
            scope,
            external_tools: start.external_tools.unwrap_or_default(),
            adopt: Adopt {
                response: found,
                cwd,
                workspace,
                in_use: false,
                mode,
                execution_settings: start.execution_settings,
                skill_sources: start.skill_sources.map(|names| {
                    names
                        .iter()
                        .filter_map(|name| Source::named(name))
                        .collect()
                }),
                recover_approvals: start.recover_approvals && start.teleport_id.is_none(),
                force_device_status: start.force_device_status,
                wait_for_replay: start.wait_for_replay,
            },
        }),
        Err(error) => Err(failed(found, error)),
    }
}

fn failed(mut fields: Map<String, Value>, error: String) -> Map<String, Value> {
    fields.insert("error".into(), error.into());
    fields
}

/// The checks that need no server.
fn check(start: &RuntimeStart) -> Result<Option<PermissionMode>, String> {
    let fail = |text: &str| Err(text.to_owned());
    if start.agent_id.as_deref() == Some("") {
        return fail("runtime_start agent_id must be a non-empty string");
    }
    if start.conversation_id.as_deref() == Some("") {
        return fail("runtime_start conversation_id must be a non-empty string");
    }
    if start.agent_id.is_some() && start.create_agent.is_some() {
        return fail("runtime_start agent_id cannot be combined with create_agent");
    }
    if start.conversation_id.is_some() && start.create_conversation.is_some() {
        return fail("runtime_start conversation_id cannot be combined with create_conversation");
    }
    let has_agent = start.agent_id.is_some() || start.create_agent.is_some();
    if !has_agent && start.conversation_id.is_none() && start.create_conversation.is_none() {
        return fail("runtime_start requires an agent or conversation");
    }
    if start.conversation_id.as_deref() == Some("default") && !has_agent {
        return fail("Agent-free runtimes require a persisted conversation");
    }
    if let Some(body) = start.create_conversation.as_ref().filter(|_| !has_agent) {
        let body = body.get("body");
        let text = |key: &str| body.and_then(|body| body.get(key)).and_then(Value::as_str);
        if text("model").is_none_or(str::is_empty) || text("system").is_none() {
            return fail("Agent-free conversation creation requires body.model and body.system");
        }
    }
    match start.mode.as_deref() {
        None => Ok(None),
        Some(name) => match PermissionMode::parse(name) {
            Some(mode) => Ok(Some(mode)),
            None => Err(format!("Unsupported permission mode: {name}")),
        },
    }
}

/// Fetches or creates; `found` collects what the response shows.
async fn find(
    services: &Services,
    start: &RuntimeStart,
    found: &mut Map<String, Value>,
) -> Result<Scope, String> {
    let api = &services.api;
    let text = |error: crate::api::ApiError| error.to_string();
    let mut created_agent = false;
    let agent = match (&start.agent_id, &start.create_agent) {
        (Some(id), _) => Some((*api.agent(id).await.map_err(text)?).clone()),
        (None, Some(create)) => {
            created_agent = true;
            let body = create
                .get("body")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default();
            Some(
                api.create_agent(&Value::Object(with_tools(body)))
                    .await
                    .map_err(text)?,
            )
        }
        (None, None) => None,
    };
    let agent_id = agent
        .as_ref()
        .and_then(|agent| agent.get("id"))
        .and_then(Value::as_str);
    let agent_id = agent_id.map(String::from);
    found.insert("agent".into(), agent.unwrap_or(Value::Null));
    found.insert(
        "created".into(),
        json!({"agent": created_agent, "conversation": false}),
    );

    let wanted = start.conversation_id.as_deref();
    let mut conversation = match wanted {
        Some("default") => synthesised(agent_id.as_deref()),
        Some(id) => api.conversation(id).await.map_err(text)?,
        None => {
            let body = start
                .create_conversation
                .as_ref()
                .and_then(|create| create.get("body"));
            let mut body = body.and_then(Value::as_object).cloned().unwrap_or_default();
            body.remove("agent_id");
            let created = api
                .create_conversation(agent_id.as_deref(), &body)
                .await
                .map_err(text)?;
            found.insert(
                "created".into(),
                json!({"agent": created_agent, "conversation": true}),
            );
            created
        }
    };
    let id = conversation
        .get("id")
        .and_then(Value::as_str)
        .unwrap_or("default")
        .to_owned();
    let owner = conversation.get("agent_id").and_then(Value::as_str);
    match (owner, agent_id.as_deref()) {
        (Some(owner), Some(agent)) if owner != agent => {
            return Err(format!("Conversation {id} belongs to {owner}, not {agent}"));
        }
        (Some(_), None) => {
            return Err(format!(
                "Conversation {id} is agent-backed; provide agent_id"
            ));
        }
        _ => {}
    }
    if id != "default"
        && let Some(patch) = tag_patch(&conversation, &start.conversation_source_tags)
    {
        conversation = api.update_conversation(&id, &patch).await.map_err(text)?;
    }
    found.insert("conversation".into(), conversation);
    Ok(Scope::new(agent_id.as_deref(), Some(&id)))
}

fn with_tools(mut body: Map<String, Value>) -> Map<String, Value> {
    let named = ["tools", "include_base_tools", "include_base_tool_rules"];
    if !named.iter().any(|key| body.contains_key(*key)) {
        body.insert("tools".into(), json!(DEFAULT_TOOLS));
        body.insert("include_base_tools".into(), false.into());
        body.insert("include_base_tool_rules".into(), false.into());
    }
    body
}

fn synthesised(agent_id: Option<&str>) -> Value {
    let now = crate::protocol::time::iso_millis(std::time::SystemTime::now());
    json!({
        "id": "default", "agent_id": agent_id, "archived": false, "archived_at": null,
        "created_at": now, "updated_at": now, "last_message_at": null, "summary": null,
        "in_context_message_ids": [],
    })
}

/// What must change so that the conversation carries its source tags.
fn tag_patch(conversation: &Value, wanted: &[String]) -> Option<Value> {
    let mut tags: Vec<String> = conversation
        .get("tags")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|tag| tag.as_str().map(String::from))
        .collect();
    let before = tags.len();
    for tag in wanted {
        if !tags.contains(tag) {
            tags.push(tag.clone());
        }
    }
    let mut patch = Map::new();
    if tags.len() > before {
        patch.insert("tags".into(), json!(tags));
    }
    let summary = conversation
        .get("summary")
        .and_then(Value::as_str)
        .unwrap_or_default();
    for (tag, prefix) in PREFIXES {
        let start = summary.get(..prefix.len()).unwrap_or_default();
        if wanted.iter().any(|given| given == tag) && start.eq_ignore_ascii_case(prefix) {
            patch.insert("summary".into(), summary[prefix.len()..].into());
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s02_17_row12_every_conflict_has_its_own_words() {
        let object = || Some(Map::new());
        let text = |id: &str| Some(id.to_owned());
        let start = RuntimeStart::default;
        for (start, error) in [
            (
                RuntimeStart {
                    agent_id: text(""),
                    ..start()
                },
                "runtime_start agent_id must be a non-empty string",
            ),
            (
                RuntimeStart {
                    conversation_id: text(""),
                    ..start()
                },
                "runtime_start conversation_id must be a non-empty string",
            ),
            (
                RuntimeStart {
                    agent_id: text("a"),
                    create_agent: object(),
                    ..start()
                },
                "runtime_start agent_id cannot be combined with create_agent",
            ),
            (start(), "runtime_start requires an agent or conversation"),
            (
                RuntimeStart {
                    conversation_id: text("c"),
                    create_conversation: object(),
                    ..start()
                },
                "runtime_start conversation_id cannot be combined with create_conversation",
            ),
            (
                RuntimeStart {
                    conversation_id: text("default"),
                    ..start()
                },
                "Agent-free runtimes require a persisted conversation",
            ),
            (
                RuntimeStart {
                    create_conversation: object(),
                    ..start()
                },
                "Agent-free conversation creation requires body.model and body.system",
            ),
            (
                RuntimeStart {
                    agent_id: text("a"),
                    mode: text("nope"),
                    ..start()
                },
                "Unsupported permission mode: nope",
            ),
        ] {
            assert_eq!(check(&start).unwrap_err(), error);
        }
        let plan = RuntimeStart {
            agent_id: text("a"),
            mode: text("yolo"),
            ..start()
        };
        assert_eq!(check(&plan), Ok(Some(PermissionMode::Unrestricted)));
    }

    #[test]
    fn source_tags_are_added_once_and_make_their_prefix_redundant() {
        let conversation = json!({"tags":["x"],"summary":"[Slack] hello"});
        let patch = tag_patch(&conversation, &["channel:slack".into(), "x".into()]).unwrap();
        assert_eq!(
            patch,
            json!({"tags":["x","channel:slack"],"summary":"hello"})
        );
        assert_eq!(tag_patch(&json!({"tags":["x"]}), &["x".into()]), None);
    }
}
