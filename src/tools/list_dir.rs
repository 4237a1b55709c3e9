//! `list_dir` and `ListDir`: a directory a few levels deep, in pages, by the
//! names that Codex models know (04 §7.25).

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::args::{Args, DRAFT_07, schema};
use super::collation::by_name;
use super::offload::{self, Failure, INTERRUPTED, Worked};
use super::paths;
use super::search::LeftOut;
use super::text::{head, thousands};
use super::tool::{Lane, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};
use crate::process::BaseEnvironment;

/// Characters shown of one name.
const NAME_CHARS: usize = 500;

/// Names read from one directory; the rest only counts.
const MAX_READ: usize = 100_000;

const DESCRIPTION: &str = "\
Lists a directory and what is below it, by default two levels deep.

- The first line is the absolute path. Entries follow, indented by two spaces a level; / marks a directory, @ a symlink, ? anything else that is no file.
- offset is the number of the first entry to show, counted from 1; limit (default 25, at most 200) is how many; depth is at most 5. A last line says when more can be had and how.
- Of a directory with more than 50 entries the first 50 are shown.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "dir_path": {"type": "string", "description": "The directory to list, best as an absolute path"},
    "offset": {"type": "number", "description": "Number of the first entry to show, 1 or more (default 1)"},
    "limit": {"type": "number", "description": "The most entries to show (default 25)"},
    "depth": {"type": "number", "description": "How many levels deep to look, 1 or more (default 2)"}
}"#,
        &["dir_path"],
        DRAFT_07,
    )
});

/// Bounds of a listing, from `LETTA_LIST_DIR_MAX_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries on one page.
    pub limit: usize,
    /// Levels.
    pub depth: usize,
    /// Where a page may start.
    pub offset: usize,
    /// Entries collected for one call.
    pub collected: usize,
    /// Entries shown of one directory.
    pub children: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            limit: 200,
            depth: 5,
            offset: 10_000,
            collected: 12_000,
            children: 50,
        }
    }
}

impl Limits {
    fn of(environment: &BaseEnvironment) -> Self {
        let or = |name: &str, default: usize| {
            let value = environment.get(&format!("LETTA_LIST_DIR_MAX_{name}"));
            let value = value.and_then(|value| value.to_str()?.trim().parse().ok());
            value.filter(|value| *value > 0).unwrap_or(default)
        };
        let default = Self::default();
        Self {
            limit: or("LIMIT", default.limit),
            depth: or("DEPTH", default.depth),
            offset: or("OFFSET", default.offset),
            collected: or("COLLECTED_ENTRIES", default.collected),
            children: or("CHILDREN_PER_DIR", default.children),
        }
    }
}

/// The tool.
#[derive(Debug)]
pub struct ListDir {
    name: &'static str,
}

impl ListDir {
    /// The tool under one of its two names.
    pub fn new(name: &'static str) -> Self {
        Self { name }
    }
}

impl Tool for ListDir {
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
            let request = match Request::new(self, call, context) {
                Ok(request) => request,
                Err(failure) => return offload::settle(Err(failure)),
            };
            let cancel = call.cancel.clone();
            offload::look(call, move || request.list(&cancel)).await
        })
    }
}

struct Request {
    path: PathBuf,
    offset: usize,
    limit: usize,
    depth: usize,
    /// `limit` and `depth` as they were asked for.
    asked: (usize, usize),
    limits: Limits,
    closed: Arc<[PathBuf]>,
}

impl Request {
    fn new(tool: &ListDir, call: &ToolCall, context: &ToolContext) -> Result<Self, Failure> {
        let args = Args::new(tool.name, &call.args);
        let limits = Limits::of(context.processes.base());
        let positive = |name, default, refusal: &str| match args.opt_count(name)? {
            Some(0) => Err(Failure::new(refusal)),
            given => Ok(given.unwrap_or(default)),
        };
        let path = paths::resolve(args.string("dir_path")?, &context.cwd.get());
        let offset = positive("offset", 1, "offset must be a positive integer (1-indexed)")?;
        let limit = positive("limit", 25, "limit must be a positive integer")?;
        let depth = positive("depth", 2, "depth must be a positive integer")?;
        if offset > limits.offset {
            return Err(Failure::new(format!(
                "offset must be less than or equal to {}",
                thousands(limits.offset)
            )));
        }
        Ok(Self {
            path,
            offset,
            limit: limit.min(limits.limit),
            depth: depth.min(limits.depth),
            asked: (limit, depth),
            limits,
            closed: context.closed.clone(),
        })
    }

    fn list(&self, cancel: &CancellationToken) -> Worked {
        let mut out = format!("Absolute path: {}", self.path.display());
        let wanted = (self.offset + self.limit).min(self.limits.collected);
        let left_out = LeftOut::new(&self.closed);
        let collected = collect(
            &self.path,
            self.depth,
            wanted,
            self.limits.children,
            &left_out,
            cancel,
        )?;
        let all = collected.entries.len();
        if all > 0 {
            let start = self.offset - 1;
            if start >= all {
                return Err(Failure::new(format!(
                    "offset exceeds available entries in current view (max offset: {})",
                    thousands(all)
                )));
            }
            let end = (start + self.limit).min(all);
            let mut page: Vec<&Entry> = collected.entries[start..end].iter().collect();
            // Breadth first finds them; by path they read as a tree.
            page.sort_by(|left, right| by_path(&left.path, &right.path));
            for entry in page {
                out.push_str(&format!("\n{}{}", "  ".repeat(entry.level), entry.shown));
            }
            if end < all {
                out.push_str(&format!(
                    "\nMore entries available. Use offset={} to continue.",
                    end + 1
                ));
            } else if collected.more {
                out.push_str("\nMore entries may exist beyond the current truncated view.");
            }
        }
        let (limit, depth) = self.asked;
        if (limit, depth) != (self.limit, self.depth) {
            out.push_str(&format!(
                "\n[Request capped: limit={limit}->{}, depth={depth}->{}]",
                self.limit, self.depth
            ));
        }
        Ok(ToolOutcome::text(out))
    }
}

struct Entry {
    /// Names from the listed directory down.
    path: Vec<String>,
    level: usize,
    shown: String,
}

struct Collected {
    entries: Vec<Entry>,
    /// Whether there is more than was collected.
    more: bool,
}

/// Breadth first, at most `wanted` entries and `children` of each directory.
fn collect(
    root: &Path,
    depth: usize,
    wanted: usize,
    children: usize,
    left_out: &LeftOut,
    cancel: &CancellationToken,
) -> Result<Collected, Failure> {
    let mut collected = Collected {
        entries: Vec::new(),
        more: false,
    };
    let mut queue = VecDeque::from([(root.to_path_buf(), Vec::new())]);
    while let Some((directory, above)) = queue.pop_front() {
        if cancel.is_cancelled() {
            return Err(Failure::new(INTERRUPTED));
        }
        let (names, total) = match read(&directory, left_out, cancel) {
            Ok(read) => read,
            Err(failure) if above.is_empty() => return Err(failure),
            // One locked directory below does not hide the others.
            Err(Failure(why)) => {
                collected.entries.push(Entry {
                    path: last_in(&above),
                    level: above.len(),
                    shown: format!("({why})"),
                });
                continue;
            }
        };
        for (name, mark) in names.iter().take(children) {
            if collected.entries.len() >= wanted {
                collected.more = true;
                return Ok(collected);
            }
            let mut path = above.clone();
            path.push(name.clone());
            if *mark == "/" && path.len() < depth {
                queue.push_back((directory.join(name), path.clone()));
            }
            collected.entries.push(Entry {
                path,
                level: above.len(),
                shown: format!("{}{mark}", head(name, NAME_CHARS).0),
            });
        }
        if total > children {
            collected.more = true;
            collected.entries.push(Entry {
                path: last_in(&above),
                level: above.len(),
                shown: format!("\u{2026} ({} more entries)", thousands(total - children)),
            });
        }
    }
    Ok(collected)
}

/// Starts no real name that a directory is likely to hold.
const AFTER_ALL: char = '\u{FFFF}';

/// A path that sorts after everything else in its directory.
fn last_in(directory: &[String]) -> Vec<String> {
    let mut path = directory.to_vec();
    path.push(AFTER_ALL.to_string());
    path
}

type Named = (String, &'static str);

/// The entries of one directory: names with the marks of their kinds, sorted,
/// and how many there are in all.
fn read(
    directory: &Path,
    left_out: &LeftOut,
    cancel: &CancellationToken,
) -> Result<(Vec<Named>, usize), Failure> {
    let failed = |error| Failure::new(format!("failed to read directory: {error}"));
    let mut names = Vec::new();
    let mut total = 0;
    for entry in fs::read_dir(directory).map_err(failed)? {
        if cancel.is_cancelled() {
            return Err(Failure::new(INTERRUPTED));
        }
        let entry = entry.map_err(failed)?;
        if left_out.leads_to(&entry.path()) {
            continue;
        }
        total += 1;
        if total > MAX_READ {
            continue;
        }
        let mark = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => "@",
            Ok(kind) if kind.is_dir() => "/",
            Ok(kind) if kind.is_file() => "",
            _ => "?",
        };
        names.push((entry.file_name().to_string_lossy().into_owned(), mark));
    }
    names.sort_by(|left, right| by_name(&left.0, &right.0));
    Ok((names, total))
}

fn by_path(left: &[String], right: &[String]) -> std::cmp::Ordering {
    left.iter()
        .zip(right)
        .map(|(left, right)| {
            let after = (left.starts_with(AFTER_ALL)).cmp(&right.starts_with(AFTER_ALL));
            after.then_with(|| by_name(left, right))
        })
        .find(|order| order.is_ne())
        .unwrap_or_else(|| left.len().cmp(&right.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::trial::{Trial, special_files};
    use std::os::unix::fs::symlink;

    fn tool() -> ListDir {
        ListDir::new("list_dir")
    }

    #[tokio::test]
    async fn levels_are_indented_and_kinds_marked() {
        let trial = Trial::new();
        for name in ["a/x/deep", "a/y", "b", "A.txt"] {
            trial.file(name, "");
        }
        symlink("a", trial.path("link")).unwrap();
        special_files(&trial);
        for (args, expected) in [
            (
                json!({"dir_path": "."}),
                "Absolute path: <cwd>\na/\n  x/\n  y\nA.txt\nb\nlink@\nloop@\npipe?\nsocket?",
            ),
            (
                json!({"dir_path": "a", "depth": 9, "limit": "1000"}),
                "Absolute path: <cwd>/a\nx/\n  deep\ny\n[Request capped: limit=1000->200, depth=9->5]",
            ),
            (
                json!({"dir_path": ".", "depth": 1, "limit": 2}),
                "Absolute path: <cwd>\na/\nA.txt\nMore entries available. Use offset=3 to continue.",
            ),
            (
                json!({"dir_path": "a", "depth": 1, "offset": 2}),
                "Absolute path: <cwd>/a\ny",
            ),
        ] {
            assert_eq!(trial.ok(&tool(), args.clone()).await, expected, "{args}");
        }
        std::fs::create_dir(trial.path("empty")).unwrap();
        assert_eq!(
            trial
                .ok(&tool(), json!({"dir_path": "empty", "offset": 7}))
                .await,
            "Absolute path: <cwd>/empty"
        );
    }

    #[tokio::test]
    async fn a_crowded_directory_shows_its_first_entries() {
        let trial = Trial::new();
        for number in 0..60 {
            trial.file(&format!("d/{number:02}"), "");
        }
        let text = trial
            .ok(&tool(), json!({"dir_path": "d", "limit": 200}))
            .await;
        assert!(
            text.ends_with("\n49\n\u{2026} (10 more entries)\nMore entries may exist beyond the current truncated view."),
            "{text}"
        );
    }

    #[tokio::test]
    async fn what_cannot_be_listed_is_named() {
        let trial = Trial::new();
        trial.file("f", "");
        for (args, expected) in [
            (
                json!({"dir_path": "f"}),
                "failed to read directory: Not a directory (os error 20)",
            ),
            (
                json!({"dir_path": "none"}),
                "failed to read directory: No such file or directory (os error 2)",
            ),
            (
                json!({"dir_path": ".", "offset": 0}),
                "offset must be a positive integer (1-indexed)",
            ),
            (
                json!({"dir_path": ".", "limit": -1}),
                "limit must be a positive integer",
            ),
            (
                json!({"dir_path": ".", "depth": 0.5}),
                "depth must be a positive integer",
            ),
            (
                json!({"dir_path": ".", "offset": 10_001}),
                "offset must be less than or equal to 10,000",
            ),
            (
                json!({"dir_path": ".", "offset": 5}),
                "offset exceeds available entries in current view (max offset: 1)",
            ),
        ] {
            assert_eq!(trial.err(&tool(), args).await, expected);
        }
        trial.survives_bad_arguments(&ListDir::new("ListDir")).await;
    }
}
