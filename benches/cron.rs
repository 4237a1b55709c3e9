//! What a minute costs with ten thousand tasks. `cargo bench --bench cron`

#![expect(clippy::print_stdout, reason = "a bench reports to the terminal")]
#![expect(clippy::expect_used, reason = "a bench may fail loudly")]

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use letta::config::CronScope;
use letta::cron::store::Store;
use letta::cron::table::{Due, Table};
use letta::cron::task::{NewTask, Task};
use letta::cron::zone::Zones;
use letta::state::Home;

const TASKS: u32 = 10_000;

fn main() {
    let zones = Zones::of_process(Some("UTC"));
    let now: Timestamp = "2026-03-26T10:00:00Z".parse().expect("a time");
    let tasks: Vec<Task> = (0..TASKS).map(|n| task(n, now, &zones)).collect();
    let mut table = Table::new(&tasks, CronScope::All, &zones, now);

    let (mut worst, mut sum, mut fires) = (Duration::ZERO, Duration::ZERO, 0);
    let minutes = 24 * 60;
    for minute in 1..=minutes {
        let minute = now + SignedDuration::from_mins(minute);
        let started = Instant::now();
        let due = table.due(minute, &[minute], &|_, _| false);
        let next = table.next_fire();
        let took = started.elapsed();
        (worst, sum) = (worst.max(took), sum + took);
        fires += due
            .iter()
            .filter(|due| matches!(due, Due::Fire { .. }))
            .count();
        assert!(next.is_some());
    }
    let mean = sum / u32::try_from(minutes).expect("small");
    println!("a minute of {TASKS} tasks: mean {mean:?}, worst {worst:?}; {fires} fires in a day");

    let started = Instant::now();
    drop(Table::new(&tasks, CronScope::All, &zones, now));
    println!("making the table anew: {:?}", started.elapsed());

    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::new(&Home::at(dir.path()));
    let fill = &mut |document: &mut letta::cron::store::Document| {
        document.tasks.clone_from(&tasks);
        true
    };
    store.update(fill).expect("written");
    let started = Instant::now();
    store.update(&mut |_| true).expect("written");
    println!("reading and rewriting the store: {:?}", started.elapsed());
}

fn task(n: u32, now: Timestamp, zones: &Zones) -> Task {
    let (minute, hour) = (n % 60, n / 60 % 24);
    let cron = match n % 5 {
        0 => format!("{minute} {hour} * * *"),
        1 => String::from("*/30 * * * *"),
        2 => format!("{minute} {hour} * * 1-5"),
        3 => format!("{minute} {hour} 1,15 * *"),
        _ => format!("{minute} */6 * * *"),
    };
    let new = NewTask {
        agent_id: format!("agent-{}", n / 50),
        name: format!("task {n}"),
        description: String::from("a description of the usual length"),
        cron,
        timezone: Some(["UTC", "Europe/Berlin", "America/New_York"][n as usize % 3].to_owned()),
        recurring: true,
        prompt: String::from("Review what changed since yesterday and tell me what matters."),
        expires_at: Some(None),
        ..NewTask::default()
    };
    Task::new(new, now, zones)
}
