//! Keeps other sites' pages out: a browser on this machine could otherwise be
//! made to command the machines that are connected here.
//!
//! Invariant: a request of a browser is served only when it comes from our own
//! page, under a name that is ours. Programs send no `Origin` and are not asked.

use std::net::IpAddr;

use axum::http::HeaderMap;

/// Whether a request may be served by a server bound to `bind`.
pub(crate) fn is_own(headers: &HeaderMap, bind: IpAddr) -> bool {
    let get = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = get("host").unwrap_or_default();
    let origin = headers
        .contains_key("origin")
        .then(|| get("origin").unwrap_or_default());
    let browser = origin.is_some() || get("user-agent").is_some_and(|a| a.contains("Mozilla/"));
    // Another name for this address would let a foreign page pass for ours.
    if browser && bind.is_loopback() && !is_loopback_name(host) {
        return false;
    }
    origin.is_none_or(|origin| {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    })
}

fn is_loopback_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn own(pairs: &[(&'static str, &'static str)]) -> bool {
        let headers = pairs.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        is_own(&headers.collect(), IpAddr::from([127, 0, 0, 1]))
    }

    #[test]
    fn only_our_own_page_may_talk_to_us_from_a_browser() {
        let host = ("host", "127.0.0.1:8283");
        assert!(own(&[host]));
        assert!(own(&[host, ("origin", "http://127.0.0.1:8283")]));
        assert!(own(&[
            ("host", "localhost:8283"),
            ("user-agent", "Mozilla/5.0")
        ]));
        assert!(!own(&[host, ("origin", "https://evil.example")]));
        assert!(!own(&[host, ("origin", "null")]));
    }

    #[test]
    fn a_foreign_name_for_this_address_is_not_ours() {
        let rebound = ("host", "evil.example:8283");
        assert!(!own(&[rebound, ("origin", "http://evil.example:8283")]));
        assert!(!own(&[rebound, ("user-agent", "Mozilla/5.0")]));
        assert!(own(&[rebound, ("user-agent", "letta-code/0.32.18")]));
    }
}
