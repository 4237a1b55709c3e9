//! Runs the work of a call off the async runtime and turns whatever comes of
//! it into an outcome (04 §4.6, §8).
//!
//! Invariant: a call ends with a [`ToolOutcome`] even when its work fails,
//! panics or is cancelled; the runtime is never blocked.

use tokio::task::{self, JoinError};

use super::tool::{ToolCall, ToolOutcome};

/// What an aborted call returns (04 §4.3).
pub(crate) const INTERRUPTED: &str = "Interrupted by user";

/// Why a call failed, in words for the model.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    /// A failure with these words.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Every error of a tool's parts has words for the model.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// What the work of a call comes to.
pub(crate) type Worked = Result<ToolOutcome, Failure>;

/// The outcome of work that is already done.
pub(crate) fn settle(worked: Worked) -> ToolOutcome {
    worked.unwrap_or_else(|Failure(text)| ToolOutcome::error(text))
}

/// Runs work that only looks. An abort answers at once; the work itself is
/// finite and bounded, or watches `call.cancel`, and its thread ends with it.
pub(crate) async fn look(
    call: &ToolCall,
    work: impl FnOnce() -> Worked + Send + 'static,
) -> ToolOutcome {
    if call.cancel.is_cancelled() {
        return ToolOutcome::error(INTERRUPTED);
    }
    let running = task::spawn_blocking(work);
    tokio::select! {
        done = running => finished(call, done),
        () = call.cancel.cancelled() => ToolOutcome::error(INTERRUPTED),
    }
}

/// Runs work that changes something. It starts only if the call is not aborted
/// yet, and is then awaited: what happened is what is reported.
pub(crate) async fn change(
    call: &ToolCall,
    work: impl FnOnce() -> Worked + Send + 'static,
) -> ToolOutcome {
    if call.cancel.is_cancelled() {
        return ToolOutcome::error(INTERRUPTED);
    }
    finished(call, task::spawn_blocking(work).await)
}

fn finished(call: &ToolCall, done: Result<Worked, JoinError>) -> ToolOutcome {
    match done {
        Ok(worked) => settle(worked),
        // The work panicked, or the process is going down.
        Err(error) => {
            tracing::error!(tool = %call.name, %error, "the work of a tool call was lost");
            ToolOutcome::error(format!(
                "{} failed unexpectedly. Nothing is known of its effects; look before retrying.",
                call.name
            ))
        }
    }
}
