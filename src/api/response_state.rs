//! The response-state header: lets the provider reuse its cache across an
//! approval (03 §3.6).
//!
//! Invariant: a remembered id is used at most once, and any request that cannot
//! use it forgets it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::protocol::Scope;

/// Conversations remembered at most; past it everything is forgotten, which costs
/// only cache hits.
const MAX_CONVERSATIONS: usize = 1024;

/// The remembered response ids of the process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ResponseStates(Arc<Mutex<HashMap<Scope, String>>>);

impl ResponseStates {
    /// Takes note of a `response_state` chunk.
    pub fn record(&self, scope: &Scope, chunk: &Map<String, Value>) {
        let text = |name| chunk.get(name).and_then(Value::as_str);
        let (Some("approval_boundary"), Some(id)) = (text("cache_scope"), text("response_id"))
        else {
            return;
        };
        if id.is_empty() {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_CONVERSATIONS && !all.contains_key(scope) {
            all.clear();
        }
        all.insert(scope.clone(), id.to_owned());
    }

    /// The value of `X-Letta-Response-State` for the next request of a conversation.
    /// `continues` says that the request is one approval message, decided without a
    /// human and without a reminder. Either way the memory is used up.
    pub fn take(&self, scope: &Scope, continues: bool) -> Option<String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = all.remove(scope).filter(|_| continues)?;
        let state = serde_json::json!({
            "v": 1,
            "cache_scope": "approval_boundary",
            "previous_response_id": id,
        });
        Some(URL_SAFE_NO_PAD.encode(state.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(scope: &str) -> Map<String, Value> {
        let value = serde_json::json!({"cache_scope": scope, "response_id": "resp_1"});
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn an_id_is_given_once_and_only_to_a_continuation() {
        let states = ResponseStates::default();
        let scope = Scope::new(Some("agent-1"), None);
        states.record(&scope, &chunk("approval_boundary"));
        let header = states.take(&scope, true).unwrap();
        let json = URL_SAFE_NO_PAD.decode(header).unwrap();
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"v":1,"cache_scope":"approval_boundary","previous_response_id":"resp_1"}"#
        );
        assert_eq!(states.take(&scope, true), None);

        states.record(&scope, &chunk("approval_boundary"));
        assert_eq!(states.take(&scope, false), None);
        assert_eq!(states.take(&scope, true), None);

        states.record(&scope, &chunk("else"));
        assert_eq!(states.take(&scope, true), None);
    }

    #[test]
    fn memory_is_bounded() {
        let states = ResponseStates::default();
        for number in 0..3000 {
            let scope = Scope::new(None, Some(&format!("conv-{number}")));
            states.record(&scope, &chunk("approval_boundary"));
        }
        assert!(states.0.lock().unwrap().len() <= MAX_CONVERSATIONS);
    }
}
