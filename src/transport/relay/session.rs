//! One open connection: frames to the listener, pings to the relay, until a
//! socket is lost or the process stops (01 §8.3–8.5, §10).
//!
//! Invariant: when it returns, no task and no socket of the connection is left
//! and its outbox is detached.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::contract::{Direction, FrameLog, Label};
use super::heartbeat::{Heartbeat, Pulse};
use super::lifecycle::{self, Lifecycle, PING};
use super::machine::Loss;
use super::open::Sockets;
use crate::listener::door::{DoorEvent, DoorSender, Role};
use crate::listener::outbox::{Drain, Lane, Outbox};
use crate::protocol::ConnectionId;
use crate::transport::socket::{Cause, Close, Serving, serve};
use crate::websocket::WebSocket;

/// The time between two pings.
const PING_EVERY: Duration = Duration::from_secs(30);

/// How long what waits may take to leave when the process stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Messages that may wait between the sockets and the door.
const INBOUND_CAPACITY: usize = 8;

/// What the owner of the session hears while it runs.
pub(super) enum Notice {
    /// The relay answered a ping.
    Pong(Instant),
    /// The connection is being closed.
    Draining(Instant),
}

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// A socket was lost: connect again, or see what the close says.
    Lost(Loss),
    /// Asked to stop, or nobody listens any more.
    Stopped,
}

/// What a session needs.
pub(super) struct Session<'a> {
    pub(super) connection: &'a ConnectionId,
    pub(super) connection_name: &'a str,
    pub(super) replaces: Option<ConnectionId>,
    pub(super) outbox: &'a Outbox,
    pub(super) door: &'a DoorSender,
    pub(super) log: &'a Arc<dyn FrameLog>,
    pub(super) cancel: &'a CancellationToken,
}

/// The door was closed, or the process stops: nothing can be delivered.
struct Undeliverable;

type SocketEnd = Result<(Lane, Close), JoinError>;

impl Session<'_> {
    /// Serves the sockets. Tells the door of the opening, not of the end.
    pub(super) async fn run(mut self, sockets: Sockets, mut notice: impl FnMut(Notice)) -> Ended {
        let (control, stream) = self.outbox.attach(sockets.stream.is_some());
        let (inbound, messages) = mpsc::channel(INBOUND_CAPACITY);
        let mut tasks = JoinSet::new();
        let mut pings = vec![self.spawn(
            &mut tasks,
            sockets.control,
            control,
            inbound.clone(),
            Lane::Control,
        )];
        if let Some((socket, drain)) = sockets.stream.zip(stream) {
            pings.push(self.spawn(&mut tasks, socket, drain, inbound.clone(), Lane::Stream));
        }
        drop(inbound);

        let served = self.serve(sockets.early, messages, &mut tasks, &pings, &mut notice);
        let ended = match served.await {
            Ok(loss) => Ended::Lost(loss),
            Err(Undeliverable) => {
                notice(Notice::Draining(Instant::now()));
                self.outbox.finish();
                let all = async { while tasks.join_next().await.is_some() {} };
                // What a peer does not take by then is lost, as with any drop.
                drop(timeout(DRAIN_LIMIT, all).await);
                Ended::Stopped
            }
        };
        self.outbox.detach();
        tasks.shutdown().await;
        ended
    }

    fn spawn(
        &self,
        tasks: &mut JoinSet<(Lane, Close)>,
        socket: WebSocket,
        drain: Drain,
        inbound: mpsc::Sender<(Lane, String)>,
        lane: Lane,
    ) -> mpsc::Sender<Message> {
        let (pings, urgent) = mpsc::channel(1);
        let log = self.log.clone();
        let serving = Serving {
            lane,
            inbound,
            urgent,
            drain,
            // The relay's pings and pongs are frames of their own.
            on_pong: Box::new(|| {}),
            on_send: Box::new(move |text| log.frame(Direction::Send, Label::Protocol, text)),
        };
        tasks.spawn(async move { (lane, serve(socket, serving).await) });
        pings
    }

    async fn serve(
        &mut self,
        early: Vec<String>,
        mut messages: mpsc::Receiver<(Lane, String)>,
        tasks: &mut JoinSet<(Lane, Close)>,
        pings: &[mpsc::Sender<Message>],
        notice: &mut impl FnMut(Notice),
    ) -> Result<Loss, Undeliverable> {
        let mut heart = Heartbeat::default();
        let mut ticks = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        // A late tick makes the next one late too: three probes take their time.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);

        self.open(early).await?;
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Undeliverable),
                _ = ticks.tick() => match heart.tick() {
                    Pulse::Dead => return Ok(self.unanswered()),
                    Pulse::Ping => ping(pings, &mut heart),
                },
                Some((lane, text)) = messages.recv() => {
                    self.hear(lane, text, &mut heart, notice).await?;
                }
                Some(end) = tasks.join_next() => {
                    // What arrived before the end is still heard.
                    while let Ok((lane, text)) = messages.try_recv() {
                        self.hear(lane, text, &mut heart, notice).await?;
                    }
                    return Ok(self.lost(end));
                }
            }
        }
    }

    async fn open(&mut self, early: Vec<String>) -> Result<(), Undeliverable> {
        self.lifecycle(&json!({"type": "_ws_open"}));
        self.log.line("Connected. Awaiting instructions.");
        let replaces = self.replaces.take();
        self.tell(DoorEvent::Opened {
            connection: self.connection.clone(),
            role: Role::Machine {
                name: self.connection_name.to_owned(),
                replaces,
            },
            outbox: self.outbox.clone(),
        })
        .await?;
        for text in early {
            self.deliver(text).await?;
        }
        Ok(())
    }

    async fn hear(
        &self,
        lane: Lane,
        text: String,
        heart: &mut Heartbeat,
        notice: &mut impl FnMut(Notice),
    ) -> Result<(), Undeliverable> {
        match (lane, lifecycle::parse(&text)) {
            (Lane::Control, None) => self.deliver(text).await?,
            // Commands travel on control only (02 §1.2).
            (Lane::Stream, None) => {
                tracing::debug!(
                    bytes = text.len(),
                    "a frame on the stream socket was ignored"
                );
            }
            (_, Some(frame)) => {
                self.log.frame(Direction::Recv, Label::Lifecycle, &text);
                if lane == Lane::Control && frame == Lifecycle::Pong {
                    let now = Instant::now();
                    heart.ponged(now);
                    notice(Notice::Pong(now));
                }
            }
        }
        Ok(())
    }

    async fn deliver(&self, text: String) -> Result<(), Undeliverable> {
        self.log.frame(Direction::Recv, Label::Client, &text);
        let connection = self.connection.clone();
        self.tell(DoorEvent::Frame { connection, text }).await
    }

    async fn tell(&self, event: DoorEvent) -> Result<(), Undeliverable> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Undeliverable),
            sent = self.door.send(event) => sent.map_err(|_| Undeliverable),
        }
    }

    fn lost(&self, end: SocketEnd) -> Loss {
        let (lane, close) = end.unwrap_or_else(|error| {
            tracing::error!(%error, "a socket task failed");
            let close = Close::abnormal(Cause::Network, "internal error");
            (Lane::Control, close)
        });
        if close.cause != Cause::Peer {
            self.lifecycle(&json!({"type": "_ws_error", "message": close.reason}));
        }
        // A pair lives and dies together: a lost stream socket drops control.
        let seen = match lane {
            Lane::Control => {
                json!({"type": "_ws_close", "code": close.code, "reason": close.reason})
            }
            Lane::Stream => {
                json!({"type": "_ws_close", "code": 1006, "reason": "", "stream_code": close.code, "stream_reason": close.reason})
            }
        };
        self.lifecycle(&seen);
        Loss::Closed(lane, close)
    }

    fn unanswered(&self) -> Loss {
        self.lifecycle(&json!({"type": "_ws_error", "message": "pings went unanswered"}));
        self.lifecycle(&json!({"type": "_ws_close", "code": 1006, "reason": ""}));
        Loss::Unanswered
    }

    fn lifecycle(&self, frame: &serde_json::Value) {
        let text = frame.to_string();
        self.log.frame(Direction::Recv, Label::Lifecycle, &text);
    }
}

/// Pings all sockets; only what the control socket takes counts.
fn ping(pings: &[mpsc::Sender<Message>], heart: &mut Heartbeat) {
    for (index, socket) in pings.iter().enumerate() {
        // Full: the last ping is still waiting behind a slow write.
        let handed = socket.try_send(Message::text(PING)).is_ok();
        if index == 0 && handed {
            heart.pinged(Instant::now());
        }
    }
}
