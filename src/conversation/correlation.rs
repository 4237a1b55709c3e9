//! Which client messages each recent run consumed (spec 02 §6.2, 03 §6.7).
//! Clients match what they sent to a run by this map.

use std::collections::VecDeque;

use serde_json::value::{RawValue, to_raw_value};

use crate::protocol::command::ClientMessagesByRun;

/// How many runs one conversation remembers.
pub(crate) const RUNS: usize = 32;

/// The newest runs and their client messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Correlation {
    order: VecDeque<String>,
    by_run: ClientMessagesByRun,
    /// `by_run` as sent; every status of a turn holds it.
    text: Option<Box<RawValue>>,
}

impl Correlation {
    /// Notes that `run` consumed `ids`. Runs of inputs without ids are not listed.
    pub(crate) fn note(&mut self, run: &str, ids: &[String]) {
        if ids.is_empty() {
            return;
        }
        if self.by_run.insert(run.to_owned(), ids.to_vec()).is_none() {
            self.order.push_back(run.to_owned());
        }
        while self.order.len() > RUNS {
            if let Some(oldest) = self.order.pop_front() {
                self.by_run.remove(&oldest);
            }
        }
        self.text = to_raw_value(&self.by_run).ok();
    }

    /// The map as sent; `None` when it is empty.
    pub(crate) fn text(&self) -> Option<&RawValue> {
        self.text.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_32_runs_are_kept() {
        let mut correlation = Correlation::default();
        correlation.note("run-none", &[]);
        assert!(correlation.text().is_none());
        for n in 0..40 {
            correlation.note(&format!("run-{n}"), &[format!("cm-{n}")]);
        }
        correlation.note("run-39", &["cm-39".into(), "cm-40".into()]);
        let text = correlation.text().unwrap().get();
        let sent: ClientMessagesByRun = serde_json::from_str(text).unwrap();
        assert_eq!(sent.len(), RUNS);
        assert!(!sent.contains_key("run-7"));
        assert_eq!(sent["run-39"], ["cm-39", "cm-40"]);
    }
}
