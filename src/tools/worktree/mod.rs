//! Worktrees of git that a conversation works in, apart from the primary
//! checkout: where they are, and what a new one starts from (04 §7.21).
//!
//! Invariant: only directories under `.letta/worktrees` of the primary
//! checkout are entered or removed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::git::{Git, GitError};
use super::tool::{Status, ToolOutcome};

mod add;
mod claim;
pub mod enter;
pub mod exit;
mod git;
mod provision;

/// How long the base may take to come from its remote.
const FETCH: Duration = Duration::from_secs(180);

/// Why a worktree could not be made, entered or left.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("{0}")]
    Refused(String),
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self::Refused(text)
    }
}

impl Trouble {
    fn outcome(&self) -> ToolOutcome {
        match self {
            Self::Git(GitError::Aborted) => ToolOutcome::interrupted(),
            other => ToolOutcome::part(format!("Error: {other}"), Status::Error),
        }
    }
}

/// A repository as seen from one of its checkouts.
struct Repository {
    /// The checkout.
    root: PathBuf,
    /// The checkout that holds the repository itself.
    primary: PathBuf,
    /// Where worktrees of conversations are.
    managed: PathBuf,
}

impl Repository {
    /// The repository that `inside` is in.
    async fn around(git: &Git<'_>, inside: &Path) -> Result<Self, GitError> {
        let root = git.text(inside, &["rev-parse", "--show-toplevel"]).await?;
        let root = PathBuf::from(root);
        let common = ["rev-parse", "--path-format=absolute", "--git-common-dir"];
        let common = PathBuf::from(git.text(&root, &common).await?);
        let primary = match common.parent() {
            Some(parent) if common.ends_with(".git") => parent.to_path_buf(),
            _ => root.clone(),
        };
        Ok(Self {
            managed: primary.join(".letta/worktrees"),
            root,
            primary,
        })
    }

    /// What a new branch starts from when nothing is said.
    async fn default_base(&self, git: &Git<'_>) -> Result<String, GitError> {
        let head = [
            "symbolic-ref",
            "--quiet",
            "--short",
            "refs/remotes/origin/HEAD",
        ];
        let head = git.run(&self.root, &head).await?;
        if head.code == Some(0) && !head.stdout.is_empty() {
            return Ok(head.stdout);
        }
        for candidate in ["origin/main", "origin/master", "main", "master"] {
            if self.has(git, candidate).await? {
                return Ok(candidate.to_owned());
            }
        }
        Ok(branch_of(git, &self.root)
            .await?
            .unwrap_or_else(|| "HEAD".into()))
    }

    /// Whether `reference` names something.
    async fn has(&self, git: &Git<'_>, reference: &str) -> Result<bool, GitError> {
        let verify = [
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            reference,
        ];
        git.succeeds(&self.root, &verify).await
    }

    /// Brings a base of the form `<remote>/<branch>` up to date.
    async fn refresh(&self, git: &Git<'_>, base: &str) -> Result<(), GitError> {
        let Some((remote, branch)) = base.split_once('/') else {
            return Ok(());
        };
        let remotes = git.run(&self.root, &["remote"]).await?;
        if !remotes.stdout.lines().any(|line| line.trim() == remote) {
            return Ok(());
        }
        let refs = format!("{branch}:refs/remotes/{remote}/{branch}");
        let fetch = ["fetch", "--end-of-options", remote, &refs];
        git.run_for(FETCH, &self.root, &fetch).await?.text(&fetch)?;
        Ok(())
    }
}

/// The branch of a checkout, unless its head is detached.
async fn branch_of(git: &Git<'_>, checkout: &Path) -> Result<Option<String>, GitError> {
    let branch = ["rev-parse", "--abbrev-ref", "HEAD"];
    let branch = git.run(checkout, &branch).await?;
    let named = branch.code == Some(0) && !branch.stdout.is_empty() && branch.stdout != "HEAD";
    Ok(named.then_some(branch.stdout))
}

/// Does work on files off the runtime's threads.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Trouble> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Trouble::Refused(format!("the work on files was lost: {error}")))
}

#[cfg(test)]
mod tests;
