//! The program against a real Letta server: `local-cloud` in front of it keeps
//! the control plane and passes the API on. Not part of an ordinary test run:
//! `scripts/e2e-real-letta` installs and starts the server, tells its address in
//! `LETTA_REAL_SERVER` and runs every test of this file. A new step is a new test.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed step ends the test"
)]

#[expect(dead_code, reason = "the tests on the wire use the rest")]
#[path = "wire/harness.rs"]
mod harness;
#[path = "real_letta/subagents.rs"]
mod subagents;

use std::fs;

use local_cloud::{Decision, Frame, Options, Scope, TurnTrace};
use serde_json::{Value, json};

use harness::{Lab, SOON, Setup, bash, call};

/// The program in front of the real server, and a new agent of it.
async fn lab() -> (Lab, Scope) {
    let upstream = std::env::var("LETTA_REAL_SERVER");
    let upstream = upstream.expect("LETTA_REAL_SERVER: run scripts/e2e-real-letta");
    let setup = Setup {
        options: Options {
            upstream: Some(upstream),
            turn_timeout: SOON * 3,
            ..Options::default()
        },
        ..Setup::default()
    };
    let mut lab = setup.start().await;
    let scope = new_agent(&lab).await;
    // The model looks like one that gets other tools than those of the scripts.
    lab.signal("TERM").await;
    lab.ended().await;
    let file = lab.home().join(".letta/settings.json");
    let mut settings: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let server = lab.cloud.base_url();
    settings["agents"] = json!([{"agentId": scope.agent, "toolset": "default",
        "baseUrl": server.trim_start_matches("http://"),
        "toolsetsByConversation": {scope.conversation.clone(): "default"}}]);
    fs::write(&file, settings.to_string()).unwrap();
    lab.come_back().await;
    (lab, scope)
}

/// A new agent and a new conversation, made by the program (02 §5.2).
async fn new_agent(lab: &Lab) -> Scope {
    let frame = json!({"type": "runtime_start", "create_agent": {"body": {
            "name": "e2e", "agent_type": "letta_v1_agent", "model": "openai-proxy/gpt-4o",
            "memory_blocks": [], "parallel_tool_calls": true}},
        "create_conversation": {}});
    let device = lab.device().await;
    let started = device.request(frame, SOON).await.unwrap();
    assert_eq!(started["success"], true, "{started}");
    let id = |key: &str| started["runtime"][key].as_str().unwrap().to_owned();
    Scope::new(id("agent_id"), id("conversation_id"))
}

/// Sends a message and does not wait. Its id is new: a server with Redis knows
/// a request again by the ids of its messages, whatever conversation it is for.
async fn say(lab: &Lab, scope: &Scope, text: &str) {
    let id = format!("cm-{}", uuid::Uuid::new_v4());
    lab.say(scope, &id, text).await;
}

/// A turn that ends well.
async fn turn(lab: &Lab, scope: &Scope, text: &str) -> TurnTrace {
    deciding(lab, scope, text, |_| Decision::Ignore).await
}

/// A turn that ends well, with its questions answered.
async fn deciding(
    lab: &Lab,
    scope: &Scope,
    text: &str,
    decide: impl FnMut(&Value) -> Decision,
) -> TurnTrace {
    let turn = lab.cloud.turn_deciding(scope, text, decide).await.unwrap();
    assert_eq!(turn.stop_reason(), "end_turn", "{:#?}", turn.labels());
    turn
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn a_text_is_answered_in_a_conversation_and_in_the_default_one() {
    let (lab, scope) = lab().await;
    assert_eq!(
        turn(&lab, &scope, "SAY hello there").await.text(),
        "hello there"
    );
    let default = Scope::new(scope.agent, "default");
    assert_eq!(
        turn(&lab, &default, "SAY hello again").await.text(),
        "hello again"
    );
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn a_call_that_a_client_allows_runs_and_its_result_is_answered() {
    let (lab, scope) = lab().await;
    lab.mode(&scope, "standard").await;
    let write = json!({"file_path": lab.file("asked.txt"), "content": "real\n"});
    let script = format!("{}\nSAY written", call("Write", &write));
    let mut asked = 0;
    let decide = |_: &Value| {
        asked += 1;
        Decision::Allow
    };
    let turn = deciding(&lab, &scope, &script, decide).await;
    assert_eq!(
        (turn.stop_reason(), turn.text().as_str()),
        ("end_turn", "written")
    );
    assert_eq!(asked, 1);
    assert_eq!(turn.tool_returns()[0]["status"], "success");
    assert_eq!(fs::read_to_string(lab.file("asked.txt")).unwrap(), "real\n");
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn a_call_that_a_client_denies_does_not_run_and_the_turn_goes_on() {
    let (lab, scope) = lab().await;
    lab.mode(&scope, "standard").await;
    let write = json!({"file_path": lab.file("never.txt"), "content": "never\n"});
    let script = format!("{}\nSAY understood", call("Write", &write));
    let deny = |_: &Value| Decision::Deny("not today".to_owned());
    let turn = deciding(&lab, &scope, &script, deny).await;
    assert_eq!(
        (turn.stop_reason(), turn.text().as_str()),
        ("end_turn", "understood")
    );
    assert!(!lab.file("never.txt").exists());
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn parallel_calls_of_a_step_are_answered_together() {
    let (lab, scope) = lab().await;
    lab.mode(&scope, "unrestricted").await;
    let script = format!("{}\n{}\nSAY both", bash("echo one"), bash("echo two"));
    let turn = turn(&lab, &scope, &script).await;
    let returns = turn.tool_returns();
    let texts: Vec<_> = returns
        .iter()
        .map(|r| r["tool_return"].as_str().unwrap())
        .collect();
    assert!(
        texts[0].contains("one") && texts[1].contains("two"),
        "{texts:?}"
    );
    assert_eq!(turn.text(), "both");
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn an_aborted_answer_ends_and_the_next_message_is_answered() {
    let (lab, scope) = lab().await;
    let mark = lab.cloud.mark();
    let slowly = format!("SPLIT 300\nPACE 0.1\nSAY {}", "word ".repeat(300));
    say(&lab, &scope, &slowly).await;
    lab.labelled(mark, "stream_delta:assistant_message").await;
    abort(&lab, &scope).await;
    let (finished, _) = lab.labelled(mark, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "cancelled");
    assert_eq!(turn(&lab, &scope, "SAY next").await.text(), "next");
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn an_aborted_call_is_stopped_and_the_next_message_is_answered() {
    let (lab, scope) = lab().await;
    lab.mode(&scope, "unrestricted").await;
    let mark = lab.cloud.mark();
    let script = format!("{}\nSAY late", bash("echo begun > begun; exec sleep 60"));
    say(&lab, &scope, &script).await;
    lab.written("begun").await;
    abort(&lab, &scope).await;
    let (finished, _) = lab.labelled(mark, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "cancelled");
    assert_eq!(turn(&lab, &scope, "SAY next").await.text(), "next");
}

async fn abort(lab: &Lab, scope: &Scope) {
    let abort = json!({"type": "abort_message", "runtime": scope.runtime()});
    let answer = lab.device().await.request(abort, SOON).await.unwrap();
    assert_eq!(answer["aborted"], true);
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn a_program_killed_in_a_tool_closes_the_call_once_and_goes_on() {
    let (mut lab, scope) = lab().await;
    lab.mode(&scope, "unrestricted").await;
    let script = format!(
        "{}\nSAY over",
        bash("echo ran >> ran.txt; echo $$ > pid; exec sleep 60")
    );
    say(&lab, &scope, &script).await;
    lab.written("pid").await;
    lab.restart("KILL").await;
    let path = format!("/v1/conversations/{}/messages", scope.conversation);
    let is_closing = |request: &local_cloud::Recorded| {
        request.is("POST", &path) && request.json()["messages"][0]["type"] == "approval"
    };
    lab.cloud.wait_for_request(is_closing, SOON).await.unwrap();
    let mark = lab.cloud.mark();
    say(&lab, &scope, "SAY again").await;
    let is_own_end = |frame: &Frame| {
        frame.kind() == "turn_finished"
            && !frame.value["turn_id"]
                .as_str()
                .unwrap()
                .contains("recovered")
    };
    let (finished, _) = lab.frame(mark, is_own_end).await;
    assert_eq!(finished["stop_reason"], "end_turn");
    // A server without Redis refuses the first try, which goes out again as it is.
    let mut closings = Vec::new();
    for body in lab.cloud.message_bodies(&scope.conversation) {
        let approval = body["messages"][0].clone();
        if approval["type"] == "approval" && !closings.contains(&approval) {
            closings.push(approval);
        }
    }
    assert_eq!(closings.len(), 1, "{closings:#?}");
    assert_eq!(closings[0]["approvals"][0]["approve"], false);
    assert_eq!(fs::read_to_string(lab.file("ran.txt")).unwrap(), "ran\n");
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn a_program_killed_while_a_human_is_asked_asks_again_and_runs_once() {
    let (mut lab, scope) = lab().await;
    lab.mode(&scope, "standard").await;
    let mark = lab.cloud.mark();
    let line = bash("touch asked && echo ran >> ran.txt");
    say(&lab, &scope, &format!("{line}\nSAY done")).await;
    let (_, asked) = lab.labelled(mark, "control_request").await;
    let device = lab.restart("KILL").await;
    let sync = json!({"type": "sync", "runtime": scope.runtime()});
    device.request(sync, SOON).await.unwrap();
    let (request, _) = lab.labelled(asked, "control_request").await;
    lab.cloud
        .answer(&scope, &request, Decision::Allow)
        .await
        .unwrap();
    let (finished, _) = lab.labelled(asked, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "end_turn");
    assert_eq!(fs::read_to_string(lab.file("ran.txt")).unwrap(), "ran\n");
}
