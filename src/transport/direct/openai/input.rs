//! The messages of a request in the shape of the Letta API (spec 02 §13).

use serde_json::{Map, Value, json};

use super::ApiError;

/// What a request says.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    /// Everything, for a conversation that knows nothing yet.
    pub(super) all: Vec<Value>,
    /// The last message of the user, for one that knows the rest.
    pub(super) last: Value,
}

/// `messages` of a chat completion.
pub(super) fn chat(body: &Map<String, Value>) -> Result<Asked, ApiError> {
    let messages = body.get("messages").and_then(Value::as_array);
    let messages = messages.filter(|messages| !messages.is_empty());
    let messages = messages
        .ok_or_else(|| ApiError::new(400, "you must provide a non-empty messages array"))?;
    asked(messages.iter().filter_map(message).collect())
}

/// `input` and `instructions` of a response.
pub(super) fn responses(body: &Map<String, Value>) -> Result<Asked, ApiError> {
    let mut messages = Vec::new();
    if let Some(instructions) = body.get("instructions").and_then(Value::as_str) {
        messages.push(json!({"role": "system", "content": instructions}));
    }
    match body.get("input") {
        Some(Value::String(text)) => messages.push(json!({"role": "user", "content": text})),
        Some(Value::Array(items)) => messages.extend(items.iter().filter_map(message)),
        _ => return Err(ApiError::new(400, "you must provide an input parameter")),
    }
    asked(messages)
}

fn asked(all: Vec<Value>) -> Result<Asked, ApiError> {
    let last = all.iter().rfind(|message| message["role"] == "user");
    let last = last.cloned().ok_or_else(|| {
        ApiError::new(
            400,
            "the messages array must include a user message with text or image content",
        )
    })?;
    Ok(Asked { all, last })
}

/// One message; `None` when nothing in it can be said to an agent.
fn message(message: &Value) -> Option<Value> {
    // Items of the responses API that are no messages: calls of earlier turns.
    if message["type"]
        .as_str()
        .is_some_and(|kind| kind != "message")
    {
        return None;
    }
    let role = match message["role"].as_str()? {
        "system" | "developer" => "system",
        "assistant" => "assistant",
        "user" => "user",
        _ => return None,
    };
    let content = match &message["content"] {
        Value::String(text) if text.trim().is_empty() => return None,
        Value::String(text) => text.as_str().into(),
        Value::Array(parts) => {
            let parts: Vec<Value> = parts.iter().filter_map(part).collect();
            if parts.is_empty() {
                return None;
            }
            Value::Array(parts)
        }
        _ => return None,
    };
    Some(json!({"role": role, "content": content}))
}

fn part(part: &Value) -> Option<Value> {
    match part["type"].as_str()? {
        "text" | "input_text" | "output_text" => {
            let text = part["text"].as_str().filter(|text| !text.is_empty())?;
            Some(json!({"type": "text", "text": text}))
        }
        "image_url" | "input_image" => {
            let given = &part["image_url"];
            let url = given.as_str().or_else(|| given["url"].as_str())?;
            Some(json!({"type": "image", "source": source(url)?}))
        }
        _ => None,
    }
}

/// An image by its address, or what a `data:` URL holds.
fn source(url: &str) -> Option<Value> {
    let Some(data) = url.strip_prefix("data:") else {
        let known = url.starts_with("https://") || url.starts_with("http://");
        return known.then(|| json!({"type": "url", "url": url}));
    };
    let (kind, data) = data.split_once(";base64,")?;
    Some(json!({"type": "base64", "media_type": kind, "data": data}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn messages_and_items_become_messages_of_the_api() {
        let image = "data:image/png;base64,AAAA";
        let body = json!({"messages": [
            {"role": "developer", "content": "Be brief"},
            {"role": "user", "content": [{"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": image}}]},
            {"role": "assistant", "content": null, "tool_calls": []},
            {"role": "tool", "content": "x", "tool_call_id": "1"},
        ]});
        let user = json!({"role": "user", "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        ]});
        let asked = chat(&object(body)).unwrap();
        assert_eq!(asked.last, user);
        assert_eq!(
            asked.all,
            [json!({"role": "system", "content": "Be brief"}), user]
        );

        let body = json!({"instructions": "Be brief", "input": [
            {"type": "reasoning", "summary": []},
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]});
        let asked = responses(&object(body)).unwrap();
        assert_eq!(asked.all.len(), 2);
        assert_eq!(asked.last["content"][0]["text"], "Hi");
        let asked = responses(&object(json!({"input": "Hi"}))).unwrap();
        assert_eq!(asked.last["content"], "Hi");
    }

    #[test]
    fn s02_13_what_is_missing_is_named() {
        for (body, message) in [
            (json!({}), "you must provide a non-empty messages array"),
            (
                json!({"messages": []}),
                "you must provide a non-empty messages array",
            ),
            (
                json!({"messages": [{"role": "user", "content": " "}]}),
                "the messages array must include a user message with text or image content",
            ),
            (
                json!({"messages": [{"role": "user", "content": [
                    {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]}),
                "the messages array must include a user message with text or image content",
            ),
        ] {
            let error = chat(&object(body)).unwrap_err();
            assert_eq!((error.status, error.message.as_str()), (400, message));
        }
        assert!(responses(&Map::new()).is_err());
    }
}
