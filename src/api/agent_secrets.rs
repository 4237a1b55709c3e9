//! The secrets of an agent (03 §18, 06 §14).
//!
//! Invariant: values are [`Secret`]s from the moment they are read; the map is
//! always written whole, because the server replaces it.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, Path};
use super::error::ApiError;
use crate::config::Secret;

/// Names to values, both non-empty.
pub type SecretMap = BTreeMap<String, Secret>;

impl Client {
    /// Loads the secrets of an agent. A server without that endpoint is asked for
    /// them as part of the agent (03 §19).
    pub async fn agent_secrets(&self, agent_id: &str) -> Result<SecretMap, ApiError> {
        let agent = Path::at("/v1/agents/").id(agent_id);
        let own = self.call(Method::GET, agent.clone().then("/secrets"));
        match own.value().await {
            Ok(rows) => Ok(read_rows(&rows)),
            Err(error) if error.status() == Some(404) => {
                let call = self.call(Method::GET, agent);
                let agent = call.query("include", "agent.secrets").value().await?;
                Ok(agent.get("secrets").map(read_rows).unwrap_or_default())
            }
            Err(error) => Err(error),
        }
    }

    /// Replaces **all** secrets of an agent: load them first.
    pub async fn replace_agent_secrets(
        &self,
        agent_id: &str,
        secrets: &SecretMap,
    ) -> Result<(), ApiError> {
        let plain: BTreeMap<&str, &str> = secrets
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose()))
            .collect();
        let call = self.call(Method::PATCH, Path::at("/v1/agents/").id(agent_id));
        call.json(&json!({ "secrets": plain }))
            .bytes()
            .await
            .map(drop)
    }
}

/// Rows `{key, value}`; others are passed over.
fn read_rows(rows: &Value) -> SecretMap {
    let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
    rows.iter()
        .filter_map(|row| {
            let field = |name| row.get(name)?.as_str().filter(|text| !text.is_empty());
            Some((field("key")?.to_owned(), Secret::new(field("value")?)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_key_or_value_are_dropped() {
        let rows = json!([
            {"key": "A", "value": "1", "id": 3}, {"key": "", "value": "x"}, {"key": "B"},
            {"key": "C", "value": ""}, 7,
        ]);
        let found = read_rows(&rows);
        assert_eq!(found.len(), 1);
        assert_eq!(found["A"].expose(), "1");
        assert!(read_rows(&json!({"detail": "odd"})).is_empty());
        assert!(!format!("{found:?}").contains('1'));
    }
}
