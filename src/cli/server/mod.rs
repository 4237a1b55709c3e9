//! `letta server`: everything is put together here, in the order of spec 01 §1.

mod bridge;
mod children;
mod direct;
mod ending;
mod health;
mod schedules;
mod signals;
pub(super) mod start;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::children::processes;
use self::direct::Direct;
use self::ending::{ended, quiet, told};
use self::signals::Signals;
use self::start::Foundation;
use super::detach::{self, Detached};
use super::{help, notify::Notifier, usage};
use crate::api::models::Models;
use crate::config::{FrameLog, ServerCommand, USAGE_EXIT, parse_server};
use crate::conversation::services::{ApiHandle, Loads, Meter};
use crate::conversation::{AgentFacts, Catalogs, GitContexts, Guards, Link, Services};
use crate::cron::store::Store;
use crate::events::EventSink;
use crate::hooks::Hooks;
use crate::listener::{Listener, door};
use crate::protocol::{ConnectionId, PermissionMode};
use crate::skills::Skills;
use crate::state::instance_lock::{InstanceLock, InstanceLockError, InstanceScope};
use crate::state::interrupted::{InterruptedStore, InterruptedTurns};
use crate::state::pid_file::PidFile;
use crate::state::remote_settings::{RemoteDefaults, RemoteSettings};
use crate::state::settings_files::default_permission_mode;
use crate::subagents::Desk;
use crate::telemetry::last_words;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::redact::Secrets;
use crate::telemetry::session_log::{FrameLogging, SessionLog, SessionLogOptions};
use crate::tools::image::Images;
use crate::tools::{Controllers, Toolbox, command_tools, file_tools, overflow, plan_tools};
use crate::transport::direct::DirectParts;
use crate::transport::relay::{Relay, RelayConfig, RelayParts};
use crate::transport::watchdog::{self, Watchdog};

/// After this long without a tick the process ends itself.
const STUCK: Duration = Duration::from_secs(30);
/// What follows a drain must not take longer than this.
const LAST_STEPS: Duration = Duration::from_secs(10);

/// Runs the command; `args` without `server`.
pub(super) fn main(args: Vec<OsString>) -> ExitCode {
    let flags = match parse_server(args.iter().cloned()) {
        Ok(ServerCommand::Help) => {
            print!("{}", help::SERVER);
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
            eprintln!("Error: {error}");
            return ExitCode::from(USAGE_EXIT);
        }
    };
    let register = direct.is_none() || flags.register;
    let foundation = match Foundation::lay(&flags) {
        Ok(foundation) => foundation,
        Err(error) => {
            eprintln!("Error: {error:#}");
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
            eprintln!("Error: the runtime could not be started: {error}");
            return ExitCode::from(78);
        }
    };
    let code = match runtime.block_on(serve(foundation, detached, direct, register)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error:#}");
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
    let Foundation {
        config,
        home,
        settings,
        ..
    } = &foundation;
    let secrets = Secrets::default();
    crate::telemetry::logging::init(foundation.log_format(), config.debug, secrets.clone());
    let notifier = Notifier::from_env(|name| std::env::var(name).ok());
    let files = crate::state::SettingsFiles::new(home.clone());
    let process_cwd = std::env::current_dir().ok();
    let view = files.view(process_cwd.as_deref().unwrap_or(std::path::Path::new("/")));
    let mode = default_permission_mode(config.permission_mode.clone(), &view);

    let name = if register {
        foundation.name_or_ask()
    } else {
        start::hostname()
    };
    let log = SessionLog::open(SessionLogOptions {
        frames: match config.frame_log {
            FrameLog::Off => FrameLogging::Off,
            FrameLog::Cut => FrameLogging::Cut,
            FrameLog::Whole => FrameLogging::Whole,
        },
        echo: config
            .debug_output
            .then(|| Box::new(std::io::stdout()) as Box<_>),
        ..SessionLogOptions::new(home.logs(), SystemTime::now(), secrets.clone())
    });
    println!("Log file: {}", log.path().display());
    last_words::end_on_panic(Some(log.clone()), secrets.clone());
    let (watchdog, pulse) = Watchdog::start(
        STUCK,
        notifier.watchdog_interval().map(|every| {
            let notifier = notifier.clone();
            watchdog::Feed {
                every,
                send: Box::new(move || notifier.watchdog()),
            }
        }),
        watchdog::end_process(log.clone()),
    )
    .context("the watchdog could not be started")?;
    let mut signals = Signals::catch().context("signals cannot be caught")?;
    let stop = CancellationToken::new();
    let pulse = tokio::spawn(pulse.run(stop.clone()));

    let device_id = foundation.device_id()?;
    let metrics = Metrics::new(super::VERSION, TOOL_NAMES);
    let health = health::Health::start(
        config.health_addr,
        &name,
        &device_id,
        &mode,
        metrics.clone(),
        watchdog.probe(),
        secrets.clone(),
    );
    log.line(format!("Session started (debug={})", config.debug_output));
    log.line(format!("deviceId: {device_id}"));
    log.line(format!("connectionName: {name}"));

    let base_url = foundation.base_url();
    let (credentials, net) = foundation.credentials(&name)?;
    let instance = foundation.instance_id(&name);
    let lock = if config.listener_instance_id.is_some() || !register {
        None
    } else {
        let scope = InstanceScope {
            server_url: &base_url,
            device_id: &device_id,
            instance_id: &instance,
        };
        match InstanceLock::acquire(home, scope) {
            Ok(lock) => Some(lock),
            Err(error @ InstanceLockError::AlreadyRunning { .. }) => {
                eprintln!("Error: {name:?} is already running on this machine: {error}");
                return Ok(69);
            }
            Err(error) => {
                eprintln!("Error: Could not establish listener ownership: {error}");
                return Ok(78);
            }
        }
    };

    let pid_file = PidFile::claim(home, &instance, &name).unwrap_or_else(|error| {
        eprintln!("Warning: `letta stop` will not find this server: {error}");
        None
    });

    let remote = RemoteSettings::open(
        home,
        RemoteDefaults {
            mode: mode.value,
            user_cwd: config.user_cwd.clone(),
            process_cwd: process_cwd.clone(),
        },
    )
    .await;
    let records = InterruptedStore::new(home, &base_url);
    let (interrupted, record_writer) = InterruptedTurns::start(records.clone());
    let (events, outbound) = EventSink::channel();
    let (inject, injected) = mpsc::unbounded_channel();
    let local = direct.is_some();
    let (link, link_reader) = watch::channel(Link {
        connection: local.then(|| ConnectionId::new("app-server")),
        name: name.clone(),
        open: local,
        local,
    });
    let direct = match direct {
        Some(direct) => Some(direct.open(&secrets).await?),
        None => None,
    };
    let draining = CancellationToken::new();
    let processes = processes(&foundation, &device_id);
    let api = foundation.api(&base_url, &credentials, &net, &device_id)?;
    let cloud = api.base_url().is_cloud() || config.memfs.local;
    let memory = foundation.memory(&credentials);
    let skills = Skills::with_memory(
        home.clone(),
        config.skills_directory.clone(),
        config.memory_directory.clone(),
    );
    let hooks = Hooks::new(
        files.clone(),
        processes.clone(),
        api.clone(),
        home.letta.clone(),
    );
    let (desk, orders) = Desk::channel();
    let services = Arc::new(Services {
        desk,
        cloud,
        models: Models::new(cloud, home.letta.join("cache/model-catalog.json")),
        skills: skills.clone(),
        memory: memory.clone(),
        api: ApiHandle(api),
        hooks: hooks.clone(),
        remote: remote.clone(),
        settings: settings.clone(),
        settings_files: files,
        interrupted,
        toolbox: Toolbox::new(
            command_tools()
                .into_iter()
                .chain(file_tools(skills, &memory))
                .chain(plan_tools(&remote, &home.plans())),
        ),
        controllers: Controllers::new(events.clone()),
        background: processes.clone(),
        metrics: Meter(metrics.clone()),
        events,
        inject,
        link: link_reader,
        agents: AgentFacts::default(),
        git: GitContexts::default(),
        response_states: Default::default(),
        images: Images::default(),
        guards: Guards {
            terminal_grace: config.stream_guards.terminal_eof,
            stall: config.stream_guards.stall,
            stall_lookup: config.stream_guards.stall_status,
        },
        credential_files: foundation.credential_files(),
        no_skills: serde_json::value::to_raw_value(&[(); 0])?.into(),
        catalogs: Catalogs::new()?,
        schedules: Store::new(home),
        home: home.clone(),
        draining: draining.clone(),
        load: Loads::default(),
    });

    // Whole results of tools that nobody will ask for any more (04 §5.4).
    let letta_home = home.letta.clone();
    let tidy = tokio::task::spawn_blocking(move || {
        overflow::clean_up(&letta_home, SystemTime::now(), overflow::FILE_MAX_AGE)
    });

    let (door, doors) = door::channel();
    let direct_stop = CancellationToken::new();
    let mut direct = direct.map(|direct| {
        let parts = DirectParts {
            door: door.clone(),
            api: services.api.0.clone(),
            processes: processes.clone(),
            log: log.clone(),
            draining: draining.clone(),
        };
        direct.serve(parts, direct_stop.clone())
    });
    let relay = register.then(|| {
        Relay::new(
            RelayConfig {
                max_offline: config.max_offline,
                ready_limit: config.stream_open_timeout,
                ..RelayConfig::new(device_id.clone(), name.clone())
            },
            RelayParts {
                registrar: Arc::new(bridge::Registering::new(
                    services.api.0.clone(),
                    device_id.clone(),
                    instance,
                    name.clone(),
                    log.clone(),
                )),
                authorizer: Arc::new(bridge::Authorizing::new(
                    credentials,
                    health.clone(),
                    secrets.clone(),
                )),
                log: Arc::new(bridge::Logging(log.clone())),
                door,
            },
            net.upgrade().clone(),
        )
    });
    greet(
        &foundation,
        &name,
        &device_id,
        &base_url,
        &mode.value,
        &health,
    );
    if let Some(detached) = detached {
        detached.up();
    }
    if let Some(direct) = &direct {
        direct.greet();
        if !register {
            health.serving(&notifier);
        }
    }
    health.follow(
        relay.as_ref().map(Relay::status),
        services.load.total(),
        services.load.last_error(),
        &notifier,
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

    let reload = settings_reload(&foundation, &notifier);
    let signalled = tokio::select! {
        ended = ended(&mut relay) => Err(ended),
        signal = signals.stop_wanted(&reload) => Ok(signal),
    };
    let code = match &signalled {
        Ok(_) => {
            notifier.stopping("draining");
            health.drain();
            println!("Stopping: running tools may finish, a second signal ends at once.");
            draining.cancel();
            tokio::select! {
                () = quiet(&services) => {}
                () = tokio::time::sleep(config.drain) => {}
                _ = signals.stop_wanted(&|| {}) => return Ok(0),
            }
            0
        }
        Err(ended) => match ended {
            Ok(end) => told(&log, &end.exit),
            Err(error) => {
                eprintln!("Error: the connection failed in an unexpected way: {error}");
                75
            }
        },
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
        hooks.shutdown().await;
        if let Some(direct) = &mut direct {
            direct.ended().await;
        }
        processes.shutdown().await;
        memory.shut_down().await;
        remote.shutdown().await;
        record_writer.close().await;
    };
    if tokio::time::timeout(LAST_STEPS, finish).await.is_err() {
        log.line("Something did not end in time and was left behind.");
    }
    if let Some(lock) = lock
        && let Err(error) = lock.release()
    {
        eprintln!("Warning: the instance lock could not be removed: {error}");
    }
    drop(pid_file);
    log.line("Disconnected.");
    if let (Some(_), Ok(signal)) = (&direct, &signalled) {
        println!("\nStopped App Server ({signal}).");
    }
    health.stop().await;
    stop.cancel();
    let _ = pulse.await;
    tidy.abort();
    log.flush(Duration::from_secs(1));
    Ok(code)
}

/// Names of tools that get a label of their own in the metrics.
const TOOL_NAMES: [&str; 17] = [
    "Agent",
    "Bash",
    "Read",
    "Write",
    "Edit",
    "MultiEdit",
    "Grep",
    "Glob",
    "TaskStop",
    "KillBash",
    "exec_command",
    "write_stdin",
    "shell_command",
    "shell",
    "SetWorkingDirectory",
    "grep_files",
    "ShellCommand",
];

/// The first screen.
fn greet(
    foundation: &Foundation,
    name: &str,
    device_id: &str,
    server: &str,
    mode: &PermissionMode,
    health: &health::Health,
) {
    println!(
        "letta {} (protocol {})",
        super::VERSION,
        crate::protocol::reply::LETTA_CODE_VERSION
    );
    println!("Name:   {name}");
    println!("Device: {device_id}");
    println!("Server: {server}");
    println!("Mode:   {mode}{}", foundation.mode_note(*mode));
    println!("Health: {}", health.address());
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
