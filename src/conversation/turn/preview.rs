//! What a file would become: previews beside a question (spec 02 §9.4).

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use similar::{ChangeTag, TextDiff};

/// Files larger than this are not previewed.
const LIMIT: u64 = 1024 * 1024;

/// The previews of a call; empty for tools without any.
pub(crate) async fn diffs(tool: &str, args: &Map<String, Value>, cwd: &Path) -> Vec<Value> {
    let text = |key: &str| args.get(key).and_then(Value::as_str).map(String::from);
    let Some(path) = text("file_path").map(|path| cwd.join(path)) else {
        return Vec::new();
    };
    let (tool, args) = (tool.to_owned(), args.clone());
    // Whatever goes wrong, the question is asked without a preview.
    tokio::task::spawn_blocking(move || preview(&tool, &args, &path).into_iter().collect())
        .await
        .unwrap_or_default()
}

fn preview(tool: &str, args: &Map<String, Value>, path: &PathBuf) -> Option<Value> {
    let text = |key: &str| args.get(key).and_then(Value::as_str);
    let name = path.file_name()?.to_string_lossy().into_owned();
    let unpreviewable =
        |reason: &str| Some(json!({"mode": "unpreviewable", "fileName": name, "reason": reason}));
    let small =
        || std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() <= LIMIT);
    let read = || {
        small()
            .then(|| std::fs::read_to_string(path).ok())
            .flatten()
    };
    match tool {
        "Write" => {
            let before = if path.exists() {
                read()?
            } else {
                String::new()
            };
            Some(advanced(&name, &before, text("content")?))
        }
        "Edit" => {
            let Some(before) = read() else {
                return Some(json!({
                    "mode": "fallback", "fileName": name, "reason": "File not readable",
                }));
            };
            let (old, new) = (text("old_string")?, text("new_string")?);
            if old.is_empty() {
                return unpreviewable("Edit cannot be previewed: old_string empty");
            }
            if !before.contains(old) {
                return unpreviewable("Edit cannot be previewed: old_string not found");
            }
            let all = args
                .get("replace_all")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            let after = if all {
                before.replace(old, new)
            } else {
                before.replacen(old, new, 1)
            };
            Some(advanced(&name, &before, &after))
        }
        _ => None,
    }
}

/// A unified diff with one line of context.
fn advanced(name: &str, before: &str, after: &str) -> Value {
    let diff = TextDiff::from_lines(before, after);
    let hunks: Vec<Value> = diff
        .grouped_ops(1)
        .iter()
        .map(|group| {
            let mut lines = Vec::new();
            let (mut old_lines, mut new_lines) = (0, 0);
            let start = group.first();
            for op in group {
                for change in diff.iter_changes(op) {
                    let kind = match change.tag() {
                        ChangeTag::Equal => "context",
                        ChangeTag::Delete => "remove",
                        ChangeTag::Insert => "add",
                    };
                    old_lines += usize::from(kind != "add");
                    new_lines += usize::from(kind != "remove");
                    let content = change.value().trim_end_matches(['\n', '\r']);
                    lines.push(json!({"type": kind, "content": content}));
                }
            }
            json!({
                "oldStart": start.map_or(0, |op| op.old_range().start) + usize::from(old_lines > 0),
                "oldLines": old_lines,
                "newStart": start.map_or(0, |op| op.new_range().start) + usize::from(new_lines > 0),
                "newLines": new_lines,
                "lines": lines,
            })
        })
        .collect();
    json!({"mode": "advanced", "fileName": name, "hunks": hunks})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_edit_is_shown_with_one_line_of_context() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("f.txt"),
            "line0\nline1\nline2\nline3\nline4\n",
        )
        .unwrap();
        let args = json!({"file_path":"f.txt","old_string":"line2","new_string":"LINE2"});
        let shown = diffs("Edit", args.as_object().unwrap(), dir.path()).await;
        assert_eq!(
            shown,
            [
                json!({"mode":"advanced","fileName":"f.txt","hunks":[{"oldStart":2,"oldLines":3,"newStart":2,"newLines":3,
                "lines":[{"type":"context","content":"line1"},{"type":"remove","content":"line2"},{"type":"add","content":"LINE2"},{"type":"context","content":"line3"}]}]})
            ]
        );
        let missing = json!({"file_path":"f.txt","old_string":"nope","new_string":"x"});
        let shown = diffs("Edit", missing.as_object().unwrap(), dir.path()).await;
        assert_eq!(shown[0]["mode"], "unpreviewable");
        assert!(
            diffs("Bash", args.as_object().unwrap(), dir.path())
                .await
                .is_empty()
        );
    }
}
