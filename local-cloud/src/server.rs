//! The server: its state, its start and its end.
//!
//! Invariant: every task the cloud starts is owned by it and ends with
//! [`LocalCloud::stop`], or when the last handle is dropped.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::http::HeaderMap;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::connections::Devices;
use crate::control::Registration;
use crate::entry::entry;
use crate::fault::{Fault, Faults, Target};
use crate::letta;
use crate::letta::store::Store;
use crate::link::Frame;
use crate::log::{Log, WaitError};
use crate::net::{Peer, TapListener, Taps};
use crate::oauth::OAuth;
use crate::options::{Mode, Options, Ready};
use crate::record::Recorded;
use crate::relay::Relay;
use crate::sync::lock;
use crate::upstream::{self, Upstream};

/// Everything the handlers share.
pub(crate) struct Cloud {
    pub(crate) options: Options,
    pub(crate) faults: Faults,
    pub(crate) devices: Devices,
    pub(crate) relay: Relay,
    pub(crate) store: Store,
    pub(crate) oauth: OAuth,
    pub(crate) requests: Log<Arc<Recorded>>,
    pub(crate) registrations: Log<Arc<Registration>>,
    pub(crate) upstream: Option<Upstream>,
    mode: AtomicU8,
    ready: AtomicU8,
    pong: AtomicBool,
    api_key: Mutex<Option<String>>,
    tasks: Mutex<JoinSet<()>>,
    stop: watch::Sender<bool>,
}

const MODES: [Mode; 3] = [Mode::Single, Mode::Split, Mode::Paired];
const READY: [Ready; 5] = [
    Ready::Send,
    Ready::Omit,
    Ready::WrongGeneration,
    Ready::WrongAttempt,
    Ready::Late,
];

fn index_of<T: PartialEq>(all: &[T], one: &T) -> u8 {
    all.iter()
        .position(|item| item == one)
        .and_then(|at| u8::try_from(at).ok())
        .unwrap_or(0)
}

impl Cloud {
    fn new(options: Options) -> Result<Self, upstream::SetUpError> {
        let upstream = options.upstream.as_deref().map(Upstream::new).transpose()?;
        Ok(Self {
            faults: Faults::default(),
            devices: Devices::new(options.record_limit),
            relay: Relay::default(),
            store: Store::new(options.auto_create, &options.model_handle),
            oauth: OAuth::new(options.oauth.clone()),
            requests: Log::new(options.record_limit),
            registrations: Log::new(1 << 20),
            upstream,
            mode: AtomicU8::new(index_of(&MODES, &options.mode)),
            ready: AtomicU8::new(index_of(&READY, &options.ready)),
            pong: AtomicBool::new(options.pong),
            api_key: Mutex::new(options.api_key.clone()),
            tasks: Mutex::new(JoinSet::new()),
            stop: watch::Sender::new(false),
            options,
        })
    }

    pub(crate) fn mode(&self) -> Mode {
        MODES
            .get(usize::from(self.mode.load(Ordering::SeqCst)))
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.mode.store(index_of(&MODES, &mode), Ordering::SeqCst);
    }

    pub(crate) fn ready(&self) -> Ready {
        READY
            .get(usize::from(self.ready.load(Ordering::SeqCst)))
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn set_ready(&self, ready: Ready) {
        self.ready.store(index_of(&READY, &ready), Ordering::SeqCst);
    }

    pub(crate) fn pong(&self) -> bool {
        self.pong.load(Ordering::SeqCst)
    }

    pub(crate) fn set_pong(&self, on: bool) {
        self.pong.store(on, Ordering::SeqCst);
    }

    pub(crate) fn set_api_key(&self, key: Option<String>) {
        *lock(&self.api_key) = key;
    }

    /// Runs a task that ends with the cloud at the latest.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Resolves when the cloud stops.
    pub(crate) async fn stopped(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.stop.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// The one model of this cloud, as the models endpoint shows it.
    pub(crate) fn model_row(&self) -> Value {
        let handle = &self.options.model_handle;
        let provider = handle.split('/').next().unwrap_or_default();
        let name = handle.split('/').next_back().unwrap_or_default();
        json!({"handle": handle, "name": handle, "model": name, "display_name": "Local Model",
            "provider_type": provider, "provider_name": provider, "provider_category": "base",
            "model_endpoint_type": provider, "max_context_window": 200_000,
            "context_window": 200_000, "model_type": "llm"})
    }

    /// The curated catalog: that same model, as the default.
    pub(crate) fn catalog(&self) -> Value {
        let handle = &self.options.model_handle;
        json!([{"id": "auto", "handle": handle, "label": "Local Model", "brand": "local",
            "maxContextWindow": 200_000, "contextWindow": 200_000, "isDefault": true}])
    }

    /// Learns the agent and conversation of a frame that goes to a device.
    pub(crate) fn announce_scope(&self, connection_id: &str, frame: &Value) {
        let (agent, conversation) = if frame["type"] == "runtime_start" {
            (&frame["agent_id"], &frame["conversation_id"])
        } else {
            (
                &frame["runtime"]["agent_id"],
                &frame["runtime"]["conversation_id"],
            )
        };
        if self.upstream.is_none()
            && let Some(conversation) = conversation.as_str()
        {
            self.store
                .announce(connection_id, agent.as_str(), conversation);
        }
    }

    pub(crate) fn frame_wait_error(&self, what: &str, within: Duration) -> WaitError {
        let seen = self.devices.frames.tail(12);
        let line = |f: &Arc<Frame>| format!("link {} {:?} {}", f.link, f.channel, f.label());
        WaitError::new(what, within, seen.iter().map(line).collect())
    }

    pub(crate) fn request_wait_error(&self, what: &str, within: Duration) -> WaitError {
        let seen = self
            .requests
            .tail(12)
            .iter()
            .map(|request| request.line())
            .collect();
        WaitError::new(what, within, seen)
    }

    /// Whether a request carries the key, in its header or as this `token`.
    pub(crate) fn authorized(&self, headers: &HeaderMap, token: Option<&str>) -> bool {
        let key = lock(&self.api_key).clone();
        let Some(key) = key else { return true };
        let given = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let given = given
            .and_then(|value| value.strip_prefix("Bearer "))
            .or(token);
        given.is_some_and(|given| given == key || self.oauth.issued(given))
    }
}

/// Why a cloud could not start.
#[derive(Debug)]
pub struct StartError(String);

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// A running stand-in for Letta Cloud. Dropping it ends everything it started.
pub struct LocalCloud {
    pub(crate) cloud: Arc<Cloud>,
    address: SocketAddr,
    taps: Taps,
    server: tokio::task::JoinHandle<()>,
}

impl LocalCloud {
    /// Listens and serves.
    ///
    /// # Errors
    /// The address is taken, or the upstream URL is none.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let wanted = SocketAddr::new(options.bind, options.port);
        let listener = TcpListener::bind(wanted)
            .await
            .map_err(|error| StartError(format!("cannot listen on {wanted}: {error}")))?;
        let address = listener
            .local_addr()
            .map_err(|error| StartError(format!("cannot read the listening address: {error}")))?;
        let cloud = Cloud::new(options).map_err(|error| StartError(error.to_string()))?;
        let cloud = Arc::new(cloud);
        let taps = Taps::default();
        let app = Router::new()
            .fallback(entry)
            .with_state(cloud.clone())
            .into_make_service_with_connect_info::<Peer>();
        let listener = TapListener {
            listener,
            taps: taps.clone(),
        };
        let server = tokio::spawn(async move {
            // `axum::serve` only returns when its task is aborted.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self {
            cloud,
            address,
            taps,
            server,
        })
    }

    /// `http://127.0.0.1:<port>`, what `LETTA_BASE_URL` is to be.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends every connection and task, and waits for the tasks. (Those of sockets
    /// end by themselves when their connection is cut.)
    pub async fn stop(self) {
        self.end();
        let mut tasks = std::mem::take(&mut *lock(&self.cloud.tasks));
        tasks.shutdown().await;
    }

    fn end(&self) {
        self.cloud.stop.send_replace(true);
        self.server.abort();
        self.taps.cut_all();
        lock(&self.cloud.tasks).abort_all();
    }

    /// Queues a fault for the first request that fits `target`.
    pub fn fail_next(&self, target: Target, fault: Fault) {
        self.cloud.faults.queue(target, fault);
    }

    /// Queues a fault for the next message POST of any conversation.
    pub fn fail_next_message(&self, fault: Fault) {
        self.fail_next(Target::Message, fault);
    }

    /// Queues a fault for the next message POST of this conversation
    /// (`conv-…`, or `default:<agent>`).
    pub fn fail_next_message_of(&self, conversation: &str, fault: Fault) {
        let conversation = conversation.to_owned();
        self.fail_next(Target::MessageOf { conversation }, fault);
    }

    /// Queues a fault for the next registration.
    pub fn fail_next_registration(&self, fault: Fault) {
        self.fail_next(Target::Register, fault);
    }

    /// Queues a fault for the next upgrade of a device socket.
    pub fn fail_next_upgrade(&self, fault: Fault) {
        self.fail_next(Target::Upgrade, fault);
    }

    /// Queues a fault for the next HTTP request whose `METHOD /path` contains `part`.
    pub fn fail_next_request(&self, part: &str, fault: Fault) {
        self.fail_next(
            Target::Path {
                contains: part.to_owned(),
            },
            fault,
        );
    }

    /// Forgets every queued fault.
    pub fn clear_faults(&self) {
        self.cloud.faults.clear();
    }

    /// How many queued faults have not been used.
    pub fn faults_left(&self) -> usize {
        self.cloud.faults.left()
    }

    /// The connection mode offered from the next registration on.
    pub fn set_mode(&self, mode: Mode) {
        self.cloud.set_mode(mode);
    }

    /// What happens to `listener_ready` from the next socket on.
    pub fn set_ready(&self, ready: Ready) {
        self.cloud.set_ready(ready);
    }

    /// Whether pings of devices are answered.
    pub fn set_pong(&self, on: bool) {
        self.cloud.set_pong(on);
    }

    /// The key that API calls need from now on (besides tokens that the login
    /// endpoints issued), or none.
    pub fn set_api_key(&self, key: Option<&str>) {
        self.cloud.set_api_key(key.map(str::to_owned));
    }

    /// The body of an answer the API would give to `GET path`, for tests that look
    /// at what the cloud remembers.
    pub async fn api_get(&self, path_and_query: &str) -> Value {
        let Ok(uri) = path_and_query.parse::<axum::http::Uri>() else {
            return Value::Null;
        };
        let request = Arc::new(Recorded {
            method: "GET".to_owned(),
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            at: Instant::now(),
        });
        let peer = Peer(Arc::default());
        let response = letta::dispatch(&self.cloud, &peer, &uri, &request, None).await;
        let body = to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap_or_default();
        serde_json::from_slice(&body).unwrap_or(Value::Null)
    }
}

impl Drop for LocalCloud {
    fn drop(&mut self) {
        self.end();
    }
}
