//! Children of this process: which shell runs a command, in which
//! environment, how its output is cleaned, kept and bounded, how it is ended,
//! and what becomes of it in the background (spec 04 §6). A WebSocket that is
//! watched is kept beside them, because it lives and ends in the same ways.
//!
//! [`Processes`] owns them all; a [`Session`] is a handle to one.

pub mod ansi;
pub mod background;
pub mod capture;
pub mod decode;
pub mod environment;
pub mod excerpt;
pub mod group;
pub mod monitor;
mod news;
pub mod notification;
pub mod output_file;
pub mod pty;
pub mod sandbox;
pub mod scrub;
pub mod session;
pub mod shell;
pub mod spawn;
pub mod task;

pub use background::{Processes, StartError};
pub use environment::{BaseEnvironment, TurnFacts, Variables};
pub use session::{Ending, Finished, Keep, Plan, Session, Stream, Subscription};
pub use spawn::{Launch, SpawnError, Spawned};
pub use task::{About, Kind, Task};
