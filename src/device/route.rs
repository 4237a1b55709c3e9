//! Which area carries out which command: the one table of [`super::Device`].
//!
//! Invariant: every command type of the catalogue that no conversation handles
//! stands here, with a handler or with the reason why it is declined (06 §17).

use serde_json::{Map, Value};

use super::call::{Call, Pending, PendingText};
use super::terminals::{self, Terminals};
use super::watches::{self, Watches};
use super::{
    agents, channels, conversations, create_agent, cron, directories, files, git, memory,
    memory_write, models, providers, secrets, settings, skills, toolsets, update_model,
};

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
    /// Not at all, by a task that looks at the fields and repeats some of them.
    DeclineWith(fn(Call) -> Pending),
}

impl Handler {
    /// Whether nothing answers the command when all is well.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Self::Terminal(_) | Self::Watch(_))
    }
}

impl Route {
    /// Whether a frame without a `request_id` is left alone: its sender could
    /// not be told what became of it (06 §1.1).
    pub(super) fn needs_id(&self) -> bool {
        !self.handler.is_silent() && !["list_in_directory", "file_ops"].contains(&self.name)
    }

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

/// A row for what is not done, answered with the reason.
const fn decline(name: &'static str, reason: &'static str) -> Route {
    Route {
        name,
        empty: "{}",
        handler: Handler::Decline(reason),
    }
}

/// The same with an answer that repeats fields.
const fn decline_with(name: &'static str, empty: &'static str, job: fn(Call) -> Pending) -> Route {
    Route {
        name,
        empty,
        handler: Handler::DeclineWith(job),
    }
}

/// A row for a command of the chat channels.
const fn channel(name: &'static str, empty: &'static str) -> Route {
    decline_with(name, empty, |call| Box::pin(channels::decline(call)))
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
    // Agents and conversations (06 §10, §11).
    job("agent_list", r#"{"agents":[]}"#, |call| {
        Box::pin(agents::list(call))
    }),
    job("agent_retrieve", r#"{"agent":null}"#, |call| {
        Box::pin(agents::retrieve(call))
    }),
    job("agent_create", r#"{"agent":null}"#, |call| {
        Box::pin(agents::create(call))
    }),
    job("agent_update", r#"{"agent":null}"#, |call| {
        Box::pin(agents::update(call))
    }),
    job("agent_delete", "{}", |call| Box::pin(agents::delete(call))),
    job("create_agent", "{}", |call| {
        Box::pin(create_agent::create(call))
    }),
    job("conversation_list", r#"{"conversations":[]}"#, |call| {
        Box::pin(conversations::list(call))
    }),
    job(
        "conversation_retrieve",
        r#"{"conversation":null}"#,
        |call| Box::pin(conversations::retrieve(call)),
    ),
    job("conversation_create", r#"{"conversation":null}"#, |call| {
        Box::pin(conversations::create(call))
    }),
    job("conversation_update", r#"{"conversation":null}"#, |call| {
        Box::pin(conversations::update(call))
    }),
    job("conversation_recompile", r#"{"result":null}"#, |call| {
        Box::pin(conversations::recompile(call))
    }),
    job("conversation_fork", r#"{"conversation":null}"#, |call| {
        Box::pin(conversations::fork(call))
    }),
    job(
        "conversation_messages_list",
        r#"{"messages":[],"next_before":null,"has_more":false}"#,
        |call| Box::pin(conversations::messages(call)),
    ),
    job("conversation_compact", r#"{"compaction":null}"#, |call| {
        Box::pin(conversations::compact(call))
    }),
    // Models and toolsets (06 §7, §8).
    job("list_models", r#"{"entries":[]}"#, |call| {
        Box::pin(models::list(call))
    }),
    job("update_model", r#"{"runtime":null}"#, |call| {
        Box::pin(update_model::update(call))
    }),
    job("update_toolset", r#"{"runtime":null}"#, |call| {
        Box::pin(toolsets::update(call))
    }),
    // Skills, secrets, settings (06 §12–§14).
    job("skill_enable", "{}", |call| Box::pin(skills::enable(call))),
    job("skill_disable", "{}", |call| {
        Box::pin(skills::disable(call))
    }),
    job("secret_list", r#"{"secrets":[]}"#, |call| {
        Box::pin(secrets::list(call))
    }),
    job("secret_apply", r#"{"names":[]}"#, |call| {
        Box::pin(secrets::apply(call))
    }),
    job(
        "get_reflection_settings",
        r#"{"reflection_settings":null}"#,
        |call| Box::pin(settings::get_reflection(call)),
    ),
    job(
        "set_reflection_settings",
        r#"{"reflection_settings":null}"#,
        |call| Box::pin(settings::set_reflection(call)),
    ),
    job("get_experiments", r#"{"experiments":[]}"#, |call| {
        Box::pin(settings::get_experiments(call))
    }),
    job("set_experiment", r#"{"experiments":[]}"#, |call| {
        Box::pin(settings::set_experiment(call))
    }),
    // Memory (06 §6.5).
    job(
        "list_memory",
        r#"{"entries":[],"done":true,"total":0}"#,
        |call| Box::pin(memory::list(call)),
    ),
    job(
        "memory_history",
        r#"{"file_path":"","commits":[]}"#,
        |call| Box::pin(memory::history(call)),
    ),
    job(
        "memory_file_at_ref",
        r#"{"file_path":"","ref":"","content":null}"#,
        |call| Box::pin(memory::file_at_ref(call)),
    ),
    job("memory_commit_diff", r#"{"sha":"","diff":null}"#, |call| {
        Box::pin(memory::commit_diff(call))
    }),
    job(
        "read_memory_file",
        r#"{"agent_id":"","path":"","content":null,"encoding":"utf8"}"#,
        |call| Box::pin(memory::read_file(call)),
    ),
    job(
        "write_memory_file",
        r#"{"agent_id":"","path":"","committed":false}"#,
        |call| Box::pin(memory_write::write(call)),
    ),
    job(
        "delete_memory_file",
        r#"{"agent_id":"","path":"","committed":false}"#,
        |call| Box::pin(memory_write::delete(call)),
    ),
    job("enable_memfs", r#"{}"#, |call| {
        Box::pin(memory::enable(call))
    }),
    // What is not here, with a reason (06 §9, §16; 00 §8).
    decline_with(
        "list_connect_providers",
        r#"{"target":"local","providers":[]}"#,
        |call| Box::pin(providers::decline(call)),
    ),
    decline_with(
        "connect_provider",
        r#"{"target":"local","providers":[],"models_may_have_changed":false}"#,
        |call| Box::pin(providers::decline(call)),
    ),
    decline_with(
        "disconnect_provider",
        r#"{"target":"local","providers":[],"models_may_have_changed":false}"#,
        |call| Box::pin(providers::decline(call)),
    ),
    decline_with("chatgpt_usage_read", r#"{"target":null}"#, |call| {
        Box::pin(providers::chatgpt_usage(call))
    }),
    decline_with("teleport_probe", r#"{}"#, |call| {
        Box::pin(providers::teleport_probe(call))
    }),
    decline_with(
        "teleport_request",
        r#"{"teleport_id":null,"runtime":null,"active_turn":false}"#,
        |call| Box::pin(providers::teleport_request(call)),
    ),
    decline(
        "teleport_failed",
        "Teleport is not supported by this listener",
    ),
    channel("channels_list", r#"{"channels":[]}"#),
    channel("channel_accounts_list", r#"{"accounts":[]}"#),
    channel("channel_pairings_list", r#"{"pending":[]}"#),
    channel("channel_routes_list", r#"{"routes":[]}"#),
    channel("channel_targets_list", r#"{"targets":[]}"#),
    channel("channel_get_config", r#"{"config":null}"#),
    channel("channel_account_delete", r#"{"deleted":false}"#),
    channel("channel_set_config", r#"{"config":null}"#),
    channel("channel_start", r#"{"channel":null}"#),
    channel("channel_stop", r#"{"channel":null}"#),
    channel("channel_pairing_bind", r#"{"route":null}"#),
    channel("channel_target_bind", r#"{"route":null}"#),
    channel("channel_route_update", r#"{"route":null}"#),
    channel("channel_route_remove", r#"{"found":false}"#),
    channel("channel_account_create", r#"{"account":null}"#),
    channel("channel_account_update", r#"{"account":null}"#),
    channel("channel_account_bind", r#"{"account":null}"#),
    channel("channel_account_unbind", r#"{"account":null}"#),
    channel("channel_account_start", r#"{"account":null}"#),
    channel("channel_account_stop", r#"{"account":null}"#),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::command::Command;
    use crate::protocol::{Body, catalog, inbound};

    /// Whether the protocol reads the command itself, for the listener or a
    /// conversation; the rest comes to the device as it is.
    fn is_read(name: &str) -> bool {
        let frame = serde_json::json!({"type": name, "request_id": "r"});
        let parsed = inbound::parse(&frame.to_string()).unwrap();
        !matches!(parsed.body, Body::Command(Command::Device { .. }))
    }

    #[test]
    fn every_command_of_the_protocol_has_a_row_or_is_carried_out_elsewhere() {
        for command in catalog::COMMANDS {
            let rows = ROUTES.iter().filter(|route| route.name == command.name);
            let expected = usize::from(!is_read(command.name));
            assert_eq!(rows.count(), expected, "{}", command.name);
        }
        for route in ROUTES {
            assert!(catalog::find(route.name).is_some(), "{}", route.name);
        }
    }

    /// What is declined stands in the table of commands as such, and only that.
    #[test]
    fn what_is_declined_is_documented_as_declined() {
        let table: Vec<Value> =
            serde_json::from_str(include_str!("../../tests/data/commands.json")).unwrap();
        for row in table {
            let name = row["command"].as_str().unwrap();
            let Some(route) = ROUTES.iter().find(|route| route.name == name) else {
                continue;
            };
            let declined = matches!(route.handler, Handler::Decline(_) | Handler::DeclineWith(_));
            let documented = row["priority"] == "decline" || row["group"] == "teleport";
            assert_eq!(declined, documented, "{name}");
        }
    }

    #[test]
    fn the_empty_fields_of_every_row_are_an_object() {
        for route in ROUTES {
            let parsed: Result<Map<String, Value>, _> = serde_json::from_str(route.empty);
            assert!(parsed.is_ok(), "{}", route.name);
        }
    }
}
