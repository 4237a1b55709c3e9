//! The contract of a tool: a name, a description and a schema for the model,
//! a lane that says what it may run beside, and `run`.
//!
//! A tool never fails the turn: whatever goes wrong becomes a [`ToolOutcome`]
//! with status `error` and a text that tells the model what to do (04 §8).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::events::ConversationHandle;
use crate::process::{Processes, TurnFacts};
use crate::protocol::Scope;
use crate::subagents::Delegation;

/// The future of one running call.
pub type ToolFuture<'a> = Pin<Box<dyn Future<Output = ToolOutcome> + Send + 'a>>;

/// One tool.
pub trait Tool: Send + Sync {
    /// The name in `client_tools` and in tool calls.
    fn name(&self) -> &str;

    /// What the model is told.
    fn description(&self) -> &str;

    /// The JSON schema of the arguments (04 §7).
    fn parameters(&self) -> &Value;

    /// What a call may run beside.
    fn lane(&self) -> Lane {
        Lane::Global
    }

    /// Runs one call to its end, or until `call.cancel` fires.
    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a>;
}

/// Scheduling class of a tool inside one batch (04 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Runs beside everything.
    Parallel,
    /// One at a time per normalised `file_path`.
    PerFile,
    /// One at a time among all of this lane, in decision order.
    Global,
}

/// One approved call.
#[derive(Clone, Debug)]
pub struct ToolCall {
    /// `tool_call_id`.
    pub id: Arc<str>,
    /// The name the model used.
    pub name: Arc<str>,
    /// The arguments, after a human's edits.
    pub args: Map<String, Value>,
    /// Fires when the turn is aborted.
    pub cancel: CancellationToken,
    /// Takes live output.
    pub output: OutputStream,
}

/// What runs while a call is under way besides its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A chunk of standard output, scrubbed of secrets and ANSI sequences.
    Stdout(String),
    /// A chunk of standard error, the same.
    Stderr(String),
    /// Files of the agent's memory were committed, by their paths below it.
    MemoryChanged(Vec<String>),
    /// A file was written: its absolute path and new text (04 §4.5).
    FileWritten {
        /// Absolute path.
        path: PathBuf,
        /// The whole new text.
        content: String,
    },
}

/// Where a call's [`Progress`] goes; a closed stream swallows it.
#[derive(Clone, Debug)]
pub struct OutputStream(mpsc::UnboundedSender<(Arc<str>, Progress)>, Arc<str>);

impl OutputStream {
    /// A stream for the call `id` into `sender`.
    pub fn new(id: Arc<str>, sender: mpsc::UnboundedSender<(Arc<str>, Progress)>) -> Self {
        Self(sender, id)
    }

    /// Sends one piece of progress.
    pub fn send(&self, progress: Progress) {
        // The reader ends with the turn; what comes later has no reader by design.
        let _ = self.0.send((self.1.clone(), progress));
    }
}

/// What every call of one turn shares.
#[derive(Clone, Debug)]
pub struct ToolContext {
    /// The conversation.
    pub scope: Scope,
    /// The human of the turn, if the cloud named one.
    pub acting_user_id: Option<Arc<str>>,
    /// Where the conversation works; tools may change it.
    pub cwd: WorkingDirectory,
    /// The user's home directory.
    pub home: PathBuf,
    /// `~/.letta`.
    pub letta_home: PathBuf,
    /// The owner of all children.
    pub processes: Processes,
    /// The conversation's mailbox, for news of background work.
    pub conversation: ConversationHandle,
    /// What children are told of the turn.
    pub facts: TurnFacts,
    /// Files and directories that no search or listing shows, because they hold
    /// credentials; empty in mode `unrestricted` (00 §6).
    pub closed: Arc<[PathBuf]>,
    /// Where skills of this conversation may come from.
    pub skill_sources: Arc<[crate::skills::Source]>,
    /// Asks for subagents.
    pub delegation: Delegation,
    /// The agent's secrets; a command gets those that it names (04 §4.7).
    pub secrets: AgentSecrets,
}

/// An agent's secrets by name. Never printed.
#[derive(Clone, Default)]
pub struct AgentSecrets(pub Arc<BTreeMap<String, String>>);

impl fmt::Debug for AgentSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentSecrets({} values)", self.0.len())
    }
}

/// A conversation's working directory, shared by the calls of a turn.
#[derive(Clone, Debug)]
pub struct WorkingDirectory(Arc<Mutex<Whereabouts>>);

#[derive(Debug)]
struct Whereabouts {
    path: PathBuf,
    /// The directory that was found missing, until somebody was told.
    lost: Option<PathBuf>,
}

impl WorkingDirectory {
    /// Starts at `path`, absolute.
    pub fn new(path: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(Whereabouts { path, lost: None })))
    }

    /// The directory now.
    pub fn get(&self) -> PathBuf {
        self.lock().path.clone()
    }

    /// Moves to `path`, absolute.
    pub fn set(&self, path: &Path) {
        self.lock().path = path.to_path_buf();
    }

    /// The directory now, or, when it is gone, the first of `fallbacks` that is
    /// there: the conversation stays there, and [`Self::take_lost`] tells once
    /// which was lost (04 §5.1).
    pub async fn usable(&self, fallbacks: &[PathBuf]) -> PathBuf {
        let path = self.get();
        if is_directory(&path).await {
            return path;
        }
        let mut found = PathBuf::from("/");
        for fallback in fallbacks {
            if is_directory(fallback).await {
                found.clone_from(fallback);
                break;
            }
        }
        *self.lock() = Whereabouts {
            path: found.clone(),
            lost: Some(path),
        };
        found
    }

    /// The directory that was lost, the first time after it was.
    pub fn take_lost(&self) -> Option<PathBuf> {
        self.lock().lost.take()
    }

    fn lock(&self) -> MutexGuard<'_, Whereabouts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn is_directory(path: &Path) -> bool {
    path.is_absolute()
        && tokio::fs::metadata(path)
            .await
            .is_ok_and(|found| found.is_dir())
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It did what it should.
    Success,
    /// It did not; the text says why.
    Error,
}

impl Status {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
        }
    }
}

/// What the model gets back (04 §4.8).
#[derive(Clone, Debug, PartialEq)]
pub enum ToolReturn {
    /// Plain text.
    Text(String),
    /// Content parts: `{type:"text",…}` and `{type:"image",…}` objects.
    Parts(Vec<Value>),
}

/// The result of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolOutcome {
    /// Text or parts for the model.
    pub tool_return: ToolReturn,
    /// Success or error.
    pub status: Status,
    /// Lines of standard output, only from `shell` and `shell_command`.
    pub stdout: Option<Vec<String>>,
    /// Lines of standard error, the same.
    pub stderr: Option<Vec<String>>,
    /// A text that follows the results as a user message of its own (04 §7.9).
    pub follow_up: Option<String>,
}

impl ToolOutcome {
    /// A successful plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::with(ToolReturn::Text(text.into()), Status::Success)
    }

    /// A failure in plain text.
    pub fn error(text: impl Into<String>) -> Self {
        Self::with(ToolReturn::Text(text.into()), Status::Error)
    }

    /// What the model reads of a call that was aborted, to the letter (04 §4.3).
    pub fn interrupted() -> Self {
        Self::error("Interrupted by user")
    }

    /// One text part, as Bash answers.
    pub fn part(text: impl Into<String>, status: Status) -> Self {
        let part = json!({"type": "text", "text": text.into()});
        Self::with(ToolReturn::Parts(vec![part]), status)
    }

    /// A result without line arrays.
    pub fn with(tool_return: ToolReturn, status: Status) -> Self {
        Self {
            tool_return,
            status,
            stdout: None,
            stderr: None,
            follow_up: None,
        }
    }
}
