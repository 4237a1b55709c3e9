//! What becomes of a child's output: an [`Excerpt`] in memory, the whole in a
//! file when memory does not hold it, and the text that a model gets of it
//! (04 §5.4).
//!
//! Invariant: a file that a notice names holds the whole text, up to the limit
//! of [`super::output_file`]; totals count everything.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::excerpt::{Excerpt, KEPT_CHARS};
use super::output_file::OutputFile;

/// Where the whole text of a truncated result goes (04 §5.4).
#[derive(Clone, Debug)]
pub struct SpillPlace {
    directory: PathBuf,
    tool: String,
}

impl SpillPlace {
    /// The place for results of `tool` (lower case) run in `cwd`.
    pub fn new(letta_home: &Path, cwd: &Path, tool: &str) -> Self {
        Self {
            directory: spill_directory(letta_home, cwd),
            tool: tool.to_owned(),
        }
    }

    fn file(&self) -> OutputFile {
        let name = format!("{}-{}.txt", self.tool, Uuid::new_v4());
        OutputFile::new(self.directory.join(name))
    }
}

/// The directory of whole results for work in `cwd` (04 §5.4).
pub fn spill_directory(letta_home: &Path, cwd: &Path) -> PathBuf {
    letta_home
        .join("projects")
        .join(project_name(cwd))
        .join("agent-tools")
}

/// `/tmp/a b` → `tmp_a_b`.
fn project_name(cwd: &Path) -> String {
    let path = cwd.to_string_lossy();
    let mut name = String::with_capacity(path.len());
    let mut in_space = false;
    for character in path.trim_start_matches('/').chars() {
        let space = character.is_whitespace();
        match character {
            '/' | '\\' | ':' => name.push('_'),
            _ if space && in_space => {}
            _ if space => name.push('_'),
            other => name.push(other),
        }
        in_space = space;
    }
    // A file name holds 255 bytes; deep directories share a cut name.
    name.truncate(name.floor_char_boundary(255));
    name
}

/// One stream of output: both ends in memory, the whole in a file as soon as
/// memory does not hold it.
#[derive(Debug, Default)]
pub struct Capture {
    excerpt: Excerpt,
    place: Option<SpillPlace>,
    spill: Option<OutputFile>,
}

impl Capture {
    /// An empty capture; without a `place` nothing is written to disk.
    pub fn new(place: Option<SpillPlace>) -> Self {
        Self {
            place,
            ..Self::default()
        }
    }

    /// What memory holds.
    pub fn excerpt(&self) -> &Excerpt {
        &self.excerpt
    }

    /// Adds output.
    pub async fn push(&mut self, text: &str) {
        if self.spill.is_none()
            && let (Some(place), Some(whole)) = (&self.place, self.excerpt.whole())
            && whole.len() + text.len() > KEPT_CHARS
        {
            let mut file = place.file();
            if file.append(whole).await.is_ok() {
                self.spill = Some(file);
            }
        }
        if let Some(file) = &mut self.spill
            && file.append(text).await.is_err()
        {
            // Half a file would pass for the whole: the notice then names none.
            self.discard().await;
            self.place = None;
        }
        self.excerpt.push(text);
    }

    /// From now on output beyond what memory keeps is not written anywhere.
    pub async fn stop_spilling(&mut self) {
        self.place = None;
        self.discard().await;
    }

    /// Forgets the file.
    pub async fn discard(&mut self) {
        if let Some(file) = self.spill.take() {
            file.remove().await;
        }
    }

    /// Hands over what came so far and starts anew.
    pub fn take(&mut self) -> Self {
        let place = self.place.clone();
        std::mem::replace(self, Self::new(place))
    }

    /// The file with the whole text, if it could be written.
    async fn keep(&mut self) -> Option<OutputFile> {
        if let Some(mut file) = self.spill.take() {
            file.begin().await.ok()?;
            return Some(file);
        }
        let mut file = self.place.as_ref()?.file();
        file.append(self.excerpt.whole()?).await.ok()?;
        file.begin().await.ok()?;
        Some(file)
    }
}

/// How a result is cut when it is too long.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Characters that fit, at most [`KEPT_CHARS`].
    pub max: usize,
    /// Characters shown when the whole could be written to a file; `None`
    /// shows `max` in any case.
    pub preview: Option<usize>,
    /// Whether the middle is left out rather than the end.
    pub middle: bool,
}

/// A result and whether it was cut.
#[derive(Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text with its notice.
    pub text: String,
    /// Whether something was left out.
    pub truncated: bool,
}

/// Standard output, a line break and standard error as one text, cut by `cut`.
pub async fn render(mut out: Capture, mut err: Capture, cut: Cut) -> Rendered {
    let all = out.excerpt.join("\n", &err.excerpt);
    if let Some(whole) = all.whole()
        && all.total_chars() <= cut.max as u64
    {
        out.discard().await;
        err.discard().await;
        return Rendered {
            text: whole.to_owned(),
            truncated: false,
        };
    }
    let file = join_files(out, err).await;
    Rendered {
        text: shorten(&all, cut, file.as_deref()),
        truncated: true,
    }
}

/// Writes both streams into one file and says where it is.
async fn join_files(mut out: Capture, mut err: Capture) -> Option<PathBuf> {
    if out.excerpt.is_empty() {
        out.discard().await;
        return Some(err.keep().await?.path().to_path_buf());
    }
    let Some(mut file) = out.keep().await else {
        err.discard().await;
        return None;
    };
    if !err.excerpt.is_empty() {
        file.append("\n").await.ok()?;
        let appended = match (&err.spill, err.excerpt.whole()) {
            (Some(spill), _) => spill.copy_to(&mut file).await,
            (None, Some(whole)) => file.append(whole).await,
            (None, None) => Err(io::Error::other("the end of the output was not kept")),
        };
        err.discard().await;
        if appended.is_err() {
            file.remove().await;
            return None;
        }
    }
    Some(file.path().to_path_buf())
}

/// The text of 04 §5.4 for something too long: what is shown, then the notice.
pub fn shorten(text: &Excerpt, cut: Cut, file: Option<&Path>) -> String {
    let preview = file.and(cut.preview);
    let shown = preview.unwrap_or(cut.max).min(cut.max);
    let total = text.total_chars();
    let mut result = if preview.is_none() && cut.middle {
        let half = shown / 2;
        format!(
            "{}\n... [{} characters omitted] ...\n{}",
            text.first(half),
            thousands(total.saturating_sub(shown as u64)),
            text.last(half)
        )
    } else {
        text.first(shown).to_owned()
    };
    result.push_str(&format!(
        "\n\n[Output truncated: showing {} of {} characters.]",
        thousands(shown as u64),
        thousands(total)
    ));
    if let Some(file) = file {
        result.push_str(&format!("\n[Full output written to: {}]", file.display()));
    }
    result
}

/// `30000` → `30,000`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const SUCCESS: Cut = Cut {
        max: 30_000,
        preview: Some(2000),
        middle: true,
    };
    const FAILURE: Cut = Cut {
        max: 10_000,
        preview: None,
        middle: true,
    };

    fn place(home: &tempfile::TempDir) -> SpillPlace {
        SpillPlace::new(home.path(), Path::new("/tmp/a  b"), "bash")
    }

    async fn capture(home: &tempfile::TempDir, text: &str) -> Capture {
        let mut capture = Capture::new(Some(place(home)));
        for chunk in text.as_bytes().chunks(4096) {
            capture.push(&String::from_utf8_lossy(chunk)).await;
        }
        capture
    }

    fn files(home: &tempfile::TempDir) -> Vec<PathBuf> {
        std::fs::read_dir(home.path().join("projects/tmp_a_b/agent-tools"))
            .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
            .unwrap_or_default()
    }

    fn numbers(last: u32) -> String {
        (1..=last).map(|n| format!("{n}\n")).collect()
    }

    #[tokio::test]
    async fn a_long_success_is_a_preview_and_a_private_file_with_everything() {
        let home = tempfile::tempdir().unwrap();
        let text = numbers(20_000);
        let rendered = render(
            capture(&home, &text).await,
            capture(&home, "oops").await,
            SUCCESS,
        )
        .await;
        assert!(rendered.text.starts_with(&text[..2000]));
        let files = files(&home);
        assert_eq!(files.len(), 1);
        assert!(rendered.text[2000..].starts_with(&format!(
            "\n\n[Output truncated: showing 2,000 of 108,899 characters.]\n[Full output written to: {}]",
            files[0].display()
        )));
        assert_eq!(std::fs::read_to_string(&files[0]).unwrap(), text + "\noops");
        let mode = std::fs::metadata(&files[0]).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_long_failure_keeps_both_ends() {
        let home = tempfile::tempdir().unwrap();
        let (out, err) = (numbers(2000), numbers(10_000));
        let rendered = render(
            capture(&home, &out).await,
            capture(&home, &err).await,
            FAILURE,
        )
        .await;
        let all = format!("{out}\n{err}");
        let omitted = thousands(all.len() as u64 - 10_000);
        assert!(rendered.text.starts_with(&format!(
            "{}\n... [{omitted} characters omitted] ...\n{}\n\n[Output truncated: showing 10,000 of",
            &all[..5000],
            &all[all.len() - 5000..]
        )));
        assert_eq!(files(&home).len(), 1);
        assert_eq!(std::fs::read_to_string(&files(&home)[0]).unwrap(), all);
    }

    #[tokio::test]
    async fn a_result_that_fits_leaves_no_file() {
        let home = tempfile::tempdir().unwrap();
        let rendered = render(
            capture(&home, "hi\n").await,
            capture(&home, "err\n").await,
            SUCCESS,
        )
        .await;
        assert_eq!(rendered.text, "hi\n\nerr\n");
        assert!(!rendered.truncated);
        assert!(files(&home).is_empty());
    }

    #[tokio::test]
    async fn without_a_place_the_notice_names_no_file() {
        let mut capture = Capture::new(None);
        capture.push(&"x".repeat(31_000)).await;
        let rendered = render(capture, Capture::new(None), SUCCESS).await;
        assert!(
            rendered
                .text
                .ends_with("\n\n[Output truncated: showing 30,000 of 31,000 characters.]")
        );
    }

    #[test]
    fn numbers_have_thousands_separators() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
