//! What people read about a failure: the line shown while it is retried, and the
//! text of a failed turn (03 §11.8, §11.9).
//!
//! Invariant: the categories and their order are those of the specification; an
//! error page of a proxy is never shown whole.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::classify;
use super::error::{ApiError, detail_of};

/// Where people see their plan and usage.
const USAGE_URL: &str = "https://chat.letta.com/preferences/usage";

/// The text when the cloud restarts and retrying did not help (03 §3.10, §11.6).
pub const UNAVAILABLE: &str = "Service temporarily unavailable. Please retry your request.";

/// The longest unclassified text that is shown, in bytes.
const MAX_TEXT: usize = 8 * 1024;

/// The line shown while a failed request is retried; `provider` is the name of
/// the model's provider, if known (03 §11.8).
pub fn retry_text(detail: &str, provider: Option<&str>) -> String {
    let has = |fragment: &str| detail.contains(fragment);
    if classify::is_cloudflare(detail) {
        return "Cloudflare transient error, retrying...".into();
    }
    if classify::zai_error(detail).is_some() {
        return "Z.ai API error, retrying...".into();
    }
    if has("Anthropic API is overloaded") {
        return "Anthropic API is overloaded, retrying...".into();
    }
    if has("ChatGPT API error") || has("ChatGPT server error") {
        return "OpenAI ChatGPT backend connection failed, retrying...".into();
    }
    if has("upstream connect error")
        || has("Connection error during streaming")
        || has("incomplete chunked read")
        || has("connection termination")
    {
        let provider = provider.unwrap_or("LLM");
        return format!("{provider} streaming connection dropped, retrying...");
    }
    if has("OpenAI API error") {
        return "OpenAI API error, retrying...".into();
    }
    "Unexpected downstream LLM API error, retrying...".into()
}

/// Everything known of a failure, whether a request, a stream or a run failed.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// The HTTP status, when a request was refused.
    pub status: Option<u16>,
    /// The JSON body of the refusal, or the error information of a stream or run.
    pub body: Option<&'a Value>,
    /// The detail or message.
    pub text: &'a str,
    /// For the line that leads to the run.
    pub agent_id: Option<&'a str>,
    /// The same.
    pub run_id: Option<&'a str>,
}

impl<'a> Failure<'a> {
    /// What is known of a failed request; `text` is its [`ApiError::detail`].
    pub fn of_request(error: &'a ApiError, text: &'a str) -> Self {
        Self {
            status: error.status(),
            body: error.body().and_then(|body| body.json()),
            text,
            agent_id: None,
            run_id: None,
        }
    }

    /// The text of the loop error; `None` when there is nothing to tell, because
    /// the turn was cancelled (03 §11.9).
    pub fn user_text(&self, now: SystemTime) -> Option<String> {
        if is_cancellation(self.text) {
            return None;
        }
        Some(self.known(now).unwrap_or_else(|| self.plain()))
    }

    /// The first category that fits.
    fn known(&self, now: SystemTime) -> Option<String> {
        let everything = self.everything();
        let has = |fragment: &str| everything.contains(fragment);
        if self.body.is_some_and(is_cloud_restart) {
            return Some(UNAVAILABLE.into());
        }
        if let Some(code) = classify::cloudflare_code(&everything) {
            let name = if code == 0 {
                "Cloudflare".to_owned()
            } else {
                format!("Cloudflare {code}")
            };
            return Some(format!(
                "{name}: the way to the service is down at its edge. Such outages are short; please retry in a moment."
            ));
        }
        if has("error occurred while trying to proxy") {
            return Some("Connection to Letta service failed. Please retry.".into());
        }
        if has("invalid_encrypted_content") {
            return Some(
                "OpenAI refused the encrypted reasoning stored in this conversation: it belongs to another account or \
                 key. Use /clear to start a new conversation."
                    .into(),
            );
        }
        if has("usage_limit_reached") {
            return Some(chatgpt_limit(&everything, now));
        }
        if has("connection error during streaming")
            || has("incomplete chunked read")
            || has("peer closed connection without sending complete message body")
            || has("remoteprotocolerror")
        {
            return Some(
                "The model provider closed the stream before the answer was complete. Please retry; if it keeps \
                 happening, switch models."
                    .into(),
            );
        }
        if let Some(error) = classify::zai_error(self.text) {
            return Some(format!("Z.ai error {}: {}", error.code, error.message));
        }
        self.limit(&everything, now)
    }

    /// Limits of the account, in the order of the specification.
    fn limit(&self, everything: &str, now: SystemTime) -> Option<String> {
        let has = |fragment: &str| everything.contains(fragment);
        let status = self.status;
        if status == Some(429) && has("exceeded-quota") {
            let reset = self.reset(now).map_or_else(
                || "Try again later".to_owned(),
                |wait| format!("Resets in {}", spell(wait)),
            );
            return Some(format!(
                "You've hit your usage limit. {reset}. View usage: {USAGE_URL}"
            ));
        }
        if has("agents-limit-exceeded") {
            return Some(format!(
                "Your plan allows no more agents. Delete some at https://chat.letta.com/agents or see {USAGE_URL}"
            ));
        }
        if has("model-unknown") {
            return Some(
                "The selected model is not available to this account. Choose another one, or connect its provider."
                    .into(),
            );
        }
        if has("context-window-size-not-supported") {
            return Some(
                "The model does not support the selected context window. Choose another model or a smaller window."
                    .into(),
            );
        }
        if status == Some(402) && has("you have reached your limit for") {
            let told = self.body.and_then(detail_of).unwrap_or(self.text);
            return Some(format!("{told}\nSee your plan at: {USAGE_URL}"));
        }
        if status == Some(402) || has("not-enough-credits") {
            let told = self.body.and_then(|body| {
                let inner = body.get("error").and_then(|error| error.get("reason_text"));
                body.get("reason_text").or(inner).and_then(Value::as_str)
            });
            return Some(told.map_or_else(
                || {
                    format!(
                        "Your account has no credits for this model. Add your own keys, or see {USAGE_URL}"
                    )
                },
                str::to_owned,
            ));
        }
        for (reason, tier) in [
            ("premium-usage-exceeded", "Premium"),
            ("standard-usage-exceeded", "Standard"),
            ("basic-usage-exceeded", "Basic"),
            ("free-usage-exceeded", "Free"),
        ] {
            if has(reason) {
                return Some(format!(
                    "You've reached the limit of {tier} model usage. Choose another model, or see {USAGE_URL}"
                ));
            }
        }
        if has("byok-not-available-on-free-tier") {
            return Some(format!(
                "Models with your own keys are not part of the Free plan. Choose a hosted model, or see {USAGE_URL}"
            ));
        }
        None
    }

    /// No category fits: the structured error, or the text as it came.
    fn plain(&self) -> String {
        let mut text = self.structured().unwrap_or_else(|| self.text.to_owned());
        if let Some(busy) = classify::busy(&text) {
            let named = busy.run_id.as_deref().or(self.run_id);
            let run = named.map_or_else(String::new, |id| format!(" (run {id})"));
            return format!(
                "Turn still running{run}: wait for it to finish, or stop it, then send again."
            );
        }
        if text.is_empty() {
            text.push_str("An error occurred");
        }
        if text.len() > MAX_TEXT {
            text.truncate(text.floor_char_boundary(MAX_TEXT));
            text.push('…');
        }
        if let (Some(agent), Some(run)) = (self.agent_id, self.run_id) {
            text.push_str(&format!("\nView agent: {agent} (run: {run})"));
        }
        text
    }

    /// `[<type>] <message>` and a line with the detail.
    fn structured(&self) -> Option<String> {
        let body = self.body?;
        let error = match body.get("error") {
            Some(inner @ Value::Object(_)) => inner,
            _ => body,
        };
        let field = |name: &str| error.get(name).and_then(Value::as_str);
        let kind = field("type").or_else(|| field("error_type"))?;
        let message = field("message").unwrap_or("An error occurred");
        let detail = field("detail")
            .filter(|detail| !detail.is_empty())
            .map_or_else(String::new, |detail| format!("\nDetail: {detail}"));
        Some(format!("[{kind}] {message}{detail}"))
    }

    /// Text and body in lower case, for searching.
    fn everything(&self) -> String {
        let body = self.body.map_or_else(String::new, Value::to_string);
        format!("{}\n{body}", self.text).to_lowercase()
    }

    fn reset(&self, now: SystemTime) -> Option<Duration> {
        let body = self.body?;
        let number = |name: &str| {
            let inner = body.get("error").and_then(|error| error.get(name));
            body.get(name).or(inner).and_then(Value::as_f64)
        };
        let wait = number("timeToQuotaResetMs").map(|ms| ms / 1000.0);
        positive(wait).or_else(|| until(number("resetsAt")? / 1000.0, now))
    }
}

/// The wait until a moment in seconds since the epoch.
fn until(epoch_seconds: f64, now: SystemTime) -> Option<Duration> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    positive(Some(epoch_seconds - since.as_secs_f64()))
}

fn positive(seconds: Option<f64>) -> Option<Duration> {
    seconds
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

fn is_cloud_restart(body: &Value) -> bool {
    classify::is_deployment_interruption(body)
        || body.get("errorCode").and_then(Value::as_str) == Some("cloud_api_shutting_down")
}

fn is_cancellation(text: &str) -> bool {
    let text = text.trim().trim_end_matches('.').to_lowercase();
    matches!(
        text.as_str(),
        "terminated"
            | "cancelled"
            | "cancelled by user"
            | "request was aborted"
            | "this operation was aborted"
            | "the operation was aborted"
            | "aborterror"
    )
}

/// The limit of a ChatGPT plan; the JSON may sit anywhere in the (lower-case) text.
fn chatgpt_limit(text: &str, now: SystemTime) -> String {
    let record = text.match_indices('{').find_map(|(at, _)| {
        let mut values = serde_json::Deserializer::from_str(text.get(at..)?).into_iter::<Value>();
        let value = values.next()?.ok()?;
        let inner = value.get("error").filter(|error| error.is_object());
        let record = inner.unwrap_or(&value);
        (record.get("type").and_then(Value::as_str) == Some("usage_limit_reached"))
            .then(|| record.clone())
    });
    let number = |name: &str| record.as_ref()?.get(name)?.as_f64();
    let wait = positive(number("resets_in_seconds")).or_else(|| until(number("resets_at")?, now));
    let reset = wait.map_or_else(
        || "Try again later".to_owned(),
        |wait| format!("Resets in {}", spell(wait)),
    );
    let plan = record
        .as_ref()
        .and_then(|record| record.get("plan_type")?.as_str())
        .map_or_else(String::new, |plan| format!(" ({plan} plan)"));
    format!(
        "ChatGPT usage limit reached{plan}. {reset}. Choose a model of another provider to go on now."
    )
}

/// `2h 5m`, rounded up to minutes.
fn spell(wait: Duration) -> String {
    let minutes = wait.as_secs().div_ceil(60).max(1);
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes}m"),
        (hours, 0) => format!("{hours}h"),
        (hours, minutes) => format!("{hours}h {minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
    }

    fn tell(status: Option<u16>, body: Option<Value>, text: &str) -> Option<String> {
        Failure {
            status,
            body: body.as_ref(),
            text,
            agent_id: Some("agent-1"),
            run_id: Some("run-1"),
        }
        .user_text(now())
    }

    #[test]
    fn each_detail_has_its_retry_line() {
        for (detail, expected) in [
            (
                "Cloudflare 524: x",
                "Cloudflare transient error, retrying...",
            ),
            (
                r#"{"code": 1210, "message": "x"}"#,
                "Z.ai API error, retrying...",
            ),
            (
                "Anthropic API is overloaded",
                "Anthropic API is overloaded, retrying...",
            ),
            (
                "ChatGPT API error: x",
                "OpenAI ChatGPT backend connection failed, retrying...",
            ),
            (
                "ChatGPT server error",
                "OpenAI ChatGPT backend connection failed, retrying...",
            ),
            (
                "upstream connect error",
                "Anthropic streaming connection dropped, retrying...",
            ),
            (
                "incomplete chunked read",
                "Anthropic streaming connection dropped, retrying...",
            ),
            (
                "connection termination",
                "Anthropic streaming connection dropped, retrying...",
            ),
            ("OpenAI API error", "OpenAI API error, retrying..."),
            ("", "Unexpected downstream LLM API error, retrying..."),
        ] {
            assert_eq!(retry_text(detail, Some("Anthropic")), expected);
        }
        assert_eq!(
            retry_text("upstream connect error", None),
            "LLM streaming connection dropped, retrying..."
        );
    }

    #[test]
    fn a_cancelled_turn_tells_nothing() {
        for text in ["terminated", "Request was aborted.", "Cancelled by user"] {
            assert_eq!(tell(None, None, text), None, "{text}");
        }
        assert!(tell(None, None, "the worker was terminated").is_some());
    }

    #[test]
    fn each_category_is_recognised() {
        let page = "502 <!DOCTYPE html><title>x</title>cloudflare";
        let restart = json!({"errorCode": "cloud_api_shutting_down"});
        for (status, body, text, expected) in [
            (Some(503), Some(restart), "x", UNAVAILABLE),
            (Some(502), None, page, "Cloudflare 502"),
            (
                Some(500),
                None,
                "Error occurred while trying to proxy: x",
                "Connection to Letta service failed",
            ),
            (
                None,
                Some(json!({"detail": "invalid_encrypted_content"})),
                "x",
                "encrypted reasoning",
            ),
            (
                None,
                None,
                "RemoteProtocolError: peer closed",
                "closed the stream",
            ),
            (
                None,
                None,
                r#"{"code": 1302, "message": "slow"}"#,
                "Z.ai error 1302: slow",
            ),
            (
                Some(429),
                Some(json!({"reasons": ["agents-limit-exceeded"]})),
                "x",
                "no more agents",
            ),
            (Some(400), None, "model-unknown", "not available"),
            (
                Some(400),
                None,
                "context-window-size-not-supported",
                "context window",
            ),
            (
                Some(402),
                Some(json!({"error": "You have reached your limit for agents"})),
                "x",
                "limit for agents",
            ),
            (
                Some(402),
                Some(json!({"reason_text": "Pay up"})),
                "x",
                "Pay up",
            ),
            (Some(402), None, "x", "no credits"),
            (
                Some(429),
                Some(json!({"reasons": ["premium-usage-exceeded"]})),
                "x",
                "Premium",
            ),
            (Some(429), None, "free-usage-exceeded", "Free"),
            (
                Some(409),
                None,
                "run_id=r9 is currently being processed",
                "Turn still running (run r9)",
            ),
        ] {
            let told = tell(status, body, text).unwrap();
            assert!(told.contains(expected), "{text}: {told}");
        }
    }

    #[test]
    fn quota_limits_name_their_reset() {
        let at = |body| tell(Some(429), Some(body), "x").unwrap();
        let soon = at(json!({"reasons": ["exceeded-quota"], "timeToQuotaResetMs": 7_500_000}));
        assert!(
            soon.contains("Resets in 2h 5m") && soon.contains(USAGE_URL),
            "{soon}"
        );
        let date = at(json!({"reasons": ["exceeded-quota"], "resetsAt": 1_000_060_000.0}));
        assert!(date.contains("Resets in 1m"), "{date}");
        assert!(at(json!({"reasons": ["exceeded-quota"]})).contains("Try again later"));
        let plan = r#"Error: {"error":{"type":"usage_limit_reached","plan_type":"plus","resets_in_seconds":3600}}"#;
        let told = tell(None, None, plan).unwrap();
        assert!(told.contains("(plus plan). Resets in 1h."), "{told}");
        let bare = tell(None, None, "usage_limit_reached").unwrap();
        assert!(bare.contains("Try again later"));
    }

    #[test]
    fn anything_else_shows_type_message_detail_and_the_way_to_the_run() {
        let body = json!({"error": {"type": "llm_error", "message": "m", "detail": "d"}});
        assert_eq!(
            tell(Some(500), Some(body), "d").unwrap(),
            "[llm_error] m\nDetail: d\nView agent: agent-1 (run: run-1)"
        );
        assert_eq!(
            tell(None, None, "odd").unwrap(),
            "odd\nView agent: agent-1 (run: run-1)"
        );
        let long = tell(None, None, &"é".repeat(MAX_TEXT)).unwrap();
        assert!(long.len() < MAX_TEXT + 100);
    }
}
