//! The health endpoints: `/livez`, `/healthz`, `/readyz`, `/metrics` and a page
//! for people at `/` (00 §5).
//!
//! They answer before anything else starts and until the process is gone.
//! Invariants: answers are built from one [`HealthSnapshot`] and hold no ids of
//! agents or conversations and no secrets; requests of web pages (with an
//! `Origin`) are refused; a slow or greedy client costs a bounded amount.

mod address;
mod health;
mod page;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::address::{AddressError, DEFAULT_PORT, HealthAddress};
pub use self::health::{HealthSnapshot, HealthState};

use super::gate::{Gate, Limits, Peer, listen};
use super::watchdog::LivenessProbe;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::redact::Secrets;

/// Whoever asks comes seldom and is answered at once.
const LIMITS: Limits = Limits {
    connections: 32,
    strangers: 32,
    lifetime: Duration::from_secs(5),
};

/// What the endpoints answer from.
#[derive(Clone, Debug)]
pub struct HealthSources {
    /// The latest state of the listener.
    pub snapshot: watch::Receiver<HealthSnapshot>,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// What `/livez` asks.
    pub liveness: LivenessProbe,
    /// Masked in every answer.
    pub secrets: Secrets,
}

/// A bound port that nobody serves yet.
#[derive(Debug)]
pub struct HealthServer {
    listener: TcpListener,
    local: SocketAddr,
}

impl HealthServer {
    /// Binds the address. A port that cannot be had is no reason to stop: then
    /// the second part is a warning for the person who reads the log.
    pub fn bind(address: &HealthAddress) -> (Option<Self>, Option<String>) {
        let candidates = address.candidates();
        let mut failure = None;
        for candidate in &candidates {
            match listen(*candidate) {
                Ok((listener, local)) => return (Some(Self { listener, local }), None),
                Err(error) => failure = Some((candidate, error)),
            }
        }
        let warning = failure.map(|(candidate, error)| {
            format!(
                "Health endpoints are off: cannot listen on {candidate}: {error}. \
                 Choose another address with LETTA_HEALTH_ADDR, or `off`."
            )
        });
        (None, warning)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Answers until `stop` is cancelled, then finishes the requests at hand,
    /// each of which is bounded to a few seconds.
    pub async fn serve(self, sources: HealthSources, stop: CancellationToken) {
        let app = router(sources).into_make_service_with_connect_info::<Peer>();
        let gate = Gate::new(self.listener, LIMITS);
        // This server has no way to fail: the gate retries a failed accept.
        let _ = axum::serve(gate, app)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await;
    }
}

fn router(sources: HealthSources) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/healthz", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/", get(status))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found\n") })
        .layer(middleware::from_fn(guard))
        .with_state(sources)
}

/// Refuses web pages and keeps answers from being cached or framed.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = if request.headers().contains_key(header::ORIGIN) {
        let refusal = "requests from web pages are refused\n";
        (StatusCode::FORBIDDEN, refusal).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
        // Whoever asks comes seldom: a kept connection would only hold a place.
        (header::CONNECTION, "close"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn livez(State(sources): State<HealthSources>) -> Response {
    if sources.liveness.is_alive() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        let seconds = sources.liveness.silent_for().as_secs();
        let text = format!("the runtime has not ticked for {seconds} s\n");
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

async fn readyz(State(sources): State<HealthSources>) -> Response {
    let snapshot = sources.snapshot.borrow().clone();
    let code = if snapshot.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(code, &sources.secrets, &snapshot.readiness_json())
}

async fn metrics(State(sources): State<HealthSources>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], sources.metrics.render()).into_response()
}

async fn status(
    State(sources): State<HealthSources>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
) -> Response {
    let snapshot = sources.snapshot.borrow().clone();
    let alive = sources.liveness.is_alive();
    if wants_json(&headers) {
        return json(
            StatusCode::OK,
            &sources.secrets,
            &snapshot.status_json(alive),
        );
    }
    let page = page::render(&snapshot, alive, asks_from_here(&peer, &headers));
    let page = sources.secrets.mask_text(&page).into_owned();
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

fn json(code: StatusCode, secrets: &Secrets, value: &serde_json::Value) -> Response {
    let text = format!("{value}\n");
    let text = secrets.mask_frame(&text, false).into_owned();
    (code, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// Browsers ask for HTML by name; a program that wants JSON asks for it.
fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    accept
        .is_some_and(|accept| accept.contains("application/json") && !accept.contains("text/html"))
}

/// Whether a person at this machine asks, neither through a proxy nor through
/// a name that a web page could have pointed here. Only they see the login code:
/// whoever enters it decides to whose account this machine belongs.
fn asks_from_here(peer: &Peer, headers: &HeaderMap) -> bool {
    let proxied = ["forwarded", "x-forwarded-for", "via"]
        .iter()
        .any(|name| headers.contains_key(*name));
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok());
    let host = host.map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name));
    let local_name = matches!(host, Some("localhost" | "127.0.0.1" | "[::1]"));
    peer.is_loopback() && local_name && !proxied
}

#[cfg(test)]
mod tests;
