//! Which servers of a home run: `~/.letta/run/<hash>.pid` (00 §5).
//!
//! Invariant: a file means nothing by itself. A server keeps its own open and
//! locked while it lives, and one counts as running only while the process of
//! that number holds that very file open. So neither a crash, nor a recycled
//! number, nor a container on the same volume can point at somebody else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::Home;
use super::atomic::read_bounded;
use super::home::{create_private_dir, sha256_hex};
use super::os_lock::{is_at, lock_if_supported};

/// More than a number and a name needs.
const LONGEST: u64 = 4096;

/// The file of this process. Dropping it removes it.
#[derive(Debug)]
pub struct PidFile {
    #[expect(dead_code, reason = "closing the file ends the lock")]
    file: File,
    path: PathBuf,
}

impl PidFile {
    /// Writes the file of this process. `None` when another one holds it.
    ///
    /// # Errors
    /// When the directory or the file cannot be written.
    pub fn claim(home: &Home, instance_id: &str, name: &str) -> io::Result<Option<Self>> {
        let directory = directory(home);
        create_private_dir(&directory)?;
        let hash = sha256_hex(instance_id.as_bytes());
        let path = directory.join(format!("{}.pid", &hash[..16]));
        loop {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)?;
            match lock_if_supported(&file) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
            // Whoever ended meanwhile took the name away from under the lock.
            if is_at(&file, &path)? {
                file.set_len(0)?;
                writeln!(file, "{}\n{name}", std::process::id())?;
                return Ok(Some(Self { file, path }));
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A server that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningServer {
    /// Its process.
    pub pid: i32,
    /// The name of the computer it was started with.
    pub name: String,
    path: PathBuf,
}

impl RunningServer {
    /// Every running server of this home, whoever started it.
    pub fn all(home: &Home) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(directory(home)) else {
            return Vec::new();
        };
        let mut servers: Vec<Self> = entries
            .flatten()
            .filter_map(|entry| Self::read(entry.path()))
            .filter(Self::is_running)
            .collect();
        servers.sort_by(|a, b| a.name.cmp(&b.name));
        servers
    }

    fn read(path: PathBuf) -> Option<Self> {
        if path.extension()? != "pid" {
            return None;
        }
        let text = String::from_utf8(read_bounded(&path, LONGEST).ok()?).ok()?;
        let (pid, name) = text.split_once('\n')?;
        let pid = pid.parse().ok().filter(|pid| *pid > 0)?;
        let name = name.trim_end().to_owned();
        Some(Self { pid, name, path })
    }

    /// Whether the process still holds its file.
    pub fn is_running(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|file| holds(self.pid, &file))
    }
}

fn directory(home: &Home) -> PathBuf {
    home.letta.join("run")
}

/// Whether `pid` has the file open.
fn holds(pid: i32, file: &fs::Metadata) -> bool {
    let descriptors = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"));
    descriptors.is_ok_and(|mut entries| {
        entries.any(|entry| {
            let target = entry.and_then(|entry| fs::metadata(entry.path()));
            target.is_ok_and(|target| (target.dev(), target.ino()) == (file.dev(), file.ino()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_found_while_it_holds_its_file_and_not_after() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        assert_eq!(RunningServer::all(&home), []);
        let file = PidFile::claim(&home, "server-1", "my machine").unwrap();
        let found = RunningServer::all(&home);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pid.cast_unsigned(), std::process::id());
        assert_eq!(found[0].name, "my machine");
        assert!(
            PidFile::claim(&home, "server-1", "x").unwrap().is_none(),
            "one holder at a time"
        );
        assert!(PidFile::claim(&home, "server-2", "x").unwrap().is_some());
        drop(file);
        assert!(!found[0].is_running());
        assert!(
            PidFile::claim(&home, "server-1", "again")
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn a_file_that_a_crash_left_points_at_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        create_private_dir(&directory(&home)).unwrap();
        let left = directory(&home).join("0123456789abcdef.pid");
        // This process lives, but never opened that file.
        fs::write(&left, format!("{}\nghost\n", std::process::id())).unwrap();
        for junk in ["", "x", "-1\nx\n", "99999999999\nx\n"] {
            fs::write(directory(&home).join("junk.pid"), junk).unwrap();
            assert_eq!(RunningServer::all(&home), []);
        }
    }
}
