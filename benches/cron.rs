//! What ten thousand tasks cost the scheduler, in processor time of the whole
//! process: judging a minute, a whole tick with fires (judging, reading, queueing,
//! logging, rewriting the store, planning anew), and what another program's change
//! of the store costs. `cargo bench --profile release --bench cron`

#![expect(clippy::print_stdout, reason = "a bench reports to the terminal")]
#![expect(clippy::expect_used, reason = "a bench may fail loudly")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use letta::config::CronScope;
use letta::cron::firing::{Closed, Pending, Target};
use letta::cron::scheduler::Scheduler;
use letta::cron::store::{Document, Store};
use letta::cron::table::{Due, Table};
use letta::cron::task::{NewTask, Task};
use letta::cron::zone::Zones;
use letta::protocol::Scope;
use letta::state::Home;
use letta::telemetry::metrics::Metrics;
use rustix::fs::inotify;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const TASKS: u32 = 10_000;
/// Ticks are watched second by second for so long.
const SECONDS: u64 = 20 * 60;
/// Real time between two of them: fires happen at whole seconds.
const APART: Duration = Duration::from_millis(600);

fn main() {
    let zones = Zones::of_process(Some("UTC"));
    let now: Timestamp = "2026-03-26T10:20:00Z".parse().expect("a time");
    // The same place from run to run: some file systems are slow for minutes to make
    // new files where many were removed.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cron-bench");
    let store = Store::new(&Home::at(&dir));
    let home = dir.join(".letta");
    let file = home.join("crons.json");
    fill(
        &store,
        &file,
        (0..TASKS).map(|n| task(n, now, &zones)).collect(),
    );
    let tasks = store.read().tasks;
    judge(&tasks, now, &zones);

    // Tasks that fired before have a log each.
    fs::create_dir_all(home.join("runs")).expect("a directory");
    for task in &tasks {
        let log = home.join(format!("runs/{}.jsonl", task.id()));
        fs::write(log, "").expect("written");
    }
    let size = fs::metadata(&file).expect("there").len();
    println!("the store: {TASKS} tasks in {size} bytes");
    ticks(&store, &home, now, &zones);

    // As when another program replaced it.
    let text = fs::read(&file).expect("read");
    fs::write(&file, text).expect("written");
    let (document, took) = timed(|| store.read());
    println!("a store that another program changed: {took:?} to read it");
    let (_, took) = timed(|| Table::new(&document.tasks, CronScope::All, &zones, now));
    println!("  and {took:?} to plan all of it");
    let (_, took) = timed(|| store.update(&mut |_| true).expect("written"));
    println!("  and {took:?} to read all of it and serialise it anew");
}

/// Minutes without the store.
fn judge(tasks: &[Task], now: Timestamp, zones: &Zones) {
    let mut table = Table::new(tasks, CronScope::All, zones, now);
    let (mut worst, mut sum, mut fires) = (Duration::ZERO, Duration::ZERO, 0);
    let minutes = 24 * 60;
    for minute in 1..=minutes {
        let minute = now + SignedDuration::from_mins(minute);
        let ((due, next), took) = timed(|| {
            let due = table.due(minute, &[minute], &|_, _| false);
            (due, table.next_fire())
        });
        (worst, sum) = (worst.max(took), sum + took);
        let fire = |due: &&Due| matches!(due, Due::Fire { .. });
        fires += due.iter().filter(fire).count();
        assert!(next.is_some());
    }
    let mean = sum / u32::try_from(minutes).expect("small");
    println!("judging a minute: mean {mean:?}, worst {worst:?}; {fires} fires in a day");
}

/// The scheduler itself, on a clock that jumps from wake to wake.
fn ticks(store: &Store, home: &Path, now: Timestamp, zones: &Zones) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).expect("inotify");
    inotify::add_watch(&watch, home, inotify::WatchFlags::MOVED_TO).expect("watched");
    let desk = Arc::new(Desk::default());
    let (mut quiet, mut busy) = (Series::default(), Series::default());
    let (mut rewrites, mut most, mut most_fires) = (0, 0, 0);
    runtime.block_on(async {
        let started = Instant::now();
        let scheduler = Scheduler {
            store: store.clone(),
            scope: CronScope::All,
            zones: zones.clone(),
            target: Arc::clone(&desk) as Arc<dyn Target>,
            metrics: Metrics::new("0", []),
            clock: Arc::new(move || {
                now + SignedDuration::try_from(started.elapsed()).expect("a short time")
            }),
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(scheduler.run(stop.clone()));
        // Between two seconds, when every tick of the last one is over. The first
        // minute takes the lease and reads the store.
        sleep(Duration::from_millis(60_500)).await;
        count(&watch);
        for _ in 0..SECONDS {
            let (before, fires) = (cpu(), desk.0.load(Ordering::SeqCst));
            sleep(Duration::from_secs(1)).await;
            let took = cpu() - before;
            let fires = desk.0.load(Ordering::SeqCst) - fires;
            let written = count(&watch);
            if fires == 0 {
                assert_eq!(written, 0, "nothing to write");
                quiet.add(took);
            } else {
                busy.add(took);
                std::thread::sleep(APART);
            }
            rewrites += written;
            (most, most_fires) = (most.max(written), most_fires.max(fires));
        }
        stop.cancel();
        running.await.expect("ended well");
    });
    println!("a second without a fire: {quiet}");
    println!(
        "a tick with fires: {busy}; {} fires, at most {most_fires} in one",
        desk.0.load(Ordering::SeqCst)
    );
    println!("rewrites of the store: {rewrites}, at most {most} in one tick");
}

/// How often the store was replaced since the last time.
fn count(watch: &impl std::os::fd::AsFd) -> usize {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 64 * 1024];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    let mut found = 0;
    while let Ok(event) = events.next() {
        let name = event.file_name().map(|name| name.to_bytes().to_vec());
        found += usize::from(name.as_deref() == Some(b"crons.json"));
    }
    found
}

#[derive(Default)]
struct Series {
    sum: Duration,
    worst: Duration,
    count: u32,
}

impl Series {
    fn add(&mut self, took: Duration) {
        (self.sum, self.worst) = (self.sum + took, self.worst.max(took));
        self.count += 1;
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mean = self.sum / self.count.max(1);
        write!(f, "mean {mean:?}, worst {:?} of {}", self.worst, self.count)
    }
}

/// A queue that takes everything.
#[derive(Default)]
struct Desk(AtomicUsize);

impl Target for Desk {
    fn create<'a>(&'a self, _: &'a str, name: &'a str) -> Pending<'a, Result<String, String>> {
        Box::pin(async move { Ok(name.to_owned()) })
    }

    fn enqueue<'a>(
        &'a self,
        _: &'a Scope,
        _: String,
    ) -> Pending<'a, Result<Option<String>, Closed>> {
        Box::pin(async move {
            let number = self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Some(format!("item-{number}")))
        })
    }

    fn changed(&self, _: &Scope) {}
}

/// Processor time of this process, in the kernel too.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("not negative")
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = cpu();
    let done = work();
    (done, cpu() - before)
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

/// The store of `tasks`, with ids that are the same in each run.
fn fill(store: &Store, file: &Path, tasks: Vec<Task>) {
    let change = &mut |document: &mut Document| {
        document.tasks.clone_from(&tasks);
        true
    };
    store.update(change).expect("written");
    let text = fs::read_to_string(file).expect("read");
    let mut content: Value = serde_json::from_str(&text).expect("JSON");
    for (n, task) in content["tasks"]
        .as_array_mut()
        .expect("tasks")
        .iter_mut()
        .enumerate()
    {
        task["id"] = format!("{n:08x}").into();
    }
    let text = serde_json::to_string_pretty(&content).expect("JSON");
    fs::write(file, text).expect("written");
}
