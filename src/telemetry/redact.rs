//! Keeps secrets out of everything that is written down (spec 01 §9).
//!
//! Four kinds are masked: values registered as secret (the API key, tokens),
//! credentials in text (`Authorization`, `Bearer`, `?token=`, `user:pass@`),
//! JSON fields that hold credentials, and every string of a frame whose type
//! deals in secrets. Invariant: when in doubt, mask. A frame that was cut
//! before its type became visible is treated like one that deals in secrets.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// Shorter values are not registered: masking them would garble every line.
const SHORTEST_SECRET: usize = 6;

/// A text may end inside a secret when it was cut; from this many bytes on the
/// beginning of a secret is masked too.
const SHORTEST_PREFIX: usize = 4;

/// JSON keys whose string value is a credential, in any frame and letter case.
const CREDENTIAL_KEYS: &[&str] = &[
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

/// The secrets of this process. Cheap to clone; clones share their values.
#[derive(Clone, Default)]
pub struct Secrets(Arc<RwLock<Vec<Box<str>>>>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl Secrets {
    /// Registers a value that must never be written down, such as the API key.
    /// Values under six bytes are ignored.
    pub fn register(&self, secret: &str) {
        let secret = secret.trim();
        if secret.len() < SHORTEST_SECRET {
            return;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Inside a frame the value stands in its JSON spelling.
        let escaped = serde_json::Value::from(secret).to_string();
        let escaped = &escaped[1..escaped.len() - 1];
        for form in [secret, escaped] {
            if !known.iter().any(|value| **value == *form) {
                known.push(form.into());
            }
        }
        // Longest first, so that a secret inside another does not split it.
        known.sort_by_key(|value| std::cmp::Reverse(value.len()));
    }

    /// Masks a line of text.
    pub fn mask_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        chain(mask_in_text(text), |text| self.mask_values(text))
    }

    /// Masks a frame. `cut` says that `json` is only the beginning of it.
    pub fn mask_frame<'a>(&self, json: &'a str, cut: bool) -> Cow<'a, str> {
        let masked = chain(mask_in_json(json, cut), mask_in_text);
        chain(masked, |text| self.mask_values(text))
    }

    fn mask_values<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut result = Cow::Borrowed(text);
        for secret in known.iter() {
            if result.contains(&**secret) {
                result = Cow::Owned(result.replace(&**secret, MASK));
            }
            if let Some(kept) = without_trailing_prefix(&result, secret) {
                result = Cow::Owned(format!("{kept}{MASK}"));
            }
        }
        result
    }
}

/// `text` without the beginning of `secret` it ends in, if it does.
fn without_trailing_prefix<'a>(text: &'a str, secret: &str) -> Option<&'a str> {
    (SHORTEST_PREFIX..secret.len())
        .rev()
        .filter_map(|len| secret.get(..len))
        .find_map(|start| text.strip_suffix(start))
}

/// Applies a second pass without copying when neither pass found anything.
fn chain<'a>(first: Cow<'a, str>, next: impl for<'b> Fn(&'b str) -> Cow<'b, str>) -> Cow<'a, str> {
    match first {
        Cow::Borrowed(text) => next(text),
        Cow::Owned(text) => Cow::Owned(next(&text).into_owned()),
    }
}

/// Copies a text with some ranges masked; borrows when there were none.
struct Masker<'a> {
    text: &'a str,
    out: String,
    copied: usize,
}

impl<'a> Masker<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            out: String::new(),
            copied: 0,
        }
    }

    fn mask(&mut self, range: Range<usize>) {
        self.out.push_str(&self.text[self.copied..range.start]);
        self.out.push_str(MASK);
        self.copied = range.end;
    }

    fn finish(mut self) -> Cow<'a, str> {
        if self.copied == 0 && self.out.is_empty() {
            return Cow::Borrowed(self.text);
        }
        self.out.push_str(&self.text[self.copied..]);
        Cow::Owned(self.out)
    }
}

/// Masks credentials that show themselves in any text.
fn mask_in_text(text: &str) -> Cow<'_, str> {
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

fn run_length(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes
        .iter()
        .position(|b| !belongs(*b))
        .unwrap_or(bytes.len())
}

fn ends_value(byte: u8) -> bool {
    byte.is_ascii_whitespace()
        || matches!(
            byte,
            b'"' | b'\'' | b'\\' | b'<' | b'>' | b'`' | b',' | b')'
        )
}

/// Masks credentials by their place in a JSON object.
fn mask_in_json(json: &str, cut: bool) -> Cow<'_, str> {
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
    kind.starts_with("secret_")
        // People type passwords.
        || kind == "terminal_input"
        || ["provider", "credential", "oauth"]
            .iter()
            .any(|word| kind.contains(word))
}

/// The `type` of a frame, when it stands in the visible part.
fn frame_type(json: &str) -> Option<&str> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(line: &str) -> String {
        Secrets::default().mask_text(line).into_owned()
    }

    fn frame(json: &str) -> String {
        Secrets::default().mask_frame(json, false).into_owned()
    }

    #[test]
    fn credentials_in_text_are_masked_and_the_rest_stays() {
        for (line, masked) in [
            (
                "Authorization: Bearer sk-1 next",
                "Authorization: Bearer *** next",
            ),
            ("authorization: Basic dTpw", "authorization: Basic ***"),
            ("sent Bearer abcdefghijkl.mno", "sent Bearer ***"),
            ("the bearer of news came", "the bearer of news came"),
            (
                "wss://h/ws?a=1&token=abc&b=2",
                "wss://h/ws?a=1&token=***&b=2",
            ),
            ("https://h?accessToken=x#f", "https://h?accessToken=***#f"),
            ("http://u:p@ss@proxy:3128/x", "http://u:***@proxy:3128/x"),
            ("http://host:80/a@b:c", "http://host:80/a@b:c"),
            (
                "wss://h?connectionGeneration=1",
                "wss://h?connectionGeneration=1",
            ),
        ] {
            assert_eq!(text(line), masked);
        }
    }

    #[test]
    fn registered_values_are_masked_in_every_spelling() {
        let secrets = Secrets::default();
        secrets.register("sk-\"quoted\"");
        secrets.register("sk-letta-1");
        secrets.register("tiny");
        assert_eq!(secrets.mask_text("key sk-letta-1, tiny"), "key ***, tiny");
        assert_eq!(
            secrets.mask_frame(r#"{"type":"x","a":"is sk-\"quoted\"!"}"#, false),
            r#"{"type":"x","a":"is ***!"}"#
        );
    }

    #[test]
    fn a_secret_that_the_cut_goes_through_does_not_leak_its_beginning() {
        let secrets = Secrets::default();
        secrets.register("sk-letta-0123456789");
        assert_eq!(
            secrets.mask_frame(r#"{"type":"x","t":"sk-letta-01"#, true),
            r#"{"type":"x","t":"***"#
        );
    }

    #[test]
    fn frames_that_deal_in_secrets_show_only_their_outline() {
        assert_eq!(
            frame(
                r#"{"type":"secret_apply","request_id":"r1","agent_id":"a","set":{"type":"v1","K":"v\"2"},"unset":["Z"]}"#
            ),
            r#"{"type":"secret_apply","request_id":"r1","agent_id":"a","set":{"type":"***","K":"***"},"unset":["***"]}"#
        );
        assert_eq!(
            frame(r#"{"type":"terminal_input","terminal_id":"t","data":"hush"}"#),
            r#"{"type":"terminal_input","terminal_id":"t","data":"***"}"#
        );
        assert_eq!(
            frame(r#"{"request_id":"r","type":"connect_provider","fields":{"k":"v"}}"#),
            r#"{"request_id":"r","type":"connect_provider","fields":{"k":"***"}}"#
        );
    }

    #[test]
    fn credential_fields_are_masked_in_any_frame() {
        assert_eq!(
            frame(r#"{"type":"x","a":{"apiKey":"k","token" : "t"},"tokens":"3"}"#),
            r#"{"type":"x","a":{"apiKey":"***","token" : "***"},"tokens":"3"}"#
        );
    }

    #[test]
    fn a_cut_frame_whose_type_is_out_of_sight_is_masked_like_a_secret() {
        let secrets = Secrets::default();
        let start = r#"{"set":{"K":"v"},"request_id":"r","ty"#;
        assert_eq!(
            secrets.mask_frame(start, true),
            r#"{"set":{"K":"***"},"request_id":"r","***"#
        );
        assert_eq!(secrets.mask_frame(r#"{"a":"v"}"#, false), r#"{"a":"v"}"#);
    }

    #[test]
    fn nothing_is_copied_when_nothing_is_masked() {
        let secrets = Secrets::default();
        assert!(matches!(
            secrets.mask_frame(r#"{"type":"pong"}"#, false),
            Cow::Borrowed(_)
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_masked_without_panic(text in "\\PC{0,200}", cut in any::<bool>()) {
            let secrets = Secrets::default();
            secrets.register("ab:\"?&Bearer");
            secrets.mask_frame(&text, cut);
            secrets.mask_text(&text);
        }

        #[test]
        fn a_secret_in_a_frame_never_survives(before in "[a-z{}\\[\\]:,\" ]{0,40}", after in "[a-z{}:,\" ]{0,40}") {
            let secrets = Secrets::default();
            secrets.register("SK-SECRET-VALUE");
            let frame = format!("{before}SK-SECRET-VALUE{after}");
            prop_assert!(!secrets.mask_frame(&frame, true).contains("SK-SECRET-VALUE"));
        }
    }
}
