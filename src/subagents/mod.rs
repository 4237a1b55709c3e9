//! Subagents as data: which kinds there are, and how one is asked for (spec 07
//! §3.1–§3.2).
//!
//! [`kinds`] reads their descriptions; [`desk`] is the mailbox of whoever owns
//! the runs (`conversation::subagents`). Invariant: nothing here runs anything.

pub mod desk;
pub mod kinds;

pub use desk::{Delegation, Desk, LaunchError, Launched, Order, Parent, Wanted};
pub use kinds::{Kind, Kinds};
