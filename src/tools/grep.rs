//! Grep: search the content of files (04 §7.6).

use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::Value;

use super::args::{Args, DRAFT_07, schema};
use super::offload::{self, Failure, Worked};
use super::overflow::Overflow;
use super::paths;
use super::search::{
    Budget, Found, GlobRule, Line, Pattern, Query, SearchError, Stop, TOOL_TIME, Tree, Troubles,
    Wanted, grep,
};
use super::text::plural;
use super::tool::{Lane, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};

/// Lines or entries shown when no limit is given.
const HEAD_LIMIT: usize = 100;

/// Characters of the whole output.
const MAX_CHARS: usize = 10_000;

/// More lines of context are not shown.
const MAX_CONTEXT: usize = 1000;

const DESCRIPTION: &str = "\
Searches the content of files with regular expressions, as ripgrep does.

- pattern is a regular expression in ripgrep's syntax; escape characters with a meaning of their own to find them literally (interface\\{\\} finds interface{}).
- path is a file or a directory, by default the working directory. Files that .gitignore and similar files exclude, hidden files and binary files are skipped; symlinks are not followed.
- Narrow the search with glob (\"*.js\", \"src/**/*.ts\", \"!*.min.js\") or type (js, py, rust, go, ...). A glob with a slash starts at the working directory or at path.
- output_mode: files_with_matches (default) gives paths, content gives matching lines with their numbers, count gives the number of matching lines of each file.
- In content mode -A, -B and -C (or context) add lines after, before and around each match, and -n false leaves out line numbers.
- At most head_limit lines or entries are returned, 100 unless you say otherwise; 0 means no limit. offset skips the first ones. Results are sorted by path, so offset pages through them.
- Matches stay within a line unless multiline is true; then . matches line feeds too.
- Output over 10,000 characters loses its middle.
- Use this instead of running grep or rg in a shell.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "pattern": {"type": "string", "description": "The regular expression to search for"},
    "path": {"type": "string", "description": "The file or directory to search (default: the working directory)"},
    "glob": {"type": "string", "description": "Search only files that match this glob, such as \"*.ts\" or \"src/**\"; a leading ! excludes"},
    "output_mode": {"type": "string", "enum": ["content", "files_with_matches", "count"], "description": "What to return (default files_with_matches)"},
    "-A": {"type": "number", "description": "Lines to show after each match (content mode)"},
    "-B": {"type": "number", "description": "Lines to show before each match (content mode)"},
    "-C": {"type": "number", "description": "Lines to show before and after each match (content mode); wins over -A and -B"},
    "context": {"type": "number", "description": "The same as -C"},
    "-n": {"type": "boolean", "description": "Show line numbers (content mode, default true)"},
    "-i": {"type": "boolean", "description": "Ignore case"},
    "type": {"type": "string", "description": "Search only files of this type, by ripgrep's names: js, ts, py, rust, go, java, ..."},
    "head_limit": {"type": "number", "description": "Return at most so many lines or entries (default 100, 0 for no limit)"},
    "offset": {"type": "number", "description": "Skip so many lines or entries first (default 0)"},
    "multiline": {"type": "boolean", "description": "Let matches span lines and . match line feeds (default false)"}
}"#,
        &["pattern"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug, Default)]
pub struct Grep;

impl Tool for Grep {
    fn name(&self) -> &'static str {
        "Grep"
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
            let request = match Request::new(call, context) {
                Ok(request) => request,
                Err(failure) => return offload::settle(Err(failure)),
            };
            let budget = Budget::new(call.cancel.clone(), TOOL_TIME);
            offload::look(call, move || request.search(&budget)).await
        })
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Files,
    Content,
    Count,
}

struct Request {
    pattern: Pattern,
    tree: Tree,
    mode: Mode,
    before: usize,
    after: usize,
    numbers: bool,
    page: Page,
    overflow: Overflow,
}

/// Which lines or entries of a result are returned.
#[derive(Clone, Copy)]
struct Page {
    offset: usize,
    /// `usize::MAX` for no limit.
    limit: usize,
}

impl Page {
    fn of<T>(self, all: Vec<T>) -> Vec<T> {
        all.into_iter().skip(self.offset).take(self.limit).collect()
    }

    /// How many must be found to fill the page.
    fn end(self) -> usize {
        self.offset.saturating_add(self.limit)
    }
}

impl Request {
    fn new(call: &ToolCall, context: &ToolContext) -> Result<Self, Failure> {
        let args = Args::new("Grep", &call.args);
        let mode = match args.opt_string("output_mode")? {
            None | Some("" | "files_with_matches") => Mode::Files,
            Some("content") => Mode::Content,
            Some("count") => Mode::Count,
            Some(other) => {
                return Err(Failure::new(format!(
                    "Grep: Parameter 'output_mode' must be one of content, files_with_matches, count; received {}",
                    other.chars().take(100).collect::<String>()
                )));
            }
        };
        let lines =
            |name| Ok::<_, Failure>(args.opt_count(name)?.map(|lines| lines.min(MAX_CONTEXT)));
        let around = lines("-C")?.or(lines("context")?);
        Ok(Self {
            pattern: Pattern {
                text: args.string("pattern")?.to_owned(),
                ignore_case: args.flag("-i", false)?,
                multiline: args.flag("multiline", false)?,
                ..Pattern::default()
            },
            tree: tree(&args, context, "glob")?,
            mode,
            before: around.or(lines("-B")?).unwrap_or(0),
            after: around.or(lines("-A")?).unwrap_or(0),
            numbers: args.flag("-n", true)?,
            page: Page {
                offset: args.opt_count("offset")?.unwrap_or(0),
                limit: match args.opt_count("head_limit")?.unwrap_or(HEAD_LIMIT) {
                    0 => usize::MAX,
                    limit => limit,
                },
            },
            overflow: Overflow::of(context, "Grep"),
        })
    }

    fn search(self, budget: &Budget) -> Worked {
        let max = self.page.end();
        let wanted = match self.mode {
            Mode::Files => Wanted::Files { max },
            Mode::Count => Wanted::Counts { max },
            Mode::Content => Wanted::Lines {
                max,
                before: self.before,
                after: self.after,
                totals: false,
            },
        };
        let query = Query::new(&self.pattern).map_err(failed)?;
        let found = grep(&self.tree, &query, wanted, budget).map_err(failed)?;
        let notices = notices(&found.troubles, found.stopped);
        let overflow = self.overflow.clone();
        let output = match self.mode {
            Mode::Files => self.files(found),
            Mode::Count => self.counts(found),
            Mode::Content => self.content(found),
        };
        let shown = overflow.cut(output, MAX_CHARS);
        Ok(ToolOutcome::text(shown.text + &notices))
    }

    fn files(&self, found: Found) -> String {
        let paths = found.files.into_iter().map(|(path, _)| path).collect();
        found_files(found.total_files, &self.page.of(paths))
    }

    fn counts(&self, found: Found) -> String {
        if found.total_files == 0 {
            return "0\n\nFound 0 total occurrences across 0 files.".to_owned();
        }
        let single = self.tree.is_file();
        let mut out = String::new();
        for (path, hits) in self.page.of(found.files) {
            if single {
                out.push_str(&format!("{}\n", hits.count));
            } else {
                out.push_str(&format!("{}:{}\n", path.display(), hits.count));
            }
        }
        out.push_str(&format!(
            "\nFound {} total occurrence{} across {} file{}.",
            found.total_count,
            if found.total_count == 1 { "" } else { "s" },
            found.total_files,
            plural(found.total_files)
        ));
        out
    }

    fn content(&self, found: Found) -> String {
        let single = self.tree.is_file();
        let mut lines = Vec::new();
        for (path, hits) in found.files {
            let path = path.display().to_string();
            let prefix = if single { "" } else { path.as_str() };
            let mut last = None;
            for line in hits.lines {
                let gap = last.is_none_or(|last| line.number > last + 1);
                if gap && self.before + self.after > 0 && !lines.is_empty() {
                    lines.push("--".to_owned());
                }
                last = Some(line.number);
                lines.push(self.line(prefix, &line));
            }
            if let Some(at) = hits.binary_at {
                lines.push(if single {
                    format!("binary file matches (found \"\\0\" byte around offset {at})")
                } else {
                    format!("{path}: WARNING: stopped searching binary file after match (found \"\\0\" byte around offset {at})")
                });
            }
        }
        if lines.is_empty() {
            return "No matches found".to_owned();
        }
        self.page.of(lines).join("\n")
    }

    fn line(&self, path: &str, line: &Line) -> String {
        let separator = if line.matched { ':' } else { '-' };
        let mut out = String::with_capacity(path.len() + line.text.len() + 8);
        if !path.is_empty() {
            out.push_str(path);
            out.push(separator);
        }
        if self.numbers {
            out.push_str(&format!("{}{separator}", line.number));
        }
        out.push_str(&line.text);
        out
    }
}

/// The tree that `path`, `type` and the argument `glob` name.
pub(crate) fn tree(
    args: &Args<'_>,
    context: &ToolContext,
    glob: &'static str,
) -> Result<Tree, Failure> {
    let cwd = context.cwd.get();
    let root = match args.opt_string("path")?.filter(|path| !path.is_empty()) {
        Some(path) => paths::resolve(path, &cwd),
        None => cwd.clone(),
    };
    let anchors = if root == cwd {
        vec![&*cwd]
    } else {
        vec![&*cwd, &*root]
    };
    let glob = args
        .opt_string(glob)?
        .filter(|glob| !glob.trim().is_empty());
    let glob = glob.map(|pattern| GlobRule::new(pattern, &anchors));
    let mut tree = Tree::new(root);
    tree.left_out = context.closed.to_vec();
    tree.glob = glob;
    tree.file_type = args
        .opt_string("type")?
        .filter(|name| !name.is_empty())
        .map(str::to_owned);
    Ok(tree)
}

/// `Found 3 files (showing 2)` and the paths.
pub(crate) fn found_files(total: usize, shown: &[PathBuf]) -> String {
    if total == 0 {
        return "No files found".to_owned();
    }
    let mut out = format!("Found {total} file{}", plural(total));
    if shown.len() < total {
        out.push_str(&format!(" (showing {})", shown.len()));
    }
    for path in shown {
        out.push_str(&format!("\n{}", path.display()));
    }
    out
}

/// What to add to a result that is not complete.
pub(crate) fn notices(troubles: &Troubles, stopped: Option<Stop>) -> String {
    let mut out = String::new();
    if let Some(notice) = troubles.notice() {
        out.push_str(&format!("\n\n{notice}"));
    }
    if let Some(stop) = stopped {
        out.push_str(&format!("\n\n[Results are incomplete: the search {stop}.]"));
    }
    out
}

fn failed(error: SearchError) -> Failure {
    Failure::new(match error {
        SearchError::Stopped(Stop::Cancelled) => offload::INTERRUPTED.to_owned(),
        other => format!("Grep failed: {other}"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::trial::{Trial, special_files};
    use std::fs;

    fn tool() -> Grep {
        Grep
    }

    fn forest() -> Trial {
        let trial = Trial::new();
        trial.file("a.txt", "one\ntwo\nthree\nfour\nfive\nsix two\n");
        trial.file("src/b.rs", "fn two() {}\n");
        trial.file("src/deep/c.rs", "// TWO\n// two\n");
        trial.file(".hidden", "two\n");
        trial.file("ignored.log", "two\n");
        trial.file(".ignore", "*.log\n");
        trial.file("binary", b"two\n\0two\n");
        trial
    }

    #[tokio::test]
    async fn the_three_modes_answer_as_ripgrep_does() {
        let trial = forest();
        for (args, expected) in [
            (
                json!({"pattern": "two"}),
                "Found 3 files\n<cwd>/a.txt\n<cwd>/src/b.rs\n<cwd>/src/deep/c.rs",
            ),
            (
                json!({"pattern": "two", "head_limit": 1, "offset": 1}),
                "Found 3 files (showing 1)\n<cwd>/src/b.rs",
            ),
            (
                json!({"pattern": "six|fn", "path": "src"}),
                "Found 1 file\n<cwd>/src/b.rs",
            ),
            (json!({"pattern": "nothing at all"}), "No files found"),
            (
                json!({"pattern": "two", "output_mode": "count"}),
                "<cwd>/a.txt:2\n<cwd>/src/b.rs:1\n<cwd>/src/deep/c.rs:1\n\nFound 4 total occurrences across 3 files.",
            ),
            (
                json!({"pattern": "two", "output_mode": "count", "path": "a.txt"}),
                "2\n\nFound 2 total occurrences across 1 file.",
            ),
            (
                json!({"pattern": "zzz", "output_mode": "count"}),
                "0\n\nFound 0 total occurrences across 0 files.",
            ),
            (
                json!({"pattern": "two", "output_mode": "content", "glob": "*.rs"}),
                "<cwd>/src/b.rs:1:fn two() {}\n<cwd>/src/deep/c.rs:2:// two",
            ),
            (
                json!({"pattern": "two", "output_mode": "content", "type": "rust", "-n": "false", "-i": true, "path": "src/deep"}),
                "<cwd>/src/deep/c.rs:// TWO\n<cwd>/src/deep/c.rs:// two",
            ),
            (
                json!({"pattern": "zzz", "output_mode": "content"}),
                "No matches found",
            ),
            (
                json!({"pattern": "two", "output_mode": "content", "path": "a.txt", "-A": 1}),
                "2:two\n3-three\n--\n6:six two",
            ),
            (
                json!({"pattern": "two", "output_mode": "content", "path": "a.txt", "-B": "1"}),
                "1-one\n2:two\n--\n5-five\n6:six two",
            ),
            (
                json!({"pattern": "two", "output_mode": "content", "path": "a.txt", "context": 1, "head_limit": 2, "offset": 1}),
                "2:two\n3-three",
            ),
            (
                json!({"pattern": "two", "output_mode": "content", "path": "a.txt", "-C": 0, "context": 3, "-A": 3}),
                "2:two\n6:six two",
            ),
            (
                json!({"pattern": "o.three", "output_mode": "content", "multiline": true}),
                "<cwd>/a.txt:2:two\n<cwd>/a.txt:3:three",
            ),
            (
                json!({"pattern": "-two", "output_mode": "content"}),
                "No matches found",
            ),
            (
                json!({"pattern": "two", "path": ".hidden", "output_mode": "content"}),
                "1:two",
            ),
            (
                json!({"pattern": "two", "path": "ignored.log"}),
                "Found 1 file\n<cwd>/ignored.log",
            ),
            (
                json!({"pattern": "two", "path": "binary", "output_mode": "content"}),
                "binary file matches (found \"\\0\" byte around offset 4)",
            ),
            (
                json!({"pattern": "two", "glob": "!src"}),
                "Found 1 file\n<cwd>/a.txt",
            ),
            (
                json!({"pattern": "two", "glob": "src/*.rs"}),
                "Found 1 file\n<cwd>/src/b.rs",
            ),
            (
                json!({"pattern": "two", "glob": "deep/*.rs", "path": "src"}),
                "Found 1 file\n<cwd>/src/deep/c.rs",
            ),
            (
                json!({"pattern": "two", "glob": "*.log"}),
                "Found 1 file\n<cwd>/ignored.log",
            ),
        ] {
            assert_eq!(trial.ok(&tool(), args.clone()).await, expected, "{args}");
        }
    }

    #[tokio::test]
    async fn an_error_is_never_an_empty_result() {
        let trial = forest();
        for (args, expected) in [
            (json!({"pattern": "("}), "Grep failed: regex parse error"),
            (
                json!({"pattern": "two", "type": "nonsense"}),
                "Grep failed: unrecognized file type: nonsense",
            ),
            (
                json!({"pattern": "two", "path": "none"}),
                "Grep failed: <cwd>/none: No such file",
            ),
            (json!({"pattern": "two", "glob": "{a"}), "Grep failed: "),
            (
                json!({"pattern": "two\\nthree"}),
                "Grep failed: the literal",
            ),
            (
                json!({"pattern": "two", "output_mode": "lines"}),
                "Grep: Parameter 'output_mode' must be one of",
            ),
            (
                json!({"pattern": ["two"]}),
                "Grep: Parameter 'pattern' must be a string, received array",
            ),
        ] {
            let text = trial.err(&tool(), args).await;
            assert!(text.starts_with(expected), "{text}");
        }
        for (path, _) in special_files(&trial) {
            let text = trial
                .err(&tool(), json!({"pattern": "x", "path": path}))
                .await;
            assert!(text.starts_with("Grep failed: "), "{text}");
        }
        // In a walk they are only skipped.
        let text = trial.ok(&tool(), json!({"pattern": "three"})).await;
        assert_eq!(text, "Found 1 file\n<cwd>/a.txt");
        trial.survives_bad_arguments(&tool()).await;
        trial.cancel.cancel();
        assert_eq!(
            trial.err(&tool(), json!({"pattern": "two"})).await,
            "Interrupted by user"
        );
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_told() {
        use std::os::unix::fs::PermissionsExt;
        let trial = forest();
        let locked = trial.path("src/deep");
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
        let readable = fs::read_dir(&locked).is_ok();
        let walked = trial.ok(&tool(), json!({"pattern": "TWO"})).await;
        let rooted = trial
            .run(&tool(), json!({"pattern": "TWO", "path": "src/deep"}))
            .await;
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
        // Root reads everything.
        if !readable {
            assert!(
                walked.starts_with("No files found\n\n[Not searched: "),
                "{walked}"
            );
            assert!(
                walked.contains("<cwd>/src/deep: Permission denied"),
                "{walked}"
            );
            assert_eq!(rooted.status, crate::tools::Status::Error);
        }
    }

    #[tokio::test]
    async fn long_output_loses_its_middle_and_is_kept_in_a_file() {
        let trial = Trial::new();
        trial.file("f", "needle in a haystack\n".repeat(2000));
        let args = json!({"pattern": "needle", "output_mode": "content", "head_limit": 0});
        let text = trial.ok(&tool(), args).await;
        let (_, path) = text.split_once("[Full output written to: ").unwrap();
        let whole = fs::read_to_string(path.trim_end_matches(']')).unwrap();
        assert_eq!(whole.lines().count(), 2000);
        assert!(text.contains("[Output truncated: showing 10,000 of "));
    }
}
