//! The files of the session log: names, pruning, rotation (01 §9, 00 §1 row 13).
//!
//! `2026-11-22T13-47-39-286Z.log` is the file being written. At 10 MiB it
//! becomes `2026-11-22T13-47-39-286Z.0001.log` and a new one begins. Invariant:
//! a session owns at most three files, the directory at most ten sessions.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::protocol::time::iso_millis;

/// Sessions that keep their files, this one included.
const SESSIONS_KEPT: usize = 10;

/// A file that reaches this many bytes is set aside.
const ROTATE_AT: u64 = 10 * 1024 * 1024;

/// Files set aside that one session keeps; the oldest goes first.
const SET_ASIDE_KEPT: u32 = 2;

/// The file being written and those set aside. Every failure is swallowed; the
/// next write tries again.
pub(super) struct SessionFile {
    dir: PathBuf,
    stamp: String,
    path: PathBuf,
    open: Option<(File, u64)>,
    rotate_at: u64,
    rotations: u32,
}

impl SessionFile {
    pub(super) fn new(dir: &Path, started: SystemTime) -> Self {
        let stamp = iso_millis(started).replace([':', '.'], "-");
        Self {
            dir: dir.to_owned(),
            path: dir.join(format!("{stamp}.log")),
            stamp,
            open: None,
            rotate_at: ROTATE_AT,
            rotations: 0,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Deletes the files of the oldest sessions so that this one makes ten.
    pub(super) fn prune(&self) {
        let names: Vec<String> = fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| Path::new(name).extension() == Some(OsStr::new("log")))
            .collect();
        let sessions: BTreeSet<&str> = names.iter().map(|name| session_of(name)).collect();
        let surplus = (sessions.len() + 1).saturating_sub(SESSIONS_KEPT);
        let doomed: BTreeSet<&str> = sessions.into_iter().take(surplus).collect();
        for name in names
            .iter()
            .filter(|name| doomed.contains(session_of(name)))
        {
            let _ = fs::remove_file(self.dir.join(name));
        }
    }

    /// Appends whole lines.
    pub(super) fn append(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if self
            .open
            .as_ref()
            .is_some_and(|(_, len)| *len >= self.rotate_at)
        {
            self.rotate();
        }
        if self.open.is_none() {
            self.open = self.open_file().ok();
        }
        let Some((file, len)) = &mut self.open else {
            return;
        };
        match file.write_all(lines) {
            Ok(()) => *len += lines.len() as u64,
            // A full disk may have room again, a lost directory may come back.
            Err(_) => self.open = None,
        }
    }

    fn open_file(&self) -> std::io::Result<(File, u64)> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)?;
        let len = file.metadata()?.len();
        Ok((file, len))
    }

    fn rotate(&mut self) {
        self.open = None;
        self.rotations += 1;
        let _ = fs::rename(&self.path, self.set_aside(self.rotations));
        if let Some(oldest) = self
            .rotations
            .checked_sub(SET_ASIDE_KEPT)
            .filter(|n| *n > 0)
        {
            let _ = fs::remove_file(self.set_aside(oldest));
        }
    }

    fn set_aside(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{}.{number:04}.log", self.stamp))
    }
}

/// The stamp a file name begins with.
fn session_of(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_file_is_named_after_the_start_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_355_534_358);
        let mut file = SessionFile::new(&dir.path().join("logs/remote"), at);
        file.append(b"x\n");
        assert_eq!(
            file.path(),
            dir.path().join("logs/remote/2026-11-22T13-52-14-358Z.log")
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(file.path()), 0o600);
        assert_eq!(mode(&dir.path().join("logs/remote")), 0o700);
    }

    #[test]
    fn nine_older_sessions_stay_with_all_their_files() {
        let dir = tempfile::tempdir().unwrap();
        for day in 10..=22 {
            fs::write(
                dir.path().join(format!("2026-11-{day}T00-00-00-000Z.log")),
                "",
            )
            .unwrap();
            fs::write(
                dir.path()
                    .join(format!("2026-11-{day}T00-00-00-000Z.0001.log")),
                "",
            )
            .unwrap();
        }
        fs::write(dir.path().join("notes.txt"), "").unwrap();
        SessionFile::new(dir.path(), SystemTime::now()).prune();
        let left = names(dir.path());
        assert_eq!(left.len(), 9 * 2 + 1);
        assert!(left[0].starts_with("2026-11-14T"), "{left:?}");
        assert!(left.contains(&String::from("notes.txt")));
    }

    #[test]
    fn a_long_session_keeps_three_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = SessionFile::new(dir.path(), SystemTime::UNIX_EPOCH);
        file.rotate_at = 10;
        for n in 0..6 {
            file.append(format!("line {n} ....\n").as_bytes());
        }
        assert_eq!(
            names(dir.path()),
            [
                "1970-01-01T00-00-00-000Z.0004.log",
                "1970-01-01T00-00-00-000Z.0005.log",
                "1970-01-01T00-00-00-000Z.log",
            ]
        );
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "line 5 ....\n");
    }

    #[test]
    fn a_directory_that_vanished_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let mut file = SessionFile::new(&logs, SystemTime::UNIX_EPOCH);
        fs::write(&logs, "in the way").unwrap();
        file.append(b"lost\n");
        fs::remove_file(&logs).unwrap();
        file.append(b"kept\n");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "kept\n");
    }
}
