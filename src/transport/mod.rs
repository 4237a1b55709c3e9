//! How frames reach the listener: the relay connection, and the sockets under it.
//!
//! Nothing here knows of conversations: a door speaks to the listener through
//! [`crate::listener::door`] and is spoken to through
//! [`crate::listener::outbox`] (01 §8, 02 §1).

pub mod relay;
mod socket;
