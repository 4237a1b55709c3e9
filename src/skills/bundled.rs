//! The skills that are part of this program. They are unpacked before they are
//! read, so that a skill of ours is a directory like any other and the model
//! can read it by its path.

use std::path::{Path, PathBuf};

use crate::state::Home;
use crate::state::atomic::{self, Access};

const SKILLS: [(&str, &str); 4] = [
    (
        "initializing-memory",
        include_str!("bundled/initializing-memory.md"),
    ),
    ("context-doctor", include_str!("bundled/context-doctor.md")),
    (
        "syncing-memory-filesystem",
        include_str!("bundled/syncing-memory-filesystem.md"),
    ),
    (
        "scheduling-tasks",
        include_str!("bundled/scheduling-tasks.md"),
    ),
];

/// Where they are unpacked.
pub(super) fn root(home: &Home) -> PathBuf {
    home.letta.join("bundled/skills/builtin")
}

/// Writes what is missing or of another version.
pub(super) fn unpack(root: &Path) {
    for (name, text) in SKILLS {
        let path = root.join(name).join("SKILL.md");
        if std::fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
            continue;
        }
        if let Err(error) = atomic::write(&path, text.as_bytes(), Access::Inherited) {
            tracing::warn!(path = %path.display(), %error, "A bundled skill could not be written.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skills::{Source, scan};

    #[test]
    fn bundled_skills_are_unpacked_and_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let root = root(&Home::at(dir.path()));
        unpack(&root);
        let file = root.join("context-doctor/SKILL.md");
        std::fs::write(&file, "old").unwrap();
        unpack(&root);
        let found = scan::scan(&root, Source::Bundled);
        assert_eq!(found.len(), SKILLS.len());
        for skill in found {
            assert_eq!(skill.path, root.join(&skill.id).join("SKILL.md"));
            assert!(skill.description.len() > 40, "{}", skill.id);
        }
    }
}
