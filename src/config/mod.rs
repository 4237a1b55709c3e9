//! Every flag and environment variable, read once into one [`Config`]
//! (spec 01 §2.2, §3; 00 §5).
//!
//! Nothing below `cli` asks the environment itself: it gets the values it
//! needs from here, already checked and typed. The environment is an injected
//! lookup, so tests feed a map and never touch the process.
//! `docs/configuration.md` is held against [`FLAGS`] and [`VARIABLES`] by a test.

mod direct;
mod duration;
mod environment;
mod flags;
mod health;
mod secret;
mod variables;

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use direct::{AuthFlags, AuthSecrets, DirectError, DirectFlags, ListenUrl, TokenSource};
pub use duration::{DURATION_FORMS, parse_duration};
pub use flags::{
    FLAGS, Flag, ServerCommand, ServerFlags, USAGE_EXIT, UsageError, parse_server, strip_backend,
};
pub use health::DEFAULT_HEALTH_ADDR;
pub use secret::Secret;
pub use variables::{VARIABLES, Variable};

use self::environment::{Environment, is_identity};
use crate::protocol::PermissionMode;

/// The server of Letta Cloud.
pub const CLOUD_URL: &str = "https://api.letta.com";

/// The host of the browser login of Letta Cloud.
pub const CLOUD_OAUTH_URL: &str = "https://app.letta.com";

/// Everything that was said on the command line and in the environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// The key and where else it may stand.
    pub credentials: CredentialSources,
    /// `LETTA_BASE_URL` without blanks and trailing slashes. When `None`, the
    /// saved settings and then [`CLOUD_URL`] decide (01 §5.1).
    pub base_url: Option<String>,
    /// Overrides the server's name in per-server settings.
    pub settings_base_url: Option<String>,
    /// Host of the login endpoints, without trailing slash.
    pub oauth_url: String,
    /// Limit of one API request.
    pub request_timeout: Duration,
    /// Proxies.
    pub proxies: Proxies,
    /// Certificate authorities beside the built-in ones.
    pub extra_roots: ExtraRoots,
    /// The name given by flag or environment, and whether it is to be saved.
    pub name: Option<Given<String>>,
    /// A valid `LETTA_LISTENER_INSTANCE_ID`.
    pub listener_instance_id: Option<String>,
    /// `LETTA_LISTENER_DEVICE_ID`.
    pub listener_device_id: Option<String>,
    /// `LETTA_RUNTIME_ENVIRONMENT_DEVICE_ID`.
    pub runtime_device_id: Option<String>,
    /// `RAILWAY_VOLUME_MOUNT_PATH`, else `HOME`; absolute.
    pub home: Option<PathBuf>,
    /// `LETTA_HOME`.
    pub letta_home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`, absolute.
    pub xdg_config_home: Option<PathBuf>,
    /// `USER_CWD`.
    pub user_cwd: Option<PathBuf>,
    /// `--skills`, else `LETTA_SKILLS_DIRECTORY`.
    pub skills_directory: Option<PathBuf>,
    /// `LETTA_MEMORY_DIR`, else `MEMORY_DIR`.
    pub memory_directory: Option<PathBuf>,
    /// Repositories of memories.
    pub memfs: Memfs,
    /// The mode given by flag or environment.
    pub permission_mode: Option<Given<PermissionMode>>,
    /// Whether commands of agents must not see credentials.
    pub tool_env_scrub: bool,
    /// Whether cut tool output is kept whole in a file.
    pub tool_overflow_to_file: bool,
    /// `SHELL`.
    pub shell: Option<PathBuf>,
    /// After this long offline the process gives up; `None` is never.
    pub max_offline: Option<Duration>,
    /// How long a running tool may finish after SIGTERM.
    pub drain: Duration,
    /// Limit for opening the sockets of a connection.
    pub stream_open_timeout: Duration,
    /// Guards of answer streams.
    pub stream_guards: StreamGuards,
    /// Whether this process fires schedules, and which.
    pub cron: CronScope,
    /// Where the health endpoints listen; `None` is off.
    pub health_addr: Option<SocketAddr>,
    /// Form of the process's own log.
    pub log_format: LogFormat,
    /// How frames go into the session log.
    pub frame_log: FrameLog,
    /// `--debug` or `LETTA_DEBUG`: extra diagnostics.
    pub debug: bool,
    /// `--debug` alone: it also changes the console output (01 §2.6).
    pub debug_output: bool,
    /// `LETTA_DEBUG_FILE`.
    pub debug_file: Option<PathBuf>,
}

/// Where an API key may come from, in this order; see [`crate::credentials`].
#[derive(Clone, Debug, Default)]
pub struct CredentialSources {
    /// `LETTA_API_KEY`, non-empty.
    pub api_key: Option<Secret>,
    /// `LETTA_API_KEY_FILE`.
    pub api_key_file: Option<PathBuf>,
    /// `CREDENTIALS_DIRECTORY`.
    pub credentials_directory: Option<PathBuf>,
}

/// Where the memories of agents are kept (06 §6.1).
#[derive(Clone, Debug, Default)]
pub struct Memfs {
    /// `LETTA_MEMFS_BASE_URL` without trailing slashes.
    pub server: Option<String>,
    /// `LETTA_MEMFS_BACKEND=hosted`.
    pub hosted: bool,
    /// `LETTA_MEMFS_LOCAL=1`: the server counts as Letta Cloud.
    pub local: bool,
    /// `LETTA_MEMORY_CONSTRAINTS_UPDATE=1`: the limits of a memory may change.
    pub constraints_may_change: bool,
}

/// Proxy settings. The URLs are secrets: they may carry a password.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For https and wss.
    pub https: Option<Secret>,
    /// For http and ws.
    pub http: Option<Secret>,
    /// Hosts without proxy, comma separated.
    pub none_for: Option<String>,
}

/// Files with further certificate authorities, PEM.
#[derive(Clone, Debug, Default)]
pub struct ExtraRoots {
    /// `SSL_CERT_FILE`.
    pub cert_file: Option<PathBuf>,
    /// `SSL_CERT_DIR`.
    pub cert_dir: Option<PathBuf>,
    /// `LETTA_EXTRA_CA_FILE`.
    pub extra_file: Option<PathBuf>,
}

/// Guards of answer streams (03 §5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamGuards {
    /// Wait for the end of a stream that already said why it stopped.
    pub terminal_eof: Duration,
    /// Silence before a running stream is checked.
    pub stall: Duration,
    /// Limit of that check.
    pub stall_status: Duration,
}

/// Which schedules this process fires (07 §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CronScope {
    /// None: `LETTA_DISABLE_CRON_SCHEDULER=1`.
    Off,
    /// Every task.
    All,
    /// Tasks of cloud agents.
    Cloud,
    /// Tasks of local agents.
    Local,
}

/// Form of the process's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How WebSocket frames go into the session log (00 §1 row 13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameLog {
    /// Not at all.
    Off,
    /// Bodies cut.
    Cut,
    /// Whole bodies.
    Whole,
}

/// Where a value came from, for banners and status pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The flag of this name.
    Flag(&'static str),
    /// The environment variable of this name.
    Environment(&'static str),
    /// A settings file.
    File(PathBuf),
    /// Nothing said otherwise.
    BuiltIn,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Environment(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::BuiltIn => f.write_str("built-in default"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Its source.
    pub origin: Origin,
}

/// Every value of the environment that cannot be used, one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(Vec<String>);

impl ConfigError {
    /// The exit code for it (00 §5).
    pub const EXIT: u8 = 78;
}

impl Config {
    /// Reads the environment through `lookup` and lays `flags` over it.
    ///
    /// # Errors
    /// Names every variable with an unusable value, that value, and what would
    /// be accepted. Values that may be secret are not repeated.
    pub fn read(
        flags: &ServerFlags,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let mut env = Environment {
            lookup: &lookup,
            problems: Vec::new(),
        };
        let debug_variable = env.is_one_or_true("LETTA_DEBUG") || env.is_one_or_true("DEBUG");
        let uncut = env.switch("LETTA_LOG_WS_EVENTS", false);
        // Accepted, without effect (see the table): asked for all the same, so that
        // the table stays the list of what this program knows.
        for ignored in [
            "IGNORE_SELF_HOSTED_LISTENER_ERROR",
            "LETTA_SKIP_KEYCHAIN_CHECK",
            "LETTA_DISABLE_PERMISSION_WATCHERS",
        ] {
            let _ = env.raw(ignored);
        }
        let config = Self {
            credentials: CredentialSources {
                api_key: env.secret("LETTA_API_KEY"),
                api_key_file: env.path("LETTA_API_KEY_FILE"),
                credentials_directory: env.path("CREDENTIALS_DIRECTORY"),
            },
            base_url: env.url("LETTA_BASE_URL"),
            settings_base_url: env.url("LETTA_SETTINGS_BASE_URL"),
            oauth_url: env
                .url("LETTA_OAUTH_URL")
                .unwrap_or_else(|| CLOUD_OAUTH_URL.to_owned()),
            request_timeout: env.millis("LETTA_REQUEST_TIMEOUT_MS", 600_000),
            proxies: Proxies {
                https: env.secret("HTTPS_PROXY"),
                http: env.secret("HTTP_PROXY"),
                none_for: env.text("NO_PROXY"),
            },
            extra_roots: ExtraRoots {
                cert_file: env.path("SSL_CERT_FILE"),
                cert_dir: env.path("SSL_CERT_DIR"),
                extra_file: env.path("LETTA_EXTRA_CA_FILE"),
            },
            name: env.name(flags),
            listener_instance_id: env
                .text("LETTA_LISTENER_INSTANCE_ID")
                .filter(|id| is_identity(id)),
            listener_device_id: env.device_id("LETTA_LISTENER_DEVICE_ID"),
            runtime_device_id: env.text("LETTA_RUNTIME_ENVIRONMENT_DEVICE_ID"),
            home: {
                let (volume, home) = (env.path("RAILWAY_VOLUME_MOUNT_PATH"), env.path("HOME"));
                let absolute = |path: &PathBuf| path.is_absolute();
                volume.filter(absolute).or(home.filter(absolute))
            },
            letta_home: env.path("LETTA_HOME"),
            xdg_config_home: env.path("XDG_CONFIG_HOME").filter(|dir| dir.is_absolute()),
            user_cwd: env.path("USER_CWD"),
            skills_directory: {
                let variable = env.path("LETTA_SKILLS_DIRECTORY");
                flags.skills.clone().or(variable)
            },
            memory_directory: env.path("LETTA_MEMORY_DIR").or(env.path("MEMORY_DIR")),
            memfs: Memfs {
                server: env
                    .text("LETTA_MEMFS_BASE_URL")
                    .map(|url| url.trim().trim_end_matches('/').to_owned()),
                hosted: env.text("LETTA_MEMFS_BACKEND").as_deref() == Some("hosted"),
                local: env.is_one_or_true("LETTA_MEMFS_LOCAL"),
                constraints_may_change: env.is_one_or_true("LETTA_MEMORY_CONSTRAINTS_UPDATE"),
            },
            permission_mode: env.permission_mode(flags),
            tool_env_scrub: env.switch("LETTA_TOOL_ENV_SCRUB", false),
            tool_overflow_to_file: env.switch("LETTA_TOOL_OVERFLOW_TO_FILE", true),
            shell: env.path("SHELL"),
            max_offline: env.checked("LETTA_MAX_OFFLINE", DURATION_FORMS, |text| {
                parse_duration(text).filter(|limit| !limit.is_zero())
            }),
            drain: env
                .checked(
                    "LETTA_DRAIN_SECONDS",
                    "whole seconds such as 20, or a duration such as 20s or 5m",
                    |text| {
                        duration::whole_number(text)
                            .map(Duration::from_secs)
                            .or_else(|| parse_duration(text))
                    },
                )
                .unwrap_or(Duration::from_secs(20)),
            stream_open_timeout: env.millis("LETTA_LISTENER_STREAM_OPEN_TIMEOUT_MS", 30_000),
            stream_guards: StreamGuards {
                terminal_eof: env.millis("LETTA_STREAM_TERMINAL_EOF_GRACE_MS", 2_000),
                stall: env.millis("LETTA_STREAM_STALL_RECONCILE_MS", 60_000),
                stall_status: env.millis("LETTA_STREAM_STALL_STATUS_TIMEOUT_MS", 5_000),
            },
            cron: env.cron(),
            health_addr: env.health_addr(),
            log_format: env
                .checked(
                    "LETTA_LOG_FORMAT",
                    "auto, text or json",
                    |text| match text {
                        "auto" => Some(LogFormat::Auto),
                        "text" => Some(LogFormat::Text),
                        "json" => Some(LogFormat::Json),
                        _ => None,
                    },
                )
                .unwrap_or(LogFormat::Auto),
            frame_log: match (env.switch("LETTA_LOG_FRAMES", true), uncut) {
                (false, _) => FrameLog::Off,
                (true, true) => FrameLog::Whole,
                (true, false) => FrameLog::Cut,
            },
            debug: flags.debug || debug_variable,
            debug_output: flags.debug,
            debug_file: env.path("LETTA_DEBUG_FILE"),
        };
        if env.problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError(env.problems))
        }
    }

    /// Variables that a child must not inherit: they identify this process
    /// alone. Whoever starts a child removes them from its environment, since
    /// the environment of a running process cannot be changed safely.
    pub fn hidden_from_children(&self) -> &'static [&'static str] {
        if self.tool_env_scrub {
            &[
                "LETTA_LISTENER_INSTANCE_ID",
                "LETTA_LISTENER_DEVICE_ID",
                "LETTA_API_KEY",
                "LETTA_API_KEY_FILE",
                "CREDENTIALS_DIRECTORY",
            ]
        } else {
            &["LETTA_LISTENER_INSTANCE_ID", "LETTA_LISTENER_DEVICE_ID"]
        }
    }

    /// Variables that a child gets beside the inherited ones (01 §3).
    pub fn added_for_children(&self) -> Vec<(&'static str, &str)> {
        self.listener_device_id
            .iter()
            .map(|id| ("LETTA_RUNTIME_ENVIRONMENT_DEVICE_ID", id.as_str()))
            .collect()
    }
}

#[cfg(test)]
mod tests;
