//! What a file would become: previews beside a question (spec 02 §9.4).

use std::path::Path;

use serde_json::{Map, Value};

use crate::permissions::preview::previews;

/// Files larger than this are not previewed.
const LIMIT: u64 = 1024 * 1024;

/// The previews of a call, read off the runtime's threads; empty for tools
/// without any. Whatever goes wrong, the question is asked without a preview.
pub(crate) async fn diffs(tool: &str, args: &Map<String, Value>, cwd: &Path) -> Vec<Value> {
    let (tool, args) = (tool.to_owned(), args.clone());
    let cwd = cwd.to_string_lossy().into_owned();
    let work = move || {
        previews(&tool, &args, &cwd, read)
            .iter()
            .filter_map(|preview| serde_json::to_value(preview).ok())
            .collect()
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

/// The text of an ordinary file of ordinary size.
fn read(path: &str) -> Option<String> {
    let found = std::fs::metadata(path).ok()?;
    let fits = found.is_file() && found.len() <= LIMIT;
    fits.then(|| std::fs::read_to_string(path).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn an_edit_is_shown_with_one_line_of_context() {
        let dir = tempfile::tempdir().unwrap();
        let text = "line0\nline1\nline2\nline3\nline4\n";
        std::fs::write(dir.path().join("f.txt"), text).unwrap();
        let args = json!({"file_path":"f.txt","old_string":"line2","new_string":"LINE2"});
        let shown = diffs("Edit", args.as_object().unwrap(), dir.path()).await;
        assert_eq!(
            shown,
            [
                json!({"mode":"advanced","fileName":"f.txt","hunks":[{"oldStart":2,"oldLines":3,"newStart":2,"newLines":3,
                "lines":[{"type":"context","content":"line1"},{"type":"remove","content":"line2"},{"type":"add","content":"LINE2"},{"type":"context","content":"line3"}]}]})
            ]
        );
        assert!(
            diffs("Bash", args.as_object().unwrap(), dir.path())
                .await
                .is_empty()
        );
    }
}
