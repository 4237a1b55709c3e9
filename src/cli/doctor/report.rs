//! What `letta doctor` found, as text and as JSON.

use serde_json::{Value, json};

/// How one look turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be.
    Fine,
    /// Work can reach this machine, but something is worth knowing.
    Warning,
    /// Work cannot reach this machine, or cannot be done here.
    Broken,
    /// Could not be looked at, because something before it is broken.
    Skipped,
}

impl Verdict {
    /// In one word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Warning => "warning",
            Self::Broken => "broken",
            Self::Skipped => "skipped",
        }
    }
}

/// One look at one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Stable, for programs: `dns`, `tcp`, `tls`, …
    pub(super) name: &'static str,
    /// How it turned out.
    pub(super) verdict: Verdict,
    /// What was seen: one line, no secrets.
    pub(super) seen: String,
    /// What to do about it; empty when there is nothing to do.
    pub(super) advice: String,
}

/// Everything that was looked at, in order.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Finding>);

impl Report {
    /// Adds what is as it should be.
    pub(super) fn fine(&mut self, name: &'static str, seen: impl Into<String>) {
        self.add(name, Verdict::Fine, seen.into(), String::new());
    }

    /// Adds what is worth knowing.
    pub(super) fn warn(
        &mut self,
        name: &'static str,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(name, Verdict::Warning, seen.into(), advice.into());
    }

    /// Adds what keeps work away.
    pub(super) fn broken(
        &mut self,
        name: &'static str,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(name, Verdict::Broken, seen.into(), advice.into());
    }

    /// Adds what could not be looked at.
    pub(super) fn skipped(&mut self, name: &'static str, why: impl Into<String>) {
        self.add(name, Verdict::Skipped, why.into(), String::new());
    }

    fn add(&mut self, name: &'static str, verdict: Verdict, seen: String, advice: String) {
        self.0.push(Finding {
            name,
            verdict,
            seen: one_line(&seen),
            advice,
        });
    }

    /// Whether work can reach this machine: nothing is broken.
    pub(super) fn is_good(&self) -> bool {
        self.0
            .iter()
            .all(|finding| finding.verdict != Verdict::Broken)
    }

    /// For people: a line for each finding, its advice below it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.0 {
            let (verdict, name) = (finding.verdict.as_str(), finding.name);
            text += &format!("{verdict:8} {name:12} {}\n", finding.seen);
            if !finding.advice.is_empty() {
                text += &format!("{:21} > {}\n", "", finding.advice);
            }
        }
        text += if self.is_good() {
            "Work can reach this machine.\n"
        } else {
            "Work cannot reach this machine.\n"
        };
        text
    }

    /// For programs: `{ok, version, checks: [{name, status, detail, advice?}]}`.
    pub(super) fn json(&self) -> Value {
        let checks: Vec<Value> = self
            .0
            .iter()
            .map(|finding| {
                let mut check = json!({
                    "name": finding.name,
                    "status": finding.verdict.as_str(),
                    "detail": finding.seen,
                });
                if !finding.advice.is_empty() {
                    check["advice"] = json!(finding.advice);
                }
                check
            })
            .collect();
        json!({"ok": self.is_good(), "version": crate::cli::VERSION, "checks": checks})
    }
}

/// Texts of others (errors, servers) stay on their line and short.
fn one_line(text: &str) -> String {
    let text = text.trim().chars().take(400);
    text.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_thing_is_enough_and_warnings_are_not() {
        let mut report = Report::default();
        report.fine("shell", "/bin/bash");
        report.warn("disk", "90 MiB free", "Make room.");
        report.skipped("tls", "no address");
        assert!(report.is_good());
        report.broken("dns", "not\nfound", "Look at /etc/resolv.conf.");
        assert!(!report.is_good());
        let text = report.text();
        assert!(text.contains("broken   dns          not found\n"), "{text}");
        assert!(text.ends_with("> Look at /etc/resolv.conf.\nWork cannot reach this machine.\n"));
        let json = report.json();
        assert_eq!(json["ok"], false);
        assert_eq!(
            json["checks"][3],
            json!({"name": "dns", "status": "broken", "detail": "not found",
                "advice": "Look at /etc/resolv.conf."})
        );
        assert!(json["checks"][0].get("advice").is_none());
    }
}
