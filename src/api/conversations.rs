//! Conversations and their messages (03 §2, 06 §10). Objects pass through unchanged.

use std::sync::Arc;

use reqwest::Method;
use serde::Serialize;
use serde_json::{Map, Value};

use super::client::{Client, Path};
use super::error::ApiError;

fn conversation(id: &str) -> Path {
    Path::at("/v1/conversations/").id(id)
}

impl Client {
    /// A conversation record. There is none for `default`.
    pub async fn conversation(&self, id: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, conversation(id)).value().await
    }

    /// Makes a conversation; `agent_id` goes into the query, the rest of `body` is sent.
    pub async fn create_conversation(
        &self,
        agent_id: Option<&str>,
        body: &Map<String, Value>,
    ) -> Result<Value, ApiError> {
        let mut call = self.call(Method::POST, Path::at("/v1/conversations/"));
        if let Some(id) = agent_id {
            call = call.query("agent_id", id);
        }
        call.json(body).value().await
    }

    /// Changes the given fields and returns the conversation.
    pub async fn update_conversation(
        &self,
        id: &str,
        changes: &(impl Serialize + ?Sized),
    ) -> Result<Value, ApiError> {
        let call = self.call(Method::PATCH, conversation(id));
        call.json(changes).value().await
    }

    /// One page of conversations: a JSON array.
    pub async fn conversations(&self, query: &Map<String, Value>) -> Result<Value, ApiError> {
        let call = self.call(Method::GET, Path::at("/v1/conversations/"));
        call.query_object(query).value().await
    }

    /// Copies a conversation: a raw call without body. `query` holds `agent_id`,
    /// `hidden` and `message_id`, each optional.
    pub async fn fork_conversation(
        &self,
        id: &str,
        query: &Map<String, Value>,
    ) -> Result<Value, ApiError> {
        let call = self.raw_call(Method::POST, conversation(id).then("/fork"));
        call.query_object(query).value().await
    }

    /// Deletes a conversation.
    pub async fn delete_conversation(&self, id: &str) -> Result<(), ApiError> {
        let call = self.call(Method::DELETE, conversation(id));
        call.bytes().await.map(drop)
    }

    /// Rebuilds the system prompt of a conversation; the answer is a string.
    pub async fn recompile_conversation(
        &self,
        id: &str,
        query: &Map<String, Value>,
        body: &Map<String, Value>,
    ) -> Result<Value, ApiError> {
        let call = self.call(Method::POST, conversation(id).then("/recompile"));
        call.query_object(query).json(body).value().await
    }

    /// Compacts a conversation and returns what the server says of it.
    pub async fn compact_conversation(
        &self,
        id: &str,
        body: &Map<String, Value>,
    ) -> Result<Value, ApiError> {
        let call = self.call(Method::POST, conversation(id).then("/compact"));
        call.json(body).value().await
    }

    /// One page of a conversation's messages: a JSON array.
    pub async fn conversation_messages(
        &self,
        id: &str,
        query: &Map<String, Value>,
    ) -> Result<Value, ApiError> {
        let call = self.call(Method::GET, conversation(id).then("/messages"));
        call.query_object(query).value().await
    }

    /// Hands a message to a conversation wherever it runs: a raw call, Letta
    /// Cloud only (04 §7.19). The answer is a receipt.
    pub async fn enqueue_message(&self, id: &str, body: &Value) -> Result<Value, ApiError> {
        let call = self.raw_call(Method::POST, conversation(id).then("/messages/enqueue"));
        call.json(body).value().await
    }

    /// Stops whatever runs in a conversation; the **agent's** id stands for its
    /// default conversation (03 §2.1).
    pub async fn cancel_conversation(&self, id: &str) -> Result<(), ApiError> {
        let call = self.call(Method::POST, conversation(id).then("/cancel"));
        call.bytes().await.map(drop)
    }

    /// Every message that shares a source message; callers at the same time share one request.
    pub async fn message_variants(&self, message_id: &str) -> Result<Arc<Value>, ApiError> {
        self.shared_read(Path::at("/v1/messages/").id(message_id))
            .await
    }
}
