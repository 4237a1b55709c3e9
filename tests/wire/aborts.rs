//! Aborts (02 §5.8, 03 §13): in every phase of a turn, and what follows them.

use local_cloud::{Decision, Fault, Frame};
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, bash, scope};

async fn abort(lab: &Lab) -> Value {
    abort_run(lab, Value::Null).await
}

async fn abort_run(lab: &Lab, run_id: Value) -> Value {
    let abort = json!({"type": "abort_message", "runtime": scope().runtime(), "run_id": run_id});
    let answer = lab.device().await.request(abort, SOON).await.unwrap();
    assert_eq!(answer["success"], true);
    answer["aborted"].clone()
}

/// The turn ended as cancelled, said so once, and the next request begins with
/// what the abort left: an answer for every call, then a note, then the message.
async fn is_cancelled(lab: &Lab, mark: local_cloud::Cursor, calls: &[&str]) {
    let (finished, _) = lab.labelled(mark, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "cancelled");
    let before = lab.cloud.message_bodies("conv-1").len();
    let turn = lab.cloud.turn(&scope(), "SAY next").await.unwrap();
    assert_eq!(
        (turn.text().as_str(), turn.stop_reason()),
        ("next", "end_turn")
    );
    let frames = lab.cloud.frames();
    let interrupted = frames.iter().filter(|frame| {
        frame.label() == "stream_delta:status" && frame.value["delta"]["message"] == "Interrupted"
    });
    assert_eq!(interrupted.count(), 1);
    let bodies = lab.cloud.message_bodies("conv-1");
    let sent = bodies[before]["messages"].as_array().unwrap();
    let mut sent = sent.iter();
    if !calls.is_empty() {
        let approval = sent.next().unwrap();
        let answered = approval["approvals"].as_array().unwrap();
        let answered: Vec<_> = answered.iter().map(|item| &item["tool_call_id"]).collect();
        assert_eq!(answered, calls);
    }
    let note = sent.next().unwrap().to_string();
    assert!(note.contains("interrupted"), "{note}");
    assert!(sent.next().unwrap().to_string().contains("SAY next"));
    assert!(sent.next().is_none());
}

#[tokio::test]
async fn s03_22_row18_an_abort_while_streaming() {
    let lab = Lab::start().await;
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-1", "SAY begin\nTHEN\nSLEEP 60\nSAY never")
        .await;
    lab.labelled(mark, "stream_delta:assistant_message").await;
    assert_eq!(abort(&lab).await, true);
    let cancels = |request: &local_cloud::Recorded| request.path.ends_with("/cancel");
    lab.cloud.wait_for_request(cancels, SOON).await.unwrap();
    is_cancelled(&lab, mark, &[]).await;
}

#[tokio::test]
async fn s03_22_row18_an_abort_while_a_human_is_asked() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    let mark = lab.cloud.mark();
    let write = json!({"file_path": lab.file("never.txt"), "content": "x"});
    lab.say(&scope(), "cm-1", &format!("CALLID call-1 Write {write}"))
        .await;
    let (request, _) = lab.labelled(mark, "control_request").await;
    assert_eq!(abort(&lab).await, true);
    is_cancelled(&lab, mark, &["call-1"]).await;
    assert!(!lab.file("never.txt").exists());
    let late = json!({"type": "input", "runtime": scope().runtime(), "payload": {
        "kind": "approval_response", "request_id": request["request_id"],
        "decision": {"behavior": "allow"}}});
    let late = lab.device().await.request(late, SOON).await.unwrap();
    assert_eq!(late["accepted"], false);
}

#[tokio::test]
async fn s03_22_row18_an_abort_while_a_command_runs() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    let mark = lab.cloud.mark();
    let arguments = json!({"command": "touch begun; exec sleep 60", "description": "Wait"});
    lab.say(&scope(), "cm-1", &format!("CALLID call-1 Bash {arguments}"))
        .await;
    lab.labelled(mark, "stream_delta:client_tool_start").await;
    assert_eq!(abort(&lab).await, true);
    is_cancelled(&lab, mark, &["call-1"]).await;
}

#[tokio::test]
async fn s03_22_row18_an_abort_while_a_retry_is_waited_for() {
    let lab = Lab::start().await;
    let busy = Fault::status(503).with_header("Retry-After", "60");
    lab.cloud.fail_next_message(busy);
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-1", "SAY never").await;
    lab.labelled(mark, "stream_delta:retry").await;
    assert_eq!(abort(&lab).await, true);
    is_cancelled(&lab, mark, &[]).await;
}

#[tokio::test]
async fn s03_22_row19_an_abort_of_another_run_changes_nothing() {
    let lab = Lab::start().await;
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-1", "SAY begin\nTHEN\nSLEEP 0.3\nSAY end")
        .await;
    lab.labelled(mark, "stream_delta:assistant_message").await;
    assert_eq!(abort_run(&lab, json!("run-of-somebody")).await, false);
    let (finished, _) = lab.labelled(mark, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "end_turn");
    assert_eq!(abort(&lab).await, false, "nothing runs any more");
}

#[tokio::test]
async fn s02_17_row05_an_abort_pauses_the_queue_until_it_is_resumed() {
    let lab = Lab::start().await;
    let paused = queue_and_abort(&lab).await;
    let resume = json!({"type": "resume_queue", "runtime": scope().runtime()});
    let answer = lab.device().await.request(resume, SOON).await.unwrap();
    assert_eq!(
        (&answer["success"], &answer["resumed"]),
        (&json!(true), &json!(1))
    );
    let (finished, _) = lab.labelled(paused, "turn_finished").await;
    let (finished, _) = match finished["stop_reason"].as_str() {
        Some("cancelled") => {
            let (_, end) = lab.labelled(paused, "turn_finished").await;
            lab.labelled(end, "turn_finished").await
        }
        _ => (finished, paused),
    };
    assert_eq!(finished["stop_reason"], "end_turn");
    let bodies = lab.cloud.message_bodies("conv-1");
    assert!(bodies[1].to_string().contains("SAY later"));
}

#[tokio::test]
async fn s02_17_row05_a_new_message_releases_a_paused_queue() {
    let lab = Lab::start().await;
    let paused = queue_and_abort(&lab).await;
    lab.say(&scope(), "cm-2", "SAY newest").await;
    let later = |request: &local_cloud::Recorded| {
        request.json().to_string().contains("SAY later")
            && request.json().to_string().contains("SAY newest")
    };
    lab.cloud.wait_for_request(later, SOON).await.unwrap();
    lab.labelled(paused, "turn_finished").await;
}

/// One message waits behind a turn that is aborted; the position behind the
/// frame that shows it paused.
async fn queue_and_abort(lab: &Lab) -> local_cloud::Cursor {
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-0", "SAY begin\nTHEN\nSLEEP 60\nSAY never")
        .await;
    lab.labelled(mark, "stream_delta:assistant_message").await;
    lab.say(&scope(), "cm-1", "SAY later").await;
    lab.frame(mark, |frame| frame.value["queue"][0].is_object())
        .await;
    assert_eq!(abort(lab).await, true);
    assert_eq!(abort(lab).await, false, "it is being cancelled already");
    let is_paused = |frame: &Frame| frame.value["queue"][0]["paused"] == true;
    let (_, paused) = lab.frame(mark, is_paused).await;
    paused
}

#[tokio::test]
async fn an_abort_and_an_answer_at_once_leave_one_result_for_the_call() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    let mark = lab.cloud.mark();
    let line = bash("touch x; echo ran");
    lab.say(&scope(), "cm-1", &format!("{line}\nSAY over"))
        .await;
    let (request, _) = lab.labelled(mark, "control_request").await;
    lab.device()
        .await
        .send(json!({"type": "abort_message", "runtime": scope().runtime()}));
    lab.cloud
        .answer(&scope(), &request, Decision::Allow)
        .await
        .unwrap();
    lab.labelled(mark, "turn_finished").await;
    let turn = lab.cloud.turn(&scope(), "SAY next").await.unwrap();
    assert_eq!(turn.text(), "next");
    assert!(lab.cloud.pending(&scope()).is_empty());
}
