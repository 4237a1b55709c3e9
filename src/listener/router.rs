//! Who hears what: connections, their subscriptions, their outboxes (02 §4).
//!
//! Invariant: an event goes to the connections that are subscribed to its
//! scope and to nobody else; there is no broadcast.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::outbox::Outbox;
use crate::events::{Audience, Outbound};
use crate::protocol::{ConnectionId, Scope};

#[derive(Debug, Default)]
pub(super) struct Router {
    /// In order of their first opening.
    connections: Vec<(ConnectionId, Connection)>,
    subscriptions: HashMap<Scope, Vec<ConnectionId>>,
}

#[derive(Debug)]
struct Connection {
    outbox: Outbox,
    open: bool,
}

impl Router {
    fn find(&self, id: &ConnectionId) -> Option<&Connection> {
        self.connections
            .iter()
            .find(|(known, _)| known == id)
            .map(|(_, connection)| connection)
    }

    /// Whether a connection is there, open or not.
    pub(super) fn knows(&self, id: &ConnectionId) -> bool {
        self.find(id).is_some()
    }

    /// A connection opened, for the first time or again.
    pub(super) fn open(&mut self, id: ConnectionId, outbox: Outbox) {
        self.connections.retain(|(known, _)| *known != id);
        self.connections
            .push((id, Connection { outbox, open: true }));
    }

    /// A connection dropped and may come back; the scopes that it stays
    /// subscribed to.
    pub(super) fn close(&mut self, id: &ConnectionId) -> Vec<Scope> {
        for (known, connection) in &mut self.connections {
            if known == id {
                connection.open = false;
            }
        }
        let subscribed = self
            .subscriptions
            .iter()
            .filter(|(_, all)| all.contains(id));
        subscribed.map(|(scope, _)| scope.clone()).collect()
    }

    /// A connection ended; the scopes that it was subscribed to.
    pub(super) fn remove(&mut self, id: &ConnectionId) -> Vec<Scope> {
        self.connections.retain(|(known, _)| known != id);
        let mut scopes = Vec::new();
        self.subscriptions.retain(|scope, subscribers| {
            let before = subscribers.len();
            subscribers.retain(|known| known != id);
            if subscribers.len() < before {
                scopes.push(scope.clone());
            }
            !subscribers.is_empty()
        });
        scopes
    }

    /// A connection takes the place of another; the scopes that move (00 §8).
    pub(super) fn replace(&mut self, old: &ConnectionId, new: &ConnectionId) -> Vec<Scope> {
        let scopes = self.remove(old);
        for scope in &scopes {
            self.subscribe(new, scope);
        }
        scopes
    }

    /// Subscribes a connection; `true` when that is new.
    pub(super) fn subscribe(&mut self, id: &ConnectionId, scope: &Scope) -> bool {
        let subscribers = self.subscriptions.entry(scope.clone()).or_default();
        let new = !subscribers.contains(id);
        if new {
            subscribers.push(id.clone());
        }
        new
    }

    /// The connections that are subscribed to a scope.
    pub(super) fn subscribers(&self, scope: &Scope) -> Vec<ConnectionId> {
        self.subscriptions.get(scope).cloned().unwrap_or_default()
    }

    /// Whether any connection is open.
    pub(super) fn any_open(&self) -> bool {
        self.connections
            .iter()
            .any(|(_, connection)| connection.open)
    }

    /// Hands a frame to the outboxes that it is for.
    pub(super) fn route(&self, frame: Outbound) {
        match frame {
            Outbound::Reply { to, body } => {
                if let Some(connection) = self.find(&to) {
                    connection.outbox.push_reply(body);
                }
            }
            Outbound::Paced { to, body, permit } => {
                if let Some(connection) = self.find(&to) {
                    connection.outbox.push_paced(body, permit);
                }
            }
            Outbound::Event {
                to: Audience::Connection(to),
                scope,
                kind,
                body,
            } => {
                if let Some(connection) = self.find(&to) {
                    connection.outbox.push_event(&scope, kind, body);
                }
            }
            Outbound::Event {
                to: Audience::Subscribers,
                scope,
                kind,
                body,
            } => {
                let subscribers = self.subscriptions.get(&scope);
                let subscribers: HashSet<&ConnectionId> =
                    subscribers.into_iter().flatten().collect();
                for (id, connection) in &self.connections {
                    if connection.open && subscribers.contains(id) {
                        connection.outbox.push_event(&scope, kind, body.clone());
                    }
                }
            }
        }
    }

    /// Answers a connection.
    pub(super) fn reply(&self, to: &ConnectionId, frame: &Value) {
        self.route(Outbound::Reply {
            to: to.clone(),
            body: frame.to_string(),
        });
    }
}
