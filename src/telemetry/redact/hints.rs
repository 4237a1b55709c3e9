//! A quick look for anything that could have to be masked.
//!
//! Nearly no frame holds a credential, and every frame of a turn is looked at:
//! a few searches for what every credential has beside it are many times cheaper
//! than the passes that know what to mask. Invariant: where no hint is, none of
//! those masks anything (a property test holds them against each other).

use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::Finder;

use super::frame::{CREDENTIAL_KEYS, SECRET_TYPES};

/// What stands beside credentials in a text, but for `?` and `&` of an address.
const IN_TEXT: [&str; 3] = ["://", "authorization:", "bearer "];

static TEXT: LazyLock<Vec<Finder<'static>>> =
    LazyLock::new(|| IN_TEXT.iter().map(|hint| Finder::new(*hint)).collect());

/// Keys with the quotation mark behind them, so that `tokens` is no hint; a key
/// that ends in another one needs no search of its own.
static FRAME: LazyLock<Vec<Finder<'static>>> = LazyLock::new(|| {
    let covered = |key: &str| {
        let shorter = |other: &&str| *other != key && key.ends_with(*other);
        CREDENTIAL_KEYS.iter().any(shorter)
    };
    let keys = CREDENTIAL_KEYS.iter().filter(|key| !covered(key));
    let keys = keys.map(|key| Finder::new(&format!("{key}\"")).into_owned());
    let types = SECRET_TYPES.iter().map(|word| Finder::new(*word));
    keys.chain(types).collect()
});

/// Whether a text could hold a credential.
pub(super) fn in_text(text: &str) -> bool {
    in_address(text) || any(&TEXT, &text.to_ascii_lowercase())
}

/// Whether a frame could hold one, or be of a type that deals in secrets.
pub(super) fn in_frame(json: &str) -> bool {
    if in_address(json) {
        return true;
    }
    let small = json.to_ascii_lowercase();
    any(&TEXT, &small) || any(&FRAME, &small)
}

fn in_address(text: &str) -> bool {
    memchr2(b'?', b'&', text.as_bytes()).is_some()
}

fn any(hints: &[Finder<'static>], small: &str) -> bool {
    hints
        .iter()
        .any(|hint| hint.find(small.as_bytes()).is_some())
}
