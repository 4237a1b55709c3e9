//! Tools that a client brings along (02 §5.11).

use local_cloud::Scope;
use serde_json::{Value, json};

use crate::direct_harness::{Direct, Peer};
use crate::harness::{call, scope};

fn lookup(scope_id: Option<&str>) -> Value {
    let mut group = json!({"tools": [{"name": "lookup", "label": "Look up",
        "description": "Looks an issue up",
        "parameters": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}}]});
    if let Some(id) = scope_id {
        group["scope_id"] = id.into();
    }
    json!([group])
}

/// A client with a conversation, and these external tools in it.
async fn controller(direct: &Direct, tools: Value) -> Peer {
    let mut client = direct.client().await;
    let start = client
        .ask(json!({"type": "runtime_start", "agent_id": "agent-1",
            "conversation_id": "conv-1", "external_tools": tools}))
        .await;
    assert_eq!(start["success"], true, "{start}");
    client
}

fn script() -> String {
    format!("{}\nSAY done", call("lookup", &json!({"id": "LET-1"})))
}

/// Answers the next call with this text.
async fn answer(client: &mut Peer, fields: Value) -> Value {
    let request = client.typed("external_tool_call_request").await;
    let mut response = json!({"type": "external_tool_call_response",
        "request_id": request["request_id"]});
    for (key, value) in fields.as_object().unwrap() {
        response[key] = value.clone();
    }
    client.send(response).await;
    request
}

fn text(text: &str) -> Value {
    json!({"result": {"content": [{"type": "text", "text": text}]}})
}

/// What the model was told of its last call.
fn told(direct: &Direct) -> String {
    let bodies = direct.cloud.message_bodies("conv-1");
    bodies.last().unwrap().to_string()
}

fn offered(direct: &Direct) -> bool {
    let bodies = direct.cloud.message_bodies("conv-1");
    let tools = bodies.last().unwrap()["client_tools"].to_string();
    tools.contains(r#""name":"lookup""#)
}

#[tokio::test]
async fn s02_17_row11_a_call_reaches_its_controller_and_the_answer_the_model() {
    let direct = Direct::start().await;
    let mut client = controller(&direct, lookup(None)).await;
    client.say(&scope(), &script()).await;
    let request = answer(&mut client, text("It is about doors.")).await;
    assert_eq!(request["runtime"], scope().runtime());
    assert_eq!(request["tool_name"], "lookup");
    assert_eq!(request["input"], json!({"id": "LET-1"}));
    assert!(request["tool_call_id"].is_string());
    assert!(request.get("event_seq").is_none(), "it is a bare frame");
    assert_eq!(client.finished().await["stop_reason"], "end_turn");
    assert!(told(&direct).contains("It is about doors."));
    // Device status shows the machine's own tools only.
    client.sync(&scope()).await;
    let status = client
        .seen
        .iter()
        .rfind(|frame| frame["type"] == "update_device_status");
    let loaded = &status.unwrap()["device_status"]["current_loaded_tools"];
    assert!(loaded.to_string().contains("Bash") && !loaded.to_string().contains("lookup"));
}

#[tokio::test]
async fn s02_17_row11_errors_of_every_kind_become_tool_errors() {
    let direct = Direct::start().await;
    let mut client = controller(&direct, lookup(None)).await;
    let is_error = json!({"result": {"content": [{"type": "text", "text": "no such issue"}],
        "is_error": true}});
    for (fields, said) in [
        (is_error, "no such issue"),
        (
            json!({"error": "database is down"}),
            "External tool execution error: database is down",
        ),
        (
            json!({}),
            "External tool execution error: External tool response missing result",
        ),
    ] {
        client.say(&scope(), &script()).await;
        answer(&mut client, fields).await;
        client.finished().await;
        let told = told(&direct);
        assert!(told.contains(said), "{told}");
        assert!(told.contains(r#""status":"error""#), "{told}");
    }
}

#[tokio::test]
async fn s02_5_11_external_tools_are_asked_for_in_standard_mode() {
    let direct = Direct::start().await;
    let mut client = controller(&direct, lookup(None)).await;
    client.mode(&scope(), "standard").await;
    client.say(&scope(), &script()).await;
    let question = client.typed("control_request").await;
    assert_eq!(question["request"]["tool_name"], "lookup");
    let allow = json!({"behavior": "allow", "updated_input": {"id": "LET-2"}});
    client
        .decide(&scope(), &question["request_id"], allow)
        .await;
    let request = answer(&mut client, text("ok")).await;
    assert_eq!(request["input"], json!({"id": "LET-2"}));
    client.finished().await;
}

#[tokio::test]
async fn s02_11_2_calls_fail_and_tools_go_when_their_owner_leaves() {
    let direct = Direct::start().await;
    let mut owner = controller(&direct, lookup(None)).await;
    let mut other = direct.client_of(&scope()).await;
    other.say(&scope(), &script()).await;
    owner.typed("external_tool_call_request").await;
    owner.leave().await;
    assert_eq!(other.finished().await["stop_reason"], "end_turn");
    let gone = "External tool execution error: Listener connection closed";
    assert!(told(&direct).contains(gone), "{}", told(&direct));
    other.say(&scope(), "SAY hello").await;
    other.finished().await;
    assert!(!offered(&direct));
}

#[tokio::test]
async fn s02_5_11_scoped_tools_show_to_turns_of_their_owner_that_name_them() {
    let direct = Direct::start().await;
    let mut owner = controller(&direct, lookup(Some("sc"))).await;
    let mut other = direct.client_of(&scope()).await;
    let scoped = json!({"external_tool_scope_ids": ["sc"]});
    for (own, options, visible) in [
        (true, scoped.clone(), true),
        (true, json!({}), false),
        (false, scoped.clone(), false),
        (
            true,
            json!({"external_tool_scope_ids": ["sc"], "client_tool_allowlist": ["Bash"]}),
            false,
        ),
    ] {
        let client = if own { &mut owner } else { &mut other };
        client
            .say_with(&scope(), "SAY hello", options.clone())
            .await;
        client.finished().await;
        assert_eq!(offered(&direct), visible, "{own} {options}");
    }
    owner.say_with(&scope(), &script(), scoped).await;
    let request = answer(&mut owner, text("ok")).await;
    assert_eq!(request["scope_id"], "sc");
}

#[tokio::test]
async fn s02_5_11_an_update_replaces_tools_without_subscribing() {
    let direct = Direct::start().await;
    let mut owner = direct.client().await;
    let mut user = direct.client_of(&scope()).await;
    let update = |tools: Value| {
        json!({"type": "runtime_external_tools_update", "updates": [
            {"runtimes": [scope().runtime()], "external_tools": tools}]})
    };
    let answered = owner.ask(update(lookup(None))).await;
    assert_eq!(answered["type"], "runtime_external_tools_update_response");
    assert_eq!(answered["success"], true);
    user.say(&scope(), &script()).await;
    answer(&mut owner, text("ok")).await;
    user.finished().await;
    assert!(
        told(&direct).contains(r#""tool_return":"ok""#),
        "{}",
        told(&direct)
    );
    owner.quiet().await;
    assert_eq!(owner.ask(update(json!([]))).await["success"], true);
    user.say(&scope(), "SAY hello").await;
    user.finished().await;
    assert!(!offered(&direct));
    let runtime = scope().runtime();
    let twice = json!({"type": "runtime_external_tools_update", "updates": [
        {"runtimes": [runtime, runtime], "external_tools": []}]});
    let refused = owner.ask(twice).await;
    assert_eq!(refused["success"], false);
}

#[tokio::test]
async fn s02_5_2_a_start_without_external_tools_removes_them() {
    let direct = Direct::start().await;
    let mut client = controller(&direct, lookup(None)).await;
    let start =
        json!({"type": "runtime_start", "agent_id": "agent-1", "conversation_id": "conv-1"});
    client.ask(start).await;
    client.say(&scope(), "SAY hello").await;
    client.finished().await;
    assert!(!offered(&direct));
    let elsewhere = Scope::new("agent-1", "conv-2");
    let tools = json!({"type": "runtime_start", "agent_id": "agent-1",
        "conversation_id": "conv-2", "external_tools": lookup(None)});
    client.ask(tools).await;
    client.say(&elsewhere, "SAY hello").await;
    client.finished().await;
    let bodies = direct.cloud.message_bodies("conv-2");
    assert!(bodies[0]["client_tools"].to_string().contains("lookup"));
}
