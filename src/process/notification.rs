//! The text that tells a model that a background command is over (04 §6.5).
//!
//! Clients hide and parse it, so tags and layout are fixed. Nothing in it can
//! close a tag: summary and result are escaped.

use std::path::Path;
use std::time::Duration;

use super::capture::{Capture, Cut, shorten};
use super::excerpt::Excerpt;
use super::session::Ending;

/// Characters of a result inside a notification.
const RESULT_CUT: Cut = Cut {
    max: 10_000,
    preview: None,
    middle: true,
};

/// Lines shown from the end of each stream.
const TAIL_LINES: usize = 50;

/// What a `<task-notification>` says.
#[derive(Debug)]
pub struct Notification<'a> {
    /// The id under which the model knows it.
    pub task_id: &'a str,
    /// `completed` or `failed`; `None` for news of something that goes on.
    pub status: Option<&'a str>,
    /// One line for people.
    pub summary: &'a str,
    /// The result, not escaped.
    pub result: &'a str,
    /// `name: value` lines.
    pub usage: &'a [(&'a str, u64)],
    /// Where the whole output is.
    pub transcript: Option<&'a Path>,
}

impl Notification<'_> {
    /// The whole text.
    pub fn text(&self) -> String {
        let mut text = format!("<task-notification>\n<task-id>{}</task-id>\n", self.task_id);
        if let Some(status) = self.status {
            text.push_str(&format!("<status>{status}</status>\n"));
        }
        text.push_str(&format!(
            "<summary>{}</summary>\n<result>{}</result>\n",
            escape(self.summary),
            escape(self.result)
        ));
        if !self.usage.is_empty() {
            let lines: Vec<String> = self
                .usage
                .iter()
                .map(|(name, value)| format!("{name}: {value}"))
                .collect();
            text.push_str(&format!("<usage>{}</usage>\n", lines.join("\n")));
        }
        text.push_str("</task-notification>");
        if let Some(transcript) = self.transcript {
            text.push_str(&format!(
                "\nFull transcript available at: {}",
                transcript.display()
            ));
        }
        text
    }
}

/// The whole notification of one event of a monitor (04 §6.5).
pub fn monitor_event(task_id: &str, description: &str, event: &str) -> String {
    format!(
        "<task-notification>\n<task-id>{task_id}</task-id>\n<summary>{}</summary>\n\
         <result>\n<event>{}</event>\n</result>\n</task-notification>",
        escape(&format!("Monitor event: \"{description}\"")),
        escape(event)
    )
}

/// `&`, `<` and `>` as entities.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// `completed` for a command that ended by itself with 0 and a WebSocket that
/// was closed with 1000, else `failed`.
pub fn status(ending: &Ending) -> &'static str {
    match ending {
        Ending::Exited(0) | Ending::Closed { code: 1000, .. } => "completed",
        _ => "failed",
    }
}

/// How a command ended, in one line for the model.
pub fn detail(ending: &Ending) -> String {
    match ending {
        Ending::Exited(code) => format!("Exit code: {code}"),
        Ending::Signalled => "Terminated by signal before exiting".to_owned(),
        Ending::TimedOut(timeout) => format!("Command timed out after {}ms", timeout.as_millis()),
        Ending::Aborted => "Error: The operation was aborted".to_owned(),
        Ending::LogFailed => "Output file write failed; output may be incomplete".to_owned(),
        Ending::Lost(error) => format!("Error: {error}"),
        Ending::Closed { words, .. } => words.join("\n"),
    }
}

/// The result of a background Bash command.
pub fn bash_result(command: &str, ending: &Ending, out: &Capture, err: &Capture) -> String {
    let streams: Vec<String> = [("stdout", out), ("stderr", err)]
        .into_iter()
        .filter_map(|(name, capture)| tail(name, capture.excerpt()))
        .collect();
    let output = if streams.is_empty() {
        "(no output)".to_owned()
    } else {
        streams.join("\n\n")
    };
    fit(&format!("$ {command}\n\n{}\n\n{output}", detail(ending)))
}

/// The result of a session of `exec_command`.
pub fn exec_result(command: &str, session_id: &str, ending: &Ending, unread: &Capture) -> String {
    let unread = unread.excerpt();
    let output = match unread.whole() {
        Some(text) if text.trim().is_empty() => "(no new output)".to_owned(),
        Some(text) => text.to_owned(),
        None => shorten(unread, RESULT_CUT, None),
    };
    fit(&format!(
        "$ {command}\n\nSession ID: {session_id}\n\n{}\n\n{output}",
        detail(ending)
    ))
}

fn tail(name: &str, excerpt: &Excerpt) -> Option<String> {
    let lines = excerpt.last_lines(TAIL_LINES);
    if lines.is_empty() {
        return None;
    }
    let header = if (lines.len() as u64) < excerpt.total_lines() {
        format!(
            "[{name} - last {} of {} lines]",
            lines.len(),
            excerpt.total_lines()
        )
    } else {
        format!("[{name}]")
    };
    Some(format!("{header}\n{}", lines.join("\n")))
}

fn fit(result: &str) -> String {
    let mut text = Excerpt::default();
    text.push(result);
    if text.total_chars() <= RESULT_CUT.max as u64 {
        return result.to_owned();
    }
    shorten(&text, RESULT_CUT, None)
}

/// `duration_ms` of a usage line.
pub fn duration_ms(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn capture(text: &str) -> Capture {
        let mut capture = Capture::new(None);
        capture.push(text).await;
        capture
    }

    #[tokio::test]
    async fn a_notification_has_exactly_the_published_layout() {
        let result = bash_result(
            "echo bg",
            &Ending::Exited(0),
            &capture("bg\n").await,
            &capture("e1 <&>\n").await,
        );
        let text = Notification {
            task_id: "bash_3",
            status: Some("completed"),
            summary: "Background command \"Bg\" completed",
            result: &result,
            usage: &[("duration_ms", 1006)],
            transcript: Some(Path::new("/tmp/letta-background-x/bash_3.log")),
        }
        .text();
        assert_eq!(
            text,
            "<task-notification>\n<task-id>bash_3</task-id>\n<status>completed</status>\n\
             <summary>Background command \"Bg\" completed</summary>\n\
             <result>$ echo bg\n\nExit code: 0\n\n[stdout]\nbg\n\n[stderr]\ne1 &lt;&amp;&gt;</result>\n\
             <usage>duration_ms: 1006</usage>\n</task-notification>\n\
             Full transcript available at: /tmp/letta-background-x/bash_3.log"
        );
    }

    #[tokio::test]
    async fn only_the_last_fifty_lines_are_shown_and_the_total_is_named() {
        let many: String = (1..=120).map(|n| format!("line {n}\n")).collect();
        let result = bash_result(
            "x",
            &Ending::Signalled,
            &capture(&many).await,
            &capture("").await,
        );
        assert!(result.starts_with(
            "$ x\n\nTerminated by signal before exiting\n\n[stdout - last 50 of 120 lines]\nline 71\n"
        ));
        let silent = bash_result(
            "x",
            &Ending::Aborted,
            &capture("\n").await,
            &capture("").await,
        );
        assert_eq!(
            silent,
            "$ x\n\nError: The operation was aborted\n\n(no output)"
        );
    }

    #[tokio::test]
    async fn a_long_result_is_cut_in_the_middle() {
        let long = capture(&"y".repeat(40_000)).await;
        let result = exec_result("x", "7", &Ending::Exited(1), &long);
        assert!(result.starts_with("$ x\n\nSession ID: 7\n\nExit code: 1\n\nyyy"));
        assert!(result.contains("characters omitted] ..."));
        assert!(result.chars().count() < 10_300);
    }
}
