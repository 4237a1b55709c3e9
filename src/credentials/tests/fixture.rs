//! Tokens in memory, and credentials on a scripted login server.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use axum::response::Response;
use serde_json::json as value;

use super::super::*;
use crate::api::tests::{Server, json, net};

/// Tokens in memory.
#[derive(Default)]
pub(super) struct MemoryStore {
    pub(super) tokens: Mutex<StoredTokens>,
    pub(super) locks: AtomicU32,
    pub(super) read_only: AtomicBool,
    /// What the next holder of the lock finds, as if another process had been there.
    pub(super) under_lock: Mutex<Option<StoredTokens>>,
}

impl TokenStore for MemoryStore {
    fn load(&self) -> StoredTokens {
        self.tokens.lock().unwrap().clone()
    }

    fn save(&self, tokens: &StoredTokens) -> io::Result<()> {
        if self.read_only.load(Ordering::SeqCst) {
            return Err(io::Error::other("read-only"));
        }
        *self.tokens.lock().unwrap() = tokens.clone();
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        self.save(&StoredTokens::default())
    }

    fn lock_refresh(&self) -> io::Result<Box<dyn Send>> {
        self.locks.fetch_add(1, Ordering::SeqCst);
        if let Some(tokens) = self.under_lock.lock().unwrap().take() {
            *self.tokens.lock().unwrap() = tokens;
        }
        Ok(Box::new(()))
    }
}

/// A login that ends in `seconds` from now.
pub(super) fn login(access: &str, seconds: i64) -> StoredTokens {
    StoredTokens {
        access: Some(Secret::new(access)),
        refresh: Some(Secret::new("refresh-1")),
        expires_at_ms: Some(now_ms() + seconds * 1000),
    }
}

pub(super) fn signed_in() -> CredentialSettings {
    CredentialSettings {
        login: true,
        ..CredentialSettings::default()
    }
}

pub(super) struct Fixture {
    pub(super) server: Server,
    pub(super) store: Arc<MemoryStore>,
    pub(super) credentials: Credentials,
}

impl Fixture {
    pub(super) async fn new(
        settings: CredentialSettings,
        stored: StoredTokens,
        answers: impl IntoIterator<Item = Response>,
    ) -> Self {
        let server = Server::answering(answers).await;
        let store = Arc::new(MemoryStore {
            tokens: Mutex::new(stored),
            ..MemoryStore::default()
        });
        let oauth = OAuth::new(net(), &format!("{}/", server.url), "dev-1", "w1");
        let credentials = Credentials::new(settings, store.clone(), oauth);
        Self {
            server,
            store,
            credentials,
        }
    }

    pub(super) async fn token(&self) -> Result<Option<String>, CredentialError> {
        let token = self.credentials.token().await?;
        Ok(token.map(|token| token.expose().to_owned()))
    }

    pub(super) fn requests(&self) -> usize {
        self.server.seen().len()
    }
}

pub(super) fn fresh() -> Response {
    json(
        200,
        &value!({"access_token": "new", "refresh_token": "refresh-2", "expires_in": 3600}),
    )
}

pub(super) fn some(text: &str) -> Result<Option<String>, CredentialError> {
    Ok(Some(text.to_owned()))
}
