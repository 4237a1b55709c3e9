//! Commands as rules see them: launchers unwrapped, the primary command of a
//! chain, the normal form of a payload (05 §8).

use std::borrow::Cow;

use super::published::{is_blank, split_tolerant, strip_quotes, word_run, words};

/// Shells that are looked through.
pub(super) const LAUNCHERS: [&str; 5] = ["bash", "sh", "zsh", "dash", "ksh"];
/// Deepest nesting of launchers that is looked through.
const MAX_LAUNCHERS: usize = 5;
/// Longest text that is split to find its primary command, in bytes. A longer
/// one is taken whole: permits then cover less, and restrictions look at every
/// part anyway.
const MAX_SPLIT: usize = 8 * 1024;
/// Longest normal form of a git command, in bytes.
const MAX_GIT: usize = 4 * 1024;

/// Words with real quoting: quotes removed, backslashes escape outside single
/// quotes, empty words dropped. Reads no further than asked.
pub(super) fn real_words(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start_matches(is_blank);
            if rest.is_empty() {
                return None;
            }
            let run = word_run(rest.as_bytes());
            let plain = rest[run..]
                .find(|c: char| matches!(c, '\'' | '"' | '\\') || is_blank(c))
                .map_or(rest.len(), |more| run + more);
            let ends = rest[plain..].chars().next().is_none_or(is_blank);
            if ends {
                let word = &rest[..plain];
                rest = &rest[plain..];
                return Some(Cow::Borrowed(word));
            }
            let (word, length) = quoted_word(rest);
            rest = &rest[length..];
            if !word.is_empty() {
                return Some(Cow::Owned(word));
            }
        }
    })
}

/// One word with quotes in it, and its length in the text.
fn quoted_word(text: &str) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => word.push(c),
            (_, '\\') => word.push(chars.next().map_or('\\', |(_, c)| c)),
            (Some(_), _) => word.push(c),
            (None, '\'' | '"') => quote = Some(c),
            (None, _) if is_blank(c) => return (word, at),
            (None, _) => word.push(c),
        }
    }
    (word, text.len())
}

/// Whether `word` names one of these programs: by its last path segment, letter
/// case aside. A backslash separates too.
pub(super) fn runs(word: &str, programs: &[&str]) -> bool {
    let word = strip_quotes(word.trim()).trim_end_matches(['/', '\\']);
    programs.iter().any(|program| {
        let Some(start) = word.len().checked_sub(program.len()) else {
            return false;
        };
        let (Some(dir), Some(name)) = (word.get(..start), word.get(start..)) else {
            return false;
        };
        name.eq_ignore_ascii_case(program) && (dir.is_empty() || dir.ends_with(['/', '\\']))
    })
}

pub(super) fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| is_name(name))
}

/// Whether `text` can name a shell variable.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `-` and letters only.
fn is_letter_flag(word: &str) -> bool {
    word.strip_prefix('-')
        .is_some_and(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphabetic()))
}

/// The command inside `bash -c '…'`, up to five deep; trimmed.
pub(in super::super) fn unwrap_launcher(text: &str) -> Cow<'_, str> {
    let mut current = Cow::Borrowed(text.trim());
    for _ in 0..MAX_LAUNCHERS {
        let Some(inner) = inner_command(&current) else {
            break;
        };
        if inner == *current {
            break;
        }
        current = Cow::Owned(inner.trim().to_owned());
    }
    current
}

fn inner_command(text: &str) -> Option<String> {
    let mut list = real_words(text);
    let mut word = list.next()?;
    if runs(&word, &["env"]) {
        word = list.find(|w| !is_letter_flag(w) && !is_assignment(w))?;
    }
    if !runs(&word, &LAUNCHERS) {
        return None;
    }
    list.find(|w| is_letter_flag(w) && w.contains('c'))?;
    let inner = list.next()?;
    let inner = strip_quotes(inner.trim());
    (!inner.is_empty()).then(|| inner.to_owned())
}

/// The first segment that does something: not `cd`, not `export`, with leading
/// `env` and assignments dropped.
pub(in super::super) fn primary(text: &str) -> String {
    let unwrapped = unwrap_launcher(text);
    if unwrapped.len() > MAX_SPLIT {
        return unwrapped.into_owned();
    }
    if let Some(segments) = split_tolerant(&unwrapped) {
        for segment in &segments {
            if let Some(command) = without_prefix(segment) {
                return command;
            }
        }
    } else if let Some(command) = without_prefix(&unwrapped) {
        return command;
    }
    unwrapped.trim().to_owned()
}

fn starts_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// A segment without a leading `env` and assignments; `None` for `cd`,
/// `export` and segments of which nothing is left.
pub(super) fn without_prefix(segment: &str) -> Option<String> {
    let segment = segment.trim();
    if segment.is_empty() || starts_word(segment, "cd") || starts_word(segment, "export") {
        return None;
    }
    let list = || words(segment).map(|(word, _)| word);
    let mut skipped = 0;
    if runs(list().next()?, &["env"]) {
        skipped += 1;
        skipped += list()
            .skip(1)
            .take_while(|w| w.is_empty() || is_letter_flag(w) || is_assignment(w))
            .count();
    }
    skipped += list()
        .skip(skipped)
        .take_while(|w| is_assignment(w))
        .count();
    if skipped == 0 {
        return Some(segment.to_owned());
    }
    let rest: Vec<&str> = list().skip(skipped).collect();
    let rest = rest.join(" ");
    (!rest.trim().is_empty()).then(|| rest.trim().to_owned())
}

/// The normal form of a rule's payload or of a command (05 §8).
pub(in super::super) fn payload(text: &str) -> String {
    let text = text.trim();
    let (body, prefix) = match text.strip_suffix(":*") {
        Some(body) => (body.trim_end(), true),
        None => (text, false),
    };
    let unwrapped = unwrap_launcher(body);
    let mut form = git_without_directory(unwrapped.trim());
    if prefix {
        form.push_str(":*");
    }
    form
}

/// `git -C DIR sub` as `git sub`. Other commands stay as they are.
fn git_without_directory(text: &str) -> String {
    if !text.starts_with("git ") {
        return text.to_owned();
    }
    let mut list = real_words(text).skip(1).peekable();
    let mut out = String::from("git");
    while list.next_if(|word| word == "-C").is_some() {
        list.next();
    }
    for word in list {
        out.push(' ');
        out.push_str(&word);
        if out.len() > MAX_GIT {
            // Good for prefixes, and equal to no rule.
            out.push('\0');
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_are_looked_through_five_deep() {
        for (text, expected) in [
            ("bash -lc \"make all\"", "make all"),
            ("/bin/zsh -c 'make all'", "make all"),
            ("env A=1 -i sh -c 'x y'", "x y"),
            ("bash -c \"bash -c 'make all'\"", "make all"),
            ("bash a.sh", "bash a.sh"),
            ("fish -c x", "fish -c x"),
            ("bash -lc make all", "make"),
        ] {
            assert_eq!(unwrap_launcher(text), expected);
        }
    }

    #[test]
    fn the_primary_command_skips_what_only_prepares() {
        for (text, expected) in [
            ("cd sub && npm test", "npm test"),
            ("export A=1 && make all", "make all"),
            ("A=1 B=2 make  all", "make all"),
            ("env -i A=1 make all", "make all"),
            ("make  all", "make  all"),
            ("cd x > /tmp/o && make", "cd x > /tmp/o && make"),
            ("A=1", "A=1"),
        ] {
            assert_eq!(primary(text), expected);
        }
    }
}
