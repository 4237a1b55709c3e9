//! Searching a tree of files in the process, with the answers of ripgrep
//! (04 §7.6, §7.7; 06 §3.5).
//!
//! Invariants: nothing is indexed and nothing is kept but bounded results; a
//! search ends when its [`Budget`] does; what could not be searched is told
//! ([`Troubles`], [`SearchError`]) and never looks like an empty result.
//! Results come sorted by path, so that paging through them is stable.
//!
//! [`Tree`] says which files, [`Query`] which lines; [`list`] and [`grep`] run.

mod content;
mod files;
mod keep;
mod tree;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

pub use content::{FileHits, Found, Line, Pattern, Query, Wanted, grep};
pub use files::{Listed, list};
pub use tree::{GlobRule, LeftOut, Tree};

/// How long one search of a tool may take.
pub const TOOL_TIME: Duration = Duration::from_secs(60);

/// Why a search did not start, or has nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The regular expression does not parse or is too large.
    #[error("{0}")]
    Pattern(String),
    /// A glob does not parse.
    #[error("{0}")]
    Glob(String),
    /// No such file type.
    #[error("unrecognized file type: {0}")]
    Type(String),
    /// The place to search cannot be read.
    #[error("{path}: {source}")]
    Root {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The place to search is a device, a pipe or a socket.
    #[error("{0}: not a file or directory")]
    Special(PathBuf),
    /// The budget ended before there was a result.
    #[error("{0}")]
    Stopped(Stop),
}

/// Why a search ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The caller gave up.
    Cancelled,
    /// The time is over.
    TimedOut(Duration),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("interrupted"),
            Self::TimedOut(after) => write!(
                f,
                "timed out after {}s; narrow the search with a path, a glob or a type",
                after.as_secs()
            ),
        }
    }
}

/// What a search may spend.
#[derive(Clone, Debug)]
pub struct Budget {
    cancel: CancellationToken,
    allowed: Duration,
    until: Instant,
}

impl Budget {
    /// A search that ends when `cancel` fires or `allowed` has passed.
    pub fn new(cancel: CancellationToken, allowed: Duration) -> Self {
        Self {
            cancel,
            allowed,
            until: Instant::now() + allowed,
        }
    }

    /// Whether to go on.
    pub(crate) fn check(&self) -> Result<(), Stop> {
        if self.cancel.is_cancelled() {
            Err(Stop::Cancelled)
        } else if Instant::now() >= self.until {
            Err(Stop::TimedOut(self.allowed))
        } else {
            Ok(())
        }
    }
}

/// What could not be searched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Troubles {
    /// How many files and directories.
    pub count: usize,
    /// The first of them, with the reason.
    pub first: Option<String>,
}

impl Troubles {
    fn add(&mut self, path: Option<&Path>, why: &dyn fmt::Display) {
        self.count += 1;
        self.first.get_or_insert_with(|| match path {
            Some(path) => format!("{}: {why}", path.display()),
            None => why.to_string(),
        });
    }

    /// A line that says what is missing from a result, if anything is.
    pub fn notice(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(match self.count {
            1 => format!("[Not searched: {first}]"),
            more => format!("[Not searched: {more} files or directories, the first being {first}]"),
        })
    }
}
