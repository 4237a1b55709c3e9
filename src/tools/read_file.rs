//! `read_file` and `ReadFile`: lines of a file, or the block around a line, by
//! the names that Codex models know (04 §7.25).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::Value;

use super::args::{Args, DRAFT_07, schema};
use super::offload::{self, Failure, Worked};
use super::overflow::Overflow;
use super::paths;
use super::read::{MAX_BYTES, MAX_CHARS, read_text};
use super::text::head;
use super::tool::{Lane, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};

/// Characters shown of one line.
const LINE_CHARS: usize = 500;

/// Lines returned when no limit is given.
const LIMIT: usize = 2000;

/// Columns that a tab indents.
const TAB: usize = 4;

const DESCRIPTION: &str = "\
Reads lines of a text file. Each comes as L<number>: <text>, with numbers counted from 1 and lines cut at 500 characters.

- In slice mode (the default) limit lines are returned from line offset on.
- In indentation mode the block around anchor_line is returned: lines above and below that are indented at least as far, and max_levels more enclosing levels (0 for all). Sibling blocks are left out unless include_siblings is set.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "file_path": {"type": "string", "description": "The file to read, best as an absolute path"},
    "offset": {"type": "number", "description": "Number of the first line, 1 or more (default 1)"},
    "limit": {"type": "number", "description": "The most lines to return (default 2000)"},
    "mode": {"type": "string", "description": "\"slice\" (default) or \"indentation\""},
    "indentation": {"type": "object", "description": "What to return in indentation mode", "properties": {"anchor_line": {"type": "number", "description": "The line in whose block you are interested (default: offset)"}, "max_levels": {"type": "number", "description": "How many enclosing levels to include (default 0, all)"}, "include_siblings": {"type": "boolean", "description": "Include blocks beside the anchor's, at the outermost level"}, "include_header": {"type": "boolean", "description": "Include comments directly above the block (default true)"}, "max_lines": {"type": "number", "description": "The most lines to return, if fewer than limit"}}, "required": [], "additionalProperties": false}
}"#,
        &["file_path"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug)]
pub struct ReadFile {
    name: &'static str,
}

impl ReadFile {
    /// The tool under one of its two names.
    pub fn new(name: &'static str) -> Self {
        Self { name }
    }
}

impl Tool for ReadFile {
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
            offload::look(call, move || request.read()).await
        })
    }
}

struct Request {
    path: PathBuf,
    offset: usize,
    limit: usize,
    block: Option<Block>,
    overflow: Overflow,
}

struct Block {
    anchor: usize,
    levels: usize,
    siblings: bool,
    header: bool,
    max_lines: usize,
}

impl Request {
    fn new(name: &'static str, call: &ToolCall, context: &ToolContext) -> Result<Self, Failure> {
        let args = Args::new(name, &call.args);
        let positive = |args: &Args<'_>, name, default, refusal: &str| match args.opt_count(name)? {
            Some(0) => Err(Failure::new(refusal)),
            given => Ok(given.unwrap_or(default)),
        };
        let cwd = context.cwd.get();
        let path = paths::resolve(args.string("file_path")?, &cwd);
        let offset = positive(&args, "offset", 1, "offset must be a 1-indexed line number")?;
        let limit = positive(&args, "limit", LIMIT, "limit must be greater than zero")?;
        let empty = serde_json::Map::new();
        let block = if args.opt_string("mode")? == Some("indentation") {
            let options = args.opt_object("indentation")?;
            let options = options.unwrap_or(Args::new(name, &empty));
            let anchor = "anchor_line must be a 1-indexed line number";
            let most = "max_lines must be greater than zero";
            Some(Block {
                anchor: positive(&options, "anchor_line", offset, anchor)?,
                levels: options.opt_count("max_levels")?.unwrap_or(0),
                siblings: options.flag("include_siblings", false)?,
                header: options.flag("include_header", true)?,
                max_lines: positive(&options, "max_lines", limit, most)?.min(limit),
            })
        } else {
            None
        };
        Ok(Self {
            path,
            offset,
            limit,
            block,
            overflow: Overflow::of(context, name),
        })
    }

    fn read(self) -> Worked {
        let text = read_text(&self.path, MAX_BYTES, &self.overflow.cwd)?;
        let lines: Vec<&str> = text
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
            .collect();
        let chosen = match &self.block {
            Some(block) => block.around(&lines)?,
            None if self.offset > lines.len() => {
                return Err(Failure::new("offset exceeds file length"));
            }
            None => {
                let end = (self.offset - 1).saturating_add(self.limit);
                (self.offset - 1..end.min(lines.len())).collect()
            }
        };
        let shown: Vec<String> = chosen
            .into_iter()
            .map(|at| format!("L{}: {}", at + 1, head(lines[at], LINE_CHARS).0))
            .collect();
        let cut = self.overflow.cut(shown.join("\n"), MAX_CHARS);
        Ok(ToolOutcome::text(cut.text))
    }
}

impl Block {
    /// The lines of the block, by index: grown from the anchor, one line up and
    /// one line down at a time.
    fn around(&self, lines: &[&str]) -> Result<VecDeque<usize>, Failure> {
        if self.anchor > lines.len() {
            return Err(Failure::new("anchor_line exceeds file length"));
        }
        let indents = indents(lines);
        let anchor = self.anchor - 1;
        let least = match self.levels {
            0 => 0,
            levels => indents[anchor].saturating_sub(levels.saturating_mul(TAB)),
        };
        let limit = self.max_lines.min(lines.len());
        let mut block = VecDeque::from([anchor]);
        let (mut up, mut down) = (anchor.checked_sub(1), Some(anchor + 1));
        let (mut outermost_up, mut outermost_down) = (0, 0);
        while block.len() < limit && (up.is_some() || down.is_some()) {
            up = up.filter(|at| indents[*at] >= least).and_then(|at| {
                if indents[at] == least && !self.siblings {
                    let comment = self.header && is_comment(lines[at]);
                    if !comment && outermost_up > 0 {
                        return None;
                    }
                    outermost_up += 1;
                }
                block.push_front(at);
                at.checked_sub(1)
            });
            if block.len() >= limit {
                break;
            }
            down = down
                .filter(|at| indents.get(*at).is_some_and(|indent| *indent >= least))
                .and_then(|at| {
                    if indents[at] == least && !self.siblings {
                        if outermost_down > 0 {
                            return None;
                        }
                        outermost_down += 1;
                    }
                    block.push_back(at);
                    Some(at + 1)
                });
        }
        let blank = |at: Option<&usize>| at.is_some_and(|at| lines[*at].trim().is_empty());
        while blank(block.front()) {
            block.pop_front();
        }
        while blank(block.back()) {
            block.pop_back();
        }
        Ok(block)
    }
}

/// How far each line is indented; a blank line as far as the one before it.
fn indents(lines: &[&str]) -> Vec<usize> {
    let mut previous = 0;
    lines
        .iter()
        .map(|line| {
            if !line.trim().is_empty() {
                previous = line
                    .chars()
                    .map_while(|character| match character {
                        ' ' => Some(1),
                        '\t' => Some(TAB),
                        _ => None,
                    })
                    .sum();
            }
            previous
        })
        .collect()
}

fn is_comment(line: &str) -> bool {
    let line = line.trim();
    ["#", "//", "--"].iter().any(|mark| line.starts_with(mark))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::trial::{Trial, special_files};

    const CODE: &str = "mod a {\n    // about f\n    fn f() {\n        one();\n\n        two();\n    }\n\n    fn g() {\n        three();\n    }\n}\n";

    fn tool() -> ReadFile {
        ReadFile::new("read_file")
    }

    #[tokio::test]
    async fn slices_are_counted_from_one() {
        let trial = Trial::new();
        trial.file("f", format!("a\r\nb\n{}\n", "x".repeat(600)));
        for (args, expected) in [
            (
                json!({"file_path": "f", "limit": 2}),
                "L1: a\nL2: b".to_owned(),
            ),
            (
                json!({"file_path": "f", "offset": "3"}),
                format!("L3: {}\nL4: ", "x".repeat(500)),
            ),
        ] {
            assert_eq!(trial.ok(&tool(), args).await, expected);
        }
    }

    #[tokio::test]
    async fn blocks_grow_around_their_anchor() {
        let trial = Trial::new();
        trial.file("f", CODE);
        for (options, numbers) in [
            (
                json!({"anchor_line": 4, "max_levels": 1}),
                vec![2, 3, 4, 5, 6, 7],
            ),
            (
                json!({"anchor_line": 4, "max_levels": 1, "include_header": false}),
                vec![3, 4, 5, 6, 7],
            ),
            (
                json!({"anchor_line": 4, "max_levels": 1, "include_siblings": true}),
                (2..=11).collect(),
            ),
            (json!({"anchor_line": 4, "max_lines": 1}), vec![4]),
            (json!({"anchor_line": 4, "max_lines": 4}), vec![2, 3, 4]),
            (json!({"anchor_line": 10}), (1..=12).collect()),
        ] {
            let args = json!({"file_path": "f", "mode": "indentation", "indentation": options});
            let text = trial.ok(&tool(), args).await;
            let found: Vec<usize> = text
                .lines()
                .map(|line| line[1..line.find(':').unwrap()].parse().unwrap())
                .collect();
            assert_eq!(found, numbers, "{options}");
        }
    }

    #[tokio::test]
    async fn what_is_out_of_range_is_named() {
        let trial = Trial::new();
        trial.file("f", "a\nb");
        let block =
            |options| json!({"file_path": "f", "mode": "indentation", "indentation": options});
        for (args, expected) in [
            (
                json!({"file_path": "f", "offset": 0}),
                "offset must be a 1-indexed line number",
            ),
            (
                json!({"file_path": "f", "limit": -2}),
                "limit must be greater than zero",
            ),
            (
                json!({"file_path": "f", "offset": 3}),
                "offset exceeds file length",
            ),
            (
                block(json!({"anchor_line": 0})),
                "anchor_line must be a 1-indexed line number",
            ),
            (
                block(json!({"anchor_line": 3})),
                "anchor_line exceeds file length",
            ),
            (
                block(json!({"max_lines": 0})),
                "max_lines must be greater than zero",
            ),
            (
                block(json!(1)),
                "read_file: Parameter 'indentation' must be an object, received integer",
            ),
            (
                json!({"file_path": "none"}),
                "File does not exist. Attempted path: <cwd>/none. Current working directory: <cwd>",
            ),
        ] {
            assert_eq!(trial.err(&tool(), args).await, expected);
        }
        for (path, expected) in special_files(&trial) {
            let text = trial.err(&tool(), json!({"file_path": path})).await;
            assert!(text.contains(expected), "{text}");
        }
        trial
            .survives_bad_arguments(&ReadFile::new("ReadFile"))
            .await;
    }
}
