//! Process groups: what a child and all it starts is signalled by, and the
//! list of groups that must not outlive this process (04 §6.3, §6.6).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::Instant;

/// How often a dying group is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A process group that a child of ours leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(Pid);

impl Group {
    /// The group led by the process `pid`.
    pub fn of(pid: u32) -> Option<Self> {
        Pid::from_raw(i32::try_from(pid).ok()?).map(Self)
    }

    /// Its number.
    pub fn id(self) -> i32 {
        self.0.as_raw_nonzero().get()
    }

    /// Signals every member. A group without members is what one wants in the end.
    pub fn signal(self, signal: Signal) {
        let _ = rustix::process::kill_process_group(self.0, signal);
    }

    /// Whether it still has members; an unreaped one counts.
    pub fn is_populated(self) -> bool {
        rustix::process::test_kill_process_group(self.0) != Err(rustix::io::Errno::SRCH)
    }
}

/// Lets the kernel take `pid` before the listener when memory runs out. Where
/// that cannot be said (not Linux, no `/proc`) nothing is lost.
pub fn prefer_to_kill(pid: u32) {
    #[cfg(target_os = "linux")]
    {
        const SCORE: &[u8] = b"500";
        // One write into the kernel's memory: it does not wait for a disk.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), SCORE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = pid;
}

/// The groups that were started and may still have members, whether or not
/// their leader is gone.
///
/// Empty groups are dropped on every [`Self::add`], so that a number which the
/// system gives to somebody else is not held for long.
#[derive(Debug, Default)]
pub struct Groups(Mutex<Vec<Group>>);

impl Groups {
    /// Remembers a new group.
    pub fn add(&self, group: Group) {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|known| known.is_populated());
        groups.push(group);
    }

    /// Ends them all: SIGTERM, up to `grace`, SIGKILL.
    pub async fn end(&self, grace: Duration) {
        let groups = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut alive = groups;
        alive.retain(|group| group.is_populated());
        for group in &alive {
            group.signal(Signal::TERM);
        }
        let deadline = Instant::now() + grace;
        while !alive.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
            alive.retain(|group| group.is_populated());
        }
        for group in alive {
            group.signal(Signal::KILL);
        }
    }
}
