//! The ways in and out of this process: the health endpoints and the watchdog
//! that answer whether it is well.

pub mod http;
pub mod watchdog;
