//! What a decision must know besides the call, the rules and the mode: where
//! the conversation works, whose memory is whose, which files hold secrets, and
//! the few facts about the disk (05 §1, §13).

use std::collections::HashMap;
use std::path::Path;

use super::path;

/// Facts about the disk that guards need. Implementations never fail: what
/// cannot be read is answered lexically.
pub trait Disk {
    /// The path with symbolic links resolved; a missing tail is kept.
    /// `path` is absolute and free of dot segments.
    fn real_path(&self, path: &str) -> String;

    /// Whether something exists at `path`.
    fn exists(&self, path: &str) -> bool;
}

/// A disk without symbolic links on which nothing exists: for tests and for
/// judging calls of another machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LexicalDisk;

impl Disk for LexicalDisk {
    fn real_path(&self, path: &str) -> String {
        path.to_owned()
    }

    fn exists(&self, _path: &str) -> bool {
        false
    }
}

/// This machine. Each question is one system call per path segment; a decision
/// asks a handful, so callers on an async runtime use `spawn_blocking`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn real_path(&self, path: &str) -> String {
        let mut head = Path::new(path);
        let mut tail = Vec::new();
        loop {
            if let Ok(real) = head.canonicalize() {
                let whole = tail.iter().rev().fold(real, |at, name| at.join(name));
                return path::resolve("/", &whole.to_string_lossy());
            }
            // A dangling link points somewhere too: follow it by hand.
            if let Ok(target) = head.read_link()
                && tail.len() < 64
            {
                let from = head.parent().unwrap_or(Path::new("/"));
                let from = from.canonicalize().unwrap_or_else(|_| from.to_path_buf());
                let target = path::resolve(&from.to_string_lossy(), &target.to_string_lossy());
                return tail
                    .iter()
                    .rev()
                    .fold(std::path::PathBuf::from(target), |at, name| at.join(name))
                    .to_string_lossy()
                    .into_owned();
            }
            match (head.parent(), head.file_name()) {
                (Some(parent), Some(name)) => {
                    tail.push(name.to_owned());
                    head = parent;
                }
                _ => return path.to_owned(),
            }
        }
    }

    fn exists(&self, path: &str) -> bool {
        Path::new(path).exists()
    }
}

/// Whose memory the call may touch (05 §9, §13.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentIds {
    /// The agent of the conversation; `None` when unknown.
    pub agent: Option<String>,
    /// The agent that started this one as a subagent.
    pub parent: Option<String>,
}

impl AgentIds {
    /// The ids whose memory trees are open to the call.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let parent = self.parent.as_deref();
        let agent = self.agent.as_deref();
        agent
            .into_iter()
            .chain(parent.filter(move |id| Some(*id) != agent))
    }
}

/// A workspace that writes may not leave (05 §13.1). Both paths are absolute,
/// with symbolic links resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// The workspace itself.
    pub root: String,
    /// The tree of workspaces in which only `root` may be read.
    pub isolation_root: String,
}

/// Everything around a call. Build one per conversation and working directory.
pub struct Context<'a> {
    /// Absolute working directory of the conversation, lexically resolved.
    pub cwd: String,
    /// The home directory, absolute.
    pub home: String,
    /// Whose memory is open.
    pub agents: AgentIds,
    /// Execution settings or a flag turned the cross-agent guard off.
    pub memory_guard_off: bool,
    /// Where local memory trees live: `LETTA_LOCAL_BACKEND_DIR`, else
    /// `<home>/.letta/lc-local-backend`.
    pub local_backend: String,
    /// Present when the runtime was started in a workspace sandbox.
    pub workspace: Option<Workspace>,
    /// Files and directories with secrets: `~/.letta/settings.json`, the key
    /// file, the credentials directory, token files. Absolute.
    pub credentials: Vec<String>,
    /// `$XDG_CONFIG_HOME`, absolute: the legacy settings live below it.
    pub config_home: String,
    /// Variables that children get and commands may name, `MEMORY_DIR` for one.
    pub variables: HashMap<String, String>,
    /// The disk.
    pub disk: &'a dyn Disk,
}

impl<'a> Context<'a> {
    /// A context with the usual places below `home` and no agent.
    pub fn new(cwd: &str, home: &str, disk: &'a dyn Disk) -> Self {
        Self {
            cwd: cwd.to_owned(),
            home: home.to_owned(),
            agents: AgentIds::default(),
            memory_guard_off: false,
            local_backend: format!("{home}/.letta/lc-local-backend"),
            workspace: None,
            credentials: Vec::new(),
            config_home: format!("{home}/.config"),
            variables: HashMap::new(),
            disk,
        }
    }

    /// `path` against the working directory.
    pub(super) fn resolve(&self, path: &str) -> String {
        path::resolve(&self.cwd, path)
    }

    /// As [`Self::resolve`], with `~/` and `$HOME/` expanded.
    pub(super) fn resolve_expanded(&self, path: &str) -> String {
        self.resolve(&path::expand_home(path, &self.home))
    }

    /// The directory that holds the plan files of every conversation.
    pub(super) fn plans(&self) -> String {
        format!("{}/.letta/plans", self.home)
    }

    /// Whether `path` (absolute) is a credential, as written or behind links.
    pub(super) fn is_credential(&self, path: &str) -> bool {
        if self.credentials.is_empty() {
            return false;
        }
        let real = self.disk.real_path(path);
        self.credentials.iter().any(|secret| {
            path::inside(path, secret)
                || path::inside(&real, secret)
                || path::inside(&real, &self.disk.real_path(secret))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_paths_follow_links_and_keep_a_missing_tail() {
        let dir = tempfile::tempdir().unwrap();
        let base = RealDisk.real_path(&dir.path().to_string_lossy());
        std::fs::create_dir(format!("{base}/real")).unwrap();
        std::os::unix::fs::symlink("real", format!("{base}/link")).unwrap();
        std::os::unix::fs::symlink("real/missing", format!("{base}/dangling")).unwrap();
        assert_eq!(
            RealDisk.real_path(&format!("{base}/link/x/y")),
            format!("{base}/real/x/y")
        );
        assert_eq!(
            RealDisk.real_path(&format!("{base}/dangling")),
            format!("{base}/real/missing")
        );
    }

    #[test]
    fn the_parent_counts_once() {
        let ids = AgentIds {
            agent: Some("a".into()),
            parent: Some("a".into()),
        };
        assert_eq!(ids.iter().count(), 1);
    }
}
