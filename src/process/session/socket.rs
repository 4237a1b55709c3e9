//! The task that watches one WebSocket: opens it, hands what it says to the
//! transcript and to whoever listens, and closes it (04 §7.20).
//!
//! Invariant: it is not opened before its transcript is on disk, no message
//! above 1 MiB is held, and when the task returns the connection is gone. Its
//! address may hold a token and appears in no text made here.

use std::future::pending;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use reqwest::Url;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::owner::at;
use super::{Ending, Finished, Plan, Request, Stream};
use crate::process::ansi;
use crate::websocket::{WebSocket, over, upgrade};

/// The longest message that is an event.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// Bytes read at once.
const BUFFER_BYTES: usize = 16 * 1024;

/// The longest wait for name lookup, TCP, TLS and the upgrade.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);

/// How long a peer may take to read that this side closes.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// The code of an end without a close frame.
const ABNORMAL: u16 = 1006;

/// Which WebSocket is watched, and the way to it.
pub struct Subscription {
    client: reqwest::Client,
    url: Url,
    protocols: Vec<String>,
}

impl Subscription {
    /// The WebSocket at the http or https address `url`, by way of a `client`
    /// for upgrades; `protocols` are tokens.
    pub fn new(client: reqwest::Client, url: Url, protocols: Vec<String>) -> Self {
        Self {
            client,
            url,
            protocols,
        }
    }

    async fn open(self) -> Opened {
        let upgraded = upgrade(&self.client, &self.url, None, &self.protocols);
        let wire = timeout(HANDSHAKE_LIMIT, upgraded).await.map_err(|_| {
            let seconds = HANDSHAKE_LIMIT.as_secs();
            format!("the server did not finish the handshake within {seconds} s")
        })??;
        let socket = over(wire, Role::Client, BUFFER_BYTES, MAX_MESSAGE_BYTES).await;
        Ok(Box::new(socket))
    }
}

/// What opening comes to: the connection, or why there is none.
type Opened = Result<Box<WebSocket>, String>;

/// How far the connection is.
enum Link {
    /// The transcript is not on disk yet.
    Waiting(Subscription),
    Opening(BoxFuture<'static, Opened>),
    Open(Box<WebSocket>),
    Gone,
}

impl Link {
    async fn next(&mut self) -> Event {
        match self {
            Self::Opening(opened) => Event::Opened(opened.await),
            Self::Open(socket) => Event::Heard(socket.next().await),
            Self::Waiting(_) | Self::Gone => pending().await,
        }
    }
}

/// What the watcher wakes up for.
enum Event {
    Opened(Opened),
    Heard(Option<Result<Message, Error>>),
    Asked(Request),
    Deadline,
    /// Nobody wants it any more.
    Over,
}

/// The state of one WebSocket under watch.
pub(super) struct Watcher {
    link: Link,
    plan: Plan,
    /// Given back when the connection is gone.
    permit: OwnedSemaphorePermit,
    started: Instant,
    shutdown: CancellationToken,
    inbox: mpsc::UnboundedReceiver<Request>,
    state: watch::Sender<Option<Finished>>,
}

impl Watcher {
    pub(super) fn new(
        subscription: Subscription,
        plan: Plan,
        permit: OwnedSemaphorePermit,
        shutdown: CancellationToken,
        inbox: mpsc::UnboundedReceiver<Request>,
        state: watch::Sender<Option<Finished>>,
    ) -> Self {
        Self {
            link: Link::Waiting(subscription),
            plan,
            permit,
            started: Instant::now(),
            shutdown,
            inbox,
            state,
        }
    }

    /// Runs until the connection is gone. Whoever asks later gets no answer,
    /// which is that of a session without output.
    pub(super) async fn run(mut self) {
        let ending = loop {
            let ending = match self.next().await {
                Event::Opened(Ok(socket)) => {
                    self.link = Link::Open(socket);
                    None
                }
                Event::Opened(Err(error)) => Some(self.broken(Some(error)).await),
                Event::Heard(message) => self.hear(message).await,
                Event::Asked(request) => self.answer(request).await,
                Event::Deadline => Some(Ending::TimedOut(self.plan.timeout.unwrap_or_default())),
                Event::Over => Some(stopped()),
            };
            if let Some(ending) = ending {
                break ending;
            }
        };
        self.hang_up(CloseCode::Normal).await;
        self.close_log(&ending).await;
        self.plan.live = None;
        drop(self.permit);
        self.state.send_replace(Some(Finished {
            ending,
            elapsed: self.started.elapsed(),
        }));
    }

    async fn next(&mut self) -> Event {
        let deadline = self.plan.timeout.map(|timeout| self.started + timeout);
        tokio::select! {
            biased;
            request = self.inbox.recv() => request.map_or(Event::Over, Event::Asked),
            () = self.shutdown.cancelled() => Event::Over,
            () = self.plan.cancel.cancelled() => Event::Over,
            () = at(deadline) => Event::Deadline,
            event = self.link.next() => event,
        }
    }

    async fn answer(&mut self, request: Request) -> Option<Ending> {
        match request {
            Request::Stop => Some(stopped()),
            Request::Detach { reply, .. } => {
                let begun = match &mut self.plan.log {
                    Some(log) => log.begin().await,
                    None => Ok(()),
                };
                let failed = begun.is_err();
                self.link = match std::mem::replace(&mut self.link, Link::Gone) {
                    Link::Waiting(subscription) if !failed => {
                        Link::Opening(Box::pin(subscription.open()))
                    }
                    link => link,
                };
                let _ = reply.send(begun);
                failed.then(stopped)
            }
            Request::Listen(live) => {
                self.plan.live = live;
                None
            }
            // There is no output to take, and nothing to type into.
            Request::Take(_) | Request::Type(..) | Request::Resize(_) | Request::Interrupt => None,
        }
    }

    /// Takes in one message; an end of the connection comes back.
    async fn hear(&mut self, message: Option<Result<Message, Error>>) -> Option<Ending> {
        let text = match message {
            Some(Ok(Message::Text(text))) => ansi::strip(&text),
            Some(Ok(Message::Binary(bytes))) => format!("[binary frame, {} bytes]", bytes.len()),
            Some(Ok(Message::Close(frame))) => {
                let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                    (frame.code.into(), ansi::strip(&frame.reason))
                });
                return Some(closed(code, &reason, Vec::new()));
            }
            // The library answers pings.
            Some(Ok(_)) => return None,
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { size, .. }))) => {
                let word =
                    format!("[Dropped {size}-byte frame (more than {MAX_MESSAGE_BYTES}); closing]");
                self.hang_up(CloseCode::Size).await;
                return Some(ended(word));
            }
            None | Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                return Some(self.broken(None).await);
            }
            Some(Err(error)) => return Some(self.broken(Some(error.to_string())).await),
        };
        let line = text + "\n";
        if let Some(log) = &mut self.plan.log
            && log.append(&line).await.is_err()
        {
            self.plan.log = None;
            let word = "[Output file write failed; output may be incomplete]";
            return Some(ended(word.to_owned()));
        }
        if let Some(live) = &self.plan.live {
            live(Stream::Stdout, line);
            // A flood must not pile up before whoever takes it.
            tokio::task::yield_now().await;
        }
        None
    }

    /// The end of a connection that the peer did not close.
    async fn broken(&mut self, error: Option<String>) -> Ending {
        self.link = Link::Gone;
        let mut words = Vec::new();
        if let Some(error) = error {
            let error = ansi::strip(&error);
            self.write(&format!("[stderr] {error}\n")).await;
            words.push(format!("[WebSocket error: {error}]"));
        }
        closed(ABNORMAL, "", words)
    }

    /// Tells the peer, if there is one, that nobody listens any more. A peer
    /// that closed first gets the answer that it is owed.
    async fn hang_up(&mut self, code: CloseCode) {
        if let Link::Open(mut socket) = std::mem::replace(&mut self.link, Link::Gone) {
            let socket = &mut *socket;
            let reason = "".into();
            let frame = CloseFrame { code, reason };
            let goodbye = async {
                // Refused when the peer closed first; the answer waits to be written then.
                drop(socket.send(Message::Close(Some(frame))).await);
                socket.flush().await
            };
            // Gone is gone: a peer that does not read is not waited for.
            drop(timeout(CLOSE_GRACE, goodbye).await);
        }
    }

    async fn close_log(&mut self, ending: &Ending) {
        let line = match ending {
            Ending::TimedOut(timeout) => format!("\n[timeout after {}ms]\n", timeout.as_millis()),
            Ending::Closed { words, .. } => match words.last() {
                Some(word) => format!("{word}\n"),
                None => "\n[stopped]\n".to_owned(),
            },
            _ => return,
        };
        self.write(&line).await;
    }

    /// Writes to the transcript what belongs to the end; that it cannot be
    /// written changes nothing any more.
    async fn write(&mut self, line: &str) {
        if let Some(log) = &mut self.plan.log {
            let _ = log.close_with(line).await;
        }
    }
}

/// The end that came with a close frame, or without.
fn closed(code: u16, reason: &str, mut words: Vec<String>) -> Ending {
    let gap = if reason.is_empty() { "" } else { " " };
    words.push(format!("[WebSocket closed: {code}{gap}{reason}]"));
    Ending::Closed { code, words }
}

/// The end that this side made, for a reason worth telling.
fn ended(word: String) -> Ending {
    Ending::Closed {
        code: ABNORMAL,
        words: vec![word],
    }
}

/// The end that somebody asked for.
fn stopped() -> Ending {
    Ending::Closed {
        code: ABNORMAL,
        words: Vec::new(),
    }
}
