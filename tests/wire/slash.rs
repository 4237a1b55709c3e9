//! Slash commands and the model of a conversation, over the wire (06 §7, §8, §15).

use std::fs;

use local_cloud::{Cursor, Fault, Frame, Scope};
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, scope};

/// Runs a command and gives its answer; checks the two deltas around it.
pub(crate) async fn run(lab: &Lab, scope: &Scope, command: &str, args: &str) -> Value {
    let device = lab.device().await;
    let mark = lab.cloud.mark();
    let mut frame = json!({"type": "execute_command", "command_id": command, "request_id": "slash-1", "runtime": scope.runtime()});
    if !args.is_empty() {
        frame["args"] = json!(args);
    }
    let answer = device.request(frame, SOON).await.unwrap();
    let shows = |kind: &'static str| {
        let command = json!(command);
        move |frame: &Frame| {
            let delta = &frame.value["delta"];
            delta["message_type"] == kind && delta["command_id"] == command
        }
    };
    let (start, _) = lab.frame(mark, shows("slash_command_start")).await;
    let (end, _) = lab.frame(mark, shows("slash_command_end")).await;
    let input = if args.is_empty() {
        format!("/{command}")
    } else {
        format!("/{command} {args}")
    };
    for delta in [&start["delta"], &end["delta"]] {
        assert_eq!(
            (&delta["command_id"], &delta["input"]),
            (&json!(command), &json!(input))
        );
        assert!(delta["id"].as_str().unwrap().starts_with("lifecycle-"));
    }
    assert_eq!(end["delta"]["output"], answer["output"]);
    assert_eq!(end["delta"]["success"], answer["success"]);
    assert_eq!(answer["type"], "execute_command_response");
    assert_eq!(answer.as_object().unwrap().len(), 4, "{answer}");
    answer
}

pub(crate) fn output(answer: &Value) -> (bool, &str) {
    (
        answer["success"] == true,
        answer["output"].as_str().unwrap(),
    )
}

/// Lines `METHOD path` of the API requests behind `mark`, those of turns left out.
fn asked(lab: &Lab, mark: Cursor) -> Vec<String> {
    lab.cloud
        .requests_since(mark)
        .iter()
        .map(|request| request.line())
        .filter(|line| !line.starts_with("GET"))
        .collect()
}

#[tokio::test]
async fn s06_15_an_unknown_command_starts_ends_and_is_answered() {
    let lab = Lab::start().await;
    for command in ["nothing", "toolset", "channels", "reflect"] {
        let answer = run(&lab, &scope(), command, "").await;
        assert_eq!(
            output(&answer),
            (false, format!("Unknown command: {command}").as_str())
        );
    }
}

#[tokio::test]
async fn s06_15_clear_takes_the_messages_out_and_begins_a_new_conversation() {
    let lab = Lab::start().await;
    let named = scope();
    let mark = lab.cloud.request_mark();
    let answer = run(&lab, &named, "clear", "").await;
    assert_eq!(
        output(&answer),
        (
            true,
            "Agent's in-context messages cleared & moved to conversation history"
        )
    );
    assert_eq!(
        asked(&lab, mark),
        ["POST /v1/conversations/?agent_id=agent-1"]
    );

    let default = Scope::new("agent-1", "default");
    let mark = lab.cloud.request_mark();
    let device = lab.device().await;
    let mut runtime = default.runtime();
    runtime["acting_user_id"] = json!("user-7");
    let clear = json!({"type": "execute_command", "command_id": "clear", "runtime": runtime});
    let answer = device.request(clear, SOON).await.unwrap();
    assert_eq!(answer["success"], true, "{answer}");
    assert_eq!(
        asked(&lab, mark),
        [
            "PATCH /v1/agents/agent-1/reset-messages",
            "POST /v1/conversations/?agent_id=agent-1"
        ]
    );
    for request in lab
        .cloud
        .requests_since(mark)
        .iter()
        .filter(|r| r.method == "POST")
    {
        assert_eq!(request.header("x-letta-acting-user-id"), Some("user-7"));
    }
    let mark = lab.cloud.request_mark();
    let answer = run(&lab, &named, "clear-messages", "").await;
    assert_eq!(output(&answer), (true, "All agent messages reset"));
    assert_eq!(asked(&lab, mark).len(), 2);
}

#[tokio::test]
async fn s06_15_clear_ends_a_running_turn() {
    let lab = Lab::start().await;
    let scope = Scope::new("agent-1", "default");
    let mark = lab.cloud.mark();
    lab.say(&scope, "cm-1", &crate::harness::bash("sleep 60"))
        .await;
    let starts = |frame: &Frame| frame.value["delta"]["message_type"] == "client_tool_start";
    lab.frame(mark, starts).await;
    let answer = run(&lab, &scope, "clear", "").await;
    assert_eq!(answer["success"], true);
    let (finished, _) = lab.labelled(mark, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "cancelled");
    // The cleared call is not owed to the next request.
    lab.say(&scope, "cm-2", "SAY still here").await;
    let resume = json!({"type": "resume_queue", "runtime": scope.runtime(), "request_id": "r"});
    lab.device().await.request(resume, SOON).await.unwrap();
    let ended =
        |frame: &Frame| frame.kind() == "turn_finished" && frame.value["stop_reason"] == "end_turn";
    lab.frame(mark, ended).await;
}

#[tokio::test]
async fn s06_15_remember_init_and_doctor_run_a_turn_and_end_with_it() {
    let lab = Lab::start().await;
    for (command, args, said, expected) in [
        (
            "remember",
            "I like tea",
            "I like tea",
            "Memory request submitted",
        ),
        (
            "init",
            "",
            "initializing-memory",
            "Memory initialization completed",
        ),
        (
            "doctor",
            "I forget names",
            "User request: I forget names",
            "",
        ),
    ] {
        let scope = Scope::new("agent-1", format!("conv-{command}"));
        let mark = lab.cloud.mark();
        let answer = run(&lab, &scope, command, args).await;
        assert_eq!(output(&answer), (true, expected), "{command}");
        let ended = |frame: &Frame| {
            frame.kind() == "turn_finished" || frame.value["request_id"] == "slash-1"
        };
        let (first, _) = lab.frame(mark, ended).await;
        assert_eq!(
            first["type"], "turn_finished",
            "the answer comes after the turn"
        );
        let bodies = lab.cloud.message_bodies(&scope.conversation);
        let message = bodies[0]["messages"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .to_string();
        assert!(message.contains(said), "{message}");
        assert!(message.contains("<system-reminder>"));
    }
}

#[tokio::test]
async fn s06_19_init_during_a_turn_fails_at_once() {
    let lab = Lab::start().await;
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-1", &crate::harness::bash("sleep 60"))
        .await;
    let starts = |frame: &Frame| frame.value["delta"]["message_type"] == "client_tool_start";
    lab.frame(mark, starts).await;
    let answer = run(&lab, &scope(), "init", "").await;
    assert_eq!(
        output(&answer),
        (
            false,
            "Failed: Cannot begin a turn while lifecycle is active"
        )
    );
}

#[tokio::test]
async fn s06_15_compact_context_limit_and_reload_say_what_they_did() {
    let lab = Lab::start().await;
    let answer = run(&lab, &scope(), "compact", "").await;
    let (success, said) = output(&answer);
    assert!(
        success && said.starts_with("Compaction completed. Message buffer length reduced from "),
        "{said}"
    );
    assert!(
        said.ends_with("\n\nSummary: Nothing was compacted."),
        "{said}"
    );
    let answer = run(&lab, &scope(), "compact", "some").await;
    assert_eq!(
        output(&answer),
        (
            false,
            "Failed: Invalid mode \"some\". Run /compact help for usage."
        )
    );
    let answer = run(&lab, &scope(), "compact", "help").await;
    assert_eq!(answer["success"], true);
    let mark = lab.cloud.request_mark();
    let answer = run(&lab, &Scope::new("agent-1", "default"), "compact", "all").await;
    assert!(
        answer["output"]
            .as_str()
            .unwrap()
            .starts_with("Compaction completed (mode: all)."),
        "{answer}"
    );
    let requests = lab.cloud.requests_since(mark);
    let compact = requests
        .iter()
        .find(|request| request.method == "POST")
        .unwrap();
    assert_eq!(compact.json()["compaction_settings"]["mode"], "all");
    assert_eq!(compact.json()["agent_id"], "agent-1");

    let mark = lab.cloud.request_mark();
    let answer = run(&lab, &scope(), "context-limit", "100k --override").await;
    assert_eq!(
        output(&answer),
        (
            true,
            "Current conversation max context set to 100,000 tokens with override."
        )
    );
    let requests = lab.cloud.requests_since(mark);
    let patch = requests
        .iter()
        .find(|request| request.method == "PATCH")
        .unwrap();
    assert_eq!(patch.json(), json!({"context_window_limit": 100_000}));
    let answer = run(
        &lab,
        &Scope::new("agent-1", "default"),
        "set-max-context",
        "40000 --override",
    )
    .await;
    assert_eq!(
        output(&answer),
        (
            true,
            "Agent max context set to 40,000 tokens with override."
        )
    );
    let answer = run(&lab, &scope(), "context-limit", "10").await;
    assert!(
        answer["output"]
            .as_str()
            .unwrap()
            .starts_with("Failed: Context window must be at least"),
        "{answer}"
    );

    let answer = run(&lab, &scope(), "reload", "").await;
    assert_eq!(
        output(&answer),
        (true, "Reloaded settings, local mods, and agent secrets")
    );
}

#[tokio::test]
async fn s06_15_what_the_server_refuses_is_what_a_command_says() {
    let lab = Lab::start().await;
    let default = Scope::new("agent-1", "default");
    let same = "Summarization failed to reduce the number of messages below 5";
    for (scope, command, path, status, detail, said) in [
        (
            scope(),
            "clear",
            "POST /v1/conversations/",
            403,
            "no",
            (false, "Failed: 403 {\"detail\":\"no\"}"),
        ),
        (
            default.clone(),
            "clear-messages",
            "/reset-messages",
            404,
            "gone",
            (false, "Failed: 404 {\"detail\":\"gone\"}"),
        ),
        (
            scope(),
            "compact",
            "/compact",
            400,
            same,
            (
                true,
                "Compaction run, but the number of messages is the same",
            ),
        ),
        (
            scope(),
            "compact",
            "/compact",
            400,
            "other",
            (false, "Failed: 400 {\"detail\":\"other\"}"),
        ),
        (
            default,
            "context-limit",
            "GET /v1/agents/agent-1",
            404,
            "gone",
            (false, "Failed: 404 {\"detail\":\"gone\"}"),
        ),
    ] {
        let refusal = Fault::status(status).with_body(json!({"detail": detail}));
        lab.cloud.fail_next_request(path, refusal);
        let answer = run(&lab, &scope, command, "").await;
        assert_eq!(output(&answer), said, "{command}");
    }
}

#[tokio::test]
async fn s06_15_the_size_of_the_memory_is_shown_without_an_answer() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    let sync = json!({"type": "sync", "runtime": scope().runtime()});
    device.request(sync, SOON).await.unwrap();
    let memory = lab.home().join(".letta/agents/agent-1/memory/system");
    fs::create_dir_all(&memory).unwrap();
    fs::write(memory.join("big.md"), "x".repeat(120_000)).unwrap();
    let mark = lab.cloud.mark();
    device.send(json!({"type": "execute_command", "command_id": "refresh_doctor_state", "request_id": "quiet", "runtime": scope().runtime()}));
    let doctor = |frame: &Frame| frame.value["device_status"]["should_doctor"] == true;
    lab.frame(mark, doctor).await;
    assert!(
        !lab.cloud
            .frames()
            .iter()
            .any(|frame| frame.value["request_id"] == "quiet")
    );
}

#[tokio::test]
async fn s06_19_update_model_shows_status_loop_and_device_before_its_answer() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    let default = Scope::new("agent-1", "default");
    for (scope, applied, path) in [
        (scope(), "conversation", "/v1/conversations/conv-1"),
        (default, "agent", "/v1/agents/agent-1"),
    ] {
        let sync = json!({"type": "sync", "runtime": scope.runtime()});
        device.request(sync, SOON).await.unwrap();
        let (mark, requests) = (lab.cloud.mark(), lab.cloud.request_mark());
        let update = json!({"type": "update_model", "runtime": scope.runtime(), "payload": {"model_handle": "openai/gpt-5.2"}});
        let answer = device.request(update, SOON).await.unwrap();
        assert_eq!(
            (&answer["success"], &answer["applied_to"]),
            (&json!(true), &json!(applied)),
            "{answer}"
        );
        assert_eq!(answer["model_handle"], "openai/gpt-5.2");
        let (delta, at) = lab
            .frame(mark, |frame| {
                frame.value["delta"]["message_type"] == "status"
            })
            .await;
        assert!(
            delta["delta"]["message"]
                .as_str()
                .unwrap()
                .starts_with("Model updated to ")
        );
        let (looped, at) = lab
            .frame(at, |frame| frame.kind() == "update_loop_status")
            .await;
        let (status, _) = lab
            .frame(at, |frame| frame.kind() == "update_device_status")
            .await;
        assert!(delta["event_seq"].as_u64() < looped["event_seq"].as_u64());
        assert!(looped["event_seq"].as_u64() < status["event_seq"].as_u64());
        assert_eq!(status["device_status"]["current_toolset"], "codex");
        let patched = lab.cloud.requests_since(requests);
        let patch = patched
            .iter()
            .find(|request| request.method == "PATCH")
            .unwrap();
        assert!(patch.is("PATCH", path), "{}", patch.line());
        assert_eq!(patch.json()["model"], "openai/gpt-5.2");
        assert_eq!(patch.json()["model_settings"]["provider_type"], "openai");
    }
    let models = device
        .request(json!({"type": "list_models"}), SOON)
        .await
        .unwrap();
    assert_eq!(models["success"], true);
    assert!(
        !models["entries"].as_array().unwrap().is_empty(),
        "{models}"
    );
    assert_eq!(models["byok_provider_aliases"]["lc-anthropic"], "anthropic");
}

#[tokio::test]
async fn s06_8_a_toolset_is_stored_and_shown() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    let mark = lab.cloud.mark();
    let set = json!({"type": "update_toolset", "runtime": scope().runtime(), "toolset_preference": "codex"});
    let answer = device.request(set, SOON).await.unwrap();
    assert_eq!(
        (
            &answer["current_toolset"],
            &answer["current_toolset_preference"]
        ),
        (&json!("codex"), &json!("codex")),
        "{answer}"
    );
    let (delta, _) = lab
        .frame(mark, |frame| {
            frame.value["delta"]["message_type"] == "status"
        })
        .await;
    assert_eq!(
        delta["delta"]["message"],
        "Switched toolset to Codex (manual override)."
    );
    let text = fs::read_to_string(lab.home().join(".letta/settings.json")).unwrap();
    let stored: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        stored["agents"][0]["toolsetsByConversation"]["conv-1"],
        "codex"
    );
}

#[tokio::test]
async fn s04_2_1_a_stored_toolset_counts_for_its_conversation_after_a_restart_too() {
    let mut lab = Lab::start().await;
    let prefer = |toolset: &str| json!({"type": "update_toolset", "runtime": scope().runtime(), "toolset_preference": toolset});
    let offered = async |lab: &Lab, conversation: &str| {
        let scope = Scope::new("agent-1", conversation);
        lab.cloud.turn(&scope, "SAY x").await.unwrap();
        let bodies = lab.cloud.message_bodies(conversation);
        let tools = bodies.last().unwrap()["client_tools"].to_string();
        ["Bash", "exec_command"].map(|name| tools.contains(&format!("\"name\":\"{name}\"")))
    };
    let device = lab.device().await;
    let answer = device.request(prefer("codex"), SOON).await.unwrap();
    assert_eq!(answer["success"], true, "{answer}");
    assert_eq!(offered(&lab, "conv-1").await, [false, true]);
    assert_eq!(offered(&lab, "conv-2").await, [true, false], "not its own");
    let device = lab.restart("TERM").await;
    assert_eq!(offered(&lab, "conv-1").await, [false, true]);
    let status = lab.device_status(&scope()).await;
    assert_eq!(status["current_toolset_preference"], "codex");
    device.request(prefer("auto"), SOON).await.unwrap();
    assert_eq!(offered(&lab, "conv-1").await, [true, false]);
    let stored = lab.json(".letta/settings.json");
    assert_eq!(
        stored["agents"][0]["toolsetsByConversation"]["conv-1"],
        Value::Null
    );
}

#[tokio::test]
async fn s06_11_an_agent_is_made_from_a_preset_and_pinned() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    let mark = lab.cloud.request_mark();
    let create = json!({"type": "create_agent", "personality": "linus", "tags": ["mine"]});
    let answer = device.request(create, SOON).await.unwrap();
    assert_eq!(
        (&answer["success"], &answer["name"]),
        (&json!(true), &json!("Linus")),
        "{answer}"
    );
    let requests = lab.cloud.requests_since(mark);
    let made = requests
        .iter()
        .find(|request| request.method == "POST")
        .unwrap()
        .json();
    assert_eq!(made["tags"], json!(["origin:letta-code", "mine"]));
    assert_eq!(made["memory_blocks"][0]["label"], "persona");
    let text = fs::read_to_string(lab.home().join(".letta/settings.json")).unwrap();
    let stored: Value = serde_json::from_str(&text).unwrap();
    let entry = stored["agents"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["agentId"] == answer["agent_id"]);
    assert_eq!(entry.unwrap()["pinned"], true);
    let info = device
        .request(json!({"type": "app_server_info"}), SOON)
        .await
        .unwrap();
    for flag in [
        "agent_management",
        "conversation_management",
        "memory_management",
    ] {
        assert_eq!(info["capabilities"][flag], true);
    }
}

#[tokio::test]
async fn s06_1_4_secrets_reach_no_log() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    let sync = json!({"type": "sync", "runtime": scope().runtime()});
    device.request(sync, SOON).await.unwrap();
    lab.cloud
        .set_secrets("agent-1", &[("OLD", "old-secret-value-1")]);
    let apply = json!({"type": "secret_apply", "agent_id": "agent-1", "set": {"new_one": "new-secret-value-2"}, "unset": []});
    let answer = device.request(apply, SOON).await.unwrap();
    assert_eq!(answer["names"], json!(["NEW_ONE", "OLD"]), "{answer}");
    let list = json!({"type": "secret_list", "agent_id": "agent-1"});
    let answer = device.request(list, SOON).await.unwrap();
    assert_eq!(
        answer["secrets"],
        json!([{"key": "NEW_ONE", "value": "new-secret-value-2"}, {"key": "OLD", "value": "old-secret-value-1"}])
    );
    for entry in fs::read_dir(lab.home().join(".letta/logs/remote")).unwrap() {
        let log = fs::read_to_string(entry.unwrap().path()).unwrap();
        for secret in ["old-secret-value-1", "new-secret-value-2"] {
            assert!(!log.contains(secret), "{secret} is in a log");
        }
    }
}
