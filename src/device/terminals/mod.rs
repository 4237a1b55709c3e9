//! Terminals for people: `terminal_spawn`, `_input`, `_resize`, `_kill` (06 §5).
//!
//! [`Terminals`] knows the live ones by connection and id; each is a
//! [`session`] of its own. Invariants: a connection reaches its own terminals
//! only, and they end with it.

mod output;
mod session;

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, timeout};

use self::session::{Order, Session};
use super::call::{Call, push};
use crate::conversation::Services;
use crate::process::pty::WindowSize;
use crate::protocol::ConnectionId;
use crate::protocol::fields::{Fields, ShapeError};

/// A second spawn or a kill within this time is a page that mounts twice.
pub(super) const YOUNG: Duration = Duration::from_millis(2000);
/// Terminals of one connection.
const MAX_TERMINALS: usize = 32;
/// How long terminals may take to end when the process does.
const LAST_WORDS: Duration = Duration::from_secs(2);

type Key = (ConnectionId, String);

/// All terminals.
#[derive(Debug)]
pub(super) struct Terminals {
    services: Arc<Services>,
    live: HashMap<Key, Terminal>,
    sessions: JoinSet<()>,
}

#[derive(Debug)]
struct Terminal {
    session: Id,
    /// Without it the session ends.
    orders: mpsc::UnboundedSender<Order>,
    born: Instant,
}

impl Terminals {
    pub(super) fn new(services: Arc<Services>) -> Self {
        Self {
            services,
            live: HashMap::new(),
            sessions: JoinSet::new(),
        }
    }

    /// Forgets sessions that ended. Never completes without one.
    pub(super) async fn tend(&mut self) {
        let Some(ended) = self.sessions.join_next_with_id().await else {
            return pending().await;
        };
        let ended = match &ended {
            Ok((id, ())) => *id,
            Err(error) => {
                tracing::error!(%error, "A terminal ended in an unexpected way.");
                error.id()
            }
        };
        self.live.retain(|_, terminal| terminal.session != ended);
    }

    /// A connection is gone: its terminals are killed.
    pub(super) fn close(&mut self, connection: &ConnectionId) {
        self.live.retain(|(owner, _), _| owner != connection);
    }

    /// What a connection owned belongs to another now.
    pub(super) fn move_to(&mut self, old: &ConnectionId, new: &ConnectionId) {
        let live = std::mem::take(&mut self.live);
        for ((owner, id), terminal) in live {
            let owner = if owner == *old {
                let _ = terminal.orders.send(Order::Move(new.clone()));
                new.clone()
            } else {
                owner
            };
            self.live.insert((owner, id), terminal);
        }
    }

    /// Kills all and waits until they are gone.
    pub(super) async fn shut_down(mut self) {
        self.live.clear();
        let ended = async { while self.sessions.join_next().await.is_some() {} };
        // What is left then dies with its owner.
        let _ = timeout(LAST_WORDS, ended).await;
    }

    /// Gives an order to a terminal; one that is not there is none (06 §5).
    fn order(&self, call: &Call, id: String, order: Order) {
        let key = (call.request.from.clone(), id);
        if let Some(terminal) = self.live.get(&key) {
            let _ = terminal.orders.send(order);
        }
    }

    fn spawn(&mut self, key: Key, cwd: Option<String>, size: WindowSize) {
        if let Some(terminal) = self.live.get(&key)
            && terminal.born.elapsed() < YOUNG
            && terminal.orders.send(Order::Greet).is_ok()
        {
            return;
        }
        // An older one goes without a word.
        self.live.remove(&key);
        let (owner, id) = &key;
        let owned = self.live.keys().filter(|(other, _)| other == owner);
        if owned.count() >= MAX_TERMINALS {
            let error = format!(
                "There are {MAX_TERMINALS} terminals open already. Close one before opening another."
            );
            return push(&self.services, owner, &failed(id, &error));
        }
        let cwd = cwd.map_or_else(|| self.services.remote.boot_cwd(), Into::into);
        let (orders, inbox) = mpsc::unbounded_channel();
        let session = Session {
            services: Arc::clone(&self.services),
            owner: owner.clone(),
            id: id.clone(),
            orders: inbox,
        };
        let session = self.sessions.spawn(Box::pin(session.run(cwd, size))).id();
        let terminal = Terminal {
            session,
            orders,
            born: Instant::now(),
        };
        self.live.insert(key, terminal);
    }
}

/// `terminal_exited` of a terminal that could not be had.
fn failed(id: &str, error: &str) -> Value {
    json!({"type": "terminal_exited", "terminal_id": id, "exitCode": 1, "error": error})
}

/// Opens a terminal, or finds the one that was just opened.
pub(super) fn spawn(terminals: &mut Terminals, mut call: Call) {
    let id = match call.fields.string("terminal_id") {
        Ok(id) => id,
        Err(error) => return call.fail(&error.to_string()),
    };
    match size(&mut call.fields) {
        Ok(size) => {
            let cwd = call.fields.lenient_string("cwd");
            terminals.spawn((call.request.from, id), cwd, size);
        }
        // This is how a client hears of a terminal that it does not get.
        Err(error) => {
            let frame = failed(&id, &error.to_string());
            push(call.services(), &call.request.from, &frame);
        }
    }
}

/// Types into a terminal.
pub(super) fn input(terminals: &mut Terminals, mut call: Call) {
    let fields = &mut call.fields;
    match fields
        .string("terminal_id")
        .and_then(|id| Ok((id, fields.string("data")?)))
    {
        Ok((id, data)) => terminals.order(&call, id, Order::Type(data)),
        Err(error) => call.fail(&error.to_string()),
    }
}

/// Gives a terminal another size.
pub(super) fn resize(terminals: &mut Terminals, mut call: Call) {
    let fields = &mut call.fields;
    match fields
        .string("terminal_id")
        .and_then(|id| Ok((id, size(fields)?)))
    {
        Ok((id, size)) => terminals.order(&call, id, Order::Resize(size)),
        Err(error) => call.fail(&error.to_string()),
    }
}

/// Kills a terminal, unless it is young.
pub(super) fn kill(terminals: &mut Terminals, mut call: Call) {
    let id = match call.fields.string("terminal_id") {
        Ok(id) => id,
        Err(error) => return call.fail(&error.to_string()),
    };
    let key = (call.request.from, id);
    let old = |terminal: &Terminal| terminal.born.elapsed() >= YOUNG;
    if terminals.live.get(&key).is_some_and(old) {
        terminals.live.remove(&key);
    }
}

fn size(fields: &mut Fields) -> Result<WindowSize, ShapeError> {
    let mut side = |name, default| {
        let count = fields.count(name)?;
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        Ok::<_, ShapeError>(if count == 0 { default } else { count })
    };
    let default = WindowSize::default();
    Ok(WindowSize {
        cols: side("cols", default.cols)?,
        rows: side("rows", default.rows)?,
    })
}
