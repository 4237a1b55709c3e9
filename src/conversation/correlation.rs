//! Which client messages each recent run consumed (spec 02 §6.2, 03 §6.7).
//! Clients match what they sent to a run by this map.

use std::collections::VecDeque;

use crate::protocol::command::ClientMessagesByRun;

/// How many runs one conversation remembers.
pub(crate) const RUNS: usize = 32;

/// The newest runs and their client messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Correlation {
    order: VecDeque<String>,
    by_run: ClientMessagesByRun,
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
    }

    /// The map as sent.
    pub(crate) fn by_run(&self) -> &ClientMessagesByRun {
        &self.by_run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_32_runs_are_kept() {
        let mut correlation = Correlation::default();
        correlation.note("run-none", &[]);
        for n in 0..40 {
            correlation.note(&format!("run-{n}"), &[format!("cm-{n}")]);
        }
        correlation.note("run-39", &["cm-39".into(), "cm-40".into()]);
        assert_eq!(correlation.by_run().len(), RUNS);
        assert!(!correlation.by_run().contains_key("run-7"));
        assert_eq!(correlation.by_run()["run-39"], ["cm-39", "cm-40"]);
    }
}
