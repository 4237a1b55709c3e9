//! Connecting, staying connected, coming back, ending.

use std::time::Duration;

use tokio::time::{Instant, advance, sleep};
use tokio_tungstenite::tungstenite::Message;

use super::super::*;
use super::bench::{Bench, Peer};

/// Holds a connection open and answers pings for that long.
async fn hold(peer: &mut Peer, seconds: u64) {
    let until = Instant::now() + Duration::from_secs(seconds);
    while let Ok(message) = tokio::time::timeout_at(until, peer.next()).await {
        assert_eq!(message, Some(Message::text(lifecycle::PING)));
        peer.send(r#"{"type":"pong"}"#).await;
    }
}

#[tokio::test(start_paused = true)]
async fn s01_15_row01_one_upgrade_names_device_and_computer() {
    let mut bench = Bench::single();
    let dialled = bench.dial().await;
    assert_eq!(
        dialled.url.as_str(),
        "http://relay.test/ws?token=s3cret&deviceId=dev-1&connectionName=w+1"
    );
    assert_eq!(dialled.bearer.as_deref(), Some("key-1"));
    assert_eq!(bench.status.borrow().state.name(), "connecting");
    let mut peer = dialled.accept().peer().await;
    let (id, _, replaces) = bench.opened().await;
    assert_eq!((id.as_str(), replaces), ("conn-1", None));
    assert_eq!(bench.status.borrow().state.name(), "connected");
    assert_eq!(
        peer.text().await,
        r#"{"type":"ping"}"#,
        "nothing before a ping"
    );
    assert_eq!(bench.seconds(), 30);
    assert_eq!(bench.registrations(), 1);
}

#[tokio::test(start_paused = true)]
async fn s01_15_row02_answered_pings_keep_the_connection() {
    let mut bench = Bench::single();
    let (mut peer, _) = bench.connect().await;
    for seconds in [30, 60, 90, 120, 150, 180] {
        assert_eq!(peer.text().await, lifecycle::PING);
        assert_eq!(bench.seconds(), seconds);
        peer.send(r#"{"type":"pong"}"#).await;
        sleep(Duration::from_millis(1)).await;
        let pong = bench.status.borrow().last_pong.unwrap();
        assert!(pong.elapsed() <= Duration::from_millis(1));
    }
    assert!(
        bench.door.try_recv().is_err(),
        "pongs are not for the listener"
    );
    assert!(bench.noted("Send Protocol {\"type\":\"ping\"}"));
    assert!(bench.noted("Recv Lifecycle {\"type\":\"pong\"}"));
}

#[tokio::test(start_paused = true)]
async fn s01_15_row03_relay_never_pongs_and_is_left_at_120_s() {
    let mut bench = Bench::single();
    let (mut peer, _) = bench.connect().await;
    for seconds in [30, 60, 90] {
        assert_eq!(peer.text().await, lifecycle::PING);
        assert_eq!(bench.seconds(), seconds);
    }
    assert_eq!(peer.next().await, None, "dropped without a close frame");
    assert_eq!(bench.seconds(), 120);
    assert_eq!(bench.closed().await.as_str(), "conn-1");
    let again = bench.dial().await;
    assert_eq!(again.at, 120, "it had held: at once");
    let _peer = again.accept().peer().await;
    assert_eq!(bench.opened().await.0.as_str(), "conn-1");
    assert_eq!(bench.registrations(), 1);
    let disconnects = &bench.status.borrow().disconnects;
    assert_eq!(disconnects.get(&DisconnectReason::Heartbeat), Some(&1));
    assert!(bench.noted(r#"Recv Lifecycle {"type":"_ws_close","code":1006,"reason":""}"#));
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_stalls_for_two_minutes_costs_no_healthy_connection() {
    let mut bench = Bench::single();
    let (mut peer, _) = bench.connect().await;
    for n in 0..100 {
        peer.send(&format!("{{\"n\":{n}}}")).await;
    }
    let relay_side = peer.answering();
    // Nobody takes from the door: the relay cannot even send its pings.
    sleep(Duration::from_secs(117)).await;
    for n in 0..100 {
        assert_eq!(bench.frame().await, format!("{{\"n\":{n}}}"));
    }
    sleep(Duration::from_secs(600)).await;
    assert!(bench.door.try_recv().is_err());
    assert_eq!(bench.status.borrow().connects, 1);
    assert!(!relay_side.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_probes_again_before_it_gives_up() {
    let mut bench = Bench::single();
    let (mut peer, _) = bench.connect().await;
    assert_eq!(peer.text().await, lifecycle::PING);
    advance(Duration::from_secs(8 * 3600)).await;
    for _ in 0..2 {
        assert_eq!(peer.text().await, lifecycle::PING);
    }
    peer.send(r#"{"type":"pong"}"#).await;
    assert_eq!(peer.text().await, lifecycle::PING);
}

#[tokio::test(start_paused = true)]
async fn s01_15_row04_close_1008_registers_again_and_keeps_the_conversations() {
    let mut bench = Bench::single();
    let (peer, old) = bench.connect().await;
    peer.close(1008, "expired").await;
    assert_eq!(bench.closed().await.as_str(), "conn-1");
    let again = bench.dial().await;
    assert_eq!((again.at, bench.registrations()), (0, 2));
    let _peer = again.accept().peer().await;
    let (id, outbox, replaces) = bench.opened().await;
    assert_eq!(id.as_str(), "conn-2");
    assert_eq!(replaces, Some(ConnectionId::new("conn-1")));
    assert!(outbox.is_attached() && !old.is_attached());
    assert!(bench.noted("Computer connection expired, re-registering..."));
    assert!(bench.noted("Re-registered: connectionId=conn-2"));
}

#[tokio::test(start_paused = true)]
async fn s01_15_row05_a_replaced_listener_exits_69_and_leaves_no_trace() {
    let mut bench = Bench::single();
    let (peer, _) = bench.connect().await;
    peer.close(1000, "Replaced by new connection").await;
    let exit = bench.end().await;
    assert_eq!((exit.code(), exit), (69, ExitReason::Superseded));
    assert_eq!(bench.closed().await.as_str(), "conn-1");
    assert_eq!(bench.gone().await.as_str(), "conn-1");
    assert!(bench.dialled.recv().await.is_none());
    assert_eq!(bench.registrations(), 1);
    assert_eq!(bench.status.borrow().state.name(), "ended");
    assert!(bench.noted("Disconnected."));
}

#[tokio::test(start_paused = true)]
async fn s01_15_row06_closes_and_drops_reconnect_at_once_after_a_minute() {
    let mut bench = Bench::single();
    for code in [1001, 4001] {
        let (mut peer, _) = bench.connect().await;
        hold(&mut peer, 61).await;
        let before = bench.seconds();
        peer.close(code, "").await;
        bench.closed().await;
        assert_eq!(bench.seconds(), before);
    }
    let (mut peer, _) = bench.connect().await;
    hold(&mut peer, 61).await;
    drop(peer);
    bench.closed().await;
    assert_eq!(bench.dial().await.at, 183);
    assert_eq!(bench.registrations(), 1);
}

#[tokio::test(start_paused = true)]
async fn s01_15_row06_short_connections_back_off() {
    let mut bench = Bench::single();
    for least in [1, 2, 4, 8] {
        let (peer, _) = bench.connect().await;
        let before = bench.seconds();
        peer.close(1001, "").await;
        bench.closed().await;
        sleep(Duration::from_millis(1)).await;
        assert_eq!(bench.status.borrow().state.name(), "reconnecting");
        // Seen by the next upgrade, which `connect` of the next round answers.
        let waited = bench.status.borrow().next_retry.unwrap() - bench.start;
        assert!(waited.as_secs() >= before + least);
    }
}

#[tokio::test(start_paused = true)]
async fn s01_15_row07_refused_upgrades_wait_1_2_4_s() {
    let mut bench = Bench::single();
    let mut dialled = bench.dial().await;
    for (text, least) in [("HTTP 401", 1.0), ("HTTP 404", 2.0), ("HTTP 503", 4.0)] {
        let refused = bench.start.elapsed();
        dialled.refuse(text);
        dialled = bench.dial().await;
        let waited = (bench.start.elapsed() - refused).as_secs_f32();
        assert!((least..least * 1.26).contains(&waited), "{waited}");
        assert_eq!(bench.status.borrow().last_error.as_deref(), Some(text));
    }
    let _peer = dialled.accept().peer().await;
    bench.opened().await;
    assert_eq!(bench.registrations(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_never_ends_is_given_up_after_30_s() {
    let mut bench = Bench::single();
    let silent = bench.dial().await;
    silent.given_up().await;
    assert_eq!(bench.seconds(), 30);
    assert_eq!(bench.dial().await.at, 31);
    let error = bench.status.borrow().last_error.clone().unwrap();
    assert_eq!(error, "the handshake did not end within 30 s");
}

#[tokio::test(start_paused = true)]
async fn s01_15_row34_never_connected_for_five_minutes_registers_again() {
    let mut bench = Bench::single();
    while bench.registrations() < 3 {
        bench.dial().await.refuse("unreachable");
    }
    let asked = bench.office.asked.lock().unwrap().clone();
    for pair in asked.windows(2) {
        assert!((300..332).contains(&(pair[1] - pair[0])), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn s01_15_row35_unreachable_for_five_minutes_comes_back_under_a_new_id() {
    let mut bench = Bench::single();
    let (mut peer, _) = bench.connect().await;
    hold(&mut peer, 100).await;
    drop(peer);
    assert_eq!(bench.closed().await.as_str(), "conn-1");
    while bench.registrations() < 2 {
        bench.dial().await.refuse("unreachable");
    }
    assert!(bench.seconds() >= 400);
    let (id, _, replaces) = {
        let _peer = bench.dial().await.accept().peer().await;
        bench.opened().await
    };
    assert_eq!(id.as_str(), "conn-2");
    assert_eq!(replaces, Some(ConnectionId::new("conn-1")));
}

#[tokio::test(start_paused = true)]
async fn s01_15_row08_registration_waits_for_retry_after() {
    let transient = |seconds| {
        let retry_after = Some(Duration::from_secs(seconds));
        Err(RegisterError {
            text: "HTTP 429".to_owned(),
            class: RegisterClass::Transient { retry_after },
        })
    };
    let mut bench = Bench::with((false, false), |_, office| {
        *office.script.get_mut().unwrap() = [transient(0), transient(20), transient(7200)].into();
    });
    let dialled = bench.dial().await;
    let asked = bench.office.asked.lock().unwrap().clone();
    assert_eq!(asked[0], 0);
    assert_eq!(asked[1], 1);
    assert!((21..=22).contains(&asked[2]), "{asked:?}");
    assert!((321..=324).contains(&asked[3]), "capped: {asked:?}");
    dialled.refuse("enough");
}

#[tokio::test(start_paused = true)]
async fn s01_15_row09_a_refused_registration_exits_77_before_any_socket() {
    let mut bench = Bench::with((false, false), |_, office| {
        office
            .script
            .get_mut()
            .unwrap()
            .push_back(Err(RegisterError {
                text: "Unauthorized".to_owned(),
                class: RegisterClass::Refused,
            }));
    });
    let exit = bench.end().await;
    assert_eq!(
        (exit.code(), exit.to_string().as_str()),
        (77, "Unauthorized")
    );
    assert!(bench.dialled.recv().await.is_none());
    assert!(bench.door.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn max_offline_ends_it_with_69() {
    let mut bench = Bench::with((false, false), |config, _| {
        config.max_offline = Some(Duration::from_secs(90));
    });
    let silent = bench.dial().await;
    let refusals = async {
        silent.given_up().await;
        while let Some(dialled) = bench.dialled.recv().await {
            dialled.refuse("unreachable");
        }
    };
    refusals.await;
    assert_eq!(bench.end().await, ExitReason::Offline);
    assert_eq!(bench.seconds(), 90);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_waiting_opens_no_socket() {
    let mut bench = Bench::single();
    bench.dial().await.refuse("unreachable");
    sleep(Duration::from_millis(500)).await;
    bench.cancel.cancel();
    assert_eq!(bench.end().await, ExitReason::Stopped);
    assert_eq!(bench.start.elapsed(), Duration::from_millis(500));
    assert!(bench.dialled.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_connecting_gives_the_handshake_up() {
    let mut bench = Bench::single();
    let dialled = bench.dial().await;
    bench.cancel.cancel();
    dialled.given_up().await;
    assert_eq!(bench.end().await, ExitReason::Stopped);
    assert!(
        bench.door.recv().await.is_none(),
        "nobody heard of a connection"
    );
}

#[tokio::test(start_paused = true)]
async fn an_unusable_address_exits_78() {
    let mut bench = Bench::with((false, false), |_, office| {
        office.script.get_mut().unwrap().push_back(Ok(Registration {
            connection_id: ConnectionId::new("conn-1"),
            ws_url: "ftp://relay.test/?token=s3cret".to_owned(),
            split: false,
            paired: false,
        }));
    });
    let exit = bench.end().await;
    assert_eq!(exit.code(), 78);
    assert!(!exit.to_string().contains("s3cret"));
    let notes = bench.notes.0.lock().unwrap();
    assert!(
        notes.iter().all(|note| !note.contains("s3cret")),
        "{notes:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_is_gone_ends_the_relay() {
    let mut bench = Bench::single();
    let (mut peer, _) = bench.connect().await;
    bench.door.close();
    peer.send(r#"{"type":"sync"}"#).await;
    assert_eq!(bench.end().await, ExitReason::Stopped);
    assert!(
        matches!(peer.next().await, Some(Message::Close(Some(frame))) if u16::from(frame.code) == 1000)
    );
}
