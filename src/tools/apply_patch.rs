//! ApplyPatch: add, change, move and remove files in one step (04 §7.15).

use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;

use super::args::{Args, DRAFT_07, schema};
use super::offload::{self, Worked};
use super::patch::{parse, plan};
use super::tool::{Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};

const DESCRIPTION: &str = "\
Applies a patch to files: all of it, or nothing if any part does not fit.

The patch is one text:

*** Begin Patch
one or more sections
*** End Patch

A section is one of these:

*** Add File: <path>
Every following line starts with + and becomes a line of the new file. An existing file is replaced.

*** Delete File: <path>
Nothing follows.

*** Update File: <path>
Optionally *** Move to: <new path> on the next line, then one or more hunks.

A hunk starts with @@, or with @@ and a line of the file (a function or class header, say) below which the change is. The first hunk of a section may go without @@. Then come its lines:
- a line that starts with a space is context and stays
- a line that starts with - is removed
- a line that starts with + is added
- *** End of File after the lines ties the hunk to the end of the file

Rules:
- Show about 3 lines of context above and below each change. If that does not make the place unique, put an enclosing line after @@.
- Hunks of a file go from top to bottom. Each is searched below the one before. For changes in several places use several hunks, each with its own @@.
- Context and removed lines must be those of the file. Differences in surrounding whitespace, typographic quotes and dashes are forgiven; kept lines keep the file's bytes.
- A hunk that only adds lines puts them at the end of the file: give context for any other place.
- Each file may be named by one section only. Paths are relative to the working directory or absolute; ~ and variables are not expanded. Missing directories are created.

Example:

*** Begin Patch
*** Add File: notes/todo.txt
+first line
*** Update File: src/app.py
*** Move to: src/main.py
@@ def greet():
-    print(\"Hi\")
+    print(\"Hello\")
*** Delete File: old.txt
*** End Patch";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "input": {"type": "string", "description": "The whole patch, from *** Begin Patch to *** End Patch"}
}"#,
        &["input"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug, Default)]
pub struct ApplyPatch;

impl Tool for ApplyPatch {
    fn name(&self) -> &'static str {
        "ApplyPatch"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            let input = match Args::new("ApplyPatch", &call.args).string("input") {
                Ok(input) => input.to_owned(),
                Err(error) => return ToolOutcome::error(error.to_string()),
            };
            let cwd = context.cwd.get();
            offload::change(call, move || apply(&input, &cwd)).await
        })
    }
}

fn apply(input: &str, cwd: &Path) -> Worked {
    let operations = parse(input)?;
    let applied = plan(&operations, cwd)?.write()?;
    let mut out = "Success. Updated the following files:".to_owned();
    for (mark, paths) in [
        ('A', applied.added),
        ('M', applied.modified),
        ('D', applied.deleted),
    ] {
        for path in paths {
            out.push_str(&format!("\n{mark} {path}"));
        }
    }
    Ok(ToolOutcome::text(out))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::trial::{Trial, special_files};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn patch(body: &str) -> Value {
        json!({"input": format!("*** Begin Patch\n{body}\n*** End Patch\n")})
    }

    /// Every file below the working directory with its content.
    fn snapshot(trial: &Trial) -> Vec<(String, String)> {
        fn walk(dir: &Path, out: &mut Vec<(String, String)>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    out.push((path.display().to_string(), String::new()));
                    walk(&path, out);
                } else {
                    let content = fs::read_to_string(&path).unwrap_or_default();
                    out.push((path.display().to_string(), content));
                }
            }
        }
        let mut out = Vec::new();
        walk(&trial.path(""), &mut out);
        out.sort();
        out
    }

    #[tokio::test]
    async fn all_kinds_of_sections_in_one_patch() {
        let mut trial = Trial::new();
        trial.file("mod", "a\nb\n");
        let moved = trial.file("old/name", "x\ny\n");
        fs::set_permissions(moved, fs::Permissions::from_mode(0o751)).unwrap();
        trial.file("gone", "z");
        let text = trial
            .ok(
                &ApplyPatch,
                patch("*** Update File: mod\n@@\n-b\n+c\n*** Delete File: gone\n*** Update File: old/name\n*** Move to: new/dir/name\n@@\n x\n-y\n+Y\n*** Add File: sub/added\n+1\n+2"),
            )
            .await;
        assert_eq!(
            text,
            "Success. Updated the following files:\nA sub/added\nM mod\nM new/dir/name\nD gone"
        );
        assert_eq!(trial.content("mod"), "a\nc\n");
        assert_eq!(trial.content("new/dir/name"), "x\nY\n");
        assert_eq!(trial.content("sub/added"), "1\n2\n");
        assert!(!trial.path("gone").exists() && !trial.path("old/name").exists());
        let mode = fs::metadata(trial.path("new/dir/name"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o751);
        assert_eq!(fs::read_dir(trial.path("")).unwrap().count(), 4);
        // Nothing is broadcast for patches.
        assert_eq!(trial.progress(), []);
    }

    #[tokio::test]
    async fn a_part_that_does_not_fit_leaves_everything() {
        let trial = Trial::new();
        trial.file("f", "a\n");
        trial.file("latin1", b"caf\xE9\n");
        trial.file("dir/g", "b\n");
        let before = snapshot(&trial);
        let good =
            "*** Add File: new/file\n+x\n*** Update File: f\n@@\n-a\n+b\n*** Delete File: dir/g\n";
        for (bad, expected) in [
            (
                "*** Update File: none\n@@\n-a\n+b",
                "Failed to read file to update none: No such file",
            ),
            (
                "*** Update File: latin1\n@@\n-a\n+b",
                "Failed to read file to update latin1: File is not valid UTF-8 text",
            ),
            (
                "*** Update File: dir\n@@\n-a\n+b",
                "Failed to read file to update dir: Path is a directory",
            ),
            ("*** Delete File: none", "Failed to delete file none"),
            ("*** Delete File: dir", "Failed to delete file dir"),
            ("*** Add File: dir\n+x", "Failed to write file dir"),
            (
                "*** Add File: latin1/x\n+x",
                "Failed to write file latin1/x",
            ),
            ("*** Add File: ./f\n+x", "multiple operations target ./f"),
            (
                "*** Delete File: new/file",
                "multiple operations target new/file",
            ),
            ("nonsense", "'nonsense' is not a valid hunk header"),
        ] {
            let text = trial.err(&ApplyPatch, patch(&format!("{good}{bad}"))).await;
            assert!(text.starts_with(expected), "{text}");
            assert_eq!(snapshot(&trial), before, "{bad}");
        }
        let text = trial
            .err(&ApplyPatch, patch("*** Update File: f\n@@\n a\n-zz\n+b"))
            .await;
        assert_eq!(text, "Failed to find expected lines in f:\na\nzz");
        assert_eq!(snapshot(&trial), before);
        trial.survives_bad_arguments(&ApplyPatch).await;
        assert_eq!(snapshot(&trial), before);
    }

    #[tokio::test]
    async fn a_write_that_fails_undoes_the_ones_before() {
        let trial = Trial::new();
        trial.file("f", "a\n");
        trial.file("over", "old\n");
        trial.file("gone", "z\n");
        // A name too long to exist passes planning and fails when it is written.
        let long = format!("made/{}", "n".repeat(256));
        let before = snapshot(&trial);
        for body in [format!(
            "*** Update File: f\n@@\n-a\n+b\n*** Add File: over\n+new\n*** Add File: made/too/deep\n+x\n*** Delete File: gone\n*** Add File: {long}\n+x"
        )] {
            let text = trial.err(&ApplyPatch, patch(&body)).await;
            assert!(text.starts_with("Failed to write file "), "{text}");
            assert_eq!(snapshot(&trial), before);
        }
        // A removal that fails comes after all writes.
        let locked = trial.path("locked");
        trial.file("locked/f", "x\n");
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
        let may_write = fs::write(locked.join("probe"), "").is_ok();
        let before = snapshot(&trial);
        if !may_write {
            let text = trial.err(&ApplyPatch, patch("*** Update File: f\n@@\n-a\n+b\n*** Add File: x/y\n+x\n*** Delete File: gone\n*** Delete File: locked/f")).await;
            assert!(text.starts_with("Failed to delete file locked/f"), "{text}");
            assert_eq!(snapshot(&trial), before);
        }
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn links_and_special_files() {
        let trial = Trial::new();
        trial.file("target", "a\n");
        symlink("target", trial.path("link")).unwrap();
        trial
            .ok(&ApplyPatch, patch("*** Update File: link\n@@\n-a\n+b"))
            .await;
        assert_eq!(trial.content("target"), "b\n");
        assert!(
            fs::symlink_metadata(trial.path("link"))
                .unwrap()
                .is_symlink()
        );
        trial.ok(&ApplyPatch, patch("*** Delete File: link")).await;
        assert!(trial.path("target").exists() && !trial.path("link").exists());
        symlink("none", trial.path("dangling")).unwrap();
        let text = trial
            .err(&ApplyPatch, patch("*** Add File: dangling\n+x"))
            .await;
        assert!(text.contains("dangling symbolic link"), "{text}");
        for (path, expected) in special_files(&trial) {
            let path = path.display();
            for section in [
                format!("*** Update File: {path}\n@@\n-a\n+b"),
                format!("*** Add File: {path}\n+x"),
            ] {
                let text = trial.err(&ApplyPatch, patch(&section)).await;
                assert!(text.contains(expected), "{text}");
            }
        }
    }
}
