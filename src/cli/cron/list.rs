//! `letta cron list`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cloud::{Asked, row};
use super::{Done, Failure, Here, Runner, print_pretty, words};
use crate::api::Client;
use crate::cron::lease::is_somebody_firing;
use crate::cron::task::{Status, Task};
use crate::cron::zone::Zones;

pub(super) fn run(here: &Here) -> Done {
    let conversation = here.conversation()?;
    let agent = here.agent_id.as_deref();
    let local = if here.wants(Runner::Local) {
        here.store.list(agent, conversation.as_deref())
    } else {
        Vec::new()
    };
    let mut cloud = Vec::new();
    let only_cloud = here.flags.runner == Some(Runner::Cloud);
    if only_cloud {
        here.need_agent(" to list cloud schedules")?;
    }
    if let Some(agent) = agent.filter(|agent| {
        here.wants(Runner::Cloud) && (only_cloud || !agent.starts_with("agent-local-"))
    }) {
        match here
            .cloud
            .ask(async |api: Client| api.schedules(agent).await)
        {
            Ok(rows) => cloud = rows.iter().map(row).collect(),
            Err(error) if only_cloud => {
                return Err(Failure::Failed(format!(
                    "the cloud schedules cannot be listed: {error}"
                )));
            }
            Err(Asked::Missing(_)) => {
                complain!("Note: this server keeps no cloud schedules for the agent.");
            }
            Err(error) => complain!("Note: cloud schedules are left out: {error}"),
        }
        if let Some(wanted) = &conversation {
            cloud.retain(|row| row["conversation_id"] == wanted.as_str());
        }
    }
    let waiting = |task: &&Task| task.status() == Status::Active;
    if let Some(task) = local.iter().find(waiting)
        && !is_somebody_firing(&here.store.read(), task.text("agent_id"))
    {
        complain!(
            "Note: no `letta server` is running on this computer, so local schedules do not fire."
        );
    }
    if here.person {
        table(&local, &cloud);
        return Ok(());
    }
    let rows: Value = local
        .into_iter()
        .map(|task| {
            let mut row = Value::Object(task.into_fields());
            row["runner"] = json!("local");
            row
        })
        .chain(cloud)
        .collect();
    print_pretty(&rows);
    Ok(())
}

/// For people: what it is, when it fires next, how long it lives.
fn table(local: &[Task], cloud: &[Value]) {
    if local.is_empty() && cloud.is_empty() {
        say!("No schedules.");
        return;
    }
    let (now, zones) = (Timestamp::now(), Zones::system());
    let head = [
        "ID",
        "NAME",
        "STATUS",
        "WHEN",
        "NEXT",
        "UNTIL",
        "CONVERSATION",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for task in local {
        rows.push([
            task.id().to_owned(),
            task.text("name").to_owned(),
            words::status(task).to_owned(),
            words::when(task, &zones),
            words::next(task, now, &zones),
            words::until(task, &zones),
            task.text("conversation_id").to_owned(),
        ]);
    }
    for row in cloud {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let schedule = &row["schedule"];
        let when = match schedule["cron_expression"].as_str() {
            Some(cron) => format!("{cron} (UTC)"),
            None => String::from("once"),
        };
        rows.push([
            text("id"),
            text("name"),
            format!("cloud: {}", text("execution_target")),
            when,
            text("next_scheduled_time"),
            String::new(),
            text("conversation_id"),
        ]);
    }
    say_part!("{}", words::columns(&rows));
}
