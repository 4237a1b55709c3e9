//! The tools of this machine: what each is called, what the model is told of
//! it, and how one call of it runs (spec 04).
//!
//! A turn asks the [`Toolbox`] for its [`TurnTools`], tells the server of
//! them, checks calls with [`arguments::check`] and runs the approved ones
//! with [`TurnTools::run_batch`].

use std::sync::Arc;

pub mod arguments;
pub mod bash;
pub mod batch;
pub mod exec_command;
mod exec_session;
pub mod external;
pub mod lenient;
pub mod live;
pub mod registry;
pub mod result;
pub mod shell_command;
mod shell_run;
pub mod task_stop;
pub mod tool;
pub mod toolset;
pub mod write_stdin;

pub use registry::{Toolbox, TurnTools};
pub use tool::{
    AgentSecrets, Lane, Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome, ToolReturn,
};

/// The tools that run commands.
pub fn command_tools() -> Vec<Arc<dyn Tool>> {
    let mut tools: Vec<Arc<dyn Tool>> = vec![
        Arc::new(bash::Bash::default()),
        Arc::new(exec_command::ExecCommand),
        Arc::new(write_stdin::WriteStdin),
        Arc::new(task_stop::TaskStop::by_task_id()),
        Arc::new(task_stop::TaskStop::by_shell_id()),
    ];
    for tool in shell_command::ShellCommand::all() {
        tools.push(Arc::new(tool));
    }
    tools
}

#[cfg(test)]
mod tests;
