//! What the model reads when it loads a skill (07 §2.6).

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Skill;
use super::scan::{MAX_SKILL, is_skill_file};
use crate::state::atomic::read_bounded;

/// Files that are listed beside a skill.
const MAX_RESOURCES: usize = 200;
/// Directories that are looked into for them.
const MAX_DIRECTORIES: usize = 2_000;

/// The text of a skill in its wrapping.
pub(super) fn wrapped(skill: &Skill) -> io::Result<String> {
    let bytes = read_bounded(&skill.path, MAX_SKILL)?;
    let dir = skill.path.parent().unwrap_or(Path::new("/"));
    let shown = dir.to_string_lossy();
    let text = String::from_utf8_lossy(&bytes)
        .replace("<SKILL_DIR>", &shown)
        .replace("${CLAUDE_SKILL_DIR}", &shown);
    let mut out = format!(
        "<skill_content name=\"{}\">\n{}\n\nThis skill lies in {shown}; relative paths in it start there.\n",
        attribute(&skill.id),
        text.trim_end(),
    );
    let mut found = Resources {
        files: Vec::new(),
        directories: 0,
    };
    found.collect(dir, dir);
    let truncated = found.files.len() > MAX_RESOURCES;
    found.files.truncate(MAX_RESOURCES);
    if !found.files.is_empty() {
        out.push_str("\n<skill_resources>\n");
        for file in &found.files {
            // Writing into a String cannot fail.
            let _ = writeln!(out, "  <file>{}</file>", attribute(file));
        }
        if truncated {
            out.push_str("  <truncated>true</truncated>\n");
        }
        out.push_str("</skill_resources>\n");
    }
    out.push_str("</skill_content>");
    Ok(out)
}

struct Resources {
    files: Vec<String>,
    directories: usize,
}

impl Resources {
    /// Adds the regular files below `dir`, sorted within each directory.
    fn collect(&mut self, root: &Path, dir: &Path) {
        self.directories += 1;
        if self.directories > MAX_DIRECTORIES {
            return;
        }
        let Ok(entries) = fs::read_dir(dir) else {
            return;
        };
        let mut entries: Vec<(PathBuf, fs::FileType)> = entries
            .flatten()
            .filter_map(|entry| Some((entry.path(), entry.file_type().ok()?)))
            .collect();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (path, kind) in entries {
            if self.files.len() > MAX_RESOURCES {
                return;
            }
            if kind.is_dir() {
                self.collect(root, &path);
            } else if kind.is_file() && !is_skill_file(&path) && !is_named(&path, "ROOT_MEMORY.md")
            {
                let relative = path.strip_prefix(root).unwrap_or(&path);
                self.files.push(relative.to_string_lossy().into_owned());
            }
        }
    }
}

fn is_named(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|own| own == name)
}

/// `text` as it stands in a tag.
pub(super) fn attribute(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skills::Source;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_model_gets_text_place_and_files_of_a_skill() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        fs::create_dir(at.join("scripts")).unwrap();
        fs::write(
            at.join("SKILL.md"),
            "---\nname: s\n---\nrun <SKILL_DIR>/x and ${CLAUDE_SKILL_DIR}/y\n",
        )
        .unwrap();
        for name in ["b.txt", "a<b.txt", "scripts/run.sh", "ROOT_MEMORY.md"] {
            fs::write(at.join(name), "").unwrap();
        }
        symlink("b.txt", at.join("link")).unwrap();
        let mut skill = Skill {
            id: "a\"b".into(),
            name: "s".into(),
            description: String::new(),
            path: at.join("SKILL.md"),
            source: Source::Global,
            for_model: true,
        };
        let shown = at.display();
        assert_eq!(
            wrapped(&skill).unwrap(),
            format!(
                "<skill_content name=\"a&quot;b\">\n---\nname: s\n---\nrun {shown}/x and {shown}/y\n\nThis skill lies in {shown}; relative paths in it start there.\n\n<skill_resources>\n  <file>a&lt;b.txt</file>\n  <file>b.txt</file>\n  <file>scripts/run.sh</file>\n</skill_resources>\n</skill_content>"
            )
        );
        for number in 0..300 {
            fs::write(at.join(format!("scripts/{number}")), "").unwrap();
        }
        let text = wrapped(&skill).unwrap();
        assert_eq!(text.matches("<file>").count(), 200);
        assert!(text.contains("  <truncated>true</truncated>\n</skill_resources>"));
        skill.path = at.join("none/SKILL.md");
        assert!(wrapped(&skill).is_err());
    }
}
