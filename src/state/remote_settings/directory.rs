//! Which working directories are usable, and how a requested one becomes a
//! stored one (spec 01 §4.7 effective values, 02 §5.9). Blocking.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why a requested directory was not taken.
#[derive(Debug, thiserror::Error)]
pub enum CwdError {
    /// Nothing but blanks.
    #[error("Working directory cannot be empty")]
    Empty,
    /// There, but no directory.
    #[error("Not a directory: {}", .0.display())]
    NotADirectory(PathBuf),
    /// Not there: no error towards clients of `change_device_state`, they are
    /// sent the old directory again.
    #[error("No such directory: {}", .0.display())]
    Missing(PathBuf),
    /// The system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The requested directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The real path of a requested directory: trimmed, relative to `current`.
pub(super) fn resolve(requested: &str, current: &Path) -> Result<PathBuf, CwdError> {
    let trimmed = requested.trim();
    if trimmed.is_empty() {
        return Err(CwdError::Empty);
    }
    let path = current.join(trimmed);
    let real = fs::canonicalize(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => CwdError::Missing(path.clone()),
        _ => CwdError::Io {
            path: path.clone(),
            source,
        },
    })?;
    match fs::metadata(&real) {
        Ok(metadata) if metadata.is_dir() => Ok(real),
        Ok(_) => Err(CwdError::NotADirectory(real)),
        Err(source) => Err(CwdError::Io { path: real, source }),
    }
}

/// Whether a stored directory is certainly gone. One that cannot be looked at
/// right now (no right, a sleeping network drive) is not.
pub(super) fn is_confirmed_unusable(path: &str) -> bool {
    if path.is_empty() {
        return true;
    }
    match fs::metadata(path) {
        Ok(metadata) => !metadata.is_dir(),
        Err(error) => matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        ),
    }
}

/// The first usable of: what `USER_CWD` names, the process's directory, home,
/// the directory for temporary files, `/`.
pub(super) fn first_usable(
    user_cwd: Option<&Path>,
    process_cwd: Option<&Path>,
    home: &Path,
) -> PathBuf {
    let candidates = [
        user_cwd.map(Path::to_owned),
        process_cwd.map(Path::to_owned),
        Some(home.to_owned()),
        Some(std::env::temp_dir()),
    ];
    let real = |path: PathBuf| fs::canonicalize(path).ok().filter(|path| path.is_dir());
    candidates
        .into_iter()
        .flatten()
        .find_map(real)
        .unwrap_or_else(|| PathBuf::from("/"))
}
