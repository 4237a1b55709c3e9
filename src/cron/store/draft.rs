//! The next content of the file: what changed as new text, everything else as
//! stretches of the old file.
//!
//! Invariant: for a file in the form that both programs write, the next content
//! is byte for byte what serialising every task anew would give. A file in another
//! form keeps its form for the tasks that were not changed.

use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Range;

use serde_json::{Value, json};

use super::carrier::Carrier;
use super::document::{Document, VERSION};
use super::layout::{BETWEEN, Layout, Place};
use crate::cron::task::Task;

/// The next content of the file.
#[derive(Debug)]
pub(super) struct Draft {
    pieces: Vec<Piece>,
    length: u64,
    pub(super) layout: Layout,
}

#[derive(Debug)]
enum Piece {
    /// A stretch of the old file.
    Kept(Range<u64>),
    New(Vec<u8>),
}

impl Draft {
    /// What `document` makes of a layout of which the tasks at `loaded` were read.
    pub(super) fn new(layout: Layout, loaded: &[usize], document: Document) -> io::Result<Self> {
        let Document { mut top, tasks, .. } = document;
        for (name, default) in [
            ("version", json!(VERSION)),
            ("scheduler_owner", Value::Null),
            ("scheduler_owners", json!({})),
        ] {
            top.entry(name).or_insert(default);
        }
        top.insert("tasks".into(), json!([]));
        let frame = serde_json::to_string_pretty(&top)?;
        top.insert("tasks".into(), Value::Null);
        // At this depth, and in no string, for strings hold no line ends.
        let (before, after) = frame
            .split_once("\n  \"tasks\": []")
            .ok_or_else(|| io::Error::other("the schedules cannot be written as JSON"))?;
        let mut draft = Self {
            pieces: Vec::new(),
            length: 0,
            layout: Layout {
                top,
                places: Vec::with_capacity(layout.places.len()),
            },
        };
        draft.write(before.as_bytes());
        draft.write(b"\n  \"tasks\": [");
        let (mut loaded, mut tasks) = (loaded.iter().peekable(), tasks.into_iter().peekable());
        let mut last = None;
        for (at, place) in layout.places.into_iter().enumerate() {
            last = if loaded.next_if(|loaded| **loaded == at).is_none() {
                Some(draft.keep(place, last))
            } else {
                // Read, and gone unless it comes next.
                if let Some(task) = tasks.next_if(|task| task.id() == place.id()) {
                    draft.add(&task)?;
                }
                None
            };
        }
        for task in tasks {
            draft.add(&task)?;
        }
        let end = if draft.layout.places.is_empty() {
            "]"
        } else {
            "\n  ]"
        };
        draft.write(end.as_bytes());
        draft.write(after.as_bytes());
        Ok(draft)
    }

    /// Bytes of the content.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    fn write(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        match self.pieces.last_mut() {
            Some(Piece::New(text)) => text.extend_from_slice(bytes),
            _ => self.pieces.push(Piece::New(bytes.to_vec())),
        }
    }

    fn separate(&mut self) {
        let separator = if self.layout.places.is_empty() {
            &BETWEEN[1..]
        } else {
            BETWEEN
        };
        self.write(separator.as_bytes());
    }

    /// A task that stays as it is; `last` is where the one before ends, if that
    /// stays as well. Gives where this one ends in the old file.
    fn keep(&mut self, mut place: Place, last: Option<u64>) -> u64 {
        let range = place.range();
        let joined = last.filter(|_| place.adjoins);
        match (joined, self.pieces.last_mut()) {
            (Some(end), Some(Piece::Kept(kept))) if kept.end == end => {
                kept.end = range.end;
                self.length += range.end - end;
            }
            _ => {
                self.separate();
                self.length += range.end - range.start;
                self.pieces.push(Piece::Kept(range.clone()));
            }
        }
        place.adjoins = !self.layout.places.is_empty();
        place.start = offset(self.length).saturating_sub(place.length);
        self.layout.places.push(place);
        range.end
    }

    fn add(&mut self, task: &Task) -> io::Result<()> {
        let text = serde_json::to_string_pretty(task.fields())?;
        let text = text.replace('\n', "\n    ");
        self.separate();
        self.layout.places.push(Place {
            id: task.id().into(),
            start: offset(self.length),
            length: offset(text.len() as u64),
            over: task.status().is_terminal(),
            adjoins: !self.layout.places.is_empty(),
        });
        self.write(text.as_bytes());
        Ok(())
    }

    /// Writes the content; `old` is the file of the layout it was made of.
    pub(super) fn write_to(&self, old: Option<&File>, new: &mut File) -> io::Result<()> {
        let mut carrier = Carrier::default();
        for piece in &self.pieces {
            match (piece, old) {
                (Piece::New(bytes), _) => new.write_all(bytes)?,
                (Piece::Kept(range), Some(old)) => carrier.append(old, range.clone(), new)?,
                // Nothing is kept of a file that is not there.
                (Piece::Kept(_), None) => return Err(io::ErrorKind::NotFound.into()),
            }
        }
        Ok(())
    }
}

/// The store refuses what is larger than a file it reads, long before 4 GiB.
fn offset(at: u64) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
