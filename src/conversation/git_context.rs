//! Branch and recent branches of a working directory (spec 06 §4.3, 02 §6.1).
//!
//! Invariant: nobody waits for git longer than [`DEADLINE`]; a repository on a
//! dead mount costs that once per directory and time to live.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::protocol::event::GitContext;

const TIME_TO_LIVE: Duration = Duration::from_secs(15);
const ENTRIES: usize = 64;
const RECENT: usize = 10;
const DEADLINE: Duration = Duration::from_secs(2);

type Entry = (Instant, Option<GitContext>);

/// The cache. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct GitContexts(Arc<Mutex<HashMap<PathBuf, Entry>>>);

impl GitContexts {
    /// What is known of `cwd`, however old; the outer `None` when nothing is.
    pub(crate) fn cached(&self, cwd: &Path) -> Option<Option<GitContext>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .get(cwd)
            .filter(|(at, _)| at.elapsed() < TIME_TO_LIVE)
            .map(|(_, context)| context.clone())
    }

    /// The context of `cwd`, read anew when what is known is too old.
    pub(crate) async fn load(&self, cwd: &Path) -> Option<GitContext> {
        if let Some(known) = self.cached(cwd) {
            return known;
        }
        let context = timeout(DEADLINE, read(cwd)).await.ok().flatten();
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= ENTRIES {
            entries.clear();
        }
        entries.insert(cwd.to_path_buf(), (Instant::now(), context.clone()));
        context
    }
}

async fn read(cwd: &Path) -> Option<GitContext> {
    if !in_repository(cwd).await {
        return None;
    }
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

/// Looks for a `.git` upward, which costs nothing beside starting git.
async fn in_repository(cwd: &Path) -> bool {
    for directory in cwd.ancestors() {
        if tokio::fs::try_exists(directory.join(".git"))
            .await
            .unwrap_or(false)
        {
            return true;
        }
    }
    false
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
    use super::*;

    #[tokio::test]
    async fn a_directory_outside_repositories_has_no_context() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(GitContexts::default().load(dir.path()).await, None);
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
        let context = GitContexts::default().load(dir.path()).await.unwrap();
        assert_eq!(context.branch.as_deref(), Some("main"));
        assert_eq!(context.recent_branches, ["other"]);
    }
}
