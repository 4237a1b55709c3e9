//! From the text of a frame to a command (spec 02 §2).
//!
//! Invariant: nothing is dropped without a trace. Every text becomes one
//! [`Inbound`]; a known command with a wrong shape names the field that is
//! wrong, so that the listener can answer it (00 §8).

mod input;
mod runtime_start;

use serde_json::Value;

use super::catalog::{self, CommandType};
use super::command::{ChangeDeviceState, Command, Sync};
use super::fields::{Fields, ShapeError};
use super::id::Scope;

/// Toolset preferences of the wire (02 §2.2).
pub const TOOLSET_PREFERENCES: [&str; 5] = ["auto", "letta", "none", "default", "codex"];

/// One frame from a client, with what every handler needs.
#[derive(Debug)]
pub struct Inbound {
    /// `type`.
    pub kind: String,
    /// The frame's runtime, when valid: the connection subscribes to it (02 §4.3).
    pub scope: Option<Scope>,
    /// `runtime` as received, echoed in direct responses (02 §2.2).
    pub runtime: Option<Value>,
    /// `request_id` when it is a string.
    pub request_id: Option<String>,
    /// What the frame asks for.
    pub body: Body,
}

/// What a frame turned out to be.
#[derive(Debug)]
pub enum Body {
    /// `pong`, `listener_ready`: consumed by the transport, harmless here.
    Lifecycle,
    /// An accepted command.
    Command(Command),
    /// An `input` with a valid runtime and a bad payload: a notice for the
    /// scope and, with a `request_id`, `input_accepted: false` (02 §2.3).
    InvalidInput(String),
    /// A known command with a wrong shape.
    Malformed {
        /// The type that answers it.
        response: Option<&'static str>,
        /// Which field is wrong.
        error: String,
    },
    /// An unknown `type`.
    Unknown,
}

/// Why a text is no frame at all: logged, never answered (02 §2.1 step 2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAFrame {
    /// The text is not JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// The JSON is no object, or has no `type`.
    #[error("not an object with a type")]
    Shape,
}

/// Reads one frame.
///
/// # Errors
/// When the text is no JSON object with a string `type`.
pub fn parse(text: &str) -> Result<Inbound, NotAFrame> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| NotAFrame::Json(error.to_string()))?;
    let Value::Object(object) = value else {
        return Err(NotAFrame::Shape);
    };
    let Some(Value::String(kind)) = object.get("type") else {
        return Err(NotAFrame::Shape);
    };
    let kind = kind.clone();
    let request_id = object
        .get("request_id")
        .and_then(Value::as_str)
        .map(String::from);
    let runtime = object.get("runtime").cloned();
    let scope = runtime.as_ref().and_then(scope_of);
    let mut inbound = Inbound {
        kind,
        scope,
        runtime,
        request_id,
        body: Body::Unknown,
    };
    inbound.body = match inbound.kind.as_str() {
        "pong" | "listener_ready" => Body::Lifecycle,
        "message" => input::legacy_message(&mut inbound, object),
        kind => match catalog::find(kind) {
            None => Body::Unknown,
            Some(known) => command(known, &inbound, Fields::new(object)),
        },
    };
    Ok(inbound)
}

/// A valid runtime scope (02 §2.2): agent id null or non-empty, conversation non-empty.
fn scope_of(runtime: &Value) -> Option<Scope> {
    let runtime = runtime.as_object()?;
    let agent = match runtime.get("agent_id")? {
        Value::Null => None,
        Value::String(id) if !id.is_empty() => Some(id.as_str()),
        _ => return None,
    };
    let conversation = runtime
        .get("conversation_id")?
        .as_str()
        .filter(|id| !id.is_empty())?;
    Some(Scope::new(agent, Some(conversation)))
}

fn command(known: &CommandType, inbound: &Inbound, mut fields: Fields) -> Body {
    if known.name == "input" {
        return input::input(known, inbound, fields);
    }
    let parsed = match known.name {
        "app_server_info" => fields
            .non_empty("request_id")
            .map(|_| Command::AppServerInfo),
        "runtime_start" => {
            runtime_start::runtime_start(fields).map(|start| Command::RuntimeStart(Box::new(start)))
        }
        "sync" => with_scope(inbound, false).and_then(|()| sync(&mut fields)),
        "abort_message" => with_scope(inbound, false).and_then(|()| {
            optional_request_id(&fields)?;
            Ok(Command::AbortMessage {
                run_id: fields.optional_string("run_id")?,
            })
        }),
        "change_device_state" => {
            with_scope(inbound, false).and_then(|()| change_device_state(fields))
        }
        "resume_queue" => with_scope(inbound, false).and_then(|()| {
            optional_request_id(&fields)?;
            Ok(Command::ResumeQueue)
        }),
        "remove_queue_item" => with_scope(inbound, true).and_then(|()| {
            fields.string("request_id")?;
            Ok(Command::RemoveQueueItem {
                item_id: fields.string("item_id")?,
            })
        }),
        "launch_subagent" => with_scope(inbound, true).and_then(|()| launch_subagent(fields)),
        "runtime_external_tools_update" => runtime_start::external_tools_update(fields),
        "external_tool_call_response" => runtime_start::external_tool_call_response(fields),
        "execute_command" => with_scope(inbound, true).and_then(|()| {
            fields.string("request_id")?;
            Ok(Command::ExecuteCommand {
                command_id: fields.string("command_id")?,
                args: fields.optional_string("args")?,
            })
        }),
        "monitor_stop" => with_scope(inbound, true).and_then(|()| {
            fields.non_empty("request_id")?;
            Ok(Command::MonitorStop {
                process_id: fields.non_empty("process_id")?,
            })
        }),
        _ => Ok(Command::Device {
            kind: known.name,
            body: fields.into_inner(),
        }),
    };
    match parsed {
        Ok(command) => Body::Command(command),
        Err(error) => Body::Malformed {
            response: known.response,
            error: error.to_string(),
        },
    }
}

/// `launch_subagent`: unknown arguments and blank texts are refused (06 §16).
fn launch_subagent(mut fields: Fields) -> Result<Command, ShapeError> {
    const TEXTS: [&str; 8] = [
        "subagent_type",
        "prompt",
        "description",
        "model",
        "agent_id",
        "conversation_id",
        "client_message_id",
        "computer",
    ];
    fields.non_empty("request_id")?;
    let args = fields.object("args")?;
    let text = |name: &str| args.get(name).and_then(Value::as_str).unwrap_or_default();
    for (name, value) in &args {
        let usable = match value {
            Value::String(text) if TEXTS.contains(&name.as_str()) => !text.trim().is_empty(),
            Value::Number(turns) if name == "max_turns" => {
                turns.as_u64().is_some_and(|turns| turns > 0)
            }
            _ => false,
        };
        if !usable {
            return Err(ShapeError::new(
                format!("args.{name}"),
                "a known argument with a usable value",
            ));
        }
    }
    if let Some(missing) = ["prompt", "description"]
        .into_iter()
        .find(|name| text(name).is_empty())
    {
        return Err(ShapeError::new(
            format!("args.{missing}"),
            "a non-empty string",
        ));
    }
    Ok(Command::LaunchSubagent {
        tool_call_id: fields.optional_string("tool_call_id")?,
        args,
    })
}

fn with_scope(inbound: &Inbound, agent_required: bool) -> Result<(), ShapeError> {
    match &inbound.scope {
        Some(scope) if agent_required && scope.agent_id.is_none() => {
            Err(ShapeError::new("runtime.agent_id", "a non-empty string"))
        }
        Some(_) => Ok(()),
        None => Err(ShapeError::new(
            "runtime",
            "an object with agent_id (null or a non-empty string) and a non-empty conversation_id",
        )),
    }
}

fn optional_request_id(fields: &Fields) -> Result<(), ShapeError> {
    match fields.peek("request_id") {
        None | Some(Value::Null | Value::String(_)) => Ok(()),
        Some(_) => Err(ShapeError::new("request_id", "a string")),
    }
}

fn sync(fields: &mut Fields) -> Result<Command, ShapeError> {
    optional_request_id(fields)?;
    Ok(Command::Sync(Sync {
        recover_approvals: fields.optional_bool("recover_approvals")?.unwrap_or(true),
        resume_interrupted_turn: fields
            .optional_bool("resume_interrupted_turn")?
            .unwrap_or(false),
        force_device_status: fields
            .optional_bool("force_device_status")?
            .unwrap_or(false),
    }))
}

fn change_device_state(mut fields: Fields) -> Result<Command, ShapeError> {
    let mut payload = Fields::new(fields.object("payload")?);
    Ok(Command::ChangeDeviceState(ChangeDeviceState {
        mode: payload.optional_string("mode")?,
        cwd: payload.optional_string("cwd")?,
    }))
}

/// The scope that a `change_device_state` payload may name instead of the
/// frame's (02 §5.9).
pub fn payload_scope(payload: &Value, runtime: &Scope) -> Scope {
    let part = |name: &str| {
        payload
            .get(name)
            .and_then(Value::as_str)
            .filter(|id| !id.is_empty())
    };
    Scope::new(
        part("agent_id").or(runtime.agent_id.as_deref()),
        part("conversation_id").or(Some(&runtime.conversation_id)),
    )
}

#[cfg(test)]
mod tests {
    use super::super::command::ApprovalAnswer;
    use super::*;
    use serde_json::json;

    fn read(frame: Value) -> Inbound {
        parse(&frame.to_string()).unwrap()
    }

    const RT: &str = r#"{"agent_id":"agent-1","conversation_id":"conv-1"}"#;

    #[test]
    fn text_that_is_no_frame_is_told_apart() {
        for text in ["", "{", "[]", "1", "null", "{}", r#"{"type":1}"#] {
            assert!(parse(text).is_err(), "{text}");
        }
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(parse(&deep), Err(NotAFrame::Json(_))));
    }

    #[test]
    fn a_known_command_with_a_wrong_field_names_the_field_and_its_response() {
        for (frame, response, field) in [
            (
                json!({"type":"sync","request_id":"1","runtime":{"agent_id":"a","conversation_id":""}}),
                "sync_response",
                "runtime",
            ),
            (
                json!({"type":"app_server_info","request_id":""}),
                "app_server_info_response",
                "request_id",
            ),
            (
                json!({"type":"runtime_start","request_id":"1","cwd":5}),
                "runtime_start_response",
                "cwd",
            ),
            (
                json!({"type":"remove_queue_item","request_id":"1","runtime":{"agent_id":null,"conversation_id":"c"},"item_id":"q-1"}),
                "remove_queue_item_response",
                "runtime.agent_id",
            ),
            (
                json!({"type":"runtime_start","request_id":"1","skill_sources":["x"]}),
                "runtime_start_response",
                "skill_sources",
            ),
            (
                json!({"type":"runtime_start","request_id":"1","execution_settings":{"allowed_tools":[],"disallowed_tools":[],"disable_memory_guard":false,"max_turns":0}}),
                "runtime_start_response",
                "max_turns",
            ),
        ] {
            match read(frame.clone()).body {
                Body::Malformed {
                    response: Some(found),
                    error,
                } => {
                    assert_eq!(found, response);
                    assert!(error.contains(field), "{error}");
                }
                other => panic!("{frame}: {other:?}"),
            }
        }
    }

    #[test]
    fn bad_inputs_get_the_published_notices_in_the_published_order() {
        let notice = |payload: Value| {
            let rt: Value = serde_json::from_str(RT).unwrap();
            match read(json!({"type":"input","runtime":rt,"request_id":"1","payload":payload})).body
            {
                Body::InvalidInput(text) => text,
                other => panic!("{other:?}"),
            }
        };
        let message = "Protocol violation: input.payload";
        assert_eq!(notice(json!(1)), format!("{message} must be an object"));
        assert_eq!(
            notice(json!({"kind":"create_message"})),
            "Protocol violation: input.kind=create_message requires payload.messages[]"
        );
        let with = |key: &str, value: Value| {
            let mut payload = json!({"kind":"create_message","messages":[]});
            payload[key] = value;
            notice(payload)
        };
        assert_eq!(
            with("image_failure_mode", json!("x")),
            format!("{message}.image_failure_mode must be strict or drop")
        );
        assert_eq!(
            with("client_tool_allowlist", json!("x")),
            format!("{message}.client_tool_allowlist must be string[]")
        );
        assert_eq!(
            with("client_toolset", json!({"base":"gemini"})),
            format!(
                "{message}.client_toolset must contain an optional valid base and string[] include"
            )
        );
        assert_eq!(
            with("exclude_interactive_tools", json!(1)),
            format!("{message}.exclude_interactive_tools must be boolean")
        );
        assert_eq!(
            with("external_tool_scope_ids", json!([1])),
            format!("{message}.external_tool_scope_ids must be string[]")
        );
        assert_eq!(
            notice(json!({"kind":"nope"})),
            "Unsupported input payload kind: nope"
        );
        let approval = "Protocol violation: input.kind=approval_response requires payload.request_id and either payload.decision or payload.error";
        for bad in [
            json!({"kind":"approval_response"}),
            json!({"kind":"approval_response","request_id":"perm-1"}),
            json!({"kind":"approval_response","request_id":"perm-1","decision":{"behavior":"deny"}}),
            json!({"kind":"approval_response","request_id":"perm-1","decision":{"behavior":"maybe"}}),
            json!({"kind":"approval_response","request_id":"perm-1","error":7}),
            json!({"kind":"approval_response","request_id":"perm-1","decision":{"behavior":"allow","updated_input":"x"}}),
        ] {
            assert_eq!(notice(bad), approval);
        }
    }

    #[test]
    fn approval_answers_are_read_in_all_three_forms() {
        let answer = |payload: Value| {
            let rt: Value = serde_json::from_str(RT).unwrap();
            match read(json!({"type":"input","runtime":rt,"payload":payload})).body {
                Body::Command(Command::ApprovalResponse(response)) => response.answer,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            answer(
                json!({"kind":"approval_response","request_id":"p","decision":{"behavior":"allow","message":null,"updated_input":null}})
            ),
            ApprovalAnswer::Allow {
                message: None,
                updated_input: None,
                suggestions: vec![]
            }
        );
        assert_eq!(
            answer(
                json!({"kind":"approval_response","request_id":"p","decision":{"behavior":"deny","message":""}})
            ),
            ApprovalAnswer::Deny {
                message: String::new()
            }
        );
        assert_eq!(
            answer(
                json!({"kind":"approval_response","request_id":"p","error":"broken","decision":{}})
            ),
            ApprovalAnswer::Error("broken".into())
        );
    }

    #[test]
    fn a_legacy_message_is_an_input_for_the_default_conversation() {
        let inbound = read(
            json!({"type":"message","agentId":"a","messages":[{"role":"user","content":"x"}],"clientToolAllowlist":5}),
        );
        assert_eq!(inbound.scope, Some(Scope::new(Some("a"), None)));
        match inbound.body {
            Body::Command(Command::CreateMessage(input)) => {
                assert_eq!(input.messages.len(), 1);
                assert_eq!(input.options.client_tool_allowlist, None);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_acting_user_comes_from_the_runtime_and_the_runtime_is_kept_verbatim() {
        let rt =
            json!({"agent_id":null,"conversation_id":"conv-9","acting_user_id":"user-9","x":1});
        let inbound = read(
            json!({"type":"input","runtime":rt,"payload":{"kind":"create_message","messages":[]}}),
        );
        assert_eq!(inbound.runtime, Some(rt));
        match inbound.body {
            Body::Command(Command::CreateMessage(input)) => {
                assert_eq!(input.options.acting_user_id.as_deref(), Some("user-9"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_catalogued_type_is_a_command_or_a_named_shape_error() {
        for known in catalog::COMMANDS {
            let inbound = read(json!({"type":known.name}));
            assert!(
                !matches!(inbound.body, Body::Unknown | Body::Lifecycle),
                "{}",
                known.name
            );
        }
        assert!(matches!(read(json!({"type":"ping"})).body, Body::Unknown));
        assert!(matches!(read(json!({"type":"pong"})).body, Body::Lifecycle));
    }
}
