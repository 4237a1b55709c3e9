//! The decision table of 01 §5.2 and the device flow, against a scripted login server.

mod fixture;
mod sign_in;

use std::sync::atomic::Ordering;

use serde_json::json as value;

use self::fixture::*;
use super::*;
use crate::api::tests::{answer, json};

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
