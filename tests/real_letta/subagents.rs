//! Subagents against a real server: it makes the agents, copies the
//! conversations and runs both turns.

use local_cloud::{Recorded, Scope};
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, bash, call};
use crate::{lab, turn};

/// Has the parent start a subagent of this kind; the notification that its
/// model is sent.
async fn report(lab: &Lab, scope: &Scope, kind: &str, script: &str) -> String {
    let arguments = json!({"description": "Try", "prompt": script, "subagent_type": kind});
    let script = format!("{}\nSAY handed over", call("Agent", &arguments));
    let parent = turn(lab, scope, &script).await;
    let returned = parent.tool_returns()[0].to_string();
    assert!(
        returned.contains("Task running in background with task ID: task_1"),
        "{returned}"
    );
    let told = |one: &Recorded| {
        one.path.contains(&scope.conversation)
            && String::from_utf8_lossy(&one.body).contains("<task-id>task_1</task-id>")
    };
    let request = lab.cloud.wait_for_request(told, SOON * 3).await.unwrap();
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    body["messages"].to_string()
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn a_new_agent_does_a_task_and_its_report_comes_back() {
    let (lab, scope) = lab().await;
    lab.mode(&scope, "unrestricted").await;
    let task = format!(
        "{}\nSAY the child is done",
        bash("echo by-the-child > made")
    );
    let note = report(&lab, &scope, "general-purpose", &task).await;
    assert!(note.contains("<status>completed</status>"), "{note}");
    assert!(note.contains("the child is done"), "{note}");
    assert_eq!(lab.written("made").await, "by-the-child");
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn a_copy_of_the_conversation_does_a_task_and_its_report_comes_back() {
    let (lab, scope) = lab().await;
    lab.mode(&scope, "unrestricted").await;
    turn(&lab, &scope, "SAY known to both").await;
    let note = report(&lab, &scope, "fork", "SAY the copy is done").await;
    assert!(note.contains("the copy is done"), "{note}");
}
