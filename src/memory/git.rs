//! Runs git: without a shell, with a time limit and bounded output (06 §6.2).
//!
//! Invariant: the key travels in the environment of the one child that needs
//! it, bound to the address of the memory server; every text that leaves this
//! file is masked.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::MemorySettings;
use crate::config::Secret;
use crate::telemetry::redact::Secrets;

/// The limit of most commands.
pub(super) const ORDINARY: Duration = Duration::from_secs(60);
/// The limit of a clone.
pub(super) const CLONE: Duration = Duration::from_secs(180);
/// The limit of a look at the history.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// The longest output that is read, in bytes.
const MAX_OUTPUT: u64 = 10 * 1024 * 1024;
/// Tries of a command that talks to the server.
const TRIES: u32 = 3;

/// Why git failed.
#[derive(Clone, Debug, Error)]
pub enum GitError {
    /// There is no git.
    #[error("git is not installed on this computer; the memory repository needs it.")]
    Missing,
    /// It took too long.
    #[error("git {command} did not end within {limit:?}.")]
    Timeout {
        /// The subcommand.
        command: String,
        /// The limit.
        limit: Duration,
    },
    /// It said no.
    #[error("git {command} failed: {text}")]
    Failed {
        /// The subcommand.
        command: String,
        /// What it wrote, masked.
        text: String,
    },
    /// It wrote more than is read.
    #[error("git {command} wrote more than 10 MiB.")]
    TooMuch {
        /// The subcommand.
        command: String,
    },
    /// There is no key.
    #[error("{0}")]
    Credentials(String),
}

impl GitError {
    /// Whether its text speaks of one of these.
    pub(super) fn says(&self, words: &[&str]) -> bool {
        let Self::Failed { text, .. } = self else {
            return false;
        };
        let text = text.to_lowercase();
        words.iter().any(|word| text.contains(word))
    }

    /// Whether another try may help (06 §6.2).
    fn is_transient(&self) -> bool {
        let busy = [" 503", " 520", " 521", " 522", " 523", " 524"];
        let cut = ["hung up", "reset", "timeout", "timed out"];
        self.says(&busy) || (self.says(&["rpc failed"]) && self.says(&cut))
    }
}

/// One command.
#[derive(Clone, Copy)]
pub(super) struct Git<'a> {
    dir: &'a Path,
    limit: Duration,
    /// Keeps `GIT_INDEX_FILE` and its kin: in a hook they are git's own word.
    in_hook: bool,
    stdin: &'a [u8],
}

impl<'a> Git<'a> {
    /// A command in `dir`.
    pub(super) fn in_dir(dir: &'a Path) -> Self {
        Self {
            dir,
            limit: ORDINARY,
            in_hook: false,
            stdin: &[],
        }
    }

    pub(super) fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    pub(super) fn in_hook(self, in_hook: bool) -> Self {
        Self { in_hook, ..self }
    }

    pub(super) fn stdin(self, stdin: &'a [u8]) -> Self {
        Self { stdin, ..self }
    }

    /// Runs it and gives what it wrote.
    pub(super) async fn run(self, args: &[&str]) -> Result<String, GitError> {
        let bytes = self.bytes(args, &[]).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The same as bytes.
    pub(super) async fn raw(self, args: &[&str]) -> Result<Vec<u8>, GitError> {
        self.bytes(args, &[]).await
    }

    /// Runs a command that talks to the memory server.
    pub(super) async fn online(
        self,
        settings: &MemorySettings,
        args: &[&str],
    ) -> Result<String, GitError> {
        let mut attempt = 0;
        loop {
            let key = settings.tokens.bearer().await;
            let key = key.map_err(|error| GitError::Credentials(error.to_string()))?;
            let config = network_config(settings, key.as_ref());
            let error = match self.bytes(args, &config).await {
                Ok(bytes) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                Err(error) => error,
            };
            attempt += 1;
            if attempt == TRIES || !error.is_transient() {
                return Err(error);
            }
            sleep(Duration::from_millis(500 << (attempt - 1))).await;
        }
    }

    async fn bytes(self, args: &[&str], config: &[(String, String)]) -> Result<Vec<u8>, GitError> {
        let mut words = args.iter();
        let mut command = String::new();
        while let Some(word) = words.next() {
            match *word {
                "-c" => drop(words.next()),
                word => {
                    word.clone_into(&mut command);
                    break;
                }
            }
        }
        let work = self.output(args, config, &command);
        match timeout(self.limit, work).await {
            Ok(done) => done,
            Err(_) => Err(GitError::Timeout {
                command,
                limit: self.limit,
            }),
        }
    }

    async fn output(
        self,
        args: &[&str],
        config: &[(String, String)],
        command: &str,
    ) -> Result<Vec<u8>, GitError> {
        let failed = |text: &str| GitError::Failed {
            command: command.to_owned(),
            text: masked(text),
        };
        let mut git = Command::new("git");
        git.arg("-C").arg(self.dir).args(args);
        if !self.in_hook {
            for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
                git.env_remove(name);
            }
        }
        for (name, value) in [
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GCM_INTERACTIVE", "never"),
            ("GIT_ASKPASS", ""),
            ("SSH_ASKPASS", ""),
            ("GIT_LITERAL_PATHSPECS", "1"),
            ("GIT_PAGER", "cat"),
            ("LC_ALL", "C"),
        ] {
            git.env(name, value);
        }
        git.envs(as_variables(config))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = git.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound if self.dir.is_dir() => GitError::Missing,
            _ => failed(&format!("{}: {error}", self.dir.display())),
        })?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("it has no pipes"));
        };
        let feed = async {
            // A command that does not want all of it has its reasons and says them.
            let _ = stdin.write_all(self.stdin).await;
            drop(stdin);
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut stdout = stdout.take(MAX_OUTPUT + 1);
        let mut stderr = stderr.take(MAX_OUTPUT);
        let (_, read, read_err) = tokio::join!(
            feed,
            stdout.read_to_end(&mut out),
            stderr.read_to_end(&mut err)
        );
        read.and(read_err)
            .map_err(|error| failed(&error.to_string()))?;
        if out.len() as u64 > MAX_OUTPUT {
            return Err(GitError::TooMuch {
                command: command.to_owned(),
            });
        }
        let status = child
            .wait()
            .await
            .map_err(|error| failed(&error.to_string()))?;
        if status.success() {
            return Ok(out);
        }
        let text = String::from_utf8_lossy(&err);
        let text = match text.trim() {
            "" => String::from_utf8_lossy(&out).trim().to_owned(),
            text => text.to_owned(),
        };
        Err(failed(if text.is_empty() {
            "it gave no reason"
        } else {
            &text
        }))
    }
}

/// What a command that talks to the server needs beside its arguments. The
/// header is bound to the server's address, so another remote never gets it.
fn network_config(settings: &MemorySettings, key: Option<&Secret>) -> Vec<(String, String)> {
    let header = format!("http.{}/.extraHeader", settings.server);
    let mut config = vec![
        ("credential.helper".into(), String::new()),
        ("core.askPass".into(), String::new()),
    ];
    if let Some(key) = key {
        let basic = STANDARD.encode(format!("letta:{}", key.expose()));
        config.push((header.clone(), format!("Authorization: Basic {basic}")));
    }
    if settings.hosted {
        config.push((header, "x-letta-memfs-backend: hosted".into()));
    }
    config
}

/// Configuration as `GIT_CONFIG_*`, which no process listing shows.
fn as_variables(config: &[(String, String)]) -> Vec<(OsString, OsString)> {
    let mut all = vec![("commit.gpgsign".to_owned(), "false".to_owned())];
    all.extend_from_slice(config);
    let count = all.len().to_string();
    let mut variables = vec![("GIT_CONFIG_COUNT".into(), count.into())];
    for (at, (key, value)) in all.into_iter().enumerate() {
        variables.push((format!("GIT_CONFIG_KEY_{at}").into(), key.into()));
        variables.push((format!("GIT_CONFIG_VALUE_{at}").into(), value.into()));
    }
    variables
}

/// A text of git without credentials, cut to a readable length.
fn masked(text: &str) -> String {
    let text = Secrets::default().mask_text(text).into_owned();
    text.chars().take(4000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(text: &str) -> GitError {
        GitError::Failed {
            command: "push".into(),
            text: text.into(),
        }
    }

    #[test]
    fn only_failures_of_the_way_are_tried_again() {
        for (text, transient) in [
            ("The requested URL returned error: 503", true),
            (
                "error: RPC failed; curl 56 Recv failure: Connection reset by peer",
                true,
            ),
            ("error: RPC failed; result=22, HTTP code = 413", false),
            ("The requested URL returned error: 403", false),
            ("! [rejected] main -> main (non-fast-forward)", false),
        ] {
            assert_eq!(failed(text).is_transient(), transient, "{text}");
        }
    }

    #[test]
    fn texts_of_git_are_masked() {
        let text = masked(
            "fatal: unable to access 'https://letta:sk-let-abcdef0123@api.letta.com/': Authorization: Basic bGV0dGE6a2V5a2V5",
        );
        assert!(!text.contains("sk-let-abcdef0123"), "{text}");
        assert!(!text.contains("bGV0dGE6a2V5a2V5"), "{text}");
    }

    #[tokio::test]
    async fn a_command_is_bounded_in_time_and_says_what_failed() {
        let dir = tempfile::tempdir().unwrap();
        let git = Git::in_dir(dir.path());
        let error = git.run(&["rev-parse", "HEAD"]).await.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("git rev-parse failed: fatal:"),
            "{error}"
        );
        git.run(&["init", "-q"]).await.unwrap();
        let slow = git.limit(Duration::from_millis(50));
        let error = slow
            .run(&["-c", "alias.wait=!sleep 5", "wait"])
            .await
            .unwrap_err();
        assert!(matches!(error, GitError::Timeout { .. }), "{error}");
        let missing = dir.path().join("missing");
        let error = Git::in_dir(&missing).run(&["status"]).await.unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }
}
