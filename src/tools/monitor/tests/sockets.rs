//! WebSockets that are watched, against a server on a port of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::*;
use crate::tools::task_stop::TaskStop;

type Peer = WebSocketStream<TcpStream>;

/// An address with a token in it, and what a server does with the first client.
async fn served<T, F>(talk: impl FnOnce(TcpStream) -> F + Send + 'static) -> (String, JoinHandle<T>)
where
    T: Send + 'static,
    F: Future<Output = T> + Send,
{
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/s?token=s3cret", server.local_addr().unwrap());
    let task = tokio::spawn(async move { talk(server.accept().await.unwrap().0).await });
    (url, task)
}

/// The same for one that says `messages` and then waits for the end, which it returns.
async fn saying(messages: Vec<Message>) -> (String, JoinHandle<Option<Message>>) {
    served(async |stream| {
        let mut peer = accept_async(stream).await.unwrap();
        for message in messages {
            peer.send(message).await.unwrap();
        }
        last_words(&mut peer).await
    })
    .await
}

/// The last message of a client before its connection is gone.
async fn last_words(peer: &mut Peer) -> Option<Message> {
    let mut last = None;
    while let Some(Ok(message)) = peer.next().await {
        last = Some(message);
    }
    last
}

fn close(code: u16, reason: &str) -> Message {
    Message::Close(Some(CloseFrame {
        code: code.into(),
        reason: reason.to_owned().into(),
    }))
}

/// Watches `url`: the id and the output file.
async fn watched(bench: &Bench, url: &str, more: Value) -> (String, PathBuf) {
    let mut all = json!({"description": "Feed", "ws": {"url": url}});
    all.as_object_mut().unwrap().extend(args(more));
    let outcome = bench.run(&monitor(), args(all)).await;
    assert_eq!(outcome.status, Status::Success, "{outcome:?}");
    let text = text_of(&outcome);
    let id = text.split(['(', ',']).nth(1).unwrap()["task ".len()..].to_owned();
    (id, text.rsplit_once(": ").unwrap().1.into())
}

/// The text of the next event, which tells no secret and no end.
async fn event(bench: &mut Bench) -> String {
    let text = bench.notification().await;
    assert!(
        !text.contains("s3cret") && !text.contains("<status>"),
        "{text}"
    );
    let summary = "<summary>Monitor event: \"Feed\"</summary>";
    assert!(text.contains(summary), "{text}");
    let (_, event) = text.split_once("<event>").unwrap();
    event.split_once("</event>").unwrap().0.to_owned()
}

/// Nothing more is told, and the list of what runs is empty.
async fn over(bench: &mut Bench) {
    let news = bench.news.recv().await.unwrap().1;
    assert!(matches!(news, Injected::BackgroundChanged), "{news:?}");
    assert!(bench.news.try_recv().is_err());
    let processes = &bench.context.processes;
    assert!(processes.listing(&bench.context.scope).is_empty());
}

fn status(bench: &Bench, id: &str) -> &'static str {
    let task = bench.context.processes.find(&bench.context.scope, id);
    task.unwrap().status()
}

#[tokio::test]
async fn messages_become_events_and_the_close_is_the_last() {
    let mut bench = Bench::new();
    let (url, server) = saying(vec![
        Message::text("one\n  \u{1b}[1mtwo\u{1b}[0m\n\n"),
        Message::binary(vec![0, 159, 146, 150]),
        Message::Ping("are you there?".into()),
        Message::text("<three>"),
        close(1000, ""),
    ])
    .await;
    let (id, log) = watched(&bench, &url, json!({"persistent": true})).await;
    assert!(id.starts_with("monitor_"), "{id}");
    assert_eq!(
        event(&mut bench).await,
        "one\ntwo\n[binary frame, 4 bytes]\n&lt;three&gt;"
    );
    assert_eq!(event(&mut bench).await, "[WebSocket closed: 1000]");
    over(&mut bench).await;
    assert_eq!(status(&bench, &id), "completed");
    assert_eq!(server.await.unwrap(), Some(close(1000, "")));
    assert_eq!(
        std::fs::read_to_string(&log).unwrap(),
        "one\n  two\n\n\n[binary frame, 4 bytes]\n<three>\n[WebSocket closed: 1000]\n"
    );
    let mode = std::fs::metadata(&log).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn pings_are_answered() {
    let bench = Bench::new();
    let (url, server) = served(async |stream| {
        let mut peer = accept_async(stream).await.unwrap();
        peer.send(Message::Ping("are you there?".into()))
            .await
            .unwrap();
        peer.next().await.unwrap().unwrap()
    })
    .await;
    watched(&bench, &url, json!({})).await;
    assert_eq!(
        server.await.unwrap(),
        Message::Pong("are you there?".into())
    );
    bench.context.processes.shutdown().await;
}

#[tokio::test]
async fn only_a_normal_close_is_a_success() {
    for (last, word, expected) in [
        (
            Some(close(1000, "all \u{1b}[1mdone")),
            "[WebSocket closed: 1000 all done]",
            "completed",
        ),
        (
            Some(close(1011, "broken")),
            "[WebSocket closed: 1011 broken]",
            "failed",
        ),
        (Some(close(4001, "")), "[WebSocket closed: 4001]", "failed"),
        (
            Some(Message::Close(None)),
            "[WebSocket closed: 1005]",
            "failed",
        ),
        // The connection ends without a word.
        (None, "[WebSocket closed: 1006]", "failed"),
    ] {
        let mut bench = Bench::new();
        let (url, server) = served(async |stream| {
            let mut peer = accept_async(stream).await.unwrap();
            peer.send(Message::text("hello")).await.unwrap();
            if let Some(last) = last {
                peer.send(last).await.unwrap();
                last_words(&mut peer).await;
            }
        })
        .await;
        let (id, _) = watched(&bench, &url, json!({})).await;
        server.await.unwrap();
        assert_eq!(event(&mut bench).await, "hello");
        assert_eq!(event(&mut bench).await, word);
        over(&mut bench).await;
        assert_eq!(status(&bench, &id), expected, "{word}");
    }
}

#[tokio::test]
async fn what_breaks_the_protocol_is_an_error_and_a_close() {
    let mut bench = Bench::new();
    let (url, _server) = served(async |stream| {
        let peer = accept_async(stream).await.unwrap();
        // A text frame of one byte that is no UTF-8.
        let mut raw = peer.into_inner();
        raw.write_all(&[0x81, 1, 0xff]).await.unwrap();
        raw
    })
    .await;
    let (id, log) = watched(&bench, &url, json!({})).await;
    let error = event(&mut bench).await;
    assert!(error.starts_with("[WebSocket error: "), "{error}");
    assert_eq!(event(&mut bench).await, "[WebSocket closed: 1006]");
    over(&mut bench).await;
    assert_eq!(status(&bench, &id), "failed");
    let message = &error["[WebSocket error: ".len()..error.len() - 1];
    assert_eq!(
        std::fs::read_to_string(log).unwrap(),
        format!("[stderr] {message}\n[WebSocket closed: 1006]\n")
    );
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_says_why() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = format!("ws://{}/?token=s3cret", unused.local_addr().unwrap());
    drop(unused);
    let answer = |text: &'static str| {
        served(async move |mut stream: TcpStream| {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
        })
    };
    let moved = "HTTP/1.1 302 Found\r\nlocation: ws://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let closed = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
    for (url, expected) in [
        (refused, "refused"),
        (answer(closed).await.0, "HTTP 403"),
        (answer(moved).await.0, "HTTP 302"),
        (
            answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
                .0,
            "HTTP 200",
        ),
    ] {
        let mut bench = Bench::new();
        let (id, log) = watched(&bench, &url, json!({"persistent": true})).await;
        let error = event(&mut bench).await;
        assert!(error.starts_with("[WebSocket error: "), "{error}");
        assert!(error.contains(expected), "{error}");
        assert_eq!(event(&mut bench).await, "[WebSocket closed: 1006]");
        over(&mut bench).await;
        assert_eq!(status(&bench, &id), "failed");
        let log = std::fs::read_to_string(log).unwrap();
        assert!(
            log.starts_with("[stderr] ") && !log.contains("s3cret"),
            "{log}"
        );
    }
}

#[tokio::test]
async fn the_server_must_choose_one_of_the_subprotocols() {
    for (header, expected) in [
        ("sec-websocket-protocol: v2\r\n", "[WebSocket closed: 1000]"),
        (
            "",
            "[WebSocket error: the server chose none of the subprotocols]",
        ),
        (
            "sec-websocket-protocol: v3\r\n",
            "[WebSocket error: the server chose a subprotocol that it was not offered]",
        ),
    ] {
        let mut bench = Bench::new();
        let (url, server) = served(async move |mut stream| {
            let (key, request) = request_of(&mut stream).await;
            let accept =
                tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-accept: {accept}\r\n{header}\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            // A close frame with 1000.
            stream.write_all(&[0x88, 2, 3, 0xe8]).await.unwrap();
            request
        })
        .await;
        let ws = json!({"ws": {"url": url, "protocols": ["v1", "v2"]}});
        watched(&bench, &url, ws).await;
        assert_eq!(event(&mut bench).await, expected);
        let request = server.await.unwrap().to_lowercase();
        assert!(
            request.contains("\r\nsec-websocket-protocol: v1,v2\r\n"),
            "{request}"
        );
        assert!(request.starts_with("get /s?token=s3cret http/1.1"));
        assert!(!request.contains("authorization"), "{request}");
    }
}

/// The key and the whole of an upgrade request.
async fn request_of(stream: &mut TcpStream) -> (String, String) {
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap().into());
    }
    let mut lines = request.lines();
    let key = lines.find(|line| line.to_lowercase().starts_with("sec-websocket-key: "));
    let (_, key) = key.unwrap().split_once(": ").unwrap();
    (key.to_owned(), request.clone())
}

#[tokio::test]
async fn a_message_above_a_mebibyte_closes_the_connection_and_is_not_kept() {
    const MIB: usize = 1024 * 1024;
    for (message, size) in [
        (Message::text("x".repeat(MIB + 1)), MIB + 1),
        (Message::binary(vec![0; 3 * MIB]), 3 * MIB),
    ] {
        let mut bench = Bench::new();
        let (url, server) = served(async |stream| {
            let mut peer = accept_async(stream).await.unwrap();
            peer.send(Message::text("y".repeat(MIB))).await.unwrap();
            // The client may be gone before it has read all of it.
            drop(peer.send(message).await);
            while let Some(Ok(_)) = peer.next().await {}
        })
        .await;
        let (id, log) = watched(&bench, &url, json!({})).await;
        let first = event(&mut bench).await;
        assert_eq!(first, format!("{}...(truncated)", "y".repeat(500)));
        assert_eq!(
            event(&mut bench).await,
            format!("[Dropped {size}-byte frame (more than 1048576); closing]")
        );
        over(&mut bench).await;
        assert_eq!(status(&bench, &id), "failed");
        server.await.unwrap();
        let log = std::fs::read_to_string(log).unwrap();
        let kept = "y".repeat(MIB);
        let note = "\n[output truncated at 1048576 bytes]\n";
        let word = format!("[Dropped {size}-byte frame (more than 1048576); closing]\n");
        assert!(log == kept + note + &word, "{}", log.len());
    }
}

#[tokio::test]
async fn a_timeout_is_one_event_and_closes_the_connection() {
    let mut bench = Bench::new();
    let (url, server) = saying(Vec::new()).await;
    let (id, log) = watched(&bench, &url, json!({"timeout_ms": 1000})).await;
    assert_eq!(
        event(&mut bench).await,
        "[Monitor timed out. Start it again if it is still needed.]"
    );
    over(&mut bench).await;
    assert_eq!(status(&bench, &id), "failed");
    assert_eq!(server.await.unwrap(), Some(close(1000, "")));
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log, "\n[timeout after 1000ms]\n");
}

#[tokio::test]
async fn a_server_that_never_answers_is_left_at_the_timeout() {
    let mut bench = Bench::new();
    let (url, server) = served(async |mut stream| {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
    })
    .await;
    watched(&bench, &url, json!({"timeout_ms": 1000})).await;
    let last = event(&mut bench).await;
    assert!(last.starts_with("[Monitor timed out."), "{last}");
    over(&mut bench).await;
    server.await.unwrap();
}

#[tokio::test]
async fn a_handshake_takes_half_a_minute_at_most() {
    let mut bench = Bench::new();
    let (asked, mut heard) = tokio::sync::mpsc::channel(1);
    let (url, server) = served(async move |mut stream| {
        asked.send(stream.read_u8().await.unwrap()).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    })
    .await;
    watched(&bench, &url, json!({"persistent": true})).await;
    assert_eq!(heard.recv().await, Some(b'G'));
    tokio::time::pause();
    assert_eq!(
        event(&mut bench).await,
        "[WebSocket error: the server did not finish the handshake within 30 s]"
    );
    assert_eq!(event(&mut bench).await, "[WebSocket closed: 1006]");
    over(&mut bench).await;
    server.await.unwrap();
}

#[tokio::test]
async fn it_is_listed_and_a_person_or_the_model_stops_it() {
    for by_person in [true, false] {
        let mut bench = Bench::new();
        let (url, server) = saying(vec![Message::text("hello")]).await;
        let (id, log) = watched(&bench, &url, json!({"persistent": true})).await;
        assert_eq!(event(&mut bench).await, "hello");
        let processes = bench.context.processes.clone();
        let listed = processes.listing(&bench.context.scope).remove(0);
        assert!(!listed.to_string().contains("s3cret"));
        assert_eq!(
            (&listed["kind"], &listed["source"], &listed["status"]),
            (&json!("monitor"), &json!("websocket"), &json!("running"))
        );
        assert_eq!(
            (
                &listed["process_id"],
                &listed["description"],
                &listed["persistent"]
            ),
            (&json!(id), &json!("Feed"), &json!(true))
        );
        if by_person {
            let conversation = bench.context.conversation.clone();
            assert_eq!(
                processes.stop_monitor(&conversation, &id, Some("user-1".into())),
                Ok(true)
            );
            let told = event(&mut bench).await;
            assert!(told.starts_with("The user stopped this monitor."), "{told}");
        } else {
            let stopped = bench
                .run(&TaskStop::by_task_id(), args(json!({"task_id": id})))
                .await;
            assert_eq!(text_of(&stopped), "Process killed successfully");
            // The tool tells at once that the list changed.
            assert!(matches!(
                bench.news.recv().await.unwrap().1,
                Injected::BackgroundChanged
            ));
        }
        over(&mut bench).await;
        assert_eq!(server.await.unwrap(), Some(close(1000, "")));
        assert_eq!(status(&bench, &id), "failed");
        assert_eq!(
            std::fs::read_to_string(log).unwrap(),
            "hello\n\n[stopped]\n"
        );
        let again = bench
            .run(&TaskStop::by_task_id(), args(json!({"task_id": id})))
            .await;
        assert!(text_of(&again).starts_with("Failed to kill process"));
    }
}

#[tokio::test]
async fn a_shutdown_closes_what_is_open_and_what_still_opens() {
    let mut bench = Bench::new();
    let (open, one) = saying(vec![Message::text("hello")]).await;
    let (asked, mut heard) = tokio::sync::mpsc::channel(1);
    let (opening, other) = served(async move |mut stream| {
        let mut rest = Vec::new();
        asked.send(stream.read_u8().await.unwrap()).await.unwrap();
        stream.read_to_end(&mut rest).await.unwrap();
    })
    .await;
    watched(&bench, &open, json!({"persistent": true})).await;
    watched(&bench, &opening, json!({"persistent": true})).await;
    assert_eq!(event(&mut bench).await, "hello");
    assert_eq!(heard.recv().await, Some(b'G'));
    bench.context.processes.shutdown().await;
    assert_eq!(one.await.unwrap(), Some(close(1000, "")));
    other.await.unwrap();
    let one_more = json!({"description": "d", "ws": {"url": open}});
    let refused = text_of(&bench.run(&monitor(), args(one_more)).await);
    assert!(refused.contains("shutting down"), "{refused}");
}

#[tokio::test]
async fn watched_sockets_count_among_what_may_run_at_once() {
    let bench = Bench::new();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", server.local_addr().unwrap());
    for _ in 0..32 {
        watched(&bench, &url, json!({})).await;
    }
    let one_more = json!({"description": "d", "ws": {"url": url}});
    let refused = bench.run(&monitor(), args(one_more)).await;
    assert_eq!(refused.status, Status::Error);
    assert!(text_of(&refused).contains("(32/32)"), "{refused:?}");
    bench.context.processes.shutdown().await;
}

#[tokio::test]
async fn an_output_file_that_cannot_be_made_opens_nothing() {
    let bench = Bench::with_variables(&[("LETTA_SCRATCHPAD", "/proc/none")]);
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", server.local_addr().unwrap());
    let outcome = bench
        .run(
            &monitor(),
            args(json!({"description": "d", "ws": {"url": url}})),
        )
        .await;
    assert!(
        text_of(&outcome).contains("cannot be written"),
        "{outcome:?}"
    );
    bench.context.processes.shutdown().await;
    let mut asked = std::pin::pin!(server.accept());
    assert!(futures_util::poll!(&mut asked).is_pending());
}

#[tokio::test]
async fn a_flood_is_told_in_part_and_stopped_after_half_a_minute() {
    let mut bench = Bench::new();
    let (url, server) = served(async |stream| {
        let mut peer = accept_async(stream).await.unwrap();
        // Each message is an event of its own. The clock is not the real one.
        for n in 0..1000 {
            if peer.send(Message::text(format!("{n}"))).await.is_err() {
                return n;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        1000
    })
    .await;
    let (id, _) = watched(&bench, &url, json!({"persistent": true})).await;
    assert_eq!(event(&mut bench).await, "0");
    tokio::time::pause();
    let mut told = 1;
    let last = loop {
        let event = event(&mut bench).await;
        told += 1;
        if event.starts_with("[Monitor stopped: too much output") {
            break event;
        }
    };
    assert!((15..60).contains(&told), "{told} events before {last}");
    assert!((130..200).contains(&server.await.unwrap()));
    over(&mut bench).await;
    assert_eq!(status(&bench, &id), "failed");
}
