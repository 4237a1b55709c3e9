//! Wire types of the listener protocol (spec 02): commands in, events out,
//! scopes and ids. Nothing but data: no I/O, no clocks, no files.

pub mod catalog;
pub mod command;
pub mod event;
pub(crate) mod fields;
pub mod id;
pub mod inbound;
pub mod mode;
pub mod reply;
pub mod time;

pub use fields::ShapeError;
pub use id::{ConnectionId, RuntimeKey, Scope};
pub use inbound::{Body, Inbound};
pub use mode::PermissionMode;
