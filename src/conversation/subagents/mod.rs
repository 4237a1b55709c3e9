//! The owner of all subagents' runs (spec 07 §3.4–§3.9).
//!
//! A run is a task for another conversation of this process. [`Runs`] is one
//! actor: it takes orders from [`Desk`](crate::subagents::Desk), hears from the
//! conversations at work, and tells parents what their clients see. Invariant:
//! every run that got a task id ends with one notification, in this process or
//! the next one.

mod ask;
mod launch;
mod lost;
mod run;
mod target;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::lost::Lost;
use self::run::{Run, State};
use self::target::Prepared;
use super::assignment::{Board, BoardChange, INTERRUPTED, News};
use super::mailbox::Message;
use super::services::Services;
use crate::events::Injected;
use crate::hooks::Site;
use crate::process::output_file::OutputFile;
use crate::protocol::Scope;
use crate::subagents::desk::MAX_RUNNING;
use crate::subagents::{LaunchError, Launched, Order};
use crate::telemetry::metrics::TurnOutcome;

/// How long clients see a run that ended.
const SHOWN: Duration = Duration::from_secs(30);
/// What the end of the process may wait for files.
const LAST_FILES: Duration = Duration::from_secs(2);

type Reply = oneshot::Sender<Result<Launched, LaunchError>>;

/// The owner's task, for whoever started it.
#[derive(Debug)]
pub struct Runs {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Runs {
    /// Starts the owner on the current runtime; what it says to conversations
    /// comes out of the receiver, in order.
    pub fn start(
        services: Arc<Services>,
        orders: mpsc::UnboundedReceiver<Order>,
    ) -> (Self, mpsc::UnboundedReceiver<(Scope, Message)>) {
        let (to, messages) = mpsc::unbounded_channel();
        let (news, heard) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let server = services.api.base_url().as_str().to_owned();
        let owner = Owner {
            records: services.home.listener_state(&server).join("subagents"),
            services,
            to,
            news,
            heard,
            runs: Vec::new(),
            slots: Arc::new(Semaphore::new(MAX_RUNNING)),
            jobs: JoinSet::new(),
            count: 0,
            stopping: false,
        };
        let task = tokio::spawn(owner.work(orders, stop.clone()));
        (Self { stop, task }, messages)
    }

    /// Writes what is left to write, and ends. Conversations must have ended.
    pub async fn shut_down(&mut self) {
        self.stop.cancel();
        // It only fails by a panic, which has been reported by then.
        let _ = (&mut self.task).await;
    }
}

/// What a job brings back.
enum Done {
    Prepared {
        prepared: Result<Box<Prepared>, LaunchError>,
        tool_call_id: Option<String>,
        slot: OwnedSemaphorePermit,
        reply: Reply,
    },
    Resolved {
        run: u64,
        resolved: Result<(Scope, Option<String>), String>,
        file: OutputFile,
        reply: Reply,
    },
    /// The report is on disk; the notification can go out.
    Closed {
        run: u64,
        notification: String,
    },
    Lost(Vec<Lost>),
    Nothing,
}

struct Owner {
    services: Arc<Services>,
    to: mpsc::UnboundedSender<(Scope, Message)>,
    news: mpsc::UnboundedSender<(u64, News)>,
    heard: mpsc::UnboundedReceiver<(u64, News)>,
    runs: Vec<Run>,
    slots: Arc<Semaphore>,
    jobs: JoinSet<Done>,
    count: u64,
    /// Conversations have ended: nobody hears of anything in this process.
    stopping: bool,
    /// Where records of runs lie.
    records: PathBuf,
}

impl Owner {
    async fn work(mut self, mut orders: mpsc::UnboundedReceiver<Order>, stop: CancellationToken) {
        loop {
            let expiry = self.runs.iter().filter_map(|run| run.expires).min();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(order) = orders.recv() => self.on_order(order),
                Some((run, news)) = self.heard.recv() => self.on_news(run, news),
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => self.on_done(done),
                () = until(expiry) => self.forget_old(),
            }
        }
        self.stopping = true;
        while let Ok((run, news)) = self.heard.try_recv() {
            self.on_news(run, news);
        }
        let last = async {
            while let Some(done) = self.jobs.join_next().await {
                self.on_done(done);
            }
        };
        // A record that is not written yet keeps its first words, which hold as well.
        let _ = timeout(LAST_FILES, last).await;
    }

    fn going_down(&self) -> bool {
        self.stopping || self.services.draining.is_cancelled()
    }

    fn send(&self, to: &Scope, message: Message) {
        // The listener ends after this task.
        let _ = self.to.send((to.clone(), message));
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Launch {
                parent,
                wanted,
                tool_call_id,
                reply,
            } => self.on_launch(parent, *wanted, tool_call_id, reply),
            Order::Stop {
                scope,
                task_id,
                reply,
            } => {
                let mut runs = self.runs.iter_mut();
                let run = runs.find(|run| run.task_id == task_id && run.is_of(&scope));
                match run.filter(|run| run.is_under_way()) {
                    Some(run) => {
                        run.stops.push(reply);
                        let number = run.number;
                        self.stop(number);
                    }
                    // It has ended, or there never was one.
                    None => drop(reply.send(false)),
                }
            }
            Order::ReportLost => {
                let dir = self.records.clone();
                let computer = self.services.link.borrow().name.clone();
                self.jobs.spawn(async move {
                    let lost = spawn_blocking(move || lost::list(&dir, &computer)).await;
                    Done::Lost(lost.unwrap_or_default())
                });
            }
        }
    }

    /// Ends a run that is under way; its end comes as news.
    fn stop(&self, number: u64) {
        let Some(run) = self.runs.iter().find(|run| run.number == number) else {
            return;
        };
        run.cancel.cancel();
        if let (State::Running, Some(child)) = (run.state, &run.child) {
            self.send(child, Message::Dismiss);
        }
    }

    fn on_done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Prepared {
                prepared,
                tool_call_id,
                slot,
                reply,
            }) => match prepared {
                Ok(task) if reply.is_closed() => self.drop_fork(*task),
                Ok(task) => self.begin(*task, tool_call_id, slot, reply),
                // Whoever asked may have stopped waiting.
                Err(error) => drop(reply.send(Err(error))),
            },
            Ok(Done::Resolved {
                run,
                resolved,
                file,
                reply,
            }) => self.on_resolved(run, resolved, file, reply),
            Ok(Done::Closed { run, notification }) => self.on_closed(run, notification),
            Ok(Done::Lost(lost)) => {
                for run in lost {
                    self.services.metrics.0.subagent_lost();
                    let news = Injected::TaskNotification {
                        text: run.text,
                        acting_user_id: run.acting_user_id,
                    };
                    self.send(&run.parent, Message::Injected(news));
                    self.forget_record(run.path);
                }
            }
            Ok(Done::Nothing) => {}
            Err(error) => tracing::error!(%error, "A job of a subagent ended early."),
        }
    }

    /// Writes what the next process would tell of a run. It does not know of a
    /// workspace or of a subagent's settings: it must not begin a turn where there
    /// were such.
    fn record(&self, run: &Run, text: String) -> impl Future<Output = ()> + Send + use<> {
        let parent = &run.task.parent;
        let of_subagent = |other: &Run| other.child.as_ref() == Some(&parent.scope);
        let wanted = parent.workspace.is_none() && !self.runs.iter().any(of_subagent);
        let (path, parent) = (run.record.clone(), run.task.parent.clone());
        let computer = self.services.link.borrow().name.clone();
        let write = move || {
            let user = parent.acting_user_id.as_deref();
            lost::write(&path, &computer, &parent.scope, user, &text);
        };
        let write = wanted.then(|| spawn_blocking(write));
        async move {
            if let Some(write) = write {
                // It only fails by a panic, which has been reported by then.
                let _ = write.await;
            }
        }
    }

    fn forget_record(&mut self, path: PathBuf) {
        self.jobs.spawn(async move {
            let _ = spawn_blocking(move || lost::remove(&path)).await;
            Done::Nothing
        });
    }

    fn find(&mut self, number: u64) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.number == number)
    }

    fn on_news(&mut self, number: u64, news: News) {
        let Some(run) = self.find(number).filter(|run| run.is_under_way()) else {
            return;
        };
        match news {
            News::Called { id, name, args } => run.called(id, name, &args),
            News::Used(tokens) => {
                run.tokens = Some(tokens);
                run.duration_ms = run.elapsed_ms();
            }
            News::Ended(result) => return self.finish(number, result),
            // Its record tells the next process.
            News::Lost => return,
        }
        let parent = run.task.parent.scope.clone();
        self.publish(&parent, None);
    }

    /// A run is over: its report goes to disk, then to its parent.
    fn finish(&mut self, number: u64, result: Result<String, String>) {
        let services = Arc::clone(&self.services);
        let Some(run) = self.find(number) else { return };
        run.slot = None;
        run.duration_ms = run.elapsed_ms();
        run.error = result.as_ref().err().cloned();
        run.state = if result.is_ok() {
            State::Completed
        } else {
            State::Error
        };
        let outcome = match &result {
            Ok(_) => TurnOutcome::Completed,
            Err(error) if error == INTERRUPTED => TurnOutcome::Cancelled,
            Err(_) => TurnOutcome::Failed,
        };
        services.metrics.0.subagent_ended(outcome);
        let closing = run.closing(&services, result);
        let child = run.child.clone();
        self.jobs.spawn(async move {
            Done::Closed {
                run: number,
                notification: closing.await,
            }
        });
        // What it started ends with it.
        let orphans = self.runs.iter().filter(|other| {
            other.is_under_way() && child.as_ref().is_some_and(|child| other.is_of(child))
        });
        let orphans: Vec<u64> = orphans.map(|run| run.number).collect();
        for orphan in orphans {
            self.stop(orphan);
        }
    }

    fn on_closed(&mut self, number: u64, notification: String) {
        let going_down = self.going_down();
        let hooks = self.services.hooks.clone();
        let Some(run) = self.find(number) else { return };
        run.expires = Some(Instant::now() + SHOWN);
        let stops = std::mem::take(&mut run.stops);
        let child = run.child.as_ref();
        hooks.subagent_stopped(
            Site {
                cwd: run.task.parent.cwd.clone(),
                agent_id: child.and_then(|child| child.agent_id.clone()),
            },
            &run.task.kind.name,
            &run.subagent_id,
            run.error.clone().map_or(Ok(()), Err),
            child.map(|child| &*child.conversation_id),
        );
        let (parent, record) = (run.task.parent.clone(), run.record.clone());
        if going_down {
            // Nobody reads it in this process: the next one hands it over.
            let Some(run) = self.runs.iter().find(|run| run.number == number) else {
                return;
            };
            let write = self.record(run, notification);
            self.jobs.spawn(async move {
                write.await;
                Done::Nothing
            });
            self.publish(&parent.scope, None);
        } else {
            let user = parent.acting_user_id.as_deref().map(String::from);
            self.publish(&parent.scope, Some((notification, user)));
            self.forget_record(record);
        }
        for stop in stops {
            // A turn that was aborted meanwhile does not wait for it any more.
            let _ = stop.send(true);
        }
    }

    fn forget_old(&mut self) {
        let now = Instant::now();
        let is_old = |run: &mut Run| run.expires.is_some_and(|at| at <= now);
        let old: Vec<Run> = self.runs.extract_if(.., is_old).collect();
        let mut told: Vec<&Scope> = Vec::new();
        for run in &old {
            let parent = &run.task.parent.scope;
            if !told.contains(&parent) {
                told.push(parent);
                self.publish(parent, None);
            }
        }
    }

    /// Tells a conversation what its clients see of its subagents.
    fn publish(&self, parent: &Scope, report: Option<(String, Option<String>)>) {
        let runs: Vec<&Run> = self.runs.iter().filter(|run| run.is_of(parent)).collect();
        let shown: Vec<Value> = runs.iter().map(|run| run.shown()).collect();
        let at_work = runs.iter().filter(|run| run.expires.is_none());
        let change = BoardChange {
            board: Board {
                listed: shown.len(),
                processes: at_work.map(|run| run.listed()).collect(),
                frame: json!({"type": "update_subagent_state", "subagents": shown})
                    .to_string()
                    .into(),
            },
            report,
        };
        self.send(parent, Message::Board(Box::new(change)));
    }
}

/// Waits until `at`; for ever without one.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
