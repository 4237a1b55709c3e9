//! One line a second at most about clients that were not let in, so that
//! whoever tries often does not fill the log.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The time between two lines.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Rejections(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    told: Option<Instant>,
    /// Rejections since then.
    silent: u64,
}

impl Rejections {
    /// Notes one; the line to write, if it is time for one.
    pub(super) fn note(&self, status: u16, reason: &str) -> Option<String> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.told.is_some_and(|told| now - told < EVERY) {
            state.silent += 1;
            return None;
        }
        state.told = Some(now);
        let before = std::mem::take(&mut state.silent);
        let others = match before {
            0 => String::new(),
            count => format!(" ({count} more since the last line)"),
        };
        Some(format!("Rejected a client: {status} {reason}{others}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_rejections_make_few_lines() {
        let rejections = Rejections::default();
        let note = || rejections.note(401, "missing");
        assert_eq!(note().unwrap(), "Rejected a client: 401 missing");
        assert_eq!((note(), note()), (None, None));
        tokio::time::advance(EVERY).await;
        assert_eq!(
            note().unwrap(),
            "Rejected a client: 401 missing (2 more since the last line)"
        );
    }
}
