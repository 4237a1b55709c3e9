//! memory: one change to one file of the agent's memory (04 §7.22).

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::markdown::{Document, default_name};
use super::{Change, Changes, Memory, RelativePath, Store, commit};
use crate::tools::args::{Args, DRAFT_07, schema};
use crate::tools::offload::{Failure, settle};
use crate::tools::tool::{Tool, ToolCall, ToolContext, ToolFuture};

/// Files that one deletion of a directory may take.
const MOST_FILES: usize = 1_000;

const DESCRIPTION: &str = "\
Changes one file of your memory and commits it. Each file is Markdown with a description in its frontmatter; this tool keeps the frontmatter, and you give the text below it.

- create: file_path, description, file_text. str_replace: file_path, old_string, new_string; the first match is replaced. insert: file_path, insert_line (counted from 1; the text goes before that line), insert_text. delete: file_path, a file or a directory. rename: old_path, new_path. update_description: file_path, description.
- reason is the commit message: say why the memory changes.
- Paths are relative to the memory directory, such as system/human.md; with a MEMORY.md at its root, core memory is in the files at the root instead, and every directory needs a MEMORY.md of its own first.
- Every call is one commit, and commits are synced after the turn. The directory must have no uncommitted changes.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "command": {"type": "string", "enum": ["str_replace", "insert", "delete", "rename", "update_description", "create"], "description": "What to do"},
    "reason": {"type": "string", "description": "Why; the commit message"},
    "file_path": {"type": "string", "description": "The file"},
    "old_path": {"type": "string", "description": "rename: the file"},
    "new_path": {"type": "string", "description": "rename: its new path"},
    "old_string": {"type": "string", "description": "str_replace: the text to find, exactly"},
    "new_string": {"type": "string", "description": "str_replace: what takes its place"},
    "insert_line": {"type": "number", "description": "insert: the line before which the text goes, counted from 1"},
    "insert_text": {"type": "string", "description": "insert: the text"},
    "description": {"type": "string", "description": "create, update_description: what the file is about"},
    "file_text": {"type": "string", "description": "create: the text of the file"}
}"#,
        &["command", "reason"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug)]
pub struct MemoryEdit(pub Memory);

impl Tool for MemoryEdit {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            let work = async {
                let args = Args::new("memory", &call.args);
                let command = args.string("command")?.trim().to_owned();
                let reason = args.string("reason")?.trim();
                if reason.is_empty() {
                    return Err(Failure::new("memory: 'reason' must be a non-empty string"));
                }
                let store = Store::open(&self.0, "memory", context)?;
                let (done, args) = (format!("Memory {command}"), call.args.clone());
                let plan = move |store: &Store| plan(store, &command, &args);
                commit(call, context, store, &done, reason, plan).await
            };
            settle(work.await)
        })
    }
}

/// Reads what `command` needs and says what becomes of which files.
fn plan(store: &Store, command: &str, args: &Map<String, Value>) -> Result<Changes, Failure> {
    let args = Args::new("memory", args);
    let needed = |name: &'static str| match args.opt_string(name)? {
        Some(text) if !text.trim().is_empty() => Ok(text),
        _ => Err(store.error(format!("{command} needs '{name}', a non-empty string"))),
    };
    match command {
        "create" => {
            let path = store.file(needed("file_path")?, "file_path")?;
            let description = if store.is_index(&path) {
                ""
            } else {
                needed("description")?
            };
            store.check_index(&path, &|index| store.exists(index))?;
            if store.bytes(&path)?.is_some() {
                return Err(store.error(format!("create: {path} exists already")));
            }
            let document = Document {
                name: default_name(&path),
                description: description.to_owned(),
                body: args.opt_string("file_text")?.unwrap_or_default().to_owned(),
                ..Document::default()
            };
            Ok(changed(store.key(&path)?, None, store.render(&path, &document)?))
        }
        "str_replace" => {
            let (old, new) = (needed("old_string")?, needed("new_string")?);
            revise(store, needed("file_path")?, |document| {
                let at = document.body.find(old).ok_or_else(|| {
                    store.error("str_replace: old_string was not found in the text of the file")
                })?;
                document.body.replace_range(at..at + old.len(), new);
                Ok(())
            })
        }
        "insert" => {
            let text = needed("insert_text")?;
            let line = args.opt_integer("insert_line")?;
            let line = line.ok_or_else(|| store.error("insert needs 'insert_line', a number"))?;
            let before = usize::try_from(line.max(1) - 1).unwrap_or(usize::MAX);
            revise(store, needed("file_path")?, |document| {
                let mut lines: Vec<&str> = match document.body.as_str() {
                    "" => Vec::new(),
                    body => body.split('\n').collect(),
                };
                lines.insert(before.min(lines.len()), text);
                document.body = lines.join("\n");
                Ok(())
            })
        }
        "update_description" => {
            let description = needed("description")?;
            let path = needed("file_path")?;
            if store.is_index(&store.file(path, "file_path")?) {
                return Err(store.error("update_description: MEMORY.md has no frontmatter"));
            }
            revise(store, path, |document| {
                description.clone_into(&mut document.description);
                Ok(())
            })
        }
        "delete" => delete(store, &store.label(needed("file_path")?, "file_path")?),
        "rename" => {
            let old = store.file(needed("old_path")?, "old_path")?;
            let new = store.file(needed("new_path")?, "new_path")?;
            if store.is_index(&old) || store.is_index(&new) {
                return Err(store.error("rename: MEMORY.md cannot be renamed"));
            }
            if store.bytes(&new)?.is_some() {
                return Err(store.error(format!("rename: {new} exists already")));
            }
            store.check_index(&new, &|index| store.exists(index))?;
            store.parse(&old, &store.text(&old)?)?;
            let content = store.bytes(&old)?;
            let gone = Change {
                before: content.clone(),
                after: None,
            };
            let come = Change {
                before: None,
                after: content,
            };
            Ok([(store.key(&old)?, gone), (store.key(&new)?, come)].into())
        }
        other => Err(store.error(format!(
            "{other:?} is no command: use create, str_replace, insert, delete, rename or update_description"
        ))),
    }
}

fn changed(path: RelativePath, before: Option<Vec<u8>>, after: String) -> Changes {
    let after = Some(after.into_bytes());
    [(path, Change { before, after })].into()
}

/// Changes a file that is there.
fn revise(
    store: &Store,
    path: &str,
    change: impl FnOnce(&mut Document) -> Result<(), Failure>,
) -> Result<Changes, Failure> {
    let path = store.file(path, "file_path")?;
    let mut document = store.parse(&path, &store.text(&path)?)?;
    change(&mut document)?;
    let before = store.bytes(&path)?;
    Ok(changed(
        store.key(&path)?,
        before,
        store.render(&path, &document)?,
    ))
}

fn delete(store: &Store, label: &str) -> Result<Changes, Failure> {
    if store.is_index(&format!("{label}.md")) {
        return Err(store.error("delete: MEMORY.md cannot be deleted"));
    }
    let mut paths = Vec::new();
    // `symlink_metadata`: a link to a directory is not the directory.
    let directory = store.checkout.dir().join(label);
    if fs::symlink_metadata(&directory).is_ok_and(|found| found.is_dir()) {
        files_below(store, &directory, &mut paths)?;
        if paths.is_empty() {
            return Err(store.error(format!("delete: {label} holds no files")));
        }
    } else {
        paths.push(format!("{label}.md"));
    }
    let mut changes = Changes::new();
    for path in paths {
        let before = store.bytes(&path)?;
        if before.is_none() {
            return Err(store.error(format!("delete: there is no {path}")));
        }
        // Of a directory, what this tool could not have written goes as well.
        if path.ends_with(".md") {
            let text = store.text(&path)?;
            if let Err(failure) = store.parse(&path, &text)
                && (failure.0.contains("read_only") || path == format!("{label}.md"))
            {
                return Err(failure);
            }
        }
        let after = None;
        changes.insert(store.key(&path)?, Change { before, after });
    }
    Ok(changes)
}

fn files_below(store: &Store, directory: &Path, found: &mut Vec<String>) -> Result<(), Failure> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            files_below(store, &path, found)?;
        } else {
            if found.len() >= MOST_FILES {
                return Err(store.error(format!("delete: more than {MOST_FILES} files at once")));
            }
            let below = path
                .strip_prefix(store.checkout.dir())
                .ok()
                .and_then(Path::to_str);
            let below = below.ok_or_else(|| store.error("delete: a file name is not UTF-8"))?;
            found.push(below.to_owned());
        }
    }
    Ok(())
}
