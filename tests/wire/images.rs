//! Images that people send (03 §17).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use local_cloud::Decision;
use serde_json::{Value, json};

use crate::harness::{Lab, scope};

fn message(data: &str) -> Value {
    json!({"content": [{"type": "text", "text": "SAY seen"}, {"type": "image", "source":
        {"type": "base64", "media_type": "image/png", "data": data}}]})
}

#[tokio::test]
async fn s03_22_row23_an_image_is_scaled_before_it_is_sent() {
    let lab = Lab::start().await;
    let mut png = std::io::Cursor::new(Vec::new());
    let pixels = image::GrayImage::new(3000, 3000);
    pixels.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let sent = message(&STANDARD.encode(png.into_inner()));
    let ignore = |_: &Value| Decision::Ignore;
    let turn = lab.cloud.turn_with(&scope(), sent, json!({}), ignore).await;
    assert_eq!(turn.unwrap().text(), "seen");
    let body = &lab.cloud.message_bodies("conv-1")[0];
    let content = body["messages"][0]["content"].as_array().unwrap();
    let source = &content.last().unwrap()["source"];
    let bytes = STANDARD.decode(source["data"].as_str().unwrap()).unwrap();
    let image = image::load_from_memory(&bytes).unwrap();
    assert_eq!((image.width(), image.height()), (2000, 2000));
}

#[tokio::test]
async fn s03_22_row23_a_broken_image_ends_the_turn_or_is_left_out() {
    let lab = Lab::start().await;
    let ignore = |_: &Value| Decision::Ignore;
    let strict = lab
        .cloud
        .turn_with(&scope(), message("bm8="), json!({}), ignore)
        .await
        .unwrap();
    assert_eq!(strict.stop_reason(), "error");
    let error = strict.finished["error"].as_str().unwrap();
    assert!(
        error.starts_with("Failed to prepare image for model"),
        "{error}"
    );
    assert!(lab.cloud.message_bodies("conv-1").is_empty());
    let drop = json!({"image_failure_mode": "drop"});
    let dropped = lab
        .cloud
        .turn_with(&scope(), message("bm8="), drop, ignore)
        .await
        .unwrap();
    assert_eq!(dropped.text(), "seen");
    let body = lab.cloud.message_bodies("conv-1")[0].to_string();
    assert!(!body.contains("\"image\""), "{body}");
}
