//! The error that ends a turn, in the words that people read (spec 03 §11.9).

use std::time::SystemTime;

use serde_json::{Map, Value};

use super::chunk::api_error;
use crate::api::ApiError;
use crate::api::explain::Failure;
use crate::protocol::Scope;

/// Why a turn failed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TurnError {
    /// For people. `None`: the turn ended without anything to tell (a cancellation).
    pub(crate) text: Option<String>,
    /// `api_error` of the terminal loop error.
    pub(crate) api_error: Option<Value>,
    /// The stop reason of the turn.
    pub(crate) stop_reason: String,
}

impl TurnError {
    /// A failure with a text of ours.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self {
            text: Some(text.into()),
            api_error: None,
            stop_reason: "error".into(),
        }
    }

    /// A request that failed.
    pub(crate) fn of_request(error: &ApiError, scope: &Scope, run_id: Option<&str>) -> Self {
        let detail = error.detail();
        let mut failure = Failure::of_request(error, &detail);
        failure.agent_id = scope.agent_id.as_deref();
        failure.run_id = run_id;
        let text = failure.user_text(SystemTime::now());
        Self {
            text,
            api_error: None,
            stop_reason: "error".into(),
        }
    }

    /// A run that stopped with an error.
    pub(crate) fn of_stop(
        stop_reason: &str,
        detail: Option<&str>,
        info: Option<&Map<String, Value>>,
        scope: &Scope,
        run_id: Option<&str>,
    ) -> Self {
        let fallback = format!("Unexpected stop reason: {stop_reason}");
        let body = info.map(|info| Value::Object(info.clone()));
        let failure = Failure {
            status: None,
            body: body.as_ref(),
            text: detail.unwrap_or(&fallback),
            agent_id: scope.agent_id.as_deref(),
            run_id,
        };
        Self {
            text: failure.user_text(SystemTime::now()),
            api_error: info.and_then(|info| api_error(info, run_id)),
            stop_reason: stop_reason.to_owned(),
        }
    }
}
