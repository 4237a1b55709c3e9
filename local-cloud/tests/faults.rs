//! Every way in which a message request can go wrong.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the helpers of tests"
)]

mod support;

use std::time::Duration;

use local_cloud::{Fault, LocalCloud, Options};
use serde_json::{Value, json};
use support::*;

const PATH: &str = "/v1/conversations/conv-1/messages";

/// The bytes of a body until it ends, and whether it was cut off.
async fn read(response: reqwest::Response) -> (Vec<u8>, bool) {
    let mut response = response;
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(part)) => bytes.extend_from_slice(&part),
            Ok(None) => return (bytes, false),
            Err(_) => return (bytes, true),
        }
    }
}

#[tokio::test]
async fn a_body_can_be_cut_at_every_byte_and_resumed() {
    let cloud = cloud().await;
    let script = "REASON ü\nSAY 🦀!";
    let whole = post(&cloud, PATH, say(script, "o-0"))
        .await
        .bytes()
        .await
        .unwrap();
    let client = http();
    for at in 0..whole.len() {
        cloud.fail_next_message(Fault::CutAfterBytes { bytes: at });
        let url = format!("{}{PATH}", cloud.base_url());
        let body = say(script, &format!("o-{}", at + 1));
        let response = client.post(url).json(&body).send().await.unwrap();
        let (bytes, cut) = read(response).await;
        assert!(cut, "cut at {at}");
        assert_eq!(bytes.len(), at);
    }
    let body = json!({"otid": "o-5", "starting_after": 0});
    let resumed = post(&cloud, "/v1/conversations/conv-1/stream", body).await;
    assert_eq!(text(&chunks(&resumed.text().await.unwrap())), "🦀!");
}

#[tokio::test]
async fn a_body_can_be_cut_after_events() {
    let cloud = cloud().await;
    cloud.fail_next_message(Fault::CutAfterEvents { events: 2 });
    let (bytes, cut) = read(post(&cloud, PATH, say("SPLIT 4\nSAY abcd", "o1")).await).await;
    assert!(cut);
    assert_eq!(chunks(&String::from_utf8(bytes).unwrap()).len(), 2);
}

#[tokio::test]
async fn an_http_answer_stands_in_for_the_real_one_and_leaves_no_trace() {
    let cloud = cloud().await;
    let fault = Fault::status(429)
        .with_header("Retry-After", "3")
        .with_body(json!({"error": "slow"}));
    cloud.fail_next_message(fault);
    let refused = post(&cloud, PATH, say("SAY x", "o1")).await;
    assert_eq!(
        (
            refused.status().as_u16(),
            refused.headers()["retry-after"].to_str().unwrap()
        ),
        (429, "3")
    );
    assert_eq!(
        refused.json::<Value>().await.unwrap(),
        json!({"error": "slow"})
    );
    cloud.fail_next_message(Fault::Html);
    let page = post(&cloud, PATH, say("SAY x", "o1")).await;
    assert_eq!(page.status(), 200);
    assert!(
        page.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );
    assert_eq!(cloud.api_get("/v1/runs").await, json!([]));
    assert_eq!(text(&send(&cloud, "conv-1", say("SAY x", "o1")).await), "x");
}

async fn try_send(cloud: &LocalCloud, body: Value) -> Result<reqwest::Response, reqwest::Error> {
    let url = format!("{}{PATH}", cloud.base_url());
    http()
        .post(url)
        .timeout(Duration::from_secs(3))
        .json(&body)
        .send()
        .await
}

#[tokio::test]
async fn a_reset_comes_before_or_after_the_request_took_effect() {
    let cloud = cloud().await;
    cloud.fail_next_message(Fault::Reset);
    assert!(
        !try_send(&cloud, say("SAY x", "o1"))
            .await
            .unwrap_err()
            .is_timeout()
    );
    assert_eq!(cloud.api_get("/v1/runs").await, json!([]));
    cloud.fail_next_message(Fault::AcceptThenReset);
    assert!(
        !try_send(&cloud, say("SAY x", "o1"))
            .await
            .unwrap_err()
            .is_timeout()
    );
    assert_eq!(text(&send(&cloud, "conv-1", say("SAY x", "o1")).await), "x");
    assert_eq!(cloud.api_get("/v1/runs").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn garbage_comes_between_good_events() {
    let cloud = cloud().await;
    cloud.fail_next_message(Fault::Garbage { events: 1 });
    let body = post(&cloud, PATH, say("SAY abc", "o1"))
        .await
        .text()
        .await
        .unwrap();
    let bad = body
        .lines()
        .filter_map(|l| l.strip_prefix("data: "))
        .filter(|l| *l != "[DONE]");
    assert_eq!(
        bad.filter(|l| serde_json::from_str::<Value>(l).is_err())
            .count(),
        1
    );
    assert_eq!(text(&chunks(&body)), "abc");
}

#[tokio::test]
async fn a_stream_can_end_its_work_and_stay_open_or_go_silent() {
    let cloud = start(Options {
        ping_interval: Duration::from_millis(5),
        ..Options::default()
    })
    .await;
    for (fault, wanted) in [
        (Fault::StayOpen, "[DONE]"),
        (
            Fault::Silence {
                events: 2,
                pings: false,
            },
            "assistant_message",
        ),
    ] {
        cloud.fail_next_message(fault);
        let otid = format!("o-{wanted}");
        let mut response = post(&cloud, PATH, say("SAY ab", &otid)).await;
        let mut body = String::new();
        while !body.contains(wanted) {
            body.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
        }
        let more = tokio::time::timeout(Duration::from_millis(50), response.chunk()).await;
        assert!(more.is_err(), "silent but open, not {more:?}");
    }
    cloud.fail_next_message(Fault::Silence {
        events: 0,
        pings: true,
    });
    let mut response = post(&cloud, PATH, say("SAY ab", "o-pings")).await;
    for _ in 0..3 {
        let part = response.chunk().await.unwrap().unwrap();
        assert!(std::str::from_utf8(&part).unwrap().contains("\"ping\""));
    }
}

#[tokio::test]
async fn a_failed_run_keeps_its_error_and_repeats_it() {
    let cloud = cloud().await;
    cloud.fail_next_message(Fault::llm_api_error("Error code: 529 - overloaded"));
    let body = post(&cloud, PATH, say("SAY x", "o1"))
        .await
        .text()
        .await
        .unwrap();
    assert!(body.contains("event: error\n"));
    let all = chunks(&body);
    assert_eq!(stop(&all), "llm_api_error");
    let run = cloud.api_get("/v1/runs/").await[0].clone();
    assert_eq!(run["status"], "failed");
    assert_eq!(
        run["metadata"]["error"]["detail"],
        "Error code: 529 - overloaded"
    );
    let path = format!("/v1/runs/{}/stream", run["id"].as_str().unwrap());
    let replay = post(&cloud, &path, json!({"starting_after": 0}))
        .await
        .text()
        .await
        .unwrap();
    assert_eq!(replay, body);
}

#[tokio::test]
async fn an_error_can_come_as_data_and_a_body_can_be_empty() {
    let cloud = cloud().await;
    let error = json!({"message": "m", "error_type": "llm_error"});
    cloud.fail_next_message(Fault::ErrorMessage {
        stop_reason: "llm_api_error".into(),
        error,
    });
    let body = post(&cloud, PATH, say("SAY x", "o1"))
        .await
        .text()
        .await
        .unwrap();
    assert!(!body.contains("event: error"));
    assert!(
        chunks(&body)
            .iter()
            .any(|c| c["message_type"] == "error_message" && c["message"] == "m")
    );
    cloud.fail_next_message(Fault::EmptyBody);
    let empty = post(&cloud, PATH, say("SAY x", "o2")).await;
    assert_eq!(empty.headers()["content-type"], "text/event-stream");
    assert_eq!(empty.text().await.unwrap(), "");
}

#[tokio::test]
async fn a_fault_can_be_meant_for_one_conversation_or_one_path() {
    let cloud = cloud().await;
    cloud.fail_next_message_of("conv-2", Fault::status(500));
    cloud.fail_next_request("GET /v1/agents/agent-1/secrets", Fault::status(502));
    assert_eq!(text(&send(&cloud, "conv-1", say("SAY x", "o1")).await), "x");
    assert_eq!(get(&cloud, "/v1/agents/agent-1").await.status(), 200);
    assert_eq!(cloud.faults_left(), 2);
    assert_eq!(
        get(&cloud, "/v1/agents/agent-1/secrets").await.status(),
        502
    );
    let other = post(
        &cloud,
        "/v1/conversations/conv-2/messages",
        say("SAY x", "o2"),
    )
    .await;
    assert_eq!(other.status(), 500);
}

#[tokio::test]
async fn a_person_can_queue_the_same_faults_over_http() {
    let cloud = cloud().await;
    let body = json!({"on": "message", "fault": "status", "status": 503, "times": 2});
    post(&cloud, "/lab/fail", body).await;
    for wanted in [503, 503, 200] {
        assert_eq!(
            post(&cloud, PATH, say("SAY x", "o1")).await.status(),
            wanted
        );
    }
    let bad = post(
        &cloud,
        "/lab/fail",
        json!({"on": "message", "fault": "nonsense"}),
    )
    .await;
    assert_eq!(bad.status(), 400);
}
