//! The handles that let lower floors speak upward without knowing who listens.
//!
//! [`EventSink`] hands an outbound frame to whoever routes it (the listener's
//! outbox). [`ConversationHandle`] is the mailbox of one conversation for
//! producers of work: cron, background commands, subagents. Invariant: sending
//! never blocks and never fails loudly; a frame nobody takes is gone, exactly
//! as on a closed socket (02 §4.2).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::protocol::event::Level;
use crate::protocol::{ConnectionId, Scope};

/// Who gets an enveloped event (02 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every connection subscribed to the event's scope.
    Subscribers,
    /// One connection: replays.
    Connection(ConnectionId),
}

/// One frame on its way out, already JSON, without its envelope.
#[derive(Debug)]
pub enum Outbound {
    /// An event: gets an envelope (`runtime`, `event_seq`, …) when written (02 §4.1).
    Event {
        /// Its addressees.
        to: Audience,
        /// The conversation it is about.
        scope: Scope,
        /// The `type` of the frame, for routing and coalescing.
        kind: EventKind,
        /// The JSON object text of the frame without envelope fields.
        body: Arc<str>,
    },
    /// A direct reply: written bare to the connection that asked (02 §5).
    Reply {
        /// The connection that sent the command.
        to: ConnectionId,
        /// The whole frame as JSON text.
        body: String,
    },
    /// A reply or push whose sender waits: `permit` returns when a socket has
    /// taken the frame or nobody will. What a sender may have under way is
    /// bounded by its permits, not by the outbox.
    Paced {
        /// The connection that it is for.
        to: ConnectionId,
        /// The whole frame as JSON text.
        body: String,
        /// The sender's right to have this frame under way.
        permit: OwnedSemaphorePermit,
    },
}

/// What the outbox must know of an event to route and coalesce it (02 §1.2, §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// `stream_delta`: stream socket, never merged.
    StreamDelta,
    /// `update_device_status`: stream socket, a newer one replaces a queued one.
    DeviceStatus,
    /// `update_loop_status`: the same.
    LoopStatus,
    /// `update_queue` with empty `removed`: the same.
    QueueSnapshot,
    /// `update_queue` with `removed`: stream socket, never merged.
    QueueTransition,
    /// `update_subagent_state`: stream socket, a newer one replaces a queued one.
    SubagentState,
    /// Everything else: control socket, never merged.
    Control,
}

impl EventKind {
    /// Whether the frame travels on the stream socket when there is one.
    pub fn on_stream(self) -> bool {
        !matches!(self, Self::Control)
    }

    /// Whether a newer frame of the same kind and scope may take its place.
    pub fn replaceable(self) -> bool {
        matches!(
            self,
            Self::DeviceStatus | Self::LoopStatus | Self::QueueSnapshot | Self::SubagentState
        )
    }
}

/// Hands frames to the router. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventSink(mpsc::UnboundedSender<Outbound>);

impl EventSink {
    /// A sink and the end from which the router takes frames, in order.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Outbound>) {
        let (tx, rx) = mpsc::unbounded_channel();
        (Self(tx), rx)
    }

    /// Hands over one frame.
    pub fn send(&self, frame: Outbound) {
        // The router lives as long as the process; at shutdown nobody reads any more.
        let _ = self.0.send(frame);
    }
}

/// Work that something other than a client puts into a conversation's queue (02 §8.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Injected {
    /// A background command, monitor or subagent has news: the whole
    /// `<task-notification>` text (04 §6.5).
    TaskNotification {
        /// The text, XML-escaped where the format says so.
        text: String,
        /// The human on whose behalf the work ran.
        acting_user_id: Option<String>,
    },
    /// A schedule fired: the whole prompt with its envelope (07 §1.11).
    CronPrompt {
        /// The prompt.
        text: String,
        /// Learns whether the prompt waits.
        receipt: Receipt,
    },
    /// What runs in the background changed: device status must be sent again.
    BackgroundChanged,
    /// The boot directory changed (02 §5.12); dropped when that has been shown.
    BootDirectoryChanged(Done),
    /// A branch was made or checked out (06 §4.2).
    GitChanged,
    /// Something that the status shows changed: a word to the people, if there
    /// is one, then loop status and device status (06 §1.3).
    Show {
        /// The word and how it is shown.
        status: Option<(String, Level)>,
        /// The toolset that it has from now on, if that changed.
        toolset: Option<&'static str>,
        /// Dropped when all of it has been sent.
        done: Done,
    },
}

/// Tells a producer what became of its work.
#[derive(Clone, Debug)]
pub struct Receipt(mpsc::UnboundedSender<Option<String>>);

impl Receipt {
    /// A receipt, and its answer: the id of the queued item, or `None` in it when
    /// the queue is full. The answer is `None` when the work never arrived.
    pub fn channel() -> (
        Self,
        impl Future<Output = Option<Option<String>>> + Send + 'static,
    ) {
        let (tx, mut rx) = mpsc::unbounded_channel();
        (Self(tx), async move { rx.recv().await })
    }

    /// Answers, once.
    pub fn answer(&self, item_id: Option<String>) {
        // The producer may have stopped waiting.
        let _ = self.0.send(item_id);
    }
}

impl PartialEq for Receipt {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

impl Eq for Receipt {}

/// Tells its other end when every copy of it is gone: when the work that
/// carries it has been done everywhere, or nobody will do it.
#[derive(Clone, Debug)]
pub struct Done(mpsc::Sender<()>);

impl Done {
    /// A token, and the end whose `recv` waits until all copies are gone.
    pub fn channel() -> (Self, mpsc::Receiver<()>) {
        let (done, ended) = mpsc::channel(1);
        (Self(done), ended)
    }
}

impl PartialEq for Done {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

impl Eq for Done {}

/// Whom injected work is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// One conversation; it is started when it is not live.
    Conversation(Scope),
    /// Every live conversation.
    Live,
}

/// The mailbox of one conversation, for producers of work.
#[derive(Clone, Debug)]
pub struct ConversationHandle {
    scope: Scope,
    mailbox: mpsc::UnboundedSender<(Recipient, Injected)>,
}

impl ConversationHandle {
    /// A handle that delivers into `mailbox`, whoever reads it.
    pub fn new(scope: Scope, mailbox: mpsc::UnboundedSender<(Recipient, Injected)>) -> Self {
        Self { scope, mailbox }
    }

    /// The conversation it belongs to.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Puts work into the conversation. `false` when the process is going down.
    pub fn inject(&self, work: Injected) -> bool {
        let to = Recipient::Conversation(self.scope.clone());
        self.mailbox.send((to, work)).is_ok()
    }
}
