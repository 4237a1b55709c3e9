//! Signing in with a code, and out.

use std::sync::atomic::Ordering;

use axum::response::Response;
use serde_json::{Value, json as value};

use super::super::*;
use super::fixture::*;
use crate::api::tests::{answer, json};

/// Remembers what was shown, one word each.
#[derive(Default)]
struct Shown(Mutex<Vec<String>>);

impl Shown {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl LoginPrompt for Shown {
    fn notice(&self, notice: &LoginNotice<'_>) {
        let text = match notice {
            LoginNotice::Refused { .. } => "refused".into(),
            LoginNotice::Code { url, user_code, .. } => format!("{url} {user_code}"),
            LoginNotice::Problem { error } => format!("problem: {error}"),
            LoginNotice::Expired => "expired".into(),
            LoginNotice::Done => "done".into(),
        };
        self.0.lock().unwrap().push(text);
    }
}

/// A device code of a tiny interval, so that polling takes no time.
fn code(number: u32, expires_in: f64) -> Response {
    json(
        200,
        &value!({
            "device_code": format!("device-{number}"), "user_code": format!("CODE-{number}"),
            "verification_uri": "https://login.test/device",
            "verification_uri_complete": format!("https://login.test/device?c={number}"),
            "expires_in": expires_in, "interval": 0.001,
        }),
    )
}

fn error(code: &str) -> Response {
    json(400, &value!({ "error": code }))
}

#[tokio::test]
async fn a_first_start_signs_in_with_a_code() {
    let answers = [code(1, 900.0), error("authorization_pending"), fresh()];
    let fixture = Fixture::new(signed_in(), StoredTokens::default(), answers).await;
    let shown = Shown::default();
    let token = fixture.credentials.sign_in(&shown).await.unwrap().unwrap();
    assert_eq!(token.expose(), "new");
    assert_eq!(
        shown.all(),
        ["https://login.test/device?c=1 CODE-1", "done"]
    );
    assert_eq!(fixture.store.load().refresh.unwrap().expose(), "refresh-2");
    let seen = fixture.server.seen();
    assert_eq!(seen[0].uri, "/api/oauth/device/code");
    assert_eq!(
        seen[0].body,
        value!({"client_id": "ci-let-724dea7e98f4af6f8f370f4b1466200c"})
    );
    assert_eq!(
        seen[2].body,
        value!({
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "client_id": "ci-let-724dea7e98f4af6f8f370f4b1466200c",
            "device_code": "device-1", "device_id": "dev-1", "device_name": "w1",
        })
    );
}

#[tokio::test]
async fn a_refused_login_leads_to_a_new_one_at_start() {
    let answers = [error("invalid_grant"), code(1, 900.0), fresh()];
    let fixture = Fixture::new(signed_in(), login("old", -1), answers).await;
    let shown = Shown::default();
    let token = fixture.credentials.sign_in(&shown).await.unwrap().unwrap();
    assert_eq!(token.expose(), "new");
    assert_eq!(shown.all()[0], "refused");
}

#[tokio::test]
async fn expired_codes_are_replaced_for_as_long_as_it_takes() {
    let mut answers = Vec::new();
    for number in 1..=5 {
        answers.extend([code(number, 900.0), error("expired_token")]);
    }
    // This one is over by the clock before its first poll.
    answers.push(code(6, 0.000_1));
    answers.extend([code(7, 900.0), fresh()]);
    let fixture = Fixture::new(signed_in(), StoredTokens::default(), answers).await;
    let shown = Shown::default();
    fixture.credentials.log_in(&shown).await.unwrap();
    let shown = shown.all();
    assert_eq!(shown.iter().filter(|text| *text == "expired").count(), 6);
    assert!(shown.contains(&"https://login.test/device?c=7 CODE-7".to_owned()));
}

#[tokio::test]
async fn a_human_who_declines_ends_the_login() {
    let answers = [code(1, 900.0), error("access_denied")];
    let fixture = Fixture::new(signed_in(), StoredTokens::default(), answers).await;
    let shown = Shown::default();
    let error = fixture.credentials.sign_in(&shown).await.unwrap_err();
    assert_eq!(error.to_string(), "Login failed: User denied authorization");
    assert_eq!(error.exit_code(), Some(77));
}

#[tokio::test]
async fn outages_while_a_human_is_awaited_do_not_end_the_login() {
    let page = || answer(502, &[("content-type", "text/html")], "<html>");
    let answers = [
        page(), // the request for a code is repeated once
        code(1, 900.0),
        page(),
        page(),
        page(), // the third in a row is told
        fresh(),
    ];
    let fixture = Fixture::new(signed_in(), StoredTokens::default(), answers).await;
    let shown = Shown::default();
    fixture.credentials.log_in(&shown).await.unwrap();
    let shown = shown.all();
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert!(shown[1].starts_with("problem: ") && shown[1].contains("HTTP 502"));
}

#[tokio::test]
async fn a_login_server_that_does_not_know_us_ends_the_login() {
    let unknown: Value = value!({"error": "invalid_client"});
    let fixture = Fixture::new(signed_in(), StoredTokens::default(), [json(401, &unknown)]).await;
    let shown = Shown::default();
    let error = fixture.credentials.log_in(&shown).await.unwrap_err();
    assert!(matches!(error, CredentialError::LoginFailed { .. }));
    assert!(error.to_string().contains("HTTP 401") && shown.all().is_empty());
}

#[tokio::test]
async fn a_login_by_another_process_ends_the_wait() {
    let mut answers = vec![code(1, 900.0)];
    answers.extend((0..2000).map(|_| error("authorization_pending")));
    let fixture = Fixture::new(signed_in(), StoredTokens::default(), answers).await;
    let shown = Shown::default();
    let store = fixture.store.clone();
    let other = async {
        while fixture.requests() < 3 {
            tokio::task::yield_now().await;
        }
        *store.tokens.lock().unwrap() = login("theirs", 3600);
    };
    let (token, ()) = tokio::join!(fixture.credentials.sign_in(&shown), other);
    assert_eq!(token.unwrap().unwrap().expose(), "theirs");
}

#[tokio::test]
async fn a_login_that_cannot_be_saved_still_serves_this_process() {
    let answers = [code(1, 900.0), fresh()];
    let fixture = Fixture::new(signed_in(), StoredTokens::default(), answers).await;
    fixture.store.read_only.store(true, Ordering::SeqCst);
    let shown = Shown::default();
    let token = fixture.credentials.sign_in(&shown).await.unwrap().unwrap();
    assert_eq!(token.expose(), "new");
}

#[tokio::test]
async fn signing_out_tells_the_login_server_and_forgets_either_way() {
    let told = [answer(200, &[], "")];
    let fixture = Fixture::new(signed_in(), login("old", 3600), told).await;
    assert_eq!(fixture.credentials.log_out().await, Ok(SignedOut::Revoked));
    assert_eq!(fixture.store.load(), StoredTokens::default());
    let seen = fixture.server.seen();
    assert_eq!(seen[0].uri, "/api/oauth/revoke");
    assert_eq!(seen[0].body["token"], "refresh-1");
    assert_eq!(seen[0].body["token_type_hint"], "refresh_token");
    assert!(fixture.token().await.is_err());

    let fixture = Fixture::new(signed_in(), login("old", 3600), [answer(500, &[], "")]).await;
    let outcome = fixture.credentials.log_out().await.unwrap();
    assert!(matches!(outcome, SignedOut::OnlyHere(_)));
    assert_eq!(fixture.store.load(), StoredTokens::default());

    let fixture = Fixture::new(signed_in(), StoredTokens::default(), []).await;
    let outcome = fixture.credentials.log_out().await.unwrap();
    assert_eq!(outcome, SignedOut::NothingSaved);
}
