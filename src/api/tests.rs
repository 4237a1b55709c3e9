//! The client against small servers on loopback: what goes over the wire, and
//! what comes of strange answers.

mod network;
mod requests;
mod sending;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::token::StaticToken;
use super::{BaseUrl, Client, ClientSettings, Net, NetSettings};
use crate::config::Secret;

/// One request that a [`Server`] got.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

type Script = Arc<Mutex<VecDeque<Response>>>;

/// A server that gives the scripted answers in order, and 418 when there are no more.
pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    _task: JoinSet<()>,
}

impl Server {
    pub(crate) async fn answering(answers: impl IntoIterator<Item = Response>) -> Self {
        let script: Script = Arc::new(Mutex::new(answers.into_iter().collect()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let handler = move |request: Request| {
            let (script, log) = (script.clone(), log.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.unwrap();
                log.lock().unwrap().push(Seen {
                    method: head.method,
                    uri: head.uri.to_string(),
                    headers: head.headers,
                    body: serde_json::from_slice(&body).unwrap_or(Value::Null),
                });
                let next = script.lock().unwrap().pop_front();
                next.unwrap_or_else(|| StatusCode::IM_A_TEAPOT.into_response())
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut task = JoinSet::new();
        let app = axum::Router::new().fallback(handler);
        task.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url,
            seen,
            _task: task,
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// An answer from status, headers and body.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body.into()).unwrap()
}

/// A JSON answer.
pub(crate) fn json(status: u16, body: &Value) -> Response {
    answer(
        status,
        &[("content-type", "application/json")],
        body.to_string(),
    )
}

/// An event stream.
pub(crate) fn events(body: &'static str) -> Response {
    answer(
        200,
        &[("content-type", "Text/Event-Stream; charset=utf-8")],
        body,
    )
}

pub(crate) fn net() -> Net {
    Net::new(&NetSettings::default()).unwrap()
}

fn settings(url: &str) -> ClientSettings {
    ClientSettings::new(BaseUrl::parse(url).unwrap())
}

fn client_with(settings: &ClientSettings) -> Client {
    let token = StaticToken(Some(Secret::new("key-1")));
    Client::new(net(), Arc::new(token), settings).unwrap()
}

pub(crate) fn client(server: &Server) -> Client {
    client_of(&server.url)
}

/// A client of the server at `url`.
pub(crate) fn client_of(url: &str) -> Client {
    client_with(&settings(url))
}
