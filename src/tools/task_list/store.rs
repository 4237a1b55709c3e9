//! The tasks of all conversations, in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use crate::protocol::{RuntimeKey, Scope};

/// Tasks that one conversation may have.
pub(super) const MAX_TASKS: usize = 10_000;

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStatus {
    /// Not begun.
    Pending,
    /// Being worked on.
    InProgress,
    /// Done.
    Completed,
    /// Removed; only ever seen in the answer to its removal.
    Deleted,
}

impl TaskStatus {
    /// From its name on the wire.
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Pending,
            Self::InProgress,
            Self::Completed,
            Self::Deleted,
        ]
        .into_iter()
        .find(|status| status.as_str() == name)
    }

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Deleted => "deleted",
        }
    }
}

/// One task.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// `task_1`, `task_2`, … in the order of creation.
    pub id: String,
    /// What is to be done.
    pub subject: String,
    /// In detail.
    pub description: String,
    /// The form shown while it is being done.
    pub active_form: Option<String>,
    /// Where it stands.
    pub status: TaskStatus,
    /// Tasks that wait for it.
    pub blocks: Vec<String>,
    /// Tasks that it waits for.
    pub blocked_by: Vec<String>,
    /// Anything else.
    pub metadata: Map<String, Value>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// The same.
    pub updated_at: i64,
    /// Who works on it.
    pub owner: Option<String>,
}

impl Task {
    /// The record as the model sees it; absent fields are left out.
    pub fn to_json(&self) -> Value {
        let mut record = Map::new();
        let mut put = |name: &str, value: Value| {
            record.insert(name.to_owned(), value);
        };
        put("taskId", json!(self.id));
        put("subject", json!(self.subject));
        put("description", json!(self.description));
        if let Some(active_form) = &self.active_form {
            put("activeForm", json!(active_form));
        }
        put("status", json!(self.status.as_str()));
        put("blocks", json!(self.blocks));
        put("blockedBy", json!(self.blocked_by));
        put("metadata", json!(self.metadata));
        put("createdAt", json!(self.created_at));
        put("updatedAt", json!(self.updated_at));
        if let Some(owner) = &self.owner {
            put("owner", json!(owner));
        }
        Value::Object(record)
    }
}

/// A task to make.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// What is to be done.
    pub subject: String,
    /// In detail.
    pub description: String,
    /// The form shown while it is being done.
    pub active_form: Option<String>,
    /// Anything else.
    pub metadata: Map<String, Value>,
}

/// A change of a task; what is `None` or empty stays.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// A new status.
    pub status: Option<TaskStatus>,
    /// A new subject.
    pub subject: Option<String>,
    /// A new description.
    pub description: Option<String>,
    /// A new form.
    pub active_form: Option<String>,
    /// A new owner.
    pub owner: Option<String>,
    /// Tasks to add to those that wait for it.
    pub add_blocks: Vec<String>,
    /// Tasks to add to those that it waits for.
    pub add_blocked_by: Vec<String>,
    /// Keys to set, or with null to remove.
    pub metadata: Map<String, Value>,
}

/// The task lists of all conversations. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub struct TaskStore(Arc<Mutex<HashMap<RuntimeKey, List>>>);

#[derive(Debug, Default)]
struct List {
    made: u64,
    tasks: Vec<Task>,
}

impl TaskStore {
    /// Adds a task; `None` when the list is full.
    pub fn create(&self, scope: &Scope, draft: Draft, now: i64) -> Option<Task> {
        let mut lists = self.lock();
        let list = lists.entry(scope.runtime_key()).or_default();
        if list.tasks.len() >= MAX_TASKS {
            return None;
        }
        list.made += 1;
        let task = Task {
            id: format!("task_{}", list.made),
            subject: draft.subject,
            description: draft.description,
            active_form: draft.active_form,
            status: TaskStatus::Pending,
            blocks: Vec::new(),
            blocked_by: Vec::new(),
            metadata: draft.metadata,
            created_at: now,
            updated_at: now,
            owner: None,
        };
        list.tasks.push(task.clone());
        Some(task)
    }

    /// One task.
    pub fn get(&self, scope: &Scope, id: &str) -> Option<Task> {
        let lists = self.lock();
        let list = lists.get(&scope.runtime_key())?;
        list.tasks.iter().find(|task| task.id == id).cloned()
    }

    /// All tasks, in the order of creation.
    pub fn list(&self, scope: &Scope) -> Vec<Task> {
        let lists = self.lock();
        lists
            .get(&scope.runtime_key())
            .map(|list| list.tasks.clone())
            .unwrap_or_default()
    }

    /// Changes a task and returns it; one that becomes deleted is removed.
    pub fn update(&self, scope: &Scope, id: &str, update: Update, now: i64) -> Option<Task> {
        let mut lists = self.lock();
        let list = lists.get_mut(&scope.runtime_key())?;
        let at = list.tasks.iter().position(|task| task.id == id)?;
        let task = &mut list.tasks[at];
        if let Some(status) = update.status {
            task.status = status;
        }
        if let Some(subject) = update.subject {
            task.subject = subject;
        }
        if let Some(description) = update.description {
            task.description = description;
        }
        task.active_form = update.active_form.or(task.active_form.take());
        task.owner = update.owner.or(task.owner.take());
        add(&mut task.blocks, update.add_blocks);
        add(&mut task.blocked_by, update.add_blocked_by);
        for (key, value) in update.metadata {
            if value.is_null() {
                task.metadata.shift_remove(&key);
            } else {
                task.metadata.insert(key, value);
            }
        }
        task.updated_at = now;
        if task.status == TaskStatus::Deleted {
            return Some(list.tasks.remove(at));
        }
        Some(task.clone())
    }

    /// Drops the list of a conversation that is gone.
    pub fn forget(&self, scope: &Scope) {
        self.lock().remove(&scope.runtime_key());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RuntimeKey, List>> {
        // A list is whole between any two statements that change it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(ids: &mut Vec<String>, more: Vec<String>) {
    for id in more {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_not_given_twice_and_lists_are_bounded() {
        let store = TaskStore::default();
        let scope = Scope::new(Some("a"), Some("c"));
        let ids: Vec<String> = (0..3)
            .map(|_| store.create(&scope, Draft::default(), 0).unwrap().id)
            .collect();
        assert_eq!(ids, ["task_1", "task_2", "task_3"]);
        let deleted = Update {
            status: Some(TaskStatus::Deleted),
            ..Update::default()
        };
        assert!(store.update(&scope, "task_3", deleted, 1).is_some());
        assert_eq!(
            store.create(&scope, Draft::default(), 2).unwrap().id,
            "task_4"
        );
        for _ in store.list(&scope).len()..MAX_TASKS {
            assert!(store.create(&scope, Draft::default(), 3).is_some());
        }
        assert_eq!(store.create(&scope, Draft::default(), 4), None);
        store.forget(&scope);
        assert!(store.list(&scope).is_empty());
    }
}
