//! Clocks that jump, and hours that come twice or never.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_forward_catches_up_two_minutes_and_no_more() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    let every = lab.add(recurring("* * * * *"));
    let skipped = lab.add(recurring("30 12 * * *"));
    let just = lab.add(recurring("0 17 * * *"));
    lab.start();
    pass(1).await;
    lab.jump(SignedDuration::from_hours(7));
    pass(60).await; // It wakes at 17:01.
    let counts = |lab: &Lab| [&every, &skipped, &just].map(|id| lab.task(id).count("fire_count"));
    assert_eq!(counts(&lab), [2, 0, 1]);
    pass(60).await;
    assert_eq!(counts(&lab), [3, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_never_repeats_a_minute() {
    let mut lab = Lab::new("2026-03-26T10:00:20Z");
    let every = lab.add(recurring("* * * * *"));
    let daily = lab.add(recurring("2 10 * * *"));
    lab.start();
    pass(101).await; // 10:02:01
    assert_eq!(lab.task(&every).count("fire_count"), 3);
    assert_eq!(lab.task(&daily).count("fire_count"), 1);
    // A small correction is waited for.
    lab.jump(SignedDuration::from_secs(-3));
    pass(50).await; // 10:02:48
    assert_eq!(lab.task(&every).count("fire_count"), 3);
    pass(60).await; // 10:03:48
    assert_eq!(lab.task(&every).count("fire_count"), 4);
    // A large one is believed, but what fired at 10:02 is not due at 10:02 again.
    lab.jump(SignedDuration::from_hours(-1));
    pass(60).await; // 09:04:48
    assert!(lab.task(&every).count("fire_count") >= 5);
    pass(3600).await;
    assert_eq!(lab.task(&daily).count("fire_count"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_hour_that_comes_twice_fires_twice_and_one_that_is_skipped_not_at_all() {
    // Berlin: at 01:00 UTC the clock goes from 03:00 back to 02:00.
    let mut lab = Lab::new("2026-10-25T00:29:30Z");
    lab.zone = "Europe/Berlin";
    let id = lab.add(recurring("30 2 * * *"));
    lab.start();
    pass(60).await;
    assert_eq!(lab.task(&id).count("fire_count"), 1);
    pass(3600).await;
    assert_eq!(lab.task(&id).count("fire_count"), 2);
    lab.stop().await;
    // In spring it goes from 02:00 to 03:00.
    let mut lab = Lab::new("2027-03-28T00:10:00Z");
    lab.zone = "Europe/Berlin";
    let id = lab.add(recurring("30 2 * * *"));
    lab.edit(&id, "expires_at", Value::Null);
    lab.start();
    pass(4 * 3600).await;
    assert_eq!(lab.task(&id).count("fire_count"), 0);
    pass(24 * 3600).await;
    assert_eq!(lab.task(&id).count("fire_count"), 1);
}
