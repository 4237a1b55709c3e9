//! Tool calls collected from a stream (spec 03 §5.2, §5.6).

use serde_json::{Map, Value};

/// A call that the server waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PendingCall {
    /// `tool_call_id`.
    pub(crate) id: String,
    /// The tool; empty until its name arrived.
    pub(crate) name: String,
    /// The arguments as text, as far as they arrived.
    pub(crate) args: String,
    /// The approval request message.
    pub(crate) message_id: Option<String>,
}

/// Calls by id, in order of arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls(Vec<PendingCall>);

impl Calls {
    /// Takes in an `approval_request_message`: its `tool_calls` when that is an
    /// array, else its `tool_call`. Token deltas append arguments.
    pub(crate) fn collect(&mut self, message: &Map<String, Value>) {
        let message_id = message.get("id").and_then(Value::as_str);
        match message.get("tool_calls") {
            Some(Value::Array(calls)) => {
                for call in calls {
                    self.add(call, message_id);
                }
            }
            _ => {
                if let Some(call) = message.get("tool_call") {
                    self.add(call, message_id);
                }
            }
        }
    }

    fn add(&mut self, call: &Value, message_id: Option<&str>) {
        let text = |key: &str| {
            call.get(key)
                .and_then(Value::as_str)
                .filter(|s| !s.is_empty())
        };
        let Some(id) = text("tool_call_id") else {
            return;
        };
        let at = self
            .0
            .iter()
            .position(|known| known.id == id)
            .unwrap_or_else(|| {
                self.0.push(PendingCall {
                    id: id.to_owned(),
                    ..PendingCall::default()
                });
                self.0.len() - 1
            });
        let known = &mut self.0[at];
        if let Some(name) = text("name") {
            name.clone_into(&mut known.name);
        }
        if let Some(args) = text("arguments") {
            known.args.push_str(args);
        }
        if let Some(message_id) = message_id {
            known.message_id = Some(message_id.to_owned());
        }
    }

    /// Adds the calls that are not known yet, without touching known ones.
    pub(crate) fn add_missing(&mut self, other: Self) {
        for call in other.0 {
            if !self.0.iter().any(|known| known.id == call.id) {
                self.0.push(call);
            }
        }
    }

    /// The calls in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &PendingCall> {
        self.0.iter()
    }

    /// Forgets a call that was answered on the server.
    pub(crate) fn remove(&mut self, id: &str) {
        self.0.retain(|call| call.id != id);
    }

    /// Whether nothing was collected.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Continues calls that an earlier part of the same run began: the text
    /// goes on where the cut happened, and calls known only from the earlier
    /// part stay (03 §5.6).
    pub(crate) fn continue_from(&mut self, earlier: Self) {
        let mut merged = earlier.0;
        for later in std::mem::take(&mut self.0) {
            match merged.iter_mut().find(|call| call.id == later.id) {
                Some(call) => {
                    if call.name.is_empty() {
                        call.name = later.name;
                    }
                    call.args.push_str(&later.args);
                    call.message_id = later.message_id.or(call.message_id.take());
                }
                None => merged.push(later),
            }
        }
        self.0 = merged;
    }

    /// The calls in order.
    pub(crate) fn into_vec(self) -> Vec<PendingCall> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn collect(messages: &[Value]) -> Vec<PendingCall> {
        let mut calls = Calls::default();
        for message in messages {
            calls.collect(message.as_object().unwrap());
        }
        calls.into_vec()
    }

    #[test]
    fn s03_22_row03_all_three_forms_of_tool_calls_give_the_same_result() {
        let call = json!({"name":"Bash","tool_call_id":"c","arguments":"{}"});
        let array = collect(&[json!({"id":"m","tool_call":call,"tool_calls":[call]})]);
        let object = collect(&[json!({"id":"m","tool_call":call,"tool_calls":call})]);
        let single = collect(&[json!({"id":"m","tool_call":call})]);
        assert_eq!(array, object);
        assert_eq!(array, single);
        assert_eq!(array[0].args, "{}");
    }

    #[test]
    fn s03_22_row02_arguments_split_over_fifty_deltas_are_joined_exactly() {
        let whole = r#"{"command":"echo \u00e9\ud83d\ude00 ü😀 \"x\"","description":"d","pad":"0123456789"}"#;
        let chars: Vec<char> = whole.chars().collect();
        let size = chars.len().div_ceil(50);
        let mut messages =
            vec![json!({"id":"m","tool_call":{"name":"Bash","tool_call_id":"c","arguments":""}})];
        for piece in chars.chunks(size) {
            let piece: String = piece.iter().collect();
            messages.push(
                json!({"id":"m","tool_call":{"name":null,"tool_call_id":"c","arguments":piece}}),
            );
        }
        let calls = collect(&messages);
        assert_eq!(calls[0].args, whole);
        assert_eq!(calls[0].name, "Bash");
    }

    #[test]
    fn a_resumed_stream_continues_the_arguments_and_keeps_earlier_calls() {
        let part = |id: &str, args: &str| json!({"tool_call":{"name":"T","tool_call_id":id,"arguments":args}});
        let mut earlier = Calls::default();
        earlier.collect(part("a", "{\"x\":").as_object().unwrap());
        earlier.collect(part("b", "{}").as_object().unwrap());
        let mut later = Calls::default();
        later.collect(
            json!({"tool_call":{"tool_call_id":"a","arguments":"1}"}})
                .as_object()
                .unwrap(),
        );
        later.continue_from(earlier);
        let calls = later.into_vec();
        assert_eq!(
            (calls[0].args.as_str(), calls[0].name.as_str()),
            ("{\"x\":1}", "T")
        );
        assert_eq!(calls[1].id, "b");
    }

    #[test]
    fn calls_without_an_id_are_ignored() {
        assert!(
            collect(&[
                json!({"tool_call":{"name":"T"}}),
                json!({"tool_calls":[1,null]}),
                json!({})
            ])
            .is_empty()
        );
    }
}
