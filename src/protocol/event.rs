//! Events that the listener sends to the subscribers of a conversation
//! (spec 02 §6, 00 §2). The envelope is added when a frame is written.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// One event, without its envelope.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event<'a> {
    /// The device as this conversation sees it (02 §6.1).
    UpdateDeviceStatus {
        /// The status.
        device_status: &'a DeviceStatus<'a>,
    },
    /// Where the turn stands (02 §6.2).
    UpdateLoopStatus {
        /// The state.
        loop_status: &'a LoopState<'a>,
    },
    /// The queue and what left it (02 §6.3).
    UpdateQueue {
        /// Every item, in order.
        queue: &'a [QueueMessage<'a>],
        /// Since the last such event.
        removed: &'a [QueueRemoval],
    },
    /// Subagents of this conversation (02 §6.6).
    UpdateSubagentState {
        /// Snapshot.
        subagents: &'a [Value],
    },
    /// A piece of the conversation (02 §6.4).
    StreamDelta {
        /// The piece.
        delta: Delta<'a>,
    },
    /// A tool call waits for a human (02 §6.7).
    ControlRequest(&'a ControlRequest),
    /// A turn ended; exactly one per turn (02 §6.5).
    TurnFinished(&'a TurnFinished),
    /// Lifecycle (00 §2): right after the `control_request`.
    ApprovalRequested(&'a ApprovalRequested),
    /// Lifecycle (00 §2): the decision is taken, nothing has run yet.
    ApprovalReceived(&'a ApprovalReceived),
    /// Lifecycle (00 §2): with `client_tool_start`.
    ToolExecutionStarted(&'a ToolExecutionStarted<'a>),
    /// Lifecycle (00 §2): with `client_tool_end`.
    ToolExecutionFinished(&'a ToolExecutionFinished<'a>),
    /// Memory of the agent changed: on the server (06 §6.6), or by one of its
    /// tools (07 §4.6).
    MemoryUpdated {
        /// Paths, or `*` for any.
        affected_paths: &'a [&'a str],
        /// Unix milliseconds.
        timestamp: i64,
    },
    /// An agent tool wrote a file (02 §6.8).
    FileOps {
        /// Absolute path.
        path: &'a str,
        /// Always empty.
        cg_entries: [(); 0],
        /// Always empty.
        ops: [(); 0],
        /// `agent`.
        source: &'static str,
        /// The whole new text.
        document_content: &'a str,
    },
}

/// The `delta` of a `stream_delta`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Delta<'a> {
    /// A message made here: echoes and synthetic tool returns (02 §6.4.2–3).
    Message(Map<String, Value>),
    /// A lifecycle delta (02 §6.4.4).
    Lifecycle {
        /// `lifecycle-<uuid>`, or the id of the approval request.
        id: &'a str,
        /// ISO time.
        date: &'a str,
        /// The run it belongs to.
        #[serde(skip_serializing_if = "Option::is_none")]
        run_id: Option<&'a str>,
        /// What happened.
        #[serde(flatten)]
        body: &'a Lifecycle,
    },
}

/// What a lifecycle delta tells (02 §6.4.4).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "message_type", rename_all = "snake_case")]
pub enum Lifecycle {
    /// The calls of a stop were classified.
    ApprovalClassificationEnd {
        /// Run without asking.
        auto_allowed_tool_call_ids: Vec<String>,
        /// Denied without asking.
        auto_denied_tool_call_ids: Vec<String>,
        /// A human decides.
        user_input_tool_call_ids: Vec<String>,
    },
    /// A call starts.
    ClientToolStart {
        /// The call.
        tool_call_id: String,
        /// Its tool.
        #[serde(skip_serializing_if = "Option::is_none")]
        tool_name: Option<String>,
        /// Its arguments as JSON text, after edits.
        #[serde(skip_serializing_if = "Option::is_none")]
        tool_args: Option<String>,
    },
    /// A call ended, denied ones included.
    ClientToolEnd {
        /// The call.
        tool_call_id: String,
        /// `success` or `error`.
        status: &'static str,
    },
    /// A word to the human.
    Status {
        /// The text.
        message: String,
        /// How it is shown.
        level: Level,
    },
    /// A request will be repeated.
    Retry {
        /// The text.
        message: String,
        /// `error` or `llm_api_error`.
        reason: String,
        /// From 1.
        attempt: u32,
        /// The last one.
        max_attempts: u32,
        /// Until then.
        delay_ms: u64,
    },
    /// Something went wrong.
    LoopError {
        /// The text.
        message: String,
        /// A stop reason.
        stop_reason: String,
        /// Whether the turn ended by it.
        is_terminal: bool,
        /// The server's error, when its type and run are known.
        #[serde(skip_serializing_if = "Option::is_none")]
        api_error: Option<Value>,
    },
    /// A slash command starts.
    SlashCommandStart {
        /// Without slash.
        command_id: String,
        /// As typed.
        input: String,
    },
    /// A slash command ended.
    SlashCommandEnd {
        /// Without slash.
        command_id: String,
        /// As typed.
        input: String,
        /// What it says.
        output: String,
        /// Whether it worked.
        success: bool,
    },
}

/// How a status line is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Plain.
    Info,
    /// Good news.
    Success,
    /// Attention.
    Warning,
}

/// Where a turn stands (02 §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LoopStatus {
    /// Idle, or cancelling.
    WaitingOnInput,
    /// Building a request.
    SendingApiRequest,
    /// Request sent.
    WaitingForApiResponse,
    /// Will try again.
    RetryingApiRequest,
    /// Stream open.
    ProcessingApiResponse,
    /// Local tools run.
    ExecutingClientSideTool,
    /// A tracked command runs on an idle conversation.
    ExecutingCommand,
    /// A human decides.
    WaitingOnApproval,
}

/// Body of `update_loop_status`.
#[derive(Debug, Serialize)]
pub struct LoopState<'a> {
    /// The status.
    pub status: LoopStatus,
    /// The active run, or nothing.
    pub active_run_ids: &'a [String],
    /// Which client messages each recent run consumed; absent when none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_message_ids_by_run_id: Option<&'a RawValue>,
    /// Calls that run now.
    pub executing_tool_call_ids: &'a [String],
    /// The plan file while plan mode holds (05 §2.5); the key is absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_file_path: Option<&'a str>,
}

/// Body of `update_device_status` (02 §6.1).
#[derive(Debug, Serialize)]
pub struct DeviceStatus<'a> {
    /// The registered connection.
    pub current_connection_id: Option<&'a str>,
    /// Name of this computer.
    pub connection_name: Option<&'a str>,
    /// Some client transport is open.
    pub is_online: bool,
    /// A turn is active.
    pub is_processing: bool,
    /// Of this conversation.
    pub current_permission_mode: &'static str,
    /// True while plan mode holds; absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub plan_mode_enabled: bool,
    /// Of the running turn, else of the conversation.
    pub current_working_directory: &'a str,
    /// Null until first loaded, and outside repositories.
    pub git_context: Option<&'a GitContext>,
    /// Compatible version.
    pub letta_code_version: Option<&'a str>,
    /// Last prepared toolset.
    pub current_toolset: Option<&'a str>,
    /// Stored preference.
    pub current_toolset_preference: &'a str,
    /// Static catalog.
    pub available_toolsets: &'a RawValue,
    /// Names of the tools of the last turn.
    pub current_loaded_tools: &'a RawValue,
    /// Skills of the last turn.
    pub current_available_skills: &'a RawValue,
    /// Running work of this conversation.
    pub background_processes: &'a [Value],
    /// Approvals that wait for a human.
    pub pending_control_requests: &'a [PendingControlRequest<'a>],
    /// Feature switches.
    pub experiments: &'a [Experiment],
    /// The agent's memory root.
    pub memory_directory: Option<&'a str>,
    /// Grows with every change of a working directory.
    pub cwd_revision: u64,
    /// Memory needs a look.
    pub should_doctor: bool,
    /// Slash commands that work here.
    pub supported_commands: &'a RawValue,
    /// Reflection of this agent.
    pub reflection_settings: Option<ReflectionSettings<'a>>,
}

/// One element of `experiments` (06 §13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Experiment {
    /// What it is set by.
    pub id: &'static str,
    /// What people call it.
    pub label: &'static str,
    /// What it does here.
    pub description: &'static str,
    /// Whether it is on.
    pub enabled: bool,
    /// `override` or `default`.
    pub source: &'static str,
    /// What the user set, where that is a setting of its own.
    pub r#override: Option<bool>,
}

/// `reflection_settings` (06 §13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ReflectionSettings<'a> {
    /// Whose.
    pub agent_id: &'a str,
    /// `off`, `step-count` or `compaction-event`.
    pub trigger: &'a str,
    /// Steps between two reflections.
    pub step_count: u64,
    /// `auto` or `explicit`.
    pub merge: &'a str,
    /// The user's own words on it.
    pub merge_instructions: &'a str,
}

/// Branch and recent branches of a working directory (06 §4.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GitContext {
    /// `None` when HEAD is detached.
    pub branch: Option<String>,
    /// At most ten others, newest commit first.
    pub recent_branches: Vec<String>,
}

/// One element of `pending_control_requests`.
#[derive(Debug, Serialize)]
pub struct PendingControlRequest<'a> {
    /// `perm-…`.
    pub request_id: &'a str,
    /// The request as sent.
    pub request: &'a CanUseTool,
}

/// `control_request` (02 §6.7).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ControlRequest {
    /// `perm-<tool_call_id>`.
    pub request_id: String,
    /// The question.
    pub request: CanUseTool,
    /// The agent.
    pub agent_id: Option<String>,
    /// The conversation.
    pub conversation_id: String,
}

/// The question of a `control_request`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CanUseTool {
    /// `can_use_tool`.
    pub subtype: CanUseToolTag,
    /// The tool.
    pub tool_name: String,
    /// Its arguments.
    pub input: Map<String, Value>,
    /// The call.
    pub tool_call_id: String,
    /// At most one.
    pub permission_suggestions: Vec<PermissionSuggestion>,
    /// Always null.
    pub blocked_path: (),
    /// Previews of what files would become.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diffs: Vec<Value>,
}

/// Serialises as `can_use_tool`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanUseToolTag;

impl Serialize for CanUseToolTag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("can_use_tool")
    }
}

/// A rule that an answer may save (02 §9.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PermissionSuggestion {
    /// `save-default`.
    pub id: &'static str,
    /// What a human reads.
    pub text: String,
}

/// One item of `update_queue` (02 §6.3).
#[derive(Debug, Serialize)]
pub struct QueueMessage<'a> {
    /// `q-<n>`.
    pub id: &'a str,
    /// The client's id, else `cm-<id>`.
    pub client_message_id: &'a str,
    /// What it is.
    pub kind: &'static str,
    /// Where it came from.
    pub source: &'static str,
    /// Message content or text.
    pub content: &'a Value,
    /// ISO time.
    pub enqueued_at: &'a str,
    /// Held back by an abort.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// An item that left the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueRemoval {
    /// The client's id, else `cm-<id>`.
    pub client_message_id: String,
    /// Why it left.
    pub disposition: Disposition,
}

/// How an item left the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// It entered a turn.
    Dequeued,
    /// It was removed, dropped by a limit, or lost its client.
    Cancelled,
}

/// `turn_finished` (02 §6.5).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TurnFinished {
    /// Id of the batch.
    pub turn_id: String,
    /// `end_turn`, `cancelled`, `error`, `max_steps`, or the server's reason.
    pub stop_reason: String,
    /// Its last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// What went wrong, as shown to the human.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Token counts, only for headless runtimes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Value>,
}

/// Lifecycle event of 00 §2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApprovalRequested {
    /// `perm-…`.
    pub request_id: String,
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub tool_name: String,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
}

/// Lifecycle event of 00 §2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApprovalReceived {
    /// `perm-…`.
    pub request_id: String,
    /// The call.
    pub tool_call_id: String,
    /// `allow` or `deny`.
    pub decision: &'static str,
    /// Reason or comment, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
}

/// Lifecycle event of 00 §2.
#[derive(Debug, Serialize)]
pub struct ToolExecutionStarted<'a> {
    /// The call.
    pub tool_call_id: &'a str,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<&'a str>,
}

/// Lifecycle event of 00 §2.
#[derive(Debug, Serialize)]
pub struct ToolExecutionFinished<'a> {
    /// The call.
    pub tool_call_id: &'a str,
    /// `success` or `error`.
    pub status: &'static str,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wire(event: &Event<'_>) -> Value {
        serde_json::to_value(event).unwrap()
    }

    #[test]
    fn a_loop_status_leaves_out_what_is_empty() {
        let state = LoopState {
            status: LoopStatus::WaitingOnInput,
            active_run_ids: &[],
            client_message_ids_by_run_id: None,
            executing_tool_call_ids: &[],
            plan_file_path: None,
        };
        assert_eq!(
            wire(&Event::UpdateLoopStatus {
                loop_status: &state
            }),
            json!({"type":"update_loop_status","loop_status":{"status":"WAITING_ON_INPUT","active_run_ids":[],"executing_tool_call_ids":[]}})
        );
    }

    #[test]
    fn lifecycle_deltas_carry_id_date_and_run_beside_their_body() {
        let body = Lifecycle::Status {
            message: "Interrupted".into(),
            level: Level::Warning,
        };
        let delta = Delta::Lifecycle {
            id: "lifecycle-1",
            date: "d",
            run_id: Some("run-1"),
            body: &body,
        };
        assert_eq!(
            wire(&Event::StreamDelta { delta }),
            json!({"type":"stream_delta","delta":{"id":"lifecycle-1","date":"d","run_id":"run-1","message_type":"status","message":"Interrupted","level":"warning"}})
        );
    }

    #[test]
    fn a_control_request_has_the_published_shape() {
        let request = ControlRequest {
            request_id: "perm-call-1".into(),
            request: CanUseTool {
                subtype: CanUseToolTag,
                tool_name: "Bash".into(),
                input: Map::new(),
                tool_call_id: "call-1".into(),
                permission_suggestions: vec![PermissionSuggestion {
                    id: "save-default",
                    text: "t".into(),
                }],
                blocked_path: (),
                diffs: vec![],
            },
            agent_id: None,
            conversation_id: "conv-1".into(),
        };
        assert_eq!(
            wire(&Event::ControlRequest(&request)),
            json!({"type":"control_request","request_id":"perm-call-1","request":{"subtype":"can_use_tool","tool_name":"Bash","input":{},"tool_call_id":"call-1","permission_suggestions":[{"id":"save-default","text":"t"}],"blocked_path":null},"agent_id":null,"conversation_id":"conv-1"})
        );
    }
}
