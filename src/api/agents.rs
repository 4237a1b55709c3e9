//! Agents (03 §2, 06 §10). Objects pass through unchanged: what the server adds
//! tomorrow survives.

use std::sync::Arc;

use reqwest::Method;
use serde::Serialize;
use serde_json::{Map, Value};

use super::client::{Client, Path};
use super::error::ApiError;

fn agent(id: &str) -> Path {
    Path::at("/v1/agents/").id(id)
}

impl Client {
    /// The agent record; callers at the same time share one request.
    pub async fn agent(&self, id: &str) -> Result<Arc<Value>, ApiError> {
        self.shared_read(agent(id)).await
    }

    /// The agent record with its tags.
    pub async fn agent_with_tags(&self, id: &str) -> Result<Value, ApiError> {
        let call = self.call(Method::GET, agent(id));
        call.query("include", "agent.tags").value().await
    }

    /// Changes the given fields and returns the agent.
    pub async fn update_agent(
        &self,
        id: &str,
        changes: &(impl Serialize + ?Sized),
    ) -> Result<Value, ApiError> {
        self.call(Method::PATCH, agent(id))
            .json(changes)
            .value()
            .await
    }

    /// Lets the agent's model answer one prompt outside any conversation (05 §15.5).
    pub async fn generate(&self, id: &str, body: &Value) -> Result<Value, ApiError> {
        let call = self.call(Method::POST, agent(id).then("/generate"));
        call.retries(0).json(body).value().await
    }

    /// Makes an agent.
    pub async fn create_agent(&self, body: &Value) -> Result<Value, ApiError> {
        let call = self.call(Method::POST, Path::at("/v1/agents/"));
        call.json(body).value().await
    }

    /// The memory repositories of an agent, its own and shared ones: a raw call.
    pub async fn agent_repositories(&self, id: &str) -> Result<Value, ApiError> {
        let path = agent(id).then("/repositories");
        self.raw_call(Method::GET, path).value().await
    }

    /// Makes an agent with server tools; a server that lacks them gets them, or
    /// the agent goes without.
    pub async fn create_agent_anyway(&self, mut body: Value) -> Result<Value, ApiError> {
        let lacks_tools = |error: &ApiError| {
            error.status() == Some(400)
                && error
                    .to_string()
                    .to_lowercase()
                    .contains("tools not found by name")
        };
        match self.create_agent(&body).await {
            Err(error) if lacks_tools(&error) => {}
            done => return done,
        }
        if self.add_base_tools().await.is_ok() {
            match self.create_agent(&body).await {
                Err(error) if lacks_tools(&error) => {}
                done => return done,
            }
        }
        body["tools"] = Value::Array(Vec::new());
        self.create_agent(&body).await
    }

    /// Rebuilds the system prompt of an agent.
    pub async fn recompile_agent(&self, id: &str) -> Result<(), ApiError> {
        let call = self.call(Method::POST, agent(id).then("/recompile"));
        let call = call.query("update_timestamp", false);
        call.bytes().await.map(drop)
    }

    /// Takes every message out of an agent's context.
    pub async fn reset_messages(&self, id: &str) -> Result<(), ApiError> {
        let call = self.call(Method::PATCH, agent(id).then("/reset-messages"));
        call.json(&serde_json::json!({"add_default_initial_messages": false}))
            .bytes()
            .await
            .map(drop)
    }

    /// Gives a server its built-in tools: a raw call.
    pub async fn add_base_tools(&self) -> Result<(), ApiError> {
        let call = self.raw_call(Method::POST, Path::at("/v1/tools/add-base-tools"));
        call.bytes().await.map(drop)
    }

    /// Deletes an agent.
    pub async fn delete_agent(&self, id: &str) -> Result<(), ApiError> {
        self.call(Method::DELETE, agent(id)).bytes().await.map(drop)
    }

    /// One page of agents: a JSON array.
    pub async fn agents(&self, query: &Map<String, Value>) -> Result<Value, ApiError> {
        let call = self.call(Method::GET, Path::at("/v1/agents/"));
        call.query_object(query).value().await
    }

    /// The newest message of an agent's default conversation, for an agent whose
    /// record lists none (03 §2.2): an array of at most one.
    pub async fn newest_default_message(&self, id: &str) -> Result<Value, ApiError> {
        let call = self.call(Method::GET, agent(id).then("/messages"));
        [
            "user_message",
            "assistant_message",
            "reasoning_message",
            "event_message",
            "summary_message",
            "approval_request_message",
            "tool_return_message",
            "approval_response_message",
        ]
        .into_iter()
        .fold(
            call.query("conversation_id", "default")
                .query("limit", 1)
                .query("order", "desc"),
            |call, kind| call.query("include_return_message_types", kind),
        )
        .value()
        .await
    }

    /// Stops runs of an agent: run id to outcome, `cancelled` when it was stopped (03 §2.1).
    pub async fn cancel_runs(
        &self,
        agent_id: &str,
        run_ids: &[&str],
    ) -> Result<Map<String, Value>, ApiError> {
        let call = self.call(Method::POST, agent(agent_id).then("/messages/cancel"));
        call.json(&serde_json::json!({ "run_ids": run_ids }))
            .parsed()
            .await
    }
}
