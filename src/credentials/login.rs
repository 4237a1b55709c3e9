//! Signing in and out by device code (01 §5.2, §5.3).
//!
//! Invariant: a code that expires unused is replaced for ever, and no network
//! trouble ends the wait (00 §1, §5); only a human's refusal or a request that
//! the login server does not understand does.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Credentials, StoredTokens, now_ms, off_runtime};
use crate::api::environments::retry_delay;
use crate::api::oauth::{DeviceCode, DevicePoll, OAuthError, PollStep};
use crate::api::token::CredentialError;
use crate::config::Secret;

/// What people are told during a login.
#[derive(Debug)]
pub enum LoginNotice<'a> {
    /// The saved login does not work any more.
    Refused {
        /// Why.
        error: &'a CredentialError,
    },
    /// A human has to open the page and compare the code. Print both as plain lines.
    Code {
        /// The whole address of the page.
        url: &'a str,
        /// The code.
        user_code: &'a str,
        /// How long it is good.
        expires_in: Duration,
    },
    /// The login server cannot be used at the moment; the wait goes on.
    Problem {
        /// What happened. The step in the browser may have worked all the same.
        error: &'a OAuthError,
    },
    /// The code expired unused; another one follows.
    Expired,
    /// Signed in.
    Done,
}

/// Shows [`LoginNotice`]s.
pub trait LoginPrompt: Send + Sync {
    /// Shows one; must not block.
    fn notice(&self, notice: &LoginNotice<'_>);
}

/// How signing out went: the tokens are gone from this machine either way.
#[derive(Debug, PartialEq, Eq)]
pub enum SignedOut {
    /// The login server knows it, too.
    Revoked,
    /// The login server could not be told.
    OnlyHere(OAuthError),
    /// Nobody was signed in.
    NothingSaved,
}

impl Credentials {
    /// The token for starting and for registering again: as [`Credentials::token`],
    /// but without a usable login a human is asked, however long it takes.
    ///
    /// # Errors
    /// [`CredentialError::Transient`] when the login server cannot be reached for a
    /// refresh: wait and call again. Others end the process by their exit code.
    pub async fn sign_in(
        &self,
        prompt: &dyn LoginPrompt,
    ) -> Result<Option<Secret>, CredentialError> {
        match self.token().await {
            Err(error @ (CredentialError::Missing | CredentialError::Refused { .. })) => {
                if matches!(error, CredentialError::Refused { .. }) {
                    prompt.notice(&LoginNotice::Refused { error: &error });
                }
                match self.log_in(prompt).await {
                    // The new login works, even where it cannot be saved.
                    Err(error @ CredentialError::Store { .. }) => {
                        tracing::error!(%error, "signed in, but a restart will ask again");
                    }
                    other => other?,
                }
                self.token().await
            }
            other => other,
        }
    }

    /// Asks a human to sign in, whoever is signed in now, and saves the login. Ends
    /// early when another process signs in on this machine.
    ///
    /// # Errors
    /// [`CredentialError::LoginFailed`] when the human declines or the login server
    /// refuses; [`CredentialError::Store`] when the login works but cannot be saved.
    pub async fn log_in(&self, prompt: &dyn LoginPrompt) -> Result<(), CredentialError> {
        let before = self.reload().await;
        loop {
            let code = self.new_code(prompt).await?;
            prompt.notice(&LoginNotice::Code {
                url: &code.verification_uri,
                user_code: &code.user_code,
                expires_in: code.expires_in,
            });
            let Some(outcome) = self.wait_for_human(&code, &before, prompt).await? else {
                prompt.notice(&LoginNotice::Expired);
                continue;
            };
            self.memory().refused = None;
            let kept = match outcome {
                LogIn::Here(tokens) => self.keep(tokens).await,
                LogIn::Elsewhere => Ok(()),
            };
            prompt.notice(&LoginNotice::Done);
            return kept;
        }
    }

    /// Forgets the saved login here and at the login server.
    ///
    /// # Errors
    /// [`CredentialError::Store`] when it cannot be removed.
    pub async fn log_out(&self) -> Result<SignedOut, CredentialError> {
        let tokens = self.reload().await;
        let told = match &tokens.refresh {
            Some(refresh) => self.0.oauth.revoke(refresh).await,
            None => Ok(()),
        };
        {
            let mut memory = self.memory();
            memory.tokens = None;
            memory.unsaved = false;
        }
        let inner = self.0.clone();
        off_runtime(move || inner.store.clear())
            .await?
            .map_err(|error| CredentialError::Store {
                reason: error.to_string().into(),
            })?;
        Ok(match told {
            Err(error) => SignedOut::OnlyHere(error),
            Ok(()) if tokens == StoredTokens::default() => SignedOut::NothingSaved,
            Ok(()) => SignedOut::Revoked,
        })
    }

    /// A code, as soon as the login server gives one.
    async fn new_code(&self, prompt: &dyn LoginPrompt) -> Result<DeviceCode, CredentialError> {
        let mut attempt = 0;
        loop {
            match self.0.oauth.device_code().await {
                Ok(code) => return Ok(code),
                Err(error) if error.is_retryable() => {
                    prompt.notice(&LoginNotice::Problem { error: &error });
                    attempt += 1;
                    sleep(retry_delay(attempt, None, fastrand::f64())).await;
                }
                Err(error) => return Err(failed(&error)),
            }
        }
    }

    /// Polls with one code; `None` when it expired.
    async fn wait_for_human(
        &self,
        code: &DeviceCode,
        before: &StoredTokens,
        prompt: &dyn LoginPrompt,
    ) -> Result<Option<LogIn>, CredentialError> {
        let deadline = Instant::now() + code.expires_in;
        let mut poll = DevicePoll::new(code);
        loop {
            sleep(poll.interval()).await;
            let stored = self.reload().await;
            if stored.access.is_some() && stored != *before {
                return Ok(Some(LogIn::Elsewhere));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            match self.0.oauth.poll(code, &mut poll).await {
                PollStep::Done(tokens) => {
                    let stored = StoredTokens::from_tokens(tokens, now_ms(), None);
                    return Ok(Some(LogIn::Here(stored)));
                }
                PollStep::Wait => {}
                PollStep::Expired => return Ok(None),
                PollStep::Failed(error) if error.is_retryable() => {
                    prompt.notice(&LoginNotice::Problem { error: &error });
                }
                PollStep::Failed(error) => return Err(failed(&error)),
            }
        }
    }
}

/// Who signed in.
enum LogIn {
    /// The human, with our code.
    Here(StoredTokens),
    /// Another process on this machine.
    Elsewhere,
}

fn failed(error: &OAuthError) -> CredentialError {
    CredentialError::LoginFailed {
        reason: error.to_string().into(),
    }
}
