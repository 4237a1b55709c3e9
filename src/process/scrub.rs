//! Keeps secrets out of everything a child prints (04 §4.7, 03 §18).
//!
//! [`Redactions`] are the secrets one command refers to; a [`Scrubber`]
//! replaces their values by `NAME=<REDACTED>` in a text that arrives in
//! pieces. Invariant: the pieces joined equal the scrubbed whole, so a value
//! cut in two by a chunk border is still found. Text is held back only while
//! it may be the beginning of a value.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use regex::Regex;

use super::ansi;

/// One value to look for and what takes its place.
struct Needle {
    name: String,
    value: String,
}

/// The secrets that one command refers to. Cheap to clone; never printed.
#[derive(Clone, Default)]
pub struct Redactions(Arc<[Needle]>);

impl fmt::Debug for Redactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactions({} values)", self.0.len())
    }
}

/// `$NAME`, `${NAME`, `${#NAME`, `${!NAME` in a command; `None` cannot happen, the pattern is fixed.
static REFERENCE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\$(?:\{[#!]?)?([A-Z_][A-Z0-9_]*)").ok());

/// The entries of `secrets` that `command` names, for its environment.
pub fn referenced(command: &str, secrets: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let Some(pattern) = REFERENCE.as_ref() else {
        return BTreeMap::new();
    };
    pattern
        .captures_iter(command)
        .filter_map(|found| secrets.get_key_value(found.get(1)?.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

impl Redactions {
    /// Looks for the values of `secrets`; empty values are ignored.
    pub fn new(secrets: &BTreeMap<String, String>) -> Self {
        let mut needles = Vec::new();
        for (name, value) in secrets {
            // Escape sequences are gone from the text by the time it is scrubbed.
            let stripped = ansi::strip(value);
            if stripped != *value && !stripped.is_empty() {
                needles.push(Needle {
                    name: name.clone(),
                    value: stripped,
                });
            }
            if !value.is_empty() {
                needles.push(Needle {
                    name: name.clone(),
                    value: value.clone(),
                });
            }
        }
        needles.sort_by_key(|needle| std::cmp::Reverse(needle.value.len()));
        Self(needles.into())
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The whole of `text`, scrubbed.
    pub fn scrub(&self, text: &str) -> String {
        let mut scrubber = Scrubber::new(self.clone());
        let mut clean = scrubber.push(text.to_owned());
        clean.push_str(&scrubber.finish());
        clean
    }

    /// What stands at the beginning of `rest`; `last` says that nothing follows it.
    fn look(&self, rest: &[u8], last: bool) -> Look<'_> {
        for needle in self.0.iter() {
            let value = needle.value.as_bytes();
            if rest.starts_with(value) {
                return Look::Secret(needle);
            }
            if !last && value.starts_with(rest) {
                return Look::Undecided;
            }
        }
        Look::Clear
    }
}

/// What one place in the text turned out to be.
enum Look<'a> {
    Clear,
    Secret(&'a Needle),
    /// A value may begin here; the next chunk tells.
    Undecided,
}

/// Scrubs a text that arrives in pieces. Holds back less than the longest value.
#[derive(Debug)]
pub struct Scrubber {
    redactions: Redactions,
    held: String,
}

impl Scrubber {
    /// A scrubber at the start of a stream.
    pub fn new(redactions: Redactions) -> Self {
        Self {
            redactions,
            held: String::new(),
        }
    }

    /// Takes a chunk and gives what is certain.
    pub fn push(&mut self, chunk: String) -> String {
        if self.redactions.is_empty() {
            return chunk;
        }
        self.held.push_str(&chunk);
        self.release(false)
    }

    /// Gives what was held back: nothing follows.
    pub fn finish(&mut self) -> String {
        self.release(true)
    }

    fn release(&mut self, last: bool) -> String {
        let mut clean = String::with_capacity(self.held.len());
        let bytes = self.held.as_bytes();
        let (mut from, mut at) = (0, 0);
        // Byte by byte: a value is text, so it can only match at a character's first byte.
        while at < bytes.len() {
            match self.redactions.look(&bytes[at..], last) {
                Look::Clear => at += 1,
                Look::Undecided => break,
                Look::Secret(needle) => {
                    clean.push_str(&self.held[from..at]);
                    clean.push_str(&needle.name);
                    clean.push_str("=<REDACTED>");
                    at += needle.value.len();
                    from = at;
                }
            }
        }
        clean.push_str(&self.held[from..at]);
        self.held.drain(..at);
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn only_secrets_that_the_command_names_are_taken() {
        let secrets = map(&[("TOKEN", "t"), ("OTHER", "o"), ("KEY_2", "k"), ("LEN", "l")]);
        let found = referenced("curl $TOKEN ${KEY_2:-x} ${#LEN} OTHER $other", &secrets);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["KEY_2", "LEN", "TOKEN"]);
    }

    #[test]
    fn the_longest_value_wins_and_replacements_are_not_scrubbed_again() {
        let redactions = Redactions::new(&map(&[("A", "abc"), ("B", "abcdef"), ("C", "RED")]));
        assert_eq!(
            redactions.scrub("xabcdefy abc"),
            "xB=<REDACTED>y A=<REDACTED>"
        );
    }

    #[test]
    fn a_value_cut_in_two_is_found_and_other_text_is_not_held_back() {
        let mut scrubber = Scrubber::new(Redactions::new(&map(&[("T", "hunter2")])));
        assert_eq!(scrubber.push("say hun".into()), "say ");
        assert_eq!(scrubber.push("ter2!".into()), "T=<REDACTED>!");
        assert_eq!(scrubber.push("password: ".into()), "password: ");
        assert_eq!(scrubber.push("hunt".into()), "");
        assert_eq!(scrubber.finish(), "hunt");
    }

    #[test]
    fn values_do_not_show_in_debug_output() {
        let redactions = Redactions::new(&map(&[("T", "hunter2")]));
        assert!(!format!("{redactions:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn any_chunking_equals_the_whole(
            pieces in prop::collection::vec("[abé]{0,6}", 0..12),
            values in prop::collection::vec("[abé]{1,4}", 1..4),
        ) {
            let secrets: BTreeMap<String, String> =
                values.into_iter().enumerate().map(|(n, value)| (format!("S{n}"), value)).collect();
            let redactions = Redactions::new(&secrets);
            let mut scrubber = Scrubber::new(redactions.clone());
            let mut parts: String = pieces.iter().map(|piece| scrubber.push(piece.clone())).collect();
            parts.push_str(&scrubber.finish());
            prop_assert_eq!(&parts, &redactions.scrub(&pieces.concat()));
            for value in secrets.values() {
                prop_assert!(!parts.contains(value.as_str()));
            }
        }
    }
}
