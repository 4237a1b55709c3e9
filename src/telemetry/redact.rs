//! Keeps secrets out of everything that is written down (spec 01 §9).
//!
//! Four kinds are masked: values registered as secret (the API key, tokens),
//! credentials in text (`Authorization`, `Bearer`, `?token=`, `user:pass@`),
//! JSON fields that hold credentials, and every string of a frame whose type
//! deals in secrets. Invariant: when in doubt, mask. A frame that was cut
//! before its type became visible is treated like one that deals in secrets.

mod frame;
mod hints;
mod masker;
mod text;

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};

use memchr::memmem;

use self::frame::{frame_type, mask_in_json};
use self::text::mask_in_text;

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// Shorter values are not registered: masking them would garble every line.
const SHORTEST_SECRET: usize = 6;

/// A text may end inside a secret when it was cut; from this many bytes on the
/// beginning of a secret is masked too.
const SHORTEST_PREFIX: usize = 4;

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
        let masked = match hints::in_text(text) {
            true => mask_in_text(text),
            false => Cow::Borrowed(text),
        };
        chain(masked, |text| self.mask_values(text))
    }

    /// Masks a frame. `cut` says that `json` is only the beginning of it.
    pub fn mask_frame<'a>(&self, json: &'a str, cut: bool) -> Cow<'a, str> {
        let masked = if hints::in_frame(json) || (cut && frame_type(json).is_none()) {
            chain(mask_in_json(json, cut), mask_in_text)
        } else {
            Cow::Borrowed(json)
        };
        chain(masked, |text| self.mask_values(text))
    }

    fn mask_values<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut result = Cow::Borrowed(text);
        for secret in known.iter() {
            if memmem::find(result.as_bytes(), secret.as_bytes()).is_some() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What frames with and without credentials are made of.
    const PIECES: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\\"",
        " ",
        "\"type\":",
        "\"x\"",
        "\"SECRET_set\"",
        "\"secret_list\"",
        "\"terminal_input\"",
        "\"my_oauth\"",
        "\"Token\"",
        "\"api_key\"",
        "tokens",
        "\"password\":\"v\"",
        "Authorization: ",
        "BEARER abcdefghijklmnop",
        "http://",
        "u:p@h",
        "?",
        "&",
        "token=",
        "a=b",
        "secret",
        "\"v\"",
    ];

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
        fn what_has_no_hint_is_not_masked(
            frame in prop::collection::vec(prop::sample::select(PIECES), 0..12),
            cut in any::<bool>(),
        ) {
            let frame = frame.concat();
            if !(hints::in_frame(&frame) || cut && frame_type(&frame).is_none()) {
                let masked = chain(mask_in_json(&frame, cut), mask_in_text);
                prop_assert!(matches!(masked, Cow::Borrowed(_)), "{frame} became {masked}");
            }
            if !hints::in_text(&frame) {
                prop_assert!(matches!(mask_in_text(&frame), Cow::Borrowed(_)), "{frame}");
            }
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
