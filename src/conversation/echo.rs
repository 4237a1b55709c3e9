//! The echo of queued input when it enters a turn (spec 02 §6.4.2).

use serde_json::{Map, Value};
use uuid::Uuid;

use super::frames::now;
use super::queue::BatchMessage;

const OPEN: &str = "<system-reminder>";
const CLOSE: &str = "</system-reminder>";

/// The delta that shows a queued message, or `None` when nothing of it is for people.
pub(crate) fn echo(message: &BatchMessage) -> Option<Map<String, Value>> {
    if message.message.get("role").and_then(Value::as_str) != Some("user") {
        return None;
    }
    let content = match message.message.get("content")? {
        Value::String(text) => {
            let text = if message.is_cron {
                without_envelope(text)
            } else {
                text.clone()
            };
            let shown = without_reminders(&text);
            if shown.trim().is_empty() {
                return None;
            }
            Value::String(shown)
        }
        Value::Array(parts) => {
            let shown: Vec<Value> = parts
                .iter()
                .filter(|part| !is_reminder(part))
                .cloned()
                .collect();
            if shown.is_empty() {
                return None;
            }
            Value::Array(shown)
        }
        _ => return None,
    };
    let otid = message.message.get("otid").cloned();
    let mut delta = user_row(content, otid.unwrap_or(Value::Null));
    if let Some(user) = &message.acting_user_id {
        delta.insert("created_by_id".into(), user.as_str().into());
    }
    Some(delta)
}

/// The delta of a message in the user's name.
pub(crate) fn user_row(content: Value, otid: Value) -> Map<String, Value> {
    let mut delta = Map::new();
    delta.insert("type".into(), "message".into());
    delta.insert("id".into(), format!("user-msg-{}", Uuid::new_v4()).into());
    delta.insert("date".into(), now().into());
    delta.insert("message_type".into(), "user_message".into());
    delta.insert("content".into(), content);
    delta.insert("otid".into(), otid);
    delta
}

/// Takes every `<system-reminder>…</system-reminder>` out of a text.
fn without_reminders(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(OPEN) {
        let Some(length) = rest[start..].find(CLOSE) else {
            break;
        };
        shown.push_str(&rest[..start]);
        rest = &rest[start + length + CLOSE.len()..];
    }
    shown.push_str(rest);
    if shown.len() == text.len() {
        shown
    } else {
        shown.trim().to_owned()
    }
}

fn is_reminder(part: &Value) -> bool {
    part.get("text")
        .and_then(Value::as_str)
        .map(str::trim)
        .is_some_and(|text| text.starts_with(OPEN) && text.ends_with(CLOSE))
}

/// A cron prompt without its wrapper and its `Description:` line.
fn without_envelope(text: &str) -> String {
    let mut inner = text.trim();
    if let Some(rest) = inner.strip_prefix(OPEN)
        && let Some(end) = rest.rfind(CLOSE)
    {
        inner = rest[..end].trim();
    }
    let mut lines: Vec<&str> = inner.lines().collect();
    if lines
        .get(1)
        .is_some_and(|line| line.starts_with("Description: "))
    {
        lines.remove(1);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(content: Value, is_cron: bool) -> Option<Value> {
        let Value::Object(message) = json!({"role":"user","content":content,"otid":"cm-1"}) else {
            unreachable!()
        };
        let message = BatchMessage {
            message,
            acting_user_id: Some("user-9".into()),
            is_cron,
        };
        echo(&message).map(|delta| {
            assert_eq!(
                (&delta["otid"], &delta["created_by_id"]),
                (&json!("cm-1"), &json!("user-9"))
            );
            delta["content"].clone()
        })
    }

    #[test]
    fn reminders_are_not_shown_to_people() {
        assert_eq!(
            of(json!("<system-reminder>x</system-reminder> hello"), false),
            Some(json!("hello"))
        );
        assert_eq!(
            of(json!("<system-reminder>x</system-reminder>"), false),
            None
        );
        assert_eq!(of(json!("  spaced "), false), Some(json!("  spaced ")));
        let reminder = json!({"type":"text","text":"<system-reminder>x</system-reminder>"});
        let text = json!({"type":"text","text":"hello"});
        assert_eq!(of(json!([reminder, text]), false), Some(json!([text])));
        assert_eq!(of(json!([reminder]), false), None);
    }

    #[test]
    fn a_cron_prompt_is_shown_without_its_wrapper_and_description() {
        let prompt = "<system-reminder>\nScheduled task \"x\" is firing.\nDescription: y\nDo it\n</system-reminder>";
        assert_eq!(
            of(json!(prompt), true),
            Some(json!("Scheduled task \"x\" is firing.\nDo it"))
        );
    }
}
