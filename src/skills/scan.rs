//! Finds the skills below one directory (07 §2.3, §2.4).
//!
//! Links are followed; a directory that was entered before is not entered
//! again, so a cycle ends. The number of directories is bounded.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Skill, Source};
use crate::frontmatter::Document;
use crate::state::atomic::read_bounded;

/// The largest `SKILL.md` that is read.
pub(super) const MAX_SKILL: u64 = 1024 * 1024;
/// Directories looked into below one root: a link to a whole disk must end.
const MAX_DIRECTORIES: usize = 10_000;
/// Description of a skill that says nothing.
const NO_DESCRIPTION: &str = "No description.";

/// The skills below `root`, in the order of their paths.
pub(super) fn scan(root: &Path, source: Source) -> Vec<Skill> {
    let mut walk = Walk {
        root,
        source,
        entered: HashSet::new(),
        found: Vec::new(),
    };
    walk.enter(root);
    walk.found
}

struct Walk<'a> {
    root: &'a Path,
    source: Source,
    entered: HashSet<PathBuf>,
    found: Vec<Skill>,
}

impl Walk<'_> {
    fn enter(&mut self, dir: &Path) {
        let real = match fs::canonicalize(dir) {
            Ok(real) => real,
            Err(error) => return skipped(dir, &error),
        };
        if self.entered.len() >= MAX_DIRECTORIES || !self.entered.insert(real) {
            return;
        }
        let mut entries: Vec<PathBuf> = match fs::read_dir(dir) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(error) => return skipped(dir, &error),
        };
        entries.sort();
        for path in entries {
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => self.enter(&path),
                Ok(meta) if meta.is_file() && is_skill_file(&path) => self.read(dir, &path),
                Ok(_) => {}
                Err(error) => skipped(&path, &error),
            }
        }
    }

    fn read(&mut self, dir: &Path, file: &Path) {
        match read_bounded(file, MAX_SKILL) {
            Ok(bytes) => {
                let document = Document::parse(&String::from_utf8_lossy(&bytes));
                let place = dir.strip_prefix(self.root).unwrap_or(dir);
                let place = place.to_string_lossy();
                self.found.push(skill(&document, &place, file, self.source));
            }
            Err(error) => skipped(file, &error),
        }
    }
}

/// The skill that a document describes, whose directory is `place` below the root.
pub(super) fn skill(document: &Document, place: &str, file: &Path, source: Source) -> Skill {
    let place = if place.is_empty() { "root" } else { place };
    let name = document.text("name");
    let id = document.text("id").or(name).unwrap_or(place).to_owned();
    let description = document.text("description");
    let paragraph = document.body.trim().split("\n\n").next();
    let mut description = description
        .or(paragraph.map(str::trim).filter(|text| !text.is_empty()))
        .unwrap_or(NO_DESCRIPTION)
        .to_owned();
    if let Some(when) = document.text("when_to_use") {
        description.push_str("\n\nWhen to use: ");
        description.push_str(when);
    }
    Skill {
        name: name.or(document.text("title")).unwrap_or(&id).to_owned(),
        id,
        description,
        path: file.to_owned(),
        source,
        for_model: document.text("disable-model-invocation") != Some("true"),
    }
}

pub(super) fn is_skill_file(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.eq_ignore_ascii_case("SKILL.md"))
}

fn skipped(path: &Path, error: &io::Error) {
    if error.kind() != io::ErrorKind::NotFound {
        tracing::debug!(path = %path.display(), %error, "Left out of the skills.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn put(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn ids(root: &Path) -> Vec<String> {
        let found = scan(root, Source::Global);
        found.into_iter().map(|skill| skill.id).collect()
    }

    #[test]
    fn nested_linked_and_hidden_skills_are_found_and_cycles_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("skills");
        put(root.join("a/SKILL.md"), "---\nid: a\n---\n");
        put(root.join("a/inner/skill.MD"), "text");
        put(root.join(".hidden/SKILL.md"), "text");
        put(dir.path().join("else/SKILL.md"), "---\nname: linked\n---\n");
        symlink(dir.path().join("else"), root.join("z")).unwrap();
        symlink(&root, root.join("a/loop")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        assert_eq!(ids(&root), [".hidden", "a", "a/inner", "linked"]);
        assert!(ids(&dir.path().join("missing")).is_empty());
    }

    #[test]
    fn what_a_skill_does_not_say_is_taken_from_elsewhere() {
        let of = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            put(dir.path().join("my-skill/SKILL.md"), text);
            scan(dir.path(), Source::Project).remove(0)
        };
        let skill = of(
            "---\nid: x\ntitle: T\nwhen_to_use: often\ndisable-model-invocation: true\n---\n\nFirst\nparagraph.\n\nSecond.",
        );
        assert_eq!((skill.id.as_str(), skill.name.as_str()), ("x", "T"));
        assert_eq!(skill.description, "First\nparagraph.\n\nWhen to use: often");
        assert!(!skill.for_model);
        let skill = of("");
        assert_eq!(
            (skill.id.as_str(), skill.name.as_str()),
            ("my-skill", "my-skill")
        );
        assert_eq!(skill.description, NO_DESCRIPTION);
    }

    #[test]
    fn a_file_that_cannot_be_read_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let huge = "x".repeat(usize::try_from(MAX_SKILL).unwrap() + 1);
        put(dir.path().join("big/SKILL.md"), &huge);
        put(dir.path().join("odd/SKILL.md"), "---\nname: odd\n---\n");
        fs::write(
            dir.path().join("odd/SKILL.md"),
            b"---\nname: odd\n---\n\xff\xfe",
        )
        .unwrap();
        assert_eq!(ids(dir.path()), ["odd"]);
    }
}
