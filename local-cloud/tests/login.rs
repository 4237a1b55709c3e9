//! The login endpoints, scripted and with a person who clicks.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the helpers of tests"
)]

mod support;

use local_cloud::{Fault, LocalCloud, OAuthAnswer, OAuthOptions, Options};
use serde_json::{Value, json};
use support::*;

async fn code(cloud: &LocalCloud) -> Value {
    post(cloud, "/api/oauth/device/code", json!({"client_id": "c"}))
        .await
        .json()
        .await
        .unwrap()
}

async fn poll(cloud: &LocalCloud, code: &Value) -> (u16, Value) {
    let body = json!({"grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "client_id": "c", "device_code": code["device_code"]});
    let answer = post(cloud, "/api/oauth/token", body).await;
    (
        answer.status().as_u16(),
        answer.json().await.unwrap_or_default(),
    )
}

#[tokio::test]
async fn a_code_is_pending_until_a_person_decides() {
    let cloud = cloud().await;
    for (approve, wanted) in [(true, 200), (false, 400)] {
        let code = code(&cloud).await;
        assert_eq!(
            poll(&cloud, &code).await,
            (400, json!({"error": "authorization_pending"}))
        );
        let page = http()
            .get(code["verification_uri_complete"].as_str().unwrap())
            .send()
            .await
            .unwrap();
        assert!(page.text().await.unwrap().contains("Approve"));
        let click = json!({"user_code": code["user_code"], "approve": approve});
        post(&cloud, "/device/decide", click).await;
        assert_eq!(poll(&cloud, &code).await.0, wanted);
    }
}

#[tokio::test]
async fn scripted_answers_come_first_then_approval_then_a_rotating_refresh() {
    let oauth = OAuthOptions {
        auto_approve: true,
        answers: vec![
            OAuthAnswer::SlowDown,
            OAuthAnswer::Fault(Fault::status(503)),
            OAuthAnswer::Fault(Fault::Html),
        ],
        ..OAuthOptions::default()
    };
    let options = Options {
        oauth,
        api_key: Some("k".into()),
        ..Options::default()
    };
    let cloud = start(options).await;
    let code = code(&cloud).await;
    assert_eq!(poll(&cloud, &code).await.1["error"], "slow_down");
    assert_eq!(poll(&cloud, &code).await.0, 503);
    assert_eq!(poll(&cloud, &code).await, (200, Value::Null));
    let tokens = poll(&cloud, &code).await.1;
    let refresh = json!({"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]});
    let renewed: Value = post(&cloud, "/api/oauth/token", refresh.clone())
        .await
        .json()
        .await
        .unwrap();
    assert_ne!(renewed["access_token"], tokens["access_token"]);
    let again = post(&cloud, "/api/oauth/token", refresh).await;
    assert_eq!(
        again.json::<Value>().await.unwrap()["error"],
        "invalid_grant"
    );

    let token = renewed["access_token"].as_str().unwrap();
    let agents = || async {
        let call = http()
            .get(format!("{}/v1/agents", cloud.base_url()))
            .bearer_auth(token);
        call.send().await.unwrap().status().as_u16()
    };
    assert_eq!(agents().await, 200);
    post(&cloud, "/api/oauth/revoke", json!({"token": token})).await;
    assert_eq!(agents().await, 401);
}
