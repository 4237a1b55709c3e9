//! Decisions of humans in all their forms, and what they outlive (02 §9).

use local_cloud::Decision;
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, bash, call, scope};

#[tokio::test]
async fn s02_17_row06_a_saved_suggestion_decides_the_second_call() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    let write = |name: &str| {
        call(
            "Write",
            &json!({"file_path": lab.file(name), "content": "x\n"}),
        )
    };
    let script = format!("{}\n{}\nSAY done", write("one.txt"), write("two.txt"));
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-1", &script).await;
    let (request, _) = lab.labelled(mark, "control_request").await;
    let suggestion = &request["request"]["permission_suggestions"][0];
    assert_eq!(suggestion["id"], "save-default");
    let answer = decide(
        &request,
        json!({"decision": {"behavior": "allow",
            "selected_permission_suggestion_ids": ["save-default", "no-such"]}}),
    );
    lab.device().await.request(answer, SOON).await.unwrap();
    let (finished, _) = lab.labelled(mark, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "end_turn");
    assert!(lab.file("one.txt").exists() && lab.file("two.txt").exists());
    assert_eq!(questions(&lab), 1);
}

#[tokio::test]
async fn s02_17_row06_a_malformed_denial_leaves_the_question_and_an_error_answers_it() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    let mark = lab.cloud.mark();
    let write = json!({"file_path": lab.file("never.txt"), "content": "x\n"});
    lab.say(
        &scope(),
        "cm-1",
        &format!("{}\nSAY over", call("Write", &write)),
    )
    .await;
    let (request, _) = lab.labelled(mark, "control_request").await;
    let device = lab.device().await;
    let malformed = decide(&request, json!({"decision": {"behavior": "deny"}}));
    let answer = device.request(malformed, SOON).await.unwrap();
    assert_eq!(answer["accepted"], false);
    lab.labelled(mark, "stream_delta:loop_error").await;
    let status = lab.device_status(&scope()).await;
    let pending = status["pending_control_requests"].as_array().unwrap();
    assert_eq!(pending.len(), 1);

    let failed = decide(&request, json!({"error": "client failed to render"}));
    let answer = device.request(failed, SOON).await.unwrap();
    assert_eq!(answer["accepted"], true);
    lab.labelled(mark, "turn_finished").await;
    let bodies = lab.cloud.message_bodies("conv-1");
    assert!(bodies[1].to_string().contains("client failed to render"));
    assert!(!lab.file("never.txt").exists());
}

#[tokio::test]
async fn s02_17_row07_when_all_calls_are_denied_nothing_executes() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    let write = json!({"file_path": lab.file("never.txt"), "content": "x\n"});
    let script = format!("{}\nSAY done", call("Write", &write));
    let deny = |_: &Value| Decision::Deny("no".to_owned());
    let turn = lab.cloud.turn_deciding(&scope(), &script, deny).await;
    let turn = turn.unwrap();
    let loops = turn.of_type("update_loop_status");
    let executing: Vec<_> = loops
        .iter()
        .map(|frame| &frame["loop_status"])
        .filter(|status| status["status"] == "EXECUTING_CLIENT_SIDE_TOOL")
        .collect();
    assert!(!executing.is_empty());
    for status in executing {
        assert_eq!(status["executing_tool_call_ids"], json!([]));
    }
    assert!(turn.deltas("client_tool_start").is_empty());
    assert_eq!(turn.deltas("client_tool_end")[0]["status"], "error");
}

#[tokio::test]
async fn s02_17_row08_a_question_outlives_a_drop_and_numbers_go_on() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    let mark = lab.cloud.mark();
    let write = json!({"file_path": lab.file("late.txt"), "content": "x\n"});
    lab.say(
        &scope(),
        "cm-1",
        &format!("{}\nSAY done", call("Write", &write)),
    )
    .await;
    let (first, _) = lab.labelled(mark, "control_request").await;
    let before = lab.device().await;
    lab.labelled(mark, "approval_requested").await;
    let after = lab.cloud.mark();
    before.drop_tcp();
    let device = lab.cloud.wait_for_link(2, SOON).await.unwrap();
    assert_eq!(device.connection_id(), before.connection_id());
    let (again, _) = lab.labelled(after, "control_request").await;
    assert_eq!(again["request_id"], first["request_id"]);
    assert!(again["event_seq"].as_i64() > first["event_seq"].as_i64());
    lab.labelled(after, "update_device_status").await;
    let replay = lab.sync(&scope()).await;
    let kinds: Vec<_> = replay.iter().map(|frame| &frame["type"]).collect();
    for kind in [
        "control_request",
        "update_loop_status",
        "update_queue",
        "sync_response",
    ] {
        assert!(kinds.contains(&&json!(kind)), "no {kind} in {kinds:?}");
    }
    lab.cloud
        .answer(&scope(), &again, Decision::Allow)
        .await
        .unwrap();
    let (finished, _) = lab.labelled(after, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "end_turn");
    assert!(lab.file("late.txt").exists());
    let frames = lab.cloud.frames();
    let told = frames.iter().filter(|f| f.kind() == "approval_requested");
    assert_eq!(told.count(), 1, "a replay tells nothing new");
}

#[tokio::test]
async fn s03_22_row05_one_denied_and_one_allowed_call_share_one_answer() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    let (no, yes) = (lab.file("no.txt"), lab.file("yes.txt"));
    let script = format!(
        "CALLID call-1 Write {}\nCALLID call-2 Write {}\nSAY done",
        json!({"file_path": no, "content": "x"}),
        json!({"file_path": yes, "content": "x"})
    );
    let decide = |request: &Value| match request["request"]["tool_call_id"].as_str() {
        Some("call-1") => Decision::Deny("no".to_owned()),
        _ => Decision::Allow,
    };
    let turn = lab.cloud.turn_deciding(&scope(), &script, decide).await;
    assert_eq!(turn.unwrap().text(), "done");
    assert!(!no.exists() && yes.exists());
    let bodies = lab.cloud.message_bodies("conv-1");
    assert_eq!(bodies.len(), 2);
    let answers = bodies[1]["messages"][0]["approvals"].as_array().unwrap();
    let answers: Vec<_> = answers
        .iter()
        .map(|item| {
            (
                item["tool_call_id"].as_str().unwrap(),
                item["type"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(answers, [("call-1", "approval"), ("call-2", "tool")]);
}

#[tokio::test]
async fn s03_22_row06_the_comment_of_an_approval_stands_before_the_result() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    let mark = lab.cloud.mark();
    let line = bash("touch asked; echo asked");
    lab.say(&scope(), "cm-1", &format!("{line}\nSAY done"))
        .await;
    let (request, _) = lab.labelled(mark, "control_request").await;
    let edited = json!({"command": "echo edited", "description": "A test"});
    let answer = decide(
        &request,
        json!({"decision": {"behavior": "allow", "message": "only this once",
            "updated_input": edited}}),
    );
    lab.device().await.request(answer, SOON).await.unwrap();
    lab.labelled(mark, "turn_finished").await;
    let bodies = lab.cloud.message_bodies("conv-1");
    let parts = &bodies[1]["messages"][0]["approvals"][0]["tool_return"];
    let comment = parts[0]["text"].as_str().unwrap();
    assert!(comment.contains("\"only this once\""), "{comment}");
    assert!(parts[1]["text"].as_str().unwrap().contains("edited"));
    assert!(!lab.file("asked").exists());
}

/// An answer to a question, with these fields.
fn decide(request: &Value, fields: Value) -> Value {
    let mut payload = json!({"kind": "approval_response", "request_id": request["request_id"]});
    let fields = fields.as_object().unwrap().clone();
    payload.as_object_mut().unwrap().extend(fields);
    json!({"type": "input", "runtime": scope().runtime(), "payload": payload})
}

fn questions(lab: &Lab) -> usize {
    let frames = lab.cloud.frames();
    let questions = frames.iter().filter(|f| f.kind() == "control_request");
    questions.count()
}
