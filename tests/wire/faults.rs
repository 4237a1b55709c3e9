//! What the relay and the way to it can do wrong (01 §8): closes with every
//! code, silence, handshakes that do not end, frames that make no sense.

use std::time::Duration;

use futures_util::future::join_all;
use local_cloud::{Channel, Device, Fault, Mode, Options};
use serde_json::json;
use tokio::time::timeout;

use crate::harness::{Lab, SOON, Setup, scope};

/// A lab of its own loses its connection this way, comes back under the same
/// registration, and works.
async fn loses(how: impl Fn(&Device)) {
    let lab = Lab::start().await;
    let before = lab.device().await;
    how(&before);
    let after = lab.cloud.wait_for_link(2, SOON).await.unwrap();
    assert_eq!(after.connection_id(), before.connection_id());
    assert_eq!(lab.cloud.registrations().len(), 1);
    let turn = lab.cloud.turn(&scope(), "SAY back").await.unwrap();
    assert_eq!(turn.text(), "back");
}

#[tokio::test]
async fn s01_15_row06_every_ordinary_close_code_is_a_reconnect() {
    let closes = [
        (1000, "maintenance"),
        (1001, "going away"),
        (1003, ""),
        (1009, "too big"),
        (1011, "internal"),
        (1012, "restart"),
        (4001, "custom"),
        (4999, ""),
    ];
    join_all(closes.map(|(code, reason)| loses(move |device| device.close(code, reason)))).await;
}

#[tokio::test]
async fn s01_15_row06_ends_without_a_close_frame_are_a_reconnect() {
    tokio::join!(
        loses(Device::drop_tcp),
        loses(Device::reset_tcp),
        loses(|device| device.close_channel(Channel::Stream, 1008, "the stream alone")),
    );
}

#[tokio::test]
async fn s01_15_row04_a_policy_close_registers_again_at_once() {
    let lab = Lab::start().await;
    let before = lab.device().await;
    // On the control socket: that of the stream alone is an ordinary end.
    before.close_channel(Channel::Control, 1008, "expired");
    let after = lab.cloud.wait_for_link(2, SOON).await.unwrap();
    assert_ne!(after.connection_id(), before.connection_id());
    let registrations = lab.cloud.registrations();
    assert_eq!(registrations.len(), 2);
    assert_eq!(registrations[0].body, registrations[1].body);
    let turn = lab.cloud.turn(&scope(), "SAY back").await.unwrap();
    assert_eq!(turn.text(), "back");
}

#[tokio::test]
async fn s01_15_row05_row16_a_replaced_program_exits_69_whichever_socket_says_it() {
    let replaced = |channel: Option<Channel>| async move {
        let mut lab = Lab::start().await;
        let device = lab.device().await;
        match channel {
            Some(channel) => device.close_channel(channel, 1000, "Replaced by new connection"),
            None => device.close(1000, "Replaced by new connection"),
        }
        assert_eq!(lab.ended().await.code(), Some(69));
        assert_eq!(lab.cloud.links_opened(), 1, "no further traffic");
        assert_eq!(lab.cloud.registrations().len(), 1);
    };
    tokio::join!(replaced(None), replaced(Some(Channel::Stream)));
}

#[tokio::test]
async fn s01_15_row07_an_upgrade_refused_with_a_page_or_401_is_tried_again() {
    let refused = |fault: Fault| async move {
        let lab = Lab::unconnected(|cloud| cloud.fail_next_upgrade(fault)).await;
        let turn = lab.cloud.turn(&scope(), "SAY in").await.unwrap();
        assert_eq!(turn.text(), "in");
        assert_eq!(lab.cloud.registrations().len(), 1);
    };
    tokio::join!(
        refused(Fault::status(401)),
        refused(Fault::status(503).with_body("<html>busy</html>")),
        refused(Fault::Html),
        refused(Fault::Reset),
        refused(Fault::CloseAfterOpen {
            code: 1011,
            reason: "not now".to_owned()
        }),
    );
}

#[tokio::test]
async fn s01_15_row08_registration_survives_resets_and_error_pages() {
    let lab = Lab::unconnected(|cloud| {
        let page = "<html>521: Web server is down</html>";
        cloud.fail_next_registration(Fault::status(521).with_body(page));
        cloud.fail_next_registration(Fault::Reset);
    })
    .await;
    let turn = lab.cloud.turn(&scope(), "SAY in").await.unwrap();
    assert_eq!(turn.text(), "in");
    assert!(lab.session_log().contains("521"));
}

#[tokio::test]
async fn s01_15_row13_a_pair_whose_ready_does_not_come_is_tried_again() {
    let setup = Setup {
        options: Options {
            mode: Mode::Paired,
            ready: local_cloud::Ready::Omit,
            ..Setup::default().options
        },
        ..Setup::default()
    };
    let setup = setup.env("LETTA_LISTENER_STREAM_OPEN_TIMEOUT_MS", "300");
    let mut lab = setup.stopped().await;
    let mark = lab.cloud.request_mark();
    lab.spawn();
    let upgrade = |request: &local_cloud::Recorded| request.path == "/v1/environments/ws";
    let first = lab.cloud.wait_for_request_after(mark, upgrade, SOON).await;
    let (first, mark) = first.unwrap();
    let second = lab.cloud.wait_for_request_after(mark, upgrade, SOON).await;
    let (second, _) = second.unwrap();
    assert!(
        first.query.contains("connectionAttempt=1"),
        "{}",
        first.query
    );
    assert!(
        second.query.contains("connectionAttempt=2"),
        "{}",
        second.query
    );
    lab.cloud.set_ready(local_cloud::Ready::Send);
    let turn = lab.cloud.turn(&scope(), "SAY paired").await.unwrap();
    assert_eq!(turn.text(), "paired");
}

/// A signal ends the program with 0, in a time that a service manager grants.
async fn stops(mut lab: Lab) {
    lab.signal("TERM").await;
    let ended = timeout(Duration::from_secs(30), lab.ended()).await;
    assert_eq!(ended.expect("it hangs").code(), Some(0));
}

#[tokio::test]
async fn a_handshake_that_never_ends_does_not_keep_the_program_from_stopping() {
    let lab = Lab::unconnected(|cloud| cloud.fail_next_upgrade(Fault::Hang)).await;
    let upgrade = |request: &local_cloud::Recorded| request.path == "/v1/environments/ws";
    lab.cloud.wait_for_request(upgrade, SOON).await.unwrap();
    stops(lab).await;
}

#[tokio::test]
async fn a_registration_that_is_never_answered_does_not_keep_the_program_from_stopping() {
    let lab = Lab::unconnected(|cloud| cloud.fail_next_registration(Fault::Hang)).await;
    let registers = |request: &local_cloud::Recorded| request.path.ends_with("/register");
    lab.cloud.wait_for_request(registers, SOON).await.unwrap();
    stops(lab).await;
}

#[tokio::test]
async fn a_half_open_socket_does_not_keep_a_turn_or_the_program_from_ending() {
    let lab = Lab::start().await;
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-1", "SAY begin\nTHEN\nSLEEP 0.2\nSAY end")
        .await;
    lab.labelled(mark, "stream_delta:assistant_message").await;
    lab.device().await.freeze();
    // The run is over on the server, whoever heard of it.
    crate::harness::until("the end of the turn", || {
        lab.session_log().contains("turn_finished").then_some(())
    })
    .await;
    stops(lab).await;
}

#[tokio::test]
async fn s01_15_row21_garbage_binary_and_deep_frames_do_no_harm() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    for open in ["[", "{\"type\":", "{\"type\":\"input\",\"payload\":["] {
        device.send_text(open.repeat(200_000));
    }
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let nested = json!({"type": "input", "request_id": "deep", "runtime": scope().runtime()});
    let nested = nested
        .to_string()
        .replacen('{', &format!("{{\"payload\":{deep},"), 1);
    device.send_text(nested);
    device.send_text("\u{0}\u{feff}{}");
    device.send_binary(vec![0xff; 1 << 20]);
    let sync = json!({"type": "sync", "request_id": "bin", "runtime": scope().runtime()});
    let mark = lab.cloud.mark();
    device.send_binary(sync.to_string().into_bytes());
    let (answer, _) = lab
        .frame(mark, |frame| frame.value["request_id"] == "bin")
        .await;
    assert_eq!(answer["success"], true, "binary text is read as text");
    let turn = lab.cloud.turn(&scope(), "SAY alive").await.unwrap();
    assert_eq!(turn.text(), "alive");
    assert_eq!(lab.device().await.link(), device.link());
}

#[tokio::test]
async fn s01_15_row22_a_frame_of_110_mb_is_refused_with_1009_and_the_work_goes_on() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    device.send_text("x".repeat(110_000_000));
    let closed = device.wait_closed(Channel::Control, SOON).await.unwrap();
    // The peer may be too busy writing to read the close frame before TCP ends.
    assert!(matches!(closed.code, Some(1009) | None), "{closed:?}");
    let turn = lab.cloud.turn(&scope(), "SAY alive").await.unwrap();
    assert_eq!(turn.text(), "alive");
    assert_eq!(lab.cloud.registrations().len(), 1);
}
