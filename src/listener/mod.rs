//! To be filled.

pub mod door;
pub mod outbox;
