//! The login server: device codes, tokens, refresh, revocation (01 §5.2–5.4).
//!
//! Invariant: error texts name host, status, media type and request id, never a
//! body, a code or a token. Polling is a state machine without I/O
//! ([`DevicePoll`]), so every row of the specification's table is a test.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use super::call::read_body;
use super::error::{ApiError, reason_of};
use super::net::Net;
use crate::config::Secret;

/// The login server of Letta Cloud; `LETTA_OAUTH_URL` names another.
pub const DEFAULT_OAUTH_URL: &str = "https://app.letta.com";

/// The client id of the published program: public, without a secret.
const CLIENT_ID: &str = "ci-let-724dea7e98f4af6f8f370f4b1466200c";

/// Limit for one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 * 1024;

/// How many transient answers in a row polling tolerates.
const TOLERATED: u32 = 2;

/// A client of the login server.
#[derive(Clone, Debug)]
pub struct OAuth {
    net: Net,
    base: Arc<str>,
    device_id: Arc<str>,
    device_name: Arc<str>,
}

/// A code that a human confirms in a browser.
#[derive(Clone, Debug)]
pub struct DeviceCode {
    /// What is polled with.
    pub device_code: Secret,
    /// What the human compares.
    pub user_code: String,
    /// The page, with the code in it when the server offers that.
    pub verification_uri: String,
    /// How long the code is good.
    pub expires_in: Duration,
    /// The wait before each poll.
    pub interval: Duration,
}

/// Tokens from a login or a refresh.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The bearer token.
    pub access: Secret,
    /// The next refresh token, when the server gives one.
    pub refresh: Option<Secret>,
    /// How long the bearer token is good, when the server says so.
    pub expires_in: Option<Duration>,
}

/// Why the login server did not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OAuthError {
    /// No answer.
    #[error("cannot reach {host}: {reason}")]
    Network {
        /// The login server.
        host: Arc<str>,
        /// What the network said.
        reason: Arc<str>,
    },
    /// An answer that cannot be used.
    #[error("{host} answered HTTP {status} ({media_type}{request_id}){said}")]
    Answer {
        /// The login server.
        host: Arc<str>,
        /// The status.
        status: u16,
        /// The media type, or `no content type`.
        media_type: Arc<str>,
        /// `, <header>: <id>`, or nothing.
        request_id: Arc<str>,
        /// `: <error>` from a JSON body, or nothing.
        said: Arc<str>,
        /// Whether later may do.
        retryable: bool,
    },
    /// The human said no.
    #[error("User denied authorization")]
    Denied,
    /// Any other error of the protocol.
    #[error("OAuth error: {0}")]
    Protocol(Arc<str>),
}

impl OAuthError {
    /// Whether later may do: no network, a broken body, 408, 429 or 5xx (01 §5.2).
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Network { .. } => true,
            Self::Answer { retryable, .. } => *retryable,
            Self::Denied | Self::Protocol(_) => false,
        }
    }
}

/// An answer of the login server, reduced to what decisions need.
#[derive(Debug)]
struct Answer {
    status: u16,
    media_type: Arc<str>,
    request_id: Arc<str>,
    /// The body when it is JSON by type and by form.
    json: Option<Value>,
}

impl Answer {
    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn error_code(&self) -> Option<&str> {
        self.json.as_ref()?.get("error")?.as_str()
    }

    /// `error_description`, else `error`; short, on one line.
    fn said(&self) -> Option<String> {
        let json = self.json.as_ref()?;
        let text = |name| json.get(name).and_then(Value::as_str);
        let said = text("error_description").or_else(|| text("error"))?;
        Some(said.chars().filter(|c| !c.is_control()).take(200).collect())
    }

    fn is_transient(&self) -> bool {
        self.json.is_none() || matches!(self.status, 408 | 429 | 500..)
    }

    fn into_error(self, host: &Arc<str>) -> OAuthError {
        let said = self
            .said()
            .map_or_else(String::new, |said| format!(": {said}"));
        OAuthError::Answer {
            host: host.clone(),
            status: self.status,
            retryable: self.is_transient(),
            media_type: self.media_type,
            request_id: self.request_id,
            said: said.into(),
        }
    }
}

impl OAuth {
    /// A client of the login server at `base`; `device_name` is the computer name.
    pub fn new(net: Net, base: &str, device_id: &str, device_name: &str) -> Self {
        Self {
            net,
            base: base.trim().trim_end_matches('/').into(),
            device_id: device_id.into(),
            device_name: device_name.into(),
        }
    }

    /// Asks for a device code; a transient answer is asked again once, after 100 ms.
    pub async fn device_code(&self) -> Result<DeviceCode, OAuthError> {
        #[derive(Deserialize)]
        struct Reply {
            device_code: String,
            user_code: String,
            verification_uri: String,
            verification_uri_complete: Option<String>,
            expires_in: Option<f64>,
            interval: Option<f64>,
        }
        let body = json!({ "client_id": CLIENT_ID });
        let path = "/api/oauth/device/code";
        let mut answer = self.post(path, &body).await?;
        if answer.is_transient() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            answer = self.post(path, &body).await?;
        }
        let reply = answer
            .json
            .clone()
            .filter(|_| answer.is_success())
            .and_then(|json| serde_json::from_value::<Reply>(json).ok());
        let Some(reply) = reply else {
            return Err(answer.into_error(&self.base));
        };
        let seconds = |given: Option<f64>, default: u64| {
            given
                .filter(|given| *given > 0.0)
                .and_then(|given| Duration::try_from_secs_f64(given).ok())
                .unwrap_or(Duration::from_secs(default))
                .min(Duration::from_secs(86_400))
        };
        Ok(DeviceCode {
            device_code: Secret::new(reply.device_code),
            user_code: reply.user_code,
            verification_uri: reply
                .verification_uri_complete
                .unwrap_or(reply.verification_uri),
            expires_in: seconds(reply.expires_in, 900),
            interval: seconds(reply.interval, 5),
        })
    }

    /// Polls once with a device code and hands the answer to the state machine.
    pub async fn poll(&self, code: &DeviceCode, poll: &mut DevicePoll) -> PollStep {
        let body = json!({
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "client_id": CLIENT_ID,
            "device_code": code.device_code.expose(),
            "device_id": &*self.device_id,
            "device_name": &*self.device_name,
        });
        match self.post("/api/oauth/token", &body).await {
            Ok(answer) => poll.step(answer, &self.base),
            Err(error) => PollStep::Failed(error),
        }
    }

    /// Trades a refresh token for new tokens. The old one is worthless afterwards.
    pub async fn refresh(&self, refresh_token: &Secret) -> Result<Tokens, OAuthError> {
        let body = json!({
            "grant_type": "refresh_token",
            "client_id": CLIENT_ID,
            "refresh_token": refresh_token.expose(),
            "refresh_token_mode": "new",
            "device_id": &*self.device_id,
            "device_name": &*self.device_name,
        });
        let answer = self.post("/api/oauth/token", &body).await?;
        tokens(&answer).ok_or_else(|| answer.into_error(&self.base))
    }

    /// Makes a refresh token worthless.
    pub async fn revoke(&self, refresh_token: &Secret) -> Result<(), OAuthError> {
        let body = json!({
            "client_id": CLIENT_ID,
            "token": refresh_token.expose(),
            "token_type_hint": "refresh_token",
        });
        let answer = self.post("/api/oauth/revoke", &body).await?;
        if answer.is_success() {
            Ok(())
        } else {
            Err(answer.into_error(&self.base))
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Answer, OAuthError> {
        let network = |reason: String| OAuthError::Network {
            host: self.base.clone(),
            reason: reason.into(),
        };
        let request = self
            .net
            .http()
            .post(format!("{}{path}", self.base))
            .timeout(TIMEOUT)
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string());
        let response = request
            .send()
            .await
            .map_err(|error| network(reason_of(&error.without_url())))?;
        let status = response.status().as_u16();
        let headers = response.headers();
        let media_type = media_type(headers);
        let request_id = request_id(headers);
        let body = match read_body(response, MAX_ANSWER).await {
            Ok(body) => body,
            Err(ApiError::Connection { reason }) => return Err(network(reason.to_string())),
            Err(_) => bytes::Bytes::new(),
        };
        let json = is_json(&media_type)
            .then(|| serde_json::from_slice(&body).ok())
            .flatten();
        Ok(Answer {
            status,
            media_type: media_type.unwrap_or_else(|| "no content type".into()),
            request_id,
            // Revocation answers with nothing at all.
            json: json.or_else(|| (body.is_empty() && status < 300).then_some(Value::Null)),
        })
    }
}

fn media_type(headers: &HeaderMap) -> Option<Arc<str>> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = text.split(';').next()?.trim();
    Some(
        essence
            .chars()
            .take(100)
            .collect::<String>()
            .to_lowercase()
            .into(),
    )
}

/// `application/json`, `*+json`, or no type at all.
fn is_json(media_type: &Option<Arc<str>>) -> bool {
    media_type
        .as_deref()
        .is_none_or(|kind| kind == "application/json" || kind.ends_with("+json"))
}

fn request_id(headers: &HeaderMap) -> Arc<str> {
    ["cf-ray", "x-request-id", "x-vercel-id"]
        .into_iter()
        .find_map(|name| {
            let id: String = headers
                .get(name)?
                .to_str()
                .ok()?
                .chars()
                .take(100)
                .collect();
            Some(format!(", {name}: {id}").into())
        })
        .unwrap_or_default()
}

fn tokens(answer: &Answer) -> Option<Tokens> {
    let json = answer.json.as_ref().filter(|_| answer.is_success())?;
    let text = |name| json.get(name)?.as_str().filter(|text| !text.is_empty());
    let seconds = json.get("expires_in").and_then(Value::as_f64);
    Some(Tokens {
        access: Secret::new(text("access_token")?),
        refresh: text("refresh_token").map(Secret::new),
        expires_in: seconds.and_then(|given| Duration::try_from_secs_f64(given).ok()),
    })
}

/// The state of polling with one device code.
#[derive(Debug)]
pub struct DevicePoll {
    interval: Duration,
    failures: u32,
}

/// What a poll led to.
#[derive(Debug)]
pub enum PollStep {
    /// The human agreed.
    Done(Tokens),
    /// Poll again after [`DevicePoll::interval`].
    Wait,
    /// The code is worth nothing any more.
    Expired,
    /// Polling failed; a retryable error may be followed by another poll.
    Failed(OAuthError),
}

impl DevicePoll {
    /// Begins polling.
    pub fn new(code: &DeviceCode) -> Self {
        Self {
            interval: code.interval,
            failures: 0,
        }
    }

    /// The wait before the next poll.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Decides about one answer (01 §5.3, table "Poll answer").
    fn step(&mut self, answer: Answer, host: &Arc<str>) -> PollStep {
        if let Some(tokens) = tokens(&answer) {
            return PollStep::Done(tokens);
        }
        match answer.error_code() {
            Some("authorization_pending") => {
                self.failures = 0;
                PollStep::Wait
            }
            Some("slow_down") => {
                self.failures = 0;
                self.interval += Duration::from_secs(5);
                PollStep::Wait
            }
            Some("access_denied") => PollStep::Failed(OAuthError::Denied),
            Some("expired_token") => PollStep::Expired,
            _ if answer.is_transient() => {
                self.failures += 1;
                if self.failures <= TOLERATED {
                    return PollStep::Wait;
                }
                self.failures = 0;
                PollStep::Failed(answer.into_error(host))
            }
            code => {
                let said = answer.said().or_else(|| code.map(str::to_owned));
                PollStep::Failed(match said {
                    Some(said) => OAuthError::Protocol(said.into()),
                    None => answer.into_error(host),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, json: Option<Value>) -> Answer {
        Answer {
            status,
            media_type: "application/json".into(),
            request_id: Arc::default(),
            json,
        }
    }

    fn poll() -> DevicePoll {
        DevicePoll {
            interval: Duration::from_secs(5),
            failures: 0,
        }
    }

    fn host() -> Arc<str> {
        "https://login.test".into()
    }

    fn error(code: &str) -> Option<Value> {
        Some(json!({ "error": code }))
    }

    #[test]
    fn each_poll_answer_has_its_consequence() {
        let token = Some(json!({"access_token": "t", "refresh_token": "r", "expires_in": 60}));
        let PollStep::Done(tokens) = poll().step(answer(200, token), &host()) else {
            panic!("expected tokens");
        };
        assert_eq!(tokens.access.expose(), "t");
        assert_eq!(tokens.expires_in, Some(Duration::from_secs(60)));

        for (status, body, expected) in [
            (400, error("authorization_pending"), "Wait"),
            (400, error("slow_down"), "Wait"),
            (400, error("expired_token"), "Expired"),
            (400, error("access_denied"), "Failed(Denied)"),
            (
                400,
                error("invalid_client"),
                "Failed(Protocol(\"invalid_client\"))",
            ),
            (
                400,
                Some(json!({"error": "x", "error_description": "why"})),
                "Failed(Protocol(\"why\"))",
            ),
            (503, error("x"), "Wait"),
            (429, error("x"), "Wait"),
            (408, error("x"), "Wait"),
            (400, None, "Wait"),
            (200, None, "Wait"),
        ] {
            let step = format!("{:?}", poll().step(answer(status, body), &host()));
            assert_eq!(step, expected, "{status}");
        }
    }

    #[test]
    fn slow_down_adds_five_seconds_each_time() {
        let mut poll = poll();
        poll.step(answer(400, error("slow_down")), &host());
        poll.step(answer(400, error("slow_down")), &host());
        assert_eq!(poll.interval(), Duration::from_secs(15));
    }

    #[test]
    fn the_third_transient_answer_in_a_row_fails() {
        let mut poll = poll();
        for _ in 0..2 {
            assert!(matches!(
                poll.step(answer(502, None), &host()),
                PollStep::Wait
            ));
        }
        poll.step(answer(400, error("authorization_pending")), &host());
        for _ in 0..2 {
            assert!(matches!(
                poll.step(answer(502, None), &host()),
                PollStep::Wait
            ));
        }
        let PollStep::Failed(failed) = poll.step(answer(502, None), &host()) else {
            panic!("the third in a row must fail");
        };
        assert!(failed.is_retryable());
        assert!(
            failed
                .to_string()
                .contains("https://login.test answered HTTP 502")
        );
    }

    #[test]
    fn refusals_are_final_and_outages_are_not() {
        for (status, json, retryable) in [
            (400, error("invalid_grant"), false),
            (401, error("x"), false),
            (408, error("x"), true),
            (429, error("x"), true),
            (500, error("x"), true),
            (403, None, true),
        ] {
            let error = answer(status, json).into_error(&host());
            assert_eq!(error.is_retryable(), retryable, "{status}");
        }
    }

    #[test]
    fn json_types_are_recognised() {
        let kind = |text: &str| Some(Arc::from(text));
        assert!(is_json(&None) && is_json(&kind("application/json")));
        assert!(is_json(&kind("application/problem+json")) && !is_json(&kind("text/html")));
    }
}
