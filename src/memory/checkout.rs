//! The checkout of one agent: what it holds, its history, commits to it.
//!
//! Invariant: one change at a time per agent on this machine; a commit takes
//! exactly the paths that it was given and leaves nothing staged behind when
//! it fails.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::files::{self, Entry, RelativePath};
use super::git::{Git, LOOK};
use super::layout::{self, Format};
use super::process_lock::{self, ProcessLock};
use super::{Memory, MemoryError, MemorySettings, rules};

/// Who a commit is by.
#[derive(Clone, Debug)]
pub struct Author {
    /// The agent's name.
    pub name: String,
    /// `<agent id>@letta.com`.
    pub email: String,
}

/// One commit of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its whole name.
    pub sha: String,
    /// Its first line.
    pub subject: String,
    /// Author date, ISO 8601.
    pub timestamp: String,
    /// Who made it.
    pub author: String,
}

/// The right to change a checkout; dropping it lets the next one in.
#[derive(Debug)]
pub struct Turn {
    _here: OwnedMutexGuard<()>,
    _elsewhere: ProcessLock,
}

/// The memory of one agent on this machine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Checkout {
    memory: Memory,
    agent_id: Arc<str>,
    /// The shared repository that it is, if it is not the agent's own.
    shared: Option<Arc<str>>,
    dir: PathBuf,
    turn: Arc<Mutex<()>>,
}

impl Checkout {
    pub(super) fn new(
        memory: Memory,
        agent_id: &str,
        shared: Option<&str>,
        turn: Arc<Mutex<()>>,
    ) -> Self {
        let own = memory.0.settings.home.agent_memory(agent_id);
        Self {
            dir: shared.map_or_else(|| own.clone(), |name| own.with_file_name(name)),
            memory,
            agent_id: agent_id.into(),
            shared: shared.map(Arc::from),
            turn,
        }
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn settings(&self) -> &MemorySettings {
        &self.memory.0.settings
    }

    /// The agent.
    pub fn agent_id(&self) -> &str {
        &self.agent_id
    }

    /// The name of the shared repository, if it is one.
    pub fn shared(&self) -> Option<&str> {
        self.shared.as_deref()
    }

    /// `~/.letta/agents/<id>/memory`, or the shared repository beside it, whether it exists or not.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether there is a repository.
    pub async fn exists(&self) -> bool {
        let git = self.dir.join(".git");
        tokio::fs::try_exists(git).await.unwrap_or(false)
    }

    /// The same as an error.
    ///
    /// # Errors
    /// When there is none.
    pub async fn require(&self) -> Result<(), MemoryError> {
        if self.exists().await {
            Ok(())
        } else {
            Err(MemoryError::NoCheckout(self.dir.clone()))
        }
    }

    /// How its files are arranged.
    pub fn format(&self) -> Format {
        Format::of(&self.dir)
    }

    /// About how many tokens of prompt it takes. Blocking.
    pub fn prompt_tokens(&self) -> u64 {
        layout::prompt_tokens(&self.dir)
    }

    /// All its files. Blocking.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn list(&self, with_references: bool) -> Result<Vec<Entry>, MemoryError> {
        files::list(&self.dir, with_references)
    }

    /// Waits until nobody else changes the checkout, in this process or another.
    pub async fn exclusively(&self) -> Turn {
        Turn {
            _here: Arc::clone(&self.turn).lock_owned().await,
            _elsewhere: process_lock::wait(&self.dir).await,
        }
    }

    /// The right to change it, if nobody has it now.
    pub(super) async fn if_free(&self) -> Option<Turn> {
        Some(Turn {
            _here: Arc::clone(&self.turn).try_lock_owned().ok()?,
            _elsewhere: process_lock::now(&self.dir).await?,
        })
    }

    /// What is not committed, a line per path as `git status --porcelain` says
    /// it; empty when the tree is clean.
    ///
    /// # Errors
    /// When git fails.
    pub async fn uncommitted(&self) -> Result<String, MemoryError> {
        let status = Git::in_dir(&self.dir).run(&["status", "--porcelain"]);
        Ok(status.await?)
    }

    /// Commits `paths` and nothing else. `None` when they do not differ from
    /// the last commit.
    ///
    /// # Errors
    /// [`MemoryError::Rules`] when the memory does not take it, or a hook of
    /// the repository. Nothing stays staged then.
    pub(super) async fn commit(
        &self,
        _turn: &Turn,
        paths: &[RelativePath],
        message: &str,
        author: &Author,
    ) -> Result<Option<String>, MemoryError> {
        let git = Git::in_dir(&self.dir);
        // A path that neither exists nor is tracked is an error to `add`.
        let mut known = vec!["ls-files", "-z", "--cached", "--others", "--"];
        known.extend(paths.iter().map(RelativePath::as_str));
        let known = git.run(&known).await?;
        let known: Vec<&str> = known.split_terminator('\0').collect();
        let paths = paths.iter().filter(|path| known.contains(&path.as_str()));
        let paths: Vec<&RelativePath> = paths.collect();
        if paths.is_empty() {
            return Ok(None);
        }
        let with_paths = |args: &[&'static str]| -> Vec<String> {
            let args = args.iter().map(|arg| (*arg).to_owned());
            let paths = paths.iter().map(|path| path.as_str().to_owned());
            args.chain(["--".to_owned()]).chain(paths).collect()
        };
        let run = async |args: Vec<String>| {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            git.run(&args).await
        };
        run(with_paths(&["add", "-A"])).await?;
        let staged = run(with_paths(&["diff", "--cached", "--name-only"])).await?;
        if staged.trim().is_empty() {
            return Ok(None);
        }
        let done = async {
            rules::check_staged(&self.dir, false, false).await?;
            let mut args = vec![
                "-c".to_owned(),
                format!("user.name={}", author.name),
                "-c".to_owned(),
                format!("user.email={}", author.email),
            ];
            args.extend(with_paths(&["commit", "-q"]));
            let at = args.len() - paths.len() - 1;
            args.splice(at..at, ["-m".to_owned(), message.to_owned()]);
            run(args).await?;
            let head = git.run(&["rev-parse", "HEAD"]).await?;
            Ok::<_, MemoryError>(head.trim().to_owned())
        };
        match done.await {
            Ok(sha) => Ok(Some(sha)),
            Err(error) => {
                if let Err(unstage) = run(with_paths(&["reset", "-q"])).await {
                    tracing::warn!(error = %unstage, "A refused commit stays staged.");
                }
                Err(error)
            }
        }
    }

    /// The last `limit` commits, of one file when a path is given.
    ///
    /// # Errors
    /// When there is no repository, or git fails.
    pub async fn history(
        &self,
        path: Option<&RelativePath>,
        limit: u64,
    ) -> Result<Vec<Commit>, MemoryError> {
        self.require().await?;
        let count = format!("--max-count={limit}");
        let mut args = vec!["log", &count, "--format=%H%x1f%s%x1f%aI%x1f%an%x1e"];
        if let Some(path) = path {
            args.extend(["--", path.as_str()]);
        }
        let log = Git::in_dir(&self.dir).limit(LOOK).run(&args).await?;
        Ok(log
            .split('\u{1e}')
            .filter_map(|row| {
                let mut fields = row.trim_start().split('\u{1f}').map(String::from);
                Some(Commit {
                    sha: fields.next().filter(|sha| !sha.is_empty())?,
                    subject: fields.next()?,
                    timestamp: fields.next()?,
                    author: fields.next()?,
                })
            })
            .collect())
    }

    /// A file as it was at a commit or branch.
    ///
    /// # Errors
    /// When there is no such version, or git fails.
    pub async fn file_at(
        &self,
        revision: &Revision,
        path: &RelativePath,
    ) -> Result<String, MemoryError> {
        self.require().await?;
        let object = format!("{}:{}", revision.0, path.as_str());
        let show = ["cat-file", "blob", &object];
        Ok(Git::in_dir(&self.dir).limit(LOOK).run(&show).await?)
    }

    /// What a commit changed, as a patch.
    ///
    /// # Errors
    /// When there is no such commit, or git fails.
    pub async fn diff_of(&self, revision: &Revision) -> Result<String, MemoryError> {
        self.require().await?;
        let show = [
            "show",
            "--format=",
            "--no-color",
            "--no-ext-diff",
            "--end-of-options",
            &revision.0,
        ];
        Ok(Git::in_dir(&self.dir).limit(LOOK).run(&show).await?)
    }
}

/// The name of a commit or branch that git cannot take for an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// Reads a name that came from a client.
    ///
    /// # Errors
    /// A text that says what a name looks like.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        let fits = !name.is_empty()
            && name.len() <= 250
            && !name.starts_with('-')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_./^~@{}".contains(&byte));
        if fits {
            Ok(Self(name.to_owned()))
        } else {
            Err("must be the name of a commit or branch")
        }
    }
}
