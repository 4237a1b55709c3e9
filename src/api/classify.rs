//! What kind of failure a text tells of: pure tables (03 §11.1, §11.2, §11.5, §11.6).
//!
//! Invariant: everything here is decided by status and text alone, so that the
//! turn engine decides the same way for a refused request, an error inside a
//! stream and the stored error of a run.

use serde_json::Value;

use super::error::ApiError;

/// Never retried: the account is at its limit.
const QUOTA: &[&str] = &[
    "agents-limit-exceeded",
    "exceeded-quota",
    "free-usage-exceeded",
    "premium-usage-exceeded",
    "standard-usage-exceeded",
    "basic-usage-exceeded",
    "not-enough-credits",
    "hosted model usage limit",
    "out of credits",
    "usage_limit_reached",
];

/// A model provider had a bad moment (letter case counts).
const RETRYABLE: &[&str] = &[
    "Anthropic API error",
    "OpenAI API error",
    "Google Vertex API error",
    "ChatGPT API error",
    "ChatGPT server error",
    "Connection error during Anthropic streaming",
    "Connection error during OpenRouter streaming",
    "Connection error during streaming",
    "upstream connect error",
    "connection termination",
    "peer closed connection",
    "incomplete chunked read",
    "Network error",
    "Connection error",
    "Request timed out",
    "overloaded",
    "api_error",
    "server_error",
    "server error",
    "internal_error",
    "internal error",
    "service_unavailable",
    "service unavailable",
    "You can retry your request",
    "retry your request",
    "WebSocket closed",
    "websocket closed",
    "WebSocket error",
    "websocket error",
    "Connection ended",
    "connection ended",
    "connection lost",
    "other side closed",
    "fetch failed",
    "socket hang up",
    "ended without",
    "http2 request did not get a response",
    "terminated",
];

/// Sending the same again cannot help.
const NOT_RETRYABLE: &[&str] = &[
    "invalid api key",
    "incorrect api key",
    "authentication error",
    "authentication failed",
    "unauthorized",
    "permission denied",
    "forbidden",
    "invalid_request_error",
    "invalid model",
    "model_not_found",
    "context_length_exceeded",
    "invalid_encrypted_content",
];

/// Run error types that are final.
const FINAL_ERROR_TYPES: &[&str] = &[
    "llm_authentication",
    "llm_bad_request",
    "llm_insufficient_credits",
    "llm_permission_denied",
    "llm_not_found",
    "llm_unprocessable_entity",
];

/// Stop reasons after which nothing is retried, whatever the run says.
const FINAL_STOPS: &[&str] = &[
    "cancelled",
    "requires_approval",
    "max_steps",
    "max_tokens_exceeded",
    "context_window_overflow_in_system_prompt",
    "end_turn",
    "tool_rule",
    "no_tool_call",
];

fn has_any(text: &str, fragments: &[&str]) -> bool {
    fragments.iter().any(|fragment| text.contains(fragment))
}

/// The server waits for an answer to a tool call.
pub fn is_approval_pending(detail: &str) -> bool {
    detail.to_lowercase().contains("waiting for approval")
}

/// The answered tool calls are not the ones that the server waits for.
pub fn is_invalid_tool_call_ids(detail: &str) -> bool {
    detail.to_lowercase().contains("invalid tool call ids")
}

/// Client and server disagree about pending approvals.
pub fn is_approval_desync(detail: &str) -> bool {
    is_approval_pending(detail) || is_invalid_tool_call_ids(detail)
}

/// An approval was answered that nobody waits for any more (03 §5.3).
pub fn is_nothing_pending(text: &str) -> bool {
    text.contains("No tool call is currently awaiting approval")
}

/// Another request of the conversation is being processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    /// The run that is in the way, when the text names it.
    pub run_id: Option<String>,
}

/// Whether the conversation is busy, and with which run.
pub fn busy(detail: &str) -> Option<Busy> {
    let lower = detail.to_lowercase();
    if !has_any(
        &lower,
        &[
            "is currently being processed",
            "busy with another active run",
        ],
    ) {
        return None;
    }
    Some(Busy {
        run_id: named_run(detail),
    })
}

/// The value of the first `run_id=` that begins a word.
fn named_run(detail: &str) -> Option<String> {
    // ASCII lower case keeps byte offsets.
    let lower = detail.to_ascii_lowercase();
    lower.match_indices("run_id=").find_map(|(at, key)| {
        let before = detail.get(..at)?.chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            return None;
        }
        let rest = detail.get(at + key.len()..)?;
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            .unwrap_or(rest.len());
        rest.get(..end)
            .filter(|id| !id.is_empty())
            .map(str::to_owned)
    })
}

/// The account is at a limit: never retried.
pub fn is_quota(detail: &str) -> bool {
    has_any(&detail.to_lowercase(), QUOTA)
}

/// The model answered with nothing.
pub fn is_empty_response(detail: &str) -> bool {
    detail.to_lowercase().contains("empty content in")
}

/// A self-hosted server without Redis refuses background streams (00 §5).
pub fn needs_redis(status: Option<u16>, detail: &str) -> bool {
    let lower = detail.to_lowercase();
    status == Some(503) && lower.contains("background") && lower.contains("redis")
}

/// Asking again soon may work.
pub fn is_rate_limited(detail: &str) -> bool {
    let lower = detail.to_lowercase();
    error_code_matches(&lower, |code| code == 429)
        || has_any(&lower, &["rate limit", "too many requests"])
}

/// A model provider had a bad moment.
pub fn is_provider_hiccup(detail: &str) -> bool {
    is_cloudflare(detail) || has_any(detail, RETRYABLE)
}

/// Sending the same again cannot help.
pub fn is_final(detail: &str) -> bool {
    let lower = detail.to_lowercase();
    zai_error(detail).is_some_and(|error| error.is_final())
        || error_code_matches(&lower, |code| matches!(code, 400..=408 | 410..=449 | 451))
        || has_any(&lower, NOT_RETRYABLE)
}

/// Whether any `error code: <three digits>` in the lower-case text satisfies `test`.
fn error_code_matches(lower: &str, test: impl Fn(u16) -> bool) -> bool {
    lower.match_indices("error code:").any(|(at, key)| {
        lower
            .get(at + key.len()..)
            .and_then(|rest| rest.trim_start().get(..3))
            .and_then(|code| code.parse().ok())
            .is_some_and(&test)
    })
}

/// An outage page or JSON of Cloudflare's edge: 502, 520 to 526.
pub fn is_cloudflare(detail: &str) -> bool {
    cloudflare_code(detail).is_some()
}

/// The code of a Cloudflare edge outage; 0 when it names none.
pub fn cloudflare_code(detail: &str) -> Option<u16> {
    let lower = detail.to_lowercase();
    let compact: String = lower.chars().filter(|c| !c.is_whitespace()).collect();
    if compact.contains("\"cloudflare_error\":true") {
        let status = compact
            .split_once("\"status\":")
            .and_then(|(_, rest)| code_at(rest));
        return Some(status.unwrap_or(0));
    }
    if !lower.contains("cloudflare") {
        return None;
    }
    // Our own words for it, which come back in run errors: `Cloudflare 524: …`.
    let after = |mark: &str| {
        lower
            .match_indices(mark)
            .find_map(|(at, mark)| code_at(lower.get(at + mark.len()..)?.trim_start()))
    };
    if let Some(code) = after("cloudflare ") {
        return Some(code);
    }
    if !has_any(&lower, &["<!doctype html", "<html", "error code"]) {
        return None;
    }
    // `error code 524`, the title `… | 524: A timeout occurred`, or the status in front of the page.
    after("error code")
        .or_else(|| after("| ").filter(|code| lower.contains(&format!("{code}:"))))
        .or_else(|| {
            let (before, _) = lower.split_once("<!doctype html")?;
            code_at(before.split_whitespace().next_back()?)
        })
}

fn code_at(text: &str) -> Option<u16> {
    let code: u16 = text.get(..3)?.parse().ok()?;
    let ends = !text
        .as_bytes()
        .get(3)
        .is_some_and(|next| next.is_ascii_alphanumeric());
    (ends && matches!(code, 502 | 520..=526)).then_some(code)
}

/// An error of the Z.ai provider, found inside a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZaiError {
    /// Its code: 500, or 1000 to 1310.
    pub code: u16,
    /// Its message.
    pub message: String,
}

impl ZaiError {
    /// Sign-in, account and rate limits of Z.ai: retrying does not help.
    pub fn is_final(&self) -> bool {
        matches!(self.code, 1000..=1004 | 1100..=1121 | 1300..=1310)
    }
}

/// Finds `"code": 1302, "message": "…"`, or the same in Python's notation.
pub fn zai_error(text: &str) -> Option<ZaiError> {
    ['\'', '"'].into_iter().find_map(|quote| {
        let key = format!("{quote}code{quote}:");
        text.match_indices(&key).find_map(|(at, key)| {
            let rest = text.get(at + key.len()..)?.trim_start();
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let code: u16 = rest.get(..digits)?.parse().ok()?;
            let rest = rest.get(digits..)?.strip_prefix(',')?.trim_start();
            let rest = rest.strip_prefix(&format!("{quote}message{quote}:"))?;
            let rest = rest.trim_start().strip_prefix(quote)?;
            let message = rest.get(..rest.find(quote)?)?;
            let known = code == 500
                || matches!(code, 1000..=1004 | 1100..=1121 | 1200..=1234 | 1300..=1310);
            (known && !message.is_empty()).then(|| ZaiError {
                code,
                message: message.to_owned(),
            })
        })
    })
}

/// Whether a refused or failed message request is worth another try (03 §11.2 no. 4–6).
pub fn retry_before_stream(status: Option<u16>, detail: &str) -> bool {
    if is_quota(detail) {
        return false;
    }
    match status {
        Some(429 | 500..) => true,
        Some(400..) => false,
        _ => is_rate_limited(detail) || (!is_final(detail) && is_provider_hiccup(detail)),
    }
}

/// What is known of a run that stopped with an error (03 §11.4).
#[derive(Clone, Copy, Debug, Default)]
pub struct RunFailure<'a> {
    /// The stop reason of the stream.
    pub stop_reason: &'a str,
    /// `error_type`.
    pub error_type: Option<&'a str>,
    /// `retryable`, when the server says so.
    pub retryable: Option<bool>,
    /// The error detail.
    pub detail: &'a str,
}

/// Whether a stopped run is worth another request (03 §11.5).
pub fn retry_after_stop(failure: &RunFailure<'_>) -> bool {
    if FINAL_STOPS.contains(&failure.stop_reason) {
        return false;
    }
    if let Some(told) = failure.retryable {
        return told;
    }
    let detail = failure.detail;
    let final_type = failure
        .error_type
        .is_some_and(|kind| FINAL_ERROR_TYPES.contains(&kind));
    let rate_limited = is_rate_limited(detail);
    if final_type || is_quota(detail) || (is_final(detail) && !rate_limited) {
        return false;
    }
    failure.error_type == Some("llm_error")
        || rate_limited
        || is_provider_hiccup(detail)
        || failure.stop_reason == "llm_api_error"
}

/// The cloud restarts under a running request (03 §11.6); `error` is the error
/// information of a stream or a run.
pub fn is_deployment_interruption(error: &Value) -> bool {
    let text = |name: &str| error.get(name).and_then(Value::as_str);
    text("error_type") == Some("internal_error")
        && text("error_code") == Some("cloud_api_deployment_interrupted")
        && error.get("status_code").and_then(Value::as_u64) == Some(503)
        && error.get("retryable").and_then(Value::as_bool) == Some(true)
}

/// The cloud is going down and did not take the request (03 §3.10).
pub fn is_shutdown_rejection(error: &ApiError) -> bool {
    let Some(body) = error.body().and_then(|body| body.json()) else {
        return false;
    };
    error.status() == Some(503)
        && body.get("errorCode").and_then(Value::as_str) == Some("cloud_api_shutting_down")
        && body.get("admitted").and_then(Value::as_bool) == Some(false)
        && body.get("retryable").and_then(Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::super::error::failure;
    use super::*;

    #[test]
    fn every_fragment_of_every_table_is_recognised() {
        for text in QUOTA {
            assert!(is_quota(&format!("x {} y", text.to_uppercase())), "{text}");
            assert!(!retry_before_stream(Some(429), text), "{text}");
        }
        for text in RETRYABLE {
            assert!(is_provider_hiccup(&format!("x {text} y")), "{text}");
            assert!(retry_before_stream(None, text), "{text}");
        }
        for text in NOT_RETRYABLE {
            assert!(is_final(&format!("x {} y", text.to_uppercase())), "{text}");
            assert!(!retry_before_stream(
                None,
                &format!("OpenAI API error {text}")
            ));
        }
        assert!(!is_provider_hiccup("anthropic api ERROR"), "case counts");
        assert!(!is_quota("all is well") && !is_final("all is well"));
    }

    #[test]
    fn desync_is_pending_or_wrong_ids_in_any_case() {
        for (text, expected) in [
            ("The agent is WAITING FOR APPROVAL on a tool call.", true),
            (
                "Invalid tool call IDs. Expected '[a]', but received '[b]'.",
                true,
            ),
            ("No tool call is currently awaiting approval.", false),
        ] {
            assert_eq!(is_approval_desync(text), expected, "{text}");
        }
        assert!(is_nothing_pending(
            "x No tool call is currently awaiting approval. y"
        ));
    }

    #[test]
    fn busy_names_the_run_when_the_text_does() {
        let text = "Another request (run_id=run-1_a) is currently being processed for this";
        assert_eq!(busy(text).unwrap().run_id.as_deref(), Some("run-1_a"));
        let unnamed = busy("Conversation is BUSY with another active run").unwrap();
        assert_eq!(unnamed.run_id, None);
        let inner = busy("prerun_id=no is currently being processed RUN_ID=yes").unwrap();
        assert_eq!(inner.run_id.as_deref(), Some("yes"));
        assert_eq!(busy("run_id=run-1 is fine"), None);
    }

    #[test]
    fn error_codes_of_the_400s_are_final_but_409_450_and_5xx_are_not() {
        for (code, expected) in [
            (400, true),
            (408, true),
            (409, false),
            (410, true),
            (449, true),
            (450, false),
            (451, true),
            (452, false),
            (500, false),
        ] {
            assert_eq!(
                is_final(&format!("Error code:  {code} - x")),
                expected,
                "{code}"
            );
        }
        assert!(is_rate_limited("Error code: 429 - slow down"));
        assert!(is_rate_limited("Too Many Requests") && is_rate_limited("RATE LIMIT"));
    }

    #[test]
    fn cloudflare_pages_and_json_are_recognised_with_their_code() {
        for (text, expected) in [
            (r#"{"cloudflare_error" : true, "status": 524}"#, Some(524)),
            (r#"{"cloudflare_error":true}"#, Some(0)),
            ("Cloudflare 521: Web server is down", Some(521)),
            ("502 <!DOCTYPE html><p>Cloudflare</p>", Some(502)),
            (
                "<html><title>api | 522: Connection timed out</title>cloudflare",
                Some(522),
            ),
            ("<html>Cloudflare Error code 520", Some(520)),
            ("<html>Cloudflare Error code 500", None),
            ("<html>nginx error code 520", None),
            (r#"{"cloudflare_error":false}"#, None),
        ] {
            assert_eq!(cloudflare_code(text), expected, "{text}");
        }
    }

    #[test]
    fn zai_errors_are_read_in_both_notations() {
        let json = zai_error(r#"x {"code": 1302, "message": "slow down"}"#).unwrap();
        assert!(json.is_final() && json.code == 1302 && json.message == "slow down");
        let python = zai_error("{'code': 1210, 'message': 'bad'}").unwrap();
        assert!(!python.is_final());
        assert_eq!(zai_error(r#"{"code": 42, "message": "x"}"#), None);
        assert_eq!(zai_error(r#"{"code": 1302, "message": ""}"#), None);
        assert!(is_final(r#"{"code":1001,"message":"key"}"#));
    }

    #[test]
    fn before_the_stream_status_decides_first() {
        for (status, detail, expected) in [
            (Some(429), "x", true),
            (Some(500), "unauthorized", true),
            (Some(599), "x", true),
            (Some(404), "OpenAI API error", false),
            (Some(409), "x", false),
            (None, "Connection error.", true),
            (None, "Request timed out.", true),
            (None, "forbidden but rate limit", true),
            (None, "what is this", false),
        ] {
            assert_eq!(
                retry_before_stream(status, detail),
                expected,
                "{status:?} {detail}"
            );
        }
    }

    #[test]
    fn after_a_stop_the_rules_apply_in_order() {
        let base = RunFailure {
            stop_reason: "error",
            ..RunFailure::default()
        };
        let cases = [
            (base, false),
            (
                RunFailure {
                    stop_reason: "llm_api_error",
                    ..base
                },
                true,
            ),
            (
                RunFailure {
                    stop_reason: "llm_api_error",
                    detail: "unauthorized",
                    ..base
                },
                false,
            ),
            (
                RunFailure {
                    detail: "unauthorized; rate limit",
                    ..base
                },
                true,
            ),
            (
                RunFailure {
                    detail: "OpenAI API error",
                    ..base
                },
                true,
            ),
            (
                RunFailure {
                    error_type: Some("llm_error"),
                    ..base
                },
                true,
            ),
            (
                RunFailure {
                    error_type: Some("llm_bad_request"),
                    detail: "overloaded",
                    ..base
                },
                false,
            ),
            (
                RunFailure {
                    detail: "overloaded exceeded-quota",
                    ..base
                },
                false,
            ),
            (
                RunFailure {
                    retryable: Some(false),
                    detail: "overloaded",
                    ..base
                },
                false,
            ),
            (
                RunFailure {
                    retryable: Some(true),
                    detail: "exceeded-quota",
                    ..base
                },
                true,
            ),
        ];
        for (failure, expected) in cases {
            assert_eq!(retry_after_stop(&failure), expected, "{failure:?}");
        }
        for stop in FINAL_STOPS {
            let failure = RunFailure {
                stop_reason: stop,
                retryable: Some(true),
                ..base
            };
            assert!(!retry_after_stop(&failure), "{stop}");
        }
        for kind in FINAL_ERROR_TYPES {
            let failure = RunFailure {
                stop_reason: "llm_api_error",
                error_type: Some(kind),
                ..base
            };
            assert!(!retry_after_stop(&failure), "{kind}");
        }
    }

    #[test]
    fn cloud_restarts_are_told_from_other_errors_by_every_field() {
        let whole = serde_json::json!({
            "error_type": "internal_error", "error_code": "cloud_api_deployment_interrupted",
            "status_code": 503, "retryable": true,
        });
        assert!(is_deployment_interruption(&whole));
        for field in ["error_type", "error_code", "status_code", "retryable"] {
            let mut part = whole.clone();
            part[field] = Value::Null;
            assert!(!is_deployment_interruption(&part), "{field}");
        }
        let body = r#"{"errorCode":"cloud_api_shutting_down","admitted":false,"retryable":true}"#;
        assert!(is_shutdown_rejection(&failure(503, body)));
        assert!(!is_shutdown_rejection(&failure(500, body)));
        assert!(!is_shutdown_rejection(&failure(
            503,
            &body.replace("false", "true")
        )));
    }

    #[test]
    fn a_server_without_redis_is_recognised() {
        let text = "Background streaming requires Redis to be running. Set it up";
        assert!(needs_redis(Some(503), text));
        assert!(!needs_redis(Some(500), text) && !needs_redis(Some(503), "busy"));
    }
}
