//! A binary under measurement, and how its figures are read.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use local_cloud::LocalCloud;

/// A running listener; it ends with the value.
pub(super) struct Listener(pub(super) Child);

impl Drop for Listener {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a listener with a home of its own.
pub(super) fn start(binary: &Path, cloud: &LocalCloud, home: &Path) -> Result<Listener> {
    std::fs::create_dir_all(home)?;
    // Certificates and settings of whoever measures would be measured too.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let child = Command::new(binary)
        .args(["server", "--env-name", "bench"])
        .current_dir(home)
        .env_clear()
        .env("PATH", path)
        .env("HOME", home)
        .env("LETTA_BASE_URL", cloud.base_url())
        .env("LETTA_API_KEY", "bench")
        .env("LETTA_HEALTH_ADDR", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("the binary cannot be started")?;
    Ok(Listener(child))
}

/// Median, least and most.
pub(super) fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    let (median, most) = (at(times.len() / 2), at(times.len().saturating_sub(1)));
    format!("{median:.1?} median, {:.1?} to {most:.1?}", at(0))
}

/// Proportional memory of a process, in KiB.
pub(super) fn pss(pid: u32) -> Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.context("no Pss")?.trim().parse().context("Pss")
}
