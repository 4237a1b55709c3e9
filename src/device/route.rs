//! Which area carries out which command: the one table of [`super::Device`].
//!
//! Invariant: every command type of the catalogue that no conversation handles
//! stands here, with a handler or with the reason why it is declined (06 §17).

use serde_json::{Map, Value};

use super::call::{Call, Pending, PendingText};
use super::terminals::{self, Terminals};
use super::watches::{self, Watches};
use super::{cron, directories, files, git};

/// One command type.
#[derive(Debug)]
pub(super) struct Route {
    /// `type` of the command.
    pub(super) name: &'static str,
    /// The fields that a failed answer must have, as JSON text of an object (06 §1.1).
    empty: &'static str,
    /// Who does it.
    pub(super) handler: Handler,
}

/// How a command is carried out.
#[derive(Debug)]
pub(super) enum Handler {
    /// By a task of its own that ends in the answer.
    Job(fn(Call) -> Pending),
    /// The same, for an answer that the task writes out itself.
    Writer(fn(Call) -> PendingText),
    /// By the owner of terminals, at once and in order.
    Terminal(fn(&mut Terminals, Call)),
    /// By the owner of file watches, at once and in order.
    Watch(fn(&mut Watches, Call)),
    /// Not at all, for this reason.
    Decline(&'static str),
}

impl Handler {
    /// Whether nothing answers the command when all is well.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Self::Terminal(_) | Self::Watch(_))
    }
}

impl Route {
    /// The mandatory fields of a failed answer.
    pub(super) fn empty(&self) -> Map<String, Value> {
        serde_json::from_str(self.empty).unwrap_or_default()
    }
}

const NOT_HERE: &str = "This version of letta does not support this command.";

/// A command that is in the catalogue and not in [`ROUTES`].
static UNKNOWN: Route = Route {
    name: "",
    empty: "{}",
    handler: Handler::Decline(NOT_HERE),
};

/// The route of `kind`.
pub(super) fn find(kind: &str) -> &'static Route {
    ROUTES
        .iter()
        .find(|route| route.name == kind)
        .unwrap_or(&UNKNOWN)
}

/// A row of the table.
const fn job(name: &'static str, empty: &'static str, job: fn(Call) -> Pending) -> Route {
    Route {
        name,
        empty,
        handler: Handler::Job(job),
    }
}

/// A row of a terminal command.
const fn terminal(name: &'static str, handler: fn(&mut Terminals, Call)) -> Route {
    Route {
        name,
        empty: "{}",
        handler: Handler::Terminal(handler),
    }
}

/// A row of a watch command.
const fn watch(name: &'static str, handler: fn(&mut Watches, Call)) -> Route {
    Route {
        name,
        empty: "{}",
        handler: Handler::Watch(handler),
    }
}

static ROUTES: &[Route] = &[
    // Working directories.
    job("get_cwd_map", "{}", |call| {
        Box::pin(directories::get_cwd_map(call))
    }),
    job("set_boot_working_directory", "{}", |call| {
        Box::pin(directories::set_boot(call))
    }),
    // Files.
    Route {
        name: "list_in_directory",
        empty: r#"{"path":"","folders":[],"hasMore":false}"#,
        handler: Handler::Writer(|call| Box::pin(files::list_in_directory(call))),
    },
    job(
        "get_tree",
        r#"{"path":"","entries":[],"has_more_depth":false}"#,
        |call| Box::pin(files::get_tree(call)),
    ),
    job("search_files", r#"{"files":[]}"#, |call| {
        Box::pin(files::search_files(call))
    }),
    job(
        "grep_in_files",
        r#"{"matches":[],"total_matches":0,"total_files":0,"truncated":false}"#,
        |call| Box::pin(files::grep_in_files(call)),
    ),
    Route {
        name: "read_file",
        empty: r#"{"path":"","content":null,"encoding":"utf8"}"#,
        handler: Handler::Writer(|call| Box::pin(files::read_file(call))),
    },
    job("write_file", r#"{"path":""}"#, |call| {
        Box::pin(files::write_file(call))
    }),
    job(
        "edit_file",
        r#"{"file_path":"","message":null,"replacements":0}"#,
        |call| Box::pin(files::edit_file(call)),
    ),
    job("file_ops", "{}", |call| Box::pin(files::file_ops(call))),
    watch("watch_file", watches::watch_file),
    watch("unwatch_file", watches::unwatch_file),
    // Git.
    job("search_branches", r#"{"branches":[]}"#, |call| {
        Box::pin(git::search_branches(call))
    }),
    job("checkout_branch", r#"{"branch":""}"#, |call| {
        Box::pin(git::checkout_branch(call))
    }),
    // Terminals.
    terminal("terminal_spawn", terminals::spawn),
    terminal("terminal_input", terminals::input),
    terminal("terminal_resize", terminals::resize),
    terminal("terminal_kill", terminals::kill),
    // Schedules.
    job("cron_list", r#"{"tasks":[]}"#, |call| {
        Box::pin(cron::list(call))
    }),
    job("cron_add", "{}", |call| Box::pin(cron::add(call))),
    job("cron_get", r#"{"found":false,"task":null}"#, |call| {
        Box::pin(cron::get(call))
    }),
    job("cron_runs", "{}", |call| Box::pin(cron::runs(call))),
    job("cron_trigger", r#"{"found":false}"#, |call| {
        Box::pin(cron::trigger(call))
    }),
    job("cron_pause", r#"{"found":false}"#, |call| {
        Box::pin(cron::pause(call))
    }),
    job("cron_resume", r#"{"found":false}"#, |call| {
        Box::pin(cron::resume(call))
    }),
    job("cron_update", "{}", |call| Box::pin(cron::update(call))),
    job("cron_delete", r#"{"found":false}"#, |call| {
        Box::pin(cron::delete(call))
    }),
    job(
        "cron_delete_all",
        r#"{"agent_id":"","deleted":0}"#,
        |call| Box::pin(cron::delete_all(call)),
    ),
];
