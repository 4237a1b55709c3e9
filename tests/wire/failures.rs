//! Turns that go on although the API, the stream or the program itself failed.

use std::fs;

use local_cloud::{Fault, Recorded};
use serde_json::json;

use crate::harness::{Lab, SOON, scope};

#[tokio::test]
async fn s03_22_row12_two_503_then_success_says_two_retries() {
    let lab = Lab::start().await;
    lab.cloud.fail_next_message(Fault::status(503));
    lab.cloud.fail_next_message(Fault::status(503));
    let turn = lab.cloud.turn(&scope(), "SAY at last").await.unwrap();
    assert_eq!(turn.text(), "at last");
    assert_eq!(turn.stop_reason(), "end_turn");
    let retries = turn.deltas("retry");
    let attempts: Vec<_> = retries.iter().map(|delta| &delta["attempt"]).collect();
    assert_eq!(attempts, [1, 2]);
    let bodies = lab.cloud.message_bodies("conv-1");
    assert_eq!(bodies.len(), 3);
    assert!(bodies[0]["messages"][0]["otid"].is_string());
    assert_eq!(
        bodies[0]["messages"][0]["otid"],
        bodies[2]["messages"][0]["otid"]
    );
}

#[tokio::test]
async fn s03_22_row08_a_cut_stream_is_resumed_without_duplicates() {
    let lab = Lab::start().await;
    let fault = Fault::CutAfterEvents { events: 4 };
    lab.cloud.fail_next_message(fault);
    let script = "SPLIT 8\nSAY one two three four five six seven eight";
    let turn = lab.cloud.turn(&scope(), script).await.unwrap();
    assert_eq!(turn.text(), "one two three four five six seven eight");
    assert_eq!(turn.stop_reason(), "end_turn");
    assert_eq!(lab.cloud.message_bodies("conv-1").len(), 1);
    let requests = lab.cloud.requests();
    let resumed = requests
        .iter()
        .find(|r| r.path.starts_with("/v1/runs/") && r.path.ends_with("/stream"));
    let resumed = resumed.expect("the run is taken up again");
    assert_eq!(resumed.json()["starting_after"], 4);
}

#[tokio::test]
async fn s03_22_row20_a_call_cut_off_by_a_kill_is_closed_once_without_being_asked() {
    let (lab, orphan) = killed_in_a_tool().await;
    let is_closing = |request: &Recorded| {
        request.is("POST", "/v1/conversations/conv-1/messages")
            && request.json()["messages"][0]["type"] == "approval"
    };
    lab.cloud.wait_for_request(is_closing, SOON).await.unwrap();
    lab.cloud.turn(&scope(), "SAY again").await.unwrap();
    assert_closed_once(&lab);
    end(&orphan).await;
}

#[tokio::test]
async fn s03_22_row20_a_call_cut_off_by_a_kill_is_closed_once_when_a_client_is_back_first() {
    let (lab, orphan) = killed_in_a_tool().await;
    let sync = json!({"type": "sync", "runtime": scope().runtime()});
    lab.device().await.request(sync, SOON).await.unwrap();
    let turn = lab.cloud.turn(&scope(), "SAY again").await.unwrap();
    assert_eq!(turn.stop_reason(), "end_turn");
    lab.cloud.turn(&scope(), "SAY once more").await.unwrap();
    assert_closed_once(&lab);
    end(&orphan).await;
}

/// A program that was killed in the middle of a command and has connected again,
/// and the process id of that command.
async fn killed_in_a_tool() -> (Lab, String) {
    let mut lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    let mark = lab.cloud.mark();
    let command = "echo $$ > pid; echo ran >> ran.txt; exec sleep 30";
    let arguments = json!({"command": command, "description": "Wait"});
    let line = format!("CALLID call-1 Bash {arguments}\nSAY over");
    lab.say(&scope(), "cm-1", &line).await;
    lab.labelled(mark, "stream_delta:client_tool_start").await;
    lab.written("ran.txt").await;
    let orphan = lab.written("pid").await;
    lab.restart("KILL").await;
    (lab, orphan)
}

/// One denial of the call went out, nothing waits, and the command ran once.
fn assert_closed_once(lab: &Lab) {
    let bodies = lab.cloud.message_bodies("conv-1");
    let sent = bodies.iter().skip(1);
    let sent = sent.flat_map(|body| body["messages"].as_array().unwrap());
    let approvals: Vec<_> = sent
        .filter(|message| message["type"] == "approval")
        .map(|message| &message["approvals"])
        .collect();
    assert_eq!(approvals.len(), 1, "{approvals:?}");
    assert_eq!(approvals[0][0]["tool_call_id"], "call-1");
    assert_eq!(approvals[0][0]["approve"], false);
    assert!(lab.cloud.pending(&scope()).is_empty());
    assert_eq!(fs::read_to_string(lab.file("ran.txt")).unwrap(), "ran\n");
}

/// A command outlives a killed program; a test does not leave it behind.
async fn end(orphan: &str) {
    let mut kill = tokio::process::Command::new("kill");
    let kill = kill.arg(orphan).stderr(std::process::Stdio::null());
    kill.status().await.unwrap();
}
