//! `gh` commands that only look (05 §7.4 item 8, §17).

use super::judge::Arg;
use super::table::GH_LOOKS;

/// Whether `gh` with these arguments changes nothing.
pub(super) fn only_looks(args: &[Arg<'_>]) -> bool {
    let slippery = |a: &Arg<'_>| a.glob && a.text.starts_with(['*', '?', '[']);
    if args.iter().any(slippery) {
        return false;
    }
    let words: Vec<&str> = args.iter().map(|arg| &*arg.text).collect();
    let Some((category, rest)) = words.split_first() else {
        return false;
    };
    // Opening a browser runs whatever `BROWSER` names.
    let browses = |w: &&str| *w == "-w" || *w == "--web" || w.starts_with("--web=");
    match *category {
        "api" => api_reads(rest),
        "search" | "status" => !rest.iter().any(browses),
        _ => {
            let action = rest.first().copied().unwrap_or("");
            GH_LOOKS
                .iter()
                .any(|(name, actions)| name == category && actions.contains(&action))
                && !rest.iter().any(browses)
        }
    }
}

/// `gh api` with GET or HEAD and without a body.
fn api_reads(words: &[&str]) -> bool {
    let reads = |method: &str| matches!(method.to_ascii_uppercase().as_str(), "GET" | "HEAD");
    let mut list = words.iter();
    while let Some(word) = list.next() {
        let body = ["--field", "--raw-field", "--input"].iter().any(|o| {
            word.strip_prefix(o)
                .is_some_and(|r| r.is_empty() || r.starts_with('='))
        });
        if body {
            return false;
        }
        let method = if matches!(*word, "-X" | "--method") {
            match list.next() {
                Some(method) if !method.is_empty() => method,
                _ => return false,
            }
        } else if let Some(method) = word.strip_prefix("--method=") {
            method
        } else if word.starts_with("--") {
            continue;
        } else if let Some(letters) = word.strip_prefix('-') {
            match letters.strip_prefix('X') {
                Some(method) => method.strip_prefix('=').unwrap_or(method),
                // These take the rest of the word as their value.
                None if letters.starts_with(['H', 'q', 't', 'p']) => continue,
                // Letters can be bundled: `-iXDELETE`.
                None if letters.contains(['X', 'f', 'F']) => return false,
                None => continue,
            }
        } else {
            continue;
        };
        if !reads(method) {
            return false;
        }
    }
    true
}
