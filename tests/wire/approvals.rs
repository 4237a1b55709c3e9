//! Calls that a human decides.

use std::fs;

use local_cloud::{Decision, Scope};
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, bash, call, scope};

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

#[tokio::test]
async fn s02_9_1_a_saved_rule_decides_about_the_rest_of_its_batch() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    let (same, other) = (bash("make one"), bash("touch other"));
    let script = format!("{same}\n{same}\n{other}\nSAY done");
    let mut asked = Vec::new();
    let decide = |request: &Value| {
        let command = request["request"]["input"]["command"].as_str().unwrap();
        asked.push(command.to_owned());
        if asked.len() == 1 {
            Decision::AllowAndSave
        } else {
            Decision::Deny("no".to_owned())
        }
    };
    let turn = lab
        .cloud
        .turn_deciding(&scope(), &script, decide)
        .await
        .unwrap();
    assert_eq!(asked, ["make one", "touch other"]);
    assert_eq!(turn.deltas("client_tool_start").len(), 2);
    let saved = fs::read_to_string(lab.file(".letta/settings.json")).unwrap();
    let saved: Value = serde_json::from_str(&saved).unwrap();
    assert_eq!(saved["permissions"]["allow"], json!(["Bash(make one)"]));
}

#[tokio::test]
async fn s05_11_a_session_rule_holds_for_its_conversation_alone() {
    let lab = Lab::start().await;
    let other = Scope::new("agent-1", "conv-2");
    lab.mode(&scope(), "standard").await;
    lab.mode(&other, "standard").await;
    let write = json!({"file_path": lab.file("a.txt"), "content": "x"});
    let script = format!("{}\nSAY done", call("Write", &write));
    for (scope, questions) in [(scope(), 1), (scope(), 0), (other, 1)] {
        let mut asked = 0;
        let decide = |_: &Value| {
            asked += 1;
            Decision::AllowAndSave
        };
        lab.cloud
            .turn_deciding(&scope, &script, decide)
            .await
            .unwrap();
        assert_eq!(asked, questions, "{scope:?}");
    }
    assert!(!lab.file(".letta/settings.json").exists());
}

#[tokio::test]
async fn s05_11_settings_that_do_not_parse_stay_as_they_are_and_the_approval_counts() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    let path = lab.file(".letta/settings.json");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "{ \"permissions\": ").unwrap();
    let script = format!("{}\nSAY done", bash("echo x > ran"));
    let turn = lab
        .cloud
        .turn_deciding(&scope(), &script, |_| Decision::AllowAndSave)
        .await
        .unwrap();
    assert_eq!(turn.stop_reason(), "end_turn");
    assert!(lab.file("ran").exists());
    assert_eq!(fs::read_to_string(path).unwrap(), "{ \"permissions\": ");
    let answers = turn.of_type("input_accepted");
    let told = answers.iter().find(|answer| answer["error"].is_string());
    let told = told.expect("the client is told that no rule was saved");
    assert_eq!(told["accepted"], true);
}
