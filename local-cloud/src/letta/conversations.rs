//! `/v1/conversations…` and `/v1/messages/{id}`: conversations and their history.
//! Spec 03 §2, 06 §10.

use axum::response::Response;
use serde_json::{Value, json};

use crate::letta::store::{Conversation, not_found};
use crate::reply;
use crate::server::Cloud;

/// Everything under `/v1/conversations` that is not about sending messages.
pub(crate) fn dispatch(
    cloud: &Cloud,
    method: &str,
    path: &[&str],
    query: &[(String, String)],
    body: &Value,
) -> Response {
    match (method, path) {
        ("GET", []) => return list(cloud, query),
        ("POST", []) => return create(cloud, query, body),
        ("GET", ["default"]) => return reply::detail(422, "default is not a conversation id"),
        _ => {}
    }
    let Some(segment) = path.first() else {
        return reply::detail(404, "Not Found");
    };
    let agent = reply::get(query, "agent_id").or(body["agent_id"].as_str());
    let key = match cloud.store.resolve(segment, agent) {
        Ok(key) => key,
        Err(response) => return *response,
    };
    match (method, path.get(1..).unwrap_or_default()) {
        ("GET", []) => read(cloud, &key),
        ("PATCH", []) => {
            if let Some(conversation) = cloud.store.world().conversations.get_mut(&key) {
                for (name, value) in body.as_object().into_iter().flatten() {
                    if name != "id" && name != "agent_id" {
                        conversation.fields.insert(name.clone(), value.clone());
                    }
                }
                conversation
                    .fields
                    .insert("updated_at".into(), json!(crate::now()));
            }
            read(cloud, &key)
        }
        ("DELETE", []) => {
            cloud.store.world().conversations.remove(&key);
            reply::ok(&json!({"message": "Conversation deleted"}))
        }
        ("GET", ["messages"]) => messages(cloud, &key, query),
        ("POST", ["fork"]) => fork(cloud, &key, reply::get(query, "message_id")),
        ("POST", ["recompile"]) => reply::ok(&json!("")),
        ("POST", ["compact"]) => {
            let count = cloud
                .store
                .world()
                .conversations
                .get(&key)
                .map(|c| c.in_context().len());
            reply::ok(
                &json!({"num_messages_before": count, "num_messages_after": count,
                "summary": "Nothing was compacted."}),
            )
        }
        ("POST", ["summarize"]) => reply::ok(&json!({"summary": "A local conversation"})),
        _ => reply::detail(404, "Not Found"),
    }
}

fn show(conversation: &Conversation) -> Value {
    let mut fields = conversation.fields.clone();
    fields.insert(
        "in_context_message_ids".into(),
        json!(conversation.in_context()),
    );
    Value::Object(fields)
}

fn read(cloud: &Cloud, key: &str) -> Response {
    match cloud.store.world().conversations.get(key) {
        Some(conversation) => reply::ok(&show(conversation)),
        None => *not_found("Conversation", key),
    }
}

fn create(cloud: &Cloud, query: &[(String, String)], body: &Value) -> Response {
    let agent = reply::get(query, "agent_id")
        .or(body["agent_id"].as_str())
        .unwrap_or_default();
    let mut world = cloud.store.world();
    if !cloud.store.ensure_agent(&mut world, agent) {
        return *not_found("Agent", agent);
    }
    let id = format!("conv-{}", uuid::Uuid::new_v4());
    world.add_conversation(&id, &id, agent, body);
    drop(world);
    read(cloud, &id)
}

fn list(cloud: &Cloud, query: &[(String, String)]) -> Response {
    let world = cloud.store.world();
    let mut found: Vec<&Conversation> = world
        .conversations
        .values()
        .filter(|c| c.id != "default")
        .filter(|c| reply::get(query, "agent_id").is_none_or(|agent| agent == c.agent_id))
        .collect();
    found.sort_by_key(|c| std::cmp::Reverse(c.order));
    let limit = reply::get(query, "limit")
        .and_then(|n| n.parse().ok())
        .unwrap_or(50);
    reply::ok(&Value::Array(
        found.into_iter().take(limit).map(show).collect(),
    ))
}

fn fork(cloud: &Cloud, key: &str, upto: Option<&str>) -> Response {
    let mut world = cloud.store.world();
    let Some(source) = world.conversations.get(key) else {
        return *not_found("Conversation", key);
    };
    let (agent, body, mut ids) = (
        source.agent_id.clone(),
        show(source),
        source.message_ids.clone(),
    );
    if let Some(at) = upto.and_then(|id| ids.iter().position(|known| known == source_id(id))) {
        ids.truncate(at + 1);
    }
    let id = format!("conv-{}", uuid::Uuid::new_v4());
    world.add_conversation(&id, &id, &agent, &body);
    if let Some(fork) = world.conversations.get_mut(&id) {
        fork.fields.remove("in_context_message_ids");
        fork.message_ids = ids;
    }
    drop(world);
    read(cloud, &id)
}

/// A message id without the suffix that names one of its variants.
fn source_id(id: &str) -> &str {
    id.split(':').next().unwrap_or(id)
}

/// `GET /v1/messages/{id}`: all messages made from one source message.
pub(crate) fn variants(cloud: &Cloud, id: &str) -> Response {
    match cloud.store.world().messages.get(source_id(id)) {
        Some(variants) => reply::ok(&json!(variants)),
        None => *not_found("Message", id),
    }
}

/// A page of a conversation's messages: `order` (desc), `limit`, `before` and
/// `after` in list order, `include_return_message_types`.
pub(crate) fn messages(cloud: &Cloud, key: &str, query: &[(String, String)]) -> Response {
    let world = cloud.store.world();
    let Some(conversation) = world.conversations.get(key) else {
        return *not_found("Conversation", key);
    };
    let kinds: Vec<&str> = query
        .iter()
        .filter(|(name, _)| name.starts_with("include_return_message_types"))
        .map(|(_, kind)| kind.as_str())
        .collect();
    let kept =
        |message: &&Value| kinds.is_empty() || kinds.iter().any(|k| message["message_type"] == *k);
    let ascending = reply::get(query, "order") == Some("asc");
    let ids = in_order(&conversation.message_ids, ascending);
    let at = |name: &str| {
        let id = source_id(reply::get(query, name)?);
        ids.iter().position(|known| *known == id)
    };
    let start = at("after").map_or(0, |at| at + 1);
    let end = at("before").unwrap_or(ids.len());
    let limit = reply::get(query, "limit")
        .and_then(|n| n.parse().ok())
        .unwrap_or(100);
    let page: Vec<&Value> = ids
        .get(start..end)
        .unwrap_or_default()
        .iter()
        .filter_map(|id| world.messages.get(*id))
        .flat_map(|variants| in_order(variants, ascending))
        .filter(kept)
        .take(limit)
        .collect();
    reply::ok(&json!(page))
}

/// The items, oldest or newest first.
fn in_order<T>(items: &[T], ascending: bool) -> Vec<&T> {
    if ascending {
        items.iter().collect()
    } else {
        items.iter().rev().collect()
    }
}
