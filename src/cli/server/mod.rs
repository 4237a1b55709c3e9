//! `letta server`: everything is put together here, in the order of spec 01 §1.

mod assembly;
mod bridge;
mod children;
mod direct;
mod ending;
mod health;
mod identity;
mod observed;
mod schedules;
mod signals;
pub(super) mod start;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

use self::assembly::{Assembly, Place};
use self::direct::Direct;
use self::ending::{ended, quiet, told};
use self::identity::{Claim, Identity};
use self::observed::Observed;
use self::signals::Signals;
use self::start::Foundation;
use super::detach::{self, Detached};
use super::{help, notify::Notifier, usage};
use crate::config::{ServerCommand, USAGE_EXIT, parse_server};
use crate::listener::{Listener, door};
use crate::state::SettingsFiles;
use crate::state::settings_files::default_permission_mode;
use crate::telemetry::logging;
use crate::telemetry::redact::Secrets;
use crate::tools::overflow;
use crate::transport::direct::DirectParts;
use crate::transport::relay::{Relay, RelayConfig, RelayParts};

/// What follows a drain must not take longer than this.
const LAST_STEPS: Duration = Duration::from_secs(10);

/// Runs the command; `args` without `server`.
pub(super) fn main(args: Vec<OsString>) -> ExitCode {
    let flags = match parse_server(args.iter().cloned()) {
        Ok(ServerCommand::Help) => {
            say_part!("{}", help::SERVER);
            return ExitCode::SUCCESS;
        }
        Ok(ServerCommand::Run(flags)) => flags,
        Err(error) => return usage(&error.to_string(), help::SERVER),
    };
    if flags.detach {
        return detach::start(&args, &flags);
    }
    let detached = Detached::adopt();
    let direct = match flags.direct.as_ref().map(Direct::load).transpose() {
        Ok(direct) => direct,
        Err(error) => {
            complain!("Error: {error}");
            return ExitCode::from(USAGE_EXIT);
        }
    };
    let register = direct.is_none() || flags.register;
    let foundation = match Foundation::lay(&flags) {
        Ok(foundation) => foundation,
        Err(error) => {
            complain!("Error: {error:#}");
            return ExitCode::from(78);
        }
    };
    // One thread for all that waits: most of a turn is messages between tasks, and
    // each would wake another thread for less work than the waking costs. What
    // blocks or computes for long runs on threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .thread_stack_size(1024 * 1024)
        .max_blocking_threads(32)
        .thread_keep_alive(Duration::from_secs(5))
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain!("Error: the runtime could not be started: {error}");
            return ExitCode::from(78);
        }
    };
    let code = match runtime.block_on(serve(foundation, detached, direct, register)) {
        Ok(code) => code,
        Err(error) => {
            complain!("Error: {error:#}");
            78
        }
    };
    // Whatever still blocks a thread must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ExitCode::from(code)
}

/// `register`: connect to the relay; otherwise `direct` is the only door.
async fn serve(
    foundation: Foundation,
    detached: Option<Detached>,
    direct: Option<Direct>,
    register: bool,
) -> Result<u8> {
    let config = &foundation.config;
    let secrets = Secrets::default();
    logging::init(foundation.log_format(), config.debug, secrets.clone());
    let place = Place {
        cwd: std::env::current_dir().ok(),
        files: SettingsFiles::new(foundation.home.clone()),
    };
    let view = place
        .files
        .view(place.cwd.as_deref().unwrap_or(Path::new("/")));
    let mode = default_permission_mode(config.permission_mode.clone(), &view);
    let identity = Identity::of(&foundation, mode, register)?;
    let observed = Observed::start(&foundation, &identity, secrets)?;
    let Observed { log, health, .. } = &observed;
    let mut signals = Signals::catch().context("signals cannot be caught")?;
    let claim = match Claim::make(&foundation, &identity, register) {
        Ok(claim) => claim,
        Err(code) => return Ok(code),
    };

    let local = direct.is_some();
    let direct = match direct {
        Some(direct) => Some(direct.open(&observed.secrets).await?),
        None => None,
    };
    let draining = CancellationToken::new();
    let Assembly {
        services,
        credentials,
        net,
        link,
        outbound,
        injected,
        orders,
        records,
        record_writer,
    } = Assembly::build(
        &foundation,
        &identity,
        &observed,
        place,
        local,
        draining.clone(),
    )
    .await?;

    // Whole results of tools that nobody will ask for any more (04 §5.4).
    let letta_home = foundation.home.letta.clone();
    let tidy = tokio::task::spawn_blocking(move || {
        overflow::clean_up(&letta_home, SystemTime::now(), overflow::FILE_MAX_AGE)
    });

    let (door, doors) = door::channel();
    let direct_stop = CancellationToken::new();
    let mut direct = direct.map(|direct| {
        let parts = DirectParts {
            door: door.clone(),
            api: services.api.0.clone(),
            processes: services.background.clone(),
            log: log.clone(),
            draining: draining.clone(),
        };
        direct.serve(parts, direct_stop.clone())
    });
    let relay = register.then(|| {
        let authorizer =
            bridge::Authorizing::new(credentials, health.clone(), observed.secrets.clone());
        let registrar = bridge::Registering::new(
            services.api.0.clone(),
            identity.device_id.clone(),
            identity.instance.clone(),
            identity.name.clone(),
            log.clone(),
        );
        Relay::new(
            RelayConfig {
                max_offline: config.max_offline,
                ready_limit: config.stream_open_timeout,
                ..RelayConfig::new(identity.device_id.clone(), identity.name.clone())
            },
            RelayParts {
                registrar: Arc::new(registrar),
                authorizer: Arc::new(authorizer),
                log: Arc::new(bridge::Logging(log.clone())),
                door,
            },
            net.upgrade().clone(),
        )
    });
    greet(&foundation, &identity, health);
    if let Some(detached) = detached {
        detached.up();
    }
    if let Some(direct) = &direct {
        direct.greet();
        if !register {
            health.serving(&observed.notifier);
        }
    }
    health.follow(
        relay.as_ref().map(Relay::status),
        services.load.total(),
        services.load.last_error(),
        &observed.notifier,
    );

    let relay_stop = CancellationToken::new();
    let listener_stop = CancellationToken::new();
    let listener = Listener::new(Arc::clone(&services), link, records, log.clone(), orders);
    let listener = tokio::spawn(listener.run(
        doors,
        outbound,
        injected,
        draining.clone(),
        listener_stop.clone(),
    ));
    let scheduler_stop = draining.child_token();
    let scheduler = tokio::spawn(schedules::fire(
        schedules::scheduler(&services, config.cron),
        services.link.clone(),
        scheduler_stop.clone(),
    ));
    let mut relay = relay.map(|relay| tokio::spawn(relay.run(relay_stop.clone())));

    let reload = settings_reload(&foundation, &observed.notifier);
    let signalled = tokio::select! {
        ended = ended(&mut relay) => Err(ended),
        signal = signals.stop_wanted(&reload) => Ok(signal),
    };
    let code = match &signalled {
        Ok(_) => {
            observed.notifier.stopping("draining");
            health.drain();
            say!("Stopping: running tools may finish, a second signal ends at once.");
            draining.cancel();
            tokio::select! {
                () = quiet(&services) => {}
                () = tokio::time::sleep(config.drain) => {}
                _ = signals.stop_wanted(&|| {}) => return Ok(0),
            }
            0
        }
        Err(Ok(end)) => told(log, &end.exit),
        Err(Err(error)) => {
            complain!("Error: the connection failed in an unexpected way: {error}");
            75
        }
    };
    let finish = async {
        scheduler_stop.cancel();
        let _ = scheduler.await;
        listener_stop.cancel();
        // It hands over what conversations say last; then the relay sends it.
        let _ = listener.await;
        relay_stop.cancel();
        direct_stop.cancel();
        if let Some(relay) = relay.take_if(|_| code == 0) {
            let _ = relay.await;
        }
        services.hooks.shutdown().await;
        if let Some(direct) = &mut direct {
            direct.ended().await;
        }
        services.background.shutdown().await;
        services.memory.shut_down().await;
        services.remote.shutdown().await;
        record_writer.close().await;
    };
    if tokio::time::timeout(LAST_STEPS, finish).await.is_err() {
        log.line("Something did not end in time and was left behind.");
    }
    claim.release();
    log.line("Disconnected.");
    if let (Some(_), Ok(signal)) = (&direct, &signalled) {
        say!("\nStopped App Server ({signal}).");
    }
    tidy.abort();
    observed.end().await;
    Ok(code)
}

/// The first screen.
fn greet(foundation: &Foundation, identity: &Identity, health: &health::Health) {
    let mode = identity.mode.value;
    say!(
        "letta {} (protocol {})",
        super::VERSION,
        crate::protocol::reply::LETTA_CODE_VERSION
    );
    say!("Name:   {}", identity.name);
    say!("Device: {}", identity.device_id);
    say!("Server: {}", identity.base_url);
    say!("Mode:   {mode}{}", foundation.mode_note(mode));
    say!("Health: {}", health.address());
}

/// Reads the user settings again; rules and hooks are read with every call anyway.
fn settings_reload(foundation: &Foundation, notifier: &Notifier) -> impl Fn() + Sync + use<> {
    let settings = foundation.settings.clone();
    let notifier = notifier.clone();
    move || {
        notifier.reloading();
        settings.reload();
        tracing::info!("Settings were read again.");
        notifier.reloaded();
    }
}
