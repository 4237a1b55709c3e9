//! Which tasks are due (07 §1.9): a compact table of what may happen, and what
//! does at a minute.
//!
//! Invariant: pure; a minute is looked at without parsing anything, so that ten
//! thousand tasks cost no more than a few milliseconds.

use std::collections::{HashMap, HashSet};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use smol_str::SmolStr;

use super::expression::Expression;
use super::firing::minute_start;
use super::lease::covers;
use super::task::{Status, Task, invalid_cron_error};
use super::zone::Zones;
use crate::config::CronScope;

/// A one-shot that is later than this has been missed.
pub(super) const TOO_LATE: SignedDuration = SignedDuration::from_mins(5);

/// Tasks as they are now, `None` for those that are gone; ten thousand ids are looked
/// up in a row.
pub type Touched = HashMap<String, Option<Task>, foldhash::fast::RandomState>;

/// What may happen to the tasks of a scope.
#[derive(Debug)]
pub struct Table {
    scope: CronScope,
    zones: Zones,
    rows: Vec<Row>,
    clocks: Vec<TimeZone>,
    /// Where the clock of a zone stands, by its name in the tasks.
    names: HashMap<Box<str>, usize>,
}

/// Every wake passes over all of them, so that what is of use only when a task fires
/// lies elsewhere.
#[derive(Debug)]
struct Row {
    id: SmolStr,
    active: bool,
    when: When,
    expires_at: Option<Timestamp>,
    /// The first minute that matches after the last one that was looked at; of a
    /// one-shot its moment, jitter included.
    next: Option<Timestamp>,
}

#[derive(Debug)]
enum When {
    Cron(Box<Recurring>),
    Once(Timestamp),
    /// Its expression cannot be read and nobody said so yet.
    Invalid,
    Never,
}

#[derive(Debug)]
struct Recurring {
    expression: Expression,
    /// The place of its clock in the list.
    clock: usize,
    delay: SignedDuration,
    last_fired: Option<Timestamp>,
}

impl Recurring {
    fn next(&self, clocks: &[TimeZone], looked: Timestamp) -> Option<Timestamp> {
        self.expression.next(looked, clocks.get(self.clock)?)
    }
}

/// What must be done with a task now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// It fires, so long after now; `intended` is its moment.
    Fire {
        /// The task.
        id: String,
        /// The moment for which it was planned.
        intended: Timestamp,
        /// How much later it fires.
        delay: SignedDuration,
    },
    /// Its life is over.
    Expire(String),
    /// Its moment passed.
    Miss(String),
    /// Its expression cannot be read.
    Complain(String),
}

impl Due {
    /// The task.
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Fire { id, .. } | Self::Expire(id) | Self::Miss(id) | Self::Complain(id) => id,
        }
    }
}

impl Table {
    /// The table of the tasks that a scope covers; `looked` is the last minute that
    /// was looked at.
    pub fn new(tasks: &[Task], scope: CronScope, zones: &Zones, looked: Timestamp) -> Self {
        let mut table = Self {
            scope,
            zones: zones.clone(),
            rows: Vec::new(),
            clocks: Vec::new(),
            names: HashMap::new(),
        };
        for task in tasks {
            let row = table.row(task, looked);
            table.rows.extend(row);
        }
        table
    }

    /// Takes over some tasks as they are now, `None` for those that are gone.
    pub fn renew(&mut self, touched: &Touched, looked: Timestamp) {
        let mut rows = std::mem::take(&mut self.rows);
        let mut left: HashMap<&str, &Task> = touched
            .iter()
            .filter_map(|(id, task)| Some((id.as_str(), task.as_ref()?)))
            .collect();
        rows.retain_mut(|row| {
            if !touched.contains_key(row.id.as_str()) {
                return true;
            }
            let task = left.remove(row.id.as_str());
            let new = task.and_then(|task| self.row(task, looked));
            new.map(|new| *row = new).is_some()
        });
        // In the order of the store nothing depends on.
        for task in left.into_values() {
            rows.extend(self.row(task, looked));
        }
        self.rows = rows;
    }

    /// What may happen to a task, if anything may.
    fn row(&mut self, task: &Task, looked: Timestamp) -> Option<Row> {
        let active = task.status() == Status::Active;
        let expires_at = task.time("expires_at").filter(|_| task.is_recurring());
        let dies = expires_at.is_some() && task.status() == Status::Paused;
        if !(active || dies) || !covers(self.scope, task.text("agent_id")) {
            return None;
        }
        let shift = task.jitter();
        let (when, next) = match (task.is_recurring(), task.time("scheduled_for")) {
            (false, Some(at)) => {
                let next = at.checked_add(shift).unwrap_or(at);
                (When::Once(at), Some(next))
            }
            (recurring, _) => match Expression::parse(task.text("cron")) {
                Ok(expression) => {
                    let recurring = Recurring {
                        expression,
                        clock: self.clock(task.text("timezone")),
                        delay: shift.max(SignedDuration::ZERO),
                        last_fired: task.time("last_fired_at"),
                    };
                    let next = recurring.next(&self.clocks, looked);
                    (When::Cron(Box::new(recurring)), next)
                }
                Err(_) if recurring && !complained(task) => (When::Invalid, None),
                Err(_) => (When::Never, None),
            },
        };
        Some(Row {
            id: task.id().into(),
            active,
            when,
            expires_at,
            next,
        })
    }

    fn clock(&mut self, name: &str) -> usize {
        if let Some(known) = self.names.get(name) {
            return *known;
        }
        self.clocks.push(self.zones.find(name).0);
        self.names.insert(name.into(), self.clocks.len() - 1);
        self.clocks.len() - 1
    }

    /// The tasks that may fire.
    pub fn active(&self) -> HashSet<&str> {
        let active = self.rows.iter().filter(|row| row.active);
        active.map(|row| &*row.id).collect()
    }

    /// When the next task fires, the delay of recurring ones left aside.
    pub fn next_fire(&self) -> Option<Timestamp> {
        let active = self.rows.iter().filter(|row| row.active);
        active.filter_map(|row| row.next).min()
    }

    /// When the next one-shot fires that has not been tried.
    pub fn next_once(&self, fired: &dyn Fn(&str, Timestamp) -> bool) -> Option<Timestamp> {
        let once = self.rows.iter().filter_map(|row| match row.when {
            When::Once(at) if row.active && !fired(&row.id, at) => row.next,
            _ => None,
        });
        once.min()
    }

    /// The clock was set back: counts every next fire anew.
    pub fn recount(&mut self, looked: Timestamp) {
        for row in &mut self.rows {
            if let When::Cron(recurring) = &row.when {
                row.next = recurring.next(&self.clocks, looked);
            }
        }
    }

    /// What is due at `now`, for the minutes that have not been looked at, oldest
    /// first. `fired` says whether a task fired for a minute already.
    pub fn due(
        &mut self,
        now: Timestamp,
        minutes: &[Timestamp],
        fired: &dyn Fn(&str, Timestamp) -> bool,
    ) -> Vec<Due> {
        let mut due = Vec::new();
        for row in &mut self.rows {
            if row.expires_at.is_some_and(|end| end <= now) {
                due.push(Due::Expire(row.id.to_string()));
                continue;
            }
            if !row.active {
                continue;
            }
            match &row.when {
                When::Never => {}
                When::Invalid => due.push(Due::Complain(row.id.to_string())),
                When::Once(at) if now.duration_since(*at) > TOO_LATE => {
                    due.push(Due::Miss(row.id.to_string()));
                }
                When::Once(at) => {
                    if row.next.is_some_and(|next| next <= now) && !fired(&row.id, *at) {
                        due.push(Due::Fire {
                            id: row.id.to_string(),
                            intended: *at,
                            delay: SignedDuration::ZERO,
                        });
                    }
                }
                When::Cron(recurring) => {
                    let Some(last) = minutes.last() else { continue };
                    if row.next.is_none_or(|next| next > *last) {
                        continue;
                    }
                    let clock = &self.clocks[recurring.clock];
                    // After a late wake the newest of its minutes stands for all.
                    let minute = minutes.iter().rev().find(|minute| {
                        // A quick restart must not fire what the last process fired.
                        let done = recurring
                            .last_fired
                            .is_some_and(|at| minute_start(at) == **minute);
                        recurring.expression.matches(clock.to_datetime(**minute))
                            && !done
                            && !fired(&row.id, **minute)
                    });
                    if let Some(minute) = minute {
                        due.push(Due::Fire {
                            id: row.id.to_string(),
                            intended: *minute,
                            delay: recurring.delay,
                        });
                    }
                    row.next = recurring.expression.next(*last, clock);
                }
            }
        }
        due
    }
}

fn complained(task: &Task) -> bool {
    task.is_reported_invalid(&invalid_cron_error(task.text("cron")))
}
