//! The tools of this machine: what each is called, what the model is told of
//! it, and how one call of it runs (spec 04).

pub mod args;
pub mod disk;
pub mod edit;
pub mod glob;
pub mod grep;
pub mod grep_files;
pub mod image;
pub mod multi_edit;
mod offload;
pub mod overflow;
pub mod paths;
pub mod read;
pub mod replace;
pub mod search;
pub mod set_working_directory;
pub mod text;
pub mod tool;
#[cfg(test)]
mod trial;
pub mod write;

pub use tool::{Lane, Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome, ToolReturn};
