//! SetWorkingDirectory: move the conversation to another directory (04 §7.11).
//!
//! The tool moves [`ToolContext::cwd`]; the conversation sees the move there
//! and keeps it, tells its clients and re-arms its reminders.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::{fs, io};

use serde_json::{Value, json};

use super::args::{Args, DRAFT_2020_12, schema};
use super::offload::{self, Failure};
use super::paths;
use super::tool::{Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome, ToolReturn};

const DESCRIPTION: &str = "\
Changes the working directory of this conversation.

- path may be absolute, relative to the present directory, or start with ~. It must be an existing directory; symlinks are resolved.
- Commands and relative paths of later tool calls start there, also in later turns. A cd inside a shell command lasts only for that command.
- The instructions and skills of the new directory count from the next turn on.
- Use it when the work moves to another project or checkout, not for a single command.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "path": {"type": "string", "description": "The directory to work in"}
}"#,
        &["path"],
        DRAFT_2020_12,
    )
});

/// The tool.
#[derive(Debug, Default)]
pub struct SetWorkingDirectory;

impl Tool for SetWorkingDirectory {
    fn name(&self) -> &'static str {
        "SetWorkingDirectory"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            let path = match Args::new("SetWorkingDirectory", &call.args).string("path") {
                Ok(path) => path.trim(),
                Err(error) => return ToolOutcome::error(error.to_string()),
            };
            if path.is_empty() {
                return ToolOutcome::error("Provide a directory path.");
            }
            let path = paths::with_home(path, &context.home, &context.cwd.get());
            let cwd = context.cwd.clone();
            offload::change(call, move || {
                let real = directory(&path)?;
                cwd.set(&real);
                let text = format!(
                    "The working directory is now {}. Later tool calls start there; its project instructions and skills are loaded with the next turn.",
                    real.display()
                );
                Ok(ToolOutcome::with(
                    ToolReturn::Parts(vec![json!({"type": "text", "text": text})]),
                    Status::Success,
                ))
            })
            .await
        })
    }
}

/// The real path of a directory that can be entered.
fn directory(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: io::Error| {
        Failure::new(format!(
            "Failed to change working directory: {error}: {}",
            path.display()
        ))
    };
    let real = fs::canonicalize(path).map_err(failed)?;
    if !fs::metadata(&real).map_err(failed)?.is_dir() {
        return Err(Failure::new(format!("Not a directory: {}", path.display())));
    }
    // Without the right to enter it, every later call would fail.
    let may_enter = rustix::fs::access(&real, rustix::fs::Access::EXEC_OK);
    may_enter.map_err(|error| failed(error.into()))?;
    Ok(real)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::trial::Trial;
    use std::os::unix::fs::symlink;

    #[tokio::test]
    async fn the_conversation_moves_to_the_real_directory() {
        let trial = Trial::new();
        fs::create_dir_all(trial.path("a/b")).unwrap();
        symlink(trial.path("a/b"), trial.path("link")).unwrap();
        for (path, expected) in [
            (" a ", trial.path("a")),
            ("b", trial.path("a/b")),
            ("../../link", trial.path("a/b")),
            ("~", trial.context.home.clone()),
        ] {
            let text = trial.ok(&SetWorkingDirectory, json!({"path": path})).await;
            assert!(text.starts_with("The working directory is now "), "{text}");
            assert_eq!(trial.context.cwd.get(), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn what_is_no_directory_changes_nothing() {
        let trial = Trial::new();
        trial.file("f", "x");
        symlink(trial.path("loop"), trial.path("loop")).unwrap();
        let before = trial.context.cwd.get();
        for (path, expected) in [
            ("  ", "Provide a directory path."),
            ("f", "Not a directory: <cwd>/f"),
            (
                "none",
                "Failed to change working directory: No such file or directory",
            ),
            (
                "loop",
                "Failed to change working directory: Too many levels of symbolic links",
            ),
            ("/dev/null", "Not a directory: /dev/null"),
        ] {
            let text = trial.err(&SetWorkingDirectory, json!({"path": path})).await;
            assert!(text.starts_with(expected), "{text}");
        }
        assert_eq!(trial.context.cwd.get(), before);
        trial.survives_bad_arguments(&SetWorkingDirectory).await;
    }
}
