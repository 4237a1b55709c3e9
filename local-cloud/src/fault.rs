//! Faults: what a test or a person makes the cloud do wrong, and when.
//!
//! A fault is queued for a [`Target`] and used up by the first request that
//! fits; the order of queueing is kept. Invariant: without a queued fault the
//! cloud behaves.

use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::sync::lock;

/// Which requests a queued fault waits for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "on", rename_all = "snake_case")]
pub enum Target {
    /// The next message POST of any conversation.
    Message,
    /// The next message POST of this conversation (`default:<agent>` for a default one).
    MessageOf {
        /// Conversation id as in the path, or `default:<agent>`.
        conversation: String,
    },
    /// The next registration.
    Register,
    /// The next upgrade of a device socket.
    Upgrade,
    /// The next HTTP request whose `METHOD /path` contains this text.
    Path {
        /// For example `POST /v1/runs/` or `/secrets`.
        contains: String,
    },
}

/// What goes wrong. Where a variant makes no sense for its target (an event
/// count on a registration) it is ignored.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// This HTTP answer; the request has no effect.
    Status {
        /// HTTP status code.
        status: u16,
        /// Extra headers, `Retry-After` for example.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// A string is sent as it is (text/plain), anything else as JSON, null as no body.
        #[serde(default)]
        body: Value,
    },
    /// 200 with an HTML page; the request has no effect.
    Html,
    /// The TCP connection is reset; the request has no effect.
    Reset,
    /// The request takes effect, then the connection is reset before any answer.
    AcceptThenReset,
    /// No answer at all, the connection stays open; the request has no effect.
    Hang,
    /// The answer comes this much later, otherwise right.
    Delay {
        /// Seconds.
        seconds: f64,
    },
    /// 200, an event stream without a single byte. The run goes on unseen.
    EmptyBody,
    /// The body is cut off after this many whole events. The run goes on.
    CutAfterEvents {
        /// Events let through.
        events: usize,
    },
    /// The body is cut off after this many bytes. The run goes on.
    CutAfterBytes {
        /// Bytes let through.
        bytes: usize,
    },
    /// A `data:` line that is no JSON after this many events, then the rest.
    Garbage {
        /// Events before it.
        events: usize,
    },
    /// The stream goes silent after this many events and stays open. The run goes on.
    Silence {
        /// Events before it.
        events: usize,
        /// Whether keep-alive pings still come (every ping interval).
        #[serde(default)]
        pings: bool,
    },
    /// Everything arrives, `[DONE]` included, but the body never ends.
    StayOpen,
    /// The run fails: this stop reason, then `event: error` with this body, which
    /// the run keeps as its `metadata.error`.
    ErrorEvent {
        /// Stop reason chunk sent before; none when absent.
        #[serde(default)]
        stop_reason: Option<String>,
        /// `{message_type:"error_message", error_type, message, detail}`.
        error: Value,
    },
    /// The run fails: an `error_message` chunk as data, then this stop reason.
    ErrorMessage {
        /// For example `llm_api_error`.
        stop_reason: String,
        /// Fields of the chunk: `message`, `error_type`, `detail`, …
        error: Value,
    },
    /// The run stops at once with this reason and no error (`llm_api_error`, `max_steps`, …).
    Stop {
        /// The reason.
        stop_reason: String,
    },
    /// Device upgrades: accept, then close at once.
    CloseAfterOpen {
        /// WebSocket close code.
        code: u16,
        /// Close reason.
        reason: String,
    },
}

impl Fault {
    /// An HTTP answer with a JSON detail text, in the server's usual form.
    pub fn status(status: u16) -> Self {
        Fault::Status {
            status,
            headers: Vec::new(),
            body: serde_json::json!({"detail": "forced failure"}),
        }
    }

    /// Adds a header to a [`Fault::Status`].
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Fault::Status { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Replaces the body of a [`Fault::Status`]: a string goes out as text.
    #[must_use]
    pub fn with_body(mut self, new: impl Into<Value>) -> Self {
        if let Fault::Status { body, .. } = &mut self {
            *body = new.into();
        }
        self
    }

    /// The run fails the way a model provider's failure looks: stop reason
    /// `llm_api_error`, then `event: error` (03 §19.2).
    pub fn llm_api_error(detail: &str) -> Self {
        Fault::ErrorEvent {
            stop_reason: Some("llm_api_error".to_owned()),
            error: serde_json::json!({
                "message_type": "error_message", "error_type": "llm_error",
                "message": "An error occurred with the LLM request.", "detail": detail,
            }),
        }
    }

    pub(crate) fn delay(&self) -> Option<Duration> {
        match self {
            Fault::Delay { seconds } => Duration::try_from_secs_f64(*seconds).ok(),
            _ => None,
        }
    }
}

/// The queue of faults still to come.
#[derive(Default)]
pub(crate) struct Faults(Mutex<Vec<(Target, Fault)>>);

impl Faults {
    pub(crate) fn queue(&self, target: Target, fault: Fault) {
        lock(&self.0).push((target, fault));
    }

    /// Takes the oldest fault whose target `fits`.
    pub(crate) fn take(&self, fits: impl Fn(&Target) -> bool) -> Option<Fault> {
        let mut queue = lock(&self.0);
        let at = queue.iter().position(|(target, _)| fits(target))?;
        Some(queue.remove(at).1)
    }

    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }

    pub(crate) fn left(&self) -> usize {
        lock(&self.0).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_used_once_by_the_first_request_that_fits() {
        let faults = Faults::default();
        faults.queue(Target::Register, Fault::status(500));
        faults.queue(Target::Message, Fault::Reset);
        assert_eq!(faults.take(|t| *t == Target::Message), Some(Fault::Reset));
        assert_eq!(faults.take(|t| *t == Target::Message), None);
        assert_eq!(faults.left(), 1);
    }

    #[test]
    fn a_fault_reads_from_json() {
        let fault: Fault =
            serde_json::from_str(r#"{"fault":"silence","events":2,"pings":true}"#).unwrap();
        assert_eq!(
            fault,
            Fault::Silence {
                events: 2,
                pings: true
            }
        );
        let target: Target =
            serde_json::from_str(r#"{"on":"path","contains":"/secrets"}"#).unwrap();
        assert_eq!(
            target,
            Target::Path {
                contains: "/secrets".into()
            }
        );
    }
}
