//! Calls that a human decides.

use std::fs;

use local_cloud::Decision;
use serde_json::json;

use crate::harness::{Lab, SOON, call, scope};

#[tokio::test]
async fn s02_17_row06_an_edited_call_runs_as_edited_and_a_second_answer_is_refused() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    let (asked, edited) = (lab.file("asked.txt"), lab.file("edited.txt"));
    let write = json!({"file_path": asked, "content": "asked\n"});
    let script = format!("{}\nSAY done", call("Write", &write));
    let mut requests = Vec::new();
    let decide = |request: &serde_json::Value| {
        requests.push(request.clone());
        Decision::AllowEdited(json!({"file_path": edited, "content": "edited\n"}))
    };
    let turn = lab
        .cloud
        .turn_deciding(&scope(), &script, decide)
        .await
        .unwrap();
    assert_eq!(turn.text(), "done");
    assert_eq!(requests.len(), 1);
    let diffs = requests[0]["request"]["diffs"].as_array().unwrap();
    assert!(diffs[0].to_string().contains("asked"), "{diffs:?}");
    assert!(!asked.exists());
    assert_eq!(fs::read_to_string(edited).unwrap(), "edited\n");

    let second = json!({"type": "input", "runtime": scope().runtime(), "payload": {
        "kind": "approval_response", "request_id": requests[0]["request_id"],
        "decision": {"behavior": "allow"}}});
    let answer = lab.device().await.request(second, SOON).await.unwrap();
    assert_eq!(answer["type"], "input_accepted");
    assert_eq!(answer["accepted"], false);
}

#[tokio::test]
async fn s02_17_row06_a_denied_call_ends_in_error_without_a_start() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    let path = lab.file("never.txt");
    let write = json!({"file_path": path, "content": "never\n"});
    let script = format!("{}\nSAY done", call("Write", &write));
    let deny = |_: &serde_json::Value| Decision::Deny("not today".to_owned());
    let turn = lab
        .cloud
        .turn_deciding(&scope(), &script, deny)
        .await
        .unwrap();
    assert_eq!(turn.text(), "done");
    assert!(turn.deltas("client_tool_start").is_empty());
    let ends = turn.deltas("client_tool_end");
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0]["status"], "error");
    assert!(!path.exists());
    let bodies = lab.cloud.message_bodies("conv-1");
    assert!(bodies[1].to_string().contains("not today"), "{}", bodies[1]);
}
