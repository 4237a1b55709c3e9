//! Sending messages: the one request that runs a turn (03 §3).
//!
//! Invariant: nothing here retries a request that the server may have taken; the
//! two silent repeats are for answers that say it was not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::classify;
use super::client::{Client, Path};
use super::error::ApiError;
use super::stream::SseStream;
use crate::protocol::Scope;

/// Silent repeats while the cloud shuts down (03 §3.10).
const SHUTDOWN_REPEATS: u32 = 3;

/// The wait before such a repeat when the server names none, and the longest one.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(1);
const LONGEST_SHUTDOWN_WAIT: Duration = Duration::from_secs(60);

/// One message request.
#[derive(Clone, Debug)]
pub struct MessageRequest<'a> {
    /// The conversation. The default one needs its agent.
    pub scope: &'a Scope,
    /// The messages, at least one, each with its otid (03 §3.3–3.5).
    pub messages: &'a [Value],
    /// `[{name, description, parameters}]`, serialised once per turn.
    pub client_tools: Arc<RawValue>,
    /// `[{name, description, location}]`, the same.
    pub client_skills: Arc<RawValue>,
    /// `response_format`, checked.
    pub response_format: Option<&'a Value>,
    /// `X-Letta-Response-State` (03 §3.6).
    pub response_state: Option<&'a str>,
}

/// The body of 03 §3.2.
#[derive(Serialize)]
struct Body<'a> {
    messages: &'a [Value],
    streaming: bool,
    stream_tokens: bool,
    include_pings: bool,
    background: bool,
    client_tools: &'a RawValue,
    client_skills: &'a RawValue,
    include_compaction_messages: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<&'a str>,
}

/// The answer to a message request.
#[derive(Debug)]
pub struct Sent {
    /// Its events.
    pub stream: SseStream,
    /// Whether the run goes on without us: only then a cut stream can be resumed
    /// (03 §5.6). False on servers without background streams.
    pub resumable: bool,
}

impl Client {
    /// Sends messages and opens the stream of their run. The caller owns retries
    /// (03 §11.2); only two refusals are repeated here: a cloud that is shutting
    /// down (03 §3.10), and a server without background streams (00 §5).
    ///
    /// # Errors
    /// Besides what every call can give: [`ApiError::Invalid`] for a default
    /// conversation without agent or an empty list of messages.
    pub async fn send_messages(&self, request: &MessageRequest<'_>) -> Result<Sent, ApiError> {
        if request.messages.is_empty() {
            return Err(ApiError::invalid("there is no message to send"));
        }
        let agent_id = match (request.scope.is_default(), &request.scope.agent_id) {
            (false, _) => None,
            (true, Some(id)) => Some(&**id),
            (true, None) => {
                return Err(ApiError::invalid(
                    "the default conversation needs an agent: name an agent or a conversation",
                ));
            }
        };
        let mut repeats = 0;
        loop {
            let background = !self.shared.no_background.load(Ordering::Relaxed);
            let error = match self.post(request, agent_id, background).await {
                Ok(stream) => {
                    return Ok(Sent {
                        stream,
                        resumable: background,
                    });
                }
                Err(error) => error,
            };
            if background && classify::needs_redis(error.status(), &error.detail()) {
                if !self.shared.no_background.swap(true, Ordering::Relaxed) {
                    tracing::info!(
                        "this server has no Redis: answers stream without background, a cut one cannot be resumed"
                    );
                }
            } else if repeats < SHUTDOWN_REPEATS && classify::is_shutdown_rejection(&error) {
                repeats += 1;
                let asked = error.retry_after(SystemTime::now());
                tokio::time::sleep(asked.unwrap_or(SHUTDOWN_WAIT).min(LONGEST_SHUTDOWN_WAIT)).await;
            } else {
                return Err(error);
            }
        }
    }

    async fn post(
        &self,
        request: &MessageRequest<'_>,
        agent_id: Option<&str>,
        background: bool,
    ) -> Result<SseStream, ApiError> {
        let path = Path::at("/v1/conversations/")
            .id(&request.scope.conversation_id)
            .then("/messages");
        let mut call = self.call(Method::POST, path).retries(0).json(&Body {
            messages: request.messages,
            streaming: true,
            stream_tokens: true,
            include_pings: true,
            background,
            client_tools: &request.client_tools,
            client_skills: &request.client_skills,
            include_compaction_messages: true,
            response_format: request.response_format,
            agent_id,
        });
        if let Some(state) = request
            .response_state
            .and_then(|text| HeaderValue::from_str(text).ok())
        {
            call = call.header("x-letta-response-state", state);
        }
        call.stream().await
    }
}
