//! The actor of one conversation.
//!
//! Invariant: everything that belongs to the conversation (queue, mode, turn,
//! questions) is changed here, by this one task, one message at a time. A turn
//! runs as a task of its own and reports; nothing it says after its lease
//! ended has any effect.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::accepted::Accepted;
use super::asks::Asks;
use super::assignment::{Assigned, Board};
use super::correlation::Correlation;
use super::frames::Frames;
use super::interrupt::Interrupt;
use super::lifecycle::{Lease, Lifecycle};
use super::mailbox::{Message, Request};
use super::queue::Queue;
use super::recovery::{RecordOutcome, Recoveries};
use super::reminders::Reminders;
use super::replay::Prepared as ReplayPrepared;
use super::services::Services;
use super::slash::{SlashDone, SlashTurn};
use super::turn::{Outcome, Report, Toolset};
use crate::memory::{Checkout, Pushed};
use crate::permissions::{SessionRules, Workspace};
use crate::protocol::command::ExecutionSettings;
use crate::protocol::event::GitContext;
use crate::protocol::{ConnectionId, Scope};
use crate::skills::Source;

/// What survives when an idle conversation is evicted (02 §3).
#[derive(Debug, Default)]
pub struct Remnant {
    pub(crate) accepted: Accepted,
    pub(crate) correlation: Correlation,
    pub(crate) reminders: Reminders,
    pub(crate) session_rules: SessionRules,
    pub(crate) counters: (u64, u64),
    /// Where its skills come from; `None` is everywhere.
    pub(crate) skill_sources: Option<Vec<Source>>,
}

/// Live counts of one conversation, for health and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// A turn is active or cancelling.
    pub in_turn: bool,
    /// Items that wait.
    pub queued: usize,
    /// Questions that wait for a human.
    pub approvals: usize,
}

/// What a finished background job brings back.
pub(crate) enum Done {
    /// The turn task ended.
    Turn(Lease, Box<Outcome>),
    /// The backend heard of a cancel.
    CancelSettled(Lease),
    /// A replay has what it needs.
    Replay(Box<ReplayPrepared>),
    /// A slash command did its work.
    Slash(Box<SlashDone>),
    /// The memory was pushed.
    MemoryPushed(Vec<(Checkout, Pushed)>),
    /// Whether the memory is too large.
    MemoryMeasured(bool),
    /// What is known of a directory's repository.
    Git {
        cwd: PathBuf,
        context: Option<GitContext>,
        /// Whether clients are told even when nothing changed.
        tell: bool,
    },
    /// An interrupted turn was looked up.
    Record(Box<RecordOutcome>),
    /// Time to look at deferred records again.
    RecordTimer,
    /// Runtime command that only needed to finish.
    Nothing,
}

/// The turn that runs now.
pub(crate) struct RunningTurn {
    pub(crate) lease: Lease,
    pub(crate) turn_id: String,
    pub(crate) cancel: CancellationToken,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) cwd: PathBuf,
    pub(crate) client_message_ids: Vec<String>,
    /// The connection whose input began it.
    pub(crate) origin: Option<ConnectionId>,
    /// Its history was cleared away: results of its calls are not owed any more.
    pub(crate) forgotten: bool,
    /// Calls put up for a decision, for the denials of an abort.
    pub(crate) asked: Vec<String>,
    pub(crate) started: tokio::time::Instant,
}

/// One conversation.
pub(crate) struct Conversation {
    pub(crate) scope: Scope,
    pub(crate) services: Arc<Services>,
    pub(crate) frames: Frames,
    pub(crate) life: Lifecycle,
    pub(crate) queue: Queue,
    pub(crate) accepted: Accepted,
    pub(crate) correlation: Correlation,
    pub(crate) asks: Asks,
    pub(crate) interrupt: Interrupt,
    pub(crate) reminders: Reminders,
    pub(crate) session_rules: SessionRules,
    pub(crate) execution: Option<ExecutionSettings>,
    /// The task of another conversation that it works on.
    pub(crate) assigned: Option<Assigned>,
    /// It was a subagent once; late news of its tools may have no reader.
    pub(crate) was_assigned: bool,
    /// Its own subagents.
    pub(crate) board: Board,
    /// Connections whose `launch_subagent` is under way, and how to call it off.
    pub(crate) launching: Vec<(ConnectionId, CancellationToken)>,
    /// What its tools may not leave; lives as long as this actor.
    pub(crate) workspace: Option<Workspace>,
    pub(crate) subscribers: Vec<ConnectionId>,
    pub(crate) toolset: Option<Toolset>,
    pub(crate) skill_sources: Option<Vec<Source>>,
    /// The skills of the last turn, as the device status shows them.
    pub(crate) skills: Arc<RawValue>,
    pub(crate) slash_turn: Option<SlashTurn>,
    /// The memory takes too much of the prompt.
    pub(crate) should_doctor: bool,
    pub(crate) turn: Option<RunningTurn>,
    pub(crate) recoveries: Recoveries,
    pub(crate) git: Option<(PathBuf, Option<GitContext>)>,
    /// The last device status of a replay, per connection (02 §6.1).
    pub(crate) shown: HashMap<ConnectionId, String>,
    pub(crate) jobs: JoinSet<Done>,
    pub(crate) draining: bool,
    retired: bool,
}

impl Conversation {
    /// A conversation with what an earlier actor of the same scope left.
    pub(crate) fn new(
        scope: Scope,
        services: Arc<Services>,
        subscribers: Vec<ConnectionId>,
        remnant: Remnant,
    ) -> Self {
        let frames = Frames::new(scope.clone(), services.events.clone());
        let (next_item, next_batch) = remnant.counters;
        let skills = Arc::clone(&services.empty_list);
        Self {
            scope,
            services,
            frames,
            life: Lifecycle::default(),
            queue: Queue::new(next_item, next_batch),
            accepted: remnant.accepted,
            correlation: remnant.correlation,
            asks: Asks::default(),
            interrupt: Interrupt::default(),
            reminders: remnant.reminders,
            session_rules: remnant.session_rules,
            execution: None,
            assigned: None,
            was_assigned: false,
            board: Board::default(),
            launching: Vec::new(),
            workspace: None,
            subscribers,
            toolset: None,
            skill_sources: remnant.skill_sources,
            skills,
            slash_turn: None,
            should_doctor: false,
            turn: None,
            recoveries: Recoveries::default(),
            git: None,
            shown: HashMap::new(),
            jobs: JoinSet::new(),
            draining: false,
            retired: false,
        }
    }

    /// Runs until retired, or until the mailbox closes. Dropping the future
    /// aborts the turn and every job.
    pub(crate) async fn run(mut self, mut mailbox: mpsc::UnboundedReceiver<Message>) {
        let services = Arc::clone(&self.services);
        let mut link = services.link.clone();
        loop {
            tokio::select! {
                message = mailbox.recv() => match message {
                    Some(message) => self.on_message(message).await,
                    None => break,
                },
                Some(report) = next_report(&mut self.turn) => self.on_report(report).await,
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => {
                    self.on_done(done).await;
                }
                Ok(()) = link.changed() => {}
            }
            if self.retired {
                return;
            }
            self.emit_queue_changes();
            self.pump();
            services.load.report(&self.scope, self.load());
        }
        self.shut_down().await;
    }

    async fn on_message(&mut self, message: Message) {
        match message {
            Message::Subscribe(connection) => {
                if !self.subscribers.contains(&connection) {
                    self.subscribers.push(connection);
                }
            }
            Message::Leave(connection) => self.leave(&connection),
            Message::Dropped(connection) => self.call_off_launches(&connection),
            Message::Moved { old, new } => self.moved(&old, new),
            Message::Replay(connection) => self.replay_on_open(connection),
            Message::Request(request) => self.on_request(*request).await,
            Message::Injected(work) => self.on_injected(work),
            Message::Notice(text) => self.notice(&text),
            Message::Recover(record) => self.recover_record(*record),
            Message::Retire(answer) => {
                let remnant = self.is_evictable().then(|| Box::new(self.take_remnant()));
                self.retired = remnant.is_some();
                // The coordinator asked a moment ago; if it is gone, so is the process.
                let _ = answer.send(remnant);
            }
            Message::Assign(assignment) => self.on_assign(*assignment),
            Message::Dismiss => self.on_dismiss(),
            Message::Board(change) => self.on_board(*change),
            Message::Drain => self.drain(),
        }
    }

    async fn on_request(&mut self, request: Request) {
        use super::mailbox::RequestBody;
        let Request {
            from,
            request_id,
            runtime,
            body,
        } = request;
        let asker = super::intake::Asker {
            from,
            request_id,
            runtime,
        };
        match body {
            RequestBody::Input(input) => self.on_input(&asker, *input),
            RequestBody::Answer(response) => self.on_answer(&asker, response).await,
            RequestBody::Sync(sync) => self.on_sync(asker, sync),
            RequestBody::Adopt(adopt) => self.on_adopt(asker, *adopt).await,
            RequestBody::Abort { run_id } => self.on_abort(&asker, run_id.as_deref()),
            RequestBody::Change(change) => self.on_change(&change).await,
            RequestBody::ResumeQueue => self.on_resume_queue(&asker),
            RequestBody::LaunchSubagent { args, tool_call_id } => {
                self.on_launch_subagent(asker, &args, tool_call_id);
            }
            RequestBody::RemoveQueueItem { item_id } => self.on_remove_item(&asker, &item_id),
            RequestBody::ExecuteCommand { command_id, args } => {
                self.on_execute_command(&asker, &command_id, args.as_deref());
            }
        }
    }

    async fn on_done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Turn(lease, outcome)) => {
                self.read_last_reports().await;
                self.finish_turn(lease, outcome);
            }
            Ok(Done::CancelSettled(lease)) => {
                self.life.settle(lease);
            }
            Ok(Done::Replay(prepared)) => self.replay(*prepared),
            Ok(Done::Slash(done)) => self.on_slash(*done),
            Ok(Done::MemoryPushed(pushed)) => self.on_memory_pushed(pushed),
            Ok(Done::MemoryMeasured(large)) => {
                self.should_doctor = large;
                self.emit_device_status();
            }
            Ok(Done::Record(outcome)) => self.on_record(*outcome),
            Ok(Done::RecordTimer) => self.retry_records(),
            Ok(Done::Git { cwd, context, tell }) => self.on_git(cwd, context, tell),
            Ok(Done::Nothing) => {}
            // Ended at shutdown.
            Err(error) => tracing::error!(%error, "A job of a conversation ended early."),
        }
    }

    /// Runs a job beside the mailbox.
    pub(crate) fn job(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        let work: BoxFuture<'static, Done> = Box::pin(work);
        self.jobs.spawn(work);
    }

    async fn read_last_reports(&mut self) {
        while let Some(report) = self
            .turn
            .as_mut()
            .and_then(|turn| turn.reports.try_recv().ok())
        {
            self.on_report(report).await;
        }
    }

    fn is_evictable(&self) -> bool {
        self.life.is_idle()
            && self.queue.is_empty()
            && self.asks.waiting() == 0
            && !self.interrupt.is_held()
            && self.recoveries.is_empty()
            && self.jobs.is_empty()
            && self.execution.is_none()
            && self.board.listed == 0
            && self.workspace.is_none()
    }

    /// Whether a reconnecting client is told of this conversation (02 §11.1).
    pub(crate) fn is_held(&self) -> bool {
        !self.is_evictable()
    }

    fn take_remnant(&mut self) -> Remnant {
        Remnant {
            accepted: std::mem::take(&mut self.accepted),
            correlation: std::mem::take(&mut self.correlation),
            reminders: std::mem::take(&mut self.reminders),
            session_rules: std::mem::take(&mut self.session_rules),
            counters: self.queue.counters(),
            skill_sources: self.skill_sources.take(),
        }
    }

    fn load(&self) -> Load {
        Load {
            in_turn: self.life.is_active() || self.life.is_cancelling(),
            queued: self.queue.len(),
            approvals: self.asks.waiting(),
        }
    }

    /// A connection is gone for good (02 §11.2). The turn that it began goes on
    /// only for others who follow it.
    fn leave(&mut self, connection: &ConnectionId) {
        self.subscribers.retain(|known| known != connection);
        self.asks.unregister(connection);
        self.queue.remove_of(connection);
        self.shown.remove(connection);
        self.call_off_launches(connection);
        let origin = self.turn.as_ref().and_then(|turn| turn.origin.as_ref());
        if origin == Some(connection) && self.subscribers.is_empty() {
            self.abandon();
        }
    }

    /// A connection goes on under another id: whatever was its own stays so,
    /// except questions, which the replay to come puts to it again.
    fn moved(&mut self, old: &ConnectionId, new: ConnectionId) {
        self.queue.moved(old, &new);
        if let Some(turn) = &mut self.turn
            && turn.origin.as_ref() == Some(old)
        {
            turn.origin = Some(new.clone());
        }
        if !self.subscribers.contains(&new) {
            self.subscribers.push(new);
        }
        self.leave(old);
    }
}

async fn next_report(turn: &mut Option<RunningTurn>) -> Option<Report> {
    match turn {
        Some(turn) => turn.reports.recv().await,
        None => None,
    }
}
