//! Where each task stands in one content of the file.
//!
//! Invariant: a place is the whole text of one task, and places come in the order
//! of the file.

use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::document::VERSION;
use crate::cron::task::{Status, Task};

/// What stands between two tasks.
pub(super) const BETWEEN: &str = ",\n    ";

/// One content of the file without its tasks, and where these are.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    /// Everything but the tasks, whose key keeps its place.
    pub(super) top: Map<String, Value>,
    pub(super) places: Vec<Place>,
}

/// Where a task stands. 40 bytes each, so that thousands can be kept; the ids lie in
/// them, for all of them are compared with those that fire.
#[derive(Clone, Debug)]
pub(in crate::cron) struct Place {
    pub(super) id: SmolStr,
    pub(super) start: u32,
    pub(super) length: u32,
    pub(super) over: bool,
    /// Nothing but [`BETWEEN`] parts it from the task before.
    pub(super) adjoins: bool,
}

impl Place {
    /// The id of the task.
    pub(in crate::cron) fn id(&self) -> &str {
        &self.id
    }

    /// Whether nothing will happen with the task any more.
    pub(in crate::cron) fn is_over(&self) -> bool {
        self.over
    }

    /// The bytes of the file.
    pub(super) fn range(&self) -> Range<u64> {
        let start = u64::from(self.start);
        start..start + u64::from(self.length)
    }
}

/// The file as one pass over it sees it.
#[derive(Default)]
struct Outline<'a> {
    top: Map<String, Value>,
    tasks: Option<&'a RawValue>,
}

/// What is needed of a task without reading all of it.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
}

impl Layout {
    /// Finds the tasks; `None` when the text is no store of this version.
    pub(super) fn scan(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        // Editors on Windows put a byte order mark in front.
        let body = text.strip_prefix('\u{feff}').unwrap_or(text);
        let outline: Outline<'_> = serde_json::from_str(body).ok()?;
        if outline.top.get("version").and_then(Value::as_f64) != Some(VERSION as f64) {
            return None;
        }
        // What is no array holds no tasks.
        let tasks = outline.tasks.map(RawValue::get);
        let tasks = tasks.and_then(|tasks| serde_json::from_str(tasks).ok());
        let tasks: Vec<&RawValue> = tasks.unwrap_or_default();
        let mut layout = Self {
            top: outline.top,
            places: Vec::with_capacity(tasks.len()),
        };
        let mut end = 0;
        for raw in tasks {
            let raw = raw.get();
            if !raw.starts_with('{') {
                continue;
            }
            let start = raw.as_ptr().addr() - text.as_ptr().addr();
            let (id, over) = head(raw);
            layout.places.push(Place {
                id,
                start: u32::try_from(start).ok()?,
                length: u32::try_from(raw.len()).ok()?,
                over,
                adjoins: text.get(end..start) == Some(BETWEEN),
            });
            end = start + raw.len();
        }
        Some(layout)
    }
}

/// Id of a task, and whether it is over.
fn head(raw: &str) -> (SmolStr, bool) {
    let text = |raw: Option<&RawValue>| -> String {
        raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default()
    };
    if let Ok(head) = serde_json::from_str::<Head<'_>>(raw) {
        let over = Status::read(&text(head.status)).is_terminal();
        return (text(head.id).into(), over);
    }
    // A field that stands twice; the last one counts.
    let task = read_task(raw.as_bytes());
    task.map_or_else(Default::default, |task| {
        (task.id().into(), task.status().is_terminal())
    })
}

/// A task of its text; `None` when it cannot be read.
pub(super) fn read_task(text: &[u8]) -> Option<Task> {
    Task::read(serde_json::from_slice(text).ok()?)
}

impl<'de: 'a, 'a> Deserialize<'de> for Outline<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Top;
        impl<'de> Visitor<'de> for Top {
            type Value = Outline<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut outline = Outline::default();
                while let Some(key) = map.next_key::<String>()? {
                    let value = if key == "tasks" {
                        outline.tasks = Some(map.next_value()?);
                        Value::Null
                    } else {
                        map.next_value()?
                    };
                    outline.top.insert(key, value);
                }
                Ok(outline)
            }
        }
        deserializer.deserialize_map(Top)
    }
}
