//! Long output: cut with a notice, whole in a file (04 §5.4).
//!
//! Invariants: what is shown stays within its limit plus the notice; counts in
//! notices are characters of the whole text; an overflow file is private
//! (0600), holds at most [`FILE_MAX_BYTES`] and is gone [`FILE_MAX_AGE`] later.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::text::{head, thousands};
use super::tool::ToolContext;
use crate::process::Processes;
use crate::process::capture::{Cut, shorten, spill_directory};
use crate::process::excerpt::Excerpt;

/// An overflow file holds at most so many bytes, then a note.
pub const FILE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Overflow files older than this are removed at start.
pub const FILE_MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

const DROPPED: &str = "\n[The rest was dropped: an overflow file holds at most 64 MiB.]\n";

/// How the output of one call is cut, and where the whole of it goes.
#[derive(Clone, Debug)]
pub struct Overflow {
    /// The conversation's working directory.
    pub cwd: PathBuf,
    directory: PathBuf,
    tool: &'static str,
    /// Write the whole text to a file; `LETTA_TOOL_OVERFLOW_TO_FILE=false` stops it.
    to_file: bool,
    /// Keep both ends instead of the start; `LETTA_TOOL_MIDDLE_TRUNCATE=false` stops it.
    middle: bool,
}

/// A text that may have been cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What to show, with its notice if anything is missing.
    pub text: String,
    /// Whether anything is missing.
    pub truncated: bool,
}

impl Overflow {
    /// For a call of `tool` in the conversation of `context`.
    pub fn of(context: &ToolContext, tool: &'static str) -> Self {
        let cwd = context.cwd.get();
        Self::at(&context.processes, &context.letta_home, cwd, tool)
    }

    /// For output of `tool` in a conversation that works in `cwd`.
    pub fn at(processes: &Processes, letta_home: &Path, cwd: PathBuf, tool: &'static str) -> Self {
        Self {
            directory: spill_directory(letta_home, &cwd),
            cwd,
            tool,
            to_file: processes.spills(),
            middle: processes.cut(0, None).middle,
        }
    }

    /// Cuts `text` to `max` characters, both ends or the start; the whole goes
    /// to a file.
    pub fn cut(&self, text: String, max: usize) -> Shown {
        self.shorten(text, max, |text| self.write_file(text))
    }

    /// The same without a file.
    pub fn cut_only(&self, text: String, max: usize) -> Shown {
        self.shorten(text, max, |_| None)
    }

    fn shorten(
        &self,
        text: String,
        max: usize,
        write: impl FnOnce(&str) -> Option<PathBuf>,
    ) -> Shown {
        if !head(&text, max).1 {
            return Shown {
                text,
                truncated: false,
            };
        }
        let file = write(&text);
        let mut excerpt = Excerpt::default();
        excerpt.push(&text);
        let cut = Cut {
            max,
            preview: None,
            middle: self.middle,
        };
        Shown {
            text: shorten(&excerpt, cut, file.as_deref()),
            truncated: true,
        }
    }

    /// Cuts a list to `max` lines, the first and the last half, with a notice
    /// that counts `noun`s.
    pub fn cut_lines(&self, lines: &[String], max: usize, noun: &str) -> String {
        if lines.len() <= max {
            return lines.join("\n");
        }
        let file = self.write_file(&lines.join("\n"));
        let (first, last) = if self.middle {
            (max / 2, max - max / 2)
        } else {
            (max, 0)
        };
        let mut out = lines[..first].join("\n");
        if last > 0 {
            out.push('\n');
            out.push_str(&lines[lines.len() - last..].join("\n"));
        }
        out.push_str(&format!(
            "\n\n[Output truncated: showing {} of {} {noun}.]",
            thousands(max),
            thousands(lines.len())
        ));
        if self.middle {
            out.push_str(&format!(
                "\n[{} {noun} omitted from middle.]",
                thousands(lines.len() - max)
            ));
        }
        if let Some(file) = file {
            out.push_str(&format!("\n[Full output written to: {}]", file.display()));
        }
        out
    }

    /// Writes the whole text to a new overflow file. `None` when that is
    /// switched off or fails: output is then only cut.
    pub fn write_file(&self, text: &str) -> Option<PathBuf> {
        if !self.to_file {
            return None;
        }
        match self.write_new(text) {
            Ok(path) => Some(path),
            Err(error) => {
                tracing::warn!(%error, tool = self.tool, "could not write an overflow file");
                None
            }
        }
    }

    fn write_new(&self, text: &str) -> io::Result<PathBuf> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        let path = self.directory.join(format!(
            "{}-{}.txt",
            self.tool.to_lowercase(),
            uuid::Uuid::new_v4()
        ));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let kept = text.floor_char_boundary(FILE_MAX_BYTES);
        let written = file.write_all(&text.as_bytes()[..kept]).and_then(|()| {
            if kept < text.len() {
                file.write_all(DROPPED.as_bytes())
            } else {
                Ok(())
            }
        });
        if let Err(error) = written {
            // Half a file would pass for the whole output.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(path)
    }
}

/// Removes overflow files last written more than `max_age` before `now`.
/// Returns how many; what cannot be read or removed is left.
pub fn clean_up(letta_home: &Path, now: SystemTime, max_age: Duration) -> usize {
    let mut removed = 0;
    for project in entries(&letta_home.join("projects")) {
        for file in entries(&project.join("agent-tools")) {
            let Ok(metadata) = fs::symlink_metadata(&file) else {
                continue;
            };
            let is_ours = metadata.is_file() && file.extension().is_some_and(|ext| ext == "txt");
            let age = metadata
                .modified()
                .ok()
                .and_then(|modified| now.duration_since(modified).ok());
            if is_ours && age.is_some_and(|age| age > max_age) && fs::remove_file(&file).is_ok() {
                removed += 1;
            }
        }
    }
    removed
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::text::count;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn overflow(home: &Path) -> Overflow {
        let cwd = PathBuf::from("/tmp/a  b:c");
        Overflow {
            directory: spill_directory(home, &cwd),
            cwd,
            tool: "Bash",
            to_file: true,
            middle: true,
        }
    }

    #[test]
    fn the_middle_goes_and_the_whole_is_in_a_private_file() {
        let home = tempfile::tempdir().unwrap();
        let text = "a".repeat(1500) + &"z".repeat(1500);
        let cut = overflow(home.path()).cut(text.clone(), 1000);
        let (shown, file) = cut.text.rsplit_once("written to: ").unwrap();
        assert_eq!(
            shown,
            format!(
                "{}\n... [2,000 characters omitted] ...\n{}\n\n[Output truncated: showing 1,000 of 3,000 characters.]\n[Full output ",
                "a".repeat(500),
                "z".repeat(500),
            )
        );
        let file = Path::new(file.trim_end_matches(']'));
        assert_eq!(fs::read_to_string(file).unwrap(), text);
        assert_eq!(
            file.parent().unwrap(),
            home.path().join("projects/tmp_a_b_c/agent-tools")
        );
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.starts_with("bash-") && name.ends_with(".txt") && name.len() == 45);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(file), 0o600);
        assert_eq!(mode(file.parent().unwrap()), 0o700);
    }

    #[test]
    fn files_and_the_end_can_be_switched_off() {
        let home = tempfile::tempdir().unwrap();
        let off = Overflow {
            to_file: false,
            middle: false,
            ..overflow(home.path())
        };
        assert_eq!(
            off.cut("x".repeat(40_000), 30_000).text,
            "x".repeat(30_000) + "\n\n[Output truncated: showing 30,000 of 40,000 characters.]"
        );
        assert_eq!(off.write_file("x"), None);
        assert!(!home.path().join("projects").exists());
    }

    #[test]
    fn a_list_keeps_both_ends() {
        let home = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (0..7).map(|n| n.to_string()).collect();
        let text = overflow(home.path()).cut_lines(&lines, 4, "files");
        assert!(
            text.starts_with("0\n1\n5\n6\n\n[Output truncated: showing 4 of 7 files.]\n[3 files omitted from middle.]\n[Full output written to: "),
            "{text}"
        );
        assert_eq!(
            overflow(home.path()).cut_lines(&lines, 7, "files"),
            "0\n1\n2\n3\n4\n5\n6"
        );
    }

    #[test]
    fn an_unwritable_home_still_cuts() {
        let cut = overflow(Path::new("/proc/nowhere")).cut("abcdef".to_owned(), 4);
        assert_eq!(
            cut.text,
            "ab\n... [2 characters omitted] ...\nef\n\n[Output truncated: showing 4 of 6 characters.]"
        );
    }

    #[test]
    fn overflow_files_are_bounded() {
        let home = tempfile::tempdir().unwrap();
        let text = "é".repeat(FILE_MAX_BYTES / 2 + 10);
        let path = overflow(home.path()).write_file(&text).unwrap();
        let written = fs::read_to_string(path).unwrap();
        assert_eq!(written.len(), FILE_MAX_BYTES + DROPPED.len());
        assert!(written.ends_with(DROPPED));
    }

    #[test]
    fn only_old_overflow_files_go() {
        let home = tempfile::tempdir().unwrap();
        let old = overflow(home.path()).write_file("old").unwrap();
        let other = old.with_extension("log");
        fs::write(&other, "not ours").unwrap();
        let written = fs::metadata(&old).unwrap().modified().unwrap();
        assert_eq!(
            clean_up(home.path(), written + FILE_MAX_AGE, FILE_MAX_AGE),
            0
        );
        let later = written + FILE_MAX_AGE + Duration::from_secs(1);
        assert_eq!(clean_up(home.path(), later, FILE_MAX_AGE), 1);
        assert!(!old.exists() && other.exists());
        assert_eq!(clean_up(Path::new("/nonexistent"), later, FILE_MAX_AGE), 0);
    }

    proptest! {
        #[test]
        fn counts_add_up(text in "\\PC{0,300}", max in 0_usize..200, middle: bool) {
            let cut = Overflow { middle, ..overflow(Path::new("/nonexistent")) }.cut_only(text.clone(), max);
            let total = count(&text);
            prop_assert_eq!(cut.truncated, total > max);
            if total <= max {
                prop_assert_eq!(cut.text, text);
            } else {
                let notice = format!("\n\n[Output truncated: showing {} of {} characters.]", thousands(max), thousands(total));
                let body = cut.text.strip_suffix(&notice).unwrap();
                if middle {
                    let gap = format!("\n... [{} characters omitted] ...\n", thousands(total - max));
                    let half = max / 2;
                    prop_assert_eq!(body, format!("{}{gap}{}", head(&text, half).0, text.chars().skip(total - half).collect::<String>()));
                } else {
                    prop_assert_eq!(body, head(&text, max).0);
                }
            }
        }
    }
}
