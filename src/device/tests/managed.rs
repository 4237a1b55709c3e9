//! Commands about agents, models, skills, secrets, settings and memory: what
//! goes to the server, and what comes back.

use std::path::Path;

use axum::response::Response;

use super::*;
use crate::api::tests::{Server, json as answer};
use crate::events::{Injected, Recipient};

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_its_reason_and_empty_fields() {
    let mut bench = Bench::new().await;
    for case in data("managed-refusals.json") {
        bench.send(case["send"].clone());
        assert_eq!(bench.next().await, case["answer"], "{}", case["name"]);
    }
}

/// A device with a server that gives these answers.
async fn served(answers: impl IntoIterator<Item = Response>) -> (Bench, Server) {
    let server = Server::answering(answers).await;
    let bench = Bench::with(Some((&server.url, "http://127.0.0.1:1"))).await;
    (bench, server)
}

#[tokio::test]
async fn pass_through_commands_ask_the_server_and_repeat_its_answer() {
    for case in data("managed-pass-through.json") {
        let answers = case["server"].as_array().unwrap().iter();
        let answers = answers.map(|given| {
            answer(
                u16::try_from(given["status"].as_u64().unwrap()).unwrap(),
                &given["body"],
            )
        });
        let server = Server::answering(answers).await;
        let servers = Some((server.url.as_str(), "http://127.0.0.1:1"));
        let mut bench = Bench::at(servers, case["cloud"] == true).await;
        bench.send(case["send"].clone());
        assert_eq!(bench.next().await, case["answer"], "{}", case["name"]);
        let seen: Vec<Value> = server
            .seen()
            .into_iter()
            .map(|seen| {
                let line = format!("{} {}", seen.method, seen.uri);
                match seen.body {
                    Value::Null => json!(line),
                    body => json!([line, body]),
                }
            })
            .collect();
        assert_eq!(json!(seen), case["asked"], "{}", case["name"]);
    }
}

#[tokio::test]
async fn a_skill_is_linked_told_of_and_unlinked() {
    let mut bench = Bench::new().await;
    bench.file("mine/SKILL.md", "---\nname: mine\n---\n");
    let path = bench.text("mine");
    let enable = json!({"type": "skill_enable", "skill_path": path});
    let link = bench.dir.path().join("home/.letta/skills/mine");
    assert_eq!(
        bench.ask(enable).await,
        json!({"type":"skill_enable_response","request_id":"r-1","success":true,"name":"mine","skill_name":"mine","skill_path":path,"link_path":link.to_str().unwrap()})
    );
    let told = bench.next().await;
    assert_eq!(told["type"], "skills_updated");
    assert!(told["timestamp"].is_i64() && told.as_object().unwrap().len() == 2);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new(&path));
    let answer = bench
        .ask(json!({"type": "skill_disable", "name": "mine"}))
        .await;
    assert_eq!(
        (&answer["name"], &answer["skill_name"]),
        (&json!("mine"), &json!("mine"))
    );
    assert_eq!(bench.next().await["type"], "skills_updated");
    assert!(fs::symlink_metadata(&link).is_err());
}

#[tokio::test]
async fn a_new_place_to_start_is_shown_to_people_before_it_is_answered() {
    let mut bench = Bench::new().await;
    fs::create_dir(bench.path("sub")).unwrap();
    let set = json!({"type": "set_boot_working_directory", "request_id": "r-1", "cwd": "sub"});
    bench.send(set.clone());
    let (to, news) = bench.trial.injected.recv().await.unwrap();
    assert_eq!(to, Recipient::Live);
    assert!(bench.trial.outbound.try_recv().is_err());
    assert!(
        matches!(news, Injected::BootDirectoryChanged(_)),
        "{news:?}"
    );
    drop(news);
    let answered = bench.next().await;
    assert_eq!(answered["boot_working_directory"], bench.text("sub"));
    // The same again changes nothing and is news to nobody.
    bench.send({
        let mut set = set;
        set["cwd"] = json!(bench.text("sub"));
        set
    });
    assert_eq!(bench.next().await["success"], true);
    assert!(bench.trial.injected.try_recv().is_err());
}

#[tokio::test]
async fn secrets_are_read_before_they_are_written_whole() {
    let rows = json!([{"key": "OLD", "value": "1"}, {"key": "GONE", "value": "2"}]);
    let (mut bench, server) = served([answer(200, &rows), answer(200, &json!({}))]).await;
    let apply = json!({"type": "secret_apply", "agent_id": "agent-1", "set": {"new_key": "s3cret-value", "gone": "x"}, "unset": ["GONE"]});
    let answered = bench.ask(apply).await;
    assert_eq!(answered["names"], json!(["NEW_KEY", "OLD"]));
    let seen = server.seen();
    assert_eq!(seen[1].method, "PATCH");
    assert_eq!(
        seen[1].body,
        json!({"secrets": {"OLD": "1", "NEW_KEY": "s3cret-value"}})
    );
}

#[tokio::test]
async fn settings_are_stored_reported_and_shown_to_conversations() {
    let mut bench = Bench::new().await;
    let runtime = json!({"agent_id": "agent-1", "conversation_id": "conv-1"});
    let set = json!({"type": "set_reflection_settings", "runtime": runtime, "settings": {
        "trigger": "step-count", "step_count": 7, "merge": "explicit", "merge_instructions": " keep "}});
    let answered = bench.ask(set).await;
    // What counts is that nobody reflects here.
    let shown = json!({"agent_id":"agent-1","trigger":"off","step_count":7,"merge":"explicit","merge_instructions":"keep"});
    assert_eq!(answered["reflection_settings"], shown);
    assert_eq!(answered["scope"], "both");
    let (to, news) = bench.trial.injected.recv().await.unwrap();
    assert!(matches!(to, Recipient::Conversation(_)));
    assert!(matches!(news, Injected::Show { .. }));
    let get = json!({"type": "get_reflection_settings", "runtime": runtime});
    assert_eq!(bench.ask(get).await["reflection_settings"], shown);
    for file in [
        "home/.letta/settings.json",
        "work/.letta/settings.local.json",
    ] {
        let text = fs::read_to_string(bench.dir.path().join(file)).unwrap();
        let stored: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(stored["reflectionTrigger"], "step-count", "{file}");
        assert_eq!(
            stored["reflectionSettingsByAgent"]["agent-1"]["stepCount"],
            7
        );
    }
    let set = json!({"type": "set_experiment", "experiment_id": "tui_cron", "enabled": true});
    let answered = bench.ask(set).await;
    let row = |answered: &Value| answered["experiments"][5].clone();
    assert_eq!(row(&answered)["enabled"], true);
    assert!(matches!(
        bench.trial.injected.recv().await,
        Some((Recipient::Live, Injected::Show { .. }))
    ));
    let answered = bench.ask(json!({"type": "get_experiments"})).await;
    assert_eq!(row(&answered)["source"], "override");
}

/// A server of memories on disk with one file, and its address.
pub(super) fn memories() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str], at: &Path| {
        let done = std::process::Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@t", "-C"])
            .arg(at)
            .args(args)
            .output();
        assert!(done.unwrap().status.success(), "{args:?}");
    };
    let bare = dir.path().join("v1/git/agent-1/state.git");
    let seed = dir.path().join("seed");
    fs::create_dir_all(&bare).unwrap();
    fs::create_dir_all(seed.join("system")).unwrap();
    run(&["init", "-q", "--bare", "-b", "main"], &bare);
    run(&["init", "-q", "-b", "main"], &seed);
    for n in 0..11 {
        fs::write(seed.join(format!("n{n:02}.md")), format!("note {n}")).unwrap();
    }
    run(&["add", "-A"], &seed);
    run(&["commit", "-qm", "a|b"], &seed);
    run(&["push", "-q", bare.to_str().unwrap(), "main"], &seed);
    let url = format!("file://{}", dir.path().display());
    (dir, url)
}

/// A device that works with a memory of the agent.
pub(super) async fn remembering() -> (Bench, Server, TempDir) {
    let (dir, url) = memories();
    let agent = json!({"id": "agent-1", "name": "Ada", "tags": ["git-memory-enabled"]});
    let answers = (0..8).map(|_| answer(200, &agent));
    let server = Server::answering(answers).await;
    let bench = Bench::with(Some((&server.url, &url))).await;
    (bench, server, dir)
}

#[tokio::test]
async fn a_memory_is_listed_in_chunks_of_five() {
    let (mut bench, _server, _dir) = remembering().await;
    bench.send(json!({"type": "list_memory", "request_id": "r", "agent_id": "agent-1"}));
    let mut sizes = Vec::new();
    loop {
        let frame = bench.next().await;
        assert_eq!(frame["total"], 11);
        assert_eq!(
            (&frame["memfs_enabled"], &frame["memfs_initialized"]),
            (&json!(true), &json!(true))
        );
        sizes.push(frame["entries"].as_array().unwrap().len());
        if frame["done"] == true {
            assert_eq!(
                frame["entries"][0],
                json!({"relative_path":"n10.md","is_system":false,"description":null,"content":"note 10","size":7,"kind":"markdown","mime_type":"text/markdown"})
            );
            break;
        }
    }
    assert_eq!(sizes, [5, 5, 1]);
}

#[tokio::test]
async fn a_memory_that_is_no_repository_is_listed_as_such() {
    let agent = json!({"id": "agent-1", "tags": []});
    let (mut bench, _server) = served((0..4).map(|_| answer(200, &agent))).await;
    let list = json!({"type": "list_memory", "agent_id": "agent-1"});
    assert_eq!(
        bench.ask(list).await,
        json!({"type":"list_memory_response","request_id":"r-1","success":true,"entries":[],"done":true,"total":0,"memfs_enabled":false,"memfs_initialized":false})
    );
    let read = json!({"type": "read_memory_file", "agent_id": "agent-1", "path": "x.md"});
    let answered = bench.ask(read).await;
    assert_eq!(answered["error"], "memfs is not enabled for this agent");
}

#[tokio::test]
async fn a_file_of_a_memory_is_written_told_of_and_removed() {
    let (mut bench, _server, dir) = remembering().await;
    let write = json!({"type": "write_memory_file", "agent_id": "agent-1", "path": "./notes//a.md", "content": "aGk=", "encoding": "base64"});
    bench.send(with_id(write));
    let told = bench.next().await;
    assert_eq!(
        (&told["type"], &told["affected_paths"]),
        (&json!("memory_updated"), &json!(["notes/a.md"]))
    );
    let answered = bench.next().await;
    assert_eq!(
        (&answered["success"], &answered["committed"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(answered["path"], "notes/a.md");
    let sha = answered["commit_sha"].as_str().unwrap().to_owned();
    // It is on the server before anyone hears of it.
    let bare = dir.path().join("v1/git/agent-1/state.git");
    let head = std::process::Command::new("git")
        .arg("-C")
        .arg(&bare)
        .args(["rev-parse", "main"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&head.stdout).trim(), sha);
    let same = json!({"type": "write_memory_file", "agent_id": "agent-1", "path": "notes/a.md", "content": "hi"});
    let answered = bench.ask(same).await;
    assert_eq!(
        (&answered["success"], &answered["committed"]),
        (&json!(true), &json!(false))
    );
    let read = json!({"type": "read_memory_file", "agent_id": "agent-1", "path": "notes/a.md"});
    assert_eq!(bench.ask(read).await["content"], "hi");
    let history = bench
        .ask(json!({"type": "memory_history", "agent_id": "agent-1"}))
        .await;
    let messages: Vec<&str> = history["commits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|commit| commit["message"].as_str().unwrap())
        .collect();
    assert_eq!(messages, ["Update memory file notes/a.md", "a|b"]);
    assert_eq!(history["commits"][0]["author_name"], "Ada");
    let at = json!({"type": "memory_file_at_ref", "agent_id": "agent-1", "file_path": "n00.md", "ref": "HEAD~1"});
    assert_eq!(bench.ask(at).await["content"], "note 0");
    let diff = bench
        .ask(json!({"type": "memory_commit_diff", "agent_id": "agent-1", "sha": sha}))
        .await;
    assert!(diff["diff"].as_str().unwrap().contains("+hi"), "{diff}");
    let delete = json!({"type": "delete_memory_file", "agent_id": "agent-1", "path": "notes/a.md", "commit_message": " gone "});
    bench.send(with_id(delete.clone()));
    assert_eq!(bench.next().await["type"], "memory_updated");
    assert_eq!(bench.next().await["committed"], true);
    let nothing_left = bench.ask(delete).await;
    assert_eq!(
        (&nothing_left["success"], &nothing_left["committed"]),
        (&json!(true), &json!(false))
    );
}

#[tokio::test]
async fn a_refused_commit_leaves_the_file_as_it_was() {
    let (mut bench, _server, _dir) = remembering().await;
    let write = |content: &str| json!({"type": "write_memory_file", "agent_id": "agent-1", "path": "system/x.md", "content": content});
    bench.send(with_id(write("---\ndescription: d\n---\ngood")));
    assert_eq!(bench.next().await["type"], "memory_updated");
    assert_eq!(bench.next().await["success"], true);
    let answered = bench.ask(write("no header")).await;
    assert_eq!(answered["success"], false);
    let error = answered["error"].as_str().unwrap();
    assert!(
        error.contains("system/x.md: it must open with a header"),
        "{error}"
    );
    let read = json!({"type": "read_memory_file", "agent_id": "agent-1", "path": "system/x.md"});
    let found = bench.ask(read).await;
    assert!(found["content"].as_str().unwrap().ends_with("good"));
}

pub(super) fn with_id(mut frame: Value) -> Value {
    frame["request_id"] = json!("r-1");
    frame
}
