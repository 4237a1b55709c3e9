//! Write: a whole file, byte for byte what the model gave (04 §7.3).

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::{fs, io};

use serde_json::Value;

use super::args::{ArgError, Args, DRAFT_07, schema};
use super::offload::{self, Failure, Worked};
use super::text::count;
use super::tool::{Lane, Progress, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};
use super::{disk, paths};

const DESCRIPTION: &str = "\
Writes a file, replacing everything that was in it.

- file_path: best an absolute path. A relative path starts at the working directory; a leading ~ and $VARIABLES are expanded. Missing parent directories are created.
- The content is written byte for byte. An existing file keeps its permissions, and a symlink still points to the file that is written.
- For changes to an existing file prefer Edit: it sends only the change. Read an existing file before you replace it.
- Create new files, documentation above all, only where the task needs them.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "file_path": {"type": "string", "description": "The file to write, best as an absolute path"},
    "content": {"type": "string", "description": "The whole new content of the file"}
}"#,
        &["file_path", "content"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug, Default)]
pub struct Write;

impl Tool for Write {
    fn name(&self) -> &'static str {
        "Write"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn lane(&self) -> Lane {
        Lane::PerFile
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            let (path, content) = match request(call, context) {
                Ok(request) => request,
                Err(error) => return ToolOutcome::error(error.to_string()),
            };
            let (cwd, output) = (context.cwd.get(), call.output.clone());
            offload::change(call, move || {
                let outcome = write(&path, &content, &cwd)?;
                output.send(Progress::FileWritten { path, content });
                Ok(outcome)
            })
            .await
        })
    }
}

fn request(call: &ToolCall, context: &ToolContext) -> Result<(PathBuf, String), ArgError> {
    let args = Args::new("Write", &call.args);
    let path = paths::expanded(args.string("file_path")?, context);
    Ok((path, args.string("content")?.to_owned()))
}

fn write(path: &Path, content: &str, cwd: &Path) -> Worked {
    create_parents(path).map_err(|error| {
        Failure::new(match error.kind() {
            io::ErrorKind::PermissionDenied => format!("Permission denied: {}", path.display()),
            _ => format!(
                "Cannot create the parent directory of {}: {error}",
                path.display()
            ),
        })
    })?;
    disk::write(path, content.as_bytes(), None)
        .map_err(|error| Failure::new(error.for_model(cwd)))?;
    Ok(ToolOutcome::text(format!(
        "Successfully wrote {} characters to {}",
        count(content),
        path.display()
    )))
}

/// Creates the missing directories above a file.
pub(crate) fn create_parents(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.is_dir() => fs::create_dir_all(parent),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::trial::{Trial, special_files};

    #[tokio::test]
    async fn bytes_arrive_as_given_and_parents_are_made() {
        let mut trial = Trial::new();
        let content = "a\r\nb\né";
        let text = trial
            .ok(
                &Write,
                json!({"file_path": "new/dir/f", "content": content}),
            )
            .await;
        assert_eq!(text, "Successfully wrote 6 characters to <cwd>/new/dir/f");
        assert_eq!(trial.content("new/dir/f"), content);
        let path = trial.path("new/dir/f");
        assert_eq!(
            trial.progress(),
            [Progress::FileWritten {
                path,
                content: content.to_owned()
            }]
        );
        trial
            .ok(&Write, json!({"file_path": "new/dir/f", "content": ""}))
            .await;
        assert_eq!(trial.content("new/dir/f"), "");
    }

    #[tokio::test]
    async fn what_is_no_file_is_not_written() {
        let mut trial = Trial::new();
        trial.file("dir/f", "x");
        let write = |path: &str| json!({"file_path": path, "content": "y"});
        assert_eq!(
            trial.err(&Write, write("dir")).await,
            "Path is a directory, not a file: <cwd>/dir"
        );
        let text = trial.err(&Write, write("dir/f/g")).await;
        assert!(
            text.starts_with("Cannot create the parent directory of <cwd>/dir/f/g"),
            "{text}"
        );
        for (path, expected) in special_files(&trial) {
            let text = trial
                .err(&Write, json!({"file_path": path, "content": "y"}))
                .await;
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(
            trial
                .err(&Write, json!({"file_path": "f", "content": 1}))
                .await,
            "Write: Parameter 'content' must be a string, received integer"
        );
        trial.survives_bad_arguments(&Write).await;
        trial.cancel.cancel();
        assert_eq!(
            trial.err(&Write, write("late")).await,
            "Interrupted by user"
        );
        assert!(!trial.path("late").exists());
        assert_eq!(trial.content("dir/f"), "x");
        trial.progress();
    }
}
