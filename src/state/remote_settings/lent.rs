//! Directory and mode of a subagent for the time of its task: known here like
//! any other, but never written (07 §3.9).

use std::path::{Path, PathBuf};

use super::{ModeEntry, RemoteSettings};
use crate::protocol::{PermissionMode, Scope};

/// What a conversation was lent.
#[derive(Clone, Debug)]
pub(super) struct Lent {
    pub(super) cwd: PathBuf,
    pub(super) mode: ModeEntry,
}

impl RemoteSettings {
    /// Until [`Self::take_back`], the conversation works in `cwd` under `mode`,
    /// and changes of either are forgotten with it.
    pub fn lend(&self, scope: &Scope, cwd: &Path, mode: PermissionMode) {
        let lent = Lent {
            cwd: cwd.to_path_buf(),
            mode: ModeEntry::plain(mode),
        };
        self.shared.memory().lent.insert(scope.settings_key(), lent);
    }

    /// What the conversation has of its own holds again.
    pub fn take_back(&self, scope: &Scope) {
        self.shared.memory().lent.remove(&scope.settings_key());
    }
}

#[cfg(test)]
mod tests {
    use super::super::RemoteDefaults;
    use super::*;
    use crate::state::Home;

    #[tokio::test]
    async fn what_is_lent_holds_for_its_time_and_never_reaches_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let defaults = RemoteDefaults {
            mode: PermissionMode::Standard,
            user_cwd: None,
            process_cwd: Some("/".into()),
        };
        let remote = RemoteSettings::open(&home, defaults).await;
        let scope = Scope::new(Some("agent-1"), Some("conv-1"));
        let below = dir.path().join("below");
        std::fs::create_dir(&below).unwrap();
        remote.lend(&scope, dir.path(), PermissionMode::Unrestricted);
        assert_eq!(remote.mode_of(&scope).mode, PermissionMode::Unrestricted);
        assert_eq!(remote.verified_cwd_of(&scope).await, dir.path());
        remote.set_cwd(&scope, "below", dir.path()).await.unwrap();
        assert!(remote.cwd_of(&scope).ends_with("below"));
        remote.set_mode(&scope, ModeEntry::plain(PermissionMode::AcceptEdits));
        assert_eq!(remote.mode_of(&scope).mode, PermissionMode::AcceptEdits);
        remote.prune_mode(&scope);
        remote.take_back(&scope);
        assert_eq!(remote.mode_of(&scope).mode, PermissionMode::Standard);
        assert_eq!(remote.cwd_of(&scope), Path::new("/"));
        remote.flush().await;
        let text = std::fs::read_to_string(home.remote_settings()).unwrap_or_default();
        assert!(!text.contains("conv-1"), "{text}");
    }
}
