//! Read: a text file with line numbers, or an image (04 §7.2).

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

use super::args::{ArgError, Args, DRAFT_07, schema};
use super::disk;
use super::image::{self, Images};
use super::offload::{self, Failure, Worked};
use super::overflow::Overflow;
use super::paths;
use super::text::{decode, head, looks_binary, thousands};
use super::tool::{Lane, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};

/// Larger files are refused, in bytes.
pub(crate) const MAX_BYTES: u64 = 10 * 1024 * 1024;

/// Lines shown when no limit is given.
const MAX_LINES: usize = 2000;

/// Characters shown of one line.
const MAX_LINE_CHARS: usize = 2000;

/// Characters shown in all.
pub(crate) const MAX_CHARS: usize = 30_000;

const DESCRIPTION: &str = "\
Reads one file of this machine.

- file_path: best an absolute path. A relative path starts at the working directory; a leading ~ and $VARIABLES are expanded.
- Without offset and limit you get the first 2,000 lines. offset is the number of lines to skip: offset 100 starts with line 101. limit is the most lines to return. Use both for parts of a large file.
- Each line comes as its number, a tab, and the text. The number and the tab are not part of the file: leave them out of the strings you give to Edit.
- Lines over 2,000 characters are cut, and output over 30,000 characters loses its middle; a notice says so and names a file with the full text where there is one.
- Images (.png, .jpg, .jpeg, .gif, .webp, .bmp) are shown to you as images.
- Text must be UTF-8 and at most 10 MiB. Binary files and directories are refused.
- An existing but empty file gives a system reminder instead of text.
- Several reads can run in parallel: ask for all the files you are likely to need at once.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "file_path": {"type": "string", "description": "The file to read, best as an absolute path"},
    "offset": {"type": "number", "description": "How many lines to skip before the first one returned (default 0)"},
    "limit": {"type": "number", "description": "The most lines to return (default 2000)"}
}"#,
        &["file_path"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug)]
pub struct Read {
    images: Images,
}

impl Read {
    /// A Read that shares `images` with ViewImage.
    pub fn new(images: Images) -> Self {
        Self { images }
    }
}

impl Tool for Read {
    fn name(&self) -> &'static str {
        "Read"
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
                Err(error) => return ToolOutcome::error(error.to_string()),
            };
            if image::is_image(&request.path) {
                return self
                    .images
                    .show(call, request.path, request.overflow.cwd)
                    .await;
            }
            offload::look(call, move || request.read()).await
        })
    }
}

struct Request {
    path: PathBuf,
    offset: usize,
    limit: Option<usize>,
    overflow: Overflow,
}

impl Request {
    fn new(call: &ToolCall, context: &ToolContext) -> Result<Self, ArgError> {
        let args = Args::new("Read", &call.args);
        Ok(Self {
            path: paths::expanded(args.string("file_path")?, context),
            offset: args.opt_count("offset")?.unwrap_or(0),
            limit: args.opt_count("limit")?.filter(|limit| *limit > 0),
            overflow: Overflow::of(context, "Read"),
        })
    }

    fn read(self) -> Worked {
        let text = read_text(&self.path, MAX_BYTES, &self.overflow.cwd)?;
        if text.trim().is_empty() {
            return Ok(ToolOutcome::text(format!(
                "<system-reminder>\nThe file {} exists but has empty contents.\n</system-reminder>",
                self.path.display()
            )));
        }
        Ok(ToolOutcome::text(numbered(&text, &self)))
    }
}

/// A whole text file of at most `max` bytes, or the words of why not.
pub(crate) fn read_text(path: &Path, max: u64, cwd: &Path) -> Result<String, Failure> {
    let (bytes, _) = disk::read(path, max).map_err(|error| Failure::new(error.for_model(cwd)))?;
    if looks_binary(&bytes) {
        return Err(Failure::new(format!(
            "Cannot read binary file: {}",
            path.display()
        )));
    }
    Ok(decode(bytes, path)?)
}

/// The lines asked for, with their numbers and with notices of what is missing.
fn numbered(text: &str, request: &Request) -> String {
    // A trailing newline counts as one more, empty line.
    let total = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let first = request.offset.min(total);
    let limit = request.limit.unwrap_or(MAX_LINES);
    let last = first.saturating_add(limit).min(total);

    let mut out = String::new();
    let mut long_lines = false;
    for (index, line) in text.split('\n').enumerate().take(last).skip(first) {
        if index > first {
            out.push('\n');
        }
        let (shown, cut) = head(line, MAX_LINE_CHARS);
        out.push_str(&format!("{}\t{shown}", index + 1));
        if cut {
            long_lines = true;
            out.push_str("... [line truncated]");
        }
    }
    let cut = request.overflow.cut_only(out, MAX_CHARS);
    let mut out = cut.text;

    let too_many_lines = last < total && request.limit.is_none();
    if too_many_lines {
        out.push_str(&format!(
            "\n\n[File truncated: showing lines {}-{last} of {total} total lines. Use offset and limit parameters to read other sections.]",
            first + 1
        ));
    }
    if long_lines {
        out.push_str(&format!(
            "\n\n[Some lines exceeded {} characters and were truncated.]",
            thousands(MAX_LINE_CHARS)
        ));
    }
    if cut.truncated {
        out.push_str("\n\n[Use offset and limit parameters to read the file in smaller sections.]");
    }
    // A cut that was asked for needs no copy of the file.
    if (too_many_lines || long_lines || cut.truncated)
        && let Some(file) = request.overflow.write_file(text)
    {
        out.push_str(&format!(
            "\n\n[Full file content written to: {}]",
            file.display()
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::trial::{Trial, special_files};
    use std::fs;

    fn tool() -> Read {
        Read::new(Images::default())
    }

    #[tokio::test]
    async fn lines_come_numbered_and_a_trailing_newline_makes_one_more() {
        let trial = Trial::new();
        trial.file("f", "Q\nL2\nl2\n");
        for (args, expected) in [
            (json!({"file_path": "f"}), "1\tQ\n2\tL2\n3\tl2\n4\t"),
            (json!({"file_path": "f", "offset": 1, "limit": 1}), "2\tL2"),
            (
                json!({"file_path": "f", "offset": "1", "limit": 2.9}),
                "2\tL2\n3\tl2",
            ),
            (
                json!({"file_path": "f", "offset": -5, "limit": 0}),
                "1\tQ\n2\tL2\n3\tl2\n4\t",
            ),
            (json!({"file_path": "f", "offset": 4}), ""),
            (
                json!({"file_path": "f", "offset": u64::MAX, "limit": u64::MAX}),
                "",
            ),
            (json!({"file_path": "./x/../f", "limit": 1}), "1\tQ"),
        ] {
            assert_eq!(trial.ok(&tool(), args.clone()).await, expected, "{args}");
        }
    }

    #[tokio::test]
    async fn home_and_variables_are_expanded() {
        let trial = Trial::new();
        fs::write(trial.context.home.join("f"), "x").unwrap();
        assert_eq!(trial.ok(&tool(), json!({"file_path": "~/f"})).await, "1\tx");
        let text = trial
            .err(&tool(), json!({"file_path": "$LETTA_SURELY_UNSET/f"}))
            .await;
        assert!(text.contains("<cwd>/$LETTA_SURELY_UNSET/f"), "{text}");
    }

    #[tokio::test]
    async fn what_is_no_text_says_so() {
        let trial = Trial::new();
        trial.file("nul", b"a\0b");
        trial.file("utf16", b"\xFF\xFEa\0");
        trial.file("latin1", b"caf\xE9 au lait");
        trial.file("blank", " \n\t\n");
        trial.file("empty", "");
        trial.file("big", vec![b'x'; 10 * 1024 * 1024 + 1]);
        fs::create_dir(trial.path("dir")).unwrap();
        assert_eq!(
            trial.ok(&tool(), json!({"file_path": "empty"})).await,
            "<system-reminder>\nThe file <cwd>/empty exists but has empty contents.\n</system-reminder>"
        );
        assert!(
            trial
                .ok(&tool(), json!({"file_path": "blank", "offset": 1}))
                .await
                .contains("empty contents")
        );
        for (file, expected) in [
            ("nul", "Cannot read binary file: <cwd>/nul"),
            (
                "utf16",
                "File is not valid UTF-8 text: <cwd>/utf16. Detected UTF-16LE BOM; convert the file to UTF-8 and retry.",
            ),
            (
                "latin1",
                "File is not valid UTF-8 text: <cwd>/latin1. The file contains bytes that cannot be decoded as UTF-8.",
            ),
            ("dir", "Path is a directory, not a file: <cwd>/dir"),
            ("big", "File too large: 10485761 bytes (max 10485760 bytes)"),
            (
                "none",
                "File does not exist. Attempted path: <cwd>/none. Current working directory: <cwd>",
            ),
            ("big/x", "Not a directory (os error 20): <cwd>/big/x"),
        ] {
            assert_eq!(
                trial.err(&tool(), json!({"file_path": file})).await,
                expected
            );
        }
        for (path, expected) in special_files(&trial) {
            let text = trial.err(&tool(), json!({"file_path": path})).await;
            assert!(text.contains(expected), "{text}");
        }
        trial.survives_bad_arguments(&tool()).await;
    }

    #[tokio::test]
    async fn cuts_are_announced_and_the_whole_file_is_kept_unless_asked_for() {
        let trial = Trial::new();
        let lines: String = (1..=2500).map(|n| format!("{n}\n")).collect();
        trial.file("many", &lines);
        let text = trial.ok(&tool(), json!({"file_path": "many"})).await;
        let (shown, notices) = text.split_once("\n\n").unwrap();
        assert!(shown.starts_with("1\t1\n") && shown.ends_with("\n2000\t2000"));
        let (notice, copy) = notices.split_once("\n\n").unwrap();
        assert_eq!(
            notice,
            "[File truncated: showing lines 1-2000 of 2501 total lines. Use offset and limit parameters to read other sections.]"
        );
        let copy = copy
            .strip_prefix("[Full file content written to: ")
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap();
        assert_eq!(fs::read_to_string(copy).unwrap(), lines);

        let asked = trial
            .ok(&tool(), json!({"file_path": "many", "limit": 2}))
            .await;
        assert_eq!(asked, "1\t1\n2\t2");

        trial.file("wide", "é".repeat(2001));
        let text = trial.ok(&tool(), json!({"file_path": "wide"})).await;
        assert!(
            text.starts_with(&format!("1\t{}... [line truncated]\n\n[Some lines exceeded 2,000 characters and were truncated.]\n\n[Full file", "é".repeat(2000))),
        );

        trial.file("long", ("y".repeat(999) + "\n").repeat(40));
        let text = trial.ok(&tool(), json!({"file_path": "long"})).await;
        assert!(text.contains("characters omitted] ..."));
        assert!(text.contains("\n\n[Output truncated: showing 30,000 of "));
        assert!(text.contains("\n\n[Use offset and limit parameters to read the file in smaller sections.]\n\n[Full file content written to: "));
    }

    #[tokio::test]
    async fn an_unreadable_file_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let trial = Trial::new();
        let path = trial.file("secret", "x");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        // Root reads everything.
        if fs::read(&path).is_err() {
            assert_eq!(
                trial.err(&tool(), json!({"file_path": "secret"})).await,
                "Permission denied: <cwd>/secret"
            );
        }
    }

    #[tokio::test]
    async fn an_aborted_call_reads_nothing() {
        let trial = Trial::new();
        trial.file("f", "x");
        trial.cancel.cancel();
        assert_eq!(
            trial.err(&tool(), json!({"file_path": "f"})).await,
            "Interrupted by user"
        );
    }
}
