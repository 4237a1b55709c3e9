//! Commands whose server, repository or settings file fails under them: what is
//! told, and what stays as it was.

use std::os::unix::fs::PermissionsExt as _;

use super::managed::{memories, remembering, with_id};
use super::*;
use crate::api::tests::{Server, json as answer};

#[tokio::test]
async fn models_are_listed_as_far_as_the_server_tells_them() {
    let none = Vec::<axum::response::Response>::new();
    let server = Server::answering(none).await;
    let mut bench = Bench::with(Some((&server.url, "http://127.0.0.1:1"))).await;
    let answered = bench.ask(json!({"type": "list_models"})).await;
    assert_eq!(
        (&answered["success"], &answered["entries"]),
        (&json!(true), &json!([]))
    );
    // Not none, but unknown.
    assert_eq!(answered["available_handles"], Value::Null);
    assert_eq!(
        answered["byok_provider_aliases"]["lc-anthropic"],
        "anthropic"
    );
}

#[tokio::test]
async fn a_toolset_that_cannot_be_resolved_leaves_the_one_before() {
    let runtime = json!({"agent_id": "agent-1", "conversation_id": "default"});
    let agent = json!({"id": "agent-1", "model": "letta/auto"});
    let gone = json!({"detail": "gone"});
    let server = Server::answering([answer(200, &agent), answer(404, &gone)]).await;
    let mut bench = Bench::with(Some((&server.url, "http://127.0.0.1:1"))).await;
    let set = |toolset: &str| json!({"type": "update_toolset", "request_id": "r-1", "runtime": runtime, "toolset_preference": toolset});
    bench.send(set("codex"));
    // The conversation would show it and say so; there is none here.
    drop(bench.trial.injected.recv().await);
    assert_eq!(bench.next().await["current_toolset_preference"], "codex");
    let answered = bench.ask(set("default")).await;
    assert_eq!(
        answered,
        json!({"type": "update_toolset_response", "request_id": "r-1", "success": false,
            "runtime": runtime, "error": "404 {\"detail\":\"gone\"}"})
    );
    let settings = fs::read_to_string(bench.dir.path().join("home/.letta/settings.json"));
    let settings: Value = serde_json::from_str(&settings.unwrap()).unwrap();
    assert_eq!(settings["agents"][0]["toolset"], "codex");
}

#[tokio::test]
async fn settings_that_cannot_be_written_are_no_success() {
    let mut bench = Bench::new().await;
    fs::create_dir_all(bench.dir.path().join("home/.letta/settings.json/x")).unwrap();
    fs::create_dir_all(bench.path(".letta/settings.local.json/x")).unwrap();
    let runtime = json!({"agent_id": "agent-1", "conversation_id": "conv-1"});
    let set = json!({"type": "set_experiment", "experiment_id": "tui_cron", "enabled": true});
    let answered = bench.ask(set).await;
    assert_eq!(answered["success"], false, "{answered}");
    assert!(answered["error"].is_string());
    assert_eq!(answered["experiments"].as_array().unwrap().len(), 6);
    let set = json!({"type": "set_reflection_settings", "runtime": runtime, "scope": "local_project",
        "settings": {"trigger": "off", "step_count": 3}});
    let answered = bench.ask(set).await;
    assert_eq!(
        (&answered["success"], &answered["scope"]),
        (&json!(false), &json!("local_project"))
    );
    assert_eq!(answered["reflection_settings"], Value::Null);
    assert!(answered["error"].is_string());
}

#[tokio::test]
async fn a_memory_that_is_not_on_this_machine_has_no_history() {
    let agent = json!({"id": "agent-1", "tags": []});
    let answers = (0..3).map(|_| answer(200, &agent));
    let server = Server::answering(answers).await;
    let mut bench = Bench::with(Some((&server.url, "http://127.0.0.1:1"))).await;
    for (frame, empty) in [
        (
            json!({"type": "memory_history", "file_path": "a.md"}),
            ("commits", json!([])),
        ),
        (
            json!({"type": "memory_file_at_ref", "file_path": "a.md", "ref": "HEAD"}),
            ("content", Value::Null),
        ),
        (
            json!({"type": "memory_commit_diff", "sha": "HEAD"}),
            ("diff", Value::Null),
        ),
    ] {
        let mut frame = frame;
        frame["agent_id"] = json!("agent-1");
        let answered = bench.ask(frame.clone()).await;
        assert_eq!(answered["success"], false, "{answered}");
        assert_eq!(answered[empty.0], empty.1);
        for echoed in ["file_path", "ref", "sha"] {
            assert_eq!(answered[echoed], frame[echoed], "{echoed}");
        }
        let error = answered["error"].as_str().unwrap();
        assert!(
            error.starts_with("There is no memory repository of this agent"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_a_memory_does_not_hold_is_told() {
    let (mut bench, _server, _dir) = remembering().await;
    for (frame, words) in [
        (
            json!({"type": "memory_file_at_ref", "file_path": "none.md", "ref": "HEAD"}),
            "git cat-file failed",
        ),
        (
            json!({"type": "memory_file_at_ref", "file_path": "n00.md", "ref": "nowhere"}),
            "git cat-file failed",
        ),
        (
            json!({"type": "memory_commit_diff", "sha": "deadbeef"}),
            "git show failed",
        ),
        (
            json!({"type": "read_memory_file", "path": "none.md"}),
            "none.md: ",
        ),
        (
            json!({"type": "write_memory_file", "path": "n00.md/x", "content": "c"}),
            "",
        ),
    ] {
        let mut frame = frame;
        frame["agent_id"] = json!("agent-1");
        let answered = bench.ask(frame).await;
        assert_eq!(answered["success"], false, "{answered}");
        let error = answered["error"].as_str().unwrap();
        assert!(error.contains(words), "{error}");
    }
    let history = json!({"type": "memory_history", "agent_id": "agent-1"});
    let answered = bench.ask(history).await;
    assert_eq!(
        answered["commits"].as_array().unwrap().len(),
        1,
        "nothing was committed"
    );
}

#[tokio::test]
async fn a_memory_that_cannot_be_fetched_is_not_listed() {
    let agent = json!({"id": "agent-1", "name": "Ada", "tags": ["git-memory-enabled"]});
    let answers = (0..4).map(|_| answer(200, &agent));
    let server = Server::answering(answers).await;
    let mut bench = Bench::with(Some((&server.url, "file:///no/such/memory"))).await;
    let answered = bench
        .ask(json!({"type": "list_memory", "agent_id": "agent-1"}))
        .await;
    let error = answered["error"].as_str().unwrap().to_owned();
    assert_eq!(
        answered,
        json!({"type": "list_memory_response", "request_id": "r-1", "success": false,
            "entries": [], "done": true, "total": 0, "error": error})
    );
    assert!(error.contains("git clone failed"), "{error}");
    let read = json!({"type": "read_memory_file", "agent_id": "agent-1", "path": "x.md"});
    let answered = bench.ask(read).await;
    let error = answered["error"].as_str().unwrap();
    assert!(
        error.starts_with("failed to initialize local memory checkout"),
        "{error}"
    );
}

#[tokio::test]
async fn a_push_that_hangs_holds_up_the_answer_for_eight_seconds_and_no_more() {
    let (dir, url) = memories();
    let agent = json!({"id": "agent-1", "name": "Ada", "tags": ["git-memory-enabled"]});
    let answers = (0..8).map(|_| answer(200, &agent));
    let server = Server::answering(answers).await;
    let mut bench = Bench::with(Some((&server.url, &url))).await;
    let bare = dir.path().join("v1/git/agent-1/state.git");
    let hook = bare.join("hooks/pre-receive");
    let begun = dir.path().join("begun");
    let script = format!("#!/bin/sh\n: > '{}'\nexec sleep 30\n", begun.display());
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let write =
        json!({"type": "write_memory_file", "agent_id": "agent-1", "path": "a.md", "content": "c"});
    bench.send(with_id(write));
    timeout(SOON, async {
        while !begun.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert!(
        bench.trial.outbound.try_recv().is_err(),
        "not before the push"
    );
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(8)).await;
    tokio::time::resume();
    assert_eq!(bench.next().await["type"], "memory_updated");
    let answered = bench.next().await;
    assert_eq!(
        (&answered["success"], &answered["committed"]),
        (&json!(true), &json!(true))
    );
}
