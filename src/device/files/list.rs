//! `list_in_directory`: one directory, in pages (06 §3.2).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::ignored::Ignored;
use crate::device::call::{Call, Failure, Written};
use crate::tools::collation::by_name;

/// A directory of more entries is not listed.
const MAX_ENTRIES: usize = 200_000;

/// The names in one directory, sorted as people expect.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) folders: Vec<String>,
    pub(super) files: Vec<String>,
}

/// Reads a directory; links, sockets, pipes and devices are left out, and
/// whatever `hides`.
pub(super) fn names(directory: &Path, hides: impl Fn(&str, bool) -> bool) -> io::Result<Names> {
    let mut names = Names::default();
    let mut seen = 0;
    for entry in fs::read_dir(directory)? {
        // An entry that vanished or cannot be looked at is not there.
        let Ok((entry, kind)) = entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?)))
        else {
            continue;
        };
        seen += 1;
        if seen > MAX_ENTRIES {
            let error = format!("the directory has more than {MAX_ENTRIES} entries");
            return Err(io::Error::other(error));
        }
        if !kind.is_dir() && !kind.is_file() {
            continue;
        }
        let name = entry.to_string_lossy().into_owned();
        if !hides(&name, kind.is_dir()) {
            if kind.is_dir() {
                names.folders.push(name);
            } else {
                names.files.push(name);
            }
        }
    }
    names.folders.sort_by(|a, b| by_name(a, b));
    names.files.sort_by(|a, b| by_name(a, b));
    Ok(names)
}

/// One page of a directory. It is answered without a `request_id` too.
pub(in crate::device) async fn list_in_directory(mut call: Call) -> Written {
    let path = call.fields.string("path")?;
    let include_files = call.fields.lenient_flag("include_files");
    let offset = call.fields.lenient_count("offset").unwrap_or(0);
    let limit = call.fields.lenient_count("limit");
    let (root, home) = (PathBuf::from(&path), call.services().home.user.clone());
    let listed = call.shared.quick(move || {
        let ignored = Ignored::of(&root, &home);
        let names = names(&root, |name, is_dir| {
            !is_dir && !include_files || ignored.hides(name, name)
        });
        names.map_err(|error| Failure::new(super::at_path(&error, &root)))
    });
    let mut frame = Map::new();
    frame.insert("type".into(), "list_in_directory_response".into());
    frame.insert("path".into(), path.into());
    let page = match listed.await {
        Ok(names) => page(names, offset, limit, include_files),
        Err(failure) => json!({
            "folders": [], "hasMore": false, "success": false, "error": failure.to_string(),
        }),
    };
    if let Value::Object(page) = page {
        frame.extend(page);
    }
    if let Some(id) = call.request.request_id.filter(|id| !id.is_empty()) {
        frame.insert("request_id".into(), id.into());
    }
    Ok((Value::Object(frame).to_string(), None))
}

fn page(names: Names, offset: usize, limit: Option<usize>, include_files: bool) -> Value {
    let Names { folders, files } = names;
    let (all_folders, total) = (folders.len(), folders.len() + files.len());
    let end = offset.saturating_add(limit.unwrap_or(total)).min(total);
    let part = |names: Vec<String>, before: usize| -> Vec<String> {
        let (from, to) = (offset.saturating_sub(before), end.saturating_sub(before));
        names.into_iter().take(to).skip(from).collect()
    };
    let mut page = json!({
        "folders": part(folders, 0), "hasMore": end < total, "total": total, "success": true,
    });
    if include_files {
        page["files"] = part(files, all_folders).into();
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_runs_over_folders_and_then_files() {
        let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let shown = |offset, limit| {
            let (folders, files) = (text(&["a", "b"]), text(&["c", "d", "e"]));
            let page = page(Names { folders, files }, offset, limit, true);
            assert_eq!(page["total"], 5);
            let more = page["hasMore"] == true;
            (page["folders"].to_string(), page["files"].to_string(), more)
        };
        let page = |folders: &str, files: &str, more| (folders.into(), files.into(), more);
        assert_eq!(
            shown(0, None),
            page(r#"["a","b"]"#, r#"["c","d","e"]"#, false)
        );
        assert_eq!(shown(1, Some(2)), page(r#"["b"]"#, r#"["c"]"#, true));
        assert_eq!(shown(3, Some(2)), page("[]", r#"["d","e"]"#, false));
        assert_eq!(shown(0, Some(0)), page("[]", "[]", true));
        assert_eq!(shown(9, None), page("[]", "[]", false));
    }
}
