//! The HTTP clients of the process, built once from one TLS configuration and
//! one set of proxies (00 §5).
//!
//! Invariant: every outgoing connection (API, login, relay, watched WebSockets) comes from
//! a [`Net`], so proxies and private CAs work everywhere or nowhere.

use std::ffi::OsString;
use std::time::Duration;

use thiserror::Error;

use super::proxy::{ProxyError, ProxySettings};
use super::tls::{self, CaFiles, TlsError};

/// Limit for name look-up, TCP connect, proxy tunnel and TLS handshake together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Idle connections kept per host: conversations stream on their own connections.
const MAX_IDLE_CONNECTIONS: usize = 4;

/// An idle connection older than this is closed, before most servers do it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// What the network stack is built from.
#[derive(Clone, Debug, Default)]
pub struct NetSettings {
    /// Further roots.
    pub ca_files: CaFiles,
    /// Proxies.
    pub proxies: ProxySettings,
}

impl NetSettings {
    /// Takes every variable of this module from `lookup` (usually `std::env::var_os`).
    pub fn from_env(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let directories = path("SSL_CERT_DIR")
            .map(|list| std::env::split_paths(&list).collect())
            .unwrap_or_default();
        Self {
            ca_files: CaFiles {
                cert_file: path("SSL_CERT_FILE").map(Into::into),
                cert_dirs: directories,
                extra: path("LETTA_EXTRA_CA_FILE").map(Into::into),
            },
            proxies: ProxySettings::from_env(|name| lookup(name)?.into_string().ok()),
        }
    }
}

/// Why the network stack cannot be built: wrong configuration (exit 78).
#[derive(Debug, Error)]
pub enum NetError {
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A proxy variable.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The HTTP library refused the settings.
    #[error("cannot set up HTTP: {0}")]
    Http(#[from] reqwest::Error),
}

/// The HTTP clients. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Net {
    http: reqwest::Client,
    upgrade: reqwest::Client,
}

impl Net {
    /// Builds both clients; opens no connection. Takes well under a millisecond,
    /// plus the reading of CA files where such are named.
    ///
    /// # Errors
    /// When a CA file or a proxy variable is unusable.
    pub fn new(settings: &NetSettings) -> Result<Self, NetError> {
        let config = tls::client_config(&settings.ca_files)?;
        let proxies = settings.proxies.proxies()?;
        let builder = || {
            let base = reqwest::Client::builder()
                .tls_backend_preconfigured(config.clone())
                .no_proxy()
                .http1_only()
                .referer(false)
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_keepalive(Duration::from_secs(30))
                .tcp_nodelay(true);
            proxies
                .iter()
                .cloned()
                .fold(base, reqwest::ClientBuilder::proxy)
        };
        Ok(Self {
            http: builder()
                .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .build()?,
            upgrade: builder()
                .pool_max_idle_per_host(0)
                .redirect(reqwest::redirect::Policy::none())
                .build()?,
        })
    }

    /// The pooled client for ordinary requests and event streams.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The client for `GET` with `Upgrade`: HTTP/1.1, a new connection each time, no redirects.
    pub fn upgrade(&self) -> &reqwest::Client {
        &self.upgrade
    }
}
