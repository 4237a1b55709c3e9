//! The clients' side of the relay: finding machines, and client sockets with
//! `seq` and `ack`. Spec 02 §1.5.
//!
//! Invariants: every client socket numbers its own frames from 1 without gaps;
//! `ping` and `ack` never reach a device; what a client sends is stamped with
//! its `acting_user_id`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::connections::Connection;
use crate::letta::store::not_found;
use crate::reply;
use crate::server::Cloud;
use crate::sync::lock;

/// A computer counts as online this long after its last sign of life.
const ONLINE_MS: i64 = 120_000;

/// Requests whose reply has not come are forgotten beyond this number.
const ASKED_LIMIT: usize = 4096;

enum Out {
    Frame(Utf8Bytes),
    Close(u16, &'static str),
}

struct Client {
    connection_id: String,
    agent: Option<String>,
    conversation: Option<String>,
    out: mpsc::UnboundedSender<Out>,
}

impl Client {
    fn same_scope(&self, other: &Client) -> bool {
        self.connection_id == other.connection_id
            && self.agent == other.agent
            && self.conversation == other.conversation
    }

    fn wants(&self, runtime: &Value) -> bool {
        let fits = |wanted: &Option<String>, value: &Value| {
            wanted
                .as_deref()
                .is_none_or(|wanted| value.as_str() == Some(wanted))
        };
        fits(&self.agent, &runtime["agent_id"])
            && fits(&self.conversation, &runtime["conversation_id"])
    }
}

#[derive(Default)]
struct State {
    clients: HashMap<u64, Client>,
    /// Who asked: request id → client.
    asked: HashMap<String, u64>,
    next: u64,
}

/// All client sockets.
#[derive(Default)]
pub(crate) struct Relay(Mutex<State>);

impl Relay {
    /// Hands a device's frame to the clients it is for: events go by scope,
    /// replies to everybody of the scope that asked, the rest to all.
    pub(crate) fn fan_out(&self, connection_id: &str, frame: &Value, text: &Utf8Bytes) {
        let mut state = lock(&self.0);
        if state.clients.is_empty() {
            return;
        }
        let is_event = frame["event_seq"].is_u64();
        let asker = match frame["request_id"].as_str() {
            Some(id) if !is_event => state.asked.remove(id),
            _ => None,
        };
        let asker = asker.and_then(|id| state.clients.get(&id));
        for client in state.clients.values() {
            if client.connection_id != connection_id {
                continue;
            }
            let wanted = match asker {
                Some(asker) => client.same_scope(asker),
                None => !frame["runtime"].is_object() || client.wants(&frame["runtime"]),
            };
            if wanted {
                // A socket that has ended is removed by its own task.
                let _ = client.out.send(Out::Frame(text.clone()));
            }
        }
    }

    /// Ends the sockets to connections that are no more.
    pub(crate) fn connections_gone(&self, connection_ids: &[String]) {
        for client in lock(&self.0).clients.values() {
            if connection_ids.contains(&client.connection_id) {
                let _ = client
                    .out
                    .send(Out::Close(1012, "Environment registered again"));
            }
        }
    }

    /// Tells every client that machines have come or gone.
    pub(crate) fn device_changed(&self) {
        let note = Utf8Bytes::from_static(r#"{"type":"environment_changed"}"#);
        for client in lock(&self.0).clients.values() {
            let _ = client.out.send(Out::Frame(note.clone()));
        }
    }

    fn add(&self, client: Client) -> u64 {
        let mut state = lock(&self.0);
        state.next += 1;
        let id = state.next;
        state.clients.insert(id, client);
        id
    }

    fn remove(&self, id: u64) {
        let mut state = lock(&self.0);
        state.clients.remove(&id);
        state.asked.retain(|_, asker| *asker != id);
    }

    fn ask(&self, request_id: &str, client: u64) {
        let mut state = lock(&self.0);
        if state.asked.len() >= ASKED_LIMIT {
            state.asked.clear();
        }
        state.asked.insert(request_id.to_owned(), client);
    }
}

/// `GET /v1/environments` and `/v1/environments/{deviceId}`.
pub(crate) fn environments(cloud: &Cloud, path: &str, query: &[(String, String)]) -> Response {
    let segments = reply::segments(path);
    if let [_, _, device] = segments.as_slice() {
        let found = cloud
            .devices
            .read(|all| all.iter().rev().find(|c| c.device_id == *device).map(show));
        return match found {
            Some(found) => reply::ok(&found),
            None => *not_found("Environment", device),
        };
    }
    let mut all: Vec<Value> = cloud
        .devices
        .read(|all| all.iter().rev().map(show).collect());
    if reply::get(query, "onlineOnly") == Some("true") {
        let now = crate::now_ms();
        all.retain(|c| {
            c["connectionId"].is_string()
                && c["lastHeartbeat"]
                    .as_i64()
                    .is_some_and(|beat| now - beat < ONLINE_MS)
        });
    }
    if let Some(after) = reply::get(query, "after")
        && let Some(at) = all.iter().position(|c| c["id"] == after)
    {
        all.drain(..=at);
    }
    let limit = reply::get(query, "limit")
        .and_then(|n| n.parse().ok())
        .unwrap_or(50);
    let more = all.len() > limit;
    all.truncate(limit);
    reply::ok(&json!({"connections": all, "hasNextPage": more}))
}

fn show(connection: &Connection) -> Value {
    let online = connection.link.is_some();
    json!({
        "id": format!("env-{}-{}", connection.device_id, connection.instance_id),
        "connectionId": online.then_some(&connection.id),
        "deviceId": connection.device_id, "connectionName": connection.name,
        "listenerInstanceId": connection.instance_id, "organizationId": "org-local",
        "connectedAt": connection.registered_ms, "lastHeartbeat": connection.heartbeat_ms,
        "lastSeenAt": connection.heartbeat_ms, "firstSeenAt": connection.registered_ms,
        "metadata": connection.metadata,
    })
}

/// Whether a path is a client socket's.
pub(crate) fn is_client_socket(path: &str) -> bool {
    path.starts_with("/v1/environments/") && path.ends_with("/status/ws")
}

/// `GET /v1/environments/{connectionId}/status/ws`: a client opens a socket.
pub(crate) async fn upgrade(cloud: Arc<Cloud>, mut parts: Parts) -> Response {
    let segments = reply::segments(parts.uri.path());
    let connection_id = segments.get(2).cloned().unwrap_or_default();
    let query = reply::query(&parts.uri);
    let known = cloud
        .devices
        .read(|all| all.iter().any(|c| c.id == connection_id));
    if !known {
        return *not_found("Connection", &connection_id);
    }
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let text = |key: &str| reply::get(&query, key).map(str::to_owned);
    let (out, outbox) = mpsc::unbounded_channel();
    let client = Client {
        connection_id,
        agent: text("agentId"),
        conversation: text("conversationId"),
        out,
    };
    upgrade.on_upgrade(move |socket| async move {
        let connection_id = client.connection_id.clone();
        let id = cloud.relay.add(client);
        Box::pin(serve(&cloud, socket, id, &connection_id, outbox)).await;
        cloud.relay.remove(id);
    })
}

async fn serve(
    cloud: &Arc<Cloud>,
    socket: WebSocket,
    id: u64,
    connection_id: &str,
    mut outbox: mpsc::UnboundedReceiver<Out>,
) {
    let (mut sink, mut stream) = socket.split();
    let mut seq = 0_u64;
    loop {
        tokio::select! {
            message = stream.next() => {
                let text = match message {
                    Some(Ok(Message::Text(text))) => text,
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                };
                if let Some(answer) = from_client(cloud, id, connection_id, &text)
                    && sink.send(Message::Text(answer.to_string().into())).await.is_err()
                {
                    return;
                }
            }
            out = outbox.recv() => match out {
                Some(Out::Frame(text)) => {
                    seq += 1;
                    if sink.feed(Message::Text(numbered(seq, &text))).await.is_err() {
                        return;
                    }
                    if outbox.is_empty() && sink.flush().await.is_err() {
                        return;
                    }
                }
                Some(Out::Close(code, reason)) => {
                    let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
                    // The socket ends here whether the client hears it or not.
                    let _ = sink.send(Message::Close(Some(frame))).await;
                    return;
                }
                None => return,
            }
        }
    }
}

/// Puts `seq` first into the text of a JSON object.
fn numbered(seq: u64, text: &str) -> Utf8Bytes {
    match text.trim_start().strip_prefix('{').map(str::trim_start) {
        Some("}") => format!("{{\"seq\":{seq}}}").into(),
        Some(rest) => format!("{{\"seq\":{seq},{rest}").into(),
        None => json!({"seq": seq, "raw": text}).to_string().into(),
    }
}

/// Handles what a client sent; the answer, if it is the relay's to give.
fn from_client(cloud: &Arc<Cloud>, id: u64, connection_id: &str, text: &str) -> Option<Value> {
    let Ok(mut frame) = serde_json::from_str::<Value>(text) else {
        return Some(json!({"type": "error", "error": "The frame is no JSON"}));
    };
    match frame["type"].as_str() {
        Some("ping") => return Some(json!({"type": "pong"})),
        Some("ack") => return None,
        _ => {}
    }
    if let Some(runtime) = frame["runtime"].as_object_mut() {
        runtime.insert("acting_user_id".into(), json!(cloud.options.acting_user));
    }
    if let Some(request_id) = frame["request_id"].as_str() {
        cloud.relay.ask(request_id, id);
    }
    cloud.announce_scope(connection_id, &frame);
    let sent = cloud
        .devices
        .link_of(connection_id)
        .is_some_and(|link| link.send_text(frame.to_string()));
    (!sent).then(|| {
        json!({"type": "error", "request_id": frame["request_id"],
            "error": "This environment is not connected"})
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_put_into_any_object() {
        assert_eq!(
            numbered(3, r#"{"type":"x"}"#).as_str(),
            r#"{"seq":3,"type":"x"}"#
        );
        assert_eq!(numbered(1, "{ }").as_str(), r#"{"seq":1}"#);
        assert!(serde_json::from_str::<Value>(&numbered(1, "no json")).is_ok());
    }
}
