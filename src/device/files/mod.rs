//! Files of this computer: listing, searching, reading, writing (06 §3).
//!
//! No path is out of bounds: who may send commands may read what the user of
//! this process may read (06 §3). Invariant: a command looks at regular files
//! and directories only, holds a bounded part of them in memory, and answers
//! with the path as it was sent.

mod edit;
mod grep;
mod ignored;
mod list;
mod read;
mod tree;
mod write;

pub(super) use edit::edit_file;
pub(super) use grep::grep_in_files;
pub(super) use list::list_in_directory;
pub(super) use read::read_file;
pub(super) use tree::{get_tree, search_files};
pub(super) use write::{file_ops, write_file};

use std::path::{Path, PathBuf};

/// Where relative paths start.
pub(super) fn process_cwd() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
}

/// What a client sees of an error at `path`.
fn at_path(error: &std::io::Error, path: &Path) -> String {
    format!("{error}: {}", path.display())
}
