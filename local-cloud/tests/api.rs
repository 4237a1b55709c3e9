//! The Letta API: approvals, de-duplication, resuming, cancelling, forgetting nothing.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the helpers of tests"
)]

mod support;

use local_cloud::Options;
use serde_json::{Value, json};
use support::*;

fn result_of(id: &str) -> Value {
    json!({"type": "tool", "tool_call_id": id, "tool_return": "ok", "status": "success"})
}

fn approve(ids: &[&str], otid: &str) -> Value {
    let approvals: Vec<Value> = ids.iter().map(|id| result_of(id)).collect();
    request(json!([{"type": "approval", "approvals": approvals, "otid": otid}]))
}

fn error_detail(chunks: &[Value]) -> String {
    let error = chunks.iter().find(|c| c["message_type"] == "error_message");
    error
        .and_then(|c| c["detail"].as_str())
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn a_call_waits_until_exactly_its_result_comes() {
    let cloud = cloud().await;
    let script = "CALLID call-1 Bash {\"command\":\"ls\"}\nCALLID call-2 Read {}\nSAY done";
    let first = send(&cloud, "conv-1", say(script, "o1")).await;
    assert_eq!(stop(&first), "requires_approval");
    assert_eq!(call_ids(&first), ["call-1", "call-2"]);

    let plain = send(&cloud, "conv-1", say("hello", "o2")).await;
    assert_eq!(stop(&plain), "error");
    assert!(error_detail(&plain).contains("waiting for approval on a tool call"));

    let wrong = send(&cloud, "conv-1", approve(&["call-1"], "o3")).await;
    assert!(
        error_detail(&wrong).contains("Invalid tool call IDs. Expected '['call-1', 'call-2']'")
    );

    let right = send(&cloud, "conv-1", approve(&["call-2", "call-1"], "o4")).await;
    assert_eq!((stop(&right), text(&right).as_str()), ("end_turn", "done"));

    let repeated = send(&cloud, "conv-1", approve(&["call-1", "call-2"], "o5")).await;
    assert_eq!(stop(&repeated), "end_turn");

    let unknown = send(&cloud, "conv-1", approve(&["call-9"], "o6")).await;
    assert!(error_detail(&unknown).contains("No tool call is currently awaiting approval"));
}

#[tokio::test]
async fn the_last_message_in_context_shows_what_is_pending() {
    let cloud = cloud().await;
    send(&cloud, "conv-1", say("CALLID call-1 Bash {}", "o1")).await;
    let conversation: Value = get(&cloud, "/v1/conversations/conv-1")
        .await
        .json()
        .await
        .unwrap();
    let last = conversation["in_context_message_ids"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    let path = format!("/v1/messages/{}", last.as_str().unwrap());
    let variants: Value = get(&cloud, &path).await.json().await.unwrap();
    let request = &variants.as_array().unwrap().last().unwrap();
    assert_eq!(request["message_type"], "approval_request_message");
    assert_eq!(request["tool_calls"][0]["tool_call_id"], "call-1");

    send(&cloud, "conv-1", approve(&["call-1"], "o2")).await;
    let list: Value = get(&cloud, "/v1/conversations/conv-1/messages?order=asc")
        .await
        .json()
        .await
        .unwrap();
    let kinds: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["message_type"].as_str())
        .collect();
    assert_eq!(
        kinds,
        [
            "user_message",
            "approval_request_message",
            "approval_response_message",
            "tool_return_message",
            "assistant_message"
        ]
    );
}

#[tokio::test]
async fn the_newest_messages_come_first_and_pages_go_on_behind_a_message() {
    let cloud = cloud().await;
    send(&cloud, "conv-1", say("REASON r\nSAY a", "o1")).await;
    let path = "/v1/conversations/conv-1/messages";
    let kinds = |list: &Value| -> Vec<String> {
        let all = list.as_array().unwrap().iter();
        all.map(|m| m["message_type"].as_str().unwrap().to_owned())
            .collect()
    };
    let newest = cloud.api_get(path).await;
    let wanted = ["assistant_message", "reasoning_message", "user_message"];
    assert_eq!(kinds(&newest), wanted);
    let after = format!("{path}?after={}", newest[0]["id"].as_str().unwrap());
    assert_eq!(kinds(&cloud.api_get(&after).await), ["user_message"]);
    let only = format!("{path}?order=asc&limit=1&include_return_message_types=assistant_message");
    assert_eq!(kinds(&cloud.api_get(&only).await), ["assistant_message"]);
}

#[tokio::test]
async fn the_default_conversation_belongs_to_its_agent() {
    let cloud = cloud().await;
    let mut body = say("SAY a", "o1");
    let without_agent = post(&cloud, "/v1/conversations/default/messages", body.clone()).await;
    assert_eq!(without_agent.status(), 422);
    body["agent_id"] = json!("agent-1");
    send(&cloud, "default", body).await;
    let one: Value = get(&cloud, "/v1/agents/agent-1")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(one["message_ids"].as_array().unwrap().len(), 2);
    let two: Value = get(&cloud, "/v1/agents/agent-2")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(two["message_ids"], json!([]));
    assert_eq!(
        get(&cloud, "/v1/agents/agent-missing-1").await.status(),
        404
    );
}

#[tokio::test]
async fn the_same_otids_get_the_same_run() {
    let cloud = cloud().await;
    let first = send(&cloud, "conv-1", say("SAY once", "o1")).await;
    let again = send(&cloud, "conv-1", say("SAY once", "o1")).await;
    assert_eq!(first, again);
    let runs: Value = get(&cloud, "/v1/runs/?conversation_id=conv-1")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(runs.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_stream_goes_on_behind_the_event_that_was_seen() {
    let cloud = cloud().await;
    let all = send(&cloud, "conv-1", say("SPLIT 5\nSAY abcde", "o1")).await;
    let run = all[0]["run_id"].as_str().unwrap();
    for path in [
        format!("/v1/runs/{run}/stream"),
        "/v1/conversations/conv-1/stream".to_owned(),
    ] {
        let body = json!({"otid": "o1", "starting_after": 3, "batch_size": 1000});
        let tail = chunks(&post(&cloud, &path, body).await.text().await.unwrap());
        assert_eq!(tail, all[3..], "{path}");
    }
    let unknown = post(
        &cloud,
        "/v1/conversations/conv-1/stream",
        json!({"otid": "x"}),
    )
    .await;
    assert_eq!(unknown.status(), 404);
    let idle = post(&cloud, "/v1/conversations/conv-1/stream", json!({})).await;
    assert_eq!(idle.status(), 400);
}

#[tokio::test]
async fn a_busy_conversation_refuses_and_names_the_run_that_can_be_cancelled() {
    let cloud = cloud().await;
    let path = "/v1/conversations/conv-1/messages";
    let running = post(&cloud, path, say("SLEEP 60\nSAY late", "o1")).await;
    let refused = post(&cloud, path, say("hi", "o2")).await;
    assert_eq!(refused.status(), 409);
    let refusal: Value = refused.json().await.unwrap();
    let run = refusal["run_id"].as_str().unwrap();
    assert!(
        refusal["detail"]
            .as_str()
            .unwrap()
            .contains(&format!("(run_id={run}) is currently being processed"))
    );
    let body = json!({"run_ids": [run, "run-unknown"]});
    let outcome: Value = post(&cloud, "/v1/agents/agent-local/messages/cancel", body)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(outcome, json!({run: "cancelled", "run-unknown": "failed"}));
    assert_eq!(stop(&chunks(&running.text().await.unwrap())), "cancelled");
    let found: Value = get(&cloud, &format!("/v1/runs/{run}"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(found["status"], "cancelled");
    let idle = post(&cloud, "/v1/conversations/conv-1/cancel", json!({})).await;
    assert_eq!(idle.status(), 409);
}

#[tokio::test]
async fn cancelling_denies_pending_calls_in_a_default_conversation_only() {
    let cloud = cloud().await;
    let mut body = say("CALLID call-1 Bash {}", "o1");
    body["agent_id"] = json!("agent-1");
    send(&cloud, "default", body).await;
    post(&cloud, "/v1/conversations/agent-1/cancel", json!({})).await;
    assert!(
        cloud
            .pending(&local_cloud::Scope::new("agent-1", "default"))
            .is_empty()
    );

    send(&cloud, "conv-1", say("CALLID call-2 Bash {}", "o2")).await;
    post(&cloud, "/v1/conversations/conv-1/cancel", json!({})).await;
    assert_eq!(
        cloud.pending(&local_cloud::Scope::new("agent-1", "conv-1")),
        ["call-2"]
    );
}

#[tokio::test]
async fn a_background_run_outlives_its_reader_and_a_foreground_run_does_not() {
    let cloud = cloud().await;
    for (background, status) in [(true, "completed"), (false, "cancelled")] {
        let mut body = say("SLEEP 0.05\nSAY done", if background { "o1" } else { "o2" });
        body["background"] = json!(background);
        let conversation = format!("conv-{background}");
        let path = format!("/v1/conversations/{conversation}/messages");
        let mut response = post(&cloud, &path, body).await;
        let first = chunks(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
        let run = first[0]["run_id"].as_str().unwrap().to_owned();
        drop(response);
        let ended = async {
            loop {
                let found = cloud.api_get(&format!("/v1/runs/{run}")).await;
                if found["status"] != "running" {
                    return found["status"].clone();
                }
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(tokio::time::timeout(SOON, ended).await.unwrap(), status);
    }
}

#[tokio::test]
async fn without_redis_background_streams_are_refused() {
    let cloud = start(Options {
        redis: false,
        ..Options::default()
    })
    .await;
    let refused = post(&cloud, "/v1/conversations/conv-1/messages", say("hi", "o1")).await;
    assert_eq!(refused.status(), 503);
    let text = refused.text().await.unwrap();
    assert!(text.contains("Background streaming requires Redis to be running"));
    let mut body = say("SAY yes", "o1");
    body["background"] = json!(false);
    assert_eq!(text_of(&cloud, body).await, "yes");
}

async fn text_of(cloud: &local_cloud::LocalCloud, body: Value) -> String {
    text(&send(cloud, "conv-1", body).await)
}

#[tokio::test]
async fn arguments_cut_into_deltas_add_up_to_the_call() {
    let cloud = cloud().await;
    let all = send(
        &cloud,
        "conv-1",
        say("SPLIT 7\nCALL Bash {\"command\":\"echo ü🦀\"}", "o1"),
    )
    .await;
    let deltas: Vec<&Value> = all
        .iter()
        .filter(|c| c["message_type"] == "approval_request_message")
        .collect();
    assert_eq!(deltas.len(), 8);
    assert!(deltas[1]["tool_call"]["name"].is_null());
    assert!(deltas[1]["tool_calls"].is_object());
    let joined: String = deltas
        .iter()
        .filter_map(|c| c["tool_call"]["arguments"].as_str())
        .collect();
    assert_eq!(joined, "{\"command\":\"echo ü🦀\"}");
}

#[tokio::test]
async fn a_server_tool_next_to_a_client_tool_returns_after_the_approval() {
    let cloud = cloud().await;
    let script = "SERVERCALL search {} => found\nCALLID call-1 Bash {}\nSAY end";
    let first = send(&cloud, "conv-1", say(script, "o1")).await;
    assert!(
        !first
            .iter()
            .any(|c| c["message_type"] == "tool_return_message")
    );
    let second = send(&cloud, "conv-1", approve(&["call-1"], "o2")).await;
    let returned = second
        .iter()
        .find(|c| c["message_type"] == "tool_return_message")
        .unwrap();
    assert_eq!(returned["tool_return"], "found");
}

#[tokio::test]
async fn agents_conversations_and_secrets_are_remembered() {
    let cloud = cloud().await;
    let body = json!({"name": "Ada", "tags": ["t1"]});
    let agent: Value = post(&cloud, "/v1/agents/", body)
        .await
        .json()
        .await
        .unwrap();
    let id = agent["id"].as_str().unwrap();
    let url = format!("{}/v1/agents/{id}", cloud.base_url());
    http()
        .patch(&url)
        .json(&json!({"secrets": {"TOKEN": "s"}}))
        .send()
        .await
        .unwrap();
    let secrets: Value = get(&cloud, &format!("/v1/agents/{id}/secrets"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(secrets, json!([{"key": "TOKEN", "value": "s"}]));
    let found: Value = get(&cloud, "/v1/agents/?name=Ada&tags=t1")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(found[0]["id"], id);
    let path = format!("/v1/conversations/?agent_id={id}");
    let conversation: Value = post(&cloud, &path, json!({"summary": "s"}))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&conversation["agent_id"], &conversation["summary"]),
        (&json!(id), &json!("s"))
    );
    let listed: Value = get(&cloud, &path).await.json().await.unwrap();
    assert_eq!(listed[0]["id"], conversation["id"]);
}

#[tokio::test]
async fn clearing_takes_messages_out_of_context_and_leaves_them_in_the_history() {
    let cloud = cloud().await;
    let mut body = say("SAY a", "o1");
    body["agent_id"] = json!("agent-1");
    send(&cloud, "default", body).await;
    let url = format!("{}/v1/agents/agent-1/reset-messages", cloud.base_url());
    let body = json!({"add_default_initial_messages": false});
    let agent: Value = http()
        .patch(url)
        .json(&body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(agent["message_ids"], json!([]));
    let history = cloud.api_get("/v1/agents/agent-1/messages?order=asc").await;
    assert_eq!(history.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_api_key_is_asked_for_when_one_is_set() {
    let cloud = start(Options {
        api_key: Some("k1".into()),
        ..Options::default()
    })
    .await;
    assert_eq!(get(&cloud, "/v1/agents").await.status(), 401);
    let url = format!("{}/v1/agents", cloud.base_url());
    assert_eq!(
        http()
            .get(url)
            .bearer_auth("k1")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn a_real_server_behind_the_cloud_gets_the_api_but_not_the_relay() {
    let real = cloud().await;
    let options = Options {
        upstream: Some(real.base_url()),
        ..Options::default()
    };
    let front = start(options).await;
    assert_eq!(
        text_of(&front, say("SAY from behind", "o1")).await,
        "from behind"
    );
    assert_eq!(real.message_bodies("conv-1").len(), 1);
    register(&front, "box").await;
    assert!(real.registrations().is_empty());
    let path = "/v1/agents/agent-1/runtime-status?conversation_ids=conv-1";
    let status: Value = get(&front, path).await.json().await.unwrap();
    assert!(status["statuses"][0]["active_harness"]["connection_id"].is_string());
    assert!(
        !real
            .requests()
            .iter()
            .any(|r| r.path.ends_with("runtime-status"))
    );
}
