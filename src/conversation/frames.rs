//! Everything that a conversation says on the wire leaves through here.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::events::{Audience, EventKind, EventSink, Outbound};
use crate::protocol::event::{Delta, Event, Lifecycle};
use crate::protocol::time::iso_millis;
use crate::protocol::{ConnectionId, Scope};

/// Most events have fewer bytes than this.
const EVENT_BYTES: usize = 1024;

/// The JSON text of an event that probably has no more than `bytes`.
pub(crate) fn text_of(event: &Event<'_>, bytes: usize) -> Option<String> {
    let mut text = Vec::with_capacity(bytes);
    serde_json::to_writer(&mut text, event).ok()?;
    String::from_utf8(text).ok()
}

/// The time now as it stands on the wire.
pub(crate) fn now() -> String {
    iso_millis(SystemTime::now())
}

/// The mouth of one conversation.
#[derive(Clone, Debug)]
pub(crate) struct Frames {
    scope: Scope,
    sink: EventSink,
    /// The parent of a subagent, and the subagent's id: what is said here is
    /// said there too (07 §3.4).
    mirror: Option<(Scope, Arc<str>)>,
}

impl Frames {
    pub(crate) fn new(scope: Scope, sink: EventSink) -> Self {
        Self {
            scope,
            sink,
            mirror: None,
        }
    }

    /// From now on messages are shown to this conversation as well; chunks of
    /// the server by [`Self::reflect`].
    pub(crate) fn mirror(&mut self, to: Option<(Scope, Arc<str>)>) {
        self.mirror = to;
    }

    /// Shows a delta to the parent of a subagent.
    pub(crate) fn reflect(&self, delta: &str) {
        let Some((parent, subagent_id)) = &self.mirror else {
            return;
        };
        let body = format!(
            "{{\"type\":\"stream_delta\",\"delta\":{delta},\"subagent_id\":\"{subagent_id}\"}}"
        );
        self.sink.send(Outbound::Event {
            to: Audience::Subscribers,
            scope: parent.clone(),
            kind: EventKind::StreamDelta,
            body: body.into(),
        });
    }

    /// Sends an event to everyone who is subscribed.
    pub(crate) fn event(&self, event: &Event<'_>) {
        self.event_to(Audience::Subscribers, event);
    }

    /// Sends an event to `to`.
    pub(crate) fn event_to(&self, to: Audience, event: &Event<'_>) {
        if let Some(body) = text_of(event, EVENT_BYTES) {
            self.body_to(to, kind_of(event), body.into());
        }
    }

    /// Sends an event that is already JSON text.
    pub(crate) fn body_to(&self, to: Audience, kind: EventKind, body: Arc<str>) {
        if self.scope.is_addressable() {
            self.sink.send(Outbound::Event {
                to,
                scope: self.scope.clone(),
                kind,
                body,
            });
        }
    }

    /// Sends a server chunk on as it came, with its `type` (02 §6.4.1).
    pub(crate) fn chunk(&self, delta: &str) {
        let body = format!("{{\"type\":\"stream_delta\",\"delta\":{delta}}}");
        self.body_to(Audience::Subscribers, EventKind::StreamDelta, body.into());
    }

    /// Sends a message made here.
    pub(crate) fn message(&self, message: Map<String, Value>) {
        if self.mirror.is_some()
            && let Ok(delta) = serde_json::to_string(&Delta::Message(message.clone()))
        {
            self.reflect(&delta);
        }
        self.event(&Event::StreamDelta {
            delta: Delta::Message(message),
        });
    }

    /// Sends a lifecycle delta under its own id, or that of an approval request.
    pub(crate) fn lifecycle(&self, id: Option<&str>, run_id: Option<&str>, body: &Lifecycle) {
        let made = id
            .is_none()
            .then(|| format!("lifecycle-{}", Uuid::new_v4()));
        let id = id.or(made.as_deref()).unwrap_or_default();
        let delta = Delta::Lifecycle {
            id,
            date: &now(),
            run_id,
            body,
        };
        self.event(&Event::StreamDelta { delta });
    }

    /// Answers the connection that asked.
    pub(crate) fn reply(&self, to: &ConnectionId, frame: &Value) {
        self.sink.send(Outbound::Reply {
            to: to.clone(),
            body: frame.to_string(),
        });
    }
}

fn kind_of(event: &Event<'_>) -> EventKind {
    match event {
        Event::UpdateDeviceStatus { .. } => EventKind::DeviceStatus,
        Event::UpdateLoopStatus { .. } => EventKind::LoopStatus,
        Event::UpdateQueue { removed: [], .. } => EventKind::QueueSnapshot,
        Event::UpdateQueue { .. } => EventKind::QueueTransition,
        Event::UpdateSubagentState { .. } => EventKind::SubagentState,
        Event::StreamDelta { .. } => EventKind::StreamDelta,
        Event::ControlRequest(_)
        | Event::TurnFinished(_)
        | Event::ApprovalRequested(_)
        | Event::ApprovalReceived(_)
        | Event::ToolExecutionStarted(_)
        | Event::ToolExecutionFinished(_)
        | Event::MemoryUpdated { .. }
        | Event::FileOps { .. } => EventKind::Control,
    }
}
