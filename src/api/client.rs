//! The client of the Letta API: base URL, headers, credentials, time limits and
//! silent retries of every call (03 §1, 06 §2).
//!
//! Invariant: every request goes through [`Call`], so no resource decides these
//! by itself. A call is cancelled by dropping its future.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Method, Url};
use serde_json::Value;

use super::call::Call;
use super::error::ApiError;
use super::in_flight::InFlight;
use super::net::Net;
use super::token::{BearerFuture, TokenSource};

/// The level of the published program that this build implements (00 §8).
pub const PROTOCOL_LEVEL: &str = "0.32.18";

/// `User-Agent` of every request (00 §5).
pub const USER_AGENT_TEXT: &str = concat!("letta-code/0.32.18 letta/", env!("CARGO_PKG_VERSION"));

/// The base URL of Letta Cloud.
pub const CLOUD_URL: &str = "https://api.letta.com";

/// The default limit for the wait for an answer.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

pub(super) const SOURCE: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-letta-source"),
    HeaderValue::from_static("letta-code"),
);

/// The address of a Letta server, without trailing slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(Arc<str>);

impl BaseUrl {
    /// Reads `LETTA_BASE_URL`: blanks around it and slashes behind it are dropped.
    ///
    /// # Errors
    /// When it is no `http` or `https` URL with a host, or holds a query.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let trimmed = text.trim().trim_end_matches('/');
        let usable = Url::parse(trimmed).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        if !usable {
            return Err(ApiError::invalid(
                "LETTA_BASE_URL is not the address of a server. Write it like https://api.letta.com.",
            ));
        }
        Ok(Self(trimmed.into()))
    }

    /// Letta Cloud.
    pub fn cloud() -> Self {
        Self(CLOUD_URL.into())
    }

    /// Whether it is Letta Cloud (01 §5.1).
    pub fn is_cloud(&self) -> bool {
        self.0.eq_ignore_ascii_case(CLOUD_URL)
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a client is made from.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The server.
    pub base_url: BaseUrl,
    /// `X-Letta-Environment-Device-Id`: `LETTA_RUNTIME_ENVIRONMENT_DEVICE_ID`, else the deviceId.
    pub device_id: Option<String>,
    /// `LETTA_ACTING_USER_ID`: whom requests of a turn act for when nobody is named.
    pub acting_user_id: Option<String>,
    /// `LETTA_MEMFS_BACKEND=hosted`.
    pub memfs_hosted: bool,
    /// `LETTA_REQUEST_TIMEOUT_MS`: limit for the wait for an answer; streams may last longer.
    pub timeout: Duration,
}

impl ClientSettings {
    /// Settings for a server, everything else as by default.
    pub fn new(base_url: BaseUrl) -> Self {
        Self {
            base_url,
            device_id: None,
            acting_user_id: None,
            memfs_hosted: false,
            timeout: DEFAULT_TIMEOUT,
        }
    }
}

/// A client of one server. Cheap to clone; clones share connections and requests in flight.
#[derive(Clone)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) acting_user: Option<HeaderValue>,
}

/// What the clones of a client share.
pub(super) struct Shared {
    pub(super) net: Net,
    pub(super) base: BaseUrl,
    pub(super) tokens: Arc<dyn TokenSource>,
    pub(super) timeout: Duration,
    sdk_headers: HeaderMap,
    raw_headers: HeaderMap,
    default_acting_user: Option<HeaderValue>,
    /// The server refuses background streams (00 §5).
    pub(super) no_background: AtomicBool,
    /// `GET` requests that several callers wait for at this moment.
    pub(super) reads: InFlight<Result<Arc<Value>, ApiError>>,
}

impl Client {
    /// A client of the server in `settings`; opens no connection.
    ///
    /// # Errors
    /// When the device id or the acting user cannot stand in a header.
    pub fn new(
        net: Net,
        tokens: Arc<dyn TokenSource>,
        settings: &ClientSettings,
    ) -> Result<Self, ApiError> {
        let mut raw_headers = HeaderMap::new();
        raw_headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_TEXT));
        raw_headers.insert(SOURCE.0, SOURCE.1);
        let mut sdk_headers = raw_headers.clone();
        sdk_headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(id) = header_text(settings.device_id.as_deref(), "the device id")? {
            sdk_headers.insert("x-letta-environment-device-id", id);
        }
        if settings.memfs_hosted {
            sdk_headers.insert("x-letta-memfs-backend", HeaderValue::from_static("hosted"));
        }
        let default_acting_user =
            header_text(settings.acting_user_id.as_deref(), "LETTA_ACTING_USER_ID")?;
        Ok(Self {
            shared: Arc::new(Shared {
                net,
                base: settings.base_url.clone(),
                tokens,
                timeout: settings.timeout,
                sdk_headers,
                raw_headers,
                default_acting_user,
                no_background: AtomicBool::new(false),
                reads: InFlight::default(),
            }),
            acting_user: None,
        })
    }

    /// A client whose calls act for a human (03 §1.2): `user`, else
    /// `LETTA_ACTING_USER_ID`, else nobody. A name that cannot stand in a header counts as none.
    #[must_use]
    pub fn acting_as(&self, user: Option<&str>) -> Self {
        let named = user.filter(|user| !user.is_empty());
        let acting_user = named
            .and_then(|user| HeaderValue::from_str(user).ok())
            .or_else(|| self.shared.default_acting_user.clone());
        Self {
            shared: self.shared.clone(),
            acting_user,
        }
    }

    /// The server.
    pub fn base_url(&self) -> &BaseUrl {
        &self.shared.base
    }

    /// The HTTP clients below.
    pub fn net(&self) -> &Net {
        &self.shared.net
    }

    /// The bearer token of this moment: for the upgrade request of the relay.
    pub fn bearer(&self) -> BearerFuture<'_> {
        self.shared.tokens.bearer()
    }

    /// Begins a call that carries the headers of the published SDK.
    pub fn call(&self, method: Method, path: Path) -> Call {
        self.begin(method, path, &self.shared.sdk_headers)
    }

    /// Begins a "raw" call (03 §1.2): few headers and no silent retries.
    pub fn raw_call(&self, method: Method, path: Path) -> Call {
        self.begin(method, path, &self.shared.raw_headers)
            .retries(0)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }

    fn begin(&self, method: Method, path: Path, headers: &HeaderMap) -> Call {
        let mut headers = headers.clone();
        if let Some(user) = &self.acting_user {
            headers.insert("x-letta-acting-user-id", user.clone());
        }
        Call::new(self.shared.clone(), method, path, headers)
    }

    /// A `GET` that concurrent callers share (03 §1.5).
    pub(super) async fn shared_read(&self, path: Path) -> Result<Arc<Value>, ApiError> {
        let key = format!("{} {:?}", path.text, self.acting_user);
        let call = self.call(Method::GET, path);
        let read = async move { call.value().await.map(Arc::new) };
        self.shared.reads.join(&key, read).await
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.shared.base)
            .finish_non_exhaustive()
    }
}

fn header_text(text: Option<&str>, what: &str) -> Result<Option<HeaderValue>, ApiError> {
    text.map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| {
            HeaderValue::from_str(text).map_err(|_| {
                ApiError::invalid(format!("{what} holds characters that cannot be sent"))
            })
        })
        .transpose()
}

/// The path of a call. Ids in it are percent-encoded; one that is empty or would
/// change the path makes the call fail before anything is sent.
#[derive(Clone, Debug)]
pub struct Path {
    pub(super) text: String,
    pub(super) bad_id: bool,
}

impl Path {
    /// Begins with fixed text, such as `/v1/agents/`.
    pub fn at(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            bad_id: false,
        }
    }

    /// Adds an id as one segment.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.bad_id |= matches!(id, "" | "." | "..");
        for byte in id.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    self.text.push(char::from(byte));
                }
                _ => self.text.push_str(&format!("%{byte:02X}")),
            }
        }
        self
    }

    /// Adds fixed text.
    #[must_use]
    pub fn then(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_lose_their_trailing_slashes_and_know_the_cloud() {
        for (text, cloud) in [
            (" https://api.letta.com// ", true),
            ("https://API.letta.com", true),
            ("http://api.letta.com", false),
            ("https://api.letta.com/v1", false),
            ("http://127.0.0.1:8283/", false),
        ] {
            let base = BaseUrl::parse(text).unwrap();
            assert_eq!(base.is_cloud(), cloud, "{text}");
            assert!(!base.as_str().ends_with('/'));
        }
        for bad in [
            "",
            "api.letta.com",
            "ftp://x",
            "http://",
            "http://x/?q=1",
            "http://x/#f",
        ] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_cannot_leave_their_segment() {
        let path = Path::at("/v1/agents/").id("a/../b?c=ü").then("/messages");
        assert_eq!(path.text, "/v1/agents/a%2F..%2Fb%3Fc%3D%C3%BC/messages");
        assert!(!path.bad_id);
        for bad in ["", ".", ".."] {
            assert!(Path::at("/v1/agents/").id(bad).bad_id);
        }
    }
}
