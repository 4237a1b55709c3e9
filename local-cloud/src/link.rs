//! The device side of the relay: links and their sockets (spec 01 §8).
//!
//! A *link* is one time that a connection's sockets were open: one socket in
//! single mode, a pair otherwise. Invariant: of a pair that has lost one socket
//! the other ends too, and no new one joins it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::log::Cursor;
use crate::net::Tap;
use crate::options::Ready;
use crate::record::Recorded;
use crate::server::Cloud;
use crate::sync::lock;

/// Which socket of a link a frame went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// The only socket of single mode.
    Single,
    /// Commands, replies, `control_request`, `turn_finished`.
    Control,
    /// Stream deltas and status updates.
    Stream,
}

/// One frame that a device sent.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Number of the link, counted from 1 over all devices.
    pub link: u64,
    /// The socket it came over.
    pub channel: Channel,
    /// The frame; a JSON string of the raw text when it was no JSON.
    pub value: Value,
    /// When it was read.
    pub at: Instant,
}

impl Frame {
    /// The frame's `type`, empty when it has none.
    pub fn kind(&self) -> &str {
        self.value["type"].as_str().unwrap_or_default()
    }

    /// `type`, with the `message_type` of a delta or the status of a loop status.
    pub fn label(&self) -> String {
        let value = &self.value;
        let detail = value["delta"]["message_type"]
            .as_str()
            .or_else(|| value["loop_status"]["status"].as_str());
        match detail {
            Some(detail) => format!("{}:{detail}", self.kind()),
            None => self.kind().to_owned(),
        }
    }
}

/// How one socket of a device ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Number of the link.
    pub link: u64,
    /// Which socket.
    pub channel: Channel,
    /// Code of the device's close frame; `None` when TCP ended without one.
    pub code: Option<u16>,
    /// Its reason.
    pub reason: String,
}

/// What a socket is told to do.
pub(crate) enum Out {
    Text(Utf8Bytes),
    Binary(Bytes),
    Close(u16, String),
}

pub(crate) struct Socket {
    out: mpsc::UnboundedSender<Out>,
    tap: Arc<Tap>,
    handshake: Arc<Recorded>,
}

/// One time that a device's sockets were open.
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) connection_id: String,
    pub(crate) generation: Option<String>,
    pub(crate) paired: bool,
    pub(crate) pong: AtomicBool,
    pub(crate) open: AtomicBool,
    /// Set when the first of its sockets ends: no new one may join then.
    pub(crate) ended: AtomicBool,
    pub(crate) opened_at: Cursor,
    pub(crate) sockets: Mutex<HashMap<Channel, Socket>>,
}

impl Link {
    /// From now on the link counts as gone, whatever is left of its sockets.
    pub(crate) fn end(&self) {
        self.open.store(false, Ordering::SeqCst);
        self.ended.store(true, Ordering::SeqCst);
    }

    fn complete(&self) -> bool {
        let sockets = lock(&self.sockets);
        sockets.contains_key(&Channel::Single)
            || (sockets.contains_key(&Channel::Control) && sockets.contains_key(&Channel::Stream))
    }

    /// The socket that commands go over.
    pub(crate) fn command_channel(&self) -> Channel {
        if lock(&self.sockets).contains_key(&Channel::Single) {
            Channel::Single
        } else {
            Channel::Control
        }
    }

    pub(crate) fn put(&self, channel: Channel, out: Out) -> bool {
        lock(&self.sockets)
            .get(&channel)
            .is_some_and(|socket| socket.out.send(out).is_ok())
    }

    pub(crate) fn send_text(&self, text: String) -> bool {
        self.put(self.command_channel(), Out::Text(text.into()))
    }

    pub(crate) fn taps(&self) -> Vec<Arc<Tap>> {
        lock(&self.sockets)
            .values()
            .map(|s| s.tap.clone())
            .collect()
    }

    pub(crate) fn close_all(&self, code: u16, reason: &str) {
        self.end();
        for socket in lock(&self.sockets).values() {
            // A socket that has ended needs no close frame.
            let _ = socket.out.send(Out::Close(code, reason.to_owned()));
        }
    }

    /// The upgrade request of one socket.
    pub(crate) fn handshake(&self, channel: Channel) -> Option<Arc<Recorded>> {
        lock(&self.sockets)
            .get(&channel)
            .map(|socket| socket.handshake.clone())
    }

    pub(crate) fn cut(&self) {
        self.end();
        for tap in self.taps() {
            tap.cut();
        }
    }
}

/// The query of a device upgrade (01 §8.1).
pub(crate) struct Hello {
    pub(crate) device_id: String,
    pub(crate) name: String,
    pub(crate) channel: Option<String>,
    pub(crate) generation: Option<String>,
    pub(crate) attempt: Option<i64>,
}

impl Hello {
    pub(crate) fn from_query(query: &[(String, String)]) -> Self {
        let get = |key: &str| {
            query
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value.clone())
        };
        Self {
            device_id: get("deviceId").unwrap_or_default(),
            name: get("connectionName").unwrap_or_default(),
            channel: get("channel"),
            generation: get("connectionGeneration"),
            attempt: get("connectionAttempt").and_then(|n| n.parse().ok()),
        }
    }
}

/// Serves one device socket until either side ends it.
pub(crate) async fn serve(
    cloud: Arc<Cloud>,
    socket: WebSocket,
    hello: Hello,
    tap: Arc<Tap>,
    handshake: Arc<Recorded>,
) {
    let channel = match hello.channel.as_deref() {
        Some("control") => Channel::Control,
        Some("stream") => Channel::Stream,
        _ => Channel::Single,
    };
    let (out, mut outbox) = mpsc::unbounded_channel();
    let Some(link) = cloud.devices.attach(
        &hello,
        channel,
        Socket {
            out,
            tap,
            handshake,
        },
    ) else {
        return;
    };
    greet(&cloud, &link, channel, &hello);
    let (mut sink, mut stream) = socket.split();
    let mut ended = Closed {
        link: link.number,
        channel,
        code: None,
        reason: String::new(),
    };
    loop {
        tokio::select! {
            message = stream.next() => match message {
                Some(Ok(Message::Text(text))) => receive(&cloud, &link, channel, text),
                Some(Ok(Message::Binary(data))) => match Utf8Bytes::try_from(data) {
                    Ok(text) => receive(&cloud, &link, channel, text),
                    Err(_) => receive(&cloud, &link, channel, Utf8Bytes::from_static("")),
                },
                Some(Ok(Message::Close(frame))) => {
                    if let Some(frame) = frame {
                        ended.code = Some(frame.code);
                        ended.reason = frame.reason.to_string();
                    }
                    // The answer to a close frame goes out with the flush.
                    let _ = timeout(Duration::from_secs(1), sink.flush()).await;
                    break;
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Err(_)) | None => break,
            },
            next = outbox.recv() => {
                let Some(next) = next else { break };
                let mut closing = matches!(next, Out::Close(..));
                let mut failed = sink.feed(message_of(next)).await.is_err();
                while let (false, false, Ok(more)) = (closing, failed, outbox.try_recv()) {
                    closing = matches!(more, Out::Close(..));
                    failed = sink.feed(message_of(more)).await.is_err();
                }
                if failed || sink.flush().await.is_err() {
                    break;
                }
                if closing {
                    ended = wait_for_close(&mut stream, ended).await;
                    break;
                }
            }
        }
    }
    cloud.devices.detach(&link, channel);
    cloud.devices.closed.push(Arc::new(ended), 64);
    cloud.relay.device_changed();
}

fn message_of(out: Out) -> Message {
    match out {
        Out::Text(text) => Message::Text(text),
        Out::Binary(data) => Message::Binary(data),
        Out::Close(code, reason) => Message::Close(Some(CloseFrame {
            code,
            reason: reason.into(),
        })),
    }
}

/// After our close frame: the device's answer, but not for ever.
async fn wait_for_close(
    stream: &mut futures_util::stream::SplitStream<WebSocket>,
    mut ended: Closed,
) -> Closed {
    let limit = Duration::from_secs(2);
    // A device that does not answer is cut off when the socket is dropped.
    let _ = timeout(limit, async {
        while let Some(Ok(message)) = stream.next().await {
            if let Message::Close(Some(frame)) = message {
                ended.code = Some(frame.code);
                ended.reason = frame.reason.to_string();
            }
        }
    })
    .await;
    ended
}

/// `listener_ready` where the mode asks for it, and the link's opening.
fn greet(cloud: &Cloud, link: &Arc<Link>, channel: Channel, hello: &Hello) {
    if link.paired && channel != Channel::Single {
        let ready = cloud.ready();
        if ready == Ready::Late && channel == Channel::Control {
            let early = json!({"type": "sync", "request_id": "early",
                "runtime": {"agent_id": "agent-early", "conversation_id": "conv-early"}});
            link.put(channel, Out::Text(early.to_string().into()));
        }
        let generation = match ready {
            Ready::WrongGeneration => "00000000-0000-4000-8000-000000000000",
            _ => hello.generation.as_deref().unwrap_or_default(),
        };
        let attempt = hello.attempt.unwrap_or(1) + i64::from(ready == Ready::WrongAttempt);
        let frame = json!({"type": "listener_ready",
            "connection_generation": generation, "connection_attempt": attempt});
        if ready != Ready::Omit {
            link.put(channel, Out::Text(frame.to_string().into()));
        }
    }
    let ended = link.ended.load(Ordering::SeqCst);
    if !ended && link.complete() && !link.open.swap(true, Ordering::SeqCst) {
        link.pong.store(cloud.pong(), Ordering::SeqCst);
        cloud.devices.opened.push(link.clone(), 1);
        cloud.relay.device_changed();
    }
}

fn receive(cloud: &Cloud, link: &Link, channel: Channel, text: Utf8Bytes) {
    let value = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.to_string()));
    let is_ping = value["type"] == "ping";
    if is_ping {
        cloud.devices.heartbeat(&link.connection_id);
        if cloud.pong() && link.pong.load(Ordering::SeqCst) {
            link.put(
                channel,
                Out::Text(Utf8Bytes::from_static(r#"{"type":"pong"}"#)),
            );
        }
    } else {
        cloud.relay.fan_out(&link.connection_id, &value, &text);
    }
    let weight = text.len() + 64;
    let frame = Frame {
        link: link.number,
        channel,
        value,
        at: Instant::now(),
    };
    cloud.devices.frames.push(Arc::new(frame), weight);
}
