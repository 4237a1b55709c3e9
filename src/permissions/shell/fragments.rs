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

/// Adds the candidates of `text` to `out`.
pub(super) fn collect<'a>(text: &'a str, out: &mut Vec<Cow<'a, str>>) {
    for piece in pieces(text) {
        let piece = piece.trim();
        if piece.is_empty() {
            continue;
        }
        out.push(Cow::Borrowed(piece));
        if !may_hide(piece) {
            continue;
        }
        let mut owned = Vec::new();
        uncover(piece, 0, &mut owned);
        out.extend(owned.into_iter().map(Cow::Owned));
    }
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

/// The candidates inside one piece, deepest last.
fn uncover(piece: &str, depth: usize, out: &mut Vec<String>) {
    // As a shell reads the words, quotes and backslashes gone.
    let words: Vec<Cow<'_, str>> = real_words(piece).collect();
    let joined = words.join(" ");
    let first = words.first().map_or("", |word| word);
    if first == "git" {
        out.push(payload(piece));
    }
    if is_assignment(first) || runs(first, &["env"]) {
        out.push(primary(piece));
    }
    if runs(first, &LAUNCHERS) || runs(first, &["env"]) {
        let inner = unwrap_launcher(piece);
        if inner != piece && depth < MAX_SCRIPTS {
            out.push(inner.clone().into_owned());
            for piece in pieces(&inner) {
                let piece = piece.trim();
                out.push(piece.to_owned());
                uncover(piece, depth + 1, out);
            }
        }
    }
    let whole = joined;
    let mut rest = words.as_slice();
    let mut from = 0;
    for _ in 0..MAX_PEELED {
        let Some(at) = runner(rest) else { break };
        from += rest[..at].iter().map(|word| word.len() + 1).sum::<usize>();
        rest = &rest[at..];
        let joined = whole[from..].to_owned();
        // `eval` and friends read their words as a line again.
        if depth < MAX_SCRIPTS && joined.contains([';', '|', '&', '`', '(', '\n']) {
            for piece in pieces(&joined) {
                let piece = piece.trim();
                out.push(piece.to_owned());
                uncover(piece, depth + 1, out);
            }
        }
        if rest.first().is_some_and(|word| word == "git") {
            out.push(payload(&joined));
        }
        if rest.first().is_some_and(|word| runs(word, &LAUNCHERS)) && depth < MAX_SCRIPTS {
            // The script is one of the words: read each as a line.
            for word in rest.iter().filter(|word| word.contains(' ')) {
                for piece in pieces(word) {
                    let piece = piece.trim();
                    out.push(piece.to_owned());
                    uncover(piece, depth + 1, out);
                }
            }
        }
        out.push(joined);
    }
    out.push(whole);
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

/// Cuts at everything that can start a command, outside single quotes.
fn pieces(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
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
                out.push(&text[from..at]);
                around.push(std::mem::take(&mut quoted));
                from = at + 1;
            }
            b')' if !quoted => {
                out.push(&text[from..at]);
                quoted = around.pop().unwrap_or(false);
                from = at + 1;
            }
            b'`' => {
                out.push(&text[from..at]);
                from = at + 1;
            }
            b';' | b'|' | b'&' | b'\n' | b'\r' if !quoted => {
                out.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    out.push(&text[from..]);
    out
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

    fn of(text: &str) -> Vec<Cow<'_, str>> {
        let mut found = Vec::new();
        collect(text, &mut found);
        found
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
            assert!(of(text).iter().any(|f| f.starts_with("rm x")), "{text}");
        }
        assert!(!of("echo 'a; rm x'").iter().any(|f| f.starts_with("rm")));
    }
}
