//! What the program says about itself: logs for people, the session log for
//! those who look into a transport problem, metrics for machines.
//!
//! Knows nothing of what it describes: names of tools, states and settings are
//! handed in. Invariant: no secret leaves through here ([`redact`]), and no
//! caller ever waits for a disk, a terminal or a scraper.

pub mod allocator;
mod clock;
pub mod command_summary;
pub mod last_words;
pub mod logging;
pub mod metrics;
pub mod process_stats;
pub mod redact;
pub mod session_log;
