//! The tools of this machine: what each is called, what the model is told of
//! it, and how one call of it runs (spec 04).
//!
//! A turn asks the [`Toolbox`] for its [`TurnTools`], tells the server of
//! them, checks calls with [`arguments::check`] and runs the approved ones
//! with [`TurnTools::run_batch`].

pub mod args;
pub mod arguments;
pub mod bash;
pub mod batch;
pub mod disk;
pub mod edit;
pub mod external;
pub mod image;
pub mod lenient;
pub mod live;
pub mod multi_edit;
mod offload;
pub mod overflow;
pub mod paths;
pub mod read;
pub mod registry;
pub mod replace;
pub mod result;
pub mod set_working_directory;
mod shell_run;
pub mod text;
pub mod tool;
pub mod toolset;
#[cfg(test)]
mod trial;
pub mod write;

pub use registry::{Toolbox, TurnTools};
pub use tool::{
    AgentSecrets, Lane, Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome, ToolReturn,
};

#[cfg(test)]
mod tests;
