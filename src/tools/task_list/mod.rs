//! TaskCreate, TaskGet, TaskList and TaskUpdate: the task list of one
//! conversation (04 §7.16).

mod store;

use std::sync::LazyLock;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::args::{Args, DRAFT_07, DRAFT_2020_12, schema, type_name};
use super::offload::{Failure, settle};
use super::tool::{Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};
use crate::protocol::time::epoch_millis;

pub use store::{Draft, Task, TaskStatus, TaskStore, Update};

const CREATE: &str = "\
Adds a task to this conversation's task list.

- Use the list for work of three or more steps, or when the user gives several things to do. A single simple step needs none.
- subject is a short imperative (\"Run the tests\"), description says enough to do it later, activeForm is the form shown while it is being done (\"Running the tests\").
- A new task is pending. Move it on with TaskUpdate: in_progress when you start, completed when it is done.
- The result is the task as JSON; its taskId names it in the other task tools.";

const GET: &str = "\
Returns one task of this conversation's task list as JSON, with its description, status and dependencies. Use it before you start on a task.";

const LIST: &str = "\
Returns all tasks of this conversation's task list as JSON, in the order in which they were made. Use it to see what is left and what a task waits for (blockedBy).";

const UPDATE: &str = "\
Changes a task of this conversation's task list and returns it as JSON. Only the given fields change.

- status goes from pending to in_progress when you start and to completed when the task is wholly done: not while tests fail or part of it is missing. deleted removes the task.
- addBlocks and addBlockedBy name tasks that wait for this one, or that it waits for.
- metadata is merged in; a key with null is removed.";

static CREATE_PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "subject": {"type": "string", "description": "What is to be done, as a short imperative"},
    "description": {"type": "string", "description": "Enough detail to do it later"},
    "activeForm": {"type": "string", "description": "The form shown while it is being done, such as \"Running the tests\""},
    "metadata": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Anything else to remember with the task"}
}"#,
        &["subject", "description"],
        DRAFT_07,
    )
});

static GET_PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "taskId": {"type": "string", "description": "The task, such as \"task_1\""}
}"#,
        &["taskId"],
        DRAFT_07,
    )
});

static LIST_PARAMETERS: LazyLock<Value> = LazyLock::new(|| schema(r#"{}"#, &[], DRAFT_07));

static UPDATE_PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    let ids = |what| json!({"type": "array", "items": {"type": "string"}, "description": what});
    schema(
        json!({
            "taskId": {"type": "string", "description": "The task, such as \"task_1\""},
            "status": {"type": "string", "enum": ["pending", "in_progress", "completed", "deleted"], "description": "The new status; deleted removes the task"},
            "subject": {"type": "string", "description": "A new subject"},
            "description": {"type": "string", "description": "A new description"},
            "activeForm": {"type": "string", "description": "A new form to show while it is being done"},
            "owner": {"type": "string", "description": "Who works on it"},
            "addBlocks": ids("Tasks that wait for this one"),
            "addBlockedBy": ids("Tasks that this one waits for"),
            "metadata": {"type": "object", "additionalProperties": {}, "description": "Keys to set; null removes a key"},
        }),
        &["taskId"],
        DRAFT_2020_12,
    )
});

/// Which of the four tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskAction {
    /// TaskCreate.
    Create,
    /// TaskGet.
    Get,
    /// TaskList.
    List,
    /// TaskUpdate.
    Update,
}

/// One of the four tools, over a shared store.
#[derive(Debug)]
pub struct TaskTool {
    action: TaskAction,
    store: TaskStore,
}

impl TaskTool {
    /// The tool for one action; give all four the same store.
    pub fn new(action: TaskAction, store: TaskStore) -> Self {
        Self { action, store }
    }
}

impl Tool for TaskTool {
    fn name(&self) -> &str {
        self.title()
    }

    fn description(&self) -> &str {
        match self.action {
            TaskAction::Create => CREATE,
            TaskAction::Get => GET,
            TaskAction::List => LIST,
            TaskAction::Update => UPDATE,
        }
    }

    fn parameters(&self) -> &Value {
        match self.action {
            TaskAction::Create => &CREATE_PARAMETERS,
            TaskAction::Get => &GET_PARAMETERS,
            TaskAction::List => &LIST_PARAMETERS,
            TaskAction::Update => &UPDATE_PARAMETERS,
        }
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            let result = self.act(&call.args, context);
            settle(result.map(|value| ToolOutcome::text(value.to_string())))
        })
    }
}

impl TaskTool {
    fn title(&self) -> &'static str {
        match self.action {
            TaskAction::Create => "TaskCreate",
            TaskAction::Get => "TaskGet",
            TaskAction::List => "TaskList",
            TaskAction::Update => "TaskUpdate",
        }
    }

    fn act(&self, map: &Map<String, Value>, context: &ToolContext) -> Result<Value, Failure> {
        let args = Args::new(self.title(), map);
        let now = epoch_millis(SystemTime::now());
        let tasks = &self.store;
        let scope = &context.scope;
        match self.action {
            TaskAction::Create => {
                let draft = Draft {
                    subject: self.text(&args, "subject")?,
                    description: self.text(&args, "description")?,
                    active_form: args.opt_string("activeForm")?.map(str::to_owned),
                    metadata: self.text_metadata(&args)?,
                };
                let task = tasks.create(scope, draft, now).ok_or_else(|| {
                    let max = store::MAX_TASKS;
                    Failure::new(format!(
                        "TaskCreate: the list is full ({max} tasks). Delete tasks that are done."
                    ))
                })?;
                Ok(task.to_json())
            }
            TaskAction::Get => {
                let id = self.text(&args, "taskId")?;
                let task = tasks.get(scope, &id);
                task.map(|task| task.to_json())
                    .ok_or_else(|| Failure::new(format!("TaskGet: task not found: {id}")))
            }
            TaskAction::List => {
                let all: Vec<Value> = tasks.list(scope).iter().map(Task::to_json).collect();
                Ok(json!({"tasks": all}))
            }
            TaskAction::Update => {
                let id = self.text(&args, "taskId")?;
                let update = self.update(&args)?;
                let task = tasks.update(scope, &id, update, now);
                task.map(|task| task.to_json())
                    .ok_or_else(|| Failure::new(format!("TaskUpdate: Task not found: {id}")))
            }
        }
    }

    fn update(&self, args: &Args<'_>) -> Result<Update, Failure> {
        let owned = |name| Ok::<_, Failure>(args.opt_string(name)?.map(str::to_owned));
        let status = match args.get("status") {
            None => None,
            Some(value) => Some(value.as_str().and_then(TaskStatus::parse).ok_or_else(|| {
                let received = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let received: String = received.chars().take(100).collect();
                Failure::new(format!(
                    "TaskUpdate: 'status' must be one of pending, in_progress, completed, deleted; received {received}"
                ))
            })?),
        };
        Ok(Update {
            status,
            subject: owned("subject")?,
            description: owned("description")?,
            active_form: owned("activeForm")?,
            owner: owned("owner")?,
            add_blocks: self.ids(args, "addBlocks")?,
            add_blocked_by: self.ids(args, "addBlockedBy")?,
            metadata: self.metadata(args)?.cloned().unwrap_or_default(),
        })
    }

    fn text(&self, args: &Args<'_>, name: &'static str) -> Result<String, Failure> {
        let value = args.string(name)?;
        if value.is_empty() {
            return Err(Failure::new(format!(
                "{}: '{name}' must be a non-empty string",
                self.name()
            )));
        }
        Ok(value.to_owned())
    }

    fn ids(&self, args: &Args<'_>, name: &str) -> Result<Vec<String>, Failure> {
        let tool = self.name();
        let ids = match args.get(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(ids)) => ids,
            Some(_) => {
                return Err(Failure::new(format!(
                    "{tool}: '{name}' must be an array of strings"
                )));
            }
        };
        let text = |(at, id): (usize, &Value)| match id {
            Value::String(id) => Ok(id.clone()),
            other => Err(Failure::new(format!(
                "{tool}: '{name}[{at}]' must be a string, received {}",
                type_name(other)
            ))),
        };
        ids.iter().enumerate().map(text).collect()
    }

    fn metadata<'a>(&self, args: &Args<'a>) -> Result<Option<&'a Map<String, Value>>, Failure> {
        match args.get("metadata") {
            None => Ok(None),
            Some(Value::Object(metadata)) => Ok(Some(metadata)),
            Some(_) => Err(Failure::new(format!(
                "{}: 'metadata' must be an object",
                self.name()
            ))),
        }
    }

    fn text_metadata(&self, args: &Args<'_>) -> Result<Map<String, Value>, Failure> {
        let metadata = self.metadata(args)?.cloned().unwrap_or_default();
        for (key, value) in &metadata {
            if !value.is_string() {
                return Err(Failure::new(format!(
                    "{}: metadata['{key}'] must be a string, received {}",
                    self.name(),
                    // There is one kind of number here.
                    type_name(value).replace("integer", "number")
                )));
            }
        }
        Ok(metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Scope;
    use crate::tools::trial::Trial;

    fn tools() -> [TaskTool; 4] {
        let store = TaskStore::default();
        [
            TaskAction::Create,
            TaskAction::Get,
            TaskAction::List,
            TaskAction::Update,
        ]
        .map(|action| TaskTool::new(action, store.clone()))
    }

    async fn json_of(trial: &Trial, tool: &TaskTool, args: Value) -> Value {
        let mut value: Value = serde_json::from_str(&trial.ok(tool, args).await).unwrap();
        if let Some(task) = value.as_object_mut() {
            for time in ["createdAt", "updatedAt"] {
                if let Some(at) = task.remove(time) {
                    assert!(at.as_i64().unwrap() > 1_600_000_000_000);
                }
            }
        }
        value
    }

    #[tokio::test]
    async fn a_task_lives_from_creation_to_deletion() {
        let trial = Trial::new();
        let [create, get, list, update] = tools();
        let raw = trial
            .ok(&create, json!({"subject": "s", "description": "d", "activeForm": "a", "metadata": {"k": "v"}}))
            .await;
        let keys: Vec<String> = serde_json::from_str::<Map<String, Value>>(&raw)
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(
            keys,
            [
                "taskId",
                "subject",
                "description",
                "activeForm",
                "status",
                "blocks",
                "blockedBy",
                "metadata",
                "createdAt",
                "updatedAt"
            ]
        );
        trial
            .ok(&create, json!({"subject": "s2", "description": "d2"}))
            .await;
        let updated = json_of(
            &trial,
            &update,
            json!({
                "taskId": "task_1", "status": "in_progress", "subject": "S", "owner": "me",
                "addBlocks": ["task_2", "task_2"], "addBlockedBy": ["x"], "metadata": {"k": null, "n": 1},
            }),
        )
        .await;
        let expected = json!({
            "taskId": "task_1", "subject": "S", "description": "d", "activeForm": "a",
            "status": "in_progress", "blocks": ["task_2"], "blockedBy": ["x"],
            "metadata": {"n": 1}, "owner": "me",
        });
        assert_eq!(updated, expected);
        assert_eq!(
            json_of(&trial, &get, json!({"taskId": "task_1"})).await,
            expected
        );
        let ids = |list: &Value| -> Vec<String> {
            let tasks = list["tasks"].as_array().unwrap();
            tasks
                .iter()
                .map(|task| task["taskId"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(
            ids(&json_of(&trial, &list, json!({})).await),
            ["task_1", "task_2"]
        );
        let gone = json_of(
            &trial,
            &update,
            json!({"taskId": "task_1", "status": "deleted"}),
        )
        .await;
        assert_eq!(gone["status"], "deleted");
        assert_eq!(ids(&json_of(&trial, &list, json!({})).await), ["task_2"]);
    }

    #[tokio::test]
    async fn conversations_do_not_see_each_other() {
        let mut trial = Trial::new();
        let [create, get, list, _] = tools();
        trial
            .ok(&create, json!({"subject": "s", "description": "d"}))
            .await;
        trial.context.scope = Scope::new(Some("agent-1"), Some("conv-2"));
        assert_eq!(trial.ok(&list, json!({})).await, r#"{"tasks":[]}"#);
        assert_eq!(
            trial.err(&get, json!({"taskId": "task_1"})).await,
            "TaskGet: task not found: task_1"
        );
    }

    #[tokio::test]
    async fn bad_arguments_change_nothing() {
        let trial = Trial::new();
        let [create, get, list, update] = tools();
        trial
            .ok(&create, json!({"subject": "s", "description": "d"}))
            .await;
        let before = trial.ok(&list, json!({})).await;
        for (tool, args, expected) in [
            (
                &create,
                json!({"subject": "", "description": "d"}),
                "TaskCreate: 'subject' must be a non-empty string",
            ),
            (
                &create,
                json!({"subject": "s", "description": ""}),
                "TaskCreate: 'description' must be a non-empty string",
            ),
            (
                &create,
                json!({"subject": "s", "description": "d", "activeForm": 1}),
                "TaskCreate: Parameter 'activeForm' must be a string, received integer",
            ),
            (
                &create,
                json!({"subject": "s", "description": "d", "metadata": []}),
                "TaskCreate: 'metadata' must be an object",
            ),
            (
                &create,
                json!({"subject": "s", "description": "d", "metadata": {"k": 1}}),
                "TaskCreate: metadata['k'] must be a string, received number",
            ),
            (
                &update,
                json!({"taskId": "task_1", "status": "done"}),
                "TaskUpdate: 'status' must be one of pending, in_progress, completed, deleted; received done",
            ),
            (
                &update,
                json!({"taskId": "task_1", "addBlocks": "x"}),
                "TaskUpdate: 'addBlocks' must be an array of strings",
            ),
            (
                &update,
                json!({"taskId": "task_1", "addBlockedBy": ["x", 2]}),
                "TaskUpdate: 'addBlockedBy[1]' must be a string, received integer",
            ),
            (
                &update,
                json!({"taskId": "task_9"}),
                "TaskUpdate: Task not found: task_9",
            ),
            (
                &get,
                json!({"taskId": ""}),
                "TaskGet: 'taskId' must be a non-empty string",
            ),
        ] {
            assert_eq!(trial.err(tool, args).await, expected);
        }
        assert_eq!(trial.ok(&list, json!({})).await, before);
        for tool in [&create, &get, &list, &update] {
            trial.survives_bad_arguments(tool).await;
        }
    }
}
