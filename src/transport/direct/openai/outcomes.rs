//! What requests with an idempotency key told, so that a repetition tells the
//! same and runs nothing (spec 02 §13).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::turn::Note;

/// Outcomes that are kept.
const KEPT: usize = 1024;

/// Bytes of text that are kept in all.
const BYTES: usize = 4 * 1024 * 1024;

/// Outcomes by key; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Outcomes(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    known: HashMap<String, Known>,
    /// Keys with an outcome, the oldest first.
    order: VecDeque<String>,
    bytes: usize,
}

enum Known {
    Running,
    Told(Arc<Vec<Note>>),
}

/// What a key means.
pub(super) enum Begun {
    /// Nobody used it: run.
    First(Running),
    /// Its first request has not ended.
    Running,
    /// What its first request told.
    Known(Arc<Vec<Note>>),
}

/// A request that runs under a key; dropped without an outcome the key is free again.
pub(super) struct Running {
    outcomes: Outcomes,
    key: String,
}

impl Outcomes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, key: String) -> Begun {
        let mut state = self.state();
        match state.known.get(&key) {
            Some(Known::Running) => Begun::Running,
            Some(Known::Told(notes)) => Begun::Known(Arc::clone(notes)),
            None => {
                state.known.insert(key.clone(), Known::Running);
                let outcomes = self.clone();
                Begun::First(Running { outcomes, key })
            }
        }
    }
}

impl Running {
    /// Keeps what was told; `None` = it failed, and may be tried again.
    pub(super) fn ended(self, told: Option<Vec<Note>>) {
        let Some(notes) = told else { return };
        let mut state = self.outcomes.state();
        state.bytes += size(&notes);
        let told = Known::Told(Arc::new(notes));
        state.known.insert(self.key.clone(), told);
        state.order.push_back(self.key.clone());
        while state.order.len() > KEPT || state.bytes > BYTES {
            let Some(oldest) = state.order.pop_front() else {
                break;
            };
            if let Some(Known::Told(notes)) = state.known.remove(&oldest) {
                state.bytes -= size(&notes);
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.outcomes.state();
        if matches!(state.known.get(&self.key), Some(Known::Running)) {
            state.known.remove(&self.key);
        }
    }
}

fn size(notes: &[Note]) -> usize {
    notes.iter().map(Note::size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(outcomes: &Outcomes, key: &str) -> Running {
        match outcomes.begin(key.into()) {
            Begun::First(running) => running,
            _ => panic!("{key} is taken"),
        }
    }

    #[test]
    fn an_outcome_is_told_again_and_a_failure_is_not() {
        let outcomes = Outcomes::default();
        let running = first(&outcomes, "a");
        assert!(matches!(outcomes.begin("a".into()), Begun::Running));
        running.ended(None);
        let running = first(&outcomes, "a");
        running.ended(Some(vec![Note::Text("hello".into()), Note::Finished]));
        let Begun::Known(told) = outcomes.begin("a".into()) else {
            panic!("forgotten");
        };
        assert_eq!(*told, [Note::Text("hello".into()), Note::Finished]);
        drop(first(&outcomes, "b"));
        first(&outcomes, "b").ended(None);
    }

    #[test]
    fn outcomes_are_bounded_in_number_and_size() {
        let outcomes = Outcomes::default();
        for n in 0..=KEPT {
            let running = first(&outcomes, &n.to_string());
            running.ended(Some(vec![Note::Text("x".into())]));
        }
        drop(first(&outcomes, "0"));
        assert!(matches!(outcomes.begin("1".into()), Begun::Known(_)));
        let large = Note::Text("x".repeat(BYTES));
        first(&outcomes, "large").ended(Some(vec![large]));
        assert!(outcomes.state().bytes <= BYTES);
    }
}
