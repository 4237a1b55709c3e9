//! What tests ask a running cloud: who came, what was sent, what it remembers;
//! and how they set the stage. Every wait has a limit and says what it saw.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::control::Registration;
use crate::device::Device;
use crate::link::{Closed, Frame};
use crate::log::{Cursor, WaitError};
use crate::oauth::OAuthAnswer;
use crate::record::Recorded;
use crate::server::LocalCloud;
use crate::turn::Scope;

impl LocalCloud {
    /// The newest device whose sockets are all open, waiting for one.
    ///
    /// After a close or a drop through a [`Device`] handle that link no longer
    /// counts, so this waits for the reconnect.
    ///
    /// # Errors
    /// None in time; the error lists the last requests.
    pub async fn wait_for_device(&self, within: Duration) -> Result<Device, WaitError> {
        let newest = || self.cloud.devices.newest_open();
        let opened = &self.cloud.devices.opened;
        let start = opened.end();
        let link = match newest() {
            Some(link) => Some(link),
            None => {
                let found = opened
                    .find(start, Instant::now() + within, |_| newest())
                    .await;
                found.map(|(_, link)| link)
            }
        };
        let link = link.ok_or_else(|| self.cloud.request_wait_error("a device", within))?;
        Ok(Device::new(self.cloud.clone(), link))
    }

    /// The `nth` link (from 1) that any device has opened since the start, open or not.
    ///
    /// # Errors
    /// Fewer came in time.
    pub async fn wait_for_link(&self, nth: u64, within: Duration) -> Result<Device, WaitError> {
        let from = Cursor(nth.saturating_sub(1));
        let deadline = Instant::now() + within;
        match self
            .cloud
            .devices
            .opened
            .find(from, deadline, |link| Some(link.clone()))
            .await
        {
            Some((_, link)) => Ok(Device::new(self.cloud.clone(), link)),
            None => Err(self
                .cloud
                .request_wait_error(&format!("link {nth}"), within)),
        }
    }

    /// How many links have been opened since the start.
    pub fn links_opened(&self) -> u64 {
        self.cloud.devices.opened.end().0
    }

    /// Every end of a device socket so far.
    pub fn closings(&self) -> Vec<Arc<Closed>> {
        self.cloud.devices.closed.since(Cursor::START)
    }

    /// Every frame of every device so far, pings included.
    pub fn frames(&self) -> Vec<Arc<Frame>> {
        self.cloud.devices.frames.since(Cursor::START)
    }

    /// The present position in the frames of all devices.
    pub fn mark(&self) -> Cursor {
        self.cloud.devices.frames.end()
    }

    /// The first frame of any device behind `cursor` that `accept` takes.
    ///
    /// # Errors
    /// None in time; the error lists the last frames.
    pub async fn wait_for_frame(
        &self,
        cursor: Cursor,
        mut accept: impl FnMut(&Frame) -> bool,
        within: Duration,
    ) -> Result<(Arc<Frame>, Cursor), WaitError> {
        let pick = |frame: &Arc<Frame>| accept(frame).then(|| frame.clone());
        match self
            .cloud
            .devices
            .frames
            .find(cursor, Instant::now() + within, pick)
            .await
        {
            Some((cursor, frame)) => Ok((frame, cursor)),
            None => Err(self.cloud.frame_wait_error("the expected frame", within)),
        }
    }

    /// Every registration so far, refused ones included.
    pub fn registrations(&self) -> Vec<Arc<Registration>> {
        self.cloud.registrations.since(Cursor::START)
    }

    /// The `nth` registration (from 1), refused ones included.
    ///
    /// # Errors
    /// Fewer came in time.
    pub async fn wait_for_registration(
        &self,
        nth: u64,
        within: Duration,
    ) -> Result<Arc<Registration>, WaitError> {
        let from = Cursor(nth.saturating_sub(1));
        let deadline = Instant::now() + within;
        match self
            .cloud
            .registrations
            .find(from, deadline, |r| Some(r.clone()))
            .await
        {
            Some((_, registration)) => Ok(registration),
            None => Err(self
                .cloud
                .request_wait_error(&format!("registration {nth}"), within)),
        }
    }

    /// Every API request so far (the page and `/lab` left out), upgrades included.
    pub fn requests(&self) -> Vec<Arc<Recorded>> {
        self.cloud.requests.since(Cursor::START)
    }

    /// The present position in [`LocalCloud::requests`].
    pub fn request_mark(&self) -> Cursor {
        self.cloud.requests.end()
    }

    /// The API requests behind `cursor`.
    pub fn requests_since(&self, cursor: Cursor) -> Vec<Arc<Recorded>> {
        self.cloud.requests.since(cursor)
    }

    /// The first request since the start that `accept` takes.
    ///
    /// # Errors
    /// None in time; the error lists the last requests.
    pub async fn wait_for_request(
        &self,
        accept: impl FnMut(&Recorded) -> bool,
        within: Duration,
    ) -> Result<Arc<Recorded>, WaitError> {
        let (request, _) = self
            .wait_for_request_after(Cursor::START, accept, within)
            .await?;
        Ok(request)
    }

    /// The first request behind `cursor` that `accept` takes, and the position behind it.
    ///
    /// # Errors
    /// None in time.
    pub async fn wait_for_request_after(
        &self,
        cursor: Cursor,
        mut accept: impl FnMut(&Recorded) -> bool,
        within: Duration,
    ) -> Result<(Arc<Recorded>, Cursor), WaitError> {
        let pick = |request: &Arc<Recorded>| accept(request).then(|| request.clone());
        match self
            .cloud
            .requests
            .find(cursor, Instant::now() + within, pick)
            .await
        {
            Some((cursor, request)) => Ok((request, cursor)),
            None => Err(self
                .cloud
                .request_wait_error("the expected request", within)),
        }
    }

    /// The bodies of all message POSTs to this conversation: `conv-…`, or
    /// `default` for every default conversation.
    pub fn message_bodies(&self, conversation: &str) -> Vec<Value> {
        let path = format!("/v1/conversations/{conversation}/messages");
        let requests = self.requests();
        requests
            .iter()
            .filter(|r| r.is("POST", &path))
            .map(|r| r.json())
            .collect()
    }

    /// Gives an agent secrets (made if it is not there).
    pub fn set_secrets(&self, agent: &str, secrets: &[(&str, &str)]) {
        let mut world = self.cloud.store.world();
        if self.cloud.store.ensure_agent(&mut world, agent)
            && let Some(agent) = world.agents.get_mut(agent)
        {
            agent.secrets = secrets
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
        }
    }

    /// Puts fields into an agent (made if it is not there).
    pub fn set_agent(&self, agent: &str, fields: Value) {
        let mut world = self.cloud.store.world();
        if self.cloud.store.ensure_agent(&mut world, agent)
            && let (Some(agent), Value::Object(fields)) = (world.agents.get_mut(agent), fields)
        {
            agent.fields.extend(fields);
        }
    }

    /// Makes a scope exist, before any frame names it.
    pub fn create_scope(&self, scope: &Scope) {
        self.cloud
            .store
            .announce("", Some(&scope.agent), &scope.conversation);
    }

    /// Leaves a call pending in a conversation, as a killed client would:
    /// `(tool_call_id, tool name, arguments)`.
    pub fn set_pending(&self, scope: &Scope, calls: &[(&str, &str, Value)]) {
        self.create_scope(scope);
        self.cloud.store.set_pending(&scope.key(), calls);
    }

    /// The ids of the calls that a conversation waits for.
    pub fn pending(&self, scope: &Scope) -> Vec<String> {
        let world = self.cloud.store.world();
        let conversation = world.conversations.get(&scope.key());
        conversation
            .map(|c| c.pending.iter().map(|call| call.id.clone()).collect())
            .unwrap_or_default()
    }

    /// What `runtime-status` says about a conversation, or the truth again (`None`).
    pub fn set_runtime_status(&self, scope: &Scope, status: Option<Value>) {
        self.create_scope(scope);
        if let Some(found) = self.cloud.store.world().conversations.get_mut(&scope.key()) {
            found.status_override = status;
        }
    }

    /// Queues answers of the token endpoint.
    pub fn script_oauth(&self, answers: impl IntoIterator<Item = OAuthAnswer>) {
        self.cloud.oauth.script(answers);
    }
}
