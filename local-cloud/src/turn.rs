//! One whole turn, from the user's message to `turn_finished`.
//!
//! Invariant: a trace is complete and in the device's own order, also when its
//! frames came over two sockets: `event_seq` tells (02 §4.1).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::letta::default_key;
use crate::link::{Channel, Frame};
use crate::log::{Cursor, WaitError};
use crate::server::LocalCloud;

/// Which conversation of which agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// `agent-…`
    pub agent: String,
    /// `conv-…` or `default`
    pub conversation: String,
}

impl Scope {
    /// A scope from its two ids.
    pub fn new(agent: impl Into<String>, conversation: impl Into<String>) -> Self {
        Self {
            agent: agent.into(),
            conversation: conversation.into(),
        }
    }

    /// The `runtime` of a frame.
    pub fn runtime(&self) -> Value {
        json!({"agent_id": self.agent, "conversation_id": self.conversation})
    }

    fn is(&self, runtime: &Value) -> bool {
        runtime["agent_id"] == self.agent.as_str()
            && runtime["conversation_id"] == self.conversation.as_str()
    }

    pub(crate) fn key(&self) -> String {
        if self.conversation == "default" {
            default_key(&self.agent)
        } else {
            self.conversation.clone()
        }
    }
}

/// How a `control_request` is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Let it run as it is.
    Allow,
    /// Let it run, and take the offered suggestion.
    AllowAndSave,
    /// Let it run with these arguments.
    AllowEdited(Value),
    /// Do not let it run; the reason goes to the model.
    Deny(String),
    /// No answer.
    Ignore,
}

impl Decision {
    fn body(self) -> Option<Value> {
        Some(match self {
            Decision::Allow => json!({"behavior": "allow"}),
            Decision::AllowAndSave => {
                json!({"behavior": "allow", "selected_permission_suggestion_ids": ["save-default", "other"]})
            }
            Decision::AllowEdited(input) => json!({"behavior": "allow", "updated_input": input}),
            Decision::Deny(reason) => json!({"behavior": "deny", "message": reason}),
            Decision::Ignore => return None,
        })
    }
}

/// Everything a device sent for one turn, in order.
#[derive(Clone, Debug)]
pub struct TurnTrace {
    /// The frames of the scope, from `input_accepted` to `turn_finished`.
    pub frames: Vec<Arc<Frame>>,
    /// Its `turn_finished`.
    pub finished: Value,
    /// From sending the input to `turn_finished`.
    pub took: Duration,
    /// Where the trace ends, to go on watching.
    pub end: Cursor,
}

impl TurnTrace {
    /// Labels of all frames: `type`, `stream_delta:<message_type>`, `update_loop_status:<status>`.
    pub fn labels(&self) -> Vec<String> {
        self.frames.iter().map(|frame| frame.label()).collect()
    }

    /// The deltas of this `message_type`; not those that a subagent mirrors here.
    pub fn deltas(&self, message_type: &str) -> Vec<Value> {
        let own = self.frames.iter().map(|frame| &frame.value);
        let own = own.filter(|frame| frame["subagent_id"].is_null());
        let deltas = own.map(|frame| &frame["delta"]);
        deltas
            .filter(|delta| delta["message_type"] == message_type)
            .cloned()
            .collect()
    }

    /// The frames of this `type`.
    pub fn of_type(&self, kind: &str) -> Vec<Value> {
        let frames = self.frames.iter().filter(|frame| frame.kind() == kind);
        frames.map(|frame| frame.value.clone()).collect()
    }

    /// The answer's text.
    pub fn text(&self) -> String {
        self.deltas("assistant_message")
            .iter()
            .map(|delta| crate::letta::text_of(&delta["content"]))
            .collect()
    }

    /// `stop_reason` of `turn_finished`.
    pub fn stop_reason(&self) -> &str {
        self.finished["stop_reason"].as_str().unwrap_or_default()
    }

    /// The final results of local tools: `{tool_call_id, status, tool_return, …}` (live ones left out).
    pub fn tool_returns(&self) -> Vec<Value> {
        self.deltas("tool_return_message")
            .iter()
            .filter(|d| {
                !d["id"]
                    .as_str()
                    .is_some_and(|id| id.starts_with("synthetic-tool-return-stream-"))
            })
            .flat_map(|delta| {
                delta["tool_returns"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default()
            })
            .collect()
    }
}

impl LocalCloud {
    /// Sends one user message to the newest device and waits for the end of the turn.
    ///
    /// # Errors
    /// No device, or no `turn_finished` within [`turn_timeout`](crate::Options).
    pub async fn turn(&self, scope: &Scope, text: &str) -> Result<TurnTrace, WaitError> {
        self.turn_deciding(scope, text, |_| Decision::Ignore).await
    }

    /// [`LocalCloud::turn`], answering every `control_request` of the scope.
    ///
    /// # Errors
    /// As for `turn`.
    pub async fn turn_deciding(
        &self,
        scope: &Scope,
        text: &str,
        decide: impl FnMut(&Value) -> Decision,
    ) -> Result<TurnTrace, WaitError> {
        self.turn_with(scope, json!({"content": text}), json!({}), decide)
            .await
    }

    /// [`LocalCloud::turn_deciding`] with a whole user message (`content`, and a
    /// `client_message_id` if it shall not be a new one) and further fields of
    /// the payload (02 §5.3).
    ///
    /// # Errors
    /// As for `turn`.
    pub async fn turn_with(
        &self,
        scope: &Scope,
        message: Value,
        options: Value,
        mut decide: impl FnMut(&Value) -> Decision,
    ) -> Result<TurnTrace, WaitError> {
        let within = self.cloud.options.turn_timeout;
        let started = Instant::now();
        let deadline = started + within;
        let device = self.wait_for_device(within).await?;
        let id = crate::short_id();
        let request_id = format!("in-{id}");
        let mut cursor = self.mark();
        let mut sent = json!({"role": "user", "client_message_id": format!("cm-{id}")});
        extend(&mut sent, message);
        let mut payload = json!({"kind": "create_message", "messages": [sent]});
        extend(&mut payload, options);
        device.send(json!({
            "type": "input", "request_id": request_id, "runtime": scope.runtime(),
            "payload": payload,
        }));
        let mut seen = Gathering::new(device.link());
        loop {
            // Frames of the other socket may still be under way.
            let end = seen.finished_at.map(|at| at + STRAGGLERS);
            let deadline = end.map_or(deadline, |end| deadline.min(end));
            let frames = &self.cloud.devices.frames;
            let Some((at, frame)) = frames.find(cursor, deadline, |f| Some(f.clone())).await else {
                break;
            };
            cursor = at;
            if seen.take(scope, &frame) && frame.kind() == "control_request" {
                self.answer(scope, &frame.value, decide(&frame.value))
                    .await?;
            }
            if seen.is_complete() {
                break;
            }
        }
        let took = started.elapsed();
        match seen.finished {
            Some(ref finished) => Ok(TurnTrace {
                finished: finished.value.clone(),
                frames: seen.ordered(),
                took,
                end: cursor,
            }),
            None => Err(self.cloud.frame_wait_error("turn_finished", within)),
        }
    }

    /// Answers a `control_request` over the newest device.
    ///
    /// # Errors
    /// No device.
    pub async fn answer(
        &self,
        scope: &Scope,
        request: &Value,
        decision: Decision,
    ) -> Result<(), WaitError> {
        let Some(decision) = decision.body() else {
            return Ok(());
        };
        let device = self
            .wait_for_device(self.cloud.options.turn_timeout)
            .await?;
        device.send(json!({
            "type": "input", "request_id": format!("answer-{}", crate::short_id()),
            "runtime": scope.runtime(),
            "payload": {"kind": "approval_response", "request_id": request["request_id"],
                "decision": decision},
        }));
        Ok(())
    }
}

/// Puts the fields of one object into another.
fn extend(object: &mut Value, fields: Value) {
    if let (Value::Object(object), Value::Object(fields)) = (object, fields) {
        object.extend(fields);
    }
}

/// How long a trace waits for frames that `turn_finished` has overtaken.
const STRAGGLERS: Duration = Duration::from_millis(500);

/// The frames of one turn while they come in.
struct Gathering {
    link: u64,
    frames: Vec<Arc<Frame>>,
    finished: Option<Arc<Frame>>,
    finished_at: Option<Instant>,
    /// The lowest number of the turn's own frames: what the device sent after it
    /// came in after the input went out.
    first: Option<u64>,
    /// Numbers of the link's enveloped frames, of every scope.
    numbers: BTreeSet<u64>,
}

impl Gathering {
    fn new(link: u64) -> Self {
        Self {
            link,
            frames: Vec::new(),
            finished: None,
            finished_at: None,
            first: None,
            numbers: BTreeSet::new(),
        }
    }

    /// Counts a frame; true when it belongs to the turn.
    fn take(&mut self, scope: &Scope, frame: &Arc<Frame>) -> bool {
        let ours = scope.is(&frame.value["runtime"]);
        if let Some(number) = number_of(frame).filter(|_| frame.link == self.link) {
            self.numbers.insert(number);
            if ours {
                self.first = Some(self.first.map_or(number, |first| first.min(number)));
            }
        }
        if ours {
            self.frames.push(frame.clone());
            if frame.kind() == "turn_finished" && self.finished.is_none() {
                self.finished = Some(frame.clone());
                self.finished_at = Some(Instant::now());
            }
        }
        ours
    }

    /// Whether the turn has ended and nothing sent before its end is missing.
    fn is_complete(&self) -> bool {
        let Some(finished) = &self.finished else {
            return false;
        };
        let Some(last) = number_of(finished).filter(|_| finished.link == self.link) else {
            return true;
        };
        let first = self.first.unwrap_or(last);
        let count = u64::try_from(self.numbers.range(first..=last).count()).unwrap_or(0);
        count == last - first + 1
    }

    /// The frames up to `turn_finished` as the device numbered them. A bare frame
    /// stays behind the numbered one that it followed on its socket.
    fn ordered(&self) -> Vec<Arc<Frame>> {
        let mut behind: HashMap<(u64, Channel), u64> = HashMap::new();
        let mut keyed: Vec<((u64, u64), Arc<Frame>)> = Vec::with_capacity(self.frames.len());
        for frame in &self.frames {
            let last = behind.entry((frame.link, frame.channel)).or_default();
            *last = number_of(frame).unwrap_or(*last);
            keyed.push(((frame.link, *last), frame.clone()));
        }
        keyed.sort_by_key(|(key, _)| *key);
        let mut frames: Vec<_> = keyed.into_iter().map(|(_, frame)| frame).collect();
        if let Some(end) = frames
            .iter()
            .position(|frame| frame.kind() == "turn_finished")
        {
            frames.truncate(end + 1);
        }
        frames
    }
}

fn number_of(frame: &Frame) -> Option<u64> {
    frame.value["event_seq"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(channel: Channel, kind: &str, number: Option<u64>) -> Arc<Frame> {
        let mut value = json!({"type": kind, "runtime": {"agent_id": "a", "conversation_id": "c"}});
        if let Some(number) = number {
            value["event_seq"] = json!(number);
        }
        Arc::new(Frame {
            link: 1,
            channel,
            value,
            at: Instant::now(),
        })
    }

    #[tokio::test]
    async fn a_trace_waits_for_frames_that_the_end_has_overtaken() {
        let scope = Scope::new("a", "c");
        let mut seen = Gathering::new(1);
        // What another conversation sent before counts for nothing.
        let mut other = frame(Channel::Stream, "stream_delta", Some(2));
        if let Some(frame) = Arc::get_mut(&mut other) {
            frame.value["runtime"]["conversation_id"] = json!("another");
        }
        assert!(!seen.take(&scope, &other));
        for frame in [
            frame(Channel::Stream, "update_loop_status", Some(4)),
            frame(Channel::Control, "input_accepted", None),
            frame(Channel::Control, "turn_finished", Some(6)),
        ] {
            assert!(seen.take(&scope, &frame));
        }
        assert!(!seen.is_complete(), "number 5 is missing");
        seen.take(&scope, &frame(Channel::Stream, "stream_delta", Some(5)));
        seen.take(
            &scope,
            &frame(Channel::Stream, "update_device_status", Some(7)),
        );
        assert!(seen.is_complete());
        let kinds: Vec<String> = seen.ordered().iter().map(|f| f.kind().to_owned()).collect();
        assert_eq!(
            kinds,
            [
                "input_accepted",
                "update_loop_status",
                "stream_delta",
                "turn_finished"
            ]
        );
    }
}
