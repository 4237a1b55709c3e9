//! The signals of `letta server` (00 §5), caught before anybody is told that it runs.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::start;

/// What the outside tells this process to do, caught from the start on.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    pub(super) fn catch() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT; SIGHUP reads settings again, or stops when a
    /// person's terminal went away (00 §5). Gives its name.
    pub(super) async fn stop_wanted(&mut self, reload: &(dyn Fn() + Sync)) -> &'static str {
        loop {
            tokio::select! {
                _ = self.term.recv() => return "SIGTERM",
                _ = self.int.recv() => return "SIGINT",
                _ = self.hup.recv() => {
                    if start::is_terminal() {
                        return "SIGHUP";
                    }
                    reload();
                }
            }
        }
    }
}
