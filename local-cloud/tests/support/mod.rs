//! What the tests of this crate share: an HTTP client that reads event streams,
//! and a device made of bare WebSockets.

#![expect(dead_code, reason = "each test binary uses its own part")]

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use local_cloud::{LocalCloud, Options};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) async fn cloud() -> LocalCloud {
    start(Options::default()).await
}

pub(crate) async fn start(options: Options) -> LocalCloud {
    LocalCloud::start(options).await.unwrap()
}

pub(crate) fn http() -> reqwest::Client {
    // Another test of the same process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub(crate) async fn post(cloud: &LocalCloud, path: &str, body: Value) -> reqwest::Response {
    http()
        .post(format!("{}{path}", cloud.base_url()))
        .json(&body)
        .send()
        .await
        .unwrap()
}

pub(crate) async fn get(cloud: &LocalCloud, path: &str) -> reqwest::Response {
    http()
        .get(format!("{}{path}", cloud.base_url()))
        .send()
        .await
        .unwrap()
}

/// A background message request with these messages.
pub(crate) fn request(messages: Value) -> Value {
    json!({"messages": messages, "streaming": true, "stream_tokens": true, "include_pings": true,
        "background": true, "client_tools": []})
}

/// A background request with one user message.
pub(crate) fn say(text: &str, otid: &str) -> Value {
    request(json!([{"role": "user", "content": text, "otid": otid}]))
}

/// The JSON chunks of an event stream; `event: error` bodies included.
pub(crate) fn chunks(body: &str) -> Vec<Value> {
    body.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter_map(|data| serde_json::from_str(data).ok())
        .collect()
}

/// Sends to a conversation and reads the stream to its end.
pub(crate) async fn send(cloud: &LocalCloud, conversation: &str, body: Value) -> Vec<Value> {
    let path = format!("/v1/conversations/{conversation}/messages");
    let response = post(cloud, &path, body).await;
    assert_eq!(response.status(), 200);
    chunks(&response.text().await.unwrap())
}

/// The stop reason of a stream.
pub(crate) fn stop(chunks: &[Value]) -> &str {
    let stop = chunks.iter().find(|c| c["message_type"] == "stop_reason");
    stop.and_then(|c| c["stop_reason"].as_str())
        .unwrap_or_default()
}

/// The text of a stream.
pub(crate) fn text(chunks: &[Value]) -> String {
    chunks
        .iter()
        .filter(|c| c["message_type"] == "assistant_message")
        .filter_map(|c| c["content"][0]["text"].as_str())
        .collect()
}

/// The call ids that a stream asked approval for.
pub(crate) fn call_ids(chunks: &[Value]) -> Vec<String> {
    let mut ids: Vec<String> = chunks
        .iter()
        .filter_map(|c| Some(c["tool_call"]["tool_call_id"].as_str()?.to_owned()))
        .collect();
    ids.dedup();
    ids
}

pub(crate) type Socket = WebSocketStream<TcpStream>;

/// Opens a WebSocket; `Err` is the HTTP status of a refusal.
pub(crate) async fn socket(cloud: &LocalCloud, path: &str) -> Result<Socket, u16> {
    let stream = TcpStream::connect(("127.0.0.1", cloud.port()))
        .await
        .unwrap();
    let url = format!("ws://127.0.0.1:{}{path}", cloud.port());
    match client_async(url.into_client_request().unwrap(), stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
            Err(response.status().as_u16())
        }
        Err(_) => Err(0),
    }
}

/// Registers a device `d1` named `name` and returns the answer.
pub(crate) async fn register(cloud: &LocalCloud, name: &str) -> Value {
    let body = json!({"deviceId": "d1", "listenerInstanceId": format!("i-{name}"),
        "connectionName": name, "metadata": {"supportsPairedListenerGenerations": true}});
    post(cloud, "/v1/environments/register", body)
        .await
        .json()
        .await
        .unwrap()
}

/// A registered device with its one socket of single mode.
pub(crate) async fn single_device(cloud: &LocalCloud) -> (String, Socket) {
    let answer = register(cloud, "box").await;
    let path = "/v1/environments/ws?deviceId=d1&connectionName=box";
    let socket = socket(cloud, path).await.unwrap();
    (answer["connectionId"].as_str().unwrap().to_owned(), socket)
}

pub(crate) async fn put(socket: &mut Socket, frame: Value) {
    socket.send(Message::text(frame.to_string())).await.unwrap();
}

/// The next text frame as JSON; `Null` when the socket has ended without one.
pub(crate) async fn next(socket: &mut Socket) -> Value {
    let wait = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Value::Null,
                Some(Ok(_)) => {}
            }
        }
    };
    tokio::time::timeout(SOON, wait)
        .await
        .expect("a frame in time")
}

/// How the server closed the socket: `None` when there was no close frame.
pub(crate) async fn closed(socket: &mut Socket) -> Option<(u16, String)> {
    let wait = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => {
                    return frame.map(|f| (f.code.into(), f.reason.to_string()));
                }
                Some(Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    };
    tokio::time::timeout(SOON, wait)
        .await
        .expect("an end in time")
}
