//! Kinds of tools: which names belong together, which path and which command a
//! call is about (05 §2.2, §3). Names are compared exactly.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// One tool call: the name as the model wrote it and its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Tool name.
    pub tool: &'a str,
    /// Parsed arguments; an empty object when they were blank or not an object.
    pub args: &'a Map<String, Value>,
}

/// The kind of a tool for rules and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Shells.
    Bash,
    /// Reading one file.
    Read,
    /// Writing one file.
    Write,
    /// Changing one file.
    Edit,
    /// Finding files by name.
    Glob,
    /// Finding text in files.
    Grep,
    /// Listing a directory.
    ListDir,
    /// Starting a subagent.
    Task,
    /// Every other tool: its own kind.
    Other,
}

impl Family {
    /// The kind of the tool `name`.
    pub fn of(name: &str) -> Self {
        match name {
            "Bash" | "shell" | "Shell" | "shell_command" | "ShellCommand" | "exec_command"
            | "write_stdin" => Self::Bash,
            "Read" | "read_file" | "ReadFile" => Self::Read,
            "Write" => Self::Write,
            "Edit" | "MultiEdit" | "NotebookEdit" => Self::Edit,
            "Glob" => Self::Glob,
            "Grep" | "grep_files" | "GrepFiles" => Self::Grep,
            "list_dir" | "ListDir" | "LS" => Self::ListDir,
            "Task" | "task" | "Agent" | "agent" => Self::Task,
            _ => Self::Other,
        }
    }

    /// The name under which rules know it; `None` for [`Family::Other`].
    pub fn canonical(self) -> Option<&'static str> {
        Some(match self {
            Self::Bash => "Bash",
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Edit => "Edit",
            Self::Glob => "Glob",
            Self::Grep => "Grep",
            Self::ListDir => "ListDir",
            Self::Task => "Task",
            Self::Other => return None,
        })
    }

    /// Whether its rules speak of paths.
    pub fn is_file(self) -> bool {
        matches!(
            self,
            Self::Read | Self::Write | Self::Edit | Self::Glob | Self::Grep | Self::ListDir
        )
    }

    /// Whether it only looks.
    pub fn is_reader(self) -> bool {
        matches!(self, Self::Read | Self::Glob | Self::Grep | Self::ListDir)
    }

    /// Whether it walks directories.
    pub fn is_search(self) -> bool {
        matches!(self, Self::Glob | Self::Grep | Self::ListDir)
    }
}

/// The name under which rules know the tool `name`.
pub(super) fn canonical_name(name: &str) -> &str {
    Family::of(name).canonical().unwrap_or(name)
}

/// The tools that `acceptEdits` lets run, by exact name.
pub(super) fn is_edit_tool(name: &str) -> bool {
    matches!(
        name,
        "Write"
            | "Edit"
            | "MultiEdit"
            | "NotebookEdit"
            | "memory"
            | "ApplyPatch"
            | "memory_apply_patch"
    )
}

/// The tools that run without asking outside `strict`, by exact name (05 §5).
pub(super) fn is_quiet_tool(name: &str) -> bool {
    matches!(
        name,
        "Read"
            | "Glob"
            | "Grep"
            | "TodoWrite"
            | "LS"
            | "read_file"
            | "list_dir"
            | "grep_files"
            | "write_stdin"
            | "ReadFile"
            | "ListDir"
            | "GrepFiles"
            | "UpdatePlan"
            | "memory"
            | "memory_apply_patch"
            | "MessageChannel"
    )
}

/// The tools whose `input` is a patch that names its own files. The reference
/// forgot `apply_patch`; guards here do not.
pub(super) fn is_patch_tool(name: &str) -> bool {
    matches!(name, "ApplyPatch" | "apply_patch" | "memory_apply_patch")
}

impl<'a> Request<'a> {
    /// The kind that rules and defaults use: a `Monitor` with a command is a
    /// shell, one with a WebSocket its own kind.
    pub fn family(&self) -> Family {
        if self.is_monitor_command() {
            Family::Bash
        } else {
            Family::of(self.tool)
        }
    }

    /// `Monitor` with a `command` text. Beside an empty one it opens its `ws`,
    /// which no rule for commands speaks of; the published program judges an
    /// empty command then.
    pub(super) fn is_monitor_command(&self) -> bool {
        let socket = || self.args.get("ws").is_some_and(|ws| !ws.is_null());
        self.tool == "Monitor"
            && self
                .text("command")
                .is_some_and(|command| !command.is_empty() || !socket())
    }

    /// A string argument.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.args.get(key).and_then(Value::as_str)
    }

    /// The path that the call is about: the first non-empty of `file_path`,
    /// `path`, `notebook_path`, and for directory listings `dir_path`.
    pub fn path(&self) -> Option<&'a str> {
        let own: &[&str] = if Family::of(self.tool) == Family::ListDir {
            &["file_path", "path", "notebook_path", "dir_path"]
        } else {
            &["file_path", "path", "notebook_path"]
        };
        own.iter()
            .find_map(|key| self.text(key).filter(|text| !text.is_empty()))
    }

    /// The command of a shell call, as the model gave it.
    pub(super) fn command(&self) -> Option<Command<'a>> {
        if self.tool == "write_stdin" {
            return None;
        }
        if let Some(text) = self.text("cmd").or_else(|| self.text("command")) {
            return Some(Command::Text(text));
        }
        let words = self.args.get("command")?.as_array()?;
        Some(Command::Argv(
            words.iter().map(|w| w.as_str().unwrap_or("")).collect(),
        ))
    }

    /// Every file that a patch tool names.
    pub(super) fn patch_targets(&self) -> Vec<&'a str> {
        const MARKS: [&str; 4] = [
            "*** Add File:",
            "*** Update File:",
            "*** Delete File:",
            "*** Move to:",
        ];
        let input = self.text("input").or_else(|| self.text("patch"));
        input
            .unwrap_or("")
            .lines()
            .filter_map(|line| {
                let line = line.trim();
                MARKS
                    .iter()
                    .find_map(|mark| line.strip_prefix(mark))
                    .map(str::trim)
                    .filter(|path| !path.is_empty())
            })
            .collect()
    }
}

/// The command of a shell call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// A line for a shell.
    Text(&'a str),
    /// Words for `execve`.
    Argv(Vec<&'a str>),
}

impl<'a> Command<'a> {
    /// As one text; words are joined with single blanks.
    pub(super) fn joined(&self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Argv(words) => Cow::Owned(words.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn args(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn the_path_of_a_call_is_the_first_that_is_not_empty() {
        let a = args(json!({"file_path": "", "path": "p", "dir_path": "d"}));
        let read = Request {
            tool: "Read",
            args: &a,
        };
        assert_eq!(read.path(), Some("p"));
        let b = args(json!({"dir_path": "d"}));
        assert_eq!(
            Request {
                tool: "Read",
                args: &b
            }
            .path(),
            None
        );
        assert_eq!(
            Request {
                tool: "list_dir",
                args: &b
            }
            .path(),
            Some("d")
        );
    }

    #[test]
    fn cmd_wins_over_command_and_arrays_join() {
        let a = args(json!({"cmd": "ls", "command": ["rm"]}));
        let call = Request {
            tool: "exec_command",
            args: &a,
        };
        assert_eq!(call.command(), Some(Command::Text("ls")));
        let b = args(json!({"command": ["a", "b c"]}));
        let call = Request {
            tool: "shell",
            args: &b,
        };
        assert_eq!(call.command().unwrap().joined(), "a b c");
    }

    #[test]
    fn a_patch_names_every_file_it_touches() {
        let a = args(json!({"input":
            "*** Begin Patch\n*** Update File: a\n*** Move to: b\n+x\n*** Delete File: c\n*** End Patch"}));
        let call = Request {
            tool: "ApplyPatch",
            args: &a,
        };
        assert_eq!(call.patch_targets(), ["a", "b", "c"]);
    }
}
