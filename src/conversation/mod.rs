//! One conversation: an actor that owns its queue, its turn, its approvals.

mod accepted;
mod correlation;
mod lifecycle;
mod queue;
