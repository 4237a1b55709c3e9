//! The skills that are part of this program. They are unpacked, so that a skill
//! of ours is a directory like any other and the model can read it by its path;
//! what a turn says of them comes from the program itself.

use std::path::{Path, PathBuf};

use super::{Skill, Source, scan};
use crate::frontmatter::Document;
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

/// The skills below `root`. What is missing there or of another length, as
/// another version's is, is written first.
pub(super) fn unpacked(root: &Path) -> Vec<Skill> {
    let skills = SKILLS.iter().map(|(name, text)| {
        let path = root.join(name).join("SKILL.md");
        let there = std::fs::metadata(&path);
        if !there.is_ok_and(|meta| meta.is_file() && meta.len() == text.len() as u64)
            && let Err(error) = atomic::write(&path, text.as_bytes(), Access::Inherited)
        {
            tracing::warn!(path = %path.display(), %error, "A bundled skill could not be written.");
        }
        scan::skill(&Document::parse(text), name, &path, Source::Bundled)
    });
    skills.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn bundled_skills_are_unpacked_and_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let root = root(&Home::at(dir.path()));
        unpacked(&root);
        let file = root.join("context-doctor/SKILL.md");
        std::fs::write(&file, "old").unwrap();
        let told = unpacked(&root);
        assert_eq!(told.len(), SKILLS.len());
        for skill in scan::scan(&root, Source::Bundled) {
            assert_eq!(skill.path, root.join(&skill.id).join("SKILL.md"));
            assert!(skill.description.len() > 40, "{}", skill.id);
            let told = told.iter().find(|other| other.path == skill.path);
            assert_eq!(told.map(|told| &told.description), Some(&skill.description));
        }
    }
}
