//! The tools of connected controllers, and the calls that are out with them
//! (spec 02 §5.11).
//!
//! One registration per connection and conversation; the newest stands last.
//! Invariants: a call is answered once and by its owner only, and a connection
//! that is gone has neither tools nor calls left here.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::external::{ExternalAnswer, ExternalCaller, ExternalRequest, ExternalTool};
use super::tool::Tool;
use crate::events::{EventSink, Outbound};
use crate::protocol::command::ExternalToolGroup;
use crate::protocol::{ConnectionId, Scope};

/// Tools that one connection may register for one conversation.
pub const TOOLS_PER_RUNTIME: usize = 256;

/// Conversations for which one connection may register tools.
pub const RUNTIMES_PER_CONNECTION: usize = 256;

/// Re-registrations that a running turn may look back on.
const MOVES: usize = 32;

/// Who registered what. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Controllers(Arc<Inner>);

struct Inner {
    events: EventSink,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashSet<ConnectionId>,
    registered: HashMap<Scope, Vec<Registration>>,
    calls: HashMap<String, Call>,
    /// Old and new ids of connections that were registered anew, oldest first.
    moves: Vec<(ConnectionId, ConnectionId)>,
}

struct Registration {
    owner: ConnectionId,
    groups: Vec<ExternalToolGroup>,
}

struct Call {
    owner: ConnectionId,
    answer: oneshot::Sender<Result<Value, String>>,
}

/// Why tools were not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Too many tools for one conversation.
    #[error(
        "{0} external tools for one runtime are too many; at most {TOOLS_PER_RUNTIME} are kept"
    )]
    Tools(usize),
    /// Too many conversations.
    #[error(
        "external tools for more than {RUNTIMES_PER_CONNECTION} runtimes of one connection are too many; \
         remove some with an empty external_tools list"
    )]
    Runtimes,
}

impl fmt::Debug for Controllers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Controllers")
    }
}

impl Controllers {
    /// Without registrations; calls go out through `events`.
    pub fn new(events: EventSink) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Inner { events, state }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below is complete before anything that could panic.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection can be reached.
    pub fn opened(&self, connection: &ConnectionId) {
        self.state().open.insert(connection.clone());
    }

    /// A connection dropped and may come back: its tools stay, new calls fail
    /// at once, and calls that are out may still be answered.
    pub fn closed(&self, connection: &ConnectionId) {
        self.state().open.remove(connection);
    }

    /// A connection ended for good: its tools go, its calls fail (02 §11.2).
    pub fn gone(&self, connection: &ConnectionId) {
        let mut state = self.state();
        state.open.remove(connection);
        state.registered.retain(|_, list| {
            list.retain(|registration| registration.owner != *connection);
            !list.is_empty()
        });
        let calls = state.calls.extract_if(|_, call| call.owner == *connection);
        let calls: Vec<(String, Call)> = calls.collect();
        drop(state);
        for (_, call) in calls {
            let _ = call.answer.send(Err("Listener connection closed".into()));
        }
    }

    /// A connection goes on under another id (00 §8).
    pub fn moved(&self, old: &ConnectionId, new: &ConnectionId) {
        let mut state = self.state();
        let owners = state.registered.values_mut().flatten();
        for registration in owners.filter(|registration| registration.owner == *old) {
            registration.owner = new.clone();
        }
        for call in state.calls.values_mut().filter(|call| call.owner == *old) {
            call.owner = new.clone();
        }
        state.open.remove(old);
        if state.moves.len() >= MOVES {
            state.moves.remove(0);
        }
        state.moves.push((old.clone(), new.clone()));
    }

    /// Replaces everything that `owner` registered for `runtime`; an empty list
    /// removes it.
    ///
    /// # Errors
    /// More tools or conversations than are kept; then nothing changes.
    pub fn register(
        &self,
        owner: &ConnectionId,
        runtime: &Scope,
        groups: Vec<ExternalToolGroup>,
    ) -> Result<(), RegisterError> {
        let tools: usize = groups.iter().map(|group| group.tools.len()).sum();
        if tools > TOOLS_PER_RUNTIME {
            return Err(RegisterError::Tools(tools));
        }
        let mut state = self.state();
        let owned = |list: &&Vec<Registration>| list.iter().any(|known| known.owner == *owner);
        let others = state
            .registered
            .iter()
            .filter(|(scope, list)| *scope != runtime && owned(list));
        if tools > 0 && others.count() >= RUNTIMES_PER_CONNECTION {
            return Err(RegisterError::Runtimes);
        }
        let list = state.registered.entry(runtime.clone()).or_default();
        list.retain(|known| known.owner != *owner);
        if tools > 0 {
            let owner = owner.clone();
            list.push(Registration { owner, groups });
        }
        if list.is_empty() {
            state.registered.remove(runtime);
        }
        Ok(())
    }

    /// The tools that a turn of `runtime` sees, the preferred one of each name
    /// first: those of `origin`, the connection that started it, then those of
    /// others, the newest first. Scoped tools show only to turns of their owner
    /// that name the scope.
    pub fn tools(
        &self,
        runtime: &Scope,
        origin: Option<&ConnectionId>,
        scope_ids: &[String],
    ) -> Vec<Arc<dyn Tool>> {
        let state = self.state();
        let Some(list) = state.registered.get(runtime) else {
            return Vec::new();
        };
        let is_own = |registration: &&Registration| Some(&registration.owner) == origin;
        let own = list.iter().filter(is_own);
        let others = list.iter().rev().filter(|other| !is_own(other));
        let mut tools: Vec<Arc<dyn Tool>> = Vec::new();
        for registration in own.chain(others) {
            let caller: Arc<dyn ExternalCaller> = Arc::new(Caller {
                controllers: self.clone(),
                owner: registration.owner.clone(),
            });
            for group in &registration.groups {
                let visible = group
                    .scope_id
                    .as_ref()
                    .is_none_or(|id| is_own(&registration) && scope_ids.contains(id));
                let scope_id: Option<Arc<str>> = group.scope_id.as_deref().map(Arc::from);
                for tool in group.tools.iter().filter(|_| visible) {
                    tools.push(Arc::new(ExternalTool::new(
                        tool.name.as_str().into(),
                        tool.description.clone(),
                        Value::Object(tool.parameters.clone()),
                        scope_id.clone(),
                        Arc::clone(&caller),
                    )));
                }
            }
        }
        tools
    }

    /// `external_tool_call_response`. Nothing happens when no such call is out
    /// with this connection.
    pub fn answer(
        &self,
        from: &ConnectionId,
        call_id: &str,
        result: Option<Map<String, Value>>,
        error: Option<String>,
    ) {
        let mut state = self.state();
        let mine = state
            .calls
            .get(call_id)
            .is_some_and(|call| call.owner == *from);
        let call = mine.then(|| state.calls.remove(call_id)).flatten();
        drop(state);
        if let Some(call) = call {
            let answer = match (error, result) {
                (Some(error), _) => Err(error),
                (None, Some(result)) => Ok(Value::Object(result)),
                (None, None) => Err("External tool response missing result".into()),
            };
            // A turn that was aborted meanwhile no longer waits.
            let _ = call.answer.send(answer);
        }
    }
}

impl State {
    /// The id under which `owner` is known now.
    fn current(&self, owner: &ConnectionId) -> ConnectionId {
        let follow = |now: ConnectionId, (old, new): &(ConnectionId, ConnectionId)| {
            if now == *old { new.clone() } else { now }
        };
        self.moves.iter().fold(owner.clone(), follow)
    }
}

/// The owner of some tools, as those tools see it.
struct Caller {
    controllers: Controllers,
    owner: ConnectionId,
}

/// Takes a call back when nobody waits for it any more.
struct Out<'a>(&'a Controllers, String);

impl Drop for Out<'_> {
    fn drop(&mut self) {
        self.0.state().calls.remove(&self.1);
    }
}

impl ExternalCaller for Caller {
    fn call(&self, request: ExternalRequest) -> ExternalAnswer<'_> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let id = request.request_id.clone();
            let to = {
                let mut state = self.controllers.state();
                let owner = state.current(&self.owner);
                if !state.open.contains(&owner) {
                    return Err("External tool controller is not connected".into());
                }
                let call = Call {
                    owner: owner.clone(),
                    answer,
                };
                state.calls.insert(id.clone(), call);
                owner
            };
            let _out = Out(&self.controllers, id);
            let body = call_frame(&request).to_string();
            self.controllers.0.events.send(Outbound::Reply { to, body });
            let gone = || Err("Listener runtime stopped".into());
            answered.await.unwrap_or_else(|_| gone())
        })
    }
}

/// `external_tool_call_request`.
fn call_frame(request: &ExternalRequest) -> Value {
    let mut frame = json!({
        "type": "external_tool_call_request",
        "request_id": request.request_id,
        "runtime": request.runtime,
    });
    if let Some(scope_id) = &request.scope_id {
        frame["scope_id"] = json!(scope_id);
    }
    frame["tool_call_id"] = json!(request.tool_call_id);
    frame["tool_name"] = json!(request.tool_name);
    frame["input"] = json!(request.input);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::command::ExternalToolSpec;
    use crate::tools::ToolOutcome;
    use crate::tools::tests::{Bench, args};
    use tokio::sync::mpsc;

    fn id(name: &str) -> ConnectionId {
        ConnectionId::new(name)
    }

    fn runtime() -> Scope {
        Scope::new(Some("agent-1"), Some("conv-1"))
    }

    fn group(scope_id: Option<&str>, names: &[&str]) -> ExternalToolGroup {
        let tool = |name: &&str| ExternalToolSpec {
            name: (*name).into(),
            description: format!("{name} of {scope_id:?}"),
            parameters: Map::new(),
        };
        ExternalToolGroup {
            scope_id: scope_id.map(Into::into),
            tools: names.iter().map(tool).collect(),
        }
    }

    fn controllers() -> (Controllers, mpsc::UnboundedReceiver<Outbound>) {
        let (events, frames) = EventSink::channel();
        (Controllers::new(events), frames)
    }

    fn names(tools: &[Arc<dyn Tool>]) -> Vec<&str> {
        tools.iter().map(|tool| tool.name()).collect()
    }

    /// Runs the first visible tool, and gives the frame that its owner got.
    async fn called(
        controllers: &Controllers,
        frames: &mut mpsc::UnboundedReceiver<Outbound>,
        then: impl FnOnce(&ConnectionId, &Value),
    ) -> ToolOutcome {
        let bench = Bench::new();
        let tool = controllers.tools(&runtime(), None, &[]).remove(0);
        let run = bench.run(&*tool, args(json!({"q": 1})));
        let answer = async {
            let Some(Outbound::Reply { to, body }) = frames.recv().await else {
                panic!("no frame for the controller");
            };
            then(&to, &serde_json::from_str(&body).unwrap());
        };
        tokio::join!(run, answer).0
    }

    #[test]
    fn scoped_tools_show_to_turns_of_their_owner_that_name_the_scope() {
        let (controllers, _frames) = controllers();
        let (one, two) = (id("1"), id("2"));
        let groups = vec![group(None, &["open"]), group(Some("sc"), &["scoped"])];
        controllers.register(&one, &runtime(), groups).unwrap();
        let seen = |origin: Option<&ConnectionId>, scopes: &[String]| {
            names(&controllers.tools(&runtime(), origin, scopes)).join(",")
        };
        let sc = [String::from("sc")];
        assert_eq!(seen(Some(&one), &sc), "open,scoped");
        assert_eq!(seen(Some(&one), &[]), "open");
        assert_eq!(seen(Some(&two), &sc), "open");
        assert_eq!(seen(None, &sc), "open");
        let elsewhere = Scope::new(Some("agent-1"), Some("conv-2"));
        assert!(controllers.tools(&elsewhere, Some(&one), &sc).is_empty());
    }

    #[test]
    fn of_one_name_the_turns_own_connection_comes_first_then_the_newest() {
        let (controllers, _frames) = controllers();
        for owner in ["1", "2", "3"] {
            let groups = vec![group(None, &["lookup", owner])];
            controllers
                .register(&id(owner), &runtime(), groups)
                .unwrap();
        }
        let first = |origin: &str| {
            let tools = controllers.tools(&runtime(), Some(&id(origin)), &[]);
            names(&tools)[1].to_owned()
        };
        assert_eq!(first("1"), "1");
        assert_eq!(first("stranger"), "3");
        let anew = vec![group(None, &["lookup", "1"])];
        controllers.register(&id("1"), &runtime(), anew).unwrap();
        assert_eq!(first("stranger"), "1");
        controllers.register(&id("1"), &runtime(), vec![]).unwrap();
        controllers.gone(&id("3"));
        assert_eq!(first("stranger"), "2");
    }

    #[tokio::test]
    async fn s02_5_11_a_call_goes_to_its_owner_and_only_its_answer_counts() {
        let (controllers, mut frames) = controllers();
        controllers.opened(&id("1"));
        let groups = vec![group(None, &["lookup"])];
        controllers.register(&id("1"), &runtime(), groups).unwrap();
        let outcome = called(&controllers, &mut frames, |to, frame| {
            assert_eq!(*to, id("1"));
            assert_eq!(frame["type"], "external_tool_call_request");
            assert_eq!(
                frame["runtime"],
                json!({"agent_id":"agent-1","conversation_id":"conv-1"})
            );
            assert_eq!(frame["tool_call_id"], "call-1");
            assert_eq!(frame["tool_name"], "lookup");
            assert_eq!(frame["input"], json!({"q": 1}));
            assert!(frame.get("scope_id").is_none());
            let call = frame["request_id"].as_str().unwrap();
            let result = |text: &str| {
                Some(args(
                    json!({"content": [{"type": "text", "text": text}], "is_error": false}),
                ))
            };
            controllers.answer(&id("2"), call, result("stranger"), None);
            controllers.answer(&id("1"), "external-tool-0", result("other"), None);
            controllers.answer(&id("1"), call, result("owner"), None);
            controllers.answer(&id("1"), call, result("again"), None);
        })
        .await;
        assert_eq!(outcome, ToolOutcome::text("owner"));
        assert!(controllers.state().calls.is_empty());
    }

    #[tokio::test]
    async fn a_call_fails_when_its_owner_answers_with_an_error_or_leaves() {
        let (controllers, mut frames) = controllers();
        let owner = id("1");
        controllers.opened(&owner);
        let groups = || vec![group(None, &["lookup"])];
        controllers.register(&owner, &runtime(), groups()).unwrap();
        let said =
            |text: &str| ToolOutcome::error(format!("External tool execution error: {text}"));
        let call = |frame: &Value| frame["request_id"].as_str().unwrap().to_owned();
        let outcome = called(&controllers, &mut frames, |_, frame| {
            controllers.answer(&owner, &call(frame), None, Some("broken".into()));
        });
        assert_eq!(outcome.await, said("broken"));
        let outcome = called(&controllers, &mut frames, |_, frame| {
            controllers.answer(&owner, &call(frame), None, None);
        });
        assert_eq!(outcome.await, said("External tool response missing result"));
        let outcome = called(&controllers, &mut frames, |_, _| controllers.gone(&owner));
        assert_eq!(outcome.await, said("Listener connection closed"));
        assert!(controllers.tools(&runtime(), None, &[]).is_empty());
    }

    #[tokio::test]
    async fn tools_stay_over_a_drop_and_follow_a_new_registration() {
        let (controllers, mut frames) = controllers();
        let (old, new) = (id("conn-1"), id("conn-2"));
        controllers.opened(&old);
        let groups = vec![group(None, &["lookup"])];
        controllers.register(&old, &runtime(), groups).unwrap();
        controllers.closed(&old);
        let tool = controllers.tools(&runtime(), None, &[]).remove(0);
        let bench = Bench::new();
        assert_eq!(
            bench.run(&*tool, args(json!({}))).await,
            ToolOutcome::error(
                "External tool execution error: External tool controller is not connected"
            )
        );
        controllers.moved(&old, &new);
        controllers.opened(&new);
        // The tool of a turn that began before the move still reaches its owner.
        let run = bench.run(&*tool, args(json!({})));
        let answer = async {
            let Some(Outbound::Reply { to, body }) = frames.recv().await else {
                panic!("no frame for the controller");
            };
            assert_eq!(to, new);
            let frame: Value = serde_json::from_str(&body).unwrap();
            let call = frame["request_id"].as_str().unwrap();
            let result = json!({"content": [{"type": "text", "text": "moved"}]});
            controllers.answer(&new, call, Some(args(result)), None);
        };
        assert_eq!(tokio::join!(run, answer).0, ToolOutcome::text("moved"));
    }

    #[test]
    fn registrations_are_bounded() {
        let (controllers, _frames) = controllers();
        let many = vec![group(None, &["t"; TOOLS_PER_RUNTIME + 1])];
        let error = controllers.register(&id("1"), &runtime(), many);
        assert_eq!(error, Err(RegisterError::Tools(257)));
        for n in 0..RUNTIMES_PER_CONNECTION {
            let scope = Scope::new(Some("agent-1"), Some(&format!("conv-{n}")));
            let groups = vec![group(None, &["t"])];
            controllers.register(&id("1"), &scope, groups).unwrap();
        }
        let more = Scope::new(Some("agent-1"), Some("one-more"));
        let groups = || vec![group(None, &["t"])];
        let error = controllers.register(&id("1"), &more, groups());
        assert_eq!(error, Err(RegisterError::Runtimes));
        controllers.register(&id("2"), &more, groups()).unwrap();
    }
}
