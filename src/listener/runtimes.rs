//! The live conversations: started when first named, retired when idle.
//!
//! Invariant: at most one actor per key; what a retired one must remember is
//! kept here and given to the next of the same key.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::conversation::{self, Message, Remnant, Services};
use crate::protocol::{ConnectionId, RuntimeKey, Scope};

/// Idle conversations kept running; beyond it the longest unused are retired.
const LIVE: usize = 64;
/// Remnants of retired conversations that are kept.
const REMNANTS: usize = 4096;

struct Live {
    scope: Scope,
    mailbox: mpsc::UnboundedSender<Message>,
}

pub(super) struct Runtimes {
    services: Arc<Services>,
    live: HashMap<RuntimeKey, Live>,
    /// Keys by last use, oldest first; may hold stale entries.
    used: VecDeque<RuntimeKey>,
    remnants: HashMap<RuntimeKey, Remnant>,
    tasks: JoinSet<RuntimeKey>,
    retiring: Option<(RuntimeKey, oneshot::Receiver<Option<Box<Remnant>>>)>,
    /// What arrived for a conversation while it was asked to retire.
    held: Vec<(Scope, Vec<ConnectionId>, Message)>,
}

impl Runtimes {
    pub(super) fn new(services: Arc<Services>) -> Self {
        Self {
            services,
            live: HashMap::new(),
            used: VecDeque::new(),
            remnants: HashMap::new(),
            tasks: JoinSet::new(),
            retiring: None,
            held: Vec::new(),
        }
    }

    /// Sends to a conversation, starting it when it is not live.
    pub(super) fn tell(&mut self, scope: &Scope, subscribers: Vec<ConnectionId>, message: Message) {
        let key = scope.runtime_key();
        if self
            .retiring
            .as_ref()
            .is_some_and(|(retiring, _)| *retiring == key)
        {
            self.held.push((scope.clone(), subscribers, message));
            return;
        }
        self.used.retain(|used| *used != key);
        self.used.push_back(key.clone());
        let live = self.live.entry(key.clone()).or_insert_with(|| {
            let (mailbox, inbox) = mpsc::unbounded_channel();
            let remnant = self.remnants.remove(&key).unwrap_or_default();
            let services = Arc::clone(&self.services);
            let run = conversation::run(scope.clone(), services, subscribers, remnant, inbox);
            self.tasks.spawn(async move {
                run.await;
                key
            });
            Live {
                scope: scope.clone(),
                mailbox,
            }
        });
        // A conversation ends only when it is retired, which is handled above.
        let _ = live.mailbox.send(message);
    }

    /// Sends to a conversation only if it is live.
    pub(super) fn tell_live(&mut self, scope: &Scope, message: Message) {
        if self.live.contains_key(&scope.runtime_key()) {
            self.tell(scope, Vec::new(), message);
        }
    }

    /// Sends to every live conversation.
    pub(super) fn tell_all(&mut self, message: impl Fn() -> Message) {
        for live in self.live.values() {
            let _ = live.mailbox.send(message());
        }
    }

    /// How many conversations are live.
    pub(super) fn count(&self) -> usize {
        self.live.len()
    }

    /// Retires the longest unused conversation when there are too many. Waits
    /// for ever when there is nothing to do.
    pub(super) async fn tend(&mut self) {
        loop {
            if let Some((key, answer)) = &mut self.retiring {
                let remnant = answer.await.ok().flatten();
                let key = key.clone();
                self.retiring = None;
                self.settle(key, remnant);
                return;
            }
            if self.count() <= LIVE {
                return std::future::pending().await;
            }
            let Some(key) = self.used.pop_front() else {
                return std::future::pending().await;
            };
            if let Some(live) = self.live.get(&key) {
                let (ask, answer) = oneshot::channel();
                if live.mailbox.send(Message::Retire(ask)).is_ok() {
                    self.retiring = Some((key, answer));
                }
            }
        }
    }

    fn settle(&mut self, key: RuntimeKey, remnant: Option<Box<Remnant>>) {
        if let Some(remnant) = remnant {
            self.live.remove(&key);
            if self.remnants.len() >= REMNANTS {
                self.remnants.clear();
            }
            self.remnants.insert(key, *remnant);
        } else {
            self.used.push_back(key);
        }
        for (scope, subscribers, message) in std::mem::take(&mut self.held) {
            self.tell(&scope, subscribers, message);
        }
    }

    /// Ends every conversation and waits for them.
    pub(super) async fn shut_down(&mut self) {
        self.live.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
