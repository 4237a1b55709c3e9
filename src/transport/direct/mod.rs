//! The direct door: clients that dial this machine themselves (spec 02 §12).
//!
//! One port serves WebSockets, a few plain endpoints, the chat page and the
//! OpenAI-compatible API. Invariants: nothing is let in but by
//! [`admission`]; strangers take a bounded number of places for a bounded
//! time; and every client has a task that [`DirectDoor::serve`] waits for.

mod admission;
mod auth;
mod client;
mod openai;
mod page;
mod rejections;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::admission::{Admission, Endpoint, Offer, websocket_key};
use self::auth::Auth;
use self::client::Client;
use self::openai::OpenAi;
use self::page::PageDoor;
use self::rejections::Rejections;
use super::gate::{Gate, Limits, Peer, listen};
use super::socket::{CLIENT_BUFFER_BYTES, websocket};
use crate::config::{AuthSecrets, DirectFlags, ListenUrl};
use crate::listener::app_server_info;
use crate::listener::door::DoorSender;
use crate::process::Processes;
use crate::protocol::ConnectionId;
use crate::telemetry::session_log::SessionLog;

/// How much the door lets in.
const LIMITS: Limits = Limits {
    connections: 4096,
    strangers: 256,
    lifetime: Duration::from_secs(10),
};

/// A wrong token is answered only after this long: whoever guesses keeps a
/// stranger's place meanwhile.
const PENALTY: Duration = Duration::from_millis(200);

/// A bound port that nobody serves yet.
#[derive(Debug)]
pub struct DirectDoor {
    listener: TcpListener,
    local: SocketAddr,
    host: String,
    offer: Offer,
    page: Option<PageDoor>,
}

/// What the door works with.
pub struct DirectParts {
    /// Where its events go.
    pub door: DoorSender,
    /// The Letta API, for `--openai-api`.
    pub api: crate::api::Client,
    /// All children, and whether they can be confined.
    pub processes: Processes,
    /// The session log.
    pub log: SessionLog,
    /// Fires when the process stops taking work: `/readyz` says so.
    pub draining: CancellationToken,
}

/// What every request is answered from.
struct House {
    offer: Offer,
    page: Option<PageDoor>,
    openai: Option<Arc<OpenAi>>,
    parts: DirectParts,
    clients: TaskTracker,
    next: AtomicU64,
    rejections: Rejections,
    stop: CancellationToken,
}

impl DirectDoor {
    /// Binds the address of the listen URL.
    ///
    /// # Errors
    /// The host is not known, or no address of it can be had.
    pub async fn bind(flags: &DirectFlags, secrets: Option<AuthSecrets>) -> io::Result<Self> {
        let url = &flags.listen;
        let (listener, local) = bind(url).await?;
        let auth = Auth::new(secrets);
        let page = flags.ui.then(|| PageDoor::new(&url.host, &auth));
        Ok(Self {
            listener,
            local,
            host: url.host.clone(),
            offer: Offer {
                path: url.path.clone(),
                auth,
                openai: flags.openai_api,
                ui: flags.ui,
            },
            page,
        })
    }

    /// `HOST:PORT` with the port that was really bound.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.local.port())
    }

    /// Where WebSockets are opened.
    pub fn path(&self) -> &str {
        &self.offer.path
    }

    /// The token of the page's link that is good now, whenever it changes;
    /// `None` inside when the page asks for the token of `--ws-auth`, and
    /// altogether without `--ui`.
    pub fn page_links(&self) -> Option<watch::Receiver<Option<String>>> {
        self.page.as_ref().map(PageDoor::links)
    }

    /// Serves until `stop` is cancelled, then ends every client and waits for it.
    pub async fn serve(self, parts: DirectParts, stop: CancellationToken) {
        let clients = TaskTracker::new();
        let openai = self.offer.openai.then(|| {
            let (door, api) = (parts.door.clone(), parts.api.clone());
            OpenAi::new(door, api, clients.clone(), stop.clone())
        });
        let house = Arc::new(House {
            openai,
            offer: self.offer,
            page: self.page,
            parts,
            clients: clients.clone(),
            next: AtomicU64::new(0),
            rejections: Rejections::default(),
            stop: stop.clone(),
        });
        let app = Router::new()
            .fallback(answer)
            .with_state(house)
            .into_make_service_with_connect_info::<Peer>();
        let gate = Gate::new(self.listener, LIMITS);
        // This server has no way to fail: the gate retries a failed accept.
        let _ = axum::serve(gate, app)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await;
        clients.close();
        clients.wait().await;
    }
}

async fn bind(url: &ListenUrl) -> io::Result<(TcpListener, SocketAddr)> {
    let found = tokio::net::lookup_host((url.bare_host(), url.port)).await?;
    let mut addresses: Vec<SocketAddr> = found.collect();
    // `localhost` is both; clients that know one only know the older one.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match listen(address) {
            Ok(bound) => return Ok(bound),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Every request comes in here.
async fn answer(
    State(house): State<Arc<House>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    match house.offer.admit(&head) {
        Admission::Refused(status, reason) => house.refuse(&head.uri, status, reason).await,
        Admission::Unauthorised(message) => {
            house.rejected(401, message).await;
            if head.uri.path().starts_with("/v1/") {
                return openai::ApiError::unauthorised(message).response();
            }
            json_answer(401, &json!({"error": message}))
        }
        Admission::Http(Endpoint::Alive) => plain(200, "ok\n"),
        Admission::Http(Endpoint::Ready) if house.parts.draining.is_cancelled() => {
            plain(503, "draining\n")
        }
        Admission::Http(Endpoint::Ready) => plain(200, "ok\n"),
        Admission::Http(Endpoint::Info) => json_answer(
            200,
            &app_server_info(&house.parts.processes, "http-info").await,
        ),
        Admission::Http(Endpoint::Page) => match &house.page {
            Some(page) => page.page(&head.headers),
            None => empty(404, "Not Found"),
        },
        Admission::Http(Endpoint::OpenAi) => match &house.openai {
            Some(openai) => {
                peer.stay();
                openai.answer(&head, body).await
            }
            None => empty(404, "Not Found"),
        },
        Admission::Client(key) => house.welcome(&mut head, &peer, &key, None),
        Admission::Page => {
            let admitted = websocket_key(&head).and_then(|key| match &house.page {
                Some(page) => Ok((key, page.admit(&head, &house.offer.auth)?)),
                None => Err((404, "Not Found")),
            });
            match admitted {
                Ok((key, greeting)) => {
                    let mut response = house.welcome(&mut head, &peer, &key, greeting);
                    let protocol = HeaderValue::from_static(page::PROTOCOL);
                    let headers = response.headers_mut();
                    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
                    response
                }
                Err((status, reason)) => house.refuse(&head.uri, status, reason).await,
            }
        }
    }
}

impl House {
    /// Answers the handshake; the client is served once the answer is out.
    fn welcome(
        self: &Arc<Self>,
        head: &mut axum::http::request::Parts,
        peer: &Peer,
        key: &str,
        greeting: Option<String>,
    ) -> Response<Body> {
        let Some(upgrade) = head.extensions.remove::<OnUpgrade>() else {
            // HTTP/1.0, or a proxy that does not forward upgrades.
            return empty(426, "Upgrade Required");
        };
        peer.stay();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let client = Client {
            connection: ConnectionId::new(format!("app-server-{number}")),
            door: self.parts.door.clone(),
            log: self.parts.log.clone(),
            stop: self.stop.clone(),
        };
        self.clients.spawn(async move {
            // A peer that went away before the answer was out needs no service.
            let Ok(upgraded) = upgrade.await else { return };
            let wire = Box::new(TokioIo::new(upgraded));
            let socket = websocket(wire, Role::Server, CLIENT_BUFFER_BYTES).await;
            Box::pin(client.run(socket, greeting)).await;
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Ok(accept) = derive_accept_key(key.as_bytes()).parse() {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        response
    }

    async fn refuse(
        &self,
        uri: &axum::http::Uri,
        status: u16,
        reason: &'static str,
    ) -> Response<Body> {
        if status != 404 {
            tracing::debug!(path = uri.path(), status, reason, "A request was refused.");
        }
        if status == 401 || status == 403 {
            self.rejected(status, reason).await;
        }
        empty(status, reason)
    }

    /// Somebody was not let in: the person at the terminal hears of it, and the
    /// answer takes its time.
    async fn rejected(&self, status: u16, reason: &'static str) {
        if let Some(line) = self.rejections.note(status, reason) {
            tracing::warn!("{line}");
            self.parts.log.line(line);
        }
        if status == 401 {
            tokio::time::sleep(PENALTY).await;
        }
    }
}

/// Nothing but a status line whose reason says why.
pub(super) fn empty(status: u16, reason: &'static str) -> Response<Body> {
    let mut response = answered(status, Body::empty());
    if let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes()) {
        response.extensions_mut().insert(reason);
    }
    response
}

fn plain(status: u16, text: &'static str) -> Response<Body> {
    let mut response = answered(status, Body::from(text));
    let kind = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn json_answer(status: u16, value: &serde_json::Value) -> Response<Body> {
    let mut response = answered(status, Body::from(value.to_string()));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn answered(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
