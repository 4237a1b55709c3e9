//! Ends the process when its async runtime no longer runs, so that a service
//! manager can start it again (00 §5: exit code 75).
//!
//! A task on the runtime advances a counter once a second; an ordinary thread
//! looks at it. Invariant: only time that this thread itself was awake counts,
//! so a suspended machine, a paused container or a debugger is never mistaken
//! for a stuck runtime. A lost network does not stop the counter either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::telemetry::last_words;
use crate::telemetry::session_log::SessionLog;

/// What a supervisor reads as: stuck, please start me again.
pub const EXIT_STUCK: i32 = 75;

/// Without a tick for this long the runtime counts as stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(30);

/// How often the runtime shows that it runs.
const TICK: Duration = Duration::from_secs(1);

/// Telling a service manager that all is well: called every `every` while the
/// runtime ticks, from the watchdog's thread.
pub struct Feed {
    /// Half of what the service manager allows.
    pub every: Duration,
    /// Must not block for long.
    pub send: Box<dyn FnMut() + Send>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Advanced by the runtime.
    ticks: AtomicU64,
    /// Written by the watchdog: for how long there was no tick, milliseconds.
    silent_ms: AtomicU64,
    stopped: AtomicBool,
}

/// The runtime's side: must run as a task for as long as the runtime should live.
#[derive(Debug)]
pub struct Pulse(Arc<Shared>);

impl Pulse {
    /// Ticks until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ticking = async {
            loop {
                interval.tick().await;
                self.tick();
            }
        };
        stop.run_until_cancelled(ticking).await;
    }

    fn tick(&self) {
        self.0.ticks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Answers whether the runtime ticks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LivenessProbe {
    shared: Arc<Shared>,
    limit: Duration,
}

impl LivenessProbe {
    /// For how long the runtime has not ticked.
    pub fn silent_for(&self) -> Duration {
        Duration::from_millis(self.shared.silent_ms.load(Ordering::Relaxed))
    }

    /// False from half of the watchdog's limit on: a probe from outside learns
    /// of the trouble before the process ends itself.
    pub fn is_alive(&self) -> bool {
        self.silent_for() < self.limit / 2
    }
}

/// The thread that watches. Dropping it stops the watch without any effect.
#[derive(Debug)]
pub struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    limit: Duration,
}

impl Watchdog {
    /// Starts to watch. `on_stuck` is called once, on the watchdog's thread, with
    /// the time that passed without a tick; see [`end_process`]. Fails when the
    /// system gives no thread.
    pub fn start(
        limit: Duration,
        feed: Option<Feed>,
        on_stuck: impl FnOnce(Duration) + Send + 'static,
    ) -> std::io::Result<(Self, Pulse)> {
        let shared = Arc::new(Shared::default());
        let watch = Watch {
            shared: shared.clone(),
            limit,
            // Ten looks within the limit, and never too late for the service manager.
            every: feed
                .as_ref()
                .map_or(limit / 10, |feed| feed.every.min(limit / 10))
                .max(Duration::from_millis(1)),
            feed,
        };
        let thread = thread::Builder::new()
            .name(String::from("watchdog"))
            .stack_size(128 * 1024)
            .spawn(move || watch.run(on_stuck))?;
        let pulse = Pulse(shared.clone());
        let watchdog = Self {
            shared,
            thread: Some(thread),
            limit,
        };
        Ok((watchdog, pulse))
    }

    /// A probe for the health endpoints.
    pub fn probe(&self) -> LivenessProbe {
        LivenessProbe {
            shared: self.shared.clone(),
            limit: self.limit,
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of `on_stuck` was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

struct Watch {
    shared: Arc<Shared>,
    limit: Duration,
    every: Duration,
    feed: Option<Feed>,
}

impl Watch {
    fn run(mut self, on_stuck: impl FnOnce(Duration)) {
        let mut seen = self.shared.ticks.load(Ordering::Relaxed);
        let mut silent = Duration::ZERO;
        let mut looked = Instant::now();
        let mut fed: Option<Instant> = None;
        loop {
            thread::park_timeout(self.every);
            if self.shared.stopped.load(Ordering::Relaxed) {
                return;
            }
            // A longer gap means that this thread did not run either.
            silent += looked.elapsed().min(2 * self.every);
            looked = Instant::now();
            let ticks = self.shared.ticks.load(Ordering::Relaxed);
            if ticks != seen {
                seen = ticks;
                silent = Duration::ZERO;
            }
            let silent_ms = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
            self.shared.silent_ms.store(silent_ms, Ordering::Relaxed);
            if silent >= self.limit {
                return on_stuck(silent);
            }
            if let Some(feed) = &mut self.feed
                && fed.is_none_or(|at| at.elapsed() + self.every > feed.every)
            {
                fed = Some(looked);
                (feed.send)();
            }
        }
    }
}

/// The `on_stuck` of the program: says why, then exits with [`EXIT_STUCK`].
pub fn end_process(log: SessionLog) -> impl FnOnce(Duration) + Send + 'static {
    move |silent| {
        let words = format!(
            "FATAL: the runtime has not run for {} s; ending with code {EXIT_STUCK} to be started again",
            silent.as_secs()
        );
        last_words::end_process(Some(&log), words, EXIT_STUCK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_runtime_that_never_ticks_is_reported_once() {
        let (tx, rx) = mpsc::channel();
        let limit = Duration::from_millis(50);
        let (watchdog, _pulse) = Watchdog::start(limit, None, move |silent| {
            tx.send(silent).unwrap();
        })
        .unwrap();
        assert!(rx.recv_timeout(LONG).unwrap() >= limit);
        assert!(!watchdog.probe().is_alive());
        drop(watchdog);
        assert!(rx.recv().is_err());
    }

    #[test]
    fn ticks_keep_it_quiet_and_their_absence_is_noticed() {
        let (tx, rx) = mpsc::channel();
        let (fed, feeds) = mpsc::channel();
        let feed = Feed {
            every: Duration::from_millis(20),
            send: Box::new(move || {
                let _ = fed.send(());
            }),
        };
        let (watchdog, pulse) = Watchdog::start(LONG / 20, Some(feed), move |_| {
            tx.send(()).unwrap();
        })
        .unwrap();
        // The service manager hears from us for as long as there are ticks.
        for _ in 0..10 {
            pulse.tick();
            feeds.recv_timeout(LONG).unwrap();
        }
        assert!(watchdog.probe().is_alive());
        assert!(rx.try_recv().is_err());
        rx.recv_timeout(LONG).unwrap();
        while feeds.try_recv().is_ok() {}
        assert!(
            feeds.recv_timeout(LONG).is_err(),
            "fed although it was stuck"
        );
    }

    #[test]
    fn a_stopped_watchdog_does_nothing() {
        let (tx, rx) = mpsc::channel::<()>();
        let (watchdog, _pulse) = Watchdog::start(LONG, None, move |_| {
            tx.send(()).unwrap();
        })
        .unwrap();
        drop(watchdog);
        assert_eq!(rx.recv(), Err(mpsc::RecvError));
    }

    #[tokio::test(start_paused = true)]
    async fn the_pulse_ticks_once_a_second_until_stopped() {
        let shared = Arc::new(Shared::default());
        let stop = CancellationToken::new();
        let task = tokio::spawn(Pulse(shared.clone()).run(stop.clone()));
        tokio::time::sleep(Duration::from_millis(10_500)).await;
        assert_eq!(shared.ticks.load(Ordering::Relaxed), 11);
        stop.cancel();
        task.await.unwrap();
    }
}
