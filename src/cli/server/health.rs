//! Keeps what the health endpoints show in step with the relay and the
//! conversations (00 §5).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::VERSION;
use crate::cli::notify::Notifier;
use crate::config::Given;
use crate::conversation::services::TotalLoad;
use crate::protocol::PermissionMode;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::redact::Secrets;
use crate::transport::http::{
    HealthAddress, HealthServer, HealthSnapshot, HealthSources, HealthState,
};
use crate::transport::relay::{RelayState, RelayStatus};
use crate::transport::watchdog::LivenessProbe;

/// The owner of the health snapshot. Cheap to clone.
#[derive(Clone)]
pub(super) struct Health {
    snapshot: Arc<watch::Sender<HealthSnapshot>>,
    metrics: Metrics,
    address: String,
    tasks: Arc<Mutex<JoinSet<()>>>,
    stop: CancellationToken,
}

impl Health {
    /// Binds the port before anything else happens, and serves it.
    pub(super) fn start(
        address: Option<SocketAddr>,
        name: &str,
        device_id: &str,
        mode: &Given<PermissionMode>,
        metrics: Metrics,
        liveness: LivenessProbe,
        secrets: Secrets,
    ) -> Self {
        let mut snapshot = HealthSnapshot::starting(VERSION, SystemTime::now());
        snapshot.environment = name.to_owned();
        snapshot.device = Some(device_id.to_owned());
        snapshot.mode = mode.value;
        snapshot.mode_source = mode.origin.to_string();
        let (snapshot, reader) = watch::channel(snapshot);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let shown = match address {
            None => String::from("off"),
            Some(address) => {
                let (server, warning) = HealthServer::bind(&HealthAddress::At(address));
                if let Some(warning) = &warning {
                    complain!("Warning: {warning}");
                }
                match server {
                    Some(server) => {
                        let local = server.local_addr();
                        let sources = HealthSources {
                            snapshot: reader,
                            metrics: metrics.clone(),
                            liveness,
                            secrets,
                        };
                        tasks.spawn(server.serve(sources, stop.clone()));
                        format!("http://{local}/")
                    }
                    None => String::from("not available, see the warning above"),
                }
            }
        };
        Self {
            snapshot: Arc::new(snapshot),
            metrics,
            address: shown,
            tasks: Arc::new(Mutex::new(tasks)),
            stop,
        }
    }

    /// Where it can be read.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A person has to sign in.
    pub(super) fn login_required(&self, url: &str, code: &str) {
        let state = HealthState::LoginRequired {
            url: url.to_owned(),
            code: code.to_owned(),
        };
        self.snapshot
            .send_modify(|snapshot| snapshot.enter(state, SystemTime::now()));
    }

    /// The process goes down.
    pub(super) fn drain(&self) {
        self.snapshot
            .send_modify(|snapshot| snapshot.enter(HealthState::Draining, SystemTime::now()));
    }

    /// The direct door is the only one, and open.
    pub(super) fn serving(&self, notifier: &Notifier) {
        self.snapshot
            .send_modify(|snapshot| snapshot.enter(HealthState::Connected, SystemTime::now()));
        notifier.ready("listening");
    }

    /// Follows the relay, if there is one, and the conversations from now on.
    /// Called before the relay runs.
    pub(super) fn follow(
        &self,
        mut relay: Option<watch::Receiver<RelayStatus>>,
        load: watch::Receiver<TotalLoad>,
        last_error: watch::Receiver<Option<String>>,
        notifier: &Notifier,
    ) {
        // Taken here, before the relay runs: what a task that starts late finds
        // could be a state that nobody was told of yet.
        let before = relay
            .as_mut()
            .map(|relay| relay.borrow_and_update().clone());
        let (this, stop) = (self.clone(), self.stop.clone());
        let notifier = notifier.clone();
        let follow = async move {
            stop.run_until_cancelled(this.keep_up(relay, before, load, last_error, notifier))
                .await;
        };
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .spawn(follow);
    }

    async fn keep_up(
        &self,
        mut relay: Option<watch::Receiver<RelayStatus>>,
        mut before: Option<RelayStatus>,
        mut load: watch::Receiver<TotalLoad>,
        mut last_error: watch::Receiver<Option<String>>,
        notifier: Notifier,
    ) {
        let (mut ready, mut announced) = (false, false);
        loop {
            tokio::select! {
                Some(status) = changed(&mut relay) => {
                    let before = before.get_or_insert_with(|| status.clone());
                    self.on_relay(before, &status);
                    let connected = matches!(status.state, RelayState::Connected { .. });
                    if connected && !announced {
                        announced = true;
                        say!("Connected. Awaiting instructions.");
                    }
                    // A service that waits for a person or for the network has started too.
                    let waits = status.state == RelayState::LoginRequired || status.attempt > 0;
                    if !ready && (connected || waits) {
                        ready = true;
                        notifier.ready(status.state.name());
                    } else if status.state.name() != before.state.name() {
                        notifier.status(status.state.name());
                    }
                    *before = status;
                }
                Ok(()) = load.changed() => {
                    let load = *load.borrow_and_update();
                    self.metrics.set_active_turns(load.turns);
                    self.metrics.set_queue_depth(load.queued);
                    self.metrics.set_approvals_pending(load.approvals);
                    self.snapshot.send_modify(|snapshot| {
                        snapshot.active_turns = load.turns;
                        snapshot.queued = load.queued;
                        snapshot.pending_approvals = load.approvals;
                    });
                }
                Ok(()) = last_error.changed() => {
                    let error = last_error.borrow_and_update().clone();
                    self.snapshot.send_modify(|snapshot| snapshot.last_error = error);
                }
                else => return,
            }
        }
    }

    fn on_relay(&self, before: &RelayStatus, status: &RelayStatus) {
        if status.connects > before.connects {
            self.metrics.relay_opened();
        }
        let ends = |status: &RelayStatus| status.disconnects.values().sum::<u64>();
        if ends(status) > ends(before) {
            for (reason, count) in &status.disconnects {
                if before.disconnects.get(reason) != Some(count) {
                    self.metrics.relay_closed(self::reason(*reason));
                }
            }
        }
        if status.last_pong > before.last_pong {
            self.metrics.relay_ponged(SystemTime::now());
        }
        let state = match &status.state {
            RelayState::Starting => Some(HealthState::Starting),
            // The address and the code come with the prompt.
            RelayState::LoginRequired | RelayState::Ended { .. } => None,
            RelayState::Registering { .. } | RelayState::Connecting { .. }
                if status.connects == 0 =>
            {
                Some(HealthState::Connecting)
            }
            RelayState::Registering { .. }
            | RelayState::Connecting { .. }
            | RelayState::Reconnecting { .. } => Some(HealthState::Reconnecting),
            RelayState::Connected { .. } => Some(HealthState::Connected),
            RelayState::Draining => Some(HealthState::Draining),
        };
        if matches!(state, Some(HealthState::Reconnecting)) && status.attempt > before.attempt {
            self.metrics.relay_reconnecting();
        }
        self.snapshot.send_modify(|snapshot| {
            if let Some(state) = state
                && snapshot.state != HealthState::Draining
            {
                snapshot.enter(state, SystemTime::now());
            }
            snapshot.attempt = status.attempt;
            snapshot.next_retry = status.next_retry;
            snapshot.last_pong = status.last_pong;
            if status.last_error.is_some() {
                snapshot.last_error.clone_from(&status.last_error);
            }
        });
    }

    /// Ends the server and everything that follows.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }
}

/// The next status of the relay; `None` when there is no relay (any more).
async fn changed(relay: &mut Option<watch::Receiver<RelayStatus>>) -> Option<RelayStatus> {
    let relay = relay.as_mut()?;
    relay.changed().await.ok()?;
    Some(relay.borrow_and_update().clone())
}

/// The reason of a disconnect under the name of its metric.
fn reason(
    reason: crate::transport::relay::DisconnectReason,
) -> crate::telemetry::metrics::DisconnectReason {
    use crate::telemetry::metrics::DisconnectReason as Counted;
    Counted::ALL
        .iter()
        .copied()
        .find(|counted| counted.as_str() == reason.as_str())
        .unwrap_or(Counted::Network)
}
