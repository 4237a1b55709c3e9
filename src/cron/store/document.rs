//! What a change of the store works on.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::Stamp;
use crate::cron::task::Task;

/// The only version there is.
pub(super) const VERSION: u64 = 1;

/// The content of the file, or a part of its tasks.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// Everything but the tasks, whose key keeps its place.
    pub(in crate::cron) top: Map<String, Value>,
    /// The tasks that were asked for, in their order.
    pub tasks: Vec<Task>,
    /// Of the file that was read.
    pub(in crate::cron) stamp: Option<Stamp>,
}

impl Document {
    /// Where each task stands, for many questions.
    pub(in crate::cron) fn places(&self) -> HashMap<String, usize> {
        let tasks = self.tasks.iter().enumerate().rev();
        tasks.map(|(at, task)| (task.id().to_owned(), at)).collect()
    }

    /// The task of an id.
    pub(in crate::cron) fn task_mut(&mut self, id: &str) -> Option<&mut Task> {
        self.tasks.iter_mut().find(|task| task.id() == id)
    }
}
