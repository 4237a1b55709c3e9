//! Every API request as it came in, for tests to look at.

use axum::http::HeaderMap;
use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

/// One HTTP request (or socket upgrade) of a listener or client.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path without the query, as sent (still percent-encoded).
    pub path: String,
    /// Query without `?`, empty when there is none.
    pub query: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body, empty for upgrades.
    pub body: Bytes,
    /// When it was complete.
    pub at: Instant,
}

impl Recorded {
    /// The body as JSON; `Null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header as text, by case-insensitive name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `METHOD /path?query`.
    pub fn line(&self) -> String {
        let mark = if self.query.is_empty() { "" } else { "?" };
        format!("{} {}{mark}{}", self.method, self.path, self.query)
    }

    /// Whether it is this method and exactly this path (trailing slash ignored).
    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path.trim_end_matches('/') == path.trim_end_matches('/')
    }
}
