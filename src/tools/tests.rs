//! A bench for tools: a context in a directory of its own, and a fake tool.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::tool::{OutputStream, Progress, WorkingDirectory};
use super::{AgentSecrets, Lane, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};
use crate::events::{ConversationHandle, Injected, Recipient};
use crate::process::{BaseEnvironment, Processes, TurnFacts, Variables};
use crate::protocol::Scope;
use crate::subagents::{Delegation, Desk, Order};

/// A place to run tools in; everything under one temporary directory.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) context: ToolContext,
    pub(crate) cancel: CancellationToken,
    pub(crate) news: mpsc::UnboundedReceiver<(Recipient, Injected)>,
    pub(crate) progress: mpsc::UnboundedReceiver<(Arc<str>, Progress)>,
    output: mpsc::UnboundedSender<(Arc<str>, Progress)>,
    /// What is asked of the owner of all subagents.
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with_variables(&[])
    }

    pub(crate) fn with_variables(more: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cwd = dir.path().join("work");
        std::fs::create_dir(&cwd).unwrap();
        let scratch = dir.path().join("scratch");
        let mut vars: Variables = [
            ("PATH", std::env::var_os("PATH").unwrap_or_default()),
            ("SHELL", "/bin/sh".into()),
            ("LETTA_SCRATCHPAD", scratch.into_os_string()),
        ]
        .map(|(name, value)| (name.into(), value))
        .into();
        vars.extend(more.iter().map(|(name, value)| (name.into(), value.into())));
        let base = BaseEnvironment::new(vars, Path::new("/opt/letta"), None, None);
        let scope = Scope::new(Some("agent-1"), Some("conv-1"));
        let (mailbox, news) = mpsc::unbounded_channel();
        let (output, progress) = mpsc::unbounded_channel();
        let (desk, orders) = Desk::channel();
        let context = ToolContext {
            scope: scope.clone(),
            acting_user_id: Some("user-1".into()),
            cwd: WorkingDirectory::new(cwd),
            home: dir.path().to_path_buf(),
            letta_home: dir.path().join(".letta"),
            processes: Processes::new(base),
            conversation: ConversationHandle::new(scope, mailbox),
            facts: TurnFacts::default(),
            closed: Arc::default(),
            skill_sources: crate::skills::Source::ALL.into(),
            delegation: Delegation {
                desk,
                ..Delegation::default()
            },
            secrets: AgentSecrets::default(),
        };
        Self {
            dir,
            context,
            cancel: CancellationToken::new(),
            news,
            progress,
            output,
            orders,
        }
    }

    pub(crate) fn call(&self, name: &str, args: Map<String, Value>) -> ToolCall {
        let id: Arc<str> = "call-1".into();
        ToolCall {
            id: Arc::clone(&id),
            name: name.into(),
            args,
            cancel: self.cancel.clone(),
            output: OutputStream::new(id, self.output.clone()),
        }
    }

    pub(crate) async fn run(&self, tool: &dyn Tool, args: Map<String, Value>) -> ToolOutcome {
        let call = self.call(tool.name(), args);
        tool.run(&call, &self.context).await
    }

    /// The next notification; changes of what runs are passed over.
    pub(crate) async fn notification(&mut self) -> String {
        loop {
            match self.news.recv().await.unwrap().1 {
                Injected::TaskNotification {
                    text,
                    acting_user_id,
                } => {
                    assert_eq!(acting_user_id.as_deref(), Some("user-1"));
                    return text;
                }
                Injected::BackgroundChanged => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

pub(crate) fn args(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

pub(crate) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The text of a result, from its parts too.
pub(crate) fn text_of(outcome: &ToolOutcome) -> String {
    super::result::text_view(&outcome.tool_return)
}

type Act = Box<dyn Fn(ToolCall) -> ToolFuture<'static> + Send + Sync>;

/// A tool that does what a test says.
pub(crate) struct Fake {
    name: String,
    lane: Lane,
    parameters: Value,
    act: Act,
}

impl Fake {
    pub(crate) fn new(name: &str) -> Self {
        Self::acting(name, Lane::Global, |call| {
            Box::pin(async move { ToolOutcome::text(&*call.id) })
        })
    }

    pub(crate) fn acting(
        name: &str,
        lane: Lane,
        act: impl Fn(ToolCall) -> ToolFuture<'static> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.to_owned(),
            lane,
            parameters: json!({"type": "object", "required": ["must"]}),
            act: Box::new(act),
        }
    }
}

impl Tool for Fake {
    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> &str {
        "A tool of a test.\n"
    }

    fn parameters(&self) -> &Value {
        &self.parameters
    }

    fn lane(&self) -> Lane {
        self.lane
    }

    fn run<'a>(&'a self, call: &'a ToolCall, _context: &'a ToolContext) -> ToolFuture<'a> {
        (self.act)(call.clone())
    }
}
