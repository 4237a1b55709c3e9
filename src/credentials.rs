//! Which bearer token this machine uses, and how it stays good (01 §5, 00 §5).
//!
//! Sources, first hit wins: `LETTA_API_KEY`, the file in `LETTA_API_KEY_FILE`,
//! `$CREDENTIALS_DIRECTORY/letta-api-key`, the saved login. Only the saved login
//! is refreshed. Invariant: a refresh token is used once: callers at the same time
//! share one request, processes take turns by a lock and read again under it, and
//! a request that was sent is always waited for, because its answer is the only
//! copy of the next refresh token.

mod login;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::Shared;
use tokio::time::Instant;

pub use login::{LoginNotice, LoginPrompt, SignedOut};

use crate::api::oauth::{OAuth, OAuthError, Tokens};
use crate::api::token::{BearerFuture, CredentialError, TokenSource};
use crate::config::Secret;
use crate::protocol::time::epoch_millis;

/// A token is refreshed when it is good for less than this.
const REFRESH_MARGIN_MS: i64 = 300_000;

/// After a refresh, good or bad, a token that still works is used for this long
/// before the next try.
const QUIET: Duration = Duration::from_secs(30);

/// How long the text of a key file is used before it is read again.
const KEY_FILE_LIFETIME: Duration = Duration::from_secs(10);

/// The longest key file, in bytes.
const MAX_KEY_FILE: usize = 64 * 1024;

/// The file in systemd's credentials directory.
const CREDENTIAL_NAME: &str = "letta-api-key";

/// The saved login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredTokens {
    /// `env.LETTA_API_KEY` of the settings.
    pub access: Option<Secret>,
    /// `refreshToken`.
    pub refresh: Option<Secret>,
    /// `tokenExpiresAt`: when `access` ends, in ms since the epoch; `None` = not known.
    pub expires_at_ms: Option<i64>,
}

impl StoredTokens {
    /// What a login or refresh that was asked for at `asked_ms` leaves to be stored.
    fn from_tokens(tokens: Tokens, asked_ms: i64, old_refresh: Option<Secret>) -> Self {
        let lifetime = tokens
            .expires_in
            .and_then(|lifetime| i64::try_from(lifetime.as_millis()).ok());
        Self {
            access: Some(tokens.access),
            refresh: tokens.refresh.or(old_refresh),
            expires_at_ms: lifetime.map(|lifetime| asked_ms.saturating_add(lifetime)),
        }
    }

    /// The token while it is good, by its own word.
    fn unexpired(&self, now_ms: i64) -> Option<&Secret> {
        let ended = self.expires_at_ms.is_some_and(|end| now_ms >= end);
        self.access.as_ref().filter(|_| !ended)
    }

    /// Whether a refresh is due (01 §5.2 no. 4).
    fn is_due(&self, now_ms: i64) -> bool {
        let soon = self
            .expires_at_ms
            .is_some_and(|end| now_ms >= end.saturating_sub(REFRESH_MARGIN_MS));
        self.refresh.is_some() && (self.access.is_none() || soon)
    }
}

/// Where the saved login lives. Every method may block and is called off the runtime.
pub trait TokenStore: Send + Sync {
    /// The tokens as they are on disk now: another process may have changed them.
    fn load(&self) -> StoredTokens;

    /// Stores tokens durably, readable by the owner alone.
    ///
    /// # Errors
    /// When the file cannot be written.
    fn save(&self, tokens: &StoredTokens) -> io::Result<()>;

    /// Removes the tokens.
    ///
    /// # Errors
    /// When the file cannot be written.
    fn clear(&self) -> io::Result<()>;

    /// Waits until no other process refreshes; dropping the guard lets the next one in.
    ///
    /// # Errors
    /// When there can be no lock.
    fn lock_refresh(&self) -> io::Result<Box<dyn Send>>;
}

/// Where keys come from.
#[derive(Clone, Debug, Default)]
pub struct CredentialSettings {
    /// `LETTA_API_KEY`; empty counts as unset.
    pub api_key: Option<Secret>,
    /// `LETTA_API_KEY_FILE`: must be usable when named.
    pub api_key_file: Option<PathBuf>,
    /// `CREDENTIALS_DIRECTORY`: may lack the key.
    pub credentials_directory: Option<PathBuf>,
    /// Whether people sign in to this server: it is Letta Cloud, or `LETTA_OAUTH_URL`
    /// names its login server. Otherwise a stored key is used as it is, or none.
    pub login: bool,
}

/// The credentials of this machine. Cheap to clone.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

type Outcome = Result<Secret, CredentialError>;
type Flight = Shared<Pin<Box<dyn Future<Output = Outcome> + Send>>>;

struct Inner {
    settings: CredentialSettings,
    store: Arc<dyn TokenStore>,
    oauth: OAuth,
    memory: Mutex<Memory>,
}

/// What is known between calls; the lock is never held over an await.
#[derive(Default)]
struct Memory {
    tokens: Option<StoredTokens>,
    /// The store did not take `tokens`: what it holds is older.
    unsaved: bool,
    key_file: Option<(Instant, Option<Secret>)>,
    /// The refresh under way.
    flight: Option<Flight>,
    /// When the last refresh ended.
    refreshed: Option<Instant>,
    /// A refresh token that the login server does not take, and what it said.
    refused: Option<(Secret, Arc<str>)>,
}

impl Credentials {
    /// Credentials from `settings`, a saved login in `store`, refreshed by `oauth`.
    pub fn new(settings: CredentialSettings, store: Arc<dyn TokenStore>, oauth: OAuth) -> Self {
        Self(Arc::new(Inner {
            settings,
            store,
            oauth,
            memory: Mutex::default(),
        }))
    }

    /// Decides by the table of 01 §5.2 without asking a human. `None`: this server
    /// takes requests without a key.
    ///
    /// # Errors
    /// [`CredentialError::Transient`] when later may do; everything else needs a human.
    pub async fn token(&self) -> Result<Option<Secret>, CredentialError> {
        if let Some(key) = self.configured_key().await? {
            return Ok(Some(key));
        }
        let tokens = self.tokens().await;
        if !self.0.settings.login {
            return Ok(tokens.access);
        }
        let now = now_ms();
        if !tokens.is_due(now) {
            return match tokens.access {
                Some(token) => Ok(Some(token)),
                None => {
                    // Another process may sign in: look at the disk again next time.
                    self.memory().tokens = None;
                    Err(CredentialError::Missing)
                }
            };
        }
        let refreshed = self.memory().refreshed;
        let quiet = refreshed.is_some_and(|at| at.elapsed() < QUIET);
        if let Some(token) = tokens.unexpired(now).filter(|_| quiet) {
            return Ok(Some(token.clone()));
        }
        self.refresh().await.map(Some)
    }

    /// A key from the environment or a file: never refreshed.
    async fn configured_key(&self) -> Result<Option<Secret>, CredentialError> {
        let settings = &self.0.settings;
        if let Some(key) = &settings.api_key {
            return Ok(Some(key.clone()));
        }
        if settings.api_key_file.is_none() && settings.credentials_directory.is_none() {
            return Ok(None);
        }
        let known = self.memory().key_file.clone();
        if let Some((_, key)) = known.filter(|(read, _)| read.elapsed() < KEY_FILE_LIFETIME) {
            return Ok(key);
        }
        let inner = self.0.clone();
        let key = off_runtime(move || read_key_files(&inner.settings)).await??;
        self.memory().key_file = Some((Instant::now(), key.clone()));
        Ok(key)
    }

    /// The saved login, from memory after the first time.
    async fn tokens(&self) -> StoredTokens {
        let known = self.memory().tokens.clone();
        match known {
            Some(tokens) => tokens,
            None => self.reload().await,
        }
    }

    /// The saved login from disk, unless what is in memory could not be put there.
    async fn reload(&self) -> StoredTokens {
        let newer = {
            let memory = self.memory();
            memory.tokens.clone().filter(|_| memory.unsaved)
        };
        if let Some(tokens) = newer {
            return tokens;
        }
        let inner = self.0.clone();
        let tokens = off_runtime(move || inner.store.load())
            .await
            .unwrap_or_default();
        self.memory().tokens = Some(tokens.clone());
        tokens
    }

    /// Joins the refresh under way, or starts one.
    async fn refresh(&self) -> Outcome {
        let flight = {
            let mut memory = self.memory();
            let running = memory
                .flight
                .take()
                .filter(|flight| flight.peek().is_none());
            let flight = running.unwrap_or_else(|| {
                // Its own task: a caller that goes away must not lose the new tokens. It
                // ends by itself, bounded by the limits of the request and of the lock.
                let task = tokio::spawn(refresh_once(self.clone()));
                let outcome = async move {
                    task.await.unwrap_or_else(|_| {
                        Err(CredentialError::Transient {
                            reason: "the refresh was interrupted".into(),
                        })
                    })
                };
                let outcome: Pin<Box<dyn Future<Output = Outcome> + Send>> = Box::pin(outcome);
                outcome.shared()
            });
            memory.flight = Some(flight.clone());
            flight
        };
        flight.await
    }

    /// Keeps new tokens in memory and on disk.
    async fn keep(&self, tokens: StoredTokens) -> Result<(), CredentialError> {
        {
            let mut memory = self.memory();
            memory.tokens = Some(tokens.clone());
            memory.unsaved = true;
        }
        let inner = self.0.clone();
        off_runtime(move || inner.store.save(&tokens))
            .await?
            .map_err(|error| CredentialError::Store {
                reason: error.to_string().into(),
            })?;
        self.memory().unsaved = false;
        Ok(())
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenSource for Credentials {
    fn bearer(&self) -> BearerFuture<'_> {
        Box::pin(self.token())
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

/// One refresh (01 §5.2 no. 4–7, §5.4).
async fn refresh_once(credentials: Credentials) -> Outcome {
    let inner = credentials.0.clone();
    let lock = off_runtime(move || inner.store.lock_refresh()).await?;
    let _turn = lock
        .inspect_err(|error| {
            tracing::warn!(%error, "cannot lock the saved login; refreshing without the lock");
        })
        .ok();
    let tokens = credentials.reload().await;
    let asked = now_ms();
    if !tokens.is_due(asked) {
        return tokens.access.ok_or(CredentialError::Missing);
    }
    let Some(refresh) = tokens.refresh.clone() else {
        return Err(CredentialError::Missing);
    };
    let refused = credentials.memory().refused.clone();
    if let Some((_, reason)) = refused.filter(|(token, _)| *token == refresh) {
        return Err(CredentialError::Refused { reason });
    }
    tracing::info!("refreshing the access token");
    let answer = credentials.0.oauth.refresh(&refresh).await;
    credentials.memory().refreshed = Some(Instant::now());
    match answer {
        Ok(new) => {
            let access = new.access.clone();
            let stored = StoredTokens::from_tokens(new, asked, Some(refresh));
            if let Err(error) = credentials.keep(stored).await {
                tracing::error!(%error, "the new access token works, but a restart will need a new login");
            }
            tracing::info!("access token refreshed");
            Ok(access)
        }
        Err(error) if error.is_retryable() => match tokens.unexpired(now_ms()) {
            Some(token) => {
                tracing::warn!(%error, "cannot refresh the access token; using the old one");
                Ok(token.clone())
            }
            None => Err(transient(&error)),
        },
        Err(error) => {
            tracing::warn!(%error, "the login server does not take the saved login any more");
            let reason: Arc<str> = error.to_string().into();
            credentials.memory().refused = Some((refresh, reason.clone()));
            Err(CredentialError::Refused { reason })
        }
    }
}

fn transient(error: &OAuthError) -> CredentialError {
    CredentialError::Transient {
        reason: error.to_string().into(),
    }
}

/// Runs blocking work; it fails only while the process goes down.
async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CredentialError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| CredentialError::Transient {
            reason: "the process is going down".into(),
        })
}

fn read_key_files(settings: &CredentialSettings) -> Result<Option<Secret>, CredentialError> {
    if let Some(path) = &settings.api_key_file {
        return read_key(path).map(Some);
    }
    let Some(directory) = &settings.credentials_directory else {
        return Ok(None);
    };
    let path = directory.join(CREDENTIAL_NAME);
    // The directory may hold other credentials only.
    if !path.exists() {
        return Ok(None);
    }
    read_key(&path).map(Some)
}

fn read_key(path: &Path) -> Result<Secret, CredentialError> {
    use std::io::Read;
    let unusable = |reason: String| CredentialError::KeyFile {
        path: path.to_owned(),
        reason: reason.into(),
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_KEY_FILE as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| unusable(error.to_string()))?;
    if bytes.len() > MAX_KEY_FILE {
        return Err(unusable("larger than 64 KiB".into()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable("not text".into()))?;
    let key = text.trim();
    if key.is_empty() {
        return Err(unusable("empty".into()));
    }
    if key.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(unusable("more than one word in it".into()));
    }
    Ok(Secret::new(key))
}

fn now_ms() -> i64 {
    epoch_millis(SystemTime::now())
}
