//! Searching the content of files line by line.

use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use grep_matcher::Matcher;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{
    BinaryDetection, MmapChoice, Searcher, SearcherBuilder, Sink, SinkContext, SinkMatch,
};

use super::keep::{Keep, Weight};
use super::tree::Trouble;
use super::{Budget, SearchError, Stop, Tree, Troubles};
use crate::tools::disk;
use crate::tools::text::head;

/// A compiled pattern of more bytes is refused: it would also run slowly.
const PATTERN_BYTES: usize = 10 * 1024 * 1024;

/// A pattern of more bytes is not even parsed.
const PATTERN_TEXT: usize = 256 * 1024;

/// Memory for one thread's buffer: a longer line, or a larger file in a
/// multi-line search, is told as trouble.
const BUFFER_BYTES: usize = 32 * 1024 * 1024;

/// So much of a file is read until the budget is asked again.
const BYTES_UNASKED: usize = 1024 * 1024;

/// Characters kept of one line.
const LINE_CHARS: usize = 10_000;

/// More lines, files or bytes are not kept, only counted.
const MAX_ITEMS: usize = 100_000;
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What to look for.
#[derive(Clone, Debug, Default)]
pub struct Pattern {
    /// A regular expression in ripgrep's syntax, or the text itself.
    pub text: String,
    /// Take the text as it is.
    pub literal: bool,
    /// Ignore case.
    pub ignore_case: bool,
    /// Match whole words only.
    pub whole_word: bool,
    /// Let matches span lines and `.` match line feeds.
    pub multiline: bool,
}

/// What to bring back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Which files match.
    Files {
        /// At most so many of them.
        max: usize,
    },
    /// How often each file matches.
    Counts {
        /// Of at most so many files.
        max: usize,
    },
    /// The matching lines.
    Lines {
        /// At most so many, context lines included; whole files beyond the
        /// last one are not kept.
        max: usize,
        /// Lines of context before a match.
        before: usize,
        /// Lines of context after a match.
        after: usize,
        /// Count what lies beyond `max` too, instead of skipping it.
        totals: bool,
    },
}

/// A compiled search.
#[derive(Clone, Debug)]
pub struct Query {
    matcher: RegexMatcher,
    multiline: bool,
}

/// One line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: u64,
    /// Without its terminator; what is not UTF-8 is replaced; cut to
    /// 10,000 characters.
    pub text: String,
    /// The first match, as bytes of `text`; `None` for a line of context and
    /// for the further lines of a match that spans several.
    pub hit: Option<Range<usize>>,
    /// Whether it belongs to a match.
    pub matched: bool,
}

/// The matches of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileHits {
    /// Matching lines, or matches in a multi-line search.
    pub count: u64,
    /// The lines kept, in order.
    pub lines: Vec<Line>,
    /// Where the first NUL byte stands, if one was seen: text ends there.
    pub binary_at: Option<u64>,
}

/// The matches of a tree.
#[derive(Debug)]
pub struct Found {
    /// Files with a match, sorted by path; the first of them.
    pub files: Vec<(PathBuf, FileHits)>,
    /// How many files match; without `totals`, at least so many.
    pub total_files: usize,
    /// Sum of all counts, the same.
    pub total_count: u64,
    /// What could not be searched.
    pub troubles: Troubles,
    /// Why the search is not complete.
    pub stopped: Option<Stop>,
}

impl Query {
    /// Compiles a pattern.
    pub fn new(pattern: &Pattern) -> Result<Self, SearchError> {
        if pattern.text.len() > PATTERN_TEXT {
            return Err(SearchError::Pattern(format!(
                "the pattern is too long: {} bytes (max {PATTERN_TEXT})",
                pattern.text.len()
            )));
        }
        if pattern.text.contains('\0') {
            let why = "the pattern holds a NUL byte, which no text does";
            return Err(SearchError::Pattern(why.to_owned()));
        }
        let mut builder = RegexMatcherBuilder::new();
        builder
            .multi_line(true)
            .unicode(true)
            .octal(false)
            .case_insensitive(pattern.ignore_case)
            .word(pattern.whole_word)
            .fixed_strings(pattern.literal)
            .size_limit(PATTERN_BYTES)
            .dfa_size_limit(PATTERN_BYTES)
            .ban_byte(Some(0));
        if pattern.multiline {
            builder.dot_matches_new_line(true);
        } else {
            builder.line_terminator(Some(b'\n'));
        }
        let matcher = builder
            .build(&pattern.text)
            .map_err(|error| SearchError::Pattern(explain(&error)))?;
        Ok(Self {
            matcher,
            multiline: pattern.multiline,
        })
    }

    fn searcher(&self, wanted: Wanted, explicit: bool) -> Searcher {
        let mut builder = SearcherBuilder::new();
        builder
            .line_number(matches!(wanted, Wanted::Lines { .. }))
            .multi_line(self.multiline)
            .heap_limit(Some(BUFFER_BYTES))
            .memory_map(MmapChoice::never())
            // A file that was named is searched to its end.
            .binary_detection(if explicit {
                BinaryDetection::convert(0)
            } else {
                BinaryDetection::quit(0)
            });
        if let Wanted::Lines { before, after, .. } = wanted {
            builder.before_context(before).after_context(after);
        }
        builder.build()
    }
}

fn explain(error: &grep_regex::Error) -> String {
    let text = error.to_string();
    if text.contains("not allowed in a regex") {
        format!("{text}; to match over line ends, search in multiline mode")
    } else {
        text
    }
}

/// Searches a tree, in several threads.
pub fn grep(
    tree: &Tree,
    query: &Query,
    wanted: Wanted,
    budget: &Budget,
) -> Result<Found, SearchError> {
    let (max, totals) = match wanted {
        Wanted::Files { max } | Wanted::Counts { max } => (max, true),
        Wanted::Lines { max, totals, .. } => (max, totals),
    };
    let max = max.clamp(1, MAX_ITEMS);
    let found = Mutex::new((
        Keep::new(Weight {
            items: max,
            bytes: MAX_BYTES,
        }),
        0_usize,
        0_u64,
    ));
    let lock = || found.lock().unwrap_or_else(PoisonError::into_inner);
    let full = AtomicBool::new(false);
    let walked = tree.visit(budget, &|| {
        // A thread's own, so that none waits for another: the buffer, and the
        // matcher, which keeps its state where its threads share it.
        let (query, mut searcher) = (query.clone(), None);
        let (lock, full) = (&lock, &full);
        Box::new(move |path, explicit| {
            let wants = !full.load(Ordering::Relaxed) || lock().0.wants(path);
            if !wants && !totals {
                return Ok(());
            }
            let searcher = searcher.get_or_insert_with(|| query.searcher(wanted, explicit));
            let max = if wants { max } else { 0 };
            let hits = search_file(path, &query, searcher, wanted, explicit, max, budget)?;
            if hits.count == 0 {
                return Ok(());
            }
            let mut found = lock();
            found.1 += 1;
            found.2 += hits.count;
            let weight = Weight {
                items: match wanted {
                    Wanted::Lines { .. } => hits.lines.len().max(1),
                    _ => 1,
                },
                bytes: hits.lines.iter().map(|line| line.text.len()).sum(),
            };
            found.0.insert(path.to_path_buf(), hits, weight);
            full.store(found.0.full(), Ordering::Relaxed);
            Ok(())
        })
    })?;
    let (kept, total_files, total_count) =
        found.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(stop) = walked.stopped
        && total_files == 0
    {
        return Err(SearchError::Stopped(stop));
    }
    Ok(Found {
        files: kept.into_sorted().collect(),
        total_files,
        total_count,
        troubles: walked.troubles,
        stopped: walked.stopped,
    })
}

fn search_file(
    path: &Path,
    query: &Query,
    searcher: &mut Searcher,
    wanted: Wanted,
    explicit: bool,
    max_lines: usize,
    budget: &Budget,
) -> Result<FileHits, Trouble> {
    let trouble =
        |error: &dyn std::fmt::Display| Trouble::Path(Some(path.to_path_buf()), error.to_string());
    let opened = if explicit {
        disk::open(path)
    } else {
        disk::open_seen(path)
    };
    let (file, _) = match opened {
        Ok(open) => open,
        // Gone since the walk saw it.
        Err(disk::FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(FileHits::default());
        }
        Err(disk::FileError::Io { source, .. }) => return Err(trouble(&source)),
        Err(error) => return Err(trouble(&error)),
    };
    let mut sink = Collect {
        query,
        wanted,
        max_lines,
        bytes: 0,
        budget,
        hits: FileHits::default(),
    };
    let watched = Watched {
        file,
        budget,
        unasked: 0,
    };
    match searcher.search_reader(&query.matcher, watched, &mut sink) {
        Ok(()) => Ok(sink.finished(explicit)),
        Err(error) => match stopped(&error) {
            Some(stop) => Err(Trouble::Stop(stop)),
            None => Err(trouble(&error)),
        },
    }
}

/// A stop on its way through a library that knows only I/O errors.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Stopped(Stop);

fn stopped(error: &io::Error) -> Option<Stop> {
    let inner = error.get_ref()?.downcast_ref::<Stopped>()?;
    Some(inner.0)
}

fn check(budget: &Budget) -> io::Result<()> {
    budget
        .check()
        .map_err(|stop| io::Error::other(Stopped(stop)))
}

/// A file whose reading ends with the budget.
struct Watched<'a> {
    file: std::fs::File,
    budget: &'a Budget,
    /// Bytes read since the budget was asked; before, the walk did.
    unasked: usize,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.unasked >= BYTES_UNASKED {
            check(self.budget)?;
            self.unasked = 0;
        }
        let read = self.file.read(buffer)?;
        self.unasked += read;
        Ok(read)
    }
}

/// Takes the events of one file.
struct Collect<'a> {
    query: &'a Query,
    wanted: Wanted,
    max_lines: usize,
    bytes: usize,
    budget: &'a Budget,
    hits: FileHits,
}

impl Collect<'_> {
    fn keeps_lines(&self) -> bool {
        matches!(self.wanted, Wanted::Lines { .. })
            && self.hits.lines.len() < self.max_lines
            && self.bytes < MAX_BYTES
    }

    /// Once enough lines are kept, only a search for totals goes on.
    fn goes_on(&self) -> bool {
        match self.wanted {
            Wanted::Lines { totals, .. } => totals || self.keeps_lines(),
            _ => true,
        }
    }

    fn push(&mut self, number: u64, bytes: &[u8], matched: bool, locate: bool) {
        let bytes = trim_line_end(bytes);
        let hit = locate
            .then(|| self.query.matcher.find(bytes).ok().flatten())
            .flatten()
            .map(|found| {
                let start = lossy_len(&bytes[..found.start()]);
                start..start + lossy_len(&bytes[found.start()..found.end()])
            });
        let text = String::from_utf8_lossy(bytes);
        let (shown, cut) = head(&text, LINE_CHARS);
        let length = shown.len();
        let text = if cut {
            format!("{shown}... [line truncated]")
        } else {
            text.into_owned()
        };
        self.bytes += text.len();
        self.hits.lines.push(Line {
            number,
            text,
            hit: hit.map(|hit| hit.start.min(length)..hit.end.min(length)),
            matched,
        });
    }

    /// What ripgrep makes of a file with a NUL byte: one that was found by
    /// walking shows the lines before it, but counts as no match elsewhere.
    fn finished(mut self, explicit: bool) -> FileHits {
        if self.hits.binary_at.is_some()
            && !explicit
            && !matches!(self.wanted, Wanted::Lines { .. })
        {
            self.hits = FileHits::default();
        }
        self.hits
    }
}

impl Sink for Collect<'_> {
    type Error = io::Error;

    fn matched(&mut self, searcher: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        check(self.budget)?;
        // A named file is searched past a NUL byte, but its lines are no text.
        let binary =
            self.hits.binary_at.is_some() && searcher.binary_detection().convert_byte().is_some();
        if self.query.multiline {
            let mut matches = 0;
            let counted = self.query.matcher.find_iter(found.bytes(), |_| {
                matches += 1;
                true
            });
            counted.map_err(io::Error::other)?;
            self.hits.count += matches.max(1);
        } else {
            self.hits.count += 1;
        }
        match self.wanted {
            Wanted::Files { .. } => return Ok(false),
            Wanted::Counts { .. } => return Ok(true),
            Wanted::Lines { totals, .. } if binary => return Ok(totals),
            Wanted::Lines { .. } => {}
        }
        let first = found.line_number().unwrap_or(0);
        for (offset, line) in found.lines().enumerate() {
            if self.keeps_lines() {
                self.push(first + offset as u64, line, true, offset == 0);
            }
        }
        Ok(self.goes_on())
    }

    fn context(&mut self, _: &Searcher, context: &SinkContext<'_>) -> io::Result<bool> {
        check(self.budget)?;
        if self.keeps_lines() {
            let number = context.line_number().unwrap_or(0);
            self.push(number, context.bytes(), false, false);
        }
        Ok(self.goes_on())
    }

    fn binary_data(&mut self, _: &Searcher, offset: u64) -> io::Result<bool> {
        self.hits.binary_at.get_or_insert(offset);
        Ok(true)
    }
}

fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn lossy_len(bytes: &[u8]) -> usize {
    String::from_utf8_lossy(bytes).len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;
    use tokio_util::sync::CancellationToken;

    fn budget() -> Budget {
        Budget::new(CancellationToken::new(), Duration::from_secs(60))
    }

    fn query(text: &str) -> Query {
        Query::new(&Pattern {
            text: text.to_owned(),
            ..Pattern::default()
        })
        .unwrap()
    }

    fn lines(max: usize, totals: bool) -> Wanted {
        Wanted::Lines {
            max,
            before: 0,
            after: 0,
            totals,
        }
    }

    #[test]
    fn rows_for_clients_have_places_true_neighbours_and_totals() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), b"one\r\n\xFFx two y\r\ntwo\r\nlast\n").unwrap();
        fs::write(dir.path().join("b"), "two\n".repeat(5)).unwrap();
        let wanted = Wanted::Lines {
            max: 3,
            before: 1,
            after: 1,
            totals: true,
        };
        let pattern = Pattern {
            text: "TWO".to_owned(),
            literal: true,
            ignore_case: true,
            whole_word: true,
            multiline: false,
        };
        let tree = Tree::new(dir.path().to_path_buf());
        let found = grep(&tree, &Query::new(&pattern).unwrap(), wanted, &budget()).unwrap();
        assert_eq!((found.total_files, found.total_count), (2, 7));
        assert_eq!(found.files.len(), 1);
        let line = |number, text: &str, hit, matched| Line {
            number,
            text: text.to_owned(),
            hit,
            matched,
        };
        assert_eq!(
            found.files[0].1.lines,
            [
                line(1, "one", None, false),
                line(2, "\u{FFFD}x two y", Some(5..8), true),
                line(3, "two", Some(0..3), true),
            ]
        );
    }

    #[test]
    fn lines_files_and_counts_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(dir.path().join(name), "x\n".repeat(1000)).unwrap();
        }
        fs::write(dir.path().join("d"), "x".repeat(LINE_CHARS * 3)).unwrap();
        let tree = Tree::new(dir.path().to_path_buf());
        let some = grep(&tree, &query("x"), lines(1500, false), &budget()).unwrap();
        let kept: Vec<usize> = some
            .files
            .iter()
            .map(|(_, hits)| hits.lines.len())
            .collect();
        assert_eq!(kept, [1000, 1000]);
        let all = grep(&tree, &query("x"), lines(1500, true), &budget()).unwrap();
        assert_eq!((all.total_files, all.total_count), (4, 3001));
        let one = Tree::new(dir.path().join("d"));
        let long = grep(&one, &query("x"), lines(5, false), &budget()).unwrap();
        let text = &long.files[0].1.lines[0].text;
        assert!(text.ends_with("x... [line truncated]") && text.len() < LINE_CHARS + 50);
    }

    #[test]
    fn patterns_that_explode_are_refused_at_once() {
        for text in [
            "(",
            "a{1000}{1000}{1000}",
            "((((((((((a{100}){100}){100}){100}",
            &"(".repeat(100_000),
            &"a".repeat(PATTERN_TEXT + 1),
            "a\nb",
            "a\0b",
        ] {
            let refused = Query::new(&Pattern {
                text: text.to_owned(),
                ..Pattern::default()
            });
            assert!(
                matches!(refused, Err(SearchError::Pattern(_))),
                "{text:.40}"
            );
        }
    }

    #[test]
    fn a_spent_budget_is_an_error_and_not_an_empty_result() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "x").unwrap();
        let tree = Tree::new(dir.path().to_path_buf());
        let cancelled = Budget::new(CancellationToken::new(), Duration::from_secs(60));
        cancelled.cancel.cancel();
        let late = Budget::new(CancellationToken::new(), Duration::ZERO);
        for (budget, stop) in [
            (cancelled, Stop::Cancelled),
            (late, Stop::TimedOut(Duration::ZERO)),
        ] {
            for tree in [tree.clone(), Tree::new(dir.path().join("a"))] {
                let error = grep(&tree, &query("x"), lines(5, false), &budget).unwrap_err();
                assert!(matches!(error, SearchError::Stopped(found) if found == stop));
            }
        }
    }

    #[test]
    fn what_is_left_out_is_not_found_under_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, "x").unwrap();
        fs::create_dir(dir.path().join("keys")).unwrap();
        fs::write(dir.path().join("keys/k"), "x").unwrap();
        fs::hard_link(&secret, dir.path().join("link")).unwrap();
        fs::write(dir.path().join("other"), "x").unwrap();
        let mut tree = Tree::new(dir.path().to_path_buf());
        tree.left_out = vec![secret.clone(), dir.path().join("keys")];
        let found = grep(&tree, &query("x"), Wanted::Files { max: 9 }, &budget()).unwrap();
        let names: Vec<_> = found
            .files
            .iter()
            .map(|(path, _)| path.file_name().unwrap())
            .collect();
        assert_eq!(names, ["other"]);
        tree.root = secret;
        let found = grep(&tree, &query("x"), Wanted::Files { max: 9 }, &budget()).unwrap();
        assert_eq!(found.total_files, 0);
    }
}
