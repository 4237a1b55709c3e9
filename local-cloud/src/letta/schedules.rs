//! `/v1/agents/{id}/schedule…`: remembered, never fired. Spec 07 §1.16.

use axum::response::Response;
use serde_json::{Value, json};

use crate::reply;
use crate::server::Cloud;

/// Create, list, read, delete, and an empty history.
pub(crate) fn dispatch(
    cloud: &Cloud,
    method: &str,
    agent: &str,
    path: &[&str],
    body: &Value,
) -> Response {
    let mut world = cloud.store.world();
    let Some(agent) = world.agents.get_mut(agent) else {
        return reply::detail(404, "Agent not found");
    };
    let all = agent
        .fields
        .entry("scheduled_messages")
        .or_insert_with(|| json!([]));
    let Some(all) = all.as_array_mut() else {
        return reply::detail(500, "The schedules of this agent are no list");
    };
    let at = path
        .first()
        .and_then(|id| all.iter().position(|entry| entry["id"] == *id));
    match (method, path, at) {
        ("POST", [], _) => {
            let mut entry = body.clone();
            entry["id"] = json!(format!("schedule-{}", crate::short_id()));
            entry["next_scheduled_at"] = body["schedule"]["scheduled_at"].clone();
            all.push(entry.clone());
            reply::ok(&entry)
        }
        ("GET", [], _) => reply::ok(&json!({"scheduled_messages": all, "has_next_page": false})),
        ("GET", [_], Some(at)) => reply::ok(&all[at]),
        ("DELETE", [_], Some(at)) => {
            all.remove(at);
            reply::ok(&json!({"success": true}))
        }
        ("GET", [_, "history"], Some(_)) => {
            reply::ok(&json!({"history": [], "has_next_page": false, "next_offset": null}))
        }
        _ => reply::detail(404, "Schedule not found"),
    }
}
