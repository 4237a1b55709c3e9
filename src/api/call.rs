//! One call: how it is put together, sent, retried and read (03 §1.1–1.4).
//!
//! Invariant: the time limit covers the wait for the answer and the reading of
//! ordinary bodies, never an event stream; bodies are read up to a bound.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, IntoHeaderName};
use reqwest::{Method, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep, timeout_at};

use super::client::{Path, Shared};
use super::error::{ApiError, ErrorBody, HttpFailure};
use super::retry::{self, ORDINARY_RETRIES};
use super::stream::SseStream;
use super::token::CredentialError;
use crate::config::Secret;

/// The longest body of an ordinary answer, in bytes.
pub const MAX_BODY: usize = 64 * 1024 * 1024;

/// How much of the body of an error answer is kept, in bytes.
const MAX_ERROR_BODY: usize = 256 * 1024;

/// How long a server may take to send the body of an error answer.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A call being put together; the last method sends it.
#[must_use = "a call is sent by its last method"]
pub struct Call {
    shared: Arc<Shared>,
    method: Method,
    path: Path,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Option<Bytes>,
    retries: u32,
    timeout: Duration,
    broken: Option<ApiError>,
}

impl Call {
    pub(super) fn new(shared: Arc<Shared>, method: Method, path: Path, headers: HeaderMap) -> Self {
        let timeout = shared.timeout;
        let broken = path
            .bad_id
            .then(|| ApiError::invalid("an empty id cannot be asked for"));
        Self {
            shared,
            method,
            path,
            query: Vec::new(),
            headers,
            body: None,
            retries: ORDINARY_RETRIES,
            timeout,
            broken,
        }
    }

    /// Adds `name=value` to the query; repeat it for arrays.
    pub fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds every field of an object to the query: arrays repeat the name, objects
    /// join names by dots, `null` is left out (06 §2).
    pub fn query_object(mut self, fields: &Map<String, Value>) -> Self {
        for (name, value) in fields {
            flatten(name, value, &mut self.query);
        }
        self
    }

    /// Sets a header of this call alone.
    pub fn header(mut self, name: impl IntoHeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets the JSON body.
    pub fn json(mut self, body: &(impl Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(body) {
            Ok(bytes) => {
                self.body = Some(bytes.into());
                self.headers
                    .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            Err(error) => {
                self.broken = Some(ApiError::invalid(format!("cannot write JSON: {error}")));
            }
        }
        self
    }

    /// Sets the number of silent retries, 2 by default.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Sets a shorter limit than the client's.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = self.timeout.min(limit);
        self
    }

    /// Sends it and reads a JSON answer; an empty answer is `null`.
    pub async fn value(self) -> Result<Value, ApiError> {
        self.parsed().await
    }

    /// Sends it and reads a JSON answer of a known shape.
    pub async fn parsed<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        let bytes = self.bytes().await?;
        let json: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(json).map_err(|error| {
            // The category only: the error's own text quotes the body.
            ApiError::unreadable(match error.classify() {
                serde_json::error::Category::Data => "the JSON has another shape than expected",
                _ => "it is not JSON",
            })
        })
    }

    /// Sends it and reads the body, of at most [`MAX_BODY`] bytes.
    pub async fn bytes(self) -> Result<Bytes, ApiError> {
        let (response, deadline) = self.send().await?;
        timeout_at(deadline, read_body(response, MAX_BODY))
            .await
            .map_err(|_| ApiError::Timeout)?
    }

    /// Sends it and opens the event stream that it answers with (03 §3.9).
    pub async fn stream(self) -> Result<SseStream, ApiError> {
        let (response, _) = self.send().await?;
        let media_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let essence = media_type.and_then(|value| value.split(';').next());
        if essence.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream")) {
            return Ok(SseStream::new(response));
        }
        let received: String = media_type
            .unwrap_or("no content type")
            .chars()
            .take(100)
            .collect();
        Err(ApiError::NotEventStream {
            received: received.into(),
            status: response.status().as_u16(),
        })
    }

    /// Sends it as often as it takes; gives the answer and when its time is over.
    async fn send(mut self) -> Result<(Response, Instant), ApiError> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        let mut retry = 0;
        loop {
            let error = match self.send_once().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let headers = match &error {
                ApiError::Status(failure)
                    if !retry::may_retry(failure.status, &failure.headers) =>
                {
                    return Err(error);
                }
                ApiError::Status(failure) => Some(&failure.headers),
                ApiError::Connection { .. } | ApiError::Timeout => None,
                _ => return Err(error),
            };
            if retry == self.retries {
                return Err(error);
            }
            let now = SystemTime::now();
            let Some(wait) = retry::ordinary_delay(headers, retry, now, fastrand::f64()) else {
                return Err(error);
            };
            tracing::debug!(method = %self.method, path = %self.path.text, ?error, ?wait, "request failed, trying again");
            sleep(wait).await;
            retry += 1;
        }
    }

    fn url(&self) -> Result<Url, ApiError> {
        let text = format!("{}{}", self.shared.base.as_str(), self.path.text);
        let mut url = Url::parse(&text)
            .map_err(|_| ApiError::invalid("the address of the call is not a URL"))?;
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }

    async fn send_once(&self) -> Result<(Response, Instant), ApiError> {
        let bearer = self.shared.tokens.bearer().await?;
        let mut request = self
            .shared
            .net
            .http()
            .request(self.method.clone(), self.url()?)
            .headers(self.headers.clone());
        if let Some(token) = &bearer {
            request = request.header(AUTHORIZATION, bearer_header(token)?);
        }
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        let deadline = Instant::now() + self.timeout;
        let response = timeout_at(deadline, request.send())
            .await
            .map_err(|_| ApiError::Timeout)??;
        if response.status().is_success() {
            return Ok((response, deadline));
        }
        Err(refusal(response).await)
    }
}

/// The `Authorization` header of a token, marked so that no library logs it.
pub(super) fn bearer_header(token: &Secret) -> Result<HeaderValue, CredentialError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        .map_err(|_| CredentialError::Unsendable)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads the error of an answer that is no success.
pub(super) async fn refusal(mut response: Response) -> ApiError {
    let status = response.status().as_u16();
    let headers = std::mem::take(response.headers_mut());
    let mut body = Vec::new();
    // An error is an error, however much of its body arrives.
    let reading = async {
        while let Ok(Some(piece)) = response.chunk().await {
            let room = MAX_ERROR_BODY - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
            if body.len() == MAX_ERROR_BODY {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(ERROR_BODY_TIMEOUT, reading).await;
    ApiError::Status(Arc::new(HttpFailure {
        status,
        headers,
        body: ErrorBody::parse(&body),
    }))
}

/// Reads a body up to a bound.
pub(super) async fn read_body(mut response: Response, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = ApiError::TooLarge { limit };
    let announced = response.content_length().unwrap_or(0);
    if usize::try_from(announced).map_or(true, |length| length > limit) {
        return Err(too_large);
    }
    let Some(first) = response.chunk().await? else {
        return Ok(Bytes::new());
    };
    let Some(second) = response.chunk().await? else {
        return if first.len() > limit {
            Err(too_large)
        } else {
            Ok(first)
        };
    };
    let mut whole = Vec::from(first);
    let mut next = Some(second);
    while let Some(piece) = next {
        if whole.len() + piece.len() > limit {
            return Err(too_large);
        }
        whole.extend_from_slice(&piece);
        next = response.chunk().await?;
    }
    Ok(whole.into())
}

fn flatten(name: &str, value: &Value, into: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Array(items) => items.iter().for_each(|item| flatten(name, item, into)),
        Value::Object(fields) => {
            for (inner, value) in fields {
                flatten(&format!("{name}.{inner}"), value, into);
            }
        }
        Value::String(text) => into.push((name.to_owned(), text.clone())),
        other => into.push((name.to_owned(), other.to_string())),
    }
}
