//! The loop that fires schedules (07 §1.9).
//!
//! It wakes at every minute of the wall clock, when a one-shot's moment comes, when
//! a delayed fire is due and soon after the file of tasks was changed. Invariants: nothing fires without the lease; one
//! wake rewrites the store at most once; a task fires at most once for a minute,
//! whatever the clock does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::firing::{Fired, Outcome, Target, fire, minute_start, off_runtime};
use super::lease::{Lease, LeaseError};
use super::settle::{Settled, Wanted};
use super::store::{Ids, Stamp, Store, StoreError};
use super::table::{Due, Table};
use super::task::Status;
use super::zone::Zones;
use crate::config::CronScope;
use crate::telemetry::metrics::Metrics;

/// How long a lease that another process has is left alone.
const CLAIM_AGAIN: Duration = Duration::from_secs(30);
/// How often what is over is collected.
const COLLECT: Duration = Duration::from_secs(3600);
/// How often the records of a scoped lease are looked after.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often the file of tasks is looked at between wakes.
const LOOK: Duration = Duration::from_secs(5);
/// How long the first fires of a wake wait for the others, to be written together.
const TOGETHER: Duration = Duration::from_millis(250);
/// After a longer sleep than this many minutes the older ones are not caught up.
const CAUGHT_UP: i64 = 2;
/// A clock that is set back by less is waited for; by more, its word counts.
const SMALL_STEP: SignedDuration = SignedDuration::from_mins(5);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// The wall clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What the loop works with.
#[derive(Clone)]
pub struct Scheduler {
    /// The tasks.
    pub store: Store,
    /// Which of them; not [`CronScope::Off`].
    pub scope: CronScope,
    /// The zones of this process.
    pub zones: Zones,
    /// Where prompts go.
    pub target: Arc<dyn Target>,
    /// Lease, next fire, fires.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
}

/// What must survive a lost lease.
#[derive(Default)]
struct Memory {
    /// For which moment each task was tried last.
    tried: HashMap<String, Tried>,
    /// Fires that could not be written down.
    unsaved: Vec<Fired>,
}

#[derive(Clone, Copy)]
struct Tried {
    intended: Timestamp,
    /// A one-shot that failed is tried again then.
    again: Option<Timestamp>,
}

impl Memory {
    fn has_fired(&self, id: &str, intended: Timestamp, now: Timestamp) -> bool {
        self.tried.get(id).is_some_and(|tried| {
            tried.intended == intended && tried.again.is_none_or(|again| now < again)
        })
    }
}

/// A fire that waits for its delay.
struct Waiting {
    at: Instant,
    id: String,
    intended: Timestamp,
}

/// The time during which the lease is held.
struct Watch<'a> {
    scheduler: &'a Scheduler,
    memory: &'a mut Memory,
    lease: Arc<Lease>,
    table: Table,
    stamp: Option<Stamp>,
    /// The last minute that was looked at.
    looked: Timestamp,
    waiting: Vec<Waiting>,
    flying: JoinSet<Fired>,
    in_flight: HashSet<String>,
    collect_at: Instant,
}

/// The lease is another's now.
struct Lost;

/// Ends when the tasks are not those of `known` any more: another process may have
/// added one that is due before the next wake.
async fn changed(store: &Store, known: Option<Stamp>) {
    loop {
        sleep(LOOK).await;
        let stamp = off_runtime(store, |store| store.stamp()).await;
        if stamp.is_some() && stamp != known {
            return;
        }
    }
}

impl Scheduler {
    /// Runs until `stop` fires; the lease is given back then.
    pub async fn run(self, stop: CancellationToken) {
        let mut memory = Memory::default();
        let mut told = false;
        while !stop.is_cancelled() {
            match self.claim().await {
                Ok(lease) => {
                    told = false;
                    self.metrics.set_cron_lease(true);
                    tracing::info!("This process fires the schedules.");
                    self.watch(lease, &mut memory, &stop).await;
                    self.metrics.set_cron_lease(false);
                    self.metrics.set_cron_next_fire(None);
                }
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(%error, "Schedules do not fire here; trying again every 30 s.");
                }
                Err(error) => tracing::debug!(%error, "Schedules still do not fire here."),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(CLAIM_AGAIN) => {}
            }
        }
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    async fn claim(&self) -> Result<Lease, LeaseError> {
        let (scope, now) = (self.scope, self.now());
        off_runtime(&self.store, move |store| Lease::claim(&store, scope, now)).await
    }

    async fn watch(&self, lease: Lease, memory: &mut Memory, stop: &CancellationToken) {
        let mut watch = Watch {
            scheduler: self,
            memory,
            lease: Arc::new(lease),
            table: Table::new(&[], self.scope, &self.zones, self.now()),
            stamp: None,
            looked: minute_start(self.now()) - MINUTE,
            waiting: Vec::new(),
            flying: JoinSet::new(),
            in_flight: HashSet::new(),
            collect_at: Instant::now() + COLLECT,
        };
        let lost = watch.hold(stop).await;
        // What was queued meanwhile did fire.
        watch.finish(lost.is_err()).await;
        let lease = watch.lease;
        let released = off_runtime(&self.store, move |store| {
            Arc::into_inner(lease).map_or(Ok(()), |lease| lease.release(&store))
        });
        if let Err(error) = released.await {
            tracing::warn!(%error, "The scheduler lease could not be given back.");
        }
    }
}

impl Watch<'_> {
    async fn hold(&mut self, stop: &CancellationToken) -> Result<(), Lost> {
        loop {
            self.step().await?;
            let wake = self.next_wake();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(wake) => {}
                () = changed(&self.scheduler.store, self.stamp) => {}
                Some(done) = self.flying.join_next(), if !self.flying.is_empty() => {
                    self.landed(done);
                }
            }
        }
    }

    /// One wake.
    async fn step(&mut self) -> Result<(), Lost> {
        self.refresh().await?;
        let (now, moment) = (self.scheduler.now(), Instant::now());
        let minutes = self.minutes(now);
        let memory = &*self.memory;
        let mut due = self
            .table
            .due(now, &minutes, &|id, at| memory.has_fired(id, at, now));
        let mut launch = Vec::new();
        for fire in due.extract_if(.., |due| matches!(due, Due::Fire { .. })) {
            let Due::Fire {
                id,
                intended,
                delay,
            } = fire
            else {
                continue;
            };
            let tried = Tried {
                intended,
                again: None,
            };
            self.memory.tried.insert(id.clone(), tried);
            // Whole seconds, so that many tasks are written down in few rewrites.
            let delay = Duration::from_secs(delay.unsigned_abs().as_secs());
            if delay.is_zero() {
                launch.push((id, intended));
            } else {
                let at = moment + delay;
                self.waiting.push(Waiting { at, id, intended });
            }
        }
        let over = self.waiting.extract_if(.., |waiting| waiting.at <= moment);
        launch.extend(over.map(|it| (it.id, it.intended)));
        if !launch.is_empty() {
            self.launch(launch, now).await;
            self.gather().await;
        }
        let collect = moment >= self.collect_at;
        if collect {
            self.collect_at = moment + COLLECT;
            let active = self.table.active();
            self.memory
                .tried
                .retain(|id, _| active.contains(id.as_str()));
        }
        let fired = std::mem::take(&mut self.memory.unsaved);
        let settled = self
            .save(Wanted {
                now,
                due,
                fired,
                collect,
            })
            .await;
        let next_fire = self.table.next_fire().map(|at| {
            let since = Duration::from_secs(at.as_second().max(0).unsigned_abs());
            std::time::SystemTime::UNIX_EPOCH + since
        });
        self.scheduler.metrics.set_cron_next_fire(next_fire);
        settled
    }

    /// Reads the store again if it is another one now, and checks the lease.
    async fn refresh(&mut self) -> Result<(), Lost> {
        let (lease, known, looked) = (Arc::clone(&self.lease), self.stamp, self.looked);
        let (scope, zones) = (self.scheduler.scope, self.scheduler.zones.clone());
        let seen = off_runtime(&self.scheduler.store, move |store| {
            // Before reading: a change in between is then seen the next time.
            let mut stamp = store.stamp();
            if stamp.is_some() && stamp == known {
                return Ok(None);
            }
            let mut document = store.read();
            if !lease.holds(&document) {
                if !lease.renew(&store)? {
                    return Err(None);
                }
                stamp = store.stamp();
                document = store.read();
            }
            let table = Table::new(&document.tasks, scope, &zones, looked);
            Ok(Some((stamp, table)))
        });
        match seen.await {
            Ok(None) => Ok(()),
            Ok(Some((stamp, table))) => {
                self.stamp = stamp;
                self.table = table;
                Ok(())
            }
            Err(error) => {
                let error: Option<StoreError> = error;
                let why = error.map_or_else(|| String::from("another took it"), |e| e.to_string());
                tracing::warn!(why, "The scheduler lease is lost; trying to get it again.");
                Err(Lost)
            }
        }
    }

    /// The minutes that have not been looked at, oldest first.
    fn minutes(&mut self, now: Timestamp) -> Vec<Timestamp> {
        let minute = minute_start(now);
        if minute <= self.looked {
            // Most often the same minute. After a step back the clock will come
            // by again; after a jump back it is believed.
            if self.looked.duration_since(minute) < SMALL_STEP {
                return Vec::new();
            }
            self.looked = minute - MINUTE;
            self.table.recount(self.looked);
        }
        let passed = minute.duration_since(self.looked).as_secs() / 60;
        self.looked = minute;
        let count = i32::try_from(passed.min(CAUGHT_UP)).unwrap_or(1);
        (0..count).rev().map(|ago| minute - MINUTE * ago).collect()
    }

    /// Starts fires; each takes its task as it is on disk now.
    async fn launch(&mut self, launch: Vec<(String, Timestamp)>, now: Timestamp) {
        let mut wanted: HashMap<String, Timestamp> = launch.into_iter().collect();
        let ids: Ids<String> = wanted.keys().cloned().collect();
        let tasks = off_runtime(&self.scheduler.store, move |store| {
            store.pick(&|place| ids.contains(place.id()))
        })
        .await;
        for task in tasks {
            let Some(intended) = wanted.remove(task.id()) else {
                continue;
            };
            if task.status() != Status::Active || !self.in_flight.insert(task.id().to_owned()) {
                continue;
            }
            let scheduler = self.scheduler.clone();
            self.flying.spawn(async move {
                let (target, zones) = (&*scheduler.target, &scheduler.zones);
                fire(target, zones, task, intended, now, true).await
            });
        }
    }

    /// Waits a moment for the fires under way.
    async fn gather(&mut self) {
        let patience = Instant::now() + TOGETHER;
        while let Ok(Some(done)) = timeout_at(patience, self.flying.join_next()).await {
            self.landed(done);
        }
    }

    fn landed(&mut self, done: Result<Fired, tokio::task::JoinError>) {
        let Ok(fired) = done else {
            // A fire that panics is not written down and not tried again.
            tracing::error!("A schedule failed to fire in an unexpected way.");
            return;
        };
        self.in_flight.remove(fired.task.id());
        if !matches!(fired.outcome, Outcome::Queued(_))
            && !fired.task.is_recurring()
            && let Some(tried) = self.memory.tried.get_mut(fired.task.id())
        {
            tried.again = Some(minute_start(self.scheduler.now()) + MINUTE);
        }
        self.memory.unsaved.push(fired);
    }

    /// Writes what a wake brought. What fired and cannot be written is kept.
    async fn save(&mut self, wanted: Wanted) -> Result<(), Lost> {
        if wanted.is_nothing() {
            return Ok(());
        }
        let lease = Arc::clone(&self.lease);
        let (wanted, settled) = off_runtime(&self.scheduler.store, move |store| {
            let settled = wanted.settle(&store, &lease);
            (wanted, settled)
        })
        .await;
        let settled = match settled {
            Ok(settled) => settled,
            Err(error) => {
                tracing::warn!(%error, "What the schedules did could not be written; trying again.");
                self.memory.unsaved = wanted.fired;
                return Ok(());
            }
        };
        let Settled {
            lost,
            stamps: [before, after],
            touched,
            changed,
            counts,
            ..
        } = settled;
        for scope in &changed {
            self.scheduler.target.changed(scope);
        }
        for outcome in counts {
            self.scheduler.metrics.cron_fired(outcome);
        }
        if lost {
            tracing::warn!("The scheduler lease is lost; trying to get it again.");
            return Err(Lost);
        }
        // Of a file that others changed meanwhile these tasks are not all that is new.
        if before.is_none() || before != self.stamp {
            return self.refresh().await;
        }
        self.stamp = after;
        self.table.renew(&touched, self.looked);
        Ok(())
    }

    /// When there is something to do again.
    fn next_wake(&self) -> Instant {
        let (now, moment) = (self.scheduler.now(), Instant::now());
        let memory = &*self.memory;
        let next_minute = minute_start(now) + MINUTE;
        let once = self
            .table
            .next_once(&|id, at| memory.has_fired(id, at, now));
        let wall = once.map_or(next_minute, |once| once.min(next_minute));
        let wall = moment
            + wall
                .duration_since(now)
                .max(SignedDuration::ZERO)
                .unsigned_abs();
        let delayed = self.waiting.iter().map(|waiting| waiting.at);
        let beat = (self.scheduler.scope != CronScope::All).then(|| moment + HEARTBEAT);
        delayed
            .chain(beat)
            .chain([wall, self.collect_at])
            .min()
            .unwrap_or(wall)
    }

    /// Writes down what fired and drops the rest.
    async fn finish(&mut self, lost: bool) {
        if lost {
            // Their prompts may be queued: their records are owed.
            self.gather().await;
        }
        while let Some(done) = self.flying.try_join_next() {
            self.landed(done);
        }
        self.flying.shutdown().await;
        let wanted = Wanted {
            now: self.scheduler.now(),
            due: Vec::new(),
            fired: std::mem::take(&mut self.memory.unsaved),
            collect: false,
        };
        let _ = self.save(wanted).await;
    }
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
