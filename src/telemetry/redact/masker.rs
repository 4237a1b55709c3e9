//! How ranges of a text are masked.

use std::borrow::Cow;
use std::ops::Range;

use super::MASK;

/// Copies a text with some ranges masked; borrows when there were none.
pub(super) struct Masker<'a> {
    text: &'a str,
    out: String,
    copied: usize,
}

impl<'a> Masker<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            out: String::new(),
            copied: 0,
        }
    }

    pub(super) fn mask(&mut self, range: Range<usize>) {
        self.out.push_str(&self.text[self.copied..range.start]);
        self.out.push_str(MASK);
        self.copied = range.end;
    }

    pub(super) fn finish(mut self) -> Cow<'a, str> {
        if self.copied == 0 && self.out.is_empty() {
            return Cow::Borrowed(self.text);
        }
        self.out.push_str(&self.text[self.copied..]);
        Cow::Owned(self.out)
    }
}

/// How many bytes at the beginning of `bytes` belong together.
pub(super) fn run_length(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes
        .iter()
        .position(|b| !belongs(*b))
        .unwrap_or(bytes.len())
}
