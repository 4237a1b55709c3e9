//! `get_tree` and `search_files`: names below a directory, breadth first
//! (06 §3.3, §3.4).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::ignored::Ignored;
use super::list::{Names, names};
use crate::device::call::{Answer, Call, Failure};

/// Entries in one answer of `get_tree`.
const TREE_ENTRIES: usize = 5000;
/// Entries that `search_files` looks at.
const SEARCHED: usize = 50_000;
/// Its results when the client does not say, and at most.
const RESULTS: usize = 5;
const MAX_RESULTS: usize = 200;
/// How long a walk may take: less than a client waits.
const TIME: Duration = Duration::from_secs(8);

/// An entry below a root.
#[derive(Debug)]
struct Entry {
    /// Relative to the root.
    path: String,
    is_dir: bool,
}

impl Entry {
    fn to_json(&self) -> Value {
        json!({"path": self.path, "type": if self.is_dir { "dir" } else { "file" }})
    }
}

/// Goes through a tree level by level: directories of each directory first.
struct Walk {
    root: PathBuf,
    ignored: Ignored,
    /// Directories still to open, with their depth.
    open: VecDeque<(String, usize)>,
    until: Instant,
}

impl Walk {
    fn new(root: PathBuf, home: &Path) -> Self {
        Self {
            ignored: Ignored::of(&root, home),
            root,
            open: VecDeque::from([(String::new(), 0)]),
            until: Instant::now() + TIME,
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// The entries of the next directory, which are opened later; with
    /// `shallow` the names that are only left out of trees are kept. A
    /// directory below the root that cannot be read is empty.
    fn next(&mut self, shallow: bool) -> Result<Option<Vec<Entry>>, Failure> {
        let Some((directory, depth)) = self.open.pop_front() else {
            return Ok(None);
        };
        let path = |name: &str| match directory.as_str() {
            "" => name.to_owned(),
            directory => format!("{directory}/{name}"),
        };
        let found = names(&self.root.join(&directory), |name, is_dir| {
            if is_dir && !shallow {
                self.ignored.hides_in_tree(&path(name), name)
            } else {
                self.ignored.hides(&path(name), name)
            }
        });
        let Names { folders, files } = match found {
            Ok(names) => names,
            Err(error) if depth == 0 => {
                return Err(Failure::new(super::at_path(&error, &self.root)));
            }
            Err(_) => Names::default(),
        };
        let entry = |is_dir| {
            move |name: String| Entry {
                path: path(&name),
                is_dir,
            }
        };
        let mut entries: Vec<Entry> = folders.into_iter().map(entry(true)).collect();
        let folders = entries.iter();
        self.open
            .extend(folders.map(|entry| (entry.path.clone(), depth + 1)));
        entries.extend(files.into_iter().map(entry(false)));
        Ok(Some(entries))
    }
}

/// Everything down to a depth.
pub(in crate::device) async fn get_tree(mut call: Call) -> Answer {
    let path = call.fields.string("path")?;
    let echo = path.clone();
    let depth = call.fields.count("depth");
    let home = call.services().home.user.clone();
    let tree = async {
        let depth = depth?;
        call.shared
            .quick(move || tree(path.into(), &home, depth))
            .await
    };
    match tree.await {
        Ok((entries, more)) => Ok(json!({
            "path": echo, "entries": entries, "has_more_depth": more,
        })),
        Err(failure) => Err(failure.with("path", echo)),
    }
}

fn tree(root: PathBuf, home: &Path, depth: usize) -> Result<(Vec<Value>, bool), Failure> {
    let mut walk = Walk::new(root, home);
    let mut entries = Vec::new();
    let mut more = false;
    // The root is looked at in any case: a missing one is an error.
    while let Some(found) = walk.next(false)? {
        if depth == 0 {
            break;
        }
        for entry in found {
            if entries.len() == TREE_ENTRIES {
                return Ok((entries, true));
            }
            entries.push(entry.to_json());
        }
        if walk.open.front().is_some_and(|(_, level)| *level >= depth) || walk.is_over() {
            more |= !walk.open.is_empty();
            break;
        }
    }
    Ok((entries, more))
}

/// Entries whose path holds a text.
pub(in crate::device) async fn search_files(mut call: Call) -> Answer {
    let query = call.fields.string("query")?.trim().to_lowercase();
    let root = call.fields.lenient_string("cwd");
    let root = root.map_or_else(super::process_cwd, PathBuf::from);
    let max = call.fields.lenient_count("max_results");
    let max = max.unwrap_or(RESULTS).clamp(1, MAX_RESULTS);
    let home = call.services().home.user.clone();
    let found = call.shared.quick(move || search(root, &home, &query, max));
    Ok(json!({"files": found.await?}))
}

fn search(root: PathBuf, home: &Path, query: &str, max: usize) -> Result<Vec<Value>, Failure> {
    // A whole home is too much to go through.
    let shallow = root == home;
    let mut walk = Walk::new(root, home);
    let (mut found, mut seen) = (Vec::new(), 0);
    while let Some(entries) = walk.next(shallow)? {
        for entry in entries {
            seen += 1;
            if entry.path.to_lowercase().contains(query) {
                found.push(entry.to_json());
            }
            if found.len() == max || seen == SEARCHED {
                return Ok(found);
            }
        }
        if shallow {
            break;
        }
        if walk.is_over() && found.is_empty() {
            let seconds = TIME.as_secs();
            let error = format!(
                "Nothing was found within {seconds} s and not everything was searched; search a smaller directory."
            );
            return Err(Failure::new(error));
        }
        if walk.is_over() {
            break;
        }
    }
    Ok(found)
}
