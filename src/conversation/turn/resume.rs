//! Going on with a stream that was cut (spec 03 §5.6).

use std::time::Duration;

use super::drain::{Cursor, Drained};
use super::{End, Turn};
use crate::api::ApiError;
use crate::api::classify;
use crate::api::messages::Sent;
use crate::api::runs::RunOwner;
use crate::api::stream::SseStream;

/// How often a cut stream is taken up again.
const ATTEMPTS: u32 = 60;
/// The wait after the first failed attempt; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

impl Turn {
    /// Reads a stream to its end, over any number of cuts.
    pub(crate) async fn drain(&mut self, sent: Sent) -> Result<Drained, End> {
        let otid = self.request_otid().map(String::from);
        let started = jiff::Timestamp::now();
        let resumable = sent.resumable;
        let drained = self.read(sent.stream, None, otid.as_deref()).await?;
        if resumable && self.should_resume(&drained, otid.as_deref()).await? {
            return self.resume(drained, otid.as_deref(), started).await;
        }
        Ok(drained)
    }

    async fn should_resume(&self, drained: &Drained, otid: Option<&str>) -> Result<bool, End> {
        if drained.stop != "error"
            || drained
                .failure
                .as_deref()
                .is_some_and(classify::is_approval_pending)
        {
            return Ok(false);
        }
        if !drained.saw_stop {
            return Ok(drained.cursor.run_id.is_some() || otid.is_some());
        }
        match &drained.cursor.run_id {
            Some(run_id) => self.is_replayable(run_id).await,
            None => Ok(false),
        }
    }

    async fn is_replayable(&self, run_id: &str) -> Result<bool, End> {
        let lookup = self.api.run_now(run_id, self.services.guards.stall_lookup);
        Ok(self
            .port
            .unless_cancelled(lookup)
            .await?
            .is_ok_and(|run| run.is_replayable()))
    }

    async fn resume(
        &mut self,
        mut so_far: Drained,
        otid: Option<&str>,
        started: jiff::Timestamp,
    ) -> Result<Drained, End> {
        let mut wait = FIRST_WAIT;
        for attempt in 1..=ATTEMPTS {
            let cursor = so_far.cursor.clone();
            let opened = self.open_again(&cursor, otid, started).await?;
            let failed = match opened {
                Ok(stream) => {
                    let after = cursor.run_id.is_some().then_some(&cursor);
                    let mut part = self.read(stream, after, otid).await?;
                    part.calls.continue_from(std::mem::take(&mut so_far.calls));
                    if part.cursor.run_id.is_none() {
                        part.cursor = cursor;
                    }
                    part.error_info = part.error_info.or(so_far.error_info.take());
                    if part.stop == "end_turn" && !part.calls.is_empty() {
                        part.stop = "requires_approval".into();
                    }
                    if part.stop != "error" {
                        return Ok(part);
                    }
                    let message = part.failure.clone().unwrap_or_default();
                    part.failure = part.failure.or(so_far.failure.take());
                    so_far = part;
                    message
                }
                Err(error) => error.to_string(),
            };
            // Whatever went wrong, a run that has nothing more to tell ends the attempts.
            let gone = match &so_far.cursor.run_id {
                Some(run_id) => self.is_over(run_id).await?,
                None => false,
            };
            if gone {
                break;
            }
            tracing::debug!(attempt, reason = %failed, "A cut stream could not be taken up yet.");
            self.port.unless_cancelled(tokio::time::sleep(wait)).await?;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        Ok(so_far)
    }

    /// A run that can be read and has nothing more to tell. One that cannot be
    /// looked up may still come back.
    async fn is_over(&self, run_id: &str) -> Result<bool, End> {
        let lookup = self.api.run_now(run_id, self.services.guards.stall_lookup);
        Ok(self
            .port
            .unless_cancelled(lookup)
            .await?
            .is_ok_and(|run| !run.is_replayable()))
    }

    /// Opens the rest of the stream: by run, by the otid of the request, or by
    /// the run that the conversation is found to be in.
    async fn open_again(
        &self,
        cursor: &Cursor,
        otid: Option<&str>,
        started: jiff::Timestamp,
    ) -> Result<Result<SseStream, ApiError>, End> {
        let open = async {
            match (&cursor.run_id, otid) {
                (Some(run_id), _) => self.api.run_stream(run_id, cursor.seq_id).await,
                (None, Some(otid)) => {
                    self.api
                        .request_stream(
                            &self.scope.conversation_id,
                            self.scope.agent_id.as_deref(),
                            otid,
                            0,
                        )
                        .await
                }
                (None, None) => {
                    let run_id = self.discover_run(started).await?;
                    self.api.run_stream(&run_id, 0).await
                }
            }
        };
        self.port.unless_cancelled(open).await
    }

    /// The running run of this conversation that began with this request (03 §2.2).
    async fn discover_run(&self, started: jiff::Timestamp) -> Result<String, ApiError> {
        let conversation = RunOwner::Conversation(&self.scope.conversation_id);
        let agent = self.scope.agent_id.as_deref().map(RunOwner::Agent);
        for owner in std::iter::once(conversation).chain(agent) {
            if let Some(run) = self.api.running_run(owner).await?
                && run
                    .created_at
                    .as_deref()
                    .and_then(|at| at.parse::<jiff::Timestamp>().ok())
                    .is_some_and(|at| at >= started)
            {
                return Ok(run.id);
            }
        }
        Err(ApiError::Invalid {
            reason: "no running run of this request was found".into(),
        })
    }
}
