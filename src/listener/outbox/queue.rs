//! What waits for one socket: a queue with places for newer status frames.
//!
//! Invariant: `bytes` and `events` are the sums over `items`, and `newest`
//! holds exactly the last queued item of each replaceable kind and scope (02 §4.4).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::{MAX_QUEUED_BYTES, MAX_QUEUED_EVENTS};
use crate::events::EventKind;
use crate::protocol::Scope;

/// One frame on its way out.
#[derive(Debug)]
pub(super) enum Item {
    /// Gets an envelope when it is drained.
    Event {
        scope: Scope,
        kind: EventKind,
        body: Arc<str>,
    },
    /// Written as it is.
    Reply(String),
    /// The same, of a sender that waits for its permit to come back.
    Paced {
        body: String,
        _permit: OwnedSemaphorePermit,
    },
}

impl Item {
    /// Bytes that count against the limit.
    fn len(&self) -> usize {
        match self {
            Self::Event { body, .. } => body.len(),
            Self::Reply(body) => body.len(),
            Self::Paced { .. } => 0,
        }
    }

    /// What a newer frame must have in common to take this one's place.
    fn replaceable_as(&self) -> Option<(EventKind, Scope)> {
        match self {
            Self::Event { scope, kind, .. } if kind.replaceable() => Some((*kind, scope.clone())),
            _ => None,
        }
    }
}

/// The queue of one lane.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    /// How many items ever left the front: an item's number minus this is its index.
    popped: u64,
    newest: HashMap<(EventKind, Scope), u64>,
    bytes: usize,
    events: usize,
    /// The socket takes no bytes: merge status frames, count events.
    pub(super) stalled: bool,
    pub(super) ready: Arc<Notify>,
}

impl Queue {
    /// Adds an item at the end, or in the place of the one it supersedes.
    pub(super) fn push(&mut self, item: Item) {
        self.bytes += item.len();
        let key = item.replaceable_as();
        if let Some(older) = key.as_ref().and_then(|key| self.superseded_by(key)) {
            let older = std::mem::replace(older, item);
            self.bytes -= older.len();
            return;
        }
        if let Some(key) = key {
            let number = self.popped + self.items.len() as u64;
            self.newest.insert(key, number);
        }
        self.events += usize::from(matches!(item, Item::Event { .. }));
        self.items.push_back(item);
    }

    /// Takes the oldest item.
    pub(super) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        if let Some(key) = item.replaceable_as()
            && self.newest.get(&key) == Some(&self.popped)
        {
            self.newest.remove(&key);
        }
        self.popped += 1;
        self.bytes -= item.len();
        self.events -= usize::from(matches!(item, Item::Event { .. }));
        Some(item)
    }

    /// Frames and bytes that wait, if they are more than may wait.
    pub(super) fn excess(&self) -> Option<(usize, usize)> {
        let too_many = self.stalled && self.events > MAX_QUEUED_EVENTS;
        let too_large = self.items.len() > 1 && self.bytes > MAX_QUEUED_BYTES;
        (too_many || too_large).then_some((self.items.len(), self.bytes))
    }

    /// Drops everything that waits.
    pub(super) fn clear(&mut self) {
        self.popped += self.items.len() as u64;
        self.items = VecDeque::new();
        self.newest.clear();
        self.bytes = 0;
        self.events = 0;
    }

    fn superseded_by(&mut self, key: &(EventKind, Scope)) -> Option<&mut Item> {
        let number = self.newest.get(key).filter(|_| self.stalled)?;
        let index = usize::try_from(number - self.popped).ok()?;
        self.items.get_mut(index)
    }
}
