//! Which files a search looks at, and the parallel walk over them.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{io, thread};

use ignore::overrides::{Override, OverrideBuilder};
use ignore::types::{Types, TypesBuilder};
use ignore::{DirEntry, WalkBuilder, WalkState};

use super::{Budget, SearchError, Stop, Troubles};

/// More threads bring little and make a small machine unresponsive.
const MAX_THREADS: usize = 4;

/// So many entries of a walk are looked at until its budget is asked again.
const ENTRIES_UNASKED: u32 = 16;

/// Looks at a file.
pub(super) type Look<'a> = Box<dyn FnMut(&Path, bool) -> Result<(), Trouble> + Send + 'a>;

/// A glob that files must match, or with a leading `!` must not.
#[derive(Clone, Debug)]
pub struct GlobRule {
    /// Gitignore syntax: without a slash it matches at any depth.
    pub pattern: String,
    /// Directories at which a pattern with a slash may start.
    pub anchors: Vec<PathBuf>,
}

/// A file or a directory to search, with ripgrep's rules of what to skip:
/// ignore files count, hidden files and links are skipped.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Where to search, absolute.
    pub root: PathBuf,
    /// Look at hidden files too.
    pub hidden: bool,
    /// Follow symlinks; loops are seen.
    pub follow: bool,
    /// Which files; matching one wins over ignore rules.
    pub glob: Option<GlobRule>,
    /// Only files of this type, by ripgrep's names.
    pub file_type: Option<String>,
    /// Files and directories to leave out, whatever name leads to them.
    pub left_out: Vec<PathBuf>,
}

/// How a walk went.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) troubles: Troubles,
    pub(super) stopped: Option<Stop>,
}

impl Tree {
    /// Everything that ripgrep would search below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            hidden: false,
            follow: false,
            glob: None,
            file_type: None,
            left_out: Vec::new(),
        }
    }

    /// Whether the root is a single file.
    pub fn is_file(&self) -> bool {
        self.root.is_file()
    }

    /// Calls a look for every regular file, from several threads, each with a look
    /// of its own, until one says stop; with `true` for a root that is a file itself.
    pub(super) fn visit<'a>(
        &self,
        budget: &Budget,
        looks: &'a (dyn Fn() -> Look<'a> + Sync),
    ) -> Result<Walked, SearchError> {
        let metadata = fs::metadata(&self.root).map_err(self.root_error())?;
        let left_out = LeftOut::new(&self.left_out);
        let walked = Mutex::new(Walked::default());
        let note = |outcome: Result<(), Trouble>| {
            let Err(trouble) = outcome else {
                return WalkState::Continue;
            };
            let mut walked = walked.lock().unwrap_or_else(PoisonError::into_inner);
            match trouble {
                Trouble::Stop(stop) => {
                    walked.stopped.get_or_insert(stop);
                    WalkState::Quit
                }
                Trouble::Path(path, why) => {
                    walked.troubles.add(path.as_deref(), &why);
                    WalkState::Continue
                }
            }
        };
        if metadata.is_file() {
            if !left_out.contains(&metadata) {
                let looked = budget.check().map_err(Trouble::Stop);
                note(looked.and_then(|()| looks()(&self.root, true)));
            }
            return Ok(walked.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
        if !metadata.is_dir() {
            return Err(SearchError::Special(self.root.clone()));
        }
        // An unreadable root is an error of the search, not a skipped directory.
        fs::read_dir(&self.root).map_err(self.root_error())?;

        let (left_out, note) = (&left_out, &note);
        self.builder()?.build_parallel().run(|| {
            let (mut look, mut entries) = (looks(), 0_u32);
            Box::new(move |entry| {
                // To ask takes a lock that all threads share.
                if entries.is_multiple_of(ENTRIES_UNASKED)
                    && let Err(stop) = budget.check()
                {
                    return note(Err(Trouble::Stop(stop)));
                }
                entries = entries.wrapping_add(1);
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => return note(walk_trouble(error)),
                };
                if left_out.has(&entry) {
                    return WalkState::Skip;
                }
                if !entry.file_type().is_some_and(|kind| kind.is_file()) {
                    return WalkState::Continue;
                }
                note(look(entry.path(), false))
            })
        });
        Ok(walked.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn root_error(&self) -> impl Fn(io::Error) -> SearchError + '_ {
        |source| SearchError::Root {
            path: self.root.clone(),
            source,
        }
    }

    fn builder(&self) -> Result<WalkBuilder, SearchError> {
        let mut builder = WalkBuilder::new(&self.root);
        builder
            .hidden(!self.hidden)
            .follow_links(self.follow)
            .current_dir(&self.root)
            .threads(thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS)));
        // ripgrep's own ignore file, which the library leaves to its callers.
        builder.add_custom_ignore_filename(".rgignore");
        if let Some(rule) = &self.glob {
            builder.overrides(rule.compile()?);
        }
        if let Some(name) = &self.file_type {
            builder.types(file_type(name)?);
        }
        Ok(builder)
    }
}

/// What one entry of a walk came to, if not to a look at a file.
pub(super) enum Trouble {
    /// The walk ends.
    Stop(Stop),
    /// This path could not be looked at.
    Path(Option<PathBuf>, String),
}

fn walk_trouble(error: ignore::Error) -> Result<(), Trouble> {
    // Rules that do not parse, broken links, loops of links and files that
    // vanished are no trouble: nothing that could be searched is missing.
    let trouble = error.io_error().is_some_and(|error| {
        error.kind() != io::ErrorKind::NotFound
            && error.raw_os_error() != Some(rustix::io::Errno::LOOP.raw_os_error())
    });
    if !trouble {
        return Ok(());
    }
    Err(Trouble::Path(None, error.to_string()))
}

impl GlobRule {
    /// A rule whose patterns start at any of `anchors`.
    pub fn new(pattern: &str, anchors: &[&Path]) -> Self {
        Self {
            pattern: pattern.to_owned(),
            anchors: anchors.iter().map(|anchor| anchor.to_path_buf()).collect(),
        }
    }

    fn compile(&self) -> Result<Override, SearchError> {
        let glob_error = |error: ignore::Error| SearchError::Glob(error.to_string());
        let mut builder = OverrideBuilder::new("/");
        for pattern in self.absolute() {
            builder.add(&pattern).map_err(glob_error)?;
        }
        builder.build().map_err(glob_error)
    }

    /// The pattern as patterns that start at the root of the file system.
    fn absolute(&self) -> Vec<String> {
        let (not, pattern) = match self.pattern.strip_prefix('!') {
            Some(pattern) => ("!", pattern),
            None => ("", self.pattern.as_str()),
        };
        let inner = pattern.strip_suffix('/').unwrap_or(pattern);
        if !inner.contains('/') || inner.starts_with("**/") {
            // A leading # would make it a comment.
            let escape = if pattern.starts_with('#') { "\\" } else { "" };
            return vec![format!("{not}{escape}{pattern}")];
        }
        let relative = pattern.trim_start_matches("./").trim_start_matches('/');
        let mut out: Vec<String> = self
            .anchors
            .iter()
            .map(|anchor| {
                let anchor = escape(&anchor.to_string_lossy());
                format!("{not}{}/{relative}", anchor.trim_end_matches('/'))
            })
            .collect();
        if pattern.starts_with('/') {
            // A model may have meant an absolute path.
            out.push(format!("{not}{pattern}"));
        }
        out
    }
}

/// Takes the meaning from every character that has one in a glob.
fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '{' | '}' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

fn file_type(name: &str) -> Result<Types, SearchError> {
    TypesBuilder::new()
        .add_defaults()
        .select(name)
        .build()
        .map_err(|_| SearchError::Type(name.to_owned()))
}

/// Files and directories known by device and inode, so that no link leads
/// around the rule.
#[derive(Debug)]
pub struct LeftOut(Vec<(u64, u64)>);

impl LeftOut {
    /// Those of `paths` that are there.
    pub fn new(paths: &[PathBuf]) -> Self {
        Self(
            paths
                .iter()
                .filter_map(|path| fs::metadata(path).ok())
                .map(|metadata| (metadata.dev(), metadata.ino()))
                .collect(),
        )
    }

    fn contains(&self, metadata: &Metadata) -> bool {
        self.0.contains(&(metadata.dev(), metadata.ino()))
    }

    fn has(&self, entry: &DirEntry) -> bool {
        let may_be = match entry.ino() {
            Some(found) => self.0.iter().any(|(_, inode)| *inode == found),
            None => !self.0.is_empty(),
        };
        may_be && self.leads_to(entry.path())
    }

    /// Whether `path` is one of them, or a link to one.
    pub fn leads_to(&self, path: &Path) -> bool {
        !self.0.is_empty() && fs::metadata(path).is_ok_and(|found| self.contains(&found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_start_at_their_anchors_unless_they_match_at_any_depth() {
        let rule = |pattern| GlobRule::new(pattern, &[Path::new("/a[1]"), Path::new("/")]);
        for (pattern, expected) in [
            ("*.rs", vec!["*.rs"]),
            ("!*.rs", vec!["!*.rs"]),
            ("src/", vec!["src/"]),
            ("**/x/*.rs", vec!["**/x/*.rs"]),
            ("#a#", vec!["\\#a#"]),
            ("src/*.rs", vec!["/a\\[1\\]/src/*.rs", "/src/*.rs"]),
            ("./src/*", vec!["/a\\[1\\]/src/*", "/src/*"]),
            ("!src/x", vec!["!/a\\[1\\]/src/x", "!/src/x"]),
            ("/src/x", vec!["/a\\[1\\]/src/x", "/src/x", "/src/x"]),
        ] {
            assert_eq!(rule(pattern).absolute(), expected, "{pattern}");
        }
        assert!(rule("a{b").compile().is_err());
        assert!(file_type("rust").is_ok() && file_type("nonsense").is_err());
    }
}
