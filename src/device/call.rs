//! One command on its way: what it carries, and how it is answered (06 §1).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

use super::Shared;
use super::route::{self, Route};
use crate::conversation::Services;
use crate::events::{Injected, Outbound, Recipient};
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
    /// Frames for the asker behind a good answer.
    after: mpsc::UnboundedSender<Value>,
    pushes: Option<mpsc::UnboundedReceiver<Value>>,
}

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

impl From<ShapeError> for Failure {
    fn from(error: ShapeError) -> Self {
        Self::new(error.to_string())
    }
}

impl Call {
    pub(super) fn new(shared: Arc<Shared>, mut request: Request) -> Self {
        let (after, pushes) = mpsc::unbounded_channel();
        Self {
            shared,
            route: route::find(request.kind),
            fields: Fields::new(std::mem::take(&mut request.body)),
            request,
            after,
            pushes: Some(pushes),
        }
    }

    pub(super) fn services(&self) -> &Arc<Services> {
        &self.shared.services
    }

    /// Runs the command and sends its answer. A command that panics is answered too.
    pub(super) async fn answered_by(mut self, job: fn(Self) -> Pending) {
        let reply = self.reply();
        let pushes = self.pushes.take();
        let Some(answer) = outcome(tokio::spawn(job(self))).await else {
            return;
        };
        let (shared, to) = (Arc::clone(&reply.shared), reply.to.clone());
        let mut pushes = pushes.filter(|_| answer.is_ok());
        reply.send(answer);
        while let Some(frame) = pushes.as_mut().and_then(|it| it.try_recv().ok()) {
            push(&shared.services, &to, &frame);
        }
    }

    /// The same for a handler that writes the answer itself.
    pub(super) async fn written_by(self, job: fn(Self) -> PendingText) {
        let reply = self.reply();
        match outcome(tokio::spawn(job(self))).await {
            Some(Ok((body, permit))) => {
                let to = reply.to;
                reply.shared.services.events.send(match permit {
                    Some(permit) => Outbound::Paced { to, body, permit },
                    None => Outbound::Reply { to, body },
                });
            }
            Some(Err(failure)) => reply.send(Err(failure)),
            None => {}
        }
    }

    /// Answers with a failure.
    pub(super) fn fail(&self, error: &str) {
        self.reply().send(Err(Failure::new(error)));
    }

    /// Sends the asker a bare frame right behind a good answer.
    pub(super) fn push_after(&self, frame: Value) {
        // Read by whoever sends the answer, unless the process goes down.
        let _ = self.after.send(frame);
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

/// What a task came to; `None` when it was ended. It ends with this future.
async fn outcome<T>(task: JoinHandle<Result<T, Failure>>) -> Option<Result<T, Failure>> {
    let mut running = AbortOnDrop(task);
    match (&mut running.0).await {
        Ok(answer) => Some(answer),
        Err(error) if error.is_cancelled() => None,
        Err(_) => Some(Err(Failure::new(
            "The command failed in an unexpected way; see the log of the device.",
        ))),
    }
}

/// A task that ends with its owner.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
