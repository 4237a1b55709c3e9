//! Turns that go well: text, tools, repeats and the queue.

use std::fs;

use local_cloud::{Frame, Scope};
use serde_json::json;
use tokio::time::timeout;

use crate::harness::{Lab, SOON, assert_in_order, bash, labels, scope};

#[tokio::test]
async fn s03_22_row01_a_text_turn_ends_once_and_its_events_are_counted() {
    let lab = Lab::start().await;
    for scope in [scope(), Scope::new("agent-1", "default")] {
        let turn = lab.cloud.turn(&scope, "SAY hello").await.unwrap();
        assert_eq!(turn.text(), "hello");
        assert_eq!(turn.stop_reason(), "end_turn");
        let answer = turn.of_type("input_accepted");
        assert_eq!(answer.len(), 1);
        assert_eq!(answer[0]["accepted"], true);
        assert_eq!(labels(&turn)[0], "input_accepted");
        assert_eq!(turn.of_type("turn_finished").len(), 1);
    }
    let mut numbers: Vec<i64> = lab
        .cloud
        .frames()
        .iter()
        .filter_map(|frame| frame.value["event_seq"].as_i64())
        .collect();
    numbers.sort_unstable();
    let first = numbers[0];
    let wanted: Vec<i64> = (first..).take(numbers.len()).collect();
    assert_eq!(numbers, wanted);
}

#[tokio::test]
async fn s02_7_3_a_tool_step_says_its_frames_in_order_and_sends_its_result() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    let line = bash("echo one-$((40 + 2))");
    let script = format!("{line}\nSAY done");
    let turn = lab.cloud.turn(&scope(), &script).await.unwrap();
    assert_in_order(
        &labels(&turn),
        &[
            "input_accepted",
            "stream_delta:approval_classification_end",
            "stream_delta:client_tool_start",
            "stream_delta:client_tool_end",
            "stream_delta:tool_return_message",
            "turn_finished",
        ],
    );
    assert_eq!(turn.text(), "done");
    assert!(turn.of_type("control_request").is_empty());
    let bodies = lab.cloud.message_bodies("conv-1");
    assert_eq!(bodies.len(), 2);
    assert!(bodies[1].to_string().contains("one-42"), "{}", bodies[1]);
}

#[tokio::test]
async fn s02_17_row03_a_repeated_client_message_id_does_not_run_twice() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    let mark = lab.cloud.mark();
    let line = bash("echo ran >> ran.txt");
    lab.say(&scope(), "cm-same", &line).await;
    lab.say(&scope(), "cm-same", &line).await;
    let (_, end) = lab.labelled(mark, "turn_finished").await;
    lab.say(&scope(), "cm-same", &line).await;
    lab.frame(end, |frame| frame.value["request_id"] == "req-cm-same")
        .await;
    let turn = lab.cloud.turn(&scope(), "SAY next").await.unwrap();
    assert_eq!(turn.text(), "next");
    assert_eq!(fs::read_to_string(lab.file("ran.txt")).unwrap(), "ran\n");
    assert_eq!(lab.cloud.message_bodies("conv-1").len(), 3);
}

#[tokio::test]
async fn s02_17_row02_inputs_during_a_turn_become_one_request() {
    let lab = Lab::start().await;
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-0", "SAY begin\nTHEN\nSLEEP 1\nSAY end")
        .await;
    lab.labelled(mark, "stream_delta:assistant_message").await;
    for id in ["cm-1", "cm-2", "cm-3"] {
        lab.say(&scope(), id, &format!("SAY {id}")).await;
    }
    let (_, first) = lab.labelled(mark, "turn_finished").await;
    lab.labelled(first, "turn_finished").await;
    let bodies = lab.cloud.message_bodies("conv-1");
    assert_eq!(bodies.len(), 2);
    let ids = ["cm-1", "cm-2", "cm-3"];
    let sent = bodies[1]["messages"].as_array().unwrap();
    let sent: Vec<_> = sent.iter().map(|message| &message["otid"]).collect();
    assert_eq!(sent, ids);
    let frames = lab.cloud.frames();
    let echoes = frames
        .iter()
        .filter(|frame| frame.label() == "stream_delta:user_message");
    let echoes: Vec<_> = echoes.map(|frame| &frame.value["delta"]["otid"]).collect();
    assert_eq!(echoes, ids);
    let (queue, _) = lab
        .frame(mark, |frame| frame.value["removed"][0].is_object())
        .await;
    let removed = queue["removed"].as_array().unwrap();
    let ids_removed: Vec<_> = removed.iter().map(|r| &r["client_message_id"]).collect();
    assert_eq!(ids_removed, ids);
    assert!(removed.iter().all(|r| r["disposition"] == "dequeued"));
}

#[tokio::test]
async fn s02_17_row05_abort_ends_a_running_command() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    let mark = lab.cloud.mark();
    let line = bash("sleep 30 & echo $! > pid.new; mv pid.new pid; wait");
    lab.say(&scope(), "cm-1", &line).await;
    lab.labelled(mark, "stream_delta:client_tool_start").await;
    let pid = lab.written("pid").await;
    let device = lab.device().await;
    let abort = json!({"type": "abort_message", "runtime": scope().runtime()});
    let answer = device.request(abort, SOON).await.unwrap();
    assert_eq!(answer["type"], "abort_message_response");
    assert_eq!(answer["aborted"], true);
    let (finished, _) = lab.labelled(mark, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "cancelled");
    let said = lab.cloud.frames();
    let interrupted = said.iter().filter(|frame| is_interrupted(frame)).count();
    assert_eq!(interrupted, 1);
    let gone = async {
        while is_alive(&pid) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone).await.expect("the command lives on");
}

#[tokio::test]
async fn s03_22_row04_results_stand_in_decision_order_whatever_ran_beside_what() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    fs::write(lab.file("a.txt"), "one\ntwo\n").unwrap();
    let edit = |id: &str, from: &str, to: &str| {
        let arguments = json!({"file_path": lab.file("a.txt"), "old_string": from,
            "new_string": to});
        format!("CALLID {id} Edit {arguments}")
    };
    let read = |id: &str| {
        format!(
            "CALLID {id} Read {}",
            json!({"file_path": lab.file("a.txt")})
        )
    };
    let bash = json!({"command": "echo bash", "description": "x"});
    let script = [
        read("c1"),
        edit("c2", "one", "1"),
        format!("CALLID c3 Bash {bash}"),
        edit("c4", "1\ntwo", "both"),
        read("c5"),
        "SAY done".to_owned(),
    ];
    let turn = lab.cloud.turn(&scope(), &script.join("\n")).await.unwrap();
    assert_eq!(turn.text(), "done");
    let bodies = lab.cloud.message_bodies("conv-1");
    let answers = bodies[1]["messages"][0]["approvals"].as_array().unwrap();
    let told: Vec<_> = answers
        .iter()
        .map(|item| (item["tool_call_id"].as_str().unwrap(), &item["status"]))
        .collect();
    let wanted = ["c1", "c2", "c3", "c4", "c5"].map(|id| (id, &answers[0]["status"]));
    assert_eq!(answers[0]["status"], "success");
    assert_eq!(told, wanted);
    assert_eq!(fs::read_to_string(lab.file("a.txt")).unwrap(), "both\n");
}

#[tokio::test]
async fn s03_22_row22_a_secret_reaches_the_child_and_nobody_else() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    let value = "s3cr3t-value-12345";
    lab.cloud.set_secrets("agent-1", &[("TOKEN", value)]);
    let line = bash("echo \"got $TOKEN\"; printf %s \"$TOKEN\" > kept");
    let script = format!("{line}\nSAY done");
    let turn = lab.cloud.turn(&scope(), &script).await.unwrap();
    assert_eq!(turn.text(), "done");
    assert_eq!(fs::read_to_string(lab.file("kept")).unwrap(), value);
    let returned = turn.tool_returns()[0]["tool_return"].to_string();
    assert!(returned.contains("TOKEN=<REDACTED>"), "{returned}");
    for frame in lab.cloud.frames() {
        assert!(!frame.value.to_string().contains(value), "{}", frame.value);
    }
    for body in lab.cloud.message_bodies("conv-1") {
        assert!(!body.to_string().contains(value), "{body}");
    }
    assert!(!lab.session_log().contains(value));
}

fn is_interrupted(frame: &Frame) -> bool {
    frame.label() == "stream_delta:status" && frame.value.to_string().contains("Interrupted")
}

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}
