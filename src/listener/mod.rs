//! The coordinator between doors and conversations (spec 02 §2, §4, §5).
//!
//! It reads frames, hands each to the conversation that it is about, and
//! routes what conversations say to the connections that are subscribed. It
//! owns the subscriptions and the table of live conversations; it never waits
//! for network or disk itself, so one slow command delays nothing else.

mod dispatch;
pub mod door;
pub mod outbox;
mod router;
mod runtime_start;
mod runtimes;
mod workspace;

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::dispatch::{app_server_info, supported_commands};
use self::door::{DoorEvent, DoorReceiver, Role};
use self::outbox::Outbox;
use self::router::Router;
use self::runtimes::Runtimes;
use crate::conversation::subagents::Runs;
use crate::conversation::{Link, Message, Services};
use crate::device::{self, Device};
use crate::events::{Injected, Outbound, Recipient};
use crate::protocol::{ConnectionId, Scope};
use crate::state::interrupted::InterruptedStore;
use crate::subagents::Order;
use crate::telemetry::session_log::SessionLog;

/// The coordinator.
pub struct Listener {
    services: Arc<Services>,
    router: Router,
    runtimes: Runtimes,
    device: Device,
    subagents: Runs,
    /// What the owner of all subagents says to conversations.
    said: mpsc::UnboundedReceiver<(Scope, Message)>,
    link: watch::Sender<Link>,
    records: InterruptedStore,
    log: SessionLog,
    jobs: JoinSet<Job>,
    draining: bool,
    /// Frames wait until the records of an earlier process are with their
    /// conversations: a `sync` must not take for stale what a record explains.
    reading_records: bool,
}

/// What a command that had to wait brings back.
enum Job {
    /// A `runtime_start` resolved its scope; the conversation does the rest.
    Adopt(Box<runtime_start::Resolved>),
    /// A direct answer.
    Reply(ConnectionId, serde_json::Value),
    /// Records of turns that an earlier process left.
    Records(Vec<crate::state::interrupted::InterruptedTurn>),
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener")
            .field("draining", &self.draining)
            .finish_non_exhaustive()
    }
}

impl Listener {
    /// A listener without connections. Needs a runtime.
    pub fn new(
        services: Arc<Services>,
        link: watch::Sender<Link>,
        records: InterruptedStore,
        log: SessionLog,
        orders: mpsc::UnboundedReceiver<Order>,
    ) -> Self {
        let (subagents, said) = Runs::start(Arc::clone(&services), orders);
        if services.link.borrow().local {
            services.desk.report_lost();
        }
        Self {
            subagents,
            said,
            runtimes: Runtimes::new(Arc::clone(&services)),
            device: Device::start(Arc::clone(&services)),
            services,
            router: Router::default(),
            link,
            records,
            log,
            jobs: JoinSet::new(),
            draining: false,
            reading_records: false,
        }
    }

    /// Runs until `stop` fires; then every conversation is ended, and what they
    /// said last has been handed to the outboxes.
    pub async fn run(
        mut self,
        mut doors: DoorReceiver,
        mut outbound: mpsc::UnboundedReceiver<Outbound>,
        mut injected: mpsc::UnboundedReceiver<(Recipient, Injected)>,
        drain: CancellationToken,
        stop: CancellationToken,
    ) {
        let mut early = door::still_wanted(&mut doors);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = drain.cancelled(), if !self.draining => {
                    self.draining = true;
                    self.runtimes.tell_all(|| Message::Drain);
                }
                Some(event) = next(&mut early, &mut doors), if !self.reading_records => {
                    self.on_door(event);
                }
                Some(frame) = outbound.recv() => self.router.route(frame),
                Some((to, work)) = injected.recv() => {
                    if !self.draining {
                        self.on_injected(to, work);
                    }
                }
                Some((to, message)) = self.said.recv() => self.tell(&to, message),
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => {
                    match done {
                        Ok(job) => self.on_job(job),
                        // Whatever ended without a word, the doors do not stay shut.
                        Err(_) => self.reading_records = false,
                    }
                }
                () = self.runtimes.tend() => {}
            }
        }
        self.jobs.shutdown().await;
        self.device.shut_down().await;
        self.runtimes.shut_down().await;
        self.subagents.shut_down().await;
        while let Ok(frame) = outbound.try_recv() {
            self.router.route(frame);
        }
    }

    fn on_injected(&mut self, to: Recipient, work: Injected) {
        match to {
            Recipient::Conversation(scope) => self.tell(&scope, Message::Injected(work)),
            Recipient::Live => self.runtimes.tell_all(|| Message::Injected(work.clone())),
        }
    }

    fn on_door(&mut self, event: DoorEvent) {
        match event {
            DoorEvent::Opened {
                connection,
                role,
                outbox,
            } => {
                self.services.controllers.opened(&connection);
                match role {
                    Role::Client => {
                        self.router.open(connection, outbox);
                        self.publish_open();
                    }
                    Role::Machine { name, replaces } => {
                        self.on_machine(connection, name, replaces, outbox);
                    }
                }
            }
            DoorEvent::Frame { connection, text } => self.on_frame(&connection, &text),
            DoorEvent::Closed { connection } => {
                self.services.controllers.closed(&connection);
                for scope in self.router.close(&connection) {
                    self.runtimes
                        .tell_live(&scope, Message::Dropped(connection.clone()));
                }
                self.publish_open();
                self.device.tell(device::Message::Closed(connection));
            }
            DoorEvent::Gone { connection } => {
                self.services.controllers.gone(&connection);
                for scope in self.router.remove(&connection) {
                    self.runtimes
                        .tell_live(&scope, Message::Leave(connection.clone()));
                }
                self.publish_open();
                self.device.tell(device::Message::Gone(connection));
            }
        }
    }

    /// The connection by which this machine is known opened, anew or again.
    fn on_machine(
        &mut self,
        connection: ConnectionId,
        name: String,
        replaces: Option<ConnectionId>,
        outbox: Outbox,
    ) {
        if let Some(old) = replaces {
            self.services.controllers.moved(&old, &connection);
            self.device.tell(device::Message::Replaced {
                old: old.clone(),
                new: connection.clone(),
            });
            for scope in self.router.replace(&old, &connection) {
                let (old, new) = (old.clone(), connection.clone());
                self.runtimes.tell_live(&scope, Message::Moved { old, new });
            }
        }
        self.router.open(connection.clone(), outbox);
        self.services.agents.forget();
        self.link.send_modify(|link| {
            link.connection = Some(connection.clone());
            link.name = name;
            link.open = true;
        });
        self.runtimes
            .tell_all(|| Message::Replay(connection.clone()));
        if connection.is_hosted() {
            self.look_for_records();
        }
    }

    fn publish_open(&self) {
        let any = self.router.any_open();
        self.link.send_if_modified(|link| {
            let open = any || link.local;
            std::mem::replace(&mut link.open, open) != open
        });
    }

    /// Records of interrupted turns are read off the runtime's threads.
    fn look_for_records(&mut self) {
        let records = self.records.clone();
        self.reading_records = true;
        self.jobs.spawn(async move {
            let list = tokio::task::spawn_blocking(move || records.list()).await;
            Job::Records(list.unwrap_or_default())
        });
    }

    fn on_job(&mut self, job: Job) {
        match job {
            Job::Adopt(resolved) => self.adopt(*resolved),
            Job::Reply(to, frame) => self.router.reply(&to, &frame),
            Job::Records(records) => {
                self.reading_records = false;
                for record in records {
                    let scope = Scope::new(Some(&record.agent_id), Some(&record.conversation_id));
                    let subscribers = self.router.subscribers(&scope);
                    let message = Message::Recover(Box::new(record));
                    self.runtimes.tell(&scope, subscribers, message);
                }
                // Behind the records: news of a subagent must not begin a turn before
                // the interrupted one is taken up.
                self.services.desk.report_lost();
            }
        }
    }
}

/// The next event of the doors; those of before the start come first.
async fn next(early: &mut VecDeque<DoorEvent>, doors: &mut DoorReceiver) -> Option<DoorEvent> {
    match early.pop_front() {
        Some(event) => Some(event),
        None => doors.recv().await,
    }
}
