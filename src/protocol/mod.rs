//! Wire types of the listener protocol (spec 02): commands in, events out,
//! scopes and ids. Nothing but data: no I/O, no clocks, no files.

pub mod id;
pub mod mode;
pub mod time;

pub use id::{ConnectionId, RuntimeKey, Scope};
pub use mode::PermissionMode;
