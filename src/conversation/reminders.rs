//! Which reminders are due with the next user message (spec 03 §15).
//!
//! Invariant: this state says only *what* is due; the turn writes the texts
//! with the facts it has fetched. It survives the eviction of an idle
//! conversation and is lost with the process, so the first turn after a
//! restart repeats what the model may have lost.

use crate::protocol::PermissionMode;
use crate::skills::Told;

/// Words about the memory that wait at most.
const MEMORY_TEXTS: usize = 25;

/// Why the session context is told (again).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionReason {
    /// First turn of the conversation in this process.
    Connected,
    /// The working directory changed.
    DirectoryChanged,
    /// The history was compacted.
    Compacted,
}

/// What is due now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Time, machine, directory, git.
    pub(crate) session: Option<SessionReason>,
    /// Agent and conversation.
    pub(crate) agent: bool,
    /// Names of secrets: `Some(known)` when they must be told if they differ
    /// from `known`, or in any case when `known` is `None`.
    pub(crate) secrets: SecretsDue,
    /// The permission mode.
    pub(crate) mode: Option<ModeNotice>,
    /// What is wrong with the memory repository.
    pub(crate) memory: Vec<String>,
    /// The skills told before; what differs must be told.
    pub(crate) skills: Option<Told>,
}

/// How the names of secrets are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum SecretsDue {
    /// Told before; again when the set differs.
    Known(Vec<String>),
    /// Never told: only if there are any.
    #[default]
    Never,
}

/// A permission mode that the model must hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModeNotice {
    /// The mode now.
    pub(crate) mode: PermissionMode,
    /// The mode told before, if any.
    pub(crate) before: Option<PermissionMode>,
}

/// What the model of one conversation has been told.
#[derive(Clone, Debug)]
pub(crate) struct Reminders {
    session: Option<SessionReason>,
    agent: bool,
    secrets: SecretsDue,
    mode: Option<PermissionMode>,
    memory: Vec<String>,
    skills: Option<Told>,
}

impl Default for Reminders {
    fn default() -> Self {
        Self {
            session: Some(SessionReason::Connected),
            agent: true,
            secrets: SecretsDue::Never,
            mode: None,
            memory: Vec::new(),
            skills: None,
        }
    }
}

impl Reminders {
    /// Takes what is due; it counts as told from now on.
    pub(crate) fn take(&mut self, mode: PermissionMode) -> Due {
        let before = self.mode.replace(mode);
        let notice = match before {
            None => mode != PermissionMode::Unrestricted,
            Some(before) => before != mode,
        };
        Due {
            session: self.session.take(),
            agent: std::mem::take(&mut self.agent),
            secrets: self.secrets.clone(),
            mode: notice.then_some(ModeNotice { mode, before }),
            memory: std::mem::take(&mut self.memory),
            skills: self.skills.clone(),
        }
    }

    /// The working directory changed, or a wish for it was refused (03 §15.3).
    pub(crate) fn directory_changed(&mut self) {
        self.session = Some(self.session.unwrap_or(SessionReason::DirectoryChanged));
    }

    /// The history was compacted: everything must be told again (03 §15.4).
    pub(crate) fn compacted(&mut self) {
        self.session = Some(self.session.unwrap_or(SessionReason::Compacted));
        self.agent = true;
        self.secrets = SecretsDue::Never;
        self.mode = None;
    }

    /// Something is wrong with the memory repository (07 §4.6).
    pub(crate) fn memory(&mut self, text: String) {
        if !self.memory.contains(&text) && self.memory.len() < MEMORY_TEXTS {
            self.memory.push(text);
        }
    }

    /// The model has heard of this mode from a tool's result.
    pub(crate) fn mode_told(&mut self, mode: PermissionMode) {
        self.mode = Some(mode);
    }

    /// The server took a request with these skills.
    pub(crate) fn skills_told(&mut self, skills: Told) {
        self.skills = Some(skills);
    }

    /// These names of secrets were told.
    pub(crate) fn secrets_told(&mut self, names: Vec<String>) {
        self.secrets = SecretsDue::Known(names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_turn_tells_everything_once() {
        let mut reminders = Reminders::default();
        let first = reminders.take(PermissionMode::Unrestricted);
        assert_eq!(first.session, Some(SessionReason::Connected));
        assert!(first.agent);
        assert_eq!(
            first.mode, None,
            "unrestricted is no news on the first turn"
        );
        let second = reminders.take(PermissionMode::Unrestricted);
        assert_eq!(
            (second.session, second.agent, second.mode),
            (None, false, None)
        );
    }

    #[test]
    fn a_change_of_mode_is_told_with_the_mode_before() {
        let mut reminders = Reminders::default();
        assert!(reminders.take(PermissionMode::Standard).mode.is_some());
        let notice = reminders.take(PermissionMode::Plan).mode.unwrap();
        assert_eq!(
            (notice.mode, notice.before),
            (PermissionMode::Plan, Some(PermissionMode::Standard))
        );
        assert!(reminders.take(PermissionMode::Plan).mode.is_none());
        reminders.mode_told(PermissionMode::Standard);
        assert!(
            reminders.take(PermissionMode::Standard).mode.is_none(),
            "a tool told it"
        );
    }

    #[test]
    fn a_new_directory_and_a_compaction_arm_the_session_context_again() {
        let mut reminders = Reminders::default();
        reminders.take(PermissionMode::Unrestricted);
        reminders.directory_changed();
        reminders.compacted();
        let due = reminders.take(PermissionMode::Unrestricted);
        assert_eq!(
            due.session,
            Some(SessionReason::DirectoryChanged),
            "the earlier reason stays"
        );
        assert!(due.agent);
    }
}
