//! What stands between the operating system and the library: one file per
//! subcommand, and the few things a service must do for its supervisor.

pub mod healthcheck;
pub mod init;
pub mod notify;
