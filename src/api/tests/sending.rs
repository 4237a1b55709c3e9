//! The message request: its body, its answer and the two silent repeats.

use serde_json::value::RawValue;
use serde_json::{Value, json as value};

use super::*;
use crate::api::messages::{MessageRequest, Sent};
use crate::api::{ApiError, StreamError};
use crate::protocol::Scope;

fn raw(text: &str) -> Arc<RawValue> {
    RawValue::from_string(text.into()).unwrap().into()
}

async fn send(client: &Client, scope: &Scope) -> Result<Sent, ApiError> {
    let messages = [value!({"role": "user", "content": "hi", "otid": "o1"})];
    let request = MessageRequest {
        scope,
        messages: &messages,
        client_tools: raw(r#"[{"name":"Bash"}]"#),
        client_skills: raw("[]"),
        response_format: None,
        response_state: Some("c3RhdGU"),
    };
    client.send_messages(&request).await
}

fn default() -> Scope {
    Scope::new(Some("agent-1"), None)
}

#[tokio::test]
async fn the_body_is_the_specified_one_and_the_answer_streams() {
    let body = "data: {\"message_type\":\"ping\",\"run_id\":\"r1\"}\n\ndata: [DONE]\n\n";
    let server = Server::answering([events(body), events("")]).await;
    let client = client(&server).acting_as(Some("user-9"));
    let mut sent = send(&client, &default()).await.unwrap();
    assert!(sent.resumable);
    let chunk = sent.stream.next().await.unwrap().unwrap();
    assert_eq!(
        (&*chunk.message_type, chunk.run_id.as_deref()),
        ("ping", Some("r1"))
    );
    assert!(sent.stream.next().await.is_none() && sent.stream.saw_done());
    send(&client, &Scope::new(Some("agent-1"), Some("conv-1")))
        .await
        .unwrap();

    let seen = server.seen();
    assert_eq!(seen[0].uri, "/v1/conversations/default/messages");
    assert_eq!(
        seen[0].body,
        value!({
            "messages": [{"role": "user", "content": "hi", "otid": "o1"}],
            "streaming": true, "stream_tokens": true, "include_pings": true, "background": true,
            "client_tools": [{"name": "Bash"}], "client_skills": [],
            "include_compaction_messages": true, "agent_id": "agent-1",
        })
    );
    assert_eq!(seen[0].header("x-letta-response-state"), Some("c3RhdGU"));
    assert_eq!(seen[0].header("x-letta-acting-user-id"), Some("user-9"));
    assert_eq!(seen[1].uri, "/v1/conversations/conv-1/messages");
    assert_eq!(seen[1].body.get("agent_id"), None);
}

#[tokio::test]
async fn a_default_conversation_without_agent_sends_nothing() {
    let server = Server::answering([]).await;
    let error = send(&client(&server), &Scope::new(None, None)).await;
    assert!(matches!(error, Err(ApiError::Invalid { .. })));
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn errors_are_never_repeated_silently() {
    for status in [409, 429, 500, 503] {
        let server = Server::answering([answer(status, &[("retry-after", "0")], "x")]).await;
        let error = send(&client(&server), &default()).await.unwrap_err();
        assert_eq!(error.status(), Some(status));
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_success_that_is_no_event_stream_is_an_error() {
    for (answer, expected) in [
        (
            answer(200, &[("content-type", "text/html")], "<html>"),
            "received text/html (HTTP 200)",
        ),
        (
            answer(202, &[], "{}"),
            "received no content type (HTTP 202)",
        ),
    ] {
        let server = Server::answering([answer]).await;
        let error = send(&client(&server), &default()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(crate::api::classify::retry_before_stream(
            error.status(),
            &error.detail()
        ));
    }
}

#[tokio::test]
async fn a_server_without_redis_is_asked_without_background_from_then_on() {
    let refusal = value!({"detail": "Background streaming requires Redis to be running. Set it."});
    let server = Server::answering([json(503, &refusal), events(""), events("")]).await;
    let client = client(&server);
    assert!(!send(&client, &default()).await.unwrap().resumable);
    assert!(!send(&client.clone(), &default()).await.unwrap().resumable);
    let background: Vec<Value> = server
        .seen()
        .iter()
        .map(|seen| seen.body["background"].clone())
        .collect();
    assert_eq!(background, [true, false, false]);
    assert_eq!(
        server.seen()[0].body["messages"],
        server.seen()[1].body["messages"]
    );
}

#[tokio::test]
async fn a_cloud_that_shuts_down_is_asked_three_times_more() {
    let refusal =
        value!({"errorCode": "cloud_api_shutting_down", "admitted": false, "retryable": true});
    let down = || answer(503, &[("retry-after", "0")], refusal.to_string());
    let server = Server::answering([down(), down(), down(), events("")]).await;
    assert!(send(&client(&server), &default()).await.is_ok());
    let server = Server::answering([down(), down(), down(), down(), events("")]).await;
    let error = send(&client(&server), &default()).await.unwrap_err();
    assert!(crate::api::classify::is_shutdown_rejection(&error));
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_connection_cut_inside_the_stream_is_an_error_of_the_stream() {
    let cut = Arc::new(tokio::sync::Notify::new());
    let gate = cut.clone();
    let pieces = futures_util::stream::unfold(false, move |sent| {
        let gate = gate.clone();
        async move {
            if sent {
                gate.notified().await;
                return Some((Err(std::io::Error::other("cut here")), true));
            }
            Some((Ok("data: {}\n\n"), true))
        }
    });
    let kind = [("content-type", "text/event-stream")];
    let server = Server::answering([answer(200, &kind, Body::from_stream(pieces))]).await;
    let mut sent = send(&client(&server), &default()).await.unwrap();
    sent.stream.next().await.unwrap().unwrap();
    cut.notify_one();
    let error = sent.stream.next().await.unwrap().unwrap_err();
    assert!(matches!(error, StreamError::Connection { .. }));
    assert_eq!(error.detail(), "Connection error.");
    assert!(sent.stream.next().await.is_none(), "nothing after an error");
}
