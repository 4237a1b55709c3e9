//! The pages for people: the chat in the place of chat.letta.com, and the one
//! where a login is approved. Both are sent as single files without outside
//! resources.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::reply;

const CHAT: &str = include_str!("page/chat.html");

/// Parts of its script that stand in files of their own, and where they go.
const PARTS: [(&str, &str); 2] = [
    ("/* terminal.js */", include_str!("page/terminal.js")),
    ("/* machine.js */", include_str!("page/machine.js")),
];

/// The page behind `verification_uri`.
pub(crate) const DEVICE: &str = include_str!("page/device.html");

/// Only what the page itself brings may run, and it may only talk to its own server.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
     img-src data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// `GET /` and the icon.
pub(crate) fn dispatch(path: &str) -> Response {
    if path != "/" {
        return StatusCode::NO_CONTENT.into_response();
    }
    let page = PARTS.iter().fold(CHAT.to_owned(), |page, (place, part)| {
        page.replacen(place, part, 1)
    });
    let mut response = reply::html(StatusCode::OK, page);
    if let Ok(policy) = POLICY.parse() {
        response
            .headers_mut()
            .insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}
