//! Everything in a command line that might run as a command of its own.
//!
//! Used for rules that hold back: a fragment too many only asks or denies more.
//! Pieces are cut at operators, parentheses, braces and substitutions, also
//! inside double quotes; words that run other words are peeled off.

use std::borrow::Cow;

use super::normal::{
    LAUNCHERS, is_assignment, payload, primary, real_words, runs, unwrap_launcher,
};
use super::published::marks;

/// Whether a word runs the rest of its line.
fn is_runner(word: &str) -> bool {
    matches!(
        word,
        "if" | "then"
            | "elif"
            | "else"
            | "while"
            | "until"
            | "do"
            | "!"
            | "{"
            | "time"
            | "nohup"
            | "sudo"
            | "doas"
            | "command"
            | "builtin"
            | "exec"
            | "eval"
            | "xargs"
            | "env"
            | "nice"
            | "ionice"
            | "setsid"
            | "stdbuf"
            | "timeout"
            | "coproc"
            | "busybox"
            | "strace"
            | "unbuffer"
            | "chroot"
    )
}

/// Most words peeled off one piece, and deepest nesting of `-c` scripts.
const MAX_PEELED: usize = 8;
const MAX_SCRIPTS: usize = 5;
/// What may be looked into for one rule, in bytes, and what each piece costs
/// beside its length.
const ALLOWANCE: usize = 32 * 1024;
const PIECE_COST: usize = 256;
/// Most pieces that may say the word without being what is looked for.
const MOST_SAID: usize = 3000;

/// Whether a fragment of `text` passes `test`. `first` is the first word of
/// what `test` looks for, bare: pieces that do not say it are not looked into.
///
/// A text that hides too much to be looked through counts as passing: what
/// holds back must not be got round by sheer size.
pub(super) fn any(text: &str, first: &str, test: &dyn Fn(&str) -> bool) -> bool {
    let mut search = Search {
        first,
        test,
        left: ALLOWANCE,
    };
    let mut said = 0;
    pieces(text, &mut |piece| {
        if !says(piece, first) {
            return false;
        }
        said += 1;
        let piece = piece.trim();
        said > MOST_SAID
            || !piece.is_empty() && (test(piece) || may_hide(piece) && search.uncover(piece, 0))
    })
}

/// Whether `text`, quotes and backslashes aside, holds `bare` at the start of
/// a word. Nothing that starts with `bare` can come to light otherwise.
pub(super) fn says(text: &str, bare: &str) -> bool {
    let (text, bare) = (text.as_bytes(), bare.as_bytes());
    let Some(&first) = bare.first() else {
        return true;
    };
    let mut starts = true;
    for (at, &byte) in text.iter().enumerate() {
        if is_dress(byte) {
            continue;
        }
        if starts && byte == first {
            let mut rest = text[at..].iter().filter(|b| !is_dress(**b));
            if bare.iter().all(|b| rest.next() == Some(b)) {
                return true;
            }
        }
        starts = starts_word(byte);
    }
    false
}

/// Quotes and backslashes: they can stand anywhere in a word.
pub(super) fn is_dress(byte: u8) -> bool {
    const DRESS: [bool; 256] = marks(b"'\"\\");
    DRESS[usize::from(byte)]
}

/// Whether a word can begin behind this byte.
pub(super) fn starts_word(byte: u8) -> bool {
    const STARTS: [bool; 256] = marks(b";|&()`");
    byte <= b' ' || !byte.is_ascii() || STARTS[usize::from(byte)]
}

struct Search<'s> {
    first: &'s str,
    test: &'s dyn Fn(&str) -> bool,
    left: usize,
}

/// Whether a piece can run something that its text does not begin with. One
/// quick look: most pieces cannot.
fn may_hide(piece: &str) -> bool {
    let mut before = 0;
    let mut dash = false;
    for &byte in piece.as_bytes() {
        match byte {
            b'\'' | b'"' | b'\\' | b'\t' | b'=' => return true,
            b' ' if before == b' ' => return true,
            b'-' => dash = true,
            _ => {}
        }
        before = byte;
    }
    let first = piece.split(' ').next().unwrap_or("");
    first == "git"
        || is_runner(first)
        || (first.ends_with(['h', 'H']) && runs(first, &LAUNCHERS))
        || (first.ends_with(['v', 'V']) && runs(first, &["env"]))
        || (dash && (piece.contains("-exec") || piece.contains("-ok")))
}

impl Search<'_> {
    /// Whether something inside one piece passes.
    fn uncover(&mut self, piece: &str, depth: usize) -> bool {
        let cost = piece.len() + PIECE_COST;
        if self.left < cost {
            return true;
        }
        self.left -= cost;
        // As a shell reads the words, quotes and backslashes gone.
        let words: Vec<Cow<'_, str>> = real_words(piece).collect();
        let first = words.first().map_or("", |word| word);
        if first == "git" && (self.test)(&payload(piece)) {
            return true;
        }
        let env = runs(first, &["env"]);
        if (is_assignment(first) || env) && (self.test)(&primary(piece)) {
            return true;
        }
        if env || runs(first, &LAUNCHERS) {
            let inner = unwrap_launcher(piece);
            if inner != piece
                && depth < MAX_SCRIPTS
                && ((self.test)(&inner) || self.line(&inner, depth))
            {
                return true;
            }
        }
        let whole = words.join(" ");
        let mut rest = words.as_slice();
        let mut from = 0;
        for _ in 0..MAX_PEELED {
            let Some(at) = runner(rest) else { break };
            from += rest[..at].iter().map(|word| word.len() + 1).sum::<usize>();
            rest = &rest[at..];
            let joined = &whole[from..];
            // `eval` and friends read their words as a line again.
            if depth < MAX_SCRIPTS
                && joined.contains([';', '|', '&', '`', '(', '\n'])
                && self.line(joined, depth)
            {
                return true;
            }
            let next = rest.first().map_or("", |word| word);
            if next == "git" && (self.test)(&payload(joined)) {
                return true;
            }
            if depth < MAX_SCRIPTS && runs(next, &LAUNCHERS) {
                // The script is one of the words: read each as a line.
                let mut scripts = rest.iter().filter(|word| word.contains(' '));
                if scripts.any(|word| self.line(word, depth)) {
                    return true;
                }
            }
            if (self.test)(joined) {
                return true;
            }
        }
        (self.test)(&whole)
    }

    /// Whether a line inside a piece holds something that passes.
    fn line(&mut self, text: &str, depth: usize) -> bool {
        if !says(text, self.first) {
            return false;
        }
        pieces(text, &mut |piece| {
            if !says(piece, self.first) {
                return false;
            }
            let piece = piece.trim();
            (self.test)(piece) || self.uncover(piece, depth + 1)
        })
    }
}

/// Where the command that `words` run starts.
fn runner(words: &[Cow<'_, str>]) -> Option<usize> {
    let first = words.first()?;
    let start = if is_runner(first) || first.contains('=') {
        1
    } else {
        let at = words
            .iter()
            .position(|w| matches!(&**w, "-exec" | "-execdir" | "-ok" | "-okdir"))?;
        at + 1
    };
    let options = words[start..]
        .iter()
        .take_while(|w| w.starts_with('-') || w.contains('=') || w.parse::<f64>().is_ok())
        .count();
    let at = start + options;
    (at < words.len()).then_some(at)
}

/// Cuts at everything that can start a command, outside single quotes; whether
/// `take` wanted one of the pieces.
fn pieces(text: &str, take: &mut dyn FnMut(&str) -> bool) -> bool {
    let bytes = text.as_bytes();
    let mut from = 0;
    let mut at = 0;
    // Whether double quotes are open, here and around each open substitution.
    let mut quoted = false;
    let mut around = Vec::new();
    loop {
        at += boring(bytes.get(at..).unwrap_or(&[]));
        let Some(&byte) = bytes.get(at) else { break };
        match byte {
            b'\\' => at += 1,
            b'\'' if !quoted => {
                let rest = &bytes[at + 1..];
                at += 1 + rest.iter().position(|b| *b == b'\'').unwrap_or(rest.len());
            }
            b'"' => quoted = !quoted,
            b'(' if !quoted || at > 0 && bytes[at - 1] == b'$' => {
                if take(&text[from..at]) {
                    return true;
                }
                around.push(std::mem::take(&mut quoted));
                from = at + 1;
            }
            b')' if !quoted => {
                if take(&text[from..at]) {
                    return true;
                }
                quoted = around.pop().unwrap_or(false);
                from = at + 1;
            }
            b'`' => {
                if take(&text[from..at]) {
                    return true;
                }
                from = at + 1;
            }
            b';' | b'|' | b'&' | b'\n' | b'\r' if !quoted => {
                if take(&text[from..at]) {
                    return true;
                }
                from = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    take(&text[from..])
}

/// How many bytes at the start neither cut nor quote.
fn boring(bytes: &[u8]) -> usize {
    const MARKS: [bool; 256] = marks(b"\\'\"()`;|&\n\r");
    let mark = bytes.iter().position(|b| MARKS[usize::from(*b)]);
    mark.unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hides(text: &str, command: &str) -> bool {
        let first = command.split(' ').next().unwrap();
        any(text, first, &|found| found.starts_with(command))
    }

    #[test]
    fn a_hidden_command_comes_to_light() {
        for text in [
            "echo hi && rm x",
            "echo $(rm x)",
            "echo \"a $(rm x) b\"",
            "echo `rm x`",
            "(rm x)",
            "true & rm x",
            "r''m x",
            "\\rm x",
            "sudo -n rm x",
            "A=1 nohup rm x",
            "if true; then rm x; fi",
            "bash -c 'true; rm x'",
            "echo a | xargs rm x",
            "eval 'true; rm x'",
            "find . -exec rm x \\;",
            "timeout 5 rm x",
            "diff <(rm x) b",
            "sudo bash -c 'true; rm x'",
            "A=1 rm x",
        ] {
            assert!(hides(text, "rm x"), "{text}");
        }
        assert!(!hides("echo 'a; rm x'", "rm"));
    }

    #[test]
    fn a_word_is_said_at_the_start_of_a_word_quotes_aside() {
        for text in [
            "rm",
            "a rm",
            "r'm'",
            "a;\"r\"m",
            "$(rm",
            "\\rm",
            "a\u{a0}rm",
        ] {
            assert!(says(text, "rm"), "{text}");
        }
        for text in ["", "arm", "r m", "a-rm", "r", "/rm"] {
            assert!(!says(text, "rm"), "{text}");
        }
        assert!(says("x", ""));
    }

    #[test]
    fn what_hides_too_much_to_be_looked_through_counts_as_found() {
        let hostile = "a='x' y rm;".repeat(6000);
        assert!(hides(&hostile, "rm x"));
        assert!(
            !hides(&hostile, "make"),
            "what it does not say is not in it"
        );
        assert!(!hides(&"a='x' y rm;".repeat(20), "rm x"));
        assert!(hides(&"a rm;".repeat(4000), "rm x"));
        assert!(!hides(&"a rm;".repeat(2000), "rm x"));
    }
}
