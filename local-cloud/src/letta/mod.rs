//! The part of the Letta API that a listener and its clients use (03 §2), over a
//! store that remembers. Routes are matched on path segments, so a trailing
//! slash never matters.

pub(crate) mod agents;
pub(crate) mod conversations;
mod enqueue;
pub(crate) mod messages;
pub(crate) mod runs;
pub(crate) mod schedules;
pub(crate) mod store;
pub(crate) mod tail;

use std::sync::Arc;

use axum::http::Uri;
use axum::response::Response;
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::net::Peer;
use crate::record::Recorded;
use crate::reply;
use crate::server::Cloud;

/// Key of an agent's own default conversation in the store.
pub(crate) fn default_key(agent: &str) -> String {
    format!("default:{agent}")
}

/// Answers one API request; `fault` is what shall go wrong with it.
pub(crate) async fn dispatch(
    cloud: &Arc<Cloud>,
    peer: &Peer,
    uri: &Uri,
    request: &Arc<Recorded>,
    fault: Option<Fault>,
) -> Response {
    let segments = reply::segments(uri.path());
    let path: Vec<&str> = segments.iter().map(String::as_str).skip(1).collect();
    let query = reply::query(uri);
    let body = request.json();
    match (request.method.as_str(), path.as_slice()) {
        ("GET", ["health"]) => reply::ok(&json!({"version": "0.16.8", "status": "ok"})),
        ("POST", ["conversations", conv, "messages"]) => {
            messages::post(cloud, peer, conv, body, fault, true).await
        }
        ("POST", ["conversations", conv, "messages", "enqueue"]) => {
            enqueue::post(cloud, conv, &body)
        }
        ("POST", ["agents", agent, "messages", "stream"]) => {
            messages::post(cloud, peer, agent, body, fault, true).await
        }
        ("POST", ["agents", agent, "messages"]) => {
            messages::post(cloud, peer, agent, body, fault, false).await
        }
        ("POST", ["agents", agent, "messages", "cancel"]) => {
            runs::cancel_of_agent(cloud, agent, &body).await
        }
        ("POST", ["conversations", conv, "cancel"]) => {
            let agent = body["agent_id"].as_str().or(reply::get(&query, "agent_id"));
            match cloud.store.resolve(conv, agent) {
                Ok(key) => runs::cancel_in(cloud, &key).await,
                Err(response) => *response,
            }
        }
        ("POST", ["conversations", conv, "stream"]) => {
            match cloud.store.resolve(conv, body["agent_id"].as_str()) {
                Ok(key) => runs::resume_in(cloud, &key, &body, fault),
                Err(response) => *response,
            }
        }
        ("GET", ["runs"]) => runs::list(cloud, &query),
        ("GET", ["runs", id]) => runs::get(cloud, id),
        ("POST", ["runs", id, "stream"]) => runs::resume(cloud, id, &body, fault),
        (_, ["agents", ..]) => agents::dispatch(cloud, &request.method, &path[1..], &query, &body),
        (_, ["conversations", ..]) => {
            conversations::dispatch(cloud, &request.method, &path[1..], &query, &body)
        }
        ("GET", ["messages", id]) => conversations::variants(cloud, id),
        ("GET", ["models", "catalog"]) => reply::ok(&json!({"models": cloud.catalog()})),
        ("GET", ["models"]) => reply::ok(&json!([cloud.model_row()])),
        ("GET", ["providers"]) => reply::ok(&json!([])),
        ("POST", ["tools", "add-base-tools"]) => reply::ok(&json!([])),
        ("GET", [.., "balance"]) => {
            reply::ok(&json!({"total_balance": 100, "billing_tier": "pro"}))
        }
        _ => reply::detail(404, "Not Found"),
    }
}

/// The text of a message's content, without `<system-reminder>` blocks.
pub(crate) fn text_of(content: &Value) -> String {
    let mut text = String::new();
    match content {
        Value::String(whole) => text.push_str(whole),
        Value::Array(parts) => {
            for part in parts.iter().filter_map(|part| part["text"].as_str()) {
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(part);
            }
        }
        _ => {}
    }
    without_reminders(&text)
}

fn without_reminders(text: &str) -> String {
    const OPEN: &str = "<system-reminder>";
    const CLOSE: &str = "</system-reminder>";
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once(OPEN) {
        kept.push_str(before);
        rest = inside.split_once(CLOSE).map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_are_no_part_of_what_the_user_said() {
        let content = json!([
            {"type": "text", "text": "<system-reminder>\nSAY no\n</system-reminder>"},
            {"type": "text", "text": "SAY yes"}
        ]);
        assert_eq!(text_of(&content).trim(), "SAY yes");
        assert_eq!(text_of(&json!("a<system-reminder>b")), "a");
    }
}
