//! Commands about the machine, over the wire: answers to whom they belong,
//! nothing slow in front of anything quick.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use local_cloud::{Frame, Scope};
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, Setup, bash, scope};

fn git(lab: &Lab, arguments: &[&str]) {
    let status = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@t"])
        .args(arguments)
        .current_dir(lab.file(""))
        .status();
    assert!(status.unwrap().success(), "{arguments:?}");
}

fn repository(lab: &Lab) {
    git(lab, &["init", "-q", "-b", "main"]);
    git(lab, &["commit", "-q", "--allow-empty", "-m", "x"]);
    git(lab, &["branch", "other"]);
}

#[tokio::test]
async fn s06_19_files_are_listed_written_read_and_edited() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    let path = lab.file("a/new.txt").to_string_lossy().into_owned();
    let write = json!({"type": "write_file", "path": path, "content": "one\r\ntwo\r\n"});
    let answer = device.request(write, SOON).await.unwrap();
    assert_eq!(answer["success"], true);
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\r\ntwo\r\n");
    let edit =
        json!({"type": "edit_file", "file_path": path, "old_string": "two", "new_string": "2"});
    let mark = lab.cloud.mark();
    let answer = device.request(edit, SOON).await.unwrap();
    assert_eq!(answer["start_line"], 2);
    let frames = lab.cloud.frames();
    let kinds: Vec<&str> = frames.iter().map(|frame| frame.kind()).collect();
    let at = |kind| kinds.iter().position(|known| *known == kind).unwrap();
    assert!(at("file_ops") < at("edit_file_response"));
    let (pushed, _) = lab.labelled(mark, "file_ops").await;
    assert_eq!(pushed["document_content"], "one\r\n2\r\n");
    // A direct answer has no envelope.
    assert!(pushed.get("event_seq").is_none() && pushed.get("runtime").is_none());
    let none = lab.file("none").to_string_lossy().into_owned();
    let edit =
        json!({"type": "edit_file", "file_path": none, "old_string": "a", "new_string": "b"});
    let answer = device.request(edit, SOON).await.unwrap();
    let work = lab
        .file("")
        .to_string_lossy()
        .trim_end_matches('/')
        .to_owned();
    assert_eq!(
        answer["error"],
        format!("File does not exist. Attempted path: {none}. Current working directory: {work}")
    );
    let read = json!({"type": "read_file", "path": path, "encoding": "base64"});
    let answer = device.request(read, SOON).await.unwrap();
    assert_eq!(answer["content"], "b25lDQoyDQo=");
    let wrong = json!({"type": "read_file", "path": path, "encoding": "hex"});
    let answer = device.request(wrong, SOON).await.unwrap();
    assert_eq!(
        (&answer["type"], &answer["success"]),
        (&json!("read_file_response"), &json!(false))
    );
}

#[tokio::test]
async fn s06_4_2_a_checkout_is_followed_by_the_status_of_each_conversation() {
    let lab = Lab::start().await;
    repository(&lab);
    let device = lab.device().await;
    let scopes = [scope(), Scope::new("agent-1", "default")];
    let shows = |scope: &Scope, frame: &Frame| {
        frame.kind() == "update_device_status"
            && frame.value["runtime"]["conversation_id"] == scope.runtime()["conversation_id"]
    };
    for scope in &scopes {
        let mark = lab.cloud.mark();
        let sync = json!({"type": "sync", "runtime": scope.runtime()});
        device.request(sync, SOON).await.unwrap();
        // What is still under way says the branch before.
        lab.frame(mark, |frame| {
            shows(scope, frame) && frame.value["device_status"]["git_context"]["branch"] == "main"
        })
        .await;
    }
    let mark = lab.cloud.mark();
    let checkout = json!({"type": "checkout_branch", "branch": "other"});
    let answer = device.request(checkout, SOON).await.unwrap();
    assert_eq!(
        (&answer["success"], &answer["branch"]),
        (&json!(true), &json!("other"))
    );
    for scope in &scopes {
        let (status, _) = lab.frame(mark, |frame| shows(scope, frame)).await;
        assert_eq!(
            status["device_status"]["git_context"],
            json!({"branch": "other", "recent_branches": ["main"]})
        );
    }
}

#[tokio::test]
async fn s06_4_3_a_branch_that_a_tool_switched_is_shown_after_the_turn() {
    let lab = Lab::start().await;
    repository(&lab);
    lab.mode(&scope(), "unrestricted").await;
    let mark = lab.cloud.mark();
    let line = bash("git checkout -q other");
    lab.cloud
        .turn(&scope(), &format!("{line}\nSAY done"))
        .await
        .unwrap();
    let shows = |frame: &Frame| frame.value["device_status"]["git_context"]["branch"] == "other";
    lab.frame(mark, shows).await;
}

#[tokio::test]
async fn s06_16_where_conversations_start_is_changed_shown_and_refused_with_words() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    lab.sync(&scope()).await;
    let place = |name: &str| lab.file(name).to_string_lossy().into_owned();
    let set = async |cwd: &str| {
        let frame = json!({"type": "set_boot_working_directory", "cwd": cwd});
        device.request(frame, SOON).await.unwrap()
    };
    fs::create_dir(lab.file("sub")).unwrap();
    fs::write(lab.file("file"), "").unwrap();
    let mark = lab.cloud.mark();
    // Relative to where they start now.
    let answer = set(" sub ").await;
    assert_eq!(
        (
            &answer["success"],
            &answer["boot_working_directory"],
            &answer["cwd_revision"]
        ),
        (&json!(true), &json!(place("sub")), &json!(1))
    );
    let shows = |frame: &Frame| {
        frame.value["device_status"]["current_working_directory"] == json!(place("sub"))
    };
    lab.frame(mark, shows).await;
    for (cwd, words) in [
        ("  ", "Working directory cannot be empty".to_owned()),
        ("../file", format!("Not a directory: {}", place("file"))),
        ("../none", "No such directory: ".to_owned()),
    ] {
        let answer = set(cwd).await;
        assert_eq!(answer["success"], false, "{answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(&words), "{error}");
        // What counts stays and is said.
        assert_eq!(
            (&answer["boot_working_directory"], &answer["cwd_revision"]),
            (&json!(place("sub")), &json!(1))
        );
    }
    let map = json!({"type": "get_cwd_map"});
    let answer = device.request(map, SOON).await.unwrap();
    assert_eq!(answer["boot_working_directory"], place("sub"));
    assert_eq!(answer["cwd_map"], json!({}));
}

#[tokio::test]
async fn s06_6_5_a_memory_of_another_server_does_not_become_a_repository() {
    let elsewhere = Setup::default().env("LETTA_MEMFS_BASE_URL", "http://127.0.0.1:1/git");
    let lab = elsewhere.start().await;
    let device = lab.device().await;
    let mark = lab.cloud.request_mark();
    let enable = json!({"type": "enable_memfs", "agent_id": "agent-1"});
    let answer = device.request(enable, SOON).await.unwrap();
    assert_eq!(answer["type"], "enable_memfs_response");
    assert_eq!(
        (&answer["success"], &answer["error"]),
        (
            &json!(false),
            &json!("MemFS sync failed (expected api.letta.com, got 127.0.0.1:1)")
        )
    );
    assert_eq!(lab.cloud.requests_since(mark).len(), 0);
}

#[tokio::test]
async fn s06_5_a_terminal_echoes_and_ends_with_the_connection() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    let mark = lab.cloud.mark();
    device.send(json!({"type": "terminal_spawn", "terminal_id": "t", "cols": 80, "rows": 24}));
    let (spawned, _) = lab.labelled(mark, "terminal_spawned").await;
    let type_in = |data: &str| {
        device.send(json!({"type": "terminal_input", "terminal_id": "t", "data": data}));
    };
    type_in("echo $$ > pid.new; mv pid.new pid; echo d''one\r");
    lab.frame(mark, |frame| {
        frame.kind() == "terminal_output" && frame.value["data"].as_str().unwrap().contains("done")
    })
    .await;
    let pid = lab.written("pid").await;
    assert_eq!(spawned["pid"].to_string(), pid);
    // Typed text is no matter of any log.
    type_in("echo hush''-hush\r");
    device.drop_tcp();
    let gone = async {
        while fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z"))
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
    lab.device().await;
}

#[tokio::test]
async fn fifty_commands_that_hang_hold_up_neither_a_message_nor_a_file() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    repository(&lab);
    let hook = lab.file(".git/hooks/post-checkout");
    let waits = "#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.05; done\n";
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, waits).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let mark = lab.cloud.mark();
    for n in 0..50 {
        device.send(
            json!({"type": "checkout_branch", "request_id": format!("slow-{n}"), "branch": "other"}),
        );
    }
    let list = json!({"type": "list_in_directory", "path": lab.file(""), "request_id": "list"});
    device.send(list);
    lab.say(&scope(), "cm-1", "SAY here").await;
    lab.frame(mark, |frame| frame.value["request_id"] == "list")
        .await;
    lab.labelled(mark, "turn_finished").await;
    let frames = lab.cloud.frames();
    let done = |frame: &&std::sync::Arc<Frame>| {
        frame.kind() == "checkout_branch_response" && frame.value["success"] == true
    };
    assert_eq!(frames.iter().filter(done).count(), 0);
    fs::write(lab.file("go"), "").unwrap();
    // Every one is answered in the end, in whatever order and way.
    for n in 0..50 {
        let id = format!("slow-{n}");
        lab.frame(mark, |frame| frame.value["request_id"] == id)
            .await;
    }
}

#[tokio::test]
async fn what_is_no_command_is_answered_and_the_next_one_still_works() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    for frame in [
        json!({"type": "get_tree", "path": 1}),
        json!({"type": "write_file", "path": lab.file("never"), "content": null}),
        json!({"type": "terminal_input", "terminal_id": "t"}),
        json!({"type": "no_such_command"}),
    ] {
        let answer: Value = device.request(frame.clone(), SOON).await.unwrap();
        assert_ne!(answer["success"], true, "{frame}");
        assert!(answer["error"].is_string(), "{frame}");
    }
    assert!(!lab.file("never").exists());
    let tree = json!({"type": "get_tree", "path": lab.file(""), "depth": 1});
    assert_eq!(device.request(tree, SOON).await.unwrap()["success"], true);
}
