//! Bringing a client up to date: on `sync`, `runtime_start` and when a
//! connection opens again (spec 02 §10, §11.1).

use std::path::PathBuf;

use serde_json::{Value, json};

use super::actor::{Conversation, Done};
use super::intake::Asker;
use super::mailbox::Adopt;
use super::recovery::SyncFinding;
use crate::events::Audience;
use crate::protocol::ConnectionId;
use crate::protocol::command::Sync;
use crate::protocol::event::{Event, GitContext};
use crate::protocol::reply;

/// Who wants the replay, and what comes with it.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// `sync`.
    Sync { asker: Asker, force: bool },
    /// `runtime_start`; the response when it comes behind the replay.
    Adopt {
        asker: Asker,
        response: Option<Value>,
        force: bool,
    },
    /// A connection opened again.
    Opened(ConnectionId),
}

/// A replay with everything it had to fetch.
#[derive(Debug)]
pub(crate) struct Prepared {
    purpose: Purpose,
    finding: Option<SyncFinding>,
    git: Option<(PathBuf, Option<GitContext>)>,
}

impl Conversation {
    /// `sync` (02 §5.7).
    pub(crate) fn on_sync(&mut self, asker: Asker, sync: Sync) {
        let force = sync.force_device_status;
        self.prepare_replay(
            Purpose::Sync { asker, force },
            sync.recover_approvals,
            sync.resume_interrupted_turn,
        );
    }

    /// The second half of `runtime_start` (02 §5.2).
    pub(crate) async fn on_adopt(&mut self, asker: Asker, adopt: Adopt) {
        let mut refusal = adopt.response.clone();
        let refuse = |this: &Self, error: String| {
            refusal.insert("runtime".into(), Value::Null);
            refusal.insert("error".into(), error.into());
            this.respond_to_start(&asker, false, Value::Object(refusal));
        };
        if let Some(sources) = &adopt.skill_sources {
            self.skill_sources = Some(sources.clone());
        }
        if let Some(settings) = &adopt.execution_settings
            && self.execution.as_ref() != Some(settings)
            && !(self.life.is_idle() && self.queue.is_empty())
        {
            return refuse(
                self,
                "Cannot change execution settings while the conversation has active or queued work"
                    .into(),
            );
        }
        if adopt.workspace != self.workspace {
            if adopt.in_use || !(self.life.is_idle() && self.queue.is_empty()) {
                return refuse(
                    self,
                    "runtime_start cannot change the workspace sandbox for an active runtime"
                        .into(),
                );
            }
            self.workspace.clone_from(&adopt.workspace);
        }
        if let Some(cwd) = &adopt.cwd {
            let boot = self.services.remote.boot_cwd();
            let current = self.services.remote.cwd_of(&self.scope);
            let wanted = cwd
                .clone()
                .unwrap_or_else(|| boot.to_string_lossy().into_owned());
            if let Err(error) = self
                .services
                .remote
                .set_cwd(&self.scope, &wanted, &current)
                .await
            {
                return refuse(self, error.to_string());
            }
        }
        if let Some(mode) = adopt.mode {
            self.change_mode(mode).await;
        }
        let mut response = adopt.response;
        response.insert(
            "runtime".into(),
            json!({
                "agent_id": self.scope.agent_id, "conversation_id": self.scope.conversation_id,
            }),
        );
        if let Some(settings) = adopt.execution_settings {
            response.insert(
                "execution_settings".into(),
                Value::Object(settings.raw.clone()),
            );
            self.execution = Some(settings);
        }
        let mut response = Some(Value::Object(response));
        if !adopt.wait_for_replay
            && let Some(response) = response.take()
        {
            self.respond_to_start(&asker, true, response);
        }
        self.prepare_replay(
            Purpose::Adopt {
                asker,
                response,
                force: adopt.force_device_status,
            },
            adopt.recover_approvals,
            false,
        );
    }

    fn respond_to_start(&self, asker: &Asker, success: bool, fields: Value) {
        if let Some(id) = &asker.request_id {
            let frame = reply::reply("runtime_start_response", id, success, fields);
            self.frames.reply(&asker.from, &frame);
        }
    }

    /// A connection opened again: only conversations that hold something are
    /// told of (02 §11.1).
    pub(crate) fn replay_on_open(&mut self, connection: ConnectionId) {
        self.shown.remove(&connection);
        if self.is_held() {
            self.prepare_replay(Purpose::Opened(connection), false, false);
        }
    }

    /// Fetches what a replay needs beside the actor: pending approvals on the
    /// server, git facts of the working directory.
    fn prepare_replay(&mut self, purpose: Purpose, recover: bool, resume: bool) {
        let lookup = (recover && self.may_recover()).then(|| self.sync_lookup(resume));
        let cwd = self.shown_cwd();
        let git = self.services.git.clone();
        self.job(async move {
            let (finding, context) = tokio::join!(
                async {
                    match lookup {
                        Some(lookup) => lookup.await,
                        None => None,
                    }
                },
                git.load(&cwd),
            );
            Done::Replay(Box::new(Prepared {
                purpose,
                finding,
                git: Some((cwd, context)),
            }))
        });
    }

    /// Shows the git facts that are known and looks whether they still hold; a
    /// device status follows when they do not, and with `tell` in any case.
    pub(crate) fn refresh_git(&mut self, tell: bool) {
        let cwd = self.shown_cwd();
        if let Some(context) = self.services.git.cached(&cwd) {
            self.git = Some((cwd.clone(), context));
        }
        let git = self.services.git.clone();
        self.job(async move {
            let context = git.load(&cwd).await;
            Done::Git { cwd, context, tell }
        });
    }

    /// Git facts came in.
    pub(crate) fn on_git(&mut self, cwd: PathBuf, context: Option<GitContext>, tell: bool) {
        if cwd != self.shown_cwd() {
            return;
        }
        let fresh = Some((cwd, context));
        if tell || self.git != fresh {
            self.git = fresh;
            self.emit_device_status();
        }
    }

    /// Sends the replay (02 §10.1 steps 2–6).
    pub(crate) fn replay(&mut self, prepared: Prepared) {
        if let Some(git) = prepared.git {
            self.git = Some(git);
        }
        if let Some(finding) = prepared.finding {
            self.apply_finding(finding);
        }
        match prepared.purpose {
            Purpose::Sync { asker, force } => {
                self.replay_asks(&asker.from);
                self.replay_state(&asker.from, force);
                if let Some(id) = &asker.request_id {
                    let more = json!({"runtime": asker.runtime});
                    self.frames
                        .reply(&asker.from, &reply::reply("sync_response", id, true, more));
                }
            }
            Purpose::Adopt {
                asker,
                response,
                force,
            } => {
                self.replay_asks(&asker.from);
                self.replay_state(&asker.from, force);
                if let Some(response) = response {
                    self.respond_to_start(&asker, true, response);
                }
            }
            Purpose::Opened(connection) => {
                self.show_device_status(&connection, true);
                self.loop_status_to(Audience::Connection(connection.clone()));
                self.replay_asks(&connection);
                self.queue_snapshot_to(Audience::Connection(connection.clone()));
                self.subagents_to(Audience::Connection(connection));
            }
        }
    }

    fn replay_asks(&mut self, to: &ConnectionId) {
        for request in self.asks.register(to) {
            self.frames.event_to(
                Audience::Connection(to.clone()),
                &Event::ControlRequest(&request),
            );
        }
    }

    fn replay_state(&mut self, to: &ConnectionId, force: bool) {
        self.show_device_status(to, force);
        self.loop_status_to(Audience::Connection(to.clone()));
        self.queue_snapshot_to(Audience::Connection(to.clone()));
        self.subagents_to(Audience::Connection(to.clone()));
    }
}
