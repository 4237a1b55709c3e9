//! Sends commits to the server: after each turn and after a client's write
//! (06 §6.6, 07 §4.6).

use std::time::Duration;

use tokio::sync::oneshot;

use super::checkout::Checkout;
use super::git::Git;
use super::sync::UPSTREAM;

/// How a push ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// No repository, or somebody else is at it.
    Skipped,
    /// Nothing to send.
    Clean,
    /// Sent.
    Pushed,
    /// Uncommitted changes: a short list of them.
    Dirty(String),
    /// A merge or rebase is under way, or stopped at a conflict.
    Conflict(String),
    /// It was refused, or the server was not reached.
    Failed(String),
}

impl Checkout {
    /// Sends what waits, unless somebody else changes the checkout now.
    pub async fn push_pending(&self) -> Pushed {
        match self.if_free().await {
            Some(_turn) => self.push().await,
            None => Pushed::Skipped,
        }
    }

    /// Starts sending what waits and waits for it at most `limit`. It goes on
    /// behind the caller's back when that is not enough; `None` then.
    pub async fn push_within(&self, limit: Duration) -> Option<Pushed> {
        let (done, ended) = oneshot::channel();
        let this = self.clone();
        self.memory().spawn(async move {
            let _turn = this.exclusively().await;
            let outcome = this.push().await;
            if let Pushed::Failed(reason) | Pushed::Conflict(reason) = &outcome {
                tracing::warn!(
                    agent = this.agent_id(),
                    reason,
                    "The memory could not be pushed."
                );
            }
            // The caller may have gone on.
            let _ = done.send(outcome);
        });
        tokio::time::timeout(limit, ended).await.ok()?.ok()
    }

    async fn push(&self) -> Pushed {
        if !self.exists().await {
            return Pushed::Skipped;
        }
        if let Some(conflict) = self.conflict().await {
            return conflict;
        }
        match self.uncommitted().await {
            Ok(status) if status.trim().is_empty() => {}
            Ok(status) => return Pushed::Dirty(first_lines(&status)),
            Err(error) => return Pushed::Failed(error.to_string()),
        }
        let git = Git::in_dir(self.dir());
        let range = format!("{UPSTREAM}..HEAD");
        let ahead = git.run(&["rev-list", "--count", &range]).await;
        // Without the server's branch there may be a first commit to send.
        if ahead.is_ok_and(|count| count.trim() == "0") {
            return Pushed::Clean;
        }
        if git
            .run(&["rev-parse", "-q", "--verify", "HEAD"])
            .await
            .is_err()
        {
            return Pushed::Clean;
        }
        let settings = self.settings();
        let send = ["push", "-q", "-u", "origin", "HEAD:main"];
        let error = match git.online(settings, &send).await {
            Ok(_) => return Pushed::Pushed,
            Err(error) => error,
        };
        if !error.says(&["non-fast-forward", "fetch first", "[rejected]"]) {
            return Pushed::Failed(error.to_string());
        }
        let rebase = ["pull", "-q", "--rebase", "origin", "main"];
        if let Err(error) = git.online(settings, &rebase).await {
            let conflict = self.conflict().await;
            return conflict.unwrap_or_else(|| Pushed::Failed(error.to_string()));
        }
        match git.online(settings, &send).await {
            Ok(_) => Pushed::Pushed,
            Err(error) => Pushed::Failed(error.to_string()),
        }
    }

    /// A merge or rebase that somebody has to end.
    async fn conflict(&self) -> Option<Pushed> {
        let git_dir = self.dir().join(".git");
        for name in ["MERGE_HEAD", "rebase-merge", "rebase-apply"] {
            if tokio::fs::try_exists(git_dir.join(name))
                .await
                .unwrap_or(false)
            {
                let status = self.uncommitted().await.unwrap_or_default();
                return Some(Pushed::Conflict(first_lines(&status)));
            }
        }
        let unmerged = Git::in_dir(self.dir())
            .run(&["ls-files", "-u"])
            .await
            .ok()?;
        (!unmerged.is_empty()).then(|| Pushed::Conflict(first_lines(&unmerged)))
    }
}

/// The first lines of a status, enough to know what it is about.
fn first_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().take(10).collect();
    lines.join("\n")
}
