//! Branch and recent branches of a working directory (spec 06 §4.3, 02 §6.1).
//!
//! Invariant: nobody waits for git longer than [`DEADLINE`]; a repository on a
//! dead mount costs that once per directory and time to live. What is known is
//! also too old once HEAD names something else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use crate::protocol::event::GitContext;
use crate::state::atomic::read_bounded;

const TIME_TO_LIVE: Duration = Duration::from_secs(15);
const ENTRIES: usize = 64;
const RECENT: usize = 10;
const DEADLINE: Duration = Duration::from_secs(2);

/// A HEAD file holds one line; more is no HEAD file.
const HEAD_BYTES: u64 = 4096;

#[derive(Clone, Debug)]
struct Entry {
    read_at: Instant,
    /// What HEAD held.
    head: Option<String>,
    context: Option<GitContext>,
}

/// One directory.
#[derive(Clone, Debug, Default)]
struct Slot {
    /// Who reads it: one at a time, and what it finds serves those who waited.
    turn: Arc<tokio::sync::Mutex<()>>,
    entry: Option<Entry>,
}

/// The cache. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct GitContexts(Arc<Mutex<HashMap<PathBuf, Slot>>>);

impl GitContexts {
    /// What is known of `cwd`, perhaps too old; the outer `None` when nothing is.
    pub(crate) fn cached(&self, cwd: &Path) -> Option<Option<GitContext>> {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = slots.get(cwd)?.entry.as_ref();
        entry.map(|entry| entry.context.clone())
    }

    /// The context of `cwd`, read anew when what is known is too old.
    pub(crate) async fn load(&self, cwd: &Path) -> Option<GitContext> {
        self.load_with(cwd, read).await
    }

    async fn load_with(
        &self,
        cwd: &Path,
        read: impl AsyncFnOnce(&Path) -> Option<GitContext>,
    ) -> Option<GitContext> {
        let began = Instant::now();
        let turn = Arc::clone(&self.slot(cwd).turn);
        let Ok(_reads) = timeout(DEADLINE, turn.lock()).await else {
            return None;
        };
        let known = self.slot(cwd).entry;
        let known = known.filter(|entry| entry.read_at.elapsed() < TIME_TO_LIVE);
        let work = async {
            let head = head(cwd).await;
            match known {
                Some(known) if known.head == head => known,
                _ => Entry {
                    read_at: Instant::now(),
                    context: match &head {
                        Some(_) => read(cwd).await,
                        None => None,
                    },
                    head,
                },
            }
        };
        let entry = timeout_at(began + DEADLINE, work).await;
        let entry = entry.unwrap_or_else(|_| Entry {
            read_at: Instant::now(),
            head: None,
            context: None,
        });
        let context = entry.context.clone();
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What was forgotten meanwhile stays so.
        if let Some(slot) = slots.get_mut(cwd)
            && Arc::ptr_eq(&slot.turn, &turn)
        {
            slot.entry = Some(entry);
        }
        context
    }

    fn slot(&self, cwd: &Path) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= ENTRIES && !slots.contains_key(cwd) {
            slots.clear();
        }
        slots.entry(cwd.to_path_buf()).or_default().clone()
    }

    /// Makes the next [`Self::load`] of every directory read anew.
    pub(crate) fn forget(&self) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.clear();
    }
}

async fn read(cwd: &Path) -> Option<GitContext> {
    let branch = git(cwd, &["branch", "--show-current"]).await?;
    let branch = Some(branch.trim().to_owned()).filter(|branch| !branch.is_empty());
    let format = "--format=%(refname:short)";
    let listed = git(
        cwd,
        &["branch", "--sort=-committerdate", format, "--no-color"],
    )
    .await?;
    let recent_branches = listed
        .lines()
        .filter(|name| Some(*name) != branch.as_deref() && !name.starts_with('('))
        .take(RECENT)
        .map(String::from)
        .collect();
    Some(GitContext {
        branch,
        recent_branches,
    })
}

/// What HEAD of the repository around `cwd` holds, found without starting git;
/// `None` when there is no repository.
async fn head(cwd: &Path) -> Option<String> {
    let cwd = cwd.to_path_buf();
    let found = tokio::task::spawn_blocking(move || {
        let dot_git = cwd
            .ancestors()
            .map(|directory| directory.join(".git"))
            .find(|path| path.exists())?;
        // In a worktree `.git` is a file that names the directory.
        let directory = match read_bounded(&dot_git, HEAD_BYTES) {
            Ok(text) => {
                let text = String::from_utf8(text).unwrap_or_default();
                let named = text.trim().strip_prefix("gitdir: ").unwrap_or_default();
                dot_git.with_file_name("").join(named)
            }
            Err(_) => dot_git,
        };
        // A HEAD that cannot be read is git's to judge.
        let head = read_bounded(&directory.join("HEAD"), HEAD_BYTES).unwrap_or_default();
        Some(String::from_utf8_lossy(&head).into_owned())
    });
    found.await.ok().flatten()
}

/// Runs git without any of its prompts or pagers; `None` when it fails.
pub(crate) async fn git(cwd: &Path, args: &[&str]) -> Option<String> {
    let output = tokio::process::Command::new("git")
        .arg("-C")
        .arg(cwd)
        .args(args)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_directory_outside_repositories_has_no_context() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(GitContexts::default().load(dir.path()).await, None);
    }

    #[tokio::test]
    async fn those_who_ask_at_once_share_one_reading_and_what_is_forgotten_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            git(dir.path(), &["init", "-q", "-b", "main"])
                .await
                .is_some()
        );
        let known = GitContexts::default();
        let (readings, go) = (AtomicUsize::new(0), Semaphore::new(0));
        let reading = async |_: &Path| {
            readings.fetch_add(1, Ordering::SeqCst);
            go.acquire().await.unwrap().forget();
            Some(GitContext {
                branch: Some("main".into()),
                recent_branches: Vec::new(),
            })
        };
        let load = || known.load_with(dir.path(), reading);
        let release = async {
            while readings.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            go.add_permits(1);
        };
        let (first, second, ()) = tokio::join!(load(), load(), release);
        assert_eq!((&first, readings.load(Ordering::SeqCst)), (&second, 1));
        assert!(first.is_some());
        // Forgotten while it is read: the result is too old for the next one.
        known.forget();
        go.add_permits(2);
        let forget = async {
            while readings.load(Ordering::SeqCst) == 1 {
                tokio::task::yield_now().await;
            }
            known.forget();
        };
        tokio::join!(load(), forget);
        load().await;
        assert_eq!(readings.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn the_current_branch_stands_apart_from_the_others() {
        let dir = tempfile::tempdir().unwrap();
        for args in [
            &["init", "-q", "-b", "main"][..],
            &[
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@t",
                "commit",
                "-q",
                "--allow-empty",
                "-m",
                "x",
            ],
            &["branch", "other"],
        ] {
            assert!(git(dir.path(), args).await.is_some(), "{args:?}");
        }
        let known = GitContexts::default();
        let context = known.load(dir.path()).await.unwrap();
        assert_eq!(context.branch.as_deref(), Some("main"));
        assert_eq!(context.recent_branches, ["other"]);
        // A new branch alone is seen when what is known has aged; a new HEAD at once.
        assert!(
            git(dir.path(), &["checkout", "-q", "other"])
                .await
                .is_some()
        );
        let context = known.load(dir.path()).await.unwrap();
        assert_eq!(context.branch.as_deref(), Some("other"));
        assert!(
            git(dir.path(), &["checkout", "-q", "--detach"])
                .await
                .is_some()
        );
        let worktree = dir.path().join("tree");
        let add = ["worktree", "add", "-q", "tree", "main"];
        assert!(git(dir.path(), &add).await.is_some());
        assert_eq!(known.load(dir.path()).await.unwrap().branch, None);
        let context = known.load(&worktree).await.unwrap();
        assert_eq!(context.branch.as_deref(), Some("main"));
        assert!(git(&worktree, &["checkout", "-q", "other"]).await.is_some());
        let context = known.load(&worktree).await.unwrap();
        assert_eq!(context.branch.as_deref(), Some("other"));
    }
}
