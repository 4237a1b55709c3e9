//! What a question about a file change shows: hunks for `control_request.diffs`
//! (02 §9.4). Pure: files are read through a closure, bounds are the caller's.

use serde::Serialize;
use serde_json::{Map, Value};
use similar::{DiffOp, group_diff_ops};

use super::family::is_patch_tool;
use super::path;
use crate::line_diff::line_diff;

/// Lines of context around a change.
const CONTEXT: usize = 1;
/// Largest text that is compared, old and new together, in bytes.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Most edits of one call that are applied.
const MAX_EDITS: usize = 1000;

/// One entry of `diffs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(
    tag = "mode",
    rename_all = "lowercase",
    rename_all_fields = "camelCase"
)]
pub enum DiffPreview {
    /// The change, hunk by hunk.
    Advanced {
        /// Last segment of the path.
        file_name: String,
        /// In file order.
        hunks: Vec<Hunk>,
    },
    /// The file could not be read.
    Fallback {
        /// Last segment of the path.
        file_name: String,
        /// Why, for people.
        reason: String,
    },
    /// The change would fail.
    Unpreviewable {
        /// Last segment of the path.
        file_name: String,
        /// Why, for people.
        reason: String,
    },
}

/// A run of changed lines with its context.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hunk {
    /// First line in the old file, from 1.
    pub old_start: usize,
    /// Lines of the old file shown.
    pub old_lines: usize,
    /// First line in the new file, from 1.
    pub new_start: usize,
    /// Lines of the new file shown.
    pub new_lines: usize,
    /// The lines.
    pub lines: Vec<Line>,
}

/// One line of a hunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What happens to it.
    #[serde(rename = "type")]
    pub kind: LineKind,
    /// Its text without the line break.
    pub content: String,
}

/// What happens to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LineKind {
    /// It is added.
    Add,
    /// It goes.
    Remove,
    /// It stays.
    Context,
}

/// The previews of a call; empty for tools that change no files. `read` gets
/// absolute paths and gives a file's text, `None` when there is none to show.
pub fn previews(
    tool: &str,
    args: &Map<String, Value>,
    cwd: &str,
    read: impl Fn(&str) -> Option<String>,
) -> Vec<DiffPreview> {
    if is_patch_tool(tool) {
        return args
            .get("input")
            .and_then(Value::as_str)
            .map(patch)
            .unwrap_or_default();
    }
    let text = |key: &str| args.get(key).and_then(Value::as_str).unwrap_or("");
    let target = text("file_path");
    if target.is_empty() {
        return Vec::new();
    }
    let file_name = path::file_name(target).to_owned();
    let read = || read(&path::resolve(cwd, target));
    let change = match tool {
        "Write" | "write" => Ok((read().unwrap_or_default(), text("content").to_owned())),
        "Edit" | "edit" | "MultiEdit" | "multi_edit" => match read() {
            None => {
                return vec![DiffPreview::Fallback {
                    file_name,
                    reason: "File not readable".to_owned(),
                }];
            }
            Some(old) => edited(&old, args).map(|new| (old, new)),
        },
        _ => return Vec::new(),
    };
    let preview = match change {
        Ok((old, new)) if old.len() + new.len() > MAX_BYTES => DiffPreview::Unpreviewable {
            file_name,
            reason: "File too large to preview".to_owned(),
        },
        Ok((old, new)) => DiffPreview::Advanced {
            hunks: hunks(&old, &new),
            file_name,
        },
        Err(reason) => DiffPreview::Unpreviewable { file_name, reason },
    };
    vec![preview]
}

/// The text after an `Edit` or `MultiEdit`, or why it cannot be.
fn edited(old: &str, args: &Map<String, Value>) -> Result<String, String> {
    let text = |of: &Map<String, Value>, key: &str| {
        of.get(key).and_then(Value::as_str).unwrap_or("").to_owned()
    };
    let all =
        |of: &Map<String, Value>| of.get("replace_all").and_then(Value::as_bool) == Some(true);
    let Some(edits) = args.get("edits").and_then(Value::as_array) else {
        return replaced(
            old,
            &text(args, "old_string"),
            &text(args, "new_string"),
            all(args),
        );
    };
    let mut current = old.to_owned();
    for edit in edits.iter().filter_map(Value::as_object).take(MAX_EDITS) {
        let from = text(edit, "old_string");
        let count = if from.is_empty() {
            1
        } else {
            current.matches(from.as_str()).count()
        };
        if count == 0 {
            return Err("Edit not found in file".to_owned());
        }
        if count > 1 && !all(edit) {
            return Err(format!("Multiple matches ({count}), replace_all=false"));
        }
        current = replaced(&current, &from, &text(edit, "new_string"), all(edit))?;
        if current.len() > MAX_BYTES {
            break;
        }
    }
    Ok(current)
}

fn replaced(text: &str, from: &str, to: &str, all: bool) -> Result<String, String> {
    let failed = |why: &str| Err(format!("Edit cannot be previewed: {why}"));
    if from.is_empty() {
        return failed("old_string empty");
    }
    if !text.contains(from) {
        return failed("old_string not found");
    }
    // A short text replaced by a long one everywhere could grow without bound.
    let count = if all { text.matches(from).count() } else { 1 };
    if text.len() + count * to.len() > 2 * MAX_BYTES {
        return Err("File too large to preview".to_owned());
    }
    Ok(text.replacen(from, to, count))
}

fn hunks(old: &str, new: &str) -> Vec<Hunk> {
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let new: Vec<&str> = new.split_inclusive('\n').collect();
    group_diff_ops(line_diff(&old, &new), CONTEXT)
        .iter()
        .filter_map(|group| {
            let first = group.first()?;
            let mut hunk = Hunk {
                old_start: first.old_range().start + 1,
                new_start: first.new_range().start + 1,
                ..Hunk::default()
            };
            for op in group {
                let (gone, come) = (&old[op.old_range()], &new[op.new_range()]);
                if let DiffOp::Equal { .. } = op {
                    hunk.lines(LineKind::Context, gone);
                } else {
                    hunk.lines(LineKind::Remove, gone);
                    hunk.lines(LineKind::Add, come);
                }
            }
            Some(hunk)
        })
        .collect()
}

impl Hunk {
    fn lines(&mut self, kind: LineKind, lines: &[&str]) {
        for line in lines {
            self.push(kind, line.trim_end_matches('\n'));
        }
    }

    fn push(&mut self, kind: LineKind, content: &str) {
        self.old_lines += usize::from(kind != LineKind::Add);
        self.new_lines += usize::from(kind != LineKind::Remove);
        self.lines.push(Line {
            kind,
            content: content.to_owned(),
        });
    }
}

/// One entry for every file that a patch adds or updates.
fn patch(input: &str) -> Vec<DiffPreview> {
    let mut out: Vec<(String, PatchHunks)> = Vec::new();
    let mut open = false;
    for line in input.lines() {
        let section = ["*** Add File:", "*** Update File:"]
            .iter()
            .find_map(|mark| line.trim().strip_prefix(mark));
        if let Some(target) = section {
            let name = path::file_name(target.trim()).to_owned();
            out.push((name, PatchHunks::default()));
            open = true;
        } else if line.starts_with("*** Move to:") {
            // The name shown stays the one that is changed.
        } else if line.starts_with("*** ") {
            open = false;
        } else if open && let Some((_, hunks)) = out.last_mut() {
            hunks.line(line);
        }
    }
    out.into_iter()
        .map(|(file_name, hunks)| DiffPreview::Advanced {
            file_name,
            hunks: hunks.done(),
        })
        .filter(
            |preview| matches!(preview, DiffPreview::Advanced { hunks, .. } if !hunks.is_empty()),
        )
        .collect()
}

/// Hunks as a patch writes them; line numbers count on where it gives none.
struct PatchHunks {
    done: Vec<Hunk>,
    current: Option<Hunk>,
    old: usize,
    new: usize,
}

impl Default for PatchHunks {
    fn default() -> Self {
        Self {
            done: Vec::new(),
            current: None,
            old: 1,
            new: 1,
        }
    }
}

impl PatchHunks {
    fn line(&mut self, line: &str) {
        if let Some(header) = line.strip_prefix("@@") {
            self.close();
            let (old, new) = numbers(header).unwrap_or((self.old, self.new));
            self.current = Some(Hunk {
                old_start: old,
                new_start: new,
                ..Hunk::default()
            });
            return;
        }
        let (kind, content) = match line.split_at_checked(1) {
            Some((" ", rest)) => (LineKind::Context, rest),
            Some(("-", rest)) => (LineKind::Remove, rest),
            Some(("+", rest)) => (LineKind::Add, rest),
            None => (LineKind::Context, ""),
            Some(_) => return,
        };
        self.old += usize::from(kind != LineKind::Add);
        self.new += usize::from(kind != LineKind::Remove);
        let hunk = self.current.get_or_insert_with(|| Hunk {
            old_start: 1,
            new_start: 1,
            ..Hunk::default()
        });
        hunk.push(kind, content);
    }

    fn close(&mut self) {
        if let Some(hunk) = self.current.take().filter(|h| !h.lines.is_empty()) {
            self.done.push(hunk);
        }
    }

    fn done(mut self) -> Vec<Hunk> {
        self.close();
        self.done
    }
}

/// ` -1,2 +3,4 @@` as (1, 3).
fn numbers(header: &str) -> Option<(usize, usize)> {
    let mut words = header.split_whitespace();
    let mut number = |mark| {
        let text: &str = words.next()?.strip_prefix(mark)?;
        text.split(',').next()?.parse().ok()
    };
    Some((number('-')?, number('+')?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(tool: &str, args: Value, file: Option<&str>) -> Value {
        let read = |path: &str| (path == "/srv/app/a.txt").then(|| file.map(str::to_owned))?;
        let found = previews(tool, args.as_object().unwrap(), "/srv/app", read);
        serde_json::to_value(found).unwrap()
    }

    #[test]
    fn a_write_shows_the_whole_file_and_a_new_file_is_all_added() {
        let found = of(
            "Write",
            json!({"file_path": "a.txt", "content": "x\ny"}),
            None,
        );
        assert_eq!(
            found,
            json!([{"mode": "advanced", "fileName": "a.txt", "hunks": [{
                "oldStart": 1, "oldLines": 0, "newStart": 1, "newLines": 2,
                "lines": [{"type": "add", "content": "x"}, {"type": "add", "content": "y"}]}]}])
        );
    }

    #[test]
    fn an_edit_has_one_line_of_context() {
        let found = of(
            "Edit",
            json!({"file_path": "a.txt", "old_string": "c", "new_string": "C"}),
            Some("a\nb\nc\nd\ne\n"),
        );
        let hunk = &found[0]["hunks"][0];
        assert_eq!(
            (&hunk["oldStart"], &hunk["oldLines"], &hunk["newLines"]),
            (&json!(2), &json!(3), &json!(3))
        );
        assert_eq!(hunk["lines"][1], json!({"type": "remove", "content": "c"}));
    }

    #[test]
    fn edits_that_would_fail_say_why() {
        for (args, reason) in [
            (
                json!({"old_string": "z"}),
                "Edit cannot be previewed: old_string not found",
            ),
            (
                json!({"old_string": ""}),
                "Edit cannot be previewed: old_string empty",
            ),
            (
                json!({"edits": [{"old_string": "z"}]}),
                "Edit not found in file",
            ),
            (
                json!({"edits": [{"old_string": "a"}]}),
                "Multiple matches (2), replace_all=false",
            ),
        ] {
            let mut args = args;
            args["file_path"] = json!("a.txt");
            let found = of("MultiEdit", args, Some("a a"));
            assert_eq!(
                found,
                json!([{"mode": "unpreviewable", "fileName": "a.txt", "reason": reason}])
            );
        }
        let found = of("Edit", json!({"file_path": "b.txt"}), None);
        assert_eq!(found[0]["mode"], "fallback");
        assert_eq!(found[0]["reason"], "File not readable");
    }

    #[test]
    fn a_patch_has_an_entry_for_each_file_it_adds_or_updates() {
        let input = "*** Begin Patch\n*** Add File: d/n.txt\n+one\n*** Update File: a.txt\n\
                     @@ -5,2 +5,2 @@\n x\n-y\n+z\n*** Delete File: c\n*** End Patch";
        let found = of("ApplyPatch", json!({ "input": input }), None);
        assert_eq!(found.as_array().unwrap().len(), 2);
        assert_eq!(found[0]["fileName"], "n.txt");
        assert_eq!(found[1]["hunks"][0]["oldStart"], 5);
        assert_eq!(found[1]["hunks"][0]["lines"][2]["type"], "add");
    }

    #[test]
    fn tools_that_change_no_file_have_none() {
        assert_eq!(of("Bash", json!({"command": "x"}), None), json!([]));
        assert_eq!(of("Write", json!({"content": "x"}), None), json!([]));
    }
}
