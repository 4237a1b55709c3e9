//! The control plane a listener sees: registration and the device upgrade.
//! Spec 01 §6, §8.1–8.3.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::fault::{Fault, Target};
use crate::link::{self, Hello};
use crate::net::Peer;
use crate::options::Mode;
use crate::record::Recorded;
use crate::reply;
use crate::server::Cloud;

/// Where device sockets go.
pub(crate) const DEVICE_PATH: &str = "/v1/environments/ws";

/// Inbound limit of a device socket, as large as the published listener's own.
const FRAME_LIMIT: usize = 100 << 20;

/// One registration request and what came of it.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The request.
    pub request: Arc<Recorded>,
    /// Its body.
    pub body: Value,
    /// `conn-…`, or `None` when a fault answered.
    pub connection_id: Option<String>,
}

/// `POST /v1/environments/register`.
pub(crate) async fn register(cloud: &Arc<Cloud>, peer: &Peer, request: Arc<Recorded>) -> Response {
    let body = request.json();
    let record = |connection_id: Option<String>| {
        let registration = Registration {
            request: request.clone(),
            body: body.clone(),
            connection_id,
        };
        cloud
            .registrations
            .push(Arc::new(registration), request.body.len());
    };
    if let Some(fault) = cloud.faults.take(|target| *target == Target::Register) {
        if fault.delay().is_none() {
            record(None);
        }
        if let Some(response) = reply::instead(cloud, &fault, peer).await {
            return response;
        }
    }
    if !body["deviceId"].is_string() || !body["connectionName"].is_string() {
        record(None);
        return reply::json(
            StatusCode::BAD_REQUEST,
            &json!({"error": "deviceId and connectionName are required", "errorCode": "bad_request"}),
        );
    }
    let wants_pairs = body["metadata"]["supportsPairedListenerGenerations"] == true;
    let mode = match cloud.mode() {
        Mode::Paired if !wants_pairs => Mode::Split,
        mode => mode,
    };
    let (connection_id, replaced) = cloud.devices.register(&body, mode);
    cloud.relay.connections_gone(&replaced);
    record(Some(connection_id.clone()));
    let origin = match &cloud.options.relay_origin {
        Some(origin) => origin.clone(),
        None => format!("ws://{}", request.header("host").unwrap_or("127.0.0.1")),
    };
    let query = match &cloud.options.ws_query {
        Some(query) => format!("?{query}"),
        None => String::new(),
    };
    let mut answer = json!({
        "connectionId": connection_id,
        "wsUrl": format!("{origin}{DEVICE_PATH}{query}"),
    });
    if mode != Mode::Single {
        answer["supportsSplitStatusChannels"] = json!(true);
    }
    if mode == Mode::Paired {
        answer["supportsPairedListenerGenerations"] = json!(true);
    }
    reply::json(StatusCode::OK, &answer)
}

/// `GET /v1/environments/ws`: a device opens a socket.
pub(crate) async fn upgrade(
    cloud: Arc<Cloud>,
    peer: Peer,
    mut parts: Parts,
    request: Arc<Recorded>,
) -> Response {
    let fault = cloud.faults.take(|target| *target == Target::Upgrade);
    if let Some(fault) = &fault
        && let Some(response) = reply::instead(&cloud, fault, &peer).await
    {
        return response;
    }
    let hello = Hello::from_query(&reply::query(&parts.uri));
    if !cloud.devices.knows(&hello.device_id, &hello.name) {
        let text = "this device and name have not been registered";
        return (StatusCode::NOT_FOUND, text).into_response();
    }
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    upgrade
        .max_message_size(FRAME_LIMIT)
        .max_frame_size(FRAME_LIMIT)
        .on_upgrade(move |mut socket| async move {
            if let Some(Fault::CloseAfterOpen { code, reason }) = fault {
                let close = axum::extract::ws::CloseFrame {
                    code,
                    reason: reason.into(),
                };
                // The peer may be gone already; then there is nobody to tell.
                let _ = socket
                    .send(axum::extract::ws::Message::Close(Some(close)))
                    .await;
                let _ =
                    tokio::time::timeout(std::time::Duration::from_secs(2), socket.recv()).await;
                return;
            }
            Box::pin(link::serve(cloud, socket, hello, peer.0, request)).await;
        })
}
