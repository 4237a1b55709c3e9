//! Turns that go on although the API or the stream failed.

use std::fs;

use local_cloud::{Fault, Scope, Target};
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, Setup, scope};

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

/// A turn whose first request has `fault`; its answer must come all the same.
async fn survives(fault: Fault) -> (Lab, local_cloud::TurnTrace) {
    let lab = Setup::default()
        .env("LETTA_STREAM_STALL_RECONCILE_MS", "150")
        .env("LETTA_STREAM_TERMINAL_EOF_GRACE_MS", "150")
        .start()
        .await;
    lab.cloud.fail_next_message(fault);
    let turn = lab.cloud.turn(&scope(), SCRIPT).await.unwrap();
    assert_eq!(turn.text(), "one two three four", "{:#?}", turn.labels());
    assert_eq!(turn.stop_reason(), "end_turn");
    (lab, turn)
}

const SCRIPT: &str = "SPLIT 4\nSAY one two three four";

fn resumed_by(lab: &Lab, prefix: &str) -> Value {
    let requests = lab.cloud.requests();
    let resumed = requests
        .iter()
        .find(|r| r.path.starts_with(prefix) && r.path.ends_with("/stream"));
    resumed.expect("it is resumed").json()
}

#[tokio::test]
async fn s03_22_row09_a_cut_before_any_chunk_is_resumed_by_otid() {
    let (lab, _) = survives(Fault::CutAfterEvents { events: 0 }).await;
    let body = resumed_by(&lab, "/v1/conversations/conv-1");
    let bodies = lab.cloud.message_bodies("conv-1");
    assert_eq!(body["otid"], bodies[0]["messages"][0]["otid"]);
    assert_eq!(
        (body["starting_after"].as_i64(), bodies.len()),
        (Some(0), 1)
    );
}

#[tokio::test]
async fn s03_22_row09_an_answer_lost_after_it_was_accepted_is_not_asked_for_twice() {
    for fault in [Fault::AcceptThenReset, Fault::EmptyBody] {
        let (lab, _) = survives(fault).await;
        let bodies = lab.cloud.message_bodies("conv-1");
        let otids: Vec<_> = bodies.iter().map(|b| &b["messages"][0]["otid"]).collect();
        assert!(otids.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[tokio::test]
async fn s03_22_row10_silence_of_a_run_that_is_over_is_ended_and_the_tail_fetched() {
    let silence = Fault::Silence {
        events: 3,
        pings: false,
    };
    let (_, turn) = survives(silence).await;
    let warnings = turn.deltas("status");
    let text = warnings[0]["message"].as_str().unwrap();
    assert!(text.contains("silent"), "{text}");
}

#[tokio::test]
async fn s03_22_row10_silence_of_a_run_that_goes_on_is_waited_for() {
    let lab = Setup::default()
        .env("LETTA_STREAM_STALL_RECONCILE_MS", "100")
        .start()
        .await;
    let mark = lab.cloud.request_mark();
    let script = "SAY begin\nTHEN\nSLEEP 0.5\nSAY end";
    let turn = lab.cloud.turn(&scope(), script).await.unwrap();
    assert!(turn.text().ends_with("end"));
    assert!(turn.deltas("status").is_empty(), "nothing was wrong");
    let asked = lab.cloud.requests_since(mark);
    assert!(asked.iter().any(|r| r.path.starts_with("/v1/runs/")));
    assert!(!asked.iter().any(|r| r.path.ends_with("/stream")));
}

#[tokio::test]
async fn s03_22_row11_a_body_that_never_closes_is_left_after_its_stop_reason() {
    let (lab, turn) = survives(Fault::StayOpen).await;
    let warnings = turn.deltas("status");
    let text = warnings[0]["message"].as_str().unwrap();
    assert!(text.contains("did not close"), "{text}");
    assert_eq!(lab.cloud.message_bodies("conv-1").len(), 1);
}

#[tokio::test]
async fn s03_22_row25_a_chunk_that_is_no_json_leads_to_a_resume() {
    survives(Fault::Garbage { events: 3 }).await;
}

#[tokio::test]
async fn an_answer_that_is_a_page_or_a_reset_is_tried_again() {
    for fault in [Fault::Html, Fault::Reset] {
        let (_, turn) = survives(fault).await;
        assert_eq!(turn.deltas("retry").len(), 1);
    }
}

#[tokio::test]
async fn s03_22_row12_the_fourth_503_ends_the_turn() {
    let lab = Lab::start().await;
    for _ in 0..4 {
        let busy = Fault::status(503).with_header("Retry-After", "0");
        lab.cloud.fail_next_message(busy);
    }
    let turn = lab.cloud.turn(&scope(), "SAY never").await.unwrap();
    assert_eq!(turn.stop_reason(), "error");
    let attempts: Vec<_> = turn
        .deltas("retry")
        .iter()
        .map(|delta| delta["attempt"].as_i64().unwrap())
        .collect();
    assert_eq!(attempts, [1, 2, 3]);
    let bodies = lab.cloud.message_bodies("conv-1");
    assert_eq!(bodies.len(), 4);
    assert!(
        bodies
            .windows(2)
            .all(|pair| pair[0]["messages"] == pair[1]["messages"])
    );
    let next = lab.cloud.turn(&scope(), "SAY next").await.unwrap();
    assert_eq!(next.text(), "next");
}

#[tokio::test]
async fn s03_22_row13_a_rate_limit_is_waited_for_and_a_used_up_quota_is_not() {
    let lab = Lab::start().await;
    let limited = Fault::status(429).with_header("Retry-After", "0");
    lab.cloud.fail_next_message(limited);
    let turn = lab.cloud.turn(&scope(), "SAY later").await.unwrap();
    assert_eq!(turn.text(), "later");
    assert_eq!(turn.deltas("retry")[0]["delay_ms"], 0);

    let detail = json!({"detail": "exceeded-quota: hosted model usage limit"});
    let quota = Fault::status(429)
        .with_header("Retry-After", "0")
        .with_body(detail);
    lab.cloud.fail_next_message(quota);
    let turn = lab.cloud.turn(&scope(), "SAY never").await.unwrap();
    assert_eq!(turn.stop_reason(), "error");
    assert!(turn.deltas("retry").is_empty());
}

#[tokio::test]
async fn s03_22_row14_a_busy_conversation_is_waited_for() {
    let lab = Lab::start().await;
    let text = "CONFLICT: Cannot send a new message: Another request (run_id=run-gone) is \
        currently being processed for this conversation.";
    let busy = Fault::status(409).with_body(json!({"detail": text, "run_id": "run-gone"}));
    lab.cloud.fail_next_message(busy);
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-1", "SAY after it").await;
    let (retry, _) = lab.labelled(mark, "stream_delta:retry").await;
    assert_eq!(retry["delta"]["delay_ms"], 5000);
    let text = retry["delta"]["message"].as_str().unwrap();
    assert!(text.contains("run-gone"), "{text}");
    resumed_by(&lab, "/v1/conversations/conv-1");
    let abort = json!({"type": "abort_message", "runtime": scope().runtime()});
    lab.device().await.request(abort, SOON).await.unwrap();
    let (finished, _) = lab.labelled(mark, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "cancelled");
}

#[tokio::test]
async fn s03_22_row15_calls_left_by_a_killed_client_are_closed_before_the_message() {
    let lab = Lab::start().await;
    let arguments = json!({"command": "echo stale > stale", "description": "x"});
    lab.cloud
        .set_pending(&scope(), &[("call-old", "Bash", arguments)]);
    let turn = lab.cloud.turn(&scope(), "SAY fresh").await.unwrap();
    assert_eq!(turn.stop_reason(), "end_turn");
    assert!(turn.text().ends_with("fresh"), "{}", turn.text());
    assert!(!lab.file("stale").exists());
    assert!(lab.cloud.pending(&scope()).is_empty());
    let bodies = lab.cloud.message_bodies("conv-1");
    let denied = |body: &Value| {
        let answer = &body["messages"][0]["approvals"][0];
        answer["tool_call_id"] == "call-old" && answer["approve"] == false
    };
    assert_eq!(bodies.iter().filter(|body| denied(body)).count(), 1);
}

#[tokio::test]
async fn s03_22_row16_a_failed_run_is_repeated_under_new_otids() {
    let lab = Lab::start().await;
    let fault = Fault::llm_api_error("Anthropic API error: overloaded");
    lab.cloud.fail_next_message(fault);
    let turn = lab.cloud.turn(&scope(), "SAY second time").await.unwrap();
    assert_eq!(turn.text(), "second time");
    assert_eq!(turn.deltas("retry")[0]["reason"], "llm_api_error");
    let bodies = lab.cloud.message_bodies("conv-1");
    assert_eq!(bodies.len(), 2);
    let otid = |body: &Value| body["messages"][0]["otid"].clone();
    assert_ne!(otid(&bodies[0]), otid(&bodies[1]));
}

#[tokio::test]
async fn s03_22_row17_an_end_with_calls_still_open_is_a_stop_for_approval() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    let call = json!({"name": "Bash", "tool_call_id": "call-1", "arguments":
        json!({"command": "echo ran > ran.txt", "description": "x"}).to_string()});
    let chunk = json!({"message_type": "approval_request_message", "id": "message-x",
        "tool_call": call});
    let script = format!("CHUNK {chunk}\nSAY\nSTOP end_turn");
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-1", &script).await;
    lab.labelled(mark, "stream_delta:client_tool_end").await;
    assert_eq!(lab.written("ran.txt").await, "ran");
    lab.labelled(mark, "turn_finished").await;
}

#[tokio::test]
async fn s03_22_row21_nothing_is_executed_until_the_relay_is_back() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    let mark = lab.cloud.mark();
    let line = crate::harness::bash("echo ran >> ran.txt");
    let script = format!("SAY begin\nTHEN\nSLEEP 0.2\n{line}\nSAY done");
    lab.say(&scope(), "cm-1", &script).await;
    lab.labelled(mark, "stream_delta:assistant_message").await;
    lab.cloud.fail_next_upgrade(Fault::status(503));
    lab.device().await.drop_tcp();
    // Pending on the server, so the stop is on its way; the relay is not back yet.
    crate::harness::until("the call", || {
        (!lab.cloud.pending(&scope()).is_empty()).then_some(())
    })
    .await;
    assert!(!lab.file("ran.txt").exists());
    lab.cloud.wait_for_link(2, SOON).await.unwrap();
    let (start, _) = lab.labelled(mark, "stream_delta:client_tool_start").await;
    assert!(
        start["event_seq"].is_i64(),
        "seen, so it came after the reconnect"
    );
    lab.labelled(mark, "turn_finished").await;
    assert_eq!(lab.written("ran.txt").await, "ran");
}

#[tokio::test]
async fn s03_22_row24_a_failed_turn_is_finished_before_its_error_is_told() {
    let lab = Lab::start().await;
    lab.cloud.fail_next_message(Fault::status(404));
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-1", "SAY never").await;
    let (finished, _) = lab.labelled(mark, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "error");
    let terminal = |frame: &local_cloud::Frame| frame.value["delta"]["is_terminal"] == true;
    let (error, _) = lab.frame(mark, terminal).await;
    assert!(error["event_seq"].as_i64() > finished["event_seq"].as_i64());
    assert_eq!(error["delta"]["message"], finished["error"]);
}

#[tokio::test]
async fn a_server_that_answers_everything_with_errors_ends_turns_and_nothing_else() {
    let lab = Lab::start().await;
    for fault in [
        Fault::status(500),
        Fault::Html,
        Fault::status(429).with_body("<html>slow down</html>"),
        Fault::Reset,
    ] {
        for _ in 0..3 {
            let target = Target::Path {
                contains: "GET /v1/conversations/conv-1".to_owned(),
            };
            lab.cloud.fail_next(target, fault.clone());
        }
        let turn = lab.cloud.turn(&scope(), "SAY hm").await.unwrap();
        assert!(["error", "end_turn"].contains(&turn.stop_reason()));
        lab.cloud.clear_faults();
    }
    let turn = lab.cloud.turn(&scope(), "SAY well").await.unwrap();
    assert_eq!(turn.text(), "well");
}

#[tokio::test]
async fn a_stream_cut_at_any_byte_is_resumed_without_loss_or_repetition() {
    const SAID: &str = "añ🦀 b\u{1}c";
    let lab = Lab::start().await;
    let whole = lab
        .cloud
        .turn(&scope(), &format!("SPLIT 2\nSAY {SAID}"))
        .await;
    assert_eq!(whole.unwrap().text(), SAID);
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", lab.pid())).map(Iterator::count);
    // Every byte of a whole event with the longest characters, and of the
    // borders around it.
    let one = async |lane: usize| {
        let scope = Scope::new("agent-1", format!("conv-lane-{lane}"));
        for bytes in (150..450).filter(|bytes| bytes % LANES == lane) {
            let target = Target::MessageOf {
                conversation: scope.conversation.clone(),
            };
            lab.cloud.fail_next(target, Fault::CutAfterBytes { bytes });
            let script = format!("SPLIT 2\nSAY {SAID}");
            let turn = lab.cloud.turn(&scope, &script).await.unwrap();
            assert_eq!(turn.text(), SAID, "cut after {bytes} bytes");
            assert_eq!(turn.stop_reason(), "end_turn", "cut after {bytes} bytes");
        }
    };
    const LANES: usize = 8;
    futures_util::future::join_all((0..LANES).map(one)).await;
    if let Ok(open) = descriptors() {
        assert!(open < 64, "{open} descriptors are open");
    }
}
