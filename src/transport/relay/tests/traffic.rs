//! Frames in and out of an open connection, and peers that misbehave.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::super::*;
use super::bench::Bench;
use crate::events::EventKind;
use crate::protocol::Scope;

fn event(outbox: &Outbox, kind: EventKind, body: String) {
    let scope = Scope::new(Some("agent-1"), Some("conv-1"));
    outbox.push_event(&scope, kind, body.into());
}

fn delta(outbox: &Outbox, n: usize) {
    event(
        outbox,
        EventKind::StreamDelta,
        format!(r#"{{"type":"stream_delta","n":{n}}}"#),
    );
}

/// Lets the relay write until its peer's pipe is full and it has noticed.
async fn stall(outbox: &Outbox) {
    event(
        outbox,
        EventKind::StreamDelta,
        format!(r#"{{"pad":"{}"}}"#, "x".repeat(64 * 1024)),
    );
    sleep(Duration::from_millis(60)).await;
}

#[tokio::test(start_paused = true)]
async fn s01_15_row21_any_text_and_binary_frame_reaches_the_listener() {
    let mut bench = Bench::single();
    let (mut peer, _) = bench.connect().await;
    peer.send("not json").await;
    peer.send("").await;
    peer.send(r#"{"type":"nobody_knows"}"#).await;
    let sync = r#"{"type":"sync","name":"é"}"#;
    peer.send_message(Message::binary(sync.as_bytes().to_vec()))
        .await;
    peer.send_message(Message::binary(vec![b'{', 0xff, b'}']))
        .await;
    for text in [
        "not json",
        "",
        r#"{"type":"nobody_knows"}"#,
        sync,
        "{\u{fffd}}",
    ] {
        assert_eq!(bench.frame().await, text);
    }
    assert!(bench.noted("Recv Client not json"));
    assert!(bench.noted(r#"Recv Lifecycle {"type":"_ws_open"}"#));
}

#[tokio::test(start_paused = true)]
async fn protocol_pings_are_answered() {
    let mut bench = Bench::single();
    let (mut peer, _) = bench.connect().await;
    peer.send_message(Message::Ping(Bytes::from_static(b"probe")))
        .await;
    assert_eq!(
        peer.next().await,
        Some(Message::Pong(Bytes::from_static(b"probe")))
    );
}

#[tokio::test(start_paused = true)]
async fn s01_15_row22_a_frame_above_100_mib_is_refused_with_1009_and_reconnected() {
    let mut bench = Bench::single();
    let mut raw = bench.dial().await.accept().raw();
    bench.opened().await;
    sleep(Duration::from_secs(1)).await;
    let mut header = vec![0x81, 127];
    header.extend_from_slice(&110_000_000_u64.to_be_bytes());
    raw.write_all(&header).await.unwrap();
    let mut answer = [0; 8];
    raw.read_exact(&mut answer).await.unwrap();
    let mask = &answer[2..6];
    let code = u16::from_be_bytes([answer[6] ^ mask[0], answer[7] ^ mask[1]]);
    assert_eq!((answer[0], code), (0x88, 1009));
    drop(raw);
    bench.closed().await;
    assert!(bench.noted(r#"Recv Lifecycle {"type":"_ws_close","code":1006,"reason":"Space limit exceeded: Message too long: 110000000 > 104857600"}"#));
    let _peer = bench.connect().await;
    assert_eq!(
        bench.status.borrow().disconnects[&DisconnectReason::Protocol],
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_breach_of_the_websocket_protocol_is_a_transient_drop() {
    let mut bench = Bench::single();
    let mut raw = bench.dial().await.accept().raw();
    bench.opened().await;
    raw.write_all(b"\xffHTTP/1.1 400 Bad Request\r\n\r\n")
        .await
        .unwrap();
    bench.closed().await;
    let _peer = bench.connect().await;
}

#[tokio::test(start_paused = true)]
async fn s01_15_row18_numbers_go_on_after_a_reconnect_and_nothing_is_kept() {
    let mut bench = Bench::single();
    let (mut peer, outbox) = bench.connect().await;
    delta(&outbox, 1);
    delta(&outbox, 2);
    assert_eq!(peer.json().await["event_seq"], 1);
    assert_eq!(peer.json().await["event_seq"], 2);
    drop(peer);
    bench.closed().await;
    assert!(!outbox.is_attached());
    delta(&outbox, 3);
    let (mut peer, again) = bench.connect().await;
    delta(&again, 4);
    let frame = peer.json().await;
    assert_eq!((&frame["n"], &frame["event_seq"]), (&4.into(), &3.into()));
    // The old handle is the same outbox.
    delta(&outbox, 5);
    assert_eq!(peer.json().await["event_seq"], 4);
}

#[tokio::test(start_paused = true)]
async fn s02_13_a_slow_relay_gets_merged_status_frames_and_every_delta() {
    let mut bench = Bench::single();
    let (mut peer, outbox) = bench.connect().await;
    stall(&outbox).await;
    for n in 0..10 {
        event(
            &outbox,
            EventKind::DeviceStatus,
            format!(r#"{{"type":"update_device_status","n":{n}}}"#),
        );
        delta(&outbox, n);
    }
    assert!(peer.json().await["pad"].is_string());
    let first = peer.json().await;
    assert_eq!(
        (&first["type"], &first["n"]),
        (&"update_device_status".into(), &9.into())
    );
    for n in 0..10 {
        let frame = peer.json().await;
        assert_eq!(
            (&frame["type"], &frame["n"]),
            (&"stream_delta".into(), &n.into())
        );
        assert_eq!(frame["event_seq"], n + 3);
    }
    // Awake again: every frame counts.
    sleep(Duration::from_millis(1)).await;
    for n in 0..3 {
        event(
            &outbox,
            EventKind::LoopStatus,
            format!(r#"{{"type":"update_loop_status","n":{n}}}"#),
        );
    }
    for n in 0..3 {
        assert_eq!(peer.json().await["n"], n);
    }
}

#[tokio::test(start_paused = true)]
async fn s02_13_the_513th_event_drops_the_slow_socket_and_it_comes_back() {
    let mut bench = Bench::single();
    let (_peer, outbox) = bench.connect().await;
    stall(&outbox).await;
    for n in 0..512 {
        delta(&outbox, n);
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.status.borrow().state.name(), "connected");
    delta(&outbox, 512);
    bench.closed().await;
    assert_eq!(bench.seconds(), 1);
    let status = bench.status.borrow().clone();
    assert_eq!(status.disconnects[&DisconnectReason::Slow], 1);
    assert!(
        status
            .last_error
            .unwrap()
            .contains("outbound queue full: 513 frames")
    );
    let (mut peer, outbox) = bench.connect().await;
    delta(&outbox, 1);
    assert_eq!(peer.json().await["n"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_takes_no_byte_for_a_minute_is_left() {
    let mut bench = Bench::single();
    let (_peer, outbox) = bench.connect().await;
    stall(&outbox).await;
    bench.closed().await;
    assert_eq!(bench.seconds(), 60);
    assert_eq!(
        bench.status.borrow().disconnects[&DisconnectReason::Slow],
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_large_frame_may_take_long_as_long_as_it_moves() {
    let mut bench = Bench::single();
    let mut raw = bench.dial().await.accept().raw();
    let (_, outbox, _) = bench.opened().await;
    outbox.push_reply("x".repeat(64 * 1024));
    let mut taken = 0;
    let mut some = [0; 4096];
    while taken < 48 * 1024 {
        sleep(Duration::from_secs(50)).await;
        let len = raw.read(&mut some).await.unwrap();
        assert!(len > 0, "dropped after {taken} bytes");
        taken += len;
    }
    assert!(bench.seconds() >= 500);
    assert!(bench.door.try_recv().is_err(), "still open");
}

#[tokio::test(start_paused = true)]
async fn reading_goes_on_while_writing_is_stuck() {
    let mut bench = Bench::single();
    let (mut peer, outbox) = bench.connect().await;
    stall(&outbox).await;
    peer.send(r#"{"type":"abort_message"}"#).await;
    assert_eq!(bench.frame().await, r#"{"type":"abort_message"}"#);
    assert_eq!(bench.seconds(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_peer_that_is_stuck() {
    let mut bench = Bench::single();
    let (_peer, outbox) = bench.connect().await;
    stall(&outbox).await;
    let before = bench.start.elapsed();
    bench.cancel.cancel();
    assert_eq!(bench.end().await, ExitReason::Stopped);
    assert!(bench.start.elapsed() - before <= Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn what_arrived_before_a_close_is_heard_before_it() {
    let mut bench = Bench::single();
    let (mut peer, _) = bench.connect().await;
    for n in 0..50 {
        peer.send(&n.to_string()).await;
    }
    peer.close(1001, "going away").await;
    for n in 0..50 {
        assert_eq!(bench.frame().await, n.to_string());
    }
    bench.closed().await;
}

#[tokio::test(start_paused = true)]
async fn frames_of_ours_are_logged_with_pings_and_replies() {
    let mut bench = Bench::single();
    let (mut peer, outbox) = bench.connect().await;
    outbox.push_reply(r#"{"type":"sync_response"}"#.into());
    delta(&outbox, 1);
    peer.text().await;
    let event = peer.text().await;
    peer.text().await;
    for frame in [r#"{"type":"sync_response"}"#, &event, lifecycle::PING] {
        assert!(bench.noted(&format!("Send Protocol {frame}")), "{frame}");
    }
    let notes = bench.notes.0.lock().unwrap();
    for secret in ["s3cret", "key-1"] {
        assert!(notes.iter().all(|note| !note.contains(secret)), "{notes:?}");
    }
}
