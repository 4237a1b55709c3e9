//! Opening one: an HTTP GET that is upgraded to a WebSocket (01 §8.1).
//!
//! The HTTP client comes from outside and brings proxies, private roots and TCP
//! keepalive with it; a WebSocket takes the same way as every other request.

use std::error::Error as _;

use reqwest::header::{
    AUTHORIZATION, CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::{StatusCode, Url, Version};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Wire;

/// Connects to the http or https address `url` and upgrades; the caller sets
/// the deadline. Of `protocols`, which are tokens, the server must choose one.
///
/// # Errors
/// A text for people without secrets and without the address.
pub(crate) async fn upgrade(
    client: &reqwest::Client,
    url: &Url,
    bearer: Option<&str>,
    protocols: &[String],
) -> Result<Box<dyn Wire>, String> {
    let key = generate_key();
    let mut request = client
        .get(url.clone())
        .version(Version::HTTP_11)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key);
    if let Some(bearer) = bearer {
        let mut value = HeaderValue::try_from(format!("Bearer {bearer}"))
            .map_err(|_| "the API key holds characters that no header may hold".to_owned())?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    if !protocols.is_empty() {
        request = request.header(SEC_WEBSOCKET_PROTOCOL, protocols.join(","));
    }
    let response = request.send().await.map_err(explain)?;
    if response.url() != url {
        return Err("the server redirected the upgrade, which is not followed".to_owned());
    }
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status().as_u16();
        return Err(format!("the server refused the upgrade with HTTP {status}"));
    }
    check(response.headers(), &key)?;
    check_protocol(response.headers(), protocols)?;
    let upgraded = response.upgrade().await.map_err(explain)?;
    Ok(Box::new(upgraded))
}

/// Whether the answer is that of a WebSocket server that read our key.
fn check(headers: &HeaderMap, key: &str) -> Result<(), String> {
    let is = |name, value: &str| {
        headers
            .get(name)
            .is_some_and(|have| have.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
    };
    let accepted = headers
        .get(SEC_WEBSOCKET_ACCEPT)
        .is_some_and(|have| have.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes());
    if is(UPGRADE, "websocket") && accepted {
        Ok(())
    } else {
        Err("what answered the upgrade is no WebSocket server".to_owned())
    }
}

/// Whether the server chose one of the subprotocols that it was offered (RFC
/// 6455 §4.1). One that was not offered says that it speaks something else.
fn check_protocol(headers: &HeaderMap, offered: &[String]) -> Result<(), String> {
    let wrong = match headers.get(SEC_WEBSOCKET_PROTOCOL) {
        None if offered.is_empty() => return Ok(()),
        None => "the server chose none of the subprotocols",
        Some(chosen) if offered.iter().any(|name| *chosen == **name) => return Ok(()),
        Some(_) => "the server chose a subprotocol that it was not offered",
    };
    Err(wrong.to_owned())
}

/// The innermost reason of an HTTP error, without the address.
fn explain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
