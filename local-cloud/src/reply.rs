//! Small pieces of HTTP: JSON answers, error answers in the server's form,
//! queries, path segments, and the answers that faults give.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Query;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::net::Peer;
use crate::server::Cloud;

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, body.to_string()).into_response()
}

/// 200 with JSON.
pub(crate) fn ok(body: &Value) -> Response {
    json(StatusCode::OK, body)
}

/// An error in the server's form: `{"detail": text}`.
pub(crate) fn detail(status: u16, text: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, &json!({"detail": text}))
}

/// 200 with an HTML page, as a proxy in the way would send.
pub(crate) fn html(status: StatusCode, page: impl IntoResponse) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/html; charset=utf-8")],
        page,
    )
        .into_response()
}

pub(crate) const STRAY_PAGE: &str = "<!doctype html><html><head><title>Just a moment</title></head><body><h1>Not the API</h1></body></html>";

/// An event stream around this body.
pub(crate) fn event_stream(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, body).into_response()
}

/// The query as pairs, decoded; empty when malformed.
pub(crate) fn query(uri: &Uri) -> Vec<(String, String)> {
    Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map(|q| q.0)
        .unwrap_or_default()
}

/// The first value of a query key.
pub(crate) fn get<'a>(query: &'a [(String, String)], key: &str) -> Option<&'a str> {
    query
        .iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.as_str())
}

/// Path segments, decoded, without empty ones at the ends.
pub(crate) fn segments(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|part| !part.is_empty())
        .map(percent_decode)
        .collect()
}

/// Decodes `%XX`; what is malformed stays as it is.
pub(crate) fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%'
            && let [high, low, after @ ..] = tail
            && let (Some(high), Some(low)) =
                ((*high as char).to_digit(16), (*low as char).to_digit(16))
            && let Ok(byte) = u8::try_from(high * 16 + low)
        {
            bytes.push(byte);
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The answer of a fault that stands in place of the real one; `None` when the
/// request is to be served after all. May wait, for [`Fault::Hang`] until the
/// connection or the server ends.
pub(crate) async fn instead(cloud: &Arc<Cloud>, fault: &Fault, peer: &Peer) -> Option<Response> {
    match fault {
        Fault::Status {
            status,
            headers,
            body,
        } => Some(scripted(*status, headers, body)),
        Fault::Html => Some(html(StatusCode::OK, STRAY_PAGE)),
        Fault::Reset => {
            peer.0.reset();
            cloud.stopped().await;
            None
        }
        Fault::Hang => {
            cloud.stopped().await;
            None
        }
        other => {
            if let Some(delay) = other.delay() {
                tokio::time::sleep(delay).await;
            }
            None
        }
    }
}

fn scripted(status: u16, headers: &[(String, String)], body: &Value) -> Response {
    let mut response = match body {
        Value::Null => Response::new(Body::empty()),
        Value::String(text) => text.clone().into_response(),
        other => json(StatusCode::OK, other),
    };
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (
            HeaderName::try_from(name.as_str()),
            HeaderValue::try_from(value.as_str()),
        ) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_decoded_and_malformed_escapes_stay() {
        assert_eq!(segments("/v1/agents/a%2Fb/"), ["v1", "agents", "a/b"]);
        assert_eq!(percent_decode("50%,%4"), "50%,%4");
    }
}
