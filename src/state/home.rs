//! Where everything lies (spec 01 §4.0): the home directory, `~/.letta` and
//! the paths in it. Nothing is created before someone writes.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::config::Config;

/// The home directory and the program's own directory in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The user's home directory.
    pub user: PathBuf,
    /// `<user>/.letta`.
    pub letta: PathBuf,
    /// Parent of schedules and global skill links: `LETTA_HOME`, else `letta`.
    pub schedules: PathBuf,
    /// `<config>/letta/settings.json`, the old place of permission rules.
    pub legacy_settings: PathBuf,
}

/// No home directory can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no home directory: HOME is not set to an absolute path and /etc/passwd names none for this user; set HOME"
)]
pub struct NoHome;

impl Home {
    /// The layout for `config`; reads `/etc/passwd` when `HOME` is not set
    /// (systemd system units may lack it).
    ///
    /// # Errors
    /// When neither names a directory.
    pub fn locate(config: &Config) -> Result<Self, NoHome> {
        let user = match &config.home {
            Some(home) => home.clone(),
            None => passwd_home().ok_or(NoHome)?,
        };
        let mut home = Self::at(user);
        if let Some(moved) = &config.letta_home {
            home.schedules.clone_from(moved);
        }
        if let Some(config_home) = &config.xdg_config_home {
            home.legacy_settings = config_home.join("letta/settings.json");
        }
        Ok(home)
    }

    /// The layout under a given home directory, with nothing moved.
    pub fn at(user: impl Into<PathBuf>) -> Self {
        let user = user.into();
        let letta = user.join(".letta");
        Self {
            schedules: letta.clone(),
            legacy_settings: user.join(".config/letta/settings.json"),
            user,
            letta,
        }
    }

    /// `~/.letta/settings.json`.
    pub fn settings(&self) -> PathBuf {
        self.letta.join("settings.json")
    }

    /// `~/.letta/remote-settings.json`.
    pub fn remote_settings(&self) -> PathBuf {
        self.letta.join("remote-settings.json")
    }

    /// `~/.letta/cwd-cache.json`, read once for migration.
    pub fn cwd_cache(&self) -> PathBuf {
        self.letta.join("cwd-cache.json")
    }

    /// `~/.letta/listeners`: single-instance locks.
    pub fn listeners(&self) -> PathBuf {
        self.letta.join("listeners")
    }

    /// `~/.letta/listener-state/<first 24 hex of sha256(server)>`.
    pub fn listener_state(&self, server_url: &str) -> PathBuf {
        let hash = sha256_hex(server_url.as_bytes());
        self.letta.join("listener-state").join(&hash[..24])
    }

    /// `~/.letta/logs/remote`: session logs.
    pub fn logs(&self) -> PathBuf {
        self.letta.join("logs/remote")
    }

    /// `~/.letta/plans`: plan files.
    pub fn plans(&self) -> PathBuf {
        self.letta.join("plans")
    }

    /// `~/.letta/runs`: logs of schedule runs; moves with `LETTA_HOME`.
    pub fn runs(&self) -> PathBuf {
        self.schedules.join("runs")
    }

    /// `crons.json`; moves with `LETTA_HOME`.
    pub fn crons(&self) -> PathBuf {
        self.schedules.join("crons.json")
    }

    /// `crons.lock`; moves with `LETTA_HOME`.
    pub fn crons_lock(&self) -> PathBuf {
        self.schedules.join("crons.lock")
    }

    /// `crons.scheduler.lock`, under an OS lock of whoever fires the schedules;
    /// moves with `LETTA_HOME`.
    pub fn crons_scheduler_lock(&self) -> PathBuf {
        self.schedules.join("crons.scheduler.lock")
    }

    /// `skills`, links to skills for every agent; moves with `LETTA_HOME`.
    pub fn skills(&self) -> PathBuf {
        self.schedules.join("skills")
    }

    /// `~/.letta/agents`: custom subagents and the homes of agents.
    pub fn agents(&self) -> PathBuf {
        self.letta.join("agents")
    }

    /// `~/.letta/agents/<id>/memory`.
    pub fn agent_memory(&self, agent_id: &str) -> PathBuf {
        self.agents().join(agent_id).join("memory")
    }

    /// `~/.letta/projects`: whole outputs of tools, by working directory.
    pub fn projects(&self) -> PathBuf {
        self.letta.join("projects")
    }

    /// `<cwd>/.letta/settings.json`.
    pub fn project_settings(cwd: &Path) -> PathBuf {
        cwd.join(".letta/settings.json")
    }

    /// `<cwd>/.letta/settings.local.json`.
    pub fn local_settings(cwd: &Path) -> PathBuf {
        cwd.join(".letta/settings.local.json")
    }
}

/// Creates a directory and its missing parents with mode 0700. An existing one
/// keeps its mode.
///
/// # Errors
/// As `mkdir`.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Lower-case hex of a SHA-256.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut hex, byte| {
            // Writing into a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// A static binary has no name service, so the file is read as it stands.
fn passwd_home() -> Option<PathBuf> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    home_in_passwd(&passwd, rustix::process::getuid().as_raw())
}

fn home_in_passwd(passwd: &str, uid: u32) -> Option<PathBuf> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_ours = fields.get(2)?.parse() == Ok(uid);
        let home = PathBuf::from(fields.get(5).filter(|_| is_ours)?);
        home.is_absolute().then_some(home)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerFlags;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn without_home_the_passwd_entry_of_the_user_counts() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbad line\nsvc:x:998:998::/srv/agent:/bin/false\nodd:x:7:7::relative:\n";
        assert_eq!(home_in_passwd(passwd, 998), Some("/srv/agent".into()));
        assert_eq!(home_in_passwd(passwd, 7), None);
        assert_eq!(home_in_passwd(passwd, 1), None);
    }

    #[test]
    fn letta_home_moves_schedules_and_nothing_else() {
        let env = |name: &str| match name {
            "HOME" => Some("/home/u".into()),
            "LETTA_HOME" => Some("/data".into()),
            "XDG_CONFIG_HOME" => Some("/xdg".into()),
            _ => None,
        };
        let config = Config::read(&ServerFlags::default(), env).expect("valid");
        let home = Home::locate(&config).expect("HOME is set");
        assert_eq!(home.crons(), Path::new("/data/crons.json"));
        assert_eq!(home.settings(), Path::new("/home/u/.letta/settings.json"));
        assert_eq!(home.legacy_settings, Path::new("/xdg/letta/settings.json"));
    }

    #[test]
    fn new_directories_are_private_and_old_ones_keep_their_mode() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mode = |path: &Path| {
            std::fs::metadata(path)
                .expect("exists")
                .permissions()
                .mode()
                & 0o777
        };
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))
            .expect("chmod");
        let deep = dir.path().join("a/b");
        create_private_dir(&deep).expect("created");
        create_private_dir(&deep).expect("existing is fine");
        assert_eq!((mode(dir.path()), mode(&deep)), (0o755, 0o700));
    }

    #[test]
    fn state_of_a_server_lies_under_a_short_hash() {
        let path = Home::at("/h").listener_state("https://api.letta.com");
        let name = path.file_name().expect("has a name");
        assert_eq!(name.len(), 24);
    }
}
