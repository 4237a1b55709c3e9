//! What comes in while a turn runs (02 §8), and the order of frames (02 §7.3).

use std::sync::Arc;

use local_cloud::Frame;
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, assert_in_order, bash, labels, scope};

/// Labels without what may come more often or less often than once.
fn essential(all: &[String]) -> Vec<&str> {
    let mut kept: Vec<&str> = Vec::new();
    for label in all.iter().map(String::as_str) {
        let is_repeat = kept.last() == Some(&label) && label.starts_with("update_loop_status");
        if !is_repeat {
            kept.push(label);
        }
    }
    kept
}

#[tokio::test]
async fn s02_17_row01_a_direct_turn_says_exactly_the_published_frames() {
    let lab = Lab::start().await;
    let turn = lab
        .cloud
        .turn(&scope(), "SPLIT 1\nSAY hello")
        .await
        .unwrap();
    assert_eq!(
        essential(&labels(&turn)),
        [
            "input_accepted",
            "update_loop_status:SENDING_API_REQUEST",
            "update_device_status",
            "update_loop_status:WAITING_FOR_API_RESPONSE",
            "update_loop_status:PROCESSING_API_RESPONSE",
            "stream_delta:assistant_message",
            "stream_delta:stop_reason",
            "stream_delta:usage_statistics",
            "update_loop_status:WAITING_ON_INPUT",
            "update_device_status",
            "turn_finished",
        ]
    );
}

#[tokio::test]
async fn s02_17_row01_a_queued_turn_is_echoed_and_leaves_the_queue() {
    let lab = Lab::start().await;
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-0", "SAY begin\nTHEN\nSLEEP 0.3\nSAY end")
        .await;
    lab.labelled(mark, "stream_delta:assistant_message").await;
    lab.say(&scope(), "cm-1", "SAY queued").await;
    let (accepted, _) = lab
        .frame(mark, |frame| frame.value["request_id"] == "req-cm-1")
        .await;
    assert_eq!(accepted["disposition"], "queued");
    let (_, first) = lab.labelled(mark, "turn_finished").await;
    let (finished, _) = lab.labelled(first, "turn_finished").await;
    assert!(finished["turn_id"].as_str().unwrap().starts_with("batch-"));
    let number = finished["event_seq"].as_i64().unwrap();
    // The two sockets are read side by side: what was said before may come after.
    for earlier in number - 5..number {
        lab.frame(mark, |frame| frame.value["event_seq"] == earlier)
            .await;
    }
    let mut frames: Vec<Arc<Frame>> = lab.cloud.frames();
    frames.retain(|frame| {
        frame.value["event_seq"]
            .as_i64()
            .is_some_and(|n| n <= number)
    });
    frames.sort_by_key(|frame| frame.value["event_seq"].as_i64());
    let end_of_first = frames.iter().position(|f| f.kind() == "turn_finished");
    let labels: Vec<String> = frames[end_of_first.unwrap() + 1..]
        .iter()
        .map(
            |frame| match frame.value["removed"][0]["disposition"].as_str() {
                Some(disposition) => format!("update_queue:{disposition}"),
                None => frame.label(),
            },
        )
        .collect();
    assert_in_order(
        &labels,
        &[
            "stream_delta:user_message",
            "update_loop_status:SENDING_API_REQUEST",
            "update_queue:dequeued",
            "update_loop_status:WAITING_FOR_API_RESPONSE",
            "stream_delta:assistant_message",
            "update_loop_status:WAITING_ON_INPUT",
            "turn_finished",
        ],
    );
}

#[tokio::test]
async fn s02_17_row04_an_item_is_removed_once_and_the_queue_is_bounded() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-0", "SAY begin\nTHEN\nSLEEP 60\nSAY end")
        .await;
    lab.labelled(mark, "stream_delta:assistant_message").await;
    lab.say(&scope(), "cm-1", "SAY never").await;
    let holds = |id: &'static str| {
        move |frame: &Frame| {
            let queue = frame.value["queue"].as_array();
            queue.is_some_and(|queue| queue.iter().any(|item| item["client_message_id"] == id))
        }
    };
    let (queue, _) = lab.frame(mark, holds("cm-1")).await;
    let item = queue["queue"][0]["id"].clone();
    let remove =
        json!({"type": "remove_queue_item", "runtime": scope().runtime(), "item_id": item});
    let answer = device.request(remove.clone(), SOON).await.unwrap();
    assert_eq!(answer["success"], true);
    let cancelled = |frame: &Frame| frame.value["removed"][0]["disposition"] == "cancelled";
    let (removed, _) = lab.frame(mark, cancelled).await;
    assert_eq!(removed["removed"][0]["client_message_id"], "cm-1");
    let again = device.request(remove, SOON).await.unwrap();
    assert_eq!(again["success"], false);

    // The soft limit: the 101st message pushes the oldest out.
    let mark = lab.cloud.mark();
    for number in 1..=101 {
        lab.say(&scope(), &format!("soft-{number}"), "SAY x").await;
    }
    let (evicted, _) = lab.frame(mark, cancelled).await;
    assert_eq!(evicted["removed"][0]["client_message_id"], "soft-1");
    let (full, _) = lab.frame(mark, holds("soft-101")).await;
    assert_eq!(full["queue"].as_array().unwrap().len(), 100);
    abort(&lab).await;
}

#[tokio::test]
async fn s03_22_row07_a_message_during_a_call_travels_behind_its_result() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    let mark = lab.cloud.mark();
    let line = bash("touch begun; until [ -e go ]; do sleep 0.01; done");
    lab.say(&scope(), "cm-1", &format!("{line}\nSAY over"))
        .await;
    lab.labelled(mark, "stream_delta:client_tool_start").await;
    lab.say(&scope(), "cm-2", "by the way").await;
    lab.frame(mark, |frame| frame.value["queue"][0].is_object())
        .await;
    std::fs::write(lab.file("go"), "").unwrap();
    let (finished, _) = lab.labelled(mark, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "end_turn");
    let turn_id = finished["turn_id"].as_str().unwrap();
    assert!(turn_id.starts_with("batch-") && !turn_id.starts_with("batch-direct"));
    let bodies = lab.cloud.message_bodies("conv-1");
    assert_eq!(bodies.len(), 2);
    let sent = bodies[1]["messages"].as_array().unwrap();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0]["type"], "approval");
    assert_eq!(sent[1]["otid"], "cm-2");
}

async fn abort(lab: &Lab) -> Value {
    let abort = json!({"type": "abort_message", "runtime": scope().runtime()});
    lab.device().await.request(abort, SOON).await.unwrap()
}
