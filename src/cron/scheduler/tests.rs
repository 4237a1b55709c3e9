mod clock;
mod lab;

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use self::lab::*;
use super::*;
use crate::cron::operations::Changed;
use crate::cron::task::{NewTask, iso};

#[tokio::test(start_paused = true)]
async fn a_task_that_is_added_in_between_does_not_wait_for_the_next_minute() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    lab.start();
    pass(1).await;
    lab.add(once("2026-03-26T10:00:40Z"));
    pass(18).await;
    assert_eq!(lab.fires(), 0);
    pass(2).await;
    assert_eq!(lab.fires(), 1, "at 10:00:41");
    // One that is due at once is found within seconds.
    lab.add(once("2026-03-26T10:00:42Z"));
    pass(7).await;
    assert_eq!(lab.fires(), 2, "at 10:00:48");
    lab.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_one_shot_fires_at_its_moment_and_is_over() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    lab.start();
    pass(1).await;
    let id = lab.add(once("2026-03-26T10:02:30Z"));
    pass(120).await;
    assert_eq!(lab.fires(), 0);
    pass(10).await;
    assert_eq!(lab.fires(), 1);
    let task = lab.task(&id);
    assert_eq!(task.status(), Status::Fired);
    assert_eq!(task.count("fire_count"), 1);
    assert_eq!(task.text("last_run_reason"), "one_off_due");
    assert_eq!(task.text("fired_at"), task.text("last_fired_at"));
    let runs = lab.runs(&id);
    assert_eq!(
        (&runs[0]["status"], &runs[0]["queueItemId"]),
        (&json!("ok"), &json!("q-1"))
    );
    assert_eq!(lab.desk.changed.lock().expect("not poisoned").len(), 1);
    assert_eq!(lab.metric("letta_cron_fires_total{outcome=\"fired\"}"), 1.0);
    pass(600).await;
    assert_eq!(lab.fires(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_recurring_task_fires_once_in_each_of_its_minutes_after_its_delay() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    let id = lab.add(recurring("*/2 * * * *"));
    lab.edit(&id, "jitter_offset_ms", json!(25_000));
    lab.start();
    // The minute in which it starts counts as well.
    pass(26).await;
    assert_eq!(lab.fires(), 1);
    assert_eq!(lab.metric("letta_cron_lease_held"), 1.0);
    let next = at("2026-03-26T10:02:00Z").as_second();
    assert_eq!(
        lab.metric("letta_cron_next_fire_timestamp_seconds"),
        next as f64
    );
    pass(98).await; // 10:02:24
    assert_eq!(lab.fires(), 1);
    pass(3).await;
    assert_eq!(lab.fires(), 2);
    pass(600).await;
    assert_eq!(lab.fires(), 7);
    let task = lab.task(&id);
    assert_eq!(
        (task.status(), task.count("fire_count")),
        (Status::Active, 7)
    );
    let text = lab.desk.prompts.lock().expect("not poisoned")[1].1.clone();
    assert!(
        text.contains("Scheduled for: 2026-03-26T10:02:00.000+00:00[UTC]"),
        "{text}"
    );
    assert!(
        text.contains("This is fire #2 (cron: */2 * * * *)."),
        "{text}"
    );
    lab.stop().await;
    assert_eq!(lab.metric("letta_cron_lease_held"), 0.0);
    assert_eq!(lab.store.read().top["scheduler_owner"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_fails_a_recurring_task_and_delays_a_one_shot() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    let every = lab.add(recurring("*/5 * * * *"));
    let shot = lab.add(once("2026-03-26T10:01:00Z"));
    lab.desk.full.store(true, Ordering::SeqCst);
    lab.start();
    pass(41).await; // 10:01:01
    for id in [&every, &shot] {
        let task = lab.task(id);
        assert_eq!(task.text("last_run_reason"), "queue_full");
        assert_eq!(
            (task.count("failed_count"), task.status()),
            (1, Status::Active)
        );
        assert_eq!(lab.runs(id).len(), 1);
    }
    pass(58).await;
    assert_eq!(lab.task(&shot).count("failed_count"), 1, "once a minute");
    pass(2).await;
    assert_eq!(lab.task(&shot).count("failed_count"), 2);
    lab.desk.full.store(false, Ordering::SeqCst);
    pass(60).await;
    assert_eq!(lab.task(&shot).status(), Status::Fired);
    assert_eq!(
        lab.fires(),
        1,
        "the recurring one waits for its next minute"
    );
}

#[tokio::test(start_paused = true)]
async fn a_one_shot_that_cannot_be_queued_is_missed_with_its_reason() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    let shot = lab.add(once("2026-03-26T10:01:00Z"));
    lab.desk.full.store(true, Ordering::SeqCst);
    lab.start();
    pass(420).await;
    let task = lab.task(&shot);
    assert_eq!(task.status(), Status::Missed);
    assert_eq!(task.text("last_run_reason"), "queue_full");
    assert_eq!(task.text("last_run_error"), "queue buffer limit");
}

#[tokio::test(start_paused = true)]
async fn what_was_due_while_nothing_ran_is_missed_or_caught_up() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    let late = lab.add(once("2026-03-26T09:54:00Z"));
    let just = lab.add(once("2026-03-26T09:56:00Z"));
    let every = lab.add(recurring("0 9 * * *"));
    lab.start();
    pass(1).await;
    let task = lab.task(&late);
    assert_eq!(task.status(), Status::Missed);
    assert_eq!(task.text("last_missed_at"), "2026-03-26T09:54:00.000Z");
    assert_eq!(task.text("last_run_reason"), "scheduler_inactive");
    let runs = lab.runs(&late);
    assert_eq!(
        (&runs[0]["outcome"], &runs[0]["missedCount"]),
        (&json!("missed"), &json!(1))
    );
    assert_eq!(lab.task(&just).status(), Status::Fired);
    assert_eq!(lab.task(&every).count("fire_count"), 0);
    assert_eq!(
        lab.metric("letta_cron_fires_total{outcome=\"missed\"}"),
        1.0
    );
}

#[tokio::test(start_paused = true)]
async fn a_recurring_task_ends_after_its_life_paused_or_not() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    let life = SignedDuration::from_mins(3);
    let end = Some(Some(lab.now() + life));
    let mortal = |cron: &str| NewTask {
        expires_at: end,
        ..recurring(cron)
    };
    let every = lab.add(mortal("* * * * *"));
    let paused = lab.add(mortal("* * * * *"));
    lab.store.pause(&paused).expect("paused");
    lab.start();
    pass(230).await;
    for (id, fires) in [(&every, 4), (&paused, 0)] {
        let task = lab.task(id);
        assert_eq!(task.status(), Status::Cancelled);
        assert_eq!(task.text("cancel_reason"), "expired");
        assert_eq!(task.count("fire_count"), fires);
        let run = &lab.runs(id)[0];
        assert_eq!(
            (&run["status"], &run["reason"]),
            (&json!("skipped"), &json!("task_cancelled"))
        );
        assert_eq!(run["summary"], "expired");
    }
    assert_eq!(
        lab.metric("letta_cron_fires_total{outcome=\"expired\"}"),
        2.0
    );
    pass(23 * 3600).await;
    assert!(lab.store.get(&every).is_some(), "kept for a day");
    pass(2 * 3600).await;
    assert_eq!(lab.store.read().tasks, []);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_deleted_while_it_fires_stays_deleted() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    lab.desk.slow.store(true, Ordering::SeqCst);
    let new = NewTask {
        conversation_id: Some("new".into()),
        ..recurring("* * * * *")
    };
    let id = lab.add(new);
    lab.start();
    pass(5).await;
    assert!(lab.store.delete(&id).expect("deleted"));
    lab.desk.go.notify_one();
    pass(5).await;
    assert_eq!((lab.fires(), lab.store.read().tasks.len()), (1, 0));
    assert_eq!(lab.runs(&id)[0]["conversationId"], "conv-of-agent-1");
    pass(120).await;
    assert_eq!(lab.fires(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_paused_or_deleted_during_its_delay_does_not_fire() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    let paused = lab.add(recurring("* * * * *"));
    let deleted = lab.add(recurring("* * * * *"));
    for id in [&paused, &deleted] {
        lab.edit(id, "jitter_offset_ms", json!(10_000));
    }
    lab.start();
    pass(5).await;
    lab.store.pause(&paused).expect("paused");
    lab.store.delete(&deleted).expect("deleted");
    pass(30).await;
    assert_eq!(lab.fires(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_holds_up_one_task_and_fires_it_once() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    lab.desk.slow.store(true, Ordering::SeqCst);
    let slow = lab.add(NewTask {
        conversation_id: Some("new".into()),
        ..once("2026-03-26T10:00:30Z")
    });
    lab.add(recurring("* * * * *"));
    lab.start();
    pass(130).await;
    assert_eq!(lab.fires(), 3, "those of the other task");
    lab.desk.go.notify_one();
    pass(1).await;
    assert_eq!((lab.fires(), lab.task(&slow).count("fire_count")), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn a_conversation_that_cannot_be_made_is_told_in_the_run_log_alone() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    let id = lab.add(NewTask {
        conversation_id: Some("new".into()),
        name: "unlucky".into(),
        ..recurring("* * * * *")
    });
    lab.start();
    pass(5).await;
    let run = &lab.runs(&id)[0];
    assert_eq!(
        (&run["status"], &run["error"]),
        (&json!("error"), &json!("500 Oh no"))
    );
    assert_eq!(run.get("outcome"), None);
    assert_eq!(lab.task(&id).fields()["last_run_at"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn an_expression_that_cannot_be_read_is_reported_once() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    let id = lab.add(recurring("* * * * *"));
    lab.edit(&id, "cron", json!("every now and then"));
    lab.start();
    pass(180).await;
    let task = lab.task(&id);
    assert_eq!(
        (task.count("failed_count"), task.status()),
        (1, Status::Active)
    );
    assert_eq!(lab.runs(&id).len(), 1);
    assert_eq!(lab.desk.changed.lock().expect("not poisoned").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_stops_every_fire_until_it_is_had_again() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    let id = lab.add(recurring("* * * * *"));
    lab.edit(&id, "jitter_offset_ms", json!(30_000));
    lab.start();
    pass(5).await;
    let mut other = std::process::Command::new("sleep")
        .arg("600")
        .spawn()
        .expect("sleep runs");
    let theirs = json!({"pid": other.id(), "token": "theirs", "started_at": iso(lab.now())});
    let change = &mut |document: &mut crate::cron::store::Document| {
        document
            .top
            .insert("scheduler_owner".into(), theirs.clone());
        true
    };
    lab.store.update(change).expect("written");
    pass(200).await;
    assert_eq!(lab.fires(), 0, "not even the one that was waiting");
    assert_eq!(lab.metric("letta_cron_lease_held"), 0.0);
    assert_eq!(lab.store.read().top["scheduler_owner"], theirs);
    other.kill().expect("killed");
    other.wait().expect("reaped");
    pass(95).await;
    assert_eq!(lab.metric("letta_cron_lease_held"), 1.0);
    assert!(lab.fires() >= 1);
}

#[tokio::test(start_paused = true)]
async fn two_schedulers_on_one_home_fire_once() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    lab.add(recurring("* * * * *"));
    lab.start();
    let stop = CancellationToken::new();
    let second = tokio::spawn(lab.scheduler().run(stop.clone()));
    pass(200).await;
    assert_eq!(lab.fires(), 4);
    // When one goes, the other takes over, and repeats no minute.
    lab.stop().await;
    pass(100).await;
    assert_eq!(lab.fires(), 6);
    stop.cancel();
    second.await.expect("ended well");
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_the_same_minute_fires_nothing_again() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    let id = lab.add(recurring("* * * * *"));
    lab.start();
    pass(1).await;
    assert_eq!(lab.fires(), 1);
    lab.kill().await;
    lab.start();
    pass(20).await;
    assert_eq!(lab.fires(), 1);
    pass(20).await;
    assert_eq!((lab.fires(), lab.task(&id).count("fire_count")), (2, 2));
}

/// The queue dies with the process, so a fire that was not written down is owed.
#[tokio::test(start_paused = true)]
async fn a_process_that_dies_between_firing_and_saving_fires_after_its_restart() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    let id = lab.add(once("2026-03-26T10:00:30Z"));
    lab.start();
    pass(1).await;
    // Nothing can be written: the directory of the lock is taken by a file.
    let lock = lab.dir.path().join(".letta/crons.lock");
    std::fs::write(&lock, "").expect("written");
    pass(60).await;
    assert_eq!(lab.fires(), 1);
    assert_eq!(lab.task(&id).status(), Status::Active);
    pass(120).await;
    assert_eq!(lab.fires(), 1, "this process knows that it fired");
    lab.kill().await;
    std::fs::remove_file(&lock).expect("removed");
    lab.start();
    pass(5).await;
    assert_eq!(lab.fires(), 2);
    assert_eq!(lab.task(&id).status(), Status::Fired);
}

#[tokio::test(start_paused = true)]
async fn a_fire_that_could_not_be_saved_is_saved_later() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    let id = lab.add(once("2026-03-26T10:00:30Z"));
    lab.start();
    pass(1).await;
    let lock = lab.dir.path().join(".letta/crons.lock");
    std::fs::write(&lock, "").expect("written");
    pass(60).await;
    std::fs::remove_file(&lock).expect("removed");
    pass(60).await;
    assert_eq!((lab.fires(), lab.task(&id).status()), (1, Status::Fired));
}

#[tokio::test(start_paused = true)]
async fn what_fires_together_is_written_once() {
    let mut lab = Lab::new("2026-03-26T10:00:50Z");
    for _ in 0..40 {
        lab.add(recurring("*/5 10 * * *"));
    }
    lab.add(once("2026-03-26T09:00:00Z"));
    let expired = lab.add(recurring("0 0 1 1 *"));
    lab.edit(&expired, "expires_at", json!("2026-03-26T09:00:00.000Z"));
    lab.start();
    // The claim is one write; inode numbers tell the others apart.
    let mut stamps = vec![lab.store.stamp()];
    for _ in 0..400 {
        sleep(Duration::from_millis(5)).await;
        if stamps.last() != Some(&lab.store.stamp()) {
            stamps.push(lab.store.stamp());
        }
    }
    assert_eq!(lab.fires(), 40);
    assert!(stamps.len() <= 3, "{stamps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_by_hand_needs_no_lease_and_leaves_a_one_shot_alone() {
    let lab = Lab::new("2026-03-26T10:00:20Z");
    let id = lab.add(once("2026-03-26T11:00:00Z"));
    lab.store.pause(&id).expect("paused");
    let zones = Zones::of_process(Some("UTC"));
    let trigger = |id: String| {
        let (lab, zones) = (&lab, &zones);
        async move {
            let done = crate::cron::firing::trigger(&lab.store, &*lab.desk, zones, &id, lab.now());
            done.await.expect("usable")
        }
    };
    let Changed::Done(task) = trigger(id.clone()).await else {
        panic!("not fired")
    };
    assert_eq!(
        (task.status(), task.count("fire_count")),
        (Status::Paused, 1)
    );
    assert_eq!(lab.fires(), 1);
    lab.desk.full.store(true, Ordering::SeqCst);
    let Changed::Refused(task, reason) = trigger(id.clone()).await else {
        panic!("fired")
    };
    assert_eq!(reason, "Failed to enqueue schedule run");
    assert_eq!(task.text("last_run_reason"), "queue_full");
    lab.edit(&id, "status", json!("fired"));
    assert!(matches!(
        trigger(id).await,
        Changed::Refused(_, "Completed schedules cannot run again")
    ));
    assert!(matches!(trigger("nobody".into()).await, Changed::NotFound));
}
