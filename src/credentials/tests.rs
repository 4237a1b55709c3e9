//! The decision table of 01 §5.2 and the device flow, against a scripted login server.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use axum::response::Response;
use serde_json::{Value, json as value};

use super::*;
use crate::api::tests::{Server, answer, json, net};

/// Tokens in memory.
#[derive(Default)]
struct MemoryStore {
    tokens: Mutex<StoredTokens>,
    locks: AtomicU32,
    read_only: AtomicBool,
    /// What the next holder of the lock finds, as if another process had been there.
    under_lock: Mutex<Option<StoredTokens>>,
}

impl TokenStore for MemoryStore {
    fn load(&self) -> StoredTokens {
        self.tokens.lock().unwrap().clone()
    }

    fn save(&self, tokens: &StoredTokens) -> io::Result<()> {
        if self.read_only.load(Ordering::SeqCst) {
            return Err(io::Error::other("read-only"));
        }
        *self.tokens.lock().unwrap() = tokens.clone();
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        self.save(&StoredTokens::default())
    }

    fn lock_refresh(&self) -> io::Result<Box<dyn Send>> {
        self.locks.fetch_add(1, Ordering::SeqCst);
        if let Some(tokens) = self.under_lock.lock().unwrap().take() {
            *self.tokens.lock().unwrap() = tokens;
        }
        Ok(Box::new(()))
    }
}

/// A login that ends in `seconds` from now.
fn login(access: &str, seconds: i64) -> StoredTokens {
    StoredTokens {
        access: Some(Secret::new(access)),
        refresh: Some(Secret::new("refresh-1")),
        expires_at_ms: Some(now_ms() + seconds * 1000),
    }
}

fn signed_in() -> CredentialSettings {
    CredentialSettings {
        login: true,
        ..CredentialSettings::default()
    }
}

struct Fixture {
    server: Server,
    store: Arc<MemoryStore>,
    credentials: Credentials,
}

impl Fixture {
    async fn new(
        settings: CredentialSettings,
        stored: StoredTokens,
        answers: impl IntoIterator<Item = Response>,
    ) -> Self {
        let server = Server::answering(answers).await;
        let store = Arc::new(MemoryStore {
            tokens: Mutex::new(stored),
            ..MemoryStore::default()
        });
        let oauth = OAuth::new(net(), &format!("{}/", server.url), "dev-1", "w1");
        let credentials = Credentials::new(settings, store.clone(), oauth);
        Self {
            server,
            store,
            credentials,
        }
    }

    async fn token(&self) -> Result<Option<String>, CredentialError> {
        let token = self.credentials.token().await?;
        Ok(token.map(|token| token.expose().to_owned()))
    }

    fn requests(&self) -> usize {
        self.server.seen().len()
    }
}

fn fresh() -> Response {
    json(
        200,
        &value!({"access_token": "new", "refresh_token": "refresh-2", "expires_in": 3600}),
    )
}

fn some(text: &str) -> Result<Option<String>, CredentialError> {
    Ok(Some(text.to_owned()))
}

#[tokio::test]
async fn a_key_from_the_environment_beats_everything_and_leaves_the_login_alone() {
    let settings = CredentialSettings {
        api_key: Some(Secret::new("env")),
        api_key_file: Some("/nonexistent".into()),
        ..signed_in()
    };
    let fixture = Fixture::new(settings, login("old", -1), []).await;
    assert_eq!(fixture.token().await, some("env"));
    assert_eq!(fixture.requests(), 0);
    assert_eq!(
        fixture.store.load().access.unwrap().expose(),
        "old",
        "stored tokens stay"
    );
}

#[tokio::test]
async fn key_files_come_before_the_saved_login() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "from-file\n").unwrap();
    std::fs::write(dir.path().join("letta-api-key"), " from-systemd ").unwrap();
    let named = CredentialSettings {
        api_key_file: Some(file),
        credentials_directory: Some(dir.path().into()),
        ..signed_in()
    };
    let fixture = Fixture::new(named, login("saved", 3600), []).await;
    assert_eq!(fixture.token().await, some("from-file"));

    let systemd = CredentialSettings {
        credentials_directory: Some(dir.path().into()),
        ..signed_in()
    };
    let fixture = Fixture::new(systemd, login("saved", 3600), []).await;
    assert_eq!(fixture.token().await, some("from-systemd"));

    let other = tempfile::tempdir().unwrap();
    let elsewhere = CredentialSettings {
        credentials_directory: Some(other.path().into()),
        ..signed_in()
    };
    let fixture = Fixture::new(elsewhere, login("saved", 3600), []).await;
    assert_eq!(fixture.token().await, some("saved"));
}

#[tokio::test]
async fn a_replaced_key_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "one").unwrap();
    let settings = CredentialSettings {
        api_key_file: Some(file.clone()),
        ..signed_in()
    };
    let fixture = Fixture::new(settings, StoredTokens::default(), []).await;
    assert_eq!(fixture.token().await, some("one"));
    std::fs::write(&file, "two").unwrap();
    tokio::time::pause();
    tokio::time::advance(KEY_FILE_LIFETIME).await;
    assert_eq!(fixture.token().await, some("two"));
}

#[tokio::test]
async fn an_unusable_key_file_is_a_configuration_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    for content in [
        None,
        Some(""),
        Some("two words"),
        Some(&*"x".repeat(70_000)),
    ] {
        match content {
            Some(content) => std::fs::write(&file, content).unwrap(),
            None => _ = std::fs::remove_file(&file),
        }
        let settings = CredentialSettings {
            api_key_file: Some(file.clone()),
            ..signed_in()
        };
        let fixture = Fixture::new(settings, login("saved", 3600), []).await;
        let error = fixture.token().await.unwrap_err();
        assert_eq!(error.exit_code(), Some(78));
        let text = error.to_string();
        assert!(
            text.contains("key") && !text.contains("two words"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_server_without_login_takes_a_stored_key_or_none_and_never_refreshes() {
    let settings = CredentialSettings::default();
    let fixture = Fixture::new(settings.clone(), login("stored", -1), []).await;
    assert_eq!(fixture.token().await, some("stored"));
    let fixture = Fixture::new(settings, StoredTokens::default(), []).await;
    assert_eq!(fixture.token().await, Ok(None));
    assert_eq!(fixture.requests(), 0);
}

#[tokio::test]
async fn a_login_that_is_good_for_longer_than_five_minutes_is_used_as_it_is() {
    let fixture = Fixture::new(signed_in(), login("saved", 320), []).await;
    assert_eq!(fixture.token().await, some("saved"));
    let unknown = StoredTokens {
        expires_at_ms: None,
        ..login("saved", 0)
    };
    let fixture = Fixture::new(signed_in(), unknown, []).await;
    assert_eq!(fixture.token().await, some("saved"));
    let no_refresh = StoredTokens {
        refresh: None,
        ..login("saved", -10)
    };
    let fixture = Fixture::new(signed_in(), no_refresh, []).await;
    assert_eq!(fixture.token().await, some("saved"));
}

#[tokio::test]
async fn a_login_about_to_end_is_refreshed_and_stored() {
    for seconds in [-10, 290] {
        let fixture = Fixture::new(signed_in(), login("old", seconds), [fresh()]).await;
        let before = now_ms();
        assert_eq!(fixture.token().await, some("new"));
        assert_eq!(fixture.token().await, some("new"));
        let seen = fixture.server.seen();
        assert_eq!((seen.len(), seen[0].uri.as_str()), (1, "/api/oauth/token"));
        assert_eq!(
            seen[0].body,
            value!({
                "grant_type": "refresh_token",
                "client_id": "ci-let-724dea7e98f4af6f8f370f4b1466200c",
                "refresh_token": "refresh-1", "refresh_token_mode": "new",
                "device_id": "dev-1", "device_name": "w1",
            })
        );
        assert_eq!(seen[0].header("authorization"), None);
        let stored = fixture.store.load();
        assert_eq!(stored.refresh.unwrap().expose(), "refresh-2");
        let end = stored.expires_at_ms.unwrap();
        assert!((before + 3_600_000..=now_ms() + 3_600_000).contains(&end));
    }
}

#[tokio::test]
async fn a_refresh_without_a_new_refresh_token_keeps_the_old_one() {
    let answer = json(200, &value!({"access_token": "new", "expires_in": 3600}));
    let fixture = Fixture::new(signed_in(), login("old", -1), [answer]).await;
    assert_eq!(fixture.token().await, some("new"));
    let stored = fixture.store.load();
    assert_eq!(stored.refresh.unwrap().expose(), "refresh-1");
}

#[tokio::test]
async fn twenty_callers_at_once_share_one_refresh_good_or_bad() {
    for (answer, expected) in [
        (fresh(), some("new")),
        (
            answer(503, &[], ""),
            Err(CredentialError::Transient { reason: "".into() }),
        ),
    ] {
        let fixture = Fixture::new(signed_in(), login("old", -1), [answer]).await;
        let calls = (0..20).map(|_| fixture.token());
        let outcomes = futures_util::future::join_all(calls).await;
        assert_eq!(fixture.requests(), 1);
        assert_eq!(fixture.store.locks.load(Ordering::SeqCst), 1);
        for outcome in outcomes {
            assert_eq!(
                outcome.as_ref().map_err(CredentialError::is_transient),
                expected.as_ref().map_err(CredentialError::is_transient)
            );
        }
    }
}

#[tokio::test]
async fn tokens_that_another_process_refreshed_are_taken_from_the_store() {
    let fixture = Fixture::new(signed_in(), login("old", -1), []).await;
    *fixture.store.under_lock.lock().unwrap() = Some(login("theirs", 3600));
    assert_eq!(fixture.token().await, some("theirs"));
    assert_eq!(fixture.requests(), 0);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_lose_the_new_tokens() {
    let fixture = Fixture::new(signed_in(), login("old", -1), [fresh()]).await;
    {
        let mut call = Box::pin(fixture.token());
        while fixture.requests() == 0 {
            assert!(futures_util::poll!(&mut call).is_pending());
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(fixture.token().await, some("new"));
    assert_eq!(fixture.requests(), 1);
    let stored = fixture.store.load();
    assert_eq!(stored.refresh.unwrap().expose(), "refresh-2");
}

#[tokio::test]
async fn an_outage_of_the_login_server_leaves_a_good_token_in_use() {
    let outage = answer(503, &[], "<html>secret page</html>");
    let fixture = Fixture::new(signed_in(), login("old", 120), [outage, fresh()]).await;
    assert_eq!(fixture.token().await, some("old"));
    assert_eq!(fixture.token().await, some("old"));
    assert_eq!(fixture.requests(), 1, "it is not asked again at once");
    tokio::time::pause();
    tokio::time::advance(QUIET).await;
    tokio::time::resume();
    assert_eq!(fixture.token().await, some("new"));
}

#[tokio::test]
async fn an_outage_with_an_ended_token_is_transient_and_tells_no_body() {
    let outage = answer(
        502,
        &[("content-type", "text/html"), ("cf-ray", "ray-1")],
        "<html>private</html>",
    );
    let fixture = Fixture::new(signed_in(), login("old", -1), [outage, fresh()]).await;
    let error = fixture.token().await.unwrap_err();
    assert_eq!(error.exit_code(), None);
    let text = error.to_string();
    assert!(
        text.starts_with("Failed to refresh access token: "),
        "{text}"
    );
    assert!(
        text.contains("HTTP 502 (text/html, cf-ray: ray-1)"),
        "{text}"
    );
    assert!(!text.contains("private"));
    assert_eq!(
        fixture.token().await,
        some("new"),
        "the next call tries again"
    );
}

#[tokio::test]
async fn a_refused_login_needs_a_human_and_is_not_asked_for_again() {
    let refusal = json(
        400,
        &value!({"error": "invalid_grant", "error_description": "revoked"}),
    );
    let fixture = Fixture::new(signed_in(), login("old", -1), [refusal]).await;
    for _ in 0..3 {
        let error = fixture.token().await.unwrap_err();
        assert_eq!(error.exit_code(), Some(77));
        let text = error.to_string();
        assert!(text.contains("require reauthentication") && text.contains("revoked"));
    }
    assert_eq!(fixture.requests(), 1);
    *fixture.store.tokens.lock().unwrap() = login("signed in elsewhere", 3600);
    assert_eq!(fixture.token().await, some("signed in elsewhere"));
}

#[tokio::test]
async fn nobody_signed_in_is_missing_until_somebody_is() {
    let fixture = Fixture::new(signed_in(), StoredTokens::default(), []).await;
    let error = fixture.token().await.unwrap_err();
    assert!(error.to_string().starts_with("Missing LETTA_API_KEY."));
    assert_eq!(error.exit_code(), Some(77));
    *fixture.store.tokens.lock().unwrap() = login("later", 3600);
    assert_eq!(fixture.token().await, some("later"));
}

#[tokio::test]
async fn new_tokens_work_and_are_refreshed_even_when_they_cannot_be_saved() {
    let short = value!({"access_token": "short", "refresh_token": "refresh-2", "expires_in": 0});
    let answers = [json(200, &short), fresh()];
    let fixture = Fixture::new(signed_in(), login("old", -1), answers).await;
    fixture.store.read_only.store(true, Ordering::SeqCst);
    assert_eq!(fixture.token().await, some("short"));
    assert_eq!(fixture.token().await, some("new"));
    let seen = fixture.server.seen();
    assert_eq!(seen[1].body["refresh_token"], "refresh-2");
    fixture.store.read_only.store(false, Ordering::SeqCst);
    assert_eq!(fixture.token().await, some("new"));
}

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

#[tokio::test]
async fn printing_credentials_shows_no_secret() {
    let settings = CredentialSettings {
        api_key: Some(Secret::new("hunter2")),
        ..signed_in()
    };
    let fixture = Fixture::new(settings, login("hunter2", 1), []).await;
    let text = format!("{:?} {:?}", fixture.credentials, fixture.store.load());
    assert!(!text.contains("hunter2"), "{text}");
}
