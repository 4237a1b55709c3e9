//! How a [`LocalCloud`](crate::LocalCloud) is to behave, decided at its start.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::model::Model;
use crate::oauth::OAuthOptions;

/// How device sockets are opened (01 §8.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One socket for everything.
    Single,
    /// A control and a stream socket, opened together.
    #[default]
    Split,
    /// Control first; both sockets get a `listener_ready`.
    Paired,
}

/// What is done about `listener_ready` in paired mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ready {
    /// Sent at once with the right generation and attempt.
    #[default]
    Send,
    /// Never sent.
    Omit,
    /// Another generation.
    WrongGeneration,
    /// Another attempt number.
    WrongAttempt,
    /// A `sync` command comes before it on the control socket.
    Late,
}

/// What a test or a person may choose. `Options::default()` is a well-behaved
/// cloud in split mode with the scripted model, on a free port of 127.0.0.1.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on.
    pub bind: IpAddr,
    /// Port, 0 for a free one.
    pub port: u16,
    /// Kind of device connection offered at registration.
    pub mode: Mode,
    /// What happens to `listener_ready`; can be changed while running.
    pub ready: Ready,
    /// Whether `{"type":"ping"}` of a device is answered; can be changed while running.
    pub pong: bool,
    /// Whether the API can do background streams (03 §19.1).
    pub redis: bool,
    /// Who answers.
    pub model: Model,
    /// Handle of the model that new agents get, `provider/name`.
    pub model_handle: String,
    /// When set, API calls, registration and device sockets need this bearer key.
    pub api_key: Option<String>,
    /// The login endpoints.
    pub oauth: OAuthOptions,
    /// Unknown agents and conversations come into being when first named. Ids
    /// that start with `agent-missing` or `conv-missing` never do.
    pub auto_create: bool,
    /// A plain message while a call waits for approval gets HTTP 409 in place
    /// of the usual error in the stream (03 §19.3).
    pub pending_as_409: bool,
    /// A real Letta server that gets every API call.
    pub upstream: Option<String>,
    /// Time between keep-alive pings of an event stream.
    pub ping_interval: Duration,
    /// `runtime.acting_user_id` put on frames of relay clients.
    pub acting_user: String,
    /// How long [`LocalCloud::turn`](crate::LocalCloud::turn) waits.
    pub turn_timeout: Duration,
    /// Bytes of frames and of request bodies that are remembered, each.
    pub record_limit: usize,
    /// Whether registration answers with a `wsUrl` that has a query of its own.
    pub ws_query: Option<String>,
    /// What stands before the path of `wsUrl`, such as `wss://localhost:8443`,
    /// when something in front of this cloud does the TLS.
    pub relay_origin: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            mode: Mode::default(),
            ready: Ready::default(),
            pong: true,
            redis: true,
            model: Model::default(),
            model_handle: "anthropic/claude-sonnet-4-5-20250929".to_owned(),
            api_key: None,
            oauth: OAuthOptions::default(),
            auto_create: true,
            pending_as_409: false,
            upstream: None,
            ping_interval: Duration::from_secs(20),
            acting_user: "user-local".to_owned(),
            turn_timeout: Duration::from_secs(30),
            record_limit: 64 << 20,
            ws_query: None,
            relay_origin: None,
        }
    }
}
