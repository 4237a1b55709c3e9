//! What the relay needs of other floors, in its own terms.

use std::future::Future;
use std::pin::Pin;

use serde_json::{Value, json};

use super::health::Health;
use super::start::Screen;
use crate::api::Client;
use crate::api::environments::{self, Registration as Wanted};
use crate::api::token::CredentialError;
use crate::cli::VERSION;
use crate::credentials::Credentials;
use crate::credentials::{LoginNotice, LoginPrompt};
use crate::listener::supported_commands;
use crate::protocol::ConnectionId;
use crate::protocol::reply::LETTA_CODE_VERSION;
use crate::telemetry::redact::Secrets;
use crate::telemetry::session_log::{self, SessionLog};
use crate::transport::relay::{
    AuthClass, AuthError, Authorizer, Direction, FrameLog, Label, RegisterClass, RegisterError,
    Registrar, Registration,
};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Registers this machine (01 §6).
pub(super) struct Registering {
    api: Client,
    wanted: Wanted,
    log: SessionLog,
}

impl Registering {
    pub(super) fn new(
        api: Client,
        device_id: String,
        instance: String,
        name: String,
        log: SessionLog,
    ) -> Self {
        let metadata = json!({
            "lettaCodeVersion": LETTA_CODE_VERSION,
            "os": std::env::consts::OS,
            "nodeVersion": "none",
            "listener": format!("letta/{VERSION}"),
            "environmentMessageProtocol": "v2-input",
            "supportsPairedListenerGenerations": true,
            "supported_commands": supported_commands(),
            "self_update": {
                "supported": false, "writable": false,
                "reason": "The binary is replaced from outside.",
                "manual_command": "Install the new binary and restart the server.",
            },
        });
        let metadata = match metadata {
            Value::Object(metadata) => metadata,
            _ => serde_json::Map::new(),
        };
        let wanted = Wanted {
            device_id,
            listener_instance_id: instance,
            connection_name: name,
            metadata,
        };
        Self { api, wanted, log }
    }
}

impl Registrar for Registering {
    fn register(&self) -> BoxFuture<'_, Result<Registration, RegisterError>> {
        Box::pin(async {
            self.log.line(format!(
                "Registering with {}/v1/environments/register",
                self.api.base_url().as_str()
            ));
            let registered = self.api.register(&self.wanted).await.map_err(|error| {
                let class = match &error {
                    error if error.is_transient() => RegisterClass::Transient {
                        retry_after: error.retry_after(),
                    },
                    environments::RegisterError::Refused { .. }
                    | environments::RegisterError::Credentials(_) => RegisterClass::Refused,
                    _ => RegisterClass::Fatal,
                };
                RegisterError {
                    text: error.to_string(),
                    class,
                }
            })?;
            Ok(Registration {
                connection_id: ConnectionId::new(registered.connection_id),
                ws_url: registered.ws_url,
                split: registered.supports_split_status_channels,
                paired: registered.supports_paired_listener_generations,
            })
        })
    }
}

/// Hands out tokens; asks a person when it must.
pub(super) struct Authorizing {
    credentials: Credentials,
    health: Health,
    secrets: Secrets,
}

impl Authorizing {
    pub(super) fn new(credentials: Credentials, health: Health, secrets: Secrets) -> Self {
        Self {
            credentials,
            health,
            secrets,
        }
    }
}

impl Authorizer for Authorizing {
    fn bearer(&self, interactive: bool) -> BoxFuture<'_, Result<Option<String>, AuthError>> {
        Box::pin(async move {
            let token = if interactive {
                self.credentials.sign_in(self).await
            } else {
                self.credentials.token().await
            };
            match token {
                Ok(token) => Ok(token.map(|token| {
                    self.secrets.register(token.expose());
                    token.expose().to_owned()
                })),
                Err(error) => {
                    let class = match &error {
                        error if error.is_transient() => AuthClass::Transient,
                        CredentialError::Missing | CredentialError::Refused { .. }
                            if !interactive =>
                        {
                            AuthClass::LoginRequired
                        }
                        _ => AuthClass::Refused,
                    };
                    Err(AuthError {
                        text: error.to_string(),
                        class,
                    })
                }
            }
        })
    }
}

impl LoginPrompt for Authorizing {
    fn notice(&self, notice: &LoginNotice<'_>) {
        if let LoginNotice::Code { url, user_code, .. } = notice {
            self.health.login_required(url, user_code);
        }
        Screen.notice(notice);
    }
}

/// The session log, as the relay writes it.
pub(super) struct Logging(pub(super) SessionLog);

impl FrameLog for Logging {
    fn frame(&self, direction: Direction, label: Label, text: &str) {
        let direction = match direction {
            Direction::Recv => session_log::Direction::Received,
            Direction::Send => session_log::Direction::Sent,
        };
        let label = match label {
            Label::Client => session_log::Label::Client,
            Label::Protocol => session_log::Label::Protocol,
            Label::Lifecycle => session_log::Label::Lifecycle,
        };
        self.0.frame(direction, label, text);
    }

    fn line(&self, text: &str) {
        self.0.line(text);
    }
}
