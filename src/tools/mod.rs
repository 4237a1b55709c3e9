//! The tools of this machine: what each is called, what the model is told of
//! it, and how one call of it runs (spec 04).

pub mod tool;

pub use tool::{Lane, Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome, ToolReturn};
