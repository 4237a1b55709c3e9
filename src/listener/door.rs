//! What a door tells the listener: connections that open, speak, drop and end.
//!
//! A door is whatever carries frames: the relay, or the local WebSocket server.
//! Invariant: the events of one connection arrive in the order
//! `Opened (Frame* Closed Opened)* Frame* Gone`, and nothing in them says which
//! door sent them (02 §1.1, §11; 00 §8).

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::outbox::Outbox;
use crate::protocol::ConnectionId;

/// How many events may wait for the listener before doors stop reading their sockets.
pub const DOOR_CAPACITY: usize = 64;

/// What a connection is to this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// One client among others: it is told what it asks for (02 §12.4).
    Client,
    /// The connection by which this machine is known to others. It is told the
    /// state of live conversations when it opens (02 §11.1).
    Machine {
        /// The name under which this machine is known there.
        name: String,
        /// Set after a re-registration: the connection whose place this one
        /// takes. Its conversations, running turns, queues, approvals and
        /// subscriptions go on under the new id (00 §8), and nothing more is
        /// heard of the old id. Never equal to the connection itself.
        replaces: Option<ConnectionId>,
    },
}

/// One thing that happened at a door.
#[derive(Debug)]
pub enum DoorEvent {
    /// A connection is ready for frames in both directions: a new one, or one
    /// that was [`Closed`](Self::Closed) and came back.
    ///
    /// A machine's connection gets the state of live conversations replayed into
    /// `outbox` (01 §8.10, 02 §11.1). Socket-bound caches of an earlier opening are void.
    Opened {
        /// Whom it is. The same id as before means: the same subscriptions and
        /// the same `event_seq`.
        connection: ConnectionId,
        /// What it is to this machine.
        role: Role,
        /// Where events and replies for it go. The same handle at every opening
        /// of one connection.
        outbox: Outbox,
    },
    /// One message of the client, as text: anything, not necessarily JSON.
    Frame {
        /// Who said it; open at this moment.
        connection: ConnectionId,
        /// At most 100 MiB; undecodable bytes of a binary message are U+FFFD.
        text: String,
    },
    /// The connection dropped and will try to come back: everything of it is
    /// kept, what is pushed into its outbox meanwhile is discarded (02 §11.1).
    Closed {
        /// Which one.
        connection: ConnectionId,
    },
    /// The connection ended for good and its id will not be used again
    /// (02 §11.2). It may have been open until now.
    Gone {
        /// Which one.
        connection: ConnectionId,
    },
}

/// The end that a door holds. Cheap to clone; a full channel makes the door wait.
pub type DoorSender = mpsc::Sender<DoorEvent>;

/// The end that the listener holds: all doors meet here.
pub type DoorReceiver = mpsc::Receiver<DoorEvent>;

/// The channel between all doors and the listener, bounded by [`DOOR_CAPACITY`].
pub fn channel() -> (DoorSender, DoorReceiver) {
    mpsc::channel(DOOR_CAPACITY)
}

/// What came in before there was a listener, without what clients said that have
/// left by now (02 §11.2).
pub(super) fn still_wanted(doors: &mut DoorReceiver) -> VecDeque<DoorEvent> {
    let mut events: VecDeque<DoorEvent> = std::iter::from_fn(|| doors.try_recv().ok()).collect();
    let left = |event: &DoorEvent| match event {
        DoorEvent::Gone { connection } => Some(connection.clone()),
        _ => None,
    };
    let left: Vec<ConnectionId> = events.iter().filter_map(left).collect();
    events.retain(|event| {
        let (DoorEvent::Opened { connection, .. }
        | DoorEvent::Frame { connection, .. }
        | DoorEvent::Closed { connection }
        | DoorEvent::Gone { connection }) = event;
        !left.contains(connection)
    });
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn s02_11_2_what_was_said_before_the_start_was_over_counts_for_clients_that_are_still_there()
     {
        let (door, mut doors) = channel();
        let (stays, leaves) = (ConnectionId::new("stays"), ConnectionId::new("leaves"));
        let says = |connection: &ConnectionId, text: &str| DoorEvent::Frame {
            connection: connection.clone(),
            text: text.to_owned(),
        };
        for event in [
            says(&leaves, "one"),
            says(&stays, "two"),
            says(&leaves, "three"),
            DoorEvent::Gone {
                connection: leaves.clone(),
            },
            says(&stays, "four"),
        ] {
            door.send(event).await.unwrap();
        }
        let kept = still_wanted(&mut doors).into_iter();
        let texts: Vec<String> = kept
            .map(|event| match event {
                DoorEvent::Frame { connection, text } if connection == stays => text,
                other => panic!("{other:?} is left"),
            })
            .collect();
        assert_eq!(texts, ["two", "four"]);
    }
}
