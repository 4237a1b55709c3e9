//! `grep_in_files`: matching lines below a directory, from the search core of
//! the tools (06 §3.5).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::device::call::{Answer, Call, Failure};
use crate::tools::search::{Budget, FileHits, Found, GlobRule, Pattern, Query, Tree, Wanted, grep};

const TIME: Duration = Duration::from_secs(30);
/// Rows when the client does not say, and at most.
const ROWS: usize = 500;
const MAX_ROWS: usize = 10_000;
/// Lines around a match when the client does not say, and at most.
const CONTEXT: usize = 2;
const MAX_CONTEXT: usize = 50;

struct Request {
    root: PathBuf,
    pattern: Pattern,
    glob: Option<String>,
    rows: usize,
    context: usize,
}

/// Searches the content of files.
pub(in crate::device) async fn grep_in_files(mut call: Call) -> Answer {
    let fields = &mut call.fields;
    let pattern = Pattern {
        text: fields.string("query")?,
        literal: !fields.lenient_flag("is_regex"),
        ignore_case: !fields.lenient_flag("case_sensitive"),
        whole_word: fields.lenient_flag("whole_word"),
        multiline: false,
    };
    let root = fields.lenient_string("cwd");
    let glob = fields.lenient_string("glob");
    let rows = fields.lenient_count("max_results").unwrap_or(ROWS);
    let context = fields.lenient_count("context_lines").unwrap_or(CONTEXT);
    let request = Request {
        root: root.map_or_else(super::process_cwd, PathBuf::from),
        pattern,
        glob: glob.filter(|glob| !glob.trim().is_empty()),
        rows: rows.min(MAX_ROWS),
        context: context.min(MAX_CONTEXT),
    };
    // A whole home is too much to go through.
    if request.pattern.text.is_empty() || request.root == call.services().home.user {
        return Ok(result(Vec::new(), 0, 0));
    }
    let cancel = CancellationToken::new();
    let budget = Budget::new(cancel.clone(), TIME);
    // Ends the threads of the search when nobody waits for it any more.
    let _end = cancel.drop_guard();
    let found = call
        .shared
        .walk(TIME, move || request.search(&budget))
        .await;
    found.unwrap_or_else(|| Err(timed_out()))
}

fn timed_out() -> Failure {
    Failure::new(format!("grep_in_files timed out after {}s", TIME.as_secs()))
}

impl Request {
    fn search(self, budget: &Budget) -> Answer {
        let failed = |error: crate::tools::search::SearchError| Failure::new(error.to_string());
        let query = Query::new(&self.pattern).map_err(failed)?;
        // Absolute, as the globs' anchors must be.
        let root = super::process_cwd().join(&self.root);
        let mut tree = Tree::new(root.clone());
        let glob = self.glob.as_deref().map(str::trim);
        tree.glob = glob.map(|glob| GlobRule::new(glob, &[&root]));
        let wanted = Wanted::Lines {
            max: self.rows.saturating_mul(1 + 2 * self.context).max(1),
            before: self.context,
            after: self.context,
            totals: true,
        };
        let found = grep(&tree, &query, wanted, budget);
        if budget.check().is_err() {
            return Err(timed_out());
        }
        let found = found.map_err(failed)?;
        let (total, files) = (found.total_count, found.total_files);
        Ok(result(self.matches(&root, found), total, files))
    }

    fn matches(&self, root: &Path, found: Found) -> Vec<Value> {
        let mut rows = Vec::new();
        for (path, hits) in found.files {
            let path = match path.strip_prefix(root) {
                Ok(relative) if !relative.as_os_str().is_empty() => relative.to_string_lossy(),
                _ => path.file_name().unwrap_or_default().to_string_lossy(),
            };
            let matched = (0..hits.lines.len()).filter(|at| hits.lines[*at].matched);
            for at in matched {
                if rows.len() == self.rows {
                    return rows;
                }
                rows.push(self.row(&path, &hits, at));
            }
        }
        rows
    }

    fn row(&self, path: &str, hits: &FileHits, at: usize) -> Value {
        let line = &hits.lines[at];
        let hit = line.hit.clone().unwrap_or(0..0);
        let units = |text: &str| text.encode_utf16().count();
        let column = 1 + units(&line.text[..hit.start]);
        let mut row = json!({
            "path": path, "line": line.number, "column": column,
            "column_end": column + units(&line.text[hit]), "text": line.text,
        });
        if self.context > 0 {
            // Lines of the context that stand next to each other, whether they match or not.
            let around = |from: u64, to: u64| -> Vec<&str> {
                let lines = hits.lines.iter();
                let near = lines.filter(|other| (from..to).contains(&other.number));
                near.map(|other| other.text.as_str()).collect()
            };
            let context = self.context as u64;
            row["before"] = around(line.number.saturating_sub(context), line.number).into();
            row["after"] = around(line.number + 1, line.number + 1 + context).into();
        }
        row
    }
}

fn result(matches: Vec<Value>, total: u64, files: usize) -> Value {
    json!({
        "truncated": total > matches.len() as u64, "matches": matches,
        "total_matches": total, "total_files": files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_whose_time_is_up_says_so_and_shows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "needle\n").unwrap();
        let request = Request {
            root: dir.path().to_owned(),
            pattern: Pattern {
                text: "needle".into(),
                literal: true,
                ignore_case: false,
                whole_word: false,
                multiline: false,
            },
            glob: None,
            rows: ROWS,
            context: CONTEXT,
        };
        let budget = Budget::new(CancellationToken::new(), std::time::Duration::ZERO);
        let failure = request.search(&budget).unwrap_err();
        assert_eq!(failure.to_string(), "grep_in_files timed out after 30s");
    }
}
