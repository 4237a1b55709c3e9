//! An OpenAI-compatible model in place of the script.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the helpers of tests"
)]

mod support;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use local_cloud::{Model, OpenAi, Options};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use support::*;

type Seen = Arc<Mutex<Vec<Value>>>;

/// Calls a tool when the last message is the user's, else answers.
async fn complete(State(seen): State<Seen>, Json(body): Json<Value>) -> Response {
    let last = body["messages"]
        .as_array()
        .and_then(|all| all.last())
        .cloned()
        .unwrap_or_default();
    seen.lock().unwrap().push(body);
    let deltas = if last["role"] == "user" {
        vec![
            json!({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "Bash", "arguments": "{\"a\""}}]}),
            json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
        ]
    } else {
        vec![
            json!({"content": "The tool said "}),
            json!({"content": last["content"]}),
        ]
    };
    let mut text = String::new();
    for delta in deltas {
        text.push_str(&format!(
            "data: {}\n\n",
            json!({"choices": [{"delta": delta}]})
        ));
    }
    text.push_str("data: [DONE]\n\n");
    text.into_response()
}

#[tokio::test]
async fn a_model_calls_a_tool_and_reads_its_result_from_memory() {
    let seen = Seen::default();
    let app = axum::Router::new()
        .fallback(complete)
        .with_state(seen.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let model = Model::OpenAi(OpenAi {
        base_url,
        api_key: "k".into(),
        model: "m".into(),
    });
    let cloud = start(Options {
        model,
        ..Options::default()
    })
    .await;

    let mut body = say("please", "o1");
    body["client_tools"] =
        json!([{"name": "Bash", "description": "d", "parameters": {"type": "object"}}]);
    let first = send(&cloud, "conv-1", body).await;
    assert_eq!(stop(&first), "requires_approval");
    let approvals = json!([{"type": "tool", "tool_call_id": "c1", "tool_return": "hello", "status": "success"}]);
    let body = request(json!([{"type": "approval", "approvals": approvals, "otid": "o2"}]));
    let second = send(&cloud, "conv-1", body).await;
    assert_eq!(text(&second), "The tool said hello");

    let seen = seen.lock().unwrap();
    assert_eq!(seen[0]["tools"][0]["function"]["name"], "Bash");
    assert_eq!(
        seen[1]["messages"][2]["tool_calls"][0]["function"]["arguments"],
        "{\"a\":1}"
    );
    server.abort();
}
