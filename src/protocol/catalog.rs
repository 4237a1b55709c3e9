//! Every command type that clients may send, and the response type that answers
//! it (`tests/data/commands.json` holds the table; a test compares them).

/// A command type of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandType {
    /// `type` of the command.
    pub name: &'static str,
    /// `type` of its answer, where one exists.
    pub response: Option<&'static str>,
}

const fn answered(name: &'static str, response: &'static str) -> CommandType {
    CommandType {
        name,
        response: Some(response),
    }
}

const fn silent(name: &'static str) -> CommandType {
    CommandType {
        name,
        response: None,
    }
}

/// The command type called `name`.
pub fn find(name: &str) -> Option<&'static CommandType> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// All command types, grouped by area.
pub const COMMANDS: &[CommandType] = &[
    answered("input", "input_accepted"),
    silent("change_device_state"),
    answered("abort_message", "abort_message_response"),
    answered("sync", "sync_response"),
    answered("runtime_start", "runtime_start_response"),
    answered("app_server_info", "app_server_info_response"),
    answered("resume_queue", "resume_queue_response"),
    answered("remove_queue_item", "remove_queue_item_response"),
    answered(
        "runtime_external_tools_update",
        "runtime_external_tools_update_response",
    ),
    silent("external_tool_call_response"),
    answered("launch_subagent", "launch_subagent_response"),
    answered("monitor_stop", "monitor_stop_response"),
    answered("execute_command", "execute_command_response"),
    answered("teleport_probe", "teleport_probe_response"),
    answered("teleport_request", "teleport_ready"),
    silent("teleport_failed"),
    answered("terminal_spawn", "terminal_spawned"),
    silent("terminal_input"),
    silent("terminal_resize"),
    silent("terminal_kill"),
    answered("search_files", "search_files_response"),
    answered("grep_in_files", "grep_in_files_response"),
    answered("list_in_directory", "list_in_directory_response"),
    answered("get_tree", "get_tree_response"),
    answered("read_file", "read_file_response"),
    answered("write_file", "write_file_response"),
    answered("edit_file", "edit_file_response"),
    answered("watch_file", "file_changed"),
    silent("unwatch_file"),
    silent("file_ops"),
    answered("search_branches", "search_branches_response"),
    answered("checkout_branch", "checkout_branch_response"),
    answered("list_memory", "list_memory_response"),
    answered("memory_history", "memory_history_response"),
    answered("memory_file_at_ref", "memory_file_at_ref_response"),
    answered("memory_commit_diff", "memory_commit_diff_response"),
    answered("read_memory_file", "read_memory_file_response"),
    answered("write_memory_file", "write_memory_file_response"),
    answered("delete_memory_file", "delete_memory_file_response"),
    answered("enable_memfs", "enable_memfs_response"),
    answered("list_models", "list_models_response"),
    answered("update_model", "update_model_response"),
    answered("update_toolset", "update_toolset_response"),
    answered("list_connect_providers", "list_connect_providers_response"),
    answered("connect_provider", "connect_provider_response"),
    answered("disconnect_provider", "disconnect_provider_response"),
    answered("chatgpt_usage_read", "chatgpt_usage_read_response"),
    answered("cron_list", "cron_list_response"),
    answered("cron_add", "cron_add_response"),
    answered("cron_get", "cron_get_response"),
    answered("cron_runs", "cron_runs_response"),
    answered("cron_trigger", "cron_trigger_response"),
    answered("cron_pause", "cron_pause_response"),
    answered("cron_resume", "cron_resume_response"),
    answered("cron_update", "cron_update_response"),
    answered("cron_delete", "cron_delete_response"),
    answered("cron_delete_all", "cron_delete_all_response"),
    answered("skill_enable", "skill_enable_response"),
    answered("skill_disable", "skill_disable_response"),
    answered("create_agent", "create_agent_response"),
    answered("agent_list", "agent_list_response"),
    answered("agent_retrieve", "agent_retrieve_response"),
    answered("agent_create", "agent_create_response"),
    answered("agent_update", "agent_update_response"),
    answered("agent_delete", "agent_delete_response"),
    answered("conversation_list", "conversation_list_response"),
    answered("conversation_retrieve", "conversation_retrieve_response"),
    answered("conversation_create", "conversation_create_response"),
    answered("conversation_update", "conversation_update_response"),
    answered("conversation_recompile", "conversation_recompile_response"),
    answered("conversation_fork", "conversation_fork_response"),
    answered(
        "conversation_messages_list",
        "conversation_messages_list_response",
    ),
    answered("conversation_compact", "conversation_compact_response"),
    answered("get_cwd_map", "get_cwd_map_response"),
    answered(
        "set_boot_working_directory",
        "set_boot_working_directory_response",
    ),
    answered(
        "get_reflection_settings",
        "get_reflection_settings_response",
    ),
    answered(
        "set_reflection_settings",
        "set_reflection_settings_response",
    ),
    answered("get_experiments", "get_experiments_response"),
    answered("set_experiment", "set_experiment_response"),
    answered("secret_list", "secret_list_response"),
    answered("secret_apply", "secret_apply_response"),
    answered("channels_list", "channels_list_response"),
    answered("channel_accounts_list", "channel_accounts_list_response"),
    answered("channel_account_create", "channel_account_create_response"),
    answered("channel_account_update", "channel_account_update_response"),
    answered("channel_account_bind", "channel_account_bind_response"),
    answered("channel_account_unbind", "channel_account_unbind_response"),
    answered("channel_account_delete", "channel_account_delete_response"),
    answered("channel_account_start", "channel_account_start_response"),
    answered("channel_account_stop", "channel_account_stop_response"),
    answered("channel_get_config", "channel_get_config_response"),
    answered("channel_set_config", "channel_set_config_response"),
    answered("channel_start", "channel_start_response"),
    answered("channel_stop", "channel_stop_response"),
    answered("channel_pairings_list", "channel_pairings_list_response"),
    answered("channel_pairing_bind", "channel_pairing_bind_response"),
    answered("channel_routes_list", "channel_routes_list_response"),
    answered("channel_targets_list", "channel_targets_list_response"),
    answered("channel_target_bind", "channel_target_bind_response"),
    answered("channel_route_update", "channel_route_update_response"),
    answered("channel_route_remove", "channel_route_remove_response"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_and_the_table_of_commands_agree() {
        let table: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../tests/data/commands.json")).unwrap();
        let lifecycle = ["pong", "listener_ready", "message"];
        let mut named = 0;
        for row in &table {
            let name = row["command"].as_str().unwrap();
            if lifecycle.contains(&name) {
                continue;
            }
            let known = find(name).unwrap_or_else(|| panic!("{name} is not in the catalog"));
            assert_eq!(known.response, row["response"].as_str(), "{name}");
            named += 1;
        }
        assert_eq!(named, COMMANDS.len());
    }
}
