//! The four settings files that hold rules and hooks for a directory
//! (spec 05 §4.1, §4.3), and the permission mode of the process (05 §2.3).
//!
//! Files are looked at for every check. Content is read again only when the
//! file may have changed: another time, size or inode, or a time so young that
//! a further edit could hide behind it. What an editor breaks counts as empty.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Home;
use super::atomic::{READ_LIMIT, read_bounded};
use super::json_file::{self, Found};
use crate::config::{Given, Origin};
use crate::protocol::PermissionMode;

/// Which of the four files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SettingsLevel {
    /// `$XDG_CONFIG_HOME/letta/settings.json`.
    Legacy,
    /// `~/.letta/settings.json`.
    User,
    /// `<cwd>/.letta/settings.json`.
    Project,
    /// `<cwd>/.letta/settings.local.json`.
    Local,
}

/// One file that exists and parses.
#[derive(Clone, Debug)]
pub struct SettingsFile {
    /// Which one.
    pub level: SettingsLevel,
    /// Where.
    pub path: PathBuf,
    /// Its content.
    pub object: Arc<Map<String, Value>>,
}

/// The files for one directory, broadest first: later ones add to earlier ones.
#[derive(Debug)]
pub struct SettingsView {
    /// Missing, unreadable and unparsable files are left out.
    pub files: Vec<SettingsFile>,
}

/// Reads and remembers settings files. Cheap to clone; clones share the memory.
#[derive(Clone, Debug)]
pub struct SettingsFiles {
    home: Home,
    cache: Arc<Mutex<Cache>>,
}

#[derive(Debug, Default)]
struct Cache {
    files: HashMap<PathBuf, Remembered>,
    views: HashMap<PathBuf, Arc<SettingsView>>,
}

#[derive(Clone, Debug)]
struct Remembered {
    stamp: Stamp,
    /// When the content was read.
    at: SystemTime,
    hash: [u8; 32],
    /// `None` when it does not parse.
    object: Option<Arc<Map<String, Value>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    inode: (u64, u64),
}

/// Directories remembered before everything is forgotten: a server works in few.
const REMEMBERED: usize = 256;

/// A file younger than this when it was read may change again without a new
/// time: clocks of file systems are coarse.
const RACY: Duration = Duration::from_secs(2);

impl SettingsFiles {
    /// Nothing is read yet.
    pub fn new(home: Home) -> Self {
        Self {
            home,
            cache: Arc::default(),
        }
    }

    /// The files for a directory. The same `Arc` as last time means that nothing
    /// changed, so callers can keep what they made of it. Blocking: four
    /// `stat` calls, seldom a read.
    pub fn view(&self, cwd: &Path) -> Arc<SettingsView> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.views.len() > REMEMBERED {
            *cache = Cache::default();
        }
        let files = self.paths(cwd).into_iter().filter_map(|(level, path)| {
            let object = cache.object(&path)?;
            Some(SettingsFile {
                level,
                path,
                object,
            })
        });
        let files: Vec<_> = files.collect();
        if let Some(last) = cache.views.get(cwd)
            && last.files.len() == files.len()
            && last
                .files
                .iter()
                .zip(&files)
                .all(|(a, b)| a.level == b.level && Arc::ptr_eq(&a.object, &b.object))
        {
            return Arc::clone(last);
        }
        let view = Arc::new(SettingsView { files });
        cache.views.insert(cwd.to_owned(), Arc::clone(&view));
        view
    }

    fn paths(&self, cwd: &Path) -> Vec<(SettingsLevel, PathBuf)> {
        let user = self.home.settings();
        let project = Home::project_settings(cwd);
        // In the home directory the project's file is the user's.
        let same = project == user || same_file(&project, &user);
        let mut paths = vec![
            (SettingsLevel::Legacy, self.home.legacy_settings.clone()),
            (SettingsLevel::User, user),
        ];
        if !same {
            paths.push((SettingsLevel::Project, project));
        }
        paths.push((SettingsLevel::Local, Home::local_settings(cwd)));
        paths
    }
}

impl SettingsView {
    /// The mode that the files give: the last valid `permissions.mode`, and
    /// where it stands. A wrong value in a narrower file does not undo a
    /// broader one.
    pub fn permission_mode(&self) -> Option<Given<PermissionMode>> {
        self.files.iter().rev().find_map(|file| {
            let name = file.object.get("permissions")?.get("mode")?.as_str()?;
            let value = PermissionMode::parse(name)?;
            Some(Given {
                value,
                origin: Origin::File(file.path.clone()),
            })
        })
    }
}

/// The mode of conversations without one of their own: flag or environment,
/// then the settings files of the process's directory, then `unrestricted`
/// (00 §3). Decided once, at start.
pub fn default_permission_mode(
    given: Option<Given<PermissionMode>>,
    view: &SettingsView,
) -> Given<PermissionMode> {
    given.or_else(|| view.permission_mode()).unwrap_or(Given {
        value: PermissionMode::Unrestricted,
        origin: Origin::BuiltIn,
    })
}

impl Cache {
    fn object(&mut self, path: &Path) -> Option<Arc<Map<String, Value>>> {
        let Some(stamp) = stamp(path) else {
            self.files.remove(path);
            return None;
        };
        let known = self.files.get(path).cloned();
        if let Some(known) = &known
            && known.stamp == stamp
            && is_settled(stamp, known.at)
        {
            return known.object.clone();
        }
        let at = SystemTime::now();
        let Ok(bytes) = read_bounded(path, READ_LIMIT) else {
            self.files.remove(path);
            return None;
        };
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        let object = match known {
            Some(known) if known.hash == hash => known.object,
            _ => match json_file::parse(&bytes) {
                Found::Object(object) => Some(Arc::new(object)),
                Found::Missing | Found::Corrupt(_) => None,
            },
        };
        let remembered = Remembered {
            stamp,
            at,
            hash,
            object: object.clone(),
        };
        self.files.insert(path.to_owned(), remembered);
        object
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        size: metadata.size(),
        inode: (metadata.dev(), metadata.ino()),
    })
}

/// Whether every edit after the read must show in the stamp.
fn is_settled(stamp: Stamp, read_at: SystemTime) -> bool {
    let newest = stamp.modified.0.max(stamp.changed.0);
    let read_at = read_at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(newest).is_ok_and(|newest| Duration::from_secs(newest) + RACY < read_at)
}

fn same_file(a: &Path, b: &Path) -> bool {
    let identity = |path: &Path| -> io::Result<(u64, u64)> {
        let metadata = std::fs::metadata(path)?;
        Ok((metadata.dev(), metadata.ino()))
    };
    matches!((identity(a), identity(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Fixture {
        _dir: tempfile::TempDir,
        home: Home,
        cwd: PathBuf,
        files: SettingsFiles,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().expect("temp dir");
        let home = Home::at(dir.path().join("home"));
        let cwd = dir.path().join("project");
        Fixture {
            files: SettingsFiles::new(home.clone()),
            _dir: dir,
            home,
            cwd,
        }
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("parent")).expect("created");
        fs::write(path, text).expect("written");
    }

    fn mode(name: &str) -> String {
        format!(r#"{{"permissions":{{"mode":"{name}"}}}}"#)
    }

    #[test]
    fn files_come_in_merge_order_and_bad_ones_are_left_out() {
        let Fixture {
            home, cwd, files, ..
        } = fixture();
        write(&home.legacy_settings, r#"{"n":1}"#);
        write(&home.settings(), "not JSON");
        write(&Home::project_settings(&cwd), "[]");
        write(&Home::local_settings(&cwd), r#"{"n":4}"#);
        let levels = |files: &SettingsFiles| -> Vec<_> {
            files
                .view(&cwd)
                .files
                .iter()
                .map(|file| file.level)
                .collect()
        };
        assert_eq!(
            levels(&files),
            [SettingsLevel::Legacy, SettingsLevel::Local]
        );
        write(&home.settings(), "{}");
        write(&Home::project_settings(&cwd), "{}");
        use SettingsLevel::{Legacy, Local, Project, User};
        assert_eq!(levels(&files), [Legacy, User, Project, Local]);
    }

    #[test]
    fn an_unchanged_view_is_the_same_and_every_edit_shows_at_once() {
        let Fixture { cwd, files, .. } = fixture();
        let path = Home::local_settings(&cwd);
        write(&path, r#"{"n":1}"#);
        let first = files.view(&cwd);
        assert!(Arc::ptr_eq(&first, &files.view(&cwd)));
        // The same size, and within the coarseness of any clock.
        for n in 2..9 {
            write(&path, &format!(r#"{{"n":{n}}}"#));
            assert_eq!(files.view(&cwd).files[0].object["n"], n);
        }
        fs::remove_file(&path).expect("removed");
        assert!(files.view(&cwd).files.is_empty());
    }

    #[test]
    fn in_the_home_directory_the_user_file_counts_once() {
        let Fixture { home, files, .. } = fixture();
        write(&home.settings(), "{}");
        let view = files.view(&home.user);
        assert_eq!(view.files.len(), 1);
        assert_eq!(view.files[0].level, SettingsLevel::User);
    }

    #[test]
    fn the_narrowest_valid_mode_wins_and_wrong_ones_are_stepped_over() {
        let Fixture {
            home, cwd, files, ..
        } = fixture();
        let decided = || default_permission_mode(None, &files.view(&cwd));
        assert_eq!(
            (decided().value, decided().origin),
            (PermissionMode::Unrestricted, Origin::BuiltIn)
        );
        write(&home.settings(), &mode("default"));
        write(
            &Home::project_settings(&cwd),
            r#"{"permissions":{"mode":7}}"#,
        );
        write(&Home::local_settings(&cwd), &mode("Strict"));
        assert_eq!(
            (decided().value, decided().origin),
            (PermissionMode::Standard, Origin::File(home.settings()))
        );
        write(&Home::local_settings(&cwd), &mode("acceptEdits"));
        assert_eq!(decided().value, PermissionMode::AcceptEdits);
    }

    #[test]
    fn flag_and_environment_win_over_files() {
        let Fixture {
            home, cwd, files, ..
        } = fixture();
        write(&home.settings(), &mode("strict"));
        let given = Given {
            value: PermissionMode::Plan,
            origin: Origin::Flag("--permission-mode"),
        };
        assert_eq!(
            default_permission_mode(Some(given.clone()), &files.view(&cwd)),
            given
        );
    }
}
