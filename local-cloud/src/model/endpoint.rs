//! The scripted model as an OpenAI-compatible endpoint, for a real Letta server
//! to call: `/openai/v1/chat/completions` and `/openai/v1/models`.
//!
//! Invariant: an answer depends on the request alone. The last user message with
//! a script decides, and how often the assistant has called tools behind it
//! tells which step is due.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};

use super::cut;
use super::script::{Plan, Said};
use crate::letta::{store::Call, text_of};
use crate::record::Recorded;
use crate::reply;

/// Whether a path belongs to the model.
pub(crate) fn is_model(path: &str) -> bool {
    path.starts_with("/openai/")
}

/// Answers one call.
pub(crate) async fn dispatch(request: &Recorded) -> Response {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/openai/v1/models") => {
            let row =
                |id: &str| json!({"id": id, "object": "model", "created": 1, "owned_by": "openai"});
            reply::ok(&json!({"object": "list", "data": [row("gpt-4o"), row("gpt-4o-mini")]}))
        }
        ("POST", "/openai/v1/chat/completions") => complete(&request.json()).await,
        _ => reply::detail(404, "Not Found"),
    }
}

async fn complete(body: &Value) -> Response {
    let said = answer_to(body["messages"].as_array().map_or(&[], Vec::as_slice));
    tokio::time::sleep(said.wait).await;
    let head = json!({"id": format!("chatcmpl-{}", crate::short_id()), "created": 1,
        "model": body["model"]});
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15});
    let reason = if said.calls.is_empty() {
        "stop"
    } else {
        "tool_calls"
    };
    let calls: Vec<Value> = said.calls.iter().enumerate().map(call).collect();
    if body["stream"] != true {
        let mut message = json!({"role": "assistant", "content": said.text});
        if !calls.is_empty() {
            message["tool_calls"] = json!(calls);
        }
        let mut whole = head;
        whole["object"] = json!("chat.completion");
        whole["choices"] = json!([{"index": 0, "message": message, "finish_reason": reason}]);
        whole["usage"] = usage;
        return reply::ok(&whole);
    }
    let event = |choices: Value, usage: &Value| {
        let mut chunk = head.clone();
        chunk["object"] = json!("chat.completion.chunk");
        chunk["choices"] = choices;
        if usage.is_object() {
            chunk["usage"] = usage.clone();
        }
        Bytes::from(format!("data: {chunk}\n\n"))
    };
    let delta = |delta: Value| {
        event(
            json!([{"index": 0, "delta": delta, "finish_reason": null}]),
            &Value::Null,
        )
    };
    let mut events = vec![delta(json!({"role": "assistant", "content": ""}))];
    if calls.is_empty() {
        let pieces = cut(&said.text, said.split).into_iter();
        events.extend(pieces.map(|piece| delta(json!({"content": piece}))));
    } else {
        events.push(delta(json!({"tool_calls": calls})));
    }
    events.push(event(
        json!([{"index": 0, "delta": {}, "finish_reason": reason}]),
        &Value::Null,
    ));
    events.push(event(json!([]), &usage));
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    reply::event_stream(paced(events, said.pace))
}

/// A body of these events with `pace` between them.
fn paced(events: Vec<Bytes>, pace: Duration) -> Body {
    let events = events.into_iter();
    Body::from_stream(futures_util::stream::unfold(
        events,
        move |mut left| async move {
            let event = left.next()?;
            tokio::time::sleep(pace).await;
            Some((Ok::<_, std::io::Error>(event), left))
        },
    ))
}

fn call((index, call): (usize, &Call)) -> Value {
    json!({"index": index, "id": call.id, "type": "function",
        "function": {"name": call.name, "arguments": call.arguments}})
}

/// What the model says next in this conversation.
fn answer_to(messages: &[Value]) -> Said {
    let scripted = messages.iter().enumerate().rev().find_map(|(at, message)| {
        let plan =
            Plan::parse(&text_of(&message["content"])).filter(|_| message["role"] == "user")?;
        Some((at, plan))
    });
    let Some((at, plan)) = scripted else {
        return Said::text("done");
    };
    let behind = messages.get(at..).unwrap_or_default();
    let called = |message: &&Value| {
        message["tool_calls"]
            .as_array()
            .is_some_and(|c| !c.is_empty())
    };
    plan.said(behind.iter().filter(called).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_behind_the_script_tell_which_step_is_due() {
        let script =
            json!({"role": "user", "content": "CALL Bash {\"command\":\"ls\"}\nSAY done it"});
        let first = answer_to(&[
            json!({"role": "user", "content": "SAY old"}),
            script.clone(),
        ]);
        assert_eq!(first.calls[0].name, "Bash");
        assert_eq!(first.calls[0].arguments, "{\"command\":\"ls\"}");
        let called = json!({"role": "assistant", "tool_calls": [{"id": "x"}]});
        let result = json!({"role": "tool", "content": "SAY no script"});
        let second = answer_to(&[script, called, result]);
        assert!(second.calls.is_empty());
        assert_eq!(second.text, "done it");
        assert_eq!(
            answer_to(&[json!({"role": "user", "content": "hi"})]).text,
            "done"
        );
    }
}
