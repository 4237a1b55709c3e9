//! Working directories: `get_cwd_map`, `set_boot_working_directory` (02 §5.12).

use serde_json::json;

use super::call::{Answer, Call, Failure};
use crate::events::{Done, Injected, Recipient};

/// All directories that conversations remember.
pub(super) async fn get_cwd_map(call: Call) -> Answer {
    let remote = &call.services().remote;
    remote.prune_cwds().await;
    Ok(json!({
        "cwd_map": remote.cwd_map(), "boot_working_directory": remote.boot_cwd(),
    }))
}

/// Changes where conversations without a directory of their own work.
pub(super) async fn set_boot(mut call: Call) -> Answer {
    let remote = call.services().remote.clone();
    let refused = |error: String| {
        Failure::new(error)
            .with(
                "boot_working_directory",
                remote.boot_cwd().to_string_lossy(),
            )
            .with("cwd_revision", remote.cwd_revision())
    };
    let asked = call.fields.non_empty("request_id");
    let cwd = asked.and_then(|_| call.fields.string("cwd"));
    let cwd = cwd.map_err(|error| refused(error.to_string()))?;
    let change = remote.set_boot_cwd(&cwd).await;
    if change.map_err(|error| refused(error.to_string()))?.changed {
        // Who asked hears of it after the people have.
        let (done, mut shown) = Done::channel();
        call.inject(Recipient::Live, Injected::BootDirectoryChanged(done));
        shown.recv().await;
    }
    Ok(json!({
        "boot_working_directory": remote.boot_cwd(), "cwd_revision": remote.cwd_revision(),
    }))
}
