//! A change of several files as one commit (06 §6.5, 07 §4.10).
//!
//! Invariant: whoever changes a checkout has its [`Turn`]; a change that is
//! not committed leaves the files as they were.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use tokio::task::spawn_blocking;

use super::checkout::{Author, Checkout, Turn};
use super::{MemoryError, RelativePath};
use crate::state::atomic::{self, Access};

/// What becomes of files, by their path below the root.
pub type Changes = BTreeMap<RelativePath, Change>;

/// A file before and after; `None` where it is not there.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Its bytes now.
    pub before: Option<Vec<u8>>,
    /// Its bytes when the change is made.
    pub after: Option<Vec<u8>>,
}

impl Checkout {
    /// Writes `changes` and commits them and nothing else. `None` when git
    /// sees no difference from the last commit.
    ///
    /// # Errors
    /// When a file cannot be written, or as [`Checkout::commit`]. The files
    /// are as before then.
    pub async fn change(
        &self,
        turn: &Turn,
        changes: Changes,
        message: &str,
        author: &Author,
    ) -> Result<Option<String>, MemoryError> {
        let paths: Vec<RelativePath> = changes.keys().cloned().collect();
        let (changes, written) = self.put(changes, |change| &change.after).await?;
        let done = match written {
            Ok(()) => self.commit(turn, &paths, message, author).await,
            Err(error) => Err(MemoryError::file(self.dir(), &error)),
        };
        if done.is_err() {
            let (_, undone) = self.put(changes, |change| &change.before).await?;
            if let Err(error) = undone {
                tracing::warn!(%error, "A refused change of the memory could not be undone.");
            }
        }
        done
    }

    /// Writes one side of every change.
    async fn put(
        &self,
        changes: Changes,
        side: fn(&Change) -> &Option<Vec<u8>>,
    ) -> Result<(Changes, io::Result<()>), MemoryError> {
        let root = self.dir().to_owned();
        let work = spawn_blocking(move || {
            let done = put(&root, &changes, side);
            (changes, done)
        });
        work.await
            .map_err(|error| MemoryError::file(self.dir(), &error.into()))
    }
}

fn put(root: &Path, changes: &Changes, side: fn(&Change) -> &Option<Vec<u8>>) -> io::Result<()> {
    // First what goes: a directory may take the place of a file.
    for (path, _) in changes.iter().filter(|(_, change)| side(change).is_none()) {
        let whole = root.join(path.as_str());
        match fs::remove_file(&whole) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Only empty ones can be removed.
        let parents = whole.ancestors().skip(1);
        for parent in parents.take_while(|parent| *parent != root) {
            if fs::remove_dir(parent).is_err() {
                break;
            }
        }
    }
    for (path, change) in changes {
        if let Some(bytes) = side(change) {
            atomic::write(&root.join(path.as_str()), bytes, Access::Inherited)?;
        }
    }
    Ok(())
}
