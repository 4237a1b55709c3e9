//! Chat channels, which this program does not have (06 §16): each command is
//! declined with the ids that it named.

use super::call::{Answer, Call, Failure};
use crate::protocol::fields::ShapeError;

const ABSENT: &str = "Channels are not supported by this listener.";

/// Ids that an answer repeats.
const ECHOED: [&str; 4] = ["channel_id", "account_id", "chat_id", "target_id"];

pub(super) async fn decline(mut call: Call) -> Answer {
    let mut failure = Failure::new(ABSENT);
    for name in ECHOED {
        let Some(id) = call.fields.optional_string(name)? else {
            continue;
        };
        if name == "channel_id" && !is_channel(&id) {
            let expected = "lower-case letters, digits, - and _, not starting with - or _";
            return Err(ShapeError::new(name, expected).into());
        }
        failure = failure.with(name, id);
    }
    Err(failure)
}

fn is_channel(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    id.bytes().next().is_some_and(plain)
        && id.bytes().all(|byte| plain(byte) || b"-_".contains(&byte))
}
