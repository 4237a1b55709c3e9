//! Replacing text in a file without touching the rest of it (04 §7.4, 00 §6).
//!
//! Invariants: CRLF matches as if it were LF; every line outside the change
//! keeps its bytes, its ending included; new lines get the file's dominant
//! ending. Pure: no file is read or written here.

use std::borrow::Cow;

use similar::DiffOp;

use crate::line_diff::line_diff;

/// Shown of a string that was not found, in characters.
const QUOTED: usize = 2000;

/// One replacement to make.
#[derive(Clone, Copy, Debug)]
pub struct Replacement<'a> {
    /// What to look for; not empty.
    pub old: &'a str,
    /// What takes its place.
    pub new: &'a str,
    /// Replace every occurrence.
    pub all: bool,
    /// How many occurrences there must be; more than one implies `all`.
    pub expected: Option<usize>,
    /// When nothing matches, try `old` again without surplus backslashes.
    pub unescape: bool,
}

/// What a replacement came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The whole new text.
    pub text: String,
    /// How many occurrences were replaced.
    pub count: usize,
    /// Line of the first occurrence, counted from 1.
    pub start_line: usize,
}

/// A replacement that was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// Nothing to look for.
    #[error("old_string cannot be empty. Provide the exact text you want to replace.")]
    Empty,
    /// Old and new are the same.
    #[error("No changes to make: old_string and new_string are exactly the same.")]
    Same,
    /// The old text is not in the file.
    #[error("String to replace not found in file.\nString: {old}\nPossible mismatch reasons:\n- {}", .hints.join("\n- "))]
    NotFound {
        /// What was looked for, cut.
        old: String,
        /// Why it may not have matched.
        hints: Vec<&'static str>,
    },
    /// There are more or fewer occurrences than the caller said.
    #[error("Expected {expected} occurrence{} but found {found}. Make old_string more specific, or correct expected_replacements or replace_all.", crate::tools::text::plural(*.expected))]
    Count {
        /// What the caller said.
        expected: usize,
        /// What there is.
        found: usize,
    },
    /// Several occurrences and no word that all are meant.
    #[error(
        "Found {found} matches of the string to replace, but replace_all is false. Set replace_all to true to replace all of them, or add surrounding lines to old_string until it is unique.\nString: {old}"
    )]
    Ambiguous {
        /// How many.
        found: usize,
        /// What was looked for, cut.
        old: String,
    },
}

/// Makes one replacement in `text`.
pub fn replace(text: &str, change: Replacement<'_>) -> Result<Replaced, ReplaceError> {
    let old = lf(change.old);
    let new = lf(change.new);
    if old.is_empty() {
        return Err(ReplaceError::Empty);
    }
    if old == new {
        return Err(ReplaceError::Same);
    }
    let folded = Folded::new(text);
    let mut needle = Cow::Borrowed(&*old);
    let mut places = folded.find(&needle);
    if places.is_empty() && change.unescape {
        let unescaped = unescape(&old);
        places = folded.find(&unescaped);
        if !places.is_empty() {
            needle = Cow::Owned(unescaped);
        }
    }
    let Some(&first) = places.first() else {
        return Err(ReplaceError::NotFound {
            old: quoted(change.old),
            hints: hints(&folded.text, &old),
        });
    };
    if let Some(expected) = change.expected
        && expected != places.len()
    {
        return Err(ReplaceError::Count {
            expected,
            found: places.len(),
        });
    }
    if places.len() > 1 && !change.all && change.expected.is_none() {
        return Err(ReplaceError::Ambiguous {
            found: places.len(),
            old: quoted(change.old),
        });
    }
    Ok(Replaced {
        text: folded.splice(&places, &needle, &new),
        count: places.len(),
        start_line: folded.text.as_bytes()[..first]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1,
    })
}

/// The ending that most lines of a text have: CRLF, or LF when in doubt.
pub fn dominant_ending(text: &str) -> &'static str {
    let all = text.bytes().filter(|byte| *byte == b'\n').count();
    let crlf = text.matches("\r\n").count();
    if crlf * 2 > all { "\r\n" } else { "\n" }
}

fn lf(text: &str) -> Cow<'_, str> {
    if text.contains("\r\n") {
        Cow::Owned(text.replace("\r\n", "\n"))
    } else {
        Cow::Borrowed(text)
    }
}

/// A text with CRLF folded to LF, and the way back to its bytes.
struct Folded<'a> {
    original: &'a str,
    text: Cow<'a, str>,
    /// Where in `text` the line feeds stand that were CRLF.
    folds: Vec<usize>,
    mixed: bool,
    ending: &'static str,
}

impl<'a> Folded<'a> {
    fn new(original: &'a str) -> Self {
        let text = lf(original);
        let folds: Vec<usize> = original
            .match_indices("\r\n")
            .enumerate()
            .map(|(before, (at, _))| at - before)
            .collect();
        let lines = text.bytes().filter(|byte| *byte == b'\n').count();
        Self {
            original,
            text,
            mixed: !folds.is_empty() && folds.len() < lines,
            ending: if folds.len() * 2 > lines {
                "\r\n"
            } else {
                "\n"
            },
            folds,
        }
    }

    fn find(&self, needle: &str) -> Vec<usize> {
        self.text.match_indices(needle).map(|(at, _)| at).collect()
    }

    /// Where the byte at `folded` came from.
    fn original_at(&self, folded: usize) -> usize {
        folded + self.folds.partition_point(|fold| *fold < folded)
    }

    fn splice(&self, places: &[usize], old: &str, new: &str) -> String {
        let mut out = String::with_capacity(self.original.len() + places.len() * new.len());
        let mut kept = 0;
        for &place in places {
            let (from, to) = (self.original_at(place), self.original_at(place + old.len()));
            out.push_str(&self.original[kept..from]);
            if self.mixed {
                self.merge(&mut out, place, old, new);
            } else {
                push_with_ending(&mut out, new, self.ending);
            }
            kept = to;
        }
        out.push_str(&self.original[kept..]);
        out
    }

    /// In a file of mixed endings: lines that old and new have in common keep
    /// their bytes, only the others get the dominant ending.
    fn merge(&self, out: &mut String, place: usize, old: &str, new: &str) {
        let old_lines: Vec<&str> = old.split_inclusive('\n').collect();
        let new_lines: Vec<&str> = new.split_inclusive('\n').collect();
        let mut starts = Vec::with_capacity(old_lines.len() + 1);
        let mut at = place;
        for line in &old_lines {
            starts.push(at);
            at += line.len();
        }
        starts.push(at);
        for op in line_diff(&old_lines, &new_lines) {
            match op {
                DiffOp::Equal { old_index, len, .. } => {
                    let from = self.original_at(starts[old_index]);
                    let to = self.original_at(starts[old_index + len]);
                    out.push_str(&self.original[from..to]);
                }
                DiffOp::Delete { .. } => {}
                DiffOp::Insert {
                    new_index, new_len, ..
                }
                | DiffOp::Replace {
                    new_index, new_len, ..
                } => {
                    for line in &new_lines[new_index..new_index + new_len] {
                        push_with_ending(out, line, self.ending);
                    }
                }
            }
        }
    }
}

fn push_with_ending(out: &mut String, text: &str, ending: &str) {
    if ending == "\n" {
        out.push_str(text);
        return;
    }
    for (index, part) in text.split('\n').enumerate() {
        if index > 0 {
            out.push_str(ending);
        }
        out.push_str(part);
    }
}

/// Models sometimes escape what needs no escaping: one or more backslashes
/// before n t r ' " ` \ or a line feed become that character.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let run = rest[at..].bytes().take_while(|byte| *byte == b'\\').count();
        let after = &rest[at + run..];
        let escaped = match after.chars().next() {
            Some('n') => Some('\n'),
            Some('t') => Some('\t'),
            Some('r') => Some('\r'),
            Some(quote @ ('\'' | '"' | '`' | '\n')) => Some(quote),
            _ => None,
        };
        match escaped {
            Some(character) => {
                out.push(character);
                rest = &after[1..];
            }
            // Backslashes alone: several stand for one.
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn quoted(text: &str) -> String {
    match super::text::head(text, QUOTED) {
        (all, false) => all.to_owned(),
        (start, true) => format!("{start}..."),
    }
}

fn hints(text: &str, old: &str) -> Vec<&'static str> {
    let mut hints = Vec::new();
    let trimmed = old.trim();
    if trimmed != old && !trimmed.is_empty() && text.contains(trimmed) {
        hints.push("Leading or trailing whitespace is not the same in the file.");
    }
    let typographic = [('\'', '\u{2019}'), ('"', '\u{201C}'), ('"', '\u{201D}')]
        .iter()
        .any(|(plain, curly)| {
            old.contains(*plain) && text.contains(&old.replace(*plain, &curly.to_string()))
        });
    if typographic {
        hints.push("The file has typographic quotes where old_string has straight ones.");
    }
    let collapsed = collapse(old);
    let collapsed = collapsed.trim();
    if collapsed.chars().count() >= 20 && collapsed != old && collapse(text).contains(collapsed) {
        hints.push("Line breaks or indentation are not the same in the file.");
    }
    if hints.is_empty() {
        hints.push("The snippet may be out of date: read the file again and copy the exact text.");
    }
    hints
}

/// Runs of whitespace become one space.
fn collapse(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if !character.is_whitespace() {
            out.push(character);
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change<'a>(old: &'a str, new: &'a str) -> Replacement<'a> {
        Replacement {
            old,
            new,
            all: false,
            expected: None,
            unescape: true,
        }
    }

    fn text(of: &str, old: &str, new: &str) -> String {
        replace(of, change(old, new)).unwrap().text
    }

    fn error(of: &str, old: &str, new: &str) -> String {
        replace(of, change(old, new)).unwrap_err().to_string()
    }

    #[test]
    fn one_occurrence_is_replaced_and_located() {
        let replaced = replace("a\nb\nc\n", change("b\nc", "x")).unwrap();
        assert_eq!(
            replaced,
            Replaced {
                text: "a\nx\n".to_owned(),
                count: 1,
                start_line: 2
            }
        );
    }

    #[test]
    fn endings_and_the_missing_final_newline_stay() {
        for (of, old, new, expected) in [
            ("a\r\nb\r\nc", "b\nc", "x\ny", "a\r\nx\r\ny"),
            ("a\r\nb\r\n", "a\r\n", "a\r\nx\r\n", "a\r\nx\r\nb\r\n"),
            ("a\nb\n", "b", "x\r\ny", "a\nx\ny\n"),
            // Mixed: lines in common keep their bytes, others get the dominant ending.
            (
                "a\nb\r\nc\r\nd\r\n",
                "a\nb\nc",
                "a\nX\nc",
                "a\nX\r\nc\r\nd\r\n",
            ),
            ("a\r\nb\nc\nd\n", "a\nb", "a\nX\nb", "a\r\nX\nb\nc\nd\n"),
            ("a\r\nb\nc\nd\n", "\nb", "+b", "a+b\nc\nd\n"),
            // A lone carriage return is text like any other.
            ("a\rb\n", "a\rb", "x", "x\n"),
            ("a", "a", "", ""),
        ] {
            assert_eq!(text(of, old, new), expected, "{of:?} {old:?} {new:?}");
        }
    }

    #[test]
    fn several_occurrences_need_a_word() {
        assert!(
            error("a a", "a", "b")
                .starts_with("Found 2 matches of the string to replace, but replace_all is false.")
        );
        let all = replace(
            "a a",
            Replacement {
                all: true,
                ..change("a", "b")
            },
        )
        .unwrap();
        assert_eq!((all.text.as_str(), all.count), ("b b", 2));
        let expected = |n| {
            replace(
                "a a",
                Replacement {
                    expected: Some(n),
                    ..change("a", "b")
                },
            )
            .map(|replaced| replaced.text)
            .map_err(|error| error.to_string())
        };
        assert_eq!(expected(2).unwrap(), "b b");
        assert!(
            expected(1)
                .unwrap_err()
                .starts_with("Expected 1 occurrence but found 2.")
        );
        assert!(
            expected(3)
                .unwrap_err()
                .starts_with("Expected 3 occurrences but found 2.")
        );
    }

    #[test]
    fn surplus_backslashes_are_taken_off_the_old_text_only() {
        assert_eq!(text("say \"hi\"\n", r#"say \"hi\"\n"#, r"x\n"), "x\\n");
        assert_eq!(text("a\tb", r"a\\\tb", "x"), "x");
        assert_eq!(text(r"a\b", r"a\\b", "x"), "x");
        // What matches as it stands is not unescaped.
        assert_eq!(text("\\n\n", r"\n", "x"), "x\n");
        let off = Replacement {
            unescape: false,
            ..change(r"a\n", "x")
        };
        assert!(matches!(
            replace("a\n", off),
            Err(ReplaceError::NotFound { .. })
        ));
    }

    #[test]
    fn errors_say_what_may_be_wrong() {
        assert_eq!(
            error("a", "", "b"),
            "old_string cannot be empty. Provide the exact text you want to replace."
        );
        assert_eq!(
            error("a", "x\r\n", "x\n"),
            "No changes to make: old_string and new_string are exactly the same."
        );
        let hint = |of, old| {
            let error = error(of, old, "x");
            assert!(error.starts_with(&format!("String to replace not found in file.\nString: {old}\nPossible mismatch reasons:\n- ")), "{error}");
            error
        };
        assert!(hint("foo", " foo ").contains("whitespace"));
        assert!(hint("don\u{2019}t", "don't").contains("typographic"));
        assert!(
            hint("if (a) {\n    return 12345;", "if (a) {\n\treturn 12345;")
                .contains("indentation")
        );
        assert!(hint("foo", "bar").contains("out of date"));
        let long = "y".repeat(1_000_000);
        assert!(error("x", &long, "").len() < 3000);
    }

    /// Texts over few characters, so that needles are found.
    fn small() -> impl Strategy<Value = String> {
        prop::collection::vec(
            prop::sample::select(vec!["a", "b", "é", "\n", "\r\n", "\r"]),
            0..24,
        )
        .prop_map(|parts| parts.concat())
    }

    proptest! {
        /// The model: fold everything to LF and use the standard library.
        #[test]
        fn an_edit_is_a_replacement_of_folded_text(of in small(), old in small(), new in small(), all: bool) {
            let fold = |text: &str| text.replace("\r\n", "\n");
            let (flat, needle) = (fold(&of), fold(&old));
            let change = Replacement { all, unescape: false, ..change(&old, &new) };
            let result = replace(&of, change);
            let found = if needle.is_empty() { 0 } else { flat.matches(&needle).count() };
            match result {
                Ok(replaced) => {
                    prop_assert!(found == 1 || (all && found > 1));
                    prop_assert_eq!(replaced.count, found);
                    // Joined pieces may form new CRLF pairs; with none of those the model is exact.
                    if !new.contains('\r') && !of.replace("\r\n", "").contains('\r') && !old.replace("\r\n", "").contains('\r') {
                        prop_assert_eq!(fold(&replaced.text), flat.replace(&needle, &fold(&new)));
                        let at = flat.find(&needle).unwrap();
                        prop_assert_eq!(replaced.start_line, flat[..at].split('\n').count());
                        if !of.contains("\r\n") {
                            prop_assert!(!replaced.text.contains('\r'));
                        }
                        if !flat.is_empty() && of == flat.replace('\n', "\r\n") && flat.contains('\n') {
                            prop_assert_eq!(replaced.text.clone(), fold(&replaced.text).replace('\n', "\r\n"));
                        }
                    }
                }
                Err(ReplaceError::Empty) => prop_assert!(needle.is_empty()),
                Err(ReplaceError::Same) => prop_assert_eq!(needle, fold(&new)),
                Err(ReplaceError::NotFound { .. }) => prop_assert_eq!(found, 0),
                Err(ReplaceError::Ambiguous { found: said, .. }) => prop_assert!(said == found && !all && found > 1),
                Err(ReplaceError::Count { .. }) => prop_assert!(false, "no count was expected"),
            }
        }

        /// Everything before and after the one match keeps its bytes.
        #[test]
        fn bytes_outside_the_match_stay(before in small(), after in small(), new in "[xy\n]{0,6}") {
            prop_assume!(!before.ends_with('\r'));
            let of = format!("{before}<<\r\n>>{after}");
            let out = text(&of, "<<\n>>", &new);
            prop_assert!(out.starts_with(&before) && out.ends_with(&after), "{out:?}");
        }
    }
}
