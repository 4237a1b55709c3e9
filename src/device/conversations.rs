//! Conversations, passed through to the server (06 §10).

use serde_json::{Map, Value, json};

use super::call::{Answer, Call, Failure};
use crate::protocol::fields::{Fields, ShapeError};

/// Messages of a page when the client names no limit.
const PAGE: u64 = 50;

pub(super) async fn list(mut call: Call) -> Answer {
    let query = call.fields.optional_object("query")?.unwrap_or_default();
    Ok(json!({"conversations": call.services().api.conversations(&query).await?}))
}

pub(super) async fn retrieve(mut call: Call) -> Answer {
    let id = call.fields.string("conversation_id")?;
    Ok(json!({"conversation": call.services().api.conversation(&id).await?}))
}

pub(super) async fn create(mut call: Call) -> Answer {
    let mut body = call.fields.object("body")?;
    let agent = body.shift_remove("agent_id");
    let agent = agent.as_ref().and_then(Value::as_str);
    let user = call.fields.optional_string("acting_user_id")?;
    let api = call.services().api.acting_as(user.as_deref());
    Ok(json!({"conversation": api.create_conversation(agent, &body).await?}))
}

pub(super) async fn update(mut call: Call) -> Answer {
    let id = call.fields.string("conversation_id")?;
    let body = call.fields.object("body")?;
    let conversation = call.services().api.update_conversation(&id, &body).await?;
    Ok(json!({"conversation": conversation}))
}

pub(super) async fn recompile(mut call: Call) -> Answer {
    let id = call.fields.string("conversation_id")?;
    let mut body = call.fields.optional_object("body")?.unwrap_or_default();
    let mut query = Map::new();
    if let Some(dry_run) = body.shift_remove("dry_run") {
        query.insert("dry_run".into(), dry_run);
    }
    let api = &call.services().api;
    let result = api.recompile_conversation(&id, &query, &body).await?;
    Ok(json!({"result": result}))
}

pub(super) async fn fork(mut call: Call) -> Answer {
    let id = call.fields.string("conversation_id")?;
    let body = call.fields.optional_object("body")?.unwrap_or_default();
    let query = fork_query(Fields::new(body))?;
    let user = call.fields.optional_string("acting_user_id")?;
    let api = call.services().api.acting_as(user.as_deref());
    let conversation = api
        .fork_conversation(&id, &query)
        .await
        .map_err(Failure::of_raw)?;
    Ok(json!({"conversation": conversation}))
}

fn fork_query(mut body: Fields) -> Result<Map<String, Value>, ShapeError> {
    let mut query = Map::new();
    for name in ["agent_id", "message_id"] {
        if let Some(id) = body.optional_string(name)? {
            if id.is_empty() {
                return Err(ShapeError::new(
                    format!("body.{name}"),
                    "a non-empty string",
                ));
            }
            query.insert(name.into(), id.into());
        }
    }
    if let Some(hidden) = body.optional_bool("hidden")? {
        query.insert("hidden".into(), hidden.into());
    }
    Ok(query)
}

pub(super) async fn compact(mut call: Call) -> Answer {
    let id = call.fields.string("conversation_id")?;
    let body = call.fields.optional_object("body")?.unwrap_or_default();
    let compaction = call.services().api.compact_conversation(&id, &body).await?;
    Ok(json!({"compaction": compaction}))
}

/// `conversation_messages_list`: clients page with `before` = older, the server
/// the other way round when it sorts the newest first.
pub(super) async fn messages(mut call: Call) -> Answer {
    let id = call.fields.string("conversation_id")?;
    let query = call.fields.optional_object("query")?.unwrap_or_default();
    let services = call.services();
    let (api, cloud) = (&services.api, services.cloud);
    let limit = query.get("limit").and_then(Value::as_u64).unwrap_or(PAGE);
    let newest_first = query.get("order").and_then(Value::as_str) != Some("asc");
    let page = api
        .conversation_messages(&id, &server_query(&query, newest_first, cloud))
        .await?;
    let mut messages = match page {
        Value::Array(messages) => messages,
        _ => Vec::new(),
    };
    let count = messages.len() as u64;
    messages.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let oldest = if newest_first {
        messages.last()
    } else {
        messages.first()
    };
    let next_before = oldest.and_then(|message| message.get("id")).cloned();
    let has_more = match (&next_before, count.cmp(&limit)) {
        (_, std::cmp::Ordering::Less) | (None, _) => false,
        (_, std::cmp::Ordering::Greater) => true,
        (Some(oldest), std::cmp::Ordering::Equal) => {
            let mut probe = query.clone();
            probe.shift_remove("after");
            probe.insert("before".into(), oldest.clone());
            probe.insert("order".into(), "desc".into());
            probe.insert("limit".into(), 1.into());
            let older = api
                .conversation_messages(&id, &server_query(&probe, true, cloud))
                .await?;
            older.as_array().is_some_and(|older| !older.is_empty())
        }
    };
    Ok(json!({
        "messages": messages, "next_before": next_before, "has_more": has_more,
    }))
}

/// The query as the server reads it. To Letta Cloud `after` is what follows in the
/// order of the page; to a server of one's own it is what is newer.
fn server_query(query: &Map<String, Value>, newest_first: bool, cloud: bool) -> Map<String, Value> {
    let mut query = query.clone();
    query
        .entry("order")
        .or_insert_with(|| json!(if newest_first { "desc" } else { "asc" }));
    if newest_first && cloud {
        let (before, after) = (query.shift_remove("before"), query.shift_remove("after"));
        if let Some(before) = before {
            query.insert("after".into(), before);
        }
        if let Some(after) = after {
            query.insert("before".into(), after);
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_and_after_change_places_for_letta_cloud_when_the_newest_come_first() {
        let asked = |query: Value, newest_first, cloud| {
            Value::Object(server_query(
                query.as_object().unwrap(),
                newest_first,
                cloud,
            ))
        };
        let of = |query, newest_first| asked(query, newest_first, true);
        assert_eq!(
            asked(json!({"before":"m1"}), true, false),
            json!({"before":"m1","order":"desc"})
        );
        assert_eq!(
            of(json!({"before":"m1","limit":5}), true),
            json!({"limit":5,"order":"desc","after":"m1"})
        );
        assert_eq!(
            of(json!({"before":"a","after":"b"}), true),
            json!({"order":"desc","after":"a","before":"b"})
        );
        assert_eq!(
            of(json!({"before":"m1","order":"asc"}), false),
            json!({"before":"m1","order":"asc"})
        );
    }
}
