//! Git as the worktree tools run it: one command at a time, in the
//! environment of the conversation, never asking anybody anything (04 §7.21).

use std::path::Path;
use std::time::Duration;

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::process::{Ending, Launch, Plan, StartError, Variables};
use crate::tools::tool::{ToolCall, ToolContext};

/// The longest that one command may take, unless it is said otherwise.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why a command came to nothing.
#[derive(Debug, Error)]
pub(super) enum GitError {
    /// The turn was aborted.
    #[error("Interrupted by user")]
    Aborted,
    /// It did not start.
    #[error("git could not be run: {0}")]
    Start(#[from] StartError),
    /// It took too long.
    #[error("git {command} took longer than {} s and was stopped.", .after.as_secs())]
    TimedOut {
        /// Its arguments.
        command: String,
        /// The limit.
        after: Duration,
    },
    /// It ended with an error.
    #[error("git {command} failed: {detail}")]
    Failed {
        /// Its arguments.
        command: String,
        /// What it printed.
        detail: String,
    },
}

/// What a command that ran came to.
#[derive(Debug)]
pub(super) struct Ran {
    /// Its exit code; `None` for a signal.
    pub(super) code: Option<i32>,
    /// Standard output without white space around it.
    pub(super) stdout: String,
    stderr: String,
}

/// Runs git for one call.
#[derive(Debug)]
pub(super) struct Git<'a> {
    context: &'a ToolContext,
    cancel: CancellationToken,
    env: Variables,
}

impl<'a> Git<'a> {
    /// For `call`: an abort of its turn ends the command.
    pub(super) fn new(call: &ToolCall, context: &'a ToolContext) -> Self {
        let mut env = context.processes.base().for_child(
            &context.scope,
            &context.cwd.get(),
            context.acting_user_id.as_deref(),
            &context.facts,
            &Default::default(),
        );
        for (name, value) in [
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GCM_INTERACTIVE", "never"),
            ("GIT_ASKPASS", ""),
            ("SSH_ASKPASS", ""),
            ("SSH_ASKPASS_REQUIRE", "never"),
            // Messages are read by programs here.
            ("LC_ALL", "C"),
        ] {
            env.insert(name.into(), value.into());
        }
        let ssh = env.entry("GIT_SSH_COMMAND".into()).or_default();
        if ssh.is_empty() {
            ssh.push("ssh");
        }
        ssh.push(" -o BatchMode=yes");
        Self {
            context,
            cancel: call.cancel.clone(),
            env,
        }
    }

    /// Runs `git arguments` in `directory`.
    pub(super) async fn run(&self, directory: &Path, arguments: &[&str]) -> Result<Ran, GitError> {
        self.run_for(PATIENCE, directory, arguments).await
    }

    /// Runs it for `patience` at most.
    pub(super) async fn run_for(
        &self,
        patience: Duration,
        directory: &Path,
        arguments: &[&str],
    ) -> Result<Ran, GitError> {
        let launch = Launch {
            argv: std::iter::once("git")
                .chain(arguments.iter().copied())
                .map(Into::into)
                .collect(),
            cwd: directory.to_path_buf(),
            env: self.env.clone(),
            terminal: None,
        };
        let plan = Plan {
            timeout: Some(patience),
            cancel: self.cancel.clone(),
            ..Plan::default()
        };
        let session = self.context.processes.start(launch, plan)?;
        let finished = session.finished().await;
        let (out, err) = session.take().await;
        let command = || arguments.join(" ");
        let code = match finished.ending {
            Ending::Aborted => return Err(GitError::Aborted),
            Ending::TimedOut(after) => {
                return Err(GitError::TimedOut {
                    command: command(),
                    after,
                });
            }
            Ending::Exited(code) => Some(code),
            _ => None,
        };
        let Some(stdout) = out.excerpt().whole() else {
            return Err(GitError::Failed {
                command: command(),
                detail: "it printed more than can be taken in".into(),
            });
        };
        Ok(Ran {
            code,
            stdout: stdout.trim().to_owned(),
            stderr: err.excerpt().last(2_000).trim().to_owned(),
        })
    }

    /// What it prints; it must succeed.
    pub(super) async fn text(
        &self,
        directory: &Path,
        arguments: &[&str],
    ) -> Result<String, GitError> {
        let ran = self.run(directory, arguments).await?;
        ran.text(arguments)
    }

    /// Whether it succeeds.
    pub(super) async fn succeeds(
        &self,
        directory: &Path,
        arguments: &[&str],
    ) -> Result<bool, GitError> {
        Ok(self.run(directory, arguments).await?.code == Some(0))
    }
}

impl Ran {
    /// What was printed, unless the command failed.
    pub(super) fn text(self, arguments: &[&str]) -> Result<String, GitError> {
        if self.code == Some(0) {
            return Ok(self.stdout);
        }
        let detail = [self.stderr, self.stdout]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or_else(|| "it gave no reason".into());
        Err(GitError::Failed {
            command: arguments.join(" "),
            detail,
        })
    }
}
