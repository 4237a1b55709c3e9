//! What the next process does about the subagents of the one before (07 §3.9).

use std::fs;

use local_cloud::Fault;
use serde_json::json;

use super::*;
use crate::harness::{Setup, until};

#[tokio::test]
async fn s07_3_9_a_restart_reports_the_subagents_that_the_process_lost() {
    for signal in ["KILL", "TERM"] {
        let mut lab = Setup::default()
            .env("LETTA_DRAIN_SECONDS", "1")
            .start()
            .await;
        lab.mode(&scope(), "unrestricted").await;
        busy(&lab).await;
        lab.restart(signal).await;
        let note = notified(&lab, "task_1").await;
        assert!(note.contains("<status>failed</status>"), "{note}");
        assert!(
            note.contains("Error: The program on this computer ended"),
            "{note}"
        );
        let state = lab.home().join(".letta/listener-state");
        until("the end of the record", || {
            let servers = fs::read_dir(&state).ok()?.flatten();
            let records = servers.filter_map(|one| fs::read_dir(one.path().join("subagents")).ok());
            records.flatten().next().is_none().then_some(())
        })
        .await;
        fs::write(lab.file("go"), "").unwrap();
    }
}

#[tokio::test]
async fn s07_3_9_a_report_that_comes_while_the_program_ends_is_handed_over_by_the_next_one() {
    let mut lab = lab().await;
    let theirs = json!({"agent_id": "agent-2", "conversation_id": "default"});
    lab.cloud.set_agent("agent-2", json!({"name": "Two"}));
    let late = Fault::Delay { seconds: 2.0 };
    lab.cloud.fail_next_message_of("default:agent-2", late);
    start(&lab, agent_with("Late", "SAY just in time", theirs)).await;
    let is_childs = |request: &Recorded| {
        request.path.ends_with("/messages") && request.json()["agent_id"] == "agent-2"
    };
    let asked = lab.cloud.wait_for_request(is_childs, SOON).await.unwrap();
    assert_eq!(asked.method, "POST");
    // The answer is still to come, and the program waits for it.
    lab.signal("TERM").await;
    assert!(lab.ended().await.success());
    let told = || {
        let bodies = lab.cloud.message_bodies("conv-1");
        let told = |body: &&Value| body.to_string().contains("<task-id>task_1</task-id>");
        bodies.iter().filter(told).count()
    };
    assert_eq!(told(), 0, "it was to come after the end");
    lab.come_back().await;
    let note = notified(&lab, "task_1").await;
    assert!(note.contains("<status>completed</status>"), "{note}");
    assert!(note.contains("\n\njust in time</result>"), "{note}");
    let told = lab.cloud.message_bodies("conv-1");
    let told = told
        .iter()
        .filter(|body| body.to_string().contains("just in time</result>"));
    assert_eq!(told.count(), 1);
}
