//! `letta cron add`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cloud::NewSchedule;
use super::words;
use super::{Done, Failure, Here, Runner, print_pretty};
use crate::cron::expression::Expression;
use crate::cron::forms;
use crate::cron::task::{NewTask, Task};
use crate::cron::zone::Zones;

/// When it fires.
struct When {
    cron: String,
    at: Option<Timestamp>,
    note: Option<String>,
}

pub(super) fn run(here: &Here) -> Done {
    let flags = &here.flags;
    let text = |value: &'_ Option<String>, flag: &str| {
        let value = value.clone();
        value.ok_or_else(|| Failure::Usage(format!("{flag} is required.")))
    };
    let name = text(&flags.name, "--name")?;
    let description = text(&flags.description, "--description")?;
    let prompt = text(&flags.prompt, "--prompt")?;
    let agent_id = here.need_agent("")?;
    let conversation_id = here.conversation()?.unwrap_or_else(|| String::from("new"));
    let (now, zones) = (Timestamp::now(), Zones::system());
    let when = when(here, now, &zones)?;

    let cloud = flags.runner == Some(Runner::Cloud) || flags.computer.is_some();
    if flags.computer.is_some() && flags.runner == Some(Runner::Local) {
        return Err(Failure::Usage(String::from(
            "--computer needs --cloud. To schedule on another computer without the cloud, run `letta cron add` there.",
        )));
    }
    let expires_at = match &flags.expires {
        None => None,
        Some(_) if cloud || when.at.is_some() => {
            return Err(Failure::Usage(String::from(
                "--expires is for recurring tasks of this computer.",
            )));
        }
        Some(text) => Some(expiry(text, now)?),
    };
    if cloud {
        let added = here.cloud.add(NewSchedule {
            agent_id,
            conversation_id: &conversation_id,
            name: &name,
            description: &description,
            prompt: &prompt,
            schedule: when.at.map_or(Ok(when.cron.as_str()), Err),
            computer: flags.computer.as_deref(),
            note: when.note,
        })?;
        print_pretty(&added);
        complain!("The cloud fires it, whether this computer is on or not.");
        return Ok(());
    }
    let added = here.store.add(
        NewTask {
            agent_id: agent_id.to_owned(),
            conversation_id: Some(conversation_id),
            name,
            description,
            cron: when.cron,
            timezone: None,
            recurring: when.at.is_none(),
            prompt,
            scheduled_for: when.at,
            expires_at,
        },
        now,
        &zones,
    )?;
    if here.person {
        say!(
            "Added {}: {}",
            added.task.id(),
            words::promise(&added.task, now, &zones)
        );
        for line in when.note.iter().map(String::as_str).chain(added.warning) {
            say!("{line}");
        }
    } else {
        print_pretty(&shown(&added.task, when.note, added.warning));
    }
    complain!("It fires on this computer, while `letta server` runs here.");
    Ok(())
}

fn when(here: &Here, now: Timestamp, zones: &Zones) -> Result<When, Failure> {
    let flags = &here.flags;
    let usage = |text: String| Err(Failure::Usage(text));
    match (&flags.every, &flags.at, &flags.cron) {
        (Some(text), None, None) => match forms::every(text) {
            Some(every) => Ok(When {
                cron: every.cron,
                at: None,
                note: every.note,
            }),
            None => usage(format!("invalid interval \"{text}\". Try: 5m, 2h, 1d")),
        },
        (None, Some(text), None) => match forms::at(text, now, zones.local()) {
            Some(at) => Ok(When {
                cron: at.cron,
                at: Some(at.when),
                note: at.note,
            }),
            None => usage(format!(
                "invalid time \"{text}\". Try: \"3:00pm\", \"in 45m\""
            )),
        },
        (None, None, Some(text)) => {
            if let Err(error) = Expression::parse(text) {
                return usage(error.to_string());
            }
            if flags.once {
                return usage(String::from(
                    "--once cannot be used with --cron. Use --at for one-shot tasks.",
                ));
            }
            Ok(When {
                cron: text.clone(),
                at: None,
                note: None,
            })
        }
        (None, None, None) => usage(String::from("one of --every, --at, or --cron is required.")),
        _ => usage(String::from(
            "only one of --every, --at, or --cron allowed.",
        )),
    }
}

/// When a recurring task ends; `None` is never.
fn expiry(text: &str, now: Timestamp) -> Result<Option<Timestamp>, Failure> {
    let invalid = || Failure::Usage(format!("invalid --expires \"{text}\". Try: 12h, 7d, never"));
    match forms::life(text).ok_or_else(invalid)? {
        None => Ok(None),
        Some(life) => now.checked_add(life).map(Some).map_err(|_| invalid()),
    }
}

/// What agents and scripts read of a new task.
fn shown(task: &Task, note: Option<String>, warning: Option<&str>) -> Value {
    let field = |name: &str| task.fields().get(name).cloned().unwrap_or_default();
    let mut shown = json!({"id": task.id(), "runner": "local"});
    for name in [
        "status",
        "cron",
        "recurring",
        "agent_id",
        "conversation_id",
        "created_at",
    ] {
        shown[name] = field(name);
    }
    for name in ["scheduled_for", "expires_at"] {
        if !field(name).is_null() {
            shown[name] = field(name);
        }
    }
    if let Some(note) = note {
        shown["note"] = note.into();
    }
    if let Some(warning) = warning {
        shown["warning"] = warning.into();
    }
    shown
}
