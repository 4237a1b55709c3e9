//! The tools of this machine: what each is called, what the model is told of
//! it, and how one call of it runs (spec 04).
//!
//! A turn asks the [`Toolbox`] for its [`TurnTools`], tells the server of
//! them, checks calls with [`arguments::check`] and runs the approved ones
//! with [`TurnTools::run_batch`].

use std::sync::Arc;

pub mod apply_patch;
pub mod args;
pub mod arguments;
pub mod bash;
pub mod batch;
pub mod disk;
pub mod edit;
pub mod exec_command;
mod exec_session;
pub mod external;
pub mod glob;
pub mod grep;
pub mod grep_files;
pub mod image;
pub mod lenient;
pub mod live;
pub mod multi_edit;
mod offload;
pub mod overflow;
pub mod patch;
pub mod paths;
pub mod read;
pub mod registry;
pub mod replace;
pub mod result;
pub mod search;
pub mod set_working_directory;
pub mod shell_command;
mod shell_run;
pub mod task_stop;
pub mod text;
pub mod todo_write;
pub mod tool;
pub mod toolset;
pub mod write;
pub mod write_stdin;
#[cfg(test)]
mod trial;

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

/// The tools that read, write and search files.
pub fn file_tools(truncation: overflow::Truncation) -> Vec<Arc<dyn Tool>> {
    vec![
        Arc::new(read::Read::new(truncation, image::Images::default())),
        Arc::new(write::Write),
        Arc::new(edit::Edit),
        Arc::new(multi_edit::MultiEdit),
        Arc::new(grep::Grep::new(truncation)),
        Arc::new(glob::Glob::new(truncation)),
        Arc::new(grep_files::GrepFiles::new("grep_files")),
        Arc::new(grep_files::GrepFiles::new("GrepFiles")),
        Arc::new(set_working_directory::SetWorkingDirectory),
    ]
}

#[cfg(test)]
mod tests;
