//! Runs: what the server does for one request (03 §2.1, §2.2).

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, Path};
use super::error::ApiError;
use super::stream::SseStream;

/// How many chunks of a replay the server sends at once.
const REPLAY_BATCH: u32 = 1000;

/// The fields of a run that decide about resuming and retrying.
#[derive(Clone, Debug, Deserialize)]
pub struct Run {
    /// `run-…`.
    pub id: String,
    /// `created`, `running`, `completed`, `failed`, `cancelled`, or another word.
    #[serde(default)]
    pub status: Option<String>,
    /// Why it stopped.
    #[serde(default)]
    pub stop_reason: Option<String>,
    /// When it began, ISO-8601.
    #[serde(default)]
    pub created_at: Option<String>,
    /// Holds `error` after a failure.
    #[serde(default)]
    pub metadata: Option<Value>,
}

impl Run {
    /// The error of a failed run, unwrapped when it lies in a further `error` (03 §11.4).
    pub fn error(&self) -> Option<&Value> {
        let error = self.metadata.as_ref()?.get("error")?;
        let inner = error.get("error").filter(|inner| inner.is_object());
        Some(inner.unwrap_or(error)).filter(|error| !error.is_null())
    }

    /// Whether its stream can be read again to its end (03 §5.6).
    pub fn is_replayable(&self) -> bool {
        let empty = match self.error() {
            None => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Object(fields)) => fields.is_empty(),
            Some(_) => false,
        };
        let stop = self.stop_reason.as_deref();
        empty
            && match self.status.as_deref() {
                Some("created" | "running") => true,
                Some("completed") => !matches!(stop, Some("error" | "llm_api_error")),
                _ => false,
            }
    }

    /// Whether the server still works on it (03 §5.4).
    pub fn is_active(&self) -> bool {
        matches!(
            self.status.as_deref(),
            Some("created" | "not_started" | "pending" | "running")
        )
    }
}

/// Whose running run is looked for.
#[derive(Clone, Copy, Debug)]
pub enum RunOwner<'a> {
    /// A conversation.
    Conversation(&'a str),
    /// An agent.
    Agent(&'a str),
}

impl Client {
    /// A run.
    pub async fn run(&self, id: &str) -> Result<Run, ApiError> {
        let call = self.call(Method::GET, Path::at("/v1/runs/").id(id));
        call.parsed().await
    }

    /// A run, at once or not at all: for the check of a silent stream (03 §5.4).
    pub async fn run_now(&self, id: &str, limit: Duration) -> Result<Run, ApiError> {
        let call = self.call(Method::GET, Path::at("/v1/runs/").id(id));
        call.retries(0).timeout(limit).parsed().await
    }

    /// The newest running run of a conversation or agent, if any (03 §2.2).
    pub async fn running_run(&self, owner: RunOwner<'_>) -> Result<Option<Run>, ApiError> {
        let (name, id) = match owner {
            RunOwner::Conversation(id) => ("conversation_id", id),
            RunOwner::Agent(id) => ("agent_id", id),
        };
        let runs: Vec<Run> = self
            .call(Method::GET, Path::at("/v1/runs/"))
            .query(name, id)
            .query("statuses", "running")
            .query("order", "desc")
            .query("limit", 1)
            .parsed()
            .await?;
        Ok(runs
            .into_iter()
            .find(|run| run.status.as_deref() == Some("running")))
    }

    /// Reads the stream of a run again, after `starting_after`.
    pub async fn run_stream(&self, id: &str, starting_after: i64) -> Result<SseStream, ApiError> {
        let path = Path::at("/v1/runs/").id(id).then("/stream");
        self.call(Method::POST, path)
            .json(&json!({ "starting_after": starting_after, "batch_size": REPLAY_BATCH }))
            .stream()
            .await
    }

    /// Reads the stream of the request that was sent with `otid` again (03 §2.1);
    /// `agent_id` counts for the conversation `default` only.
    pub async fn request_stream(
        &self,
        conversation_id: &str,
        agent_id: Option<&str>,
        otid: &str,
        starting_after: i64,
    ) -> Result<SseStream, ApiError> {
        let mut body = json!({
            "otid": otid,
            "starting_after": starting_after,
            "batch_size": REPLAY_BATCH,
        });
        if let (crate::protocol::id::DEFAULT_CONVERSATION, Some(id)) = (conversation_id, agent_id) {
            body["agent_id"] = id.into();
        }
        let path = Path::at("/v1/conversations/")
            .id(conversation_id)
            .then("/stream");
        self.call(Method::POST, path).json(&body).stream().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(value: Value) -> Run {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_run_is_replayable_while_it_has_no_error() {
        for (value, expected) in [
            (json!({"id": "r", "status": "running"}), true),
            (
                json!({"id": "r", "status": "created", "metadata": {}}),
                true,
            ),
            (
                json!({"id": "r", "status": "completed", "stop_reason": "end_turn"}),
                true,
            ),
            (
                json!({"id": "r", "status": "completed", "stop_reason": "llm_api_error"}),
                false,
            ),
            (
                json!({"id": "r", "status": "completed", "stop_reason": "error"}),
                false,
            ),
            (json!({"id": "r", "status": "failed"}), false),
            (
                json!({"id": "r", "status": "running", "metadata": {"error": {"m": 1}}}),
                false,
            ),
            (
                json!({"id": "r", "status": "running", "metadata": {"error": null}}),
                true,
            ),
            (json!({"id": "r"}), false),
        ] {
            assert_eq!(run(value.clone()).is_replayable(), expected, "{value}");
        }
    }

    #[test]
    fn the_error_of_a_run_is_found_at_either_depth() {
        let flat = run(json!({"id": "r", "metadata": {"error": {"detail": "x"}}}));
        let deep = run(json!({"id": "r", "metadata": {"error": {"error": {"detail": "x"}}}}));
        assert_eq!(flat.error(), deep.error());
        assert!(flat.error().is_some());
    }
}
