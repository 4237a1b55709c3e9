//! The OpenAI-compatible API of `--openai-api` (spec 02 §13): agents as models,
//! chat completions and responses.
//!
//! A request is a client like any other: it comes in through the door, starts a
//! runtime, sends one input and reads the frames of its turn ([`turn`]).
//! Invariant: what it began ends with it: a caller who goes away stops the turn,
//! and a conversation made for one request is deleted after it.

mod chat;
mod input;
mod models;
mod outcomes;
mod responses;
mod turn;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::chat::Chat;
use self::outcomes::{Begun, Outcomes};
use self::responses::Responses;
use self::turn::{Note, Place, TurnRequest};
use crate::api::Client;
use crate::listener::door::DoorSender;

/// Largest body that is read.
const BODY: usize = 20 * 1024 * 1024;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);

/// Notes of a turn that may wait for the caller; a slow one slows nobody else down.
const NOTES: usize = 256;

/// The API of one door.
pub(super) struct OpenAi {
    door: DoorSender,
    api: Client,
    outcomes: Outcomes,
    chats: turn::Chats,
    /// Waits for turns when the process stops.
    turns: TaskTracker,
    stop: CancellationToken,
}

/// Why a request was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    status: u16,
    kind: &'static str,
    code: Option<&'static str>,
    message: String,
}

impl ApiError {
    fn new(status: u16, message: impl Into<String>) -> Self {
        let kind = if status >= 500 {
            "server_error"
        } else {
            "invalid_request_error"
        };
        Self {
            status,
            kind,
            code: None,
            message: message.into(),
        }
    }

    fn coded(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code: Some(code),
            ..Self::new(status, message)
        }
    }

    /// Without the right token.
    pub(super) fn unauthorised(message: &str) -> Self {
        Self {
            kind: "authentication_error",
            ..Self::new(401, message)
        }
    }

    fn body(&self) -> Value {
        json!({"error": {
            "message": self.message, "type": self.kind, "param": null, "code": self.code,
        }})
    }

    pub(super) fn response(&self) -> Response<Body> {
        super::json_answer(self.status, &self.body())
    }
}

/// One of the two shapes in which a turn is told.
trait Shape: Send {
    /// The events of a stream that `note` makes; also gathers for [`Self::whole`].
    fn on(&mut self, note: &Note) -> String;

    /// The answer without streaming, once every note was gathered.
    fn whole(&mut self) -> Result<Value, ApiError>;
}

impl OpenAi {
    pub(super) fn new(
        door: DoorSender,
        api: Client,
        turns: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            door,
            api,
            outcomes: Outcomes::default(),
            chats: turn::Chats::default(),
            turns,
            stop,
        })
    }

    /// Answers one request whose token was checked.
    pub(super) async fn answer(self: &Arc<Self>, head: &Parts, body: Body) -> Response<Body> {
        let answered = match (&head.method, head.uri.path()) {
            (&Method::GET, "/v1/models") => self.models().await,
            (&Method::POST, path @ ("/v1/chat/completions" | "/v1/responses")) => {
                self.run(head, path == "/v1/responses", body).await
            }
            _ => Err(ApiError::new(404, "unknown endpoint")),
        };
        answered.unwrap_or_else(|error| error.response())
    }

    async fn models(&self) -> Result<Response<Body>, ApiError> {
        let models = models::read(&self.api).await?;
        Ok(super::json_answer(200, &models.listed()))
    }

    async fn run(
        self: &Arc<Self>,
        head: &Parts,
        is_responses: bool,
        body: Body,
    ) -> Result<Response<Body>, ApiError> {
        let body = read(body).await?;
        let stream = body.get("stream") == Some(&Value::Bool(true));
        let model = body
            .get("model")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if model.is_empty() {
            return Err(ApiError::new(400, "you must provide a model parameter"));
        }
        let asked = if is_responses {
            input::responses(&body)?
        } else {
            input::chat(&body)?
        };
        let agent = models::read(&self.api).await?.agent(model)?;
        let key = header(&head.headers, "x-letta-chat-key").or_else(|| {
            stream
                .then(|| header(&head.headers, "x-openwebui-chat-id"))
                .flatten()
        });
        let keep = is_responses && body.get("store") == Some(&Value::Bool(true));
        let previous = body.get("previous_response_id").and_then(Value::as_str);
        let (place, messages) = match (previous.filter(|_| is_responses), key) {
            (Some(id), _) => {
                let conversation = self.fork(&agent, id).await?;
                (Place::Made { conversation, keep }, vec![asked.last])
            }
            (None, Some(key)) => (Place::Keyed(key), vec![asked.last]),
            (None, None) => (Place::New { keep }, asked.all),
        };
        let shape: Box<dyn Shape> = if is_responses {
            Box::new(Responses::new(model, keep.then(|| agent.clone()), now()))
        } else {
            Box::new(Chat::new(model, now()))
        };
        let request = TurnRequest {
            agent,
            place,
            messages,
        };
        let once = header(&head.headers, "idempotency-key")
            .or_else(|| header(&head.headers, "x-idempotency-key"))
            .map(|key| format!("{} {key}", head.uri.path()));
        let notes = self.notes(once, request)?;
        if stream {
            Ok(streamed(notes, shape))
        } else {
            gathered(notes, shape).await
        }
    }

    /// A copy of the conversation of a stored response (02 §13).
    async fn fork(&self, agent: &str, id: &str) -> Result<String, ApiError> {
        let unknown = || {
            let message = format!("Previous response with id '{id}' not found.");
            ApiError::coded(404, "response_not_found", message)
        };
        let conversation = responses::conversation_of(id, agent).ok_or_else(unknown)?;
        let forked = self
            .api
            .fork_conversation(&conversation, &Map::new())
            .await
            .map_err(|_| unknown())?;
        let id = forked.get("id").and_then(Value::as_str);
        id.map(String::from).ok_or_else(unknown)
    }

    /// Runs the turn, or tells again what an earlier one with the same key told.
    fn notes(
        self: &Arc<Self>,
        once: Option<String>,
        request: TurnRequest,
    ) -> Result<mpsc::Receiver<Note>, ApiError> {
        let (to, notes) = mpsc::channel(NOTES);
        let begun = match once.map(|key| self.outcomes.begin(key)) {
            None => None,
            Some(Begun::First(running)) => Some(running),
            Some(Begun::Running) => {
                let message =
                    "a request with this idempotency key is still running; try again later";
                return Err(ApiError::coded(409, "idempotency_key_in_use", message));
            }
            Some(Begun::Known(known)) => {
                self.turns.spawn(async move {
                    for note in known.iter() {
                        if to.send(note.clone()).await.is_err() {
                            return;
                        }
                    }
                });
                return Ok(notes);
            }
        };
        let this = Arc::clone(self);
        self.turns.spawn(async move {
            let told = this.turn(request, to).await;
            if let Some(running) = begun {
                running.ended(told);
            }
        });
        Ok(notes)
    }
}

async fn read(body: Body) -> Result<Map<String, Value>, ApiError> {
    let bytes = match tokio::time::timeout(BODY_TIME, to_bytes(body, BODY)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => return Err(ApiError::new(400, "request body too large")),
        Err(_) => {
            return Err(ApiError::new(
                408,
                "the request body did not arrive in time",
            ));
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ApiError::new(400, "the request body must be a JSON object")),
        Err(error) => Err(ApiError::new(400, error.to_string())),
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty() && value.len() <= 512).then(|| value.to_owned())
}

fn streamed(notes: mpsc::Receiver<Note>, shape: Box<dyn Shape>) -> Response<Body> {
    let events = futures_util::stream::unfold((notes, shape), |(mut notes, mut shape)| async {
        let note = notes.recv().await?;
        let events = shape.on(&note);
        Some((Ok::<_, Infallible>(events), (notes, shape)))
    });
    let mut response = super::answered(200, Body::from_stream(events));
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn gathered(
    mut notes: mpsc::Receiver<Note>,
    mut shape: Box<dyn Shape>,
) -> Result<Response<Body>, ApiError> {
    while let Some(note) = notes.recv().await {
        shape.on(&note);
    }
    let whole = shape.whole()?;
    Ok(super::json_answer(StatusCode::OK.as_u16(), &whole))
}

/// One event of a stream; `name` where the shape has names.
fn event(name: Option<&str>, data: &Value) -> String {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl std::fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenAi")
    }
}
