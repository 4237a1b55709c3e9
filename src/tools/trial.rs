//! What the tests of single tools share: a home, a working directory, and one
//! call at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::tool::{
    OutputStream, Progress, Status, Tool, ToolCall, ToolContext, ToolOutcome, ToolReturn,
    WorkingDirectory,
};
use crate::events::ConversationHandle;
use crate::process::{BaseEnvironment, Processes, TurnFacts};
use crate::protocol::Scope;
use crate::tools::AgentSecrets;

/// A conversation that works in a directory of its own.
pub(crate) struct Trial {
    root: TempDir,
    pub(crate) context: ToolContext,
    pub(crate) cancel: CancellationToken,
    sender: mpsc::UnboundedSender<(Arc<str>, Progress)>,
    receiver: mpsc::UnboundedReceiver<(Arc<str>, Progress)>,
}

impl Trial {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir_in(fs::canonicalize(env::temp_dir()).unwrap()).unwrap();
        let (home, cwd) = (root.path().join("home"), root.path().join("work"));
        fs::create_dir_all(&home).unwrap();
        fs::create_dir_all(&cwd).unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            context: ToolContext {
                scope: Scope::new(Some("agent-1"), Some("conv-1")),
                acting_user_id: None,
                cwd: WorkingDirectory::new(cwd),
                letta_home: home.join(".letta"),
                home,
                processes: Processes::new(BaseEnvironment::new(
                    Default::default(),
                    Path::new("/opt/letta"),
                    None,
                    None,
                )),
                conversation: ConversationHandle::new(
                    Scope::new(Some("agent-1"), Some("conv-1")),
                    mpsc::unbounded_channel().0,
                ),
                facts: TurnFacts::default(),
                closed: Arc::default(),
                skill_sources: crate::skills::Source::ALL.into(),
                delegation: Default::default(),
                secrets: AgentSecrets::default(),
            },
            root,
            cancel: CancellationToken::new(),
            sender,
            receiver,
        }
    }

    /// A path below the working directory, as it was at the start.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("work").join(name)
    }

    /// Writes a file below the working directory, parents too.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn content(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// One call, to its end.
    pub(crate) async fn run(&self, tool: &dyn Tool, args: Value) -> ToolOutcome {
        let Value::Object(args) = args else {
            panic!("arguments are an object")
        };
        let id: Arc<str> = "call-1".into();
        let call = ToolCall {
            id: id.clone(),
            name: tool.name().into(),
            args,
            cancel: self.cancel.clone(),
            output: OutputStream::new(id, self.sender.clone()),
        };
        tool.run(&call, &self.context).await
    }

    /// The text of a call that succeeds; this directory's own path is `<cwd>`.
    pub(crate) async fn ok(&self, tool: &dyn Tool, args: Value) -> String {
        let outcome = self.run(tool, args).await;
        let text = self.shown(&outcome);
        assert_eq!(outcome.status, Status::Success, "{text}");
        text
    }

    /// The text of a call that fails.
    pub(crate) async fn err(&self, tool: &dyn Tool, args: Value) -> String {
        let outcome = self.run(tool, args).await;
        let text = self.shown(&outcome);
        assert_eq!(outcome.status, Status::Error, "{text}");
        text
    }

    fn shown(&self, outcome: &ToolOutcome) -> String {
        let text = match &outcome.tool_return {
            ToolReturn::Text(text) => text.clone(),
            ToolReturn::Parts(parts) => parts
                .iter()
                .map(|part| part["text"].as_str().unwrap_or("<image>"))
                .collect::<Vec<_>>()
                .join("|"),
        };
        text.replace(&self.path("").display().to_string(), "<cwd>/")
            .replace(
                self.path("").display().to_string().trim_end_matches('/'),
                "<cwd>",
            )
    }

    /// What was sent while calls ran.
    pub(crate) fn progress(&mut self) -> Vec<Progress> {
        let mut all = Vec::new();
        while let Ok((_, progress)) = self.receiver.try_recv() {
            all.push(progress);
        }
        all
    }

    /// Calls `tool` with every kind of bad argument: each must come to an
    /// outcome, and a missing required argument to an error that names it.
    pub(crate) async fn survives_bad_arguments(&self, tool: &dyn Tool) {
        let properties = tool.parameters()["properties"].as_object().unwrap().clone();
        let required: Vec<String> = tool.parameters()["required"]
            .as_array()
            .map(|names| {
                names
                    .iter()
                    .map(|n| n.as_str().unwrap().to_owned())
                    .collect()
            })
            .unwrap_or_default();
        if let Some(first) = required.first() {
            let text = self.err(tool, serde_json::json!({})).await;
            assert!(text.contains(first.as_str()), "{text}");
        }
        let huge = "x".repeat(1 << 20);
        let bad = [
            Value::Null,
            Value::Bool(true),
            serde_json::json!(-1),
            serde_json::json!(1e308),
            serde_json::json!(2.5),
            serde_json::json!(""),
            serde_json::json!("\0"),
            serde_json::json!("/dev/zero"),
            serde_json::json!(huge),
            serde_json::json!([]),
            serde_json::json!([null, 1, {"a": []}]),
            serde_json::json!({}),
        ];
        for name in properties.keys() {
            for value in &bad {
                let mut args = serde_json::Map::new();
                for other in &required {
                    args.insert(other.clone(), serde_json::json!("nowhere"));
                }
                args.insert("unknown argument".to_owned(), Value::Null);
                args.insert(name.clone(), value.clone());
                let outcome = self.run(tool, Value::Object(args)).await;
                if value.is_null() && required.contains(name) {
                    assert_eq!(outcome.status, Status::Error, "{name}");
                }
            }
        }
    }
}

/// What no file tool may hang on or read: `(path, part of the error)`.
pub(crate) fn special_files(trial: &Trial) -> Vec<(PathBuf, &'static str)> {
    let pipe = trial.path("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let socket = trial.path("socket");
    // The socket file stays when the listener is gone.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let link = trial.path("loop");
    std::os::unix::fs::symlink(&link, &link).unwrap();
    vec![
        (pipe, "named pipe"),
        (socket, "socket"),
        (Path::new("/dev/zero").to_path_buf(), "character device"),
        (link, "symbolic links"),
    ]
}
