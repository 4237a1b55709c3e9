use serde_json::json;

use super::*;

#[test]
fn an_address_is_read_and_its_secrets_stay_inside() {
    let ws = json!({"url": "WSS://Events.example:8443/a?token=s3cret#", "protocols": ["v1", "v2"]});
    let read = address(&ws).unwrap();
    assert_eq!(
        read.url.as_str(),
        "https://events.example:8443/a?token=s3cret"
    );
    assert_eq!(read.protocols, ["v1", "v2"]);
    assert_eq!(read.host(), "events.example");
    let plain = address(&json!({"url": "ws://[::1]:80/", "protocols": null})).unwrap();
    assert_eq!(plain.url.as_str(), "http://[::1]/");
    assert!(plain.protocols.is_empty());
}

#[test]
fn what_is_no_such_address_is_refused_without_repeating_it() {
    let invalid = "Monitor ws.url must be a valid ws:// or wss:// URL";
    let closed = "Monitor ws.url must be an ASCII ws:// or wss:// URL with no embedded credentials or whitespace";
    let list = "Monitor ws.protocols must be an array of strings";
    let tokens = "Monitor ws.protocols must contain RFC 6455 tokens";
    for (ws, expected) in [
        (json!("wss://h"), "Monitor ws must be an object"),
        (json!({}), "Monitor ws.url must be a string"),
        (json!({"url": 7}), "Monitor ws.url must be a string"),
        (json!({"url": "h/s3cret"}), invalid),
        (json!({"url": "ws://"}), invalid),
        (json!({"url": "ws://h:99999/s3cret"}), invalid),
        (json!({"url": "https://h/s3cret"}), closed),
        (json!({"url": "file:///s3cret"}), closed),
        (json!({"url": "ws://me@h"}), closed),
        (json!({"url": "ws://:s3cret@h"}), closed),
        (json!({"url": " ws://h"}), closed),
        (json!({"url": "ws://h/s3 cret"}), closed),
        (json!({"url": "ws://h/s3\ncret"}), closed),
        (json!({"url": "ws://h/\u{1b}[8m"}), closed),
        (json!({"url": "ws://h/é"}), closed),
        (json!({"url": "ws://bücher.example"}), closed),
        (
            json!({"url": "ws://h/#s3cret"}),
            "Monitor ws.url must not have a fragment",
        ),
        (json!({"url": "ws://h", "protocols": "v1"}), list),
        (json!({"url": "ws://h", "protocols": [7]}), tokens),
        (json!({"url": "ws://h", "protocols": [""]}), tokens),
        (json!({"url": "ws://h", "protocols": ["a b"]}), tokens),
        (json!({"url": "ws://h", "protocols": ["a,b"]}), tokens),
        (json!({"url": "ws://h", "protocols": ["a\r\nb"]}), tokens),
        (json!({"url": "ws://h", "protocols": ["é"]}), tokens),
        (
            json!({"url": "ws://h", "protocols": ["v1", "v1"]}),
            "Monitor ws.protocols must be unique",
        ),
    ] {
        assert_eq!(address(&ws).unwrap_err(), expected, "{ws}");
    }
}
