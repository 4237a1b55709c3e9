//! Entering and leaving plan mode, and the names of plan files (00 §3, 05 §2.5).
//!
//! Invariant: a conversation in plan mode has a plan file of its own and knows
//! the mode to go back to; both steps are taken under the lock of the modes.

use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use super::{ModeEntry, RemoteSettings};
use crate::protocol::{PermissionMode, Scope};
use crate::state::home::create_private_dir;

const ADJECTIVES: [&str; 32] = [
    "amber", "bold", "brave", "brisk", "calm", "clear", "clever", "cosy", "crisp", "daring",
    "eager", "early", "fair", "gentle", "golden", "green", "happy", "keen", "kind", "lively",
    "lucky", "mellow", "neat", "noble", "patient", "proud", "quick", "quiet", "silver", "steady",
    "sunny", "warm",
];
const NOUNS: [&str; 32] = [
    "acorn", "anchor", "badger", "beacon", "birch", "bridge", "brook", "canyon", "cedar", "comet",
    "falcon", "fern", "forest", "garden", "harbour", "heron", "island", "lantern", "maple",
    "meadow", "orchard", "otter", "owl", "pebble", "pine", "river", "robin", "sparrow", "summit",
    "thicket", "valley", "willow",
];
/// Names that are tried before one gets a number.
const TRIES: usize = 16;

impl RemoteSettings {
    /// Enters plan mode with a new plan file in `plans`; a conversation that is
    /// in plan mode with a file already stays as it is. The entry that holds now.
    pub async fn enter_plan(&self, scope: &Scope, plans: &Path) -> ModeEntry {
        let now = self.mode_of(scope);
        if is_planning(&now) {
            return now;
        }
        let plans = plans.to_owned();
        let fallback = plans.join(format!("{}.md", numbered()));
        let file = spawn_blocking(move || new_file(&plans))
            .await
            .unwrap_or(fallback);
        let now = self.mode_of(scope);
        if is_planning(&now) {
            return now;
        }
        let before = match now.mode {
            // The mode of the process: there is none before it.
            PermissionMode::Plan => PermissionMode::Standard,
            before => before,
        };
        let entry = ModeEntry::plan(before, file);
        self.set_mode(scope, entry.clone());
        entry
    }

    /// Goes back to the mode before plan mode; `None` outside of plan mode.
    pub fn leave_plan(&self, scope: &Scope) -> Option<PermissionMode> {
        let now = self.mode_of(scope);
        if now.mode != PermissionMode::Plan {
            return None;
        }
        let before = now.mode_before_plan.unwrap_or(PermissionMode::Standard);
        self.set_mode(scope, ModeEntry::plain(before));
        Some(before)
    }
}

fn is_planning(entry: &ModeEntry) -> bool {
    entry.mode == PermissionMode::Plan && entry.plan_file.is_some()
}

/// A name in `plans` that no file has; the directory is made if it can be.
fn new_file(plans: &Path) -> PathBuf {
    if let Err(error) = create_private_dir(plans) {
        tracing::warn!(%error, directory = %plans.display(), "The directory of plans cannot be made.");
    }
    free_name(plans, |file| file.exists())
}

fn free_name(plans: &Path, taken: impl Fn(&Path) -> bool) -> PathBuf {
    (0..TRIES)
        .map(|_| plans.join(format!("{}.md", name())))
        .find(|file| !taken(file))
        .unwrap_or_else(|| plans.join(format!("{}.md", numbered())))
}

/// `<adjective>-<adjective>-<noun>`.
fn name() -> String {
    let first = fastrand::usize(..ADJECTIVES.len());
    // Another one than the first.
    let second = (first + fastrand::usize(1..ADJECTIVES.len())) % ADJECTIVES.len();
    let noun = NOUNS[fastrand::usize(..NOUNS.len())];
    format!("{}-{}-{noun}", ADJECTIVES[first], ADJECTIVES[second])
}

fn numbered() -> String {
    format!("{}-{}", name(), fastrand::u32(..))
}

#[cfg(test)]
mod tests {
    use super::super::RemoteDefaults;
    use super::*;
    use crate::state::Home;

    async fn remote(home: &Home, mode: PermissionMode) -> RemoteSettings {
        let defaults = RemoteDefaults {
            mode,
            user_cwd: None,
            process_cwd: Some("/".into()),
        };
        RemoteSettings::open(home, defaults).await
    }

    #[tokio::test]
    async fn plan_mode_brings_a_new_file_and_leads_back() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let remote = remote(&home, PermissionMode::AcceptEdits).await;
        let (one, two) = (Scope::new(None, Some("c-1")), Scope::new(None, Some("c-2")));
        let entry = remote.enter_plan(&one, &home.plans()).await;
        let file = entry.plan_file.clone().unwrap();
        let stem = file.file_stem().unwrap().to_str().unwrap();
        assert_eq!(stem.split('-').count(), 3, "{stem}");
        assert_eq!(file.parent().unwrap(), home.plans());
        assert!(home.plans().is_dir());
        assert_eq!(
            remote.enter_plan(&one, &home.plans()).await,
            entry,
            "it stays"
        );
        assert_eq!(remote.mode_of(&two).mode, PermissionMode::AcceptEdits);
        assert_eq!(remote.leave_plan(&one), Some(PermissionMode::AcceptEdits));
        assert_eq!(remote.leave_plan(&one), None);
        assert_eq!(
            remote.mode_of(&one),
            ModeEntry::plain(PermissionMode::AcceptEdits)
        );
    }

    #[tokio::test]
    async fn a_process_in_plan_mode_gives_files_and_leads_to_standard() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let remote = remote(&home, PermissionMode::Plan).await;
        let scope = Scope::new(None, Some("c-1"));
        assert_eq!(remote.mode_of(&scope).plan_file, None);
        assert!(
            remote
                .enter_plan(&scope, &home.plans())
                .await
                .plan_file
                .is_some()
        );
        assert_eq!(remote.leave_plan(&scope), Some(PermissionMode::Standard));
        assert_eq!(remote.mode_of(&scope).mode, PermissionMode::Standard);
    }

    #[test]
    fn names_that_are_taken_are_not_given_again() {
        let three_words = |file: &Path| file.to_string_lossy().split('-').count() == 3;
        let file = free_name(Path::new("/plans"), three_words);
        assert_eq!(file.to_string_lossy().split('-').count(), 4);
    }
}
