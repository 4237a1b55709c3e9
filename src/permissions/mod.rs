//! May this tool call run? Modes, rules, shell analysis, guards, suggestions.
//!
//! [`decide`] is a pure function of the call, the rules, the mode and a
//! [`Context`]; what it must know of the disk comes through [`Disk`]. It keeps
//! two promises: a call that is not fully understood is never waved through,
//! and the work is linear in the size of the call. Spec 05 §1–§13, decisions 00
//! §3, §6, §7.
//!
//! Reading order: [`pipeline`] (the stages), [`family`] (kinds of tools),
//! [`rules`], [`glob`], [`shell`], [`guards`], [`plan`], [`suggestion`],
//! [`classify`] (what a batch does with decisions), [`preview`].

pub mod case;
pub mod classify;
pub mod context;
pub mod family;
mod glob;
mod guards;
mod path;
mod pipeline;
mod plan;
pub mod preview;
pub mod rules;
mod shell;
pub mod suggestion;

pub use context::{AgentIds, Context, Disk, LexicalDisk, RealDisk, Workspace};
pub use family::Request;
pub use pipeline::{Decision, ModeState, Verdict, decide};
pub use rules::{LaunchRules, RuleList, Rules, SessionRules, settings_files};
pub use suggestion::{Scope as RuleScope, Suggestion, suggest};

#[cfg(test)]
mod tests;
