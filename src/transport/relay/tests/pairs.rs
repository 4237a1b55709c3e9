//! Two sockets: split and paired modes, and what happens to half a connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::super::*;
use super::bench::{Bench, Dialled, Peer};
use crate::events::EventKind;
use crate::protocol::Scope;

/// Takes the two upgrades of a split connection, control first.
async fn both(bench: &mut Bench) -> (Dialled, Dialled) {
    let (one, two) = (bench.dial().await, bench.dial().await);
    assert_eq!(one.at, two.at, "opened at the same time");
    match one.query("channel").as_deref() {
        Some("control") => (one, two),
        _ => (two, one),
    }
}

/// Opens a pair; the sockets and the generation.
async fn pair(bench: &mut Bench, attempt: &str) -> (Peer, Peer, String) {
    let control = bench.dial().await;
    assert_eq!(control.query("channel").as_deref(), Some("control"));
    assert_eq!(control.query("connectionAttempt").as_deref(), Some(attempt));
    let generation = control.query("connectionGeneration").unwrap();
    let mut control = control.accept().peer().await;
    control.ready(&generation, attempt).await;
    let stream = bench.dial().await;
    assert_eq!(stream.query("channel").as_deref(), Some("stream"));
    assert_eq!(stream.query("connectionAttempt").as_deref(), Some(attempt));
    assert_eq!(
        stream.query("connectionGeneration").as_deref(),
        Some(&*generation)
    );
    let mut stream = stream.accept().peer().await;
    stream.ready(&generation, attempt).await;
    (control, stream, generation)
}

fn event(outbox: &Outbox, kind: EventKind, name: &str) {
    let scope = Scope::new(Some("agent-1"), Some("conv-1"));
    let body: Arc<str> = format!(r#"{{"type":"{name}"}}"#).into();
    outbox.push_event(&scope, kind, body);
}

#[tokio::test(start_paused = true)]
async fn s01_15_row11_split_opens_both_at_once_and_routes_by_kind() {
    let mut bench = Bench::split();
    let (control, stream) = both(&mut bench).await;
    assert_eq!(stream.query("channel").as_deref(), Some("stream"));
    assert_eq!(control.query("connectionGeneration"), None);
    let mut control = control.accept().peer().await;
    let mut stream = stream.accept().peer().await;
    let (_, outbox, _) = bench.opened().await;

    event(&outbox, EventKind::DeviceStatus, "update_device_status");
    event(&outbox, EventKind::LoopStatus, "update_loop_status");
    event(&outbox, EventKind::QueueSnapshot, "update_queue");
    event(&outbox, EventKind::SubagentState, "update_subagent_state");
    for (seq, name) in [
        "update_device_status",
        "update_loop_status",
        "update_queue",
        "update_subagent_state",
    ]
    .iter()
    .enumerate()
    {
        let frame = stream.json().await;
        assert_eq!(
            (&frame["type"], &frame["event_seq"]),
            (&(*name).into(), &(seq + 1).into())
        );
    }
    outbox.push_reply(r#"{"type":"sync_response"}"#.into());
    event(&outbox, EventKind::Control, "control_request");
    assert_eq!(control.text().await, r#"{"type":"sync_response"}"#);
    let frame = control.json().await;
    assert_eq!(
        (&frame["type"], &frame["event_seq"]),
        (&"control_request".into(), &5.into())
    );

    assert_eq!(control.text().await, lifecycle::PING);
    assert_eq!(stream.text().await, lifecycle::PING);
    assert_eq!(bench.seconds(), 30);
}

#[tokio::test(start_paused = true)]
async fn commands_on_the_stream_socket_are_not_heard() {
    let mut bench = Bench::split();
    let (control, stream) = both(&mut bench).await;
    let mut control = control.accept().peer().await;
    let mut stream = stream.accept().peer().await;
    bench.opened().await;
    stream.send(r#"{"type":"sync","from":"stream"}"#).await;
    sleep(Duration::from_millis(1)).await;
    control.send(r#"{"type":"sync"}"#).await;
    assert_eq!(bench.frame().await, r#"{"type":"sync"}"#);
}

#[tokio::test(start_paused = true)]
async fn pongs_on_the_stream_socket_keep_nothing_alive() {
    let mut bench = Bench::split();
    let (control, stream) = both(&mut bench).await;
    let mut control = control.accept().peer().await;
    let stream = stream.accept().peer().await.answering();
    bench.opened().await;
    while control.next().await.is_some() {}
    assert_eq!(bench.seconds(), 120);
    stream.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_split_whose_stream_does_not_open_is_a_failed_attempt() {
    let mut bench = Bench::with((true, false), |config, _| {
        config.ready_limit = Duration::from_secs(1);
    });
    let (control, stream) = both(&mut bench).await;
    let mut control = control.accept().peer().await;
    assert_eq!(control.next().await, None, "both are dropped");
    stream.given_up().await;
    assert_eq!(bench.seconds(), 1);
    let (control, stream) = both(&mut bench).await;
    assert_eq!(control.at, 2);
    stream.refuse("HTTP 503");
    control.given_up().await;
    let (control, stream) = both(&mut bench).await;
    let _sockets = (control.accept().peer().await, stream.accept().peer().await);
    bench.opened().await;
}

#[tokio::test(start_paused = true)]
async fn paired_without_split_is_a_single_socket() {
    let mut bench = Bench::with((false, true), |_, _| {});
    let dialled = bench.dial().await;
    assert_eq!(dialled.query("channel"), None);
    assert_eq!(dialled.query("connectionGeneration"), None);
    let _peer = dialled.accept().peer().await;
    bench.opened().await;
}

#[tokio::test(start_paused = true)]
async fn s01_15_row12_the_stream_socket_waits_for_the_control_socket() {
    let mut bench = Bench::paired();
    let control = bench.dial().await;
    let generation = control.query("connectionGeneration").unwrap();
    let mut control = control.accept().peer().await;
    sleep(Duration::from_secs(5)).await;
    assert!(bench.dialled.try_recv().is_err());
    control.ready(&generation, "1").await;
    let stream = bench.dial().await;
    assert_eq!(
        stream.query("connectionGeneration"),
        Some(generation.clone())
    );
    let mut stream = stream.accept().peer().await;
    sleep(Duration::from_secs(5)).await;
    assert!(bench.door.try_recv().is_err(), "not open yet");
    stream.ready(&generation, "1").await;
    bench.opened().await;
    // Later copies are nobody's business.
    control.ready(&generation, "1").await;
    control.send("{}").await;
    assert_eq!(bench.frame().await, "{}");
}

#[tokio::test(start_paused = true)]
async fn s01_15_row13_pairs_that_are_not_accepted_back_off_with_new_generations() {
    let mut bench = Bench::with((true, true), |config, _| {
        config.ready_limit = Duration::from_secs(1);
    });
    let mut generations = Vec::new();

    // Attempt 1: control is never accepted.
    let control = bench.dial().await;
    generations.push(control.query("connectionGeneration"));
    let mut control = control.accept().peer().await;
    assert_eq!(control.next().await, None);
    assert_eq!(bench.seconds(), 1);

    // Attempt 2: accepted as another attempt.
    let control = bench.dial().await;
    assert_eq!(control.at, 2);
    let generation = control.query("connectionGeneration").unwrap();
    let mut control = control.accept().peer().await;
    control.ready(&generation, "1").await;
    assert_eq!(control.next().await, None);
    generations.push(Some(generation));

    // Attempt 3: the stream socket is never accepted.
    let control = bench.dial().await;
    assert!((4..=5).contains(&control.at), "{}", control.at);
    assert_eq!(control.query("connectionAttempt").as_deref(), Some("3"));
    let generation = control.query("connectionGeneration").unwrap();
    let mut control = control.accept().peer().await;
    control.ready(&generation, "3").await;
    let mut stream = bench.dial().await.accept().peer().await;
    assert_eq!(stream.next().await, None);
    assert_eq!(control.next().await, None);
    generations.push(Some(generation));

    // Attempt 4: good.
    let (_control, _stream, generation) = pair(&mut bench, "4").await;
    generations.push(Some(generation));
    bench.opened().await;
    generations.sort();
    generations.dedup();
    assert_eq!(generations.len(), 4);
    assert_eq!(bench.registrations(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pair_of_another_generation_is_not_joined() {
    let mut bench = Bench::paired();
    let control = bench.dial().await;
    let mut control = control.accept().peer().await;
    control
        .ready("00000000-0000-4000-8000-000000000000", "1")
        .await;
    assert_eq!(control.next().await, None);
    let error = bench.status.borrow().last_error.clone().unwrap();
    assert_eq!(error, "the relay accepted a socket of another attempt");
}

#[tokio::test(start_paused = true)]
async fn s01_15_row14_commands_before_the_pair_is_open_come_right_after_it() {
    let mut bench = Bench::paired();
    let control = bench.dial().await;
    let generation = control.query("connectionGeneration").unwrap();
    let mut control = control.accept().peer().await;
    control.send(r#"{"type":"sync","n":1}"#).await;
    control.ready(&generation, "1").await;
    let mut stream = bench.dial().await.accept().peer().await;
    control.send(r#"{"type":"sync","n":2}"#).await;
    sleep(Duration::from_millis(1)).await;
    stream.ready(&generation, "1").await;
    bench.opened().await;
    control.send(r#"{"type":"sync","n":3}"#).await;
    for n in 1..=3 {
        assert_eq!(bench.frame().await, format!(r#"{{"type":"sync","n":{n}}}"#));
    }
}

#[tokio::test(start_paused = true)]
async fn early_commands_are_bounded() {
    let mut bench = Bench::paired();
    let mut control = bench.dial().await.accept().peer().await;
    for _ in 0..1001 {
        control.send("{}").await;
    }
    assert_eq!(control.next().await, None);
    assert_eq!(bench.seconds(), 0, "not by a timeout");
    let error = bench.status.borrow().last_error.clone().unwrap();
    assert!(error.contains("too many frames"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_control_socket_closed_before_the_pair_is_open_means_what_it_says() {
    let mut bench = Bench::paired();
    let control = bench.dial().await;
    let generation = control.query("connectionGeneration").unwrap();
    let mut control = control.accept().peer().await;
    control.ready(&generation, "1").await;
    let _stream = bench.dial().await;
    control.close(1000, "Replaced by new connection").await;
    assert_eq!(bench.end().await, ExitReason::Superseded);
}

#[tokio::test(start_paused = true)]
async fn s01_15_row15_a_lost_stream_socket_brings_a_new_pair() {
    let mut bench = Bench::paired();
    let (mut control, stream, _) = pair(&mut bench, "1").await;
    bench.opened().await;
    sleep(Duration::from_secs(61)).await;
    stream.close(1000, "x").await;
    while let Some(message) = control.next().await {
        assert_eq!(message.into_text().unwrap(), lifecycle::PING);
    }
    assert_eq!(bench.closed().await.as_str(), "conn-1");
    let _sockets = pair(&mut bench, "2").await;
    assert_eq!(bench.seconds(), 61, "at once");
    assert_eq!(bench.opened().await.0.as_str(), "conn-1");
}

#[tokio::test(start_paused = true)]
async fn s01_15_row16_a_replaced_stream_socket_ends_it() {
    let mut bench = Bench::paired();
    let (_control, stream, _) = pair(&mut bench, "1").await;
    bench.opened().await;
    stream.close(1000, "Replaced by new connection").await;
    assert_eq!(bench.end().await, ExitReason::Superseded);
}

#[tokio::test(start_paused = true)]
async fn a_stop_closes_both_sockets_with_1000() {
    let mut bench = Bench::split();
    let (control, stream) = both(&mut bench).await;
    let mut control = control.accept().peer().await;
    let mut stream = stream.accept().peer().await;
    let (_, outbox, _) = bench.opened().await;
    event(&outbox, EventKind::LoopStatus, "update_loop_status");
    event(&outbox, EventKind::Control, "turn_finished");
    bench.cancel.cancel();
    assert_eq!(control.json().await["type"], "turn_finished");
    assert_eq!(stream.json().await["type"], "update_loop_status");
    for peer in [&mut control, &mut stream] {
        let Some(tokio_tungstenite::tungstenite::Message::Close(Some(frame))) = peer.next().await
        else {
            panic!("expected a close frame");
        };
        assert_eq!(u16::from(frame.code), 1000);
    }
    drop((control, stream));
    assert_eq!(bench.end().await, ExitReason::Stopped);
    assert_eq!(bench.gone().await.as_str(), "conn-1");
    assert!(!outbox.is_attached());
}
