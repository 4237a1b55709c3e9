//! `POST /v1/conversations/{id}/messages/enqueue`: one agent writes to another.
//! The message goes to the newest device, as an input like a person's; a real
//! cloud would look for the conversation's own. Spec 04 §7.19.

use axum::response::Response;
use serde_json::{Value, json};

use crate::reply;
use crate::server::Cloud;

/// Takes a message and gives a receipt for it.
pub(crate) fn post(cloud: &Cloud, conversation: &str, body: &Value) -> Response {
    if let Err(response) = cloud.store.resolve(conversation, body["agent_id"].as_str()) {
        return *response;
    }
    let (Some(id), true) = (
        body["client_message_id"].as_str(),
        body["messages"].is_array(),
    ) else {
        return reply::detail(422, "client_message_id and messages are required");
    };
    let Some(link) = cloud.devices.newest_open() else {
        return reply::detail(409, "No computer is connected");
    };
    let frame = json!({
        "type": "input", "request_id": format!("enqueue-{id}"),
        "runtime": {"agent_id": body["agent_id"], "conversation_id": conversation},
        "payload": {"kind": "create_message", "messages": body["messages"]},
    });
    cloud.announce_scope(&link.connection_id, &frame);
    link.send_text(frame.to_string());
    let number = crate::short_id();
    reply::ok(&json!({
        "client_message_id": id, "workflow_id": format!("workflow-{number}"),
        "super_run_id": format!("super-run-{number}"),
    }))
}
