//! What tells how this server is: logs, the session log, metrics, the health
//! port, the watchdog (01 §9, 00 §5).
//!
//! Invariant: all of it stands before anything is connected, and goes last.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::health::Health;
use super::identity::Identity;
use super::start::Foundation;
use crate::cli::VERSION;
use crate::cli::notify::Notifier;
use crate::config::FrameLog;
use crate::telemetry::last_words;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::redact::Secrets;
use crate::telemetry::session_log::{FrameLogging, SessionLog, SessionLogOptions};
use crate::tools::toolset;
use crate::transport::watchdog::{self, STUCK_AFTER, Watchdog};

/// How long the last lines of the session log may take.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The observers.
pub(super) struct Observed {
    pub(super) secrets: Secrets,
    pub(super) notifier: Notifier,
    pub(super) log: SessionLog,
    pub(super) metrics: Metrics,
    pub(super) health: Health,
    _watchdog: Watchdog,
    pulse: JoinHandle<()>,
    stop: CancellationToken,
}

impl Observed {
    /// Starts them; `secrets` are masked by all. A panic is heard from here on.
    ///
    /// # Errors
    /// There can be no watchdog.
    pub(super) fn start(
        foundation: &Foundation,
        identity: &Identity,
        secrets: Secrets,
    ) -> Result<Self> {
        let config = &foundation.config;
        let log = SessionLog::open(SessionLogOptions {
            frames: match config.frame_log {
                FrameLog::Off => FrameLogging::Off,
                FrameLog::Cut => FrameLogging::Cut,
                FrameLog::Whole => FrameLogging::Whole,
            },
            echo: config
                .debug_output
                .then(|| Box::new(std::io::stdout()) as Box<_>),
            ..SessionLogOptions::new(foundation.home.logs(), SystemTime::now(), secrets.clone())
        });
        say!("Log file: {}", log.path().display());
        last_words::end_on_panic(Some(log.clone()), secrets.clone());

        let notifier = Notifier::from_env(|name| std::env::var(name).ok());
        let feed = notifier.watchdog_interval().map(|every| {
            let notifier = notifier.clone();
            watchdog::Feed {
                every,
                send: Box::new(move || notifier.watchdog()),
            }
        });
        let (watchdog, pulse) =
            Watchdog::start(STUCK_AFTER, feed, watchdog::end_process(log.clone()))
                .context("the watchdog could not be started")?;
        let stop = CancellationToken::new();
        let pulse = tokio::spawn(pulse.run(stop.clone()));

        let metrics = Metrics::new(VERSION, toolset::bundled());
        let health = Health::start(
            config.health_addr,
            &identity.name,
            &identity.device_id,
            &identity.mode,
            metrics.clone(),
            watchdog.probe(),
            secrets.clone(),
        );
        log.line(format!("Session started (debug={})", config.debug_output));
        log.line(format!("deviceId: {}", identity.device_id));
        log.line(format!("connectionName: {}", identity.name));
        Ok(Self {
            secrets,
            notifier,
            log,
            metrics,
            health,
            _watchdog: watchdog,
            pulse,
            stop,
        })
    }

    /// Ends them; nothing else runs any more.
    pub(super) async fn end(self) {
        self.health.stop().await;
        self.stop.cancel();
        let _ = self.pulse.await;
        self.log.flush(LAST_LINES);
    }
}
