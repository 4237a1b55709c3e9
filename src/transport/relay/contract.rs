//! What the relay needs of other floors, as traits: registration, credentials,
//! and the session log. None of them knows of sockets.

use std::time::Duration;

use futures_util::future::BoxFuture;
use thiserror::Error;

use crate::protocol::ConnectionId;

/// What a successful registration says (01 §6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The id of this connection, until the next registration.
    pub connection_id: ConnectionId,
    /// Where to connect: ws, wss, http or https. May hold a secret in its query.
    pub ws_url: String,
    /// The relay takes a control and a stream socket.
    pub split: bool,
    /// The relay pairs both sockets by generation. Counts only with `split`.
    pub paired: bool,
}

/// Registers this machine with the server.
pub trait Registrar: Send + Sync {
    /// Registers once, with its own request deadline and without retries.
    fn register(&self) -> BoxFuture<'_, Result<Registration, RegisterError>>;
}

/// A registration that failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct RegisterError {
    /// For people: what happened and what to do. No secrets.
    pub text: String,
    /// What follows.
    pub class: RegisterClass,
}

/// What follows from a failed registration (01 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterClass {
    /// Network failure, 429, 5xx: tried again for ever.
    Transient {
        /// What the server asked for; honoured up to five minutes.
        retry_after: Option<Duration>,
    },
    /// The server will not answer otherwise: exit 78.
    Fatal,
    /// The credentials were refused (401, 403): exit 77.
    Refused,
}

/// Hands out the bearer token of the moment (01 §5.2).
pub trait Authorizer: Send + Sync {
    /// The token, refreshed if need be; `None` where a server may be used
    /// without one.
    ///
    /// With `interactive`, a person may be asked to log in, which takes as long
    /// as the person takes. Without, it must end by itself.
    fn bearer(&self, interactive: bool) -> BoxFuture<'_, Result<Option<String>, AuthError>>;
}

/// Credentials that could not be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct AuthError {
    /// For people: what happened and what to do. No secrets.
    pub text: String,
    /// What follows.
    pub class: AuthClass,
}

/// What follows from missing credentials (01 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthClass {
    /// The server that refreshes tokens cannot be reached: tried again.
    Transient,
    /// No usable token is stored. Before a registration a person is asked to
    /// log in; before a reconnect it is exit 77.
    LoginRequired,
    /// The login was denied: exit 77.
    Refused,
}

/// Which way a logged frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the relay.
    Recv,
    /// To the relay.
    Send,
}

/// What kind of frame is logged (01 §9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// A message of a client.
    Client,
    /// Events, replies and pings of ours.
    Protocol,
    /// `pong`, `listener_ready`, and what happens to the socket itself.
    Lifecycle,
}

/// The session log (01 §9). Must be quick and never fail.
pub trait FrameLog: Send + Sync {
    /// One frame, whole: cutting and masking is the log's task.
    fn frame(&self, direction: Direction, label: Label, text: &str);

    /// One line about the connection. No secrets.
    fn line(&self, text: &str);
}
