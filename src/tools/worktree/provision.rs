//! What a new worktree gets from the primary checkout beside its commits:
//! local settings, hooks, listed files, and dependencies on request. Best
//! effort: what does not work is told and stops nothing (04 §7.21).

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::state::atomic::read_bounded;

/// Bytes of the files that say what to copy.
const LARGEST_LIST: u64 = 1024 * 1024;
/// Files that are copied at most.
const MOST_FILES: usize = 10_000;

/// What to bring, and from where to where.
#[derive(Debug)]
pub(super) struct Provision {
    /// The primary checkout.
    pub(super) primary: PathBuf,
    /// The new worktree.
    pub(super) worktree: PathBuf,
    /// `core.hooksPath` of the repository, if any.
    pub(super) hooks: Option<String>,
    /// Link the directories of dependencies.
    pub(super) dependencies: bool,
}

/// What was brought.
#[derive(Debug, Default)]
pub(super) struct Provided {
    /// A line for each thing worth telling.
    pub(super) notes: Vec<String>,
    /// Whether dependencies are those of the primary checkout.
    pub(super) linked_dependencies: bool,
}

impl Provision {
    /// Does it all. Blocks on the disk.
    pub(super) fn bring(&self) -> Provided {
        let mut provided = Provided::default();
        let settings = self.settings();
        let list = |key: &str| -> Option<Vec<String>> {
            let items = settings[key].as_array()?.iter();
            Some(
                items
                    .filter_map(|item| Some(item.as_str()?.to_owned()))
                    .collect(),
            )
        };
        if self.dependencies {
            let directories = list("symlinkDirectories");
            for name in directories.unwrap_or_else(|| vec!["node_modules".into()]) {
                match self.link(&name) {
                    Ok(true) => {
                        provided.linked_dependencies = true;
                        provided
                            .notes
                            .push(format!("{name} is a link to the primary checkout's"));
                    }
                    Ok(false) => {}
                    Err(why) => provided.notes.push(format!("{name} was not linked: {why}")),
                }
            }
        }
        if settings["linkHooks"] != false
            && let Some(hooks) = &self.hooks
            && !Path::new(hooks).is_absolute()
        {
            match self.link(hooks) {
                Ok(true) => provided.notes.push(format!(
                    "git hooks ({hooks}) are a link to the primary checkout's"
                )),
                Ok(false) => {}
                Err(why) => provided
                    .notes
                    .push(format!("git hooks ({hooks}) were not linked: {why}")),
            }
        }
        if settings["copyLocalSettings"] != false {
            match self.copy(Path::new(".letta/settings.local.json"), &mut 0) {
                Ok(()) => {}
                Err(error) => provided.notes.push(format!(
                    ".letta/settings.local.json was not copied: {error}"
                )),
            }
        }
        let mut copied = 0;
        let listed = read_bounded(&self.primary.join(".worktreeinclude"), LARGEST_LIST);
        let listed = String::from_utf8_lossy(&listed.unwrap_or_default()).into_owned();
        let more = list("include").unwrap_or_default();
        let names = listed
            .lines()
            .map(str::trim)
            .chain(more.iter().map(String::as_str));
        for name in names.filter(|name| !name.is_empty() && !name.starts_with('#')) {
            let outcome = match inside(name) {
                Some(path) => self.copy(&path, &mut copied),
                None => Err(io::Error::other("it is not a path inside the repository")),
            };
            if let Err(error) = outcome {
                provided
                    .notes
                    .push(format!("{name} was not copied: {error}"));
            }
        }
        if copied > 0 {
            let plural = super::super::text::plural(copied);
            provided
                .notes
                .push(format!("{copied} file{plural} of .worktreeinclude copied"));
        }
        provided
    }

    /// `worktree` of the project's settings; null when there is none.
    fn settings(&self) -> Value {
        let bytes = read_bounded(&self.primary.join(".letta/settings.json"), LARGEST_LIST);
        let mut settings: Value =
            serde_json::from_slice(&bytes.unwrap_or_default()).unwrap_or_default();
        settings
            .get_mut("worktree")
            .map(Value::take)
            .unwrap_or_default()
    }

    /// Links the directory `name`; `Ok(false)` when there is nothing to do.
    fn link(&self, name: &str) -> Result<bool, String> {
        let Some(path) = inside(name) else {
            return Err("it is not a path inside the repository".into());
        };
        let (from, to) = (self.primary.join(&path), self.worktree.join(&path));
        if fs::read_dir(&from).map_or(true, |mut entries| entries.next().is_none()) {
            return Ok(false);
        }
        match fs::symlink_metadata(&to) {
            Ok(there) if there.is_symlink() => return Ok(false),
            // Succeeds only for an empty directory.
            Ok(_) => fs::remove_dir(&to).map_err(|_| "the worktree has its own".to_owned())?,
            Err(_) => {}
        }
        let parent = to.parent().unwrap_or(&self.worktree);
        fs::create_dir_all(parent)
            .and_then(|()| symlink(&from, &to))
            .map_err(|error| error.to_string())?;
        Ok(true)
    }

    /// Copies a file or all files below a directory; links are left out.
    fn copy(&self, path: &Path, copied: &mut usize) -> io::Result<()> {
        let (from, to) = (self.primary.join(path), self.worktree.join(path));
        let Ok(found) = fs::symlink_metadata(&from) else {
            return Ok(());
        };
        if found.is_file() {
            if *copied >= MOST_FILES {
                return Err(io::Error::other("too many files"));
            }
            fs::create_dir_all(to.parent().unwrap_or(&self.worktree))?;
            fs::copy(&from, &to)?;
            *copied += 1;
        } else if found.is_dir() {
            for entry in fs::read_dir(&from)? {
                let name = entry?.file_name();
                let below = path.join(&name);
                // The worktrees themselves must not end up in each other.
                if name != ".git" && below != Path::new(".letta/worktrees") {
                    self.copy(&below, copied)?;
                }
            }
        }
        Ok(())
    }
}

/// A path that stays inside the directory it is taken in.
fn inside(name: &str) -> Option<PathBuf> {
    let path: PathBuf = Path::new(name)
        .components()
        .filter(|part| !matches!(part, Component::CurDir))
        .collect();
    let inside = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    (inside && !path.as_os_str().is_empty()).then_some(path)
}
