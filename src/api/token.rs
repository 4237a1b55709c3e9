//! Where a request gets its bearer token from, and why it may not get one.
//!
//! The client knows only [`TokenSource`]; the credentials of this machine
//! implement it one floor up (01 §5.2). Invariant: no error text holds a token
//! or the body of an answer.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use thiserror::Error;

use crate::config::Secret;

/// The future of [`TokenSource::bearer`].
pub type BearerFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Secret>, CredentialError>> + Send + 'a>>;

/// Gives the bearer token for one request, refreshed when it is about to expire.
pub trait TokenSource: Send + Sync {
    /// The token now; `None` means: send no `Authorization` (a server without keys).
    fn bearer(&self) -> BearerFuture<'_>;
}

/// A fixed token, or none: environment keys in small programs, and tests.
#[derive(Clone, Debug, Default)]
pub struct StaticToken(pub Option<Secret>);

impl TokenSource for StaticToken {
    fn bearer(&self) -> BearerFuture<'_> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

/// Why there is no usable token.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// Nothing is configured and nobody is signed in.
    #[error(
        "Missing LETTA_API_KEY. Set it, name a file in LETTA_API_KEY_FILE, or run `letta login`."
    )]
    Missing,
    /// The saved login was refused: only a new login helps.
    #[error(
        "Saved Letta API credentials require reauthentication: {reason}. \
         Run `letta login` to sign in again, or set LETTA_API_KEY."
    )]
    Refused {
        /// What the server said, without its body.
        reason: Arc<str>,
    },
    /// The human declined, or the login cannot go on.
    #[error("Login failed: {reason}")]
    LoginFailed {
        /// What the server said, without its body.
        reason: Arc<str>,
    },
    /// The login server cannot be reached or is unwell; later may do.
    #[error("Failed to refresh access token: {reason}")]
    Transient {
        /// What happened.
        reason: Arc<str>,
    },
    /// A named key file cannot be used.
    #[error("cannot read an API key from {}: {reason}. Put the key alone into that file.", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// The key holds characters that no HTTP header can carry.
    #[error("the API key holds characters that cannot be sent. Set it again without line breaks.")]
    Unsendable,
    /// The saved login cannot be read, written or locked.
    #[error("cannot update the saved login: {reason}. Check the permissions of ~/.letta.")]
    Store {
        /// What the file system said.
        reason: Arc<str>,
    },
}

impl CredentialError {
    /// Whether waiting may help; everything else needs a human.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }

    /// The exit code when the process ends for this reason (00 §5): 77 refused,
    /// 78 configuration; `None` when the caller should wait and try again.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Missing | Self::Refused { .. } | Self::LoginFailed { .. } => Some(77),
            Self::KeyFile { .. } | Self::Unsendable | Self::Store { .. } => Some(78),
            Self::Transient { .. } => None,
        }
    }
}
