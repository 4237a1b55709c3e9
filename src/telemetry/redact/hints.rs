//! A quick look for anything that could have to be masked.
//!
//! Nearly no frame holds a credential, and every frame of a turn is looked at:
//! one search for all hints at once is several times cheaper than the passes
//! that know what to mask. Invariant: where no hint is, none of them masks
//! anything (a property test holds them against each other).

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::frame::{CREDENTIAL_KEYS, SECRET_TYPES};

/// What every credential in a text has beside it.
const IN_TEXT: &[&str] = &["?", "&", "://", "authorization:", "bearer "];

static TEXT: LazyLock<Option<AhoCorasick>> =
    LazyLock::new(|| search(IN_TEXT.iter().map(ToString::to_string)));

static FRAME: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let keys = CREDENTIAL_KEYS.iter().map(|key| format!("\"{key}\""));
    let words = IN_TEXT.iter().chain(SECRET_TYPES).map(ToString::to_string);
    search(keys.chain(words))
});

/// Whether a text could hold a credential.
pub(super) fn in_text(text: &str) -> bool {
    found(&TEXT, text)
}

/// Whether a frame could hold one, or be of a type that deals in secrets.
pub(super) fn in_frame(json: &str) -> bool {
    found(&FRAME, json)
}

/// Without the search everything is looked at closely.
fn found(search: &LazyLock<Option<AhoCorasick>>, text: &str) -> bool {
    search.as_ref().is_none_or(|search| search.is_match(text))
}

fn search(hints: impl Iterator<Item = String>) -> Option<AhoCorasick> {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        // A tenth of the memory of the fastest kind.
        .kind(Some(AhoCorasickKind::ContiguousNFA))
        .build(hints)
        .ok()
}
