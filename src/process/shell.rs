//! Which shell runs a command text, and with which flags (04 §6.1).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// Shells that are tried after `$SHELL`, by absolute path.
#[cfg(not(target_os = "macos"))]
const KNOWN: [&str; 5] = [
    "/bin/bash",
    "/usr/bin/bash",
    "/bin/zsh",
    "/bin/sh",
    "/bin/ash",
];
#[cfg(target_os = "macos")]
const KNOWN: [&str; 5] = [
    "/bin/zsh",
    "/bin/bash",
    "/usr/bin/bash",
    "/bin/sh",
    "/bin/ash",
];

/// Shells that are looked up on `PATH` when none of the known paths exists.
const BY_NAME: [&str; 4] = ["bash", "zsh", "sh", "ash"];

/// Login shells that only say no: service accounts have them.
const REFUSING: [&str; 3] = ["nologin", "false", "true"];

/// The shells of this machine.
#[derive(Clone, Debug)]
pub struct Shells {
    preferred: Option<PathBuf>,
    strict: bool,
}

impl Shells {
    /// Reads `SHELL` and `LETTA_BASH_STRICT`.
    pub fn from_environment(vars: &BTreeMap<OsString, OsString>) -> Self {
        let preferred = vars
            .get(OsStr::new("SHELL"))
            .map(PathBuf::from)
            .filter(|shell| !REFUSING.iter().any(|name| shell.ends_with(name)));
        let strict = vars
            .get(OsStr::new("LETTA_BASH_STRICT"))
            .is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"));
        Self { preferred, strict }
    }

    /// The shell of a person's terminal (06 §5).
    pub fn interactive(&self) -> &Path {
        let known = KNOWN.iter().map(Path::new);
        self.preferred
            .as_deref()
            .into_iter()
            .chain(known)
            .find(|path| runs(path))
            .unwrap_or(Path::new("/bin/sh"))
    }

    /// The argument vector that runs `command`, trimmed, in the first shell
    /// that exists; `login` asks for a login shell where it is known to have one.
    pub fn command_line(&self, command: &str, login: bool) -> Vec<OsString> {
        let known = KNOWN.iter().map(Path::new);
        let shell = self
            .preferred
            .as_deref()
            .into_iter()
            .chain(known)
            .find(|path| runs(path));
        match shell {
            Some(shell) => self.in_shell(shell.as_os_str(), command, login),
            None => {
                let name = BY_NAME
                    .iter()
                    .find(|name| {
                        ["/bin", "/usr/bin", "/usr/local/bin"]
                            .iter()
                            .any(|dir| runs(&Path::new(dir).join(name)))
                    })
                    .unwrap_or(&"sh");
                let mut argv = vec![OsString::from("/usr/bin/env")];
                argv.extend(self.in_shell(OsStr::new(name), command, login));
                argv
            }
        }
    }

    /// The argument vector that runs `command` in `shell`.
    pub fn in_shell(&self, shell: &OsStr, command: &str, login: bool) -> Vec<OsString> {
        let name = shell.to_string_lossy();
        let login = login && (name.contains("bash") || name.contains("zsh"));
        let command = command.trim();
        let command = if self.strict {
            format!("set -euo pipefail\n{command}")
        } else {
            command.to_owned()
        };
        vec![
            shell.to_owned(),
            if login { "-lc" } else { "-c" }.into(),
            command.into(),
        ]
    }

    /// Other argument vectors for `argv` when its shell does not exist: the same
    /// arguments for each other shell of this machine. Empty when `argv[0]` is no shell.
    pub fn replacements(&self, argv: &[OsString]) -> Vec<Vec<OsString>> {
        let Some((program, arguments)) = argv.split_first() else {
            return Vec::new();
        };
        let Some(name) = Path::new(program).file_name() else {
            return Vec::new();
        };
        if !BY_NAME.iter().any(|known| name == *known) {
            return Vec::new();
        }
        let known = KNOWN.iter().map(Path::new);
        self.preferred
            .as_deref()
            .into_iter()
            .chain(known)
            .filter(|path| path.as_os_str() != program && runs(path))
            .map(|path| {
                std::iter::once(path.as_os_str().to_owned())
                    .chain(arguments.iter().cloned())
                    .collect()
            })
            .collect()
    }
}

fn runs(path: &Path) -> bool {
    rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shells(vars: &[(&str, &str)]) -> Shells {
        Shells::from_environment(
            &vars
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    #[test]
    fn the_users_shell_comes_first_if_it_exists_and_is_one() {
        let argv = shells(&[("SHELL", "/bin/sh")]).command_line(" echo hi ", false);
        assert_eq!(argv, ["/bin/sh", "-c", "echo hi"]);
        for useless in ["/nowhere/bash", "/usr/sbin/nologin", "/bin/false"] {
            let argv = shells(&[("SHELL", useless)]).command_line("x", false);
            assert!(KNOWN.iter().any(|known| argv[0] == *known), "{argv:?}");
        }
    }

    #[test]
    fn only_bash_and_zsh_are_started_as_login_shells() {
        let any = shells(&[]);
        assert_eq!(any.in_shell(OsStr::new("/bin/bash"), "x", true)[1], "-lc");
        assert_eq!(any.in_shell(OsStr::new("/bin/bash"), "x", false)[1], "-c");
        assert_eq!(any.in_shell(OsStr::new("/bin/sh"), "x", true)[1], "-c");
    }

    #[test]
    fn strict_mode_puts_a_line_before_the_command() {
        let argv =
            shells(&[("LETTA_BASH_STRICT", "true")]).in_shell(OsStr::new("/bin/bash"), "x", false);
        assert_eq!(argv[2], "set -euo pipefail\nx");
    }

    #[test]
    fn a_missing_shell_has_replacements_and_other_programs_have_none() {
        let any = shells(&[]);
        let argv: Vec<OsString> = ["/nowhere/bash", "-c", "x"].map(OsString::from).to_vec();
        let others = any.replacements(&argv);
        assert!(!others.is_empty() && others.iter().all(|other| other[1..] == argv[1..]));
        assert!(any.replacements(&["/nowhere/git".into()]).is_empty());
    }
}
