//! How the files of a memory are arranged (06 §6.1): which of them are always
//! in the prompt, and how large that makes it.

use std::path::Path;

/// The arrangement of a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `system/**.md` is in the prompt.
    V1,
    /// There is a `MEMORY.md`; the `*.md` beside it are in the prompt.
    V2,
}

impl Format {
    /// The arrangement of the files in `dir`.
    pub fn of(dir: &Path) -> Self {
        if dir.join("MEMORY.md").is_file() {
            Self::V2
        } else {
            Self::V1
        }
    }

    /// The name that prompts and clients use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "memfs-v1",
            Self::V2 => "memfs-v2",
        }
    }

    /// Whether the file at `path`, relative to the memory, is in the prompt.
    pub fn in_prompt(self, path: &str) -> bool {
        let is_markdown = path.ends_with(".md");
        match self {
            Self::V1 => is_markdown && path.starts_with("system/"),
            Self::V2 => is_markdown && !path.contains('/'),
        }
    }
}

/// About how many tokens of prompt the files of the memory in `dir` take: a
/// token is four bytes, rounded up per file (07 §4.7). Blocking.
pub(super) fn prompt_tokens(dir: &Path) -> u64 {
    let format = Format::of(dir);
    let mut tokens = 0;
    let mut left = vec![match format {
        Format::V1 => dir.join("system"),
        Format::V2 => dir.to_owned(),
    }];
    while let Some(at) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&at) else {
            continue;
        };
        for entry in entries.flatten() {
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else {
                continue;
            };
            if kind.is_dir() && format == Format::V1 {
                left.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|end| end == "md") {
                let bytes = entry.metadata().map_or(0, |meta| meta.len());
                tokens += bytes.div_ceil(4);
            }
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_prompt_is_what_the_arrangement_says() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, bytes: usize| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x".repeat(bytes)).unwrap();
        };
        put("system/a.md", 5);
        put("system/deep/b.md", 4);
        put("system/c.png", 100);
        put("notes.md", 40);
        assert_eq!(Format::of(dir.path()), Format::V1);
        assert_eq!(prompt_tokens(dir.path()), 2 + 1);
        put("MEMORY.md", 1);
        assert_eq!(Format::of(dir.path()), Format::V2);
        assert_eq!(prompt_tokens(dir.path()), 10 + 1);
    }
}
