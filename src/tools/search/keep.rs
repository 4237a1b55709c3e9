//! The first results in path order, bounded, whatever the order they come in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Keeps the first entries by path until their weights reach a limit.
#[derive(Debug)]
pub(super) struct Keep<T> {
    entries: BTreeMap<PathBuf, (T, Weight)>,
    held: Weight,
    limit: Weight,
    /// Whether an entry was dropped.
    pub(super) overflowed: bool,
}

/// What an entry counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    /// Lines or files.
    pub(super) items: usize,
    /// Bytes of text.
    pub(super) bytes: usize,
}

impl<T> Keep<T> {
    pub(super) fn new(limit: Weight) -> Self {
        Self {
            entries: BTreeMap::new(),
            held: Weight::default(),
            limit,
            overflowed: false,
        }
    }

    /// Whether an entry at `path` would still be among the first.
    pub(super) fn wants(&self, path: &Path) -> bool {
        !self.full()
            || self
                .entries
                .keys()
                .next_back()
                .is_some_and(|last| path < last)
    }

    /// Takes an entry, and lets go of those that are no longer needed: the
    /// limit is reached without them.
    pub(super) fn insert(&mut self, path: PathBuf, entry: T, weight: Weight) {
        if !self.wants(&path) {
            self.overflowed = true;
            return;
        }
        self.held.items += weight.items;
        self.held.bytes += weight.bytes + path.as_os_str().len();
        self.entries.insert(path, (entry, weight));
        while let Some(last) = self.entries.last_entry() {
            let weight = last.get().1;
            let bytes = weight.bytes + last.key().as_os_str().len();
            let enough = self.held.items - weight.items >= self.limit.items
                || self.held.bytes - bytes >= self.limit.bytes;
            if !enough {
                break;
            }
            last.remove();
            self.held.items -= weight.items;
            self.held.bytes -= bytes;
            self.overflowed = true;
        }
    }

    /// Whether only earlier entries are still taken.
    pub(super) fn full(&self) -> bool {
        self.held.items >= self.limit.items || self.held.bytes >= self.limit.bytes
    }

    /// The entries by path.
    pub(super) fn into_sorted(self) -> impl Iterator<Item = (PathBuf, T)> {
        self.entries
            .into_iter()
            .map(|(path, (entry, _))| (path, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The model: sort everything, then take entries until the limit is reached.
        #[test]
        fn the_first_entries_stay_whatever_the_order(
            entries in prop::collection::btree_map("[a-z]{1,3}", 1_usize..5, 0..40),
            order in any::<u64>(),
            limit in 1_usize..30,
        ) {
            let mut shuffled: Vec<_> = entries.iter().collect();
            fastrand::Rng::with_seed(order).shuffle(&mut shuffled);
            let mut keep = Keep::new(Weight { items: limit, bytes: usize::MAX });
            for (name, items) in shuffled {
                keep.insert(PathBuf::from(name), *items, Weight { items: *items, bytes: 0 });
            }
            let mut held = 0;
            let expected: Vec<_> = entries
                .iter()
                .take_while(|(_, items)| {
                    let wanted = held < limit;
                    held += **items;
                    wanted
                })
                .map(|(name, items)| (PathBuf::from(name), *items))
                .collect();
            prop_assert_eq!(keep.overflowed, expected.len() < entries.len());
            prop_assert_eq!(keep.into_sorted().collect::<Vec<_>>(), expected);
        }
    }
}
