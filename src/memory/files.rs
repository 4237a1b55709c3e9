//! The files of a memory as clients see them (06 §6.5): safe paths, the walk,
//! the links between them.

use std::fs;
use std::path::{Path, PathBuf};

use super::MemoryError;
use crate::frontmatter::Document;
use crate::state::atomic::read_bounded;

/// The largest file whose text is shown, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Files that are listed at most.
const MAX_FILES: usize = 5_000;
const UNREADABLE: &str = "(unable to read file)";

/// A path inside a memory: relative, without `..`, not in `.git`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelativePath(String);

impl RelativePath {
    /// Reads a path that a client or a model gave; `\` counts as `/`.
    ///
    /// # Errors
    /// A text that says what is wrong with it.
    pub fn parse(path: &str) -> Result<Self, &'static str> {
        let path = path.replace('\\', "/");
        if path.trim().is_empty() || path.starts_with('/') || path.contains('\0') {
            return Err("path must be a non-empty relative path");
        }
        let segments: Vec<&str> = path
            .split('/')
            .filter(|segment| !matches!(*segment, "" | "."))
            .collect();
        let in_git = segments
            .first()
            .is_some_and(|first| first.eq_ignore_ascii_case(".git"));
        if segments.is_empty() || segments.contains(&"..") || in_git {
            return Err("path must resolve inside the memory root");
        }
        Ok(Self(segments.join("/")))
    }

    /// The path with `/` between its parts.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where it is below `root`, if no link leads elsewhere. Blocking.
    ///
    /// # Errors
    /// When a directory or the file itself is a link out of the memory or into `.git`.
    pub fn below(&self, root: &Path) -> Result<PathBuf, &'static str> {
        let outside = "path must resolve inside the memory root";
        let path = root.join(&self.0);
        let real_root = fs::canonicalize(root).map_err(|_| outside)?;
        let existing = path
            .ancestors()
            .find(|dir| fs::symlink_metadata(dir).is_ok())
            .ok_or(outside)?;
        // A dangling link cannot be followed, so nobody knows where it leads.
        let real = fs::canonicalize(existing).map_err(|_| outside)?;
        match real.strip_prefix(&real_root) {
            Ok(inside) if !inside.starts_with(".git") => Ok(path),
            _ => Err(outside),
        }
    }
}

/// One file of a memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// With `/`.
    pub path: String,
    /// Its description, if its header has one.
    pub description: Option<String>,
    /// Its text without header; empty for an image.
    pub content: String,
    /// UTF-16 units of `content`; bytes of an image.
    pub size: u64,
    /// `text/markdown` or an image type.
    pub mime_type: &'static str,
    /// Files that it links to, when asked for.
    pub references: Option<Vec<String>>,
}

impl Entry {
    /// Whether it is an image.
    pub fn is_image(&self) -> bool {
        self.mime_type != "text/markdown"
    }
}

/// All files below `root` in the order of 06 §6.5. Blocking.
pub(super) fn list(root: &Path, with_references: bool) -> Result<Vec<Entry>, MemoryError> {
    let mut paths = Vec::new();
    walk(root, "", &mut paths)?;
    let mut entries: Vec<Entry> = paths
        .into_iter()
        .filter_map(|path| Some(read(root, &path, mime_type(&path)?)))
        .collect();
    if with_references {
        let known: Vec<String> = entries
            .iter()
            .filter(|entry| !entry.is_image())
            .map(|entry| entry.path.clone())
            .collect();
        for entry in &mut entries {
            entry.references = Some(references(&entry.path, &entry.content, &known));
        }
    }
    Ok(entries)
}

fn walk(root: &Path, at: &str, paths: &mut Vec<String>) -> Result<(), MemoryError> {
    let dir = root.join(at);
    let entries = fs::read_dir(&dir).map_err(|error| MemoryError::file(&dir, &error))?;
    let mut names: Vec<(bool, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kind = entry.file_type().ok()?;
            let shown = !name.starts_with('.') && (kind.is_dir() || kind.is_file());
            shown.then_some((kind.is_dir(), name))
        })
        .collect();
    names.sort_by_cached_key(|(is_dir, name)| {
        let first = at.is_empty() && *is_dir && name == "system";
        (!first, !is_dir, name.to_lowercase(), name.clone())
    });
    for (is_dir, name) in names {
        let path = if at.is_empty() {
            name
        } else {
            format!("{at}/{name}")
        };
        if paths.len() >= MAX_FILES {
            return Ok(());
        }
        if is_dir {
            walk(root, &path, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

fn mime_type(path: &str) -> Option<&'static str> {
    let (_, end) = path.rsplit_once('.')?;
    match end.to_ascii_lowercase().as_str() {
        "md" => Some("text/markdown"),
        "gif" => Some("image/gif"),
        "jpg" | "jpeg" => Some("image/jpeg"),
        "png" => Some("image/png"),
        "webp" => Some("image/webp"),
        _ => None,
    }
}

fn read(root: &Path, path: &str, mime_type: &'static str) -> Entry {
    let file = root.join(path);
    let mut entry = Entry {
        path: path.to_owned(),
        description: None,
        content: String::new(),
        size: 0,
        mime_type,
        references: None,
    };
    if entry.is_image() {
        entry.size = fs::metadata(&file).map_or(0, |meta| meta.len());
        return entry;
    }
    match read_bounded(&file, MAX_FILE) {
        Ok(bytes) => {
            let document = Document::parse(&String::from_utf8_lossy(&bytes));
            entry.description = document.text("description").map(String::from);
            entry.content = if document.has_header {
                document.body.trim().to_owned()
            } else {
                document.body
            };
        }
        Err(_) => entry.content = UNREADABLE.into(),
    }
    entry.size = entry.content.encode_utf16().count() as u64;
    entry
}

/// The files that `[[…]]` in a text leads to.
fn references(from: &str, text: &str, known: &[String]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for piece in text.split("[[").skip(1) {
        let Some((target, _)) = piece.split_once("]]") else {
            continue;
        };
        if target.contains('\n') {
            continue;
        }
        let resolved = candidates(from, target)
            .into_iter()
            .find(|path| known.contains(path));
        if let Some(path) = resolved
            && path != from
            && !found.contains(&path)
        {
            found.push(path);
        }
    }
    found
}

/// Where a link may lead, best first.
fn candidates(from: &str, target: &str) -> Vec<String> {
    let target = target.replace('\\', "/");
    let target = target.split(['|', '#', '?']).next().unwrap_or("").trim();
    let target = target.trim_start_matches('<').trim_end_matches('>').trim();
    let lower = target.to_lowercase();
    let external = ["http://", "https://", "mailto:"];
    if target.is_empty() || external.iter().any(|scheme| lower.starts_with(scheme)) {
        return Vec::new();
    }
    let here = from.rsplit_once('/').map_or("", |(dir, _)| dir);
    let bases: &[&str] = if target.starts_with('/') {
        &[""]
    } else if target.starts_with("./") || target.starts_with("../") {
        &[here]
    } else {
        &["", here, "system"]
    };
    bases
        .iter()
        .filter_map(|base| {
            let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
            for part in target.split('/') {
                match part {
                    "" | "." => {}
                    ".." => drop(parts.pop()?),
                    part => parts.push(part),
                }
            }
            let path = parts.join("/");
            Some(if lower.ends_with(".md") {
                path
            } else {
                format!("{path}.md")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_path_stays_inside_the_memory_and_out_of_git() {
        for (path, expected) in [
            ("system/a.md", Ok("system/a.md")),
            ("./a//b/./c", Ok("a/b/c")),
            ("a\\b.md", Ok("a/b.md")),
            (".gitignore", Ok(".gitignore")),
            ("a/.git/x", Ok("a/.git/x")),
            ("", Err("path must be a non-empty relative path")),
            ("  ", Err("path must be a non-empty relative path")),
            ("/etc/passwd", Err("path must be a non-empty relative path")),
            ("a\0b", Err("path must be a non-empty relative path")),
            (".", Err("path must resolve inside the memory root")),
            ("../x", Err("path must resolve inside the memory root")),
            ("a/../../x", Err("path must resolve inside the memory root")),
            (
                ".git/hooks/x",
                Err("path must resolve inside the memory root"),
            ),
            (
                ".GIT/config",
                Err("path must resolve inside the memory root"),
            ),
            (
                "./.git/config",
                Err("path must resolve inside the memory root"),
            ),
        ] {
            let parsed = RelativePath::parse(path);
            assert_eq!(
                parsed.as_ref().map(RelativePath::as_str),
                expected.as_ref().map(|p| *p),
                "{path:?}"
            );
        }
    }

    #[test]
    fn links_do_not_lead_out_of_the_memory() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("memory");
        fs::create_dir_all(root.join(".git/hooks")).unwrap();
        fs::create_dir_all(root.join("real")).unwrap();
        symlink("/etc", root.join("etc")).unwrap();
        symlink(".git/hooks", root.join("hooks")).unwrap();
        symlink("real", root.join("alias")).unwrap();
        symlink("/nowhere/at/all", root.join("dangling")).unwrap();
        for (path, inside) in [
            ("new/file.md", true),
            ("alias/x.md", true),
            ("etc/passwd", false),
            ("etc/new/x", false),
            ("hooks/pre-commit", false),
            ("dangling", false),
            ("dangling/x", false),
        ] {
            let path = RelativePath::parse(path).unwrap();
            assert_eq!(path.below(&root).is_ok(), inside, "{path:?}");
        }
    }

    #[test]
    fn files_are_listed_system_first_and_directories_before_files() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &[u8]| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("b.md", b"\xef\xbb\xbfplain\r\ntext\r\n");
        put("A.md", b"---\ndescription: about a\n---\n\n  h\xc3\xa9llo \xf0\x9f\x99\x82\r\nsee [[system/persona]], [[b.md|B]], [[./b]], [[A]], [[gone]], [[https://x.y/b.md]]\n\n");
        put("alpha/c.md", b"[[../b#part]] [[persona]]");
        put(
            "system/persona.md",
            b"---\ndescription: >\n  who\n  I am\n---\nme",
        );
        put("pic.PNG", b"1234567");
        put("notes.txt", b"no");
        put(".hidden/x.md", b"no");
        let entries = list(dir.path(), true).unwrap();
        let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(
            paths,
            ["system/persona.md", "alpha/c.md", "A.md", "b.md", "pic.PNG"]
        );
        assert_eq!(entries[0].description.as_deref(), Some("who I am"));
        let a = &entries[2];
        assert!(a.content.starts_with("héllo 🙂\nsee"), "{}", a.content);
        assert!(a.content.ends_with("b.md]]"));
        assert_eq!(a.size, a.content.encode_utf16().count() as u64);
        assert_eq!(
            a.references.as_deref().unwrap(),
            ["system/persona.md", "b.md"]
        );
        assert_eq!(
            entries[1].references.as_deref().unwrap(),
            ["b.md", "system/persona.md"]
        );
        assert_eq!(entries[3].content, "plain\ntext\n");
        assert_eq!((entries[4].size, entries[4].mime_type), (7, "image/png"));
        assert_eq!(entries[4].references.as_deref(), Some(&[][..]));
        assert!(list(dir.path(), false).unwrap()[0].references.is_none());
    }
}
