//! Remembers which client messages were accepted, so that a message delivered
//! twice runs once (spec 02 §8.6, 00 §8).
//!
//! Invariant: the memory lives as long as the process and holds at most
//! [`CAPACITY`] ids, the least recently seen ones go first.

use std::collections::{BTreeMap, HashMap};

use crate::protocol::reply::Started;

/// How many ids one conversation remembers.
pub(crate) const CAPACITY: usize = 4096;

/// Accepted client message ids and how each was disposed of.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    by_id: HashMap<String, (Started, u64)>,
    by_age: BTreeMap<u64, String>,
    clock: u64,
}

impl Accepted {
    /// How `id` was disposed of, if it was accepted before.
    pub(crate) fn seen(&mut self, id: &str) -> Option<Started> {
        let disposition = self.by_id.get(id)?.0;
        self.remember(id.to_owned(), disposition);
        Some(disposition)
    }

    /// Remembers an acceptance.
    pub(crate) fn remember(&mut self, id: String, disposition: Started) {
        self.clock += 1;
        self.by_age.insert(self.clock, id.clone());
        if let Some((_, age)) = self.by_id.insert(id, (disposition, self.clock)) {
            self.by_age.remove(&age);
        }
        while self.by_id.len() > CAPACITY {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                break;
            };
            self.by_id.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_gets_the_first_disposition() {
        let mut accepted = Accepted::default();
        assert_eq!(accepted.seen("a"), None);
        accepted.remember("a".into(), Started::Queued);
        assert_eq!(accepted.seen("a"), Some(Started::Queued));
    }

    #[test]
    fn the_least_recently_seen_id_goes_first() {
        let mut accepted = Accepted::default();
        for n in 0..CAPACITY {
            accepted.remember(n.to_string(), Started::Started);
        }
        assert!(accepted.seen("0").is_some());
        accepted.remember("new".into(), Started::Started);
        assert!(accepted.seen("0").is_some(), "it was seen again just now");
        assert!(accepted.seen("1").is_none());
        for _ in 0..5 * CAPACITY {
            accepted.seen("0");
        }
        assert_eq!(
            (accepted.by_age.len(), accepted.by_id.len()),
            (CAPACITY, CAPACITY)
        );
    }
}
