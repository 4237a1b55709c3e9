//! How the published program reads a command line: its split into segments and
//! its words (05 §7.2, §7.4, §8).
//!
//! Rules, suggestions and saved settings files depend on this reading, quirks
//! included. It is not how a shell reads: [`super::lexer`] is.

use std::borrow::Cow;

/// Splits a command into trimmed, non-empty segments with harmless redirects
/// removed. `None` when the text holds a substitution, a redirect to a file or
/// a dangling `&&`/`||`.
pub(super) fn split(text: &str) -> Option<Vec<Cow<'_, str>>> {
    Splitter::new(text, false).run()
}

/// As [`split`], but `$(…)` is carried along inside its segment.
pub(in crate::permissions) fn split_tolerant(text: &str) -> Option<Vec<Cow<'_, str>>> {
    Splitter::new(text, true).run()
}

/// As [`split`], but redirects to a word that passes `target` go too, and only
/// those.
pub(super) fn split_redirected<'a>(
    text: &'a str,
    target: &dyn Fn(&str) -> bool,
) -> Option<Vec<Cow<'a, str>>> {
    let mut splitter = Splitter::new(text, false);
    splitter.target = Some(target);
    splitter.run()
}

struct Splitter<'a, 't> {
    text: &'a str,
    bytes: &'a [u8],
    tolerant: bool,
    target: Option<&'t dyn Fn(&str) -> bool>,
    out: Vec<Cow<'a, str>>,
    /// Pieces of the current segment before the last removed redirect.
    carried: String,
    from: usize,
    /// Open `$(`, with the count of plain parentheses inside each.
    depth: usize,
}

impl<'a> Splitter<'a, '_> {
    fn new(text: &'a str, tolerant: bool) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            tolerant,
            target: None,
            out: Vec::new(),
            carried: String::new(),
            from: 0,
            depth: 0,
        }
    }

    fn cut(&mut self, at: usize, next: usize) {
        let piece = &self.text[self.from..at];
        let segment: Cow<'a, str> = if self.carried.is_empty() {
            Cow::Borrowed(piece.trim())
        } else {
            self.carried.push_str(piece);
            let whole = std::mem::take(&mut self.carried);
            Cow::Owned(whole.trim().to_owned())
        };
        if !segment.is_empty() {
            self.out.push(segment);
        }
        self.from = next;
    }

    fn run(mut self) -> Option<Vec<Cow<'a, str>>> {
        let mut quote = None;
        let mut at = 0;
        loop {
            at += boring(self.bytes.get(at..).unwrap_or(&[]));
            let Some(&byte) = self.bytes.get(at) else {
                break;
            };
            let next = self.bytes.get(at + 1).copied();
            if quote == Some(b'\'') {
                if byte == b'\'' {
                    quote = None;
                }
                at += 1;
                continue;
            }
            match byte {
                b'\\' => {
                    at += 2;
                    continue;
                }
                b'`' if !self.tolerant || quote.is_none() && self.depth == 0 => return None,
                b'$' if next == Some(b'(') => {
                    if !self.tolerant {
                        return None;
                    }
                    self.depth += 1;
                    at += 2;
                    continue;
                }
                b')' if self.depth > 0 => self.depth -= 1,
                b'"' => {
                    quote = if quote.is_some() { None } else { Some(b'"') };
                }
                b'\'' if quote.is_none() => quote = Some(b'\''),
                _ if quote.is_some() || self.depth > 0 => {}
                b'>' => {
                    let length = match self.target {
                        None => harmless_redirect(&self.bytes[at..])?,
                        Some(target) => redirect_to(&self.text[at..], target)?,
                    };
                    self.carried.push_str(&self.text[self.from..at]);
                    at += length;
                    self.from = at;
                    continue;
                }
                b'&' | b'|' if next == Some(byte) => {
                    if self.text[at + 2..].trim_start().is_empty() {
                        return None;
                    }
                    self.cut(at, at + 2);
                    at += 2;
                    continue;
                }
                b';' | b'|' | b'\n' | b'\r' => self.cut(at, at + 1),
                _ => {}
            }
            at += 1;
        }
        self.cut(self.text.len(), self.text.len());
        Some(self.out)
    }
}

/// How many bytes at the start mean nothing to a splitter.
fn boring(bytes: &[u8]) -> usize {
    const MARKS: [bool; 256] = marks(b"\\`$)\"'>&|;\n\r");
    let mark = bytes.iter().position(|b| MARKS[usize::from(*b)]);
    mark.unwrap_or(bytes.len())
}

/// How many bytes at the start surely belong to one word.
pub(super) fn word_run(bytes: &[u8]) -> usize {
    let plain = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\');
    bytes.iter().position(|b| !plain(b)).unwrap_or(bytes.len())
}

/// A table of bytes for one-pass searches.
pub(super) const fn marks(all: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut at = 0;
    while at < all.len() {
        table[all[at] as usize] = true;
        at += 1;
    }
    table
}

/// The length of a redirect that loses nothing: to a descriptor or `/dev/null`.
fn harmless_redirect(bytes: &[u8]) -> Option<usize> {
    let mut at = if bytes.starts_with(b">>") { 2 } else { 1 };
    if bytes.get(at) == Some(&b'&') {
        let digits = bytes[at + 1..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count();
        return (digits > 0).then_some(at + 1 + digits);
    }
    while matches!(bytes.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    let rest = &bytes[at..];
    let end = rest
        .iter()
        .position(|b| b.is_ascii_whitespace() || b";|&><()`$'\"".contains(b))
        .unwrap_or(rest.len());
    (&rest[..end] == b"/dev/null").then_some(at + end)
}

/// The length of a redirect whose target passes.
fn redirect_to(text: &str, target: &dyn Fn(&str) -> bool) -> Option<usize> {
    let after = text.strip_prefix(">>").unwrap_or(&text[1..]);
    let word = after.trim_start();
    let start = text.len() - word.len();
    let first = word.chars().next()?;
    let length = if matches!(first, '"' | '\'') {
        word[1..].find(first)? + 2
    } else {
        word.find(|c: char| is_blank(c) || ";|&><()`".contains(c))
            .unwrap_or(word.len())
    };
    (length > 0 && target(&word[..length])).then_some(start + length)
}

/// The words of one segment, outer quotes removed. The flag says that the word
/// had none.
pub(in crate::permissions) fn words(segment: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + skip(&segment[at..])?;
        at = start + word_length(&segment[start..]);
        let word = &segment[start..at];
        let bare = strip_quotes(word);
        Some((bare, bare.len() == word.len()))
    })
}

/// One pair of equal quotes around the whole text, removed.
pub(super) fn strip_quotes(text: &str) -> &str {
    for quote in ['"', '\''] {
        if text.len() > 1
            && let Some(inner) = text.strip_prefix(quote)
            && let Some(inner) = inner.strip_suffix(quote)
        {
            return inner;
        }
    }
    text
}

/// Blanks as JavaScript's `\s` knows them.
pub(in crate::permissions) fn is_blank(c: char) -> bool {
    (c.is_whitespace() && c != '\u{85}') || c == '\u{feff}'
}

/// Bytes before the next word; `None` when there is none.
fn skip(text: &str) -> Option<usize> {
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let starts = match c {
            '"' | '\'' => text[at + 1..].contains(c),
            _ => !is_blank(c),
        };
        if starts {
            return Some(at);
        }
        at += c.len_utf8();
    }
    None
}

fn word_length(text: &str) -> usize {
    let mut at = 0;
    loop {
        at += word_run(&text.as_bytes()[at..]);
        let Some(c) = text[at..].chars().next() else {
            return at;
        };
        match c {
            '"' | '\'' => match text[at + 1..].find(c) {
                Some(length) => at += length + 2,
                None => return at,
            },
            _ if is_blank(c) => return at,
            _ => at += c.len_utf8(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_end_at_operators_outside_quotes() {
        for (text, expected) in [
            (
                "a && b || c; d | e\nf",
                Some(vec!["a", "b", "c", "d", "e", "f"]),
            ),
            ("a ';' b", Some(vec!["a ';' b"])),
            ("a 2>/dev/null", Some(vec!["a 2"])),
            ("a >&2 b", Some(vec!["a  b"])),
            ("a > b", None),
            ("a > /dev/nullx", None),
            ("a $(b)", None),
            ("a &&", None),
            ("a & b", Some(vec!["a & b"])),
            ("a \\; b", Some(vec!["a \\; b"])),
        ] {
            let found = split(text);
            let found: Option<Vec<&str>> = found.as_ref().map(|s| s.iter().map(|x| &**x).collect());
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(
            split_tolerant("export A=$(x | y) && z").unwrap(),
            ["export A=$(x | y)", "z"]
        );
    }

    #[test]
    fn words_lose_one_pair_of_quotes_and_keep_inner_ones() {
        let list = |text| words(text).map(|(w, _)| w).collect::<Vec<_>>();
        assert_eq!(list("c\"a\"t 'a b' \"c\""), ["c\"a\"t", "a b", "c"]);
        assert_eq!(list("cat \"a"), ["cat", "a"]);
        assert_eq!(list("  "), Vec::<&str>::new());
    }
}
