//! Credentials that show themselves in any text: headers, bearer tokens,
//! parameters and passwords of URLs.

use std::borrow::Cow;
use std::ops::Range;

use super::masker::{Masker, run_length};

/// Masks credentials that show themselves in any text.
pub(super) fn mask_in_text(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut masker = Masker::new(text);
    let mut at = 0;
    while at < bytes.len() {
        let found = match bytes[at] {
            b'?' | b'&' => query_value(bytes, at + 1),
            b':' => url_password(bytes, at),
            b'a' | b'A' => header_value(bytes, at),
            b'b' | b'B' => bearer_token(bytes, at),
            _ => None,
        };
        match found {
            Some(range) if !range.is_empty() => {
                at = range.end;
                masker.mask(range);
            }
            _ => at += 1,
        }
    }
    masker.finish()
}

/// The value of a query parameter whose name speaks of a credential.
fn query_value(bytes: &[u8], name_start: usize) -> Option<Range<usize>> {
    let name_len = run_length(&bytes[name_start..], |b| {
        b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')
    });
    let equals = name_start + name_len;
    if bytes.get(equals) != Some(&b'=') {
        return None;
    }
    let name = bytes[name_start..equals].to_ascii_lowercase();
    let speaks_of = |word: &str| name.windows(word.len()).any(|part| part == word.as_bytes());
    if ![
        "token", "secret", "password", "api_key", "apikey", "api-key",
    ]
    .iter()
    .any(|word| speaks_of(word))
    {
        return None;
    }
    let start = equals + 1;
    Some(
        start
            ..start
                + run_length(&bytes[start..], |b| {
                    !ends_value(b) && !matches!(b, b'&' | b'#')
                }),
    )
}

/// The password of `scheme://user:password@host`.
fn url_password(bytes: &[u8], colon: usize) -> Option<Range<usize>> {
    let rest = bytes[colon..].strip_prefix(b"://")?;
    let authority = run_length(rest, |b| !ends_value(b) && !matches!(b, b'/' | b'?' | b'#'));
    let user_info = rest[..authority].iter().rposition(|b| *b == b'@')?;
    let separator = rest[..user_info].iter().position(|b| *b == b':')?;
    let start = colon + 3;
    Some(start + separator + 1..start + user_info)
}

/// Everything after the scheme word of an `Authorization: <scheme> <value>` header.
fn header_value(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let mut value = at + prefix_ignoring_case(&bytes[at..], b"authorization:")?;
    value += run_length(&bytes[value..], |b| b == b' ');
    for scheme in [&b"bearer "[..], b"basic ", b"token "] {
        if let Some(len) = prefix_ignoring_case(&bytes[value..], scheme) {
            value += len;
            break;
        }
    }
    Some(value..value + run_length(&bytes[value..], |b| !ends_value(b)))
}

/// The token of `Bearer <token>`; shorter words are prose.
fn bearer_token(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    const SHORTEST: usize = 12;
    let start = at + prefix_ignoring_case(&bytes[at..], b"bearer ")?;
    let len = run_length(&bytes[start..], |b| {
        b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b)
    });
    let at_end = start + len == bytes.len();
    (len >= SHORTEST || (at_end && len > 0)).then_some(start..start + len)
}

fn prefix_ignoring_case(bytes: &[u8], prefix: &[u8]) -> Option<usize> {
    bytes
        .get(..prefix.len())?
        .eq_ignore_ascii_case(prefix)
        .then_some(prefix.len())
}

fn ends_value(byte: u8) -> bool {
    byte.is_ascii_whitespace()
        || matches!(
            byte,
            b'"' | b'\'' | b'\\' | b'<' | b'>' | b'`' | b',' | b')'
        )
}
