//! Which calls the server waits for (spec 03 §14.2).

use serde_json::Value;

use super::turn::Calls;
use super::turn::PendingCall;
use crate::api::{ApiError, Client};
use crate::protocol::Scope;

/// The calls of the conversation's last message that have no answer yet.
///
/// # Errors
/// When the agent or the conversation cannot be read; one that does not exist
/// has nothing pending.
pub(crate) async fn pending_calls(
    api: &Client,
    scope: &Scope,
) -> Result<Vec<PendingCall>, ApiError> {
    match last_message(api, scope).await {
        Ok(Some(id)) => match api.message_variants(&id).await {
            Ok(variants) => Ok(unanswered(&variants)),
            Err(error) if error.is_missing() => Ok(Vec::new()),
            Err(error) => {
                tracing::warn!(%error, "The last message could not be read; nothing counts as pending.");
                Ok(Vec::new())
            }
        },
        Ok(None) => Ok(Vec::new()),
        Err(error) if error.is_missing() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

async fn last_message(api: &Client, scope: &Scope) -> Result<Option<String>, ApiError> {
    let last = |ids: Option<&Value>| {
        ids.and_then(Value::as_array)
            .and_then(|ids| ids.last())
            .and_then(Value::as_str)
            .map(|id| source_id(id).to_owned())
    };
    if !scope.is_default() {
        let conversation = api.conversation(&scope.conversation_id).await?;
        return Ok(last(conversation.get("in_context_message_ids")));
    }
    let Some(agent_id) = scope.agent_id.as_deref() else {
        return Ok(None);
    };
    let agent = api.agent(agent_id).await?;
    let listed = agent
        .get("in_context_message_ids")
        .filter(|ids| ids.is_array());
    if let Some(id) = last(listed.or_else(|| agent.get("message_ids"))) {
        return Ok(Some(id));
    }
    let newest = api.newest_default_message(agent_id).await?;
    let id = newest
        .get(0)
        .and_then(|message| message.get("id"))
        .and_then(Value::as_str);
    Ok(id.map(|id| source_id(id).to_owned()))
}

/// `<source id>:assistant:…` names a part of a source message.
fn source_id(id: &str) -> &str {
    [":assistant", ":reasoning", ":tool"]
        .iter()
        .filter_map(|infix| id.find(infix))
        .min()
        .map_or(id, |at| &id[..at])
}

/// The calls of all variants, minus those that were answered.
fn unanswered(variants: &Value) -> Vec<PendingCall> {
    let variants = variants.as_array().map_or(&[][..], Vec::as_slice);
    let mut calls = Calls::default();
    let mut answered: Vec<String> = Vec::new();
    let mut answer = |item: &Value| {
        if let Some(id) = item.get("tool_call_id").and_then(Value::as_str) {
            answered.push(id.to_owned());
        }
    };
    for variant in variants {
        let Some(message) = variant.as_object() else {
            continue;
        };
        let list = |key: &str| {
            message
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        };
        match message.get("message_type").and_then(Value::as_str) {
            Some("approval_request_message") => {
                let mut one = Calls::default();
                one.collect(message);
                calls.add_missing(one);
            }
            Some("tool_return_message") => {
                answer(variant);
                list("tool_returns").for_each(&mut answer);
            }
            Some("approval_response_message") => list("approvals").for_each(&mut answer),
            _ => {}
        }
    }
    for id in answered {
        calls.remove(&id);
    }
    calls.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answered_calls_are_not_pending() {
        let call = |id: &str| json!({"name":"Bash","tool_call_id":id,"arguments":"{}"});
        let variants = json!([
            {"message_type":"approval_request_message","id":"m","tool_calls":[call("a"),call("b"),call("c"),call("d")]},
            {"message_type":"approval_request_message","id":"m","tool_calls":[call("a")]},
            {"message_type":"tool_return_message","tool_call_id":"b"},
            {"message_type":"tool_return_message","tool_returns":[{"tool_call_id":"c"}]},
            {"message_type":"approval_response_message","approvals":[{"tool_call_id":"d"}]},
            "junk", {"message_type":"assistant_message"}
        ]);
        let pending = unanswered(&variants);
        assert_eq!(pending.len(), 1);
        assert_eq!(
            (pending[0].id.as_str(), pending[0].args.as_str()),
            ("a", "{}")
        );
        assert!(unanswered(&json!({})).is_empty());
    }

    #[test]
    fn a_part_of_a_message_is_looked_up_by_its_source() {
        assert_eq!(source_id("message-1:assistant:0"), "message-1");
        assert_eq!(source_id("message-1"), "message-1");
    }
}
