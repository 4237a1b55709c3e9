//! What becomes of a request at the direct door: the checks of spec 02 §12.2
//! and §12.3, in their order. Pure decisions.

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};

use super::auth::Auth;

/// What a request gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// A WebSocket: the value of `Sec-WebSocket-Key`.
    Client(String),
    /// The WebSocket of the page, which proves itself in a way of its own.
    Page,
    /// An answer over plain HTTP.
    Http(Endpoint),
    /// Nothing but a status and its reason.
    Refused(u16, &'static str),
    /// 401 with a JSON body.
    Unauthorised(&'static str),
}

/// Plain HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/healthz`: always well.
    Alive,
    /// `/readyz`: takes connections.
    Ready,
    /// `/app-server-info`.
    Info,
    /// `/ui`: the page for browsers.
    Page,
    /// The OpenAI-compatible API.
    OpenAi,
}

/// What the door offers.
#[derive(Debug)]
pub(super) struct Offer {
    /// Where WebSockets are opened besides `/`.
    pub(super) path: String,
    pub(super) auth: Auth,
    pub(super) openai: bool,
    pub(super) ui: bool,
}

impl Offer {
    /// Judges a request by its head.
    pub(super) fn admit(&self, head: &Parts) -> Admission {
        if is_upgrade(&head.headers) {
            self.upgrade(head)
        } else {
            self.http(head)
        }
    }

    fn upgrade(&self, head: &Parts) -> Admission {
        let path = head.uri.path();
        if self.ui && path == "/ui/ws" {
            return Admission::Page;
        }
        if path != "/" && path != self.path {
            return Admission::Refused(404, "Not Found");
        }
        if has_channel(head.uri.query().unwrap_or_default()) {
            return Admission::Refused(426, "Upgrade Required");
        }
        if let Err(refused) = self.auth.header(authorization(&head.headers)) {
            return Admission::Refused(401, refused.0);
        }
        if head.headers.contains_key(header::ORIGIN) && self.auth.is_open() {
            return Admission::Refused(403, "Forbidden");
        }
        match websocket_key(head) {
            Ok(key) => Admission::Client(key),
            Err((status, reason)) => Admission::Refused(status, reason),
        }
    }

    fn http(&self, head: &Parts) -> Admission {
        if head.headers.contains_key(header::ORIGIN) {
            return Admission::Refused(403, "Forbidden");
        }
        let endpoint = match head.uri.path() {
            "/healthz" => return Admission::Http(Endpoint::Alive),
            "/readyz" => return Admission::Http(Endpoint::Ready),
            "/ui" | "/ui/" if self.ui => return Admission::Http(Endpoint::Page),
            "/app-server-info" => Endpoint::Info,
            path if self.openai && is_openai(path) => Endpoint::OpenAi,
            _ => return Admission::Refused(404, "Not Found"),
        };
        match self.auth.header(authorization(&head.headers)) {
            Ok(()) => Admission::Http(endpoint),
            Err(refused) => Admission::Unauthorised(refused.0),
        }
    }
}

/// Whether a path belongs to the OpenAI-compatible API, which answers in its own
/// words what it does not have.
fn is_openai(path: &str) -> bool {
    let routes = ["/v1/models", "/v1/chat/completions", "/v1/responses"];
    routes.iter().any(|route| {
        let rest = path.strip_prefix(route);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The key of a WebSocket handshake (RFC 6455 §4.2.1), or how it is refused.
pub(super) fn websocket_key(head: &Parts) -> Result<String, (u16, &'static str)> {
    if head.method != Method::GET {
        return Err((405, "Method Not Allowed"));
    }
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err((426, "Upgrade Required"));
    }
    match text(header::SEC_WEBSOCKET_KEY) {
        Some(key) if key.len() == 24 => Ok(key.to_owned()),
        _ => Err((400, "Bad Request")),
    }
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE);
    upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn authorization(headers: &HeaderMap) -> Option<&[u8]> {
    headers
        .get(header::AUTHORIZATION)
        .map(|value| value.as_bytes())
}

/// Clients of old opened two sockets and named each with `?channel=`.
fn has_channel(query: &str) -> bool {
    query
        .split('&')
        .any(|pair| pair.split('=').next() == Some("channel"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::direct::auth::digest;
    use axum::http::Request;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn offer(auth: Auth) -> Offer {
        Offer {
            path: "/ws".into(),
            auth,
            openai: true,
            ui: true,
        }
    }

    fn open() -> Offer {
        offer(Auth::Open)
    }

    fn closed() -> Offer {
        offer(Auth::Capability(digest("right")))
    }

    fn head(path: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn upgrade(path: &str, more: &[(&str, &str)]) -> Parts {
        let handshake = [
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
        ];
        head(path, &[&handshake, more].concat())
    }

    #[test]
    fn s02_12_3_upgrades_are_checked_in_this_order() {
        let origin = ("origin", "http://evil.example");
        let right = ("authorization", "Bearer right");
        let wrong = ("authorization", "Bearer wrong");
        let missing = Admission::Refused(401, "missing websocket bearer token");
        let welcome = || Admission::Client(KEY.into());
        for (offer, request, admission) in [
            (open(), upgrade("/ws", &[]), welcome()),
            (open(), upgrade("/", &[]), welcome()),
            (open(), upgrade("/ws?x=channel", &[]), welcome()),
            // The path comes first,
            (
                closed(),
                upgrade("/nope?channel=control", &[origin]),
                Admission::Refused(404, "Not Found"),
            ),
            // then the channel,
            (
                closed(),
                upgrade("/ws?channel=control", &[origin]),
                Admission::Refused(426, "Upgrade Required"),
            ),
            // then the token,
            (closed(), upgrade("/ws", &[origin]), missing),
            (
                closed(),
                upgrade("/ws", &[origin, wrong]),
                Admission::Refused(401, "invalid websocket bearer token"),
            ),
            // and the origin, which a client with the token may have.
            (
                open(),
                upgrade("/ws", &[origin]),
                Admission::Refused(403, "Forbidden"),
            ),
            (closed(), upgrade("/ws", &[origin, right]), welcome()),
            (open(), upgrade("/ui/ws", &[origin]), Admission::Page),
        ] {
            assert_eq!(offer.admit(&request), admission, "{:?}", request.uri);
        }
        let own_path = Offer {
            path: "/a/b".into(),
            ui: false,
            ..open()
        };
        assert_eq!(own_path.admit(&upgrade("/a/b", &[])), welcome());
        for path in ["/ws", "/ui/ws"] {
            let refused = Admission::Refused(404, "Not Found");
            assert_eq!(own_path.admit(&upgrade(path, &[])), refused);
        }
    }

    #[test]
    fn a_handshake_must_be_one() {
        let bare = head("/ws", &[("upgrade", "WebSocket")]);
        assert_eq!(
            open().admit(&bare),
            Admission::Refused(426, "Upgrade Required")
        );
        let version = ("sec-websocket-version", "13");
        let keyless = head("/ws", &[("upgrade", "websocket"), version]);
        assert_eq!(
            open().admit(&keyless),
            Admission::Refused(400, "Bad Request")
        );
        let mut post = upgrade("/ws", &[]);
        post.method = Method::POST;
        assert_eq!(
            open().admit(&post),
            Admission::Refused(405, "Method Not Allowed")
        );
    }

    #[test]
    fn s02_12_2_plain_requests_are_refused_with_an_origin_before_everything_else() {
        let origin = [("origin", "http://127.0.0.1")];
        for path in [
            "/readyz",
            "/healthz",
            "/app-server-info",
            "/v1/models",
            "/ui",
            "/nope",
        ] {
            let refused = Admission::Refused(403, "Forbidden");
            assert_eq!(closed().admit(&head(path, &origin)), refused, "{path}");
        }
    }

    #[test]
    fn s02_12_2_every_endpoint_asks_for_what_it_should() {
        let right = [("authorization", "Bearer right")];
        let missing = || Admission::Unauthorised("missing websocket bearer token");
        for (path, without, with) in [
            (
                "/healthz",
                Admission::Http(Endpoint::Alive),
                Endpoint::Alive,
            ),
            ("/readyz", Admission::Http(Endpoint::Ready), Endpoint::Ready),
            ("/ui", Admission::Http(Endpoint::Page), Endpoint::Page),
            ("/app-server-info", missing(), Endpoint::Info),
            ("/v1/models", missing(), Endpoint::OpenAi),
            ("/v1/chat/completions", missing(), Endpoint::OpenAi),
            ("/v1/responses", missing(), Endpoint::OpenAi),
        ] {
            assert_eq!(closed().admit(&head(path, &[])), without, "{path}");
            assert_eq!(closed().admit(&head(path, &right)), Admission::Http(with));
        }
        let plain = Offer {
            openai: false,
            ui: false,
            ..open()
        };
        for path in ["/v1/models", "/ui", "/ws", "/", "/v1/embeddings"] {
            let missing = Admission::Refused(404, "Not Found");
            assert_eq!(plain.admit(&head(path, &[])), missing, "{path}");
        }
    }
}
