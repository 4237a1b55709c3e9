//! The command line of `letta server` (spec 01 §2.1, §2.2).
//!
//! The parser is strict: no positional arguments, no abbreviations, a value
//! that starts with `-` needs the `=` form, a later repetition wins. Parsing
//! touches nothing on disk, so a wrong flag leaves no trace; the caller exits
//! with [`USAGE_EXIT`].

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::direct::{self, DirectError, DirectFlags};
use crate::protocol::PermissionMode;

/// The exit code for a command line that cannot be understood (00 §5).
pub const USAGE_EXIT: u8 = 64;

/// One flag, as help texts and `docs/configuration.md` show it.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// With its dashes: `--env-name`.
    pub name: &'static str,
    /// The placeholder of its value, or `None` for a switch.
    pub value: Option<&'static str>,
    /// One sentence for the help text.
    pub meaning: &'static str,
}

/// Every flag of `letta server`.
pub const FLAGS: &[Flag] = &[
    Flag {
        name: "--env-name",
        value: Some("NAME"),
        meaning: "Name under which this machine appears in clients; saved for this directory.",
    },
    Flag {
        name: "--computer-name",
        value: Some("NAME"),
        meaning: "The same as --env-name, and wins over it.",
    },
    Flag {
        name: "--permission-mode",
        value: Some("MODE"),
        meaning: "Mode of conversations that have none of their own: standard, acceptEdits, plan, strict or unrestricted.",
    },
    Flag {
        name: "--skills",
        value: Some("DIR"),
        meaning: "Directory with the skills that this machine offers to agents.",
    },
    Flag {
        name: "--detach",
        value: None,
        meaning: "Start in the background and return once the server is up; letta stop ends it.",
    },
    Flag {
        name: "--debug",
        value: None,
        meaning: "Plain output with timestamps and every frame, for finding faults.",
    },
    Flag {
        name: "--backend",
        value: Some("KIND"),
        meaning: "cloud or api; accepted before and after the subcommand, without effect.",
    },
    Flag {
        name: "--listen",
        value: Some("[URL]"),
        meaning: "Serve clients directly at ws://HOST:PORT instead of through Letta Cloud; without a URL at a free port of this machine.",
    },
    Flag {
        name: "--register",
        value: None,
        meaning: "With --listen: register with Letta Cloud as well.",
    },
    Flag {
        name: "--ui",
        value: None,
        meaning: "With --listen: serve a chat page for browsers at /ui.",
    },
    Flag {
        name: "--openai-api",
        value: None,
        meaning: "With --listen: serve the OpenAI-compatible API at /v1.",
    },
    Flag {
        name: "--ws-auth",
        value: Some("MODE"),
        meaning: "With --listen: capability-token or signed-bearer-token; needed on every address but loopback.",
    },
    Flag {
        name: "--ws-token-file",
        value: Some("FILE"),
        meaning: "Absolute path of the file with the capability token.",
    },
    Flag {
        name: "--ws-token-sha256",
        value: Some("HEX"),
        meaning: "SHA-256 digest of the capability token, instead of the file.",
    },
    Flag {
        name: "--ws-shared-secret-file",
        value: Some("FILE"),
        meaning: "Absolute path of the file with the secret of signed tokens; 32 bytes or more.",
    },
    Flag {
        name: "--ws-issuer",
        value: Some("NAME"),
        meaning: "The iss claim that signed tokens must have.",
    },
    Flag {
        name: "--ws-audience",
        value: Some("NAME"),
        meaning: "The aud claim that signed tokens must have.",
    },
    Flag {
        name: "--ws-max-clock-skew-seconds",
        value: Some("N"),
        meaning: "How far the clocks of signed tokens may differ (30).",
    },
    Flag {
        name: "--help",
        value: None,
        meaning: "Show the help text and stop; -h does the same.",
    },
];

/// Flags of the published program for parts that this one does not have.
const DECLINED: &[&str] = &["--channels", "--install-channel-runtimes"];

/// What the command line of `letta server` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerCommand {
    /// `-h` or `--help` stood anywhere: help wins over every mistake.
    Help,
    /// Run with these flags.
    Run(ServerFlags),
}

/// The flags of `letta server` that were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFlags {
    /// `--computer-name`, else `--env-name`; never empty, not trimmed (01 §2.3).
    pub name: Option<String>,
    /// `--permission-mode`.
    pub permission_mode: Option<PermissionMode>,
    /// `--skills`.
    pub skills: Option<PathBuf>,
    /// `--detach`.
    pub detach: bool,
    /// `--debug`.
    pub debug: bool,
    /// `--listen` and what belongs to it.
    pub direct: Option<DirectFlags>,
    /// `--register`: with `--listen`, register with Letta Cloud as well.
    pub register: bool,
}

/// Why a command line was refused. The text goes to stderr behind `Error: `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// No such flag.
    #[error("Unknown option '{0}'")]
    Unknown(String),
    /// Something that is not a flag.
    #[error("Unexpected argument '{0}'. This command does not take positional arguments")]
    Positional(String),
    /// A flag at the end of the line, without its value.
    #[error("Option '{0} <value>' argument missing")]
    MissingValue(String),
    /// The next word starts with a dash, so it may be a flag.
    #[error(
        "Option '{flag}' is followed by '{next}', which looks like another option. Write {flag}={next} if that is its value"
    )]
    AmbiguousValue {
        /// The flag that wants a value.
        flag: String,
        /// The word after it.
        next: String,
    },
    /// `--debug=1`.
    #[error("Option '{0}' does not take an argument")]
    UnexpectedValue(String),
    /// A mode that does not exist.
    #[error(
        "Invalid permission mode: {0}. Valid modes: standard, acceptEdits, plan, strict, unrestricted"
    )]
    PermissionMode(String),
    /// A backend that does not exist here.
    #[error("Invalid value for --backend: {0}. Valid values: cloud, api")]
    Backend(String),
    /// A flag of the published program whose feature is left out.
    #[error("Option '{0}' is not supported: this program has no messaging channels")]
    Declined(String),
    /// A flag of the direct door.
    #[error(transparent)]
    Direct(#[from] DirectError),
    /// Bytes that are not UTF-8 where text is needed.
    #[error("The value of option '{0}' is not valid UTF-8")]
    NotText(String),
}

/// Takes the global `--backend` flag out of the arguments of the process,
/// program name excluded, wherever it stands.
///
/// # Errors
/// A missing value, or one other than `cloud` and `api`.
pub fn strip_backend(
    args: impl IntoIterator<Item = OsString>,
) -> Result<Vec<OsString>, UsageError> {
    let mut kept = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let value = if arg == "--backend" {
            args.next()
                .ok_or_else(|| UsageError::MissingValue("--backend".into()))?
        } else if let Some(value) = arg.as_bytes().strip_prefix(b"--backend=") {
            OsString::from_vec(value.to_vec())
        } else {
            kept.push(arg);
            continue;
        };
        if value != "cloud" && value != "api" {
            return Err(UsageError::Backend(value.to_string_lossy().into_owned()));
        }
    }
    Ok(kept)
}

/// Reads what stands behind `letta server` (or its other name `letta remote`).
///
/// # Errors
/// The first mistake on the line.
pub fn parse_server(args: impl IntoIterator<Item = OsString>) -> Result<ServerCommand, UsageError> {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.iter().any(|arg| arg == "-h" || arg == "--help") {
        return Ok(ServerCommand::Help);
    }
    let mut computer_name = None;
    let mut env_name = None;
    let mut flags = ServerFlags::default();
    let mut direct = direct::Given::default();
    let args = strip_backend(args)?;
    let listens = args.iter().any(|arg| split_inline(arg).0 == b"--listen");
    for (flag, value) in words(args, listens)? {
        match flag {
            "--computer-name" => computer_name = Some(text(flag, value)?),
            "--env-name" => env_name = Some(text(flag, value)?),
            "--permission-mode" => {
                let name = text(flag, value)?;
                let mode = PermissionMode::parse(&name);
                flags.permission_mode = Some(mode.ok_or(UsageError::PermissionMode(name))?);
            }
            "--skills" => {
                flags.skills = Some(PathBuf::from(value)).filter(|dir| !dir.as_os_str().is_empty())
            }
            "--detach" => flags.detach = true,
            "--listen" => {
                let url = text(flag, value)?;
                let url = Some(url).filter(|url| !url.is_empty());
                if direct.listen.replace(url).is_some() {
                    return Err(DirectError::ListenTwice.into());
                }
            }
            "--register" => flags.register = true,
            "--ui" => direct.ui = true,
            "--openai-api" => direct.openai_api = true,
            "--ws-auth" => direct.mode = Some(text(flag, value)?),
            "--ws-token-file" => direct.token_file = Some(value.into()),
            "--ws-token-sha256" => direct.token_sha256 = Some(text(flag, value)?),
            "--ws-shared-secret-file" => direct.secret_file = Some(value.into()),
            "--ws-issuer" => direct.issuer = Some(text(flag, value)?),
            "--ws-audience" => direct.audience = Some(text(flag, value)?),
            "--ws-max-clock-skew-seconds" => direct.max_skew = Some(text(flag, value)?),
            _ => flags.debug = true,
        }
    }
    if listens && !flags.register {
        for (name, given) in [
            ("--computer-name", computer_name.is_some()),
            ("--env-name", env_name.is_some()),
        ] {
            if given {
                return Err(DirectError::Conflict(name).into());
            }
        }
    }
    flags.direct = direct.check()?;
    if flags.register && !listens {
        return Err(DirectError::NeedsListen("--register").into());
    }
    let given = |name: Option<String>| name.filter(|name| !name.is_empty());
    flags.name = given(computer_name).or_else(|| given(env_name));
    Ok(ServerCommand::Run(flags))
}

/// Pairs each flag of the line with its value; a switch gets an empty one.
/// `listens`: `--listen` is on the line, which other flags do not go with.
fn words(args: Vec<OsString>, listens: bool) -> Result<Vec<(&'static str, OsString)>, UsageError> {
    let mut pairs = Vec::new();
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        let shown = arg.to_string_lossy().into_owned();
        if arg == "--" {
            return match args.next() {
                Some(rest) => Err(UsageError::Positional(rest.to_string_lossy().into_owned())),
                None => Ok(pairs),
            };
        }
        if !looks_like_a_flag(&arg) {
            return Err(UsageError::Positional(shown));
        }
        let (name, inline) = split_inline(&arg);
        let name = String::from_utf8_lossy(name).into_owned();
        if DECLINED.contains(&name.as_str()) {
            return Err(match name.as_str() {
                "--channels" if listens => DirectError::Conflict("--channels").into(),
                _ => UsageError::Declined(name),
            });
        }
        let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) else {
            return Err(UsageError::Unknown(name));
        };
        let value = match (flag.value, inline) {
            (Some("[URL]"), Some(b"")) => return Err(DirectError::ListenEmpty.into()),
            // Its value may be left out.
            (Some("[URL]"), None) => args
                .next_if(|next| !looks_like_a_flag(next))
                .unwrap_or_default(),
            (None, Some(_)) => return Err(UsageError::UnexpectedValue(name)),
            (None, None) => OsString::new(),
            (Some(_), Some(value)) => OsString::from_vec(value.to_vec()),
            (Some(_), None) => match args.next() {
                None => return Err(UsageError::MissingValue(name)),
                Some(next) if looks_like_a_flag(&next) => {
                    let next = next.to_string_lossy().into_owned();
                    return Err(UsageError::AmbiguousValue { flag: name, next });
                }
                Some(next) => next,
            },
        };
        pairs.push((flag.name, value));
    }
    Ok(pairs)
}

/// A lone `-` is a value, as everywhere.
fn looks_like_a_flag(arg: &OsStr) -> bool {
    arg.len() > 1 && arg.as_bytes().starts_with(b"-")
}

fn split_inline(arg: &OsStr) -> (&[u8], Option<&[u8]>) {
    let bytes = arg.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}

fn text(flag: &str, value: OsString) -> Result<String, UsageError> {
    value
        .into_string()
        .map_err(|_| UsageError::NotText(flag.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<ServerCommand, UsageError> {
        parse_server(line.iter().map(OsString::from))
    }

    fn run(line: &[&str]) -> ServerFlags {
        match parse(line) {
            Ok(ServerCommand::Run(flags)) => flags,
            other => panic!("{line:?} gave {other:?}"),
        }
    }

    #[test]
    fn both_spellings_of_the_name_work_and_computer_name_wins() {
        assert_eq!(run(&["--env-name", "a"]).name.as_deref(), Some("a"));
        assert_eq!(run(&["--computer-name= b "]).name.as_deref(), Some(" b "));
        let both = ["--computer-name", "a", "--env-name", "b"];
        assert_eq!(run(&both).name.as_deref(), Some("a"));
    }

    #[test]
    fn an_empty_name_counts_as_not_given() {
        assert_eq!(run(&["--env-name="]).name, None);
        let fallback = ["--computer-name=", "--env-name=b"];
        assert_eq!(run(&fallback).name.as_deref(), Some("b"));
    }

    #[test]
    fn a_later_repetition_wins() {
        assert_eq!(
            run(&["--env-name=a", "--env-name", "b"]).name.as_deref(),
            Some("b")
        );
    }

    #[test]
    fn every_flag_is_read() {
        let line = [
            "--debug",
            "--detach",
            "--skills",
            "/s",
            "--permission-mode",
            "yolo",
            "--backend",
            "cloud",
        ];
        let flags = run(&line);
        assert!(flags.debug && flags.detach);
        assert_eq!(flags.skills, Some(PathBuf::from("/s")));
        assert_eq!(flags.permission_mode, Some(PermissionMode::Unrestricted));
    }

    #[test]
    fn a_value_may_start_with_a_dash_only_after_an_equals_sign() {
        assert_eq!(run(&["--env-name=-x"]).name.as_deref(), Some("-x"));
        assert_eq!(run(&["--env-name", "-"]).name.as_deref(), Some("-"));
        assert!(matches!(
            parse(&["--env-name", "--debug"]),
            Err(UsageError::AmbiguousValue { .. })
        ));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, message) in [
            (&["--bogus"][..], "Unknown option '--bogus'"),
            (&["--bogus=1"], "Unknown option '--bogus'"),
            (&["--no-debug"], "Unknown option '--no-debug'"),
            (&["-x"], "Unknown option '-x'"),
            (
                &["foo"],
                "Unexpected argument 'foo'. This command does not take positional arguments",
            ),
            (
                &["--", "foo"],
                "Unexpected argument 'foo'. This command does not take positional arguments",
            ),
            (
                &["--env-name"],
                "Option '--env-name <value>' argument missing",
            ),
            (&["--debug=1"], "Option '--debug' does not take an argument"),
            (
                &["--permission-mode", "Plan"],
                "Invalid permission mode: Plan. Valid modes: standard, acceptEdits, plan, strict, unrestricted",
            ),
            (
                &["--backend=local"],
                "Invalid value for --backend: local. Valid values: cloud, api",
            ),
            (
                &["--backend"],
                "Option '--backend <value>' argument missing",
            ),
            (
                &["--channels", "slack"],
                "Option '--channels' is not supported: this program has no messaging channels",
            ),
        ] {
            let error = parse(line).expect_err(message);
            assert_eq!(error.to_string(), message, "{line:?}");
        }
    }

    #[test]
    fn help_anywhere_wins_over_mistakes() {
        assert_eq!(parse(&["--bogus", "-h"]), Ok(ServerCommand::Help));
        assert_eq!(parse(&["--env-name", "--help"]), Ok(ServerCommand::Help));
    }

    #[test]
    fn backend_is_taken_out_wherever_it_stands() {
        let line = ["--backend", "api", "server", "--backend=cloud", "--debug"];
        let kept = strip_backend(line.map(OsString::from)).expect("valid");
        assert_eq!(kept, ["server", "--debug"]);
    }
}
