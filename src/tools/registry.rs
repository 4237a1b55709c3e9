//! All tools of this build, and the snapshot of them that a turn works with
//! (04 §3).
//!
//! Invariant: what a turn tells the server is what it can run: both come from
//! one [`TurnTools`], which does not change while the turn lasts.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::around::Around;
use super::tool::Tool;
use super::toolset::{Selection, UnknownTool, server_name};

/// Serialised lists that are kept: one per preset and a few variants.
const CACHED_LISTS: usize = 16;

/// The built-in tools, made once per process.
pub struct Toolbox {
    tools: HashMap<String, Arc<dyn Tool>>,
    lists: Mutex<HashMap<Vec<String>, Arc<RawValue>>>,
}

impl fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.tools.keys()).finish()
    }
}

impl Toolbox {
    /// A box of `tools`; of two with one name the later stays.
    pub fn new(tools: impl IntoIterator<Item = Arc<dyn Tool>>) -> Self {
        let tools = tools.into_iter().map(|tool| (tool.name().to_owned(), tool));
        Self {
            tools: tools.collect(),
            lists: Mutex::default(),
        }
    }

    /// Whether there is such a tool.
    pub fn contains(&self, name: &str) -> bool {
        self.tools.contains_key(server_name(name))
    }

    /// The tools of one turn: the selected built-in ones, then those of
    /// `external` that the selection allows. An external tool takes the place
    /// of a built-in one with its name.
    ///
    /// # Errors
    /// The selection includes a name that is no tool.
    pub fn for_turn(
        &self,
        selection: &Selection<'_>,
        external: Vec<Arc<dyn Tool>>,
    ) -> Result<TurnTools, UnknownTool> {
        self.for_turn_with(selection, None, external)
    }

    /// The same; `own` takes the place of the built-in tool of its name.
    ///
    /// # Errors
    /// As [`Self::for_turn`].
    pub fn for_turn_with(
        &self,
        selection: &Selection<'_>,
        own: Option<Arc<dyn Tool>>,
        external: Vec<Arc<dyn Tool>>,
    ) -> Result<TurnTools, UnknownTool> {
        let names = selection.names(|name| self.contains(name))?;
        let mut allowed: Vec<Arc<dyn Tool>> = Vec::new();
        for tool in external {
            if selection.allows(tool.name())
                && allowed.iter().all(|other| other.name() != tool.name())
            {
                allowed.push(tool);
            }
        }
        let shadowed = |name: &str| allowed.iter().any(|tool| tool.name() == name);
        let mut tools: Vec<Arc<dyn Tool>> = names
            .into_iter()
            .filter(|name| !shadowed(name))
            .filter_map(|name| {
                let own = own.as_ref().filter(|own| own.name() == name);
                own.or_else(|| self.tools.get(name)).cloned()
            })
            .collect();
        let built_in = tools.len();
        tools.append(&mut allowed);
        let client_tools = if built_in == tools.len() {
            self.cached(&tools)
        } else {
            serialise(&tools)
        };
        Ok(TurnTools::new(tools, built_in, client_tools))
    }

    fn cached(&self, tools: &[Arc<dyn Tool>]) -> Arc<RawValue> {
        // What a conversation's own tool says is part of the list.
        let own = |tool: &&Arc<dyn Tool>| {
            let known = self.tools.get(tool.name());
            !known.is_some_and(|known| Arc::ptr_eq(known, tool))
        };
        let said = tools.iter().filter(own).map(|tool| tool.description());
        let names = tools.iter().map(|tool| tool.name()).chain(said);
        let key: Vec<String> = names.map(str::to_owned).collect();
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = lists.get(&key) {
            return Arc::clone(list);
        }
        let list = serialise(tools);
        if lists.len() >= CACHED_LISTS {
            lists.clear();
        }
        lists.insert(key, Arc::clone(&list));
        list
    }
}

/// The tools of one turn.
#[derive(Clone)]
pub struct TurnTools {
    tools: Vec<Arc<dyn Tool>>,
    required: Vec<Vec<String>>,
    built_in: usize,
    client_tools: Arc<RawValue>,
    around: Option<Arc<dyn Around>>,
}

impl fmt::Debug for TurnTools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl TurnTools {
    fn new(tools: Vec<Arc<dyn Tool>>, built_in: usize, client_tools: Arc<RawValue>) -> Self {
        let required = tools
            .iter()
            .map(|tool| required(tool.parameters()))
            .collect();
        Self {
            tools,
            required,
            built_in,
            client_tools,
            around: None,
        }
    }

    /// The same tools with `around` around each call of a built-in one.
    #[must_use]
    pub fn with_around(mut self, around: Arc<dyn Around>) -> Self {
        self.around = Some(around);
        self
    }

    /// What stands around the calls of `name`.
    pub(super) fn around(&self, name: &str) -> Option<&dyn Around> {
        let built_in = self.position(name).is_some_and(|at| at < self.built_in);
        self.around.as_deref().filter(|_| built_in)
    }

    /// The `client_tools` array of a request.
    pub fn client_tools(&self) -> Arc<RawValue> {
        Arc::clone(&self.client_tools)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tools.iter().map(|tool| tool.name())
    }

    /// The names of `device_status.current_loaded_tools`: built-in tools only.
    pub fn loaded(&self) -> impl Iterator<Item = &str> {
        self.names().take(self.built_in)
    }

    /// The tool `name`, by either of its names.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Tool>> {
        self.position(name).and_then(|at| self.tools.get(at))
    }

    /// The arguments that the schema of `name` requires; none for an unknown tool.
    pub fn required(&self, name: &str) -> &[String] {
        let required = self.position(name).and_then(|at| self.required.get(at));
        required.map_or(&[], Vec::as_slice)
    }

    fn position(&self, name: &str) -> Option<usize> {
        let exact = self.tools.iter().position(|tool| tool.name() == name);
        exact.or_else(|| {
            self.tools
                .iter()
                .position(|tool| tool.name() == server_name(name))
        })
    }
}

fn required(parameters: &Value) -> Vec<String> {
    let names = parameters["required"].as_array().into_iter().flatten();
    names
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    description: &'a str,
    parameters: &'a Value,
}

fn serialise(tools: &[Arc<dyn Tool>]) -> Arc<RawValue> {
    let entries: Vec<Entry<'_>> = tools
        .iter()
        .map(|tool| Entry {
            name: tool.name(),
            description: tool.description().trim_end(),
            parameters: tool.parameters(),
        })
        .collect();
    #[expect(clippy::expect_used, reason = "texts and JSON values always serialise")]
    let list = serde_json::value::to_raw_value(&entries).expect("texts and JSON values serialise");
    list.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::tests::{Fake, strings};
    use crate::tools::toolset::Preset;

    fn toolbox() -> Toolbox {
        Toolbox::new(
            ["Bash", "Read", "Agent", "Grep"]
                .map(|name| Arc::new(Fake::new(name)) as Arc<dyn Tool>),
        )
    }

    #[test]
    fn only_tools_of_this_build_are_advertised_in_preset_order() {
        let turn = toolbox()
            .for_turn(&Selection::preset(Preset::Default), vec![])
            .unwrap();
        assert_eq!(turn.names().collect::<Vec<_>>(), ["Bash", "Read", "Agent"]);
        let list: Value = serde_json::from_str(turn.client_tools().get()).unwrap();
        let first = list[0].as_object().unwrap();
        assert_eq!(
            first.keys().collect::<Vec<_>>(),
            ["name", "description", "parameters"]
        );
    }

    #[test]
    fn the_same_list_is_serialised_once() {
        let toolbox = toolbox();
        let one = toolbox
            .for_turn(&Selection::preset(Preset::Default), vec![])
            .unwrap();
        let two = toolbox
            .for_turn(&Selection::preset(Preset::Default), vec![])
            .unwrap();
        assert!(Arc::ptr_eq(&one.client_tools(), &two.client_tools()));
        let none = toolbox
            .for_turn(&Selection::preset(Preset::None), vec![])
            .unwrap();
        assert_eq!(none.client_tools().get(), "[]");
    }

    #[test]
    fn external_tools_come_last_pass_the_allowlist_and_shadow_built_in_ones() {
        let external = |names: &[&str]| -> Vec<Arc<dyn Tool>> {
            names
                .iter()
                .map(|name| Arc::new(Fake::new(name)) as Arc<dyn Tool>)
                .collect()
        };
        let turn = toolbox()
            .for_turn(
                &Selection::preset(Preset::Default),
                external(&["lookup", "Read", "lookup"]),
            )
            .unwrap();
        assert_eq!(
            turn.names().collect::<Vec<_>>(),
            ["Bash", "Agent", "lookup", "Read"]
        );
        assert_eq!(turn.loaded().collect::<Vec<_>>(), ["Bash", "Agent"]);
        let allow = strings(&["Bash"]);
        let selection = Selection {
            allowlist: Some(&allow),
            ..Selection::preset(Preset::Default)
        };
        let turn = toolbox()
            .for_turn(&selection, external(&["lookup"]))
            .unwrap();
        assert_eq!(turn.names().collect::<Vec<_>>(), ["Bash"]);
    }

    #[test]
    fn both_names_find_a_tool_and_its_required_arguments() {
        let turn = toolbox()
            .for_turn(&Selection::preset(Preset::Default), vec![])
            .unwrap();
        assert_eq!(turn.get("Task").unwrap().name(), "Agent");
        assert_eq!(turn.required("Task"), ["must"]);
        assert!(turn.get("Grep").is_none());
        assert!(turn.required("Grep").is_empty());
    }
}
