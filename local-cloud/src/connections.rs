//! The connections of devices, and everything that came over them.
//!
//! A *connection* is what registration made (`conn-…`). Invariant: it has at
//! most one link; a newer one ends the older silently (spec 01 §6).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::link::{Channel, Closed, Frame, Hello, Link, Socket};
use crate::log::Log;
use crate::options::Mode;
use crate::sync::lock;

/// What registration made.
pub(crate) struct Connection {
    pub(crate) id: String,
    pub(crate) device_id: String,
    pub(crate) instance_id: String,
    pub(crate) name: String,
    pub(crate) metadata: Value,
    pub(crate) registered_ms: i64,
    pub(crate) heartbeat_ms: i64,
    pub(crate) link: Option<Arc<Link>>,
    mode: Mode,
}

/// All connections and everything their devices sent.
pub(crate) struct Devices {
    connections: Mutex<Vec<Connection>>,
    links: AtomicU64,
    pub(crate) frames: Log<Arc<Frame>>,
    pub(crate) opened: Log<Arc<Link>>,
    pub(crate) closed: Log<Arc<Closed>>,
}

impl Devices {
    pub(crate) fn new(record_limit: usize) -> Self {
        Self {
            connections: Mutex::default(),
            links: AtomicU64::new(0),
            frames: Log::new(record_limit),
            opened: Log::new(1 << 16),
            closed: Log::new(1 << 16),
        }
    }

    /// Adds a connection; an older one of the same device and instance is replaced.
    pub(crate) fn register(&self, body: &Value, mode: Mode) -> (String, Vec<String>) {
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let now = crate::now_ms();
        let connection = Connection {
            id: format!("conn-{}", crate::short_id()),
            device_id: text("deviceId"),
            instance_id: text("listenerInstanceId"),
            name: text("connectionName"),
            metadata: body["metadata"].clone(),
            registered_ms: now,
            heartbeat_ms: now,
            link: None,
            mode,
        };
        let id = connection.id.clone();
        let mut all = lock(&self.connections);
        let mut replaced = Vec::new();
        all.retain(|old| {
            let same =
                old.device_id == connection.device_id && old.instance_id == connection.instance_id;
            if same {
                if let Some(link) = &old.link {
                    link.close_all(1000, "Replaced by new connection");
                }
                replaced.push(old.id.clone());
            }
            !same
        });
        all.push(connection);
        (id, replaced)
    }

    /// Reads the connections, newest last.
    pub(crate) fn read<R>(&self, f: impl FnOnce(&[Connection]) -> R) -> R {
        f(&lock(&self.connections))
    }

    pub(crate) fn link_of(&self, connection_id: &str) -> Option<Arc<Link>> {
        self.read(|all| all.iter().find(|c| c.id == connection_id)?.link.clone())
    }

    /// The newest connection's newest open link.
    pub(crate) fn newest_open(&self) -> Option<Arc<Link>> {
        self.read(|all| {
            all.iter()
                .filter_map(|c| c.link.clone())
                .filter(|link| link.open.load(Ordering::SeqCst))
                .max_by_key(|link| link.number)
        })
    }

    /// Whether a device with these query values has registered.
    pub(crate) fn knows(&self, device_id: &str, name: &str) -> bool {
        self.read(|all| {
            all.iter()
                .any(|c| c.device_id == device_id && c.name == name)
        })
    }

    /// Joins a socket to the link it belongs to, or begins a new link.
    pub(crate) fn attach(
        &self,
        hello: &Hello,
        channel: Channel,
        socket: Socket,
    ) -> Option<Arc<Link>> {
        let mut all = lock(&self.connections);
        let connection = all
            .iter_mut()
            .rev()
            .find(|c| c.device_id == hello.device_id && c.name == hello.name)?;
        let joins = connection.link.as_ref().is_some_and(|link| {
            let sockets = lock(&link.sockets);
            link.generation == hello.generation
                && channel != Channel::Single
                && !sockets.contains_key(&Channel::Single)
                && !sockets.contains_key(&channel)
                && !sockets.is_empty()
                && !link.open.load(Ordering::SeqCst)
                && !link.ended.load(Ordering::SeqCst)
        });
        if !joins {
            if let Some(old) = connection.link.take() {
                old.cut();
            }
            connection.link = Some(Arc::new(Link {
                number: self.links.fetch_add(1, Ordering::SeqCst) + 1,
                connection_id: connection.id.clone(),
                generation: hello.generation.clone(),
                paired: connection.mode == Mode::Paired,
                pong: AtomicBool::new(true),
                open: AtomicBool::new(false),
                ended: AtomicBool::new(false),
                opened_at: self.frames.end(),
                sockets: Mutex::default(),
            }));
        }
        connection.heartbeat_ms = crate::now_ms();
        let link = connection.link.clone()?;
        lock(&link.sockets).insert(channel, socket);
        Some(link)
    }

    pub(crate) fn detach(&self, link: &Arc<Link>, channel: Channel) {
        link.end();
        lock(&link.sockets).remove(&channel);
        let mut all = lock(&self.connections);
        for connection in all.iter_mut() {
            let is_it = connection
                .link
                .as_ref()
                .is_some_and(|l| Arc::ptr_eq(l, link));
            if is_it && lock(&link.sockets).is_empty() {
                connection.link = None;
            }
        }
    }

    pub(crate) fn heartbeat(&self, connection_id: &str) {
        let mut all = lock(&self.connections);
        if let Some(connection) = all.iter_mut().find(|c| c.id == connection_id) {
            connection.heartbeat_ms = crate::now_ms();
        }
    }
}
