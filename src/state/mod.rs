//! Everything on disk under `~/.letta` and `.letta` (spec 01 §4, §7).
//!
//! Invariants: directories made here are 0700 and files 0600, an existing mode
//! is never loosened; files are replaced whole; what another program wrote and
//! we do not understand is kept; what does not parse is set aside, never lost.
//! A lock never depends on a process id alone.

mod agent_flags;
pub mod atomic;
pub mod attached;
pub mod directory_lock;
pub mod home;
pub mod instance_lock;
pub mod interrupted;
pub mod json_file;
mod link_lock;
pub mod os_lock;
pub mod pid_file;
pub(crate) mod process_age;
pub mod process_identity;
pub mod remote_settings;
pub mod settings;
pub mod settings_files;
pub mod spare;
mod toolset_preference;

pub use home::Home;
pub use remote_settings::RemoteSettings;
pub use settings::{LocalSettings, UserSettings};
pub use settings_files::SettingsFiles;
