//! What can go wrong with a request, in the terms that its caller decides by
//! (03 §1.4, §11.1).
//!
//! Invariant: `Display` gives the text of 03 §1.4, which clients of the listener
//! see; `Debug`, which goes to logs, never holds a body. No text holds a token.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::HeaderMap;
use serde_json::Value;
use thiserror::Error;

use super::retry;
use super::token::CredentialError;

/// A request that failed. Cheap to clone, so that callers can share one.
#[derive(Clone, Error)]
pub enum ApiError {
    /// The server answered with a status that is no success.
    #[error("{0}")]
    Status(Arc<HttpFailure>),
    /// No answer came.
    #[error("Connection error.")]
    Connection {
        /// What the network said: for logs.
        reason: Arc<str>,
    },
    /// No answer came in time.
    #[error("Request timed out.")]
    Timeout,
    /// A success that is not the event stream that was asked for (03 §3.9).
    #[error("Connection error: expected text/event-stream, received {received} (HTTP {status}).")]
    NotEventStream {
        /// The media type, or `no content type`.
        received: Arc<str>,
        /// The HTTP status.
        status: u16,
    },
    /// The answer is longer than anything the API sends.
    #[error("The answer of the server is larger than {limit} bytes.")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A success whose body is not what the call promises.
    #[error("The server sent an answer that cannot be read: {reason}.")]
    Unreadable {
        /// What is wrong, without the body.
        reason: Arc<str>,
    },
    /// There is no usable token.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The request cannot be made at all: nothing was sent.
    #[error("{reason}")]
    Invalid {
        /// What is wrong with it.
        reason: Arc<str>,
    },
}

impl ApiError {
    /// The HTTP status; `None` when no answer came.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status(failure) => Some(failure.status),
            _ => None,
        }
    }

    /// The body of the error answer.
    pub fn body(&self) -> Option<&ErrorBody> {
        match self {
            Self::Status(failure) => Some(&failure.body),
            _ => None,
        }
    }

    /// The wait that the answer asks for.
    pub fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        match self {
            Self::Status(failure) => retry::retry_after(&failure.headers, now),
            _ => None,
        }
    }

    /// The text that failures are classified by (03 §11.1).
    pub fn detail(&self) -> String {
        match self.body() {
            Some(ErrorBody::Json(body)) => detail_of(body).map(str::to_owned),
            Some(ErrorBody::Text(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }
        .unwrap_or_else(|| self.to_string())
    }

    /// Whether the thing asked for does not exist: 404 or 422.
    pub fn is_missing(&self) -> bool {
        matches!(self.status(), Some(404 | 422))
    }

    /// Whether the server has no such endpoint: 404 or 405.
    pub fn is_no_endpoint(&self) -> bool {
        matches!(self.status(), Some(404 | 405))
    }

    /// An answer that makes no sense, told without its body.
    pub(super) fn unreadable(reason: impl Into<Arc<str>>) -> Self {
        Self::Unreadable {
            reason: reason.into(),
        }
    }

    pub(super) fn invalid(reason: impl Into<Arc<str>>) -> Self {
        Self::Invalid {
            reason: reason.into(),
        }
    }
}

impl From<reqwest::Error> for ApiError {
    fn from(error: reqwest::Error) -> Self {
        // A connect that timed out is a connection that failed: only the wait for
        // the answer is a timeout, and that one is measured by the client itself.
        Self::Connection {
            reason: reason_of(&error.without_url()).into(),
        }
    }
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(failure) => write!(f, "Status({})", failure.status),
            Self::Connection { reason } => write!(f, "Connection({reason})"),
            other => write!(f, "{other}"),
        }
    }
}

/// The chain of causes of a network error, outermost first.
pub(super) fn reason_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// An answer with an error status.
pub struct HttpFailure {
    /// The status, 300 to 599.
    pub status: u16,
    /// The headers of the answer.
    pub headers: HeaderMap,
    /// Its body, cut at 256 KiB.
    pub body: ErrorBody,
}

impl fmt::Display for HttpFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status;
        match &self.body {
            ErrorBody::Json(body) => write!(f, "{status} {}", message_of(body)),
            ErrorBody::Text(text) if text.is_empty() => write!(f, "{status} status code (no body)"),
            ErrorBody::Text(text) => write!(f, "{status} {text}"),
        }
    }
}

/// The body of an error answer.
pub enum ErrorBody {
    /// Any JSON value.
    Json(Value),
    /// Everything else, the empty body included.
    Text(String),
}

impl ErrorBody {
    /// Reads a body: JSON if it parses, else text.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).map_or_else(
            |_| Self::Text(String::from_utf8_lossy(bytes).trim().to_owned()),
            Self::Json,
        )
    }

    /// The JSON value, if it is one.
    pub fn json(&self) -> Option<&Value> {
        match self {
            Self::Json(value) => Some(value),
            Self::Text(_) => None,
        }
    }
}

/// `body.message`, else the JSON text of the body.
pub(super) fn message_of(body: &Value) -> String {
    match body.get("message") {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        _ => body.to_string(),
    }
}

/// The first text of an error body that says what happened (03 §11.1).
pub fn detail_of(body: &Value) -> Option<&str> {
    let error = body.get("error");
    let inside = |name| {
        error
            .and_then(|error| error.get(name))
            .and_then(Value::as_str)
    };
    inside("detail")
        .or_else(|| inside("message"))
        .or_else(|| error.and_then(Value::as_str))
        .or_else(|| body.get("detail").and_then(Value::as_str))
        .or_else(|| body.get("message").and_then(Value::as_str))
        .or_else(|| body.as_str())
}

#[cfg(test)]
pub(super) fn failure(status: u16, body: &str) -> ApiError {
    ApiError::Status(Arc::new(HttpFailure {
        status,
        headers: HeaderMap::new(),
        body: ErrorBody::parse(body.as_bytes()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_status_and_message_body_or_nothing() {
        for (body, expected) in [
            (r#"{"message":"no"}"#, "400 no"),
            (r#"{"detail":"no"}"#, r#"400 {"detail":"no"}"#),
            (r#"{"message":7}"#, r#"400 {"message":7}"#),
            ("<html>", "400 <html>"),
            ("", "400 status code (no body)"),
        ] {
            assert_eq!(failure(400, body).to_string(), expected);
        }
        let connection = ApiError::Connection { reason: "x".into() };
        assert_eq!(connection.to_string(), "Connection error.");
        assert_eq!(ApiError::Timeout.to_string(), "Request timed out.");
    }

    #[test]
    fn the_detail_is_the_first_text_found() {
        for (body, expected) in [
            (
                r#"{"error":{"detail":"a","message":"b"},"detail":"c"}"#,
                "a",
            ),
            (r#"{"error":{"message":"b"},"detail":"c"}"#, "b"),
            (r#"{"error":"e","detail":"c"}"#, "e"),
            (r#"{"error":{"code":1},"detail":"c","message":"d"}"#, "c"),
            (r#"{"detail":{"x":1},"message":"d"}"#, "d"),
            (r#""just text""#, "just text"),
            ("plain", "plain"),
            (r#"{"code":1}"#, r#"500 {"code":1}"#),
            ("", "500 status code (no body)"),
        ] {
            assert_eq!(failure(500, body).detail(), expected);
        }
    }

    #[test]
    fn logs_see_the_status_and_not_the_body() {
        let text = format!("{:?}", failure(500, r#"{"message":"private"}"#));
        assert_eq!(text, "Status(500)");
    }
}
