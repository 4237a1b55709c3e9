//! Glob: find files by their names (04 §7.7).

use std::sync::LazyLock;

use serde_json::Value;

use super::args::{Args, DRAFT_07, schema};
use super::grep::{notices, tree};
use super::offload::{self, Failure, Worked};
use super::overflow::Overflow;
use super::search::{Budget, SearchError, Stop, TOOL_TIME, Tree, list};
use super::text::plural;
use super::tool::{Lane, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};

/// More files are not shown.
const MAX_FILES: usize = 2000;

const DESCRIPTION: &str = "\
Finds files whose names match a glob.

- pattern: * matches within a name, ** across directories, ? one character, {a,b} either, [a-z] a range. Without a slash it matches at any depth (\"*.ts\"); with one it starts at the working directory or at path (\"src/**/*.ts\"). A leading ! turns it around.
- path is the directory to search, by default the working directory.
- Hidden files and the targets of symlinks are searched too. Directories that ignore files exclude are skipped, but a file that matches is found even if it is ignored itself.
- The result is a sorted list of absolute paths. Of more than 2,000 files the middle is left out.
- For the content of files use Grep.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "pattern": {"type": "string", "description": "The glob that file names must match"},
    "path": {"type": "string", "description": "The directory to search (default: the working directory)"}
}"#,
        &["pattern"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug, Default)]
pub struct Glob;

impl Tool for Glob {
    fn name(&self) -> &'static str {
        "Glob"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn lane(&self) -> Lane {
        Lane::Parallel
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            let tree = match request(call, context) {
                Ok(tree) => tree,
                Err(failure) => return offload::settle(Err(failure)),
            };
            let overflow = Overflow::of(context, "Glob");
            let budget = Budget::new(call.cancel.clone(), TOOL_TIME);
            offload::look(call, move || search(&tree, &budget, &overflow)).await
        })
    }
}

fn request(call: &ToolCall, context: &ToolContext) -> Result<Tree, Failure> {
    let args = Args::new("Glob", &call.args);
    if args.string("pattern")?.trim().is_empty() {
        return Err(Failure::new(
            "Glob tool missing required parameter: pattern",
        ));
    }
    let mut tree = tree(&args, context, "pattern")?;
    tree.hidden = true;
    tree.follow = true;
    tree.file_type = None;
    Ok(tree)
}

fn search(tree: &Tree, budget: &Budget, overflow: &Overflow) -> Worked {
    let listed = list(tree, budget).map_err(|error| {
        Failure::new(match error {
            SearchError::Stopped(Stop::Cancelled) => offload::INTERRUPTED.to_owned(),
            other => format!("Glob failed: {other}"),
        })
    })?;
    let notices = notices(&listed.troubles, listed.stopped);
    if listed.total == 0 {
        return Ok(ToolOutcome::text(format!("No files found{notices}")));
    }
    // By bytes of the whole path, as a plain sort of the output would be.
    let mut paths: Vec<String> = listed
        .paths
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    paths.sort_unstable();
    let mut out = format!(
        "Found {} file{}\n{}",
        listed.total,
        plural(listed.total),
        overflow.cut_lines(&paths, MAX_FILES, "files")
    );
    if paths.len() < listed.total {
        out.push_str(&format!(
            "\n[{} more files were counted but not listed; narrow the pattern.]",
            listed.total - paths.len()
        ));
    }
    Ok(ToolOutcome::text(out + &notices))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::trial::Trial;
    use std::os::unix::fs::symlink;

    fn tool() -> Glob {
        Glob
    }

    #[tokio::test]
    async fn names_match_at_any_depth_or_from_an_anchor() {
        let trial = Trial::new();
        for name in [
            "b.rs",
            "a/c.rs",
            "a/.d.rs",
            "a/x/e.rs",
            ".git/f.rs",
            "skipped/g.rs",
            "h[1]/i.rs",
        ] {
            trial.file(name, "");
        }
        trial.file(".ignore", "skipped/\nb.rs\n");
        symlink(trial.path("a/x"), trial.path("link")).unwrap();
        symlink(trial.path("none"), trial.path("broken.rs")).unwrap();
        symlink(trial.path(""), trial.path("a/loop")).unwrap();
        for (args, expected) in [
            (
                json!({"pattern": "*.rs"}),
                "Found 7 files\n<cwd>/.git/f.rs\n<cwd>/a/.d.rs\n<cwd>/a/c.rs\n<cwd>/a/x/e.rs\n<cwd>/b.rs\n<cwd>/h[1]/i.rs\n<cwd>/link/e.rs",
            ),
            (
                json!({"pattern": "a/*.rs"}),
                "Found 2 files\n<cwd>/a/.d.rs\n<cwd>/a/c.rs",
            ),
            (
                json!({"pattern": "a/**/*.rs", "path": "a/x"}),
                "Found 1 file\n<cwd>/a/x/e.rs",
            ),
            (
                json!({"pattern": "x/*.rs", "path": "a"}),
                "Found 1 file\n<cwd>/a/x/e.rs",
            ),
            (
                json!({"pattern": "./i.rs", "path": "h[1]"}),
                "Found 1 file\n<cwd>/h[1]/i.rs",
            ),
            (json!({"pattern": "**/x/*"}), "Found 1 file\n<cwd>/a/x/e.rs"),
            (
                json!({"pattern": trial.path("a/*.rs").display().to_string()}),
                "Found 2 files\n<cwd>/a/.d.rs\n<cwd>/a/c.rs",
            ),
            (json!({"pattern": "*.none"}), "No files found"),
        ] {
            assert_eq!(trial.ok(&tool(), args.clone()).await, expected, "{args}");
        }
    }

    #[tokio::test]
    async fn an_error_is_never_an_empty_result() {
        let trial = Trial::new();
        for (args, expected) in [
            (json!({"pattern": "{a"}), "Glob failed: error parsing glob"),
            (
                json!({"pattern": "*", "path": "none"}),
                "Glob failed: <cwd>/none: No such file",
            ),
            (
                json!({"pattern": "*", "path": "/dev/null"}),
                "Glob failed: /dev/null: not a file or directory",
            ),
            (
                json!({"pattern": " "}),
                "Glob tool missing required parameter: pattern",
            ),
            (
                json!({"pattern": 1}),
                "Glob: Parameter 'pattern' must be a string, received integer",
            ),
        ] {
            let text = trial.err(&tool(), args).await;
            assert!(text.starts_with(expected), "{text}");
        }
        trial.survives_bad_arguments(&tool()).await;
        trial.cancel.cancel();
        assert_eq!(
            trial.err(&tool(), json!({"pattern": "*"})).await,
            "Interrupted by user"
        );
    }

    #[tokio::test]
    async fn of_many_files_both_ends_are_shown() {
        let trial = Trial::new();
        for number in 0..2003 {
            trial.file(&format!("f{number:04}"), "");
        }
        let text = trial.ok(&tool(), json!({"pattern": "f*"})).await;
        assert!(
            text.starts_with("Found 2003 files\n<cwd>/f0000\n"),
            "{text:.60}"
        );
        assert!(text.contains("<cwd>/f0999\n<cwd>/f1003\n"));
        assert!(text.contains("<cwd>/f2002\n\n[Output truncated: showing 2,000 of 2,003 files.]\n[3 files omitted from middle.]\n[Full output written to: "));
    }
}
