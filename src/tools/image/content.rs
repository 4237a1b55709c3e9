//! Images inside messages: those that a client sends and those that a tool
//! returns (03 §17).
//!
//! Invariant: what leaves here holds only base64 images that the API takes, or
//! images that are not base64 at all; nothing else of a message changes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Images, MAX_FILE_BYTES, fit};

/// Stands where an image was, so that no message is left empty.
const LEFT_OUT: &str = "[An image was left out: it could not be prepared.]";

/// An image that cannot be prepared, as people read it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Failed to prepare image for model: {0}")]
pub struct Unprepared(String);

/// What happens to an image that cannot be prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It is an error.
    Fail,
    /// A note takes its place.
    LeaveOut,
}

impl Images {
    /// Prepares the images in the `content` of messages and in the
    /// `tool_return` of approval items. One image is decoded at a time, off the
    /// runtime's threads; messages without images cost a look.
    ///
    /// # Errors
    /// The first image that cannot be prepared, unless it may be left out.
    pub async fn prepare(
        &self,
        mut messages: Vec<Value>,
        on_failure: OnFailure,
    ) -> Result<Vec<Value>, Unprepared> {
        if !messages.iter_mut().any(holds_image) {
            return Ok(messages);
        }
        let gone = || Unprepared("the work was cut off".into());
        let permit = self.0.clone().acquire_owned().await.map_err(|_| gone())?;
        let work = tokio::task::spawn_blocking(move || {
            // Held by the work, which may outlive an aborted turn.
            let _permit = permit;
            for message in &mut messages {
                for_parts(message, |parts| prepare_parts(parts, on_failure))?;
            }
            Ok(messages)
        });
        work.await.map_err(|_| gone())?
    }
}

/// Calls `with` for every list of content parts in a message.
fn for_parts<E>(
    message: &mut Value,
    mut with: impl FnMut(&mut Vec<Value>) -> Result<(), E>,
) -> Result<(), E> {
    if let Some(parts) = message.get_mut("content").and_then(Value::as_array_mut) {
        with(parts)?;
    }
    let approvals = message.get_mut("approvals").and_then(Value::as_array_mut);
    for item in approvals.into_iter().flatten() {
        if let Some(parts) = item.get_mut("tool_return").and_then(Value::as_array_mut) {
            with(parts)?;
        }
    }
    Ok(())
}

fn holds_image(message: &mut Value) -> bool {
    let look = |parts: &mut Vec<Value>| match parts.iter().any(is_image) {
        true => Err(()),
        false => Ok(()),
    };
    for_parts(message, look).is_err()
}

/// Whether a part is an image in base64, and not an empty one.
fn is_image(part: &Value) -> bool {
    part["type"] == "image"
        && part["source"]["type"] == "base64"
        && part["source"]["data"]
            .as_str()
            .is_some_and(|data| !data.is_empty())
}

fn prepare_parts(parts: &mut [Value], on_failure: OnFailure) -> Result<(), Unprepared> {
    for part in parts.iter_mut().filter(|part| is_image(part)) {
        match (prepared(&part["source"]), on_failure) {
            (Ok(source), _) => part["source"] = source,
            (Err(_), OnFailure::LeaveOut) => *part = json!({"type": "text", "text": LEFT_OUT}),
            (Err(detail), OnFailure::Fail) => return Err(Unprepared(detail)),
        }
    }
    Ok(())
}

/// The source of an image that the API takes; the type is that of its bytes.
fn prepared(source: &Value) -> Result<Value, String> {
    let data = source["data"].as_str().unwrap_or_default().trim();
    if data.len() as u64 / 4 * 3 > MAX_FILE_BYTES {
        return Err(format!("it has more than {MAX_FILE_BYTES} bytes"));
    }
    let bytes = STANDARD.decode(data);
    let bytes = bytes.map_err(|error| format!("its data is not base64 ({error})"))?;
    let fitted = fit(bytes).map_err(|error| error.to_string())?;
    Ok(json!({"type": "base64", "media_type": fitted.media_type,
        "data": STANDARD.encode(&fitted.bytes)}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn image(width: u32, height: u32) -> Value {
        let mut png = Cursor::new(Vec::new());
        let pixels = image::RgbImage::new(width, height);
        pixels.write_to(&mut png, image::ImageFormat::Png).unwrap();
        part("image/jpeg", &STANDARD.encode(png.into_inner()))
    }

    fn part(media_type: &str, data: &str) -> Value {
        json!({"type": "image",
            "source": {"type": "base64", "media_type": media_type, "data": data}})
    }

    fn size(part: &Value) -> (u32, u32) {
        let bytes = STANDARD.decode(part["source"]["data"].as_str().unwrap());
        let image = image::load_from_memory(&bytes.unwrap()).unwrap();
        (image.width(), image.height())
    }

    #[tokio::test]
    async fn s03_22_row23_large_images_shrink_and_are_named_after_their_bytes() {
        let message = json!({"role": "user", "content": [
            {"type": "text", "text": "look"}, image(3000, 1500)]});
        let approval = json!({"type": "approval", "approvals": [
            {"type": "tool", "tool_return": [image(10, 2500)]},
            {"type": "tool", "tool_return": "text"}]});
        let messages = vec![message, approval];
        let sent = Images::default()
            .prepare(messages, OnFailure::Fail)
            .await
            .unwrap();
        let first = &sent[0]["content"][1];
        assert_eq!(first["source"]["media_type"], "image/png");
        assert_eq!(size(first), (2000, 1000));
        assert_eq!(size(&sent[1]["approvals"][0]["tool_return"][0]), (8, 2000));
        assert_eq!(sent[1]["approvals"][1]["tool_return"], "text");
    }

    #[tokio::test]
    async fn s03_22_row23_a_broken_image_is_an_error_or_left_out_as_asked() {
        for (data, said) in [("bm8gaW1hZ2U=", "not a PNG"), ("*", "not base64")] {
            let broken = vec![json!({"role": "user", "content": [part("image/png", data)]})];
            let images = Images::default();
            let error = images
                .prepare(broken.clone(), OnFailure::Fail)
                .await
                .unwrap_err();
            let text = error.to_string();
            assert!(
                text.starts_with("Failed to prepare image for model: "),
                "{text}"
            );
            assert!(text.contains(said), "{text}");
            let sent = images.prepare(broken, OnFailure::LeaveOut).await.unwrap();
            assert_eq!(sent[0]["content"][0]["text"], LEFT_OUT);
        }
    }

    #[tokio::test]
    async fn what_is_no_base64_image_passes_untouched() {
        let url = json!({"type": "image", "source": {"type": "url", "url": "https://x/y.png"}});
        let empty = part("image/png", "");
        let messages = vec![
            json!({"role": "user", "content": [url, empty]}),
            json!({"role": "user", "content": "text"}),
        ];
        let sent = Images::default()
            .prepare(messages.clone(), OnFailure::Fail)
            .await;
        assert_eq!(sent.unwrap(), messages);
    }
}
