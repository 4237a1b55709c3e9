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

/// An item in its place.
#[derive(Debug)]
struct Queued {
    item: Item,
    /// When it was pushed, counted over both lanes.
    order: u64,
    /// Its `event_seq`, once a later event of the other lane has one.
    number: Option<u64>,
}

/// The queue of one lane.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<Queued>,
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
    /// Adds an item at the end, or in the place (and under the number) of the
    /// one it supersedes. `order` counts the pushes of both lanes.
    pub(super) fn push(&mut self, item: Item, order: u64) {
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
        self.items.push_back(Queued {
            item,
            order,
            number: None,
        });
    }

    /// When the oldest item was pushed.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.items.front().map(|queued| queued.order)
    }

    /// Gives numbers to the events that were pushed before `order`: they will
    /// be written at once, though on another socket. Of a stalled socket nobody
    /// knows when, so what waits there is numbered when it is taken.
    pub(super) fn number_older(&mut self, order: u64, seq: &mut u64) {
        if self.stalled {
            return;
        }
        let older = self
            .items
            .iter_mut()
            .take_while(|queued| queued.order < order);
        for queued in older.filter(|queued| queued.number.is_none()) {
            if matches!(queued.item, Item::Event { .. }) {
                *seq += 1;
                queued.number = Some(*seq);
            }
        }
    }

    /// Takes the oldest item, with its number if it has one.
    pub(super) fn pop(&mut self) -> Option<(Item, Option<u64>)> {
        let Queued { item, number, .. } = self.items.pop_front()?;
        if let Some(key) = item.replaceable_as()
            && self.newest.get(&key) == Some(&self.popped)
        {
            self.newest.remove(&key);
        }
        self.popped += 1;
        self.bytes -= item.len();
        self.events -= usize::from(matches!(item, Item::Event { .. }));
        Some((item, number))
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
        self.items.get_mut(index).map(|queued| &mut queued.item)
    }
}
