//! MultiEdit: several replacements in one file, all or none (04 §7.5).

use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::args::{Args, DRAFT_07, schema};
use super::edit::{OneEdit, Wish, rewrite};
use super::offload::Failure;
use super::paths;
use super::replace::{ReplaceError, replace};
use super::text::{head, plural};
use super::tool::{Lane, Tool, ToolCall, ToolContext, ToolFuture};

/// More edits in one call are refused: each scans the whole file.
const MAX_EDITS: usize = 1000;

/// Characters of a string shown in the summary of an edit.
const SUMMARY_CHARS: usize = 50;

const DESCRIPTION: &str = "\
Makes several replacements in one existing file, all of them or none.

- The edits are made in order, each on the result of the one before, so an early edit must not change text that a later old_string needs.
- Every edit follows the rules of Edit: old_string must match exactly, whitespace included and without line numbers, and must occur once unless replace_all is set.
- If one edit cannot be made, the file is left as it was and the error names the edit.
- Prefer this over several calls of Edit when one file needs several changes. Read the file first.
- The result is JSON with a summary and the line of each edit.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "file_path": {"type": "string", "description": "The file to change, best as an absolute path"},
    "edits": {"type": "array", "minItems": 1, "description": "The edits, in the order in which they are made", "items": {"type": "object", "properties": {"old_string": {"type": "string", "description": "The exact text to replace"}, "new_string": {"type": "string", "description": "The text that takes its place"}, "replace_all": {"type": "boolean", "default": false, "description": "Replace every occurrence (default false)"}}, "required": ["old_string", "new_string"], "additionalProperties": false}}
}"#,
        &["file_path", "edits"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug, Default)]
pub struct MultiEdit;

impl Tool for MultiEdit {
    fn name(&self) -> &'static str {
        "MultiEdit"
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
    let args = Args::new("MultiEdit", &call.args);
    let path = paths::expanded(args.string("file_path")?, context);
    let wanted = args.objects("edits")?;
    if wanted.is_empty() {
        return Err(Failure::new("No edits provided"));
    }
    if wanted.len() > MAX_EDITS {
        return Err(Failure::new(format!(
            "Too many edits: {} (max {MAX_EDITS}). Split them over several calls.",
            wanted.len()
        )));
    }
    let wanted = wanted.iter().map(OneEdit::read);
    let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
    Ok((
        path,
        Box::new(move |path: &Path, text: &str| all(&wanted, path, text)),
    ))
}

/// The new text of the file and the result for the model.
fn all(wanted: &[OneEdit], path: &Path, text: &str) -> Result<(String, Value), Failure> {
    let mut text = text.to_owned();
    let mut message = format!(
        "Applied {} edit{} to {}:",
        wanted.len(),
        plural(wanted.len()),
        path.display()
    );
    let mut done = Vec::with_capacity(wanted.len());
    for (number, edit) in (1..).zip(wanted) {
        let replaced = replace(&text, edit.as_replacement(None, false));
        let replaced = replaced.map_err(|error| refused(number, &error))?;
        text = replaced.text;
        let description = format!("Replaced {} with {}", quoted(&edit.old), quoted(&edit.new));
        message.push_str(&format!("\n{number}. {description}"));
        done.push(json!({"description": description, "startLine": replaced.start_line}));
    }
    let result = json!({"message": message, "edits_applied": done.len(), "edits": done});
    Ok((text, result))
}

fn refused(number: usize, error: &ReplaceError) -> Failure {
    match error {
        // The hints of Edit would make a long list longer.
        ReplaceError::NotFound { old, .. } => Failure::new(format!(
            "Edit {number}: String to replace not found in file.\nString: {old}"
        )),
        other => Failure::new(format!("Edit {number}: {other}")),
    }
}

fn quoted(text: &str) -> String {
    match head(text, SUMMARY_CHARS) {
        (all, false) => format!("\"{all}\""),
        (start, true) => format!("\"{start}...\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::tool::Progress;
    use crate::tools::trial::Trial;

    fn args(edits: Value) -> Value {
        json!({"file_path": "f", "edits": edits})
    }

    #[tokio::test]
    async fn edits_build_on_each_other() {
        let mut trial = Trial::new();
        let path = trial.file("f", "one\r\ntwo\r\n");
        let long = "z".repeat(60);
        let text = trial
            .ok(
                &MultiEdit,
                args(json!([
                    {"old_string": "two", "new_string": "three\nthree"},
                    {"old_string": "three", "new_string": long, "replace_all": true},
                ])),
            )
            .await;
        let result: Value = serde_json::from_str(&text).unwrap();
        let short = format!("{}...", "z".repeat(50));
        assert_eq!(
            result,
            json!({
                "message": format!("Applied 2 edits to <cwd>/f:\n1. Replaced \"two\" with \"three\nthree\"\n2. Replaced \"three\" with \"{short}\""),
                "edits_applied": 2,
                "edits": [
                    {"description": "Replaced \"two\" with \"three\nthree\"", "startLine": 2},
                    {"description": format!("Replaced \"three\" with \"{short}\""), "startLine": 2},
                ],
            })
        );
        let content = format!("one\r\n{long}\r\n{long}\r\n");
        assert_eq!(trial.content("f"), content);
        assert_eq!(trial.progress(), [Progress::FileWritten { path, content }]);
    }

    #[tokio::test]
    async fn one_refused_edit_undoes_all() {
        let mut trial = Trial::new();
        trial.file("f", "a b a\n");
        let good = json!({"old_string": "b", "new_string": "c"});
        for (edits, expected) in [
            (json!([]), "No edits provided"),
            (
                json!([good, {"old_string": "x", "new_string": "x"}]),
                "Edit 2: No changes to make: old_string and new_string are exactly the same.",
            ),
            (
                json!([good, {"old_string": "b", "new_string": "x"}]),
                "Edit 2: String to replace not found in file.\nString: b",
            ),
            (
                json!([good, {"old_string": "a", "new_string": "x"}]),
                "Edit 2: Found 2 matches of the string to replace, but replace_all is false.",
            ),
            (
                json!([good, {"old_string": "a"}]),
                "MultiEdit: Parameter 'edits[1].new_string' must be given, received null",
            ),
            (
                json!([good, null]),
                "MultiEdit: Parameter 'edits[1]' must be an object, received null",
            ),
            (
                json!("x"),
                "MultiEdit: Parameter 'edits' must be an array, received string",
            ),
            (
                Value::Array(vec![good.clone(); 1001]),
                "Too many edits: 1001",
            ),
        ] {
            let text = trial.err(&MultiEdit, args(edits)).await;
            assert!(text.starts_with(expected), "{text}");
        }
        assert!(
            trial
                .err(&MultiEdit, json!({"file_path": "none", "edits": [good]}))
                .await
                .starts_with("File does not exist.")
        );
        trial.survives_bad_arguments(&MultiEdit).await;
        assert_eq!(trial.content("f"), "a b a\n");
        assert_eq!(trial.progress(), []);
    }
}
