//! The tools of this machine: what each is called, what the model is told of
//! it, and how one call of it runs (spec 04).
//!
//! A turn asks the [`Toolbox`] for its [`TurnTools`], tells the server of
//! them, checks calls with [`arguments::check`] and runs the approved ones
//! with [`TurnTools::run_batch`].

use std::path::Path;
use std::sync::Arc;

use crate::state::RemoteSettings;

pub mod agent;
pub mod apply_patch;
pub mod args;
pub mod arguments;
pub mod around;
pub mod ask_user_question;
pub mod bash;
pub mod batch;
pub mod collation;
pub mod controllers;
pub mod disk;
pub mod edit;
pub mod exec_command;
mod exec_session;
pub mod external;
pub mod glob;
pub mod grep;
pub mod grep_files;
pub mod image;
pub mod list_dir;
pub mod live;
pub mod ls;
pub mod memory;
pub mod monitor;
pub mod multi_edit;
mod offload;
pub mod overflow;
pub mod patch;
pub mod paths;
pub mod plan_mode;
pub mod read;
pub mod read_file;
pub mod registry;
pub mod replace;
pub mod result;
pub mod search;
pub mod send_agent_message;
pub mod set_working_directory;
pub mod shell_command;
mod shell_run;
pub mod skill;
#[cfg(test)]
mod table;
pub mod task_list;
pub mod task_stop;
pub mod text;
pub mod todo_write;
pub mod tool;
pub mod toolset;
#[cfg(test)]
mod trial;
pub mod update_plan;
pub mod view_image;
pub mod worktree;
pub mod write;
pub mod write_stdin;

pub use controllers::Controllers;
pub use registry::{Toolbox, TurnTools};
pub use tool::{
    AgentSecrets, Lane, Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome, ToolReturn,
};

use crate::api::Client;
use crate::memory::Memory;
use crate::skills::Skills;
use crate::subagents::Kinds;

/// The tools that run commands and subagents, or watch a WebSocket, which is
/// opened by way of `upgrade`.
pub fn command_tools(upgrade: &reqwest::Client) -> Vec<Arc<dyn Tool>> {
    let mut tools: Vec<Arc<dyn Tool>> = vec![
        Arc::new(bash::Bash::default()),
        Arc::new(exec_command::ExecCommand),
        Arc::new(write_stdin::WriteStdin),
        Arc::new(monitor::Monitor::new(upgrade)),
        Arc::new(agent::Agent::new(&Kinds::built_in(), 0)),
        Arc::new(task_stop::TaskStop::by_task_id()),
        Arc::new(task_stop::TaskStop::by_shell_id()),
    ];
    for tool in shell_command::ShellCommand::all() {
        tools.push(Arc::new(tool));
    }
    tools
}

/// The tools that only Letta Cloud can serve (04 §3).
pub fn cloud_tools(api: &Client) -> Vec<Arc<dyn Tool>> {
    vec![Arc::new(send_agent_message::SendAgentMessage::new(
        api.clone(),
    ))]
}

/// The tools that enter and leave plan mode; modes belong to `remote`, plan
/// files lie in `plans`.
pub fn plan_tools(remote: &RemoteSettings, plans: &Path) -> Vec<Arc<dyn Tool>> {
    vec![
        Arc::new(plan_mode::EnterPlanMode::new(remote.clone(), plans)),
        Arc::new(plan_mode::ExitPlanMode::new(remote.clone())),
    ]
}

/// The tools that read, write and search files, keep lists, load skills, and
/// change memory and worktrees.
pub fn file_tools(skills: Skills, memory: &Memory) -> Vec<Arc<dyn Tool>> {
    let images = image::Images::default();
    let tasks = task_list::TaskStore::default();
    let mut tools: Vec<Arc<dyn Tool>> = vec![
        Arc::new(read::Read::new(images.clone())),
        Arc::new(write::Write),
        Arc::new(edit::Edit),
        Arc::new(multi_edit::MultiEdit),
        Arc::new(apply_patch::ApplyPatch),
        Arc::new(grep::Grep),
        Arc::new(glob::Glob),
        Arc::new(ls::Ls),
        Arc::new(view_image::ViewImage::new(images)),
        Arc::new(set_working_directory::SetWorkingDirectory),
        Arc::new(ask_user_question::AskUserQuestion),
        Arc::new(todo_write::TodoWrite),
        Arc::new(update_plan::UpdatePlan),
        Arc::new(worktree::enter::EnterWorktree),
        Arc::new(worktree::exit::ExitWorktree),
        Arc::new(skill::Skill::new(skills)),
        Arc::new(memory::MemoryEdit(memory.clone())),
        Arc::new(memory::MemoryApplyPatch(memory.clone())),
    ];
    for name in ["grep_files", "GrepFiles"] {
        tools.push(Arc::new(grep_files::GrepFiles::new(name)));
    }
    for name in ["list_dir", "ListDir"] {
        tools.push(Arc::new(list_dir::ListDir::new(name)));
    }
    for name in ["read_file", "ReadFile"] {
        tools.push(Arc::new(read_file::ReadFile::new(name)));
    }
    for action in [
        task_list::TaskAction::Create,
        task_list::TaskAction::Get,
        task_list::TaskAction::List,
        task_list::TaskAction::Update,
    ] {
        tools.push(Arc::new(task_list::TaskTool::new(action, tasks.clone())));
    }
    tools
}

#[cfg(test)]
pub(crate) mod tests;
