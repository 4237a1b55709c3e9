//! An OpenAI-compatible model: streaming chat completions with tools, the
//! history taken from what the conversation remembers.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{Outcome, StepWriter};
use crate::letta::runs::Run;
use crate::letta::store::Call;
use crate::server::Cloud;
use crate::upstream;

/// Messages of history that are sent.
const HISTORY: usize = 200;

/// Where the model is and how it is called.
#[derive(Clone)]
pub struct OpenAi {
    /// Base URL up to and without `/chat/completions`.
    pub base_url: String,
    /// Bearer key, empty for none.
    pub api_key: String,
    /// Model name.
    pub model: String,
}

impl std::fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenAi({} at {})", self.model, self.base_url)
    }
}

impl OpenAi {
    /// One model call: streams what it says and remembers the step.
    pub(crate) async fn perform(&self, cloud: &Cloud, run: &Arc<Run>, body: &Value) -> Outcome {
        let mut writer = StepWriter::new(cloud, run, true);
        let ended = tokio::select! {
            ended = self.call(cloud, run, body, &mut writer) => ended,
            () = run.cancelled() => Ok("cancelled".to_owned()),
        };
        let waits = writer.commit();
        match ended {
            Ok(reason) if reason == "cancelled" => Outcome::Stop(reason),
            Ok(_) if waits => Outcome::Stop("requires_approval".to_owned()),
            Ok(reason) => Outcome::Stop(reason),
            Err(detail) => Outcome::Failed(
                Some("llm_api_error".to_owned()),
                json!({"message_type": "error_message", "error_type": "llm_error",
                    "message": "An error occurred with the LLM request.", "detail": detail}),
            ),
        }
    }

    async fn call(
        &self,
        cloud: &Cloud,
        run: &Run,
        body: &Value,
        writer: &mut StepWriter<'_>,
    ) -> Result<String, String> {
        let client = upstream::client().map_err(|error| error.to_string())?;
        let url = format!("{}/chat/completions", self.base_url.trim_end_matches('/'));
        let mut request = client.post(url).json(&self.request(cloud, run, body));
        if !self.api_key.is_empty() {
            request = request.bearer_auth(&self.api_key);
        }
        let answer = request
            .send()
            .await
            .map_err(|e| e.without_url().to_string())?;
        if !answer.status().is_success() {
            let status = answer.status().as_u16();
            let text: String = answer
                .text()
                .await
                .unwrap_or_default()
                .chars()
                .take(500)
                .collect();
            return Err(format!("Error code: {status} - {text}"));
        }
        let mut stream = answer.bytes_stream();
        let mut buffer = Vec::new();
        let mut reply = Reply::default();
        while let Some(part) = stream.next().await {
            buffer.extend_from_slice(&part.map_err(|e| e.without_url().to_string())?);
            while let Some(at) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=at).collect();
                reply.line(&String::from_utf8_lossy(&line), writer).await;
            }
        }
        let calls = std::mem::take(&mut reply.calls);
        for call in calls.into_values().filter(|call| !call.name.is_empty()) {
            writer.called(call);
        }
        Ok(match reply.finish.as_deref() {
            Some("length") => "max_tokens_exceeded".to_owned(),
            _ => "end_turn".to_owned(),
        })
    }

    fn request(&self, cloud: &Cloud, run: &Run, body: &Value) -> Value {
        let mut messages = Vec::new();
        {
            let world = cloud.store.world();
            let system = world
                .agents
                .get(&run.agent_id)
                .and_then(|a| a.fields["system"].as_str());
            let system = system.filter(|text| !text.is_empty());
            messages.push(json!({"role": "system", "content": system.unwrap_or(
                "You are a helpful coding agent. Your tools run on the user's machine.")}));
            let ids = world
                .conversations
                .get(&run.key)
                .map(|c| c.in_context())
                .unwrap_or_default();
            let start = ids.len().saturating_sub(HISTORY);
            for variants in ids
                .iter()
                .skip(start)
                .filter_map(|id| world.messages.get(id))
            {
                add_to_history(&mut messages, variants);
            }
        }
        close_open_calls(&mut messages);
        let tools: Vec<Value> = body["client_tools"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|tool| {
                json!({"type": "function", "function": {"name": tool["name"],
                    "description": tool["description"], "parameters": tool["parameters"]}})
            })
            .collect();
        let mut request = json!({"model": self.model, "messages": messages, "stream": true});
        if !tools.is_empty() {
            request["tools"] = json!(tools);
        }
        request
    }
}

/// Turns the variants of one stored message into chat messages.
fn add_to_history(messages: &mut Vec<Value>, variants: &[Value]) {
    let mut assistant = json!({"role": "assistant"});
    for variant in variants {
        match variant["message_type"].as_str().unwrap_or_default() {
            "user_message" => {
                messages.push(json!({"role": "user", "content": content(&variant["content"])}));
            }
            "system_message" => {
                messages.push(json!({"role": "system", "content": content(&variant["content"])}));
            }
            "assistant_message" => {
                assistant["content"] = json!(crate::letta::text_of(&variant["content"]));
            }
            "approval_request_message" => {
                let calls = variant["tool_calls"].as_array().into_iter().flatten();
                let function = |call: &Value| {
                    json!({"id": call["tool_call_id"], "type": "function",
                        "function": {"name": call["name"], "arguments": call["arguments"]}})
                };
                assistant["tool_calls"] = calls.map(function).collect();
            }
            "tool_return_message" => {
                for entry in variant["tool_returns"].as_array().into_iter().flatten() {
                    let text = match &entry["tool_return"] {
                        Value::String(text) => text.clone(),
                        parts @ Value::Array(_) => crate::letta::text_of(parts),
                        other => other.to_string(),
                    };
                    messages.push(json!({"role": "tool", "content": text,
                        "tool_call_id": entry["tool_call_id"]}));
                }
            }
            _ => {}
        }
    }
    if assistant["content"].is_string() || assistant["tool_calls"].is_array() {
        messages.push(assistant);
    }
}

/// Text and images of a user message.
fn content(content: &Value) -> Value {
    let Some(parts) = content.as_array() else {
        return content.clone();
    };
    parts
        .iter()
        .filter_map(|part| match part["type"].as_str() {
            Some("text") => Some(json!({"type": "text", "text": part["text"]})),
            Some("image") => {
                let (kind, data) = (&part["source"]["media_type"], &part["source"]["data"]);
                let url = format!("data:{};base64,{}", kind.as_str()?, data.as_str()?);
                Some(json!({"type": "image_url", "image_url": {"url": url}}))
            }
            _ => None,
        })
        .collect()
}

/// Providers refuse a call without its result: a cut history may hold some.
fn close_open_calls(messages: &mut Vec<Value>) {
    let answered: Vec<Value> = messages
        .iter()
        .filter(|m| m["role"] == "tool")
        .map(|m| m["tool_call_id"].clone())
        .collect();
    let asked: Vec<Value> = messages
        .iter()
        .flat_map(|m| m["tool_calls"].as_array().cloned().unwrap_or_default())
        .map(|call| call["id"].clone())
        .collect();
    messages.retain(|m| m["role"] != "tool" || asked.contains(&m["tool_call_id"]));
    let mut at = 0;
    while at < messages.len() {
        let open: Vec<Value> = messages[at]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|call| call["id"].clone())
            .filter(|id| !answered.contains(id))
            .collect();
        for id in open {
            let note = json!({"role": "tool", "tool_call_id": id, "content": "No result."});
            messages.insert(at + 1, note);
        }
        at += 1;
    }
}

#[derive(Default)]
struct Reply {
    calls: BTreeMap<u64, Call>,
    finish: Option<String>,
}

impl Reply {
    /// Takes one line of the provider's event stream.
    async fn line(&mut self, line: &str, writer: &mut StepWriter<'_>) {
        let Some(data) = line.trim_end().strip_prefix("data:") else {
            return;
        };
        let Ok(chunk) = serde_json::from_str::<Value>(data.trim_start()) else {
            return;
        };
        let choice = &chunk["choices"][0];
        let delta = &choice["delta"];
        let thought = delta["reasoning_content"]
            .as_str()
            .or(delta["reasoning"].as_str());
        if let Some(text) = thought.filter(|text| !text.is_empty()) {
            writer.reason(text, 1).await;
        }
        if let Some(text) = delta["content"].as_str().filter(|text| !text.is_empty()) {
            writer.say(text, 1).await;
        }
        for part in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = part["index"].as_u64().unwrap_or(0);
            let call = self.calls.entry(index).or_insert_with(|| Call {
                id: String::new(),
                name: String::new(),
                arguments: String::new(),
            });
            if let Some(id) = part["id"].as_str().filter(|id| !id.is_empty()) {
                call.id = id.to_owned();
            } else if call.id.is_empty() {
                call.id = format!("call_{}", crate::short_id());
            }
            let name = part["function"]["name"]
                .as_str()
                .filter(|name| !name.is_empty());
            if let Some(name) = name {
                call.name = name.to_owned();
            }
            let arguments = part["function"]["arguments"].as_str().unwrap_or_default();
            call.arguments.push_str(arguments);
            writer.call_delta(&call.id, name, arguments);
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish = Some(reason.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_keeps_calls_and_results_together() {
        let mut messages = Vec::new();
        add_to_history(
            &mut messages,
            &[json!({"message_type": "approval_request_message",
            "tool_calls": [{"tool_call_id": "a", "name": "Bash", "arguments": "{}"},
                {"tool_call_id": "b", "name": "Bash", "arguments": "{}"}]})],
        );
        add_to_history(
            &mut messages,
            &[json!({"message_type": "tool_return_message",
            "tool_returns": [{"tool_call_id": "a", "tool_return": "x"},
                {"tool_call_id": "gone", "tool_return": "y"}]})],
        );
        close_open_calls(&mut messages);
        let ids: Vec<&str> = messages
            .iter()
            .filter_map(|m| m["tool_call_id"].as_str())
            .collect();
        assert_eq!(ids, ["b", "a"]);
    }
}
