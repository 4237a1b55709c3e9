//! Agents as models: an agent goes by its name when that is its alone, else by
//! its id (spec 02 §13).

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::ApiError;
use crate::api::Client;

/// Agents that are listed at most.
const MOST: usize = 1000;

/// The agents of the server, by the id of their model.
pub(super) struct Models(Vec<Model>);

struct Model {
    id: String,
    agent: String,
    created: i64,
}

pub(super) async fn read(api: &Client) -> Result<Models, ApiError> {
    let mut query = Map::new();
    query.insert("limit".into(), MOST.into());
    let agents = api
        .agents(&query)
        .await
        .map_err(|error| ApiError::new(502, format!("the agents cannot be listed: {error}")))?;
    Ok(Models::of(agents.as_array().map_or(&[], Vec::as_slice)))
}

impl Models {
    fn of(agents: &[Value]) -> Self {
        let text = |agent: &Value, key: &str| agent[key].as_str().map(String::from);
        let known: Vec<(String, Option<String>, &Value)> = agents
            .iter()
            .take(MOST)
            .filter_map(|agent| Some((text(agent, "id")?, text(agent, "name"), agent)))
            .collect();
        let mut uses: HashMap<&str, usize> = HashMap::new();
        for (id, name, _) in &known {
            *uses.entry(id).or_default() += 1;
            if let Some(name) = name {
                *uses.entry(name).or_default() += 1;
            }
        }
        let models = known.iter().map(|(agent, name, fields)| {
            let own = |name: &&String| !name.is_empty() && uses.get(name.as_str()) == Some(&1);
            let created = fields["created_at"].as_str().unwrap_or_default();
            let created = created.parse::<jiff::Timestamp>();
            Model {
                id: name.as_ref().filter(own).unwrap_or(agent).clone(),
                agent: agent.clone(),
                created: created.map_or(0, |time| time.as_second()),
            }
        });
        Self(models.collect())
    }

    /// `GET /v1/models`.
    pub(super) fn listed(&self) -> Value {
        let data: Vec<Value> = self
            .0
            .iter()
            .map(|model| {
                json!({"id": model.id, "object": "model", "created": model.created,
                       "owned_by": "letta"})
            })
            .collect();
        json!({"object": "list", "data": data})
    }

    /// The agent behind a model; an agent's id always works.
    pub(super) fn agent(&self, name: &str) -> Result<String, ApiError> {
        let found = self
            .0
            .iter()
            .find(|model| model.id == name || model.agent == name);
        found.map(|model| model.agent.clone()).ok_or_else(|| {
            let message = format!(
                "The model '{name}' does not exist. Use GET /v1/models to list available agents."
            );
            ApiError::coded(404, "model_not_found", message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_unique_gives_way_to_the_id() {
        let agent = |id: &str, name: &str| json!({"id": id, "name": name, "created_at": "1970-01-01T00:01:00Z"});
        let models = Models::of(&[
            agent("agent-1", "Ada"),
            agent("agent-2", "Bob"),
            agent("agent-3", "Bob"),
            agent("agent-4", "agent-1"),
            agent("agent-5", ""),
        ]);
        let ids: Vec<Value> = models.listed()["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["id"].clone())
            .collect();
        assert_eq!(ids, ["Ada", "agent-2", "agent-3", "agent-4", "agent-5"]);
        assert_eq!(models.listed()["data"][0]["created"], 60);
        assert_eq!(models.agent("Ada").unwrap(), "agent-1");
        assert_eq!(models.agent("agent-1").unwrap(), "agent-1");
        let error = models.agent("Bob").unwrap_err();
        assert_eq!((error.status, error.code), (404, Some("model_not_found")));
    }
}
