//! Everything before the first request of a turn (spec 03 §8).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::after_stop::{Retries, reminder_message};
use super::failure::TurnError;
use super::hooked::Hooked;
use super::record::Record;
use super::reminder_text::{self, Facts};
use super::report::{Port, Report, Toolset};
use super::send::approval_message;
use super::surroundings::Surroundings;
use super::{End, Opening, Turn, TurnInput, Usage};
use crate::api::{ApiError, Client};
use crate::conversation::memory_sync;
use crate::conversation::model::CarriedModel;
use crate::conversation::queue::BatchMessage;
use crate::conversation::reminders::{Due, SecretsDue};
use crate::conversation::services::Services;
use crate::events::ConversationHandle;
use crate::permissions::Workspace;
use crate::process::{Processes, TurnFacts};
use crate::protocol::command::{ExecutionSettings, ImageFailureMode, InputOptions};
use crate::protocol::{PermissionMode, Scope};
use crate::skills::Source;
use crate::subagents::Delegation;
use crate::tools::image::OnFailure;
use crate::tools::tool::{ToolContext, WorkingDirectory};
use crate::tools::toolset::{Preference, Selection};

/// The tag of agents that this program works for.
const TAG: &str = "origin:letta-code";

const INTERRUPTED_NOTE: &str = "<system-reminder>The user interrupted your last turn while it was running. Calls that were under way were stopped.</system-reminder>";

impl Turn {
    /// Prepares a turn; what is left is to drive its opening.
    pub(crate) async fn set_up(
        services: Arc<Services>,
        input: TurnInput,
        port: Port,
    ) -> Result<(Self, Opening), End> {
        let TurnInput {
            scope,
            opening,
            messages,
            options,
            interrupted,
            due,
            skill_sources,
            execution,
            workspace,
            session_rules,
            recorded,
            origin,
            ..
        } = input;
        let api = services.api.acting_as(options.acting_user_id.as_deref());
        let skill_sources: Arc<[Source]> =
            skill_sources.map_or_else(|| Source::ALL.into(), Arc::from);
        let preload = execution.as_ref().map(|settings| &settings.preload_skills);
        let preload = preload.cloned().unwrap_or_default();
        let here = async {
            let memory = memory_sync::before_turn(&services, &api, &scope).await;
            let cwd = services.remote.verified_cwd_of(&scope).await;
            let found = Surroundings::read(&services, &scope, &cwd, &skill_sources, preload).await;
            (memory, cwd, found)
        };
        let known = port.unless_cancelled(async {
            tokio::join!(
                services.agents.agent(&api, &scope),
                services.agents.secrets(&api, &scope),
                conversation(&api, &scope),
                here,
            )
        });
        let (agent, secrets, conversation, (memory, cwd, found)) = Box::pin(known).await?;
        let conversation = conversation
            .map_err(|error| End::Failed(TurnError::of_request(&error, &scope, None)))?;
        let starts_with_messages = matches!(opening, Opening::Messages);
        if starts_with_messages {
            tag_agent(&services, &api, &scope, agent.as_deref()).await;
        }
        if agent.is_none() && scope.is_default() {
            return Err(End::Failed(TurnError::plain(
                "The agent of this conversation could not be read from the server.",
            )));
        }
        let mut mode = services.remote.mode_of(&scope);
        if mode.mode == PermissionMode::Plan && mode.plan_file.is_none() {
            // Plan mode of the process: each conversation gets its file here.
            let plans = services.home.plans();
            mode = services.remote.enter_plan(&scope, &plans).await;
            port.tell(Report::Announce { device: false }).await;
        }
        let mut selection = ToolChoice::new(&services, &scope, &options, execution.as_ref());
        selection.selection.memory_tools = found.has_memory;
        let scope_ids = &options.external_tool_scope_ids;
        let external = services
            .controllers
            .tools(&scope, origin.as_ref(), scope_ids);
        let (tools, preset) = selection.resolve(
            &services,
            agent.as_deref(),
            conversation.as_ref(),
            found.agent_tool,
            external,
        )?;
        let loaded: Vec<String> = tools.loaded().map(String::from).collect();
        port.tell(Report::Toolset(Toolset {
            name: preset,
            tools: loaded,
        }))
        .await;
        port.tell(Report::Skills(crate::skills::listing(&found.skills)))
            .await;
        let skills = match crate::skills::client_skills(&found.skills) {
            Ok(skills) => skills,
            Err(_) => Arc::clone(&services.no_skills),
        };
        let skill_news = due.skills.as_ref().and_then(|told| told.news(&skills));

        let hosted = services
            .link
            .borrow()
            .connection
            .clone()
            .filter(|id| id.is_hosted());
        // The next process would not know of a workspace: it must take up nothing of it.
        let recorded = hosted.as_ref().filter(|_| recorded && workspace.is_none());
        let record = Record::new(
            recorded.map(|_| services.interrupted.clone()),
            &scope,
            options.acting_user_id.clone(),
            cwd.to_string_lossy().into_owned(),
        );
        let processes = confined(&services, workspace.as_ref()).await?;
        let name = agent
            .as_deref()
            .and_then(|agent| agent.get("name"))
            .and_then(Value::as_str);
        let context = ToolContext {
            scope: scope.clone(),
            acting_user_id: options.acting_user_id.as_deref().map(Arc::from),
            cwd: WorkingDirectory::new(cwd),
            home: services.home.user.clone(),
            letta_home: services.home.letta.clone(),
            processes,
            conversation: ConversationHandle::new(scope.clone(), services.inject.clone()),
            facts: TurnFacts {
                agent_name: name.map(Arc::from),
                connection_id: hosted.as_ref().map(|id| Arc::from(id.as_str())),
                memory_dir: execution
                    .as_ref()
                    .and_then(|settings| settings.memory_directory.as_deref())
                    .map(Into::into)
                    .or_else(|| memory.clone()),
                launched: execution.as_ref().map(launched).unwrap_or_default(),
                api_key: None,
                base_url: Some(services.api.base_url().as_str().into()),
            },
            closed: Arc::default(),
            skill_sources,
            delegation: Delegation {
                desk: services.desk.clone(),
                workspace: workspace.clone(),
                disallowed_tools: execution
                    .as_ref()
                    .map(|settings| settings.disallowed_tools.clone())
                    .unwrap_or_default(),
            },
            secrets: secrets.clone(),
        };
        let mut outgoing: Vec<Value> = Vec::new();
        if let Some(results) = interrupted {
            if !results.is_empty() {
                let results = results.into_iter().map(Value::Object).collect();
                outgoing.push(approval_message(results, None));
            }
            outgoing.push(reminder_message(INTERRUPTED_NOTE));
        }
        outgoing.extend(prepared(&services, &port, messages, &options).await?);
        if starts_with_messages {
            let names: Vec<String> = secrets.0.keys().cloned().collect();
            let facts = Facts {
                scope: &scope,
                agent: agent.as_deref(),
                cwd: context.cwd.get(),
                secrets: &names,
                memory_directory: memory.map(|dir| dir.to_string_lossy().into_owned()),
                plan_file: mode.plan_file,
            };
            let reminders = reminder_text::all(&due, &facts, session_wanted(&services)).await;
            prepend(&mut outgoing, &reminders);
            if secrets_changed(&due, &names) {
                port.tell(Report::SecretsTold(names)).await;
            }
            let last = outgoing
                .iter_mut()
                .rev()
                .find(|message| is_of_user(message));
            put_before(last, found.preloaded.as_slice());
        }
        let hooked = Arc::new(Hooked(services.hooks.clone()));
        let turn = Self {
            services,
            scope,
            api,
            port,
            outgoing,
            options,
            execution,
            workspace,
            session_rules,
            tools: Arc::new(tools.with_around(hooked)),
            skills_are_told: due.skills.is_some_and(|told| told.0.get() == skills.get()),
            skills,
            skill_news: skill_news
                .map(|text| json!({"type": "message", "role": "user", "content": text})),
            context,
            run_id: None,
            run_is_shown: false,
            record,
            progress: None,
            human_decided: false,
            server_calls: Default::default(),
            retries: Retries::default(),
            usage: Usage::default(),
        };
        Ok((turn, opening))
    }
}

/// The messages of a batch as they are sent: with their images prepared (03 §17).
pub(super) async fn prepared(
    services: &Services,
    port: &Port,
    batch: Vec<BatchMessage>,
    options: &InputOptions,
) -> Result<Vec<Value>, End> {
    let messages = batch.into_iter().map(|one| Value::Object(one.message));
    let on_failure = match options.image_failure_mode {
        ImageFailureMode::Strict => OnFailure::Fail,
        ImageFailureMode::Drop => OnFailure::LeaveOut,
    };
    let prepare = services.images.prepare(messages.collect(), on_failure);
    let prepared = port.unless_cancelled(prepare).await?;
    prepared.map_err(|error| End::Failed(TurnError::plain(error.to_string())))
}

/// The conversation, unless it is the agent's default one, which has no record.
async fn conversation(api: &Client, scope: &Scope) -> Result<Option<Value>, ApiError> {
    if scope.is_default() {
        return Ok(None);
    }
    api.conversation(&scope.conversation_id).await.map(Some)
}

/// What the shells of a launched conversation find in place of what this
/// process inherited (07 §6).
fn launched(settings: &ExecutionSettings) -> Vec<(&'static str, Option<String>)> {
    let role = settings.is_subagent.then(|| "subagent".to_owned());
    vec![
        ("LETTA_PARENT_AGENT_ID", settings.parent_agent_id.clone()),
        ("LETTA_CODE_AGENT_ROLE", role),
        ("TRANSCRIPT_PATH", settings.transcript_path.clone()),
    ]
}

/// The owner of the turn's children. In a workspace they run confined or not at all.
async fn confined(services: &Services, workspace: Option<&Workspace>) -> Result<Processes, End> {
    let Some(Workspace {
        root,
        isolation_root,
    }) = workspace
    else {
        return Ok(services.background.clone());
    };
    let confined = services
        .background
        .confined(root.as_ref(), isolation_root.as_ref());
    confined.await.map_err(|reason| {
        End::Failed(TurnError::plain(format!(
            "workspace sandbox requires a kernel sandbox backend ({reason})"
        )))
    })
}

fn session_wanted(services: &Services) -> bool {
    services
        .settings
        .get("sessionContextEnabled")
        .and_then(|v| v.as_bool())
        .unwrap_or(true)
}

pub(super) fn secrets_changed(due: &Due, names: &[String]) -> bool {
    match &due.secrets {
        SecretsDue::Never => !names.is_empty(),
        SecretsDue::Known(known) => known != names,
    }
}

/// Marks the agent as one that this program works for; once per process is enough.
async fn tag_agent(services: &Services, api: &Client, scope: &Scope, agent: Option<&Value>) {
    let (Some(id), Some(agent)) = (scope.agent_id.as_deref(), agent) else {
        return;
    };
    if services.agents.is_tagged(id) {
        return;
    }
    let tags = match agent.get("tags").and_then(Value::as_array) {
        Some(tags) if tags.iter().any(|tag| tag == TAG) => {
            return services.agents.note_tagged(id);
        }
        _ => match api.agent_with_tags(id).await {
            Ok(agent) => agent
                .get("tags")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
            Err(error) => {
                return tracing::debug!(?error, "The agent's tags could not be read.");
            }
        },
    };
    if !tags.iter().any(|tag| tag == TAG) {
        let mut tags = tags;
        tags.push(TAG.into());
        if let Err(error) = api.update_agent(id, &json!({"tags": tags})).await {
            tracing::debug!(?error, "The agent could not be tagged.");
        }
    }
    services.agents.note_tagged(id);
}

/// Which tools a turn gets (04 §2).
struct ToolChoice<'a> {
    preference: Preference,
    selection: Selection<'a>,
}

impl<'a> ToolChoice<'a> {
    fn new(
        services: &Services,
        scope: &Scope,
        options: &'a crate::protocol::command::InputOptions,
        execution: Option<&'a crate::protocol::command::ExecutionSettings>,
    ) -> Self {
        let stored = services
            .settings
            .toolset_preference(scope, services.api.base_url().as_str());
        let preference = options
            .toolset_base
            .as_deref()
            .or(stored.as_deref())
            .map_or(Preference::Auto, Preference::stored);
        let worktrees = services.settings.get("includeWorktreeTool");
        Self {
            preference,
            selection: Selection {
                include: &options.toolset_include,
                allowlist: options.client_tool_allowlist.as_deref(),
                runtime_tools: execution.and_then(|settings| settings.tools.as_deref()),
                exclude_interactive: options.exclude_interactive_tools || execution.is_some(),
                worktree_tools: worktrees.and_then(|v| v.as_bool()).unwrap_or(true),
                ..Selection::preset(crate::tools::toolset::Preset::Default)
            },
        }
    }

    fn resolve(
        mut self,
        services: &Services,
        agent: Option<&Value>,
        conversation: Option<&Value>,
        own: Option<Arc<dyn crate::tools::Tool>>,
        external: Vec<Arc<dyn crate::tools::Tool>>,
    ) -> Result<(crate::tools::TurnTools, String), End> {
        let model = CarriedModel::of(agent, conversation);
        let preset = self.preference.resolve(&model.as_model());
        self.selection.preset = preset;
        let tools = services
            .toolbox
            .for_turn_with(&self.selection, own, external)
            .map_err(|unknown| End::Failed(TurnError::plain(unknown.to_string())))?;
        Ok((tools, preset.as_str().to_owned()))
    }
}

/// Puts reminders as text parts in front of the first user message (03 §15.1).
fn prepend(outgoing: &mut [Value], reminders: &[String]) {
    let first = outgoing.iter_mut().find(|message| is_of_user(message));
    put_before(first, reminders);
}

fn is_of_user(message: &Value) -> bool {
    message.get("role").and_then(Value::as_str) == Some("user")
}

/// Puts these texts as parts in front of a message's content.
fn put_before(message: Option<&mut Value>, texts: &[String]) {
    let Some(Value::Object(message)) = message.filter(|_| !texts.is_empty()) else {
        return;
    };
    let mut parts: Vec<Value> = texts
        .iter()
        .map(|text| json!({"type": "text", "text": text}))
        .collect();
    match message.get_mut("content").map(Value::take) {
        Some(Value::Array(content)) => parts.extend(content),
        Some(Value::String(text)) => parts.push(json!({"type": "text", "text": text})),
        _ => {}
    }
    let message: &mut Map<String, Value> = message;
    message.insert("content".into(), Value::Array(parts));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_stand_before_the_first_user_message_only() {
        let mut outgoing = vec![
            json!({"type":"approval","approvals":[]}),
            json!({"role":"user","content":"hello"}),
            json!({"role":"user","content":"more"}),
        ];
        prepend(
            &mut outgoing,
            &["<system-reminder>x</system-reminder>".into()],
        );
        assert_eq!(
            outgoing[1]["content"][0]["text"],
            "<system-reminder>x</system-reminder>"
        );
        assert_eq!(outgoing[1]["content"][1]["text"], "hello");
        assert_eq!(outgoing[2]["content"], "more");
    }
}
