//! One line per command for the session log: what came, not what it held (01 §9).
//!
//! Invariant: message text, file contents, terminal input and secret values
//! never appear; strings are cut at 80 characters, content becomes a size.

use serde_json::{Map, Value};

/// Longest string shown whole, in characters.
const LONGEST: usize = 80;

/// Scalars worth a line, for every type that has no rule of its own.
const SHOWN: &[&str] = &[
    "agent_id",
    "conversation_id",
    "task_id",
    "channel_id",
    "account_id",
    "route_id",
    "target_id",
    "pairing_id",
    "path",
    "file_path",
    "ref",
    "encoding",
    "query",
    "glob",
    "is_regex",
    "case_sensitive",
    "whole_word",
    "cwd",
    "mode",
    "run_id",
    "item_id",
    "terminal_id",
    "cols",
    "rows",
    "depth",
    "limit",
    "offset",
    "max_results",
    "context_lines",
    "include_files",
    "model_id",
    "model_handle",
    "toolset",
    "provider_name",
    "auth_method",
    "scope",
    "command_id",
    "args",
    "name",
    "cron",
    "recurring",
    "source",
    "replace_all",
    "expected_replacements",
    "recover_approvals",
    "resume_interrupted_turn",
    "force_device_status",
];

/// Sizes shown in the place of content: type, field, label.
const SIZES: &[(&str, &str, &str)] = &[
    ("write_file", "content", "content_bytes"),
    ("write_memory_file", "content", "content_bytes"),
    ("edit_file", "old_string", "old_bytes"),
    ("edit_file", "new_string", "new_bytes"),
    ("file_ops", "document_content", "document_bytes"),
    ("terminal_input", "data", "data_bytes"),
];

/// `<type> command (<k>=<v>, …)` for a parsed command; `unknown` when it is no
/// object or has no `type`. Follows `[Listen V2] Received ` in the log.
pub fn command_summary(command: &Value) -> String {
    let Some(command) = command.as_object() else {
        return String::from("unknown");
    };
    let Some(kind) = command.get("type").and_then(Value::as_str) else {
        return String::from("unknown");
    };
    let mut fields = Fields::default();
    if let Some(runtime) = command.get("runtime").and_then(Value::as_object) {
        let part = |key| match runtime.get(key) {
            Some(Value::String(id)) => shortened(id),
            _ => String::from("<unknown>"),
        };
        fields.push(
            "runtime",
            format!("{}/{}", part("agent_id"), part("conversation_id")),
        );
    }
    fields.scalar(command, "request_id", "request_id");
    let payload = command.get("payload").and_then(Value::as_object);
    match (kind, payload) {
        ("input", payload) => fields.input(payload),
        ("change_device_state", Some(payload)) => {
            fields.scalars(payload, &["mode", "cwd", "agent_id", "conversation_id"]);
        }
        ("runtime_start", _) => fields.runtime_start(command),
        ("runtime_external_tools_update", _) => fields.tool_updates(command),
        _ => fields.scalars(command, SHOWN),
    }
    if kind == "file_ops" {
        fields.scalars(command, &["cg_entries", "ops"]);
    }
    for (_, field, label) in SIZES.iter().filter(|size| size.0 == kind) {
        if let Some(content) = command.get(*field).and_then(Value::as_str) {
            fields.push(label, content.len().to_string());
        }
    }
    let kind = shortened(kind);
    if fields.0.is_empty() {
        format!("{kind} command")
    } else {
        format!("{kind} command ({})", fields.0.join(", "))
    }
}

#[derive(Default)]
struct Fields(Vec<String>);

impl Fields {
    fn push(&mut self, label: &str, value: String) {
        self.0.push(format!("{label}={value}"));
    }

    fn scalar(&mut self, from: &Map<String, Value>, key: &str, label: &str) {
        let shown = match from.get(key) {
            None | Some(Value::Object(_)) => return,
            Some(Value::String(text)) => shortened(text),
            Some(Value::Array(items)) => format!("[{}]", items.len()),
            Some(other) => other.to_string(),
        };
        self.push(label, shown);
    }

    fn scalars(&mut self, from: &Map<String, Value>, keys: &[&str]) {
        for key in keys {
            self.scalar(from, key, key);
        }
    }

    fn input(&mut self, payload: Option<&Map<String, Value>>) {
        let Some(payload) = payload else { return };
        self.scalar(payload, "kind", "kind");
        match payload.get("kind").and_then(Value::as_str) {
            Some("create_message") => {
                self.scalars(payload, &["messages", "client_tool_allowlist"]);
                if let Some(toolset) = payload.get("client_toolset").and_then(Value::as_object) {
                    self.scalar(toolset, "base", "client_toolset.base");
                    self.scalar(toolset, "include", "client_toolset.include");
                }
                self.scalars(
                    payload,
                    &["external_tool_scope_ids", "exclude_interactive_tools"],
                );
            }
            Some("approval_response") => {
                self.scalars(payload, &["request_id", "selected_suggestion_ids"]);
            }
            _ => {}
        }
    }

    fn runtime_start(&mut self, command: &Map<String, Value>) {
        self.scalar(command, "agent_id", "agent");
        self.scalar(command, "conversation_id", "conversation");
        for key in ["create_agent", "create_conversation"] {
            if command.get(key).is_some_and(Value::is_object) {
                self.push(key, String::from("true"));
            }
        }
        self.scalars(command, &["cwd", "mode", "external_tools"]);
    }

    fn tool_updates(&mut self, command: &Map<String, Value>) {
        let Some(updates) = command.get("updates").and_then(Value::as_array) else {
            return;
        };
        let runtimes: usize = updates
            .iter()
            .filter_map(|update| update.get("runtimes")?.as_array())
            .map(Vec::len)
            .sum();
        self.push("updates", updates.len().to_string());
        self.push("runtimes", runtimes.to_string());
    }
}

/// At most [`LONGEST`] characters; a longer text keeps 77 and gets `...`.
fn shortened(text: &str) -> String {
    let cut = text.char_indices().nth(LONGEST).is_some();
    if !cut {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(LONGEST - 3).collect();
    short.push_str("...");
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn commands_are_summed_up_as_the_log_promises() {
        for (command, summary) in [
            (
                json!({"type":"sync","runtime":{"agent_id":"agent-1","conversation_id":"conv-1"},
                       "request_id":"r1","recover_approvals":false}),
                "sync command (runtime=agent-1/conv-1, request_id=r1, recover_approvals=false)",
            ),
            (
                json!({"type":"input","runtime":{"conversation_id":"c"},
                       "payload":{"kind":"create_message","messages":[{"content":"hush"}],
                                  "client_toolset":{"base":"default","include":["a","b"]}}}),
                "input command (runtime=<unknown>/c, kind=create_message, messages=[1], \
                 client_toolset.base=default, client_toolset.include=[2])",
            ),
            (
                json!({"type":"input","payload":{"kind":"approval_response","request_id":"perm-1","response":{"x":"hush"}}}),
                "input command (kind=approval_response, request_id=perm-1)",
            ),
            (
                json!({"type":"change_device_state","payload":{"mode":"plan","cwd":"/srv"}}),
                "change_device_state command (mode=plan, cwd=/srv)",
            ),
            (
                json!({"type":"runtime_start","agent_id":"a","create_conversation":{},"mode":null}),
                "runtime_start command (agent=a, create_conversation=true, mode=null)",
            ),
            (
                json!({"type":"runtime_external_tools_update","updates":[{"runtimes":[1,2]},{"runtimes":[3]},{}]}),
                "runtime_external_tools_update command (updates=3, runtimes=3)",
            ),
            (
                json!({"type":"edit_file","file_path":"a.rs","old_string":"hush","new_string":"hüsh"}),
                "edit_file command (file_path=a.rs, old_bytes=4, new_bytes=5)",
            ),
            (
                json!({"type":"terminal_input","terminal_id":"t","data":"hush"}),
                "terminal_input command (terminal_id=t, data_bytes=4)",
            ),
            (
                json!({"type":"secret_apply","request_id":"r","set":{"K":"hush"},"unset":[]}),
                "secret_apply command (request_id=r)",
            ),
            (json!({"type":"cron_list"}), "cron_list command"),
            (json!({"no":"type"}), "unknown"),
            (json!([1]), "unknown"),
        ] {
            let got = command_summary(&command);
            assert_eq!(got, summary);
            assert!(!got.contains("hush"));
        }
    }

    #[test]
    fn long_strings_keep_77_characters() {
        let got = command_summary(&json!({"type":"read_file","path":"ü".repeat(81)}));
        assert_eq!(
            got,
            format!("read_file command (path={}...)", "ü".repeat(77))
        );
        let whole = "p".repeat(80);
        assert!(
            command_summary(&json!({"type":"read_file","path":whole.clone()})).contains(&whole)
        );
    }
}
