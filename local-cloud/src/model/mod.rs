//! Who answers: a script in the user's own text, or an OpenAI-compatible model.
//!
//! Both write through a [`StepWriter`], which streams the chunks of one step and
//! in the end puts the step's message into the store.

pub(crate) mod endpoint;
pub(crate) mod openai;
pub mod script;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

pub use openai::OpenAi;

use crate::letta::runs::Run;
use crate::letta::store::Call;
use crate::server::Cloud;

/// Who answers messages.
#[derive(Clone, Debug)]
pub enum Model {
    /// The script language of [`script`]; text without a script gets `canned`,
    /// or an explanation of the language when that is `None`.
    Scripted {
        /// Answer to text without a script.
        canned: Option<String>,
    },
    /// An OpenAI-compatible endpoint.
    OpenAi(OpenAi),
}

impl Default for Model {
    fn default() -> Self {
        Model::Scripted { canned: None }
    }
}

impl Model {
    /// The OpenAI-compatible endpoint of `OPENAI_BASE_URL` and `OPENAI_API_KEY`
    /// (either is enough; `OPENAI_MODEL` names the model), else the script.
    pub fn from_env() -> Self {
        let get = |name: &str| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.trim().is_empty())
        };
        let (url, key) = (get("OPENAI_BASE_URL"), get("OPENAI_API_KEY"));
        if url.is_none() && key.is_none() {
            return Model::default();
        }
        Model::OpenAi(OpenAi {
            base_url: url.unwrap_or_else(|| "https://api.openai.com/v1".to_owned()),
            api_key: key.unwrap_or_default(),
            model: get("OPENAI_MODEL").unwrap_or_else(|| "gpt-5-mini".to_owned()),
        })
    }
}

/// How a step's tool calls appear in stream chunks (03 §5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `tool_call` and `tool_calls`, the same object: token streaming of 0.16.8.
    #[default]
    Object,
    /// `tool_calls` as an array, besides `tool_call`.
    Array,
    /// Only `tool_call`.
    Single,
}

/// How a run's work ended.
pub(crate) enum Outcome {
    /// Stop reason of a run that did its work.
    Stop(String),
    /// A stop reason without usage or error, wanted by the script.
    Bare(String),
    /// A failure: stop reason and error body.
    Failed(Option<String>, Value),
}

/// Streams one step and remembers it.
pub(crate) struct StepWriter<'a> {
    cloud: &'a Cloud,
    run: &'a Arc<Run>,
    message_id: String,
    step_id: String,
    date: String,
    reasoning: String,
    text: String,
    calls: Vec<Call>,
    server: Vec<(Call, String)>,
    /// Token deltas or whole messages.
    pub(crate) stream_tokens: bool,
    /// Time between deltas.
    pub(crate) pace: Duration,
    /// Shape of tool call chunks.
    pub(crate) shape: Shape,
}

impl<'a> StepWriter<'a> {
    pub(crate) fn new(cloud: &'a Cloud, run: &'a Arc<Run>, stream_tokens: bool) -> Self {
        Self {
            cloud,
            run,
            message_id: format!("message-{}", uuid::Uuid::new_v4()),
            step_id: format!("step-{}", crate::short_id()),
            date: crate::now(),
            reasoning: String::new(),
            text: String::new(),
            calls: Vec::new(),
            server: Vec::new(),
            stream_tokens,
            pace: Duration::ZERO,
            shape: Shape::default(),
        }
    }

    fn chunk(&self, kind: &str, otid: &str, fields: Value) {
        let mut chunk = json!({"message_type": kind, "id": self.message_id, "date": self.date,
            "otid": format!("{}-{otid}", self.message_id), "step_id": self.step_id});
        if let (Some(chunk), Some(fields)) = (chunk.as_object_mut(), fields.as_object()) {
            chunk.extend(fields.clone());
        }
        self.run.chunk(chunk);
    }

    /// Streams reasoning in `pieces` deltas; true when the run was cancelled.
    pub(crate) async fn reason(&mut self, text: &str, pieces: usize) -> bool {
        self.reasoning.push_str(text);
        for piece in cut(text, if self.stream_tokens { pieces } else { 1 }) {
            self.chunk(
                "reasoning_message",
                "r",
                json!({"reasoning": piece, "source": "reasoner_model"}),
            );
            if self.run.pause(self.pace).await {
                return true;
            }
        }
        false
    }

    /// Streams answer text in `pieces` deltas; true when the run was cancelled.
    pub(crate) async fn say(&mut self, text: &str, pieces: usize) -> bool {
        self.text.push_str(text);
        for piece in cut(text, if self.stream_tokens { pieces } else { 1 }) {
            self.chunk(
                "assistant_message",
                "a",
                json!({"content": [{"type": "text", "text": piece}]}),
            );
            if self.run.pause(self.pace).await {
                return true;
            }
        }
        false
    }

    /// Streams a call of a client tool, its arguments in `pieces` deltas.
    pub(crate) async fn call(&mut self, call: Call, pieces: usize) -> bool {
        let pieces = if self.stream_tokens { pieces } else { 1 };
        if pieces <= 1 {
            self.call_delta(&call.id, Some(&call.name), &call.arguments);
        } else {
            self.call_delta(&call.id, Some(&call.name), "");
            for piece in cut(&call.arguments, pieces) {
                if self.run.pause(self.pace).await {
                    return true;
                }
                self.call_delta(&call.id, None, piece);
            }
        }
        self.calls.push(call);
        self.run.pause(self.pace).await
    }

    /// One delta of a call: the name comes once, arguments add up.
    pub(crate) fn call_delta(&self, id: &str, name: Option<&str>, arguments: &str) {
        let call = json!({"name": name, "tool_call_id": id, "arguments": arguments});
        let fields = match self.shape {
            Shape::Array => json!({"tool_call": call, "tool_calls": [call]}),
            Shape::Object if self.stream_tokens => json!({"tool_call": call, "tool_calls": call}),
            Shape::Object => json!({"tool_call": call, "tool_calls": [call]}),
            Shape::Single => json!({"tool_call": call}),
        };
        self.chunk("approval_request_message", "c", fields);
    }

    /// Counts a call that was streamed with [`Self::call_delta`].
    pub(crate) fn called(&mut self, call: Call) {
        self.calls.push(call);
    }

    /// Adds to the remembered text what was streamed piecewise.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.calls.is_empty() && self.server.is_empty()
    }

    /// Streams a call of a server tool; its return follows at the step's end.
    pub(crate) fn server_call(&mut self, call: Call, result: String) {
        let shown = call.to_json();
        self.chunk(
            "tool_call_message",
            "s",
            json!({"tool_call": shown, "tool_calls": [shown]}),
        );
        self.server.push((call, result));
    }

    /// Puts the step into the store. Returns of server tools are streamed now,
    /// or held back until the approval when the step has client calls too.
    /// True when the run has to stop for approval.
    pub(crate) fn commit(self) -> bool {
        let mut variants = Vec::new();
        let base = |kind: &str| {
            json!({"id": self.message_id, "date": self.date, "message_type": kind,
                "step_id": self.step_id, "run_id": self.run.id})
        };
        if !self.reasoning.is_empty() {
            let mut variant = base("reasoning_message");
            variant["reasoning"] = json!(self.reasoning);
            variants.push(variant);
        }
        if !self.text.is_empty() {
            let mut variant = base("assistant_message");
            variant["content"] = json!([{"type": "text", "text": self.text}]);
            variants.push(variant);
        }
        for (call, _) in &self.server {
            let mut variant = base("tool_call_message");
            variant["tool_call"] = call.to_json();
            variant["tool_calls"] = json!([call.to_json()]);
            variants.push(variant);
        }
        if let Some(first) = self.calls.first() {
            let mut variant = base("approval_request_message");
            variant["tool_call"] = first.to_json();
            variant["tool_calls"] = self.calls.iter().map(Call::to_json).collect();
            variants.push(variant);
        }
        let returns: Vec<Value> = self
            .server
            .iter()
            .map(|(call, result)| {
                json!({"tool_call_id": call.id, "status": "success", "tool_return": result})
            })
            .collect();
        let stops = !self.calls.is_empty();
        let mut world = self.cloud.store.world();
        if !variants.is_empty() {
            world.add_message(&self.run.key, self.message_id.clone(), variants);
        }
        if let Some(conversation) = world.conversations.get_mut(&self.run.key)
            && stops
        {
            conversation.pending = self.calls.clone();
            conversation.awaiting = Some(self.run.clone());
            conversation.held = returns;
            return true;
        }
        drop(world);
        returned(self.cloud, self.run, returns);
        stops
    }
}

/// Streams and remembers the returns of server tools.
pub(crate) fn returned(cloud: &Cloud, run: &Arc<Run>, returns: Vec<Value>) {
    for entry in returns {
        let id = format!("message-{}", uuid::Uuid::new_v4());
        let message = json!({"id": id, "date": crate::now(), "message_type": "tool_return_message",
            "tool_call_id": entry["tool_call_id"], "status": entry["status"],
            "tool_return": entry["tool_return"], "tool_returns": [entry]});
        cloud
            .store
            .world()
            .add_message(&run.key, id, vec![message.clone()]);
        run.chunk(message);
    }
}

/// Usage as the server counts it; the numbers of a script mean nothing.
pub(crate) fn usage() -> Value {
    json!({"message_type": "usage_statistics", "completion_tokens": 5, "prompt_tokens": 10,
        "total_tokens": 15, "step_count": 1, "run_ids": null})
}

/// Cuts text into at most `pieces` parts of about the same length.
fn cut(text: &str, pieces: usize) -> Vec<&str> {
    let chars = text.chars().count();
    let pieces = pieces.clamp(1, chars.max(1));
    let mut parts = Vec::with_capacity(pieces);
    let mut rest = text;
    for left in (1..=pieces).rev() {
        let take = rest.chars().count().div_ceil(left);
        let at = rest
            .char_indices()
            .nth(take)
            .map_or(rest.len(), |(at, _)| at);
        let (part, after) = rest.split_at(at);
        parts.push(part);
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_nothing_is_lost() {
        for pieces in 1..12 {
            let parts = cut("añ🦀b\u{e9}c", pieces);
            assert_eq!(parts.concat(), "añ🦀b\u{e9}c");
            assert!(parts.len() <= pieces);
        }
        assert_eq!(cut("", 3), [""]);
        assert_eq!(cut("abcd", 2), ["ab", "cd"]);
    }
}
