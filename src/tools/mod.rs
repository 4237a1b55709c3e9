//! The tools of this machine: what each is called, what the model is told of
//! it, and how one call of it runs (spec 04).
//!
//! A turn asks the [`Toolbox`] for its [`TurnTools`], tells the server of
//! them, checks calls with [`arguments::check`] and runs the approved ones
//! with [`TurnTools::run_batch`].

pub mod arguments;
pub mod bash;
pub mod batch;
pub mod external;
pub mod lenient;
pub mod live;
pub mod registry;
pub mod result;
mod shell_run;
pub mod tool;
pub mod toolset;

pub use registry::{Toolbox, TurnTools};
pub use tool::{
    AgentSecrets, Lane, Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome, ToolReturn,
};

#[cfg(test)]
mod tests;
