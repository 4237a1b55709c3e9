//! Diagnostics on stdout: text for a terminal, JSON lines for a collector.
//!
//! Service managers and container runtimes keep stdout, so there is no file of
//! its own. Invariants: every event passes the mask of [`Secrets`] before it is
//! written; libraries below this program only speak up from `warn` on, whatever
//! level is asked for, because their debug output holds headers and bodies.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;

use jiff::tz::TimeZone;
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

use super::clock::clock;
use super::redact::Secrets;
use crate::protocol::time::iso_millis;

/// How events are written: `LETTA_LOG_FORMAT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON lines otherwise.
    #[default]
    Auto,
    /// `[HH:MM:SS.mmm] LEVEL message key=value`, local time.
    Text,
    /// One JSON object a line with `timestamp`, `level`, `message` and the fields.
    Json,
}

impl LogFormat {
    /// Reads `auto`, `text` or `json`; `None` for anything else.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "auto" => Self::Auto,
            "text" => Self::Text,
            "json" => Self::Json,
            _ => return None,
        })
    }

    fn is_json(self, terminal: bool) -> bool {
        match self {
            Self::Auto => !terminal,
            Self::Text => false,
            Self::Json => true,
        }
    }
}

/// Sends events to stdout from now on: `info` and above of this program, with
/// `debug` also its debug events. Call once, before anything logs; a second
/// call changes nothing.
pub fn init(format: LogFormat, debug: bool, secrets: Secrets) {
    let terminal = io::stdout().is_terminal();
    let json = format.is_json(terminal);
    // Whoever came first keeps the stage: an embedding test, for example.
    let _ = subscriber(
        json,
        terminal,
        debug,
        Masked {
            secrets,
            to: io::stdout,
        },
    )
    .try_init();
}

fn subscriber<W>(json: bool, colours: bool, debug: bool, to: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let base = tracing_subscriber::fmt::layer().with_writer(to);
    let layer = if json {
        base.json().flatten_event(true).with_timer(UtcTime).boxed()
    } else {
        base.with_ansi(colours)
            .with_target(false)
            .with_timer(LocalClock(TimeZone::system()))
            .boxed()
    };
    registry().with(layer.with_filter(filter(debug)))
}

/// Our events from `info` or `debug` on, everybody else's from `warn` on.
fn filter(debug: bool) -> Targets {
    let ours = if debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("letta", ours)
}

/// `[14:17:03.221]`, as in the session log.
struct LocalClock(TimeZone);

impl FormatTime for LocalClock {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "[{}]", clock(SystemTime::now(), &self.0))
    }
}

/// `2026-11-22T13:52:14.358Z`.
struct UtcTime;

impl FormatTime for UtcTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        w.write_str(&iso_millis(SystemTime::now()))
    }
}

/// Masks what passes through. The formatter hands over one whole event at a time.
struct Masked<W> {
    secrets: Secrets,
    to: W,
}

impl<'a, W, F> MakeWriter<'a> for Masked<F>
where
    F: Fn() -> W + 'a,
    W: Write,
{
    type Writer = MaskedEvent<W>;

    fn make_writer(&'a self) -> Self::Writer {
        MaskedEvent {
            secrets: self.secrets.clone(),
            to: (self.to)(),
        }
    }
}

struct MaskedEvent<W> {
    secrets: Secrets,
    to: W,
}

impl<W: Write> Write for MaskedEvent<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        self.to
            .write_all(self.secrets.mask_text(&text).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(buf);
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: bool, debug: bool, speak: impl FnOnce()) -> String {
        let page = Page::default();
        let secrets = Secrets::default();
        secrets.register("sk-letta-hush");
        let to = page.clone();
        let writer = Masked {
            secrets,
            to: move || to.clone(),
        };
        tracing::subscriber::with_default(subscriber(json, false, debug, writer), speak);
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_hold_level_message_and_fields() {
        let text = logged(true, false, || tracing::warn!(attempt = 3, "relay lost"));
        let event: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(event["level"], "WARN");
        assert_eq!(event["message"], "relay lost");
        assert_eq!(event["attempt"], 3);
        assert!(event["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn text_begins_with_the_clock() {
        let text = logged(false, false, || tracing::info!(attempt = 3, "relay lost"));
        assert!(
            text.starts_with('[') && text.as_bytes()[13] == b']',
            "{text}"
        );
        assert!(text.ends_with(" INFO relay lost attempt=3\n"), "{text}");
    }

    #[test]
    fn secrets_are_masked_in_both_formats() {
        for json in [true, false] {
            let text = logged(json, false, || {
                tracing::info!(url = "wss://h?token=hush", "key sk-letta-hush");
            });
            assert!(text.contains("***") && !text.contains("hush"), "{text}");
        }
    }

    #[test]
    fn debug_opens_our_own_events_only() {
        let speak = || {
            tracing::debug!("ours");
            tracing::debug!(target: "hyper::proto", "theirs");
            tracing::warn!(target: "hyper::proto", "warned");
        };
        let quiet = logged(true, false, speak);
        assert!(!quiet.contains("ours") && quiet.contains("warned"));
        let loud = logged(true, true, speak);
        assert!(loud.contains("ours") && !loud.contains("theirs"));
    }

    #[test]
    fn auto_means_json_for_machines() {
        assert!(LogFormat::parse("auto").unwrap().is_json(false));
        assert!(!LogFormat::Auto.is_json(true));
        assert!(LogFormat::parse("json").unwrap().is_json(true));
        assert!(!LogFormat::parse("text").unwrap().is_json(false));
        assert_eq!(LogFormat::parse("yaml"), None);
    }
}
