//! Which process a record of the schedules means, in the published program's
//! fields (spec 07 §1.4).
//!
//! Invariant: a process id alone never proves life where the system tells more:
//! boot and start time must agree as far as both sides know them.

use serde_json::{Map, Value, json};

use super::process_age::start_ticks;

/// A process as a record names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// Its process id.
    pub pid: i64,
    /// `process_start_ticks`: field 22 of its `/proc/<pid>/stat`.
    pub start_ticks: Option<String>,
    /// `boot_id` of the system that it ran on.
    pub boot_id: Option<String>,
}

impl ProcessIdentity {
    /// This process.
    pub fn of_self() -> Self {
        Self::observed(std::process::id().into())
    }

    /// What the system says of a process id now.
    fn observed(pid: i64) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        Self {
            pid,
            start_ticks: stat.as_deref().and_then(start_ticks).map(str::to_owned),
            boot_id: boot
                .map(|id| id.trim().to_owned())
                .filter(|id| !id.is_empty()),
        }
    }

    /// Takes the identity out of a record; `None` without a process id.
    pub fn read(record: &Value) -> Option<Self> {
        let text = |name: &str| {
            let text = record.get(name).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        Some(Self {
            pid: record.get("pid")?.as_i64()?,
            start_ticks: text("process_start_ticks"),
            boot_id: text("boot_id"),
        })
    }

    /// Writes the fields that [`read`](Self::read) takes.
    pub fn write(&self, record: &mut Map<String, Value>) {
        record.insert("process_start_ticks".into(), json!(self.start_ticks));
        record.insert("boot_id".into(), json!(self.boot_id));
    }

    /// Whether the process of the record can still be running. One that may not
    /// be signalled is.
    pub fn is_alive(&self) -> bool {
        let id = i32::try_from(self.pid).ok().filter(|id| *id > 0);
        let Some(id) = id.and_then(rustix::process::Pid::from_raw) else {
            return false;
        };
        if rustix::process::test_kill_process(id) == Err(rustix::io::Errno::SRCH) {
            return false;
        }
        let now = Self::observed(self.pid);
        let agree = |recorded: &Option<String>, seen: &Option<String>| {
            recorded.is_none() || seen.is_none() || recorded == seen
        };
        agree(&self.boot_id, &now.boot_id) && agree(&self.start_ticks, &now.start_ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_this_process_is_alive_and_survives_its_json_form() {
        let own = ProcessIdentity::of_self();
        assert!(own.is_alive());
        let mut record = Map::new();
        record.insert("pid".into(), own.pid.into());
        own.write(&mut record);
        assert_eq!(ProcessIdentity::read(&Value::Object(record)), Some(own));
    }

    #[test]
    fn a_process_id_that_is_used_again_is_another_process() {
        let own = ProcessIdentity::of_self();
        let other_start = ProcessIdentity {
            start_ticks: Some("1".into()),
            ..own.clone()
        };
        let other_boot = ProcessIdentity {
            boot_id: Some("another".into()),
            ..own.clone()
        };
        let unknown = ProcessIdentity {
            boot_id: None,
            start_ticks: None,
            ..own
        };
        assert!(!other_start.is_alive() && !other_boot.is_alive());
        assert!(unknown.is_alive(), "the benefit of the doubt");
    }

    #[test]
    fn impossible_process_ids_are_dead() {
        for pid in [0, -1, i64::MAX, i64::from(i32::MAX)] {
            let record = json!({"pid": pid});
            assert!(!ProcessIdentity::read(&record).expect("a record").is_alive());
        }
        assert_eq!(ProcessIdentity::read(&json!({"pid": "7"})), None);
    }
}
