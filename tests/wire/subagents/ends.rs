//! How a subagent ends, and what does not end it (07 §3.5–§3.7).

use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::harness::until;

#[tokio::test]
async fn s07_3_6_a_subagent_that_fails_says_why() {
    let lab = lab().await;
    let hook = json!({"hooks": {"SubagentStop": [{"hooks": [
        {"type": "command", "command": "cat >> stopped"}]}]}});
    fs::create_dir_all(lab.file(".letta")).unwrap();
    fs::write(lab.file(".letta/settings.json"), hook.to_string()).unwrap();
    let step = bash("true");
    let calls = [
        (agent("Stop", "STOP max_tokens_exceeded"), ""),
        (
            agent("Silent", "STOP end_turn"),
            "ended without a final message",
        ),
        (
            agent_with(
                "Long",
                &format!("{step}\nTHEN\nSTOP no_tool_call"),
                json!({"max_turns": 1}),
            ),
            "Maximum turns limit reached (",
        ),
    ];
    for (number, (call, reason)) in calls.into_iter().enumerate() {
        let text = start(&lab, call).await;
        let note = notified(&lab, &format!("task_{}", number + 1)).await;
        assert!(note.contains("<status>failed</status>"), "{note}");
        assert!(note.contains("subagent_status=error"), "{note}");
        assert!(
            note.contains("\n\nError: ") && note.contains(reason),
            "{note}"
        );
        let file = fs::read_to_string(labelled(&text, "Output file: ")).unwrap();
        assert!(
            file.contains("\n\n[error] ") && file.ends_with("\n\n[Task failed]\n"),
            "{file}"
        );
    }
    let told = until("the hook", || {
        let told = fs::read_to_string(lab.file("stopped")).unwrap_or_default();
        (told.matches("\"SubagentStop\"").count() == 3).then_some(told)
    });
    let told = told.await;
    assert!(
        told.contains("\"subagent_type\":\"general-purpose\""),
        "{told}"
    );
    assert!(told.contains("\"success\":false"), "{told}");
}

#[tokio::test]
async fn s07_3_7_an_abort_of_the_parent_leaves_its_subagents_at_work() {
    let lab = lab().await;
    busy(&lab).await;
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-9", "SAY begin\nTHEN\nSLEEP 60\nSAY never")
        .await;
    lab.labelled(mark, "stream_delta:assistant_message").await;
    let abort = json!({"type": "abort_message", "runtime": scope().runtime()});
    lab.device().await.request(abort, SOON).await.unwrap();
    lab.labelled(mark, "turn_finished").await;
    let status = lab.device_status(&scope()).await;
    assert_eq!(status["background_processes"][0]["process_id"], "task_1");
    assert_eq!(status["background_processes"][0]["kind"], "agent_task");
    fs::write(lab.file("go"), "").unwrap();
    assert!(notified(&lab, "task_1").await.contains("went on</result>"));
}

#[tokio::test]
async fn s07_3_7_a_subagent_is_stopped_by_its_parent_a_client_or_in_its_own_conversation() {
    let lab = lab().await;
    busy(&lab).await;
    let stopped = hand_over(&lab, &[call("TaskStop", &json!({"task_id": "task_1"}))]).await;
    assert_eq!(stopped[0]["tool_return"], "Process killed successfully");
    let note = notified(&lab, "task_1").await;
    assert!(
        note.contains("\n\nError: Interrupted by user</result>"),
        "{note}"
    );
    let again = hand_over(&lab, &[call("TaskStop", &json!({"task_id": "task_1"}))]).await;
    assert!(
        again[0]["tool_return"]
            .as_str()
            .unwrap()
            .starts_with("Failed to kill")
    );

    fs::remove_file(lab.file("begun")).unwrap();
    busy(&lab).await;
    let stop = json!({"type": "monitor_stop", "request_id": "s1", "process_id": "task_2",
        "runtime": scope().runtime()});
    let answer = lab
        .device()
        .await
        .request(stop.clone(), SOON)
        .await
        .unwrap();
    assert_eq!(
        (&answer["success"], &answer["stopped"]),
        (&json!(true), &json!(true))
    );
    assert!(
        notified(&lab, "task_2")
            .await
            .contains("Interrupted by user")
    );
    let answer = lab.device().await.request(stop, SOON).await.unwrap();
    assert_eq!(answer["success"], false, "{answer}");

    fs::remove_file(lab.file("begun")).unwrap();
    let child = busy(&lab).await;
    let abort = json!({"type": "abort_message", "runtime": child.runtime()});
    let answer = lab.device().await.request(abort, SOON).await.unwrap();
    assert_eq!(answer["aborted"], true, "{answer}");
    assert!(
        notified(&lab, "task_3")
            .await
            .contains("Interrupted by user")
    );
}

#[tokio::test]
async fn s07_3_7_a_lost_connection_leaves_subagents_at_work_and_its_return_shows_them() {
    let lab = lab().await;
    busy(&lab).await;
    let links = lab.cloud.links_opened();
    let mark = lab.cloud.mark();
    lab.device().await.drop_tcp();
    lab.cloud.wait_for_link(links + 1, SOON).await.unwrap();
    lab.sync(&scope()).await;
    // Its own conversation is shown again, too, and has no subagents.
    state(&lab, mark, "running").await;
    fs::write(lab.file("go"), "").unwrap();
    assert!(notified(&lab, "task_1").await.contains("went on</result>"));
}

#[tokio::test]
async fn s07_3_6_a_long_report_is_cut_and_whole_in_its_file() {
    let lab = lab().await;
    let report = format!("{}END", "word ".repeat(8_000));
    let text = start(&lab, agent("Talk", &format!("SAY {report}"))).await;
    let note = notified(&lab, "task_1").await;
    assert!(note.len() < 32_000, "{}", note.len());
    assert!(note.contains("truncated"), "{note}");
    let file = fs::read_to_string(labelled(&text, "Output file: ")).unwrap();
    assert!(file.contains("word END\n\n[Task completed]\n"));
}

#[tokio::test]
async fn s07_3_5_no_more_than_32_subagents_run_at_once() {
    let lab = lab().await;
    let calls: Vec<String> = (0..33)
        .map(|_| agent("Sleep", "SLEEP 300\nSAY late"))
        .collect();
    let results = hand_over(&lab, &calls).await;
    let failed: Vec<&Value> = results
        .iter()
        .filter(|one| one["status"] == "error")
        .collect();
    assert_eq!((results.len(), failed.len()), (33, 1));
    let text = failed[0]["tool_return"].as_str().unwrap();
    assert!(text.contains("32/32"), "{text}");
    // One that ends makes room.
    hand_over(&lab, &[call("TaskStop", &json!({"task_id": "task_7"}))]).await;
    let text = start(&lab, agent("More", "SAY done")).await;
    assert!(text.starts_with("Task running"), "{text}");
}
