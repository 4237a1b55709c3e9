//! The shape of a response, whole and as a stream of named events (spec 02 §13).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use uuid::Uuid;

use super::chat::Usage;
use super::turn::Note;
use super::{ApiError, Shape, event};

/// How the ids of stored responses begin; the rest names the conversation.
const STORED: &str = "resp_letta_";

/// One response under way.
pub(super) struct Responses {
    id: String,
    /// The agent of a response that is stored.
    stored: Option<String>,
    created: u64,
    model: String,
    /// Items that are complete.
    output: Vec<Value>,
    open: Option<Open>,
    usage: Usage,
    failure: Option<String>,
    events: u64,
}

/// The item that grows.
struct Open {
    id: String,
    text: String,
    is_reasoning: bool,
}

/// The conversation of a stored response of this agent.
pub(super) fn conversation_of(id: &str, agent: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(id.strip_prefix(STORED)?).ok()?;
    let named: Value = serde_json::from_slice(&bytes).ok()?;
    let conversation = named["conversation"].as_str().filter(|id| !id.is_empty())?;
    (named["agent"] == agent).then(|| conversation.to_owned())
}

impl Responses {
    pub(super) fn new(model: &str, stored: Option<String>, created: u64) -> Self {
        Self {
            id: format!("resp_{}", Uuid::new_v4().simple()),
            stored,
            created,
            model: model.to_owned(),
            output: Vec::new(),
            open: None,
            usage: Usage::default(),
            failure: None,
            events: 0,
        }
    }

    fn event(&mut self, name: &str, mut fields: Value) -> String {
        fields["type"] = name.into();
        fields["sequence_number"] = self.events.into();
        self.events += 1;
        event(Some(name), &fields)
    }

    fn response(&self, status: &str) -> Value {
        let usage = (status != "in_progress").then(|| {
            json!({
                "input_tokens": self.usage.prompt, "output_tokens": self.usage.completion,
                "total_tokens": self.usage.total,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": self.usage.reasoning.unwrap_or(0)},
            })
        });
        let error = self
            .failure
            .as_ref()
            .map(|message| json!({"code": "server_error", "message": message}));
        json!({
            "id": self.id, "object": "response", "created_at": self.created, "status": status,
            "model": self.model, "output": self.output, "error": error,
            "incomplete_details": null, "usage": usage,
            "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
            "store": self.stored.is_some(),
        })
    }

    fn message(id: &str, text: &str, status: &str) -> Value {
        let content = match status {
            "in_progress" => json!([]),
            _ => json!([{"type": "output_text", "text": text, "annotations": []}]),
        };
        json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": content})
    }

    fn reasoning(id: &str, text: &str) -> Value {
        let summary = match text {
            "" => json!([]),
            text => json!([{"type": "summary_text", "text": text}]),
        };
        json!({"id": id, "type": "reasoning", "summary": summary})
    }

    /// More of a message or of reasoning; another kind of item ends the open one.
    fn grow(&mut self, piece: &str, is_reasoning: bool) -> String {
        let fits = self
            .open
            .as_ref()
            .is_some_and(|open| open.is_reasoning == is_reasoning);
        let mut events = String::new();
        if !fits {
            events += &self.close();
            let prefix = if is_reasoning { "rs" } else { "msg" };
            let id = format!("{prefix}_{}", Uuid::new_v4().simple());
            let item = match is_reasoning {
                true => Self::reasoning(&id, ""),
                false => Self::message(&id, "", "in_progress"),
            };
            let at = self.output.len();
            events += &self.event(
                "response.output_item.added",
                json!({"output_index": at, "item": item}),
            );
            if !is_reasoning {
                let part = json!({"type": "output_text", "text": "", "annotations": []});
                events += &self.event(
                    "response.content_part.added",
                    json!({"item_id": id, "output_index": at, "content_index": 0, "part": part}),
                );
            }
            self.open = Some(Open {
                id,
                text: String::new(),
                is_reasoning,
            });
        }
        let at = self.output.len();
        if let Some(open) = &mut self.open {
            open.text += piece;
            let id = open.id.clone();
            if !is_reasoning {
                events += &self.event(
                    "response.output_text.delta",
                    json!({"item_id": id, "output_index": at, "content_index": 0,
                           "delta": piece, "logprobs": []}),
                );
            }
        }
        events
    }

    /// Ends the open item.
    fn close(&mut self) -> String {
        let Some(Open {
            id,
            text,
            is_reasoning,
        }) = self.open.take()
        else {
            return String::new();
        };
        let at = self.output.len();
        let mut events = String::new();
        let item = if is_reasoning {
            Self::reasoning(&id, &text)
        } else {
            events += &self.event(
                "response.output_text.done",
                json!({"item_id": id, "output_index": at, "content_index": 0,
                       "text": text, "logprobs": []}),
            );
            let part = json!({"type": "output_text", "text": text, "annotations": []});
            events += &self.event(
                "response.content_part.done",
                json!({"item_id": id, "output_index": at, "content_index": 0, "part": part}),
            );
            Self::message(&id, &text, "completed")
        };
        events + &self.done(item)
    }

    /// An item that is complete.
    fn done(&mut self, item: Value) -> String {
        let at = self.output.len();
        self.output.push(item.clone());
        self.event(
            "response.output_item.done",
            json!({"output_index": at, "item": item}),
        )
    }

    fn call(&mut self, call_id: &str, name: &str, arguments: &str) -> String {
        let mut events = self.close();
        let at = self.output.len();
        let id = format!("fc_{call_id}");
        let mut item = json!({
            "id": id, "type": "function_call", "status": "in_progress", "call_id": call_id,
            "name": name, "arguments": "",
        });
        events += &self.event(
            "response.output_item.added",
            json!({"output_index": at, "item": item}),
        );
        events += &self.event(
            "response.function_call_arguments.delta",
            json!({"item_id": id, "output_index": at, "delta": arguments}),
        );
        events += &self.event(
            "response.function_call_arguments.done",
            json!({"item_id": id, "output_index": at, "name": name, "arguments": arguments}),
        );
        item["arguments"] = arguments.into();
        item["status"] = "completed".into();
        events + &self.done(item)
    }

    fn returned(&mut self, call_id: &str, output: &str) -> String {
        let mut events = self.close();
        let item = json!({
            "id": format!("fco_{call_id}"), "type": "function_call_output",
            "status": "completed", "call_id": call_id, "output": output,
        });
        let at = self.output.len();
        events += &self.event(
            "response.output_item.added",
            json!({"output_index": at, "item": item}),
        );
        events + &self.done(item)
    }
}

impl Shape for Responses {
    fn on(&mut self, note: &Note) -> String {
        match note {
            Note::Conversation(conversation) => {
                if let Some(agent) = &self.stored {
                    let named = json!({"agent": agent, "conversation": conversation});
                    self.id = format!("{STORED}{}", URL_SAFE_NO_PAD.encode(named.to_string()));
                }
                let response = json!({"response": self.response("in_progress")});
                self.event("response.created", response.clone())
                    + &self.event("response.in_progress", response)
            }
            Note::Text(piece) => self.grow(piece, false),
            Note::Reasoning(piece) => self.grow(piece, true),
            Note::Call {
                id,
                name,
                arguments,
            } => self.call(id, name, arguments),
            Note::Returned { id, output } => self.returned(id, output),
            Note::Usage(step) => {
                self.usage.add(step);
                String::new()
            }
            Note::Finished => {
                let events = self.close();
                let response = json!({"response": self.response("completed")});
                events + &self.event("response.completed", response)
            }
            Note::Failed(error) => {
                let events = self.close();
                self.failure = Some(error.clone());
                let response = json!({"response": self.response("failed")});
                events + &self.event("response.failed", response)
            }
        }
    }

    fn whole(&mut self) -> Result<Value, ApiError> {
        match &self.failure {
            Some(error) => Err(ApiError::new(500, error.clone())),
            None => Ok(self.response("completed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_grow_in_order_and_every_event_has_its_number() {
        let mut response = Responses::new("Ada", Some("agent-1".into()), 7);
        let notes = [
            Note::Conversation("conv-9".into()),
            Note::Reasoning("hm".into()),
            Note::Text("Let ".into()),
            Note::Text("me look.".into()),
            Note::Call {
                id: "call-1".into(),
                name: "Bash".into(),
                arguments: "{}".into(),
            },
            Note::Returned {
                id: "call-1".into(),
                output: "ok".into(),
            },
            Note::Text("Done.".into()),
            Note::Finished,
        ];
        let stream: String = notes.iter().map(|note| response.on(note)).collect();
        let events: Vec<Value> = stream
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|data| serde_json::from_str(data).unwrap())
            .collect();
        for (number, event) in events.iter().enumerate() {
            assert_eq!(event["sequence_number"], number);
        }
        let whole = response.whole().unwrap();
        let kinds: Vec<&str> = whole["output"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["type"].as_str().unwrap())
            .collect();
        let expected = [
            "reasoning",
            "message",
            "function_call",
            "function_call_output",
            "message",
        ];
        assert_eq!(kinds, expected);
        assert_eq!(whole["output"][1]["content"][0]["text"], "Let me look.");
        assert_eq!(events.last().unwrap()["response"], whole);
        let id = whole["id"].as_str().unwrap();
        assert_eq!(conversation_of(id, "agent-1").as_deref(), Some("conv-9"));
        assert_eq!(conversation_of(id, "agent-2"), None);
        assert_eq!(conversation_of("resp_letta_!", "agent-1"), None);
        assert_eq!(conversation_of("resp_1", "agent-1"), None);
    }
}
