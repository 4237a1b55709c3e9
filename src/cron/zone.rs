//! Time zones by their IANA names (07 §1.6): the system's data where it is
//! installed, else the rules of today that this binary carries.
//!
//! Invariant: no name is an error; what is unknown means the zone of this process.

use jiff::tz::TimeZone;

/// A POSIX rule and the names that follow it, one rule a line, separated by blanks.
///
/// A schedule needs the rules of now, not the history of a zone. What they cannot
/// say are changes that are decreed for single years ahead. Made by
/// `scripts/cron-zones`.
const RULES: &str = include_str!("zones.txt");

/// The zones of one process.
#[derive(Clone, Debug)]
pub struct Zones {
    local: TimeZone,
    local_name: String,
}

/// How a task's zone was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Under its name.
    Named,
    /// The task names none.
    Unnamed,
    /// Nobody knows the name.
    Unknown,
}

impl Zones {
    /// The zones as this process finds them.
    pub fn system() -> Self {
        // Read here as the C library and `jiff` do: it is no setting of ours.
        Self::of_process(std::env::var("TZ").ok().as_deref())
    }

    /// The zone of a process; `tz` is its variable `TZ`.
    pub fn of_process(tz: Option<&str>) -> Self {
        let named = tz
            .map(|name| name.trim_start_matches(':'))
            .filter(|name| !name.is_empty());
        if let Some(name) = named
            && let Some(local) = by_name(name)
        {
            let local_name = name.to_owned();
            return Self { local, local_name };
        }
        let local = TimeZone::try_system().unwrap_or(TimeZone::UTC);
        let local_name = local.iana_name().unwrap_or_default().to_owned();
        Self { local, local_name }
    }

    /// The zone of this process.
    pub fn local(&self) -> &TimeZone {
        &self.local
    }

    /// The IANA name of the process's zone; empty when the system does not tell.
    pub fn local_name(&self) -> &str {
        &self.local_name
    }

    /// The zone of a task.
    pub fn find(&self, name: &str) -> (TimeZone, Found) {
        if name.is_empty() {
            return (self.local.clone(), Found::Unnamed);
        }
        if name == self.local_name() {
            return (self.local.clone(), Found::Named);
        }
        match by_name(name) {
            Some(zone) => (zone, Found::Named),
            None => (self.local.clone(), Found::Unknown),
        }
    }
}

fn by_name(name: &str) -> Option<TimeZone> {
    // The system's directory holds files that are no zones.
    let plausible = name.len() <= 64
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte));
    if !plausible {
        return None;
    }
    TimeZone::get(name).ok().or_else(|| built_in(name))
}

/// A zone of [`RULES`].
fn built_in(name: &str) -> Option<TimeZone> {
    RULES.lines().find_map(|line| {
        let mut words = line.split(' ');
        let rule = words.next()?;
        words
            .any(|known| known.eq_ignore_ascii_case(name))
            .then(|| TimeZone::posix(rule).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn every_rule_of_the_binary_can_be_read_and_agrees_with_the_system() {
        let mut names = 0;
        let moments = [
            "2026-01-15T12:00:00Z",
            "2026-07-15T12:00:00Z",
            "2027-04-30T00:00:00Z",
        ];
        for line in RULES.lines() {
            for name in line.split(' ').skip(1) {
                names += 1;
                let own = built_in(name).unwrap_or_else(|| panic!("{name}"));
                // A system without zone data, or with older rules, proves nothing.
                let Ok(system) = TimeZone::get(name) else {
                    continue;
                };
                if [
                    "Europe/Berlin",
                    "America/New_York",
                    "Asia/Kolkata",
                    "Australia/Lord_Howe",
                    "UTC",
                ]
                .contains(&name)
                {
                    for moment in moments {
                        let moment: Timestamp = moment.parse().expect("a moment");
                        assert_eq!(own.to_offset(moment), system.to_offset(moment), "{name}");
                    }
                }
            }
        }
        assert!(names > 400, "{names}");
    }

    #[test]
    fn a_missing_or_unknown_name_means_the_zone_of_the_process() {
        let zones = Zones::of_process(Some(":Europe/Berlin"));
        assert_eq!(zones.local_name(), "Europe/Berlin");
        assert_eq!(zones.find("").1, Found::Unnamed);
        assert_eq!(zones.find("america/st_johns").1, Found::Named);
        for unknown in ["Mars/Olympus", "../etc/passwd", "posixrules\n", "tzdata.zi"] {
            let (zone, found) = zones.find(unknown);
            assert_eq!(
                (zone.iana_name(), found),
                (Some("Europe/Berlin"), Found::Unknown)
            );
        }
    }
}
