//! `letta cron get`, `runs` and `delete`: one task, by id or by name.

use serde_json::{Value, json};

use super::cloud::{Asked, row};
use super::{Done, Failure, Here, Runner, print_pretty};
use crate::api::Client;
use crate::cron::runs::PageRequest;
use crate::cron::task::Task;

/// Entries of `runs` without `--limit`.
const RUNS: usize = 50;

/// What a reference means.
enum Found {
    Local(Box<Task>),
    Cloud(Value),
}

pub(super) fn get(here: &Here) -> Done {
    let reference = reference(here, "get <id|name>")?;
    match find(here, reference)? {
        Found::Local(task) => {
            let mut row = Value::Object(task.into_fields());
            row["runner"] = json!("local");
            print_pretty(&row);
        }
        Found::Cloud(schedule) => print_pretty(&row(&schedule)),
    }
    Ok(())
}

pub(super) fn runs(here: &Here) -> Done {
    let missing = "--id is required. Usage: letta cron runs --id <id>";
    let id = here.flags.id.as_deref();
    let id = id.ok_or_else(|| Failure::Usage(missing.to_owned()))?;
    let limit = here
        .flags
        .limit
        .as_deref()
        .and_then(|text| text.parse().ok());
    let limit = limit.filter(|limit| *limit > 0).unwrap_or(RUNS);
    if here.wants(Runner::Local) && here.store.get(id).is_some() {
        let request = PageRequest {
            limit: Some(limit as f64),
            offset: None,
            run_id: here.flags.run_id.clone(),
        };
        let page = here.store.runs(id, &request);
        print_pretty(&page.map_err(|error| Failure::Failed(error.to_string()))?);
        return Ok(());
    }
    if !here.wants(Runner::Cloud) {
        return Err(not_found(id));
    }
    let agent = cloud_agent(here, id)?;
    let history = here
        .cloud
        .ask(async |api: Client| api.schedule_history(agent, id, limit).await)?;
    print_pretty(&json!({
        "runner": "cloud", "entries": history["history"], "has_next_page": history["has_next_page"],
    }));
    Ok(())
}

pub(super) fn delete(here: &Here) -> Done {
    if here.flags.all {
        return delete_all(here);
    }
    let reference = reference(here, "delete <id|name>, or --all --agent <id>")?;
    let (id, runner) = match find(here, reference)? {
        Found::Local(task) => {
            let id = task.id().to_owned();
            if !here.store.delete(&id)? {
                return Err(not_found(reference));
            }
            (id, "local")
        }
        Found::Cloud(schedule) => {
            let id = schedule["id"].as_str().unwrap_or(reference).to_owned();
            let agent = cloud_agent(here, reference)?;
            here.cloud
                .ask(async |api: Client| api.delete_schedule(agent, &id).await)?;
            (id, "cloud")
        }
    };
    if id == reference {
        say!("{}", json!({"deleted": id, "runner": runner}));
    } else {
        say!(
            "{}",
            json!({"deleted": id, "name": reference, "runner": runner})
        );
    }
    Ok(())
}

fn delete_all(here: &Here) -> Done {
    let agent = here.need_agent(" with --all")?;
    let mut local = 0;
    if here.wants(Runner::Local) {
        local = here.store.delete_all(agent)?;
    }
    let mut cloud = 0;
    if here.wants(Runner::Cloud) && !agent.starts_with("agent-local-") {
        let deleted = &mut cloud;
        let done = here.cloud.ask(async move |api: Client| {
            for schedule in api.schedules(agent).await? {
                if let Some(id) = schedule["id"].as_str() {
                    api.delete_schedule(agent, id).await?;
                    *deleted += 1;
                }
            }
            Ok(())
        });
        match done {
            Ok(()) => {}
            // A server without schedules has none to delete.
            Err(Asked::Missing(_)) if here.flags.runner.is_none() => {}
            Err(error) => {
                return Err(Failure::Failed(format!(
                    "the cloud schedules could not be deleted: {error}. Deleted so far: {local} local, {cloud} cloud."
                )));
            }
        }
    }
    say!(
        "{}",
        json!({"deleted": local + cloud, "local_deleted": local, "cloud_deleted": cloud, "agent_id": agent})
    );
    Ok(())
}

fn reference<'a>(here: &'a Here, usage: &str) -> Result<&'a str, Failure> {
    let word = here.flags.words.get(1).map(String::as_str);
    word.filter(|word| !word.is_empty()).ok_or_else(|| {
        Failure::Usage(format!(
            "a task id or name is required. Usage: letta cron {usage}"
        ))
    })
}

/// Looks for an id here, for an id in the cloud, then for a name in both.
fn find(here: &Here, reference: &str) -> Result<Found, Failure> {
    let local = here.wants(Runner::Local);
    if local && let Some(task) = here.store.get(reference) {
        return Ok(Found::Local(Box::new(task)));
    }
    let mut named: Vec<Found> = Vec::new();
    if local {
        let tasks = here.store.list(None, None).into_iter();
        let same = tasks.filter(|task| task.text("name") == reference);
        named.extend(same.map(|task| Found::Local(Box::new(task))));
    }
    if here.wants(Runner::Cloud) {
        // A name that is found here needs no agent.
        let agent = match here.agent_id.as_deref() {
            Some(agent) => Some(agent),
            None if named.is_empty() => Some(cloud_agent(here, reference)?),
            None => None,
        };
        if let Some(agent) = agent.filter(|agent| !agent.starts_with("agent-local-")) {
            match here
                .cloud
                .ask(async |api: Client| api.schedule(agent, reference).await)
            {
                Ok(schedule) => return Ok(Found::Cloud(schedule)),
                Err(Asked::Missing(_)) => {
                    let all = here
                        .cloud
                        .ask(async |api: Client| api.schedules(agent).await);
                    let all = all.unwrap_or_default().into_iter();
                    let same = all.filter(|schedule| schedule["name"] == reference);
                    named.extend(same.map(Found::Cloud));
                }
                Err(error) if named.is_empty() => return Err(error.into()),
                Err(_) => {}
            }
        }
    }
    if named.len() > 1 {
        let ids = named.iter().map(|found| match found {
            Found::Local(task) => format!("\n  {} (local)", task.id()),
            Found::Cloud(schedule) => {
                format!(
                    "\n  {} (cloud)",
                    schedule["id"].as_str().unwrap_or_default()
                )
            }
        });
        let ids: String = ids.collect();
        return Err(Failure::Failed(format!(
            "several tasks are named \"{reference}\". Give an id:{ids}"
        )));
    }
    named.pop().ok_or_else(|| not_found(reference))
}

fn not_found(reference: &str) -> Failure {
    Failure::Failed(format!("task {reference} not found."))
}

fn cloud_agent<'a>(here: &'a Here, reference: &str) -> Result<&'a str, Failure> {
    here.agent_id.as_deref().ok_or_else(|| {
        Failure::Failed(format!(
            "task {reference} not found here, and --agent or LETTA_AGENT_ID is required to look into the cloud."
        ))
    })
}
