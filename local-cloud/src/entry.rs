//! The one entry of every request: record it, let queued faults have it, then
//! hand it to the part of the cloud it is for.

use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::control::{self, DEVICE_PATH};
use crate::fault::Target;
use crate::letta::{self, agents};
use crate::model::endpoint;
use crate::net::Peer;
use crate::record::Recorded;
use crate::server::Cloud;
use crate::{lab, oauth, origin, page, relay, reply};

/// Largest request body that is read.
const BODY_LIMIT: usize = 256 << 20;

/// Every request comes in here.
pub(crate) async fn entry(
    State(cloud): State<Arc<Cloud>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if !origin::is_own(&parts.headers, cloud.options.bind) {
        return reply::detail(403, "Pages of other sites may not talk to this server");
    }
    let body = match to_bytes(body, BODY_LIMIT).await {
        Ok(body) => body,
        Err(_) => return reply::detail(413, "The request body could not be read"),
    };
    let recorded = Arc::new(Recorded {
        method: parts.method.to_string(),
        path: path.clone(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers.clone(),
        body,
        at: Instant::now(),
    });
    if path.starts_with("/lab") {
        return lab::dispatch(&cloud, &recorded);
    }
    if endpoint::is_model(&path) {
        return endpoint::dispatch(&recorded).await;
    }
    if path == "/" || path.starts_with("/page") || path == "/favicon.ico" {
        return page::dispatch(&path);
    }
    let weight = recorded.body.len() + 1024;
    cloud.requests.push(recorded.clone(), weight);
    let line = format!("{} {path}", recorded.method);
    let by_path = cloud.faults.take(
        |target| matches!(target, Target::Path { contains } if line.contains(contains.as_str())),
    );
    if let Some(fault) = &by_path
        && let Some(response) = reply::instead(&cloud, fault, &peer).await
    {
        return response;
    }
    if path.starts_with("/api/oauth") || path.starts_with("/device") {
        return oauth::dispatch(&cloud, &peer, &recorded).await;
    }
    let is_client_socket = relay::is_client_socket(&path);
    let query = reply::query(&parts.uri);
    // Browsers cannot put a header on a WebSocket.
    let token = reply::get(&query, "token").filter(|_| is_client_socket);
    if !cloud.authorized(&parts.headers, token) {
        let body = json!({"detail": "Unauthorized", "message": "Unauthorized"});
        return reply::json(StatusCode::UNAUTHORIZED, &body);
    }
    match (recorded.method.as_str(), path.trim_end_matches('/')) {
        ("POST", "/v1/environments/register") => {
            return control::register(&cloud, &peer, recorded).await;
        }
        ("GET", DEVICE_PATH) => return control::upgrade(cloud, peer, parts, recorded).await,
        _ if is_client_socket => return relay::upgrade(cloud, parts).await,
        ("GET", path) if path.starts_with("/v1/environments") => {
            return relay::environments(&cloud, path, &query);
        }
        _ => {}
    }
    // The key costs a look into a large body: only when something is queued.
    let any = cloud.faults.left() > 0;
    let fault = match any.then(|| message_key(&cloud, &recorded)).flatten() {
        Some(key) => cloud.faults.take(|target| match target {
            Target::Message => true,
            Target::MessageOf { conversation } => *conversation == key,
            _ => false,
        }),
        None => None,
    };
    if let Some(fault) = &fault
        && let Some(response) = reply::instead(&cloud, fault, &peer).await
    {
        return response;
    }
    if let Some(upstream) = &cloud.upstream {
        if let Some(agent) = runtime_status_agent(&path) {
            return agents::runtime_status(&cloud, &agent, &query);
        }
        return upstream.forward(&recorded, fault.as_ref()).await;
    }
    letta::dispatch(&cloud, &peer, &parts.uri, &recorded, fault.or(by_path)).await
}

/// The conversation of a message POST, in the form of [`Target::MessageOf`].
fn message_key(cloud: &Cloud, request: &Recorded) -> Option<String> {
    if request.method != "POST" || !request.path.contains("/messages") {
        return None;
    }
    let segments = reply::segments(&request.path);
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (id, agent) = match parts.as_slice() {
        ["v1", "conversations", id, "messages"] => (*id, request.json()["agent_id"].clone()),
        ["v1", "agents", id, "messages"] | ["v1", "agents", id, "messages", "stream"] => {
            (*id, Value::Null)
        }
        _ => return None,
    };
    if cloud.upstream.is_some() {
        return Some(id.to_owned());
    }
    Some(
        cloud
            .store
            .resolve(id, agent.as_str())
            .unwrap_or_else(|_| id.to_owned()),
    )
}

fn runtime_status_agent(path: &str) -> Option<String> {
    match reply::segments(path).as_slice() {
        [v1, agents, agent, what]
            if v1 == "v1" && agents == "agents" && what == "runtime-status" =>
        {
            Some(agent.clone())
        }
        _ => None,
    }
}
