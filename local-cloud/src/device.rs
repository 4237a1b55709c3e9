//! The handle on a device that tests hold: send to it, hurt it, watch it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::link::{Channel, Closed, Frame, Link, Out};
use crate::log::{Cursor, WaitError};
use crate::record::Recorded;
use crate::server::Cloud;

/// A handle on one link of a device: send, hurt, and watch.
///
/// The handle remembers how far [`Device::wait_for`] has looked; a clone starts
/// where the original stands and then goes its own way.
pub struct Device {
    cloud: Arc<Cloud>,
    link: Arc<Link>,
    cursor: AtomicU64,
}

impl Clone for Device {
    fn clone(&self) -> Self {
        Self {
            cloud: self.cloud.clone(),
            link: self.link.clone(),
            cursor: AtomicU64::new(self.cursor.load(Ordering::SeqCst)),
        }
    }
}

impl Device {
    pub(crate) fn new(cloud: Arc<Cloud>, link: Arc<Link>) -> Self {
        let cursor = AtomicU64::new(link.opened_at.0);
        Self {
            cloud,
            link,
            cursor,
        }
    }

    /// `conn-…` of the registration this link belongs to.
    pub fn connection_id(&self) -> &str {
        &self.link.connection_id
    }

    /// Number of this link, counted from 1 over all devices.
    pub fn link(&self) -> u64 {
        self.link.number
    }

    /// Whether all sockets of the link are open and none is being closed.
    pub fn is_open(&self) -> bool {
        self.link.open.load(Ordering::SeqCst)
    }

    /// The upgrade request of one of its open sockets.
    pub fn handshake(&self, channel: Channel) -> Option<Arc<Recorded>> {
        self.link.handshake(channel)
    }

    /// Sends a command (control or single socket). A `runtime` in it makes the
    /// agent and conversation exist, when [`auto_create`](crate::Options) is on.
    /// Nothing happens when the link has ended.
    pub fn send(&self, frame: Value) {
        self.cloud.announce_scope(&self.link.connection_id, &frame);
        self.send_text(frame.to_string());
    }

    /// Sends a text frame as it is.
    pub fn send_text(&self, text: impl Into<String>) {
        self.link.send_text(text.into());
    }

    /// Sends a binary frame.
    pub fn send_binary(&self, data: impl Into<Bytes>) {
        self.link
            .put(self.link.command_channel(), Out::Binary(data.into()));
    }

    /// Sends a text frame on a given socket; false when it is not open.
    pub fn send_on(&self, channel: Channel, text: impl Into<String>) -> bool {
        self.link.put(channel, Out::Text(text.into().into()))
    }

    /// Sends a command with a `request_id` (a new one if it has none) and waits
    /// for the reply that carries it.
    ///
    /// # Errors
    /// No reply in time.
    pub async fn request(&self, mut frame: Value, within: Duration) -> Result<Value, WaitError> {
        if !frame["request_id"].is_string() {
            frame["request_id"] = json!(format!("req-{}", crate::short_id()));
        }
        let id = frame["request_id"].clone();
        let mark = self.mark();
        self.send(frame);
        let (reply, _) = self
            .wait_after(mark, |f| f["request_id"] == id, within)
            .await?;
        Ok(reply)
    }

    /// Closes every socket with this code and reason.
    pub fn close(&self, code: u16, reason: &str) {
        self.link.close_all(code, reason);
    }

    /// Closes one socket.
    pub fn close_channel(&self, channel: Channel, code: u16, reason: &str) {
        self.link.end();
        self.link.put(channel, Out::Close(code, reason.to_owned()));
    }

    /// Ends TCP without a close frame.
    pub fn drop_tcp(&self) {
        self.link.cut();
    }

    /// Ends TCP with RST.
    pub fn reset_tcp(&self) {
        self.link.end();
        for tap in self.link.taps() {
            tap.reset();
        }
    }

    /// Goes half-open: nothing is read or written any more, TCP stays up.
    pub fn freeze(&self) {
        for tap in self.link.taps() {
            tap.freeze();
        }
    }

    /// Whether pings of this link are answered.
    pub fn set_pong(&self, on: bool) {
        self.link.pong.store(on, Ordering::SeqCst);
    }

    /// Every frame of this link so far, pings included.
    pub fn frames(&self) -> Vec<Arc<Frame>> {
        self.frames_since(self.link.opened_at)
    }

    /// The frames of this link behind `cursor`.
    pub fn frames_since(&self, cursor: Cursor) -> Vec<Arc<Frame>> {
        let mut frames = self.cloud.devices.frames.since(cursor);
        frames.retain(|frame| frame.link == self.link.number);
        frames
    }

    /// The present position: what comes next lies behind it.
    pub fn mark(&self) -> Cursor {
        self.cloud.devices.frames.end()
    }

    /// Lets [`Device::wait_for`] look only at what comes from now on.
    pub fn skip_to_now(&self) {
        self.cursor.store(self.mark().0, Ordering::SeqCst);
    }

    /// The next frame that `accept` takes, searched from where the last
    /// `wait_for` of this handle ended (at first: from the link's opening).
    ///
    /// # Errors
    /// None came in time; the error lists the last frames.
    pub async fn wait_for(
        &self,
        accept: impl FnMut(&Value) -> bool,
        within: Duration,
    ) -> Result<Value, WaitError> {
        let from = Cursor(self.cursor.load(Ordering::SeqCst));
        let (value, cursor) = self.wait_after(from, accept, within).await?;
        self.cursor.store(cursor.0, Ordering::SeqCst);
        Ok(value)
    }

    /// [`Device::wait_for`] a frame of this `type`.
    ///
    /// # Errors
    /// None came in time.
    pub async fn wait_for_type(&self, kind: &str, within: Duration) -> Result<Value, WaitError> {
        self.wait_for(|frame| frame["type"] == kind, within).await
    }

    /// The first frame behind `cursor` that `accept` takes, and the position
    /// behind it. The handle's own position stays.
    ///
    /// # Errors
    /// None came in time.
    pub async fn wait_after(
        &self,
        cursor: Cursor,
        mut accept: impl FnMut(&Value) -> bool,
        within: Duration,
    ) -> Result<(Value, Cursor), WaitError> {
        let number = self.link.number;
        let frames = &self.cloud.devices.frames;
        let found = frames
            .find(cursor, Instant::now() + within, |frame| {
                (frame.link == number && accept(&frame.value)).then(|| frame.value.clone())
            })
            .await;
        match found {
            Some((cursor, value)) => Ok((value, cursor)),
            None => Err(self.cloud.frame_wait_error("the expected frame", within)),
        }
    }

    /// Waits until one socket of this link has ended and says how.
    ///
    /// # Errors
    /// It is still open after `within`.
    pub async fn wait_closed(
        &self,
        channel: Channel,
        within: Duration,
    ) -> Result<Arc<Closed>, WaitError> {
        let number = self.link.number;
        let ended = |c: &Arc<Closed>| (c.link == number && c.channel == channel).then(|| c.clone());
        let closed = &self.cloud.devices.closed;
        match closed
            .find(Cursor::START, Instant::now() + within, ended)
            .await
        {
            Some((_, closed)) => Ok(closed),
            None => Err(self.cloud.frame_wait_error("the end of the socket", within)),
        }
    }
}
