//! Streams over a run: each reader tails the record, and faults of the line
//! (cuts, garbage, silence) happen here and nowhere else.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use serde_json::json;
use tokio::sync::watch;

use crate::fault::Fault;
use crate::letta::runs::{Run, data};
use crate::reply;
use crate::server::Cloud;

/// Ends a foreground run when its reader goes away.
struct CancelOnDrop(Arc<Run>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if !self.0.is_done() {
            self.0.cancel();
        }
    }
}

/// One reader of a run's events, with what is to go wrong on the way.
struct Tail {
    cloud: Arc<Cloud>,
    run: Arc<Run>,
    news: watch::Receiver<u64>,
    fault: Option<Fault>,
    next: usize,
    events: usize,
    bytes: usize,
    cut: bool,
    ended: bool,
    _owner: Option<CancelOnDrop>,
}

/// The body of a stream over `run` behind `starting_after`.
pub(crate) fn stream(
    cloud: &Arc<Cloud>,
    run: &Arc<Run>,
    starting_after: u64,
    fault: Option<Fault>,
    owned: bool,
) -> Response {
    let next = run.index_behind(starting_after);
    let tail = Tail {
        cloud: cloud.clone(),
        run: run.clone(),
        news: run.news(),
        fault,
        next,
        events: 0,
        bytes: 0,
        cut: false,
        ended: false,
        _owner: owned.then(|| CancelOnDrop(run.clone())),
    };
    let body = futures_util::stream::unfold(tail, |mut tail| async move {
        let item = tail.read().await?;
        Some((item, tail))
    });
    reply::event_stream(Body::from_stream(body))
}

impl Tail {
    async fn read(&mut self) -> Option<io::Result<Bytes>> {
        if matches!(self.fault, Some(Fault::EmptyBody)) || self.ended {
            return None;
        }
        if matches!(
            self.fault,
            Some(Fault::CutAfterBytes { bytes: 0 } | Fault::CutAfterEvents { events: 0 })
        ) {
            self.cut = true;
        }
        loop {
            if self.cut {
                // Two rounds of the connection's loop write out what came before.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                self.ended = true;
                return Some(Err(io::Error::other("cut off by a fault")));
            }
            if let Some(pings) = self.silent() {
                return Some(Ok(self.stay(pings).await));
            }
            self.news.borrow_and_update();
            let (chunk, done) = self.gather();
            if !chunk.is_empty() {
                return Some(Ok(chunk));
            }
            if done {
                if matches!(self.fault, Some(Fault::StayOpen)) {
                    return Some(Ok(self.stay(false).await));
                }
                return None;
            }
            tokio::select! {
                _ = self.news.changed() => {}
                () = tokio::time::sleep(self.cloud.options.ping_interval) => {
                    return Some(Ok(self.keep_alive()));
                }
                () = self.cloud.stopped() => return None,
            }
        }
    }

    /// Whether silence has begun, and whether it has pings.
    fn silent(&self) -> Option<bool> {
        match self.fault {
            Some(Fault::Silence { events, pings }) if self.events >= events => Some(pings),
            _ => None,
        }
    }

    /// Stays open: the next keep-alive, or nothing until the server ends.
    async fn stay(&mut self, pings: bool) -> Bytes {
        if pings {
            tokio::time::sleep(self.cloud.options.ping_interval).await;
            return self.keep_alive();
        }
        self.cloud.stopped().await;
        self.ended = true;
        Bytes::new()
    }

    fn keep_alive(&self) -> Bytes {
        let seq = self
            .next
            .checked_sub(1)
            .map_or(0, |last| self.run.number_at(last));
        data(
            &json!({"message_type": "ping", "id": "ping", "date": crate::now(),
            "run_id": self.run.id, "seq_id": seq}),
        )
    }

    /// Everything there is to send now, as the fault leaves it; and whether that
    /// was all of the run.
    fn gather(&mut self) -> (Bytes, bool) {
        let run = self.run.clone();
        run.read_from(self.next, |events, done| {
            let mut out = BytesMut::new();
            let mut taken = 0;
            for (_, event) in events {
                if !self.let_through(event, &mut out) {
                    break;
                }
                taken += 1;
            }
            self.next += taken;
            let all = done && taken == events.len();
            if all
                && matches!(
                    self.fault,
                    Some(Fault::CutAfterEvents { .. } | Fault::CutAfterBytes { .. })
                )
            {
                self.cut = true;
            }
            (out.freeze(), all && !self.cut)
        })
    }

    /// Writes one event; false when the fault holds it back.
    fn let_through(&mut self, event: &Bytes, out: &mut BytesMut) -> bool {
        match self.fault {
            Some(Fault::CutAfterEvents { events }) if self.events >= events => {
                self.cut = true;
                return false;
            }
            Some(Fault::CutAfterBytes { bytes }) if self.bytes + event.len() >= bytes => {
                out.extend_from_slice(event.get(..bytes - self.bytes).unwrap_or_default());
                self.cut = true;
                return false;
            }
            Some(Fault::Silence { events, .. }) if self.events >= events => return false,
            Some(Fault::Garbage { events }) if self.events >= events => {
                out.extend_from_slice(GARBAGE);
                self.fault = None;
            }
            _ => {}
        }
        out.extend_from_slice(event);
        self.events += 1;
        self.bytes += event.len();
        true
    }
}

const GARBAGE: &[u8] = b"data: {\"message_type\": \"assistant_mess\n\n";
