//! `grep_files` and `GrepFiles`: which files match, by the names that Codex
//! models know (04 §7.25).

use std::sync::LazyLock;

use serde_json::Value;

use super::args::{Args, DRAFT_07, schema};
use super::grep::{found_files, notices, tree};
use super::offload::{self, Failure, Worked};
use super::search::{Budget, Pattern, Query, SearchError, Stop, TOOL_TIME, Tree, Wanted, grep};
use super::text::plural;
use super::tool::{Lane, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};

/// Files shown when no limit is given, and the most that are.
const MAX_FILES: usize = 100;

const DESCRIPTION: &str = "\
Finds the files whose content matches a regular expression and returns their absolute paths, sorted, at most 100.

- include narrows the search to files that match a glob, such as \"*.rs\" or \"*.{ts,tsx}\".
- path is the file or directory to search, by default the working directory.
- Ignored, hidden and binary files are skipped.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "pattern": {"type": "string", "description": "The regular expression to search for"},
    "include": {"type": "string", "description": "A glob that limits which files are searched"},
    "path": {"type": "string", "description": "The file or directory to search (default: the working directory)"},
    "limit": {"type": "number", "description": "The most paths to return (default 100)"}
}"#,
        &["pattern"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug)]
pub struct GrepFiles {
    name: &'static str,
}

impl GrepFiles {
    /// The tool under one of its two names.
    pub fn new(name: &'static str) -> Self {
        Self { name }
    }
}

impl Tool for GrepFiles {
    fn name(&self) -> &'static str {
        self.name
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
            let request = match Request::new(self.name, call, context) {
                Ok(request) => request,
                Err(failure) => return offload::settle(Err(failure)),
            };
            let budget = Budget::new(call.cancel.clone(), TOOL_TIME);
            offload::look(call, move || request.search(&budget)).await
        })
    }
}

struct Request {
    name: &'static str,
    pattern: String,
    tree: Tree,
    limit: usize,
}

impl Request {
    fn new(name: &'static str, call: &ToolCall, context: &ToolContext) -> Result<Self, Failure> {
        let args = Args::new(name, &call.args);
        let mut tree = tree(&args, context, "include")?;
        tree.file_type = None;
        Ok(Self {
            name,
            pattern: args.string("pattern")?.to_owned(),
            tree,
            limit: args
                .opt_count("limit")?
                .filter(|limit| *limit > 0)
                .map_or(MAX_FILES, |limit| limit.min(MAX_FILES)),
        })
    }

    fn search(self, budget: &Budget) -> Worked {
        let failed = |error| {
            Failure::new(match error {
                SearchError::Stopped(Stop::Cancelled) => offload::INTERRUPTED.to_owned(),
                other => format!("{} failed: {other}", self.name),
            })
        };
        let query = Query::new(&Pattern {
            text: self.pattern.clone(),
            ..Pattern::default()
        })
        .map_err(failed)?;
        let found = grep(
            &self.tree,
            &query,
            Wanted::Files { max: self.limit },
            budget,
        )
        .map_err(failed)?;
        let notices = notices(&found.troubles, found.stopped);
        let total = found.total_files;
        let paths: Vec<_> = found
            .files
            .into_iter()
            .map(|(path, _)| path)
            .take(self.limit)
            .collect();
        let text = if total > paths.len() {
            let mut text = format!(
                "Found {} file{} (truncated from {total})",
                paths.len(),
                plural(paths.len())
            );
            for path in &paths {
                text.push_str(&format!("\n{}", path.display()));
            }
            text
        } else {
            found_files(total, &paths)
        };
        Ok(ToolOutcome::text(text + &notices))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::trial::Trial;

    #[tokio::test]
    async fn matching_files_come_up_to_the_limit() {
        let trial = Trial::new();
        for number in 0..103 {
            trial.file(&format!("f{number:03}.txt"), "needle\n");
        }
        trial.file("g.rs", "needle\n");
        let tool = GrepFiles::new("grep_files");
        for (args, expected) in [
            (
                json!({"pattern": "needle", "limit": 2}),
                "Found 2 files (truncated from 104)\n<cwd>/f000.txt\n<cwd>/f001.txt",
            ),
            (
                json!({"pattern": "needle", "include": "*.rs"}),
                "Found 1 file\n<cwd>/g.rs",
            ),
            (
                json!({"pattern": "n", "path": "g.rs", "limit": "1"}),
                "Found 1 file\n<cwd>/g.rs",
            ),
            (json!({"pattern": "absent"}), "No files found"),
        ] {
            assert_eq!(trial.ok(&tool, args.clone()).await, expected, "{args}");
        }
        let all = trial
            .ok(&tool, json!({"pattern": "needle", "limit": 1000}))
            .await;
        assert!(all.starts_with("Found 100 files (truncated from 104)\n"));
        assert_eq!(all.lines().count(), 101);
        let upper = GrepFiles::new("GrepFiles");
        assert!(
            trial
                .err(&upper, json!({"pattern": "["}))
                .await
                .starts_with("GrepFiles failed: ")
        );
        trial.survives_bad_arguments(&upper).await;
    }
}
