//! What an abort left behind for the next request (spec 03 §13.3).
//!
//! Invariant: consumed by exactly one turn. While something is held, clients
//! see no pending approvals, because those were answered by the interruption.

use serde_json::{Map, Value, json};

/// Text of a call that an abort stopped.
pub(crate) const INTERRUPTED: &str = "Interrupted by user";
/// Reason of a call that an abort answered before anyone decided.
pub(crate) const DENIED_BY_INTERRUPT: &str = "User interrupted the stream";

/// Results for calls that the server still waits for.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    held: Option<Vec<Map<String, Value>>>,
}

impl Interrupt {
    /// Whether the next turn must be told of an interruption.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Notes an interruption with results for the calls it stopped. Results
    /// noted before stay.
    pub(crate) fn note(&mut self, results: Vec<Map<String, Value>>) {
        let held = self.held.get_or_insert_default();
        if held.is_empty() {
            *held = results;
        }
    }

    /// Puts in a set that is known to be complete.
    pub(crate) fn replace(&mut self, results: Vec<Map<String, Value>>) {
        self.held = Some(results);
    }

    /// Takes what the next request must carry.
    pub(crate) fn take(&mut self) -> Option<Vec<Map<String, Value>>> {
        self.held.take()
    }
}

/// The result of a call that ran when the abort came.
pub(crate) fn interrupted_call(tool_call_id: &str) -> Map<String, Value> {
    object(json!({
        "type": "tool", "tool_call_id": tool_call_id,
        "tool_return": INTERRUPTED, "status": "error",
    }))
}

/// The denial of a call that nobody had decided yet.
pub(crate) fn denied_call(tool_call_id: &str, reason: &str) -> Map<String, Value> {
    object(json!({
        "type": "approval", "tool_call_id": tool_call_id, "approve": false, "reason": reason,
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_results_stay_and_are_taken_once() {
        let mut interrupt = Interrupt::default();
        interrupt.note(vec![]);
        assert!(interrupt.is_held());
        interrupt.note(vec![interrupted_call("a")]);
        interrupt.note(vec![interrupted_call("b")]);
        let held = interrupt.take().unwrap();
        assert_eq!(held.len(), 1);
        assert_eq!(held[0]["tool_call_id"], "a");
        assert!(interrupt.take().is_none());
    }
}
