use super::*;

fn scope(conversation: &str) -> Scope {
    Scope::new(Some("agent-1"), Some(conversation))
}

fn event(outbox: &Outbox, kind: EventKind, conversation: &str, n: usize) {
    let body = format!(r#"{{"type":"t","n":{n}}}"#);
    outbox.push_event(&scope(conversation), kind, body.into());
}

/// What waits on a lane, as `(n, event_seq)`; replies have number 0.
fn drained(drain: &Drain) -> Vec<(u64, u64)> {
    let mut frames = Vec::new();
    while let Ok(Some(text)) = drain.try_next() {
        let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
        let number = |key: &str| frame[key].as_u64().unwrap_or(0);
        frames.push((number("n"), number("event_seq")));
    }
    frames
}

#[test]
fn s02_01_numbers_run_over_both_lanes_and_over_reattachment() {
    let outbox = Outbox::new();
    let (control, stream) = outbox.attach(true);
    let stream = stream.unwrap();
    event(&outbox, EventKind::StreamDelta, "a", 1);
    event(&outbox, EventKind::Control, "b", 2);
    outbox.push_reply(r#"{"type":"sync_response"}"#.into());
    event(&outbox, EventKind::LoopStatus, "a", 3);
    assert_eq!(drained(&control), [(2, 2), (0, 0)]);
    assert_eq!(drained(&stream), [(1, 1), (3, 3)]);

    let (control, stream) = outbox.attach(false);
    assert!(stream.is_none());
    event(&outbox, EventKind::DeviceStatus, "a", 4);
    assert_eq!(drained(&control), [(4, 4)]);
}

#[test]
fn s02_01_numbers_tell_the_order_of_events_whichever_socket_is_drained_first() {
    let outbox = Outbox::new();
    let (control, stream) = outbox.attach(true);
    let stream = stream.unwrap();
    event(&outbox, EventKind::LoopStatus, "a", 1);
    event(&outbox, EventKind::Control, "a", 2);
    event(&outbox, EventKind::LoopStatus, "a", 3);
    event(&outbox, EventKind::Control, "a", 4);
    assert_eq!(drained(&control), [(2, 2), (4, 4)]);
    // A socket that stalls meanwhile keeps the numbers that were given.
    stream.set_stalled(true);
    event(&outbox, EventKind::LoopStatus, "a", 5);
    event(&outbox, EventKind::Control, "a", 6);
    assert_eq!(drained(&control), [(6, 5)]);
    assert_eq!(drained(&stream), [(1, 1), (5, 3)]);
}

#[test]
fn without_a_stream_socket_everything_travels_on_control_in_order() {
    let outbox = Outbox::new();
    let (control, _) = outbox.attach(false);
    event(&outbox, EventKind::StreamDelta, "a", 1);
    outbox.push_reply("{}".into());
    event(&outbox, EventKind::Control, "a", 2);
    assert_eq!(drained(&control), [(1, 1), (0, 0), (2, 2)]);
}

#[test]
fn nothing_waits_while_no_socket_is_attached() {
    let outbox = Outbox::new();
    event(&outbox, EventKind::Control, "a", 1);
    let (control, _) = outbox.attach(false);
    event(&outbox, EventKind::Control, "a", 2);
    outbox.detach();
    event(&outbox, EventKind::Control, "a", 3);
    assert_eq!(control.try_next(), Err(DrainEnd::Detached));
    assert!(!outbox.is_attached());
    let (again, _) = outbox.attach(false);
    assert_eq!(drained(&again), []);
    event(&outbox, EventKind::Control, "a", 4);
    assert_eq!(drained(&again), [(4, 1)]);
    assert_eq!(control.try_next(), Err(DrainEnd::Detached));
}

#[test]
fn s02_13_status_frames_of_a_stalled_socket_merge_in_place_and_deltas_never() {
    let outbox = Outbox::new();
    let (control, _) = outbox.attach(false);
    control.set_stalled(true);
    event(&outbox, EventKind::DeviceStatus, "a", 1);
    event(&outbox, EventKind::StreamDelta, "a", 2);
    event(&outbox, EventKind::DeviceStatus, "b", 3);
    event(&outbox, EventKind::LoopStatus, "a", 4);
    event(&outbox, EventKind::StreamDelta, "a", 5);
    event(&outbox, EventKind::QueueTransition, "a", 6);
    event(&outbox, EventKind::QueueTransition, "a", 7);
    event(&outbox, EventKind::DeviceStatus, "a", 8);
    event(&outbox, EventKind::LoopStatus, "a", 9);
    assert_eq!(
        drained(&control),
        [(8, 1), (2, 2), (3, 3), (9, 4), (5, 5), (6, 6), (7, 7)]
    );
    // What left the queue is no place to be taken any more.
    event(&outbox, EventKind::DeviceStatus, "a", 10);
    assert_eq!(drained(&control), [(10, 8)]);
}

#[test]
fn a_healthy_socket_gets_every_status_frame() {
    let outbox = Outbox::new();
    let (control, _) = outbox.attach(false);
    for n in 1..=3 {
        event(&outbox, EventKind::LoopStatus, "a", n);
    }
    assert_eq!(drained(&control), [(1, 1), (2, 2), (3, 3)]);
}

#[tokio::test]
async fn s02_13_the_513th_event_ends_a_stalled_socket_and_no_other() {
    let (slow, quick) = (Outbox::new(), Outbox::new());
    let (slow_drain, _) = slow.attach(false);
    let (quick_drain, _) = quick.attach(false);
    slow_drain.set_stalled(true);
    let body: Arc<str> = r#"{"type":"stream_delta"}"#.into();
    for _ in 0..MAX_QUEUED_EVENTS {
        for outbox in [&slow, &quick] {
            outbox.push_event(&scope("a"), EventKind::StreamDelta, body.clone());
        }
    }
    assert!(slow.is_attached());
    slow.push_event(&scope("a"), EventKind::StreamDelta, body.clone());
    quick.push_event(&scope("a"), EventKind::StreamDelta, body);
    let overflow = DrainEnd::Overflow {
        frames: MAX_QUEUED_EVENTS + 1,
        bytes: 23 * (MAX_QUEUED_EVENTS + 1),
    };
    assert_eq!(slow_drain.ended().await, overflow);
    assert_eq!(slow_drain.next().await, Err(overflow));
    assert!(!slow.is_attached());
    assert_eq!(drained(&quick_drain).len(), MAX_QUEUED_EVENTS + 1);
}

#[test]
fn a_burst_counts_from_the_moment_the_socket_stalls() {
    let outbox = Outbox::new();
    let (control, stream) = outbox.attach(true);
    for n in 0..=MAX_QUEUED_EVENTS {
        event(&outbox, EventKind::Control, "a", n);
    }
    assert!(outbox.is_attached());
    control.set_stalled(true);
    assert!(!outbox.is_attached(), "one lane too many ends both");
    assert!(matches!(
        stream.unwrap().try_next(),
        Err(DrainEnd::Overflow { .. })
    ));
}

#[test]
fn bytes_are_bounded_for_replies_too_but_one_large_frame_passes() {
    let outbox = Outbox::new();
    let (control, _) = outbox.attach(false);
    let large = "x".repeat(MAX_QUEUED_BYTES + 1);
    outbox.push_reply(large.clone());
    assert_eq!(
        control.try_next().unwrap().map(|frame| frame.len()),
        Some(large.len())
    );
    outbox.push_reply("{}".into());
    assert!(outbox.is_attached());
    outbox.push_reply(large);
    assert!(matches!(control.try_next(), Err(DrainEnd::Overflow { .. })));
}

#[tokio::test]
async fn finishing_yields_what_waits_and_takes_no_more() {
    let outbox = Outbox::new();
    let (control, stream) = outbox.attach(true);
    event(&outbox, EventKind::Control, "a", 1);
    outbox.finish();
    event(&outbox, EventKind::Control, "a", 2);
    assert!(control.next().await.unwrap().contains(r#""n":1"#));
    assert_eq!(control.next().await, Err(DrainEnd::Finished));
    assert_eq!(stream.unwrap().next().await, Err(DrainEnd::Finished));
}

#[tokio::test]
async fn a_waiting_writer_wakes_for_frames_and_for_the_end() {
    let outbox = Outbox::new();
    let (control, _) = outbox.attach(false);
    let (frame, ()) = tokio::join!(control.next(), async {
        event(&outbox, EventKind::Control, "a", 1);
    });
    assert!(frame.unwrap().contains(r#""n":1"#));
    let (end, ()) = tokio::join!(control.next(), async { outbox.detach() });
    assert_eq!(end, Err(DrainEnd::Detached));
}

#[test]
fn text_that_is_no_object_is_skipped_and_takes_no_number() {
    let outbox = Outbox::new();
    let (control, _) = outbox.attach(false);
    outbox.push_event(&scope("a"), EventKind::Control, "[]".into());
    event(&outbox, EventKind::Control, "a", 2);
    assert_eq!(drained(&control), [(2, 1)]);
}

#[tokio::test]
async fn a_paced_frame_gives_its_permit_back_when_it_is_taken_and_never_overflows() {
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(2));
    let paced = |outbox: &Outbox| {
        let permit = std::sync::Arc::clone(&permits).try_acquire_owned().unwrap();
        outbox.push_paced(format!("\"{}\"", "x".repeat(MAX_QUEUED_BYTES)), permit);
    };
    let outbox = Outbox::new();
    paced(&outbox);
    assert_eq!(permits.available_permits(), 2, "nobody will take it");
    let (control, _) = outbox.attach(false);
    paced(&outbox);
    paced(&outbox);
    assert_eq!(permits.available_permits(), 0);
    assert!(control.try_next().unwrap().is_some());
    assert_eq!(permits.available_permits(), 1);
    outbox.detach();
    assert_eq!(permits.available_permits(), 2);
}
