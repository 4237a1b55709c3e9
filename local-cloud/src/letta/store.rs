//! Everything the API remembers: agents, conversations, messages, runs.
//!
//! Invariants: a conversation's `pending` calls are exactly those of its last
//! in-context message; at most one run of a conversation is active. Locks are
//! held for one operation only.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::letta::default_key;
use crate::letta::runs::Run;
use crate::model::script::Plan;
use crate::reply;
use crate::sync::lock;

/// Message ids that stay in context; older ones are only in the history.
const CONTEXT_LIMIT: usize = 200;

/// Runs that can still be looked up and replayed.
const RUN_LIMIT: usize = 2000;

/// A tool call that waits for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
}

impl Call {
    pub(crate) fn to_json(&self) -> Value {
        json!({"name": self.name, "tool_call_id": self.id, "arguments": self.arguments})
    }
}

pub(crate) struct Agent {
    pub(crate) order: u64,
    pub(crate) fields: Map<String, Value>,
    pub(crate) secrets: BTreeMap<String, String>,
}

pub(crate) struct Conversation {
    /// `conv-…` or `default`.
    pub(crate) id: String,
    pub(crate) agent_id: String,
    pub(crate) order: u64,
    pub(crate) fields: Map<String, Value>,
    pub(crate) message_ids: Vec<String>,
    /// How many of them have left the context.
    left: usize,
    pub(crate) pending: Vec<Call>,
    /// Returns of server tools that wait for the approval of the same step.
    pub(crate) held: Vec<Value>,
    pub(crate) plan: Plan,
    pub(crate) active: Option<Arc<Run>>,
    /// The run that stopped for the pending calls.
    pub(crate) awaiting: Option<Arc<Run>>,
    /// Connection that last got a frame for this conversation.
    pub(crate) connection_id: Option<String>,
    /// What a test wants `runtime-status` to say.
    pub(crate) status_override: Option<Value>,
}

impl Conversation {
    /// Message ids in context, oldest first.
    pub(crate) fn in_context(&self) -> &[String] {
        let start = self
            .message_ids
            .len()
            .saturating_sub(CONTEXT_LIMIT)
            .max(self.left);
        self.message_ids.get(start..).unwrap_or_default()
    }

    /// Empties the context; nothing waits for an approval any more.
    pub(crate) fn leave_context(&mut self) {
        self.left = self.message_ids.len();
        self.pending.clear();
        self.held.clear();
        self.awaiting = None;
    }
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) agents: HashMap<String, Agent>,
    pub(crate) conversations: HashMap<String, Conversation>,
    /// Variants by source message id.
    pub(crate) messages: HashMap<String, Vec<Value>>,
    runs: HashMap<String, Arc<Run>>,
    run_order: VecDeque<Arc<Run>>,
    by_otid: HashMap<String, Arc<Run>>,
    order: u64,
}

impl World {
    fn next(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    pub(crate) fn add_agent(&mut self, id: &str, body: &Value, model: &str) {
        let provider = model.split('/').next().unwrap_or_default();
        let name = model.split('/').next_back().unwrap_or_default();
        let now = crate::now();
        let mut fields = json!({
            "id": id, "name": "Local Agent", "agent_type": "letta_v1_agent", "description": null,
            "tags": [], "metadata": {}, "system": "", "tools": [], "sources": [], "blocks": [],
            "memory": {"blocks": []}, "model": model,
            "model_settings": {"provider_type": provider},
            "llm_config": {"model": name, "model_endpoint_type": provider, "handle": model,
                "context_window": 200_000},
            "last_run_completion": null, "created_at": now, "updated_at": now,
        });
        if let (Some(fields), Some(body)) = (fields.as_object_mut(), body.as_object()) {
            for (key, value) in body.iter().filter(|(_, value)| !value.is_null()) {
                fields.insert(key.clone(), value.clone());
            }
            if let Some(blocks) = body.get("memory_blocks") {
                fields.insert("memory".into(), json!({"blocks": blocks}));
            }
            fields.insert("id".into(), json!(id));
        }
        let order = self.next();
        let fields = fields.as_object().cloned().unwrap_or_default();
        self.agents.insert(
            id.to_owned(),
            Agent {
                order,
                fields,
                secrets: BTreeMap::new(),
            },
        );
        self.add_conversation(&default_key(id), "default", id, &Value::Null);
    }

    pub(crate) fn add_conversation(&mut self, key: &str, id: &str, agent: &str, body: &Value) {
        let now = crate::now();
        let mut fields = Map::new();
        let defaults = json!({
            "id": id, "agent_id": agent, "created_at": now, "updated_at": now, "summary": null,
            "description": null, "archived": false, "archived_at": null, "last_message_at": null,
            "isolated_block_ids": [], "tags": [], "model": null, "model_settings": null,
        });
        for source in [&defaults, body] {
            for (name, value) in source.as_object().into_iter().flatten() {
                fields.insert(name.clone(), value.clone());
            }
        }
        fields.insert("id".into(), json!(id));
        fields.insert("agent_id".into(), json!(agent));
        let order = self.next();
        let conversation = Conversation {
            id: id.to_owned(),
            agent_id: agent.to_owned(),
            order,
            fields,
            message_ids: Vec::new(),
            left: 0,
            pending: Vec::new(),
            held: Vec::new(),
            plan: Plan::default(),
            active: None,
            awaiting: None,
            connection_id: None,
            status_override: None,
        };
        self.conversations.insert(key.to_owned(), conversation);
    }

    /// Appends a message with its variants to a conversation.
    pub(crate) fn add_message(&mut self, key: &str, id: String, variants: Vec<Value>) {
        if let Some(conversation) = self.conversations.get_mut(key) {
            conversation.message_ids.push(id.clone());
            self.messages.insert(id, variants);
        }
    }
}

/// The store and how it treats unknown ids.
pub(crate) struct Store {
    world: Mutex<World>,
    auto_create: bool,
    model: String,
}

impl Store {
    pub(crate) fn new(auto_create: bool, model: &str) -> Self {
        Self {
            world: Mutex::default(),
            auto_create,
            model: model.to_owned(),
        }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// Makes the agent exist, if that is allowed; false when it does not.
    pub(crate) fn ensure_agent(&self, world: &mut World, id: &str) -> bool {
        if world.agents.contains_key(id) {
            return true;
        }
        if !self.auto_create || id.is_empty() || id.starts_with("agent-missing") {
            return false;
        }
        world.add_agent(id, &Value::Null, &self.model);
        true
    }

    /// Adds an agent from an API body and returns its id.
    pub(crate) fn create_agent(&self, body: &Value) -> String {
        let id = format!("agent-{}", uuid::Uuid::new_v4());
        let model = body["model"].as_str().unwrap_or(&self.model);
        self.world().add_agent(&id, body, model);
        id
    }

    /// The key of the conversation that a path names: `conv-…`, `default` (with
    /// an agent), or an agent id for its default one.
    pub(crate) fn resolve(
        &self,
        segment: &str,
        agent: Option<&str>,
    ) -> Result<String, Box<Response>> {
        let mut world = self.world();
        let world = &mut *world;
        let agent_of_default = match segment {
            "default" => match agent {
                Some(agent) => Some(agent),
                None => {
                    let text = "agent_id is required for the default conversation";
                    return Err(Box::new(reply::detail(422, text)));
                }
            },
            id if id.starts_with("agent-") || world.agents.contains_key(id) => Some(id),
            _ => None,
        };
        if let Some(agent) = agent_of_default {
            if !self.ensure_agent(world, agent) {
                return Err(not_found("Agent", agent));
            }
            return Ok(default_key(agent));
        }
        if !world.conversations.contains_key(segment) {
            if !self.auto_create || segment.starts_with("conv-missing") {
                return Err(not_found("Conversation", segment));
            }
            let newest = world.agents.iter().max_by_key(|(_, agent)| agent.order);
            let agent = match (agent, newest) {
                (Some(agent), _) => agent.to_owned(),
                (None, Some((id, _))) => id.clone(),
                (None, None) => "agent-local".to_owned(),
            };
            if !self.ensure_agent(world, &agent) {
                return Err(not_found("Agent", &agent));
            }
            world.add_conversation(segment, segment, &agent, &Value::Null);
        }
        Ok(segment.to_owned())
    }

    pub(crate) fn run(&self, id: &str) -> Option<Arc<Run>> {
        self.world().runs.get(id).cloned()
    }

    pub(crate) fn runs(&self, keep: impl Fn(&Run) -> bool) -> Vec<Arc<Run>> {
        self.world()
            .run_order
            .iter()
            .filter(|run| keep(run))
            .cloned()
            .collect()
    }

    pub(crate) fn run_by_otid(&self, otid: &str) -> Option<Arc<Run>> {
        self.world().by_otid.get(otid).cloned()
    }

    pub(crate) fn active_run(&self, key: &str) -> Option<Arc<Run>> {
        self.world().conversations.get(key)?.active.clone()
    }

    pub(crate) fn run_awaiting(&self, key: &str) -> Option<Arc<Run>> {
        let world = self.world();
        let conversation = world.conversations.get(key)?;
        conversation
            .awaiting
            .clone()
            .filter(|_| !conversation.pending.is_empty())
    }

    /// Makes `run` findable and the active one of its conversation.
    pub(crate) fn begin_run(&self, world: &mut World, run: &Arc<Run>) {
        world.runs.insert(run.id.clone(), run.clone());
        world.run_order.push_back(run.clone());
        for otid in &run.otids {
            world.by_otid.insert(otid.clone(), run.clone());
        }
        if let Some(conversation) = world.conversations.get_mut(&run.key) {
            conversation.active = Some(run.clone());
        }
        while world.run_order.len() > RUN_LIMIT {
            if let Some(old) = world.run_order.pop_front() {
                world.runs.remove(&old.id);
                for otid in &old.otids {
                    if world.by_otid.get(otid).is_some_and(|run| run.id == old.id) {
                        world.by_otid.remove(otid);
                    }
                }
            }
        }
    }

    /// Frees the conversation for the next request.
    pub(crate) fn end_run(&self, run: &Run) {
        let mut world = self.world();
        let now = crate::now();
        if let Some(conversation) = world.conversations.get_mut(&run.key) {
            if conversation
                .active
                .as_ref()
                .is_some_and(|active| active.id == run.id)
            {
                conversation.active = None;
            }
            conversation
                .fields
                .insert("last_message_at".into(), json!(now));
        }
        if let Some(agent) = world.agents.get_mut(&run.agent_id) {
            agent
                .fields
                .insert("last_run_completion".into(), json!(now));
        }
    }

    /// Cancelling a run that stopped for approval denies its calls, but only in
    /// a default conversation (03 §19.3).
    pub(crate) fn deny_pending_of_cancelled(&self, run: &Run) {
        let mut world = self.world();
        let Some(conversation) = world.conversations.get_mut(&run.key) else {
            return;
        };
        let awaited = conversation
            .awaiting
            .as_ref()
            .is_some_and(|awaited| awaited.id == run.id);
        if conversation.id != "default" || !awaited || conversation.pending.is_empty() {
            return;
        }
        let calls = std::mem::take(&mut conversation.pending);
        let returns: Vec<Value> = calls
            .iter()
            .map(|call| {
                json!({"tool_call_id": call.id, "status": "error",
                    "tool_return": "The run was cancelled before the call was decided."})
            })
            .collect();
        let id = format!("message-{}", uuid::Uuid::new_v4());
        let variant = json!({"id": id, "date": crate::now(), "message_type": "tool_return_message",
            "tool_call_id": returns[0]["tool_call_id"], "status": "error",
            "tool_return": returns[0]["tool_return"], "tool_returns": returns});
        world.add_message(&run.key, id, vec![variant]);
    }

    /// Leaves calls pending, as after a run whose client was killed.
    pub(crate) fn set_pending(&self, key: &str, calls: &[(&str, &str, Value)]) {
        let mut world = self.world();
        let calls: Vec<Call> = calls
            .iter()
            .map(|(id, name, arguments)| Call {
                id: (*id).to_owned(),
                name: (*name).to_owned(),
                arguments: arguments.to_string(),
            })
            .collect();
        let id = format!("message-{}", uuid::Uuid::new_v4());
        let shown: Vec<Value> = calls.iter().map(Call::to_json).collect();
        let variant = json!({"id": id, "date": crate::now(), "tool_calls": shown,
            "tool_call": shown.first(), "message_type": "approval_request_message"});
        world.add_message(key, id, vec![variant]);
        if let Some(conversation) = world.conversations.get_mut(key) {
            conversation.pending = calls;
        }
    }

    /// Makes the scope of a frame exist, so that both sides agree whose it is.
    pub(crate) fn announce(&self, connection_id: &str, agent: Option<&str>, conversation: &str) {
        let mut world = self.world();
        let world = &mut *world;
        if let Some(agent) = agent
            && !self.ensure_agent(world, agent)
        {
            return;
        }
        let key = match (conversation, agent) {
            ("default", Some(agent)) => default_key(agent),
            ("default", None) => return,
            (id, _) => id.to_owned(),
        };
        if !world.conversations.contains_key(&key) {
            let (Some(agent), true) = (agent, self.auto_create) else {
                return;
            };
            if key.starts_with("conv-missing") {
                return;
            }
            world.add_conversation(&key, conversation, agent, &Value::Null);
        }
        if let Some(conversation) = world.conversations.get_mut(&key) {
            conversation.connection_id = Some(connection_id.to_owned());
        }
    }
}

pub(crate) fn not_found(what: &str, id: &str) -> Box<Response> {
    Box::new(reply::detail(404, &format!("{what} {id} not found")))
}
