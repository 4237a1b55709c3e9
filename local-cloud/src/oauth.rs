//! The login endpoints: device code, token, refresh, revoke, and the page where
//! a person approves. Spec 01 §5.3–5.4.
//!
//! Scripted answers come first, one a poll; then a code is approved at once, or
//! pending until somebody clicks.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::net::Peer;
use crate::record::Recorded;
use crate::server::Cloud;
use crate::sync::lock;
use crate::{page, reply};

/// How the login endpoints behave.
#[derive(Clone, Debug)]
pub struct OAuthOptions {
    /// Approve every code at its first poll.
    pub auto_approve: bool,
    /// Seconds between polls that the client is told.
    pub interval: u64,
    /// Seconds a code lives.
    pub expires_in: u64,
    /// Seconds an access token lives.
    pub token_expires_in: u64,
    /// Whether the answer of a refresh brings a new refresh token; the old one
    /// is void then.
    pub rotate: bool,
    /// Answers of the token endpoint, before anything else.
    pub answers: Vec<OAuthAnswer>,
}

impl Default for OAuthOptions {
    fn default() -> Self {
        Self {
            auto_approve: false,
            interval: 1,
            expires_in: 900,
            token_expires_in: 3600,
            rotate: true,
            answers: Vec::new(),
        }
    }
}

/// One answer of the token endpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum OAuthAnswer {
    /// `authorization_pending`
    Pending,
    /// `slow_down`
    SlowDown,
    /// `access_denied`
    Denied,
    /// `expired_token`
    Expired,
    /// `invalid_grant`
    InvalidGrant,
    /// Tokens.
    Approve,
    /// Anything else: a status, a page, a reset.
    Fault(Fault),
}

struct Code {
    user_code: String,
    approved: Option<bool>,
}

#[derive(Default)]
struct State {
    answers: VecDeque<OAuthAnswer>,
    codes: HashMap<String, Code>,
    access: HashSet<String>,
    refresh: HashSet<String>,
    issued: u64,
}

/// The state of logins.
pub(crate) struct OAuth {
    options: OAuthOptions,
    state: Mutex<State>,
}

impl OAuth {
    pub(crate) fn new(options: OAuthOptions) -> Self {
        let answers = options.answers.clone().into();
        Self {
            options,
            state: Mutex::new(State {
                answers,
                ..State::default()
            }),
        }
    }

    pub(crate) fn script(&self, answers: impl IntoIterator<Item = OAuthAnswer>) {
        lock(&self.state).answers.extend(answers);
    }

    /// Whether this access token was issued here and not revoked.
    pub(crate) fn issued(&self, token: &str) -> bool {
        lock(&self.state).access.contains(token)
    }

    fn new_code(&self, host: &str) -> Value {
        let device_code = format!("device-{}", crate::short_id());
        let digits = crate::short_id().to_uppercase();
        let (left, right) = digits.get(..8).unwrap_or_default().split_at(4);
        let user_code = format!("{left}-{right}");
        let code = Code {
            user_code: user_code.clone(),
            approved: None,
        };
        lock(&self.state).codes.insert(device_code.clone(), code);
        json!({
            "device_code": device_code, "user_code": user_code,
            "verification_uri": format!("http://{host}/device"),
            "verification_uri_complete": format!("http://{host}/device?user_code={user_code}"),
            "expires_in": self.options.expires_in, "interval": self.options.interval,
        })
    }

    fn tokens(&self, state: &mut State, with_refresh: bool) -> Response {
        state.issued += 1;
        let access = format!("at-{}-{}", state.issued, crate::short_id());
        state.access.insert(access.clone());
        let mut answer = json!({"access_token": access, "token_type": "Bearer",
            "expires_in": self.options.token_expires_in, "scope": "api"});
        if with_refresh {
            let refresh = format!("rt-{}-{}", state.issued, crate::short_id());
            state.refresh.insert(refresh.clone());
            answer["refresh_token"] = json!(refresh);
        }
        reply::ok(&answer)
    }

    fn token(&self, body: &Value) -> Result<Response, Fault> {
        let mut state = lock(&self.state);
        let refreshing = body["grant_type"] == "refresh_token";
        let answer = match state.answers.pop_front() {
            Some(answer) => answer,
            None if refreshing => {
                let token = body["refresh_token"].as_str().unwrap_or_default();
                if !state.refresh.contains(token) {
                    OAuthAnswer::InvalidGrant
                } else {
                    if self.options.rotate {
                        state.refresh.remove(token);
                    }
                    OAuthAnswer::Approve
                }
            }
            None => {
                let code = body["device_code"].as_str().unwrap_or_default();
                match state.codes.get(code).map(|code| code.approved) {
                    None => OAuthAnswer::Expired,
                    Some(Some(false)) => OAuthAnswer::Denied,
                    Some(None) if !self.options.auto_approve => OAuthAnswer::Pending,
                    Some(_) => OAuthAnswer::Approve,
                }
            }
        };
        let error = |name: &str| {
            Ok(reply::json(
                StatusCode::BAD_REQUEST,
                &json!({"error": name}),
            ))
        };
        match answer {
            OAuthAnswer::Pending => error("authorization_pending"),
            OAuthAnswer::SlowDown => error("slow_down"),
            OAuthAnswer::Denied => error("access_denied"),
            OAuthAnswer::Expired => error("expired_token"),
            OAuthAnswer::InvalidGrant => error("invalid_grant"),
            OAuthAnswer::Approve => Ok(self.tokens(&mut state, !refreshing || self.options.rotate)),
            OAuthAnswer::Fault(fault) => Err(fault),
        }
    }

    /// The click: decides the code that a person was shown.
    fn decide(&self, user_code: &str, approve: bool) -> bool {
        let mut state = lock(&self.state);
        let code = state
            .codes
            .values_mut()
            .find(|code| code.user_code == user_code);
        code.is_some_and(|code| {
            code.approved = Some(approve);
            true
        })
    }
}

/// `/api/oauth/…` and the page at `/device`.
pub(crate) async fn dispatch(cloud: &Arc<Cloud>, peer: &Peer, request: &Recorded) -> Response {
    let body = request.json();
    match (request.method.as_str(), request.path.trim_end_matches('/')) {
        ("POST", "/api/oauth/device/code") => reply::ok(
            &cloud
                .oauth
                .new_code(request.header("host").unwrap_or("127.0.0.1")),
        ),
        ("POST", "/api/oauth/token") => match cloud.oauth.token(&body) {
            Ok(response) => response,
            Err(fault) => match reply::instead(cloud, &fault, peer).await {
                Some(response) => response,
                None => reply::detail(503, "forced failure"),
            },
        },
        ("POST", "/api/oauth/revoke") => {
            let token = body["token"].as_str().unwrap_or_default();
            let mut state = lock(&cloud.oauth.state);
            state.access.remove(token);
            state.refresh.remove(token);
            reply::ok(&json!({}))
        }
        ("POST", "/device/decide") => {
            let code = body["user_code"].as_str().unwrap_or_default();
            if cloud.oauth.decide(code, body["approve"] == true) {
                reply::ok(&json!({"ok": true}))
            } else {
                reply::detail(404, "This code is not known here")
            }
        }
        ("GET", "/device") => reply::html(StatusCode::OK, page::DEVICE),
        _ => reply::detail(404, "Not Found"),
    }
}
