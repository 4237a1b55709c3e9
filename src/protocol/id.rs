//! Identities on the wire: which conversation a frame is about, and which
//! connection it came from.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The conversation id that stands for an agent's own default conversation.
pub const DEFAULT_CONVERSATION: &str = "default";

/// Stands in a key where no agent is known (spec 02 §3).
pub const UNKNOWN_AGENT: &str = "__unknown__";

/// One conversation of one agent: the `runtime` of a frame (02 §2.2).
///
/// Both parts are non-empty; `agent_id` is `None` for agent-free conversations.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// The agent, or `None` when the conversation carries its own model.
    pub agent_id: Option<Arc<str>>,
    /// `conv-…` or [`DEFAULT_CONVERSATION`].
    pub conversation_id: Arc<str>,
}

impl Scope {
    /// A scope from raw parts: empty ids count as missing (02 §3).
    pub fn new(agent_id: Option<&str>, conversation_id: Option<&str>) -> Self {
        Self {
            agent_id: agent_id.filter(|id| !id.is_empty()).map(Arc::from),
            conversation_id: conversation_id
                .filter(|id| !id.is_empty())
                .unwrap_or(DEFAULT_CONVERSATION)
                .into(),
        }
    }

    /// Whether this is the agent's own default conversation.
    pub fn is_default(&self) -> bool {
        &*self.conversation_id == DEFAULT_CONVERSATION
    }

    /// Whether events may be sent for it: a default conversation needs an agent.
    pub fn is_addressable(&self) -> bool {
        self.agent_id.is_some() || !self.is_default()
    }

    /// The key of this conversation's runtime (02 §3).
    pub fn runtime_key(&self) -> RuntimeKey {
        let agent = self.agent_id.as_deref().unwrap_or(UNKNOWN_AGENT);
        RuntimeKey(format!("agent:{agent}::conversation:{}", self.conversation_id).into())
    }

    /// The key of this conversation in the working-directory and permission
    /// maps: the agent is part of it only for the default conversation (02 §3).
    pub fn settings_key(&self) -> String {
        if self.is_default() {
            self.runtime_key().to_string()
        } else {
            format!("conversation:{}", self.conversation_id)
        }
    }
}

/// The key under which one conversation's actor lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuntimeKey(Arc<str>);

impl fmt::Display for RuntimeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One connection to the listener: the relay's `conn-…`, or a direct client's
/// `app-server-<n>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(Arc<str>);

impl ConnectionId {
    /// Wraps an id given by registration or by a door.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether Letta Cloud gave it: such connections own conversations and keep
    /// interrupted-turn records (03 §14.4).
    pub fn is_hosted(&self) -> bool {
        self.0.starts_with("conn-")
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_the_agent_only_where_the_spec_says_so() {
        let named = Scope::new(Some("agent-1"), Some("conv-1"));
        let default = Scope::new(Some("agent-1"), None);
        let nobody = Scope::new(None, Some(""));
        assert_eq!(
            named.runtime_key().to_string(),
            "agent:agent-1::conversation:conv-1"
        );
        assert_eq!(named.settings_key(), "conversation:conv-1");
        assert_eq!(
            default.settings_key(),
            "agent:agent-1::conversation:default"
        );
        assert_eq!(
            nobody.settings_key(),
            "agent:__unknown__::conversation:default"
        );
        assert!(default.is_addressable() && !nobody.is_addressable());
    }
}
