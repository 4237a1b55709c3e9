//! What a conversation can be told, and by whom.
//!
//! The coordinator is the only one who sends; it keeps the order of frames of
//! one connection, so a conversation sees them as they arrived.

use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::{Assignment, BoardChange, Remnant};
use crate::events::Injected;
use crate::protocol::ConnectionId;
use crate::protocol::command::{
    ApprovalResponse, ChangeDeviceState, CreateMessage, ExecutionSettings, Sync,
};
use crate::state::interrupted::InterruptedTurn;

/// One message to a conversation.
#[derive(Debug)]
pub enum Message {
    /// A connection named this conversation: events go to it from now on.
    Subscribe(ConnectionId),
    /// A connection ended for good (02 §11.2).
    Leave(ConnectionId),
    /// A connection dropped and may come back (02 §11.1).
    Dropped(ConnectionId),
    /// A connection goes on under another id (00 §8).
    Moved {
        /// Its id until now.
        old: ConnectionId,
        /// Its id from now on.
        new: ConnectionId,
    },
    /// A connection opened again: replay the state to it (02 §11.1).
    Replay(ConnectionId),
    /// A client's command.
    Request(Box<Request>),
    /// Work from elsewhere in this process.
    Injected(Injected),
    /// A non-terminal error for the conversation's clients (02 §2.3).
    Notice(String),
    /// A turn of an earlier process left this record behind (03 §14.5).
    Recover(Box<InterruptedTurn>),
    /// End if there is nothing to do; answers with what must be remembered.
    Retire(oneshot::Sender<Option<Box<Remnant>>>),
    /// Work on a task of another conversation.
    Assign(Box<Assignment>),
    /// Stop working on it.
    Dismiss,
    /// What became of the subagents of this conversation.
    Board(Box<BoardChange>),
    /// The process goes down: start nothing new, park what can be parked.
    Drain,
}

/// A command with everything that its answer needs.
#[derive(Debug)]
pub struct Request {
    /// Who asked.
    pub from: ConnectionId,
    /// Its correlation id, if it wants an answer.
    pub request_id: Option<String>,
    /// `runtime` as received.
    pub runtime: Value,
    /// What to do.
    pub body: RequestBody,
}

/// The commands that belong to one conversation.
#[derive(Debug)]
pub enum RequestBody {
    /// `input` / `create_message`.
    Input(Box<CreateMessage>),
    /// `input` / `approval_response`.
    Answer(ApprovalResponse),
    /// `sync`.
    Sync(Sync),
    /// The second half of `runtime_start`: the scope is resolved.
    Adopt(Box<Adopt>),
    /// `abort_message`.
    Abort {
        /// The run it means.
        run_id: Option<String>,
    },
    /// `change_device_state`.
    Change(ChangeDeviceState),
    /// `resume_queue`.
    ResumeQueue,
    /// `launch_subagent`.
    LaunchSubagent {
        /// The arguments of the Agent tool, shape checked.
        args: Map<String, Value>,
        /// The call that it belongs to, if any.
        tool_call_id: Option<String>,
    },
    /// `remove_queue_item`.
    RemoveQueueItem {
        /// `q-<n>`.
        item_id: String,
    },
    /// `execute_command`.
    ExecuteCommand {
        /// Without slash.
        command_id: String,
        /// Everything behind it.
        args: Option<String>,
    },
}

/// What `runtime_start` resolved and wants applied (02 §5.2).
#[derive(Debug)]
pub struct Adopt {
    /// Fields of the success response besides `runtime`.
    pub response: Map<String, Value>,
    /// `Some(None)` = the boot directory.
    pub cwd: Option<Option<String>>,
    /// The workspace that confines it, already checked.
    pub workspace: Option<crate::permissions::Workspace>,
    /// Whether some connection worked with the conversation before.
    pub in_use: bool,
    /// A mode name, already checked.
    pub mode: Option<crate::protocol::PermissionMode>,
    /// Launch options; `None` keeps the current ones.
    pub execution_settings: Option<ExecutionSettings>,
    /// Where skills come from; `None` is everywhere.
    pub skill_sources: Option<Vec<crate::skills::Source>>,
    /// Look for approvals that the server still waits for.
    pub recover_approvals: bool,
    /// Send the device status even if unchanged.
    pub force_device_status: bool,
    /// Replay before the response.
    pub wait_for_replay: bool,
}
