//! Permission modes: names, aliases and what is written to disk (00 §3).

use std::fmt;

/// How much a conversation's tools may do without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PermissionMode {
    /// Reads and read-only commands run, the rest asks.
    Standard,
    /// As `Standard`, and file edits run.
    AcceptEdits,
    /// Reads run, only the plan file may be written, the rest is denied.
    Plan,
    /// Everything asks.
    Strict,
    /// Everything runs but what a deny or always-ask rule names.
    Unrestricted,
}

impl PermissionMode {
    /// Every mode, in the order in which help texts and errors list them.
    pub const ALL: [Self; 5] = [
        Self::Standard,
        Self::AcceptEdits,
        Self::Plan,
        Self::Strict,
        Self::Unrestricted,
    ];

    /// Reads a name or an alias; `None` for anything else, other letter case included.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "standard" | "default" => Self::Standard,
            "acceptEdits" => Self::AcceptEdits,
            "plan" => Self::Plan,
            "strict" => Self::Strict,
            "unrestricted" | "bypassPermissions" | "fullAccess" | "yolo" => Self::Unrestricted,
            _ => return None,
        })
    }

    /// The main name, as reported on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::AcceptEdits => "acceptEdits",
            Self::Plan => "plan",
            Self::Strict => "strict",
            Self::Unrestricted => "unrestricted",
        }
    }
}

impl fmt::Display for PermissionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_reads_back_and_aliases_map_to_main_names() {
        for mode in PermissionMode::ALL {
            assert_eq!(PermissionMode::parse(mode.as_str()), Some(mode));
        }
        for (alias, mode) in [
            ("default", PermissionMode::Standard),
            ("bypassPermissions", PermissionMode::Unrestricted),
            ("fullAccess", PermissionMode::Unrestricted),
            ("yolo", PermissionMode::Unrestricted),
        ] {
            assert_eq!(PermissionMode::parse(alias), Some(mode));
        }
        for unknown in ["", "Standard", "memory", "PLAN"] {
            assert_eq!(PermissionMode::parse(unknown), None);
        }
    }
}
