//! One command on its way: what it carries, and how it is answered (06 §1).

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Shared;
use super::route::{self, Route};
use crate::api::ApiError;
use crate::api::error::ErrorBody;
use crate::conversation::Services;
use crate::events::{Done, Injected, Outbound, Recipient};
use crate::memory::MemoryError;
use crate::protocol::event::Level;
use crate::protocol::fields::{Fields, ShapeError};
use crate::protocol::{ConnectionId, Scope, catalog, reply};

/// A command as it came in.
#[derive(Debug)]
pub struct Request {
    /// Who sent it; answers and pushes go there.
    pub from: ConnectionId,
    /// `type`, a name of the catalogue.
    pub kind: &'static str,
    /// The conversation that the frame names.
    pub scope: Option<Scope>,
    /// `runtime` as received.
    pub runtime: Option<Value>,
    /// `request_id` when it is a string.
    pub request_id: Option<String>,
    /// The whole frame.
    pub body: Map<String, Value>,
}

/// A command that is being carried out.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) shared: Arc<Shared>,
    pub(super) route: &'static Route,
    /// What the frame holds, for the handler to take.
    pub(super) fields: Fields,
    /// All else of the command; its body is empty now.
    pub(super) request: Request,
    /// What follows a good answer.
    after: mpsc::UnboundedSender<After>,
    followers: Option<mpsc::UnboundedReceiver<After>>,
    /// Fields that a failed answer repeats.
    echoed: Echoed,
}

type Echoed = Arc<Mutex<Map<String, Value>>>;

/// What follows a good answer.
#[derive(Debug)]
enum After {
    /// A frame for the asker.
    Frame(Value),
    /// Word for conversations.
    News(Recipient, Injected),
}

const UNEXPECTED: &str = "The command failed in an unexpected way; see the log of the device.";

/// The further fields of a good answer, beside `type`, `request_id` and `success`.
pub(super) type Answer = Result<Value, Failure>;

/// What a handler of [`route::Handler::Job`] returns.
pub(super) type Pending = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A whole good answer as JSON text, written by its handler because it may be
/// too large to be copied; with a permit it is paced (see [`Outbound::Paced`]).
pub(super) type Written = Result<(String, Option<OwnedSemaphorePermit>), Failure>;

/// What a handler of [`route::Handler::Writer`] returns.
pub(super) type PendingText = Pin<Box<dyn Future<Output = Written> + Send>>;

/// Why a command failed; its text is the `error` of the answer.
#[derive(Debug, Error)]
#[error("{error}")]
pub(super) struct Failure {
    error: String,
    /// Fields of this failure beside the empty ones of its kind.
    more: Map<String, Value>,
}

impl Failure {
    pub(super) fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            more: Map::new(),
        }
    }

    /// The same with a further field in the answer.
    pub(super) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.more.insert(field.into(), value.into());
        self
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Self::new(error.to_string())
    }
}

impl Failure {
    /// The failure of a raw call, in its own words (06 §2).
    pub(super) fn of_raw(error: ApiError) -> Self {
        let Some(status) = error.status() else {
            return error.into();
        };
        let body = match error.body() {
            Some(ErrorBody::Json(body)) => body.to_string(),
            Some(ErrorBody::Text(text)) => text.clone(),
            None => String::new(),
        };
        Self::new(format!("API error ({status}): {body}"))
    }
}

impl From<ShapeError> for Failure {
    fn from(error: ShapeError) -> Self {
        Self::new(error.to_string())
    }
}

impl Call {
    pub(super) fn new(shared: Arc<Shared>, mut request: Request) -> Self {
        let (after, followers) = mpsc::unbounded_channel();
        Self {
            shared,
            route: route::find(request.kind),
            fields: Fields::new(std::mem::take(&mut request.body)),
            request,
            after,
            followers: Some(followers),
            echoed: Echoed::default(),
        }
    }

    pub(super) fn services(&self) -> &Arc<Services> {
        &self.shared.services
    }

    /// Runs the command and sends its answer.
    pub(super) async fn answered_by(mut self, job: fn(Self) -> Pending) {
        let reply = self.reply();
        let followers = self.followers.take();
        let answer = job(self).await;
        let (shared, to) = (Arc::clone(&reply.shared), reply.to.clone());
        let mut followers = followers.filter(|_| answer.is_ok());
        reply.send(answer);
        while let Some(after) = followers.as_mut().and_then(|it| it.try_recv().ok()) {
            match after {
                After::Frame(frame) => push(&shared.services, &to, &frame),
                // At shutdown nobody reads any more.
                After::News(to, news) => drop(shared.services.inject.send((to, news))),
            }
        }
    }

    /// The same for a handler that writes the answer itself.
    pub(super) async fn written_by(self, job: fn(Self) -> PendingText) {
        let reply = self.reply();
        match job(self).await {
            Ok((body, permit)) => {
                let to = reply.to;
                reply.shared.services.events.send(match permit {
                    Some(permit) => Outbound::Paced { to, body, permit },
                    None => Outbound::Reply { to, body },
                });
            }
            Err(failure) => reply.send(Err(failure)),
        }
    }

    /// Answers with a failure.
    pub(super) fn fail(&self, error: &str) {
        self.reply().send(Err(Failure::new(error)));
    }

    /// Sends the asker a bare frame right behind a good answer.
    pub(super) fn push_after(&self, frame: Value) {
        // Read by whoever sends the answer, unless the process goes down.
        let _ = self.after.send(After::Frame(frame));
    }

    /// Shows conversations as they are, behind a good answer.
    pub(super) fn show_after(&self, to: Recipient) {
        let show = Injected::Show {
            status: None,
            toolset: None,
            done: Done::channel().0,
        };
        let _ = self.after.send(After::News(to, show));
    }

    /// A failed answer repeats this field.
    pub(super) fn echo(&self, field: &str, value: impl Into<Value>) {
        lock(&self.echoed).insert(field.to_owned(), value.into());
    }

    /// Runs work that blocks.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| Failure::new(UNEXPECTED))
    }

    /// Shows a conversation as it is now, with a word to its people before it;
    /// what is sent later comes after it (06 §1.3).
    pub(super) async fn show(
        &self,
        to: Recipient,
        status: Option<(String, Level)>,
        toolset: Option<&'static str>,
    ) {
        let (done, mut shown) = Done::channel();
        let show = Injected::Show {
            status,
            toolset,
            done,
        };
        self.inject(to, show);
        shown.recv().await;
    }

    /// Tells conversations of something.
    pub(super) fn inject(&self, to: Recipient, news: Injected) {
        // At shutdown nobody reads any more.
        let _ = self.services().inject.send((to, news));
    }

    fn reply(&self) -> Reply {
        Reply {
            shared: Arc::clone(&self.shared),
            route: self.route,
            to: self.request.from.clone(),
            request_id: self.request.request_id.clone(),
            echoed: Arc::clone(&self.echoed),
        }
    }
}

/// Sends a bare frame to one connection.
pub(super) fn push(services: &Services, to: &ConnectionId, frame: &Value) {
    services.events.send(Outbound::Reply {
        to: to.clone(),
        body: frame.to_string(),
    });
}

/// Where the answer of a command goes.
struct Reply {
    shared: Arc<Shared>,
    route: &'static Route,
    to: ConnectionId,
    request_id: Option<String>,
    echoed: Echoed,
}

impl Reply {
    fn send(self, answer: Answer) {
        let Some(id) = &self.request_id else {
            if let Err(failure) = answer {
                tracing::debug!(command = self.route.name, %failure, "A command without a request id failed.");
            }
            return;
        };
        let response = catalog::find(self.route.name)
            .and_then(|known| known.response)
            // Pushes that follow a command do not answer it.
            .filter(|_| !self.route.handler.is_silent());
        let frame = match (response, answer) {
            (Some(response), Ok(more)) => reply::reply(response, id, true, more),
            (Some(response), Err(failure)) => {
                let mut more = self.route.empty();
                more.extend(std::mem::take(&mut *lock(&self.echoed)));
                more.insert("error".into(), failure.error.into());
                more.extend(failure.more);
                reply::reply(response, id, false, Value::Object(more))
            }
            (None, Ok(_)) => return,
            (None, Err(failure)) => reply::malformed(None, id, None, &failure.error),
        };
        push(&self.shared.services, &self.to, &frame);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
