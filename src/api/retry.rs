//! When and how long to wait before a request is sent again (03 §1.3, 01 §6).
//!
//! Pure: the caller gives the clock and the random number.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, HeaderValue};

use crate::protocol::time::epoch_millis;

/// Silent retries of an ordinary call.
pub const ORDINARY_RETRIES: u32 = 2;

/// The longest wait that an ordinary call accepts from a server; a server that
/// asks for more gets no silent retry.
const LONGEST_ORDINARY_WAIT: Duration = Duration::from_secs(60);

/// The wait that `Retry-After` asks for: seconds (decimals allowed) or an HTTP
/// date, which gives zero once it has passed. `None` when absent or not readable.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    parse_retry_after(headers.get("retry-after")?.to_str().ok()?, now)
}

fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    let wait = at.as_millisecond().saturating_sub(epoch_millis(now));
    Some(Duration::from_millis(u64::try_from(wait).unwrap_or(0)))
}

fn retry_after_ms(headers: &HeaderMap) -> Option<Duration> {
    let value: f64 = text(headers.get("retry-after-ms")?)?.parse().ok()?;
    Duration::try_from_secs_f64(value / 1000.0).ok()
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().map(str::trim)
}

/// Whether an ordinary call may be sent again after this answer.
pub fn may_retry(status: u16, headers: &HeaderMap) -> bool {
    match headers.get("x-should-retry").and_then(text) {
        Some("true") => true,
        Some("false") => false,
        _ => matches!(status, 408 | 409 | 429) || status >= 500,
    }
}

/// The wait before retry number `retry` (0-based) of an ordinary call, or `None`
/// when the server asks for longer than a silent wait may last.
///
/// `jitter` is in `0.0..1.0` and shortens a wait of our own by up to a quarter.
pub fn ordinary_delay(
    headers: Option<&HeaderMap>,
    retry: u32,
    now: SystemTime,
    jitter: f64,
) -> Option<Duration> {
    let asked = headers.and_then(|all| retry_after_ms(all).or_else(|| retry_after(all, now)));
    match asked {
        Some(wait) if wait > LONGEST_ORDINARY_WAIT => None,
        Some(wait) => Some(wait),
        None => {
            let seconds = (0.5 * f64::from(1u32 << retry.min(8))).min(8.0);
            Some(Duration::from_secs_f64(seconds * (1.0 - jitter * 0.25)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    reqwest::header::HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    fn epoch(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn retry_after_reads_seconds_decimals_and_dates() {
        // 2015-10-21T07:28:00Z
        let now = epoch(1_445_412_480);
        for (value, expected) in [
            ("3", Some(3000)),
            (" 0 ", Some(0)),
            ("1.5", Some(1500)),
            ("Wed, 21 Oct 2015 07:28:10 GMT", Some(10_000)),
            ("Wed, 21 Oct 2015 07:27:00 GMT", Some(0)),
            ("-1", None),
            ("inf", None),
            ("NaN", None),
            ("1e300", None),
            ("soon", None),
            ("", None),
        ] {
            let found = retry_after(&headers(&[("retry-after", value)]), now);
            assert_eq!(found, expected.map(Duration::from_millis), "{value:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn the_server_may_overrule_what_is_retried() {
        let none = HeaderMap::new();
        for status in [408, 409, 429, 500, 503, 599] {
            assert!(may_retry(status, &none), "{status}");
            assert!(!may_retry(status, &headers(&[("x-should-retry", "false")])));
        }
        for status in [400, 401, 403, 404, 422] {
            assert!(!may_retry(status, &none), "{status}");
            assert!(may_retry(status, &headers(&[("x-should-retry", "true")])));
        }
    }

    #[test]
    fn waits_double_up_to_eight_seconds_less_a_quarter() {
        let now = epoch(0);
        for (retry, longest) in [(0, 500), (1, 1000), (2, 2000), (4, 8000), (31, 8000)] {
            let at = |jitter| ordinary_delay(None, retry, now, jitter);
            assert_eq!(at(0.0), Some(Duration::from_millis(longest)));
            assert_eq!(at(1.0), Some(Duration::from_millis(longest * 3 / 4)));
        }
    }

    #[test]
    fn milliseconds_win_over_seconds_and_long_waits_are_not_silent() {
        let now = epoch(0);
        let both = headers(&[("retry-after-ms", "250"), ("retry-after", "9")]);
        let found = ordinary_delay(Some(&both), 0, now, 0.0);
        assert_eq!(found, Some(Duration::from_millis(250)));
        let long = headers(&[("retry-after", "3600")]);
        assert_eq!(ordinary_delay(Some(&long), 0, now, 0.0), None);
    }
}
