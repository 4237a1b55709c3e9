//! Requests that several callers wait for at once (03 §1.5).
//!
//! Invariant: at most one request per key is under way, nothing is kept once it
//! has ended, and it ends early when its last caller goes away.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The requests under way, by key.
pub(super) struct InFlight<T: Clone>(Mutex<HashMap<String, WeakShared<Boxed<T>>>>);

impl<T: Clone> Default for InFlight<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> InFlight<T> {
    /// Joins the request under `key`, or starts `request` when there is none.
    pub(super) async fn join(
        &self,
        key: &str,
        request: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let shared = self.find_or_start(key, request);
        shared.await
    }

    fn find_or_start(
        &self,
        key: &str,
        request: impl Future<Output = T> + Send + 'static,
    ) -> Shared<Boxed<T>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An ended request cannot be upgraded or has its result already: neither is joined.
        let running = all.get(key).and_then(WeakShared::upgrade);
        if let Some(running) = running.filter(|running| running.peek().is_none()) {
            return running;
        }
        all.retain(|_, other| other.upgrade().is_some_and(|other| other.peek().is_none()));
        let started: Boxed<T> = Box::pin(request);
        let started = started.shared();
        if let Some(weak) = started.downgrade() {
            all.insert(key.to_owned(), weak);
        }
        started
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn callers_at_the_same_time_share_and_later_ones_ask_again() {
        let flights = InFlight::default();
        let asked = Arc::new(AtomicU32::new(0));
        let request = || {
            let asked = asked.clone();
            async move {
                let number = asked.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                number
            }
        };
        let (a, b, other) = tokio::join!(
            flights.join("k", request()),
            flights.join("k", request()),
            flights.join("other", request())
        );
        assert_eq!((a, b, other), (0, 0, 1));
        assert_eq!(flights.join("k", request()).await, 2);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_does_not_take_the_request_with_it() {
        let flights = Arc::new(InFlight::default());
        let gate = Arc::new(Notify::new());
        let waiting = gate.clone();
        let mut first = Box::pin(flights.join("k", async move {
            waiting.notified().await;
            7
        }));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut second = Box::pin(flights.join("k", async { 8 }));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        gate.notify_one();
        assert_eq!(second.await, 7);
        // Everyone gone: the next caller starts anew.
        let mut third = Box::pin(flights.join("k", std::future::pending()));
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(third);
        assert_eq!(flights.join("k", async { 9 }).await, 9);
    }
}
