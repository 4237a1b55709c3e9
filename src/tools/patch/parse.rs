//! The grammar of a patch.

const BEGIN: &str = "*** Begin Patch";
const END: &str = "*** End Patch";
const ADD: &str = "*** Add File: ";
const DELETE: &str = "*** Delete File: ";
const UPDATE: &str = "*** Update File: ";
const MOVE: &str = "*** Move to: ";
const END_OF_FILE: &str = "*** End of File";

/// One section of a patch; paths are as the patch gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Write a new file.
    Add {
        /// The file.
        path: &'a str,
        /// Its lines, without line feeds.
        lines: Vec<&'a str>,
    },
    /// Remove a file.
    Delete {
        /// The file.
        path: &'a str,
    },
    /// Change a file, and perhaps its name.
    Update {
        /// The file.
        path: &'a str,
        /// Its new name.
        to: Option<&'a str>,
        /// What changes, from top to bottom.
        hunks: Vec<Hunk<'a>>,
    },
}

/// One change in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hunk<'a> {
    /// The line after `@@`, below which the change is.
    pub context: Option<&'a str>,
    /// The lines.
    pub body: Vec<Body<'a>>,
    /// Whether the change is at the end of the file.
    pub at_end: bool,
}

/// A line of a hunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// Stays.
    Keep(&'a str),
    /// Goes.
    Remove(&'a str),
    /// Comes.
    Add(&'a str),
}

/// A text that is no patch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It does not start as a patch.
    #[error("The first line of the patch must be '*** Begin Patch'")]
    NoBegin,
    /// It does not end as one.
    #[error("The last line of the patch must be '*** End Patch'")]
    NoEnd,
    /// A section starts with something else.
    #[error(
        "'{0}' is not a valid hunk header. Valid hunk headers: '*** Add File: {{path}}', '*** Delete File: {{path}}', '*** Update File: {{path}}'"
    )]
    Header(String),
    /// A section names no file.
    #[error("{0} path cannot be empty")]
    EmptyPath(&'static str),
    /// An update without changes.
    #[error("Update file hunk for path '{0}' is empty")]
    EmptyUpdate(String),
    /// A hunk without lines.
    #[error("Update hunk does not contain any lines")]
    EmptyHunk,
    /// A hunk after the first starts with something else.
    #[error("Expected update hunk to start with a @@ context marker, got: '{0}'")]
    NoMarker(String),
    /// A line of a hunk without its prefix.
    #[error(
        "Unexpected line found in update hunk: '{0}'. Lines of a hunk start with ' ' (stays), '+' (comes) or '-' (goes)"
    )]
    Line(String),
    /// Nothing to do.
    #[error("No files were modified.")]
    Nothing,
}

/// Reads a patch. CRLF is accepted, and a heredoc around the patch.
pub fn parse(input: &str) -> Result<Vec<Operation<'_>>, ParseError> {
    let lines: Vec<&str> = input
        .trim()
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .collect();
    let lines = envelope(&lines)?;
    let mut parser = Parser { lines, at: 0 };
    let mut operations = Vec::new();
    while let Some(line) = parser.peek() {
        operations.push(parser.operation(line)?);
    }
    if operations.is_empty() {
        return Err(ParseError::Nothing);
    }
    Ok(operations)
}

/// The lines between the two markers.
fn envelope<'l, 'a>(lines: &'l [&'a str]) -> Result<&'l [&'a str], ParseError> {
    let inner = |lines: &'l [&'a str]| match lines {
        [first, inner @ .., last] if first.trim() == BEGIN && last.trim() == END => Some(inner),
        _ => None,
    };
    if let Some(inner) = inner(lines) {
        return Ok(inner);
    }
    if let [first, heredoc @ .., last] = lines
        && matches!(*first, "<<EOF" | "<<'EOF'" | "<<\"EOF\"")
        && last.ends_with("EOF")
        && let Some(inner) = inner(heredoc)
    {
        return Ok(inner);
    }
    if lines.first().is_none_or(|line| line.trim() != BEGIN) {
        return Err(ParseError::NoBegin);
    }
    Err(ParseError::NoEnd)
}

struct Parser<'l, 'a> {
    lines: &'l [&'a str],
    at: usize,
}

impl<'a> Parser<'_, 'a> {
    fn peek(&self) -> Option<&'a str> {
        self.lines.get(self.at).copied()
    }

    fn operation(&mut self, line: &'a str) -> Result<Operation<'a>, ParseError> {
        // Only the header's own line may be indented.
        let header = line.trim();
        self.at += 1;
        if let Some(path) = section(header, ADD) {
            return Ok(Operation::Add {
                path: not_empty(path, "Add File")?,
                lines: self.added(),
            });
        }
        if let Some(path) = section(header, DELETE) {
            let path = not_empty(path, "Delete File")?;
            return Ok(Operation::Delete { path });
        }
        if let Some(path) = section(header, UPDATE) {
            return self.update(not_empty(path, "Update File")?);
        }
        Err(ParseError::Header(shown(header)))
    }

    fn added(&mut self) -> Vec<&'a str> {
        let mut lines = Vec::new();
        while let Some(line) = self.peek().and_then(|line| line.strip_prefix('+')) {
            lines.push(line);
            self.at += 1;
        }
        lines
    }

    fn update(&mut self, path: &'a str) -> Result<Operation<'a>, ParseError> {
        let to = match self.peek().and_then(|line| section(line, MOVE)) {
            Some(to) => {
                self.at += 1;
                Some(not_empty(to.trim_end(), "Move to")?)
            }
            None => None,
        };
        let mut hunks = Vec::new();
        while let Some(line) = self.peek() {
            if line.trim().is_empty() {
                self.at += 1;
            } else if line.starts_with("***") {
                break;
            } else {
                hunks.push(self.hunk(line, hunks.is_empty())?);
            }
        }
        if hunks.is_empty() {
            return Err(ParseError::EmptyUpdate(shown(path)));
        }
        Ok(Operation::Update { path, to, hunks })
    }

    fn hunk(&mut self, first: &'a str, may_omit_marker: bool) -> Result<Hunk<'a>, ParseError> {
        let mut hunk = Hunk::default();
        if first == "@@" {
            self.at += 1;
        } else if let Some(context) = first.strip_prefix("@@ ") {
            hunk.context = Some(context);
            self.at += 1;
        } else if !may_omit_marker {
            return Err(ParseError::NoMarker(shown(first)));
        }
        while let Some(line) = self.peek() {
            if line == END_OF_FILE {
                if hunk.body.is_empty() {
                    return Err(ParseError::EmptyHunk);
                }
                hunk.at_end = true;
                self.at += 1;
                break;
            }
            let rest = line.get(1..).unwrap_or("");
            hunk.body.push(match line.as_bytes().first() {
                None => Body::Keep(""),
                Some(b' ') => Body::Keep(rest),
                Some(b'+') => Body::Add(rest),
                Some(b'-') => Body::Remove(rest),
                Some(_) if hunk.body.is_empty() => return Err(ParseError::Line(shown(line))),
                Some(_) => break,
            });
            self.at += 1;
        }
        if hunk.body.is_empty() {
            return Err(ParseError::EmptyHunk);
        }
        Ok(hunk)
    }
}

/// What follows a marker; nothing follows one whose path was forgotten.
fn section<'a>(line: &'a str, marker: &str) -> Option<&'a str> {
    line.strip_prefix(marker)
        .or_else(|| (line == marker.trim_end()).then_some(""))
}

fn not_empty<'a>(path: &'a str, what: &'static str) -> Result<&'a str, ParseError> {
    if path.trim().is_empty() {
        return Err(ParseError::EmptyPath(what));
    }
    Ok(path)
}

/// A line of the patch, short enough for an error.
fn shown(line: &str) -> String {
    let (start, cut) = crate::tools::text::head(line, 200);
    if cut {
        format!("{start}...")
    } else {
        start.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(body: &str) -> String {
        format!("*** Begin Patch\n{body}\n*** End Patch")
    }

    #[test]
    fn every_section_is_read() {
        let text = patch(
            "*** Add File: new\n+a\n+\n*** Delete File: old\n*** Update File: f\n*** Move to: g\n keep\n-go\n+come\n\n@@ fn x\n+tail\n*** End of File\n\n@@\n-z",
        );
        assert_eq!(
            parse(&text).unwrap(),
            [
                Operation::Add {
                    path: "new",
                    lines: vec!["a", ""]
                },
                Operation::Delete { path: "old" },
                Operation::Update {
                    path: "f",
                    to: Some("g"),
                    hunks: vec![
                        Hunk {
                            context: None,
                            body: vec![
                                Body::Keep("keep"),
                                Body::Remove("go"),
                                Body::Add("come"),
                                Body::Keep("")
                            ],
                            at_end: false
                        },
                        Hunk {
                            context: Some("fn x"),
                            body: vec![Body::Add("tail")],
                            at_end: true
                        },
                        Hunk {
                            context: None,
                            body: vec![Body::Remove("z")],
                            at_end: false
                        },
                    ]
                },
            ]
        );
    }

    #[test]
    fn wrappers_and_line_ends_do_not_matter() {
        let plain = patch("*** Delete File: a b");
        let expected = [Operation::Delete { path: "a b" }];
        for text in [
            plain.clone(),
            format!("\n  {plain}  \n\n"),
            plain.replace('\n', "\r\n"),
            format!("<<EOF\n{plain}\nEOF"),
            format!("<<'EOF'\n{plain}\nEOF\n"),
            format!("<<\"EOF\"\n{plain}\nEOF"),
        ] {
            assert_eq!(parse(&text).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_patch_is_named() {
        for (text, expected) in [
            (
                String::new(),
                "The first line of the patch must be '*** Begin Patch'",
            ),
            (
                "*** Begin Patch".to_owned(),
                "The last line of the patch must be '*** End Patch'",
            ),
            (
                "<<EOF\nx\nEOF".to_owned(),
                "The first line of the patch must be '*** Begin Patch'",
            ),
            (
                "*** Begin Patch\n*** End Patch".to_owned(),
                "No files were modified.",
            ),
            (patch("nonsense"), "'nonsense' is not a valid hunk header."),
            (patch("*** Add File: "), "Add File path cannot be empty"),
            (
                patch("*** Delete File:  "),
                "Delete File path cannot be empty",
            ),
            (
                patch("*** Update File:"),
                "Update File path cannot be empty",
            ),
            (
                patch("*** Update File: f\n*** Move to: "),
                "Move to path cannot be empty",
            ),
            (
                patch("*** Update File: f"),
                "Update file hunk for path 'f' is empty",
            ),
            (
                patch("*** Update File: f\n@@\n*** End of File"),
                "Update hunk does not contain any lines",
            ),
            (
                patch("*** Update File: f\n@@"),
                "Update hunk does not contain any lines",
            ),
            (
                patch("*** Update File: f\n+a\nx"),
                "Expected update hunk to start with a @@ context marker, got: 'x'",
            ),
            (
                patch("*** Update File: f\n@@\nx"),
                "Unexpected line found in update hunk: 'x'.",
            ),
            (
                patch("*** Update File: f\n@@\né"),
                "Unexpected line found in update hunk: 'é'.",
            ),
            (
                patch("*** Add File: f\n+a\nb"),
                "'b' is not a valid hunk header.",
            ),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }
}
