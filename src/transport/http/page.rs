//! The page for people: one screen that says how this listener is.
//! Self-contained: no script, no picture, nothing loaded from elsewhere.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::health::{HealthSnapshot, HealthState};
use crate::protocol::time::iso_millis;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem;\
color:#1a1a1a;background:#fff}h1{font-size:1.3rem}dl{display:grid;grid-template-columns:max-content 1fr;\
gap:.3rem 1.2rem}dt{color:#666}dd{margin:0;overflow-wrap:anywhere}.dot{display:inline-block;width:.7em;\
height:.7em;border-radius:50%;background:#c22;margin-right:.4em}.ready .dot{background:#2a2}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#151515}dt{color:#999}}";

/// The whole page. `show_login` is for the person at this machine.
pub(super) fn render(snapshot: &HealthSnapshot, alive: bool, show_login: bool) -> String {
    let mut rows = String::new();
    let mut row = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = write!(rows, "<dt>{name}</dt><dd>{}</dd>", escaped(value));
    };
    if let HealthState::LoginRequired { url, code } = &snapshot.state {
        if show_login {
            row("Log in at", url);
            row("with the code", code);
        } else {
            row(
                "Log in",
                "The address and the code are in the log of this process.",
            );
        }
    }
    row("Since", &since(snapshot.since));
    if snapshot.attempt > 0 {
        row("Attempt", &snapshot.attempt.to_string());
    }
    if let Some(seconds) = snapshot.next_retry_s() {
        row("Next attempt in", &format!("{seconds} s"));
    }
    if !alive {
        row(
            "Trouble",
            "The runtime does not tick; this process will end itself.",
        );
    }
    if let Some(error) = snapshot.bounded_error() {
        row("Last error", &error);
    }
    row(
        "Permission mode",
        &format!("{} (from {})", snapshot.mode, snapshot.mode_source),
    );
    row("Active turns", &snapshot.active_turns.to_string());
    row("Queued messages", &snapshot.queued.to_string());
    row("Pending approvals", &snapshot.pending_approvals.to_string());
    if let Some(device) = &snapshot.device {
        row("Device", device);
    }
    row("Version", snapshot.version);

    let environment = snapshot.bounded_environment();
    let name = if environment.is_empty() {
        "letta"
    } else {
        &environment
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"refresh\" content=\"10\">\
         <title>{name}: {state}</title><style>{STYLE}</style>\
         <h1 class=\"{class}\"><span class=\"dot\"></span>{name}: {state}</h1><dl>{rows}</dl></html>\n",
        name = escaped(name),
        state = in_words(&snapshot.state),
        class = if snapshot.is_ready() {
            "ready"
        } else {
            "waiting"
        },
    )
}

fn in_words(state: &HealthState) -> &'static str {
    match state {
        HealthState::Starting => "starting",
        HealthState::LoginRequired { .. } => "waiting for login",
        HealthState::Connecting => "connecting",
        HealthState::Connected => "connected",
        HealthState::Reconnecting => "reconnecting",
        HealthState::Draining => "shutting down",
    }
}

/// `2026-11-22T13:52:14.358Z (2 h 5 min)`.
fn since(at: SystemTime) -> String {
    let seconds = at.elapsed().map_or(0, |age| age.as_secs());
    let age = match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    };
    format!("{} ({age})", iso_millis(at))
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn foreign_text_cannot_become_markup() {
        let mut snapshot = HealthSnapshot::starting("1", SystemTime::now());
        snapshot.environment = String::from("<b>\"x\"");
        snapshot.last_error = Some(String::from("<script>alert(1)</script>"));
        let page = render(&snapshot, true, false);
        assert!(!page.contains("<b>") && !page.contains("<script"));
        assert!(page.contains("&lt;script&gt;"));
    }

    #[test]
    fn the_login_code_is_shown_only_where_asked() {
        let mut snapshot = HealthSnapshot::starting("1", SystemTime::now());
        snapshot.state = HealthState::LoginRequired {
            url: String::from("https://login.example?user_code=WXYZ"),
            code: String::from("WXYZ"),
        };
        assert!(render(&snapshot, true, true).contains("WXYZ"));
        assert!(!render(&snapshot, true, false).contains("WXYZ"));
    }

    #[test]
    fn ages_are_told_in_two_units() {
        let ago = |seconds| since(SystemTime::now() - Duration::from_secs(seconds));
        assert!(ago(5).ends_with("(5 s)"));
        assert!(ago(61).ends_with("(1 min)"));
        assert!(ago(7500).ends_with("(2 h 5 min)"));
        assert!(ago(90_000).ends_with("(1 d 1 h)"));
    }
}
