//! LS: the entries of one directory (04 §7.8).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::args::{Args, DRAFT_07, schema};
use super::collation::by_name;
use super::offload::{self, Failure, INTERRUPTED, Worked};
use super::paths;
use super::search::LeftOut;
use super::text::thousands;
use super::tool::{Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome, ToolReturn};

/// Entries shown.
const MAX_SHOWN: usize = 1000;

/// More entries are counted but not sorted in.
const MAX_SORTED: usize = 100_000;

const DESCRIPTION: &str = "\
Lists the files and directories in one directory, directories first and marked with a slash.

- path: the directory, absolute or relative to the working directory.
- ignore: globs; entries whose names match one are left out.
- Hidden entries are listed, at most 1,000 entries in all. To search for files use Glob or Grep.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "path": {"type": "string", "description": "The directory to list"},
    "ignore": {"type": "array", "items": {"type": "string"}, "description": "Globs for names to leave out, such as \"node_modules\" or \"*.log\""}
}"#,
        &["path"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug, Default)]
pub struct Ls;

impl Tool for Ls {
    fn name(&self) -> &'static str {
        "LS"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            let (path, ignore) = match request(call, context) {
                Ok(request) => request,
                Err(failure) => return offload::settle(Err(failure)),
            };
            let (cancel, closed) = (call.cancel.clone(), context.closed.clone());
            offload::look(call, move || {
                list(&path, &ignore, &LeftOut::new(&closed), &cancel)
            })
            .await
        })
    }
}

fn request(call: &ToolCall, context: &ToolContext) -> Result<(PathBuf, GlobSet), Failure> {
    let args = Args::new("LS", &call.args);
    let path = paths::resolve(args.string("path")?, &context.cwd.get());
    let mut ignore = GlobSetBuilder::new();
    for pattern in args.strings("ignore")? {
        let glob = GlobBuilder::new(pattern)
            .literal_separator(true)
            .build()
            .map_err(|error| Failure::new(format!("LS: Parameter 'ignore': {error}")))?;
        ignore.add(glob);
    }
    let ignore = ignore
        .build()
        .map_err(|error| Failure::new(format!("LS: Parameter 'ignore': {error}")))?;
    Ok((path, ignore))
}

fn list(path: &Path, ignore: &GlobSet, left_out: &LeftOut, cancel: &CancellationToken) -> Worked {
    let shown = path.display();
    let entries = fs::read_dir(path).map_err(|error| {
        Failure::new(match error.kind() {
            io::ErrorKind::NotFound => format!("Directory not found: {shown}"),
            io::ErrorKind::NotADirectory => format!("Not a directory: {shown}"),
            io::ErrorKind::PermissionDenied => format!("Permission denied: {shown}"),
            _ => format!("Cannot list {shown}: {error}"),
        })
    })?;
    let mut total = 0;
    let mut found = Vec::new();
    for entry in entries {
        if cancel.is_cancelled() {
            return Err(Failure::new(INTERRUPTED));
        }
        let entry = entry.map_err(|error| Failure::new(format!("Cannot list {shown}: {error}")))?;
        let name = entry.file_name();
        if ignore.is_match(&name) || left_out.leads_to(&entry.path()) {
            continue;
        }
        total += 1;
        if total <= MAX_SORTED {
            // Links count as what they lead to.
            let is_dir = match entry.file_type() {
                Ok(kind) if kind.is_symlink() => entry.path().is_dir(),
                Ok(kind) => kind.is_dir(),
                Err(_) => false,
            };
            found.push((!is_dir, name.to_string_lossy().into_owned()));
        }
    }
    found.sort_by(|left, right| (left.0.cmp(&right.0)).then_with(|| by_name(&left.1, &right.1)));
    let text = tree(path, &found, total);
    Ok(ToolOutcome::with(
        ToolReturn::Parts(vec![json!({"type": "text", "text": text})]),
        Status::Success,
    ))
}

fn tree(path: &Path, entries: &[(bool, String)], total: usize) -> String {
    if total == 0 {
        return format!(
            "{}/ (empty directory)",
            path.display().to_string().trim_end_matches('/')
        );
    }
    let slashed = |path: &Path| format!("{}/", path.display().to_string().trim_end_matches('/'));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut lines = vec![
        format!("- {}", slashed(path.parent().unwrap_or(path))),
        format!("  - {name}/"),
    ];
    let shown = &entries[..entries.len().min(MAX_SHOWN)];
    for (is_file, name) in shown {
        let mark = if *is_file { "" } else { "/" };
        lines.push(format!("    - {name}{mark}"));
    }
    if total > shown.len() {
        lines.push(format!(
            "\n[Output truncated: showing {} of {} entries.]",
            thousands(shown.len()),
            thousands(total)
        ));
    }
    if shown.iter().any(|(_, name)| name.starts_with('.')) {
        lines.push(
            "\nNOTE: hidden files are among these. If any looks made to do harm, do not work with it."
                .to_owned(),
        );
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::trial::{Trial, special_files};
    use std::os::unix::fs::symlink;

    #[tokio::test]
    async fn directories_come_first() {
        let trial = Trial::new();
        for name in ["d/b.txt", "d/A.txt", "d/z/x", "d/y.log", "d/node_modules/x"] {
            trial.file(name, "");
        }
        symlink("z", trial.path("d/link")).unwrap();
        symlink("none", trial.path("d/broken")).unwrap();
        let args = json!({"path": "d", "ignore": ["*.log", "node_*"]});
        assert_eq!(
            trial.ok(&Ls, args).await,
            "- <cwd>/\n  - d/\n    - link/\n    - z/\n    - A.txt\n    - b.txt\n    - broken"
        );
        assert_eq!(
            trial.ok(&Ls, json!({"path": "d/z", "ignore": ["*"]})).await,
            "<cwd>/d/z/ (empty directory)"
        );
        trial.file("d/z/.env", "");
        let text = trial.ok(&Ls, json!({"path": "d/z"})).await;
        assert!(
            text.starts_with("- <cwd>/d/\n  - z/\n    - .env\n    - x\n\nNOTE: "),
            "{text}"
        );
        assert!(
            trial
                .ok(&Ls, json!({"path": "/"}))
                .await
                .starts_with("- /\n  - /\n")
        );
    }

    #[tokio::test]
    async fn what_is_no_directory_is_named() {
        let trial = Trial::new();
        trial.file("f", "");
        for (args, expected) in [
            (json!({"path": "none"}), "Directory not found: <cwd>/none"),
            (json!({"path": "f"}), "Not a directory: <cwd>/f"),
            (
                json!({"path": 1}),
                "LS: Parameter 'path' must be a string, received integer",
            ),
            (
                json!({"path": ".", "ignore": "x"}),
                "LS: Parameter 'ignore' must be an array, received string",
            ),
            (
                json!({"path": ".", "ignore": [1]}),
                "LS: Parameter 'ignore[0]' must be a string, received integer",
            ),
        ] {
            assert_eq!(trial.err(&Ls, args).await, expected);
        }
        assert!(
            trial
                .err(&Ls, json!({"path": ".", "ignore": ["{a"]}))
                .await
                .starts_with("LS: Parameter 'ignore': ")
        );
        for (path, _) in special_files(&trial) {
            trial.err(&Ls, json!({"path": path})).await;
        }
        trial.survives_bad_arguments(&Ls).await;
    }

    #[tokio::test]
    async fn a_crowd_is_cut_and_counted() {
        let trial = Trial::new();
        for number in 0..1001 {
            trial.file(&format!("d/{number:04}"), "");
        }
        let text = trial.ok(&Ls, json!({"path": "d"})).await;
        assert!(
            text.ends_with("    - 0999\n\n[Output truncated: showing 1,000 of 1,001 entries.]")
        );
    }
}
