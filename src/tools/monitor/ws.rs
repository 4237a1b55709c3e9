//! The `ws` of a call: which WebSocket it names, if it may be opened at all
//! (04 §7.20).
//!
//! Invariant: an [`Address`] is a valid one without credentials that a person
//! could read in full when asked to approve the call. No error repeats it.

use std::collections::BTreeSet;

use reqwest::Url;
use serde_json::Value;

use crate::process::Subscription;
use crate::tools::args::Args;

/// A WebSocket that may be opened.
#[derive(Debug)]
pub(super) struct Address {
    /// As http or https: the HTTP client upgrades.
    url: Url,
    protocols: Vec<String>,
}

/// The `ws` of a call, unless it is empty.
pub(super) fn given<'a>(args: &Args<'a>) -> Option<&'a Value> {
    args.get("ws").filter(|ws| ws["url"] != "")
}

/// Reads a `ws`.
///
/// # Errors
/// What is wrong with it, for the model.
pub(super) fn address(ws: &Value) -> Result<Address, String> {
    let ws = ws.as_object().ok_or("Monitor ws must be an object")?;
    let text = ws.get("url").and_then(Value::as_str);
    let text = text.ok_or("Monitor ws.url must be a string")?;
    let unreadable = "Monitor ws.url must be an ASCII ws:// or wss:// URL with no embedded credentials or whitespace";
    // Space and controls are no graphic characters either.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unreadable.into());
    }
    let url = Url::parse(text);
    let mut url = url.map_err(|_| "Monitor ws.url must be a valid ws:// or wss:// URL")?;
    let scheme = match url.scheme() {
        "ws" => "http",
        "wss" => "https",
        _ => return Err(unreadable.into()),
    };
    let named = !url.username().is_empty() || url.password().is_some();
    if named || url.set_scheme(scheme).is_err() {
        return Err(unreadable.into());
    }
    if url.fragment().is_some_and(|fragment| !fragment.is_empty()) {
        return Err("Monitor ws.url must not have a fragment".into());
    }
    url.set_fragment(None);
    let protocols = protocols(ws.get("protocols"))?;
    Ok(Address { url, protocols })
}

fn protocols(given: Option<&Value>) -> Result<Vec<String>, &'static str> {
    let given = match given {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(given)) => given,
        Some(_) => return Err("Monitor ws.protocols must be an array of strings"),
    };
    let tokens = given
        .iter()
        .map(|token| token.as_str().filter(|t| is_token(t)));
    let tokens: Option<Vec<&str>> = tokens.collect();
    let tokens = tokens.ok_or("Monitor ws.protocols must contain RFC 6455 tokens")?;
    let unique: BTreeSet<&str> = tokens.iter().copied().collect();
    if unique.len() < tokens.len() {
        return Err("Monitor ws.protocols must be unique");
    }
    Ok(tokens.into_iter().map(str::to_owned).collect())
}

/// A token of RFC 2616, which RFC 6455 §4.1 asks for.
fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

impl Address {
    /// Who it leads to; the rest may hold a token.
    pub(super) fn host(&self) -> String {
        self.url.host_str().unwrap_or_default().to_owned()
    }

    /// The way to it by `client`.
    pub(super) fn by(self, client: &reqwest::Client) -> Subscription {
        Subscription::new(client.clone(), self.url, self.protocols)
    }
}

#[cfg(test)]
mod tests;
