//! The way out of one connection: bounded queues, coalescing, envelopes.
//!
//! Whoever has something to say pushes it here; the task of each socket drains
//! its lane. Invariants: `event_seq` counts every event of the connection once,
//! in the order of the pushes as long as no socket is stalled, over both lanes
//! and over sockets that come and go; nothing waits while no socket is attached; a frame is never dropped
//! from a living socket except a status frame that a newer one replaces
//! (01 §8.9, 02 §4.1, §4.4).

mod envelope;
mod queue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;

use self::queue::{Item, Queue};
use crate::events::EventKind;
use crate::protocol::Scope;

/// Events that may wait on one stalled socket; one more ends it.
pub const MAX_QUEUED_EVENTS: usize = 512;

/// Bytes of events and replies that may wait on one socket; more ends it. A
/// single frame above the limit passes when nothing waits before it.
pub const MAX_QUEUED_BYTES: usize = 16 * 1024 * 1024;

/// Which of a connection's sockets a frame travels on (02 §1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Replies, requests and all else; the only lane of a single socket.
    Control,
    /// Deltas and status updates, when the connection has a socket for them.
    Stream,
}

/// Why a [`Drain`] yields no more frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainEnd {
    /// Too much waited: the socket must be dropped, without a close handshake.
    Overflow {
        /// Frames that waited.
        frames: usize,
        /// Their size.
        bytes: usize,
    },
    /// The outbox was detached or attached anew.
    Detached,
    /// [`Outbox::finish`] was called and everything queued before it was yielded.
    Finished,
}

/// The outbox of one connection. Cheap to clone; all clones are the same outbox.
#[derive(Clone, Debug, Default)]
pub struct Outbox(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The last `event_seq` given out.
    seq: u64,
    /// How many frames were pushed.
    pushed: u64,
    /// How often sockets were attached.
    attachments: u64,
    attached: Option<Attached>,
}

/// The sockets of the moment.
#[derive(Debug)]
struct Attached {
    number: u64,
    control: Queue,
    /// `None`: stream frames travel on control.
    stream: Option<Queue>,
    finishing: bool,
    /// Set once, together with the cancellation of `ended`.
    overflow: Option<DrainEnd>,
    ended: CancellationToken,
}

/// The end of one lane that its socket's writer holds. Single consumer.
#[derive(Debug)]
pub struct Drain {
    outbox: Outbox,
    lane: Lane,
    /// The attachment it drains; of a later one it sees nothing.
    attachment: u64,
    ready: Arc<Notify>,
    /// Wakes a writer that is stuck in a write.
    ended: CancellationToken,
}

impl Outbox {
    /// An outbox without sockets, whose first event will have number 1.
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues an event; the envelope is added when it is drained.
    ///
    /// `body` is a JSON object text with its `type` first, shared by all
    /// connections that get the event. Text that is no object is skipped.
    pub fn push_event(&self, scope: &Scope, kind: EventKind, body: Arc<str>) {
        if !envelope::is_object(&body) {
            tracing::error!(?kind, "an event that is not a JSON object was skipped");
            return;
        }
        let lane = if kind.on_stream() {
            Lane::Stream
        } else {
            Lane::Control
        };
        let scope = scope.clone();
        self.push(lane, Item::Event { scope, kind, body });
    }

    /// Queues a whole frame for the control socket, without an envelope.
    ///
    /// Order within the lane is kept, so a reply never overtakes the events of
    /// the command it answers when both use one socket.
    pub fn push_reply(&self, body: String) {
        self.push(Lane::Control, Item::Reply(body));
    }

    /// The same for a sender that waits until the frame is taken: `permit` goes
    /// back to it then, or at once when no socket is attached. Such frames do
    /// not count as waiting bytes, since their sender bounds them.
    pub fn push_paced(&self, body: String, permit: OwnedSemaphorePermit) {
        let _permit = permit;
        self.push(Lane::Control, Item::Paced { body, _permit });
    }

    /// Whether sockets are attached, so that a push can reach someone.
    pub fn is_attached(&self) -> bool {
        let state = self.state();
        state.attached.as_ref().is_some_and(|now| now.open())
    }

    /// Takes new sockets: control, and a stream socket if `split`. Drains of an
    /// earlier attachment end.
    pub fn attach(&self, split: bool) -> (Drain, Option<Drain>) {
        self.detach();
        let mut state = self.state();
        state.attachments += 1;
        let attached = Attached {
            number: state.attachments,
            control: Queue::default(),
            stream: split.then(Queue::default),
            finishing: false,
            overflow: None,
            ended: CancellationToken::new(),
        };
        let drain = |lane, queue: &Queue| Drain {
            outbox: self.clone(),
            lane,
            attachment: attached.number,
            ready: queue.ready.clone(),
            ended: attached.ended.clone(),
        };
        let control = drain(Lane::Control, &attached.control);
        let stream = attached.stream.as_ref();
        let stream = stream.map(|queue| drain(Lane::Stream, queue));
        state.attached = Some(attached);
        (control, stream)
    }

    /// Lets go of the sockets: the backlog and everything pushed from now on is
    /// discarded until the next [`attach`](Self::attach).
    pub fn detach(&self) {
        if let Some(old) = self.state().attached.take() {
            old.ended.cancel();
        }
    }

    /// Takes no more frames; drains end with [`DrainEnd::Finished`] when they
    /// have yielded what was queued.
    pub fn finish(&self) {
        if let Some(attached) = self.state().attached.as_mut() {
            attached.finishing = true;
            attached.queues().for_each(|queue| queue.ready.notify_one());
        }
    }

    fn push(&self, lane: Lane, item: Item) {
        let mut state = self.state();
        let State {
            pushed, attached, ..
        } = &mut *state;
        let Some(attached) = attached.as_mut().filter(|now| now.open()) else {
            return;
        };
        *pushed += 1;
        let queue = attached.queue(lane);
        queue.push(item, *pushed);
        queue.ready.notify_one();
        attached.check(lane);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below is complete before anything that could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attached {
    fn open(&self) -> bool {
        !self.finishing && self.overflow.is_none()
    }

    fn queues(&mut self) -> impl Iterator<Item = &mut Queue> {
        std::iter::once(&mut self.control).chain(self.stream.as_mut())
    }

    fn queue(&mut self, lane: Lane) -> &mut Queue {
        match (lane, &mut self.stream) {
            (Lane::Stream, Some(stream)) => stream,
            _ => &mut self.control,
        }
    }

    /// The queue of the other socket, if there are two.
    fn other(&mut self, lane: Lane) -> Option<&mut Queue> {
        match lane {
            Lane::Control => self.stream.as_mut(),
            Lane::Stream if self.stream.is_some() => Some(&mut self.control),
            Lane::Stream => None,
        }
    }

    /// Ends the attachment if a lane holds more than it may.
    fn check(&mut self, lane: Lane) {
        if let Some((frames, bytes)) = self.queue(lane).excess() {
            self.overflow = Some(DrainEnd::Overflow { frames, bytes });
            self.queues().for_each(Queue::clear);
            self.ended.cancel();
        }
    }
}

impl Drain {
    /// The next frame of this lane, ready to be written. Cancel-safe: a frame
    /// is taken only when it is returned.
    ///
    /// # Errors
    /// When nothing more will come, with the reason.
    pub async fn next(&self) -> Result<String, DrainEnd> {
        loop {
            if let Some(frame) = self.try_next()? {
                return Ok(frame);
            }
            tokio::select! {
                () = self.ready.notified() => {}
                () = self.ended.cancelled() => {}
            }
        }
    }

    /// The next frame if one waits.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn try_next(&self) -> Result<Option<String>, DrainEnd> {
        let mut state = self.outbox.state();
        let State { seq, attached, .. } = &mut *state;
        let attached = self.mine(attached).ok_or(DrainEnd::Detached)?;
        if let Some(overflow) = attached.overflow {
            return Err(overflow);
        }
        if let (Some(order), Some(other)) = (
            attached.queue(self.lane).oldest(),
            attached.other(self.lane),
        ) {
            other.number_older(order, seq);
        }
        match attached.queue(self.lane).pop() {
            // A permit goes back to its sender here.
            Some((Item::Reply(body) | Item::Paced { body, .. }, _)) => Ok(Some(body)),
            Some((Item::Event { scope, kind, body }, number)) => {
                let number = number.unwrap_or_else(|| {
                    *seq += 1;
                    *seq
                });
                drop(state);
                Ok(Some(envelope::wrap(&scope, kind, &body, number)))
            }
            None if attached.finishing => Err(DrainEnd::Finished),
            None => Ok(None),
        }
    }

    /// Says whether the socket takes no bytes at the moment. Only then are
    /// status frames merged and waiting events counted: a burst that a healthy
    /// socket will take at once arrives complete.
    pub fn set_stalled(&self, stalled: bool) {
        let mut state = self.outbox.state();
        if let Some(attached) = self.mine(&mut state.attached) {
            attached.queue(self.lane).stalled = stalled;
            attached.check(self.lane);
        }
    }

    /// Completes when the attachment is over while the writer is busy: an
    /// overflow, or a detachment. Not on [`Outbox::finish`].
    pub async fn ended(&self) -> DrainEnd {
        self.ended.cancelled().await;
        let mut state = self.outbox.state();
        self.mine(&mut state.attached)
            .and_then(|attached| attached.overflow)
            .unwrap_or(DrainEnd::Detached)
    }

    /// The attachment this drain was made for, if it is still the current one.
    fn mine<'a>(&self, attached: &'a mut Option<Attached>) -> Option<&'a mut Attached> {
        let current = attached.as_mut()?;
        (current.number == self.attachment).then_some(current)
    }
}

#[cfg(test)]
mod tests;
