//! Who this server is, and its claim to be the only one of that name here
//! (01 §2.3, §4.4, §6, §7).

use anyhow::Result;

use super::start::{self, Foundation};
use crate::config::Given;
use crate::protocol::PermissionMode;
use crate::state::instance_lock::{InstanceLock, InstanceLockError, InstanceScope};
use crate::state::pid_file::PidFile;

/// Another server of this name runs here.
const ALREADY_RUNNING: u8 = 69;
/// The claim could not be made at all.
const UNUSABLE: u8 = 78;

/// What it is called, by people and by the relay.
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) device_id: String,
    pub(super) instance: String,
    pub(super) base_url: String,
    pub(super) mode: Given<PermissionMode>,
}

impl Identity {
    /// `register`: the relay shows the name, so a person may be asked for it.
    ///
    /// # Errors
    /// The id of the machine cannot be saved.
    pub(super) fn of(
        foundation: &Foundation,
        mode: Given<PermissionMode>,
        register: bool,
    ) -> Result<Self> {
        let name = if register {
            foundation.name_or_ask()
        } else {
            start::hostname()
        };
        Ok(Self {
            device_id: foundation.device_id()?,
            instance: foundation.instance_id(&name),
            base_url: foundation.base_url(),
            name,
            mode,
        })
    }
}

/// What is held while the server runs.
pub(super) struct Claim {
    lock: Option<InstanceLock>,
    /// By which `letta stop` finds it.
    _pid_file: Option<PidFile>,
}

impl Claim {
    /// Takes the lock, where one is needed, and leaves the process id.
    ///
    /// # Errors
    /// The exit code; the person has been told.
    pub(super) fn make(
        foundation: &Foundation,
        identity: &Identity,
        register: bool,
    ) -> Result<Self, u8> {
        let home = &foundation.home;
        let Identity { name, instance, .. } = identity;
        let assigned = foundation.config.listener_instance_id.is_some();
        let lock = if assigned || !register {
            None
        } else {
            let scope = InstanceScope {
                server_url: &identity.base_url,
                device_id: &identity.device_id,
                instance_id: instance,
            };
            match InstanceLock::acquire(home, scope) {
                Ok(lock) => Some(lock),
                Err(error @ InstanceLockError::AlreadyRunning { .. }) => {
                    complain!("Error: {name:?} is already running on this machine: {error}");
                    return Err(ALREADY_RUNNING);
                }
                Err(error) => {
                    complain!("Error: Could not establish listener ownership: {error}");
                    return Err(UNUSABLE);
                }
            }
        };
        let pid_file = PidFile::claim(home, instance, name).unwrap_or_else(|error| {
            complain!("Warning: `letta stop` will not find this server: {error}");
            None
        });
        Ok(Self {
            lock,
            _pid_file: pid_file,
        })
    }

    /// Gives all of it back.
    pub(super) fn release(self) {
        if let Some(lock) = self.lock
            && let Err(error) = lock.release()
        {
            complain!("Warning: the instance lock could not be removed: {error}");
        }
    }
}
