//! The commands that are not about a turn: files, git, terminals, models,
//! agents, skills, schedules, settings (spec 06).
//!
//! [`Device`] is one task with a mailbox. It owns what outlives a command
//! (terminals, watches) and every command that runs. Invariant: each command
//! ends in exactly one answer, whatever goes wrong in it, and none holds up
//! another or a frame of a conversation.

mod agents;
mod call;
mod channels;
mod conversations;
mod create_agent;
mod cron;
mod directories;
mod files;
mod git;
mod memory;
mod memory_write;
mod models;
mod presets;
mod providers;
mod route;
mod secrets;
mod settings;
mod skills;
mod terminals;
#[cfg(test)]
mod tests;
mod toolsets;
mod update_model;
mod watches;
mod work;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use self::call::Call;
pub use self::call::Request;
use self::route::Handler;
use self::terminals::Terminals;
use self::watches::Watches;
use self::work::Lanes;
use crate::conversation::Services;
use crate::protocol::ConnectionId;

/// What the device is told.
#[derive(Debug)]
pub enum Message {
    /// A command of a client.
    Command(Request),
    /// A connection took the place of another: what the old one owned is its own now (00 §8).
    Replaced {
        /// The one that is gone.
        old: ConnectionId,
        /// The one that goes on.
        new: ConnectionId,
    },
    /// A connection dropped and may come back (02 §11.1).
    Closed(ConnectionId),
    /// A connection ended for good: what it owned ends with it (02 §11.2).
    Gone(ConnectionId),
}

/// The owner of the task: tells it, and ends it.
#[derive(Debug)]
pub struct Device {
    mailbox: mpsc::UnboundedSender<Message>,
    task: JoinHandle<()>,
}

impl Device {
    /// Starts the task.
    pub fn start(services: Arc<Services>) -> Self {
        let (mailbox, inbox) = mpsc::unbounded_channel();
        let actor = Actor {
            terminals: Terminals::new(Arc::clone(&services)),
            watches: Watches::new(Arc::clone(&services)),
            shared: Arc::new(Shared {
                services,
                lanes: Lanes::default(),
                secret_turns: Mutex::default(),
            }),
            jobs: JoinSet::new(),
        };
        Self {
            mailbox,
            task: tokio::spawn(actor.run(inbox)),
        }
    }

    /// Hands it a message.
    pub fn tell(&self, message: Message) {
        // The task ends only with its owner.
        let _ = self.mailbox.send(message);
    }

    /// Ends every command and everything that it owns.
    pub async fn shut_down(self) {
        drop(self.mailbox);
        let _ = self.task.await;
    }
}

/// What all commands share.
#[derive(Debug)]
struct Shared {
    services: Arc<Services>,
    lanes: Lanes,
    /// Who may change the secrets of an agent: one command at a time.
    secret_turns: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Shared {
    /// The queue of those who want to change the secrets of an agent.
    fn turn_of(&self, agent_id: &str) -> Arc<Semaphore> {
        let turns = self.secret_turns.lock();
        let mut turns = turns.unwrap_or_else(PoisonError::into_inner);
        // Nobody is at it any more when only this map knows it.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        let turn = turns.entry(agent_id.to_owned());
        Arc::clone(turn.or_insert_with(|| Arc::new(Semaphore::new(1))))
    }
}

struct Actor {
    shared: Arc<Shared>,
    jobs: JoinSet<()>,
    terminals: Terminals,
    watches: Watches,
}

impl Actor {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.on(message),
                    None => break,
                },
                Some(_done) = self.jobs.join_next(), if !self.jobs.is_empty() => {}
                () = self.terminals.tend() => {}
            }
        }
        self.jobs.shutdown().await;
        self.watches.shut_down().await;
        self.terminals.shut_down().await;
    }

    fn on(&mut self, message: Message) {
        match message {
            Message::Command(request) => self.on_command(request),
            Message::Replaced { old, new } => {
                self.terminals.move_to(&old, &new);
                self.watches.move_to(old, new);
            }
            Message::Closed(connection) | Message::Gone(connection) => {
                self.terminals.close(&connection);
                self.watches.close(connection);
            }
        }
    }

    fn on_command(&mut self, request: Request) {
        let call = Call::new(Arc::clone(&self.shared), request);
        if call.route.needs_id() && call.request.request_id.is_none() {
            tracing::debug!(
                command = call.route.name,
                "A command without a request id was not carried out."
            );
            return;
        }
        match call.route.handler {
            Handler::Job(job) | Handler::DeclineWith(job) => {
                self.jobs.spawn(call.answered_by(job));
            }
            Handler::Writer(job) => {
                self.jobs.spawn(call.written_by(job));
            }
            Handler::Terminal(handler) => handler(&mut self.terminals, call),
            Handler::Watch(handler) => handler(&mut self.watches, call),
            Handler::Decline(reason) => call.fail(reason),
        }
    }
}
