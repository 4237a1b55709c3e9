//! What listings leave out (06 §3.1).
//!
//! Invariant: the root that was asked for is never left out, only what is in it.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::state::atomic::read_bounded;
use crate::tools::paths::clean;

/// Never shown.
const NOISE: [&str; 3] = [".DS_Store", ".git", "Thumbs.db"];

/// Directories that are not entered: what tools make and fetch.
const MADE: [&str; 16] = [
    ".cache",
    ".letta",
    ".next",
    ".nuxt",
    ".tox",
    ".venv",
    "bower_components",
    "build",
    "coverage",
    "dist",
    "node_modules",
    "out",
    "target",
    "vendor",
    "venv",
    "__pycache__",
];

/// Directories of a home that are a person's own, in lower case.
const PRIVATE: [&str; 9] = [
    "applications",
    "desktop",
    "documents",
    "downloads",
    "library",
    "movies",
    "music",
    "pictures",
    "public",
];

/// A `.lettaignore` of more bytes is not read.
const RULES_BYTES: u64 = 256 * 1024;
/// Further patterns do not count.
const RULES: usize = 1000;

/// The rules for one root.
#[derive(Debug)]
pub(super) struct Ignored {
    root: PathBuf,
    home: PathBuf,
    /// The private directory of the home in which the root itself lies.
    allowed: Option<String>,
    names: GlobSet,
    paths: GlobSet,
}

impl Ignored {
    /// Reads the rules that lie in `root`.
    pub(super) fn of(root: &Path, home: &Path) -> Self {
        let root = clean(&super::process_cwd().join(root));
        let text = read_bounded(&root.join(".letta/.lettaignore"), RULES_BYTES).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        let lines = text.lines().map(str::trim);
        let rules = lines.filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
        for rule in rules.take(RULES) {
            let rule = rule.strip_suffix('/').unwrap_or(rule);
            let whole = rule.contains('/');
            let glob = GlobBuilder::new(rule)
                .case_insensitive(!whole)
                .literal_separator(true)
                .build();
            // A pattern that does not parse hides nothing.
            if let Ok(glob) = glob {
                if whole { &mut paths } else { &mut names }.add(glob);
            }
        }
        Self {
            allowed: private(&root, home),
            names: names.build().unwrap_or_default(),
            paths: paths.build().unwrap_or_default(),
            home: home.to_path_buf(),
            root,
        }
    }

    /// Whether an entry is left out; `path` is relative to the root.
    pub(super) fn hides(&self, path: &str, name: &str) -> bool {
        NOISE.contains(&name)
            || path == ".letta/worktrees"
            || path.starts_with(".letta/worktrees/")
            || self.names.is_match(name)
            || self.paths.is_match(path)
            || match private(&self.root.join(path), &self.home) {
                Some(segment) => self.allowed.as_ref() != Some(&segment),
                None => false,
            }
    }

    /// Whether a directory is left out where trees are walked.
    pub(super) fn hides_in_tree(&self, path: &str, name: &str) -> bool {
        MADE.contains(&name) || self.hides(path, name)
    }
}

/// The private directory of `home` in which `path` lies.
fn private(path: &Path, home: &Path) -> Option<String> {
    let first = path.strip_prefix(home).ok()?.components().next()?;
    let first = first.as_os_str().to_str()?.to_lowercase();
    PRIVATE.contains(&first.as_str()).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_directory_is_shown_only_to_who_asks_for_it() {
        let home = Path::new("/home/ada");
        let ignored = Ignored::of(home, home);
        assert!(ignored.hides("Pictures", "Pictures"));
        assert!(ignored.hides("pictures/2024", "2024"));
        assert!(!ignored.hides("src/Pictures", "Pictures"));
        let ignored = Ignored::of(Path::new("/home/ada/Pictures/../Pictures"), home);
        assert!(!ignored.hides("2024", "2024"));
        assert!(!Ignored::of(Path::new("/srv"), home).hides("Pictures", "Pictures"));
    }

    #[test]
    fn the_users_own_rules_count() {
        let dir = tempfile::tempdir().unwrap();
        let rules = dir.path().join(".letta/.lettaignore");
        std::fs::create_dir(dir.path().join(".letta")).unwrap();
        let text = "# note\n\n*.LOG\ndata/\n!x.log\ndocs/**/*.md\n{a,b}.txt\n[\n";
        std::fs::write(rules, text).unwrap();
        let ignored = Ignored::of(dir.path(), Path::new("/nobody"));
        for (path, name, hidden) in [
            ("x.log", "x.log", true),
            ("deep/.x.log", ".x.log", true),
            ("data", "data", true),
            ("docs/a.md", "a.md", true),
            ("docs/b/a.md", "a.md", true),
            ("Docs/a.md", "a.md", false),
            ("b.txt", "b.txt", true),
            ("note", "note", false),
            (".git", ".git", true),
            (".letta/worktrees/x", "x", true),
            ("worktrees", "worktrees", false),
            ("node_modules", "node_modules", false),
        ] {
            assert_eq!(ignored.hides(path, name), hidden, "{path}");
        }
        assert!(ignored.hides_in_tree("node_modules", "node_modules"));
    }
}
