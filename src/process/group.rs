//! Process groups and sessions: what a child and all it starts is signalled
//! by, and the list of those that must not outlive this process (04 §6.3, §6.6).

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::Instant;

/// How often a dying group is looked at.
const POLL: Duration = Duration::from_millis(20);

/// What a child of ours leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    leader: Pid,
    /// Whether it leads a session too. A shell on a terminal gives each of its
    /// jobs a group; the session holds them all.
    session: bool,
}

impl Group {
    /// The group led by the process `pid`; `session` when it leads one as well.
    pub fn of(pid: u32, session: bool) -> Option<Self> {
        let leader = Pid::from_raw(i32::try_from(pid).ok()?)?;
        Some(Self { leader, session })
    }

    /// Its number.
    pub fn id(self) -> i32 {
        self.leader.as_raw_nonzero().get()
    }

    /// Signals every member. That it has none left is what one wants in the end.
    pub fn signal(self, signal: Signal) {
        let _ = rustix::process::kill_process_group(self.leader, signal);
        if self.session {
            for (pid, group) in session_members(self.id()) {
                if group != self.id()
                    && let Some(pid) = Pid::from_raw(pid)
                {
                    let _ = rustix::process::kill_process(pid, signal);
                }
            }
        }
    }

    /// Whether it still has members; of a mere group an unreaped one counts.
    pub fn is_populated(self) -> bool {
        let gone = Err(rustix::io::Errno::SRCH);
        rustix::process::test_kill_process_group(self.leader) != gone
            || self.session && !session_members(self.id()).is_empty()
    }
}

/// The living processes of a session, each with its group. Reads the kernel's
/// memory, no disk; empty where there is no `/proc`.
fn session_members(session: i32) -> Vec<(i32, i32)> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // pid (name) state parent group session …; the name may hold anything.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let (state, _parent) = (fields.next()?, fields.next()?);
            let group = fields.next()?.parse().ok()?;
            let its_session: i32 = fields.next()?.parse().ok()?;
            (its_session == session && state != "Z").then_some((pid, group))
        })
        .collect()
}

/// Lets the kernel take `group` before the listener when memory runs out.
/// Where that cannot be said (not Linux, no `/proc`) nothing is lost.
pub fn prefer_to_kill(group: Group) {
    /// What children get, unless this process itself stands higher.
    const SCORE: i32 = 500;
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
        own.trim().parse().unwrap_or(0).max(SCORE).to_string()
    });
    // One write into the kernel's memory: it does not wait for a disk.
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", group.id()), &*TEXT);
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
        let mut alive = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
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

#[cfg(test)]
mod tests {
    use super::super::spawn::{Launch, spawn};
    use super::*;

    #[tokio::test]
    async fn the_members_of_a_session_are_found_with_their_groups() {
        let launch = Launch {
            argv: vec!["sleep".into(), "600".into()],
            cwd: "/".into(),
            env: std::env::vars_os().collect(),
            terminal: None,
        };
        // A session of its own: this process's may be led from outside its PID namespace.
        let mut spawned = spawn(&launch, true).unwrap();
        let leader = spawned.group.id();
        assert_eq!(session_members(leader), [(leader, leader)]);
        spawned.child.kill().await.unwrap();
        assert!(session_members(leader).is_empty());
    }
}
