//! The contract of a tool: a name, a description and a schema for the model,
//! a lane that says what it may run beside, and `run`.
//!
//! A tool never fails the turn: whatever goes wrong becomes a [`ToolOutcome`]
//! with status `error` and a text that tells the model what to do (04 §8).

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::protocol::Scope;

/// The future of one running call.
pub type ToolFuture<'a> = Pin<Box<dyn Future<Output = ToolOutcome> + Send + 'a>>;

/// One tool.
pub trait Tool: Send + Sync {
    /// The name in `client_tools` and in tool calls.
    fn name(&self) -> &'static str;

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
}

/// A conversation's working directory, shared by the calls of a turn.
#[derive(Clone, Debug)]
pub struct WorkingDirectory(Arc<Mutex<PathBuf>>);

impl WorkingDirectory {
    /// Starts at `path`, absolute.
    pub fn new(path: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(path)))
    }

    /// The directory now.
    pub fn get(&self) -> PathBuf {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Moves to `path`, absolute.
    pub fn set(&self, path: &Path) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = path.to_path_buf();
    }
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

    /// A result without line arrays.
    pub fn with(tool_return: ToolReturn, status: Status) -> Self {
        Self {
            tool_return,
            status,
            stdout: None,
            stderr: None,
        }
    }
}
