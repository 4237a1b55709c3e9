//! Scheduled prompts (07 §1, 00 §4): who is told what, when, and by which process.
//!
//! A task stands in the [`store`], which the published program shares. One
//! process holds the [`lease`]; its [`scheduler`] looks every minute into its
//! [`table`] of tasks, fires what is due into a conversation's queue ([`firing`])
//! and writes down what became of it. The command line and clients change tasks
//! through [`operations`]. Invariant: the store is changed under its lock only.

pub mod envelope;
pub mod expression;
pub mod firing;
pub mod forms;
pub mod jitter;
pub mod lease;
pub mod operations;
pub mod runs;
pub mod scheduler;
mod settle;
pub mod store;
pub mod table;
pub mod task;
pub mod zone;
