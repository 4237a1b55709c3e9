//! Confinement of children by the kernel, through bubblewrap (05 §14).
//!
//! Invariant: a [`Confinement`] exists only where bubblewrap was seen to work,
//! and what is started under it either runs confined or does not run.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// How long each trial of bubblewrap may take.
const TRIAL: Duration = Duration::from_secs(5);

/// The variable that tells a child what confines it.
pub(super) const MARK: (&str, &str) = ("LETTA_SANDBOX", "bwrap");

/// Why children cannot be confined here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSandbox {
    /// The program is not installed.
    #[error("bwrap not found on PATH")]
    NotInstalled,
    /// The kernel or the container does not let it work.
    #[error("bwrap present but user namespaces are unavailable")]
    NotAllowed,
}

/// Finds a bubblewrap that works here.
///
/// # Errors
/// Why there is none.
pub(super) async fn find(path: Option<&OsStr>) -> Result<PathBuf, NoSandbox> {
    let program = std::env::split_paths(path.unwrap_or_default())
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("bwrap"))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok())
        .ok_or(NoSandbox::NotInstalled)?;
    let trial: &[&str] = &["--ro-bind", "/", "/", "--unshare-user", "/bin/true"];
    for arguments in [&["--version"], trial] {
        let run = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .status();
        let worked = timeout(TRIAL, run).await;
        if !worked.is_ok_and(|status| status.is_ok_and(|status| status.success())) {
            return Err(NoSandbox::NotAllowed);
        }
    }
    Ok(program)
}

/// The words in front of every command of a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement(Vec<OsString>);

impl Confinement {
    /// Everything may be read but what lies in `isolation_root`; of that only
    /// `root` is there, and only it may be written.
    pub(super) fn workspace(bwrap: &Path, root: &Path, isolation_root: &Path) -> Self {
        let mut words: Vec<OsString> = vec![bwrap.into()];
        let fixed = [
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
            "--tmpfs",
        ];
        words.extend(fixed.map(OsString::from));
        words.push(isolation_root.into());
        // `--bind`, not `--bind-try`: without its workspace nothing may run.
        words.push("--bind".into());
        words.extend([root.into(), root.into()]);
        words.extend(["--die-with-parent", "--"].map(OsString::from));
        Self(words)
    }

    /// `argv` under this confinement.
    pub(super) fn wrap(&self, argv: &[OsString]) -> Vec<OsString> {
        self.0.iter().chain(argv).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_come_before_what_is_writable() {
        let confinement = Confinement::workspace(
            Path::new("/b/bwrap"),
            Path::new("/iso/w"),
            Path::new("/iso"),
        );
        let argv = confinement.wrap(&["sh".into(), "-c".into(), "x".into()]);
        let argv: Vec<&str> = argv.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(
            argv.join(" "),
            "/b/bwrap --ro-bind / / --dev /dev --proc /proc --tmpfs /iso --bind /iso/w /iso/w --die-with-parent -- sh -c x"
        );
    }

    #[tokio::test]
    async fn a_missing_and_a_useless_bubblewrap_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = Some(dir.path().as_os_str());
        assert_eq!(find(path).await, Err(NoSandbox::NotInstalled));
        assert_eq!(find(None).await, Err(NoSandbox::NotInstalled));
        std::os::unix::fs::symlink("/bin/false", dir.path().join("bwrap")).unwrap();
        assert_eq!(find(path).await, Err(NoSandbox::NotAllowed));
        std::fs::remove_file(dir.path().join("bwrap")).unwrap();
        std::os::unix::fs::symlink("/bin/true", dir.path().join("bwrap")).unwrap();
        assert_eq!(find(path).await, Ok(dir.path().join("bwrap")));
    }
}
