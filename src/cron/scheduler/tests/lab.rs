//! A home, a paused clock, a target that remembers, and a scheduler on them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::super::*;
use crate::cron::firing::{Closed, Pending};
use crate::cron::runs::PageRequest;
use crate::cron::task::{NewTask, Task};
use crate::protocol::Scope;
use crate::state::Home;

/// A target that remembers what it got.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) prompts: Mutex<Vec<(Scope, String)>>,
    pub(super) changed: Mutex<Vec<Scope>>,
    pub(super) full: AtomicBool,
    /// Set: a conversation is made only after a notice.
    pub(super) slow: AtomicBool,
    pub(super) go: Notify,
}

impl Target for Desk {
    fn create<'a>(&'a self, agent: &'a str, name: &'a str) -> Pending<'a, Result<String, String>> {
        Box::pin(async move {
            if self.slow.load(Ordering::SeqCst) {
                self.go.notified().await;
            }
            if name == "unlucky" {
                return Err(String::from("500 Oh no"));
            }
            Ok(format!("conv-of-{agent}"))
        })
    }

    fn enqueue<'a>(
        &'a self,
        scope: &'a Scope,
        text: String,
    ) -> Pending<'a, Result<Option<String>, Closed>> {
        Box::pin(async move {
            if self.full.load(Ordering::SeqCst) {
                return Ok(None);
            }
            let mut prompts = self.prompts.lock().expect("not poisoned");
            prompts.push((scope.clone(), text));
            Ok(Some(format!("q-{}", prompts.len())))
        })
    }

    fn changed(&self, scope: &Scope) {
        self.changed
            .lock()
            .expect("not poisoned")
            .push(scope.clone());
    }
}

/// A home, a clock that follows the paused one, and a scheduler on them.
pub(super) struct Lab {
    pub(super) dir: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) desk: Arc<Desk>,
    pub(super) metrics: Metrics,
    pub(super) started: Instant,
    /// Milliseconds since the epoch at `started`; changed to set the clock.
    pub(super) wall: Arc<AtomicI64>,
    pub(super) zone: &'static str,
    pub(super) running: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
}

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

impl Lab {
    pub(super) fn new(now: &str) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        Self {
            store: Store::new(&Home::at(dir.path())),
            dir,
            desk: Arc::default(),
            metrics: Metrics::new("0", []),
            started: Instant::now(),
            wall: Arc::new(AtomicI64::new(at(now).as_millisecond())),
            zone: "UTC",
            running: None,
        }
    }

    pub(super) fn clock(&self) -> Clock {
        let (started, wall) = (self.started, Arc::clone(&self.wall));
        Arc::new(move || {
            let passed = i64::try_from(started.elapsed().as_millis()).expect("a short test");
            Timestamp::from_millisecond(wall.load(Ordering::SeqCst) + passed).expect("in range")
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock()()
    }

    /// Sets the wall clock.
    pub(super) fn jump(&self, by: SignedDuration) {
        let ms = i64::try_from(by.as_millis()).expect("a short jump");
        self.wall.fetch_add(ms, Ordering::SeqCst);
    }

    pub(super) fn scheduler(&self) -> Scheduler {
        Scheduler {
            store: self.store.clone(),
            scope: CronScope::All,
            zones: Zones::of_process(Some(self.zone)),
            target: Arc::clone(&self.desk) as Arc<dyn Target>,
            metrics: self.metrics.clone(),
            clock: self.clock(),
        }
    }

    pub(super) fn start(&mut self) {
        let stop = CancellationToken::new();
        let task = tokio::spawn(self.scheduler().run(stop.clone()));
        self.running = Some((stop, task));
    }

    pub(super) async fn stop(&mut self) {
        let (stop, task) = self.running.take().expect("running");
        stop.cancel();
        task.await.expect("ended well");
    }

    /// Ends the process without giving anything back.
    pub(super) async fn kill(&mut self) {
        let (_, task) = self.running.take().expect("running");
        task.abort();
        let _ = task.await;
    }

    pub(super) fn add(&self, new: NewTask) -> String {
        let zones = Zones::of_process(Some(self.zone));
        let added = self.store.add(new, self.now(), &zones).expect("added");
        // Jitter has tests of its own.
        let id = added.task.id().to_owned();
        self.edit(&id, "jitter_offset_ms", json!(0));
        id
    }

    pub(super) fn edit(&self, id: &str, field: &str, value: Value) {
        let change = &mut |document: &mut crate::cron::store::Document| {
            document
                .task_mut(id)
                .expect("there")
                .set(field, value.clone());
            true
        };
        self.store.update(change).expect("written");
    }

    pub(super) fn task(&self, id: &str) -> Task {
        self.store.get(id).expect("there")
    }

    pub(super) fn fires(&self) -> usize {
        self.desk.prompts.lock().expect("not poisoned").len()
    }

    pub(super) fn runs(&self, id: &str) -> Vec<Value> {
        let page = self
            .store
            .runs(id, &PageRequest::default())
            .expect("a page");
        page["entries"].as_array().expect("entries").clone()
    }

    pub(super) fn metric(&self, series: &str) -> f64 {
        let page = self.metrics.render();
        let line = page.lines().find_map(|line| line.strip_prefix(series));
        line.and_then(|line| line.trim().parse().ok())
            .expect(series)
    }
}

pub(super) fn recurring(cron: &str) -> NewTask {
    NewTask {
        agent_id: "agent-1".into(),
        conversation_id: Some("conv-1".into()),
        name: "n".into(),
        prompt: "p".into(),
        cron: cron.into(),
        recurring: true,
        ..NewTask::default()
    }
}

pub(super) fn once(when: &str) -> NewTask {
    NewTask {
        recurring: false,
        scheduled_for: Some(at(when)),
        ..recurring("0 0 1 1 *")
    }
}

pub(super) async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}
