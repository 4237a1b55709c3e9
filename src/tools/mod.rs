//! The tools of this machine: what each is called, what the model is told of
//! it, and how one call of it runs (spec 04).

pub mod apply_patch;
pub mod args;
pub mod ask_user_question;
pub mod collation;
pub mod disk;
pub mod edit;
pub mod glob;
pub mod grep;
pub mod grep_files;
pub mod image;
pub mod list_dir;
pub mod ls;
pub mod multi_edit;
mod offload;
pub mod overflow;
pub mod patch;
pub mod paths;
pub mod read;
pub mod read_file;
pub mod replace;
pub mod search;
pub mod set_working_directory;
pub mod task_list;
pub mod text;
pub mod todo_write;
pub mod tool;
#[cfg(test)]
mod trial;
pub mod update_plan;
pub mod view_image;
pub mod write;

pub use tool::{Lane, Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome, ToolReturn};
