//! Edit: replace one exact snippet of a file (04 §7.4, 00 §6).

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::args::{ArgError, Args, DRAFT_07, schema};
use super::offload::{self, Failure};
use super::replace::{Replaced, Replacement, replace};
use super::text::{decode, plural};
use super::tool::{Lane, Progress, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};
use super::{disk, paths};

/// Larger files are not edited, in bytes.
pub(crate) const MAX_BYTES: u64 = 64 * 1024 * 1024;

const DESCRIPTION: &str = "\
Replaces an exact piece of text in a file.

- file_path: best an absolute path. A relative path starts at the working directory; a leading ~ and $VARIABLES are expanded.
- old_string must match the file exactly, whitespace and indentation included. Read the file first and copy from it, without the line number and tab that Read puts before each line.
- old_string must occur exactly once. If it occurs more often, the file is left alone: add surrounding lines until it is unique, or set replace_all to replace every occurrence, as for a rename.
- Line endings need no care: a match ignores whether lines end with LF or CRLF, lines you do not change keep their bytes, and new lines get the ending that the file mostly uses.
- The result is JSON with the number of replacements and the line of the first one.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "file_path": {"type": "string", "description": "The file to change, best as an absolute path"},
    "old_string": {"type": "string", "description": "The exact text to replace"},
    "new_string": {"type": "string", "description": "The text that takes its place; must differ from old_string"},
    "replace_all": {"type": "boolean", "default": false, "description": "Replace every occurrence of old_string (default false)"}
}"#,
        &["file_path", "old_string", "new_string"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug, Default)]
pub struct Edit;

impl Tool for Edit {
    fn name(&self) -> &'static str {
        "Edit"
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
        Box::pin(rewrite(call, context, wish(call, context)))
    }
}

fn wish(call: &ToolCall, context: &ToolContext) -> Wish {
    let args = Args::new("Edit", &call.args);
    let expected = args.opt_integer("expected_replacements")?;
    if expected.is_some_and(|expected| expected < 1) {
        return Err(Failure::new(
            "expected_replacements must be a positive integer when provided.",
        ));
    }
    let expected = expected.and_then(|expected| usize::try_from(expected).ok());
    let (path, change) = (
        paths::expanded(args.string("file_path")?, context),
        OneEdit::read(&args)?,
    );
    let edit = move |path: &Path, text: &str| {
        let Replaced {
            text,
            count,
            start_line,
        } = replace(text, change.as_replacement(expected, true))?;
        let message = format!(
            "Successfully replaced {count} occurrence{} in {}",
            plural(count),
            path.display()
        );
        let result = json!({"message": message, "replacements": count, "startLine": start_line});
        Ok((text, result))
    };
    Ok((path, Box::new(edit)))
}

/// The replacement that a model asks for.
pub(crate) struct OneEdit {
    pub(crate) old: String,
    pub(crate) new: String,
    all: bool,
}

impl OneEdit {
    /// `old_string`, `new_string` and `replace_all`.
    pub(crate) fn read(args: &Args<'_>) -> Result<Self, ArgError> {
        Ok(Self {
            old: args.string("old_string")?.to_owned(),
            new: args.string("new_string")?.to_owned(),
            all: args.flag("replace_all", false)?,
        })
    }

    pub(crate) fn as_replacement(
        &self,
        expected: Option<usize>,
        unescape: bool,
    ) -> Replacement<'_> {
        Replacement {
            old: &self.old,
            new: &self.new,
            all: self.all,
            expected,
            unescape,
        }
    }
}

/// From a file's path and text to its new text and the result for the model.
type Edits = Box<dyn FnOnce(&Path, &str) -> Result<(String, Value), Failure> + Send>;

/// The file to change and how, if the arguments can be used.
pub(crate) type Wish = Result<(PathBuf, Edits), Failure>;

/// Reads a text file, changes it in memory, writes it back if it is still the
/// file that was read, and tells of its new text.
pub(crate) async fn rewrite(call: &ToolCall, context: &ToolContext, wish: Wish) -> ToolOutcome {
    let (path, edits) = match wish {
        Ok(wish) => wish,
        Err(failure) => return offload::settle(Err(failure)),
    };
    let (cwd, output) = (context.cwd.get(), call.output.clone());
    let work = move || {
        let for_model = |error| match error {
            disk::FileError::Directory(path) => {
                Failure::new(format!("Path is a directory: {}", path.display()))
            }
            other => Failure::new(other.for_model(&cwd)),
        };
        let (bytes, stamp) = disk::read(&path, MAX_BYTES).map_err(for_model)?;
        let (content, result) = edits(&path, &decode(bytes, &path)?)?;
        disk::write(&path, content.as_bytes(), Some(stamp)).map_err(for_model)?;
        output.send(Progress::FileWritten { path, content });
        Ok(ToolOutcome::text(result.to_string()))
    };
    offload::change(call, work).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::trial::{Trial, special_files};

    fn args(old: &str, new: &str) -> Value {
        json!({"file_path": "f", "old_string": old, "new_string": new})
    }

    #[tokio::test]
    async fn the_result_is_json_and_the_new_text_is_announced() {
        let mut trial = Trial::new();
        let path = trial.file("f", "one\r\ntwo\r\n");
        let text = trial.ok(&Edit, args("two\n", "2\n3\n")).await;
        assert_eq!(
            text,
            r#"{"message":"Successfully replaced 1 occurrence in <cwd>/f","replacements":1,"startLine":2}"#
        );
        let content = "one\r\n2\r\n3\r\n".to_owned();
        assert_eq!(trial.content("f"), content);
        assert_eq!(trial.progress(), [Progress::FileWritten { path, content }]);
    }

    #[tokio::test]
    async fn a_refused_edit_leaves_the_file() {
        let mut trial = Trial::new();
        trial.file("f", "a b a\n");
        trial.file("latin1", b"caf\xE9");
        let mut many = args("a", "x");
        let text = trial.err(&Edit, many.clone()).await;
        assert!(text.starts_with("Found 2 matches"), "{text}");
        let text = trial.err(&Edit, args("zzz", "x")).await;
        assert!(
            text.starts_with(
                "String to replace not found in file.\nString: zzz\nPossible mismatch reasons:\n- "
            ),
            "{text}"
        );
        assert!(
            trial
                .err(&Edit, args("", "x"))
                .await
                .starts_with("old_string cannot be empty.")
        );
        many["expected_replacements"] = json!(0);
        assert_eq!(
            trial.err(&Edit, many.clone()).await,
            "expected_replacements must be a positive integer when provided."
        );
        assert_eq!(
            trial
                .err(
                    &Edit,
                    json!({"file_path": "none", "old_string": "a", "new_string": "b"})
                )
                .await,
            "File does not exist. Attempted path: <cwd>/none. Current working directory: <cwd>"
        );
        let text = trial
            .err(
                &Edit,
                json!({"file_path": "latin1", "old_string": "c", "new_string": "b"}),
            )
            .await;
        assert!(
            text.starts_with("File is not valid UTF-8 text: <cwd>/latin1"),
            "{text}"
        );
        for (path, expected) in special_files(&trial) {
            let args = json!({"file_path": path, "old_string": "a", "new_string": "b"});
            let text = trial.err(&Edit, args).await;
            assert!(text.contains(expected), "{text}");
        }
        trial.survives_bad_arguments(&Edit).await;
        assert_eq!(trial.content("f"), "a b a\n");
        assert_eq!(trial.progress(), []);

        many["expected_replacements"] = json!("2");
        assert!(
            trial
                .ok(&Edit, many)
                .await
                .contains("replaced 2 occurrences")
        );
        assert_eq!(trial.content("f"), "x b x\n");
        let all =
            json!({"file_path": "f", "old_string": "x", "new_string": "y", "replace_all": "true"});
        assert!(trial.ok(&Edit, all).await.contains("\"replacements\":2"));
        assert_eq!(trial.content("f"), "y b y\n");
    }
}
