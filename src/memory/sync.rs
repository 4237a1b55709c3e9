//! Brings the checkout and the server together: clone, pull, recovery (06 §6.3).
//!
//! Invariant: nothing that is only here is lost. A repository of another
//! history is kept under `refs/letta-backup/`, and a tree with uncommitted
//! changes is never reset.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::checkout::Checkout;
use super::git::{CLONE, Git, GitError};
use super::{MemoryError, setup};
use crate::protocol::time::epoch_millis;

impl Checkout {
    /// Clones the repository, or pulls into the one that is here. `name` is the
    /// agent's name, for the author of its own commits.
    ///
    /// # Errors
    /// When git is missing or fails; what was here stays as it was.
    pub async fn bring_up_to_date(&self, name: Option<&str>) -> Result<(), MemoryError> {
        let _turn = self.exclusively().await;
        if self.exists().await {
            self.pull(name).await
        } else {
            self.clone_repository(name).await
        }
    }

    /// Clones when there is no repository; what is here stays as it is.
    ///
    /// # Errors
    /// As [`Checkout::bring_up_to_date`].
    pub async fn clone_if_missing(&self, name: Option<&str>) -> Result<(), MemoryError> {
        let _turn = self.exclusively().await;
        if self.exists().await {
            return Ok(());
        }
        self.clone_repository(name).await
    }

    fn url(&self) -> String {
        let (server, agent) = (&self.settings().server, self.agent_id());
        match self.shared() {
            None => format!("{server}/v1/git/{agent}/state.git"),
            Some(name) => format!("{server}/v1/git/{agent}/repositories/{name}.git"),
        }
    }

    async fn clone_repository(&self, name: Option<&str>) -> Result<(), MemoryError> {
        let dir = self.dir();
        let parent = dir.parent().unwrap_or(Path::new("/"));
        tokio::fs::create_dir_all(parent)
            .await
            .map_err(|error| MemoryError::file(parent, &error))?;
        let staging = Staging(parent.join(format!("memory-clone-{}", uuid::Uuid::new_v4())));
        let target = staging.0.to_string_lossy().into_owned();
        let url = self.url();
        Git::in_dir(parent)
            .limit(CLONE)
            .online(self.settings(), &["clone", "-q", &url, &target])
            .await?;
        let has_files = match tokio::fs::read_dir(dir).await {
            Ok(mut entries) => entries.next_entry().await.ok().flatten().is_some(),
            Err(_) => false,
        };
        if has_files && self.shared().is_some() {
            return Err(MemoryError::Pull(format!(
                "{} is there already and is no git repository",
                dir.display()
            )));
        }
        if has_files {
            // Files that were here first stay; only what they lack comes from the server.
            rename(&staging.0.join(".git"), &dir.join(".git")).await?;
            let git = Git::in_dir(dir);
            if git
                .run(&["rev-parse", "-q", "--verify", "HEAD"])
                .await
                .is_ok()
            {
                git.run(&["checkout", "--", "."]).await?;
            }
        } else {
            rename(&staging.0, dir).await?;
        }
        setup::prepare(self, name).await
    }

    async fn pull(&self, name: Option<&str>) -> Result<(), MemoryError> {
        self.fix_origin().await?;
        setup::prepare(self, name).await?;
        let git = Git::in_dir(self.dir());
        let settings = self.settings();
        let Err(error) = git.online(settings, &["pull", "-q", "--ff-only"]).await else {
            return Ok(());
        };
        if matches!(error, GitError::Missing | GitError::Credentials(_)) {
            return Err(error.into());
        }
        if self.shared().is_some() {
            // Others work on it too: what does not fit is the agent's to mend.
            return Err(MemoryError::Pull(error.to_string()));
        }
        // An empty repository on the server has nothing to pull.
        let fetched = git.online(settings, &["fetch", "-q", "origin"]).await;
        fetched.map_err(|error| MemoryError::Pull(error.to_string()))?;
        if git
            .run(&["rev-parse", "-q", "--verify", UPSTREAM])
            .await
            .is_err()
        {
            return Ok(());
        }
        if git.run(&["merge-base", "HEAD", UPSTREAM]).await.is_err() {
            return self.start_over().await;
        }
        match git.online(settings, &["pull", "-q", "--rebase"]).await {
            Ok(_) => Ok(()),
            Err(error) if error.says(&["unrelated histor", "no such ref was fetched"]) => {
                self.start_over().await
            }
            Err(error) => {
                // A half-done rebase would block every later turn.
                let _ = git.run(&["rebase", "--abort"]).await;
                Err(MemoryError::Pull(error.to_string()))
            }
        }
    }

    /// Points `origin` at the server when it points at an older address of it.
    async fn fix_origin(&self) -> Result<(), MemoryError> {
        let git = Git::in_dir(self.dir());
        let url = self.url();
        let known = git
            .run(&["config", "--local", "--get", "remote.origin.url"])
            .await;
        match known.as_deref().map(str::trim) {
            Ok(known) if known == url => {}
            Ok(known) if !known.is_empty() && !self.is_ours(known) => {}
            Ok(known) if !known.is_empty() => {
                git.run(&["remote", "set-url", "origin", &url]).await?;
                // Fails when there is none, which is as good.
                let unset = ["config", "--local", "--unset-all", "remote.origin.pushurl"];
                let _ = git.run(&unset).await;
            }
            _ => {
                let fetch = "+refs/heads/*:refs/remotes/origin/*";
                setup::set(git, &["remote.origin.url", &url]).await?;
                setup::set(git, &["remote.origin.fetch", fetch]).await?;
            }
        }
        Ok(())
    }

    /// Whether a URL is that of this repository on some Letta server.
    fn is_ours(&self, url: &str) -> bool {
        match self.shared() {
            None => is_memory_url(url, self.agent_id()),
            Some(name) => {
                let agent = self.agent_id();
                url.ends_with(&format!("/v1/git/{agent}/repositories/{name}.git"))
            }
        }
    }

    /// Takes the server's history in the place of one that has nothing in
    /// common with it.
    async fn start_over(&self) -> Result<(), MemoryError> {
        if !self.uncommitted().await?.trim().is_empty() {
            return Err(MemoryError::Pull(
                "the histories here and on the server have nothing in common, and there are uncommitted changes".into(),
            ));
        }
        let git = Git::in_dir(self.dir());
        if git
            .run(&["rev-parse", "-q", "--verify", "HEAD"])
            .await
            .is_ok()
        {
            let now = epoch_millis(SystemTime::now());
            let backup = format!("refs/letta-backup/pre-sync-{now}");
            git.run(&["update-ref", &backup, "HEAD"]).await?;
        }
        git.run(&["reset", "-q", "--hard", UPSTREAM]).await?;
        Ok(())
    }
}

/// The server's branch.
pub(super) const UPSTREAM: &str = "refs/remotes/origin/main";

/// Whether a URL is that of an agent's memory on some Letta server.
fn is_memory_url(url: &str, agent_id: &str) -> bool {
    let url = url.trim_end_matches('/');
    [
        format!("/v1/git/{agent_id}/state.git"),
        format!("/v1/git/{agent_id}"),
        "/v1/git".to_owned(),
    ]
    .iter()
    .any(|end| url.ends_with(end.as_str()))
}

async fn rename(from: &Path, to: &Path) -> Result<(), MemoryError> {
    tokio::fs::rename(from, to)
        .await
        .map_err(|error| MemoryError::file(to, &error))
}

/// A directory that goes away with its owner, unless it was moved.
struct Staging(PathBuf);

impl Drop for Staging {
    fn drop(&mut self) {
        let dir = std::mem::take(&mut self.0);
        if dir.exists() {
            // A clone that failed is small.
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}
