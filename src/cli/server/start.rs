//! What every command that talks to Letta stands on: configuration, home,
//! settings, credentials (spec 01 §2–§5).

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::api::client::ClientSettings;
use crate::api::net::{Net, NetSettings};
use crate::api::oauth::OAuth;
use crate::api::{BaseUrl, Client};
use crate::config::{CLOUD_URL, Config, LogFormat, ServerFlags};
use crate::credentials::{CredentialSettings, Credentials, StoredTokens, TokenStore};
use crate::credentials::{LoginNotice, LoginPrompt};
use crate::memory::{Memory, MemorySettings};
use crate::protocol::PermissionMode;
use crate::state::{Home, LocalSettings, UserSettings};
use crate::telemetry::logging;

/// Configuration, home and user settings.
pub(crate) struct Foundation {
    pub(crate) config: Config,
    pub(crate) home: Home,
    pub(crate) settings: UserSettings,
}

impl Foundation {
    /// Reads everything once.
    pub(crate) fn lay(flags: &ServerFlags) -> Result<Self> {
        let config = Config::read(flags, |name| std::env::var_os(name))?;
        let home = Home::locate(&config)
            .map_err(|_| anyhow::anyhow!("no home directory was found; set HOME"))?;
        let settings = UserSettings::load(&home);
        Ok(Self {
            config,
            home,
            settings,
        })
    }

    pub(crate) fn log_format(&self) -> logging::LogFormat {
        match self.config.log_format {
            LogFormat::Auto => logging::LogFormat::Auto,
            LogFormat::Text => logging::LogFormat::Text,
            LogFormat::Json => logging::LogFormat::Json,
        }
    }

    /// The server: variable, settings, Letta Cloud (01 §5.1).
    pub(crate) fn base_url(&self) -> String {
        self.config
            .base_url
            .clone()
            .or_else(|| self.settings.env_value("LETTA_BASE_URL"))
            .map(|url| url.trim().trim_end_matches('/').to_owned())
            .filter(|url| !url.is_empty())
            .unwrap_or_else(|| CLOUD_URL.to_owned())
    }

    /// The server of memory repositories (06 §6.1).
    pub(crate) fn memory_server(&self) -> String {
        let saved = || self.settings.env_value("LETTA_MEMFS_BASE_URL");
        self.config
            .memfs
            .server
            .clone()
            .or_else(saved)
            .map(|url| url.trim().trim_end_matches('/').to_owned())
            .filter(|url| !url.is_empty())
            .unwrap_or_else(|| CLOUD_URL.to_owned())
    }

    /// The memory repositories.
    pub(crate) fn memory(&self, credentials: &Credentials) -> Memory {
        Memory::new(MemorySettings {
            home: self.home.clone(),
            server: self.memory_server(),
            cloud: self.config.memfs.local,
            hosted: self.config.memfs.hosted,
            tokens: Arc::new(credentials.clone()),
            binary: std::env::current_exe().unwrap_or_else(|_| "letta".into()),
        })
    }

    fn local(&self) -> LocalSettings {
        let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        LocalSettings::of(&cwd)
    }

    /// The computer name without asking anybody (01 §2.3).
    pub(crate) fn name(&self) -> String {
        self.config
            .name
            .as_ref()
            .map(|given| given.value.clone())
            .or_else(|| self.local().listener_env_name())
            .unwrap_or_else(hostname)
    }

    /// The computer name; on a terminal a person is asked once. Saved for the
    /// working directory.
    pub(crate) fn name_or_ask(&self) -> String {
        let saved = self.local().listener_env_name();
        let name = match &self.config.name {
            Some(given) => given.value.clone(),
            None => match saved.clone() {
                Some(saved) => return saved,
                None if is_terminal() && !self.config.debug_output => ask_name(),
                None => hostname(),
            },
        };
        let assigned = self.config.listener_device_id.is_some() && self.config.name.is_some();
        if !assigned
            && saved.as_deref() != Some(&name)
            && let Err(error) = self.local().set_listener_env_name(&name)
        {
            complain!("Warning: the name of this computer could not be saved: {error}");
        }
        name
    }

    /// The id of this machine, on disk before it is used (01 §4.4).
    pub(crate) fn device_id(&self) -> Result<String> {
        if let Some(id) = &self.config.listener_device_id {
            return Ok(id.clone());
        }
        self.settings
            .get_or_create_device_id()
            .context("the id of this machine could not be saved")
    }

    /// `LETTA_LISTENER_INSTANCE_ID`, else a hash of the name (01 §6).
    pub(crate) fn instance_id(&self, name: &str) -> String {
        self.config.listener_instance_id.clone().unwrap_or_else(|| {
            let digest = Sha256::digest(name.as_bytes());
            let hex: String = digest
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("server-{hex}")
        })
    }

    /// The credentials and the network below them.
    pub(crate) fn credentials(&self, name: &str) -> Result<(Credentials, Net)> {
        let net = Net::new(&NetSettings::from_env(|name| std::env::var_os(name)))?;
        let sources = &self.config.credentials;
        let url = BaseUrl::parse(&self.base_url())?;
        let custom_login = std::env::var_os("LETTA_OAUTH_URL").is_some_and(|url| !url.is_empty());
        let device_id = self.device_id()?;
        let settings = CredentialSettings {
            api_key: sources.api_key.clone(),
            api_key_file: sources.api_key_file.clone(),
            credentials_directory: sources.credentials_directory.clone(),
            login: url.is_cloud() || custom_login,
        };
        let oauth = OAuth::new(net.clone(), &self.config.oauth_url, &device_id, name);
        let store = Arc::new(SettingsTokens(self.settings.clone()));
        Ok((Credentials::new(settings, store, oauth), net))
    }

    /// The API client.
    pub(crate) fn api(
        &self,
        base_url: &str,
        credentials: &Credentials,
        net: &Net,
        device_id: &str,
    ) -> Result<Client> {
        let device = self
            .config
            .runtime_device_id
            .clone()
            .unwrap_or_else(|| device_id.to_owned());
        let settings = ClientSettings {
            device_id: Some(device),
            acting_user_id: std::env::var("LETTA_ACTING_USER_ID").ok(),
            timeout: self.config.request_timeout,
            memfs_hosted: self.config.memfs.hosted,
            ..ClientSettings::new(BaseUrl::parse(base_url)?)
        };
        Ok(Client::new(
            net.clone(),
            Arc::new(credentials.clone()),
            &settings,
        )?)
    }

    /// Files that hold credentials: closed to file tools (05 §13.3).
    pub(crate) fn credential_files(&self) -> Vec<String> {
        let sources = &self.config.credentials;
        [
            Some(self.home.settings()),
            sources.api_key_file.clone(),
            sources.credentials_directory.clone(),
        ]
        .into_iter()
        .flatten()
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
    }

    /// What the first screen says behind the mode.
    pub(crate) fn mode_note(&self, mode: PermissionMode) -> &'static str {
        if mode == PermissionMode::Unrestricted {
            "  (agents run commands without asking; --permission-mode standard asks)"
        } else {
            ""
        }
    }
}

/// Whether a person sits in front of this process.
pub(crate) fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// What this machine calls itself.
pub(super) fn hostname() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    if name.is_empty() {
        String::from("my-computer")
    } else {
        name
    }
}

fn ask_name() -> String {
    let default = hostname();
    say_part!("Name of this computer [{default}]: ");
    let _ = std::io::stdout().flush();
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(_) if !line.trim().is_empty() => line.trim().to_owned(),
        _ => default,
    }
}

/// The login of `~/.letta/settings.json`.
struct SettingsTokens(UserSettings);

impl TokenStore for SettingsTokens {
    fn load(&self) -> StoredTokens {
        self.0.reload();
        let tokens = self.0.tokens();
        StoredTokens {
            access: tokens.access,
            refresh: tokens.refresh,
            expires_at_ms: tokens.expires_at_ms,
        }
    }

    fn save(&self, tokens: &StoredTokens) -> std::io::Result<()> {
        self.0
            .set_tokens(&crate::state::settings::StoredTokens {
                access: tokens.access.clone(),
                refresh: tokens.refresh.clone(),
                expires_at_ms: tokens.expires_at_ms,
            })
            .map_err(std::io::Error::other)
    }

    fn clear(&self) -> std::io::Result<()> {
        self.0.clear_tokens().map_err(std::io::Error::other)
    }

    fn lock_refresh(&self) -> std::io::Result<Box<dyn Send>> {
        Ok(Box::new(self.0.refresh_lock()?))
    }
}

/// Tells a person how to sign in, in plain lines that survive any log.
pub(crate) struct Screen;

impl LoginPrompt for Screen {
    fn notice(&self, notice: &LoginNotice<'_>) {
        match notice {
            LoginNotice::Refused { error } => {
                say!("The saved login does not work any more: {error}");
            }
            LoginNotice::Code {
                url,
                user_code,
                expires_in,
            } => {
                say!("Sign in to Letta to connect this computer.");
                say!("Open:      {url}");
                say!("Your code: {user_code}");
                say!(
                    "Waiting; the code is good for {} minutes.",
                    expires_in.as_secs() / 60
                );
            }
            LoginNotice::Problem { error } => {
                say!("The login server cannot be used at the moment ({error}); still waiting.");
            }
            LoginNotice::Expired => say!("The code expired unused; here is a new one."),
            LoginNotice::Done => say!("Signed in."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_ids_are_hashes_of_the_name() {
        let digest = |name: &str| {
            let digest = Sha256::digest(name.as_bytes());
            digest
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        assert_eq!(digest("w1"), "60c5590f72eef292");
        assert_eq!(digest("a"), "ca978112ca1bbdca");
    }
}
