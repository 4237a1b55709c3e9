//! Which tools a turn gets: presets, the choice by model, and the filters of
//! a request (04 §2). Names only; pure functions.

use serde_json::{Value, json};
use thiserror::Error;

/// A ready-made list of tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preset {
    /// For Claude and whatever is not listed elsewhere.
    Default,
    /// For OpenAI models.
    Codex,
    /// A mix, only on request.
    Letta,
    /// Nothing.
    None,
}

/// What a user or a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preference {
    /// As fits the model.
    Auto,
    /// This one.
    Preset(Preset),
}

const DEFAULT: [&str; 20] = [
    "AskUserQuestion",
    "Bash",
    "Monitor",
    "EnterWorktree",
    "ExitWorktree",
    "SetWorkingDirectory",
    "Edit",
    "EnterPlanMode",
    "ExitPlanMode",
    "TaskStop",
    "memory",
    "Read",
    "Skill",
    "Agent",
    "SendAgentMessage",
    "TaskCreate",
    "TaskGet",
    "TaskList",
    "TaskUpdate",
    "Write",
];

const CODEX: [&str; 17] = [
    "AskUserQuestion",
    "EnterPlanMode",
    "ExitPlanMode",
    "EnterWorktree",
    "ExitWorktree",
    "SetWorkingDirectory",
    "memory_apply_patch",
    "Agent",
    "SendAgentMessage",
    "Monitor",
    "TaskStop",
    "Skill",
    "exec_command",
    "write_stdin",
    "ViewImage",
    "ApplyPatch",
    "UpdatePlan",
];

const LETTA: [&str; 17] = [
    "AskUserQuestion",
    "EnterWorktree",
    "ExitWorktree",
    "SetWorkingDirectory",
    "memory",
    "Agent",
    "SendAgentMessage",
    "Monitor",
    "TaskStop",
    "Skill",
    "exec_command",
    "write_stdin",
    "Read",
    "Edit",
    "Write",
    "ViewImage",
    "UpdatePlan",
];

/// Bundled tools in no preset, reachable by name.
const ON_REQUEST: [&str; 16] = [
    "Grep",
    "Glob",
    "LS",
    "MultiEdit",
    "TodoWrite",
    "KillBash",
    "shell",
    "shell_command",
    "read_file",
    "list_dir",
    "grep_files",
    "Shell",
    "ShellCommand",
    "ReadFile",
    "ListDir",
    "GrepFiles",
];

/// Tools that the published program has and this one leaves out (04 §1).
const LEFT_OUT: [&str; 5] = [
    "Workflow",
    "ReadLSP",
    "read_artifact_file",
    "write_artifact_file",
    "MessageChannel",
];

/// Tools that need a human at the other end.
const INTERACTIVE: [&str; 3] = ["AskUserQuestion", "EnterPlanMode", "ExitPlanMode"];

const WORKTREE: [&str; 2] = ["EnterWorktree", "ExitWorktree"];

const MEMORY: [&str; 2] = ["memory", "memory_apply_patch"];

impl Preset {
    /// Its tools, in the order in which the server is told of them.
    pub fn tools(self) -> &'static [&'static str] {
        match self {
            Self::Default => &DEFAULT,
            Self::Codex => &CODEX,
            Self::Letta => &LETTA,
            Self::None => &[],
        }
    }

    /// Its name on the wire and on disk.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Codex => "codex",
            Self::Letta => "letta",
            Self::None => "none",
        }
    }

    /// Its name for people.
    pub fn display_name(self) -> &'static str {
        match self {
            Self::Default => "Claude",
            Self::Codex => "Codex",
            Self::Letta => "Letta",
            Self::None => "None",
        }
    }
}

impl Preference {
    /// All, in the order of `available_toolsets`.
    pub const ALL: [Self; 5] = [
        Self::Auto,
        Self::Preset(Preset::Letta),
        Self::Preset(Preset::None),
        Self::Preset(Preset::Default),
        Self::Preset(Preset::Codex),
    ];

    /// Reads a name; `None` for any other.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|preference| preference.as_str() == name)
    }

    /// Reads what is stored on disk: names of other times mean `auto`.
    pub fn stored(name: &str) -> Self {
        Self::parse(name).unwrap_or(Self::Auto)
    }

    /// Its name on the wire and on disk.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Preset(preset) => preset.as_str(),
        }
    }

    /// The preset it means for `model`.
    pub fn resolve(self, model: &Model<'_>) -> Preset {
        match self {
            Self::Auto => auto(model),
            Self::Preset(preset) => preset,
        }
    }
}

/// `device_status.available_toolsets` (04 §2.4).
pub fn catalogue() -> Value {
    let entry = |preference: Preference| {
        let (name, label, description) = match preference {
            Preference::Auto => ("Auto", "Auto", "The toolset that fits the model"),
            Preference::Preset(Preset::Letta) => (
                "Letta",
                "Letta toolset",
                "Command sessions together with Read, Edit and Write",
            ),
            Preference::Preset(Preset::None) => ("None", "None", "No tools of this machine"),
            Preference::Preset(Preset::Default) => (
                "Claude",
                "Claude toolset",
                "Bash, Read, Edit and Write, as Claude models know them",
            ),
            Preference::Preset(Preset::Codex) => (
                "Codex",
                "Codex toolset",
                "Command sessions and patches, as OpenAI models know them",
            ),
        };
        json!({
            "id": preference.as_str(),
            "display_name": name,
            "label": label,
            "description": description,
            "is_featured": true,
        })
    };
    Value::Array(Preference::ALL.into_iter().map(entry).collect())
}

/// What is known of the model of a turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Model<'a> {
    /// Its handle, such as `openai/gpt-5`.
    pub handle: Option<&'a str>,
    /// `model_settings.provider_type`.
    pub provider_type: Option<&'a str>,
    /// `model_settings.openai_compatible_proxy`.
    pub openai_compatible_proxy: bool,
}

/// The preset that fits `model` (04 §2.2).
pub fn auto(model: &Model<'_>) -> Preset {
    let by_type = matches!(
        model.provider_type,
        Some("openai" | "openai-codex" | "chatgpt_oauth")
    );
    if by_type && !model.openai_compatible_proxy {
        return Preset::Codex;
    }
    // A proxy of this provider type says more than its handle does.
    let handle = model.handle.filter(|_| !by_type).unwrap_or_default();
    let prefixes = [
        "openai/",
        "openai-codex/",
        "chatgpt-plus-pro/",
        "chatgpt_oauth/",
    ];
    if prefixes.iter().any(|prefix| handle.starts_with(prefix)) {
        Preset::Codex
    } else {
        Preset::Default
    }
}

/// What a turn asks for.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// Where the list starts.
    pub preset: Preset,
    /// `client_toolset.include`.
    pub include: &'a [String],
    /// `client_tool_allowlist`.
    pub allowlist: Option<&'a [String]>,
    /// `execution_settings.tools` of the runtime.
    pub runtime_tools: Option<&'a [String]>,
    /// `--tools`, where nothing else limits.
    pub process_tools: Option<&'a [String]>,
    /// Nobody is there to answer.
    pub exclude_interactive: bool,
    /// Setting `includeWorktreeTool`.
    pub worktree_tools: bool,
    /// The agent's memory in git is on this machine.
    pub memory_tools: bool,
}

impl Selection<'_> {
    /// A preset and nothing else.
    pub fn preset(preset: Preset) -> Self {
        Self {
            preset,
            include: &[],
            allowlist: None,
            runtime_tools: None,
            process_tools: None,
            exclude_interactive: false,
            worktree_tools: true,
            memory_tools: true,
        }
    }

    /// Whether the lists let `name` through.
    pub fn allows(&self, name: &str) -> bool {
        let name = server_name(name);
        let listed = |list: &[String]| list.iter().any(|entry| server_name(entry) == name);
        match (self.allowlist, self.runtime_tools) {
            (None, None) => self.process_tools.is_none_or(listed),
            (one, other) => one.is_none_or(listed) && other.is_none_or(listed),
        }
    }

    /// The names of the turn's own tools, in order. `implemented` says which
    /// there are; those of the published program that are not are left out.
    ///
    /// # Errors
    /// `include` names something that never was a tool.
    pub fn names(&self, implemented: impl Fn(&str) -> bool) -> Result<Vec<&str>, UnknownTool> {
        let mut wanted: Vec<&str> = self.preset.tools().to_vec();
        for name in self.include {
            let name = server_name(name);
            if !implemented(name) && !is_bundled(name) {
                return Err(UnknownTool(name.to_owned()));
            }
            if !implemented(name) {
                tracing::warn!(tool = name, "a requested tool is not part of this build");
            }
            wanted.push(name);
        }
        let lists = [self.allowlist, self.runtime_tools, self.process_tools];
        let listed = lists.into_iter().flatten().flatten();
        wanted.extend(listed.map(|name| server_name(name)));
        let mut names: Vec<&str> = Vec::with_capacity(wanted.len());
        for name in wanted {
            let excluded = (self.exclude_interactive && INTERACTIVE.contains(&name))
                || (!self.worktree_tools && WORKTREE.contains(&name))
                || (!self.memory_tools && MEMORY.contains(&name));
            if implemented(name) && !excluded && self.allows(name) && !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }
}

/// An `include` names no tool.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("Unknown bundled client tool: {0}")]
pub struct UnknownTool(pub String);

/// The name under which the server knows a tool: only `Task` has two.
pub fn server_name(name: &str) -> &str {
    if name == "Task" { "Agent" } else { name }
}

/// The name of every tool that is not a controller's; some more than once.
pub fn bundled() -> impl Iterator<Item = &'static str> {
    let lists: [&[&str]; 5] = [&DEFAULT, &CODEX, &LETTA, &ON_REQUEST, &LEFT_OUT];
    lists.into_iter().flatten().copied()
}

fn is_bundled(name: &str) -> bool {
    bundled().any(|bundled| bundled == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_model_decides_the_automatic_preset() {
        for (handle, provider_type, proxy, preset) in [
            (Some("openai/gpt-5"), None, false, Preset::Codex),
            (Some("chatgpt-plus-pro/x"), None, false, Preset::Codex),
            (Some("openai-codex/x"), None, false, Preset::Codex),
            (Some("chatgpt_oauth/x"), None, false, Preset::Codex),
            (Some("google_ai/x"), None, false, Preset::Default),
            (Some("letta/auto"), None, false, Preset::Default),
            (Some("openrouter/openai/x"), None, false, Preset::Default),
            (Some("gpt-5"), None, false, Preset::Default),
            (Some("gpt-5"), Some("openai"), false, Preset::Codex),
            (Some("x"), Some("openai-codex"), false, Preset::Codex),
            (Some("x"), Some("chatgpt_oauth"), false, Preset::Codex),
            (Some("x"), Some("openai"), true, Preset::Default),
            (Some("x"), Some("anthropic"), false, Preset::Default),
            (None, None, false, Preset::Default),
        ] {
            let model = Model {
                handle,
                provider_type,
                openai_compatible_proxy: proxy,
            };
            assert_eq!(Preference::Auto.resolve(&model), preset, "{model:?}");
        }
        let forced = Preference::Preset(Preset::Letta);
        assert_eq!(forced.resolve(&Model::default()), Preset::Letta);
    }

    #[test]
    fn preferences_read_back_and_old_names_mean_auto() {
        for preference in Preference::ALL {
            assert_eq!(Preference::parse(preference.as_str()), Some(preference));
        }
        assert_eq!(Preference::parse("gemini"), None);
        assert_eq!(Preference::stored("codex_snake"), Preference::Auto);
        assert_eq!(
            Preference::stored("letta"),
            Preference::Preset(Preset::Letta)
        );
    }

    #[test]
    fn the_catalogue_lists_all_toolsets_in_order() {
        let catalogue = catalogue();
        let ids: Vec<_> = catalogue
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, ["auto", "letta", "none", "default", "codex"]);
        assert!(
            catalogue
                .as_array()
                .unwrap()
                .iter()
                .all(|entry| entry["is_featured"] == true)
        );
    }

    #[test]
    fn allowlists_load_and_filter() {
        let (include, allow) = (list(&["LS"]), list(&["Read", "Grep", "Task"]));
        let selection = Selection {
            include: &include,
            allowlist: Some(&allow),
            ..Selection::preset(Preset::Codex)
        };
        assert_eq!(
            selection.names(|_| true).unwrap(),
            ["Agent", "Read", "Grep"]
        );
        let nothing = Selection {
            allowlist: Some(&[]),
            ..Selection::preset(Preset::Default)
        };
        assert!(nothing.names(|_| true).unwrap().is_empty());
    }

    #[test]
    fn both_lists_intersect_and_the_process_list_is_the_last_resort() {
        let (one, two) = (list(&["Read", "Bash"]), list(&["Bash", "Write"]));
        let both = Selection {
            allowlist: Some(&one),
            runtime_tools: Some(&two),
            ..Selection::preset(Preset::Default)
        };
        assert_eq!(both.names(|_| true).unwrap(), ["Bash"]);
        let process = Selection {
            process_tools: Some(&two),
            ..Selection::preset(Preset::Default)
        };
        assert_eq!(process.names(|_| true).unwrap(), ["Bash", "Write"]);
        let overruled = Selection {
            allowlist: Some(&one),
            process_tools: Some(&two),
            ..Selection::preset(Preset::Default)
        };
        assert_eq!(overruled.names(|_| true).unwrap(), ["Bash", "Read"]);
    }

    #[test]
    fn unknown_names_fail_and_left_out_ones_are_skipped() {
        let include = list(&["Nonsense"]);
        let unknown = Selection {
            include: &include,
            ..Selection::preset(Preset::None)
        };
        assert_eq!(
            unknown.names(|_| false).unwrap_err().to_string(),
            "Unknown bundled client tool: Nonsense"
        );
        let include = list(&["Workflow", "Grep"]);
        let left_out = Selection {
            include: &include,
            ..Selection::preset(Preset::None)
        };
        assert_eq!(left_out.names(|name| name == "Grep").unwrap(), ["Grep"]);
        let external = list(&["lookup"]);
        let allowed = Selection {
            allowlist: Some(&external),
            ..Selection::preset(Preset::None)
        };
        assert!(allowed.names(|name| name != "lookup").unwrap().is_empty());
    }

    #[test]
    fn interactive_and_worktree_tools_can_be_excluded() {
        let selection = Selection {
            exclude_interactive: true,
            worktree_tools: false,
            ..Selection::preset(Preset::Codex)
        };
        let names = selection.names(|_| true).unwrap();
        for excluded in INTERACTIVE.iter().chain(&WORKTREE) {
            assert!(!names.contains(excluded));
        }
        assert!(names.contains(&"exec_command"));
    }
}
