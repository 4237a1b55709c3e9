//! The few frames that are about the connection itself (02 §1.4).

use serde::Deserialize;

/// The ping of the relay protocol: a bare text frame (01 §8.4).
pub(super) const PING: &str = r#"{"type":"ping"}"#;

/// Lifecycle frames are short; longer text is not searched for them.
const MAX_LEN: usize = 1024;

/// A frame that no command handler sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lifecycle {
    /// The relay answers a ping.
    Pong,
    /// The relay has accepted one socket of a pair.
    Ready {
        /// Of which pair.
        generation: String,
        /// Of which attempt.
        attempt: u64,
    },
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Wire {
    Pong,
    ListenerReady {
        connection_generation: String,
        connection_attempt: u64,
    },
}

/// Reads a lifecycle frame; `None` for everything else.
pub(super) fn parse(text: &str) -> Option<Lifecycle> {
    let likely = text.contains("pong") || text.contains("listener_ready");
    // Only an object: serde would take an array for a tagged value too.
    if text.len() > MAX_LEN || !likely || !text.trim_ascii_start().starts_with('{') {
        return None;
    }
    match serde_json::from_str(text).ok()? {
        Wire::Pong => Some(Lifecycle::Pong),
        Wire::ListenerReady {
            connection_generation: generation,
            connection_attempt: attempt @ 1..,
        } => Some(Lifecycle::Ready {
            generation,
            attempt,
        }),
        Wire::ListenerReady { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lifecycle_frames_are_taken_from_the_listener() {
        assert_eq!(parse(r#"{"type":"pong","at":1}"#), Some(Lifecycle::Pong));
        let ready =
            r#"{"type":"listener_ready","connection_generation":"g","connection_attempt":2}"#;
        let (generation, attempt) = (String::from("g"), 2);
        assert_eq!(
            parse(ready),
            Some(Lifecycle::Ready {
                generation,
                attempt
            })
        );
        for other in [
            r#"{"type":"listener_ready","connection_generation":"g","connection_attempt":0}"#,
            r#"{"type":"listener_ready"}"#,
            r#"{"type":"input","text":"pong"}"#,
            r#"pong"#,
            r#"["pong"]"#,
            "",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
