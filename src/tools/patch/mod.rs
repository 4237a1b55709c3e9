//! Patches in the `*** Begin Patch` format: parsed, fitted to the files as
//! they are, written all or not at all (04 §7.15, 00 §6).
//!
//! Invariant: [`plan`] only reads and works out every operation; nothing is
//! written before all of them fit, and [`Plan::write`] undoes what it wrote
//! when a later write fails.

mod fit;
mod parse;
mod plan;
mod seek;

pub use fit::{FitError, fit};
pub use parse::{Body, Hunk, Operation, ParseError, parse};
pub use plan::{Applied, Plan, PlanError, plan};
