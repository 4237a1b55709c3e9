//! Whether the process that a lock record names can still be its writer.
//!
//! For records of the published program, which holds no OS lock (spec 01 §7,
//! 00 §5). A process id alone says little: ids are used again, and in a
//! container every life begins with the same ones.

use std::time::{Duration, SystemTime};

/// Start times are known to a hundredth of a second and boot time to one.
const PRECISION: Duration = Duration::from_secs(1);

/// `false` when the writer of a record made at `written` is certainly gone:
/// its id is ours, or nobody's, or belongs to a process that started later.
pub(super) fn may_be_alive(pid: i64, written: Option<SystemTime>) -> bool {
    pid != i64::from(std::process::id()) && may_be_alive_or_us(pid, written)
}

/// The same for a record that this very process may have written: our own id
/// counts, unless the record is older than we are.
pub(crate) fn may_be_alive_or_us(pid: i64, written: Option<SystemTime>) -> bool {
    let id = i32::try_from(pid).ok().filter(|id| *id > 0);
    let Some(raw) = id.and_then(rustix::process::Pid::from_raw) else {
        return false;
    };
    // Not allowed to signal it means that it exists.
    if rustix::process::test_kill_process(raw) == Err(rustix::io::Errno::SRCH) {
        return false;
    }
    match (started_at(pid), written) {
        (Some(started), Some(written)) => started <= written + PRECISION,
        _ => true,
    }
}

/// When a process started, where the system tells.
fn started_at(pid: i64) -> Option<SystemTime> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let system = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(boot) + since_boot(&stat)?)
}

/// Field 22 of `/proc/<pid>/stat`. The command name before it may hold anything.
pub(super) fn start_ticks(stat: &str) -> Option<&str> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(19)
}

fn since_boot(stat: &str) -> Option<Duration> {
    /// The unit of the field towards programs, on every architecture of ours.
    const TICKS_PER_SECOND: u64 = 100;
    let ticks: u64 = start_ticks(stat)?.parse().ok()?;
    Some(Duration::from_millis(
        ticks.checked_mul(1000 / TICKS_PER_SECOND)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_id_and_impossible_ones_are_not_a_living_writer() {
        let now = Some(SystemTime::now());
        assert!(!may_be_alive(i64::from(std::process::id()), now));
        for pid in [0, -1, i64::MAX, i64::from(i32::MAX)] {
            assert!(!may_be_alive(pid, now), "{pid}");
        }
    }

    #[test]
    fn a_process_that_started_after_the_record_did_not_write_it() {
        let child = std::process::Command::new("sleep").arg("60").spawn();
        let mut child = child.expect("sleep runs");
        let pid = i64::from(child.id());
        assert!(may_be_alive(pid, Some(SystemTime::now())));
        assert!(
            may_be_alive(pid, None),
            "without a time the benefit of the doubt"
        );
        let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
        assert!(!may_be_alive(pid, Some(an_hour_ago)));
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert!(!may_be_alive(pid, Some(SystemTime::now())));
    }

    #[test]
    fn a_command_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 250 20 21";
        assert_eq!(since_boot(stat), Some(Duration::from_millis(2500)));
        assert_eq!(since_boot("7 (x) S 1"), None);
    }
}
