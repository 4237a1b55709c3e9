//! One terminal: a shell on a PTY, from its start to its end.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::output::Gathered;
use crate::conversation::Services;
use crate::device::call::push;
use crate::events::Outbound;
use crate::process::Launch;
use crate::process::group::Group;
use crate::process::pty::{Master, WindowSize};
use crate::process::spawn::{Output, Spawned};
use crate::protocol::ConnectionId;

/// What a hung-up shell gets before it is killed (06 §5).
const GRACE: Duration = Duration::from_secs(1);
/// What an ended shell's last output gets, in all and for each read.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_millis(100);
/// How long starting a shell may take.
const START: Duration = Duration::from_secs(9);
/// Typed bytes that may wait for a program that does not read.
const MAX_TYPED: usize = 1024 * 1024;
/// Read at once.
const PIECE: usize = 16 * 1024;

/// What a terminal is told. When nobody is left to tell it anything, it is killed.
#[derive(Debug)]
pub(super) enum Order {
    /// Show the prompt again and say `terminal_spawned` once more.
    Greet,
    Type(String),
    Resize(WindowSize),
    /// Another connection owns it now.
    Move(ConnectionId),
}

/// A terminal about to start.
pub(super) struct Session {
    pub(super) services: Arc<Services>,
    pub(super) owner: ConnectionId,
    pub(super) id: String,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
}

/// A terminal that runs.
struct Running {
    session: Session,
    child: Child,
    group: Group,
    master: Master,
    output: Gathered,
    typed: VecDeque<u8>,
}

/// Why a terminal stopped running.
enum End {
    /// It was killed, or its connection is gone.
    Killed,
    /// The shell ended.
    Exited(ExitStatus),
}

impl Session {
    pub(super) async fn run(self, cwd: PathBuf, size: WindowSize) {
        match self.start(cwd, size).await {
            Ok((child, group, master)) => {
                let running = Running {
                    session: self,
                    child,
                    group,
                    master,
                    output: Gathered::new(),
                    typed: VecDeque::new(),
                };
                running.run().await;
            }
            Err(error) => {
                let frame = super::failed(&self.id, &error);
                push(&self.services, &self.owner, &frame);
            }
        }
    }

    /// Off the runtime: the directory may lie on a dead mount.
    async fn start(
        &self,
        cwd: PathBuf,
        size: WindowSize,
    ) -> Result<(Child, Group, Master), String> {
        let processes = self.services.background.clone();
        let launch = Launch {
            argv: vec![processes.shells().interactive().into()],
            cwd,
            env: processes.base().for_terminal(),
            terminal: Some(size),
        };
        let spawned = tokio::task::spawn_blocking(move || processes.spawn(&launch));
        match timeout(START, spawned).await {
            Ok(Ok(Ok(Spawned {
                child,
                group,
                output: Output::Terminal(master),
            }))) => Ok((child, group, master)),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Ok(Ok(_)) | Err(_)) => Err("The terminal could not be opened.".to_owned()),
            Err(_) => Err(format!(
                "The terminal could not be opened within {} s.",
                START.as_secs()
            )),
        }
    }
}

impl Running {
    async fn run(mut self) {
        self.greet();
        match self.serve().await {
            End::Killed => self.kill().await,
            End::Exited(status) => self.exited(status).await,
        }
    }

    async fn serve(&mut self) -> End {
        let mut piece = vec![0; PIECE];
        let mut at_end = false;
        loop {
            let front = self.typed.as_slices().0;
            tokio::select! {
                order = self.session.orders.recv() => match order {
                    Some(order) => self.on(order),
                    None => return End::Killed,
                },
                status = self.child.wait() => return match status {
                    Ok(status) => End::Exited(status),
                    Err(_) => End::Killed,
                },
                permit = self.output.due() => self.send(permit),
                written = self.master.write(front), if !front.is_empty() => match written {
                    Ok(written) => drop(self.typed.drain(..written)),
                    // Nobody reads: what was typed is lost, as on a closed terminal.
                    Err(_) => self.typed.clear(),
                },
                read = self.master.read(&mut piece), if self.output.has_room() && !at_end => match read {
                    // The shell closed its terminal; its end comes as an exit.
                    Ok(0) | Err(_) => at_end = true,
                    Ok(read) => self.output.add(&piece[..read]),
                },
            }
        }
    }

    fn on(&mut self, order: Order) {
        match order {
            Order::Greet => {
                self.typed.push_back(b'\r');
                self.greet();
            }
            Order::Type(data) => {
                if self.typed.len() + data.len() <= MAX_TYPED {
                    self.typed.extend(data.into_bytes());
                } else {
                    tracing::warn!("A terminal whose program does not read lost what was typed.");
                }
            }
            // A terminal that cannot be resized keeps its size.
            Order::Resize(size) => drop(self.master.resize(size)),
            Order::Move(owner) => self.session.owner = owner,
        }
    }

    fn greet(&self) {
        let Session {
            services,
            owner,
            id,
            ..
        } = &self.session;
        let frame = json!({"type": "terminal_spawned", "terminal_id": id, "pid": self.group.id()});
        push(services, owner, &frame);
    }

    fn send(&mut self, permit: tokio::sync::OwnedSemaphorePermit) {
        self.session.services.events.send(Outbound::Paced {
            to: self.session.owner.clone(),
            body: self.output.take(&self.session.id),
            permit,
        });
    }

    /// The shell ended by itself: its last output, then its exit code.
    async fn exited(mut self, status: ExitStatus) {
        // Who spawns it now gets another.
        self.session.orders.close();
        let mut piece = vec![0; PIECE];
        let until = Instant::now() + LAST_OUTPUT;
        // A job that it left behind may hold the terminal open for ever.
        while Instant::now() < until {
            if !self.output.has_room() && !self.flush(until).await {
                break;
            }
            match timeout(QUIET, self.master.read(&mut piece)).await {
                Ok(Ok(read)) if read > 0 => self.output.add(&piece[..read]),
                _ => break,
            }
        }
        self.output.finish();
        if !self.output.is_empty() {
            self.flush(until + LAST_OUTPUT).await;
        }
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let Session {
            services,
            owner,
            id,
            ..
        } = &self.session;
        let frame = json!({"type": "terminal_exited", "terminal_id": id, "exitCode": code});
        push(services, owner, &frame);
    }

    /// Sends what was gathered, before `until` or not at all.
    async fn flush(&mut self, until: Instant) -> bool {
        let due = tokio::time::timeout_at(until, self.output.due()).await;
        match due {
            Ok(permit) => {
                self.send(permit);
                true
            }
            Err(_) => false,
        }
    }

    /// Hangs up: SIGHUP for everything on the terminal, SIGKILL a second later.
    async fn kill(mut self) {
        self.group.signal(Signal::HUP);
        drop(self.master);
        let ended = timeout(GRACE, async {
            let _ = self.child.wait().await;
            while self.group.is_populated() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if ended.await.is_err() {
            self.group.signal(Signal::KILL);
            let _ = self.child.wait().await;
        }
    }
}
