//! Schedules: `cron_*` of clients, `letta cron`, and a prompt that arrives.

use local_cloud::Scope;
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, scope, until};

async fn ask(lab: &Lab, mut command: Value) -> Value {
    command["request_id"] = json!("req-1");
    let device = lab.device().await;
    device.request(command, SOON).await.unwrap()
}

async fn add(lab: &Lab, more: Value) -> Value {
    let mut command = json!({"type": "cron_add", "agent_id": "agent-1", "conversation_id": "conv-1",
        "name": "look", "description": "look around", "cron": "0 9 * * *", "recurring": true,
        "prompt": "SAY looked"});
    for (name, value) in more.as_object().unwrap() {
        command[name] = value.clone();
    }
    ask(lab, command).await
}

#[tokio::test]
async fn s07_1_14_schedules_are_added_listed_changed_and_deleted() {
    let lab = Lab::start().await;
    let mark = lab.cloud.mark();
    let added = add(&lab, json!({})).await;
    assert_eq!(added["success"], true, "{added}");
    let (updated, _) = lab.labelled(mark, "crons_updated").await;
    assert_eq!(
        (&updated["agent_id"], &updated["conversation_id"]),
        (&json!("agent-1"), &json!("conv-1"))
    );
    assert!(updated["event_seq"].is_null(), "a bare frame");
    let id = added["task"]["id"].clone();
    assert!(added["task"]["expires_at"].is_string());
    let list = ask(&lab, json!({"type": "cron_list", "agent_id": "agent-1"})).await;
    assert_eq!(list["tasks"][0]["id"], id);
    let other = ask(&lab, json!({"type": "cron_list", "agent_id": "agent-2"})).await;
    assert_eq!(other["tasks"], json!([]));
    for (kind, status) in [("cron_pause", "paused"), ("cron_resume", "active")] {
        let done = ask(&lab, json!({"type": kind, "task_id": id})).await;
        assert_eq!(
            (&done["found"], &done["task"]["status"]),
            (&json!(true), &json!(status))
        );
    }
    let change = json!({"type": "cron_update", "task_id": id, "cron": "0 0 31 2 *"});
    let refused = ask(&lab, change).await;
    assert_eq!(refused["success"], false);
    let change = json!({"type": "cron_update", "task_id": id, "name": "other"});
    assert_eq!(ask(&lab, change).await["task"]["name"], "other");
    let gone = ask(&lab, json!({"type": "cron_delete", "task_id": id})).await;
    assert_eq!(
        (&gone["success"], &gone["found"]),
        (&json!(true), &json!(true))
    );
    let gone = ask(&lab, json!({"type": "cron_delete", "task_id": id})).await;
    assert_eq!(
        (&gone["success"], &gone["found"]),
        (&json!(true), &json!(false))
    );
    let got = ask(&lab, json!({"type": "cron_get", "task_id": id})).await;
    assert_eq!(
        (&got["success"], &got["found"], &got["task"]),
        (&json!(true), &json!(false), &Value::Null)
    );
    add(&lab, json!({"expires_at": null})).await;
    let all = ask(
        &lab,
        json!({"type": "cron_delete_all", "agent_id": "agent-1"}),
    )
    .await;
    assert_eq!(all["deleted"], 1);
}

#[tokio::test]
async fn s07_1_14_what_is_wrong_is_answered_with_the_empty_fields() {
    let lab = Lab::start().await;
    let cases = [
        (
            json!({"type": "cron_list", "agent_id": 7}),
            json!({"tasks": []}),
        ),
        (
            json!({"type": "cron_get"}),
            json!({"found": false, "task": null}),
        ),
        (
            json!({"type": "cron_trigger", "task_id": "x"}),
            json!({"found": false}),
        ),
        (
            json!({"type": "cron_pause", "task_id": "x"}),
            json!({"found": false}),
        ),
        (json!({"type": "cron_runs", "task_id": "../x"}), json!({})),
        (json!({"type": "cron_add", "agent_id": "a"}), json!({})),
        (json!({"type": "cron_delete_all"}), json!({"deleted": 0})),
    ];
    for (command, fields) in cases {
        let answer = ask(&lab, command.clone()).await;
        assert_eq!(answer["success"], false, "{command}");
        assert!(answer["error"].is_string(), "{command}");
        for (name, value) in fields.as_object().unwrap() {
            assert_eq!(answer.get(name), Some(value), "{command}: {name}");
        }
    }
    let bad = add(&lab, json!({"recurring": false, "scheduled_for": "soon"})).await;
    assert_eq!(bad["error"], "Invalid scheduled_for timestamp");
}

#[tokio::test]
async fn s07_1_10_a_schedule_run_by_hand_becomes_a_turn() {
    let lab = Lab::start().await;
    let added = add(&lab, json!({})).await;
    // The conversation is one that the client looks at.
    let sync = json!({"type": "sync", "runtime": scope().runtime()});
    ask(&lab, sync).await;
    let mark = lab.cloud.mark();
    let run = json!({"type": "cron_trigger", "task_id": added["task"]["id"]});
    let fired = ask(&lab, run).await;
    assert_eq!(
        (&fired["success"], &fired["task"]["fire_count"]),
        (&json!(true), &json!(1))
    );
    let (updated, _) = lab.labelled(mark, "crons_updated").await;
    assert!(updated["event_seq"].is_number(), "an event for subscribers");
    lab.labelled(mark, "turn_finished").await;
    let sent = lab.cloud.message_bodies("conv-1")[0].to_string();
    assert!(
        sent.contains("Scheduled task \\\"look\\\" is firing.\\nDescription: look around\\n"),
        "{sent}"
    );
    let (echo, _) = lab.labelled(mark, "stream_delta:user_message").await;
    let echo = echo["delta"]["content"].as_str().unwrap();
    assert!(
        echo.starts_with("Scheduled task \"look\" is firing.\nTimezone: "),
        "{echo}"
    );
    let id = &added["task"]["id"];
    let runs = ask(&lab, json!({"type": "cron_runs", "task_id": id})).await;
    assert_eq!(runs["page"]["entries"][0]["outcome"], "queued");
}

/// Over a restart, so that the wait for the next minute falls away: what is due
/// when the server starts fires with its first connection.
#[tokio::test]
async fn s07_1_9_a_task_of_the_command_line_fires_into_its_conversation() {
    let mut lab = Lab::start().await;
    let words = [
        "cron",
        "add",
        "--name",
        "soon",
        "--description",
        "d",
        "--prompt",
        "SAY fired",
    ];
    let when = [
        "--at",
        "in 0m",
        "--agent",
        "agent-1",
        "--conversation",
        "conv-1",
    ];
    let mark = lab.cloud.mark();
    let added = lab.letta(&[&words[..], &when].concat()).await;
    assert_eq!(added.code, 0, "{added:?}");
    let task: Value = serde_json::from_str(&added.out).unwrap();
    lab.restart("KILL").await;
    let posted = lab.cloud.wait_for_request_after(
        mark,
        |request| request.method == "POST" && request.path.contains("/conv-1/messages"),
        SOON,
    );
    let (posted, _) = posted.await.unwrap();
    let posted = posted.json().to_string();
    assert!(posted.contains("Prompt: SAY fired"), "{posted}");
    assert!(
        posted.contains("This is a one-off scheduled task."),
        "{posted}"
    );
    let id = task["id"].as_str().unwrap();
    // The record follows the prompt within moments.
    let recorded = async {
        loop {
            let got = lab.letta(&["cron", "get", id]).await;
            let got: Value = serde_json::from_str(&got.out).unwrap();
            if got["status"] == "fired" {
                return got;
            }
        }
    };
    let recorded = tokio::time::timeout(SOON, recorded).await.unwrap();
    assert_eq!(recorded["fire_count"], 1);
}

#[tokio::test]
async fn s07_1_15_the_command_line_adds_lists_gets_and_deletes() {
    let lab = Lab::start().await;
    // Before that a new task comes with the warning that nobody fires it.
    let store = lab.home().join(".letta/crons.json");
    let claimed = || {
        let text = std::fs::read_to_string(&store).ok()?;
        text.contains("scheduler_owners").then_some(())
    };
    until("the claim of the schedules", claimed).await;
    let base = [
        "cron",
        "add",
        "--name",
        "n",
        "--description",
        "d",
        "--prompt",
        "p",
        "--agent",
        "agent-1",
    ];
    let add = async |more: &[&str]| lab.letta(&[&base[..], more].concat()).await;
    let added = add(&["--every", "7m"]).await;
    let task: Value = serde_json::from_str(&added.out).unwrap();
    let keys: Vec<&String> = task.as_object().unwrap().keys().collect();
    let expected = [
        "id",
        "runner",
        "status",
        "cron",
        "recurring",
        "agent_id",
        "conversation_id",
        "created_at",
        "expires_at",
        "note",
    ];
    assert_eq!(keys, expected);
    assert_eq!(
        (&task["cron"], &task["conversation_id"]),
        (&json!("*/6 * * * *"), &json!("new"))
    );
    let id = task["id"].as_str().unwrap();
    let never: Value = serde_json::from_str(
        &add(&["--cron", "0 9 * * *", "--expires", "never"])
            .await
            .out,
    )
    .unwrap();
    assert!(never.get("expires_at").is_none());
    let once: Value = serde_json::from_str(&add(&["--at", "in 45m"]).await.out).unwrap();
    assert!(once["scheduled_for"].is_string() && once.get("expires_at").is_none());
    let list = lab.letta(&["cron", "list", "--runner", "local"]).await;
    let list: Value = serde_json::from_str(&list.out).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 3);
    assert_eq!(
        (&list[0]["runner"], &list[0]["prompt"]),
        (&json!("local"), &json!("p"))
    );
    let got = lab.letta(&["cron", "get", id]).await;
    assert_eq!(serde_json::from_str::<Value>(&got.out).unwrap()["id"], id);
    let gone = lab.letta(&["cron", "delete", id]).await;
    assert_eq!(
        gone.out,
        format!("{{\"deleted\":\"{id}\",\"runner\":\"local\"}}\n")
    );
    let several = lab
        .letta(&["cron", "delete", "n", "--runner", "local"])
        .await;
    assert_eq!(several.code, 1);
    assert!(
        several.err.contains("several tasks are named \"n\""),
        "{several:?}"
    );
    let all = lab
        .letta(&[
            "cron", "delete", "--all", "--agent", "agent-1", "--runner", "local",
        ])
        .await;
    assert_eq!(
        all.out,
        "{\"deleted\":2,\"local_deleted\":2,\"cloud_deleted\":0,\"agent_id\":\"agent-1\"}\n"
    );
    let gone = lab.letta(&["cron", "get", id, "--runner", "local"]).await;
    assert_eq!((gone.code, gone.out.as_str()), (1, ""));
}

#[tokio::test]
async fn s07_1_15_a_wrong_command_line_ends_with_64_and_changes_nothing() {
    let lab = Lab::start().await;
    let base = [
        "cron",
        "add",
        "--name",
        "n",
        "--description",
        "d",
        "--prompt",
        "p",
        "--agent",
        "a",
    ];
    for (more, said) in [
        (&[][..], "one of --every, --at, or --cron"),
        (&["--every", "5m", "--at", "3:00pm"], "only one of"),
        (&["--every", "5w"], "invalid interval \"5w\""),
        (&["--at", "3pm"], "invalid time \"3pm\""),
        (&["--cron", "0 0 31 2 *"], "never has a day 31"),
        (&["--cron", "0 9 * * *", "--once"], "--once"),
        (&["--at", "in 5m", "--expires", "3d"], "--expires"),
        (&["--every", "5m", "--expires", "soon"], "invalid --expires"),
        (
            &["--every", "5m", "--conversation", "self"],
            "LETTA_CONVERSATION_ID",
        ),
        (
            &["--every", "5m", "--computer", "c", "--runner", "local"],
            "--computer needs --cloud",
        ),
        (&["--sometimes"], "Unknown option '--sometimes'"),
    ] {
        let refused = lab.letta(&[&base[..], more].concat()).await;
        assert_eq!(refused.code, 64, "{refused:?}");
        assert!(refused.err.contains(said), "{refused:?}");
    }
    assert_eq!(lab.letta(&["cron", "shout"]).await.code, 64);
    assert_eq!(lab.letta(&["cron"]).await.code, 0);
    let list = lab.letta(&["cron", "list", "--runner", "local"]).await;
    assert_eq!(list.out, "[]\n");
}

#[tokio::test]
async fn s07_1_16_cloud_schedules_go_through_the_api() {
    let lab = Lab::start().await;
    // The cloud knows an agent once something was said to it.
    lab.cloud
        .turn(&Scope::new("agent-1", "default"), "SAY hi")
        .await
        .unwrap();
    let base = [
        "cron",
        "add",
        "--name",
        "c",
        "--description",
        "d",
        "--prompt",
        "p",
        "--agent",
        "agent-1",
        "--cloud",
    ];
    let added = lab
        .letta(&[&base[..], &["--cron", "0 9 * * *"]].concat())
        .await;
    assert_eq!(added.code, 0, "{added:?}");
    let made: Value = serde_json::from_str(&added.out).unwrap();
    assert_eq!(
        (
            &made["runner"],
            &made["execution_target"],
            &made["schedule"]["cron_expression"]
        ),
        (
            &json!("cloud"),
            &json!("cloud-sandbox"),
            &json!("0 9 * * *")
        )
    );
    assert!(made["notes"][0].as_str().unwrap().contains("UTC"));
    let refused = lab
        .letta(&[&base[..], &["--every", "5m", "--expires", "3d"]].concat())
        .await;
    assert_eq!(refused.code, 64);
    let mut elsewhere = [&base[..], &["--cron", "0 9 * * *"]].concat();
    elsewhere[9] = "agent-missing-1";
    let unknown = lab.letta(&elsewhere).await;
    assert_eq!((unknown.code, unknown.out.as_str()), (1, ""), "{unknown:?}");
    assert!(
        unknown
            .err
            .contains("agent-missing-1: it does not know the agent"),
        "{unknown:?}"
    );
    // Nothing was made on this computer in its place.
    let local = lab.letta(&["cron", "list", "--runner", "local"]).await;
    assert_eq!(local.out, "[]\n");
    let id = made["id"].as_str().unwrap();
    let list = lab.letta(&["cron", "list", "--agent", "agent-1"]).await;
    let list: Value = serde_json::from_str(&list.out).unwrap();
    assert_eq!(
        (&list[0]["id"], &list[0]["runner"], &list[0]["recurring"]),
        (&json!(id), &json!("cloud"), &json!(true))
    );
    let runs = lab
        .letta(&["cron", "runs", "--id", id, "--agent", "agent-1"])
        .await;
    assert_eq!(
        serde_json::from_str::<Value>(&runs.out).unwrap()["runner"],
        "cloud"
    );
    let gone = lab
        .letta(&["cron", "delete", "c", "--agent", "agent-1"])
        .await;
    assert_eq!(
        gone.out,
        format!("{{\"deleted\":\"{id}\",\"name\":\"c\",\"runner\":\"cloud\"}}\n")
    );
    let unknown = lab
        .letta(&["cron", "delete", "c", "--agent", "agent-1"])
        .await;
    assert_eq!(unknown.code, 1);
}

/// Every `letta` command of the document, as it stands there.
#[tokio::test]
async fn the_examples_of_the_document_work() {
    let lab = Lab::start().await;
    lab.cloud
        .turn(&Scope::new("agent-123", "default"), "SAY hi")
        .await
        .unwrap();
    let text = include_str!("../../docs/scheduling.md");
    let mut ran = 0;
    for block in text.split("```sh\n").skip(1) {
        let block = block.split("```").next().unwrap().replace("\\\n", " ");
        for line in block.lines().filter(|line| !line.trim().is_empty()) {
            let words = shell_words(line);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert_eq!(words[0], "letta");
            let done = lab
                .letta_as(&words[1..], &[("LETTA_AGENT_ID", "agent-123")])
                .await;
            assert_eq!(done.code, 0, "{line}: {done:?}");
            ran += 1;
        }
    }
    assert_eq!(ran, 8);
}

/// Words apart at blanks, quotes taken off: as much shell as the document uses.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
