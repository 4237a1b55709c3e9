//! What the end of a server waits for, and what is said of it.

use tokio::task::{JoinError, JoinHandle};

use crate::conversation::Services;
use crate::telemetry::session_log::SessionLog;
use crate::transport::relay::{ExitReason, RelayEnd};

/// Waits for the end of the relay; for ever when there is none.
pub(super) async fn ended(relay: &mut Option<JoinHandle<RelayEnd>>) -> Result<RelayEnd, JoinError> {
    match relay {
        Some(relay) => relay.await,
        None => std::future::pending().await,
    }
}

/// Waits until no turn runs.
pub(super) async fn quiet(services: &Services) {
    let mut total = services.load.total();
    // The sender lives in `services`.
    let _ = total.wait_for(|load| load.turns == 0).await;
}

/// Tells why the relay ended; the exit code.
pub(super) fn told(log: &SessionLog, exit: &ExitReason) -> u8 {
    if *exit != ExitReason::Stopped {
        log.line(format!("FATAL: {exit}"));
        complain!("Error: {exit}");
    }
    exit.code()
}
