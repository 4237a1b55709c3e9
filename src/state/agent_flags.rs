//! What `settings.json` says of an agent on a server with yes or no (spec 06
//! §17): `memfs` and `pinned` in the entries of `agents[]`.

use serde_json::{Map, Value};

use super::toolset_preference::{entry_mut, is_entry, server_key};

/// The flag, when it is stored.
pub(super) fn get(
    settings: &Map<String, Value>,
    agent: &str,
    server: &str,
    flag: &str,
) -> Option<bool> {
    let agents = settings.get("agents")?.as_array()?;
    let key = server_key(server);
    let entry = agents.iter().find(|entry| is_entry(entry, agent, &key))?;
    entry.get(flag)?.as_bool()
}

/// Stores it.
pub(super) fn set(
    settings: &mut Map<String, Value>,
    agent: &str,
    server: &str,
    flag: &str,
    value: bool,
) {
    if let Some(entry) = entry_mut(settings, agent, server_key(server)) {
        entry.insert(flag.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_flag_belongs_to_an_agent_on_a_server_and_leaves_the_rest_alone() {
        let stored = json!({"agents": [{"agentId": "a", "toolset": "codex", "own": 1}]});
        let mut stored = stored.as_object().cloned().unwrap();
        let cloud = "https://api.letta.com";
        set(&mut stored, "a", cloud, "memfs", true);
        set(&mut stored, "a", "http://localhost:8283", "memfs", false);
        assert_eq!(get(&stored, "a", cloud, "memfs"), Some(true));
        assert_eq!(
            get(&stored, "a", "http://localhost:8283", "memfs"),
            Some(false)
        );
        assert_eq!(get(&stored, "b", cloud, "memfs"), None);
        assert_eq!(
            stored["agents"],
            json!([
                {"agentId": "a", "toolset": "codex", "own": 1, "memfs": true},
                {"agentId": "a", "baseUrl": "localhost:8283", "memfs": false},
            ])
        );
    }
}
