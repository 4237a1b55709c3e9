//! Headers, retries, limits and the resources' requests.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json as value};
use tokio::sync::Notify;

use super::*;
use crate::api::environments::{RegisterError, Registration};
use crate::api::runs::RunOwner;
use crate::api::token::CredentialError;
use crate::api::{ApiError, Path};

#[tokio::test]
async fn sdk_calls_carry_all_headers_and_raw_calls_few() {
    let ok = || json(200, &value!({}));
    let server = Server::answering([ok(), ok(), ok()]).await;
    let settings = ClientSettings {
        device_id: Some(" dev-1 ".into()),
        memfs_hosted: true,
        acting_user_id: Some("user-env".into()),
        ..settings(&format!("{}///", server.url))
    };
    let client = client_with(&settings);
    client.agent("agent-1").await.unwrap();
    let raw = client
        .acting_as(Some("user-9"))
        .raw_call(Method::POST, Path::at("/raw"));
    raw.json(&value!({"a": 1})).value().await.unwrap();
    client.acting_as(None).run("run-1").await.unwrap_err();

    let seen = server.seen();
    let sdk = &seen[0];
    assert_eq!(
        (sdk.method.as_str(), sdk.uri.as_str()),
        ("GET", "/v1/agents/agent-1")
    );
    for (name, expected) in [
        ("authorization", Some("Bearer key-1")),
        ("x-letta-source", Some("letta-code")),
        ("accept", Some("application/json")),
        ("x-letta-environment-device-id", Some("dev-1")),
        ("x-letta-memfs-backend", Some("hosted")),
        ("x-letta-acting-user-id", None),
    ] {
        assert_eq!(sdk.header(name), expected, "{name}");
    }
    let agent = sdk.header("user-agent").unwrap();
    assert!(agent.starts_with("letta-code/0.32.18 letta/"), "{agent}");

    let raw = &seen[1];
    assert_eq!(raw.header("x-letta-environment-device-id"), None);
    assert_eq!(raw.header("x-letta-memfs-backend"), None);
    assert_eq!(raw.header("content-type"), Some("application/json"));
    assert_eq!(raw.header("x-letta-acting-user-id"), Some("user-9"));
    assert_eq!(raw.header("authorization"), Some("Bearer key-1"));
    assert_eq!(raw.body, value!({"a": 1}));
    assert_eq!(
        seen[2].header("x-letta-acting-user-id"),
        Some("user-env"),
        "the environment names whoever nobody else names"
    );
}

#[tokio::test]
async fn without_a_key_nothing_is_said_about_authorization() {
    let server = Server::answering([json(200, &value!({}))]).await;
    let tokens = Arc::new(StaticToken(None));
    let client = Client::new(net(), tokens, &settings(&server.url)).unwrap();
    client.conversation("conv-1").await.unwrap();
    assert_eq!(server.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_key_that_no_header_can_carry_is_told_without_showing_it() {
    let server = Server::answering([]).await;
    let tokens = Arc::new(StaticToken(Some(Secret::new("hunter2\n"))));
    let client = Client::new(net(), tokens, &settings(&server.url)).unwrap();
    let error = client.models().await.unwrap_err();
    assert!(matches!(
        error,
        ApiError::Credentials(CredentialError::Unsendable)
    ));
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn ordinary_calls_are_retried_twice_and_keep_their_body() {
    let server = Server::answering([
        answer(503, &[("retry-after-ms", "1")], "<html>down</html>"),
        answer(409, &[("retry-after", "0")], ""),
        json(200, &value!({"id": "agent-1", "new_field": {"kept": true}})),
    ])
    .await;
    let agent = client(&server)
        .update_agent("agent-1", &value!({"tags": ["a"]}))
        .await
        .unwrap();
    assert_eq!(agent["new_field"]["kept"], true);
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    for request in &seen {
        assert_eq!(request.body, value!({"tags": ["a"]}));
    }
}

#[tokio::test]
async fn the_third_failure_is_given_to_the_caller() {
    let busy = || answer(503, &[("retry-after", "0")], "busy");
    let server = Server::answering([busy(), busy(), busy(), busy()]).await;
    let error = client(&server).models().await.unwrap_err();
    assert_eq!(error.to_string(), "503 busy");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn what_is_not_retried_fails_at_once() {
    for answer in [
        answer(404, &[], r#"{"detail":"Agent not found"}"#),
        answer(500, &[("x-should-retry", "false")], "no"),
        answer(503, &[("retry-after", "3600")], "much later"),
        answer(200, &[], "<html>not JSON</html>"),
    ] {
        let server = Server::answering([answer]).await;
        assert!(client(&server).models().await.is_err());
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_refused_connection_is_a_connection_error_with_a_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = client_with(&settings(&url));
    let call = client.call(Method::GET, Path::at("/v1/models/"));
    let error = call.retries(0).value().await.unwrap_err();
    assert_eq!(error.to_string(), "Connection error.");
    assert!(format!("{error:?}").contains("refused"), "{error:?}");
    assert_eq!(error.status(), None);
}

/// A server that accepts and never answers.
async fn silent_server() -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut open = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            open.push(socket);
        }
    });
    (url, task)
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_times_out() {
    let (url, _task) = silent_server().await;
    let client = client_with(&ClientSettings {
        timeout: Duration::from_secs(45),
        ..settings(&url)
    });
    let begun = tokio::time::Instant::now();
    let call = client.call(Method::GET, Path::at("/v1/models/"));
    let error = call.retries(0).value().await.unwrap_err();
    assert!(matches!(error, ApiError::Timeout));
    assert_eq!(error.to_string(), "Request timed out.");
    assert_eq!(begun.elapsed().as_secs(), 45);
}

#[tokio::test]
async fn the_limit_ends_ordinary_bodies_but_not_streams() {
    let limit = Duration::from_secs(30);
    let (waiting, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let two_pieces = |kind: &'static str| {
        let (waiting, gate) = (waiting.clone(), gate.clone());
        let pieces = futures_util::stream::unfold(0, move |step| {
            let (waiting, gate) = (waiting.clone(), gate.clone());
            async move {
                if step == 1 {
                    waiting.notify_one();
                    gate.notified().await;
                }
                (step < 2).then_some((Ok::<_, std::io::Error>("data: {}\n\n"), step + 1))
            }
        });
        answer(200, &[("content-type", kind)], Body::from_stream(pieces))
    };
    let pass_the_limit = || async {
        waiting.notified().await;
        tokio::time::pause();
        tokio::time::advance(limit * 2).await;
        tokio::time::resume();
    };
    let kinds = ["text/event-stream", "application/json"];
    let server = Server::answering(kinds.map(two_pieces)).await;
    let client = client_with(&ClientSettings {
        timeout: limit,
        ..settings(&server.url)
    });
    let mut stream = client.run_stream("run-1", 7).await.unwrap();
    stream.next().await.unwrap().unwrap();
    pass_the_limit().await;
    gate.notify_one();
    stream.next().await.unwrap().unwrap();
    assert!(stream.next().await.is_none());
    assert_eq!(
        server.seen()[0].body,
        value!({"starting_after": 7, "batch_size": 1000})
    );

    let call = client.call(Method::GET, Path::at("/v1/models/")).retries(0);
    let (outcome, ()) = tokio::join!(call.value(), pass_the_limit());
    assert!(matches!(outcome, Err(ApiError::Timeout)));
}

#[tokio::test]
async fn answers_are_bounded() {
    let endless = || {
        let pieces = futures_util::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b' '; 1 << 20]))
        });
        answer(200, &[], Body::from_stream(pieces))
    };
    let server = Server::answering([endless()]).await;
    let error = client(&server).models().await.unwrap_err();
    assert!(matches!(error, ApiError::TooLarge { .. }), "{error}");

    let big = answer(400, &[], "x".repeat(3 << 20));
    let server = Server::answering([big]).await;
    let error = client(&server).models().await.unwrap_err();
    assert!(error.to_string().len() < 300 << 10);
}

#[tokio::test]
async fn concurrent_reads_of_an_agent_share_one_request() {
    let agent = || json(200, &value!({"id": "agent-1"}));
    let server = Server::answering([agent(), agent()]).await;
    let client = client(&server);
    let other = client.clone();
    let (a, b) = tokio::join!(client.agent("agent-1"), other.agent("agent-1"));
    assert!(Arc::ptr_eq(&a.unwrap(), &b.unwrap()));
    assert_eq!(server.seen().len(), 1);
    client.agent("agent-1").await.unwrap();
    assert_eq!(server.seen().len(), 2, "nothing is kept");
}

#[tokio::test]
async fn queries_repeat_arrays_and_join_objects() {
    let server = Server::answering([json(200, &value!([]))]).await;
    let query = value!({"tags": ["a b", "c"], "f": {"x": 1}, "none": null, "on": true});
    client(&server)
        .agents(query.as_object().unwrap())
        .await
        .unwrap();
    assert_eq!(
        server.seen()[0].uri,
        "/v1/agents/?tags=a+b&tags=c&f.x=1&on=true"
    );
}

#[tokio::test]
async fn bad_ids_are_refused_before_anything_is_sent() {
    let server = Server::answering([]).await;
    for id in ["", ".", ".."] {
        let error = client(&server).delete_agent(id).await.unwrap_err();
        assert!(matches!(error, ApiError::Invalid { .. }), "{id:?}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn secrets_fall_back_to_the_agent_where_the_endpoint_is_missing() {
    let server = Server::answering([
        answer(404, &[], r#"{"detail":"Not Found"}"#),
        json(200, &value!({"secrets": [{"key": "A", "value": "1"}]})),
        json(200, &value!({})),
    ])
    .await;
    let client = client(&server);
    let secrets = client.agent_secrets("agent-1").await.unwrap();
    assert_eq!(secrets["A"].expose(), "1");
    client
        .replace_agent_secrets("agent-1", &secrets)
        .await
        .unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].uri, "/v1/agents/agent-1/secrets");
    assert_eq!(seen[1].uri, "/v1/agents/agent-1?include=agent.secrets");
    assert_eq!(seen[2].body, value!({"secrets": {"A": "1"}}));
}

#[tokio::test]
async fn runs_are_found_streamed_and_cancelled_as_specified() {
    let server = Server::answering([
        json(200, &value!([{"id": "run-1", "status": "running"}])),
        json(200, &value!([{"id": "run-2", "status": "completed"}])),
        events(""),
        events(""),
        json(200, &value!({"run-1": "cancelled"})),
        json(200, &value!({})),
    ])
    .await;
    let client = client(&server);
    let run = client.running_run(RunOwner::Conversation("conv-1")).await;
    assert_eq!(run.unwrap().unwrap().id, "run-1");
    let run = client.running_run(RunOwner::Agent("agent-1")).await;
    assert!(run.unwrap().is_none(), "a server may ignore the filter");
    for conversation in ["default", "conv-1"] {
        client
            .request_stream(conversation, Some("agent-1"), "otid-1", 0)
            .await
            .unwrap();
    }
    let outcome = client.cancel_runs("agent-1", &["run-1"]).await.unwrap();
    assert_eq!(outcome["run-1"], "cancelled");
    client.cancel_conversation("conv-1").await.unwrap();

    let seen = server.seen();
    assert_eq!(
        seen[0].uri,
        "/v1/runs/?conversation_id=conv-1&statuses=running&order=desc&limit=1"
    );
    assert_eq!(seen[2].uri, "/v1/conversations/default/stream");
    assert_eq!(
        seen[2].body,
        value!({"otid": "otid-1", "starting_after": 0, "batch_size": 1000, "agent_id": "agent-1"})
    );
    assert_eq!(seen[3].body.get("agent_id"), None);
    assert_eq!(seen[4].body, value!({"run_ids": ["run-1"]}));
    assert_eq!(seen[5].uri, "/v1/conversations/conv-1/cancel");
}

fn registration() -> Registration {
    Registration {
        device_id: "dev-1".into(),
        listener_instance_id: "server-1".into(),
        connection_name: "w1".into(),
        metadata: value!({"lettaCodeVersion": "0.32.18", "supported_commands": ["clear"]})
            .as_object()
            .cloned()
            .unwrap(),
    }
}

#[tokio::test]
async fn registration_sends_its_body_once_and_reads_its_answer() {
    let server = Server::answering([json(
        200,
        &value!({"connectionId": "conn-1", "wsUrl": "ws://x", "supportsSplitStatusChannels": true,
                 "supportsPairedListenerGenerations": "true", "extra": 1}),
    )])
    .await;
    let registered = client(&server).register(&registration()).await.unwrap();
    assert_eq!(registered.connection_id, "conn-1");
    assert!(registered.supports_split_status_channels);
    assert!(
        !registered.supports_paired_listener_generations,
        "only a real true counts"
    );
    let seen = server.seen();
    assert_eq!(seen[0].uri, "/v1/environments/register");
    assert_eq!(
        seen[0].body,
        value!({"deviceId": "dev-1", "listenerInstanceId": "server-1", "connectionName": "w1",
                "metadata": {"lettaCodeVersion": "0.32.18", "supported_commands": ["clear"]}})
    );
}

#[tokio::test]
async fn strange_successes_of_registration_are_fatal() {
    for (body, expected) in [
        ("OK", "Server returned non-JSON response"),
        ("", "Server returned non-JSON response"),
        (r#"{"connectionId":"c"}"#, "missing connectionId or wsUrl"),
        (
            r#"{"connectionId":1,"wsUrl":"w"}"#,
            "missing connectionId or wsUrl",
        ),
    ] {
        let server = Server::answering([answer(200, &[], body)]).await;
        let error = client(&server).register(&registration()).await.unwrap_err();
        assert!(matches!(error, RegisterError::Fatal { .. }));
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn registration_is_not_retried_silently_and_caps_what_the_server_asks() {
    let limited = answer(429, &[("retry-after", "86400")], "slow down");
    let server = Server::answering([limited]).await;
    let error = client(&server).register(&registration()).await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(error.retry_after(), Some(Duration::from_secs(300)));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn runtime_status_asks_for_several_conversations_at_once() {
    let statuses: Value = value!({"statuses": [{"conversation_id": "a", "state": "IDLE"}]});
    let server = Server::answering([json(200, &statuses)]).await;
    let found = client(&server)
        .runtime_status("agent-1", &["a", "b"])
        .await
        .unwrap();
    assert!(found[0].may_recover("conn-1"));
    assert_eq!(
        server.seen()[0].uri,
        "/v1/agents/agent-1/runtime-status?conversation_ids=a%2Cb"
    );
}
