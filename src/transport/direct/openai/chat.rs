//! The shape of a chat completion (spec 02 §13).

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::turn::Note;
use super::{ApiError, Shape, event};

/// One completion under way.
pub(super) struct Chat {
    id: String,
    created: u64,
    model: String,
    text: String,
    usage: Usage,
    failure: Option<String>,
}

/// Token counts over all steps.
#[derive(Default)]
pub(super) struct Usage {
    pub(super) prompt: u64,
    pub(super) completion: u64,
    pub(super) total: u64,
    pub(super) reasoning: Option<u64>,
}

impl Usage {
    pub(super) fn add(&mut self, step: &Map<String, Value>) {
        let count = |key: &str| step.get(key).and_then(Value::as_u64);
        self.prompt += count("prompt_tokens").unwrap_or(0);
        self.completion += count("completion_tokens").unwrap_or(0);
        self.total += count("total_tokens").unwrap_or(0);
        let details = step.get("completion_tokens_details");
        let reasoning = count("reasoning_tokens")
            .or_else(|| details.and_then(|details| details["reasoning_tokens"].as_u64()));
        if let Some(reasoning) = reasoning {
            *self.reasoning.get_or_insert_default() += reasoning;
        }
    }
}

impl Chat {
    pub(super) fn new(model: &str, created: u64) -> Self {
        Self {
            id: format!("chatcmpl-{}", Uuid::new_v4()),
            created,
            model: model.to_owned(),
            text: String::new(),
            usage: Usage::default(),
            failure: None,
        }
    }

    fn chunk(&self, delta: Value, finish_reason: Option<&str>) -> String {
        let chunk = json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        });
        event(None, &chunk)
    }
}

const DONE: &str = "data: [DONE]\n\n";

impl Shape for Chat {
    fn on(&mut self, note: &Note) -> String {
        match note {
            Note::Conversation(_) => self.chunk(json!({"role": "assistant", "content": ""}), None),
            Note::Text(text) => {
                self.text += text;
                self.chunk(json!({"content": text}), None)
            }
            Note::Usage(step) => {
                self.usage.add(step);
                String::new()
            }
            Note::Finished => self.chunk(json!({}), Some("stop")) + DONE,
            Note::Failed(error) => {
                self.failure = Some(error.clone());
                let error = json!({"error": {"message": error, "type": "server_error"}});
                event(None, &error) + DONE
            }
            // This shape has no place for what the machine does on the way.
            Note::Reasoning(_) | Note::Call { .. } | Note::Returned { .. } => String::new(),
        }
    }

    fn whole(&mut self) -> Result<Value, ApiError> {
        if let Some(error) = self.failure.take() {
            return Err(ApiError::new(500, error));
        }
        let mut usage = json!({
            "prompt_tokens": self.usage.prompt, "completion_tokens": self.usage.completion,
            "total_tokens": self.usage.total,
        });
        if let Some(reasoning) = self.usage.reasoning {
            usage["completion_tokens_details"] = json!({"reasoning_tokens": reasoning});
        }
        Ok(json!({
            "id": self.id, "object": "chat.completion", "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0, "message": {"role": "assistant", "content": self.text},
                "finish_reason": "stop",
            }],
            "usage": usage,
        }))
    }
}
