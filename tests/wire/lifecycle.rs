//! Start, end, restart, and frames that make no sense.

use serde_json::json;

use local_cloud::Fault;

use crate::harness::{Lab, SOON, scope};

#[tokio::test]
async fn s01_15_row09_a_refused_registration_exits_77() {
    let mut lab = Lab::unconnected(|cloud| {
        let body = json!({"message": "Unauthorized"});
        cloud.fail_next_registration(Fault::status(401).with_body(body));
    })
    .await;
    assert_eq!(lab.ended().await.code(), Some(77));
    assert_eq!(lab.cloud.registrations().len(), 1);
}

#[tokio::test]
async fn s01_15_row25_sigterm_exits_0() {
    let mut lab = Lab::start().await;
    lab.signal("TERM").await;
    assert_eq!(lab.ended().await.code(), Some(0));
}

#[tokio::test]
async fn s01_15_row19_mode_and_directory_survive_a_restart() {
    let mut lab = Lab::start().await;
    let other = lab.file("other");
    std::fs::create_dir(&other).unwrap();
    let payload = json!({"mode": "acceptEdits", "cwd": other});
    lab.change(&scope(), payload).await;
    let sync = json!({"type": "sync", "runtime": scope().runtime(), "force_device_status": true});
    lab.device()
        .await
        .request(sync.clone(), SOON)
        .await
        .unwrap();
    let device = lab.restart("TERM").await;
    let mark = lab.cloud.mark();
    device.request(sync, SOON).await.unwrap();
    let (status, _) = lab
        .frame(mark, |frame| {
            frame.kind() == "update_device_status"
                && frame.value["runtime"]["conversation_id"] == "conv-1"
        })
        .await;
    let status = &status["device_status"];
    assert_eq!(status["current_permission_mode"], "acceptEdits");
    assert_eq!(status["current_working_directory"], json!(other));
}

#[tokio::test]
async fn s02_2_1_malformed_frames_do_no_harm() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    let link = device.link();
    for garbage in [
        "",
        "{",
        "null",
        "[1]",
        "{\"type\":7}",
        "{\"type\":\"no_such\"}",
    ] {
        device.send_text(garbage);
    }
    device.send_binary(vec![0xff, 0xfe, 0x00]);
    let bad = json!({"type": "sync", "runtime": 7});
    let answer = device.request(bad, SOON).await.unwrap();
    assert_eq!(answer["type"], "sync_response");
    assert_eq!(answer["success"], false);
    let turn = lab.cloud.turn(&scope(), "SAY alive").await.unwrap();
    assert_eq!(turn.text(), "alive");
    assert_eq!(lab.device().await.link(), link);
}
