//! The `letta` program: see the library for everything it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    letta::cli::main(std::env::args_os().skip(1).collect())
}
