//! Devices and clients: registration, sockets, faults of the line, the feed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the helpers of tests"
)]

mod support;

use std::time::Duration;

use local_cloud::{Channel, Decision, Fault, LocalCloud, Mode, Options, Ready, Scope};
use serde_json::{Value, json};
use support::*;

const SINGLE: &str = "/v1/environments/ws?deviceId=d1&connectionName=box";

async fn with_mode(mode: Mode) -> LocalCloud {
    start(Options {
        mode,
        ..Options::default()
    })
    .await
}

fn paired(channel: &str, generation: &str) -> String {
    format!("{SINGLE}&channel={channel}&connectionGeneration={generation}&connectionAttempt=2")
}

#[tokio::test]
async fn registration_offers_the_mode_and_remembers_the_request() {
    for (mode, split, pairs) in [
        (Mode::Single, Value::Null, Value::Null),
        (Mode::Split, json!(true), Value::Null),
        (Mode::Paired, json!(true), json!(true)),
    ] {
        let cloud = with_mode(mode).await;
        let answer = register(&cloud, "box").await;
        assert_eq!(answer["supportsSplitStatusChannels"], split);
        assert_eq!(answer["supportsPairedListenerGenerations"], pairs);
        assert!(
            answer["connectionId"]
                .as_str()
                .unwrap()
                .starts_with("conn-")
        );
        let seen = cloud.wait_for_registration(1, SOON).await.unwrap();
        assert_eq!(seen.body["connectionName"], "box");
    }
}

#[tokio::test]
async fn a_pair_is_open_when_both_sockets_are() {
    let cloud = with_mode(Mode::Paired).await;
    register(&cloud, "box").await;
    let mut control = socket(&cloud, &paired("control", "g1")).await.unwrap();
    let ready =
        json!({"type": "listener_ready", "connection_generation": "g1", "connection_attempt": 2});
    assert_eq!(next(&mut control).await, ready);
    assert_eq!(cloud.links_opened(), 0);
    let mut stream = socket(&cloud, &paired("stream", "g1")).await.unwrap();
    assert_eq!(next(&mut stream).await, ready);
    let device = cloud.wait_for_device(SOON).await.unwrap();
    put(&mut control, json!({"type": "a"})).await;
    device.wait_for_type("a", SOON).await.unwrap();
    put(&mut stream, json!({"type": "b"})).await;
    device.wait_for_type("b", SOON).await.unwrap();
    let channels: Vec<Channel> = device.frames().iter().map(|f| f.channel).collect();
    assert_eq!(channels, [Channel::Control, Channel::Stream]);
    device.send(json!({"type": "command"}));
    assert_eq!(next(&mut control).await["type"], "command");
}

#[tokio::test]
async fn split_sockets_may_come_in_any_order() {
    let cloud = with_mode(Mode::Split).await;
    register(&cloud, "box").await;
    let _stream = socket(&cloud, &format!("{SINGLE}&channel=stream"))
        .await
        .unwrap();
    assert_eq!(cloud.links_opened(), 0);
    let _control = socket(&cloud, &format!("{SINGLE}&channel=control"))
        .await
        .unwrap();
    cloud.wait_for_device(SOON).await.unwrap();
}

#[tokio::test]
async fn new_sockets_never_join_what_is_left_of_an_old_link() {
    let cloud = with_mode(Mode::Split).await;
    register(&cloud, "box").await;
    let control = || {
        socket(
            &cloud,
            "/v1/environments/ws?deviceId=d1&connectionName=box&channel=control",
        )
    };
    let stream = || {
        socket(
            &cloud,
            "/v1/environments/ws?deviceId=d1&connectionName=box&channel=stream",
        )
    };
    let mut old_control = control().await.unwrap();
    let mut old_stream = stream().await.unwrap();
    let old = cloud.wait_for_device(SOON).await.unwrap();
    old.close_channel(Channel::Control, 1001, "");
    closed(&mut old_control).await;
    drop(old_control);
    old.wait_closed(Channel::Control, SOON).await.unwrap();
    let mut new_control = control().await.unwrap();
    let _new_stream = stream().await.unwrap();
    let new = cloud.wait_for_device(SOON).await.unwrap();
    assert_eq!(new.link(), 2);
    closed(&mut old_stream).await;
    new.send(json!({"type": "still there"}));
    assert_eq!(next(&mut new_control).await["type"], "still there");
}

#[tokio::test]
async fn readiness_can_be_left_out_wrong_or_late() {
    for (ready, wanted) in [
        (
            Ready::WrongGeneration,
            json!(["listener_ready", "other", 2]),
        ),
        (Ready::WrongAttempt, json!(["listener_ready", "g1", 3])),
        (Ready::Late, json!(["sync", null, null])),
    ] {
        let cloud = start(Options {
            mode: Mode::Paired,
            ready,
            ..Options::default()
        })
        .await;
        register(&cloud, "box").await;
        let mut control = socket(&cloud, &paired("control", "g1")).await.unwrap();
        let frame = next(&mut control).await;
        let generation = match frame["connection_generation"].as_str() {
            Some("g1") => json!("g1"),
            Some(_) => json!("other"),
            None => Value::Null,
        };
        assert_eq!(
            json!([frame["type"], generation, frame["connection_attempt"]]),
            wanted
        );
    }
    let cloud = start(Options {
        mode: Mode::Paired,
        ready: Ready::Omit,
        ..Options::default()
    })
    .await;
    register(&cloud, "box").await;
    let mut control = socket(&cloud, &paired("control", "g1")).await.unwrap();
    put(&mut control, json!({"type": "ping"})).await;
    assert_eq!(next(&mut control).await["type"], "pong");
}

#[tokio::test]
async fn a_second_registration_replaces_the_first_and_another_name_does_not() {
    let cloud = with_mode(Mode::Single).await;
    let (_, mut first) = single_device(&cloud).await;
    cloud.wait_for_device(SOON).await.unwrap();
    register(&cloud, "other").await;
    register(&cloud, "box").await;
    assert_eq!(
        closed(&mut first).await,
        Some((1000, "Replaced by new connection".into()))
    );
}

#[tokio::test]
async fn a_device_can_be_closed_cut_or_left_hanging() {
    let cloud = with_mode(Mode::Single).await;
    let (_, mut one) = single_device(&cloud).await;
    cloud
        .wait_for_device(SOON)
        .await
        .unwrap()
        .close(1008, "go away");
    assert_eq!(closed(&mut one).await, Some((1008, "go away".into())));

    let mut two = socket(&cloud, SINGLE).await.unwrap();
    let device = cloud.wait_for_device(SOON).await.unwrap();
    assert_eq!(device.link(), 2);
    device.drop_tcp();
    assert_eq!(closed(&mut two).await, None);
    assert_eq!(
        device
            .wait_closed(Channel::Single, SOON)
            .await
            .unwrap()
            .code,
        None
    );

    let mut three = socket(&cloud, SINGLE).await.unwrap();
    let device = cloud.wait_for_device(SOON).await.unwrap();
    device.freeze();
    put(&mut three, json!({"type": "ping"})).await;
    let silence = tokio::time::timeout(Duration::from_millis(50), next(&mut three)).await;
    assert!(silence.is_err());
    assert!(device.frames().is_empty());
}

#[tokio::test]
async fn pings_are_answered_unless_told_otherwise() {
    let cloud = with_mode(Mode::Single).await;
    let (_, mut socket) = single_device(&cloud).await;
    let device = cloud.wait_for_device(SOON).await.unwrap();
    put(&mut socket, json!({"type": "ping"})).await;
    assert_eq!(next(&mut socket).await, json!({"type": "pong"}));
    device.set_pong(false);
    put(&mut socket, json!({"type": "ping"})).await;
    put(&mut socket, json!({"type": "end"})).await;
    device.wait_for_type("end", SOON).await.unwrap();
    device.send(json!({"type": "after"}));
    assert_eq!(next(&mut socket).await["type"], "after");
}

#[tokio::test]
async fn upgrades_and_registrations_can_fail() {
    let cloud = with_mode(Mode::Single).await;
    let gone = socket(&cloud, SINGLE).await;
    assert_eq!(gone.err(), Some(404), "nobody has registered");
    register(&cloud, "box").await;
    cloud.fail_next_upgrade(Fault::status(503));
    assert_eq!(socket(&cloud, SINGLE).await.err(), Some(503));
    cloud.fail_next_upgrade(Fault::CloseAfterOpen {
        code: 1013,
        reason: "later".into(),
    });
    let mut accepted = socket(&cloud, SINGLE).await.unwrap();
    assert_eq!(closed(&mut accepted).await, Some((1013, "later".into())));
    cloud.fail_next_upgrade(Fault::Hang);
    let hung = tokio::time::timeout(Duration::from_millis(50), socket(&cloud, SINGLE)).await;
    assert!(hung.is_err());

    cloud.fail_next_registration(Fault::status(500).with_body("plain text"));
    let refused = post(
        &cloud,
        "/v1/environments/register",
        json!({"deviceId": "d1"}),
    )
    .await;
    assert_eq!(refused.text().await.unwrap(), "plain text");
    assert_eq!(cloud.registrations().last().unwrap().connection_id, None);
}

#[tokio::test]
async fn a_wait_that_ends_names_what_came_instead() {
    let cloud = with_mode(Mode::Single).await;
    let (_, mut socket) = single_device(&cloud).await;
    let device = cloud.wait_for_device(SOON).await.unwrap();
    let delta = json!({"type": "stream_delta", "delta": {"message_type": "status"}});
    put(&mut socket, delta).await;
    device.wait_for_type("stream_delta", SOON).await.unwrap();
    let error = device
        .wait_for_type("never", Duration::from_millis(10))
        .await
        .unwrap_err();
    assert!(
        format!("{error:?}").contains("link 1 Single stream_delta:status"),
        "{error:?}"
    );
}

#[tokio::test]
async fn waiting_goes_on_from_the_last_match() {
    let cloud = with_mode(Mode::Single).await;
    let (_, mut socket) = single_device(&cloud).await;
    let device = cloud.wait_for_device(SOON).await.unwrap();
    for n in 1..=3 {
        put(&mut socket, json!({"type": "x", "n": n})).await;
    }
    for n in 1..=3 {
        assert_eq!(device.wait_for_type("x", SOON).await.unwrap()["n"], n);
    }
    let mark = device.mark();
    assert!(
        device
            .wait_after(mark, |_| true, Duration::from_millis(10))
            .await
            .is_err()
    );
    assert_eq!(device.frames().len(), 3);
}

#[tokio::test]
async fn a_turn_is_followed_to_its_end_and_its_requests_are_answered() {
    let cloud = with_mode(Mode::Single).await;
    let (_, mut socket) = single_device(&cloud).await;
    let scope = Scope::new("agent-1", "conv-1");
    let runtime = scope.runtime();
    let device = async {
        let input = next(&mut socket).await;
        assert_eq!(input["payload"]["messages"][0]["content"], "hi");
        put(&mut socket, json!({"type": "update_queue", "runtime": {"agent_id": "agent-1", "conversation_id": "conv-2"}})).await;
        put(
            &mut socket,
            json!({"type": "input_accepted", "runtime": runtime}),
        )
        .await;
        put(
            &mut socket,
            json!({"type": "control_request", "request_id": "perm-1", "runtime": runtime}),
        )
        .await;
        let answer = next(&mut socket).await;
        let delta = json!({"message_type": "assistant_message", "content": "yes"});
        put(
            &mut socket,
            json!({"type": "stream_delta", "delta": delta, "runtime": runtime}),
        )
        .await;
        put(
            &mut socket,
            json!({"type": "turn_finished", "stop_reason": "end_turn", "runtime": runtime}),
        )
        .await;
        answer
    };
    let turn = cloud.turn_deciding(&scope, "hi", |_| Decision::Deny("no".into()));
    let (answer, turn) = tokio::join!(device, turn);
    let turn = turn.unwrap();
    assert_eq!(answer["payload"]["request_id"], "perm-1");
    assert_eq!(
        answer["payload"]["decision"],
        json!({"behavior": "deny", "message": "no"})
    );
    assert_eq!(
        (turn.text().as_str(), turn.stop_reason()),
        ("yes", "end_turn")
    );
    assert_eq!(
        turn.labels(),
        [
            "input_accepted",
            "control_request",
            "stream_delta:assistant_message",
            "turn_finished"
        ]
    );
}

async fn client(cloud: &LocalCloud, connection: &str, conversation: &str) -> Socket {
    let path = format!(
        "/v1/environments/{connection}/status/ws?agentId=agent-1&conversationId={conversation}&token=t"
    );
    socket(cloud, &path).await.unwrap()
}

#[tokio::test]
async fn clients_get_their_scope_numbered_and_devices_get_the_acting_user() {
    let cloud = with_mode(Mode::Single).await;
    let (connection, mut device) = single_device(&cloud).await;
    cloud.wait_for_device(SOON).await.unwrap();
    let mut one = client(&cloud, &connection, "conv-1").await;
    let mut twin = client(&cloud, &connection, "conv-1").await;
    let mut two = client(&cloud, &connection, "conv-2").await;

    put(&mut one, json!({"type": "ping"})).await;
    assert_eq!(next(&mut one).await, json!({"type": "pong"}));
    put(&mut one, json!({"type": "ack", "seq": 1})).await;
    for socket in [&mut twin, &mut two] {
        put(socket, json!({"type": "ping"})).await;
        next(socket).await;
    }
    let runtime = json!({"agent_id": "agent-1", "conversation_id": "conv-1"});
    put(
        &mut one,
        json!({"type": "sync", "request_id": "r1", "runtime": runtime}),
    )
    .await;
    let command = next(&mut device).await;
    assert_eq!(
        command["type"], "sync",
        "neither ping nor ack reach the device"
    );
    assert_eq!(command["runtime"]["acting_user_id"], "user-local");

    put(
        &mut device,
        json!({"type": "update_queue", "event_seq": 1, "runtime": runtime}),
    )
    .await;
    put(
        &mut device,
        json!({"type": "sync_response", "request_id": "r1"}),
    )
    .await;
    put(&mut device, json!({"type": "cron_note"})).await;
    for socket in [&mut one, &mut twin] {
        let mut seen = Vec::new();
        for _ in 0..3 {
            let frame = next(socket).await;
            seen.push(json!([frame["seq"], frame["type"]]));
        }
        assert_eq!(
            json!(seen),
            json!([[1, "update_queue"], [2, "sync_response"], [3, "cron_note"]])
        );
    }
    let frame = next(&mut two).await;
    assert_eq!(
        json!([frame["seq"], frame["type"]]),
        json!([1, "cron_note"])
    );
}

#[tokio::test]
async fn machines_are_listed_and_their_clients_leave_with_the_registration() {
    let cloud = with_mode(Mode::Single).await;
    let (connection, mut device) = single_device(&cloud).await;
    cloud.wait_for_device(SOON).await.unwrap();
    let list: Value = get(&cloud, "/v1/environments?onlineOnly=true")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(list["connections"][0]["connectionId"], connection);
    assert_eq!(list["hasNextPage"], false);
    let one: Value = get(&cloud, "/v1/environments/d1")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(one["connectionName"], "box");
    assert_eq!(
        socket(&cloud, "/v1/environments/conn-x/status/ws")
            .await
            .err(),
        Some(404)
    );

    let mut client = client(&cloud, &connection, "conv-1").await;
    put(&mut client, json!({"type": "ping"})).await;
    next(&mut client).await;
    register(&cloud, "box").await;
    assert_eq!(closed(&mut client).await.unwrap().0, 1012);
    closed(&mut device).await;
    let list: Value = get(&cloud, "/v1/environments").await.json().await.unwrap();
    assert!(list["connections"][0]["connectionId"].is_null());
}

#[tokio::test]
async fn stopping_ends_every_connection() {
    let cloud = with_mode(Mode::Single).await;
    let (_, mut socket) = single_device(&cloud).await;
    cloud.wait_for_device(SOON).await.unwrap().freeze();
    let port = cloud.port();
    cloud.stop().await;
    assert_eq!(closed(&mut socket).await, None);
    let again = start(Options {
        port,
        ..Options::default()
    })
    .await;
    assert_eq!(again.port(), port);
}
