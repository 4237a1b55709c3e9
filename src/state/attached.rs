//! Which shared repositories are attached to an agent, as marks in their
//! checkouts beside the agent's own memory (07 §4.8).
//!
//! Invariant: a directory without a mark is not attached, whatever lies in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::Home;
use super::atomic::read_bounded;

/// The mark, below the checkout.
const MARK: &str = ".git/letta-attached";
const WRITABLE: &str = "read_write";
/// A mark is one word.
const MARK_BYTES: u64 = 64;

impl Home {
    /// The attached repositories of an agent, and whether it may change them. Blocking.
    pub fn attached(&self, agent_id: &str) -> BTreeMap<PathBuf, bool> {
        let own = self.agent_memory(agent_id);
        let entries = own.parent().and_then(|agent| fs::read_dir(agent).ok());
        let entries = entries.into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let mark = read_bounded(&entry.path().join(MARK), MARK_BYTES).ok()?;
                Some((entry.path(), mark.trim_ascii() == WRITABLE.as_bytes()))
            })
            .collect()
    }
}

/// Marks a checkout as attached. Blocking.
///
/// # Errors
/// When the mark cannot be written.
pub fn attach(checkout: &Path, writable: bool) -> io::Result<()> {
    let right = if writable { WRITABLE } else { "read_only" };
    fs::write(checkout.join(MARK), right)
}

/// Takes the mark away. Blocking.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn detach(checkout: &Path) -> io::Result<()> {
    match fs::remove_file(checkout.join(MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
