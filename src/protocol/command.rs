//! The commands that a client sends, after their shape was checked (spec 02 §5).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{PermissionMode, Scope};

/// One accepted command.
#[derive(Debug)]
pub enum Command {
    /// `app_server_info` (02 §5.1).
    AppServerInfo,
    /// `runtime_start` (02 §5.2).
    RuntimeStart(Box<RuntimeStart>),
    /// `input` with `kind: create_message`, also from a legacy `message` (02 §5.3).
    CreateMessage(Box<CreateMessage>),
    /// `input` with `kind: approval_response` (02 §5.4).
    ApprovalResponse(ApprovalResponse),
    /// `sync` (02 §5.7).
    Sync(Sync),
    /// `abort_message` (02 §5.8); the run it means, if it names one.
    AbortMessage {
        /// Ignored unless it is the active run.
        run_id: Option<String>,
    },
    /// `change_device_state` (02 §5.9).
    ChangeDeviceState(ChangeDeviceState),
    /// `resume_queue` (02 §5.10).
    ResumeQueue,
    /// `launch_subagent` (02 §5.14).
    LaunchSubagent {
        /// Arguments of the Agent tool.
        args: Map<String, Value>,
        /// The call that it belongs to.
        tool_call_id: Option<String>,
    },
    /// `remove_queue_item` (02 §5.10).
    RemoveQueueItem {
        /// `q-<n>`.
        item_id: String,
    },
    /// `runtime_external_tools_update` (02 §5.11).
    ExternalToolsUpdate(Vec<ExternalToolsUpdate>),
    /// `external_tool_call_response` (02 §5.11).
    ExternalToolCallResponse {
        /// The call's `request_id`.
        call_id: String,
        /// `result`, when there is one.
        result: Option<Map<String, Value>>,
        /// `error`, when there is one.
        error: Option<String>,
    },
    /// `execute_command` (02 §5.15).
    ExecuteCommand {
        /// The slash command without its slash.
        command_id: String,
        /// Everything behind it.
        args: Option<String>,
    },
    /// `monitor_stop` (02 §5.13).
    MonitorStop {
        /// The background process.
        process_id: String,
    },
    /// Any other known command: its area under `device/` reads the body itself.
    Device {
        /// `type` of the frame.
        kind: &'static str,
        /// The whole frame.
        body: Map<String, Value>,
    },
}

/// `runtime_start`: create or adopt a conversation and subscribe to it.
#[derive(Debug, Default)]
pub struct RuntimeStart {
    /// An existing agent.
    pub agent_id: Option<String>,
    /// Create an agent first: `{body, pin_global?, memfs?}`.
    pub create_agent: Option<Map<String, Value>>,
    /// An existing conversation, or `default`.
    pub conversation_id: Option<String>,
    /// Create a conversation: `{body?}`.
    pub create_conversation: Option<Map<String, Value>>,
    /// Tags to add to the conversation.
    pub conversation_source_tags: Vec<String>,
    /// `Some(None)` = the boot directory, `None` = unchanged.
    pub cwd: Option<Option<String>>,
    /// As sent; checked by the handler so that an unknown name gets an answer.
    pub mode: Option<String>,
    /// Launch options of a headless runtime.
    pub execution_settings: Option<ExecutionSettings>,
    /// File-system boundary: `{root, isolation_root}`.
    pub workspace_sandbox: Option<Map<String, Value>>,
    /// Default true.
    pub recover_approvals: bool,
    /// Default true.
    pub force_device_status: bool,
    /// Replay before the response instead of after it. Default false.
    pub wait_for_replay: bool,
    /// Where skills come from, names already checked; `None` is everywhere.
    pub skill_sources: Option<Vec<String>>,
    /// Expect a teleport; declined.
    pub teleport_id: Option<String>,
    /// This connection's tools for the scope; `None` removes them.
    pub external_tools: Option<Vec<ExternalToolGroup>>,
}

/// Launch options of a headless runtime (02 §5.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecutionSettings {
    /// As received, echoed in the response.
    pub raw: Map<String, Value>,
    /// Rules that allow.
    pub allowed_tools: Vec<String>,
    /// Rules that deny.
    pub disallowed_tools: Vec<String>,
    /// Switches the cross-agent memory guard off.
    pub disable_memory_guard: bool,
    /// Allowlist of tools.
    pub tools: Option<Vec<String>>,
    /// Ends a turn after so many steps.
    pub max_turns: Option<u64>,
    /// Skills whose text goes in front of the task.
    pub preload_skills: Vec<String>,
    /// It works for another agent: `agent_role` is `subagent`.
    pub is_subagent: bool,
    /// The agent that it works for.
    pub parent_agent_id: Option<String>,
    /// A transcript, for its tools.
    pub transcript_path: Option<String>,
    /// The memory that its tools find, instead of the agent's own.
    pub memory_directory: Option<String>,
}

/// Tools of one controller: `{scope_id?, tools}` (02 §5.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalToolGroup {
    /// Only turns that name this scope see the tools.
    pub scope_id: Option<String>,
    /// `{name, description, parameters, label?}`.
    pub tools: Vec<ExternalToolSpec>,
}

/// One tool of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalToolSpec {
    /// Name for the model.
    pub name: String,
    /// Description for the model.
    pub description: String,
    /// JSON schema of its arguments.
    pub parameters: Map<String, Value>,
}

/// New external tools for some runtimes.
#[derive(Debug)]
pub struct ExternalToolsUpdate {
    /// The runtimes, at least one.
    pub runtimes: Vec<Scope>,
    /// What replaces the connection's tools there.
    pub groups: Vec<ExternalToolGroup>,
}

/// `input` / `create_message`: user input for a turn (02 §5.3).
#[derive(Clone, Debug, Default)]
pub struct CreateMessage {
    /// The messages as received: `{role, content, client_message_id?, otid?, …}`.
    pub messages: Vec<Map<String, Value>>,
    /// Options of the turn.
    pub options: InputOptions,
}

/// Options that come with an input and hold for its turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputOptions {
    /// What happens to an image that cannot be prepared.
    pub image_failure_mode: ImageFailureMode,
    /// Only these local tools; empty = none.
    pub client_tool_allowlist: Option<Vec<String>>,
    /// Base toolset of the request.
    pub toolset_base: Option<String>,
    /// Tools added by name.
    pub toolset_include: Vec<String>,
    /// Scopes of external tools to expose.
    pub external_tool_scope_ids: Vec<String>,
    /// Drop tools that ask the human.
    pub exclude_interactive_tools: bool,
    /// Structured output, validated by the handler.
    pub response_format: Option<Value>,
    /// The human who pressed send (02 §2.2).
    pub acting_user_id: Option<String>,
}

/// Policy for images that cannot be prepared (03 §17).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageFailureMode {
    /// The turn fails.
    #[default]
    Strict,
    /// The image is left out.
    Drop,
}

/// `input` / `approval_response`: the answer to a `control_request` (02 §5.4).
#[derive(Clone, Debug, PartialEq)]
pub struct ApprovalResponse {
    /// `perm-<tool_call_id>`.
    pub request_id: String,
    /// What was decided.
    pub answer: ApprovalAnswer,
}

/// The decision of a human, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub enum ApprovalAnswer {
    /// Run it.
    Allow {
        /// A comment for the model.
        message: Option<String>,
        /// Replaces the whole argument object.
        updated_input: Option<Map<String, Value>>,
        /// Suggestions to save: `save-default`.
        suggestions: Vec<String>,
    },
    /// Do not run it.
    Deny {
        /// Reason for the model; may be empty.
        message: String,
    },
    /// The client could not ask.
    Error(String),
}

/// `sync`: replay the state of a scope to this connection (02 §5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Look for approvals that the server still waits for. Default true.
    pub recover_approvals: bool,
    /// Continue an interrupted turn at once. Default false.
    pub resume_interrupted_turn: bool,
    /// Send the device status even if unchanged. Default false.
    pub force_device_status: bool,
}

/// `change_device_state`: mode and working directory (02 §5.9).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeDeviceState {
    /// As sent; unknown names are answered with a notice.
    pub mode: Option<String>,
    /// As sent; empty = none.
    pub cwd: Option<String>,
}

impl ChangeDeviceState {
    /// The mode asked for: `None` when none was given, `Err` with the name when unknown.
    ///
    /// # Errors
    /// The unknown name.
    pub fn parsed_mode(&self) -> Result<Option<PermissionMode>, &str> {
        match self.mode.as_deref() {
            None | Some("") => Ok(None),
            Some(name) => PermissionMode::parse(name).map(Some).ok_or(name),
        }
    }
}

/// Which client messages each recent run consumed (02 §6.2).
pub type ClientMessagesByRun = BTreeMap<String, Vec<String>>;
