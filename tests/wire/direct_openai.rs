//! The OpenAI-compatible API (02 §13).

use serde_json::{Value, json};

use crate::direct_harness::{Answer, Direct, eventually};
use crate::harness::bash;

async fn post(
    direct: &Direct,
    path: &str,
    headers: &[(&'static str, &str)],
    body: Value,
) -> Answer {
    let line = format!("POST /v1/{path}");
    direct.http(&line, headers, &body.to_string()).await
}

fn parsed(answer: &Answer) -> Value {
    serde_json::from_str(answer.body()).unwrap()
}

/// The data of a stream's events. The bodies are chunked: lines are enough.
fn events(answer: &Answer) -> Vec<Value> {
    let data = answer
        .body()
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// A server with one agent, and the name of its model.
async fn with_agent() -> (Direct, String) {
    let direct = Direct::with(&["--openai-api"]).await;
    let mut client = direct.client().await;
    let body = json!({"name": "Ada", "model": "anthropic/claude-sonnet-4-5-20250929"});
    let made = client
        .ask(json!({"type": "runtime_start", "create_agent": {"body": body}}))
        .await;
    assert_eq!(made["success"], true, "{made}");
    client.leave().await;
    (direct, String::from("Ada"))
}

fn chat(model: &str, text: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": text}]})
}

/// How many conversations were made and deleted.
fn conversations(direct: &Direct) -> (usize, usize) {
    let requests = direct.cloud.requests();
    let count = |method: &str| {
        let of = |path: &str| path.starts_with("/v1/conversations/") && !path.contains("messages");
        requests
            .iter()
            .filter(|request| request.method == method && of(&request.path))
            .count()
    };
    (count("POST"), count("DELETE"))
}

#[tokio::test]
async fn s02_13_agents_are_listed_as_models() {
    let (direct, model) = with_agent().await;
    let answer = direct.http("GET /v1/models", &[], "").await;
    let listed = parsed(&answer);
    assert_eq!(listed["object"], "list");
    let ids: Vec<&Value> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["id"])
        .collect();
    assert!(ids.contains(&&json!(model)), "{ids:?}");
}

#[tokio::test]
async fn s02_13_a_completion_is_answered_whole_and_leaves_no_conversation() {
    let (direct, model) = with_agent().await;
    let before = conversations(&direct);
    let script = format!("{}\nSAY that is your machine", bash("echo hi"));
    let answer = post(&direct, "chat/completions", &[], chat(&model, &script)).await;
    let whole = parsed(&answer);
    assert_eq!(answer.status().0, 200, "{whole}");
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["model"], "Ada");
    let choice = &whole["choices"][0];
    assert_eq!(
        choice["message"],
        json!({"role": "assistant", "content": "that is your machine"})
    );
    assert_eq!(choice["finish_reason"], "stop");
    assert!(whole["usage"]["total_tokens"].is_u64());
    eventually("the conversation is not deleted", async || {
        let now = conversations(&direct);
        (now.0 - before.0, now.1 - before.1) == (1, 1)
    })
    .await;
}

#[tokio::test]
async fn s02_13_a_completion_streams_from_the_role_to_done() {
    let (direct, model) = with_agent().await;
    let mut body = chat(&model, "SPLIT 3\nSAY one two three");
    body["stream"] = json!(true);
    let answer = post(&direct, "chat/completions", &[], body).await;
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/event-stream")
    );
    let events = events(&answer);
    let first = json!({"role": "assistant", "content": ""});
    assert_eq!(events[0]["choices"][0]["delta"], first);
    let text: String = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, "one two three");
    assert_eq!(
        events.last().unwrap()["choices"][0]["finish_reason"],
        "stop"
    );
    assert!(answer.body().contains("data: [DONE]"));
}

#[tokio::test]
async fn s02_13_a_response_shows_the_tools_that_ran_and_can_be_continued() {
    let (direct, model) = with_agent().await;
    let script = format!("{}\nSAY done", bash("echo from-the-tool"));
    let body = json!({"model": model, "input": script, "store": true});
    let answer = post(&direct, "responses", &[], body).await;
    let whole = parsed(&answer);
    assert_eq!(whole["status"], "completed", "{whole}");
    let output = whole["output"].as_array().unwrap();
    let kinds: Vec<&Value> = output.iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["function_call", "function_call_output", "message"]);
    assert_eq!(output[0]["name"], "Bash");
    assert!(
        output[1]["output"]
            .as_str()
            .unwrap()
            .contains("from-the-tool")
    );
    assert_eq!(output[2]["content"][0]["text"], "done");

    let id = whole["id"].as_str().unwrap();
    assert!(id.starts_with("resp_letta_"));
    let more =
        json!({"model": model, "input": "SAY again", "previous_response_id": id, "stream": true});
    let answer = post(&direct, "responses", &[], more).await;
    let names: Vec<Value> = events(&answer)
        .iter()
        .map(|event| event["type"].clone())
        .collect();
    assert_eq!(names[0], "response.created");
    assert_eq!(names.last().unwrap(), "response.completed");
    assert!(names.contains(&json!("response.output_text.delta")));
    let forks = direct.cloud.requests();
    assert!(forks.iter().any(|request| request.path.ends_with("/fork")));
    let unknown = json!({"model": model, "input": "x", "previous_response_id": "resp_letta_x"});
    let error = parsed(&post(&direct, "responses", &[], unknown).await);
    assert_eq!(error["error"]["code"], "response_not_found");
}

#[tokio::test]
async fn s02_13_a_chat_key_names_one_conversation_that_gets_the_last_message_only() {
    let (direct, model) = with_agent().await;
    let key = [("X-Letta-Chat-Key", "chat-1")];
    let before = conversations(&direct);
    for text in ["SAY first", "SAY second"] {
        let body = json!({"model": model, "messages": [
            {"role": "user", "content": "SAY history"},
            {"role": "assistant", "content": "history"},
            {"role": "user", "content": text}]});
        let answer = parsed(&post(&direct, "chat/completions", &key, body).await);
        let said = answer["choices"][0]["message"]["content"].as_str().unwrap();
        assert_eq!(format!("SAY {said}"), text);
    }
    let now = conversations(&direct);
    assert_eq!((now.0 - before.0, now.1 - before.1), (1, 0));
    let sent = direct.cloud.requests();
    let sent = sent
        .iter()
        .filter(|request| request.path.ends_with("/messages"));
    assert!(
        sent.into_iter()
            .all(|request| !request.json().to_string().contains("SAY history"))
    );
}

#[tokio::test]
async fn s02_13_an_idempotency_key_runs_once() {
    let (direct, model) = with_agent().await;
    let file = direct.work.path().join("count");
    let script = format!(
        "{}\nSAY done",
        bash(&format!("echo x >> {}", file.display()))
    );
    let key = [("Idempotency-Key", "once")];
    for _ in 0..2 {
        let answer = post(&direct, "chat/completions", &key, chat(&model, &script)).await;
        assert_eq!(parsed(&answer)["choices"][0]["message"]["content"], "done");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "x\n");
}

#[tokio::test]
async fn s02_13_errors_have_the_shape_that_clients_read() {
    let (direct, model) = with_agent().await;
    for (path, body, status, kind, message) in [
        (
            "chat/completions",
            json!({"messages": []}),
            400,
            "invalid_request_error",
            "you must provide a model parameter",
        ),
        (
            "chat/completions",
            json!({"model": model, "messages": []}),
            400,
            "invalid_request_error",
            "you must provide a non-empty messages array",
        ),
        (
            "chat/completions",
            chat("nobody", "x"),
            404,
            "invalid_request_error",
            "The model 'nobody' does not exist. Use GET /v1/models to list available agents.",
        ),
        (
            "models",
            json!({}),
            404,
            "invalid_request_error",
            "unknown endpoint",
        ),
        (
            "chat/completions",
            chat(&model, "FAIL llm_api_error the model is down"),
            500,
            "server_error",
            "the model is down",
        ),
    ] {
        let answer = post(&direct, path, &[], body).await;
        let error = parsed(&answer)["error"].clone();
        assert_eq!(answer.status().0, status, "{error}");
        assert_eq!(error["type"], kind);
        assert!(
            error["message"].as_str().unwrap().contains(message),
            "{error}"
        );
        assert!(error["param"].is_null());
    }
    let answer = direct.http("POST /v1/responses", &[], "{").await;
    assert_eq!(answer.status().0, 400);
    assert!(
        parsed(&answer)["error"]["message"]
            .as_str()
            .unwrap()
            .contains("EOF")
    );
    let mut failing = chat(&model, "FAIL llm_api_error the model is down");
    failing["stream"] = json!(true);
    let answer = post(&direct, "chat/completions", &[], failing).await;
    let last = events(&answer).pop().unwrap();
    assert_eq!(last["error"]["type"], "server_error");
    assert!(answer.body().contains("[DONE]"));
}

#[tokio::test]
async fn s02_13_the_token_is_asked_for_here_too() {
    let digest =
        "--ws-token-sha256=0b6cb8fca6d2f43c3d4fc8b5c7b8e0b4a1b5f3e6f1cb3f3dd0cb2a3d56f1c7a1";
    let direct = Direct::with(&["--openai-api", "--ws-auth=capability-token", digest]).await;
    let answer = direct.http("GET /v1/models", &[], "").await;
    assert_eq!(answer.status().0, 401);
    assert_eq!(parsed(&answer)["error"]["type"], "authentication_error");
}

#[tokio::test]
async fn s02_13_a_caller_who_goes_away_stops_the_turn() {
    let (direct, model) = with_agent().await;
    let marker = direct.work.path().join("started");
    let script = bash(&format!("touch {} && sleep 600", marker.display()));
    let body = chat(&model, &script).to_string();
    let mut stream = tokio::net::TcpStream::connect(&direct.address)
        .await
        .unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
        direct.address,
        body.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes())
        .await
        .unwrap();
    eventually("the command does not run", async || marker.exists()).await;
    let before = conversations(&direct).1;
    drop(stream);
    eventually("the conversation is kept", async || {
        conversations(&direct).1 > before
    })
    .await;
}
