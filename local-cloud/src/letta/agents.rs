//! `/v1/agents…`: agents, their secrets, and who serves them. Spec 03 §2, §14.4.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::letta::store::{Agent, World, not_found};
use crate::letta::{conversations, default_key, schedules};
use crate::reply;
use crate::server::Cloud;

/// Everything under `/v1/agents` that is not about sending messages.
pub(crate) fn dispatch(
    cloud: &Cloud,
    method: &str,
    path: &[&str],
    query: &[(String, String)],
    body: &Value,
) -> Response {
    match (method, path) {
        ("GET", []) => list(cloud, query),
        ("POST", []) => {
            let id = cloud.store.create_agent(body);
            read(cloud, &id, StatusCode::OK)
        }
        (_, [agent, ..]) if !exists(cloud, agent) => *not_found("Agent", agent),
        ("GET", [agent]) => read(cloud, agent, StatusCode::OK),
        ("PATCH", [agent]) => {
            patch(&mut cloud.store.world(), agent, body);
            read(cloud, agent, StatusCode::OK)
        }
        ("DELETE", [agent]) => {
            let mut world = cloud.store.world();
            world.agents.remove(*agent);
            world
                .conversations
                .retain(|_, conversation| conversation.agent_id != *agent);
            reply::ok(&json!({"message": "Agent deleted"}))
        }
        ("GET", [agent, "secrets"]) => {
            let world = cloud.store.world();
            let secrets = world.agents.get(*agent).map(secrets_of).unwrap_or_default();
            reply::ok(&json!(secrets))
        }
        ("PATCH" | "PUT" | "POST", [agent, "secrets"]) => {
            patch(&mut cloud.store.world(), agent, &json!({"secrets": body}));
            reply::ok(&json!({}))
        }
        ("PATCH", [agent, "reset-messages"]) => {
            let mut world = cloud.store.world();
            if let Some(conversation) = world.conversations.get_mut(&default_key(agent)) {
                conversation.leave_context();
            }
            drop(world);
            read(cloud, agent, StatusCode::OK)
        }
        ("GET", [agent, "messages"]) => {
            let conversation = reply::get(query, "conversation_id").unwrap_or("default");
            match cloud.store.resolve(conversation, Some(agent)) {
                Ok(key) => conversations::messages(cloud, &key, query),
                Err(response) => *response,
            }
        }
        ("GET", [_, "mcp-servers"] | [_, "mcp-servers", _, "tools"]) => reply::ok(&json!([])),
        ("GET", [agent, "runtime-status"]) => runtime_status(cloud, agent, query),
        (_, [agent, "schedule", rest @ ..]) => {
            schedules::dispatch(cloud, method, agent, rest, body)
        }
        _ => reply::detail(404, "Not Found"),
    }
}

fn exists(cloud: &Cloud, agent: &str) -> bool {
    let mut world = cloud.store.world();
    cloud.store.ensure_agent(&mut world, agent)
}

fn read(cloud: &Cloud, agent: &str, status: StatusCode) -> Response {
    let world = cloud.store.world();
    match world.agents.get(agent) {
        Some(found) => reply::json(status, &show(&world, agent, found)),
        None => *not_found("Agent", agent),
    }
}

/// The agent as the API shows it.
fn show(world: &World, id: &str, agent: &Agent) -> Value {
    let ids = world
        .conversations
        .get(&default_key(id))
        .map(|c| json!(c.in_context()));
    let ids = ids.unwrap_or_else(|| json!([]));
    let mut fields = agent.fields.clone();
    fields.insert("message_ids".into(), ids.clone());
    fields.insert("in_context_message_ids".into(), ids);
    fields.insert("secrets".into(), json!(secrets_of(agent)));
    Value::Object(fields)
}

fn secrets_of(agent: &Agent) -> Vec<Value> {
    agent
        .secrets
        .iter()
        .map(|(key, value)| json!({"key": key, "value": value}))
        .collect()
}

fn patch(world: &mut World, agent: &str, body: &Value) {
    let Some(agent) = world.agents.get_mut(agent) else {
        return;
    };
    for (key, value) in body.as_object().into_iter().flatten() {
        if key == "secrets" {
            agent.secrets = secrets_from(value);
        } else if key != "id" {
            agent.fields.insert(key.clone(), value.clone());
        }
    }
    agent
        .fields
        .insert("updated_at".into(), json!(crate::now()));
}

/// A whole map of secrets, or a list of `{key, value}`.
fn secrets_from(value: &Value) -> std::collections::BTreeMap<String, String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), text(v))).collect(),
        Value::Array(list) => list
            .iter()
            .map(|e| (text(&e["key"]), text(&e["value"])))
            .collect(),
        _ => Default::default(),
    }
}

fn list(cloud: &Cloud, query: &[(String, String)]) -> Response {
    let world = cloud.store.world();
    let tags: Vec<&str> = query
        .iter()
        .filter(|(key, _)| key == "tags")
        .map(|(_, tag)| tag.as_str())
        .collect();
    let fits = |fields: &Map<String, Value>| {
        let has = |tag: &&str| {
            fields["tags"]
                .as_array()
                .is_some_and(|all| all.iter().any(|t| t == *tag))
        };
        reply::get(query, "name").is_none_or(|name| fields["name"] == name) && tags.iter().all(has)
    };
    let mut agents: Vec<_> = world
        .agents
        .iter()
        .filter(|(_, a)| fits(&a.fields))
        .collect();
    agents.sort_by_key(|(_, agent)| std::cmp::Reverse(agent.order));
    let limit = reply::get(query, "limit")
        .and_then(|n| n.parse().ok())
        .unwrap_or(50);
    let shown = agents
        .into_iter()
        .take(limit)
        .map(|(id, agent)| show(&world, id, agent));
    reply::ok(&Value::Array(shown.collect()))
}

/// `GET …/runtime-status?conversation_ids=a,b`: the harness of a conversation is
/// the connection that last got a frame for it, else the newest registered one.
pub(crate) fn runtime_status(cloud: &Cloud, agent: &str, query: &[(String, String)]) -> Response {
    let newest = cloud.devices.read(|all| {
        all.last()
            .map(|c| (c.id.clone(), c.device_id.clone(), c.name.clone()))
    });
    let known: Vec<String> = cloud
        .devices
        .read(|all| all.iter().map(|c| c.id.clone()).collect());
    let world = cloud.store.world();
    let statuses: Vec<Value> = reply::get(query, "conversation_ids")
        .unwrap_or_default()
        .split(',')
        .filter(|id| !id.is_empty())
        .map(|id| {
            let key = if id == "default" {
                default_key(agent)
            } else {
                id.to_owned()
            };
            let conversation = world.conversations.get(&key);
            if let Some(status) = conversation.and_then(|c| c.status_override.clone()) {
                return status;
            }
            let owner = conversation
                .and_then(|c| c.connection_id.clone())
                .filter(|id| known.contains(id))
                .or_else(|| newest.as_ref().map(|(id, ..)| id.clone()));
            let busy = conversation.is_some_and(|c| c.active.is_some());
            json!({
                "conversation_id": id, "state": if busy { "RUNNING" } else { "IDLE" },
                "has_conflicting_listeners": false,
                "active_harness": owner.map(|id| json!({"connection_id": id})),
            })
        })
        .collect();
    reply::ok(&json!({"statuses": statuses}))
}
