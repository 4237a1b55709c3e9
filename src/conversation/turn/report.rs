//! What a running turn tells its conversation, and what it asks of it.
//!
//! Everything that a turn shows goes through this one channel, so that deltas
//! and status frames keep their order, and so that a turn whose lease ended is
//! silenced in one place.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::End;
use crate::conversation::asks::{Answered, Savable};
use crate::conversation::queue::Batch;
use crate::protocol::PermissionMode;
use crate::protocol::event::{Lifecycle, LoopStatus};
use crate::tools::TurnTools;

/// The tools of a turn as the device status shows them.
#[derive(Clone, Debug)]
pub(crate) struct Toolset {
    pub(crate) name: String,
    /// Names, as JSON text.
    pub(crate) tools: Arc<RawValue>,
}

impl Toolset {
    /// The tools that are loaded of the preset `name`.
    pub(crate) fn new(name: &str, tools: &TurnTools) -> serde_json::Result<Self> {
        let loaded: Vec<&str> = tools.loaded().collect();
        Ok(Self {
            name: name.to_owned(),
            tools: to_raw_value(&loaded)?.into(),
        })
    }
}

/// A call that a human must decide.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) tool_call_id: String,
    pub(crate) tool_name: String,
    pub(crate) input: Map<String, Value>,
    pub(crate) savable: Option<Savable>,
    pub(crate) diffs: Vec<Value>,
    pub(crate) run_id: Option<String>,
}

/// One report.
#[derive(Debug)]
pub(crate) enum Report {
    /// The status changes; a frame only if it does.
    Status(LoopStatus),
    /// Loop status, and device status if asked, changed or not.
    Announce { device: bool },
    /// The run of the stream that opened, or none any more.
    Run(Option<String>),
    /// A server chunk: the JSON text of a delta, `type` included.
    Chunk(String),
    /// A lifecycle delta.
    Lifecycle {
        run_id: Option<String>,
        body: Lifecycle,
    },
    /// Which calls run now.
    Executing(Vec<String>),
    /// An approved call starts.
    ToolStarted {
        delta_id: Option<String>,
        run_id: Option<String>,
        tool_call_id: String,
        tool_name: String,
        tool_args: String,
    },
    /// A call ended; `started` is false for denied ones.
    ToolFinished {
        delta_id: Option<String>,
        run_id: Option<String>,
        tool_call_id: String,
        status: &'static str,
        started: bool,
    },
    /// Output of a running call so far.
    Live(Map<String, Value>),
    /// The result of a call.
    Row(Map<String, Value>),
    /// A tool committed these files of the agent's memory.
    MemoryChanged(Vec<String>),
    /// A tool wrote a file.
    FileWritten { path: String, content: String },
    /// The tools of this turn were prepared.
    Toolset(Toolset),
    /// The skills of this turn, as the device status shows them.
    Skills(Arc<RawValue>),
    /// A tool moved the conversation.
    CwdChanged(PathBuf),
    /// A tool changed the permission mode, and its result says so to the model.
    ModeSwitched(PermissionMode),
    /// These names of secrets were told to the model.
    SecretsTold(Vec<String>),
    /// A request with these skills was accepted.
    SkillsTold(crate::skills::Told),
    /// The history was compacted.
    Compacted,
    /// A human must decide.
    Ask(Box<Question>, oneshot::Sender<Answered>),
    /// Whatever waits in the queue may join the next request.
    TakeQueued(oneshot::Sender<Option<Batch>>),
}

/// The turn's end of the channel.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    reports: mpsc::Sender<Report>,
    cancel: CancellationToken,
}

impl Port {
    pub(crate) fn new(reports: mpsc::Sender<Report>, cancel: CancellationToken) -> Self {
        Self { reports, cancel }
    }

    /// Reports. A closed channel means that the conversation is gone, and then
    /// nobody is left to tell.
    pub(crate) async fn tell(&self, report: Report) {
        let _ = self.reports.send(report).await;
    }

    pub(crate) async fn status(&self, status: LoopStatus) {
        self.tell(Report::Status(status)).await;
    }

    pub(crate) async fn lifecycle(&self, run_id: Option<&str>, body: Lifecycle) {
        self.tell(Report::Lifecycle {
            run_id: run_id.map(String::from),
            body,
        })
        .await;
    }

    /// Asks a human; an error when the turn was cancelled meanwhile.
    pub(crate) async fn ask(&self, question: Question) -> Result<Answered, End> {
        let (reply, answer) = oneshot::channel();
        self.tell(Report::Ask(Box::new(question), reply)).await;
        self.unless_cancelled(answer)
            .await?
            .map_err(|_| End::Cancelled)
    }

    /// Takes what waits in the queue.
    pub(crate) async fn take_queued(&self) -> Option<Batch> {
        let (reply, batch) = oneshot::channel();
        self.tell(Report::TakeQueued(reply)).await;
        batch.await.ok().flatten()
    }

    /// Waits for `work`, but not longer than the turn may go on.
    pub(crate) async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, End> {
        self.cancel
            .run_until_cancelled(work)
            .await
            .ok_or(End::Cancelled)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    pub(crate) fn cancel_token(&self) -> &CancellationToken {
        &self.cancel
    }
}
