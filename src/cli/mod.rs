//! What stands between the operating system and the library: one file per
//! subcommand, and the few things a service must do for its supervisor.

#[macro_use]
mod say;

mod cron;
mod detach;
mod doctor;
pub mod healthcheck;
mod help;
pub mod init;
mod login;
mod memory;
pub mod notify;
pub mod permissions;
mod server;
mod stop;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::config::{USAGE_EXIT, strip_backend};
use crate::telemetry::last_words;
use crate::telemetry::redact::Secrets;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the program; `args` without its name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    last_words::end_on_panic(None, Secrets::default());
    let marked = std::env::var_os(init::MARKER).is_some();
    if init::wanted(&args, marked) {
        match init::run(&args) {
            Ok(code) => return ExitCode::from(code),
            Err(error) => complain!("Warning: {error}; running without an init."),
        }
    }
    let args = match strip_backend(args.into_iter().filter(|arg| arg != init::INIT_FLAG)) {
        Ok(args) => args,
        Err(error) => return usage(&error.to_string(), help::TOP),
    };
    let mut words = args.into_iter();
    let command = words.next();
    let rest: Vec<OsString> = words.collect();
    match command.as_ref().and_then(|word| word.to_str()) {
        Some("server" | "remote") => server::main(rest),
        Some("cron") => cron::run(rest),
        Some("stop") => stop::run(&rest),
        Some("doctor") => doctor::main(&rest),
        Some("app-server") => {
            complain!("Warning: `letta app-server` is now `letta server --listen`.");
            server::main(listening(rest))
        }
        Some("login") => login::log_in(),
        Some("logout") => login::log_out(),
        Some("permissions") => permissions::run(pico_args::Arguments::from_vec(rest)),
        Some("memory-check") => memory::check(),
        Some("memory-credential") => memory::credential(&rest),
        Some("healthcheck") => check_health(&rest),
        Some("version" | "--version" | "-V") => {
            say!(
                "{} (letta {VERSION})",
                crate::protocol::reply::LETTA_CODE_VERSION
            );
            ExitCode::SUCCESS
        }
        Some("help" | "--help" | "-h") => {
            say_part!("{}", help::TOP);
            ExitCode::SUCCESS
        }
        None => usage("a command is missing", help::TOP),
        Some(other) => usage(&format!("Unknown command '{other}'"), help::TOP),
    }
}

/// The arguments of `letta app-server` as those of `letta server`.
fn listening(mut args: Vec<OsString>) -> Vec<OsString> {
    let is_listen = |arg: &OsString| arg.to_string_lossy().starts_with("--listen");
    if !args.iter().any(is_listen) {
        args.push("--listen".into());
    }
    args
}

/// Tells what was wrong with the command line and how it should look.
fn usage(error: &str, help: &str) -> ExitCode {
    complain!("Error: {error}");
    say_part!("{help}");
    ExitCode::from(USAGE_EXIT)
}

fn check_health(args: &[OsString]) -> ExitCode {
    let ready = match args {
        [] => false,
        [flag] if flag == "--ready" => true,
        [flag] if flag == "--help" || flag == "-h" => {
            say_part!("{}", help::HEALTHCHECK);
            return ExitCode::SUCCESS;
        }
        _ => return usage("healthcheck takes only --ready", help::HEALTHCHECK),
    };
    let text = |name: &str| std::env::var(name).ok();
    let verdict = healthcheck::run(
        ready,
        text("LETTA_HEALTH_ADDR").as_deref(),
        text("PORT").as_deref(),
    );
    say!("{}", verdict.line);
    ExitCode::from(verdict.exit_code)
}
