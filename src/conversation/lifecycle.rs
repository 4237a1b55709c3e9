//! The state of one conversation: idle, running a command, in a turn, or
//! cancelling one (spec 03 §7).
//!
//! Invariant: each turn holds one [`Lease`]. Only the current lease may change
//! the turn or finish it, and it finishes exactly once; whatever a stale owner
//! still says is refused here, in one place.

use crate::protocol::event::LoopStatus;

/// The right to speak for one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lease(u64);

/// What a conversation is doing.
#[derive(Debug, Default)]
enum Phase {
    #[default]
    Idle,
    Command,
    Active(Turn),
    Cancelling(Cancelling),
}

#[derive(Debug)]
struct Turn {
    lease: Lease,
    status: LoopStatus,
    run_id: Option<String>,
    executing: Vec<String>,
}

#[derive(Debug)]
struct Cancelling {
    lease: Lease,
    owner_finished: bool,
    external_pending: bool,
}

/// The lifecycle of one conversation.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    phase: Phase,
    leases: u64,
}

/// What a finished turn was before it finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    /// It was still active: the end frames are due.
    WasActive,
    /// An abort had come first: its frames were sent then.
    WasCancelling,
}

/// What an abort found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CancelledTurn {
    pub(crate) lease: Lease,
    pub(crate) run_id: Option<String>,
    pub(crate) executing: Vec<String>,
}

impl Lifecycle {
    /// Starts a turn. `None` while one is active or cancelling.
    pub(crate) fn begin(&mut self, status: LoopStatus) -> Option<Lease> {
        match self.phase {
            Phase::Active(_) | Phase::Cancelling(_) => None,
            Phase::Idle | Phase::Command => {
                self.leases += 1;
                let lease = Lease(self.leases);
                self.phase = Phase::Active(Turn {
                    lease,
                    status,
                    run_id: None,
                    executing: Vec::new(),
                });
                Some(lease)
            }
        }
    }

    /// Marks an idle conversation as running a command. `false` when it is not idle.
    pub(crate) fn start_command(&mut self) -> bool {
        let idle = matches!(self.phase, Phase::Idle);
        if idle {
            self.phase = Phase::Command;
        }
        idle
    }

    /// Ends the command.
    pub(crate) fn finish_command(&mut self) {
        if matches!(self.phase, Phase::Command) {
            self.phase = Phase::Idle;
        }
    }

    fn turn(&mut self, lease: Lease) -> Option<&mut Turn> {
        match &mut self.phase {
            Phase::Active(turn) if turn.lease == lease => Some(turn),
            _ => None,
        }
    }

    /// Whether `lease` may still speak.
    pub(crate) fn is_current(&self, lease: Lease) -> bool {
        matches!(&self.phase, Phase::Active(turn) if turn.lease == lease)
    }

    /// Sets the status; `true` when it changed.
    pub(crate) fn set_status(&mut self, lease: Lease, status: LoopStatus) -> bool {
        self.turn(lease).is_some_and(|turn| {
            let changed = turn.status != status;
            turn.status = status;
            changed
        })
    }

    /// Sets or clears the run; `true` when it changed.
    pub(crate) fn set_run(&mut self, lease: Lease, run_id: Option<String>) -> bool {
        self.turn(lease).is_some_and(|turn| {
            let changed = turn.run_id != run_id;
            turn.run_id = run_id;
            changed
        })
    }

    /// Sets the calls that run now.
    pub(crate) fn set_executing(&mut self, lease: Lease, ids: Vec<String>) {
        if let Some(turn) = self.turn(lease) {
            turn.executing = ids;
        }
    }

    /// Asks the turn to end. `external_pending`: a backend cancel will follow.
    pub(crate) fn cancel(&mut self, external_pending: bool) -> Option<CancelledTurn> {
        let Phase::Active(turn) = &mut self.phase else {
            return None;
        };
        let cancelled = CancelledTurn {
            lease: turn.lease,
            run_id: turn.run_id.take(),
            executing: std::mem::take(&mut turn.executing),
        };
        self.phase = Phase::Cancelling(Cancelling {
            lease: cancelled.lease,
            owner_finished: false,
            external_pending,
        });
        Some(cancelled)
    }

    /// The owner of `lease` is done. `None` for a stale or repeated finish.
    pub(crate) fn finish(&mut self, lease: Lease) -> Option<Finished> {
        match &mut self.phase {
            Phase::Active(turn) if turn.lease == lease => {
                self.phase = Phase::Idle;
                Some(Finished::WasActive)
            }
            Phase::Cancelling(state) if state.lease == lease && !state.owner_finished => {
                if state.external_pending {
                    state.owner_finished = true;
                } else {
                    self.phase = Phase::Idle;
                }
                Some(Finished::WasCancelling)
            }
            _ => None,
        }
    }

    /// The backend cancel of `lease` settled; `true` when that freed the conversation.
    pub(crate) fn settle(&mut self, lease: Lease) -> bool {
        match &mut self.phase {
            Phase::Cancelling(state) if state.lease == lease => {
                state.external_pending = false;
                let freed = state.owner_finished;
                if freed {
                    self.phase = Phase::Idle;
                }
                freed
            }
            _ => false,
        }
    }

    /// Nothing runs at all.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// A turn is active: `is_processing` on the wire.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Active(_))
    }

    /// A turn is being cancelled.
    pub(crate) fn is_cancelling(&self) -> bool {
        matches!(self.phase, Phase::Cancelling(_))
    }

    /// The name of the state, for errors.
    pub(crate) fn name(&self) -> &'static str {
        match self.phase {
            Phase::Idle => "idle",
            Phase::Command => "command",
            Phase::Active(_) => "active",
            Phase::Cancelling(_) => "cancelling",
        }
    }

    /// The status shown to clients: cancelling looks idle at once (02 §6.2).
    pub(crate) fn status(&self) -> LoopStatus {
        match &self.phase {
            Phase::Idle | Phase::Cancelling(_) => LoopStatus::WaitingOnInput,
            Phase::Command => LoopStatus::ExecutingCommand,
            Phase::Active(turn) => turn.status,
        }
    }

    /// The run of the active turn.
    pub(crate) fn run_id(&self) -> Option<&str> {
        match &self.phase {
            Phase::Active(turn) => turn.run_id.as_deref(),
            _ => None,
        }
    }

    /// The calls that run now; empty unless the status says that calls run (02 §6.2).
    pub(crate) fn executing(&self) -> &[String] {
        match &self.phase {
            Phase::Active(turn) if turn.status == LoopStatus::ExecutingClientSideTool => {
                &turn.executing
            }
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_finishes_once_and_a_stale_one_changes_nothing() {
        let mut life = Lifecycle::default();
        let old = life.begin(LoopStatus::SendingApiRequest).unwrap();
        assert_eq!(life.finish(old), Some(Finished::WasActive));
        assert_eq!(life.finish(old), None);
        let new = life.begin(LoopStatus::SendingApiRequest).unwrap();
        assert!(!life.set_status(old, LoopStatus::ProcessingApiResponse));
        assert!(!life.set_run(old, Some("run-1".into())));
        assert_eq!(life.status(), LoopStatus::SendingApiRequest);
        assert!(life.set_status(new, LoopStatus::ProcessingApiResponse));
        assert!(
            !life.set_status(new, LoopStatus::ProcessingApiResponse),
            "unchanged"
        );
    }

    #[test]
    fn nothing_begins_while_a_turn_is_active_or_cancelling() {
        let mut life = Lifecycle::default();
        let lease = life.begin(LoopStatus::SendingApiRequest).unwrap();
        assert!(life.begin(LoopStatus::SendingApiRequest).is_none());
        assert!(!life.start_command());
        life.cancel(true).unwrap();
        assert!(life.begin(LoopStatus::SendingApiRequest).is_none());
        assert_eq!(life.finish(lease), Some(Finished::WasCancelling));
        assert!(life.is_cancelling(), "the backend cancel is still pending");
        assert!(life.settle(lease));
        assert!(life.is_idle());
    }

    #[test]
    fn a_cancel_waits_for_owner_and_backend_in_either_order() {
        let mut life = Lifecycle::default();
        let lease = life.begin(LoopStatus::SendingApiRequest).unwrap();
        life.cancel(true).unwrap();
        assert!(life.cancel(true).is_none(), "already cancelling");
        assert!(!life.settle(lease), "the owner is still at work");
        assert_eq!(life.finish(lease), Some(Finished::WasCancelling));
        assert!(life.is_idle());
    }

    #[test]
    fn executing_calls_show_only_while_the_status_says_so() {
        let mut life = Lifecycle::default();
        let lease = life.begin(LoopStatus::SendingApiRequest).unwrap();
        life.set_executing(lease, vec!["call-1".into()]);
        assert!(life.executing().is_empty());
        life.set_status(lease, LoopStatus::ExecutingClientSideTool);
        assert_eq!(life.executing(), ["call-1"]);
        let cancelled = life.cancel(false).unwrap();
        assert_eq!(cancelled.executing, ["call-1"]);
        assert_eq!(life.status(), LoopStatus::WaitingOnInput);
    }
}
