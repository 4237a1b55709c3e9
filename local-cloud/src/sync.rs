//! Short critical sections: one way to take a lock.
//!
//! Invariant: a guard never lives over an await, so a poisoned lock only means
//! that some other test assertion failed; the data stays usable.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes `mutex`, also when a thread panicked while holding it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
