//! Registration of this machine with the server, and who serves a conversation
//! (01 §6, 03 §14.4).
//!
//! Invariant: a failed registration says whether trying again makes sense; the
//! caller waits as [`retry_delay`] tells it.

use std::time::{Duration, SystemTime};

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::client::{Client, Path};
use super::error::{ApiError, ErrorBody};
use super::token::CredentialError;

/// Limit for one registration request (01 §6).
const TIMEOUT: Duration = Duration::from_secs(30);

/// Limit for the question who serves a conversation (03 §2.2).
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest wait that a server's `Retry-After` can impose.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// What is registered.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// The identity of this machine.
    pub device_id: String,
    /// The identity of this listener on it.
    pub listener_instance_id: String,
    /// The computer name.
    pub connection_name: String,
    /// What it can do (00 §8); its keys stand on the wire as they are.
    pub metadata: Map<String, Value>,
}

/// What the server gives back; further keys are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// `conn-…`.
    pub connection_id: String,
    /// Where to connect.
    pub ws_url: String,
    /// The relay can carry state on a socket of its own.
    pub supports_split_status_channels: bool,
    /// The relay opens both sockets as one generation.
    pub supports_paired_listener_generations: bool,
}

/// Why registration failed; `Display` is the text that people see (01 §6).
#[derive(Clone, Debug, Error)]
pub enum RegisterError {
    /// Later may do: no network, 429, or the server's fault.
    #[error("{text}")]
    Transient {
        /// What happened.
        text: String,
        /// The wait that the server asks for.
        retry_after: Option<Duration>,
    },
    /// The server has no registration endpoint (404, 405).
    #[error(
        "{text}. This server does not register remote environments; \
         use `letta server --listen` to let clients connect to this machine directly."
    )]
    NoEndpoint {
        /// What the server said.
        text: String,
    },
    /// The server refused the key (401, 403): exit 77.
    #[error("{text}")]
    Refused {
        /// What the server said.
        text: String,
    },
    /// Trying again gives the same.
    #[error("{text}")]
    Fatal {
        /// What happened.
        text: String,
    },
    /// There is no usable token.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

impl RegisterError {
    /// Whether to try again after [`retry_delay`].
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transient { .. } => true,
            Self::Credentials(error) => error.is_transient(),
            _ => false,
        }
    }

    /// The exit code when the process ends for it; `None` when it is transient (00 §5).
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Transient { .. } => None,
            Self::Refused { .. } => Some(77),
            Self::NoEndpoint { .. } | Self::Fatal { .. } => Some(78),
            Self::Credentials(error) => error.exit_code(),
        }
    }

    /// The wait that the server asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The wait before attempt number `attempt + 1` (1-based) of a registration:
/// doubling from 1 s to 30 s, at least what the server asked for (at most 5 min),
/// plus `jitter` (`0.0..1.0`) times a quarter of it, at most 1 s.
pub fn retry_delay(attempt: u32, retry_after: Option<Duration>, jitter: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(5);
    let base = Duration::from_millis((1000u64 << doublings).min(30_000));
    let delay = retry_after
        .unwrap_or_default()
        .min(MAX_RETRY_AFTER)
        .max(base);
    let spread = (delay / 4).min(Duration::from_secs(1));
    delay + Duration::from_millis(spread.mul_f64(jitter.clamp(0.0, 1.0)).as_millis() as u64)
}

/// Who serves a conversation now.
#[derive(Clone, Debug, Deserialize)]
pub struct RuntimeStatus {
    /// The conversation.
    pub conversation_id: String,
    /// `IDLE` or another state.
    #[serde(default)]
    pub state: Option<String>,
    /// Several listeners claim it.
    #[serde(default)]
    pub has_conflicting_listeners: bool,
    /// The listener at work.
    #[serde(default)]
    pub active_harness: Option<ActiveHarness>,
}

/// A listener at work.
#[derive(Clone, Debug, Deserialize)]
pub struct ActiveHarness {
    /// Its connection.
    #[serde(default)]
    pub connection_id: Option<String>,
}

impl RuntimeStatus {
    /// Whether the listener with this connection may recover the conversation (03 §14.4).
    pub fn may_recover(&self, own_connection: &str) -> bool {
        let harness = self.active_harness.as_ref();
        let owner = harness.and_then(|harness| harness.connection_id.as_deref());
        !self.has_conflicting_listeners
            && match harness {
                Some(_) => owner == Some(own_connection),
                None => self.state.as_deref() == Some("IDLE"),
            }
    }
}

impl Client {
    /// Registers this machine once.
    pub async fn register(&self, registration: &Registration) -> Result<Registered, RegisterError> {
        let call = self
            .raw_call(Method::POST, Path::at("/v1/environments/register"))
            .timeout(TIMEOUT)
            .json(registration);
        let body = call.bytes().await.map_err(classify)?;
        let fatal = |text: &str| RegisterError::Fatal { text: text.into() };
        let body: Value = serde_json::from_slice(&body)
            .map_err(|_| fatal("Server returned non-JSON response — is the server running?"))?;
        let text = |name| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let (Some(connection_id), Some(ws_url)) = (text("connectionId"), text("wsUrl")) else {
            return Err(fatal(
                "Server returned unexpected response shape (missing connectionId or wsUrl)",
            ));
        };
        let flag = |name| body.get(name) == Some(&Value::Bool(true));
        Ok(Registered {
            connection_id,
            ws_url,
            supports_split_status_channels: flag("supportsSplitStatusChannels"),
            supports_paired_listener_generations: flag("supportsPairedListenerGenerations"),
        })
    }

    /// Who serves conversations of an agent (03 §2.2); at most 5 s, no retries.
    pub async fn runtime_status(
        &self,
        agent_id: &str,
        conversation_ids: &[&str],
    ) -> Result<Vec<RuntimeStatus>, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            statuses: Vec<RuntimeStatus>,
        }
        let path = Path::at("/v1/agents/").id(agent_id).then("/runtime-status");
        let answer: Answer = self
            .raw_call(Method::GET, path)
            .timeout(STATUS_TIMEOUT)
            .query("conversation_ids", conversation_ids.join(","))
            .parsed()
            .await?;
        Ok(answer.statuses)
    }
}

fn classify(error: ApiError) -> RegisterError {
    let transient = |text: String, retry_after| RegisterError::Transient { text, retry_after };
    let failure = match error {
        ApiError::Status(failure) => failure,
        ApiError::Connection { reason } => {
            return transient(format!("Network error: {reason}"), None);
        }
        ApiError::Timeout => {
            return transient("Network error: no answer within 30 s".into(), None);
        }
        ApiError::Credentials(error) => return error.into(),
        other => {
            return RegisterError::Fatal {
                text: other.to_string(),
            };
        }
    };
    let text = refusal_text(failure.status, &failure.body);
    match failure.status {
        429 | 500.. => {
            let asked = super::retry::retry_after(&failure.headers, SystemTime::now());
            transient(text, asked.map(|wait| wait.min(MAX_RETRY_AFTER)))
        }
        404 | 405 => RegisterError::NoEndpoint { text },
        401 | 403 => RegisterError::Refused { text },
        _ => RegisterError::Fatal { text },
    }
}

/// The text of a refused registration.
fn refusal_text(status: u16, body: &ErrorBody) -> String {
    let whole = match body {
        ErrorBody::Json(json) => {
            let text = |name| json.get(name).and_then(Value::as_str);
            if let Some(message) = text("message").filter(|message| !message.is_empty()) {
                return message.to_owned();
            }
            if let Some(error) = text("error").filter(|error| !error.is_empty()) {
                let code = text("errorCode").map_or_else(String::new, |code| format!(" ({code})"));
                return format!("HTTP {status}: {error}{code}");
            }
            json.to_string()
        }
        ErrorBody::Text(text) => text.clone(),
    };
    let start: String = whole.chars().take(200).collect();
    if start.is_empty() {
        format!("HTTP {status}")
    } else {
        format!("HTTP {status}: {start}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::failure;
    use super::*;

    #[test]
    fn every_refusal_has_its_text_and_class() {
        let html = format!("<html>{}", "x".repeat(300));
        for (status, body, text, exit) in [
            (
                401,
                r#"{"message":"Unauthorized"}"#,
                "Unauthorized".to_owned(),
                Some(77),
            ),
            (403, "", "HTTP 403".into(), Some(77)),
            (
                400,
                r#"{"error":"bad","errorCode":"E1"}"#,
                "HTTP 400: bad (E1)".into(),
                Some(78),
            ),
            (400, r#"{"error":"bad"}"#, "HTTP 400: bad".into(), Some(78)),
            (
                400,
                r#"{"message":"","x":1}"#,
                r#"HTTP 400: {"message":"","x":1}"#.into(),
                Some(78),
            ),
            (408, "", "HTTP 408".into(), Some(78)),
            (429, "slow", "HTTP 429: slow".into(), None),
            (521, &html, format!("HTTP 521: {}", &html[..200]), None),
            (
                500,
                r#"{"error":{"x":1}}"#,
                r#"HTTP 500: {"error":{"x":1}}"#.into(),
                None,
            ),
        ] {
            let error = classify(failure(status, body));
            assert_eq!(error.to_string(), text, "{status} {body}");
            assert_eq!(error.exit_code(), exit, "{status} {body}");
            assert_eq!(error.is_transient(), exit.is_none());
        }
    }

    #[test]
    fn a_server_without_the_endpoint_is_told_with_the_way_out() {
        for status in [404, 405] {
            let error = classify(failure(status, r#"{"detail":"Not Found"}"#));
            let text = error.to_string();
            assert!(text.contains("--listen") && text.starts_with(&format!("HTTP {status}")));
            assert!(!error.is_transient());
        }
    }

    #[test]
    fn without_an_answer_registration_is_tried_again() {
        let error = classify(ApiError::Connection {
            reason: "reset".into(),
        });
        assert_eq!(error.to_string(), "Network error: reset");
        assert!(error.is_transient() && classify(ApiError::Timeout).is_transient());
    }

    #[test]
    fn waits_double_respect_the_server_and_are_capped() {
        let seconds = Duration::from_secs;
        for (attempt, asked, expected) in [
            (1, None, 1),
            (2, None, 2),
            (5, None, 16),
            (6, None, 30),
            (600, None, 30),
            (1, Some(3), 3),
            (3, Some(3), 4),
            (1, Some(86_400), 300),
        ] {
            let asked = asked.map(seconds);
            assert_eq!(retry_delay(attempt, asked, 0.0), seconds(expected));
        }
        assert_eq!(retry_delay(1, None, 0.999), Duration::from_millis(1249));
        assert_eq!(
            retry_delay(1, Some(seconds(3)), 0.999),
            Duration::from_millis(3749)
        );
        assert_eq!(retry_delay(6, None, 0.999), Duration::from_millis(30_999));
    }

    #[test]
    fn only_the_owner_or_anyone_at_an_idle_conversation_recovers_it() {
        let status = |json| serde_json::from_value::<RuntimeStatus>(json).unwrap();
        for (json, expected) in [
            (
                serde_json::json!({"conversation_id": "c", "state": "IDLE"}),
                true,
            ),
            (
                serde_json::json!({"conversation_id": "c", "state": "RUNNING"}),
                false,
            ),
            (
                serde_json::json!({"conversation_id": "c", "state": "RUNNING", "active_harness": {"connection_id": "conn-1"}}),
                true,
            ),
            (
                serde_json::json!({"conversation_id": "c", "state": "IDLE", "active_harness": {"connection_id": "conn-2"}}),
                false,
            ),
            (
                serde_json::json!({"conversation_id": "c", "state": "IDLE", "has_conflicting_listeners": true}),
                false,
            ),
        ] {
            assert_eq!(
                status(json.clone()).may_recover("conn-1"),
                expected,
                "{json}"
            );
        }
    }
}
