//! The Letta HTTP API (03 §1–4, 01 §5–6): one client, one file per resource.
//!
//! Every request goes [`client`] → [`call`] → [`net`]; failures come back as
//! [`ApiError`], which [`classify`] and [`explain`] turn into decisions and
//! texts. Server objects stay `serde_json::Value`s unless a field decides
//! something here, so that what this build does not know survives.

pub mod agent_secrets;
mod agents;
pub mod call;
pub mod classify;
pub mod client;
mod conversations;
pub mod environments;
pub mod error;
pub mod explain;
mod in_flight;
pub mod messages;
pub mod models;
pub mod net;
pub mod oauth;
pub mod proxy;
pub mod response_state;
pub mod retry;
pub mod runs;
mod schedules;
pub mod sse;
pub mod stream;
pub mod tls;
pub mod token;

#[cfg(test)]
pub(crate) mod tests;

pub use client::{BaseUrl, Client, ClientSettings, Path};
pub use error::ApiError;
pub use net::{Net, NetSettings};
pub use stream::{Chunk, SseStream, StreamError};
pub use token::{CredentialError, TokenSource};
