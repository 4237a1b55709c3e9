//! What a client sees of a call while it runs: the end of each stream, told
//! anew with every update (04 §4.4). When to tell is the conversation's matter.

use super::tool::Progress;

/// Characters kept of each stream.
const KEPT_CHARS: usize = 30_000;

/// Grown this far past it, the text is cut back.
const SLACK_CHARS: usize = 8_000;

/// Collects the live output of one call.
#[derive(Debug, Default)]
pub struct LiveOutput {
    stdout: Tail,
    stderr: Tail,
}

/// One update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveView {
    /// Lines of standard output, then of standard error.
    pub tool_return: String,
    /// Lines of standard output that are not empty.
    pub stdout: Vec<String>,
    /// The same of standard error.
    pub stderr: Vec<String>,
}

impl LiveOutput {
    /// Adds a piece; `false` when it is no output.
    pub fn push(&mut self, progress: &Progress) -> bool {
        match progress {
            Progress::Stdout(text) => self.stdout.push(text),
            Progress::Stderr(text) => self.stderr.push(text),
            Progress::FileWritten { .. } | Progress::MemoryChanged(_) => return false,
        }
        true
    }

    /// Everything retained.
    pub fn view(&self) -> LiveView {
        let (stdout, stderr) = (self.stdout.lines(), self.stderr.lines());
        let tool_return = [stdout.as_slice(), stderr.as_slice()].concat().join("\n");
        LiveView {
            tool_return,
            stdout,
            stderr,
        }
    }
}

#[derive(Debug, Default)]
struct Tail {
    text: String,
    chars: usize,
}

impl Tail {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.chars += text.chars().count();
        if self.chars > KEPT_CHARS + SLACK_CHARS {
            self.text.drain(..self.cut());
            self.chars = KEPT_CHARS;
        }
    }

    /// Where the last [`KEPT_CHARS`] characters begin.
    fn cut(&self) -> usize {
        let extra = self.chars.saturating_sub(KEPT_CHARS);
        self.text
            .char_indices()
            .nth(extra)
            .map_or(self.text.len(), |(at, _)| at)
    }

    fn lines(&self) -> Vec<String> {
        if self.chars == 0 {
            return Vec::new();
        }
        self.text[self.cut()..]
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_folded_and_standard_error_comes_last() {
        let mut live = LiveOutput::default();
        assert!(live.push(&Progress::Stderr("e\n".into())));
        live.push(&Progress::Stdout("a\r".into()));
        live.push(&Progress::Stdout("\n\nb".into()));
        let view = live.view();
        assert_eq!(view.stdout, ["a", "b"]);
        assert_eq!(view.stderr, ["e"]);
        assert_eq!(view.tool_return, "a\nb\ne");
    }

    #[test]
    fn only_the_end_of_a_long_stream_is_kept() {
        let mut live = LiveOutput::default();
        for _ in 0..100 {
            live.push(&Progress::Stdout("é".repeat(1000)));
        }
        live.push(&Progress::Stdout("end".into()));
        let view = live.view();
        assert_eq!(view.tool_return.chars().count(), KEPT_CHARS);
        assert!(view.tool_return.ends_with("éend"));
        assert!(live.stdout.text.len() < 2 * (KEPT_CHARS + SLACK_CHARS) + 2000);
    }

    #[test]
    fn a_written_file_is_no_output() {
        let mut live = LiveOutput::default();
        let written = Progress::FileWritten {
            path: "/x".into(),
            content: String::new(),
        };
        assert!(!live.push(&written));
        assert_eq!(live.view().tool_return, "");
    }
}
