//! One client of the direct door, from its upgrade to its end (spec 02 §1.1,
//! §11.2).
//!
//! Invariant: the listener hears `Opened`, every frame in its order, and `Gone`
//! exactly once, whatever ended the socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_util::sync::CancellationToken;

use crate::listener::door::{DoorEvent, DoorSender, Role};
use crate::listener::outbox::{Lane, Outbox};
use crate::protocol::ConnectionId;
use crate::telemetry::session_log::{Direction, Label, SessionLog};
use crate::transport::socket::{Cause, Close, Serving, serve};
use crate::websocket::WebSocket;

/// The time between two pings.
const PING_EVERY: Duration = Duration::from_secs(30);

/// So many pings without an answer end the socket.
const UNANSWERED: u32 = 3;

/// How long what waits may take to leave when the process stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Messages that may wait between the socket and the door.
const INBOUND_CAPACITY: usize = 4;

/// What a client needs.
pub(super) struct Client {
    pub(super) connection: ConnectionId,
    pub(super) door: DoorSender,
    pub(super) log: SessionLog,
    /// Fires when the process stops.
    pub(super) stop: CancellationToken,
}

impl Client {
    /// Serves the socket to its end. `greeting` is the first frame, if any.
    pub(super) async fn run(self, socket: WebSocket, greeting: Option<String>) {
        let outbox = Outbox::new();
        let (drain, _) = outbox.attach(false);
        let opened = DoorEvent::Opened {
            connection: self.connection.clone(),
            role: Role::Client,
            outbox: outbox.clone(),
        };
        if self.door.send(opened).await.is_err() {
            return;
        }
        self.lifecycle("_ws_open", None);
        if let Some(greeting) = greeting {
            outbox.push_reply(greeting);
        }
        let unanswered = Arc::new(AtomicU32::new(0));
        let (inbound, messages) = mpsc::channel(INBOUND_CAPACITY);
        let (pings, urgent) = mpsc::channel(1);
        let (answered, log) = (Arc::clone(&unanswered), self.log.clone());
        let serving = Serving {
            lane: Lane::Control,
            inbound,
            urgent,
            drain,
            on_pong: Box::new(move || answered.store(0, Ordering::Relaxed)),
            on_send: Box::new(move |text| log.frame(Direction::Sent, Label::Protocol, text)),
        };
        // Boxed: thousands of them wait, most of the time for nothing.
        let mut serving = Box::pin(serve(socket, serving));
        let mut deliver = std::pin::pin!(self.deliver(messages));
        let mut heard_all = false;
        let close = tokio::select! {
            biased;
            close = &mut serving => close,
            () = &mut deliver => {
                heard_all = true;
                Close::abnormal(Cause::Local, "the listener is gone")
            }
            () = beat(&pings, &unanswered) => {
                Close::abnormal(Cause::Network, "pings went unanswered")
            }
            () = self.stop.cancelled() => {
                outbox.finish();
                // What a client does not take by then is lost, as with any drop.
                let last = timeout(DRAIN_LIMIT, &mut serving).await;
                last.unwrap_or_else(|_| Close::abnormal(Cause::Local, "stopped"))
            }
        };
        drop(serving);
        // What arrived before the end is still heard.
        if !heard_all {
            deliver.await;
        }
        outbox.detach();
        self.lifecycle("_ws_close", Some(&close));
        let connection = self.connection.clone();
        // A listener that is gone itself need not hear it.
        let _ = self.door.send(DoorEvent::Gone { connection }).await;
    }

    /// Hands messages on until no more can come.
    async fn deliver(&self, mut messages: mpsc::Receiver<(Lane, String)>) {
        while let Some((_, text)) = messages.recv().await {
            self.log.frame(Direction::Received, Label::Client, &text);
            let connection = self.connection.clone();
            let frame = DoorEvent::Frame { connection, text };
            if self.door.send(frame).await.is_err() {
                return;
            }
        }
    }

    fn lifecycle(&self, kind: &str, close: Option<&Close>) {
        let mut frame = json!({"type": kind, "connection": self.connection.as_str()});
        if let Some(close) = close {
            frame["code"] = close.code.into();
            frame["reason"] = close.reason.as_str().into();
        }
        self.log
            .frame(Direction::Received, Label::Lifecycle, &frame.to_string());
    }
}

/// Pings until too many went unanswered.
async fn beat(pings: &mpsc::Sender<Message>, unanswered: &AtomicU32) {
    let mut ticks = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if unanswered.load(Ordering::Relaxed) >= UNANSWERED {
            return;
        }
        // Full: the last ping is still waiting behind a slow write.
        if pings.try_send(Message::Ping(Bytes::new())).is_ok() {
            unanswered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a client is kept whose pongs come as `answer` says.
    async fn kept(answer: bool) -> Option<Duration> {
        let (pings, mut sent) = mpsc::channel(1);
        let unanswered = AtomicU32::new(0);
        let begun = Instant::now();
        let answers = async {
            while sent.recv().await.is_some() {
                if answer {
                    unanswered.store(0, Ordering::Relaxed);
                }
            }
        };
        let hour = Duration::from_secs(3600);
        tokio::select! {
            () = beat(&pings, &unanswered) => Some(begun.elapsed()),
            () = answers => None,
            () = tokio::time::sleep(hour) => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn s02_1_1_three_pings_without_an_answer_end_a_client() {
        assert_eq!(kept(false).await, Some(4 * PING_EVERY));
        assert_eq!(kept(true).await, None);
    }
}
