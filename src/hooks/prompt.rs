//! A hook that a model answers (05 §15.5).
//!
//! Invariant: the model's answer decides only when it says `ok` true or false;
//! whatever else comes back is an error, and errors decide nothing.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Run, Verdict};
use crate::api::Client;

const SYSTEM: &str = "You are a hook of a coding agent. Read the condition and the event, and judge whether the condition holds. Answer with one JSON object: {\"ok\": true} when it does, {\"ok\": false, \"reason\": \"why not\"} when it does not.";

/// Where the event goes in the text of a hook.
const PLACE: &str = "$ARGUMENTS";

/// Asks the agent's model.
pub(super) async fn run(
    api: &Client,
    agent_id: Option<&str>,
    prompt: &str,
    model: Option<&str>,
    event: &Map<String, Value>,
    limit: Duration,
) -> Run {
    let Some(agent_id) = agent_id else {
        return Run::failed("Prompt hooks need an agent".into());
    };
    let pretty = serde_json::to_string_pretty(event).unwrap_or_default();
    let prompt = if prompt.contains(PLACE) {
        prompt.replace(PLACE, &pretty)
    } else {
        format!("{prompt}\n\nHook input:\n{pretty}")
    };
    let mut body = json!({
        "prompt": prompt,
        "system_prompt": SYSTEM,
        "response_schema": {
            "type": "object",
            "properties": {"ok": {"type": "boolean"}, "reason": {"type": "string"}},
            "required": ["ok"],
        },
    });
    if let Some(model) = model {
        body["override_model"] = model.into();
    }
    match tokio::time::timeout(limit, api.generate(agent_id, &body)).await {
        Err(_) => Run::failed(format!("Hook timed out after {}ms", limit.as_millis())),
        Ok(Err(error)) => Run::failed(error.to_string()),
        Ok(Ok(answer)) => judge(answer["content"].as_str().unwrap_or_default()),
    }
}

fn judge(content: &str) -> Run {
    let Some(answer) = first_object(content) else {
        return Run::failed("The model's answer holds no JSON object".into());
    };
    let (verdict, reason) = match answer.get("ok") {
        Some(Value::Bool(true)) => (Verdict::Allow, None),
        Some(Value::Bool(false)) => (Verdict::Block, answer.get("reason")),
        _ => return Run::failed("The model's answer has no boolean `ok`".into()),
    };
    let reason = reason.and_then(Value::as_str).unwrap_or_default();
    Run {
        verdict,
        stdout: String::new(),
        stderr: reason.to_owned(),
        error: None,
    }
}

/// The first JSON object in a text, fences and words around it aside.
fn first_object(text: &str) -> Option<Map<String, Value>> {
    let from = text.find('{')?;
    let mut values = serde_json::Deserializer::from_str(&text[from..]).into_iter::<Map<_, _>>();
    values.next()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_or_no_decides() {
        for (content, verdict) in [
            ("{\"ok\":true}", Verdict::Allow),
            (
                "```json\n{\"ok\": false, \"reason\": \"r\"}\n```",
                Verdict::Block,
            ),
            ("Sure: {\"ok\":true} done", Verdict::Allow),
            ("{\"ok\":\"true\"}", Verdict::Error),
            ("{\"ok\":", Verdict::Error),
            ("yes", Verdict::Error),
        ] {
            assert_eq!(judge(content).verdict, verdict, "{content}");
        }
        assert_eq!(judge("{\"ok\":false,\"reason\":\"r\"}").stderr, "r");
    }
}
