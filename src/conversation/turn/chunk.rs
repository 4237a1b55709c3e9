//! What a server chunk becomes on the way to clients (spec 03 §6.1–6.3).

use serde_json::{Map, Value, json};

use crate::protocol::event::Lifecycle;

/// Longest text of one tool return, and of both line arrays together, in characters.
const TEXT_LIMIT: usize = 30_000;

/// The JSON text of the delta: the chunk with `"type":"message"`.
pub(crate) fn delta_text(chunk: &str, has_type: bool) -> String {
    if has_type && let Ok(Value::Object(mut object)) = serde_json::from_str(chunk) {
        object.insert("type".into(), "message".into());
        return Value::Object(object).to_string();
    }
    let open = chunk.trim_end();
    let open = open.strip_suffix('}').unwrap_or(open);
    let comma = if open.trim_end().ends_with('{') {
        ""
    } else {
        ","
    };
    format!("{open}{comma}\"type\":\"message\"}}")
}

/// A server-side tool result in the one shape that clients read; `None` when
/// nothing of it is usable.
pub(crate) fn normalised_return(mut message: Map<String, Value>) -> Option<Map<String, Value>> {
    let top: Map<String, Value> = ["tool_call_id", "status", "tool_return", "stdout", "stderr"]
        .into_iter()
        .filter_map(|key| message.remove(key).map(|value| (key.to_owned(), value)))
        .collect();
    let listed = match message.remove("tool_returns") {
        Some(Value::Array(items)) => items.iter().filter_map(usable).collect(),
        _ => Vec::new(),
    };
    let returns = if listed.is_empty() {
        usable(&Value::Object(top)).into_iter().collect()
    } else {
        listed
    };
    if returns.is_empty() {
        return None;
    }
    message.insert("tool_returns".into(), Value::Array(returns));
    message.insert("type".into(), "message".into());
    Some(message)
}

fn usable(item: &Value) -> Option<Value> {
    let id = item
        .get("tool_call_id")?
        .as_str()
        .filter(|id| !id.is_empty())?;
    let status = item
        .get("status")?
        .as_str()
        .filter(|s| ["success", "error"].contains(s))?;
    let text = flat_text(item.get("tool_return").unwrap_or(&Value::Null));
    let mut shown = Map::new();
    shown.insert("tool_call_id".into(), id.into());
    shown.insert("status".into(), status.into());
    shown.insert("tool_return".into(), cut(text).into());
    let lines = |key: &str| -> Vec<String> {
        let items = item
            .get(key)
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        items
            .iter()
            .filter_map(Value::as_str)
            .map(String::from)
            .collect()
    };
    let (stdout, stderr) = (lines("stdout"), lines("stderr"));
    let total: usize = stdout
        .iter()
        .chain(&stderr)
        .map(|line| line.chars().count())
        .sum();
    if total <= TEXT_LIMIT {
        for (key, lines) in [("stdout", stdout), ("stderr", stderr)] {
            if !lines.is_empty() {
                shown.insert(key.into(), json!(lines));
            }
        }
    }
    Some(Value::Object(shown))
}

/// Text parts joined by newlines, a string as it is, anything else as JSON.
pub(crate) fn flat_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts
                .iter()
                .filter_map(|part| part.get("text").and_then(Value::as_str))
                .collect();
            if texts.is_empty() && !parts.is_empty() {
                value.to_string()
            } else {
                texts.join("\n")
            }
        }
        other => other.to_string(),
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(TEXT_LIMIT) {
        None => text,
        Some((at, _)) => {
            format!(
                "{}\n... [cut here: the whole text is in the history of the conversation]",
                &text[..at]
            )
        }
    }
}

/// A `retry_message` of the cloud as a lifecycle delta; `None` when it is not valid.
pub(crate) fn relayed_retry(message: &Map<String, Value>) -> Option<Map<String, Value>> {
    let text = |key: &str| {
        message
            .get(key)
            .and_then(Value::as_str)
            .filter(|s| !s.is_empty())
    };
    let number = |key: &str| message.get(key).and_then(Value::as_u64);
    let kind =
        text("retry_kind").filter(|k| ["provider_retry", "transport_fallback"].contains(k))?;
    let attempt = number("attempt").filter(|n| *n >= 1)?;
    let max_attempts = number("max_attempts").filter(|n| *n >= attempt)?;
    let or_null = |key: &str| message.get(key).cloned().unwrap_or(Value::Null);
    let mut delta = Map::new();
    delta.insert("type".into(), "message".into());
    delta.insert(
        "id".into(),
        format!("lifecycle-{}", uuid::Uuid::new_v4()).into(),
    );
    delta.insert("date".into(), crate::conversation::frames::now().into());
    delta.insert("message_type".into(), "retry".into());
    if let Some(run_id) = text("run_id") {
        delta.insert("run_id".into(), run_id.into());
    }
    delta.insert("message".into(), text("message")?.into());
    delta.insert("reason".into(), "llm_api_error".into());
    delta.insert("attempt".into(), attempt.into());
    delta.insert("max_attempts".into(), max_attempts.into());
    delta.insert("delay_ms".into(), number("delay_ms")?.into());
    delta.insert("retry_kind".into(), kind.into());
    delta.insert("provider".into(), text("provider")?.into());
    for key in ["from_transport", "to_transport", "error_code", "step_id"] {
        delta.insert(key.into(), or_null(key));
    }
    Some(delta)
}

/// The non-terminal loop error of an `error_message` (03 §6.4).
pub(crate) fn loop_error(info: &Map<String, Value>, run_id: Option<&str>) -> Lifecycle {
    let text = |key: &str| info.get(key).and_then(Value::as_str);
    let stop_reason = match text("error_type") {
        Some("llm_error" | "llm_api_error") => "llm_api_error",
        _ => "error",
    };
    Lifecycle::LoopError {
        message: text("message")
            .or(text("detail"))
            .unwrap_or("The server reported an error.")
            .into(),
        stop_reason: stop_reason.into(),
        is_terminal: false,
        api_error: api_error(info, run_id),
    }
}

/// `api_error` of a loop error: only when type and run are known.
pub(crate) fn api_error(info: &Map<String, Value>, run_id: Option<&str>) -> Option<Value> {
    let text = |key: &str| info.get(key).and_then(Value::as_str);
    let error_type = text("error_type")?;
    let run_id = text("run_id").or(run_id)?;
    let mut error = json!({
        "message_type": "error_message", "message": text("message").unwrap_or_default(),
        "error_type": error_type, "run_id": run_id,
    });
    if let Some(detail) = text("detail") {
        error["detail"] = detail.into();
    }
    Some(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_gets_its_type_without_any_other_change() {
        for (chunk, has_type, delta) in [
            ("{\"a\":1}", false, json!({"a":1,"type":"message"})),
            ("{}", false, json!({"type":"message"})),
            ("{ }\n", false, json!({"type":"message"})),
            (
                "{\"type\":\"x\",\"b\":2}",
                true,
                json!({"type":"message","b":2}),
            ),
        ] {
            let text = delta_text(chunk, has_type);
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), delta);
        }
    }

    #[test]
    fn tool_returns_move_into_one_list_and_long_ones_are_cut() {
        let message = json!({"id":"m","tool_call_id":"c","status":"success","tool_return":"x".repeat(40_000),"stdout":["a"],"stderr":[]});
        let shown = normalised_return(message.as_object().unwrap().clone()).unwrap();
        assert!(!shown.contains_key("tool_call_id") && !shown.contains_key("stdout"));
        let item = &shown["tool_returns"][0];
        assert!(item["tool_return"].as_str().unwrap().len() < 31_000);
        assert_eq!(item["stdout"], json!(["a"]));
        assert_eq!(item.get("stderr"), None);
    }

    #[test]
    fn a_tool_return_without_id_or_status_is_not_shown() {
        for message in [
            json!({}),
            json!({"tool_call_id":"c"}),
            json!({"tool_call_id":"c","status":"maybe"}),
            json!({"tool_returns":[{"status":"success"}]}),
        ] {
            assert!(normalised_return(message.as_object().unwrap().clone()).is_none());
        }
    }

    #[test]
    fn relayed_retries_are_checked_field_by_field() {
        let good = json!({"message":"m","retry_kind":"provider_retry","attempt":1,"max_attempts":3,"delay_ms":0,"provider":"p"});
        let delta = relayed_retry(good.as_object().unwrap()).unwrap();
        assert_eq!(
            (&delta["reason"], &delta["step_id"]),
            (&json!("llm_api_error"), &Value::Null)
        );
        for (key, bad) in [
            ("attempt", json!(0)),
            ("attempt", json!(4)),
            ("delay_ms", json!(-1)),
            ("provider", json!("")),
            ("retry_kind", json!("x")),
            ("message", json!("")),
        ] {
            let mut message = good.as_object().unwrap().clone();
            message.insert(key.into(), bad);
            assert!(relayed_retry(&message).is_none(), "{key}");
        }
    }

    #[test]
    fn an_api_error_needs_its_type_and_a_run() {
        let info = json!({"message":"m","error_type":"llm_error","detail":"d"});
        let info = info.as_object().unwrap();
        assert_eq!(api_error(info, None), None);
        assert_eq!(
            api_error(info, Some("run-1")),
            Some(
                json!({"message_type":"error_message","message":"m","error_type":"llm_error","run_id":"run-1","detail":"d"})
            )
        );
    }
}
