//! The door of the chat page: browsers send `Origin` and cannot set
//! `Authorization`, so it has rules of its own.
//!
//! The page has a terminal, so whoever opens its socket can run anything here.
//! Invariants: it opens only from the page itself (`Origin` is this server, and
//! `Host` is no name that somebody else's DNS could have pointed here), and only
//! with a token, which the page sends as a subprotocol and keeps in memory.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Response, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use super::auth::{Auth, digest, same};

/// The one source of the page; `local-cloud` serves the same.
const PAGE: &str = include_str!("../../../local-cloud/src/page/chat.html");
/// Parts of its script that stand in files of their own, and where they go.
const PARTS: [(&str, &str); 2] = [
    (
        "/* terminal.js */",
        include_str!("../../../local-cloud/src/page/terminal.js"),
    ),
    (
        "/* machine.js */",
        include_str!("../../../local-cloud/src/page/machine.js"),
    ),
];

/// Only what the page itself brings may run, and it may talk to this server only.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; \
     style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// The subprotocol that the server answers with; the token stands beside it.
pub(super) const PROTOCOL: &str = "letta-ui";

/// Pages that may come back with the token they got; an older one needs a new link.
const SESSIONS: usize = 32;

/// The door of the page.
#[derive(Debug)]
pub(super) struct PageDoor {
    /// The host of the listen URL.
    host: String,
    /// Without other authentication: the link of the moment.
    links: Option<Mutex<Links>>,
    /// The token of the link that is good now, for the person at the terminal.
    announced: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
struct Links {
    /// Good once.
    next: [u8; 32],
    /// Handed to pages that came with a link.
    sessions: VecDeque<[u8; 32]>,
}

impl PageDoor {
    /// `auth` decides when it asks for anything; otherwise links with a token
    /// that is good once let people in.
    pub(super) fn new(host: &str, auth: &Auth) -> Self {
        let (announced, _) = watch::channel(None);
        let mut door = Self {
            host: host.to_owned(),
            links: None,
            announced,
        };
        if auth.is_open() {
            let mut links = Links::default();
            door.announce(&mut links);
            door.links = Some(Mutex::new(links));
        }
        door
    }

    /// The token of the link that is good now; `None` when a token of
    /// `--ws-auth` is asked for.
    pub(super) fn links(&self) -> watch::Receiver<Option<String>> {
        self.announced.subscribe()
    }

    fn announce(&self, links: &mut Links) {
        let token = secret();
        links.next = digest(&token);
        self.announced.send_replace(Some(token));
    }

    /// The page itself.
    pub(super) fn page(&self, headers: &HeaderMap) -> Response<Body> {
        if self.own_host(headers).is_none() {
            return super::empty(403, "Forbidden");
        }
        let whole = PARTS.iter().fold(PAGE.to_owned(), |page, (place, part)| {
            page.replacen(place, part, 1)
        });
        let mut response = Response::new(Body::from(whole));
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            headers.insert(name, header::HeaderValue::from_static(value));
        }
        response
    }

    /// Judges an upgrade: the first frame for the page, or how it is refused.
    pub(super) fn admit(
        &self,
        head: &Parts,
        auth: &Auth,
    ) -> Result<Option<String>, (u16, &'static str)> {
        let host = self.own_host(&head.headers).ok_or((403, "Forbidden"))?;
        let origin = text(&head.headers, header::ORIGIN).unwrap_or_default();
        let origin = origin.strip_prefix("http").unwrap_or_default();
        let origin = origin.strip_prefix('s').unwrap_or(origin);
        if origin.strip_prefix("://") != Some(host) {
            return Err((403, "Forbidden"));
        }
        let token = token(&head.headers).ok_or((401, "missing page token"))?;
        let Some(links) = &self.links else {
            return match auth.token(&token) {
                Ok(()) => Ok(None),
                Err(refused) => Err((401, refused.0)),
            };
        };
        let mut links = lock(links);
        let given = digest(&token);
        if links.sessions.iter().any(|known| same(known, &given)) {
            return Ok(None);
        }
        if !same(&links.next, &given) {
            return Err((401, "this link is used up; open the newest one"));
        }
        self.announce(&mut links);
        let session = secret();
        links.sessions.push_back(digest(&session));
        if links.sessions.len() > SESSIONS {
            links.sessions.pop_front();
        }
        Ok(Some(
            json!({"type": "page_session", "token": session}).to_string(),
        ))
    }

    /// The `Host` of a request, if it is one under which only this server can
    /// be meant: an address, `localhost`, or the host of the listen URL.
    fn own_host<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let host = text(headers, header::HOST)?;
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let own = bare.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || name.eq_ignore_ascii_case(&self.host);
        own.then_some(host)
    }
}

fn lock(links: &Mutex<Links>) -> MutexGuard<'_, Links> {
    // Every change is complete before anything that could panic.
    links.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The token among the subprotocols, `token.<base64url>`.
fn token(headers: &HeaderMap) -> Option<String> {
    let offered = text(headers, header::SEC_WEBSOCKET_PROTOCOL)?;
    let mut protocols = offered.split(',').map(str::trim);
    let named = protocols.clone().any(|protocol| protocol == PROTOCOL);
    let encoded = protocols.find_map(|protocol| protocol.strip_prefix("token."))?;
    let bytes = URL_SAFE_NO_PAD.decode(encoded).ok().filter(|_| named)?;
    String::from_utf8(bytes).ok()
}

/// 244 random bits.
fn secret() -> String {
    let half = || Uuid::new_v4().simple().to_string();
    half() + &half()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    const OWN: &str = "127.0.0.1:4500";

    fn head(host: &str, origin: Option<&str>, token: Option<&str>) -> Parts {
        let mut request = Request::builder().uri("/ui/ws").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        if let Some(token) = token {
            let protocols = format!("{PROTOCOL}, token.{}", URL_SAFE_NO_PAD.encode(token));
            request = request.header("sec-websocket-protocol", protocols);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn own(token: &str) -> Parts {
        head(OWN, Some("http://127.0.0.1:4500"), Some(token))
    }

    #[test]
    fn a_link_lets_one_page_in_which_may_come_back() {
        let door = PageDoor::new("127.0.0.1", &Auth::Open);
        let links = door.links();
        let first = links.borrow().clone().unwrap();
        let greeting = door.admit(&own(&first), &Auth::Open).unwrap().unwrap();
        let greeting: serde_json::Value = serde_json::from_str(&greeting).unwrap();
        let session = greeting["token"].as_str().unwrap();
        assert_eq!(door.admit(&own(session), &Auth::Open), Ok(None));
        assert_eq!(door.admit(&own(&first), &Auth::Open).unwrap_err().0, 401);
        let second = links.borrow().clone().unwrap();
        assert_ne!(first, second);
        assert!(door.admit(&own(&second), &Auth::Open).unwrap().is_some());
    }

    #[test]
    fn only_the_newest_sessions_are_known() {
        let door = PageDoor::new("127.0.0.1", &Auth::Open);
        let mut sessions = Vec::new();
        for _ in 0..=SESSIONS {
            let link = door.links().borrow().clone().unwrap();
            let greeting = door.admit(&own(&link), &Auth::Open).unwrap().unwrap();
            let greeting: serde_json::Value = serde_json::from_str(&greeting).unwrap();
            sessions.push(greeting["token"].as_str().unwrap().to_owned());
        }
        assert!(door.admit(&own(&sessions[0]), &Auth::Open).is_err());
        assert!(door.admit(&own(&sessions[1]), &Auth::Open).is_ok());
    }

    #[test]
    fn with_authentication_its_token_is_asked_for() {
        let auth = Auth::Capability(digest("right"));
        let door = PageDoor::new("box.example", &auth);
        assert_eq!(*door.links().borrow(), None);
        assert_eq!(door.admit(&own("right"), &auth), Ok(None));
        assert_eq!(
            door.admit(&own("wrong"), &auth),
            Err((401, "invalid websocket bearer token"))
        );
    }

    #[test]
    fn other_hosts_and_origins_are_refused_whatever_the_token() {
        let auth = Auth::Capability(digest("right"));
        let door = PageDoor::new("box.example", &auth);
        let status = |host: &str, origin: Option<&str>| {
            let head = head(host, origin, Some("right"));
            door.admit(&head, &auth)
                .map_or_else(|refused| refused.0, |_| 101)
        };
        for (host, origin, expected) in [
            (OWN, Some("http://127.0.0.1:4500"), 101),
            ("localhost:4500", Some("http://localhost:4500"), 101),
            ("[::1]:4500", Some("http://[::1]:4500"), 101),
            ("box.example", Some("https://box.example"), 101),
            // DNS rebinding: the origin fits, but the name is not ours.
            ("evil.example:4500", Some("http://evil.example:4500"), 403),
            (
                "127.0.0.1.evil.example",
                Some("http://127.0.0.1.evil.example"),
                403,
            ),
            (
                "localhost.evil.example",
                Some("http://localhost.evil.example"),
                403,
            ),
            // Another site, another port, a scheme of its own, none at all.
            (OWN, Some("http://evil.example"), 403),
            (OWN, Some("http://127.0.0.1:4501"), 403),
            (OWN, Some("file://127.0.0.1:4500"), 403),
            (OWN, Some("null"), 403),
            (OWN, None, 403),
            ("", Some("http://"), 403),
        ] {
            assert_eq!(status(host, origin), expected, "{host} {origin:?}");
        }
        let bare = head(OWN, Some("http://127.0.0.1:4500"), None);
        assert_eq!(door.admit(&bare, &auth), Err((401, "missing page token")));
    }

    #[test]
    fn the_page_is_served_under_its_own_hosts_only() {
        let door = PageDoor::new("127.0.0.1", &Auth::Open);
        let status = |host: &str| door.page(&head(host, None, None).headers).status();
        assert_eq!(status("localhost:1"), 200);
        assert_eq!(status("evil.example"), 403);
        let page = door.page(&head(OWN, None, None).headers);
        assert!(page.headers().contains_key("content-security-policy"));
    }
}
