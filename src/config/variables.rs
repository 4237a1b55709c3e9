//! Every environment variable that the program reads, as data.
//!
//! [`Config::read`](super::Config::read) asks for these names and no others; a
//! test holds both this table and `docs/configuration.md` against it.

/// One environment variable, as `docs/configuration.md` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What holds when it is not set, as people read it.
    pub default: &'static str,
    /// One or two sentences.
    pub meaning: &'static str,
}

const fn var(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable {
        name,
        default,
        meaning,
    }
}

/// Every variable, grouped by what it is about.
pub const VARIABLES: &[Variable] = &[
    // Credentials and servers.
    var(
        "LETTA_API_KEY",
        "saved login",
        "API key. Beats every other credential; nothing is refreshed then.",
    ),
    var(
        "LETTA_API_KEY_FILE",
        "none",
        "File that holds the API key. Read when LETTA_API_KEY is not set.",
    ),
    var(
        "CREDENTIALS_DIRECTORY",
        "none",
        "Set by systemd; the file letta-api-key in it is read when neither of the two above is set.",
    ),
    var(
        "LETTA_BASE_URL",
        "https://api.letta.com",
        "The Letta server.",
    ),
    var(
        "LETTA_SETTINGS_BASE_URL",
        "LETTA_BASE_URL",
        "Key under which settings per server are kept; not the server that is called.",
    ),
    var(
        "LETTA_OAUTH_URL",
        "https://app.letta.com",
        "Host of the browser login, for private clouds and tests.",
    ),
    var(
        "LETTA_REQUEST_TIMEOUT_MS",
        "600000",
        "Limit of one API request in milliseconds.",
    ),
    var(
        "HTTPS_PROXY",
        "none",
        "Proxy for https and wss URLs. The lower-case name works too.",
    ),
    var(
        "HTTP_PROXY",
        "none",
        "Proxy for http and ws URLs. The lower-case name works too.",
    ),
    var(
        "NO_PROXY",
        "none",
        "Hosts that are reached without a proxy. The lower-case name works too.",
    ),
    var(
        "SSL_CERT_FILE",
        "none",
        "PEM file with certificate authorities to trust beside the built-in ones.",
    ),
    var("SSL_CERT_DIR", "none", "Directory of such PEM files."),
    var(
        "LETTA_EXTRA_CA_FILE",
        "none",
        "One more PEM file of the same kind, so that SSL_CERT_FILE can stay as the system set it.",
    ),
    // This machine.
    var(
        "LETTA_ENV_NAME",
        "saved name or hostname",
        "Name under which this machine appears. --env-name wins over it.",
    ),
    var(
        "ENV_NAME",
        "LETTA_ENV_NAME",
        "The same, read when LETTA_ENV_NAME is not set.",
    ),
    var(
        "LETTA_LISTENER_INSTANCE_ID",
        "made from the name",
        "Identity that a parent process gives. Skips the single-instance lock. Ignored when malformed; hidden from children.",
    ),
    var(
        "LETTA_LISTENER_DEVICE_ID",
        "deviceId of settings.json",
        "Device identity that a parent process gives; nothing is stored then. A malformed one ends the start; hidden from children.",
    ),
    var(
        "LETTA_RUNTIME_ENVIRONMENT_DEVICE_ID",
        "the device id",
        "Device named in API requests, when it differs.",
    ),
    var(
        "HOME",
        "the user's entry in /etc/passwd",
        "Parent of the .letta directory.",
    ),
    var(
        "LETTA_HOME",
        "$HOME/.letta",
        "Moves the schedules and the global skill links, nothing else.",
    ),
    var(
        "XDG_CONFIG_HOME",
        "$HOME/.config",
        "Parent of letta/settings.json, an old place of permission rules.",
    ),
    var(
        "USER_CWD",
        "the process's directory",
        "Working directory of conversations that have none of their own, if it is usable.",
    ),
    var("LETTA_SKILLS_DIRECTORY", "none", "Default of --skills."),
    var(
        "LETTA_MEMORY_DIR",
        "MEMORY_DIR",
        "Directory whose skills serve agents without a memory directory on this machine.",
    ),
    var("MEMORY_DIR", "none", "Default of LETTA_MEMORY_DIR."),
    var(
        "LETTA_MEMFS_BASE_URL",
        "https://api.letta.com",
        "Server of the git repositories that hold agents' memories.",
    ),
    var(
        "LETTA_MEMFS_BACKEND",
        "none",
        "hosted adds the header x-letta-memfs-backend to requests and git.",
    ),
    var(
        "LETTA_MEMFS_LOCAL",
        "0",
        "1 treats the server like Letta Cloud: its catalogue of models, memories as git repositories.",
    ),
    var(
        "LETTA_MEMORY_CONSTRAINTS_UPDATE",
        "0",
        "1 lets a commit to a memory change .memfs.config.json.",
    ),
    // Permissions and tools.
    var(
        "LETTA_PERMISSION_MODE",
        "settings files, else unrestricted",
        "Mode of conversations that have none of their own. --permission-mode wins over it.",
    ),
    var(
        "LETTA_DISABLE_PERMISSION_WATCHERS",
        "0",
        "Accepted, without effect: rules are read again for each check, nothing is watched.",
    ),
    var(
        "LETTA_TOOL_ENV_SCRUB",
        "0",
        "1 keeps the API key and the credentials directory from commands that agents run.",
    ),
    var(
        "LETTA_TOOL_OVERFLOW_TO_FILE",
        "true",
        "false stops writing the whole of a cut tool output to a file.",
    ),
    var(
        "SHELL",
        "/bin/bash, then others",
        "Shell for commands and terminals.",
    ),
    // Connection and life.
    var(
        "RAILWAY_VOLUME_MOUNT_PATH",
        "none",
        "Set by Railway: the volume takes the place of HOME, for agents' commands too.",
    ),
    var(
        "LETTA_MAX_OFFLINE",
        "never",
        "Exit with status 69 after this long without a connection: 90s, 5m, 2h, 3d.",
    ),
    var(
        "LETTA_DRAIN_SECONDS",
        "20",
        "Seconds that a running tool gets to finish after SIGTERM.",
    ),
    var(
        "LETTA_LISTENER_STREAM_OPEN_TIMEOUT_MS",
        "30000",
        "Limit for opening a connection's sockets in milliseconds. Ignored when not a positive number.",
    ),
    var(
        "LETTA_STREAM_TERMINAL_EOF_GRACE_MS",
        "2000",
        "Wait for the end of a finished answer stream. Ignored when not a positive number.",
    ),
    var(
        "LETTA_STREAM_STALL_RECONCILE_MS",
        "60000",
        "Silence after which a running answer stream is checked. Ignored when not a positive number.",
    ),
    var(
        "LETTA_STREAM_STALL_STATUS_TIMEOUT_MS",
        "5000",
        "Limit of that check. Ignored when not a positive number.",
    ),
    var(
        "LETTA_DISABLE_CRON_SCHEDULER",
        "0",
        "1 keeps this process from firing schedules.",
    ),
    var(
        "LETTA_CRON_SCHEDULER_SCOPE",
        "all",
        "cloud or local fires only schedules of that kind; any other value means all.",
    ),
    // Health and logs.
    var(
        "LETTA_HEALTH_ADDR",
        "127.0.0.1:8080",
        "Address of the health and metrics endpoints, or off. Wins over PORT.",
    ),
    var(
        "PORT",
        "none",
        "Set by hosting platforms: health and metrics on this port of every interface.",
    ),
    var(
        "LETTA_LOG_FORMAT",
        "auto",
        "auto, text or json. auto is text on a terminal and json elsewhere.",
    ),
    var(
        "LETTA_LOG_FRAMES",
        "on",
        "off keeps WebSocket frames out of the session log.",
    ),
    var(
        "LETTA_LOG_WS_EVENTS",
        "0",
        "1 writes frames into the session log uncut.",
    ),
    var(
        "LETTA_DEBUG",
        "0",
        "1 or true gives extra diagnostics; --debug sets it.",
    ),
    var(
        "DEBUG",
        "0",
        "The same as LETTA_DEBUG, for 1 and true only.",
    ),
    var(
        "LETTA_DEBUG_FILE",
        "stderr",
        "File that gets the diagnostics instead.",
    ),
    // Known to the published program.
    var(
        "IGNORE_SELF_HOSTED_LISTENER_ERROR",
        "0",
        "Accepted, without effect: every server is registered with.",
    ),
    var(
        "LETTA_SKIP_KEYCHAIN_CHECK",
        "0",
        "Accepted, without effect: no system keychain is used.",
    ),
];

/// Lower-case spellings that are read where the upper-case one is not set.
pub(super) const LOWER_CASE_TOO: &[&str] = &["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"];
