//! `input` and the legacy `message`: what users write and answer (spec 02 §2.3,
//! §5.3–5.6). The texts of the notices are those of the published program.

use serde_json::{Map, Value};

use super::super::catalog::CommandType;
use super::super::command::{
    ApprovalAnswer, ApprovalResponse, Command, CreateMessage, ImageFailureMode, InputOptions,
};
use super::super::fields::{Fields, ShapeError, strings};
use super::super::id::Scope;
use super::{Body, Inbound, TOOLSET_PREFERENCES, with_scope};

/// The messages of 02 §2.3, in its order of checks.
pub(super) fn input(known: &CommandType, inbound: &Inbound, mut fields: Fields) -> Body {
    if let Err(error) = with_scope(inbound, false) {
        return Body::Malformed {
            response: known.response,
            error: error.to_string(),
        };
    }
    let Some(Value::Object(payload)) = fields.take("payload") else {
        return invalid("input.payload must be an object");
    };
    let mut payload = Fields::new(payload);
    let kind = payload.take("kind");
    let body = match kind.as_ref().and_then(Value::as_str) {
        Some("create_message") => create_message(payload, acting_user(inbound.runtime.as_ref())),
        Some("approval_response") => approval_response(payload),
        Some("teleport_continue") => {
            return Body::InvalidInput(String::from(
                "Teleport between computers is not supported by this computer",
            ));
        }
        _ => {
            let kind = kind.map_or_else(
                || String::from("undefined"),
                |kind| kind.as_str().map_or_else(|| kind.to_string(), String::from),
            );
            return Body::InvalidInput(format!("Unsupported input payload kind: {kind}"));
        }
    };
    let command = match body {
        Ok(command) => command,
        Err(problem) => return invalid(problem),
    };
    // A request id that is no usable string cannot be answered; the input is refused (02 §2.3).
    match fields.peek("request_id") {
        None | Some(Value::Null) => Body::Command(command),
        Some(Value::String(id)) if !id.is_empty() => Body::Command(command),
        Some(_) => Body::Malformed {
            response: None,
            error: String::from("request_id must be a non-empty string"),
        },
    }
}

fn invalid(problem: &str) -> Body {
    Body::InvalidInput(format!("Protocol violation: {problem}"))
}

fn create_message(
    mut payload: Fields,
    acting_user_id: Option<String>,
) -> Result<Command, &'static str> {
    let Some(Value::Array(messages)) = payload.take("messages") else {
        return Err("input.kind=create_message requires payload.messages[]");
    };
    let image_failure_mode = match payload.take("image_failure_mode") {
        None => ImageFailureMode::Strict,
        Some(Value::String(mode)) if mode == "strict" => ImageFailureMode::Strict,
        Some(Value::String(mode)) if mode == "drop" => ImageFailureMode::Drop,
        Some(_) => return Err("input.payload.image_failure_mode must be strict or drop"),
    };
    let client_tool_allowlist = payload
        .optional_strings("client_tool_allowlist")
        .map_err(|_| "input.payload.client_tool_allowlist must be string[]")?;
    let (toolset_base, toolset_include) = match payload.take("client_toolset") {
        None => (None, Vec::new()),
        Some(toolset) => client_toolset(toolset).ok_or(
            "input.payload.client_toolset must contain an optional valid base and string[] include",
        )?,
    };
    let exclude_interactive_tools = payload
        .optional_bool("exclude_interactive_tools")
        .map_err(|_| "input.payload.exclude_interactive_tools must be boolean")?
        .unwrap_or(false);
    let external_tool_scope_ids = payload
        .optional_strings("external_tool_scope_ids")
        .map_err(|_| "input.payload.external_tool_scope_ids must be string[]")?
        .unwrap_or_default();
    let messages = messages
        .into_iter()
        .map(|message| match message {
            Value::Object(message) => Ok(message),
            _ => Err("input.payload.messages[] must contain objects"),
        })
        .collect::<Result<_, _>>()?;
    Ok(Command::CreateMessage(Box::new(CreateMessage {
        messages,
        options: InputOptions {
            image_failure_mode,
            client_tool_allowlist,
            toolset_base,
            toolset_include,
            external_tool_scope_ids,
            exclude_interactive_tools,
            response_format: payload.take("response_format"),
            acting_user_id,
        },
    })))
}

fn client_toolset(toolset: Value) -> Option<(Option<String>, Vec<String>)> {
    let Value::Object(toolset) = toolset else {
        return None;
    };
    let mut toolset = Fields::new(toolset);
    let base = toolset.optional_string("base").ok()?;
    if base
        .as_deref()
        .is_some_and(|base| !TOOLSET_PREFERENCES.contains(&base))
    {
        return None;
    }
    let include = toolset
        .optional_strings("include")
        .ok()?
        .unwrap_or_default();
    Some((base, include))
}

fn approval_response(mut payload: Fields) -> Result<Command, &'static str> {
    const SHAPE: &str = "input.kind=approval_response requires payload.request_id and either payload.decision or payload.error";
    let request_id = payload.string("request_id").map_err(|_| SHAPE)?;
    let answer = match payload.take("error") {
        Some(Value::String(error)) => ApprovalAnswer::Error(error),
        Some(_) => return Err(SHAPE),
        None => {
            let mut decision = Fields::new(payload.object("decision").map_err(|_| SHAPE)?);
            match decision.string("behavior").map_err(|_| SHAPE)?.as_str() {
                "allow" => ApprovalAnswer::Allow {
                    message: decision.optional_string("message").map_err(|_| SHAPE)?,
                    updated_input: decision
                        .optional_object("updated_input")
                        .map_err(|_| SHAPE)?,
                    suggestions: decision
                        .optional_strings("selected_permission_suggestion_ids")
                        .map_err(|_| SHAPE)?
                        .unwrap_or_default(),
                },
                "deny" => ApprovalAnswer::Deny {
                    message: decision.string("message").map_err(|_| SHAPE)?,
                },
                _ => return Err(SHAPE),
            }
        }
    };
    Ok(Command::ApprovalResponse(ApprovalResponse {
        request_id,
        answer,
    }))
}

/// `{"type":"message","agentId",…}`: an input without acknowledgement (02 §5.6).
pub(super) fn legacy_message(inbound: &mut Inbound, object: Map<String, Value>) -> Body {
    let mut fields = Fields::new(object);
    let malformed = |error: ShapeError| Body::Malformed {
        response: None,
        error: error.to_string(),
    };
    let agent = match fields.non_empty("agentId") {
        Ok(agent) => agent,
        Err(error) => return malformed(error),
    };
    let Some(Value::Array(messages)) = fields.take("messages") else {
        return malformed(ShapeError::new("messages", "an array"));
    };
    let Some(messages) = messages
        .into_iter()
        .map(|message| match message {
            Value::Object(message) => Some(message),
            _ => None,
        })
        .collect()
    else {
        return malformed(ShapeError::new("messages", "an array of objects"));
    };
    let conversation = fields
        .take("conversationId")
        .or_else(|| fields.take("conversation_id"))
        .and_then(|id| id.as_str().map(String::from));
    inbound.scope = Some(Scope::new(Some(&agent), conversation.as_deref()));
    // Invalid optional fields are ignored here, unlike in `input` (02 §5.6).
    let (toolset_base, toolset_include) = fields
        .take("clientToolset")
        .and_then(client_toolset)
        .unwrap_or_default();
    Body::Command(Command::CreateMessage(Box::new(CreateMessage {
        messages,
        options: InputOptions {
            client_tool_allowlist: fields.take("clientToolAllowlist").and_then(strings),
            toolset_base,
            toolset_include,
            external_tool_scope_ids: fields
                .take("externalToolScopeIds")
                .and_then(strings)
                .unwrap_or_default(),
            ..InputOptions::default()
        },
    })))
}

fn acting_user(runtime: Option<&Value>) -> Option<String> {
    runtime?
        .get("acting_user_id")?
        .as_str()
        .filter(|id| !id.is_empty())
        .map(String::from)
}
