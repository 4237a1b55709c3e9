//! Direct replies: bare frames to the connection that asked (spec 02 §5).

use serde::Serialize;
use serde_json::{Map, Value, json};

/// The protocol level that this build implements (00 §8).
pub const LETTA_CODE_VERSION: &str = "0.32.18";

/// What became of an accepted input (02 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Started {
    /// A turn began.
    Started,
    /// It waits in the queue.
    Queued,
}

/// A reply of type `kind` with `request_id`, `success` and further fields.
pub fn reply(kind: &str, request_id: &str, success: bool, more: Value) -> Value {
    let mut frame = Map::new();
    frame.insert("type".into(), kind.into());
    frame.insert("request_id".into(), request_id.into());
    frame.insert("success".into(), success.into());
    if let Value::Object(more) = more {
        frame.extend(more);
    }
    Value::Object(frame)
}

/// `input_accepted` for an input that was taken (02 §5.3). `disposition` is
/// absent for approval answers; `error` tells of a rule that could not be saved (05 §11).
pub fn input_accepted(
    request_id: &str,
    runtime: &Value,
    disposition: Option<Started>,
    error: Option<&str>,
) -> Value {
    let mut frame = json!({
        "type": "input_accepted", "request_id": request_id, "runtime": runtime, "accepted": true,
    });
    if let Some(disposition) = disposition {
        frame["disposition"] = json!(disposition);
    }
    if let Some(error) = error {
        frame["error"] = error.into();
    }
    frame
}

/// `input_accepted` for an input that was refused.
pub fn input_refused(request_id: &str, runtime: &Value, error: &str) -> Value {
    json!({
        "type": "input_accepted", "request_id": request_id, "runtime": runtime,
        "accepted": false, "error": error,
    })
}

/// The answer to a command whose shape is wrong (00 §8, 02 §2.1).
pub fn malformed(
    response: Option<&str>,
    request_id: &str,
    runtime: Option<&Value>,
    error: &str,
) -> Value {
    match response {
        Some("input_accepted") => input_refused(request_id, runtime.unwrap_or(&Value::Null), error),
        Some(kind) => {
            let mut more = Map::new();
            if let Some(runtime) = runtime {
                more.insert("runtime".into(), runtime.clone());
            }
            more.extend(nothing(kind));
            more.insert("error".into(), error.into());
            reply(kind, request_id, false, Value::Object(more))
        }
        None => json!({"type": "error", "request_id": request_id, "error": error}),
    }
}

/// What an answer has to hold even when nothing came of its command.
fn nothing(kind: &str) -> Map<String, Value> {
    let fields = match kind {
        "runtime_start_response" => return runtime_start_nothing(),
        "abort_message_response" => json!({"aborted": false}),
        "resume_queue_response" => json!({"resumed": 0}),
        "remove_queue_item_response" => json!({"item_id": ""}),
        "monitor_stop_response" => json!({"process_id": "", "stopped": false}),
        "execute_command_response" => json!({"output": ""}),
        _ => Value::Null,
    };
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// The fields of a `runtime_start_response` that resolved nothing.
pub fn runtime_start_nothing() -> Map<String, Value> {
    let Value::Object(fields) = json!({
        "runtime": null, "agent": null, "conversation": null,
        "created": {"agent": false, "conversation": false},
    }) else {
        return Map::new();
    };
    fields
}

/// `app_server_info_response` (02 §5.1).
pub fn app_server_info(request_id: &str, capabilities: Capabilities) -> Value {
    reply(
        "app_server_info_response",
        request_id,
        true,
        json!({
            "backend": "api",
            "letta_code_version": LETTA_CODE_VERSION,
            "protocol_version": 1,
            "capabilities": capabilities,
        }),
    )
}

/// What this build can do; each flag says only what works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Agent pass-through commands.
    pub agent_management: bool,
    /// Conversation pass-through commands.
    pub conversation_management: bool,
    /// Memory commands.
    pub memory_management: bool,
    /// `runtime_start`.
    pub runtime_start: bool,
    /// `launch_subagent`.
    pub launch_subagent: bool,
    /// `runtime_start.workspace_sandbox`.
    pub runtime_workspace_sandbox: bool,
    /// `runtime_external_tools_update`.
    pub runtime_external_tools_update: bool,
    /// `input.response_format`.
    pub structured_outputs: bool,
    /// Two sockets per client in direct mode; never.
    pub split_channels: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_shape_is_answered_in_the_type_that_its_client_waits_for() {
        let runtime = json!({"agent_id":"a","conversation_id":"c"});
        assert_eq!(
            malformed(Some("sync_response"), "r", Some(&runtime), "e"),
            json!({"type":"sync_response","request_id":"r","success":false,"runtime":runtime,"error":"e"})
        );
        assert_eq!(
            malformed(Some("input_accepted"), "r", None, "e"),
            json!({"type":"input_accepted","request_id":"r","runtime":null,"accepted":false,"error":"e"})
        );
        assert_eq!(
            malformed(None, "r", None, "e"),
            json!({"type":"error","request_id":"r","error":"e"})
        );
        assert_eq!(
            malformed(Some("runtime_start_response"), "r", None, "e"),
            json!({"type":"runtime_start_response","request_id":"r","success":false,"runtime":null,"agent":null,"conversation":null,"created":{"agent":false,"conversation":false},"error":"e"})
        );
    }
}
