//! One conversation: an actor that owns its queue, its turn, its questions
//! (spec 02 §7–§11, 03).
//!
//! [`actor`] is the task and its messages; [`intake`], [`abort`], [`replay`],
//! [`turns`], [`slash`] and [`recovery`] are what it does with them; [`turn`] is the task
//! of one running turn. Invariant: nobody else changes a conversation.

mod abort;
mod accepted;
mod actor;
mod agent_facts;
mod asks;
mod assignment;
mod correlation;
mod echo;
pub mod experiments;
mod frames;
mod git_context;
mod intake;
mod interrupt;
mod lifecycle;
pub mod mailbox;
mod memory_sync;
mod model;
mod pending;
mod queue;
mod recovery;
mod reminders;
mod replay;
pub mod services;
mod slash;
mod status;
pub mod subagents;
#[cfg(any(test, fuzzing))]
pub mod trial;
mod turn;
mod turns;

use std::sync::Arc;

use tokio::sync::mpsc;

pub use actor::{Load, Remnant};
pub use agent_facts::AgentFacts;
pub use assignment::{Assignment, Board, BoardChange, News};
pub use git_context::GitContexts;
pub use mailbox::Message;
pub use model::CarriedModel;
pub use services::{Link, Services};
pub use status::{Catalogs, SUPPORTED_COMMANDS};
pub use turn::Guards;

use crate::protocol::{ConnectionId, Scope};

/// Runs one conversation until its mailbox closes or it is retired. The caller
/// owns the future; dropping it stops everything in it.
pub async fn run(
    scope: Scope,
    services: Arc<Services>,
    subscribers: Vec<ConnectionId>,
    remnant: Remnant,
    mailbox: mpsc::UnboundedReceiver<Message>,
) {
    actor::Conversation::new(scope, services, subscribers, remnant)
        .run(mailbox)
        .await;
}
