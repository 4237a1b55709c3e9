//! The script in `bash -c SCRIPT`, where nothing before it reads other files.
//!
//! A shell takes the script as it is; the published reading takes one more pair
//! of quotes off, which only that reading may do: `'cat a #'; rm x ''` runs `rm`.

use super::judge::Arg;
use super::lexer;

/// The script of `["bash", "-c", SCRIPT]`.
pub(super) fn argv_script<'a>(words: &[&'a str]) -> Option<&'a str> {
    let (first, rest) = words.split_first()?;
    if !matches!(*first, "bash" | "sh") {
        return None;
    }
    script_at(rest.iter().map(|w| (*w, false)))
}

/// The script among the lexed arguments of a launcher.
pub(super) fn lexed_script<'a>(args: &'a [lexer::Word<'_>]) -> Option<&'a str> {
    script_at(args.iter().map(|w| (&*w.text, w.glob || w.parameters)))
}

/// The script among the judged arguments of a launcher.
pub(super) fn argument_script<'a>(args: &'a [Arg<'_>]) -> Option<&'a str> {
    script_at(args.iter().map(|a| (&*a.text, a.glob)))
}

/// The script when only harmless options stand before it.
fn script_at<'a>(mut words: impl Iterator<Item = (&'a str, bool)>) -> Option<&'a str> {
    while let Some((word, _)) = words.next() {
        let letters = word.strip_prefix('-')?;
        if letters == "o" {
            let (name, _) = words.next()?;
            if !matches!(name, "pipefail" | "errexit" | "nounset") {
                return None;
            }
            continue;
        }
        // `-i` and `-s` read other files, a bare word would be a script file.
        if letters.is_empty() || letters.bytes().any(|b| !b"ceuxvlfn".contains(&b)) {
            return None;
        }
        if letters.contains('c') {
            let (script, unclear) = words.next()?;
            return (letters.ends_with('c') && !unclear).then_some(script);
        }
    }
    None
}
