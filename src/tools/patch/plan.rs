//! From a parsed patch to files on disk, all or nothing.

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::io;
use std::path::{Path, PathBuf};

use super::fit::{FitError, fit};
use super::parse::Operation;
use crate::tools::disk::{self, FileError, Stamp};
use crate::tools::paths;
use crate::tools::text::{TextError, decode};

/// A larger file is not patched, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// Nor is more than this at once, old and new texts together.
const MAX_TOTAL: usize = 256 * 1024 * 1024;

const WRITE: &str = "Failed to write file";

/// A patch that cannot be applied; the files are as they were.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Two sections name the same file.
    #[error("multiple operations target {0}")]
    Twice(String),
    /// A file to update cannot be read.
    #[error("Failed to read file to update {path}: {source}")]
    Read {
        /// As the patch names it.
        path: String,
        /// Why.
        source: FileError,
    },
    /// A file to update is not text.
    #[error("Failed to read file to update {path}: {source}")]
    Text {
        /// As the patch names it.
        path: String,
        /// Why.
        source: TextError,
    },
    /// A hunk does not fit.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// All files together are too large.
    #[error("The patch touches too much text at once (max {MAX_TOTAL} bytes). Split it.")]
    TooLarge,
    /// A step failed; what was done before is undone.
    #[error("{what} {path}: {source}")]
    Step {
        /// `Failed to write file` and so on.
        what: &'static str,
        /// As the patch names it.
        path: String,
        /// Why.
        source: FileError,
    },
    /// A step failed, and so did the way back.
    #[error("{failure}\nThese files could not be restored, look at them: {}", .lost.join(", "))]
    HalfUndone {
        /// What failed first.
        failure: Box<PlanError>,
        /// The files that are not as they were.
        lost: Vec<String>,
    },
}

/// Everything that a patch will do, worked out but not done.
#[derive(Debug, Default)]
pub struct Plan {
    writes: Vec<Writing>,
    removals: Vec<Removal>,
    applied: Applied,
}

/// The files of an applied patch, as the patch names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// New files.
    pub added: Vec<String>,
    /// Changed files; a moved one by its new name.
    pub modified: Vec<String>,
    /// Removed files.
    pub deleted: Vec<String>,
}

#[derive(Debug)]
struct Writing {
    path: PathBuf,
    name: String,
    text: String,
    /// What is there now.
    old: Old,
    /// The permissions of the file that moves here.
    mode: Option<Permissions>,
}

#[derive(Debug)]
enum Old {
    Nothing,
    File(Vec<u8>, Stamp),
}

#[derive(Debug)]
struct Removal {
    path: PathBuf,
    name: String,
    what: &'static str,
}

/// Works out a patch against the files below `cwd` as they are. Reads only.
pub fn plan(operations: &[Operation<'_>], cwd: &Path) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let mut seen = HashSet::new();
    let mut total = 0;
    let mut target = |name: &str| {
        let path = paths::resolve(name, cwd);
        if !seen.insert(path.clone()) {
            return Err(PlanError::Twice(name.to_owned()));
        }
        Ok(path)
    };
    for operation in operations {
        match operation {
            Operation::Add { path: name, lines } => {
                let mut text = lines.join("\n");
                if !lines.is_empty() {
                    text.push('\n');
                }
                plan.write_to(target(name)?, name, text, None)?;
                plan.applied.added.push((*name).to_owned());
            }
            Operation::Delete { path: name } => {
                plan.remove(target(name)?, name, "Failed to delete file")?;
                plan.applied.deleted.push((*name).to_owned());
            }
            Operation::Update {
                path: name,
                to,
                hunks,
            } => {
                let path = target(name)?;
                let (bytes, stamp) = disk::read(&path, MAX_FILE).map_err(|source| {
                    let path = (*name).to_owned();
                    PlanError::Read { path, source }
                })?;
                let old = decode(bytes, &path).map_err(|source| PlanError::Text {
                    path: (*name).to_owned(),
                    source,
                })?;
                let text = fit(&old, hunks, name)?;
                match to.filter(|to| paths::resolve(to, cwd) != path) {
                    Some(to) => {
                        let mode = fs::metadata(&path).ok().map(|found| found.permissions());
                        plan.write_to(target(to)?, to, text, mode)?;
                        plan.remove(path, name, "Failed to remove original")?;
                        plan.applied.modified.push(to.to_owned());
                    }
                    None => {
                        plan.writes.push(Writing {
                            path,
                            name: (*name).to_owned(),
                            text,
                            old: Old::File(old.into_bytes(), stamp),
                            mode: None,
                        });
                        plan.applied.modified.push((*name).to_owned());
                    }
                }
            }
        }
        if let Some(last) = plan.writes.last() {
            let old = match &last.old {
                Old::Nothing => 0,
                Old::File(bytes, _) => bytes.len(),
            };
            total += last.text.len() + old;
        }
        if total > MAX_TOTAL {
            return Err(PlanError::TooLarge);
        }
    }
    Ok(plan)
}

impl Plan {
    /// A file that may or may not be there, and what it held.
    fn write_to(
        &mut self,
        path: PathBuf,
        name: &str,
        text: String,
        mode: Option<Permissions>,
    ) -> Result<(), PlanError> {
        let old = match disk::read(&path, MAX_FILE) {
            Ok((bytes, stamp)) => Old::File(bytes, stamp),
            Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                // Writing through it would make a file that undoing does not know.
                if fs::symlink_metadata(&path).is_ok() {
                    let kind = "dangling symbolic link";
                    return Err(step(WRITE, name, FileError::Special { path, kind }));
                }
                Old::Nothing
            }
            Err(source) => return Err(step(WRITE, name, source)),
        };
        self.writes.push(Writing {
            path,
            name: name.to_owned(),
            text,
            old,
            mode,
        });
        Ok(())
    }

    fn remove(&mut self, path: PathBuf, name: &str, what: &'static str) -> Result<(), PlanError> {
        let metadata = fs::symlink_metadata(&path)
            .map_err(|error| step(what, name, io_error(&path, error)))?;
        // A link goes, whatever it leads to; a directory or a device does not.
        if !metadata.is_symlink() {
            disk::check_regular(&path, &metadata).map_err(|source| step(what, name, source))?;
        }
        self.removals.push(Removal {
            path,
            name: name.to_owned(),
            what,
        });
        Ok(())
    }

    /// Does it. When a step fails, everything before it is undone.
    pub fn write(self) -> Result<Applied, PlanError> {
        let mut done = Done::default();
        let result = self.steps(&mut done);
        match result {
            Ok(()) => {
                for (_, aside) in &done.aside {
                    // Out of the way already; a leftover has a name that tells.
                    if let Err(error) = fs::remove_file(aside) {
                        tracing::warn!(%error, file = %aside.display(), "could not remove a deleted file");
                    }
                }
                Ok(self.applied)
            }
            Err(failure) => {
                let lost = done.undo();
                if lost.is_empty() {
                    return Err(failure);
                }
                Err(PlanError::HalfUndone {
                    failure: Box::new(failure),
                    lost,
                })
            }
        }
    }

    fn steps<'a>(&'a self, done: &mut Done<'a>) -> Result<(), PlanError> {
        for writing in &self.writes {
            let failed = |source| step(WRITE, &writing.name, source);
            let expected = match &writing.old {
                Old::Nothing => {
                    done.create_parents(&writing.path)
                        .map_err(|error| failed(io_error(&writing.path, error)))?;
                    None
                }
                Old::File(_, stamp) => Some(*stamp),
            };
            // Noted first: a write that fails halfway must be undone too.
            done.written.push(writing);
            let written = disk::write(&writing.path, writing.text.as_bytes(), expected);
            if let Err(source) = written {
                if !matches!(source, FileError::Io { .. }) {
                    // Nothing was touched, and the file may be someone else's now.
                    done.written.pop();
                }
                return Err(failed(source));
            }
            if let (Old::Nothing, Some(mode)) = (&writing.old, &writing.mode) {
                fs::set_permissions(&writing.path, mode.clone())
                    .map_err(|error| failed(io_error(&writing.path, error)))?;
            }
        }
        for removal in &self.removals {
            // Moved aside, not removed: so it can come back as it was.
            let aside = aside(&removal.path);
            fs::rename(&removal.path, &aside).map_err(|error| {
                step(removal.what, &removal.name, io_error(&removal.path, error))
            })?;
            done.aside.push((&removal.path, aside));
        }
        Ok(())
    }
}

/// What has been done so far, for the way back.
#[derive(Default)]
struct Done<'a> {
    written: Vec<&'a Writing>,
    aside: Vec<(&'a Path, PathBuf)>,
    directories: Vec<PathBuf>,
}

impl Done<'_> {
    fn create_parents(&mut self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path
            .ancestors()
            .skip(1)
            .take_while(|parent| !parent.exists())
            .collect();
        for directory in missing.into_iter().rev() {
            match fs::create_dir(directory) {
                Ok(()) => self.directories.push(directory.to_path_buf()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts everything back; returns what could not be.
    fn undo(self) -> Vec<String> {
        let mut lost = Vec::new();
        for (path, aside) in self.aside {
            if fs::rename(aside, path).is_err() {
                lost.push(path.display().to_string());
            }
        }
        for writing in self.written.into_iter().rev() {
            let restored = match &writing.old {
                Old::Nothing => fs::remove_file(&writing.path)
                    .or_else(|error| match error.kind() {
                        io::ErrorKind::NotFound => Ok(()),
                        _ => Err(error),
                    })
                    .is_ok(),
                Old::File(bytes, _) => {
                    let same =
                        disk::read(&writing.path, MAX_FILE).is_ok_and(|(found, _)| found == *bytes);
                    same || disk::write(&writing.path, bytes, None).is_ok()
                }
            };
            if !restored {
                lost.push(writing.path.display().to_string());
            }
        }
        for directory in self.directories.iter().rev() {
            // Not empty means that someone else uses it by now.
            let _ = fs::remove_dir(directory);
        }
        lost
    }
}

/// A name beside `path` that nothing else has.
fn aside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    // Short names only: the longest ones would not fit.
    let own = path.file_name().unwrap_or_default();
    if own.len() < 200 {
        name.push(own);
    }
    name.push(format!(".deleted-{}", uuid::Uuid::new_v4()));
    path.with_file_name(name)
}

fn step(what: &'static str, name: &str, source: FileError) -> PlanError {
    PlanError::Step {
        what,
        path: name.to_owned(),
        source,
    }
}

fn io_error(path: &Path, source: io::Error) -> FileError {
    FileError::Io {
        path: path.to_path_buf(),
        source,
    }
}
