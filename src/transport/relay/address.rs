//! The address of a relay socket: what registration gave, plus who we are (01 §8.1).

use reqwest::Url;
use uuid::Uuid;

use crate::listener::outbox::Lane;

/// Which pair a socket belongs to, so that the relay never joins sockets of two
/// attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation {
    /// The same for both sockets, new for every attempt.
    pub(super) id: Uuid,
    /// 1, 2, … since the registration.
    pub(super) attempt: u32,
}

/// The address of one socket. `lane` is `None` when there is only one.
///
/// # Errors
/// A text for people when `ws_url` is no ws, wss, http or https address. It does
/// not repeat the address, which may hold a secret.
pub(super) fn socket_url(
    ws_url: &str,
    device_id: &str,
    connection_name: &str,
    lane: Option<Lane>,
    generation: Option<Generation>,
) -> Result<Url, String> {
    // The HTTP client upgrades: to it, ws is http.
    let web = match ws_url.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("ws") => format!("http:{rest}"),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("wss") => format!("https:{rest}"),
        _ => ws_url.to_owned(),
    };
    let mut url = Url::parse(&web)
        .map_err(|error| format!("the server's WebSocket address cannot be used: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        let scheme = url.scheme();
        return Err(format!(
            "the server's WebSocket address cannot be used: its scheme is {scheme}, not ws or wss"
        ));
    }
    let mut ours = vec![
        ("deviceId", device_id.to_owned()),
        ("connectionName", connection_name.to_owned()),
    ];
    match lane {
        Some(Lane::Control) => ours.push(("channel", "control".to_owned())),
        Some(Lane::Stream) => ours.push(("channel", "stream".to_owned())),
        None => {}
    }
    if let Some(generation) = generation {
        ours.push(("connectionGeneration", generation.id.to_string()));
        ours.push(("connectionAttempt", generation.attempt.to_string()));
    }
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(key, _)| ours.iter().all(|(ours, _)| ours != key))
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    url.query_pairs_mut()
        .clear()
        .extend_pairs(kept)
        .extend_pairs(ours);
    Ok(url)
}

/// An address fit for a log: values of its query and any user info are hidden.
pub(super) fn masked(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else {
        return String::from("(unreadable address)");
    };
    let keys: Vec<String> = url.query_pairs().map(|(key, _)| key.into_owned()).collect();
    if !keys.is_empty() {
        let hidden = keys.iter().map(|key| (key, "***"));
        url.query_pairs_mut().clear().extend_pairs(hidden);
    }
    // Fails only for addresses that cannot hold them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(ws_url: &str, name: &str) -> String {
        socket_url(ws_url, "dev-1", name, None, None)
            .unwrap()
            .to_string()
    }

    #[test]
    fn names_are_form_encoded_and_an_existing_query_is_kept() {
        assert_eq!(
            url("ws://127.0.0.1:8080/v1/ws", "pair d/é"),
            "http://127.0.0.1:8080/v1/ws?deviceId=dev-1&connectionName=pair+d%2F%C3%A9"
        );
        assert_eq!(
            url("wss://relay.example/ws?token=a%2Bb&deviceId=old", "w1"),
            "https://relay.example/ws?token=a%2Bb&deviceId=dev-1&connectionName=w1"
        );
        assert_eq!(
            url("https://relay.example", "a&b=c"),
            "https://relay.example/?deviceId=dev-1&connectionName=a%26b%3Dc"
        );
    }

    #[test]
    fn s01_15_row12_both_sockets_of_a_pair_carry_the_same_generation() {
        let generation = Generation {
            id: Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef),
            attempt: 3,
        };
        for (lane, channel) in [(Lane::Control, "control"), (Lane::Stream, "stream")] {
            let url = socket_url("ws://h/ws", "d", "n", Some(lane), Some(generation)).unwrap();
            assert_eq!(
                url.query().unwrap(),
                format!(
                    "deviceId=d&connectionName=n&channel={channel}\
                     &connectionGeneration=01234567-89ab-4def-8123-456789abcdef&connectionAttempt=3"
                )
            );
        }
    }

    #[test]
    fn an_address_of_another_kind_is_refused_without_repeating_it() {
        for bad in ["", "not a url?token=s3cret", "ftp://h/?token=s3cret", "ws:"] {
            let error = socket_url(bad, "d", "n", None, None).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn logs_see_no_secrets_of_an_address() {
        assert_eq!(
            masked("wss://me:pw@relay.example/ws?token=s3cret&a=b"),
            "wss://relay.example/ws?token=***&a=***"
        );
        assert_eq!(masked("ws://relay.example/ws"), "ws://relay.example/ws");
    }
}
