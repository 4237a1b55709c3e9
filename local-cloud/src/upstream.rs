//! A real Letta server behind the control plane: every API call is passed on,
//! its answer streamed back. Also the one HTTP client of this crate.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderName, StatusCode};
use axum::response::Response;
use futures_util::StreamExt;

use crate::fault::Fault;
use crate::record::Recorded;
use crate::reply;

/// Why the client to a real server could not be made.
#[derive(Debug)]
pub(crate) struct SetUpError(String);

impl std::fmt::Display for SetUpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// An HTTP client with the built-in roots and the `ring` provider.
pub(crate) fn client() -> Result<reqwest::Client, SetUpError> {
    let failed = |error: &dyn std::fmt::Display| SetUpError(format!("no HTTP client: {error}"));
    let roots = rustls::RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .build()
        .map_err(|error| failed(&error))
}

/// Headers that belong to one hop, or that the client sets itself.
const HOP: [&str; 7] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "accept-encoding",
    "upgrade",
];

/// The server that answers API calls in the cloud's place.
pub(crate) struct Upstream {
    base: String,
    client: reqwest::Client,
}

impl Upstream {
    pub(crate) fn new(url: &str) -> Result<Self, SetUpError> {
        let base = url.trim_end_matches('/').to_owned();
        if reqwest::Url::parse(&base).is_err() {
            return Err(SetUpError(format!("the upstream {url:?} is no URL")));
        }
        Ok(Self {
            base,
            client: client()?,
        })
    }

    /// Passes a request on. Of the faults, cutting the body off after a number of
    /// bytes is done here too.
    pub(crate) async fn forward(&self, request: &Recorded, fault: Option<&Fault>) -> Response {
        let mark = if request.query.is_empty() { "" } else { "?" };
        let url = format!("{}{}{mark}{}", self.base, request.path, request.query);
        let method = reqwest::Method::from_bytes(request.method.as_bytes());
        let method = method.unwrap_or(reqwest::Method::GET);
        let mut call = self.client.request(method, url).body(request.body.clone());
        for (name, value) in &request.headers {
            if !HOP.contains(&name.as_str()) {
                call = call.header(name, value);
            }
        }
        let answer = match call.send().await {
            Ok(answer) => answer,
            Err(error) => {
                let text = format!(
                    "The upstream server did not answer: {}",
                    error.without_url()
                );
                return reply::detail(502, &text);
            }
        };
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let mut left = match fault {
            Some(Fault::CutAfterBytes { bytes }) => Some(*bytes),
            _ => None,
        };
        let body = answer
            .bytes_stream()
            .map(move |part| match (&mut left, part) {
                (None, part) => part.map_err(std::io::Error::other),
                (Some(0), _) => Err(std::io::Error::other("cut off by a fault")),
                (Some(left), Ok(mut part)) => {
                    part.truncate(*left);
                    *left -= part.len();
                    Ok(part)
                }
                (Some(_), Err(error)) => Err(std::io::Error::other(error)),
            });
        let mut response = Response::new(Body::from_stream(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        for (name, value) in &headers {
            if !HOP.contains(&name.as_str())
                && let Ok(name) = HeaderName::try_from(name.as_str())
            {
                response.headers_mut().append(name, value.clone());
            }
        }
        response
    }
}
