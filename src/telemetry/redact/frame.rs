//! Credentials by their place in a frame: fields that hold them, and frames
//! whose type deals in secrets.

use std::borrow::Cow;
use std::ops::Range;

use super::masker::{Masker, run_length};

/// JSON keys whose string value is a credential, in any frame and letter case.
pub(super) const CREDENTIAL_KEYS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api_key",
    "apikey",
    "letta_api_key",
    "token",
    "auth_token",
    "access_token",
    "accesstoken",
    "refresh_token",
    "refreshtoken",
    "id_token",
    "client_secret",
    "device_code",
    "password",
    "secret",
];

/// Top-level keys that stay readable in a frame that deals in secrets.
const HARMLESS_KEYS: &[&str] = &[
    "type",
    "request_id",
    "error",
    "agent_id",
    "conversation_id",
    "target",
    "provider_name",
    "auth_method",
    "terminal_id",
];

/// What is in the type of every frame that deals in secrets.
pub(super) const SECRET_TYPES: &[&str] = &[
    "secret_",
    // People type passwords.
    "terminal_input",
    "provider",
    "credential",
    "oauth",
];

/// Masks credentials by their place in a JSON object.
pub(super) fn mask_in_json(json: &str, cut: bool) -> Cow<'_, str> {
    let all = match frame_type(json) {
        Some(kind) => deals_in_secrets(kind),
        None => cut,
    };
    let mut masker = Masker::new(json);
    let mut key = "";
    // Whether the key is this string's own, or the one of an array around it.
    let mut own_key = false;
    for token in Strings::new(json) {
        let text = &json[token.range.clone()];
        if token.is_key {
            key = text;
            own_key = true;
            continue;
        }
        let own_key = std::mem::take(&mut own_key);
        let harmless = own_key && token.depth == 1 && HARMLESS_KEYS.contains(&key);
        let credential = CREDENTIAL_KEYS
            .iter()
            .any(|name| name.eq_ignore_ascii_case(key));
        if (credential || (all && !harmless)) && !token.range.is_empty() {
            masker.mask(token.range);
        }
    }
    masker.finish()
}

fn deals_in_secrets(kind: &str) -> bool {
    SECRET_TYPES.iter().any(|word| kind.contains(word))
}

/// The `type` of a frame, when it stands in the visible part.
pub(super) fn frame_type(json: &str) -> Option<&str> {
    let mut tokens = Strings::new(json);
    while let Some(token) = tokens.next() {
        if token.is_key && token.depth == 1 && &json[token.range] == "type" {
            let value = tokens.next()?;
            return (!value.is_key && value.closed).then(|| &json[value.range]);
        }
    }
    None
}

/// One string of a JSON text.
struct StringToken {
    /// Where it stands, without its quotes.
    range: Range<usize>,
    /// How many objects and arrays are open around it.
    depth: usize,
    is_key: bool,
    /// False when the text ends inside it.
    closed: bool,
}

/// Walks over the strings of a JSON text, whole or cut, valid or not.
struct Strings<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Strings<'a> {
    fn new(json: &'a str) -> Self {
        Self {
            bytes: json.as_bytes(),
            at: 0,
            depth: 0,
        }
    }
}

impl Iterator for Strings<'_> {
    type Item = StringToken;

    fn next(&mut self) -> Option<StringToken> {
        loop {
            match *self.bytes.get(self.at)? {
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b'"' => break,
                _ => {}
            }
            self.at += 1;
        }
        let start = self.at + 1;
        let mut end = start;
        while let Some(&byte) = self.bytes.get(end) {
            match byte {
                b'"' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        let closed = end < self.bytes.len();
        let end = end.min(self.bytes.len());
        let after = self.bytes.get(end + 1..).unwrap_or_default();
        let gap = run_length(after, |b| b.is_ascii_whitespace());
        self.at = end + 1;
        Some(StringToken {
            range: start.min(end)..end,
            depth: self.depth,
            is_key: after.get(gap) == Some(&b':'),
            closed,
        })
    }
}
