//! The queue of one conversation: what waits while a turn runs (spec 02 §8).
//!
//! Invariant: items leave only as a batch from the front, by removal, or by a
//! limit, and every departure is recorded once as a transition for
//! `update_queue`.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use crate::protocol::ConnectionId;
use crate::protocol::command::{CreateMessage, ImageFailureMode, InputOptions};
use crate::protocol::event::{Disposition, QueueMessage, QueueRemoval};

/// A new coalescable item beyond this evicts the oldest one.
pub(crate) const SOFT_LIMIT: usize = 100;
/// A new item beyond this is refused.
pub(crate) const HARD_LIMIT: usize = 300;

/// What an item is, with what it puts into a turn.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Input of a client.
    Message(Box<CreateMessage>),
    /// News of background work.
    TaskNotification {
        text: String,
        acting_user_id: Option<String>,
    },
    /// A schedule fired.
    CronPrompt { text: String },
}

impl Work {
    fn kind(&self) -> &'static str {
        match self {
            Self::Message(_) => "message",
            Self::TaskNotification { .. } => "task_notification",
            Self::CronPrompt { .. } => "cron_prompt",
        }
    }

    fn source(&self) -> &'static str {
        match self {
            Self::Message(_) => "user",
            Self::TaskNotification { .. } => "task_notification",
            Self::CronPrompt { .. } => "cron",
        }
    }
}

/// One item.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    id: String,
    client_message_id: Option<String>,
    origin: Option<ConnectionId>,
    work: Work,
    shown: Value,
    enqueued_at: String,
    paused: bool,
}

impl Item {
    fn wire_id(&self) -> String {
        self.client_message_id
            .clone()
            .unwrap_or_else(|| format!("cm-{}", self.id))
    }
}

/// A batch taken from the front: one request's worth of work.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// `batch-<n>`.
    pub(crate) id: String,
    /// The items in order.
    pub(crate) messages: Vec<BatchMessage>,
    /// The options of its first message item.
    pub(crate) options: InputOptions,
    /// The client message ids that the batch consumes.
    pub(crate) client_message_ids: Vec<String>,
    /// The connection that sent its first message item.
    pub(crate) origin: Option<ConnectionId>,
}

/// One message of a batch, ready for the request.
#[derive(Clone, Debug)]
pub(crate) struct BatchMessage {
    /// As sent to the API, `attribution` included (02 §8.4).
    pub(crate) message: Map<String, Value>,
    /// The human behind it.
    pub(crate) acting_user_id: Option<String>,
    /// Whether a cron envelope must be taken off for the echo (02 §6.4.2).
    pub(crate) is_cron: bool,
}

/// What became of an item that was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Enqueued {
    /// It waits.
    Accepted,
    /// The queue is full.
    Refused,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    items: VecDeque<Item>,
    removed: Vec<QueueRemoval>,
    dirty: bool,
    next_item: u64,
    next_batch: u64,
}

impl Queue {
    /// An empty queue that numbers its items and batches behind earlier ones.
    pub(crate) fn new(next_item: u64, next_batch: u64) -> Self {
        Self {
            items: VecDeque::new(),
            removed: Vec::new(),
            dirty: false,
            next_item,
            next_batch,
        }
    }

    /// The counters, to survive eviction.
    pub(crate) fn counters(&self) -> (u64, u64) {
        (self.next_item, self.next_batch)
    }

    /// Offers work. A user message releases paused items (02 §8.5).
    pub(crate) fn push(
        &mut self,
        work: Work,
        client_message_id: Option<String>,
        origin: Option<ConnectionId>,
        enqueued_at: String,
    ) -> Enqueued {
        self.dirty = true;
        self.next_item += 1;
        let shown = shown(&work);
        let item = Item {
            id: format!("q-{}", self.next_item),
            client_message_id,
            origin,
            shown,
            work,
            enqueued_at,
            paused: false,
        };
        if self.items.len() >= HARD_LIMIT {
            self.record(&item, Disposition::Cancelled);
            return Enqueued::Refused;
        }
        if matches!(item.work, Work::Message(_)) {
            self.resume();
        }
        if self.items.len() >= SOFT_LIMIT
            && let Some(oldest) = self.items.pop_front()
        {
            self.record(&oldest, Disposition::Cancelled);
        }
        self.items.push_back(item);
        Enqueued::Accepted
    }

    /// The id of the item that was accepted last, while it waits.
    pub(crate) fn newest(&self) -> Option<&str> {
        self.items.back().map(|item| item.id.as_str())
    }

    fn record(&mut self, item: &Item, disposition: Disposition) {
        let removal = QueueRemoval {
            client_message_id: item.wire_id(),
            disposition,
        };
        if !self.removed.contains(&removal) {
            self.removed.push(removal);
        }
        self.dirty = true;
    }

    /// Holds back what users queued; `true` when anything changed.
    pub(crate) fn pause(&mut self) -> bool {
        let mut changed = false;
        for item in &mut self.items {
            if matches!(item.work, Work::Message(_)) && !item.paused {
                item.paused = true;
                changed = true;
            }
        }
        self.dirty |= changed;
        changed
    }

    /// Releases what was held back; how many items.
    pub(crate) fn resume(&mut self) -> usize {
        let paused = self.items.iter_mut().filter(|item| item.paused);
        let released = paused.map(|item| item.paused = false).count();
        self.dirty |= released > 0;
        released
    }

    /// Removes one item; `false` when there is none of that id.
    pub(crate) fn remove(&mut self, id: &str) -> bool {
        let Some(at) = self.items.iter().position(|item| item.id == id) else {
            return false;
        };
        if let Some(item) = self.items.remove(at) {
            self.record(&item, Disposition::Cancelled);
        }
        true
    }

    /// Drops what a departed client had queued (02 §11.2).
    pub(crate) fn remove_of(&mut self, origin: &ConnectionId) {
        let (gone, kept) = std::mem::take(&mut self.items)
            .into_iter()
            .partition(|item| item.origin.as_ref() == Some(origin));
        self.items = kept;
        let gone: VecDeque<Item> = gone;
        for item in &gone {
            self.record(item, Disposition::Cancelled);
        }
    }

    /// A connection goes on under another id: what it queued stays its own.
    pub(crate) fn moved(&mut self, old: &ConnectionId, new: &ConnectionId) {
        for item in &mut self.items {
            if item.origin.as_ref() == Some(old) {
                item.origin = Some(new.clone());
            }
        }
    }

    /// Whether anything could be taken now.
    pub(crate) fn has_ready(&self) -> bool {
        self.items.iter().any(|item| !item.paused)
    }

    /// Whether nothing waits, paused items included.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Takes the next batch: the longest run of ready items that fit into one
    /// request (02 §8.4).
    pub(crate) fn take_batch(&mut self) -> Option<Batch> {
        let mut taken: Vec<Item> = Vec::new();
        let mut first: Option<(Option<ConnectionId>, ImageFailureMode)> = None;
        let mut kept = VecDeque::with_capacity(self.items.len());
        let mut closed = false;
        for item in std::mem::take(&mut self.items) {
            if closed || item.paused {
                kept.push_back(item);
                continue;
            }
            let fits = match (&item.work, &first) {
                (Work::Message(input), Some((origin, images))) => {
                    let same_origin =
                        origin.is_none() || item.origin.is_none() || *origin == item.origin;
                    same_origin && *images == input.options.image_failure_mode
                }
                _ => true,
            };
            if !fits {
                closed = true;
                kept.push_back(item);
                continue;
            }
            if let (Work::Message(input), None) = (&item.work, &first) {
                first = Some((item.origin.clone(), input.options.image_failure_mode));
            }
            taken.push(item);
        }
        self.items = kept;
        if taken.is_empty() {
            return None;
        }
        for item in &taken {
            self.record(item, Disposition::Dequeued);
        }
        self.next_batch += 1;
        Some(batch(format!("batch-{}", self.next_batch), taken))
    }

    /// The items as shown to clients.
    pub(crate) fn messages<T>(&self, show: impl FnOnce(&[QueueMessage<'_>]) -> T) -> T {
        let ids: Vec<String> = self.items.iter().map(Item::wire_id).collect();
        let messages: Vec<QueueMessage<'_>> = self
            .items
            .iter()
            .zip(&ids)
            .map(|(item, wire_id)| QueueMessage {
                id: &item.id,
                client_message_id: wire_id,
                kind: item.work.kind(),
                source: item.work.source(),
                content: &item.shown,
                enqueued_at: &item.enqueued_at,
                paused: item.paused,
            })
            .collect();
        show(&messages)
    }

    /// Takes the transitions when something changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Option<Vec<QueueRemoval>> {
        std::mem::take(&mut self.dirty).then(|| std::mem::take(&mut self.removed))
    }

    /// Drops everything silently: the process goes down (02 §8.7).
    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.removed.clear();
        self.dirty = false;
    }
}

/// What clients see of an item: its content, or its text.
fn shown(work: &Work) -> Value {
    match work {
        Work::Message(input) => match input.messages.as_slice() {
            [only] => only.get("content").cloned().unwrap_or(Value::Null),
            several => several
                .iter()
                .filter_map(|message| message.get("content"))
                .flat_map(|content| match content {
                    Value::Array(parts) => parts.clone(),
                    text => vec![json!({"type": "text", "text": text})],
                })
                .collect(),
        },
        Work::TaskNotification { text, .. } | Work::CronPrompt { text } => text.as_str().into(),
    }
}

fn batch(id: String, items: Vec<Item>) -> Batch {
    let mut batch = Batch {
        id,
        messages: Vec::new(),
        options: InputOptions::default(),
        client_message_ids: Vec::new(),
        origin: None,
    };
    let mut optioned = false;
    for item in items {
        batch.client_message_ids.push(item.wire_id());
        match item.work {
            Work::Message(input) => {
                let input = *input;
                let acting = input.options.acting_user_id.clone();
                for mut message in input.messages {
                    attribute(&mut message, acting.as_deref());
                    batch.messages.push(BatchMessage {
                        message,
                        acting_user_id: acting.clone(),
                        is_cron: false,
                    });
                }
                if !optioned {
                    batch.origin = item.origin;
                    batch.options = input.options;
                    optioned = true;
                }
            }
            Work::TaskNotification {
                text,
                acting_user_id,
            } => {
                batch
                    .messages
                    .push(harness_message(&text, acting_user_id, false));
            }
            Work::CronPrompt { text } => batch.messages.push(harness_message(&text, None, true)),
        }
    }
    if !optioned {
        batch.options.acting_user_id = batch
            .messages
            .iter()
            .find_map(|message| message.acting_user_id.clone());
    }
    batch
}

/// Queued user messages say who sent them, when that is known (03 §3.3).
fn attribute(message: &mut Map<String, Value>, acting_user_id: Option<&str>) {
    let is_user = message.get("role").and_then(Value::as_str) == Some("user");
    if let Some(user) = acting_user_id
        && is_user
        && !message.contains_key("attribution")
    {
        message.insert("attribution".into(), json!({"acting_user_id": user}));
    }
}

fn harness_message(text: &str, acting_user_id: Option<String>, is_cron: bool) -> BatchMessage {
    let mut message = Map::new();
    message.insert("role".into(), "user".into());
    message.insert("content".into(), text.into());
    message.insert("otid".into(), uuid::Uuid::new_v4().to_string().into());
    message.insert("attribution".into(), json!({}));
    BatchMessage {
        message,
        acting_user_id,
        is_cron,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &str, images: ImageFailureMode) -> Work {
        let Value::Object(message) = json!({"role":"user","content":content,"otid":content}) else {
            unreachable!()
        };
        Work::Message(Box::new(CreateMessage {
            messages: vec![message],
            options: InputOptions {
                image_failure_mode: images,
                ..InputOptions::default()
            },
        }))
    }

    fn push(queue: &mut Queue, content: &str) -> Enqueued {
        queue.push(
            text(content, ImageFailureMode::Strict),
            Some(content.into()),
            None,
            "t".into(),
        )
    }

    fn contents(batch: &Batch) -> Vec<&str> {
        batch
            .messages
            .iter()
            .map(|m| m.message["content"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn a_batch_keeps_messages_separate_and_in_order() {
        let mut queue = Queue::new(0, 0);
        for content in ["a", "b", "c"] {
            assert_eq!(push(&mut queue, content), Enqueued::Accepted);
        }
        let batch = queue.take_batch().unwrap();
        assert_eq!(batch.id, "batch-1");
        assert_eq!(contents(&batch), ["a", "b", "c"]);
        assert_eq!(batch.client_message_ids, ["a", "b", "c"]);
        let gone = queue.take_changes().unwrap();
        assert_eq!(gone.len(), 3);
        assert!(
            gone.iter()
                .all(|removal| removal.disposition == Disposition::Dequeued)
        );
        assert!(queue.take_changes().is_none());
        assert!(queue.take_batch().is_none());
    }

    #[test]
    fn image_policy_and_connection_end_a_batch() {
        let mut queue = Queue::new(0, 0);
        push(&mut queue, "a");
        queue.push(text("b", ImageFailureMode::Drop), None, None, "t".into());
        assert_eq!(contents(&queue.take_batch().unwrap()), ["a"]);
        assert_eq!(contents(&queue.take_batch().unwrap()), ["b"]);
        let from = |name: &str| Some(ConnectionId::new(name));
        queue.push(
            text("c", ImageFailureMode::Strict),
            None,
            from("1"),
            "t".into(),
        );
        queue.push(
            text("d", ImageFailureMode::Strict),
            None,
            from("2"),
            "t".into(),
        );
        assert_eq!(contents(&queue.take_batch().unwrap()), ["c"]);
    }

    #[test]
    fn the_101st_item_evicts_the_oldest_and_the_301st_is_refused() {
        let mut queue = Queue::new(0, 0);
        for n in 0..=SOFT_LIMIT {
            assert_eq!(push(&mut queue, &format!("m{n}")), Enqueued::Accepted);
        }
        assert_eq!(queue.len(), SOFT_LIMIT);
        let gone = queue.take_changes().unwrap();
        assert_eq!(
            gone,
            [QueueRemoval {
                client_message_id: "m0".into(),
                disposition: Disposition::Cancelled
            }]
        );
        // Only items that cannot be merged may pass the soft limit; the listener makes none.
        let mut full = Queue::new(0, 0);
        for n in 0..HARD_LIMIT {
            full.items.push_back(Item {
                id: format!("q-{n}"),
                client_message_id: None,
                origin: None,
                work: text("x", ImageFailureMode::Strict),
                shown: Value::Null,
                enqueued_at: String::new(),
                paused: false,
            });
        }
        assert_eq!(push(&mut full, "late"), Enqueued::Refused);
        assert_eq!(full.len(), HARD_LIMIT);
        assert_eq!(full.take_changes().unwrap()[0].client_message_id, "late");
    }

    #[test]
    fn an_abort_pauses_user_messages_and_only_those() {
        let mut queue = Queue::new(0, 0);
        push(&mut queue, "a");
        queue.push(
            Work::CronPrompt {
                text: "tick".into(),
            },
            None,
            None,
            "t".into(),
        );
        assert!(queue.pause());
        assert!(!queue.pause(), "nothing left to pause");
        assert_eq!(contents(&queue.take_batch().unwrap()), ["tick"]);
        assert!(!queue.has_ready() && !queue.is_empty());
        assert!(queue.take_batch().is_none());
        assert_eq!(queue.resume(), 1);
        assert_eq!(contents(&queue.take_batch().unwrap()), ["a"]);
    }

    #[test]
    fn a_new_user_message_releases_paused_ones() {
        let mut queue = Queue::new(0, 0);
        push(&mut queue, "a");
        queue.pause();
        push(&mut queue, "b");
        assert_eq!(contents(&queue.take_batch().unwrap()), ["a", "b"]);
    }

    #[test]
    fn items_without_a_client_id_are_named_after_their_queue_id() {
        let mut queue = Queue::new(4, 0);
        queue.push(
            Work::CronPrompt {
                text: "tick".into(),
            },
            None,
            None,
            "t".into(),
        );
        queue.messages(|items| {
            assert_eq!((items[0].id, items[0].client_message_id), ("q-5", "cm-q-5"));
            assert_eq!((items[0].kind, items[0].source), ("cron_prompt", "cron"));
        });
        assert!(queue.remove("q-5") && !queue.remove("q-5"));
    }

    #[test]
    fn queued_messages_name_their_sender_and_harness_messages_nobody() {
        let mut queue = Queue::new(0, 0);
        let Work::Message(mut input) = text("a", ImageFailureMode::Strict) else {
            unreachable!()
        };
        input.options.acting_user_id = Some("user-9".into());
        queue.push(Work::Message(input), None, None, "t".into());
        queue.push(
            Work::TaskNotification {
                text: "n".into(),
                acting_user_id: Some("user-9".into()),
            },
            None,
            None,
            "t".into(),
        );
        let batch = queue.take_batch().unwrap();
        assert_eq!(
            batch.messages[0].message["attribution"],
            json!({"acting_user_id":"user-9"})
        );
        assert_eq!(batch.messages[1].message["attribution"], json!({}));
        assert_eq!(batch.options.acting_user_id.as_deref(), Some("user-9"));
    }
}
