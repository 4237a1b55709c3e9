//! What the children of this process get: its environment without what is its
//! own, and a way to call it.

use super::start::Foundation;
use crate::cli::{detach, init};
use crate::process::environment::install_shim;
use crate::process::{BaseEnvironment, Processes};

/// Variables that say something about this process alone.
const OF_THIS_PROCESS: [&str; 5] = [
    init::MARKER,
    detach::MARKER,
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Everything that children of this process get.
pub(super) fn processes(foundation: &Foundation, device_id: &str) -> Processes {
    let binary = std::env::current_exe().unwrap_or_else(|_| "letta".into());
    let shim = foundation.home.letta.join("letta-code-shell-shim");
    let shim = match install_shim(&shim, &binary) {
        Ok(()) => Some(shim),
        Err(error) => {
            complain!("Warning: commands will not find `letta` on their PATH: {error}");
            None
        }
    };
    let hidden = foundation.config.hidden_from_children();
    let hidden = hidden.iter().chain(&OF_THIS_PROCESS);
    let mut variables: std::collections::BTreeMap<_, _> = std::env::vars_os()
        .filter(|(name, _)| !hidden.clone().any(|hidden| name == hidden))
        .collect();
    // Where a platform's volume takes the place of HOME, and where a service has none.
    variables.insert("HOME".into(), foundation.home.user.clone().into());
    Processes::new(BaseEnvironment::new(
        variables,
        &binary,
        shim.as_deref(),
        Some(device_id),
    ))
}
