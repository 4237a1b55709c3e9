//! The stored toolset of an agent or conversation inside `settings.json`
//! (spec 04 §2.1): entries of `agents[]`, matched by agent and server.

use serde_json::{Map, Value, json};

use crate::protocol::Scope;

/// The agent part of a runtime without agent and conversation.
const AGENT_FREE: &str = "agent-free";

/// The raw stored value; the reader decides which names it knows.
pub(super) fn get(settings: &Map<String, Value>, scope: &Scope, server: &str) -> Option<String> {
    let agents = settings.get("agents")?.as_array()?;
    let entry = agents
        .iter()
        .find(|entry| is_entry(entry, agent_of(scope), &server_key(server)))?;
    let value = if scope.is_default() {
        entry.get("toolset")
    } else {
        // No falling back to the agent's own preference.
        entry
            .get("toolsetsByConversation")?
            .get(&*scope.conversation_id)
    };
    value?.as_str().map(str::to_owned)
}

/// Stores `toolset`. `auto` is the default, so for a conversation it removes
/// the key, and where nothing was stored it stores nothing.
pub(super) fn set(settings: &mut Map<String, Value>, scope: &Scope, server: &str, toolset: &str) {
    let key = server_key(server);
    let agent = agent_of(scope);
    if toolset == "auto" && get(settings, scope, server).is_none() {
        return;
    }
    let Some(entry) = entry_mut(settings, agent, key) else {
        return;
    };
    if scope.is_default() {
        entry.insert("toolset".into(), json!(toolset));
        return;
    }
    let conversations = entry
        .entry("toolsetsByConversation")
        .or_insert_with(|| json!({}));
    if !conversations.is_object() {
        *conversations = json!({});
    }
    if let Some(conversations) = conversations.as_object_mut() {
        if toolset == "auto" {
            conversations.shift_remove(&*scope.conversation_id);
        } else {
            conversations.insert(scope.conversation_id.to_string(), json!(toolset));
        }
    }
}

/// The entry of an agent on a server, made when it is missing.
pub(super) fn entry_mut<'a>(
    settings: &'a mut Map<String, Value>,
    agent: &str,
    key: Option<String>,
) -> Option<&'a mut Map<String, Value>> {
    let agents = settings.entry("agents").or_insert_with(|| json!([]));
    if !agents.is_array() {
        *agents = json!([]);
    }
    let agents = agents.as_array_mut()?;
    let known = agents.iter().position(|entry| is_entry(entry, agent, &key));
    let at = known.unwrap_or_else(|| {
        let mut entry = json!({"agentId": agent});
        if let Some(key) = &key {
            entry["baseUrl"] = json!(key);
        }
        agents.push(entry);
        agents.len() - 1
    });
    agents.get_mut(at)?.as_object_mut()
}

fn agent_of(scope: &Scope) -> &str {
    match &scope.agent_id {
        Some(agent) => agent,
        None if !scope.is_default() => &scope.conversation_id,
        None => AGENT_FREE,
    }
}

pub(super) fn is_entry(entry: &Value, agent: &str, server: &Option<String>) -> bool {
    entry.get("agentId").and_then(Value::as_str) == Some(agent)
        && entry.get("baseUrl").and_then(Value::as_str) == server.as_deref()
}

/// How a server is named in settings: host and port, nothing for Letta Cloud.
pub(super) fn server_key(server: &str) -> Option<String> {
    let name = match reqwest::Url::parse(server) {
        Ok(url) => match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => server.to_owned(),
        },
        Err(_) => server.to_owned(),
    };
    (name != "api.letta.com").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOUD: &str = "https://api.letta.com";

    fn settings(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).expect("an object")
    }

    #[test]
    fn a_conversation_does_not_fall_back_to_its_agent() {
        let stored = settings(
            r#"{"agents":[{"agentId":"a","toolset":"codex","toolsetsByConversation":{"c9":"letta"}}]}"#,
        );
        let of = |conversation| get(&stored, &Scope::new(Some("a"), conversation), CLOUD);
        assert_eq!(of(None).as_deref(), Some("codex"));
        assert_eq!(of(Some("c9")).as_deref(), Some("letta"));
        assert_eq!(of(Some("c1")), None);
    }

    #[test]
    fn servers_are_told_apart_by_host_and_port() {
        let mut stored = Map::new();
        let scope = Scope::new(Some("a"), None);
        set(&mut stored, &scope, "http://localhost:8283", "codex");
        set(&mut stored, &scope, CLOUD, "letta");
        assert_eq!(
            get(&stored, &scope, "http://localhost:8283/").as_deref(),
            Some("codex")
        );
        assert_eq!(get(&stored, &scope, CLOUD).as_deref(), Some("letta"));
        let expected = json!([{"agentId":"a","baseUrl":"localhost:8283","toolset":"codex"},{"agentId":"a","toolset":"letta"}]);
        assert_eq!(stored["agents"], expected);
    }

    #[test]
    fn auto_removes_a_conversation_s_key_and_is_written_for_the_default_one() {
        let mut stored = Map::new();
        let named = Scope::new(Some("a"), Some("c1"));
        let default = Scope::new(Some("a"), None);
        set(&mut stored, &named, CLOUD, "auto");
        set(&mut stored, &default, CLOUD, "auto");
        assert!(stored.is_empty(), "nothing stored, nothing to write");
        set(&mut stored, &named, CLOUD, "codex");
        set(&mut stored, &default, CLOUD, "codex");
        set(&mut stored, &named, CLOUD, "auto");
        set(&mut stored, &default, CLOUD, "auto");
        let expected = json!([{"agentId":"a","toolsetsByConversation":{},"toolset":"auto"}]);
        assert_eq!(stored["agents"], expected);
    }

    #[test]
    fn without_an_agent_the_conversation_takes_its_place() {
        let mut stored = Map::new();
        let scope = Scope::new(None, Some("c1"));
        set(&mut stored, &scope, CLOUD, "none");
        assert_eq!(stored["agents"][0]["agentId"], "c1");
        assert_eq!(get(&stored, &scope, CLOUD).as_deref(), Some("none"));
        assert_eq!(agent_of(&Scope::new(None, None)), "agent-free");
    }

    #[test]
    fn malformed_entries_are_stepped_over() {
        let mut stored =
            settings(r#"{"agents":[null,1,{"agentId":"a","toolsetsByConversation":7}]}"#);
        let scope = Scope::new(Some("a"), Some("c1"));
        assert_eq!(get(&stored, &scope, CLOUD), None);
        set(&mut stored, &scope, CLOUD, "codex");
        assert_eq!(get(&stored, &scope, CLOUD).as_deref(), Some("codex"));
    }
}
