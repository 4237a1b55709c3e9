//! State that clients see and change: scopes, replays, modes, directories.

use local_cloud::Scope;
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, scope};

fn kinds(frames: &[Value]) -> Vec<&str> {
    let kinds = frames.iter().filter_map(|frame| frame["type"].as_str());
    kinds.collect()
}

#[tokio::test]
async fn s01_15_row17_a_sync_brings_four_events_and_a_second_one_no_device_status() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    let mark = lab.cloud.mark();
    let sync = json!({"type": "sync", "runtime": scope().runtime(), "recover_approvals": false});
    device.request(sync.clone(), SOON).await.unwrap();
    let (_, end) = lab.labelled(mark, "update_subagent_state").await;
    let mut events = device.frames_since(mark);
    events.retain(|frame| frame.value["event_seq"].is_i64());
    events.sort_by_key(|frame| frame.value["event_seq"].as_i64());
    let numbered: Vec<_> = events
        .iter()
        .map(|frame| (frame.value["event_seq"].as_i64().unwrap(), frame.kind()))
        .collect();
    assert_eq!(
        numbered,
        [
            (1, "update_device_status"),
            (2, "update_loop_status"),
            (3, "update_queue"),
            (4, "update_subagent_state"),
        ]
    );
    device.request(sync, SOON).await.unwrap();
    let (last, _) = lab.labelled(end, "update_subagent_state").await;
    assert_eq!(last["event_seq"], 7, "no second device status");
}

#[tokio::test]
async fn s01_15_row18_numbers_and_subscriptions_go_on_after_a_reconnect() {
    let lab = Lab::start().await;
    let before = lab.sync(&scope()).await;
    let number = |frames: &[Value]| {
        let numbers = frames
            .iter()
            .filter_map(|frame| frame["event_seq"].as_i64());
        numbers.max().unwrap()
    };
    lab.device().await.drop_tcp();
    lab.cloud.wait_for_link(2, SOON).await.unwrap();
    let mark = lab.cloud.mark();
    let sync = json!({"type": "sync", "runtime": scope().runtime()});
    lab.device().await.request(sync, SOON).await.unwrap();
    let (last, _) = lab.labelled(mark, "update_subagent_state").await;
    let frames = lab.device().await.frames();
    let frames: Vec<Value> = frames.iter().map(|frame| frame.value.clone()).collect();
    assert!(kinds(&frames).contains(&"update_device_status"));
    assert_eq!(last["event_seq"], number(&before) + 4);
}

#[tokio::test]
async fn s02_17_row10_modes_and_directories_are_taken_or_refused_with_words() {
    let lab = Lab::start().await;
    for (asked, shown) in [
        ("standard", "standard"),
        ("acceptEdits", "acceptEdits"),
        ("strict", "strict"),
        ("unrestricted", "unrestricted"),
        ("default", "standard"),
        ("bypassPermissions", "unrestricted"),
    ] {
        lab.mode(&scope(), asked).await;
        let status = lab.device_status(&scope()).await;
        assert_eq!(status["current_permission_mode"], shown);
    }
    let refused = |said: &'static str| {
        move |frame: &local_cloud::Frame| {
            let delta = &frame.value["delta"];
            delta["message_type"] == "loop_error"
                && delta["is_terminal"] == false
                && delta["message"]
                    .as_str()
                    .is_some_and(|text| text.contains(said))
        }
    };
    let here = lab.device_status(&scope()).await["current_working_directory"].clone();
    std::fs::create_dir(lab.file("inner")).unwrap();
    std::fs::write(lab.file("file"), "").unwrap();
    for (payload, said) in [
        (json!({"mode": "sudo"}), "Unsupported permission mode: sudo"),
        (json!({"cwd": "  "}), "Working directory cannot be empty"),
        (json!({"cwd": "file"}), "Not a directory"),
    ] {
        let mark = lab.cloud.mark();
        lab.change(&scope(), payload).await;
        lab.frame(mark, refused(said)).await;
    }
    let before = lab.device_status(&scope()).await;
    assert_eq!(before["current_working_directory"], here);
    let mark = lab.cloud.mark();
    lab.change(&scope(), json!({"cwd": "gone"})).await;
    let (status, _) = lab.labelled(mark, "update_device_status").await;
    assert_eq!(status["device_status"]["current_working_directory"], here);
    let revision = |status: &Value| status["cwd_revision"].as_i64().unwrap();
    assert_eq!(revision(&status["device_status"]), revision(&before) + 1);
    let mark = lab.cloud.mark();
    lab.change(&scope(), json!({"cwd": "inner"})).await;
    let inner = json!(lab.file("inner"));
    lab.frame(mark, |frame| {
        frame.value["device_status"]["current_working_directory"] == inner
    })
    .await;
    let mark = lab.cloud.mark();
    lab.change(&scope(), json!({})).await;
    lab.labelled(mark, "update_device_status").await;
}

#[tokio::test]
async fn s02_17_row12_a_start_answers_before_or_after_its_replay_and_says_what_it_made() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    for (wait, first) in [
        (false, "runtime_start_response"),
        (true, "update_loop_status"),
    ] {
        let mark = lab.cloud.mark();
        let start = json!({"type": "runtime_start", "agent_id": "agent-1",
            "wait_for_replay": wait, "client_info": {"name": "test"}});
        let answer = device.request(start, SOON).await.unwrap();
        assert_eq!(answer["success"], true, "{answer}");
        assert_eq!(
            answer["created"],
            json!({"agent": false, "conversation": true})
        );
        let conversation = answer["runtime"]["conversation_id"].as_str().unwrap();
        assert_eq!(answer["conversation"]["id"], conversation);
        lab.labelled(mark, "update_subagent_state").await;
        if wait {
            continue;
        }
        let frames = device.frames_since(mark);
        let frames: Vec<Value> = frames.iter().map(|frame| frame.value.clone()).collect();
        assert!(kinds(&frames).contains(&first));
    }
    let start = json!({"type": "runtime_start", "agent_id": "agent-1",
        "conversation_id": "default"});
    let answer = device.request(start, SOON).await.unwrap();
    assert_eq!(answer["conversation"]["id"], "default");
    assert_eq!(
        answer["created"],
        json!({"agent": false, "conversation": false})
    );
    let start = json!({"type": "runtime_start", "agent_id": "agent-missing"});
    let answer = device.request(start, SOON).await.unwrap();
    assert_eq!(
        (&answer["success"], &answer["runtime"]),
        (&json!(false), &Value::Null)
    );
    assert!(
        answer["error"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
}

#[tokio::test]
async fn s02_17_row15_conversations_run_side_by_side_and_keep_to_themselves() {
    let lab = Lab::start().await;
    let (one, two) = (
        Scope::new("agent-1", "conv-1"),
        Scope::new("agent-1", "conv-2"),
    );
    let mark = lab.cloud.mark();
    lab.say(&one, "cm-1", "SAY begin\nTHEN\nSLEEP 60\nSAY never")
        .await;
    lab.labelled(mark, "stream_delta:assistant_message").await;
    let turn = lab.cloud.turn(&two, "SAY meanwhile").await.unwrap();
    assert_eq!(turn.text(), "meanwhile");
    for frame in lab.cloud.frames() {
        let delta = frame.value["delta"].to_string();
        if delta.contains("meanwhile") {
            assert_eq!(frame.value["runtime"], two.runtime());
        }
        if delta.contains("begin") {
            assert_eq!(frame.value["runtime"], one.runtime());
        }
    }
    let abort = json!({"type": "abort_message", "runtime": one.runtime()});
    lab.device().await.request(abort, SOON).await.unwrap();
}
