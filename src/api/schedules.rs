//! Schedules that the cloud fires (07 §1.16). Objects pass through unchanged.

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, Path};
use super::error::ApiError;

/// Pages of one listing that are read at most.
const MAX_PAGES: usize = 20;

fn schedules(agent_id: &str) -> Path {
    Path::at("/v1/agents/").id(agent_id).then("/schedule")
}

fn schedule(agent_id: &str, id: &str) -> Path {
    schedules(agent_id).then("/").id(id)
}

impl Client {
    /// Makes a schedule and returns what the server says of it.
    pub async fn create_schedule(&self, agent_id: &str, body: &Value) -> Result<Value, ApiError> {
        let call = self.raw_call(Method::POST, schedules(agent_id));
        call.json(body).value().await
    }

    /// Whether the server keeps schedules: anything but 404 and 405 means yes.
    pub async fn has_schedules(&self, agent_id: &str) -> bool {
        let call = self.raw_call(Method::GET, schedules(agent_id));
        let answer = call.query("limit", 1).value().await;
        !answer.is_err_and(|error| error.is_no_endpoint())
    }

    /// All schedules of an agent, at most two thousand.
    pub async fn schedules(&self, agent_id: &str) -> Result<Vec<Value>, ApiError> {
        let mut all: Vec<Value> = Vec::new();
        for _ in 0..MAX_PAGES {
            let mut call = self
                .raw_call(Method::GET, schedules(agent_id))
                .query("limit", 100);
            if let Some(last) = all.last().and_then(|last| last["id"].as_str()) {
                call = call.query("after", last);
            }
            let mut page = call.value().await?;
            let rows = page["scheduled_messages"].take();
            let Value::Array(rows) = rows else { break };
            let more = page["has_next_page"] == true && !rows.is_empty();
            all.extend(rows);
            if !more {
                break;
            }
        }
        Ok(all)
    }

    /// One schedule.
    pub async fn schedule(&self, agent_id: &str, id: &str) -> Result<Value, ApiError> {
        let call = self.raw_call(Method::GET, schedule(agent_id, id));
        call.value().await
    }

    /// Removes a schedule; an unknown id is no error for the server.
    pub async fn delete_schedule(&self, agent_id: &str, id: &str) -> Result<(), ApiError> {
        let call = self.raw_call(Method::DELETE, schedule(agent_id, id));
        call.json(&json!({})).value().await.map(drop)
    }

    /// The newest runs of a schedule: `{history, has_next_page, next_offset}`.
    pub async fn schedule_history(
        &self,
        agent_id: &str,
        id: &str,
        limit: usize,
    ) -> Result<Value, ApiError> {
        let call = self.raw_call(Method::GET, schedule(agent_id, id).then("/history"));
        call.query("limit", limit).value().await
    }

    /// A registered computer, by its device id.
    pub async fn environment(&self, device_id: &str) -> Result<Value, ApiError> {
        let path = Path::at("/v1/environments/").id(device_id);
        self.raw_call(Method::GET, path).value().await
    }
}
