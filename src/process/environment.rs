//! The environment of a child (04 §6.2, 00 §6).
//!
//! Invariant: identities that a parent process gave the listener never reach
//! a child, and with `LETTA_TOOL_ENV_SCRUB=1` neither does the listener's own
//! credential.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::protocol::Scope;

/// Variables that tell a child what it is: by name, with their values.
pub type Variables = BTreeMap<OsString, OsString>;

/// Addressed to the listener alone (01 §3), the service manager's among them: a
/// child that answers in our name would end or keep the service wrongly.
const HIDDEN: [&str; 5] = [
    "LETTA_LISTENER_INSTANCE_ID",
    "LETTA_LISTENER_DEVICE_ID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Where the listener's key can be read.
const CREDENTIALS: [&str; 3] = [
    "LETTA_API_KEY",
    "LETTA_API_KEY_FILE",
    "CREDENTIALS_DIRECTORY",
];

/// What decides how long texts are shown.
const PAGERS: [&str; 3] = ["PAGER", "GIT_PAGER", "MANPAGER"];

/// Known to the cloud by `conn-`; direct clients have no connection there.
const HOSTED_CONNECTION: &str = "conn-";

/// What every child of this process gets.
#[derive(Clone)]
pub struct BaseEnvironment {
    vars: Arc<Variables>,
    /// The pagers that people chose; commands of tools must not page.
    pagers: Arc<Variables>,
    scrub: bool,
}

impl fmt::Debug for BaseEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BaseEnvironment")
            .field("scrub", &self.scrub)
            .finish_non_exhaustive()
    }
}

/// What a turn adds. Holds a key, so it is never printed whole.
#[derive(Clone, Default)]
pub struct TurnFacts {
    /// The agent's name, if known.
    pub agent_name: Option<Arc<str>>,
    /// The connection that started the turn.
    pub connection_id: Option<Arc<str>>,
    /// The agent's memory directory, when it has one in git.
    pub memory_dir: Option<PathBuf>,
    /// What a launch sets or, without a value, takes away.
    pub launched: Vec<(&'static str, Option<String>)>,
    /// The key to the Letta API, unless the environment has one.
    pub api_key: Option<Arc<str>>,
    /// The URL of the Letta API, unless the environment has one.
    pub base_url: Option<Arc<str>>,
}

impl fmt::Debug for TurnFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnFacts")
            .field("agent_name", &self.agent_name)
            .field("connection_id", &self.connection_id)
            .field("memory_dir", &self.memory_dir)
            .field("api_key", &self.api_key.as_ref().map(|_| "<hidden>"))
            .field("base_url", &self.base_url)
            .finish()
    }
}

impl BaseEnvironment {
    /// From the listener's own variables. `binary` is this program, `shim` the
    /// directory that [`install_shim`] filled (if it could).
    pub fn new(
        mut vars: Variables,
        binary: &Path,
        shim: Option<&Path>,
        device_id: Option<&str>,
    ) -> Self {
        let scrub = vars
            .get(OsStr::new("LETTA_TOOL_ENV_SCRUB"))
            .is_some_and(|value| value == "1");
        for name in HIDDEN {
            vars.remove(OsStr::new(name));
        }
        if scrub {
            for name in CREDENTIALS {
                vars.remove(OsStr::new(name));
            }
        }
        let mut pagers = Variables::new();
        for name in PAGERS {
            if let Some(chosen) = vars.insert(name.into(), "cat".into()) {
                pagers.insert(name.into(), chosen);
            }
        }
        vars.entry("TERM".into())
            .or_insert_with(|| "xterm-256color".into());
        vars.insert("LETTA_CODE_BIN".into(), binary.into());
        vars.insert("LETTA_CODE_BIN_ARGS_JSON".into(), "[]".into());
        if let Some(device) = device_id {
            vars.insert("LETTA_RUNTIME_ENVIRONMENT_DEVICE_ID".into(), device.into());
        }
        if let Some(shim) = shim {
            let path = match vars.get(OsStr::new("PATH")) {
                Some(path) if !path.is_empty() => {
                    let mut joined = shim.as_os_str().to_owned();
                    joined.push(":");
                    joined.push(path);
                    joined
                }
                _ => {
                    let mut default = shim.as_os_str().to_owned();
                    default.push(":/usr/local/bin:/usr/bin:/bin");
                    default
                }
            };
            vars.insert("PATH".into(), path);
        }
        Self {
            vars: Arc::new(vars),
            pagers: Arc::new(pagers),
            scrub,
        }
    }

    /// The environment of a person's terminal (06 §5).
    pub fn for_terminal(&self) -> Variables {
        let mut vars = Variables::clone(&self.vars);
        for name in PAGERS {
            vars.remove(OsStr::new(name));
        }
        vars.extend(Variables::clone(&self.pagers));
        vars.insert("TERM".into(), "xterm-256color".into());
        vars.insert("COLORTERM".into(), "truecolor".into());
        vars
    }

    /// A variable that every child gets.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// All of it.
    pub fn variables(&self) -> &Variables {
        &self.vars
    }

    /// The environment of one child: it works for `scope` in `cwd`, and
    /// `secrets` are those its command names.
    pub fn for_child(
        &self,
        scope: &Scope,
        cwd: &Path,
        acting_user: Option<&str>,
        facts: &TurnFacts,
        secrets: &BTreeMap<String, String>,
    ) -> Variables {
        let mut vars = Variables::clone(&self.vars);
        let mut set = |name: &str, value: Option<&OsStr>| match value {
            Some(value) => drop(vars.insert(name.into(), value.to_owned())),
            None => drop(vars.remove(OsStr::new(name))),
        };
        set("USER_CWD", Some(cwd.as_os_str()));
        let agent = scope.agent_id.as_deref().map(OsStr::new);
        for name in ["AGENT_ID", "LETTA_AGENT_ID"] {
            set(name, agent);
        }
        set("AGENT_NAME", facts.agent_name.as_deref().map(OsStr::new));
        for name in ["CONVERSATION_ID", "LETTA_CONVERSATION_ID"] {
            set(name, Some(OsStr::new(&*scope.conversation_id)));
        }
        let hosted = facts
            .connection_id
            .as_deref()
            .filter(|id| id.starts_with(HOSTED_CONNECTION));
        set(
            "LETTA_RUNTIME_LISTENER_CONNECTION_ID",
            hosted.map(OsStr::new),
        );
        set("LETTA_ACTING_USER_ID", acting_user.map(OsStr::new));
        for name in ["MEMORY_DIR", "LETTA_MEMORY_DIR"] {
            set(name, facts.memory_dir.as_deref().map(Path::as_os_str));
        }
        for (name, value) in &facts.launched {
            set(name, value.as_deref().map(OsStr::new));
        }
        let mut fill = |name: &str, value: &Option<Arc<str>>| {
            if let Some(value) = value {
                vars.entry(name.into())
                    .or_insert_with(|| OsString::from(&**value));
            }
        };
        fill("LETTA_BASE_URL", &facts.base_url);
        if !self.scrub {
            fill("LETTA_API_KEY", &facts.api_key);
        }
        for (name, value) in secrets {
            vars.insert(name.into(), value.into());
        }
        vars
    }
}

/// Puts a `letta` that is `binary` into `directory`, so that children find it
/// on their PATH. An older link is replaced in one step.
///
/// # Errors
/// Those of the file system; children then simply have no shim.
pub fn install_shim(directory: &Path, binary: &Path) -> io::Result<()> {
    let link = directory.join("letta");
    if std::fs::read_link(&link).is_ok_and(|target| target == binary) {
        return Ok(());
    }
    std::fs::create_dir_all(directory)?;
    let fresh = directory.join(format!(".letta-{}", uuid::Uuid::new_v4()));
    std::os::unix::fs::symlink(binary, &fresh)?;
    std::fs::rename(&fresh, &link).inspect_err(|_| {
        // The rename's error is the one to report.
        let _ = std::fs::remove_file(&fresh);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> Variables {
        pairs
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    fn child(base: &[(&str, &str)], facts: &TurnFacts) -> Variables {
        let base = BaseEnvironment::new(
            vars(base),
            Path::new("/opt/letta"),
            Some(Path::new("/shim")),
            Some("dev-1"),
        );
        let scope = Scope::new(Some("agent-1"), None);
        let secrets = BTreeMap::from([("TOKEN".to_owned(), "t".to_owned())]);
        base.for_child(
            &scope,
            Path::new("/srv/project"),
            Some("user-1"),
            facts,
            &secrets,
        )
    }

    fn get<'a>(vars: &'a Variables, name: &str) -> Option<&'a str> {
        vars.get(OsStr::new(name)).and_then(|value| value.to_str())
    }

    #[test]
    fn a_child_knows_where_it_is_and_for_whom_it_works() {
        let facts = TurnFacts {
            agent_name: Some("Ada".into()),
            connection_id: Some("conn-1".into()),
            memory_dir: Some("/mem".into()),
            launched: vec![("LETTA_CODE_AGENT_ROLE", Some("subagent".into()))],
            api_key: Some("key".into()),
            base_url: Some("https://x".into()),
        };
        let vars = child(
            &[
                ("PATH", "/bin"),
                ("LETTA_BASE_URL", "https://own"),
                ("TERM", "dumb"),
            ],
            &facts,
        );
        for (name, value) in [
            ("USER_CWD", "/srv/project"),
            ("AGENT_ID", "agent-1"),
            ("LETTA_AGENT_ID", "agent-1"),
            ("AGENT_NAME", "Ada"),
            ("CONVERSATION_ID", "default"),
            ("LETTA_CONVERSATION_ID", "default"),
            ("LETTA_RUNTIME_ENVIRONMENT_DEVICE_ID", "dev-1"),
            ("LETTA_RUNTIME_LISTENER_CONNECTION_ID", "conn-1"),
            ("LETTA_ACTING_USER_ID", "user-1"),
            ("LETTA_CODE_AGENT_ROLE", "subagent"),
            ("MEMORY_DIR", "/mem"),
            ("LETTA_MEMORY_DIR", "/mem"),
            ("LETTA_API_KEY", "key"),
            ("LETTA_BASE_URL", "https://own"),
            ("PAGER", "cat"),
            ("GIT_PAGER", "cat"),
            ("MANPAGER", "cat"),
            ("TERM", "dumb"),
            ("PATH", "/shim:/bin"),
            ("LETTA_CODE_BIN", "/opt/letta"),
            ("TOKEN", "t"),
        ] {
            assert_eq!(get(&vars, name), Some(value), "{name}");
        }
    }

    #[test]
    fn inherited_identities_do_not_pass() {
        let vars = child(
            &[
                ("LETTA_LISTENER_INSTANCE_ID", "x"),
                ("LETTA_LISTENER_DEVICE_ID", "x"),
                ("MEMORY_DIR", "/other"),
                ("AGENT_NAME", "other"),
                ("LETTA_RUNTIME_LISTENER_CONNECTION_ID", "conn-0"),
            ],
            &TurnFacts {
                connection_id: Some("app-server-1".into()),
                ..TurnFacts::default()
            },
        );
        for name in [
            "LETTA_LISTENER_INSTANCE_ID",
            "LETTA_LISTENER_DEVICE_ID",
            "MEMORY_DIR",
            "AGENT_NAME",
            "LETTA_RUNTIME_LISTENER_CONNECTION_ID",
        ] {
            assert_eq!(get(&vars, name), None, "{name}");
        }
        assert_eq!(get(&vars, "TERM"), Some("xterm-256color"));
    }

    #[test]
    fn a_terminal_keeps_the_pagers_of_its_user() {
        let pairs = [("PAGER", "less"), ("TERM", "dumb"), ("A", "1")];
        let base = BaseEnvironment::new(vars(&pairs), Path::new("/opt/letta"), None, None);
        let terminal = base.for_terminal();
        for (name, value) in [
            ("PAGER", Some("less")),
            ("MANPAGER", None),
            ("TERM", Some("xterm-256color")),
            ("COLORTERM", Some("truecolor")),
            ("A", Some("1")),
        ] {
            assert_eq!(get(&terminal, name), value, "{name}");
        }
    }

    #[test]
    fn scrubbing_keeps_every_form_of_the_key_from_children() {
        let facts = TurnFacts {
            api_key: Some("key".into()),
            ..TurnFacts::default()
        };
        let vars = child(
            &[
                ("LETTA_TOOL_ENV_SCRUB", "1"),
                ("LETTA_API_KEY", "a"),
                ("LETTA_API_KEY_FILE", "b"),
                ("CREDENTIALS_DIRECTORY", "c"),
            ],
            &facts,
        );
        for name in CREDENTIALS {
            assert_eq!(get(&vars, name), None, "{name}");
        }
        assert!(!format!("{facts:?}").contains("key\""));
    }

    #[test]
    fn the_shim_follows_the_binary() {
        let home = tempfile::tempdir().unwrap();
        let shim = home.path().join("shim");
        install_shim(&shim, Path::new("/old/letta")).unwrap();
        install_shim(&shim, Path::new("/new/letta")).unwrap();
        install_shim(&shim, Path::new("/new/letta")).unwrap();
        assert_eq!(
            std::fs::read_link(shim.join("letta")).unwrap(),
            Path::new("/new/letta")
        );
        assert_eq!(std::fs::read_dir(&shim).unwrap().count(), 1);
    }
}
