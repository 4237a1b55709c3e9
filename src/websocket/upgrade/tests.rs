use super::*;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::websocket::over;

fn client() -> reqwest::Client {
    // A second installation in the same process is refused, which is fine.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A server that answers one request with raw bytes and then keeps the
/// connection; the address to dial.
async fn answering(answer: &'static str) -> Url {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ws?token=s3cret", server.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut peer, _) = server.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = peer.read(&mut request).await.unwrap();
        peer.write_all(answer.as_bytes()).await.unwrap();
        while peer.read(&mut request).await.is_ok_and(|len| len > 0) {}
    });
    url.parse().unwrap()
}

#[tokio::test]
async fn s01_15_row01_an_upgrade_carries_the_bearer_and_yields_a_websocket() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = seen.clone();
    let relay = tokio::spawn(async move {
        for _ in 0..2 {
            let (peer, _) = server.accept().await.unwrap();
            #[expect(clippy::result_large_err, reason = "the callback's type is given")]
            let note = |request: &Request, response: Response| {
                let header = |name: &str| {
                    let value = request.headers().get(name);
                    value.map(|value| value.to_str().unwrap().to_owned())
                };
                requests.lock().unwrap().push((
                    request.uri().to_string(),
                    header("authorization"),
                    header("origin"),
                    header("sec-websocket-protocol"),
                ));
                Ok::<Response, ErrorResponse>(response)
            };
            let mut socket = accept_hdr_async(peer, note).await.unwrap();
            socket.send(Message::text("hello")).await.unwrap();
        }
    });
    let client = client();
    for bearer in [Some("key-1"), None] {
        let url: Url = format!("http://{address}/ws?deviceId=d").parse().unwrap();
        let wire = upgrade(&client, &url, bearer, &[]).await.unwrap();
        let mut socket = over(wire, Role::Client, 4096, 4096).await;
        assert_eq!(
            socket.next().await.unwrap().unwrap(),
            Message::text("hello")
        );
        assert!(
            socket.next().await.unwrap().is_err(),
            "no closing handshake"
        );
        assert!(socket.next().await.is_none());
    }
    relay.await.unwrap();
    let uri = String::from("/ws?deviceId=d");
    let bearer = Some(String::from("Bearer key-1"));
    assert_eq!(
        *seen.lock().unwrap(),
        [(uri.clone(), bearer, None, None), (uri, None, None, None)]
    );
}

#[tokio::test]
async fn what_is_no_websocket_server_is_told_from_what_is() {
    let client = client();
    for (answer, expected) in [
        (
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
            "HTTP 401",
        ),
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP 404",
        ),
        ("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "HTTP 503"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK", "HTTP 200"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            "no WebSocket server",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
            "no WebSocket server",
        ),
        ("SSH-2.0-OpenSSH_9.9\r\n", ""),
    ] {
        let url = answering(answer).await;
        let error = upgrade(&client, &url, Some("key-1"), &[])
            .await
            .err()
            .unwrap();
        assert!(error.contains(expected), "{error}");
        for secret in ["s3cret", "key-1"] {
            assert!(!error.contains(secret), "{error}");
        }
    }
}

#[tokio::test]
async fn a_refused_connection_says_why() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}/ws?token=s3cret", server.local_addr().unwrap())
        .parse()
        .unwrap();
    drop(server);
    let error = upgrade(&client(), &url, None, &[]).await.err().unwrap();
    assert!(error.to_lowercase().contains("refused"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn a_token_that_fits_no_header_is_not_shown() {
    let url: Url = "http://127.0.0.1:1/ws".parse().unwrap();
    let error = upgrade(&client(), &url, Some("s3\ncret"), &[])
        .await
        .err()
        .unwrap();
    assert!(
        error.contains("API key") && !error.contains("cret"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_never_answers_is_left_by_the_callers_deadline() {
    let url = answering("").await;
    let client = client();
    let dialled = timeout(Duration::from_millis(50), upgrade(&client, &url, None, &[])).await;
    assert!(dialled.is_err());
}
