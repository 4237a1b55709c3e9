//! Fitting the hunks of one file: from its text to its new text, in memory.
//!
//! Invariant: lines that a hunk keeps, and all lines between hunks, keep their
//! bytes; added lines get the file's dominant ending; the text ends with a
//! line end, unless it is empty.

use std::ops::Range;

use super::parse::{Body, Hunk};
use super::seek::Lines;
use crate::tools::replace::dominant_ending;

/// Lines of a hunk that an error repeats.
const SHOWN_LINES: usize = 40;

/// A hunk that does not fit the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// The line after `@@` is not there.
    #[error("Failed to find context '{context}' in {path}")]
    Context {
        /// The line.
        context: String,
        /// The file.
        path: String,
    },
    /// The lines to change are not there.
    #[error("Failed to find expected lines in {path}:\n{lines}")]
    Lines {
        /// The lines.
        lines: String,
        /// The file.
        path: String,
    },
    /// Two hunks change the same lines.
    #[error("Two hunks change the same lines of {path}; merge them into one")]
    Overlap {
        /// The file.
        path: String,
    },
}

/// A place in the file and what takes it.
struct Change<'a> {
    at: Range<usize>,
    lines: Vec<New<'a>>,
}

enum New<'a> {
    /// A line of the file, by number.
    Kept(usize),
    Added(&'a str),
}

/// The text of `path` with all hunks applied.
pub fn fit(text: &str, hunks: &[Hunk<'_>], path: &str) -> Result<String, FitError> {
    // With their ends, so that what is kept is kept byte for byte.
    let whole: Vec<&str> = text.split_inclusive('\n').collect();
    let lines = Lines::new(whole.iter().map(|line| bare(line)).collect());
    let mut changes = Vec::with_capacity(hunks.len());
    let mut cursor = 0;
    for hunk in hunks {
        if let Some(context) = hunk.context {
            let found = lines.seek(&[context], cursor, false);
            cursor = found.ok_or_else(|| FitError::Context {
                context: context.to_owned(),
                path: path.to_owned(),
            })? + 1;
        }
        let change = place(hunk, &lines, &whole, cursor).ok_or_else(|| FitError::Lines {
            lines: shown(hunk),
            path: path.to_owned(),
        })?;
        if !change.at.is_empty() {
            cursor = change.at.end;
        }
        changes.push(change);
    }
    changes.sort_by_key(|change| change.at.start);
    if changes
        .windows(2)
        .any(|pair| pair[0].at.end > pair[1].at.start)
    {
        return Err(FitError::Overlap {
            path: path.to_owned(),
        });
    }
    Ok(write(&whole, &changes, dominant_ending(text)))
}

/// Where a hunk goes, and what it leaves there.
fn place<'a>(
    hunk: &Hunk<'a>,
    lines: &Lines<'_>,
    whole: &[&str],
    cursor: usize,
) -> Option<Change<'a>> {
    let mut body = hunk.body.clone();
    let mut wanted: Vec<&str> = body.iter().filter_map(|line| old(*line)).collect();
    if wanted.is_empty() {
        // Nothing says where: at the end, before a last line that is blank.
        let blank = whole.last().is_some_and(|line| bare(line).is_empty());
        let at = whole.len() - usize::from(blank);
        return Some(Change {
            at: at..at,
            lines: replacement(&body, at),
        });
    }
    loop {
        if let Some(at) = lines.seek(&wanted, cursor, hunk.at_end) {
            return Some(Change {
                at: at..at + wanted.len(),
                lines: replacement(&body, at),
            });
        }
        // A last empty line is often only the distance to the next section.
        if wanted.pop() != Some("") || wanted.is_empty() {
            return None;
        }
        drop_last_old(&mut body);
    }
}

fn old<'a>(line: Body<'a>) -> Option<&'a str> {
    match line {
        Body::Keep(text) | Body::Remove(text) => Some(text),
        Body::Add(_) => None,
    }
}

/// Takes the last old line, an empty one, as not in the file: kept, it is a new
/// empty line; and a new empty line at the very end goes too.
fn drop_last_old(body: &mut Vec<Body<'_>>) {
    if let Some(last) = body.iter().rposition(|line| old(*line).is_some()) {
        match body[last] {
            Body::Keep(text) => body[last] = Body::Add(text),
            _ => {
                body.remove(last);
            }
        }
    }
    if body.last() == Some(&Body::Add("")) {
        body.pop();
    }
}

fn replacement<'a>(body: &[Body<'a>], at: usize) -> Vec<New<'a>> {
    let mut next = at;
    let mut out = Vec::with_capacity(body.len());
    for line in body {
        match line {
            Body::Keep(_) => {
                out.push(New::Kept(next));
                next += 1;
            }
            Body::Remove(_) => next += 1,
            Body::Add(text) => out.push(New::Added(text)),
        }
    }
    out
}

fn write(whole: &[&str], changes: &[Change<'_>], ending: &str) -> String {
    let mut out = String::new();
    // Only the file's last line can lack its end; what comes after it must not
    // be glued to it.
    let push = |out: &mut String, line: &str| {
        if !out.is_empty() && !out.ends_with('\n') {
            out.push_str(ending);
        }
        out.push_str(line);
    };
    let mut next = 0;
    for change in changes {
        for line in &whole[next..change.at.start] {
            push(&mut out, line);
        }
        for line in &change.lines {
            match line {
                New::Kept(number) => push(&mut out, whole[*number]),
                New::Added(text) => {
                    push(&mut out, text);
                    out.push_str(ending);
                }
            }
        }
        next = change.at.end;
    }
    for line in &whole[next..] {
        push(&mut out, line);
    }
    if !out.is_empty() && !out.ends_with('\n') {
        out.push_str(ending);
    }
    out
}

/// A line without its end.
fn bare(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

fn shown(hunk: &Hunk<'_>) -> String {
    let old: Vec<&str> = hunk.body.iter().filter_map(|line| old(*line)).collect();
    let mut out: String =
        crate::tools::text::head(&old[..old.len().min(SHOWN_LINES)].join("\n"), 4000)
            .0
            .to_owned();
    if old.len() > SHOWN_LINES {
        out.push_str(&format!("\n... and {} more lines", old.len() - SHOWN_LINES));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::patch::{Operation, parse};
    use proptest::prelude::*;

    fn fitted(text: &str, hunks: &str) -> Result<String, String> {
        let patch = format!("*** Begin Patch\n*** Update File: f\n{hunks}\n*** End Patch");
        match parse(&patch).unwrap().as_slice() {
            [Operation::Update { hunks, .. }] => {
                fit(text, hunks, "f").map_err(|error| error.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn hunks_fit_from_top_to_bottom() {
        for (text, hunks, expected) in [
            ("a\nb\nc\n", "-b\n+x\n+y", "a\nx\ny\nc\n"),
            ("a\nb\na\nb\n", "@@\n-b\n+1\n@@\n-b\n+2", "a\n1\na\n2\n"),
            ("f\na\ng\na\n", "@@ g\n-a\n+x", "f\na\ng\nx\n"),
            ("a\n", "+z", "a\nz\n"),
            ("a\n\n", "+z", "a\nz\n\n"),
            ("", "+z", "z\n"),
            (
                "a\nb\na\nb\n",
                "@@\n a\n-b\n+x\n*** End of File",
                "a\nb\na\nx\n",
            ),
            ("a\nb", "-a\n+x", "x\nb\n"),
            ("a\nb", "-b\n+x", "a\nx\n"),
            ("a", "+z", "a\nz\n"),
            ("a\n", "-a", ""),
            // An empty last line that stands for a line end.
            ("a\nb\n", "-b\n+x\n\n", "a\nx\n"),
            ("a\nb\n", "@@\n b\n \n+x", "a\nb\n\nx\n"),
            ("a\nb\n", "@@\n-b\n-\n+x\n+", "a\nx\n"),
        ] {
            assert_eq!(
                fitted(text, hunks).as_deref(),
                Ok(expected),
                "{text:?} {hunks:?}"
            );
        }
    }

    #[test]
    fn kept_lines_keep_their_bytes_even_when_they_match_loosely() {
        for (text, hunks, expected) in [
            (
                "\tif x  \n\told\n",
                " if x\n-old\n+\tnew",
                "\tif x  \n\tnew\n",
            ),
            ("a\r\nb\r\nc\r\n", " a\n-b\n+x\n c", "a\r\nx\r\nc\r\n"),
            ("a\r\nb\nc\n", " a\n-b\n+x\n c", "a\r\nx\nc\n"),
            ("don\u{2019}t\nb\n", " don't\n-b\n+c", "don\u{2019}t\nc\n"),
        ] {
            assert_eq!(
                fitted(text, hunks).as_deref(),
                Ok(expected),
                "{text:?} {hunks:?}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (hunks, expected) in [
            ("@@ zz\n-a\n+x", "Failed to find context 'zz' in f"),
            ("-a\n-zz\n+x", "Failed to find expected lines in f:\na\nzz"),
            (
                "@@\n-b\n+x\n@@\n-a\n+y",
                "Failed to find expected lines in f:\na",
            ),
            (
                "@@\n-b\n+x\n@@\n-b\n-c\n*** End of File",
                "Two hunks change the same lines of f; merge them into one",
            ),
        ] {
            assert_eq!(
                fitted("a\nb\nc\n", hunks),
                Err(expected.to_owned()),
                "{hunks:?}"
            );
        }
        let long = "-zz\n".repeat(100);
        assert!(
            fitted("a\n", long.trim_end())
                .unwrap_err()
                .ends_with("and 60 more lines")
        );
    }

    #[test]
    fn a_thousand_hunks_are_quick() {
        let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
        let hunks: Vec<String> = (0..1000)
            .map(|n| format!("@@\n line {}\n-line {}\n+changed", n * 20, n * 20 + 1))
            .collect();
        let started = std::time::Instant::now();
        let out = fitted(&text, &hunks.join("\n")).unwrap();
        assert_eq!(out.matches("changed\n").count(), 1000);
        // 50 ms is the goal of an optimised build.
        let limit = if cfg!(debug_assertions) { 2000 } else { 50 };
        assert!(
            started.elapsed().as_millis() < limit,
            "{:?}",
            started.elapsed()
        );
    }

    /// One step of a random edit of a file of unique lines.
    #[derive(Clone, Debug)]
    enum Step {
        Keep,
        Remove,
        Add,
    }

    proptest! {
        /// The model: edit a list of lines, write the patch from the same
        /// steps, and compare.
        #[test]
        fn a_patch_does_what_its_lines_say(
            steps in prop::collection::vec(prop::sample::select(vec![Step::Keep, Step::Keep, Step::Keep, Step::Remove, Step::Add]), 1..60),
            context in 0_usize..4,
            ending in prop::sample::select(vec!["\n", "\r\n"]),
            last_end: bool,
        ) {
            let (mut old, mut new, mut ops) = (Vec::new(), Vec::new(), Vec::new());
            for (number, step) in steps.iter().enumerate() {
                match step {
                    Step::Keep => { old.push(format!("line {number}")); new.push(format!("line {number}")); ops.push((' ', number)); }
                    Step::Remove => { old.push(format!("line {number}")); ops.push(('-', number)); }
                    Step::Add => { new.push(format!("line {number}")); ops.push(('+', number)); }
                }
            }
            // Context lines are kept around each change, like diff -U does.
            let near = |at: usize| ops.iter().enumerate().any(|(other, op)| op.0 != ' ' && other.abs_diff(at) <= context);
            let mut hunks = String::new();
            let mut open = false;
            for (at, (mark, number)) in ops.iter().enumerate() {
                if !near(at) { open = false; continue; }
                if !open { hunks.push_str("@@\n"); open = true; }
                hunks.push_str(&format!("{mark}line {number}\n"));
            }
            // A hunk of additions alone has no place but the end.
            prop_assume!(!hunks.is_empty());
            prop_assume!(hunks.split("@@\n").skip(1).all(|hunk| hunk.lines().any(|line| !line.starts_with('+'))));
            let join = |lines: &[String], end: bool| {
                let text = lines.join(ending);
                if lines.is_empty() || !end { text } else { text + ending }
            };
            let text = join(&old, last_end);
            // Without any line end, LF is the dominant one.
            prop_assume!(ending == "\n" || text.contains('\n'));
            prop_assert_eq!(fitted(&text, hunks.trim_end()), Ok(join(&new, true)));
        }
    }
}
