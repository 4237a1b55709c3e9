//! The ways in and out of this process: the relay connection and the direct
//! door with the sockets under them, and the health endpoints and the watchdog that answer whether the
//! process is well.
//!
//! Nothing here knows of conversations: a door speaks to the listener through
//! [`crate::listener::door`] and is spoken to through
//! [`crate::listener::outbox`] (01 §8, 02 §1).

pub mod direct;
mod gate;
pub mod http;
pub mod relay;
mod socket;
pub mod watchdog;
