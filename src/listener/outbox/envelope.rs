//! The envelope of an event, spliced onto its text (02 §4.1).
//!
//! The body is not parsed again: its closing brace makes room for `runtime`,
//! `event_seq`, `emitted_at` and `idempotency_key`, which the body must not hold.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::SystemTime;

use serde::Deserialize;
use uuid::Uuid;

use crate::events::EventKind;
use crate::protocol::Scope;
use crate::protocol::time::iso_millis;

/// Room for everything the envelope adds to a body with ordinary ids.
const TYPICAL_LEN: usize = 320;

/// Whether a text looks like a JSON object, as far as splicing needs it.
pub(super) fn is_object(body: &str) -> bool {
    let body = body.trim_ascii();
    body.len() >= 2 && body.starts_with('{') && body.ends_with('}')
}

/// The frame as it is written: body and envelope. `body` passed [`is_object`].
pub(super) fn wrap(scope: &Scope, kind: EventKind, body: &str, seq: u64) -> String {
    let open = body.trim_ascii_end().strip_suffix('}').unwrap_or(body);
    let open = open.trim_ascii_end();
    let mut frame = String::with_capacity(open.len() + TYPICAL_LEN);
    frame.push_str(open);
    if open.trim_ascii_start() != "{" {
        frame.push(',');
    }
    frame.push_str(r#""runtime":{"agent_id":"#);
    match &scope.agent_id {
        Some(agent) => push_string(&mut frame, agent),
        None => frame.push_str("null"),
    }
    frame.push_str(r#","conversation_id":"#);
    push_string(&mut frame, &scope.conversation_id);
    // Writing into a String cannot fail.
    let _ = write!(
        frame,
        r#"}},"event_seq":{seq},"emitted_at":"{}","idempotency_key":"#,
        iso_millis(SystemTime::now()),
    );
    let mut uuid = Uuid::encode_buffer();
    let uuid = random_uuid().hyphenated().encode_lower(&mut uuid);
    push_string(&mut frame, &format!("{}:{seq}:{uuid}", type_of(kind, body)));
    frame.push('}');
    frame
}

/// Appends `text` in its JSON spelling.
fn push_string(frame: &mut String, text: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        frame.push('"');
        frame.push_str(text);
        frame.push('"');
    } else {
        frame.push_str(&serde_json::Value::from(text).to_string());
    }
}

/// The `type` of a frame: known by its kind, or read from the body.
fn type_of(kind: EventKind, body: &str) -> Cow<'_, str> {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }

    let known = match kind {
        EventKind::StreamDelta => "stream_delta",
        EventKind::DeviceStatus => "update_device_status",
        EventKind::LoopStatus => "update_loop_status",
        EventKind::QueueSnapshot | EventKind::QueueTransition => "update_queue",
        EventKind::SubagentState => "update_subagent_state",
        EventKind::Control => {
            // Bodies have their type first, so this seldom needs the parser.
            let first = body.strip_prefix(r#"{"type":""#);
            return match first.and_then(|rest| rest.split_once('"')) {
                Some((name, _)) if !name.contains('\\') => name.into(),
                _ => serde_json::from_str::<Typed>(body)
                    .map_or("event".into(), |typed| typed.r#type.into()),
            };
        }
    };
    known.into()
}

/// A version 4 UUID that costs no system call: unique, not secret.
fn random_uuid() -> Uuid {
    let bytes = fastrand::u128(..).to_ne_bytes();
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(scope: &Scope, kind: EventKind, body: &str) -> serde_json::Value {
        serde_json::from_str(&wrap(scope, kind, body, 7)).unwrap()
    }

    #[test]
    fn the_envelope_follows_the_bodys_own_keys() {
        let scope = Scope::new(Some("agent-1"), Some("conv-1"));
        let frame = wrap(
            &scope,
            EventKind::QueueSnapshot,
            r#"{"type":"update_queue","queue":[],"removed":[]}"#,
            3,
        );
        assert!(
            frame.starts_with(concat!(
                r#"{"type":"update_queue","queue":[],"removed":[],"#,
                r#""runtime":{"agent_id":"agent-1","conversation_id":"conv-1"},"event_seq":3,"emitted_at":""#
            )),
            "{frame}"
        );
        let frame: serde_json::Value = serde_json::from_str(&frame).unwrap();
        let key = frame["idempotency_key"].as_str().unwrap();
        let uuid = key.strip_prefix("update_queue:3:").unwrap();
        assert_eq!(Uuid::parse_str(uuid).unwrap().get_version_num(), 4);
        assert_eq!(uuid, uuid.to_lowercase());
        let at = frame["emitted_at"].as_str().unwrap();
        assert!(at.len() == 24 && at.ends_with('Z'), "{at}");
    }

    #[test]
    fn odd_bodies_and_ids_still_make_json() {
        let nobody = Scope::new(None, Some("co\"nv\n"));
        let frame = wrapped(&nobody, EventKind::Control, "{ }");
        assert_eq!(frame["runtime"]["agent_id"], serde_json::Value::Null);
        assert_eq!(frame["runtime"]["conversation_id"], "co\"nv\n");
        assert_eq!(frame["event_seq"], 7);

        let late = " {\"a\":1,\"type\":\"turn_finished\" } \n";
        let frame = wrapped(&nobody, EventKind::Control, late);
        let key = frame["idempotency_key"].as_str().unwrap();
        assert!(key.starts_with("turn_finished:7:"), "{key}");
        assert_eq!(frame["a"], 1);

        let escaped = wrapped(&nobody, EventKind::Control, r#"{"type":"a\"b"}"#);
        let key = escaped["idempotency_key"].as_str().unwrap();
        assert!(key.starts_with("a\"b:7:"), "{key}");
    }

    #[test]
    fn only_objects_can_take_an_envelope() {
        for body in ["", "{", "}", "[]", "null", "\"{}\""] {
            assert!(!is_object(body), "{body}");
        }
        assert!(is_object("{}") && is_object(" {\"a\":{}}\n"));
    }
}
