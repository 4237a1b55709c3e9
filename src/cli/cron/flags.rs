//! The flags of `letta cron`: the same for every action, unknown ones are errors.

use std::ffi::OsString;

use super::{Failure, Runner};

/// The command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// Action and reference.
    pub(super) words: Vec<String>,
    pub(super) help: bool,
    pub(super) json: bool,
    pub(super) once: bool,
    pub(super) all: bool,
    pub(super) runner: Option<Runner>,
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) prompt: Option<String>,
    pub(super) every: Option<String>,
    pub(super) at: Option<String>,
    pub(super) cron: Option<String>,
    pub(super) expires: Option<String>,
    pub(super) agent: Option<String>,
    pub(super) conversation: Option<String>,
    pub(super) computer: Option<String>,
    pub(super) id: Option<String>,
    pub(super) run_id: Option<String>,
    pub(super) limit: Option<String>,
}

impl Flags {
    /// Reads the arguments behind `cron`. A value that starts with `-` needs the
    /// form `--flag=value`.
    pub(super) fn parse(args: Vec<OsString>) -> Result<Self, Failure> {
        let mut flags = Self::default();
        let mut runner = None;
        let mut args = args.into_iter();
        let mut only_words = false;
        while let Some(arg) = args.next() {
            let arg = text(arg)?;
            if only_words || !arg.starts_with('-') || arg == "-" {
                flags.words.push(arg);
                continue;
            }
            let (name, mut given) = match arg.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (arg, None),
            };
            let mut cloud = false;
            let switch = match name.as_str() {
                "--" => Some(&mut only_words),
                "-h" | "--help" => Some(&mut flags.help),
                "--json" => Some(&mut flags.json),
                "--once" => Some(&mut flags.once),
                "--all" => Some(&mut flags.all),
                "--cloud" => Some(&mut cloud),
                _ => None,
            };
            if let Some(switch) = switch {
                if given.is_some() {
                    return Err(Failure::Unknown(format!("{name} takes no value.")));
                }
                *switch = true;
                if cloud {
                    runner = Some(String::from("cloud"));
                }
                continue;
            }
            let place = match name.as_str() {
                "--name" => &mut flags.name,
                "--description" => &mut flags.description,
                "--prompt" => &mut flags.prompt,
                "--every" => &mut flags.every,
                "--at" => &mut flags.at,
                "--cron" => &mut flags.cron,
                "--expires" => &mut flags.expires,
                "--agent" => &mut flags.agent,
                "--conversation" => &mut flags.conversation,
                "--computer" => &mut flags.computer,
                "--id" => &mut flags.id,
                "--run-id" => &mut flags.run_id,
                "--limit" => &mut flags.limit,
                "--runner" => &mut runner,
                _ => return Err(Failure::Unknown(format!("Unknown option '{name}'."))),
            };
            if given.is_none() {
                let next = args.next().map(text).transpose()?;
                given = next.filter(|value| !value.starts_with('-'));
            }
            let Some(value) = given else {
                return Err(Failure::Unknown(format!(
                    "{name} needs a value; write {name}=VALUE if it starts with '-'."
                )));
            };
            // An empty value is none, as for the published program.
            *place = Some(value).filter(|value| !value.is_empty());
        }
        flags.runner = match runner.as_deref() {
            None => None,
            Some("local") => Some(Runner::Local),
            Some("cloud") => Some(Runner::Cloud),
            Some(other) => {
                return Err(Failure::Usage(format!(
                    "invalid --runner \"{other}\". Expected \"local\" or \"cloud\"."
                )));
            }
        };
        Ok(flags)
    }
}

fn text(arg: OsString) -> Result<String, Failure> {
    arg.into_string()
        .map_err(|arg| Failure::Usage(format!("{} is not valid UTF-8.", arg.to_string_lossy())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Flags, Failure> {
        Flags::parse(args.iter().map(OsString::from).collect())
    }

    #[test]
    fn flags_come_in_any_order_and_both_forms() {
        let flags = parse(&[
            "--every",
            "5m",
            "add",
            "--prompt=-x",
            "--cloud",
            "--",
            "--name",
        ]);
        let flags = flags.expect("valid");
        assert_eq!(flags.words, ["add", "--name"]);
        assert_eq!(
            (flags.every.as_deref(), flags.prompt.as_deref()),
            (Some("5m"), Some("-x"))
        );
        assert_eq!(flags.runner, Some(Runner::Cloud));
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        for args in [
            &["--nmae", "x"][..],
            &["--name"],
            &["--name", "--prompt"],
            &["--all=1"],
            &["-x"],
        ] {
            assert!(matches!(parse(args), Err(Failure::Unknown(_))), "{args:?}");
        }
        assert!(matches!(
            parse(&["--runner", "moon"]),
            Err(Failure::Usage(_))
        ));
    }
}
