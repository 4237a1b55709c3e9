//! The other side of everything: a server, a listener, credentials and a log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use reqwest::Url;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_util::sync::CancellationToken;

use super::super::*;
use crate::listener::door::{self, DoorReceiver};
use crate::websocket::Wire;

/// Longer than anything that a test waits for on purpose.
const PATIENCE: Duration = Duration::from_secs(3600);

/// How many bytes a pipe holds: less than most tests write.
const PIPE: usize = 4096;

/// One upgrade that the relay asks for.
pub(super) struct Dialled {
    pub(super) url: Url,
    pub(super) bearer: Option<String>,
    /// Seconds since the start, rounded down.
    pub(super) at: u64,
    answer: oneshot::Sender<Result<Box<dyn Wire>, String>>,
}

impl Dialled {
    pub(super) fn accept(self) -> AcceptedSoon {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        assert!(
            self.answer.send(Ok(Box::new(theirs))).is_ok(),
            "dial given up"
        );
        AcceptedSoon(ours)
    }

    pub(super) fn refuse(self, text: &str) {
        drop(self.answer.send(Err(text.to_owned())));
    }

    /// Completes when the relay no longer waits for the answer.
    pub(super) async fn given_up(mut self) {
        self.answer.closed().await;
    }

    pub(super) fn query(&self, key: &str) -> Option<String> {
        let mut pairs = self.url.query_pairs();
        let found = pairs.find(|(name, _)| name == key);
        found.map(|(_, value)| value.into_owned())
    }
}

/// An upgraded pipe, not yet a WebSocket.
pub(super) struct AcceptedSoon(DuplexStream);

impl AcceptedSoon {
    pub(super) async fn peer(self) -> Peer {
        Peer(WebSocketStream::from_raw_socket(self.0, Role::Server, None).await)
    }

    /// The bytes below: what is written here is not checked by anyone.
    pub(super) fn raw(self) -> DuplexStream {
        self.0
    }
}

/// The relay's end of one socket.
pub(super) struct Peer(WebSocketStream<DuplexStream>);

impl Peer {
    pub(super) async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    pub(super) async fn send_message(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    /// The next message; `None` when the machine dropped the socket.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let next = timeout(PATIENCE, self.0.next()).await;
        next.expect("a message in time").and_then(Result::ok)
    }

    /// The next text message.
    pub(super) async fn text(&mut self) -> String {
        match self.next().await {
            Some(Message::Text(text)) => text.as_str().to_owned(),
            other => panic!("expected text, not {other:?}"),
        }
    }

    pub(super) async fn json(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// Accepts the socket of a pair.
    pub(super) async fn ready(&mut self, generation: &str, attempt: &str) {
        let frame = format!(
            r#"{{"type":"listener_ready","connection_generation":"{generation}","connection_attempt":{attempt}}}"#
        );
        self.send(&frame).await;
    }

    pub(super) async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame {
            code: code.into(),
            reason: reason.to_owned().into(),
        };
        self.0.close(Some(frame)).await.unwrap();
        // Stays until the machine has answered.
        while self.next().await.is_some() {}
    }

    /// Answers pings until the connection ends.
    pub(super) fn answering(mut self) -> JoinHandle<()> {
        tokio::spawn(async move {
            while let Some(Ok(message)) = self.0.next().await {
                if message == Message::text(lifecycle::PING) {
                    drop(self.0.send(Message::text(r#"{"type":"pong"}"#)).await);
                }
            }
        })
    }
}

struct PipeDial {
    start: Instant,
    dialled: mpsc::UnboundedSender<Dialled>,
}

impl Dial for PipeDial {
    fn dial<'a>(
        &'a self,
        url: &'a Url,
        bearer: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Wire>, String>> {
        let (answer, answered) = oneshot::channel();
        let dialled = Dialled {
            url: url.clone(),
            bearer: bearer.map(str::to_owned),
            at: self.start.elapsed().as_secs(),
            answer,
        };
        drop(self.dialled.send(dialled));
        Box::pin(async { answered.await.unwrap_or(Err("nobody answers".to_owned())) })
    }
}

/// Answers registrations: first what is scripted, then `conn-1`, `conn-2`, ….
#[derive(Default)]
pub(super) struct Office {
    pub(super) script: Mutex<VecDeque<Result<Registration, RegisterError>>>,
    pub(super) mode: (bool, bool),
    /// When each registration was asked for, in seconds since the start.
    pub(super) asked: Mutex<Vec<u64>>,
    start: Option<Instant>,
}

impl Registrar for Office {
    fn register(&self) -> BoxFuture<'_, Result<Registration, RegisterError>> {
        let number = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(self.start.unwrap().elapsed().as_secs());
            asked.len()
        };
        let answer = self.script.lock().unwrap().pop_front().unwrap_or_else(|| {
            Ok(Registration {
                connection_id: ConnectionId::new(format!("conn-{number}")),
                ws_url: "ws://relay.test/ws?token=s3cret".to_owned(),
                split: self.mode.0,
                paired: self.mode.1,
            })
        });
        Box::pin(async { answer })
    }
}

struct Keys;

impl Authorizer for Keys {
    fn bearer(&self, _: bool) -> BoxFuture<'_, Result<Option<String>, AuthError>> {
        Box::pin(async { Ok(Some("key-1".to_owned())) })
    }
}

/// The session log, in memory.
#[derive(Default)]
pub(super) struct Notes(pub(super) Mutex<Vec<String>>);

impl FrameLog for Notes {
    fn frame(&self, direction: Direction, label: Label, text: &str) {
        let note = format!("{direction:?} {label:?} {text}");
        self.0.lock().unwrap().push(note);
    }

    fn line(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// A running relay and everything around it.
pub(super) struct Bench {
    pub(super) start: Instant,
    pub(super) dialled: mpsc::UnboundedReceiver<Dialled>,
    pub(super) door: DoorReceiver,
    pub(super) office: Arc<Office>,
    pub(super) notes: Arc<Notes>,
    pub(super) status: watch::Receiver<RelayStatus>,
    pub(super) cancel: CancellationToken,
    relay: JoinHandle<RelayEnd>,
}

impl Bench {
    pub(super) fn single() -> Self {
        Self::with((false, false), |_, _| {})
    }

    pub(super) fn split() -> Self {
        Self::with((true, false), |_, _| {})
    }

    pub(super) fn paired() -> Self {
        Self::with((true, true), |_, _| {})
    }

    pub(super) fn with(
        mode: (bool, bool),
        change: impl FnOnce(&mut RelayConfig, &mut Office),
    ) -> Self {
        let start = Instant::now();
        let (dialled_tx, dialled) = mpsc::unbounded_channel();
        let (door_tx, door) = door::channel();
        let mut config = RelayConfig::new("dev-1", "w 1");
        let mut office = Office {
            mode,
            start: Some(start),
            ..Office::default()
        };
        change(&mut config, &mut office);
        let (office, notes) = (Arc::new(office), Arc::new(Notes::default()));
        let parts = RelayParts {
            registrar: office.clone(),
            authorizer: Arc::new(Keys),
            log: notes.clone(),
            door: door_tx,
        };
        let dial = PipeDial {
            start,
            dialled: dialled_tx,
        };
        let relay = Relay::with_dial(config, parts, Box::new(dial));
        let status = relay.status();
        let cancel = CancellationToken::new();
        let relay = tokio::spawn(relay.run(cancel.clone()));
        Self {
            start,
            dialled,
            door,
            office,
            notes,
            status,
            cancel,
            relay,
        }
    }

    /// Seconds since the start, rounded down.
    pub(super) fn seconds(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    pub(super) fn registrations(&self) -> usize {
        self.office.asked.lock().unwrap().len()
    }

    /// The next upgrade.
    pub(super) async fn dial(&mut self) -> Dialled {
        let next = timeout(PATIENCE, self.dialled.recv()).await;
        next.expect("an upgrade in time").expect("a running relay")
    }

    /// Accepts the next upgrade of a single socket and takes the opening.
    pub(super) async fn connect(&mut self) -> (Peer, Outbox) {
        let peer = self.dial().await.accept().peer().await;
        (peer, self.opened().await.1)
    }

    pub(super) async fn event(&mut self) -> DoorEvent {
        let next = timeout(PATIENCE, self.door.recv()).await;
        next.expect("an event in time").expect("a running relay")
    }

    pub(super) async fn opened(&mut self) -> (ConnectionId, Outbox, Option<ConnectionId>) {
        match self.event().await {
            DoorEvent::Opened {
                connection,
                role: door::Role::Machine { name, replaces },
                outbox,
            } => {
                assert_eq!(name, "w 1");
                (connection, outbox, replaces)
            }
            other => panic!("expected an opening, not {other:?}"),
        }
    }

    pub(super) async fn frame(&mut self) -> String {
        match self.event().await {
            DoorEvent::Frame { text, .. } => text,
            other => panic!("expected a frame, not {other:?}"),
        }
    }

    pub(super) async fn closed(&mut self) -> ConnectionId {
        match self.event().await {
            DoorEvent::Closed { connection } => connection,
            other => panic!("expected a close, not {other:?}"),
        }
    }

    pub(super) async fn gone(&mut self) -> ConnectionId {
        match self.event().await {
            DoorEvent::Gone { connection } => connection,
            other => panic!("expected the end, not {other:?}"),
        }
    }

    /// How it ended, without being asked to.
    pub(super) async fn end(&mut self) -> ExitReason {
        let end = timeout(PATIENCE, &mut self.relay).await;
        end.expect("an end in time").unwrap().exit
    }

    pub(super) fn noted(&self, what: &str) -> bool {
        self.notes.0.lock().unwrap().iter().any(|note| note == what)
    }
}
