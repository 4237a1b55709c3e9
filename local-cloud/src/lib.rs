//! A stand-in for Letta Cloud on one machine, for people and for tests.
//!
//! One port serves registration and the device relay, the clients' side of the
//! relay, the login endpoints, the part of the Letta API that a remote listener
//! uses, and a chat page. The model is a script in the user's own message
//! ([`model::script`]) or any OpenAI-compatible endpoint. Everything that can go
//! wrong out there can be made to go wrong here ([`Fault`]).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use local_cloud::{Decision, LocalCloud, Options, Scope};
//!
//! let cloud = LocalCloud::start(Options::default()).await?;
//! // … start a listener with LETTA_BASE_URL = cloud.base_url() …
//! let scope = Scope::new("agent-1", "conv-1");
//! let turn = cloud.turn_deciding(&scope, "CALL Bash {\"command\":\"ls\"}\nSAY done",
//!     |_request| Decision::Allow).await?;
//! assert_eq!(turn.text(), "done");
//! # Ok(()) }
//! ```

mod connections;
mod control;
mod device;
mod entry;
mod fault;
mod inspect;
mod lab;
mod letta;
mod link;
mod log;
pub mod model;
mod net;
mod oauth;
mod options;
mod origin;
mod page;
mod record;
mod relay;
mod reply;
mod server;
mod sync;
mod turn;
mod upstream;

pub use control::Registration;
pub use device::Device;
pub use fault::{Fault, Target};
pub use link::{Channel, Closed, Frame};
pub use log::{Cursor, WaitError};
pub use model::{Model, OpenAi};
pub use oauth::{OAuthAnswer, OAuthOptions};
pub use options::{Mode, Options, Ready};
pub use record::Recorded;
pub use server::{LocalCloud, StartError};
pub use turn::{Decision, Scope, TurnTrace};

/// The time as the API writes it: UTC with milliseconds.
fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Twelve hexadecimal digits, different every time.
fn short_id() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    id.get(..12).unwrap_or_default().to_owned()
}
