//! `git` subcommands that only look (05 §7.4 item 7, §17).

use super::judge::Arg;
use super::table::{
    GIT_LIST_FILTERS, GIT_LIST_FLAGS, GIT_LOOKS, GIT_REFUSED_FLAGS, GIT_REFUSED_VALUES,
};

/// Whether `git` with these arguments changes nothing and runs nothing.
pub(super) fn only_looks(args: &[Arg<'_>], path_fits: impl Fn(&str) -> bool) -> bool {
    if args
        .iter()
        .any(|arg| refused(&arg.text) || (arg.glob && arg.text.starts_with(['*', '?', '['])))
    {
        return false;
    }
    let mut rest = args;
    loop {
        rest = match rest {
            [flag, dir, after @ ..] if flag.text == "-C" => {
                if dir.text.is_empty() || dir.glob || !path_fits(&dir.text) {
                    return false;
                }
                after
            }
            [empty, after @ ..] if empty.text.is_empty() => after,
            _ => break,
        };
    }
    let [subcommand, rest @ ..] = rest else {
        return false;
    };
    let words: Vec<&str> = rest.iter().map(|arg| &*arg.text).collect();
    if !GIT_LOOKS.contains(&&*subcommand.text) || !words.iter().all(|word| path_fits(word)) {
        return false;
    }
    match &*subcommand.text {
        "branch" => lists(&words, &GIT_LIST_FLAGS),
        "tag" => tag_lists(&words),
        "remote" => remote_shows(&words),
        "grep" => grep_looks(&words),
        "diff" => !words.iter().any(|w| is_long(w, "no-index")),
        "blame" => !words.iter().any(|w| is_long(w, "contents")),
        _ => true,
    }
}

/// Options that run programs or write, in any subcommand.
pub(super) fn refused(word: &str) -> bool {
    if word.starts_with("-c") && !word.starts_with("--") {
        return true;
    }
    let Some(long) = word.strip_prefix("--") else {
        return false;
    };
    let (name, valued) = match long.split_once('=') {
        Some((name, _)) => (name, true),
        None => (long, false),
    };
    // `--ext-diff=x` is an error to git: the flags take no value.
    !name.is_empty()
        && (GIT_REFUSED_VALUES.iter().any(|o| o.starts_with(name))
            || (!valued && GIT_REFUSED_FLAGS.iter().any(|o| o.starts_with(name))))
}

/// Whether `word` is the long option `name` or a beginning of it.
fn is_long(word: &str, name: &str) -> bool {
    let long = word
        .strip_prefix("--")
        .and_then(|long| long.split('=').next());
    // Shorter beginnings are ambiguous to git.
    long.is_some_and(|long| long.len() > 3 && name.starts_with(long))
}

/// `git branch` and `git tag` arguments that only list.
fn lists(words: &[&str], flags: &[&str]) -> bool {
    let mut listing = false;
    let mut list = words.iter().peekable();
    while let Some(word) = list.next() {
        match *word {
            "" => {}
            "--format" => {
                if list.next().is_none() {
                    return false;
                }
            }
            _ if word.starts_with("--format=") => {}
            _ if flags.contains(word) => listing |= matches!(*word, "--list" | "-l"),
            _ if GIT_LIST_FILTERS.contains(word) => {
                list.next_if(|next| !next.starts_with('-'));
            }
            _ if listing && !word.starts_with('-') => {}
            _ => return false,
        }
    }
    true
}

fn tag_lists(words: &[&str]) -> bool {
    let kept: Vec<&str> = words
        .iter()
        .copied()
        .filter(|w| {
            let count = w.strip_prefix("-n");
            let counted = count.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
            !counted && !w.starts_with("--sort=") && *w != "--column" && *w != "--no-column"
        })
        .collect();
    lists(&kept, &["--list", "-l"])
}

/// `git remote`, `-v`, `show NAME` and `get-url NAME`.
fn remote_shows(words: &[&str]) -> bool {
    let name = |word: &&str| {
        !word.starts_with('-')
            && word
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
    };
    let words = match words {
        ["-v" | "--verbose", rest @ ..] => rest,
        all => all,
    };
    match words {
        [] => true,
        ["show", rest @ ..] | ["get-url", rest @ ..] => rest
            .iter()
            .filter(|w| !matches!(**w, "-n" | "--all" | "--push"))
            .all(name),
        _ => false,
    }
}

fn grep_looks(words: &[&str]) -> bool {
    words.iter().enumerate().all(|(at, word)| {
        !(word.starts_with("-O")
            || is_long(word, "no-index")
            || is_long(word, "open-files-in-pager")
            || *word == "--ext-grep"
            || (*word == "-f" && words.get(at + 1).is_none_or(|file| file.is_empty())))
    })
}
