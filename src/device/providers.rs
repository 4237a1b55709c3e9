//! Model providers stored on this machine, usage of a ChatGPT plan, and moving
//! a conversation elsewhere: not here, and said so (06 §9, §16; 00 §8).

use serde_json::{Value, json};

use super::call::{Answer, Call, Failure};
use crate::protocol::fields::ShapeError;

const NO_STORE: &str = "Local provider storage is not supported by this listener.";

/// `list_connect_providers`, `connect_provider`, `disconnect_provider`.
pub(super) async fn decline(mut call: Call) -> Answer {
    if call.fields.string("target")? != "local" {
        return Err(ShapeError::new("target", "\"local\"").into());
    }
    if call.route.name != "list_connect_providers" {
        call.fields.string("provider_id")?;
    }
    if call.route.name == "connect_provider" {
        let fields = call.fields.object("fields")?;
        if !fields.values().all(Value::is_string) {
            return Err(ShapeError::new("fields", "an object of strings").into());
        }
    }
    Err(Failure::new(NO_STORE))
}

/// `chatgpt_usage_read`: nobody's plan is connected here. Its error is an object.
pub(super) async fn chatgpt_usage(mut call: Call) -> Answer {
    let refused = |code: &str, message: &str| {
        Failure::new(message).with("error", json!({"code": code, "message": message}))
    };
    let target = call.fields.string("target");
    let target = target.map_err(|error| refused("bad_request", &error.to_string()))?;
    if !["local", "api"].contains(&target.as_str()) {
        let error = ShapeError::new("target", "\"local\" or \"api\"");
        return Err(refused("bad_request", &error.to_string()));
    }
    let error = "This listener does not read the usage of a ChatGPT plan.";
    Err(refused("not_connected", error).with("target", target))
}

/// `teleport_probe`: a conversation cannot be taken over from here.
pub(super) async fn teleport_probe(call: Call) -> Answer {
    Ok(json!({
        "runtime": call.request.runtime, "supported": false,
        "drains_accepted_inputs": true, "idempotent_continuation": true,
    }))
}

/// `teleport_request`.
pub(super) async fn teleport_request(mut call: Call) -> Answer {
    let id = call.fields.string("teleport_id")?;
    let runtime = call.request.runtime.take();
    Err(Failure::new("Teleport is not supported by this listener")
        .with("teleport_id", id)
        .with("runtime", runtime.unwrap_or_default()))
}
